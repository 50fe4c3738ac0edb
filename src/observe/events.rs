//! With the feature `tracing`: events and spans.
//!
//! Nothing is asked for, allocated or timed unless there is a subscriber that wants it.

use std::{fmt, io, panic::AssertUnwindSafe, time::Instant};

use tracing::{Instrument, Span, debug, debug_span, field::Empty, info, level_filters::LevelFilter, warn};

use super::Direction;
use crate::error::Error;

const STREAM: &str = "agcm::stream";
const READER: &str = "agcm::reader";
const FILE: &str = "agcm::file";

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// Whether anybody may want to know anything: with no subscriber, one load and a comparison.
fn is_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::WARN
}

/// The life of one stream: opened once, then finished, failed or dropped once. (A stream that is finished fails if something
/// follows it where nothing may.)
///
/// Frames may be passed by before they are opened, elsewhere. So an end is told only when all frames before it were opened.
pub(crate) struct Watch {
    direction: Direction,
    /// `None` before the start, and if nobody wants to know. What users can see of a stream is unwind safe; what a subscriber does
    /// when it panics is its own affair.
    seen: Option<AssertUnwindSafe<Box<Seen>>>,
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Finished,
    Failed,
}

struct Seen {
    span: Span,
    start: Instant,
    chunk_size: usize,
    /// How much plaintext was sealed, or opened, and in how many frames.
    bytes: u64,
    frames: u64,
    /// How much was passed by: no less.
    passed: (u64, u64),
    /// Whether it is whole and what is wrong behind it, once all of those were opened.
    whole: bool,
    error: Option<Error>,
}

impl Watch {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, seen: None, told: Told::Nothing }
    }

    /// The stream is opened: its header was made, or read and found to be under the key.
    pub(crate) fn start(&mut self, chunk_size: usize) {
        if !is_wanted() {
            return;
        }
        let direction = self.direction.name();
        let span = debug_span!(
            target: STREAM,
            "stream",
            direction,
            chunk_size,
            outcome = Empty,
            bytes = Empty,
            frames = Empty,
            seconds = Empty,
        );
        span.in_scope(|| debug!(target: STREAM, direction, chunk_size, "stream opened"));
        let start = Instant::now();
        self.seen = Some(AssertUnwindSafe(Box::new(Seen {
            span,
            start,
            chunk_size,
            bytes: 0,
            frames: 0,
            passed: (0, 0),
            whole: false,
            error: None,
        })));
    }

    /// There is so much plaintext up to here, in so many frames, of which some may still be opened elsewhere.
    pub(crate) fn pass(&mut self, bytes: u64, frames: u64) {
        if let Some(seen) = &mut self.seen {
            seen.passed = (bytes, frames);
        }
    }

    /// All that was passed by was opened.
    pub(crate) fn reach_passed(&mut self) {
        if let Some(seen) = &self.seen {
            let (bytes, frames) = seen.passed;
            self.reach(bytes, frames);
        }
    }

    /// So many bytes of plaintext were sealed or opened, in so many frames.
    pub(crate) fn reach(&mut self, bytes: u64, frames: u64) {
        let Some(seen) = &mut self.seen else { return };
        (seen.bytes, seen.frames) = (bytes, frames);
        seen.passed = seen.passed.max((bytes, frames));
        self.settle();
    }

    /// The stream is whole, if all of its frames are authentic.
    pub(crate) fn finish(&mut self) {
        match &mut self.seen {
            Some(seen) => seen.whole = true,
            None => return,
        }
        self.settle();
    }

    /// The stream is wrong behind the frames that were passed by, if those are authentic.
    pub(crate) fn fail(&mut self, error: Error) {
        match &mut self.seen {
            Some(seen) => seen.error = Some(error),
            None => return self.tell(Err(error)),
        }
        self.settle();
    }

    /// The stream is wrong behind what was reached.
    pub(crate) fn fail_here(&mut self, error: Error) {
        if let Some(seen) = &mut self.seen {
            seen.passed = (seen.bytes, seen.frames);
            seen.whole = false;
        }
        self.fail(error);
    }

    fn settle(&mut self) {
        let Some(seen) = &self.seen else { return };
        let (whole, error) = (seen.whole, seen.error);
        if (seen.bytes, seen.frames) < seen.passed {
            return;
        }
        if whole {
            self.tell(Ok(()));
        }
        if let Some(error) = error {
            self.tell(Err(error));
        }
    }

    fn tell(&mut self, end: Result<(), Error>) {
        match (self.told, end) {
            (Told::Nothing, Ok(())) => self.told = Told::Finished,
            (Told::Nothing | Told::Finished, Err(_)) => self.told = Told::Failed,
            // An error comes as often as it is asked for.
            _ => return,
        }
        let direction = self.direction.name();
        match (&self.seen, end) {
            (Some(seen), Ok(())) => seen.tell_end("finished", |bytes, frames, seconds| {
                debug!(target: STREAM, direction, chunk_size = seen.chunk_size, bytes, frames, seconds, "stream finished");
            }),
            (Some(seen), Err(error)) => seen.tell_end("failed", |bytes, frames, seconds| {
                tell_failed(error, direction, Some(seen.chunk_size), bytes, frames, seconds);
            }),
            // It was not opened, or nobody was there to be told.
            (None, Err(error)) => tell_failed(error, direction, None, 0, 0, 0.0),
            (None, Ok(())) => {}
        }
    }
}

