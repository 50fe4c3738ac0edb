//! Polls an adapter as the worst of its callers would, and no more often than it has to be.
//!
//! It polls again only if the waker of its last poll was woken, or now and then without: so an adapter that is pending and will
//! be woken by nobody is found, at once where there is no runtime, else after [`PATIENCE`].

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use agcm::Error;

use crate::inject::{Dice, Injector, number};

/// For how long nothing may happen where other threads are at work.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often in a row a poll may be pending without a byte that moves.
const MOST_PENDING: u32 = 5000;

/// Where a run takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Without a runtime: what is injected, and when, depends on nothing but the seed.
    Alone,
    /// On a thread that has entered a runtime, so that long work goes to its blocking pool.
    Entered,
    /// In `block_on` of a runtime of one thread.
    CurrentThread,
    /// In a task of a runtime of several threads.
    Task,
}

/// Knows whether it was woken.
#[derive(Default)]
struct Tracker {
    woken: Mutex<(bool, Option<Waker>)>,
    changed: Condvar,
}

impl Wake for Tracker {
    fn wake(self: Arc<Self>) {
        let parent = {
            let mut woken = self.woken.lock().unwrap();
            woken.0 = true;
            woken.1.take()
        };
        self.changed.notify_all();
        if let Some(parent) = parent {
            parent.wake();
        }
    }
}

impl Tracker {
    fn reset(&self) {
        *self.woken.lock().unwrap() = (false, None);
    }

    fn is_woken(&self) -> bool {
        self.woken.lock().unwrap().0
    }

    fn poll_woken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut woken = self.woken.lock().unwrap();
        if woken.0 {
            return Poll::Ready(());
        }
        woken.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Blocks this thread until it is woken; false if it is not.
    fn wait(&self) -> bool {
        let woken = self.woken.lock().unwrap();
        let (woken, _) = self.changed.wait_timeout_while(woken, PATIENCE, |woken| !woken.0).unwrap();
        woken.0
    }
}

/// A run of one adapter.
pub struct Run {
    pub dice: Dice,
    pub injector: Injector,
    pub place: Place,
    /// The inner value lies, and errors other than the injected ones are to be expected.
    pub lying: bool,
    tracker: Arc<Tracker>,
    /// How likely another waker is for the next poll, in percent.
    other_waker: usize,
    /// How likely a poll is given up, in percent.
    give_up: usize,
    /// How many errors were passed on since nothing worked any more.
    hopeless: u32,
}

impl Run {
    pub fn new(mut dice: Dice, injector: Injector, place: Place) -> Self {
        let (other_waker, give_up) = (dice.pick(&[0, 10, 50]), dice.pick(&[0, 10, 40]));
        let tracker = Arc::default();
        Self { dice, injector, place, lying: false, tracker, other_waker, give_up, hopeless: 0 }
    }

    /// About so many bytes will be moved: not one by one if they are many.
    pub fn move_about(&mut self, len: usize) {
        let most = match len {
            0..20_000 => self.dice.pick(&[1, 3, 20, 1000]),
            _ => self.dice.pick(&[2000, 50_000, 1 << 20]),
        };
        self.injector.state().weather.most = most;
    }

    pub fn is_alone(&self) -> bool {
        self.place == Place::Alone
    }

    /// Polls until it is ready.
    pub async fn drive<T>(&mut self, op: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        self.poll(false, op).await.unwrap()
    }

    /// Polls until it is ready, or until it is given up: `None`.
    pub async fn try_drive<T>(&mut self, op: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        self.poll(true, op).await
    }

