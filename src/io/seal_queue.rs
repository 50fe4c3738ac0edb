//! Frames on their way out: plaintext in, sealed bytes out, no I/O.
//!
//! A chunk is sealed exactly once, where it was filled in or straight from where it came; its ciphertext stays until all of it
//! was taken. This must never seal what it might have to seal again, and never finish a stream unless it is told to.

use std::{
    fmt, io, mem,
    task::{Context, Poll, ready},
};

use crate::{
    encrypt::{Encryptor, Permit},
    error::Error,
    format::{FINAL_FRAME_LEN, FRAME_OVERHEAD, PRELUDE_LEN, WORD_LEN},
    key::Key,
    offload::note_work,
    options::EncryptOptions,
    parallel::{Pipeline, Workers},
    pool::Buffer,
};

/// The encrypting side of a stream: a batch that is being filled, and behind it those that are sealed, or being sealed.
///
/// With one worker there is one batch of one chunk: it is filled, or it is on its way out.
pub(crate) struct SealQueue {
    state: State,
    workers: Workers,
    /// `None` until there is plaintext for it, and while all batches are on their way.
    filling: Option<SealBatch>,
    sealed: Pipeline<SealBatch>,
    /// Batches that are free.
    idle: Vec<SealBatch>,
}

enum State {
    /// Until there is a first byte nothing is allocated and no randomness drawn.
    New {
        key: Key,
        options: EncryptOptions,
    },
    Running(Encryptor),
    Finished,
}

impl SealQueue {
    pub(crate) fn new(key: &Key, options: &EncryptOptions) -> Self {
        let workers = Workers::chosen(options.workers);
        Self {
            state: State::New { key: key.clone(), options: options.clone() },
            workers,
            filling: None,
            sealed: Pipeline::new(workers),
            idle: Vec::new(),
        }
    }

