//! What a user can observe of the crate, held against the vectors, against tampering and against awkward I/O.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside this test can reach anything in it")]

#[path = "../support/drive.rs"]
mod drive;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/forms.rs"]
mod forms;
#[path = "../support/reference.rs"]
mod reference;
#[path = "../support/script.rs"]
mod script;
#[path = "../support/streams.rs"]
mod streams;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[path = "../support/traced.rs"]
mod traced;
#[path = "../support/vectors.rs"]
mod vectors;
#[path = "../support/ways.rs"]
mod ways;

mod api;
mod codec;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod constant_time;
mod decrypt_reader;
mod decrypt_writer;
mod encrypt_reader;
mod encrypt_writer;
mod fairness;
mod file;
mod geometry;
mod inspect;
#[cfg(feature = "keyring")]
mod keychain;
mod keystore;
mod legacy;
mod limits;
mod progress;
mod properties;
mod range_reader;
mod redacted;
mod replay;
mod seek_reader;
mod snapshot;
mod tamper;
mod vector;
mod workers;
