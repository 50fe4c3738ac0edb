//! One frame on its way out: plaintext in, sealed bytes out, no I/O.
//!
//! A chunk is sealed exactly once, where it was filled in; its ciphertext stays until all of it was taken. This must never
//! seal what it might have to seal again, and never finish a stream unless it is told to.

use std::{fmt, io, mem};

use bytes::{BufMut, buf::Limit};
use zeroize::Zeroizing;

use crate::{
    encrypt::Encryptor,
    error::Error,
    format::{FINAL_FRAME_LEN, FRAME_OVERHEAD, PRELUDE_LEN, TAG_LEN, WORD_LEN},
    key::Key,
    options::EncryptOptions,
};

/// The encrypting side of a stream, with room for one chunk.
///
/// ```text
///      sent        sealed          len
///  0    |   pending   |   filling   |          capacity
///  +----+-------------+------+------+-------------+
///  |gone|prelude/frame| word |chunk |             |
///  +----+-------------+------+------+-------------+
/// ```
pub(crate) struct SealBuffer {
    state: State,
    /// Allocated once, when the stream starts, with room for all that can come together: prelude, a frame, the final frame.
    /// It never grows, so no copy of plaintext is left behind.
    buf: Zeroizing<Vec<u8>>,
    sent: usize,
    sealed: usize,
    /// How much of the front of `buf` is the prelude. It waits for the first frame, to leave in one piece with it.
    prelude: usize,
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

impl SealBuffer {
    pub(crate) fn new(key: &Key, options: &EncryptOptions) -> Self {
        Self {
            state: State::New { key: key.clone(), options: options.clone() },
            buf: Zeroizing::default(),
            sent: 0,
            sealed: 0,
            prelude: 0,
        }
    }

    /// Starts the stream unless it was started before. If there is no randomness to start it with, nothing has happened.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if let State::New { key, options } = &self.state {
            let (encryptor, prelude) = Encryptor::start(key, options)?;
            self.buf = Zeroizing::new(Vec::with_capacity(
                PRELUDE_LEN + FRAME_OVERHEAD + encryptor.chunk_size() + FINAL_FRAME_LEN,
            ));
            self.buf.extend_from_slice(&prelude);
            self.sealed = PRELUDE_LEN;
            self.prelude = PRELUDE_LEN;
            self.state = State::Running(encryptor);
        }
        Ok(())
    }

    /// What is ready to leave.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buf[self.sent..self.sealed]
    }

    /// Whether a sealed frame is pending: nothing can be filled in until it has left.
    pub(crate) fn is_frame_pending(&self) -> bool {
        self.sealed > self.prelude
    }

    /// Notes that the first `n` pending bytes have left.
    pub(crate) fn advance(&mut self, n: usize) {
        assert!(n <= self.sealed - self.sent, "no more can have left than was pending");
        self.sent += n;
        if self.sent == self.buf.len() {
            if self.is_finished() {
                self.buf = Zeroizing::default();
            }
            self.buf.clear();
            (self.sent, self.sealed, self.prelude) = (0, 0, 0);
        }
    }

    /// How much plaintext is filled in and not yet sealed.
    pub(crate) fn filled(&self) -> usize {
        (self.buf.len() - self.sealed).saturating_sub(WORD_LEN)
    }

    /// How much more plaintext the chunk takes; 0 unless the stream is running.
    pub(crate) fn room(&self) -> usize {
        match &self.state {
            State::Running(encryptor) => encryptor.chunk_size() - self.filled(),
            State::New { .. } | State::Finished => 0,
        }
    }

    /// Fills in as much of `plaintext` as the chunk takes, and says how much. No frame may be pending.
    pub(crate) fn fill(&mut self, plaintext: &[u8]) -> Result<usize, Error> {
        debug_assert!(!self.is_frame_pending(), "the room of a frame that has not left is taken");
        let len = plaintext.len().min(self.room());
        match &self.state {
            State::Running(encryptor) => encryptor.admit_more(self.filled() + len, 1)?,
            State::New { .. } | State::Finished => return Err(Error::Finished),
        }
        self.make_room_for_word();
        self.buf.extend_from_slice(&plaintext[..len]);
        Ok(len)
    }

    /// Where plaintext can be read to: as much as the chunk takes. No frame may be pending.
    ///
    /// Whether the stream may hold what was read, [`admit`](Self::admit) says after it: only there is it known that the input
    /// had not come to its end.
    pub(crate) fn spare(&mut self) -> Limit<&mut Vec<u8>> {
        debug_assert!(!self.is_frame_pending(), "the room of a frame that has not left is taken");
        self.make_room_for_word();
        let room = self.room();
        (&mut *self.buf).limit(room)
    }

    /// Whether what was filled in is within the limits of a stream.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        match &self.state {
            State::Running(encryptor) => encryptor.admit_more(self.filled(), 1),
            State::New { .. } | State::Finished => Ok(()),
        }
    }

    fn make_room_for_word(&mut self) {
        if self.buf.len() == self.sealed {
            self.buf.extend_from_slice(&[0; WORD_LEN]);
        }
    }

    /// Seals what is filled in, if anything is.
    pub(crate) fn seal(&mut self) {
        if self.filled() == 0 {
            self.buf.truncate(self.sealed);
            return;
        }
        self.buf.extend_from_slice(&[0; TAG_LEN]);
        if let State::Running(encryptor) = &mut self.state {
            if let Err(error) = encryptor.seal_in_place(&mut self.buf[self.sealed..]) {
                unreachable!("the chunk was within all limits when it was filled in: {error}");
            }
        }
        self.sealed = self.buf.len();
    }

    /// Seals what is filled in and the final frame behind it. The stream must have been started.
    pub(crate) fn finish(&mut self) {
        self.seal();
        if let State::Running(encryptor) = mem::replace(&mut self.state, State::Finished) {
            self.buf.extend_from_slice(&encryptor.finish());
            self.sealed = self.buf.len();
        }
    }

    /// Comes close to the limits of a stream, which no test could reach by sealing. The stream was started.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, total: u64, frames: u64) {
        if let State::Running(encryptor) = &mut self.state {
            encryptor.skip_to(total, frames);
        }
    }

    /// Whether the final frame was sealed; it may still be pending.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }
}