    /// Starts the stream unless it was started before. If there is no randomness to start it with, nothing has happened.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if let State::New { key, options } = &self.state {
            let (encryptor, prelude) = Encryptor::start(key, options)?;
            let mut first = SealBatch::new(encryptor.chunk_size(), self.workers);
            first.begin_with(&prelude);
            self.filling = Some(first);
            self.idle.reserve(1);
            self.state = State::Running(encryptor);
        }
        Ok(())
    }

    /// What is sealed and can leave, once it is here; empty if nothing is on its way.
    pub(crate) fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(Ok(ready!(self.sealed.poll_front(cx))?.map_or(&[], |batch| batch.pending())))
    }

    /// What can leave of the batch that is being filled, if none is before it: the prelude, and chunks that were cut off.
    pub(crate) fn released(&self) -> &[u8] {
        match &self.filling {
            Some(batch) if self.sealed.is_empty() => batch.pending(),
            _ => &[],
        }
    }

    /// What is sealed, and here to be given out.
    ///
    /// The prelude is not, as long as it is alone: it leaves in one piece with the first frame.
    pub(crate) fn ready(&self) -> &[u8] {
        match self.sealed.front() {
            Some(batch) => batch.pending(),
            None if self.filling.as_ref().is_some_and(SealBatch::has_frame) => self.released(),
            None => &[],
        }
    }

    /// Whether any batch is on its way.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Whether what is leaving is to leave before more is filled in: some of its batch has left, or it is in front of the batch
    /// that is being filled, and would go away with that once more when it is full.
    pub(crate) fn is_leaving(&self) -> bool {
        match self.sealed.front() {
            Some(batch) => batch.sent > 0,
            None => !self.ready().is_empty(),
        }
    }

    /// Notes that the first `n` bytes of what could leave have left.
    pub(crate) fn advance(&mut self, n: usize) {
        let leaving = match self.sealed.front_mut() {
            Some(batch) => batch,
            None => match &mut self.filling {
                Some(batch) if self.sealed.is_empty() => return batch.advance(n),
                _ => return assert_eq!(n, 0, "no more can have left than was pending"),
            },
        };
        leaving.advance(n);
        if leaving.pending().is_empty() {
            let batch = self.sealed.pop();
            if let (Some(mut batch), false) = (batch, self.is_finished()) {
                batch.clear(self.workers);
                self.idle.push(batch);
            } else if self.sealed.is_empty() {
                self.sealed.clear();
            }
        }
    }

    /// How much plaintext is filled in and not yet sealed.
    pub(crate) fn filled(&self) -> usize {
        self.filling.as_ref().map_or(0, |batch| batch.filled)
    }

    /// Whether plaintext can be filled in: the stream is running, and not all batches are under way.
    pub(crate) fn has_room(&self) -> bool {
        matches!(self.state, State::Running(_))
            && (self.filling.is_some() || self.sealed.len() < self.workers.batches())
    }

    /// Whether `len` bytes more make a chunk full, which will be sealed then.
    pub(crate) fn fills_a_chunk(&self, len: usize) -> bool {
        match &self.state {
            State::Running(encryptor) => self.filled() % encryptor.chunk_size() + len >= encryptor.chunk_size(),
            State::New { .. } | State::Finished => false,
        }
    }

    /// Whether any chunk that is filled in is full.
    pub(crate) fn has_full_chunk(&self) -> bool {
        self.filling.as_ref().is_some_and(|batch| batch.filled >= batch.chunk_size)
    }

    /// Fills in as much of `plaintext` as the batch takes, says how much, and seals the batch if it is full. There must be
    /// room.
    pub(crate) fn fill(&mut self, plaintext: &[u8]) -> Result<usize, Error> {
        assert!(self.has_room() || self.is_finished(), "the room of a frame that has not left is taken");
        let filling = self.filling.take();
        let State::Running(encryptor) = &mut self.state else { return Err(Error::Finished) };
        let batch = self.filling.insert(match filling.or_else(|| self.idle.pop()) {
            Some(batch) => batch,
            None => SealBatch::new(encryptor.chunk_size(), self.workers),
        });
        let (len, chunk_size) = (plaintext.len().min(batch.room()), encryptor.chunk_size());
        encryptor.admit_more(batch.filled + len, (batch.filled + len).div_ceil(chunk_size) as u64)?;
        if batch.chunks == 1 && batch.filled == 0 && len == chunk_size && !self.sealed.hands_over(len) {
            batch.seal_from(encryptor.permit(len)?, &plaintext[..len]);
            note_work(len);
            self.send();
            return Ok(len);
        }
        batch.fill(&plaintext[..len]);
        self.seal_if_full();
        Ok(len)
    }

    /// Where plaintext can be read to, no more than the chunk takes. There must be room. What was read is to be
    /// [noted](Self::read).
    ///
    /// Whether the stream may hold it, [`read`](Self::read) says: only there is it known that the input had not come to its
    /// end.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let filling = self.filling.take();
        let State::Running(encryptor) = &self.state else { return &mut [] };
        let new = || SealBatch::new(encryptor.chunk_size(), self.workers);
        let batch = filling.or_else(|| self.idle.pop()).unwrap_or_else(new);
        self.filling.insert(batch).rest_of_chunk()
    }

    /// Notes that `n` bytes of plaintext were read.
    pub(crate) fn read(&mut self, n: usize) {
        if let Some(batch) = &mut self.filling {
            batch.filled += n;
        }
    }

    /// Whether the batch that is being filled is full.
    pub(crate) fn is_full(&self) -> bool {
        self.filling.as_ref().is_some_and(|batch| batch.room() == 0)
    }

    /// Seals the batch if it is full.
    pub(crate) fn seal_if_full(&mut self) {
        if self.is_full() {
            self.seal();
        }
    }

    /// Whether what was filled in is within the limits of a stream.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        match &self.state {
            State::Running(encryptor) => {
                let filled = self.filled();
                encryptor.admit_more(filled, filled.div_ceil(encryptor.chunk_size()) as u64)
            }
            State::New { .. } | State::Finished => Ok(()),
        }
    }

    /// Seals the chunks that are full, and leaves what is behind them.
    pub(crate) fn seal_full_chunks(&mut self) {
        if let State::Running(encryptor) = &self.state {
            let filled = self.filled();
            self.seal_some(filled - filled % encryptor.chunk_size());
        }
    }

    /// Seals the chunks that are full, elsewhere if they are worth it: what is behind them goes into another batch then. There
    /// must be no batch on its way.
    pub(crate) fn send_full_chunks(&mut self) {
        let (State::Running(encryptor), Some(batch)) = (&mut self.state, &mut self.filling) else { return };
        let rest = batch.filled % encryptor.chunk_size();
        let full = batch.filled - rest;
        if !self.sealed.hands_over(full) {
            return self.seal_full_chunks();
        }
        let mut next = self.idle.pop().unwrap_or_else(|| SealBatch::new(encryptor.chunk_size(), self.workers));
        next.fill(batch.last_of_chunk(rest));
        batch.permit(encryptor, full);
        (batch.filled, batch.chunks) = (0, 0);
        self.send();
        self.filling = Some(next);
    }

    /// Seals what is filled in, if anything is.
    pub(crate) fn seal(&mut self) {
        self.seal_some(self.filled());
    }

    fn seal_some(&mut self, len: usize) {
        let (State::Running(encryptor), Some(batch)) = (&mut self.state, &mut self.filling) else { return };
        if len == 0 {
            return;
        }
        batch.permit(encryptor, len);
        if batch.chunks == 0 {
            self.send();
        } else {
            // The rest of the batch is still to be filled. It is less than a batch, so this does not take long.
            batch.seal();
            note_work(len);
        }
    }

    /// Sends the batch that is being filled on its way.
    fn send(&mut self) {
        if let Some(batch) = self.filling.take() {
            let len = batch.permitted();
            self.sealed.push(batch, len, SealBatch::seal);
        }
    }

    /// Seals what is filled in and the final frame behind it. The stream must have been started.
    pub(crate) fn finish(&mut self) {
        let filled = self.filled();
        let State::Running(mut encryptor) = mem::replace(&mut self.state, State::Finished) else { return };
        let idle = mem::take(&mut self.idle).pop();
        if let Some(batch) = &mut self.filling {
            if filled > 0 {
                batch.permit(&mut encryptor, filled);
            }
            batch.end = Some(encryptor.finish());
            return self.send();
        }
        let end = encryptor.finish();
        let mut batch = match self.sealed.back_mut() {
            // It leaves in one piece with the last chunk.
            Some(batch) => return batch.append(&end),
            None => idle.unwrap_or_else(SealBatch::for_the_end),
        };
        batch.end = Some(end);
        self.filling = Some(batch);
        self.send();
    }

    /// Comes close to the limits of a stream, which no test could reach by sealing. The stream was started.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, total: u64, frames: u64) {
        if let State::Running(encryptor) = &mut self.state {
            encryptor.skip_to(total, frames);
        }
    }

    /// Whether the final frame was sealed; it may still be on its way.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }
}

