//! `parallel.rs` and `offload.rs`, on top of `blocking.rs`: the ordered pipeline, from its owner's side.

use loom::future::block_on;

use super::{Model, Watch, panic_quietly};
use crate::{
    blocking::available_parallelism,
    future::poll_fn,
    num::NonZeroUsize,
    parallel::{BATCH_LEN, Pipeline, Workers},
    runtime::Runtime,
    sync::Arc,
    task::{Context, Waker},
    time,
};

pub(super) const MODELS: &[Model] = &[
    Model { name: "lanes::two_on_three_threads", cores: 3, preemptions: Some(1), run: || in_order(2, 3, 4) },
    Model { name: "lanes::two_on_two_threads", cores: 2, preemptions: Some(2), run: || in_order(2, 2, 3) },
    Model { name: "lanes::two_with_one_place", cores: 1, preemptions: Some(2), run: || in_order(2, 2, 4) },
    Model { name: "lanes::none_with_one_worker", cores: 2, preemptions: Some(2), run: || in_order(1, 2, 3) },
    Model { name: "lanes::left_after_a_panic", cores: 2, preemptions: Some(2), run: panics },
    Model { name: "lanes::of_what_was_dropped", cores: 2, preemptions: Some(2), run: dropped },
    Model { name: "lanes::of_a_runtime_that_goes", cores: 2, preemptions: Some(2), run: a_runtime_that_goes },
    Model { name: "lanes::the_latest_waker", cores: 2, preemptions: Some(2), run: the_latest_waker },
];

/// A value that is worked on at most once.
struct Value {
    number: usize,
    /// How many of those before it may still be under way when it is begun.
    behind: usize,
    has_panic: bool,
    watch: Arc<Watch>,
}

impl Value {
    fn work(&mut self) {
        let (number, behind) = (self.number, self.behind);
        self.watch.job(number, |ended| {
            let before = ended.iter().filter(|other| **other < number).count();
            assert!(number - before <= behind, "{number} has overtaken others: {ended:?} have ended");
        });
        if self.has_panic {
            panic_quietly();
        }
    }
}

/// What the values of a model have in common.
struct Values {
    behind: usize,
    watch: Arc<Watch>,
}

impl Values {
    /// No more than `most` are to be under way at a time.
    fn new(most: usize) -> Self {
        time::stand_for(1);
        Self { behind: most - 1, watch: Arc::new(Watch::new(most)) }
    }

    /// Some of them may never be worked on.
    fn to_be_dropped(most: usize) -> Self {
        Self { behind: usize::MAX, ..Self::new(most) }
    }

    fn value(&self, number: usize) -> Value {
        Value { number, behind: self.behind, has_panic: false, watch: self.watch.clone() }
    }

    /// None was kept anywhere.
    fn are_dropped(&self) -> bool {
        Arc::strong_count(&self.watch) == 1
    }
}

fn pipeline(workers: usize) -> Pipeline<Value> {
    Pipeline::new(Workers::chosen(NonZeroUsize::new(workers)))
}

/// The number of the value that comes first.
fn take(pipeline: &mut Pipeline<Value>) -> usize {
    block_on(poll_fn(|cx| pipeline.poll_front(cx).map_ok(drop))).unwrap();
    pipeline.pop().unwrap().number
}

/// Never more at a time than workers, each once, begun in order as far as there are lanes, and back in order.
fn in_order(workers: usize, threads: usize, jobs: usize) {
    let runtime = Runtime::entered(threads);
    // One worker has no lanes, as its stream has no more than one value.
    let values = Values::new(if workers == 1 { available_parallelism() } else { workers });
    let mut pipeline = pipeline(workers);
    for i in 0..jobs {
        pipeline.push(values.value(i), BATCH_LEN, Value::work);
    }
    for i in 0..jobs {
        assert_eq!(take(&mut pipeline), i);
    }
    assert!(pipeline.is_empty());
    runtime.shut_down();
    assert!(values.are_dropped());
}

/// A value that is lost is an error where it would have been, for good; its lane is not lost, nor are those behind it.
fn panics() {
    let runtime = Runtime::entered(2);
    let values = Values::new(2);
    let mut pipeline = pipeline(2);
    for i in 0..3 {
        pipeline.push(Value { has_panic: i < 2, ..values.value(i) }, BATCH_LEN, Value::work);
    }
    for _ in 0..2 {
        assert!(block_on(poll_fn(|cx| pipeline.poll_front(cx).map_ok(drop))).is_err());
        assert!(pipeline.pop().is_none());
    }
    values.watch.wait_for(3);
    pipeline.clear();
    pipeline.push(values.value(3), BATCH_LEN, Value::work);
    assert_eq!(take(&mut pipeline), 3);
    runtime.shut_down();
    assert!(values.are_dropped());
}

/// What is away when it is dropped is dropped there, and the lanes are there for what comes then.
fn dropped() {
    let runtime = Runtime::entered(2);
    let values = Values::to_be_dropped(2);
    let mut pipeline = pipeline(2);
    for i in 0..3 {
        pipeline.push(values.value(i), BATCH_LEN, Value::work);
    }
    pipeline.clear();
    pipeline.push(values.value(3), BATCH_LEN, Value::work);
    assert_eq!(take(&mut pipeline), 3);
    drop(pipeline);
    runtime.shut_down();
    assert!(values.are_dropped());
}

/// Whoever waits for a value gets it, though its runtime goes while it waits for a lane.
fn a_runtime_that_goes() {
    let runtime = Runtime::entered(2);
    let values = Values::new(2);
    let mut pipeline = pipeline(2);
    for i in 0..4 {
        pipeline.push(values.value(i), BATCH_LEN, Value::work);
    }
    runtime.shut_down();
    for i in 0..4 {
        assert_eq!(take(&mut pipeline), i);
    }
    assert!(values.are_dropped());
}

/// A value that was polled in one task wakes the one that has polled it last.
fn the_latest_waker() {
    let runtime = Runtime::entered(1);
    let values = Values::new(2);
    let mut pipeline = pipeline(2);
    for i in 0..2 {
        pipeline.push(values.value(i), BATCH_LEN, Value::work);
    }
    let _ = pipeline.poll_front(&mut Context::from_waker(Waker::noop()));
    let other = loom::thread::spawn(move || {
        assert_eq!(take(&mut pipeline), 0);
        pipeline
    });
    let mut pipeline = other.join().unwrap();
    assert_eq!(take(&mut pipeline), 1);
    runtime.shut_down();
}
