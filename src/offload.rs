//! Keeps long work off the async threads.
//!
//! Sealing a chunk of 1 MiB takes a good part of a millisecond, and one of 10 MiB several: too long for a `poll`. So the
//! buffer that holds such a chunk moves into a task elsewhere and comes back when the work is done. If its adapter is dropped
//! meanwhile, the buffer is dropped, and so wiped, at the end of that task. Shorter work is done in place, and counts against what
//! a task may do in one turn, so that many short chunks do not add up to a long `poll`.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::{runtime::Handle, sync::oneshot, task::coop};

use crate::blocking;

/// From this many bytes on, one AEAD operation is work for the blocking pool.
pub(crate) const OFFLOAD_LEN: usize = 1024 * 1024;

/// So much work in place is one cooperative step, in bytes. Tokio gives a task [128 of them](coop) a turn, so a turn ends after
/// as many bytes as would have gone elsewhere had they been one chunk.
const STEP_LEN: usize = OFFLOAD_LEN / 128;

/// Notes that `len` bytes were sealed or opened in place: the task is to give way to others the sooner.
///
/// This only takes steps away. It is for whoever asks for the next one to wait if there is none left: before the next operation,
/// or at the next read or write.
pub(crate) fn note_work(len: usize) {
    let mut nobody = Context::from_waker(Waker::noop());
    for _ in 0..len.div_ceil(STEP_LEN) {
        // To ask when there is none would be to ask to be woken.
        if !coop::has_budget_remaining() {
            return;
        }
        if let Poll::Ready(step) = coop::poll_proceed(&mut nobody) {
            step.made_progress();
        }
    }
}

/// A value that is either here or away with work that is done to it.
pub(crate) enum Offload<T> {
    Here(T),
    Away(oneshot::Receiver<T>),
    /// The work panicked.
    Lost,
}

impl<T: Send + 'static> Offload<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::Here(value)
    }

    /// Waits until the value is here.
    ///
    /// Fails, now and ever after, if it was lost.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut T>> {
        if let Self::Away(task) = self {
            *self = ready!(Pin::new(task).poll(cx)).map_or(Self::Lost, Self::Here);
        }
        Poll::Ready(match self {
            Self::Here(value) => Ok(value),
            _ => Err(io::Error::other("a chunk of this stream was lost: the task that worked on it panicked")),
        })
    }

    /// The value, unless it is away or lost.
    pub(crate) fn get_ref(&self) -> Option<&T> {
        match self {
            Self::Here(value) => Some(value),
            _ => None,
        }
    }

    /// The value, unless it is away or lost.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Here(value) => Some(value),
            _ => None,
        }
    }

    /// Does work on `len` bytes of the value: at once if that is short or if there is no runtime, otherwise elsewhere.
    ///
    /// The value is here when this is called, as `poll` has just said.
    pub(crate) fn run(&mut self, len: usize, work: fn(&mut T)) {
        match Handle::try_current() {
            Ok(runtime) if len >= OFFLOAD_LEN => self.send(work, |job| blocking::spawn(runtime, job)),
            _ => self.do_here(len, work),
        }
    }

    /// Does work on `len` bytes of the value at once, if it is here.
    pub(crate) fn do_here(&mut self, len: usize, work: fn(&mut T)) {
        note_work(len);
        self.get_mut().map(work);
    }

    /// Sends the value, if it is here, away with the job that works on it, to be spawned.
    pub(crate) fn send(&mut self, work: fn(&mut T), spawn: impl FnOnce(Box<dyn FnOnce() + Send>)) {
        if !matches!(self, Self::Here(_)) {
            return;
        }
        let (done, task) = oneshot::channel();
        if let Self::Here(mut value) = std::mem::replace(self, Self::Away(task)) {
            spawn(Box::new(move || {
                // For an adapter that was dropped meanwhile there is nothing to be done, but to drop the value.
                if !done.is_closed() {
                    work(&mut value);
                    let _ = done.send(value);
                }
            }));
        }
    }

    /// The value itself, unless it is away or lost.
    pub(crate) fn into_inner(self) -> Option<T> {
        match self {
            Self::Here(value) => Some(value),
            _ => None,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(value) => value.fmt(f),
            Self::Away(_) => f.write_str("(away)"),
            Self::Lost => f.write_str("(lost)"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{future::poll_fn, thread};

    use super::*;

    async fn here<T: Send + 'static>(offload: &mut Offload<T>) -> io::Result<()> {
        poll_fn(|cx| offload.poll(cx).map_ok(drop)).await
    }

    #[tokio::test]
    async fn long_work_goes_elsewhere_and_comes_back() {
        let mut value = Offload::new(None);
        for _ in 0..3 {
            value.run(OFFLOAD_LEN, |value| *value = Some(thread::current().id()));
            assert!(value.get_mut().is_none());
            here(&mut value).await.unwrap();
            assert_ne!(value.get_mut().unwrap().take().unwrap(), thread::current().id());
        }
    }

    #[tokio::test]
    async fn short_work_is_done_at_once() {
        let mut value = Offload::new(0);
        value.run(OFFLOAD_LEN - 1, |value| *value += 1);
        assert_eq!(value.get_mut(), Some(&mut 1));
    }

    #[tokio::test]
    async fn a_panic_loses_the_value_for_good() {
        let mut value = Offload::new(0);
        value.run(OFFLOAD_LEN, |_| panic!("this panic is part of a test"));
        for _ in 0..2 {
            here(&mut value).await.unwrap_err();
            value.run(OFFLOAD_LEN, |value| *value += 1);
        }
    }
}
