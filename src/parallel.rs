//! The ordered pipeline: values that several cores work on come back in the order in which they were sent.
//!
//! It must never have more of a stream's values worked on at a time than the stream has workers, and never keep one after it was
//! dropped: what is away by then is dropped, and so wiped, where it is.

use std::{
    collections::VecDeque,
    fmt, io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::runtime::Handle;

use crate::{
    blocking::{self, available_parallelism},
    format::longest_frame,
    offload::{OFFLOAD_LEN, Offload},
};

/// How much one of several workers gets at a time, in bytes. With half of it and a quarter of it, two workers gained 0.65 and 0.63
/// of what two threads gain with the bare cipher, with this 0.82 (`benches/workers.rs`, writers, chunks of 64 KiB, 2026-11-23).
pub(crate) const BATCH_LEN: usize = 1024 * 1024;

/// From this much on, a value is handed over to other workers, in bytes: less is sealed in the time of a few wake-ups (not measured
/// by itself).
const HAND_OVER_LEN: usize = 64 * 1024;

/// How many workers a stream has, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workers(usize);

impl Workers {
    pub(crate) const ONE: Self = Self(1);

    /// As many as were chosen, or one.
    pub(crate) fn chosen(workers: Option<NonZeroUsize>) -> Self {
        workers.map_or(Self::ONE, |n| Self(n.get()))
    }

    /// As many as were chosen, or one per core, but no more than `most`.
    pub(crate) fn chosen_or_up_to(workers: Option<NonZeroUsize>, most: usize) -> Self {
        workers.map_or_else(|| Self(available_parallelism().min(most)), |n| Self(n.get()))
    }

    pub(crate) fn get(self) -> usize {
        self.0
    }

    /// How many chunks of this size are worked on together.
    pub(crate) fn chunks_per_batch(self, chunk_size: usize) -> usize {
        if self == Self::ONE { 1 } else { chunks_per_batch(chunk_size) }
    }

    /// How many batches there may be, from the one that is being filled to the one that is being emptied.
    pub(crate) fn batches(self) -> usize {
        if self == Self::ONE { 1 } else { self.0.saturating_mul(2) }
    }

    /// Whether work on so many bytes is done elsewhere.
    fn hand_over(self, len: usize) -> bool {
        len >= if self == Self::ONE { OFFLOAD_LEN } else { HAND_OVER_LEN }
    }
}

/// How many chunks of this size are a batch: so many that their frames are no longer than it, or one.
pub(crate) fn chunks_per_batch(chunk_size: usize) -> usize {
    (BATCH_LEN / longest_frame(chunk_size)).max(1)
}

/// Values in order, some of them away.
pub(crate) struct Pipeline<T> {
    queue: VecDeque<Offload<T>>,
    workers: Workers,
    /// `None` with one worker, which has no more than one value anyway.
    lanes: Option<Arc<Lanes>>,
}

impl<T: Send + 'static> Pipeline<T> {
    pub(crate) fn new(workers: Workers) -> Self {
        let lanes = (workers != Workers::ONE).then(|| Arc::new(Lanes::new(workers)));
        Self { queue: VecDeque::new(), workers, lanes }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether work on so many bytes is done elsewhere, if there is a runtime.
    pub(crate) fn hands_over(&self, len: usize) -> bool {
        self.workers.hand_over(len)
    }

    /// Puts a value at the end, to which work on `len` bytes is to be done.
    pub(crate) fn push(&mut self, value: T, len: usize, work: fn(&mut T)) {
        let mut value = Offload::new(value);
        match Handle::try_current() {
            Ok(runtime) if self.hands_over(len) => value.send(work, |job| match &self.lanes {
                Some(lanes) => lanes.spawn(runtime, job),
                None => blocking::spawn(runtime, job),
            }),
            _ => value.do_here(len, work),
        }
        self.queue.push_back(value);
    }

    /// Puts a value at the end, to which work on `len` bytes is done at once.
    pub(crate) fn push_here(&mut self, value: T, len: usize, work: fn(&mut T)) {
        let mut value = Offload::new(value);
        value.do_here(len, work);
        self.queue.push_back(value);
    }

    /// Waits until the first value is here; `None` if there is none. Fails, now and ever after, if it was lost.
    pub(crate) fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<&mut T>>> {
        Poll::Ready(match self.queue.front_mut() {
            Some(front) => Ok(Some(ready!(front.poll(cx))?)),
            None => Ok(None),
        })
    }

    /// The first value, if it is here.
    pub(crate) fn front(&self) -> Option<&T> {
        self.queue.front()?.get_ref()
    }

    /// The first value, if it is here.
    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.queue.front_mut()?.get_mut()
    }

    /// The last value, if it is here.
    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.queue.back_mut()?.get_mut()
    }

    /// Takes the first value out, if it is here.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.front()?;
        self.queue.pop_front()?.into_inner()
    }

    /// Drops all values, those that are away where they are.
    pub(crate) fn clear(&mut self) {
        self.queue = VecDeque::new();
    }
}

