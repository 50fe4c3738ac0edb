//! Faults under every adapter, injected as a seed tells.
//!
//! Each run takes a seed, which stands for one adapter, one stream, one caller and the faults of one inner value. Whatever those
//! do, it must never hang or panic, release plaintext that is not authentic, get a byte wrong or lose one, report a clean end of
//! a bad stream, or keep an error to itself.
//!
//! ```sh
//! cargo test --test faults -- --nocapture                       # 2000 seeds, and what was injected
//! AGCM_FAULTS=20000 AGCM_FAULT_FIRST=40000 cargo test --test faults -- --nocapture
//! AGCM_FAULT_SEED=1234 cargo test --test faults -- --nocapture  # one seed, step by step
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside this test can reach anything in it")]

mod by_offset;
mod doubles;
mod drive;
mod files;
mod inject;
mod proxy;
mod readers;
#[allow(dead_code, reason = "shared with the suite")]
#[path = "../support/reference.rs"]
mod reference;
mod specimen;
mod writers;

use std::{
    any::Any,
    collections::HashMap,
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process,
    sync::{LazyLock, Mutex, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use drive::{Place, Run};
use futures::{executor::block_on, future::BoxFuture};
use inject::{Dice, Injector, Weather};
use tokio::runtime::{Builder, Runtime};

/// How many seeds there are in each run of the tests, unless `AGCM_FAULTS` says otherwise.
const RUNS: u64 = 2000;

/// Which adapter a seed stands for is its remainder of this.
const ADAPTERS: u64 = 100;

/// After so long, a run hangs.
const TOO_LONG: Duration = Duration::from_secs(90);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// Runs the seeds that stand for this adapter.
fn each(adapter: &str, seeds: Range<u64>, needs_runtime: bool, run: fn(Run) -> BoxFuture<'static, ()>) {
    let (first, last) = match number("AGCM_FAULT_SEED") {
        Some(seed) => (seed, seed),
        None => {
            let first = number("AGCM_FAULT_FIRST").unwrap_or(0);
            (first, first + number("AGCM_FAULTS").unwrap_or(RUNS) - 1)
        }
    };
    let verbose = first == last;
    let start = Instant::now();
    let (mut runs, mut counts) = (0, std::collections::BTreeMap::<&str, u64>::new());
    for seed in (first..=last).filter(|seed| seeds.contains(&(seed % ADAPTERS))) {
        let mut dice = Dice::new(seed);
        let place = match dice.below(10) {
            0..4 if !needs_runtime => Place::Alone,
            0..6 => Place::CurrentThread,
            6..8 => Place::Entered,
            _ => Place::Task,
        };
        let mut weather = Weather::any(&mut dice);
        if needs_runtime {
            // Nobody can go on after an error here.
            weather.error = weather.error.min(2);
        }
        if verbose {
            eprintln!("seed {seed}: {adapter}, {place:?}, {weather:?}");
        }
        let injector = Injector::new(dice.others(), weather, place != Place::Alone, verbose);
        let future = run(Run::new(dice, injector.clone(), place));
        beat(Some(seed));
        let result = catch_unwind(AssertUnwindSafe(|| take_place(place, future)));
        beat(None);
        if let Err(panic) = result {
            eprintln!(
                "{adapter} fails with this seed, alone: AGCM_FAULT_SEED={seed} cargo test --test faults -- --nocapture"
            );
            resume_unwind(panic);
        }
        runs += 1;
        for (what, n) in &injector.state().counts {
            *counts.entry(what).or_default() += n;
        }
    }
    let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{n} x {what}")).collect();
    println!("{adapter}: {runs} runs in {:.1} s; {}", start.elapsed().as_secs_f64(), counts.join(", "));
}

fn take_place(place: Place, future: BoxFuture<'static, ()>) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    thread_local!(static OWN: Runtime = Builder::new_current_thread().enable_all().build().unwrap());
    match place {
        Place::Alone => block_on(future),
        Place::Entered => {
            let _entered = RUNTIME.enter();
            block_on(future);
        }
        Place::CurrentThread => OWN.with(|runtime| runtime.block_on(future)),
        Place::Task => {
            let task = RUNTIME.spawn(future);
            if let Err(error) = block_on(task) {
                resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error) as Box<dyn Any + Send>));
            }
        }
    }
}

/// Notes that this thread begins or ends a run. One that does not end takes the process with it, for a thread that spins cannot
/// be stopped.
fn beat(seed: Option<u64>) {
    static BEATS: Mutex<Option<HashMap<ThreadId, (u64, Instant)>>> = Mutex::new(None);
    let beats = || BEATS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = beats();
    let is_first = all.is_none();
    let map = all.get_or_insert_default();
    match seed {
        Some(seed) => map.insert(thread::current().id(), (seed, Instant::now())),
        None => map.remove(&thread::current().id()),
    };
    drop(all);
    if is_first {
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                let late =
                    beats().iter().flatten().find(|(_, (_, since))| since.elapsed() > TOO_LONG).map(|(_, beat)| beat.0);
                if let Some(seed) = late {
                    eprintln!("it hangs: AGCM_FAULT_SEED={seed} cargo test --test faults -- --nocapture");
                    process::abort();
                }
            }
        });
    }
}

macro_rules! adapters {
    ($($name:ident, $seeds:expr, $adapter:literal, $runtime:expr, $run:path;)*) => {
        $(
            #[test]
            fn $name() {
                each($adapter, $seeds, $runtime, |run| Box::pin($run(run)));
            }
        )*

        #[test]
        fn every_seed_stands_for_one_adapter() {
            let seeds: Vec<u64> = [$($seeds),*].into_iter().flatten().collect();
            assert_eq!(seeds, Vec::from_iter(0..ADAPTERS));
        }
    };
}

adapters! {
    encrypt_writer_stands_faults, 0..17, "EncryptWriter", false, writers::encrypt_writer;
    decrypt_writer_stands_faults, 17..31, "DecryptWriter", false, writers::decrypt_writer;
    encrypt_reader_stands_faults, 31..42, "EncryptReader", false, readers::encrypt_reader;
    decrypt_reader_stands_faults, 42..59, "DecryptReader", false, readers::decrypt_reader;
    seek_reader_stands_faults, 59..68, "SeekReader", false, by_offset::seek_reader;
    range_reader_stands_faults, 68..75, "RangeReader::read_range", false, by_offset::range_reader;
    range_stream_stands_faults, 75..80, "RangeReader::stream", false, by_offset::range_stream;
    framed_write_stands_faults, 80..86, "FrameEncoder in FramedWrite", false, writers::framed_write;
    framed_read_stands_faults, 86..92, "FrameDecoder in FramedRead", false, readers::framed_read;
    go_reader_stands_faults, 92..95, "GoReader", false, readers::go_reader;
    nested_readers_stand_faults, 95..98, "DecryptReader of EncryptReader", false, readers::nested_readers;
    encrypt_from_stands_faults, 98..99, "FileOptions::encrypt_from", true, files::encrypt_from;
    decrypt_from_stands_faults, 99..100, "FileOptions::decrypt_from", true, files::decrypt_from;
}
