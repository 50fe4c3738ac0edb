//! What stands for `std::task` and `tokio::task`.

pub(crate) use real::task::{Context, Poll, Waker, ready};

use crate::io;

/// Turns of tasks are none of what is modelled: each goes on for ever.
pub(crate) mod coop {
    use super::{Context, Poll};

    pub(crate) struct Step;

    impl Step {
        pub(crate) fn made_progress(&self) {}
    }

    pub(crate) fn has_budget_remaining() -> bool {
        true
    }

    pub(crate) fn poll_proceed(_: &mut Context<'_>) -> Poll<Step> {
        Poll::Ready(Step)
    }
}

/// For what mostly waits, outside all limits. No model does that.
pub(crate) async fn spawn_blocking<T>(_: impl FnOnce() -> T) -> Result<T, io::Error> {
    unreachable!("there is no I/O in here")
}
