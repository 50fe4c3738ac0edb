//! The command line.
//!
//! A command must never panic, never show a key (but for those that make or export one) or leave it in a core file, and never end with status 0
//! unless all of it was done. Everything that touches a stream or a key is the library's; here are only words, files and terminals.

#![forbid(unsafe_code)]

mod args;
mod bar;
mod bench;
mod commands;
mod direct;
mod failure;
mod guards;
mod keys;
mod snapshots;
mod streams;
mod terminal;

use std::{io::Write, process::ExitCode, sync::LazyLock, time::Duration};

use clap::Parser;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::{args::Arguments, failure::Failure, streams::Run};

/// How long after a signal others are the same request: `timeout` sends one to the process, and one to its group, which it is in.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// `SIGXFSZ`, on most of the machines that Linux runs on.
#[cfg(target_os = "linux")]
const FILE_SIZE_SIGNAL: i32 = 25;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    leave_no_core();
    let arguments = Arguments::parse();
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    let code = runtime.block_on(run(arguments));
    // A thread that waits for standard input must not be waited for.
    runtime.shutdown_background();
    code
}

/// A core file would hold keys and plaintext, for whoever gets to read it, and for as long as it is there.
///
/// To be sure, not 0 but 1: less than the least core, and where the kernel hands cores to a program instead of a file, which it
/// does whatever the limit is, this alone keeps it from that. If it fails, all is as it would be otherwise.
#[cfg(target_os = "linux")]
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let most = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(most), maximum: Some(most) });
}

async fn run(arguments: Arguments) -> ExitCode {
    // Where files may not grow any more (`ulimit -f`), that is to be an error like a full disk, not the end of the process.
    #[cfg(target_os = "linux")]
    let _not_deadly = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(FILE_SIZE_SIGNAL));
    let cancel = CancellationToken::new();
    let run = Run { cancel: cancel.clone(), quiet: arguments.quiet };
    let mut work = std::pin::pin!(commands::run(&run, arguments.command));
    let (signal, result) = tokio::select! {
        // A signal must not come between the start of the work and our listening for it.
        biased;
        signal = signal() => {
            cancel.cancel();
            // It removes what it has begun. That may have to wait for a disk; whoever cannot, asks once more.
            let asked_again = async {
                tokio::time::sleep(ONE_REQUEST).await;
                self::signal().await
            };
            tokio::select! {
                result = &mut work => (Some(signal), Some(result)),
                _ = asked_again => (Some(signal), None),
            }
        }
        result = &mut work => (None, Some(result)),
    };
    match (result, signal) {
        // It may have been done before it could be stopped.
        (Some(Ok(())), _) => ExitCode::SUCCESS,
        (failed, Some(signal)) => {
            // What became of it: that nothing was published, or that something was left behind.
            if let Some(Err(failure)) = failed {
                report(&failure);
            }
            ExitCode::from(128 + signal)
        }
        (Some(Err(failure)), None) => report(&failure),
        (None, None) => report(&Failure::other("nothing was done")),
    }
}

fn report(failure: &Failure) -> ExitCode {
    if let Some(words) = &failure.words {
        // Nobody is left to tell if this fails.
        let _ = writeln!(std::io::stderr(), "agcm: {words}");
    }
    ExitCode::from(failure.status)
}

/// Waits for a signal that asks to stop, and returns its number.
#[cfg(unix)]
async fn signal() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};

    async fn one(kind: SignalKind, number: u8) -> u8 {
        // What was started with `nohup`, or in the background of a script, is not to be stopped.
        let listening = if is_ignored(number) { None } else { signal(kind).ok() };
        match listening {
            Some(mut signal) => {
                signal.recv().await;
                number
            }
            None => std::future::pending().await,
        }
    }

    tokio::select! {
        // Of several at once, always the same one.
        biased;
        number = one(SignalKind::terminate(), 15) => number,
        number = one(SignalKind::interrupt(), 2) => number,
        number = one(SignalKind::hangup(), 1) => number,
    }
}

/// Whether whoever started this has it ignore a signal; known on Linux only.
#[cfg(unix)]
fn is_ignored(number: u8) -> bool {
    // As it was before anything listened for a signal.
    static IGNORED: LazyLock<u64> = LazyLock::new(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    });
    *IGNORED >> (number - 1) & 1 == 1
}

#[cfg(not(unix))]
async fn signal() -> u8 {
    match tokio::signal::ctrl_c().await {
        Ok(()) => 2,
        Err(_) => std::future::pending().await,
    }
}
