//! Ranges of the plaintext, any number of them at once, over anything that can be read at an offset.
//!
//! A range is one contiguous read of just the frames that hold it. This must never return a byte of a frame that was not
//! authenticated at its own position, whatever the source does between two reads.

mod opening;

use std::{
    fmt, io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use tokio::task::coop;
use tokio_util::sync::ReusableBoxFuture;

use self::opening::Opening;
use crate::{
    by_offset::{self, ByOffset, Index, MAX_WALK_LEN},
    error::Error,
    format::{FRAME_OVERHEAD, Tally, WORD_LEN},
    geometry::check_range,
    key::KeyRing,
    options::DecryptOptions,
    read_at::ReadAt,
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
/// Only one of many ranges at a time walks where nobody has been. The others wait for it, unless their way is known.
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
/// opened, that is done on the blocking pool of the runtime; otherwise in place, one [cooperative](tokio::task::coop) step
/// per frame.
pub struct RangeReader<S>(Arc<Shared<S>>);

struct Shared<S> {
    source: S,
    /// Where in the source the stream begins.
    base: u64,
    stream: Arc<ByOffset>,
    index: Mutex<Index>,
    /// Held by whoever walks to where nobody has been.
    explorer: tokio::sync::Mutex<()>,
}

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
        let keys = keys.into();
        let len = source.len().await?.saturating_sub(base);
        let [head, tail] = ByOffset::ends(len);
        let head = read_exactly(&source, base, head).await?;
        let tail = read_exactly(&source, base, tail).await?;
        let stream = ByOffset::open(len, [&head, &tail], &keys, options).map_err(by_offset::explain)?;
        let index = Mutex::new(Index::new(stream.start()));
        let explorer = tokio::sync::Mutex::default();
        Ok(Self(Arc::new(Shared { source, base, stream: Arc::new(stream), index, explorer })))
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
    /// A piece is whatever full frames hold, from 1 MiB on (one frame if that is longer); only the first and the last are
    /// shorter. They are read one at a time, each when it is asked for. From a source that is far away, more at a time are
    /// faster: ask for several ranges of some MiB by [`read_range`](Self::read_range), with `StreamExt::buffered` for
    /// example. As an `AsyncRead` it goes through [`StreamReader`](tokio_util::io::StreamReader).
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
        Arc::into_inner(self.0).map(|shared| shared.source)
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

impl<S: ReadAt> Shared<S> {
    /// Reads plaintext from `range.start` on: all up to `least`, and what else its last frame holds of the range. Returns the
    /// place behind that frame too.
    ///
    /// `from` is the place of the frame that begins where the range does, if it is known.
    async fn read(&self, from: Option<Tally>, range: Range<u64>, least: u64) -> io::Result<(Bytes, Tally)> {
        let read = self.try_read(from, range, least).await;
        if let Some(error) = read.as_ref().err().and_then(Error::from_io) {
            self.index().doubt(error);
        }
        read
    }

    async fn try_read(&self, from: Option<Tally>, range: Range<u64>, least: u64) -> io::Result<(Bytes, Tally)> {
        let (first, sealed, end) = self.read_frames(from, range.start..least).await?;
        let range = range.start..range.end.min(end.total());
        let plaintext = Opening::new(self.stream.clone(), first, sealed, range).run().await?;
        self.index().confirm(&end);
        Ok((plaintext, end))
    }

    /// The frames that hold a range of plaintext, the place of the first, and the one behind the last.
    async fn read_frames(&self, from: Option<Tally>, range: Range<u64>) -> io::Result<(Tally, Bytes, Tally)> {
        if let (Some(first), Some(last)) = (self.stream.find(range.start), self.stream.find(range.end - 1)) {
            let end = last.after(self.stream.most_at(&last));
            return Ok((first, self.read_sealed(first.end()..end.end()).await?, end));
        }
        let first = match from {
            Some(from) => from,
            None => self.walk_to(range.start).await?,
        };
        let (sealed, end) = self.walk_through(first, range.end).await?;
        Ok((first, sealed, end))
    }

    /// Walks to the frame that holds this byte of the plaintext.
    async fn walk_to(&self, position: u64) -> io::Result<Tally> {
        let (mut place, mut behind) = self.index().around(position);
        let mut turn = None;
        if behind.is_none() {
            // One at a time goes where nobody has been; who waits for it finds that it was there.
            turn = Some(self.explorer.lock().await);
            (place, behind) = self.index().around(position);
        }
        if behind.is_some_and(|behind| behind.frames() == place.frames() + 1) {
            return Ok(place);
        }
        let mut words = Bytes::new();
        loop {
            // Over a source that is never pending, a long walk would not let others run.
            coop::consume_budget().await;
            let Some(word) = words.first_chunk() else {
                let end = place.end() + self.stream.walk_len(MAX_WALK_LEN) as u64;
                words = self.read_sealed(place.end()..end.min(self.stream.end_of_data())).await?;
                continue;
            };
            let len = self.stream.step(&place, *word)?;
            let next = place.after(len);
            self.index().note(next);
            if next.total() > position {
                drop(turn);
                return Ok(place);
            }
            words.advance(words.len().min(FRAME_OVERHEAD + len));
            place = next;
        }
    }

    /// Reads the frames from `first` on that hold the plaintext up to `position`, and finds out where they end on the way.
    /// That takes one read, if the guess of how long they are is a good one.
    async fn walk_through(&self, first: Tally, position: u64) -> io::Result<(Bytes, Tally)> {
        let mut sealed = Bytes::new();
        let mut place = first;
        while place.total() < position {
            coop::consume_budget().await;
            let before = place.end() - first.end();
            match usize::try_from(before).ok().and_then(|before| sealed.get(before..)?.first_chunk()) {
                Some(word) => {
                    place.add(self.stream.step(&place, *word)?);
                    self.index().note(place);
                }
                None => {
                    let guess = self.stream.guess_end(&place, position);
                    let end = match self.index().around(position - 1) {
                        (last, Some(behind)) if behind.frames() == last.frames() + 1 => behind.end(),
                        (_, Some(behind)) => behind.end().min(guess),
                        (_, None) => guess,
                    };
                    sealed = self.read_on(first, sealed, end.max(place.end() + WORD_LEN as u64)).await?;
                }
            }
        }
        sealed = self.read_on(first, sealed, place.end()).await?;
        if let Ok(len) = usize::try_from(place.end() - first.end()) {
            sealed.truncate(len);
        }
        Ok((sealed, place))
    }

    /// Reads what is missing of the stream from `first` to `end`.
    async fn read_on(&self, first: Tally, sealed: Bytes, end: u64) -> io::Result<Bytes> {
        let start = first.end() + sealed.len() as u64;
        if start >= end {
            return Ok(sealed);
        }
        let more = self.read_sealed(start..end).await?;
        Ok(if sealed.is_empty() { more } else { [sealed, more].concat().into() })
    }

    async fn read_sealed(&self, range: Range<u64>) -> io::Result<Bytes> {
        read_exactly(&self.source, self.base, range).await
    }

    /// What is done under this lock does not panic, and whatever it were to leave could be forgotten.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads these bytes of the stream, which were there when its length was asked for.
async fn read_exactly(source: &impl ReadAt, base: u64, range: Range<u64>) -> io::Result<Bytes> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    if len == 0 {
        return Ok(Bytes::new());
    }
    match source.read_at(base + range.start, len).await {
        Ok(bytes) if bytes.len() == len => Ok(bytes),
        Ok(bytes) => Err(io::Error::other(format!(
            "the source was asked for {len} bytes at {}, and returned {}",
            base + range.start,
            bytes.len()
        ))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            // Loops that read piece by piece would take it for a clean end.
            let at = source.len().await?.saturating_sub(base);
            Err(if at < range.end {
                Error::Truncated { at }.into()
            } else {
                io::Error::other(format!("the source ended early, although it says that it is long enough: {error}"))
            })
        }
        Err(error) => Err(error),
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
    piece: Option<ReusableBoxFuture<'static, io::Result<(Bytes, Tally)>>>,
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
            let (shared, place, range) = (this.reader.0.clone(), this.place.take(), this.rest.clone());
            let least = range.end.min(range.start.saturating_add(PIECE_LEN));
            ReusableBoxFuture::new(async move { shared.read(place, range, least).await })
        });
        let read = ready!(piece.poll(cx));
        this.piece = None;
        Poll::Ready(Some(match read {
            Ok((bytes, place)) => {
                this.rest.start += bytes.len() as u64;
                this.place = Some(place);
                Ok(bytes)
            }
            Err(error) => {
                this.failed = Error::from_io(&error);
                Err(error)
            }
        }))
    }
}

impl<S> fmt::Debug for RangeStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeStream").field("rest", &self.rest).finish_non_exhaustive()
    }
}
