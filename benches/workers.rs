//! What a second worker gains, beside what a second thread gains where there is nothing but the cipher.
//!
//! ```text
//! cargo bench --bench workers
//! ```
//!
//! From memory to memory, on a runtime with two threads. A round is: one worker, two workers, the bare AEAD on one thread, the
//! same bytes on two threads; what is printed is how much faster two are than one, ours as a share of the bare one's. Two cores
//! that share something, or that something else needs, gain less than a factor of two: that is why the bare AEAD tells what
//! there was to gain.

mod common;

use std::{thread, time::Duration};

use agcm::DecryptOptions;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::common::{
    KIB, MIB, Results, Rounds, Run,
    bare::{BACKEND, Bare, TAG},
    only_tested,
    ours::{self, Shape, sealing},
    size, time_by_the_wall, timed,
};

const STREAM: usize = 64 * MIB;
const CHUNKS: [usize; 3] = [64 * KIB, MIB, 4 * MIB];
const BUDGET: Duration = Duration::from_secs(6);

struct Way {
    name: &'static str,
    make: for<'a> fn(&'a Runtime, Shape, usize) -> Run<'a>,
    bare: fn(usize, usize) -> Run<'static>,
}

const WAYS: [Way; 5] = [
    Way {
        name: "EncryptWriter",
        make: |runtime, shape, n| ours::writer(runtime, sealing(shape.chunk).workers(n), shape, shape.chunk),
        bare: sealed_by,
    },
    Way {
        name: "EncryptReader, fill_buf",
        make: |runtime, shape, n| ours::pulling_encryptor(runtime, sealing(shape.chunk).workers(n), shape),
        bare: sealed_by,
    },
    Way {
        name: "encrypt",
        make: |_, shape, n| ours::sealed_at_once(sealing(shape.chunk).workers(n), shape),
        bare: sealed_by,
    },
    Way {
        name: "DecryptReader, fill_buf",
        make: |runtime, shape, n| ours::buffered_reader(runtime, DecryptOptions::new().workers(n), shape),
        bare: opened_by,
    },
    Way {
        name: "decrypt",
        make: |_, shape, n| ours::opened_at_once(DecryptOptions::new().workers(n), shape),
        bare: opened_by,
    },
];

fn main() {
    if only_tested() {
        return;
    }
    time_by_the_wall();
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime can be built");
    let mut results = Results::new("workers");
    println!("what a second worker gains, as a share of what a second thread gains with bare {BACKEND}:");
    for way in &WAYS {
        for chunk in CHUNKS {
            let name = format!("{}: {} in chunks of {}", way.name, size(STREAM), size(chunk));
            if !results.wanted(&name) {
                continue;
            }
            let shape = Shape::new(chunk, STREAM);
            let make = |workers| (way.make)(&runtime, shape, workers);
            let mut sides = [make(1), make(2), (way.bare)(chunk, 1), (way.bare)(chunk, 2)];
            let rounds = Rounds::take(STREAM, BUDGET, 5, &mut sides);
            let share = rounds.each(|seconds| (seconds[0] / seconds[1]) / (seconds[2] / seconds[3]));
            let details = json!({
                "way": way.name, "chunk": chunk, "stream": STREAM, "ours": rounds.rate(1), "base": rounds.rate(3),
                "gain": rounds.ratio(1, 0).median, "bare_gain": rounds.ratio(3, 2).median,
            });
            results.add("workers", &name, share, details);
        }
    }
}

fn sealed_by(chunk: usize, threads: usize) -> Run<'static> {
    shared_by(chunk, threads, Bare::seal)
}

/// What was opened is sealed again, so that there is something to open: that takes half of the time, on either side of the ratio.
fn opened_by(chunk: usize, threads: usize) -> Run<'static> {
    shared_by(chunk, threads, |bare, frame| {
        bare.seal(frame);
        bare.open(frame);
    })
}

/// `STREAM` bytes, in equal parts on so many threads; each has a key and frames of its own.
fn shared_by(chunk: usize, threads: usize, work: fn(&Bare, &mut [u8])) -> Run<'static> {
    let mut parts: Vec<_> = (0..threads).map(|_| (Bare::new(), vec![0; chunk + TAG])).collect();
    Box::new(move || {
        timed(|| {
            thread::scope(|scope| {
                for (bare, frame) in &mut parts {
                    scope.spawn(move || (0..STREAM / chunk / threads).for_each(|_| work(bare, frame)));
                }
            });
        })
    })
}
