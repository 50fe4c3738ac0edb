//! What must hold, in whatever order threads take their turns.
//!
//! A model that comes to no end, since somebody waits for what was forgotten, is one that loom ends as a deadlock.

use loom::sync::{Condvar, Mutex};

use crate::panic::resume_unwind;

mod buffers;
mod helpers;
mod lanes;
mod places;

pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// What the process is told that it has.
    pub(crate) cores: usize,
    /// How often a thread may be made to wait though it could go on; `None` if that is to be as often as it can be.
    pub(crate) preemptions: Option<usize>,
    pub(crate) run: fn(),
}

pub(crate) fn all() -> impl Iterator<Item = &'static Model> {
    [places::MODELS, lanes::MODELS, buffers::MODELS, helpers::MODELS].into_iter().flatten()
}

/// What is worked on, and what has been.
#[derive(Default)]
struct Log {
    now: Vec<usize>,
    ended: Vec<usize>,
}

/// The jobs of a model tell it when they begin and when they end.
struct Watch {
    most: usize,
    log: Mutex<Log>,
    changed: Condvar,
}

impl Watch {
    /// No more than `most` jobs may be under way at a time.
    fn new(most: usize) -> Self {
        Self { most, log: Mutex::default(), changed: Condvar::new() }
    }

    /// Does the job of this number, for the first time. `check` is told what has ended when it begins.
    fn job(&self, number: usize, check: impl FnOnce(&[usize])) {
        let mut log = self.log.lock().unwrap();
        log.now.push(number);
        let is_once = log.now.iter().chain(&log.ended).filter(|other| **other == number).count() == 1;
        assert!(is_once, "job {number} is done twice");
        assert!(log.now.len() <= self.most, "{:?} at a time", log.now);
        check(&log.ended);
        drop(log);

        let mut log = self.log.lock().unwrap();
        log.now.retain(|other| *other != number);
        log.ended.push(number);
        drop(log);
        self.changed.notify_one();
    }

    /// Waits until so many jobs have ended. Only one thread may wait.
    fn wait_for(&self, jobs: usize) {
        let mut log = self.log.lock().unwrap();
        while log.ended.len() < jobs {
            log = self.changed.wait(log).unwrap();
        }
        assert_eq!(log.ended.len(), jobs);
    }

    fn ended(&self) -> Vec<usize> {
        let mut ended = self.log.lock().unwrap().ended.clone();
        ended.sort();
        ended
    }
}

/// Panics without a word.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("this panic is part of a model"))
}