impl<T> fmt::Debug for Pipeline<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("len", &self.queue.len())
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Keeps the jobs of one stream from being more at a time than it has workers.
///
/// A job that finds all lanes taken waits here, and whoever leaves a lane starts it: the stream need not be polled for that.
struct Lanes(Mutex<Waiting>);

struct Waiting {
    free: usize,
    jobs: VecDeque<(Handle, Job)>,
}

impl Lanes {
    fn new(workers: Workers) -> Self {
        Self(Mutex::new(Waiting { free: workers.get(), jobs: VecDeque::new() }))
    }

    fn spawn(self: &Arc<Self>, runtime: Handle, job: Job) {
        let mut waiting = self.waiting();
        if waiting.free == 0 {
            waiting.jobs.push_back((runtime, job));
            return;
        }
        waiting.free -= 1;
        drop(waiting);
        Lane(self.clone()).start(runtime, job);
    }

    /// No job is run under this lock, so what it guards is whole even if one has panicked.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane that is taken. It goes to the next job on drop, so also after a panic.
struct Lane(Arc<Lanes>);

impl Lane {
    fn start(self, runtime: Handle, job: Job) {
        blocking::spawn(runtime, move || {
            let _lane = self;
            job();
        });
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        match waiting.jobs.pop_front() {
            Some((runtime, job)) => {
                drop(waiting);
                Self(self.0.clone()).start(runtime, job);
            }
            None => waiting.free += 1,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn workers(n: usize) -> Workers {
        Workers::chosen(NonZeroUsize::new(n))
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    async fn take<T: Send + 'static>(pipeline: &mut Pipeline<T>) -> io::Result<Option<T>> {
        poll_fn(|cx| pipeline.poll_front(cx).map_ok(drop)).await?;
        Ok(pipeline.pop())
    }

    fn free_and_waiting(lanes: &Lanes) -> (usize, usize) {
        let waiting = lanes.waiting();
        (waiting.free, waiting.jobs.len())
    }

    /// Work that takes this many milliseconds.
    fn sleep(millis: &mut u64) {
        thread::sleep(Duration::from_millis(*millis));
    }

    #[test]
    fn a_batch_is_about_a_mebibyte_and_one_worker_has_one_of_one_chunk() {
        assert_eq!(Workers::chosen(None), Workers::ONE);
        assert_eq!(workers(1), Workers::ONE);
        for (chunk_size, chunks) in [(1, 28_339), (65_516, 16), (65_517, 15), (BATCH_LEN, 1), (10 * BATCH_LEN, 1)] {
            assert_eq!(workers(2).chunks_per_batch(chunk_size), chunks);
            assert_eq!(workers(1).chunks_per_batch(chunk_size), 1);
        }
        assert_eq!([1, 2, 3].map(|n| workers(n).batches()), [1, 4, 6]);
        assert_eq!(workers(usize::MAX).batches(), usize::MAX);
        for (n, least) in [(1, OFFLOAD_LEN), (2, HAND_OVER_LEN)] {
            assert!(workers(n).hand_over(least) && !workers(n).hand_over(least - 1));
        }
    }

    /// The process has its own limit, so what is counted here is what the lanes let through to it.
    #[test]
    fn a_stream_has_no_more_jobs_at_a_time_than_workers() {
        for n in 1..=3 {
            let (runtime, lanes) = (runtime(), Arc::new(Lanes::new(workers(n))));
            let (now, (done, finished)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
            let (release, gate) = mpsc::channel::<()>();
            let gate = Arc::new(Mutex::new(gate));
            for _ in 0..5 * n {
                let (now, done, gate) = (now.clone(), done.clone(), gate.clone());
                let job = move || {
                    let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
                    let _ = gate.lock().unwrap().recv();
                    now.fetch_sub(1, Ordering::SeqCst);
                    done.send(at_once).unwrap();
                };
                lanes.spawn(runtime.handle().clone(), Box::new(job));
            }
            // None has come to its end.
            assert_eq!(free_and_waiting(&lanes), (0, 4 * n));
            for left in (0..5 * n).rev() {
                release.send(()).unwrap();
                assert!(finished.recv().unwrap() <= n);
                // The lane goes on a little later than the job says so.
                while lanes.waiting().jobs.len() > left.saturating_sub(n) {
                    thread::yield_now();
                }
            }
            drop(runtime);
            assert_eq!(free_and_waiting(&lanes), (n, 0));
        }
    }

    #[test]
    fn those_who_wait_for_a_lane_get_it_in_their_order() {
        let (runtime, lanes) = (runtime(), Arc::new(Lanes::new(workers(1))));
        let (done, finished) = mpsc::channel();
        // All wait for the first, which waits for all of them to wait.
        let (release, gate) = mpsc::channel::<()>();
        lanes.spawn(runtime.handle().clone(), Box::new(move || assert!(gate.recv().is_err())));
        for i in 0..5 {
            let done = done.clone();
            lanes.spawn(runtime.handle().clone(), Box::new(move || done.send(i).unwrap()));
        }
        drop((release, done));
        assert_eq!(finished.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_lane_is_free_again_after_a_panic() {
        for n in 1..=3 {
            let (runtime, lanes) = (runtime(), Arc::new(Lanes::new(workers(n))));
            let (done, finished) = mpsc::channel();
            for i in 0..20 {
                let done = done.clone();
                let job = move || {
                    assert!(i % 3 > 0, "this panic is part of a test");
                    done.send(i).unwrap();
                };
                lanes.spawn(runtime.handle().clone(), Box::new(job));
            }
            drop(done);
            assert_eq!(finished.iter().count(), 13);
            drop(runtime);
            assert_eq!(free_and_waiting(&lanes), (n, 0));
        }
    }

    #[test]
    fn values_come_back_in_order_however_long_they_take() {
        let runtime = runtime();
        for n in 1..=3 {
            runtime.block_on(async {
                let mut pipeline = Pipeline::new(workers(n));
                let millis = [9, 0, 5, 1, 0, 7, 0, 3];
                for (i, millis) in millis.into_iter().enumerate() {
                    // Every third is short, and done here.
                    let len = if i % 3 == 2 { 1 } else { BATCH_LEN };
                    pipeline.push(millis, len, sleep);
                }
                assert_eq!(pipeline.len(), 8);
                for millis in millis {
                    assert_eq!(take(&mut pipeline).await.unwrap(), Some(millis));
                }
                assert_eq!(take(&mut pipeline).await.unwrap(), None);
                assert!(pipeline.is_empty());
            });
        }
    }

    #[test]
    fn what_is_away_cannot_be_reached() {
        let (runtime, (release, busy)) = (runtime_with_one_thread(), mpsc::channel::<()>());
        runtime.spawn_blocking(move || busy.recv().unwrap_err());
        runtime.block_on(async {
            let mut pipeline = Pipeline::new(workers(2));
            pipeline.push(1, BATCH_LEN, |n| *n += 10);
            pipeline.push(2, HAND_OVER_LEN - 1, |n| *n += 10);
            assert_eq!(pipeline.front(), None);
            assert_eq!(pipeline.pop(), None);
            assert_eq!(pipeline.front_mut(), None);
            assert_eq!(pipeline.back_mut(), Some(&mut 12));
            assert_eq!(pipeline.len(), 2, "nothing was taken out");
            drop(release);
            assert_eq!(take(&mut pipeline).await.unwrap(), Some(11));
            assert_eq!(pipeline.front(), Some(&12));
            assert_eq!([pipeline.pop(), pipeline.pop()], [Some(12), None]);
        });
    }

    #[test]
    fn short_work_and_work_without_a_runtime_is_done_at_once() {
        let here = |value: &mut Option<thread::ThreadId>| *value = Some(thread::current().id());
        let mut pipeline = Pipeline::new(workers(2));
        pipeline.push(None, BATCH_LEN, here);
        assert_eq!(pipeline.pop(), Some(Some(thread::current().id())));
        runtime().block_on(async {
            pipeline.push(None, HAND_OVER_LEN - 1, here);
            assert_eq!(pipeline.pop(), Some(Some(thread::current().id())));
            pipeline.push_here(None, 1, here);
            assert_eq!(pipeline.pop(), Some(Some(thread::current().id())));
            pipeline.push(None, HAND_OVER_LEN, here);
            assert_ne!(take(&mut pipeline).await.unwrap().flatten(), Some(thread::current().id()));
        });
    }

    #[test]
    fn a_panic_fails_at_its_place_for_good_and_others_go_on() {
        runtime().block_on(async {
            let mut pipeline = Pipeline::new(workers(2));
            for i in 0..6 {
                pipeline.push(i, BATCH_LEN, |i| assert_ne!(*i, 2, "this panic is part of a test"));
            }
            for i in 0..2 {
                assert_eq!(take(&mut pipeline).await.unwrap(), Some(i));
            }
            for _ in 0..3 {
                take(&mut pipeline).await.unwrap_err();
                assert_eq!(pipeline.pop(), None);
            }
            assert_eq!(pipeline.len(), 4);
            // The lanes outlived it.
            let lanes = pipeline.lanes.clone().unwrap();
            pipeline.clear();
            assert!(pipeline.is_empty());
            while lanes.waiting().free < 2 {
                tokio::task::yield_now().await;
            }
            pipeline.push(7, BATCH_LEN, |_| ());
            assert_eq!(take(&mut pipeline).await.unwrap(), Some(7));
        });
    }

    /// A value that says when it is worked on, and when it is dropped.
    struct Told(mpsc::Sender<&'static str>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send("dropped").unwrap();
        }
    }

    #[test]
    fn what_was_away_when_it_was_dropped_is_dropped_there_and_not_worked_on() {
        for clear in [false, true] {
            let (runtime, (release, busy)) = (runtime_with_one_thread(), mpsc::channel::<()>());
            runtime.spawn_blocking(move || busy.recv().unwrap_err());
            let (tell, told) = mpsc::channel();
            runtime.block_on(async {
                let mut pipeline = Pipeline::new(workers(2));
                for _ in 0..4 {
                    pipeline.push(Told(tell.clone()), BATCH_LEN, |value| value.0.send("worked on").unwrap());
                }
                if clear {
                    pipeline.clear();
                } else {
                    drop(pipeline);
                }
                assert!(told.try_recv().is_err(), "where they are, they are still");
            });
            drop((release, tell));
            assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"; 4]);
        }
    }

    fn runtime_with_one_thread() -> Runtime {
        Builder::new_current_thread().max_blocking_threads(1).build().unwrap()
    }
}
