//! Any byte of a stream, from an inner reader that can seek.
//!
//! It must never seek the inner reader while that is busy, never believe that it stands where it does not, and never report
//! an end of file but at the length that has authenticated.

use std::{
    fmt,
    io::{self, SeekFrom},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, ReadBuf},
    task::coop,
};

use super::{
    poll::{poll_read_buffered, poll_read_some},
    seek_buffer::{Next, SeekBuffer},
};
use crate::{
    by_offset::{self, ByOffset},
    error::Error,
    format::PRELUDE_LEN,
    key::KeyRing,
    offload::Offload,
    options::DecryptOptions,
};

pin_project! {
    /// Reads the plaintext of a stream in any order, from an inner reader that can seek.
    ///
    /// It is for one reader at a time that moves about, such as a reader of archives. For many at once, and for sources that
    /// are no `AsyncSeek`, there is [`RangeReader`](crate::RangeReader).
    ///
    /// ```
    /// use std::io::{Cursor, SeekFrom};
    /// use agcm::{Key, SeekReader};
    /// use tokio::io::{AsyncReadExt, AsyncSeekExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let stream = agcm::encrypt(&key, b"row 1\nrow 2\nrow 3\n");
    ///
    /// let mut reader = SeekReader::open(Cursor::new(stream), &key).await?;
    /// assert_eq!(reader.len(), 18);
    /// reader.seek(SeekFrom::End(-6)).await?;
    /// let mut row = String::new();
    /// reader.read_to_string(&mut row).await?;
    /// assert_eq!(row, "row 3\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Opening checks both ends of the stream, in two small reads however long it is. From then on [`len`](Self::len) is
    /// authentic: a stream that was cut, or has anything behind its end, does not open. The frames in between are checked
    /// as they are read, each by itself. So **what was read is authentic, but says nothing of what was not**: damage
    /// elsewhere is found by the read that touches it. To verify all of a stream, read all of it.
    ///
    /// # Seeking
    ///
    /// As in a [`Cursor`](std::io::Cursor): a position past the end is fine, and reading there gives end of file; one
    /// before the start is [`InvalidInput`](io::ErrorKind::InvalidInput). A seek does no I/O, and moves the inner reader
    /// only when the next read needs it.
    ///
    /// To read a byte, one frame is read and opened: one seek and one read of the inner reader in a
    /// [*uniform*](Self::is_uniform) stream. In an *irregular* one (see [the format](crate::format#frames)) it has to be
    /// walked to, from frame word to frame word: a seek and a small read for each frame in between, or for several where
    /// they are much smaller than a chunk. The way from the start of the stream is remembered, in up to 1024 places of 24
    /// bytes: up to 1024 frames all of them, and beyond that every second, fourth, and so on. So the first read at a place
    /// costs at most a walk over what was not walked yet, and later ones less than 2 frames of walk for every 1024 of the
    /// stream.
    ///
    /// Reading on in order needs no seek, and one read a frame. Where frames are small and a read is dear, as with
    /// `tokio::fs::File`, put a [`BufReader`](tokio::io::BufReader) of some 64 KiB around the file, or use a
    /// [`RangeReader`](crate::RangeReader).
    ///
    /// # Errors
    ///
    /// What is wrong with the stream is an [`Error`](crate::Error) inside an [`io::Error`], to be had by
    /// [`Error::from_io`](crate::Error::from_io). A read that fails leaves the position where it is, so reading there again
    /// tries again, and any other place that is intact can still be read. (In an irregular stream a damaged frame word can
    /// mislead the walk to later frames; it ends in an error then.) An error of the inner reader is passed on as it is, and
    /// reading may be resumed after it.
    ///
    /// If the inner reader gives other bytes than it did before, because somebody writes to the file, that is an error too:
    /// never plaintext of two streams.
    ///
    /// # Cancel safety
    ///
    /// `read`, `fill_buf`, `seek` and whatever else is cancel safe for readers in general are cancel safe: if one was
    /// dropped, nothing is lost. If opening is dropped, so is the inner reader.
    ///
    /// # Memory
    ///
    /// One chunk, or all of the plaintext if that is shorter, and less than 4 KiB, from the first read on; for an irregular
    /// stream up to 24 KiB more. Wiped on drop. [`DecryptOptions::max_chunk_size`] bounds the chunk. Chunks of 1 MiB and
    /// more are opened on the blocking pool of the runtime; smaller ones in place, in [cooperative](tokio::task::coop) steps of
    /// 8 KiB, so that a task's turn ends after 1 MiB.
    pub struct SeekReader<R> {
        #[pin]
        inner: R,
        // Where in the inner reader the stream begins.
        base: u64,
        standing: Standing,
        buffer: Offload<SeekBuffer>,
        // What the buffer knows of the stream, for when it is away.
        len: u64,
        uniform: bool,
        chunk_size: usize,
        // The next byte of the plaintext to be read.
        position: u64,
    }
}

