//! Ranges of the plaintext, any number of them at once, over anything that can be read at an offset.
//!
//! A range is one contiguous read of just the frames that hold it. This must never return a byte of a frame that was not
//! authenticated at its own position, whatever the source does between two reads.

mod frames;
mod opening;

use std::{
    fmt, io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use tokio_util::sync::ReusableBoxFuture;

use self::{frames::Frames, opening::Fault};
use crate::{
    error::Error, format::Tally, geometry::check_range, key::KeyRing, options::DecryptOptions, read_at::ReadAt,
};

/// The longest range that [`RangeReader::read_range`] returns in one piece, in bytes: 64 MiB.
pub const MAX_RANGE_LEN: u64 = 64 * 1024 * 1024;

/// How much plaintext a [`RangeStream`] reads at a time, in bytes, if chunks are not longer.
const PIECE_LEN: u64 = 1024 * 1024;

/// Reads ranges of the plaintext of a stream, any number of them at once, from anything that can be read at an offset.
///
/// ```
/// use agcm::{Key, RangeReader};
/// use bytes::Bytes;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let key = Key::generate();
/// let stream = Bytes::from(agcm::encrypt(&key, b"row 1\nrow 2\nrow 3\n"));
///
/// let reader = RangeReader::open(stream, &key).await?;
/// assert_eq!(reader.len(), 18);
/// let (first, third) = tokio::join!(reader.read_range(0..6), reader.read_range(12..18));
/// assert_eq!(first?, "row 1\n");
/// assert_eq!(third?, "row 3\n");
/// # Ok(())
/// # }
/// ```
///
/// The source is a [`ReadAt`]: a [`PositionedFile`](crate::PositionedFile), [`Bytes`], or one of your own. To clone a reader
/// costs nothing; the clones share the source.
///
/// Opening checks both ends of the stream, in two small reads however long it is. From then on [`len`](Self::len) is
/// authentic: a stream that was cut, or has anything behind its end, does not open. **What a range holds is authentic, but
/// says nothing of the rest of the stream**: damage elsewhere is found by the read that touches it.
///
/// # What a range costs
///
/// One read of exactly the frames that hold it, and opening them. Frames that are needed only in part are opened whole.
///
/// So in a [*uniform*](Self::is_uniform) stream. In an *irregular* one (see [the format](crate::format#frames)) those
/// frames have to be walked to first, from frame word to frame word: a read of 4 KiB for each frame in between, or, where
/// they are smaller than 16 KiB on average, of 64 KiB for several. The way from the start of the stream is remembered, in
/// up to 1024 places of 24 bytes: up to 1024 frames all of them, and beyond that every second, fourth, and so on. So the
/// first range at a place costs at most a walk over what was not walked yet, and later ones less than 2 frames of walk for
/// every 1024 of the stream. Where a range ends is then known, or guessed: it is read at once, or in a few reads, of which
/// the last may take in a little too much.
///
/// Each range walks by itself where nobody has been before. If many are to be read at once, read the last byte of the stream
/// first, or whatever lies furthest back: then the way is known to all.
///
/// # Errors
///
/// What is wrong with the stream is an [`Error`] inside an [`io::Error`], to be had by [`Error::from_io`]. It is that
/// range's alone: any other that touches no damage can still be read. Of the range itself nothing is returned; to save what
/// lies before the damage, read it through a [`SeekReader`](crate::SeekReader). (In an irregular stream a damaged frame
/// word can mislead the walk to later frames; it ends in an error then.) An error of the source is passed on as it is, but
/// for [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), which loops could take for a clean end: if the source has become
/// shorter, that is [`Truncated`](Error::Truncated), else an error of another kind.
///
/// If the source gives other bytes than it did before, because somebody writes to it, that is an error too: never plaintext
/// of two streams.
///
/// # Cancel safety
///
/// All of it is cancel safe: whatever is dropped, nothing is lost. What was opened by then is wiped.
///
/// # Memory
///
/// While a range is read: its frames, sealed, which are much longer than what they hold only if chunks are tiny; its
/// plaintext, which is what is returned, and not a byte longer; and one chunk. Between reads some hundred bytes, and for an
/// irregular stream up to 24 KiB. [`DecryptOptions::max_chunk_size`] bounds the chunk. Where there is 1 MiB or more to be
/// opened, that is done on the blocking pool of the runtime; otherwise in place, in [cooperative](tokio::task::coop) steps
/// of a frame, or of 8 KiB if that is longer.
pub struct RangeReader<S>(Arc<Frames<S>>);

impl<S: ReadAt> RangeReader<S> {
    /// Opens the stream that `source` holds from its first byte to its last, with the default options.
    ///
    /// # Errors
    ///
    /// [In this order](crate::format#by-offset): what is wrong with header and key; [`Truncated`](Error::Truncated) if the
    /// source is too short or does not end in a final frame, which is also how something behind the stream shows;
    /// [`Corrupt`](Error::Corrupt) if the final frame is damaged or of another stream, or does not agree with the length. Or
    /// the source's error.
    pub async fn open(source: S, keys: impl Into<KeyRing>) -> io::Result<Self> {
        Self::open_at(source, 0, keys, &DecryptOptions::new()).await
    }

    /// Opens the stream with options. ([`DecryptOptions::trailing`] has no meaning here: the end of the stream is looked for
    /// at the end of the source.)
    ///
    /// ```
    /// use agcm::{DecryptOptions, EncryptOptions, Key, RangeReader};
    /// use bytes::Bytes;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let key = Key::generate();
    /// # let stream = Bytes::from(EncryptOptions::new().context("nightly")?.encrypt(&key, b"rows"));
    /// let options = DecryptOptions::new().context("nightly")?;
    /// let reader = RangeReader::open_with_options(stream, &key, &options).await?;
    /// # assert_eq!(reader.len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub async fn open_with_options(source: S, keys: impl Into<KeyRing>, options: &DecryptOptions) -> io::Result<Self> {
        Self::open_at(source, 0, keys, options).await
    }

    /// Opens the stream that begins at byte `base` of `source` and goes on to its end.
    ///
    /// ```
    /// use agcm::{DecryptOptions, Key, RangeReader};
    /// use bytes::Bytes;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let object = Bytes::from([b"our own header: ", &agcm::encrypt(&key, b"rows")[..]].concat());
    /// let reader = RangeReader::open_at(object, 16, &key, &DecryptOptions::new()).await?;
    /// assert_eq!(reader.read_range(0..4).await?, "rows");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open). Offsets in errors are from the start of the stream, not of `source`.
    pub async fn open_at(source: S, base: u64, keys: impl Into<KeyRing>, options: &DecryptOptions) -> io::Result<Self> {
        Ok(Self(Arc::new(Frames::open(source, base, &keys.into(), options).await?)))
    }

    /// Reads a range of the plaintext, given in bytes. An empty one needs no read.
    ///
    /// # Errors
    ///
    /// [`RangeOutOfBounds`](Error::RangeOutOfBounds) if the range is not within the plaintext, or ends before it starts, and
    /// [`RangeTooLong`](Error::RangeTooLong) if it is over [`MAX_RANGE_LEN`]: then use [`stream`](Self::stream). What is wrong
    /// with a frame that holds part of it. Or the source's error.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, nothing is lost.
    pub async fn read_range(&self, range: Range<u64>) -> io::Result<Bytes> {
        check_range(&range, self.len())?;
        let len = range.end - range.start;
        if len > MAX_RANGE_LEN {
            return Err(Error::RangeTooLong { len, max: MAX_RANGE_LEN }.into());
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let least = range.end;
        Ok(self.0.read(None, range, least).await?.0)
    }

    /// A range of the plaintext of any length, given in bytes, as a [`Stream`] of its pieces.
    ///
    /// A piece is at least 1 MiB and goes on to the end of a frame; only the last may be shorter. They are read one at a
    /// time, each when it is asked for. From a source that is far away, more at a time are faster: ask for several ranges
    /// of some MiB by [`read_range`](Self::read_range), with `StreamExt::buffered` for example. As an `AsyncRead` it goes
    /// through [`StreamReader`](tokio_util::io::StreamReader).
    ///
    /// After damage **it does not end**, but gives the same error again: see [`RangeStream`].
    ///
    /// ```
    /// use agcm::{Key, RangeReader};
    /// use bytes::Bytes;
    /// use futures::TryStreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let key = Key::generate();
    /// # let source = Bytes::from(agcm::encrypt(&key, &[7; 3_000_000]));
    /// let reader = RangeReader::open(source, &key).await?;
    /// let mut pieces = reader.stream(1_000_000..3_000_000)?;
    /// let mut total = 0;
    /// while let Some(piece) = pieces.try_next().await? {
    ///     total += piece.len();
    /// }
    /// assert_eq!(total, 2_000_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RangeOutOfBounds`](Error::RangeOutOfBounds) if the range is not within the plaintext, or ends before it starts.
    pub fn stream(&self, range: Range<u64>) -> Result<RangeStream<S>, Error>
    where
        S: 'static,
    {
        check_range(&range, self.len())?;
        Ok(RangeStream { reader: self.clone(), rest: range, place: None, piece: None, failed: None })
    }
}

impl<S> RangeReader<S> {
    /// The length of the plaintext, in bytes. It is authentic.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.stream.total()
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunk size of the stream, in bytes. Ranges that begin and end at multiples of it are the cheapest, if the stream
    /// is uniform.
    #[must_use]
    pub fn chunk_size(&self) -> usize {
        self.0.stream.chunk_size()
    }

    /// Whether the stream is uniform, so that [a range costs](Self#what-a-range-costs) no more than the frames that hold it.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        self.0.stream.is_uniform()
    }

    /// The source.
    pub fn get_ref(&self) -> &S {
        &self.0.source
    }

    /// Gives the source back, unless a clone of this reader or one of its streams still uses it.
    pub fn into_inner(self) -> Option<S> {
        Arc::into_inner(self.0).map(|frames| frames.source)
    }
}

