//! One frame of a stream that is read by offset: it says which bytes of the stream it needs for a byte of the plaintext,
//! opens what it is given, and does no I/O.
//!
//! It must never show a byte that was not authenticated, nor one of another position. What it read wrongly it forgets, so
//! that damage in one place does not keep anyone from the others.

use std::fmt;

use bytes::{BufMut, buf::Limit};
use zeroize::Zeroizing;

use crate::{
    aead::Body,
    by_offset::{ByOffset, Index, WALK_LEN},
    error::Error,
    format::{FRAME_OVERHEAD, TAG_LEN, Tally, WORD_LEN},
    observe,
};

/// A stream by offset, with room for one chunk.
///
/// ```text
///             start
///  0         (place)                                                len
///  |           |    a data frame, sealed or opened    |               |
///  +-----------+------+-------------------------+-----+---------------+---------+
///  |  dropped  | word | ciphertext or plaintext | tag | what's behind |  spare  |
///  +-----------+------+-------------------------+-----+---------------+---------+
/// ```
pub(crate) struct SeekBuffer {
    stream: ByOffset,
    index: Index,
    buf: Zeroizing<Vec<u8>>,
    /// Where the frame in front begins, in `buf`; and where in the stream.
    start: usize,
    place: Tally,
    front: Front,
    /// How much plaintext the frame in front holds, once it is or was to be opened.
    len: usize,
    /// How much of the stream may be in the buffer, from the frame in front on.
    allowed: usize,
}

/// What became of the frame in front.
enum Front {
    Sealed,
    Opened,
    /// It is wrong, which nobody was told yet.
    Failed(Error),
}

/// What to do next with a [`SeekBuffer`] to have a byte of the plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take from [`SeekBuffer::plaintext`].
    Take,
    /// Call [`SeekBuffer::open`], which will yield this many bytes of plaintext.
    Open(usize),
    /// Read the stream from this byte on into [`SeekBuffer::spare`], or tell [`SeekBuffer::end_of_input`].
    Read(u64),
    /// Nothing: the plaintext ends before that byte.
    End,
}

impl SeekBuffer {
    pub(crate) fn new(stream: ByOffset) -> Self {
        let start = stream.start();
        Self {
            stream,
            index: Index::new(start),
            buf: Zeroizing::default(),
            start: 0,
            place: start,
            front: Front::Sealed,
            len: 0,
            allowed: 0,
        }
    }

    /// What to do to have the byte of the plaintext at `position`.
    ///
    /// | that byte is              | in the buffer         | then                           |
    /// |---------------------------|-----------------------|--------------------------------|
    /// | past the end              | whatever              | end                            |
    /// | in the frame in front     | its plaintext         | take it                        |
    /// | in the frame in front     | what failed           | its error, once; then anew     |
    /// | in the frame in front     | all of it, sealed     | open it                        |
    /// | in the frame in front     | part of it            | read                           |
    /// | behind the frame in front | at least its word     | drop it, look again            |
    /// | not known to be where     | less than a word      | read                           |
    ///
    /// After an error all is forgotten that may have led to it, so that the next call begins anew. An error of a frame that
    /// nobody waits for any more is told to nobody.
    pub(crate) fn next(&mut self, position: u64) -> Result<Next, Error> {
        let next = self.try_next(position);
        if let Err(error) = next {
            observe::range_failed(error);
            self.begin_anew(error);
        }
        next
    }

    fn try_next(&mut self, position: u64) -> Result<Next, Error> {
        if position >= self.stream.total() {
            return Ok(Next::End);
        }
        let in_front = (self.place.total()..self.place.after(self.len).total()).contains(&position);
        match self.front {
            Front::Opened if in_front => return Ok(Next::Take),
            Front::Failed(error) if in_front => return Err(error),
            Front::Opened => self.drop_frame(self.len),
            Front::Failed(error) => self.begin_anew(error),
            Front::Sealed => {}
        }
        self.approach(position);
        loop {
            let len = match self.stream.len_at(&self.place) {
                Some(len) => len,
                None => match self.there().first_chunk::<WORD_LEN>() {
                    Some(word) => self.stream.step(&self.place, *word)?,
                    None => {
                        self.allowed = self.stream.walk_len(self.room());
                        return Ok(self.read());
                    }
                },
            };
            if self.place.after(len).total() <= position {
                self.drop_frame(len);
                continue;
            }
            let frame = FRAME_OVERHEAD + len;
            // The word behind a frame of unknown length is read along with it, to have the length of the next.
            self.allowed = frame + if self.stream.is_uniform() { 0 } else { WORD_LEN };
            self.len = len;
            return Ok(if self.there().len() < frame { self.read() } else { Next::Open(len) });
        }
    }