    async fn poll<T>(&mut self, may_give_up: bool, mut op: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        let gives_up = may_give_up && self.dice.percent(self.give_up);
        let mut patience = if gives_up { 1 + self.dice.below(3) } else { usize::MAX };
        let mut pending = 0;
        let mut moved = self.injector.state().moved();
        while pending < MOST_PENDING {
            if self.dice.percent(self.other_waker) {
                self.injector.count("polled with another waker");
                self.tracker = Arc::default();
            }
            self.tracker.reset();
            self.injector.begin_call();
            let waker = Waker::from(self.tracker.clone());
            if let Poll::Ready(value) = op(&mut Context::from_waker(&waker)) {
                return Some(value);
            }
            pending += 1;
            let now = self.injector.state().moved();
            if now != moved {
                (moved, pending) = (now, 0);
            }
            patience -= 1;
            if patience == 0 {
                self.injector.count("given up half-way");
                return None;
            }
            if self.dice.percent(8) {
                self.injector.count("polled without being woken");
            } else {
                self.woken().await;
            }
        }
        panic!("it is woken over and over, and gets nowhere");
    }

    async fn woken(&mut self) {
        if !self.is_alone() && self.place != Place::Entered && self.dice.percent(30) {
            tokio::task::yield_now().await;
        }
        while !self.tracker.is_woken() {
            if self.injector.wake_one() {
                continue;
            }
            let woken = match self.place {
                Place::Alone => false,
                Place::Entered => self.tracker.wait(),
                Place::CurrentThread | Place::Task => {
                    let woken = poll_fn(|cx| self.tracker.poll_woken(cx));
                    tokio::time::timeout(PATIENCE, woken).await.is_ok()
                }
            };
            assert!(woken, "a lost wake-up: it is pending, and nobody will wake who polled it last");
        }
    }

    /// What has to be begun anew after each error gets a chance at last.
    pub fn calm_down(&mut self, attempts: u32) {
        if attempts > 10 {
            self.injector.state().weather.error = 0;
        }
    }

    /// Whether it makes no sense to go on: nothing works any more, and that was said often enough.
    pub fn is_hopeless(&mut self) -> bool {
        self.hopeless > 4
    }

    /// What the writer that was just polled says is what the inner one said in that same poll, or nothing.
    ///
    /// Returns what is the stream's or the caller's fault.
    #[track_caller]
    pub fn check_writer<T>(&mut self, result: io::Result<T>) -> Result<T, Option<Error>> {
        let state = self.injector.state();
        let (error, zero, broken) = (state.call.error, state.call.zero, state.broken);
        drop(state);
        match result {
            Ok(value) => {
                assert_eq!(error, None, "it keeps to itself that the inner writer has failed");
                Ok(value)
            }
            Err(got) => {
                self.hopeless += u32::from(broken);
                self.injector.note(|| format!("  {got:?}"));
                if error.is_some() {
                    assert_eq!(number(&got), error, "the inner writer's error is passed on: {got:?}");
                    Err(None)
                } else if zero && got.kind() == io::ErrorKind::WriteZero {
                    Err(None)
                } else {
                    let Some(error) = Error::from_io(&got) else { panic!("nobody has injected {got:?}") };
                    Err(Some(error))
                }
            }
        }
    }

    /// An error that a reader passes on is the oldest that nobody was told of.
    ///
    /// Returns what is the stream's or the caller's fault.
    #[track_caller]
    pub fn check_reader(&mut self, error: &io::Error) -> Option<Error> {
        self.injector.note(|| format!("  {error:?}"));
        let mut state = self.injector.state();
        self.hopeless += u32::from(state.broken);
        if let Some(number) = number(error) {
            assert!(!state.unreported.is_empty(), "{error:?} was passed on before");
            assert_eq!(number, state.unreported.remove(0), "errors are passed on in order");
            return None;
        }
        let lying = self.lying;
        let error = Error::from_io(error);
        assert!(error.is_some() || lying, "nobody has injected {error:?}");
        error
    }

    #[track_caller]
    pub fn assert_all_reported(&self) {
        let unreported = &self.injector.state().unreported;
        assert!(unreported.is_empty(), "errors of the inner reader that nobody was told of: {unreported:?}");
    }

    /// Waits for what another thread is to do.
    pub fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Drives a future that is not given up.
    pub async fn complete<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        self.drive(|cx| future.as_mut().poll(cx)).await
    }

    /// Drives a future that may be dropped half-way.
    pub async fn attempt<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        self.try_drive(|cx| future.as_mut().poll(cx)).await
    }
}
