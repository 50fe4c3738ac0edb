//! Frames on their way in: stream bytes in, checked plaintext out, no I/O.
//!
//! It says how many bytes it may be given, so that whoever reads for it never takes one that is not the stream's. It must
//! never show a byte unless it and all before it were authenticated, never allocate on the word of one that was not, and
//! never forget an error.

use std::{
    fmt, io, mem,
    ops::Range,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, buf::Limit};

use crate::{
    decrypt::{Decryptor, Deferral, Deferred, Step},
    error::Error,
    format::{FRAME_OVERHEAD, TAG_LEN, WORD_LEN, longest_frame},
    key::KeyRing,
    offload::note_work,
    options::{DecryptOptions, Trailing},
    parallel::{Pipeline, Workers},
    pool::Buffer,
};

/// Until a data frame has authenticated, the buffer holds at most twice what has arrived and this much, in bytes.
const UNTRUSTED_LEN: usize = 4096;

/// The decrypting side of a stream: an intake that is being filled, and before it the batches of frames that are open, or
/// being opened.
///
/// With one worker there is one buffer for one frame: it takes a frame in, or gives one out.
///
/// ```text
///              found         found + required
///  0             |             |
///  +------+------+------+------+-----------+
///  |frame |frame | word | part |   spare   |
///  +------+------+------+------+-----------+
/// ```
pub(crate) struct OpenQueue {
    decryptor: Decryptor,
    trailing: Trailing,
    workers: Workers,
    intake: Buffer,
    /// How much of its front is whole data frames, how many those are, and where they stand in the stream.
    found: usize,
    frames: usize,
    first: Option<Deferred>,
    /// How much must be there behind them for the next step, and how much may be.
    required: usize,
    allowed: usize,
    /// What the next intake begins with: no more than a frame word.
    rest: ([u8; WORD_LEN], usize),
    opened: Pipeline<OpenBatch>,
    /// Buffers that are free.
    idle: Vec<Buffer>,
    /// What would be wrong with the batch that was opened last.
    latest: Option<Error>,
    /// A data frame was authentic, so the stream was made by somebody who knows the key. Its first 80 bytes alone could be
    /// replayed by anyone who saw them.
    trusted: bool,
    /// The input ended where it may end.
    over: bool,
}

/// What to do next with an [`OpenQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take from [`OpenQueue::plaintext`].
    Take,
    /// Call [`OpenQueue::open`] or [`OpenQueue::open_into`], which will yield at most this many bytes of plaintext.
    Open(usize),
    /// Read into [`OpenQueue::spare`], or call [`OpenQueue::end_of_input`].
    Read,
    /// Wait for [`OpenQueue::poll_opened`].
    Wait,
    /// Nothing, until there is something to be read.
    Stalled,
    /// Nothing: the stream is whole.
    End,
}

impl OpenQueue {
    /// `trailing` is for when the options leave it open.
    pub(crate) fn new(keys: KeyRing, options: &DecryptOptions, trailing: Trailing) -> Self {
        Self::with_workers(keys, options, trailing, Workers::chosen(options.workers))
    }

    /// A queue of one frame, whatever the options say.
    pub(crate) fn of_one_frame(keys: KeyRing, options: &DecryptOptions, trailing: Trailing) -> Self {
        Self::with_workers(keys, options, trailing, Workers::ONE)
    }

    fn with_workers(keys: KeyRing, options: &DecryptOptions, trailing: Trailing, workers: Workers) -> Self {
        Self {
            decryptor: Decryptor::new(keys, options),
            trailing: options.trailing.unwrap_or(trailing),
            workers,
            intake: Buffer::default(),
            found: 0,
            frames: 0,
            first: None,
            required: 0,
            allowed: 0,
            rest: Default::default(),
            opened: Pipeline::new(workers),
            idle: Vec::new(),
            latest: None,
            trusted: false,
            over: false,
        }
    }

