//! Where plaintext lies in a stream: pure arithmetic on lengths and offsets, without a key and without I/O.
//!
//! It answers what has to be known before the first byte moves: the `Content-Length` of an upload, how much space a restore
//! needs, which bytes of an object to ask for. Nothing that it says about a stream is authenticated: a length proves nothing,
//! and whoever opens the stream has to find out whether it was true.
//!
//! [`Uniform`] is for streams whose data frames, but for the last, are all full, as they are unless
//! [`flush_chunk`](crate::EncryptWriter::flush_chunk) or [`cut_on_flush`](crate::EncryptOptions::cut_on_flush) cut them. Of any
//! other stream only the number of frames gives lengths away: [`stream_len`] and [`plaintext_len`].
//!
//! # An upload with a `Content-Length`
//!
//! ```
//! use agcm::{DEFAULT_CHUNK_SIZE, Key, geometry::Uniform};
//!
//! let snapshot = [7; 1_000_000];
//! let announced = Uniform::new(1_000_000, DEFAULT_CHUNK_SIZE)?.stream_len();
//! assert_eq!(agcm::encrypt(&Key::generate(), &snapshot).len() as u64, announced);
//! # Ok::<(), agcm::Error>(())
//! ```
//!
//! # An HTTP range request
//!
//! For planning, and for caches. To open what comes back, let a [`RangeReader`](crate::RangeReader) ask for it, by a
//! [`ReadAt`](crate::ReadAt) of your own.
//!
//! ```
//! use agcm::geometry::Uniform;
//!
//! // `HEAD` says that the object has this many bytes, and its owner that its chunks have 64 KiB.
//! let layout = Uniform::from_stream_len(1_000_437, 65_536).expect("a uniform stream can be this long");
//! assert_eq!(layout.plaintext_len(), 1_000_000);
//!
//! // Which bytes of the object hold these bytes of plaintext?
//! let cover = layout.covering(500_000..500_100)?;
//! assert_eq!(cover.frames, 7..8);
//! assert_eq!(cover.stream, 458_972..524_528);
//! let header = format!("Range: bytes={}-{}", cover.stream.start, cover.stream.end - 1); // both ends count there
//! assert_eq!(header, "Range: bytes=458972-524527");
//! # Ok::<(), agcm::Error>(())
//! ```

use std::ops::Range;

use crate::{
    error::Error,
    format::{ChunkSize, FRAME_OVERHEAD, MAX_FRAMES, MAX_PLAINTEXT_LEN, PRELUDE_LEN, STREAM_OVERHEAD},
};

const FRAME: u64 = FRAME_OVERHEAD as u64;
const STREAM: u64 = STREAM_OVERHEAD as u64;

/// The length in bytes of a stream that holds `plaintext_len` bytes in `frames` data frames, whatever their sizes.
///
/// `None` if no stream does: data frames hold at least a byte, and [a stream has
/// limits](crate::format#limits-and-where-they-come-from).
///
/// ```
/// use agcm::geometry::stream_len;
///
/// assert_eq!(stream_len(0, 0), Some(117));
/// assert_eq!(stream_len(1000, 7), Some(117 + 1000 + 7 * 20));
/// assert_eq!(stream_len(6, 7), None);
/// ```
#[must_use]
pub fn stream_len(plaintext_len: u64, frames: u64) -> Option<u64> {
    let possible = plaintext_len <= MAX_PLAINTEXT_LEN
        && frames <= MAX_FRAMES
        && frames <= plaintext_len
        && (frames > 0) == (plaintext_len > 0);
    possible.then(|| STREAM + plaintext_len + FRAME * frames)
}

/// How many bytes of plaintext a stream of `stream_len` bytes with `frames` data frames holds, whatever their sizes.
///
/// `None` if there is no such stream.
///
/// ```
/// use agcm::geometry::plaintext_len;
///
/// assert_eq!(plaintext_len(117 + 1000 + 7 * 20, 7), Some(1000));
/// assert_eq!(plaintext_len(116, 0), None);
/// ```
#[must_use]
pub fn plaintext_len(stream_len: u64, frames: u64) -> Option<u64> {
    let overhead = frames.checked_mul(FRAME)?.checked_add(STREAM)?;
    let plaintext_len = stream_len.checked_sub(overhead)?;
    (self::stream_len(plaintext_len, frames) == Some(stream_len)).then_some(plaintext_len)
}

