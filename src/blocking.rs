//! Long work on the blocking pool of a runtime, at most one piece per core at a time in the whole process.
//!
//! More would not be faster, and the pool is also where `tokio::fs` does its work. So there is one queue, and whichever of the
//! pools' threads gets a turn at it works it off, unless as many are at it as there are cores. Nobody may ever hold a place
//! while waiting for something: an adapter that nobody polls, or a runtime whose pool is busy, must not keep others from theirs.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

/// Does `work` on the blocking pool of `runtime` or of another one that is at it, or here if `runtime` is shutting down.
pub(crate) fn spawn(runtime: Handle, work: impl FnOnce() + Send + 'static) {
    let job = Job { runtime, work: Arc::new(Mutex::new(Some(Box::new(work)))) };
    lock(&QUEUE).waiting.push_back(job.clone());
    job.ask_for_a_turn();
}

static LIMIT: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// For how long a thread works off the queue at a stretch: a runtime that shuts down waits for its threads, and must not wait
/// for all that other runtimes still have to do.
const STRETCH: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), running: 0 });

struct Queue {
    waiting: VecDeque<Job>,
    /// How many threads are working it off.
    running: usize,
}

/// Work that is done by whoever comes first.
#[derive(Clone)]
struct Job {
    runtime: Handle,
    work: Arc<Mutex<Option<Work>>>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Job {
    fn run(self) {
        let work = lock(&self.work).take();
        if let Some(work) = work {
            // A panic must not end the turn: there may be jobs that count on it. Work owns all that it touches, so nothing
            // broken is left, and whoever waits for it sees that it is gone.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }

    fn ask_for_a_turn(self) {
        let runtime = self.runtime.clone();
        let turn = Turn(Some(self));
        runtime.spawn_blocking(move || turn.take());
    }
}

/// A thread's turn at the queue, with the job that it was asked for.
struct Turn(Option<Job>);

impl Turn {
    fn take(mut self) {
        self.0 = None; // it stands in the queue
        let mut queue = lock(&QUEUE);
        // Those who are at it look into the queue once more before they stop, under this lock.
        if queue.running == *LIMIT {
            return;
        }
        queue.running += 1;
        let start = Instant::now();
        while start.elapsed() < STRETCH {
            let Some(job) = queue.waiting.pop_front() else { break };
            drop(queue);
            job.run();
            queue = lock(&QUEUE);
        }
        queue.running -= 1;
        // If there is more to do, the turns that were asked for it may have come and gone, trusting in this one.
        let left: Vec<Job> = queue.waiting.iter().cloned().collect();
        drop(queue);
        left.into_iter().for_each(Job::ask_for_a_turn);
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
        let busy = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (release, wait) = mpsc::channel::<()>();
        busy.spawn_blocking(move || wait.recv().unwrap_err());
        let (done, finished) = mpsc::channel();
        for _ in 0..10 {
            let done = done.clone();
            spawn(busy.handle().clone(), move || done.send(()).unwrap());
        }
        let other = runtime();
        let there = done.clone();
        spawn(other.handle().clone(), move || there.send(()).unwrap());
        // Its thread does the work of the busy runtime, too.
        for _ in 0..11 {
            finished.recv().unwrap();
        }
        drop(release);
    }

    #[test]
    fn a_runtime_that_shuts_down_does_not_wait_for_the_work_of_others() {
        static LEFT: AtomicUsize = AtomicUsize::new(100);
        let busy = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (release, wait) = mpsc::channel::<()>();
        busy.spawn_blocking(move || wait.recv().unwrap_err());
        let (done, finished) = mpsc::channel();
        for _ in 0..100 {
            let done = done.clone();
            spawn(busy.handle().clone(), move || {
                thread::sleep(Duration::from_millis(10));
                LEFT.fetch_sub(1, Ordering::SeqCst);
                done.send(()).unwrap();
            });
        }
        // This one gets at the queue, and does some of the work.
        let other = runtime();
        spawn(other.handle().clone(), || ());
        finished.recv().unwrap();
        drop(other);
        assert!(LEFT.load(Ordering::SeqCst) > 0);
        // The rest is not forgotten.
        drop(release);
        for _ in 1..100 {
            finished.recv().unwrap();
        }
    }

    #[test]
    fn work_whose_turn_came_too_early_is_not_forgotten_by_those_who_leave() {
        let long = runtime();
        let (begun, all_begun) = mpsc::channel();
        for _ in 0..*LIMIT {
            let begun = begun.clone();
            spawn(long.handle().clone(), move || {
                begun.send(()).unwrap();
                thread::sleep(2 * STRETCH);
            });
        }
        (0..*LIMIT).for_each(|_| all_begun.recv().unwrap());
        // All places are taken, by threads that will leave as soon as they are done.
        let early = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
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
        spawn(handle, move || done.send(()).unwrap());
        finished.recv().unwrap();
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
        let finished = finished.iter().count();
        assert_eq!(finished, (0..10 * *LIMIT).filter(|i| i % 3 > 0).count());
    }
}