    /// | of the batches        | in the intake                  | of the stream     | next                          |
    /// |-----------------------|--------------------------------|-------------------|-------------------------------|
    /// | some of one was taken |                                |                   | take the rest                 |
    /// | the first is bad      |                                |                   | its error, now and ever after |
    /// |                       | as many frames as go together  |                   | open them                     |
    /// |                       | frames                         | failed, or whole  | open them                     |
    /// | there are none        | frames                         | no more for now   | open them                     |
    /// | there is room for more|                                | going on          | read                          |
    /// | one is open           |                                |                   | take it                       |
    /// | the first is away     |                                |                   | wait for it                   |
    /// | there are none        | no frame                       | going on, no more | nothing, until there is more  |
    /// | there are none        | no frame                       | failed            | the same error again          |
    /// | there are none        | no frame                       | whole             | end                           |
    ///
    /// A stream that is whole still goes on if nothing may follow it, until that was seen. Whether there may be more of it for
    /// now is for the caller to say.
    pub(crate) fn next(&mut self, may_read: bool) -> Result<Next, Error> {
        self.leave_empty_batches()?;
        let is_open = self.opened.front().is_some();
        if self.opened.front().is_some_and(|batch| batch.taken) {
            return Ok(Next::Take);
        }
        self.scan();
        let goes_on = self.goes_on();
        let opens = self.is_full() || !goes_on || !may_read && self.opened.is_empty();
        Ok(if self.frames > 0 && opens {
            Next::Open(self.found_len())
        } else if goes_on && may_read && self.has_room() {
            Next::Read
        } else if is_open {
            Next::Take
        } else if !self.opened.is_empty() {
            Next::Wait
        } else if let Some(error) = self.decryptor.error() {
            return Err(error);
        } else if goes_on {
            Next::Stalled
        } else {
            Next::End
        })
    }

    /// Lets go of the batches that were taken.
    fn leave_empty_batches(&mut self) -> Result<(), Error> {
        while let Some(batch) = self.opened.front() {
            self.decryptor.reached(&batch.place);
            if !batch.plaintext.is_empty() {
                self.trusted = true;
                break;
            }
            if let Some(error) = batch.error {
                return Err(self.fail(error));
            }
            if let Some(OpenBatch { mut buf, .. }) = self.opened.pop() {
                // Another one would be too small, or no longer needed.
                if self.whole().is_some_and(|whole| whole <= buf.capacity()) {
                    buf.clear();
                    self.idle.push(buf);
                }
            }
        }
        Ok(())
    }

    /// Whether the input may go on.
    fn goes_on(&self) -> bool {
        let is_complete = self.decryptor.is_complete() && (self.over || self.trailing == Trailing::Leave);
        !is_complete && self.decryptor.error().is_none()
    }

    /// Whether more can be taken in. Until the first frame is known to be authentic there is no other.
    fn has_room(&self) -> bool {
        let batches = if self.trusted { self.workers.batches() } else { 1 };
        self.opened.len() < batches && !self.is_full()
    }

    /// Whether the intake has as many frames as are opened together.
    fn is_full(&self) -> bool {
        match (self.whole(), self.decryptor.chunk_size()) {
            (Some(whole), Some(chunk_size)) => whole - self.found < longest_frame(chunk_size) + WORD_LEN,
            _ => self.frames > 0,
        }
    }

    /// How long an intake is, if chunks may be believed to be as long as the header says.
    fn whole(&self) -> Option<usize> {
        let chunk_size = self.decryptor.chunk_size().filter(|_| self.trusted)?;
        Some(self.workers.chunks_per_batch(chunk_size) * longest_frame(chunk_size) + WORD_LEN)
    }

