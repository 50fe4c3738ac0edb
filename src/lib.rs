//! Streaming AES-256-GCM for async Rust
#![forbid(unsafe_code)]

mod aead;
pub mod codec;
mod decrypt;
mod encrypt;
mod error;
mod file;
pub mod format;
mod geometry;
mod io;
mod key;
mod oneshot;
mod options;
mod random;
#[cfg(test)]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the integration tests")]
#[path = "../tests/support/vectors.rs"]
mod vectors;

pub use crate::{
    decrypt::{Decryptor, Step},
    encrypt::Encryptor,
    error::Error,
    file::{decrypt_file, encrypt_file},
    format::{DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE},
    io::{DecryptReader, EncryptWriter},
    key::{Key, KeyRing},
    oneshot::{decrypt, encrypt},
    options::{DecryptOptions, EncryptOptions, Trailing},
};