/// The layout of a uniform stream: every data frame but the last holds a full chunk.
///
/// It is made from the chunk size and one of the two lengths, and knows the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uniform {
    chunk_size: ChunkSize,
    plaintext_len: u64,
}

/// The data frames that hold a range of plaintext, and where they are: the answer of [`Uniform::covering`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cover {
    /// The numbers of the frames, counted from 0.
    pub frames: Range<u64>,
    /// The bytes of the stream that they are, from the first one's word to the last one's tag.
    pub stream: Range<u64>,
    /// All the plaintext that they hold, which begins and ends at chunks: at least what was asked for.
    pub plaintext: Range<u64>,
}

impl Uniform {
    /// The layout of a stream that holds `plaintext_len` bytes in chunks of `chunk_size` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidChunkSize`] unless the chunk size is 1 ..= [`MAX_CHUNK_SIZE`](crate::MAX_CHUNK_SIZE),
    /// [`Error::StreamTooLong`] past [the limits of a stream](crate::format#limits-and-where-they-come-from).
    pub fn new(plaintext_len: u64, chunk_size: usize) -> Result<Self, Error> {
        Self::of(plaintext_len, ChunkSize::new(chunk_size as u64)?)
    }

    pub(crate) fn of(plaintext_len: u64, chunk_size: ChunkSize) -> Result<Self, Error> {
        let layout = Self { chunk_size, plaintext_len };
        stream_len(plaintext_len, layout.frames()).map(|_| layout).ok_or(Error::StreamTooLong)
    }

    /// The layout of a stream that is `stream_len` bytes long, with chunks of `chunk_size` bytes.
    ///
    /// `None` if no uniform stream of such chunks has this length: some lengths are none's, which is a sign of one that was
    /// cut. To be this long is not to be whole: most lengths are some stream's.
    #[must_use]
    pub fn from_stream_len(stream_len: u64, chunk_size: usize) -> Option<Self> {
        let chunk_size = ChunkSize::new(chunk_size as u64).ok()?;
        let frames = stream_len.checked_sub(STREAM)?.div_ceil(FRAME + chunk_size.get() as u64);
        let layout = Self::of(plaintext_len(stream_len, frames)?, chunk_size).ok()?;
        (layout.frames() == frames).then_some(layout)
    }

    /// The chunk size, in bytes.
    #[must_use]
    pub fn chunk_size(&self) -> usize {
        self.chunk_size.get()
    }

    /// How many bytes of plaintext the stream holds.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// The number of data frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.plaintext_len.div_ceil(self.chunk())
    }

    /// How long the stream is, in bytes.
    #[must_use]
    pub fn stream_len(&self) -> u64 {
        STREAM + self.plaintext_len + FRAME * self.frames()
    }

    /// The data frames that hold a range of the plaintext, given in bytes. An empty range needs none: there is nothing to ask
    /// for then.
    ///
    /// # Errors
    ///
    /// [`Error::RangeOutOfBounds`] if the range is not within the plaintext, or ends before it starts.
    pub fn covering(&self, plaintext: Range<u64>) -> Result<Cover, Error> {
        check_range(&plaintext, self.plaintext_len)?;
        let first = plaintext.start / self.chunk();
        let last = if plaintext.is_empty() { first } else { plaintext.end.div_ceil(self.chunk()) };
        let position = |frame: u64| (frame * self.chunk()).min(self.plaintext_len);
        let at = |frame: u64| PRELUDE_LEN as u64 + position(frame) + FRAME * frame;
        Ok(Cover { frames: first..last, stream: at(first)..at(last), plaintext: position(first)..position(last) })
    }

    fn chunk(&self) -> u64 {
        self.chunk_size.get() as u64
    }
}

/// Whether `range` lies within a plaintext of `len` bytes. An empty one does, even at its end.
pub(crate) fn check_range(range: &Range<u64>, len: u64) -> Result<(), Error> {
    if range.start > range.end || range.end > len {
        return Err(Error::RangeOutOfBounds { start: range.start, end: range.end, len });
    }
    Ok(())
}
