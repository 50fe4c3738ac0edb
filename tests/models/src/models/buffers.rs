//! `pool.rs`: the buffers that go from stream to stream.

use super::Model;
use crate::{
    mem,
    pool::{Buffer, trim_memory},
};

pub(super) const MODELS: &[Model] = &[
    Model { name: "buffers::wiped_and_for_one", cores: 1, preemptions: None, run: wiped },
    Model { name: "buffers::no_more_than_the_most", cores: 1, preemptions: None, run: bounded },
];

/// What the pool keeps at most, in bytes.
const MOST: usize = 8 * 1024 * 1024;
/// Less than the least that is kept would be left to the allocator.
const SHORT: usize = 8 * 1024;

/// A buffer has room, is all zeroes, and is nobody else's; also while what is kept is freed.
fn wiped() {
    let stream = |len: usize| {
        move || {
            for left in [len, 10] {
                let mut buffer = Buffer::zeroed(len);
                assert!(buffer.len() == len && buffer.iter().all(|byte| *byte == 0));
                buffer.fill(7);
                buffer.truncate(left);
            }
        }
    };
    // Either may get what was the other's.
    let others = [2 * SHORT, 2 * SHORT - 256].map(|len| loom::thread::spawn(stream(len)));
    trim_memory();
    others.into_iter().for_each(|other| other.join().unwrap());
    trim_memory();
    assert!(!was_kept(2 * SHORT) && !was_kept(2 * SHORT - 256));
    trim_memory();
}

/// Two threads give back what is too much together.
fn bounded() {
    let capacities = [0, 1, 2, 3].map(|i| MOST / 3 / 256 * 256 + i * SHORT);
    let [a, b, c, d] = capacities.map(Buffer::with_capacity);
    let other = loom::thread::spawn(move || drop((a, b)));
    drop((c, d));
    other.join().unwrap();
    let kept: Vec<_> = capacities.into_iter().filter(|capacity| was_kept(*capacity)).collect();
    assert!(kept.len() > 1 && kept.iter().sum::<usize>() <= MOST, "{kept:?}");
    trim_memory();
}

/// Whether a buffer of just this capacity was kept. It is not, after this.
fn was_kept(capacity: usize) -> bool {
    let buffer = Buffer::with_capacity(capacity - 1024);
    // One that is new has no more room than it was made with.
    let was_kept = buffer.capacity() == capacity;
    mem::forget(buffer);
    was_kept
}
