//! Long work on the blocking pool of a runtime, at most one piece per core at a time in the whole process.
//!
//! More would not be faster, and the pool is also where `tokio::fs` does its work. A job that finds all places taken is set
//! aside, and whoever leaves a place sees to it. Nobody may ever hold a place while waiting for something: an adapter that
//! nobody polls, or a runtime whose pool is busy, must not keep others from theirs. Only what a runtime that is gone leaves undone is
//! outside the limit: it is done at once, by whoever finds it.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::spawn_blocking};

/// Does I/O that blocks, on the blocking pool of this runtime: outside the limit, as it mostly waits.
pub(crate) async fn io<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Does `work` on the blocking pool of `runtime`, or of another one that has a place; or here, if `runtime` is gone.
pub(crate) fn spawn(runtime: Handle, work: impl FnOnce() + Send + 'static) {
    Job { runtime, work: Some(Box::new(work)) }.ask_for_a_place();
}

/// How many cores this process may use; asked for once, since that takes a while.
pub(crate) fn available_parallelism() -> usize {
    *LIMIT
}

static LIMIT: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// For how long a thread that has a place does what was set aside, before it goes back to its runtime: that may have something
/// else for it to do, or be waiting for it to shut down.
const STRETCH: Duration = Duration::from_millis(20);

static PLACES: Mutex<Places> = Mutex::new(Places { taken: 0, waiting: VecDeque::new() });

struct Places {
    taken: usize,
    /// The jobs that found all places taken.
    waiting: VecDeque<Job>,
}

struct Job {
    runtime: Handle,
    /// `None` once it was begun.
    work: Option<Box<dyn FnOnce() + Send>>,
}

impl Job {
    fn ask_for_a_place(self) {
        let runtime = self.runtime.clone();
        runtime.spawn_blocking(move || self.take_a_place());
    }

    fn take_a_place(self) {
        let place = {
            let mut places = places();
            if places.taken == *LIMIT {
                places.waiting.push_back(self);
                return;
            }
            places.taken += 1;
            Place
        };
        let start = Instant::now();
        let mut next = Some(self);
        while let Some(mut job) = next {
            job.run();
            next = if start.elapsed() < STRETCH { places().waiting.pop_front() } else { None };
        }
        drop(place);
    }

    fn run(&mut self) {
        if let Some(work) = self.work.take() {
            work();
        }
    }
}

impl Drop for Job {
    /// A job that is dropped before it was begun has lost its runtime. It is done here, for somebody may wait for it.
    fn drop(&mut self) {
        self.run();
    }
}

/// A place that is taken. It is given up on drop, so that a panic in a job gives it up too.
struct Place;

impl Drop for Place {
    /// Under one lock, so that no job can be set aside in between, and asks nobody to see to it.
    fn drop(&mut self) {
        let waiting = {
            let mut places = places();
            places.taken -= 1;
            mem::take(&mut places.waiting)
        };
        // All of them, not only the first: its runtime may be too busy to take the place.
        waiting.into_iter().for_each(Job::ask_for_a_place);
    }
}

/// No job is run under this lock, so it is whole even if one has panicked.
fn places() -> MutexGuard<'static, Places> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    fn runtime_with_one_thread() -> Runtime {
        Builder::new_current_thread().max_blocking_threads(1).build().unwrap()
    }

    #[test]
    fn never_more_at_a_time_than_there_are_cores_and_all_gets_done() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        let runtimes = [runtime(), runtime()];
        let (done, finished) = mpsc::channel();
        for i in 0..40 {
            let done = done.clone();
            spawn(runtimes[i % 2].handle().clone(), move || {
                let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
                // Long enough that more would overlap, if they could.
                thread::sleep(Duration::from_millis(3));
                NOW.fetch_sub(1, Ordering::SeqCst);
                done.send((now, thread::current().id())).unwrap();
            });
        }
        for _ in 0..40 {
            let (now, thread) = finished.recv().unwrap();
            assert!(now <= *LIMIT, "{now} at a time");
            assert_ne!(thread, thread::current().id());
        }
    }

    #[test]
    fn a_runtime_whose_pool_is_busy_holds_up_nobody_else() {
        let busy = runtime_with_one_thread();
        let (release, wait) = mpsc::channel::<()>();
        busy.spawn_blocking(move || wait.recv().unwrap_err());
        let (done, finished) = mpsc::channel();
        for _ in 0..10 * *LIMIT {
            let done = done.clone();
            spawn(busy.handle().clone(), move || done.send("busy").unwrap());
        }
        let other = runtime();
        spawn(other.handle().clone(), move || done.send("other").unwrap());
        assert_eq!(finished.recv().unwrap(), "other");
        drop(release);
        assert_eq!(finished.iter().count(), 10 * *LIMIT);
    }

    #[test]
    fn neither_other_work_of_a_runtime_nor_its_end_waits_for_all_the_work_of_others() {
        let total = 100 * *LIMIT;
        static DONE: AtomicUsize = AtomicUsize::new(0);
        let many = runtime();
        let (done, finished) = mpsc::channel();
        for _ in 0..total {
            let done = done.clone();
            spawn(many.handle().clone(), move || {
                thread::sleep(Duration::from_millis(20));
                DONE.fetch_add(1, Ordering::SeqCst);
                done.send(()).unwrap();
            });
        }
        finished.recv().unwrap();
        // Two seconds of work are waiting. This one's only thread has some of its own to do, and may be asked to help.
        let other = runtime_with_one_thread();
        for _ in 0..5 {
            spawn(other.handle().clone(), || ());
        }
        other.block_on(other.spawn_blocking(|| ())).unwrap();
        drop(other);
        assert!(DONE.load(Ordering::SeqCst) < total);
        // And none of it is forgotten.
        drop(done);
        assert_eq!(finished.iter().count(), total - 1);
    }

    #[test]
    fn what_was_set_aside_is_not_forgotten_by_those_who_leave() {
        let long = runtime();
        let (begun, all_begun) = mpsc::channel();
        for _ in 0..*LIMIT {
            let begun = begun.clone();
            spawn(long.handle().clone(), move || {
                begun.send(()).unwrap();
                thread::sleep(5 * STRETCH);
            });
        }
        (0..*LIMIT).for_each(|_| all_begun.recv().unwrap());
        // All places are taken, by threads that will leave as soon as they are done.
        let early = runtime_with_one_thread();
        let (done, finished) = mpsc::channel();
        spawn(early.handle().clone(), move || done.send(()).unwrap());
        early.block_on(early.spawn_blocking(|| ())).unwrap();
        finished.recv().unwrap();
    }

    #[test]
    fn work_for_a_runtime_that_is_gone_is_done_all_the_same() {
        let gone = runtime();
        let handle = gone.handle().clone();
        gone.shutdown_background();
        let (done, finished) = mpsc::channel();
        spawn(handle, move || done.send(thread::current().id()).unwrap());
        assert_eq!(finished.try_recv(), Ok(thread::current().id()));
    }

    #[test]
    fn a_panic_holds_up_nobody() {
        let runtime = runtime();
        let (done, finished) = mpsc::channel();
        for i in 0..10 * *LIMIT {
            let done = done.clone();
            spawn(runtime.handle().clone(), move || {
                assert!(i % 3 > 0, "this panic is part of a test");
                done.send(()).unwrap();
            });
        }
        drop(done);
        assert_eq!(finished.iter().count(), (0..10 * *LIMIT).filter(|i| i % 3 > 0).count());
    }
}
