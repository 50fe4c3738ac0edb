//! What the services and programs here do, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod compress;
mod curl;
mod http;
mod leaving;
mod readme;
mod support;
