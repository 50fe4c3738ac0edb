//! `threads.rs`: helpers of the process, and items that threads share.

use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{Model, Watch, panic_quietly};
use crate::{
    blocking::available_parallelism,
    num::NonZeroUsize,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    parallel::Workers,
    sync::Arc,
    thread,
    threads::for_each,
};

pub(super) const MODELS: &[Model] = &[
    Model { name: "helpers::one_for_two_callers", cores: 2, preemptions: Some(3), run: two_callers },
    Model { name: "helpers::enough", cores: 3, preemptions: Some(2), run: enough },
    Model { name: "helpers::no_thread_to_be_had", cores: 2, preemptions: None, run: no_thread },
    Model { name: "helpers::given_back_after_a_panic", cores: 2, preemptions: None, run: a_panic },
];

fn workers(n: usize) -> Workers {
    Workers::chosen(NonZeroUsize::new(n))
}

/// A thread that is at work, counted as long as it is.
struct AtWork<'a>(&'a AtomicUsize);

impl<'a> AtWork<'a> {
    fn new(threads: &'a AtomicUsize, most: usize) -> Self {
        let now = threads.fetch_add(1, SeqCst) + 1;
        assert!(now <= most, "{now} threads at a time");
        Self(threads)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Has the first thread make what stands for the static count of helpers, as it is there before all others.
fn begin() {
    thread::set_none_to_be_had(true);
    assert_eq!(threads_for_two_items(), 1, "there is none but this thread");
    thread::set_none_to_be_had(false);
}

/// How many threads work on two items, if there may be two.
fn threads_for_two_items() -> usize {
    let threads = AtomicUsize::new(0);
    let watch = Watch::new(2);
    let own = || threads.fetch_add(1, SeqCst);
    let work = |_: &mut usize, i| {
        watch.job(i, |_| ());
        ControlFlow::Continue(())
    };
    for_each(workers(2), 0..2, own, work);
    assert_eq!(watch.ended(), [0, 1]);
    threads.into_inner()
}

/// However many ask, there are no more helpers than cores but one; each item is worked on once; and all helpers are given back.
fn two_callers() {
    begin();
    let threads = Arc::new(AtomicUsize::new(0));
    let call = |threads: Arc<AtomicUsize>| {
        let watch = Watch::new(2);
        // The two who ask do not count.
        let own = || AtWork::new(&threads, 2 + available_parallelism() - 1);
        let work = |_: &mut AtWork<'_>, i| {
            watch.job(i, |_| ());
            ControlFlow::Continue(())
        };
        for_each(workers(3), 0..2, own, work);
        assert_eq!(watch.ended(), [0, 1]);
    };
    let other = threads.clone();
    let other = loom::thread::spawn(move || call(other));
    call(threads);
    other.join().unwrap();
    assert_eq!(threads_for_two_items(), 2);
}

/// Items are taken up in their order, and by none who knows that it is enough.
fn enough() {
    begin();
    let (next, watch) = (AtomicUsize::new(0), Watch::new(3));
    let own = || false;
    let work = |is_enough: &mut bool, i| {
        assert!(!*is_enough, "item {i} is taken up by the thread that had enough");
        watch.job(i, |_| ());
        next.fetch_add(1, SeqCst);
        *is_enough = i == 1;
        if *is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    for_each(workers(3), 0..4, own, work);
    let taken = next.into_inner();
    assert_eq!(watch.ended(), (0..taken).collect::<Vec<_>>());
    assert!(taken >= 2);
}

/// A helper that found no thread is given back.
fn no_thread() {
    begin();
    assert_eq!(threads_for_two_items(), 2);
}

fn a_panic() {
    begin();
    let call = |_: &mut (), i| {
        if i == 1 {
            panic_quietly();
        }
        ControlFlow::Continue(())
    };
    let result = catch_unwind(AssertUnwindSafe(|| for_each(workers(2), 0..3, || (), call)));
    assert!(result.is_err());
    assert_eq!(threads_for_two_items(), 2);
}