impl fmt::Debug for SealQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealQueue")
            .field("filled", &self.filled())
            .field("sealed", &self.sealed)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Chunks that are sealed and leave together.
///
/// ```text
///      sent        sealed
///  0    |   pending   |   filled, and room for the rest  |  room for the end
///  +----+-------------+------+-------+-----+------+------+------------------+
///  |gone|prelude/frame| word | chunk | tag | word | chun |                  |
///  +----+-------------+------+-------+-----+------+------+------------------+
/// ```
struct SealBatch {
    /// As long as it will ever be, so that no copy of plaintext is left behind.
    buf: Buffer,
    sent: usize,
    sealed: usize,
    chunk_size: usize,
    /// How many chunks there is room for behind `sealed`.
    chunks: usize,
    /// How much plaintext is in them.
    filled: usize,
    /// What is to be sealed by now.
    permit: Option<Permit>,
    /// What is to come behind it.
    end: Option<[u8; FINAL_FRAME_LEN]>,
    /// How much of the front of `buf` is the prelude. It waits for the first frame, to leave in one piece with it.
    prelude: usize,
}

impl SealBatch {
    fn new(chunk_size: usize, workers: Workers) -> Self {
        let chunks = workers.chunks_per_batch(chunk_size);
        let len = PRELUDE_LEN + chunks * (FRAME_OVERHEAD + chunk_size) + FINAL_FRAME_LEN;
        Self::with(len, chunk_size, chunks)
    }

    /// A batch for the final frame alone.
    fn for_the_end() -> Self {
        Self::with(FINAL_FRAME_LEN, 1, 0)
    }