impl Seen {
    /// Notes on the span how the stream has ended, and calls `event` in it.
    fn tell_end(&self, outcome: &'static str, event: impl FnOnce(u64, u64, f64)) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.span.record("outcome", outcome);
        self.span.record("bytes", self.bytes);
        self.span.record("frames", self.frames);
        self.span.record("seconds", seconds);
        self.span.in_scope(|| event(self.bytes, self.frames, seconds));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some(seen), Told::Nothing) = (&self.seen, self.told) {
            let direction = self.direction.name();
            seen.tell_end("dropped", |bytes, frames, seconds| {
                debug!(target: STREAM, direction, chunk_size = seen.chunk_size, bytes, frames, seconds, "stream dropped");
            });
        }
    }
}

fn tell_failed(
    error: Error,
    direction: &'static str,
    chunk_size: Option<usize>,
    bytes: u64,
    frames: u64,
    seconds: f64,
) {
    macro_rules! tell {
        ($level:ident) => {
            $level!(target: STREAM, direction, chunk_size, bytes, frames, seconds, error = ?error, "stream failed")
        };
    }
    // On a socket that is a peer that has gone, which happens every day.
    if is_cut(&error) { tell!(info) } else { tell!(warn) }
}

fn is_cut(error: &Error) -> bool {
    matches!(error, Error::Truncated { .. })
}

/// A stream was opened by offset.
pub(crate) fn reader_opened(chunk_size: usize, bytes: u64, frames: u64, uniform: bool) {
    debug!(target: READER, chunk_size, bytes, frames, uniform, "reader opened");
}

/// A stream could not be opened by offset.
pub(crate) fn reader_failed(error: Error) {
    if is_cut(&error) {
        info!(target: READER, error = ?error, "reader failed");
    } else {
        warn!(target: READER, error = ?error, "reader failed");
    }
}

/// Part of a stream could not be read by offset.
pub(crate) fn range_failed(error: Error) {
    warn!(target: READER, error = ?error, "range failed");
}

/// Work on a file, in a span of its own.
pub(crate) struct Job {
    name: &'static str,
    span: Span,
    /// `None` once the end was told, and if nobody wants to know.
    start: Option<Instant>,
}

impl Job {
    pub(crate) fn new(name: &'static str) -> Self {
        if !is_wanted() {
            return Self { name, span: Span::none(), start: None };
        }
        let span = debug_span!(target: FILE, "file", job = name, outcome = Empty, bytes = Empty, seconds = Empty);
        Self { name, span, start: Some(Instant::now()) }
    }

    /// What is done of it on another thread.
    pub(crate) fn carry<T, F: FnOnce() -> T>(&self, work: F) -> impl FnOnce() -> T + use<T, F> {
        let span = self.span.clone();
        move || span.in_scope(work)
    }

    /// The work as a whole.
    pub(crate) async fn watch(mut self, work: impl Future<Output = io::Result<u64>>) -> io::Result<u64> {
        let result = work.instrument(self.span.clone()).await;
        match &result {
            Ok(bytes) => {
                self.span.record("bytes", bytes);
                self.end("finished", |job, seconds| debug!(target: FILE, job, bytes, seconds, "file finished"));
            }
            Err(error) => self.end("failed", |job, seconds| match (Error::from_io(error), error.kind()) {
                (Some(error), _) => warn!(target: FILE, job, seconds, error = ?error, "file failed"),
                // The words of other errors hold paths.
                (None, error) => info!(target: FILE, job, seconds, error = ?error, "file failed"),
            }),
        }
        result
    }

    /// Notes on the span how the work has ended, and calls `event` in it, once.
    fn end(&mut self, outcome: &'static str, event: impl FnOnce(&'static str, f64)) {
        if let Some(start) = self.start.take() {
            let seconds = start.elapsed().as_secs_f64();
            self.span.record("outcome", outcome);
            self.span.record("seconds", seconds);
            self.span.in_scope(|| event(self.name, seconds));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end("dropped", |job, seconds| debug!(target: FILE, job, seconds, "file dropped"));
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
