//! Runs the crate's own synchronisation under [loom](https://docs.rs/loom), which tries every way in which threads can take turns.
//!
//! What is compiled here are the library's source files themselves, unchanged. In this crate `std` and `tokio` are this crate: so
//! the files find the stand-ins of [`sync`], [`thread`], [`task`], [`runtime`] and [`time`] where they look for the originals. What
//! is not named here does not compile, so that nothing can get past loom unseen.

#![allow(dead_code, reason = "the models need only a part of what the library's files hold")]
#![warn(unsafe_code)]

extern crate self as std;
extern crate self as tokio;
extern crate std as real;

use real::{
    collections, env, fmt, future, io, mem, num, ops, panic, pin,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

mod models;
mod runtime;
mod sync;
mod task;
mod thread;
mod time;

#[path = "../../../src/blocking.rs"]
mod blocking;
#[path = "../../../src/offload.rs"]
mod offload;
#[path = "../../../src/parallel.rs"]
mod parallel;
#[path = "../../../src/pool.rs"]
mod pool;
#[path = "../../../src/threads.rs"]
mod threads;

use models::Model;

/// Nothing here hangs on how long a batch is.
mod format {
    pub(crate) fn longest_frame(chunk_size: usize) -> usize {
        chunk_size
    }
}

/// How many runs were begun. It tells apart what is of one run only.
static RUNS: AtomicUsize = AtomicUsize::new(0);

fn run() -> usize {
    RUNS.load(Relaxed)
}

/// Explores the models whose names contain what was asked for, or all, each in a process of its own, with its own statics.
fn main() -> ExitCode {
    let wanted = env::args().nth(1).unwrap_or_default();
    if let Some(model) = models::all().find(|model| model.name == wanted) {
        explore(model);
        return ExitCode::SUCCESS;
    }
    if !models::all().any(|model| model.name.contains(&wanted)) {
        println!("no model is called so: {wanted}");
        return ExitCode::FAILURE;
    }
    let names = Mutex::new(models::all().map(|model| model.name).filter(|name| name.contains(&wanted)));
    let failed = Mutex::new(Vec::new());
    let next = || names.lock().unwrap().next();
    let explore_some = || {
        while let Some(name) = next() {
            if !passes_alone(name).unwrap_or_default() {
                failed.lock().unwrap().push(name);
            }
        }
    };
    real::thread::scope(|scope| {
        for _ in 0..real::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(explore_some);
        }
    });
    match &failed.into_inner().unwrap()[..] {
        [] => ExitCode::SUCCESS,
        failed => {
            println!("failed: {}", failed.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn passes_alone(name: &str) -> io::Result<bool> {
    Ok(Command::new(env::current_exe()?).arg(name).status()?.success())
}

fn explore(model: &Model) {
    let start = Instant::now();
    thread::set_available_parallelism(model.cores);
    let mut loom = loom::model::Builder::new();
    // `LOOM_MAX_PREEMPTIONS` goes before, but bounds nothing that has no bound.
    loom.preemption_bound = model.preemptions.map(|most| loom.preemption_bound.unwrap_or(most));
    loom.max_branches = 10_000;
    let run = model.run;
    loom.check(move || {
        RUNS.fetch_add(1, Relaxed);
        run();
    });
    let bound = loom.preemption_bound.map_or("all".to_owned(), |most| format!("all of up to {most} pre-emptions"));
    println!("{}: {} runs, {bound}, {:.1?}", model.name, RUNS.load(Relaxed), start.elapsed());
}