    fn with(len: usize, chunk_size: usize, chunks: usize) -> Self {
        Self {
            buf: Buffer::zeroed(len),
            sent: 0,
            sealed: 0,
            chunk_size,
            chunks,
            filled: 0,
            permit: None,
            end: None,
            prelude: 0,
        }
    }

    /// Makes it a new one.
    fn clear(&mut self, workers: Workers) {
        (self.sent, self.sealed, self.prelude) = (0, 0, 0);
        self.chunks = workers.chunks_per_batch(self.chunk_size);
    }

    fn begin_with(&mut self, prelude: &[u8; PRELUDE_LEN]) {
        self.append(prelude);
        self.prelude = PRELUDE_LEN;
    }

    fn append(&mut self, bytes: &[u8]) {
        self.buf[self.sealed..][..bytes.len()].copy_from_slice(bytes);
        self.sealed += bytes.len();
    }

    fn pending(&self) -> &[u8] {
        &self.buf[self.sent..self.sealed]
    }

    fn has_frame(&self) -> bool {
        self.sealed > self.prelude
    }

    fn advance(&mut self, n: usize) {
        assert!(n <= self.sealed - self.sent, "no more can have left than was pending");
        self.sent += n;
    }

    fn room(&self) -> usize {
        self.chunks * self.chunk_size - self.filled
    }

    /// The room in the chunk that is being filled.
    fn rest_of_chunk(&mut self) -> &mut [u8] {
        if self.room() == 0 {
            return &mut [];
        }
        let (full, filled) = (self.filled / self.chunk_size, self.filled % self.chunk_size);
        let start = self.sealed + full * (FRAME_OVERHEAD + self.chunk_size) + WORD_LEN;
        &mut self.buf[start + filled..start + self.chunk_size]
    }

    /// The last bytes that are filled in, all of one chunk.
    fn last_of_chunk(&self, len: usize) -> &[u8] {
        let start = self.sealed + self.filled / self.chunk_size * (FRAME_OVERHEAD + self.chunk_size) + WORD_LEN;
        &self.buf[start..start + len]
    }

