//! One frame on its way in: stream bytes in, checked plaintext out, no I/O.
//!
//! It says how many bytes it may be given, so that whoever reads for it never takes one that is not the stream's. It must
//! never show a byte that was not authenticated, never allocate on the word of one, and never forget an error.

use std::{fmt, ops::Range};

use bytes::{BufMut, buf::Limit};
use zeroize::Zeroizing;

use crate::{
    decrypt::{Decryptor, Step},
    error::Error,
    format::{FRAME_OVERHEAD, WORD_LEN},
    key::KeyRing,
    options::{DecryptOptions, Trailing},
};

/// Until a data frame has authenticated, the buffer holds at most twice what has arrived and this much, in bytes.
const UNTRUSTED_LEN: usize = 4096;

/// The decrypting side of a stream, with room for one chunk.
///
/// ```text
///         plaintext     consumed     len
///  0         |             |          |
///  +------+------+------+-----+--------+----------+
///  | word | gone | left | tag |next word|  spare   |
///  +------+------+------+-----+--------+----------+
/// ```
pub(crate) struct OpenBuffer {
    decryptor: Decryptor,
    trailing: Trailing,
    buf: Zeroizing<Vec<u8>>,
    /// What was opened and not handed out yet.
    plaintext: Range<usize>,
    /// How much of the front of `buf` is used up when the plaintext is.
    consumed: usize,
    /// How long `buf` must be for the next step, and how long it may be.
    required: usize,
    allowed: usize,
    /// The input ended where it may end.
    over: bool,
}

/// What to do next with an [`OpenBuffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take from [`OpenBuffer::plaintext`].
    Take,
    /// Call [`OpenBuffer::open`] or [`OpenBuffer::open_into`], which will yield at most this many bytes of plaintext.
    Open(usize),
    /// Read into [`OpenBuffer::spare`], or call [`OpenBuffer::end_of_input`].
    Read,
    /// Nothing: the stream is whole.
    End,
}

impl OpenBuffer {
    /// `trailing` is for when the options leave it open.
    pub(crate) fn new(keys: KeyRing, options: &DecryptOptions, trailing: Trailing) -> Self {
        Self {
            decryptor: Decryptor::new(keys, options),
            trailing: options.trailing.unwrap_or(trailing),
            buf: Zeroizing::default(),
            plaintext: 0..0,
            consumed: 0,
            required: 0,
            allowed: 0,
            over: false,
        }
    }

    /// | of the stream            | in the buffer            | next                            |
    /// |--------------------------|--------------------------|---------------------------------|
    /// | failed                   | whatever                 | the same error again            |
    /// | going on                 | plaintext                | take it                         |
    /// | whole, the rest is left  | nothing                  | end                             |
    /// | whole, nothing may follow| nothing, input was over  | end                             |
    /// | going on, or the last    | enough for a step        | open it                         |
    /// | going on, or the last    | less                     | read, no more than is allowed   |
    pub(crate) fn next(&self) -> Result<Next, Error> {
        if let Some(error) = self.decryptor.error() {
            return Err(error);
        }
        Ok(if !self.plaintext.is_empty() {
            Next::Take
        } else if self.decryptor.is_complete() && (self.over || self.trailing == Trailing::Leave) {
            Next::End
        } else if self.buf.len() >= self.required {
            Next::Open(self.step_len())
        } else {
            Next::Read
        })
    }

    /// The chunk size of the stream, in bytes, while it is going on.
    pub(crate) fn chunk_size(&self) -> Option<usize> {
        self.decryptor.chunk_size()
    }

    /// How many bytes the next step still lacks, as far as is known.
    pub(crate) fn missing(&self) -> usize {
        self.required.saturating_sub(self.buf.len())
    }

    /// How much plaintext the next step can yield, as far as is known.
    pub(crate) fn step_len(&self) -> usize {
        self.required.saturating_sub(FRAME_OVERHEAD)
    }

    /// Takes one step of the stream.
    pub(crate) fn open(&mut self) {
        let step = self.decryptor.open_in_place(&mut self.buf);
        if let Some(plaintext) = self.apply(step) {
            self.plaintext = plaintext;
        }
    }