impl fmt::Debug for SealBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealBuffer")
            .field("filled", &self.filled())
            .field("pending", &self.pending().len())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{format::MAX_PLAINTEXT_LEN, random};

    fn buffer() -> SealBuffer {
        SealBuffer::new(&Key::from_bytes([7; 32]), &EncryptOptions::new().chunk_size(16).unwrap())
    }

    #[test]
    fn without_randomness_nothing_has_happened_and_a_retry_works() {
        let mut buffer = buffer();
        random::failing::set(true);
        let result = buffer.start();
        random::failing::set(false);
        result.unwrap_err();
        assert!(buffer.pending().is_empty());
        assert_eq!(buffer.buf.capacity(), 0);

        buffer.start().unwrap();
        assert_eq!(buffer.pending().len(), PRELUDE_LEN);
    }

    #[test]
    fn past_the_limit_of_a_stream_nothing_is_taken_and_the_stream_can_be_finished() {
        let mut buffer = buffer();
        buffer.start().unwrap();
        buffer.skip_to(MAX_PLAINTEXT_LEN - 20, 0);
        buffer.advance(PRELUDE_LEN);
        assert_eq!(buffer.fill(&[7; 40]), Ok(16));
        buffer.seal();
        buffer.advance(36);
        assert_eq!(buffer.fill(&[7; 40]), Err(Error::StreamTooLong));
        assert_eq!(buffer.filled(), 0);
        assert_eq!(buffer.fill(&[7; 3]), Ok(3));
        assert_eq!(buffer.fill(&[7; 2]), Err(Error::StreamTooLong));
        assert_eq!(buffer.fill(&[7; 1]), Ok(1));
        buffer.finish();
        assert_eq!(buffer.pending().len(), 24 + FINAL_FRAME_LEN);
    }

    #[test]
    fn the_buffer_never_grows() {
        let mut buffer = buffer();
        buffer.start().unwrap();
        let capacity = buffer.buf.capacity();
        for _ in 0..3 {
            // All that can come together: what was not sent, a full frame, the final frame.
            assert_eq!(buffer.fill(&[7; 40]), Ok(16));
            buffer.seal();
            assert_eq!(buffer.buf.capacity(), capacity);
            buffer.advance(buffer.pending().len());
        }
        buffer.fill(&[7; 40]).unwrap();
        buffer.finish();
        assert_eq!(buffer.buf.capacity(), capacity);
    }
}