impl<S> fmt::Debug for RangeReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeReader").field("stream", &self.0.stream).finish_non_exhaustive()
    }
}

impl<S> Clone for RangeReader<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A range of plaintext, piece by piece: made by [`RangeReader::stream`].
///
/// **It ends when all of the range was given out, and never before**, so that damage cannot be taken for the end. After an
/// error of the source it tries the same piece again when it is polled again. After damage it gives the same error for as
/// long as it is polled: stop at the first error, as `try_next`, `try_collect` and whatever begins with `try` do.
#[must_use = "streams do nothing unless polled"]
pub struct RangeStream<S> {
    reader: RangeReader<S>,
    /// What is still to be given out.
    rest: Range<u64>,
    /// The place where that begins, if it is known.
    place: Option<Tally>,
    /// The piece that is being read, and the place behind it.
    piece: Option<ReusableBoxFuture<'static, Result<(Bytes, Tally), Fault>>>,
    failed: Option<Error>,
}

impl<S: ReadAt + 'static> Stream for RangeStream<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(error) = this.failed {
            return Poll::Ready(Some(Err(error.into())));
        }
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = this.piece.get_or_insert_with(|| {
            let (frames, place, range) = (this.reader.0.clone(), this.place.take(), this.rest.clone());
            let least = range.end.min(range.start.saturating_add(PIECE_LEN));
            ReusableBoxFuture::new(async move { frames.read(place, range, least).await })
        });
        let read = ready!(piece.poll(cx));
        this.piece = None;
        Poll::Ready(Some(match read {
            Ok((bytes, place)) => {
                this.rest.start += bytes.len() as u64;
                this.place = Some(place);
                Ok(bytes)
            }
            Err(fault) => {
                if let Fault::Stream(error) = fault {
                    this.failed = Some(error);
                }
                Err(fault.into())
            }
        }))
    }
}

impl<S> fmt::Debug for RangeStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeStream").field("rest", &self.rest).finish_non_exhaustive()
    }
}
