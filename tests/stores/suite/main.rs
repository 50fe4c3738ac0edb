//! Tests of `EncryptedStore`: what others ask of any store, what its own pages promise, and what must be an error.

mod integration;
mod requests;