    /// Looks for whole frames in what has come in.
    fn scan(&mut self) {
        while self.goes_on() && self.has_room() {
            self.prepare();
            if self.intake.len() - self.found < self.required {
                break;
            }
            match self.decryptor.defer(&self.intake[self.found..]) {
                Ok(Deferral::Data { consumed, deferred }) => {
                    self.first.get_or_insert(deferred);
                    self.found += consumed;
                    self.frames += 1;
                    (self.required, self.allowed) = (WORD_LEN, WORD_LEN);
                }
                Ok(Deferral::Step(Step::Incomplete { required, allowed })) => {
                    // A header is checked as far as it has arrived: most of what is not a stream shows in its first bytes.
                    let started = self.decryptor.chunk_size().is_some();
                    self.required = if started { required } else { self.intake.len() + 1 };
                    self.allowed = allowed;
                }
                Ok(Deferral::Step(Step::Start { consumed })) => {
                    self.intake.drain(..consumed);
                    (self.required, self.allowed) = (WORD_LEN, WORD_LEN);
                }
                Ok(Deferral::Step(_)) => {
                    self.drop_rest();
                    // One byte would be enough to tell that the input goes on.
                    (self.required, self.allowed) = (1, 1);
                }
                Err(_) => self.drop_rest(),
            }
        }
    }

    /// Drops what is behind the frames that were found: nothing comes of it any more.
    fn drop_rest(&mut self) {
        self.intake.truncate(self.found);
        self.rest.1 = 0;
        self.idle = Vec::new();
        if self.found == 0 {
            self.intake = Buffer::default();
        }
    }

    /// Makes sure that the intake begins with what is known of its first frame.
    fn prepare(&mut self) {
        let (rest, len) = mem::take(&mut self.rest);
        if self.intake.capacity() == 0 && (len > 0 || !self.idle.is_empty()) {
            self.intake = self.new_intake(len);
        }
        self.intake.extend_from_slice(&rest[..len]);
    }

    /// An intake for a whole batch, or at least for so much.
    fn new_intake(&mut self, len: usize) -> Buffer {
        self.idle.pop().unwrap_or_else(|| Buffer::with_capacity(self.whole().unwrap_or(len)))
    }

    /// Room for what may be read now: at least one byte, and no more than surely is the stream's. For when the next is to read.
    pub(crate) fn spare(&mut self) -> Limit<&mut Vec<u8>> {
        self.prepare();
        let len = self.intake.len();
        match self.whole() {
            Some(whole) if self.intake.capacity() == 0 => self.intake = Buffer::with_capacity(whole),
            None if len == self.intake.capacity() => {
                // All ciphertext so far, so it may be moved without being wiped. Where the allocator has to move it, the old and
                // the new buffer exist together while it does.
                self.intake.reserve_exact(self.allowed.min(2 * len + UNTRUSTED_LEN) - len);
            }
            _ => {}
        }
        let spare = self.intake.capacity() - len;
        let limit = spare.min(self.found + self.allowed - len);
        (&mut *self.intake).limit(limit)
    }

