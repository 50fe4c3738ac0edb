//! What stands for `std::task` and `tokio::task`.

pub(crate) use real::task::{Context, Poll, Waker, ready};

use crate::io;

/// For what mostly waits, outside all limits. No model does that.
pub(crate) async fn spawn_blocking<T>(_: impl FnOnce() -> T) -> Result<T, io::Error> {
    unreachable!("there is no I/O in here")
}
