//! What is fuzzed: for each target one function that takes bytes, and panics if the crate did what it must never do.
//!
//! `fuzz/` feeds them from libFuzzer. As a test, `corpora` feeds them what that has found worth keeping. So nothing here may
//! depend on time or chance, or a finding could not be repeated: streams are made by the reference, under one key and one
//! nonce, and where the crate draws a nonce of its own, nothing is decided by it.

#![allow(clippy::unwrap_used, reason = "a target fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "some is shared with the other tests, and all with libFuzzer")]
#![allow(missing_docs, missing_debug_implementations, reason = "nobody else can use it")]
#![allow(clippy::missing_panics_doc, reason = "and to panic is what it is for")]

#[path = "../support/drive.rs"]
mod drive;
#[path = "../support/reference.rs"]
mod reference;
#[path = "../support/script.rs"]
mod script;
#[path = "../support/vectors.rs"]
mod vectors;
#[path = "../support/ways.rs"]
mod ways;

mod choices;
mod made;
mod model;

pub mod differential;
pub mod geometry;
pub mod key_file;
#[cfg(all(unix, feature = "passphrase"))]
pub mod key_store;
pub mod legacy;
pub mod mutated;
pub mod raw;
pub mod writer;

#[cfg(test)]
mod corpora;
