//! What an inner reader or writer does when it is polled, as a seed tells it.
//!
//! It keeps the contract that real ones keep, or adapters would be blamed for what no one does: after `Pending` it wakes the
//! waker that it was polled with last, and none but that one has to be woken. It watches the adapter in turn: one that goes on
//! polling what gets nowhere, reads into no room, or comes back after the end, fails the run.

use std::{
    collections::BTreeMap,
    error, fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use rand::{Rng, RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

/// How often in one poll of an adapter its inner value may be polled and get nowhere.
const MOST_IDLE: u32 = 64;

/// All that is random in a run.
#[derive(Debug)]
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Others that do not depend on how often these are thrown from now on.
    pub fn others(&mut self) -> Self {
        Self::new(self.0.next_u64())
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub fn percent(&mut self, p: usize) -> bool {
        self.below(100) < p
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// How likely what is, in percent.
#[derive(Debug, Clone)]
pub struct Weather {
    pub pending: usize,
    pub error: usize,
    pub zero: usize,
    pub short: usize,
    /// The most that a short read or write moves.
    pub most: usize,
    /// After so many polls nothing works any more.
    pub broken_after: Option<u64>,
}

impl Weather {
    pub fn any(dice: &mut Dice) -> Self {
        Self {
            pending: dice.pick(&[0, 10, 40, 70]),
            error: dice.pick(&[0, 0, 3, 15, 40]),
            zero: dice.pick(&[0, 0, 5, 25]),
            short: dice.pick(&[0, 30, 80, 100]),
            most: 1000,
            broken_after: dice.percent(8).then(|| dice.below(60) as u64),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Read,
    Write,
    Flush,
    Shutdown,
    Seek,
    ReadAt,
}

/// An error that was injected: each has its own number, so that it is seen to be passed on, as it is, and once.
#[derive(Debug)]
pub struct Injected(pub u64);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "injected error {}", self.0)
    }
}

impl error::Error for Injected {}

/// The number of an injected error.
pub fn number(error: &io::Error) -> Option<u64> {
    error.get_ref()?.downcast_ref::<Injected>().map(|injected| injected.0)
}

/// What the inner values of one run share with the one who drives it.
#[derive(Clone)]
pub struct Injector(Arc<Mutex<State>>);

pub struct State {
    pub dice: Dice,
    pub weather: Weather,
    pub verbose: bool,
    /// Wake-ups may come from another thread.
    pub threads: bool,
    /// How often what was done.
    pub counts: BTreeMap<&'static str, u64>,
    /// What waits to be woken, by its gate: a reader or writer is one, and so is each read at an offset.
    waiting: BTreeMap<u64, Waiting>,
    gates: u64,
    pub polls: u64,
    errors: u64,
    /// The errors that were injected and that nobody was told of yet.
    pub unreported: Vec<u64>,
    /// What happened in this poll of the adapter.
    pub call: Call,
    /// Nothing works any more.
    pub broken: bool,
    /// How much was read, and whether its end was told.
    pub read: usize,
    pub at_end: bool,
    /// What was written, whether all of it was flushed, and whether that was the end.
    pub written: Vec<u8>,
    pub dirty: bool,
    pub closed: bool,
}

#[derive(Debug, Default)]
pub struct Call {
    pub error: Option<u64>,
    pub zero: bool,
    /// Somebody else's answer was a wrong one.
    pub lie: bool,
    idle: u32,
}

struct Waiting {
    /// `None` once it was woken.
    waker: Option<Waker>,
    ready: bool,
    /// How often it is woken in vain before it is ready.
    vain: usize,
}

impl Injector {
    pub fn new(mut dice: Dice, weather: Weather, threads: bool, verbose: bool) -> Self {
        let dice = dice.others();
        Self(Arc::new(Mutex::new(State {
            dice,
            weather,
            verbose,
            threads,
            counts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            gates: 1,
            polls: 0,
            errors: 0,
            unreported: Vec::new(),
            call: Call::default(),
            broken: false,
            read: 0,
            at_end: false,
            written: Vec::new(),
            dirty: false,
            closed: false,
        })))
    }

    /// An assertion that failed under this lock has failed the run.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self, what: &'static str) {
        self.state().count(what);
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.state().verbose {
            eprintln!("{}", text());
        }
    }

    /// The adapter is about to be polled.
    pub fn begin_call(&self) {
        self.state().call = Call::default();
    }

    /// A gate of its own, for one of several that are polled at a time.
    pub fn new_gate(&self) -> u64 {
        let mut state = self.state();
        state.gates += 1;
        state.gates
    }

    pub fn close_gate(&self, gate: u64) {
        self.state().waiting.remove(&gate);
    }

    /// Wakes somebody who waits; false if nobody does.
    pub fn wake_one(&self) -> bool {
        let mut state = self.state();
        let gates: Vec<u64> = state.waiting.iter().filter(|(_, w)| w.waker.is_some()).map(|(gate, _)| *gate).collect();
        if gates.is_empty() {
            return false;
        }
        let gate = state.dice.pick(&gates);
        drop(state);
        self.wake(gate);
        true
    }

    fn wake(&self, gate: u64) {
        let waker = {
            let mut state = self.state();
            let Some(waiting) = state.waiting.get_mut(&gate) else { return };
            match waiting.vain.checked_sub(1) {
                Some(vain) => waiting.vain = vain,
                None => waiting.ready = true,
            }
            let in_vain = !waiting.ready;
            let waker = waiting.waker.take();
            if in_vain {
                state.count("woken in vain");
            }
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What becomes of a poll: at most so many bytes move, or none.
    pub fn poll(&self, gate: u64, cx: &mut Context<'_>, op: Op) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let poll = state.poll(gate, cx, op);
        if state.verbose {
            eprintln!("    {op:?}: {poll:?}");
        }
        if matches!(poll, Poll::Ready(Ok(n)) if n > 0) {
            state.call.idle = 0;
        } else {
            state.call.idle += 1;
            assert!(state.call.idle <= MOST_IDLE, "it spins: {op:?} gets nowhere and is tried over and over");
        }
        let from_thread =
            poll.is_pending() && state.threads && state.waiting.contains_key(&gate) && state.dice.percent(10);
        if from_thread {
            state.count("woken by another thread");
            let micros = state.dice.below(300) as u64;
            drop(state);
            let injector = self.clone();
            elsewhere(Box::new(move || {
                thread::sleep(Duration::from_micros(micros));
                injector.wake(gate);
            }));
        }
        poll
    }
}

impl State {
    /// Something else as soon as a byte has moved.
    pub fn moved(&self) -> (usize, usize) {
        (self.read, self.written.len())
    }

    /// How much was read, and whether its end was told.
    pub fn read_so_far(&self) -> (usize, bool) {
        (self.read, self.at_end)
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn poll(&mut self, gate: u64, cx: &mut Context<'_>, op: Op) -> Poll<io::Result<usize>> {
        self.polls += 1;
        if let Some(waiting) = self.waiting.get_mut(&gate) {
            if !waiting.ready && !self.dice.percent(10) {
                waiting.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if !waiting.ready {
                // It got ready just before it was to be woken, and is woken nevertheless.
                cx.waker().wake_by_ref();
                self.count("ready before it was woken");
            }
            self.waiting.remove(&gate);
        } else if self.dice.percent(self.weather.pending) {
            if self.dice.percent(40) {
                self.count("pending, woken at once");
                cx.waker().wake_by_ref();
            } else {
                self.count("pending, woken later");
                let vain = if self.dice.percent(30) { 1 + self.dice.below(3) } else { 0 };
                self.waiting.insert(gate, Waiting { waker: Some(cx.waker().clone()), ready: false, vain });
            }
            return Poll::Pending;
        }
        self.broken |= self.weather.broken_after.is_some_and(|polls| self.polls > polls);
        if self.broken {
            self.count("error for good");
            return Poll::Ready(Err(self.error(io::ErrorKind::BrokenPipe)));
        }
        if self.dice.percent(self.weather.error) {
            use io::ErrorKind::{ConnectionReset, Interrupted, Other, TimedOut, WouldBlock};
            self.count(match op {
                Op::Flush => "error of a flush",
                Op::Shutdown => "error of a shutdown",
                Op::Seek => "error of a seek",
                Op::Read | Op::Write | Op::ReadAt => "error",
            });
            let kind = self.dice.pick(&[TimedOut, Interrupted, WouldBlock, ConnectionReset, Other]);
            return Poll::Ready(Err(self.error(kind)));
        }
        // Whoever takes nothing once takes nothing for a while.
        if op == Op::Write && (self.call.zero || self.dice.percent(self.weather.zero)) {
            self.count("nothing taken");
            self.call.zero = true;
            return Poll::Ready(Ok(0));
        }
        if matches!(op, Op::Read | Op::Write) && self.dice.percent(self.weather.short) {
            let most = 1 + self.dice.below(self.weather.most);
            self.count(if most == 1 { "one byte" } else { "short" });
            return Poll::Ready(Ok(most));
        }
        Poll::Ready(Ok(usize::MAX))
    }

    fn error(&mut self, kind: io::ErrorKind) -> io::Error {
        self.errors += 1;
        self.unreported.push(self.errors);
        self.call.error = Some(self.errors);
        io::Error::new(kind, Injected(self.errors))
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Does something on a thread that is there for it.
fn elsewhere(work: Work) {
    static THREAD: Mutex<Option<mpsc::Sender<Work>>> = Mutex::new(None);
    let mut thread = THREAD.lock().unwrap();
    let sender = thread.get_or_insert_with(|| {
        let (sender, works) = mpsc::channel::<Work>();
        thread::spawn(move || works.into_iter().for_each(|work| work()));
        sender
    });
    sender.send(work).unwrap();
}