    /// Fills in the front of `bytes`, no more than surely is the stream's, and says how much. For when the next is to read.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        let mut spare = self.spare();
        let len = bytes.len().min(spare.remaining_mut());
        spare.put_slice(&bytes[..len]);
        len
    }

    /// Says that there is no more input.
    pub(crate) fn end_of_input(&mut self) {
        match self.decryptor.end_of_input(self.read_ahead()) {
            Ok(()) => self.over = true,
            Err(_) => self.drop_rest(),
        }
    }

    /// How many bytes the next step still lacks, as far as is known.
    pub(crate) fn missing(&self) -> usize {
        self.required.saturating_sub(self.read_ahead())
    }

    /// How much plaintext the next step can yield, as far as is known.
    pub(crate) fn step_len(&self) -> usize {
        self.required.saturating_sub(FRAME_OVERHEAD)
    }

    /// The chunk size of the stream, in bytes, while it is going on.
    pub(crate) fn chunk_size(&self) -> Option<usize> {
        self.decryptor.chunk_size()
    }

    /// Opens the frames that were found: at once if they are short, otherwise elsewhere.
    pub(crate) fn open(&mut self) {
        let len = self.found_len();
        if let Some(batch) = self.take_batch() {
            self.opened.push(batch, len, OpenBatch::open);
        }
    }

    /// Opens the frames that were found at once, however long that takes.
    pub(crate) fn open_here(&mut self) {
        let len = self.found_len();
        if let Some(batch) = self.take_batch() {
            self.opened.push_here(batch, len, OpenBatch::open);
        }
    }

    /// How much plaintext is in the frames that were found.
    fn found_len(&self) -> usize {
        self.found - self.frames * FRAME_OVERHEAD
    }

    /// Takes the frames that were found out of the intake.
    fn take_batch(&mut self) -> Option<OpenBatch> {
        let first = self.first.take()?;
        let mut buf = mem::take(&mut self.intake);
        let rest = &buf[self.found..];
        if rest.len() <= WORD_LEN {
            self.rest.0[..rest.len()].copy_from_slice(rest);
            self.rest.1 = rest.len();
        } else {
            // Not with one worker, who opens each frame as soon as it is whole.
            self.intake = self.new_intake(rest.len());
            self.intake.extend_from_slice(rest);
        }
        buf.truncate(self.found);
        (self.found, self.frames) = (0, 0);
        self.latest = Some(first.error());
        Some(OpenBatch::new(buf, first))
    }

    /// Whether what was found is one frame, with nothing before it: [`open_into`](Self::open_into) opens it.
    pub(crate) fn is_one_frame(&self) -> bool {
        self.frames == 1 && self.opened.is_empty()
    }

    /// Opens the only frame that was found, and puts the plaintext straight into `out`; returns how much.
    ///
    /// `out` must be as long as [`Next::Open`] says. If the frame is bad, there is no plaintext in `out`.
    pub(crate) fn open_into(&mut self, out: &mut [u8]) -> usize {
        let Some(mut first) = self.first.take() else { return 0 };
        note_work(out.len());
        match first.open_into(&self.intake[..self.found], out) {
            Ok(len) => {
                self.decryptor.reached(&first);
                self.intake.drain(..self.found);
                (self.found, self.frames) = (0, 0);
                if !self.trusted {
                    // The intake has the length of what had come.
                    self.trusted = true;
                    self.rest.1 = self.intake.len();
                    self.rest.0[..self.rest.1].copy_from_slice(&self.intake);
                    self.intake = Buffer::default();
                }
                len
            }
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    /// Waits until the first batch is here, if there is one.
    pub(crate) fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.opened.poll_front(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Fails the stream at the batch that was opened last: what it was opened from turns out not to be the input.
    pub(crate) fn take_back(&mut self) {
        if let Some(error) = self.latest {
            self.fail(error);
        }
    }

    /// From now on there is nothing but this error.
    fn fail(&mut self, error: Error) -> Error {
        self.opened.clear();
        (self.found, self.frames, self.first) = (0, 0, None);
        self.drop_rest();
        self.decryptor.fail(error)
    }

    /// The place of the next frame, if the stream is going on, is trusted, and nothing of it waits to be taken.
    pub(crate) fn place(&mut self) -> Option<Deferred> {
        let _ = self.leave_empty_batches();
        let waits = !self.opened.is_empty() || self.found > 0 || !self.trusted;
        self.decryptor.place().filter(|_| !waits)
    }

    /// How much was read of what comes at [`place`](Self::place), in bytes.
    pub(crate) fn read_ahead(&self) -> usize {
        self.intake.len() - self.found + self.rest.1
    }

    /// Goes on behind so many full chunks, which the caller has opened at [`place`](Self::place), and wants the input from there:
    /// returns where that is, in bytes from the start of the stream.
    pub(crate) fn leap(&mut self, chunks: u64) -> u64 {
        self.intake.clear();
        self.rest.1 = 0;
        (self.required, self.allowed) = (WORD_LEN, WORD_LEN);
        self.decryptor.leap(chunks)
    }

    /// Whether the stream was whole, whatever came after it, and all of it was taken.
    pub(crate) fn is_complete(&self) -> bool {
        let ended = self.decryptor.is_complete() || matches!(self.decryptor.error(), Some(Error::TrailingData { .. }));
        ended && self.found == 0 && self.opened.is_empty()
    }

    /// What was opened and not handed out yet: authentic, but a prefix only until [`Next::End`].
    pub(crate) fn plaintext(&self) -> &[u8] {
        self.opened.front().map_or(&[], OpenBatch::plaintext)
    }

    /// Notes that the first `n` bytes of the plaintext were handed out.
    pub(crate) fn consume(&mut self, n: usize) {
        match self.opened.front_mut() {
            Some(batch) => batch.consume(n),
            None => assert_eq!(n, 0, "no more can be consumed than there is"),
        }
    }
}

impl fmt::Debug for OpenQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenQueue")
            .field("decryptor", &self.decryptor)
            .field("opened", &self.opened)
            .field("plaintext", &self.plaintext().len())
            .finish_non_exhaustive()
    }
}

