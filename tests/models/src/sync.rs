//! What stands for `std::sync` and `tokio::sync`, each operation a place where loom may go on with another thread.
//!
//! Statics are made before any run and stay for all of them, while an object of loom's is one run's. So each of these has another
//! object in each run; an atomic's is to be made by the first thread, before there are others. What a mutex guards is not loom's, and stays: a run must leave the statics as it has found them.

pub(crate) use real::sync::{Arc, LazyLock, PoisonError};
use real::sync::{LockResult, Mutex as RealMutex, MutexGuard as RealGuard};

use crate::{
    ops::{Deref, DerefMut},
    run,
};

/// An object of the run that is going on. Those of earlier runs are leaked: they are a few bytes each, and may be borrowed for long.
struct PerRun<T: 'static>(RealMutex<Option<(usize, &'static T)>>);

impl<T> PerRun<T> {
    const fn new() -> Self {
        Self(RealMutex::new(None))
    }

    fn get(&self, new: impl FnOnce() -> T) -> &'static T {
        let mut latest = self.0.lock().unwrap();
        match *latest {
            Some((of, object)) if of == run() => object,
            _ => latest.insert((run(), Box::leak(Box::new(new())))).1,
        }
    }
}

pub(crate) struct Mutex<T> {
    turn: PerRun<loom::sync::Mutex<()>>,
    value: RealMutex<T>,
}

pub(crate) struct MutexGuard<'a, T> {
    // In this order: it is not for others before they can have it.
    guarded: RealGuard<'a, T>,
    _turn: loom::sync::MutexGuard<'static, ()>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { turn: PerRun::new(), value: RealMutex::new(value) }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let turn = self.turn.get(|| loom::sync::Mutex::new(())).lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        match self.value.lock() {
            Ok(guarded) => Ok(MutexGuard { guarded, _turn }),
            Err(poisoned) => Err(PoisonError::new(MutexGuard { guarded: poisoned.into_inner(), _turn })),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guarded
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guarded
    }
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::AtomicBool;
    pub(crate) use real::sync::atomic::Ordering;

    use super::PerRun;

    /// For statics too.
    pub(crate) struct AtomicUsize {
        first: usize,
        now: PerRun<loom::sync::atomic::AtomicUsize>,
    }

    impl AtomicUsize {
        pub(crate) const fn new(first: usize) -> Self {
            Self { first, now: PerRun::new() }
        }

        fn now(&self) -> &'static loom::sync::atomic::AtomicUsize {
            self.now.get(|| loom::sync::atomic::AtomicUsize::new(self.first))
        }

        pub(crate) fn load(&self, order: Ordering) -> usize {
            self.now().load(order)
        }

        pub(crate) fn store(&self, value: usize, order: Ordering) {
            self.now().store(value, order);
        }

        pub(crate) fn fetch_add(&self, n: usize, order: Ordering) -> usize {
            self.now().fetch_add(n, order)
        }

        pub(crate) fn fetch_sub(&self, n: usize, order: Ordering) -> usize {
            self.now().fetch_sub(n, order)
        }

        pub(crate) fn fetch_update(
            &self,
            set_order: Ordering,
            fetch_order: Ordering,
            update: impl FnMut(usize) -> Option<usize>,
        ) -> Result<usize, usize> {
            self.now().fetch_update(set_order, fetch_order, update)
        }
    }
}

/// As Tokio's is documented: the latest waker is the one that is woken; whoever is dropped tells the other; and a value that nobody
/// took is dropped with the receiver.
pub(crate) mod oneshot {
    use super::{Arc, Mutex, MutexGuard, PoisonError};
    use crate::{
        future::Future,
        mem,
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    struct Slot<T> {
        value: Option<T>,
        waker: Option<Waker>,
        has_sender: bool,
        has_receiver: bool,
    }

    struct Shared<T>(Arc<Mutex<Slot<T>>>);

    impl<T> Shared<T> {
        fn slot(&self) -> MutexGuard<'_, Slot<T>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    pub(crate) struct Sender<T>(Shared<T>);

    pub(crate) struct Receiver<T>(Shared<T>);

    pub(crate) struct RecvError;

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let slot = Slot { value: None, waker: None, has_sender: true, has_receiver: true };
        let shared = Arc::new(Mutex::new(slot));
        (Sender(Shared(shared.clone())), Receiver(Shared(shared)))
    }

    impl<T> Sender<T> {
        pub(crate) fn is_closed(&self) -> bool {
            !self.0.slot().has_receiver
        }

        /// Whoever is dropped after this wakes the receiver.
        pub(crate) fn send(self, value: T) -> Result<(), T> {
            let mut slot = self.0.slot();
            if !slot.has_receiver {
                return Err(value);
            }
            slot.value = Some(value);
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let mut slot = self.0.slot();
            slot.has_sender = false;
            let waker = slot.waker.take();
            drop(slot);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, RecvError>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            // Under no lock, as loom goes from thread to thread in the wakers too.
            let mut waker = Some(cx.waker().clone());
            let mut slot = self.0.slot();
            let polled = match slot.value.take() {
                Some(value) => Poll::Ready(Ok(value)),
                None if !slot.has_sender => Poll::Ready(Err(RecvError)),
                None => {
                    mem::swap(&mut slot.waker, &mut waker);
                    Poll::Pending
                }
            };
            drop(slot);
            polled
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let mut slot = self.0.slot();
            slot.has_receiver = false;
            let unused = (slot.value.take(), slot.waker.take());
            drop(slot);
            drop(unused);
        }
    }
}
