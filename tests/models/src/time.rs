//! What stands for `std::time`: a clock that stands still, and then, at one stroke, is past everything.

use real::sync::atomic::{AtomicUsize as RealUsize, Ordering};

pub(crate) use real::time::Duration;

use crate::sync::atomic::AtomicUsize;

/// How often whoever asks hears in a run that no time has passed.
static STANDS_FOR: RealUsize = RealUsize::new(usize::MAX);
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// For the first thread of a run, before it starts others.
pub(crate) fn stand_for(looks: usize) {
    ASKED.store(0, Ordering::SeqCst);
    STANDS_FOR.store(looks, Ordering::Relaxed);
}

pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let passed = match STANDS_FOR.load(Ordering::Relaxed) {
            usize::MAX => false,
            looks => ASKED.fetch_add(1, Ordering::SeqCst) >= looks,
        };
        if passed { Duration::MAX } else { Duration::ZERO }
    }
}