/// Frames that are opened together, and given out one by one.
///
/// ```text
///                  plaintext         next
///  0                  |                |                 end
///  +------+-----+-----+------+------+-----+------+---+-----+
///  | word | gone| tag | word | gone | left| tag  |   |     |
///  +------+-----+-----+------+------+-----+------+---+-----+
/// ```
struct OpenBatch {
    buf: Buffer,
    place: Deferred,
    /// What is left of the frame that is given out.
    plaintext: Range<usize>,
    /// Where the frame behind it begins.
    next: usize,
    /// How far the frames are authentic, and what is wrong behind them.
    end: usize,
    error: Option<Error>,
    /// Some of it was handed out.
    taken: bool,
}

impl OpenBatch {
    fn new(buf: Buffer, place: Deferred) -> Self {
        Self { buf, place, plaintext: 0..0, next: 0, end: 0, error: None, taken: false }
    }

    fn open(&mut self) {
        while self.end < self.buf.len() {
            match self.place.open_in_place(&mut self.buf[self.end..]) {
                Ok(plaintext) => self.end += plaintext.end + TAG_LEN,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        self.show_next();
    }

    fn show_next(&mut self) {
        self.plaintext = 0..0;
        if self.next < self.end {
            if let Ok(plaintext) = self.place.plaintext(&self.buf[self.next..]) {
                self.plaintext = self.next + plaintext.start..self.next + plaintext.end;
                self.next = self.plaintext.end + TAG_LEN;
            }
        }
    }

    fn plaintext(&self) -> &[u8] {
        &self.buf[self.plaintext.clone()]
    }

    fn consume(&mut self, n: usize) {
        assert!(n <= self.plaintext.len(), "no more can be consumed than there is");
        self.plaintext.start += n;
        self.taken = true;
        if self.plaintext.is_empty() {
            self.show_next();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{key::Key, oneshot::encrypt};

    /// Whoever opens frames at that place goes past whatever the queue has.
    #[test]
    fn there_is_a_place_only_behind_a_trusted_frame_and_while_nothing_waits() {
        fn read(queue: &mut OpenQueue, input: &mut &[u8]) -> Next {
            loop {
                match queue.next(true).unwrap() {
                    Next::Read if !input.is_empty() => *input = &input[queue.fill(input)..],
                    next => return next,
                }
            }
        }
        let key = Key::generate();
        let stream = encrypt(&key, &[7; 200_000]);
        let (mut prelude, mut frames) = stream.split_at(80);
        let mut queue = OpenQueue::of_one_frame((&key).into(), &DecryptOptions::new(), Trailing::Leave);
        assert!(queue.place().is_none());
        assert!(matches!(read(&mut queue, &mut prelude), Next::Read));
        assert!(queue.place().is_none(), "no frame has authenticated");
        for end in [80 + 65_556, 80 + 2 * 65_556] {
            assert!(matches!(read(&mut queue, &mut frames), Next::Open(65_536)));
            assert!(queue.place().is_none(), "a frame was found");
            queue.open_here();
            assert!(queue.place().is_none(), "a frame was opened");
            queue.consume(65_536);
            assert_eq!(queue.place().map(|place| place.at()), Some(end));
        }
    }
}
