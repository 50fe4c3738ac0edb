//! Secrets are wiped: what is freed holds none, and what a process still has in memory holds none on its heap.
//!
//! Looked for are the input key (raw, in hex, and as HMAC pads it and hashes that), the stream key, all round keys of AES and the
//! hash key of GHASH, the key that a passphrase gives, the passphrase, what Argon2 fills its memory with, and marked plaintext.
//!
//! [`freed`] looks at all that the library gives back to the allocator. What it cannot see: stacks, registers, and the heap of C,
//! on which AWS-LC keeps its keys. [`whole_memory`] looks at all of a process, these included, from outside.
//!
//! What is the caller's is kept until nobody looks: the plaintext that it passes in, and what it gets back (a `Vec`, `Bytes`, what
//! is written to its writer). The buffers of `FramedRead` and `FramedWrite` are its own as well, and the frames that a decoder
//! yields lie in the buffer that they arrived in.

#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside this test can reach anything in it")]

mod allocator;
#[allow(dead_code, reason = "shared with the suite")]
#[path = "../support/folder.rs"]
mod folder;
mod freed;
mod needles;
#[allow(dead_code, reason = "shared with the suite")]
#[path = "../support/reference.rs"]
mod reference;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod whole_memory;
