//! Without the feature `tracing`: nothing.

use std::io;

use super::Direction;
use crate::error::Error;

/// Nobody watches.
pub(crate) struct Watch;

impl Watch {
    pub(crate) fn new(_: Direction) -> Self {
        Self
    }

    pub(crate) fn start(&mut self, _: usize) {}

    pub(crate) fn pass(&mut self, _: u64, _: u64) {}

    pub(crate) fn reach_passed(&mut self) {}

    pub(crate) fn reach(&mut self, _: u64, _: u64) {}

    pub(crate) fn finish(&mut self) {}

    pub(crate) fn fail(&mut self, _: Error) {}

    pub(crate) fn fail_here(&mut self, _: Error) {}
}

pub(crate) fn reader_opened(_: usize, _: u64, _: u64, _: bool) {}

pub(crate) fn reader_failed(_: Error) {}

pub(crate) fn range_failed(_: Error) {}

pub(crate) struct Job;

impl Job {
    pub(crate) fn new(_: &'static str) -> Self {
        Self
    }

    pub(crate) fn carry<T, F: FnOnce() -> T>(&self, work: F) -> F {
        work
    }

    pub(crate) fn watch<F: Future<Output = io::Result<u64>>>(self, work: F) -> F {
        work
    }
}
