//! Work in synchronous code on several threads, which live no longer than the call.
//!
//! Whatever is asked for, the process as a whole must not have more of these threads than it has cores; and none may be left behind.

use std::{
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crate::{blocking::available_parallelism, parallel::Workers};

/// Does work on the items, on several threads that live no longer than this call, and takes them up in their order until one says
/// that it is enough; what others are at by then is still done. This thread is one of them. Each has something of its own to work
/// with.
pub(crate) fn for_each<S, T: Send>(
    workers: Workers,
    items: impl ExactSizeIterator<Item = T> + Send,
    own: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> ControlFlow<()> + Sync,
) {
    let others = workers.get().min(items.len()).saturating_sub(1);
    let items = Mutex::new(items);
    let enough = AtomicBool::new(false);
    let lane = || {
        let mut own = own();
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(item) = if enough.load(Relaxed) { None } else { next() } {
            if work(&mut own, item).is_break() {
                enough.store(true, Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for helper in Helper::take(others) {
            let help = || {
                let _helper = helper;
                lane();
            };
            // Where there is no thread to be had, the others do its work.
            let _ = thread::Builder::new().name("agcm".to_owned()).spawn_scoped(scope, help);
        }
        lane();
    });
}

/// A thread that helps another one. In the whole process there are fewer of them than there are cores: whoever asks when all are
/// at work, does without.
struct Helper;

static HELPERS: AtomicUsize = AtomicUsize::new(0);

impl Helper {
    fn take(most: usize) -> impl Iterator<Item = Self> {
        let limit = available_parallelism() - 1;
        let take = move |n: usize| (n < limit).then_some(n + 1);
        (0..most).map_while(move |_| HELPERS.fetch_update(Relaxed, Relaxed, take).ok().map(|_| Self))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        num::NonZeroUsize,
        time::{Duration, Instant},
    };

    use super::*;

    fn workers(n: usize) -> Workers {
        Workers::chosen(NonZeroUsize::new(n))
    }

    #[test]
    fn helpers_are_fewer_than_cores_and_are_given_back() {
        // Other tests have some too, for a while.
        let soon = |what: &str, has_come: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !has_come() {
                assert!(start.elapsed() < Duration::from_secs(20), "{what}");
                thread::yield_now();
            }
        };
        let limit = available_parallelism() - 1;
        for _ in 0..20 {
            soon("no helper", &|| {
                let helpers: Vec<_> = Helper::take(limit + 5).collect();
                assert!(helpers.len() <= limit);
                helpers.len() >= limit.min(1)
            });
            soon("not given back", &|| HELPERS.load(Relaxed) == 0);
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn each_item_is_worked_on_once_and_none_is_taken_up_after_enough() {
        for threads in 1..4 {
            let done = Mutex::new(Vec::new());
            for_each(
                workers(threads),
                0..100,
                || (),
                |(), i| {
                    done.lock().unwrap().push(i);
                    ControlFlow::Continue(())
                },
            );
            let mut done = done.into_inner().unwrap();
            done.sort();
            assert!(done.into_iter().eq(0..100));

            let taken = AtomicUsize::new(0);
            for_each(
                workers(threads),
                0..1_000_000,
                || (),
                |(), i| {
                    taken.fetch_add(1, Relaxed);
                    if i < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                },
            );
            let taken = taken.into_inner();
            assert!((11..10 + 2 * threads).contains(&taken), "{taken} by {threads}");
        }
    }
}
