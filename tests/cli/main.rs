//! What a user can observe of the command line: what it does, how it fails, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside this test can reach anything in it")]

#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/forms.rs"]
mod forms;
#[cfg(unix)]
mod terminal;
mod tool;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[path = "../support/traced.rs"]
mod traced;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod tracer;

mod failures;
#[cfg(unix)]
mod full_disk;
mod guide;
mod import;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod injected;
mod keys;
#[cfg(unix)]
mod kills;
mod recover;
mod rekey;
mod secrets;
#[cfg(unix)]
mod signals;
mod snapshots;
mod streams;
#[cfg(unix)]
mod terminals;
mod texts;
