//! Long work on the blocking pool of a runtime, at most one piece per core at a time in the whole process.
//!
//! More would not be faster, and the pool is also where `tokio::fs` does its work. So there is one queue, and whoever of the
//! pool's threads gets a turn empties it, unless as many are at it as there are cores. Nothing is ever held while it waits:
//! neither an adapter that nobody polls nor a runtime whose pool is busy can keep the others from their turn.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::runtime::Handle;

/// Does `work` on the blocking pool of `runtime`, or here if that runtime is shutting down.
pub(crate) fn spawn(runtime: &Handle, work: impl FnOnce() + Send + 'static) {
    let job = Job(Arc::new(Mutex::new(Some(Box::new(work)))));
    lock(&QUEUE).waiting.push_back(job.clone());
    let turn = Turn(Some(job));
    runtime.spawn_blocking(move || turn.take());
}

static LIMIT: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), running: 0 });

struct Queue {
    waiting: VecDeque<Job>,
    /// How many threads are emptying the queue.
    running: usize,
}

type Work = Box<dyn FnOnce() + Send>;

/// Work that is done by whoever comes first.
#[derive(Clone)]
struct Job(Arc<Mutex<Option<Work>>>);

impl Job {
    fn run(self) {
        let work = lock(&self.0).take();
        if let Some(work) = work {
            // A panic must not end the turn: there may be jobs whose own turns counted on it. Work owns all that it touches,
            // so nothing broken is left, and whoever waits for it sees that it is gone.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }
}

/// A thread's turn at the queue. Every job comes with one, so the queue is empty when all turns have been taken.
struct Turn(Option<Job>);

impl Turn {
    fn take(mut self) {
        self.0 = None; // it stands in the queue
        let mut queue = lock(&QUEUE);
        // Whoever is running looks into the queue once more before it stops, under this lock.
        if queue.running == *LIMIT {
            return;
        }
        queue.running += 1;
        while let Some(job) = queue.waiting.pop_front() {
            drop(queue);
            job.run();
            queue = lock(&QUEUE);
        }
        queue.running -= 1;
    }
}

impl Drop for Turn {
    /// A turn that is dropped was not taken: its runtime is gone. Its job must not wait for another runtime's.
    fn drop(&mut self) {
        if let Some(job) = self.0.take() {
            job.run();
        }
    }
}

/// No lock is held while work is done, so what a lock protects is whole even if a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn never_more_at_a_time_than_there_are_cores_and_all_gets_done() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        let runtimes = [runtime(), runtime()];
        let (done, finished) = mpsc::channel();
        for i in 0..40 {
            let done = done.clone();
            spawn(runtimes[i % 2].handle(), move || {
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
        let busy = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (release, wait) = mpsc::channel::<()>();
        busy.spawn_blocking(move || wait.recv().unwrap_err());
        let (done, finished) = mpsc::channel();
        for _ in 0..10 {
            let done = done.clone();
            spawn(busy.handle(), move || done.send(()).unwrap());
        }
        let other = runtime();
        let there = done.clone();
        spawn(other.handle(), move || there.send(()).unwrap());
        // Its thread does the work of the busy runtime, too.
        for _ in 0..11 {
            finished.recv().unwrap();
        }
        drop(release);
    }

    #[test]
    fn work_for_a_runtime_that_is_gone_is_done_all_the_same() {
        let gone = runtime();
        let handle = gone.handle().clone();
        gone.shutdown_background();
        let (done, finished) = mpsc::channel();
        spawn(&handle, move || done.send(()).unwrap());
        finished.recv().unwrap();
    }

    #[test]
    fn a_panic_holds_up_nobody() {
        let runtime = runtime();
        let (done, finished) = mpsc::channel();
        for i in 0..10 * *LIMIT {
            let done = done.clone();
            spawn(runtime.handle(), move || {
                assert!(i % 3 > 0, "this panic is part of a test");
                done.send(()).unwrap();
            });
        }
        drop(done);
        let finished = finished.iter().count();
        assert_eq!(finished, (0..10 * *LIMIT).filter(|i| i % 3 > 0).count());
    }
}
