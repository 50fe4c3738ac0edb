//! Choices that are made by the bytes of a fuzzer.

use std::io::ErrorKind;

use arbitrary::{Arbitrary, Unstructured};

use crate::script::{Op, Script};

/// When the bytes run out, every choice is the first, the smallest, or no.
pub struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    pub fn are_over(&self) -> bool {
        self.0.is_empty()
    }

    /// 0 ..= `most`
    pub fn up_to(&mut self, most: usize) -> usize {
        self.0.int_in_range(0..=most).unwrap_or(0)
    }

    pub fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.up_to(choices.len() - 1)].clone()
    }

    pub fn yes(&mut self) -> bool {
        self.up_to(1) == 1
    }

    pub fn any<T: Arbitrary<'a> + Default>(&mut self) -> T {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = self.up_to(most).min(self.0.len());
        self.0.bytes(len).unwrap_or_default()
    }

    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// Mostly a small one: what holds a large chunk is wiped at its full length, which takes nearly all of the time.
    pub fn chunk_size(&mut self) -> usize {
        match self.up_to(255) {
            255 => 10 * 1024 * 1024,
            240..255 => 65_536,
            other => [16, 1, 2, 3, 7, 17, 32, 100, 1000][other % 9],
        }
    }

    /// Mostly one, for the same reason.
    pub fn workers(&mut self) -> usize {
        if self.up_to(63) == 63 { 2 + self.up_to(1) } else { 1 }
    }

    /// What an inner reader or writer does before it does as it should.
    pub fn script(&mut self, others: &[Op]) -> Script {
        let ops: Vec<Op> = (0..self.up_to(12))
            .map(|_| match self.up_to(2 + others.len()) {
                0 => Op::Some(1 + self.up_to(200)),
                1 => Op::Some(1),
                2 => Op::Pending,
                other => others[other - 3],
            })
            .collect();
        // Again and again only if that gets anywhere.
        let repeats = ops.iter().any(|op| matches!(op, Op::Some(_))) && ops.iter().all(|op| !is_fault(op));
        if repeats && self.yes() { Script::repeat(ops) } else { Script::once(ops) }
    }
}

fn is_fault(op: &Op) -> bool {
    matches!(op, Op::Error(_) | Op::Zero)
}

/// What may go wrong inside of a reader. An early end is none: that is a shorter stream.
pub const READ_FAULTS: &[Op] = &[Op::Error(ErrorKind::TimedOut), Op::Error(ErrorKind::UnexpectedEof)];
/// What may go wrong inside of a writer.
pub const WRITE_FAULTS: &[Op] = &[Op::Error(ErrorKind::TimedOut), Op::Zero];
