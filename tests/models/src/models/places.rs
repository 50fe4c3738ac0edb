//! `blocking.rs`: the places of the process, and the jobs that were set aside.

use super::{Model, Watch, panic_quietly};
use crate::{
    blocking::{available_parallelism, spawn},
    runtime::Runtime,
    sync::Arc,
    time,
};

pub(super) const MODELS: &[Model] = &[
    Model { name: "places::one_for_two_runtimes", cores: 1, preemptions: Some(2), run: || two_runtimes(3, usize::MAX) },
    Model { name: "places::one_left_after_each_job", cores: 1, preemptions: Some(2), run: || two_runtimes(3, 0) },
    Model { name: "places::one_left_after_two_jobs", cores: 1, preemptions: Some(2), run: || two_runtimes(3, 1) },
    Model { name: "places::two_for_two_runtimes", cores: 2, preemptions: Some(2), run: || two_runtimes(3, 1) },
    Model { name: "places::given_up_after_a_panic", cores: 1, preemptions: Some(2), run: a_panic },
    Model { name: "places::a_runtime_that_goes", cores: 1, preemptions: Some(2), run: a_runtime_that_goes },
    Model { name: "places::both_runtimes_go", cores: 1, preemptions: Some(2), run: both_runtimes_go },
];

/// Never more jobs at a time than places, and none is forgotten when a place is left just as it is set aside.
fn two_runtimes(jobs: usize, looks: usize) {
    time::stand_for(looks);
    let watch = Arc::new(Watch::new(available_parallelism()));
    let runtimes = [Runtime::new(available_parallelism()), Runtime::new(1)];
    for i in 0..jobs {
        let watch = watch.clone();
        spawn(runtimes[i % 2].handle(), move || watch.job(i, |_| ()));
    }
    watch.wait_for(jobs);
    // And there is a place again.
    let again = watch.clone();
    spawn(runtimes[1].handle(), move || again.job(jobs, |_| ()));
    watch.wait_for(jobs + 1);
    runtimes.into_iter().for_each(Runtime::shut_down);
}

fn a_panic() {
    time::stand_for(usize::MAX);
    let watch = Arc::new(Watch::new(available_parallelism()));
    let runtimes = [Runtime::new(1), Runtime::new(1)];
    for i in 0..3 {
        let watch = watch.clone();
        spawn(runtimes[i % 2].handle(), move || {
            watch.job(i, |_| ());
            if i < 2 {
                panic_quietly();
            }
        });
    }
    watch.wait_for(3);
    runtimes.into_iter().for_each(Runtime::shut_down);
}

/// The jobs of a runtime that goes are done all the same: before it goes, by another, or where they are dropped. The limit does not
/// hold for the last.
fn a_runtime_that_goes() {
    time::stand_for(1);
    let watch = Arc::new(Watch::new(usize::MAX));
    let [stays, goes] = [Runtime::new(1), Runtime::new(1)];
    for i in 0..4 {
        let watch = watch.clone();
        spawn(if i == 1 { stays.handle() } else { goes.handle() }, move || watch.job(i, |_| ()));
    }
    goes.shut_down();
    watch.wait_for(4);
    stays.shut_down();
}

/// When the last thread of them has gone, nothing is left to be done.
fn both_runtimes_go() {
    time::stand_for(usize::MAX);
    let watch = Arc::new(Watch::new(usize::MAX));
    let runtimes = [Runtime::new(1), Runtime::new(1)];
    for i in 0..4 {
        let watch = watch.clone();
        spawn(runtimes[i % 2].handle(), move || watch.job(i, |_| ()));
    }
    runtimes.into_iter().for_each(Runtime::shut_down);
    assert_eq!(watch.ended(), [0, 1, 2, 3]);
}
