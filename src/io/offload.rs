//! Keeps long work off the async threads.
//!
//! Sealing a chunk of 1 MiB takes a good part of a millisecond, and one of 10 MiB several: too long for a `poll`. So the
//! buffer that holds such a chunk moves into a task on the blocking pool and comes back when the work is done. If its adapter
//! is dropped meanwhile, the buffer is dropped, and so wiped, at the end of that task.

use std::{
    fmt, io,
    sync::LazyLock,
    task::{Context, Poll, ready},
    thread,
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
};
use tokio_util::sync::ReusableBoxFuture;

/// From this many bytes on, one AEAD operation is work for the blocking pool.
pub(crate) const OFFLOAD_LEN: usize = 1024 * 1024;

/// How many such tasks run at a time in the whole process. More would not be faster, and the blocking pool has room for
/// hundreds of threads that would only compete for the same cores.
static RUNNING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));

/// A value that is either here or away with work that is done to it.
pub(crate) struct Offload<T> {
    /// `None` while it is away, and for good if it was lost.
    value: Option<T>,
    away: bool,
    /// Kept between tasks, to use its allocation again.
    task: Option<ReusableBoxFuture<'static, Option<T>>>,
}

impl<T: Send + 'static> Offload<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), away: false, task: None }
    }

    /// Waits until the value is here.
    ///
    /// Fails, now and ever after, if a task was lost with it: the runtime was shut down.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut T>> {
        if let (true, Some(task)) = (self.away, &mut self.task) {
            self.value = ready!(task.poll(cx));
            self.away = false;
        }
        Poll::Ready(
            self.value
                .as_mut()
                .ok_or_else(|| io::Error::other("a chunk of this stream was lost with the runtime that worked on it")),
        )
    }

    /// The value, unless it is away or lost.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.value.as_mut()
    }

    /// Does work on `len` bytes of the value: at once if that is short or if there is no runtime, otherwise elsewhere.
    ///
    /// The value is here when this is called, as `poll` has just said.
    pub(crate) fn run(&mut self, len: usize, work: fn(&mut T)) {
        let Some(mut value) = self.value.take() else { return };
        let runtime = if len < OFFLOAD_LEN { None } else { Handle::try_current().ok() };
        let Some(runtime) = runtime else {
            work(&mut value);
            self.value = Some(value);
            return;
        };
        let start = move |permit: SemaphorePermit<'static>, mut value: T| {
            runtime.spawn_blocking(move || {
                let _permit = permit;
                work(&mut value);
                value
            })
        };
        // Started now if there is room, so that it gets done while the adapter's owner does something else.
        let started = match RUNNING.try_acquire() {
            Ok(permit) => Ok(start(permit, value)),
            Err(_) => Err((start, value)),
        };
        let task = async move {
            let handle = match started {
                Ok(handle) => handle,
                // The semaphore is never closed.
                Err((start, value)) => start(RUNNING.acquire().await.ok()?, value),
            };
            handle.await.ok()
        };
        match &mut self.task {
            Some(before) => before.set(task),
            None => self.task = Some(ReusableBoxFuture::new(task)),
        }
        self.away = true;
    }
}

impl<T: fmt::Debug> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => value.fmt(f),
            None => f.write_str("(away)"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    /// A value that knows what happened to it.
    #[derive(Default)]
    struct Probe {
        worked_on: Option<thread::ThreadId>,
    }

    static DROPPED_AFTER_WORK: AtomicUsize = AtomicUsize::new(0);

    impl Drop for Probe {
        fn drop(&mut self) {
            if self.worked_on.is_some() {
                DROPPED_AFTER_WORK.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn work(probe: &mut Probe) {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        let running = NOW.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(running <= thread::available_parallelism().unwrap().get(), "{running} at a time");
        // Long enough that more would overlap, if they could.
        thread::sleep(Duration::from_millis(20));
        NOW.fetch_sub(1, Ordering::SeqCst);
        probe.worked_on = Some(thread::current().id());
    }

    #[tokio::test]
    async fn long_work_goes_elsewhere_and_never_more_than_the_limit_at_a_time() {
        let mut probes: Vec<_> = (0..10).map(|_| Offload::new(Probe::default())).collect();
        for _ in 0..2 {
            for probe in &mut probes {
                probe.run(OFFLOAD_LEN, work);
                assert!(probe.get_mut().is_none());
            }
            for probe in &mut probes {
                poll_fn(|cx| probe.poll(cx).map(|value| assert!(value.is_ok()))).await;
                let worked_on = probe.get_mut().unwrap().worked_on.take().unwrap();
                assert_ne!(worked_on, thread::current().id());
            }
        }
        // What its owner abandons is dropped where the work on it ends.
        let mut abandoned = Offload::new(Probe::default());
        abandoned.run(OFFLOAD_LEN, work);
        assert!(poll_fn(|cx| Poll::Ready(abandoned.poll(cx).is_pending())).await);
        drop(abandoned);
        while DROPPED_AFTER_WORK.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn short_work_is_done_at_once() {
        let mut probe = Offload::new(0);
        probe.run(OFFLOAD_LEN - 1, |value| *value += 1);
        assert_eq!(probe.get_mut(), Some(&mut 1));
    }
}