    fn read(&self) -> Next {
        Next::Read(self.end_of_there())
    }

    /// What is there of the stream, from the frame in front on.
    fn there(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Where in the stream that ends.
    fn end_of_there(&self) -> u64 {
        self.place.end() + self.there().len() as u64
    }

    /// Goes to the frame that holds `position`, or to the last known place before it if that is nearer than this one.
    fn approach(&mut self, position: u64) {
        let known = self.stream.find(position).unwrap_or_else(|| self.index.around(position).0);
        if !(known.total()..=position).contains(&self.place.total()) {
            self.go_to(known);
        }
    }

    fn go_to(&mut self, place: Tally) {
        self.place = place;
        self.buf.clear();
        self.start = 0;
        self.front = Front::Sealed;
    }

    fn begin_anew(&mut self, error: Error) {
        self.index.doubt(error);
        self.go_to(self.stream.start());
    }

    /// Moves on behind the frame in front, which holds `len` bytes of plaintext.
    fn drop_frame(&mut self, len: usize) {
        self.start += self.there().len().min(FRAME_OVERHEAD + len);
        self.place.add(len);
        self.front = Front::Sealed;
        if !self.stream.is_uniform() {
            self.index.note(self.place);
        }
    }

    /// How much of the stream there is room for.
    fn room(&self) -> usize {
        let frame = FRAME_OVERHEAD + self.stream.longest();
        if self.stream.is_uniform() { frame } else { WALK_LEN.max(frame + WORD_LEN) }
    }

    /// Room for what may be read now: at least one byte.
    pub(crate) fn spare(&mut self) -> Limit<&mut Vec<u8>> {
        if self.buf.capacity() == 0 {
            // The final frame has authenticated, so whoever stated the chunk size had the key.
            let room = self.room();
            self.buf.reserve_exact(room);
        }
        self.buf.drain(..self.start);
        self.start = 0;
        let left = self.stream.end_of_data() - self.place.end();
        let allowed = usize::try_from(left).map_or(self.allowed, |left| left.min(self.allowed));
        let limit = allowed - self.buf.len();
        (&mut *self.buf).limit(limit)
    }

    /// What to tell if the input has ended where it was to be read. It was longer when the stream was opened.
    pub(crate) fn end_of_input(&mut self) -> Error {
        let error = Error::Truncated { at: self.end_of_there() };
        observe::range_failed(error);
        self.begin_anew(error);
        error
    }

    /// Opens the frame in front, all of which is there.
    pub(crate) fn open(&mut self) {
        self.front = match self.try_open() {
            Ok(()) => {
                self.index.confirm(&self.place.after(self.len));
                Front::Opened
            }
            Err(error) => Front::Failed(error),
        };
    }

    fn try_open(&mut self) -> Result<(), Error> {
        let len = self.stream.whole_frame(&self.place, self.there())?;
        let (body, rest) = self.buf[self.start + WORD_LEN..].split_at_mut(len);
        self.stream.open_body(&self.place, Body::InPlace(body), &rest[..TAG_LEN])
    }

    /// The plaintext from this byte on to the end of its frame. For when the next is to take it.
    pub(crate) fn plaintext(&self, position: u64) -> &[u8] {
        let skip = position.checked_sub(self.place.total()).and_then(|skip| usize::try_from(skip).ok());
        match (&self.front, skip) {
            (Front::Opened, Some(skip)) => self.there()[WORD_LEN..][..self.len].get(skip..).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl fmt::Debug for SeekBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeekBuffer")
            .field("stream", &self.stream)
            .field("place", &self.place.total())
            .field("opened", &matches!(self.front, Front::Opened))
            .finish_non_exhaustive()
    }
}