    /// `plaintext` is no longer than there is room for.
    fn fill(&mut self, mut plaintext: &[u8]) {
        while !plaintext.is_empty() {
            let room = self.rest_of_chunk();
            let (now, later) = plaintext.split_at(plaintext.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            plaintext = later;
        }
    }

    /// Lets the first `len` bytes that are filled in be sealed.
    fn permit(&mut self, encryptor: &mut Encryptor, len: usize) {
        match encryptor.permit(len) {
            Ok(permit) => self.permit = Some(permit),
            Err(error) => unreachable!("the chunks were within all limits when they were filled in: {error}"),
        }
        self.filled -= len;
        self.chunks -= len.div_ceil(self.chunk_size);
    }

    /// How much will be sealed.
    fn permitted(&self) -> usize {
        self.permit.as_ref().map_or(0, Permit::len)
    }

    /// Seals what may be sealed, and puts the end behind it if it has come.
    fn seal(&mut self) {
        if let Some(permit) = self.permit.take() {
            let end = self.sealed + permit.frames_len();
            permit.seal_in_place(&mut self.buf[self.sealed..end]);
            self.sealed = end;
        }
        if let Some(end) = self.end.take() {
            self.append(&end);
        }
    }

    /// Seals a chunk that was not filled in, the only one there is room for.
    fn seal_from(&mut self, permit: Permit, chunk: &[u8]) {
        let end = self.sealed + permit.frames_len();
        permit.seal_from(chunk, &mut self.buf[self.sealed..end]);
        self.sealed = end;
        self.chunks = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        future::poll_fn,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::mpsc,
    };

    use tokio::runtime::Builder;

    use super::*;
    use crate::{
        format::{MAX_FRAMES, MAX_PLAINTEXT_LEN},
        random,
    };

    fn queue() -> SealQueue {
        SealQueue::new(&Key::from_bytes([7; 32]), &EncryptOptions::new().chunk_size(16).unwrap())
    }

    fn address(queue: &SealQueue) -> *const u8 {
        queue.sealed.front().or(queue.filling.as_ref()).or(queue.idle.first()).unwrap().buf.as_ptr()
    }

    #[test]
    fn without_randomness_nothing_has_happened_and_a_retry_works() {
        let mut queue = queue();
        random::failing::set(true);
        let result = queue.start();
        random::failing::set(false);
        result.unwrap_err();
        assert!(queue.released().is_empty());
        assert!(queue.filling.is_none());

        queue.start().unwrap();
        assert_eq!(queue.released().len(), PRELUDE_LEN);
    }

    #[test]
    fn past_the_limit_of_a_stream_nothing_is_taken_and_the_stream_can_be_finished() {
        let mut queue = queue();
        queue.start().unwrap();
        queue.skip_to(MAX_PLAINTEXT_LEN - 20, 0);
        queue.advance(PRELUDE_LEN);
        assert_eq!(queue.fill(&[7; 40]), Ok(16));
        queue.advance(36);
        assert_eq!(queue.fill(&[7; 40]), Err(Error::StreamTooLong));
        assert_eq!(queue.fill(&[7; 5]), Err(Error::StreamTooLong));
        assert_eq!(queue.filled(), 0);
        assert_eq!(queue.fill(&[7; 3]), Ok(3));
        assert_eq!(queue.fill(&[7; 2]), Err(Error::StreamTooLong));
        assert_eq!(queue.fill(&[7; 1]), Ok(1));
        queue.finish();
        assert_eq!(queue.ready().len(), 24 + FINAL_FRAME_LEN);
    }

    #[test]
    fn the_first_byte_of_a_frame_too_many_is_not_taken() {
        let mut queue = queue();
        queue.start().unwrap();
        queue.skip_to(0, MAX_FRAMES - 1);
        assert_eq!(queue.fill(&[7; 16]), Ok(16));
        queue.advance(PRELUDE_LEN + 36);
        for len in [1, 16] {
            assert_eq!(queue.fill(&[7; 16][..len]), Err(Error::StreamTooLong));
        }
        queue.finish();
        assert_eq!(queue.ready().len(), FINAL_FRAME_LEN);
    }

    #[test]
    fn what_is_sealed_here_does_not_leave_before_what_is_being_sealed_elsewhere() {
        const CHUNK: usize = 400_000;
        let options = EncryptOptions::new().chunk_size(CHUNK).unwrap().workers(2);
        let mut queue = SealQueue::new(&Key::from_bytes([7; 32]), &options);
        queue.start().unwrap();
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (release, busy) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || busy.recv().unwrap_err());
        runtime.block_on(async {
            assert_eq!(queue.fill(&[7; 2 * CHUNK]), Ok(2 * CHUNK), "a batch");
            assert_eq!(queue.fill(&[7; CHUNK]), Ok(CHUNK));
            queue.seal_full_chunks();
            assert!(queue.released().is_empty() && queue.ready().is_empty());
            catch_unwind(AssertUnwindSafe(|| queue.advance(1))).unwrap_err();
            drop(release);
            let first = poll_fn(|cx| queue.poll_sealed(cx).map_ok(<[u8]>::len)).await.unwrap();
            assert_eq!(first, PRELUDE_LEN + 2 * (CHUNK + FRAME_OVERHEAD));
            queue.advance(first);
            assert_eq!(queue.ready().len(), CHUNK + FRAME_OVERHEAD);
        });
    }

    #[test]
    fn one_worker_has_one_buffer_which_never_grows() {
        let mut queue = queue();
        queue.start().unwrap();
        let first = address(&queue);
        for lens in [[1, 15], [7, 9], [15, 1]] {
            for len in lens {
                assert_eq!(queue.fill(&[7; 16][..len]), Ok(len));
            }
            assert!(!queue.has_room());
            assert_eq!(address(&queue), first);
            queue.advance(queue.ready().len());
        }
        queue.fill(&[7; 40]).unwrap();
        queue.finish();
        assert_eq!(queue.ready().len(), 36 + FINAL_FRAME_LEN, "in one piece");
        assert_eq!(address(&queue), first);
        queue.advance(queue.ready().len());
        assert!(queue.sealed.is_empty() && queue.idle.is_empty(), "and gives it back at the end");
    }
}