    /// Takes one step of the stream, and puts the plaintext straight into `out`; returns how much.
    ///
    /// `out` must be as long as [`Next::Open`] says.
    pub(crate) fn open_into(&mut self, out: &mut [u8]) -> usize {
        let step = self.decryptor.open_into(&self.buf, out);
        let len = self.apply(step).map_or(0, |plaintext| plaintext.len());
        if len > 0 {
            self.discard(self.consumed);
        }
        len
    }

    /// Notes what a step has come to; returns where the plaintext is, if there is any.
    fn apply(&mut self, step: Result<Step, Error>) -> Option<Range<usize>> {
        match step {
            Ok(Step::Incomplete { required, allowed }) => {
                // A header is checked as far as it has arrived: most of what is not a stream shows in its first bytes.
                let started = self.decryptor.chunk_size().is_some();
                self.required = if started { required } else { self.buf.len() + 1 };
                self.allowed = allowed;
            }
            Ok(Step::Start { consumed }) => self.discard(consumed),
            Ok(Step::Data { consumed, plaintext }) => {
                self.consumed = consumed;
                return Some(plaintext);
            }
            Ok(Step::End { .. }) => {
                self.buf = Zeroizing::default();
                // One byte would be enough to tell that the input goes on.
                (self.required, self.allowed) = (1, 1);
            }
            Err(_) => self.buf = Zeroizing::default(),
        }
        None
    }

    /// Room for what may be read now: at least one byte, and no more than surely is the stream's.
    pub(crate) fn spare(&mut self) -> Limit<&mut Vec<u8>> {
        let len = self.buf.len();
        if let Some(chunk_size) = self.decryptor.trusted_chunk_size() {
            let whole = FRAME_OVERHEAD + chunk_size + WORD_LEN;
            if self.buf.capacity() < whole {
                // The old buffer may hold plaintext: it must be dropped and wiped, which growing in place would not do.
                // Dropped first, so that there are never two: only part of a frame word is in it.
                let mut start = [0; WORD_LEN];
                start[..len].copy_from_slice(&self.buf);
                self.buf = Zeroizing::default();
                self.buf.reserve_exact(whole);
                self.buf.extend_from_slice(&start[..len]);
            }
        } else if len == self.buf.capacity() {
            // All ciphertext so far, so it may be moved without being wiped. Where the allocator has to move it, the old and
            // the new buffer exist together while it does.
            self.buf.reserve_exact(self.allowed.min(2 * len + UNTRUSTED_LEN) - len);
        }
        let spare = self.buf.capacity() - len;
        let limit = spare.min(self.allowed - len);
        (&mut *self.buf).limit(limit)
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
        match self.decryptor.end_of_input(self.buf.len()) {
            Ok(()) => self.over = true,
            Err(_) => self.buf = Zeroizing::default(),
        }
    }

    /// Fails the stream at the frame that was opened last: what it was opened from turns out not to be the input.
    pub(crate) fn take_back(&mut self) {
        self.decryptor.take_back(self.consumed);
        self.buf = Zeroizing::default();
    }

    /// Whether the final frame was checked, whatever came after it.
    pub(crate) fn is_complete(&self) -> bool {
        self.decryptor.is_complete() || matches!(self.decryptor.error(), Some(Error::TrailingData { .. }))
    }

    /// What was opened and not handed out yet: authentic, but a prefix only until [`Next::End`].
    pub(crate) fn plaintext(&self) -> &[u8] {
        &self.buf[self.plaintext.clone()]
    }

    /// Notes that the first `n` bytes of the plaintext were handed out.
    pub(crate) fn consume(&mut self, n: usize) {
        assert!(n <= self.plaintext.len(), "no more can be consumed than there is");
        self.plaintext.start += n;
        if n > 0 && self.plaintext.is_empty() {
            self.discard(self.consumed);
        }
    }

    /// Drops the front of the buffer; what is left is part of the next frame word.
    fn discard(&mut self, n: usize) {
        self.buf.drain(..n);
        self.plaintext = 0..0;
        (self.required, self.allowed) = (WORD_LEN, WORD_LEN);
    }
}

impl fmt::Debug for OpenBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBuffer")
            .field("decryptor", &self.decryptor)
            .field("plaintext", &self.plaintext.len())
            .finish_non_exhaustive()
    }
}