/// Where the inner reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Somewhere.
    Unknown,
    /// On its way there.
    Going(u64),
    At(u64),
}

impl<R: AsyncRead + AsyncSeek + Unpin> SeekReader<R> {
    /// Opens the stream that `inner` holds from its first byte to its last, with the default options.
    ///
    /// # Errors
    ///
    /// [In this order](crate::format#by-offset): what is wrong with header and key; [`Truncated`](Error::Truncated) if the input
    /// is too short or does not end in a final frame, which is also how something behind the stream shows;
    /// [`Corrupt`](Error::Corrupt) if the final frame is damaged or of another stream, or does not agree with the length.
    /// Or the inner reader's error.
    pub async fn open(inner: R, keys: impl Into<KeyRing>) -> io::Result<Self> {
        Self::open_at(inner, 0, keys, &DecryptOptions::new()).await
    }

    /// Opens the stream with options. ([`DecryptOptions::trailing`] has no meaning here: the end of the stream is looked
    /// for at the end of the input.)
    ///
    /// ```
    /// use std::io::Cursor;
    /// use agcm::{DecryptOptions, EncryptOptions, Key, SeekReader};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let key = Key::generate();
    /// # let stream = EncryptOptions::new().context("nightly")?.encrypt(&key, b"rows");
    /// let options = DecryptOptions::new().context("nightly")?;
    /// let reader = SeekReader::open_with_options(Cursor::new(stream), &key, &options).await?;
    /// # assert_eq!(reader.len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub async fn open_with_options(inner: R, keys: impl Into<KeyRing>, options: &DecryptOptions) -> io::Result<Self> {
        Self::open_at(inner, 0, keys, options).await
    }

    /// Opens the stream that begins at byte `base` of `inner` and goes on to its end.
    ///
    /// ```
    /// use std::io::Cursor;
    /// use agcm::{DecryptOptions, Key, SeekReader};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let file = [b"our own header: ", &agcm::encrypt(&key, b"rows")[..]].concat();
    /// let reader = SeekReader::open_at(Cursor::new(file), 16, &key, &DecryptOptions::new()).await?;
    /// assert_eq!(reader.len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open). Offsets in errors are from the start of the stream, not of `inner`.
    pub async fn open_at(
        mut inner: R,
        base: u64,
        keys: impl Into<KeyRing>,
        options: &DecryptOptions,
    ) -> io::Result<Self> {
        let len = inner.seek(SeekFrom::End(0)).await?.saturating_sub(base);
        let [head, tail] = ByOffset::ends(len);
        let head = read_exactly(&mut inner, base, head).await?;
        let tail = read_exactly(&mut inner, base, tail).await?;
        let stream = ByOffset::open(len, [&head, &tail], &keys.into(), options).map_err(by_offset::explain)?;
        let (uniform, chunk_size) = (stream.is_uniform(), stream.chunk_size());
        let len = stream.total();
        Ok(Self {
            inner,
            base,
            standing: Standing::Unknown,
            buffer: Offload::new(SeekBuffer::new(stream)),
            len,
            uniform,
            chunk_size,
            position: 0,
        })
    }
}

/// Reads these bytes of the stream, which were there when its length was asked for.
async fn read_exactly<R>(inner: &mut R, base: u64, range: Range<u64>) -> io::Result<Vec<u8>>
where
    R: AsyncRead + AsyncSeek + Unpin,
{
    let Range { start, end } = range;
    let mut bytes = Vec::with_capacity(PRELUDE_LEN);
    // Behind its end, where there is nothing to be read, a reader may refuse to go.
    if start < end {
        let target = base + start;
        if inner.seek(SeekFrom::Start(target)).await? != target {
            return Err(went_elsewhere());
        }
        inner.take(end - start).read_to_end(&mut bytes).await?;
    }
    let read = start + bytes.len() as u64;
    if read < end {
        return Err(Error::Truncated { at: read }.into());
    }
    Ok(bytes)
}

fn went_elsewhere() -> io::Error {
    io::Error::other("the inner reader did not go where it was sent")
}

impl<R> SeekReader<R> {
    /// The length of the plaintext, in bytes. It is authentic.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk size of the stream, in bytes: what is read and opened at a time.
    #[must_use]
    pub fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// Whether the stream is uniform, so that [seeking](Self#seeking) costs one read and no walk.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        self.uniform
    }

    /// The inner reader.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. It may be read and moved: before the next read it is sent where it has to be.
    pub fn get_mut(&mut self) -> &mut R {
        self.standing = Standing::Unknown;
        &mut self.inner
    }

    /// The inner reader, pinned. It may be read and moved: before the next read it is sent where it has to be.
    pub fn get_pin_mut(self: Pin<&mut Self>) -> Pin<&mut R> {
        let this = self.project();
        *this.standing = Standing::Unknown;
        this.inner
    }

    /// Gives the inner reader back, wherever it stands. What is buffered, at most a frame, is wiped.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead + AsyncSeek> SeekReader<R> {
    /// Reads and opens until the buffer holds the plaintext at the position, or that is past the end.
    fn poll_advance(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        loop {
            let buffer = ready!(this.buffer.poll(cx))?;
            match buffer.next(*this.position)? {
                Next::Take | Next::End => return Poll::Ready(Ok(())),
                Next::Open(len) => {
                    // Several frames may have been read at once.
                    ready!(coop::poll_proceed(cx)).made_progress();
                    this.buffer.run(len, SeekBuffer::open);
                }
                Next::Read(at) => {
                    let at = *this.base + at;
                    ready!(poll_go_to(this.inner.as_mut(), cx, this.standing, at))?;
                    match ready!(poll_read_some(this.inner.as_mut(), cx, &mut buffer.spare())) {
                        Ok(0) => return Poll::Ready(Err(buffer.end_of_input().into())),
                        Ok(n) => *this.standing = Standing::At(at + n as u64),
                        Err(error) => {
                            *this.standing = Standing::Unknown;
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
    }
}

/// Sends the inner reader to `target`, unless it stands there.
///
/// | it is              | then                                                             |
/// |--------------------|------------------------------------------------------------------|
/// | at the target      | done                                                             |
/// | going there        | wait until it is there                                           |
/// | anywhere else      | wait until it is idle, send it there                             |
///
/// It may be busy with a read or a seek that somebody gave up on; `tokio::fs::File` refuses to be sent anywhere then.
fn poll_go_to<R: AsyncSeek>(
    mut inner: Pin<&mut R>,
    cx: &mut Context<'_>,
    standing: &mut Standing,
    target: u64,
) -> Poll<io::Result<()>> {
    if *standing == Standing::At(target) {
        return Poll::Ready(Ok(()));
    }
    if *standing != Standing::Going(target) {
        *standing = Standing::Unknown;
        ready!(inner.as_mut().poll_complete(cx))?;
        inner.as_mut().start_seek(SeekFrom::Start(target))?;
        *standing = Standing::Going(target);
    }
    let arrived = ready!(inner.poll_complete(cx));
    *standing = Standing::Unknown;
    if arrived? != target {
        return Poll::Ready(Err(went_elsewhere()));
    }
    *standing = Standing::At(target);
    Poll::Ready(Ok(()))
}

impl<R: AsyncRead + AsyncSeek> AsyncRead for SeekReader<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_buffered(self, cx, out)
    }
}

impl<R: AsyncRead + AsyncSeek> AsyncBufRead for SeekReader<R> {
    fn poll_fill_buf(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        ready!(self.as_mut().poll_advance(cx))?;
        let this = self.project();
        let buffer = ready!(this.buffer.poll(cx))?;
        Poll::Ready(Ok(buffer.plaintext(*this.position)))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let this = self.project();
        let buffered = this.buffer.get_ref().map_or(0, |buffer| buffer.plaintext(*this.position).len());
        assert!(n <= buffered, "no more can be consumed than there is");
        *this.position += n as u64;
    }
}

impl<R: AsyncRead + AsyncSeek> AsyncSeek for SeekReader<R> {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let this = self.project();
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => this.position.checked_add_signed(offset),
            SeekFrom::End(offset) => this.len.checked_add_signed(offset),
        };
        match position {
            Some(position) => *this.position = position,
            None => {
                let message = "the position would be before the start of the plaintext, or past what 64 bits can count";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl<R> fmt::Debug for SeekReader<R> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeekReader")
            .field("buffer", &self.buffer)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
