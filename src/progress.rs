//! Byte counts for people: how much of the work is done, told to a callback now and then.
//!
//! It must cost nothing that shows beside the work, and never change a byte of what goes through it, nor an error.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// The least time between two calls: twenty a second are more than an eye can follow.
const INTERVAL: Duration = Duration::from_millis(50);

/// How far some work has come, in bytes.
///
/// ```
/// use agcm::Progress;
///
/// fn show(progress: Progress) {
///     match progress.percent() {
///         Some(percent) => eprintln!("{percent:3} %"),
///         None => eprintln!("{} bytes", progress.done),
///     }
/// }
/// # let _ = show;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is, if that is known: never less than what is done. What turns out longer or shorter than it was said
    /// to be corrects it.
    pub total: Option<u64>,
}

impl Progress {
    /// How much of the total is done, in percent, rounded down: 0 ..= 100. All of nothing is 100.
    ///
    /// ```
    /// use agcm::ProgressReader;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let mut seen = Vec::new();
    /// let mut reader = ProgressReader::new(&b"bytes"[..], Some(5), |progress| seen.push(progress.percent()));
    /// reader.read_to_end(&mut Vec::new()).await?;
    /// drop(reader);
    /// assert_eq!(seen.last(), Some(&Some(100)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let percent = |total| match total {
            0 => 100,
            // In 128 bits, where a hundred times any length fits.
            _ => u8::try_from(u128::from(self.done) * 100 / u128::from(total)).unwrap_or(100).min(100),
        };
        self.total.map(percent)
    }
}

/// Counts, and tells the callback: at the first bytes, then at most every [`INTERVAL`], and at the end.
pub(crate) struct Meter<F> {
    callback: F,
    progress: Progress,
    told: Option<Instant>,
    ended: bool,
}

impl<F: FnMut(Progress)> Meter<F> {
    pub(crate) fn new(total: Option<u64>, callback: F) -> Self {
        Self { callback, progress: Progress { done: 0, total }, told: None, ended: false }
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.progress.done = self.progress.done.saturating_add(bytes);
        self.progress.total = self.progress.total.map(|total| total.max(self.progress.done));
        let now = Instant::now();
        if self.told.is_none_or(|told| now.duration_since(told) >= INTERVAL) {
            self.told = Some(now);
            (self.callback)(self.progress);
        }
    }

    /// Says that this was all. Counts once, so that an end that is seen twice is told once.
    pub(crate) fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.progress.total = Some(self.progress.done);
            (self.callback)(self.progress);
        }
    }
}

impl<F> fmt::Debug for Meter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress.fmt(f)
    }
}

pin_project! {
    /// A reader that tells a callback how much was read through it.
    ///
    /// The callback is called at the first bytes, then at most twenty times a second, and once at end of file, with the total
    /// corrected to what there was. It is called in the middle of a read: it should be quick, and not block.
    ///
    /// Around a plaintext source it counts plaintext, around an encrypted one stream bytes.
    ///
    /// ```
    /// use agcm::{DecryptReader, Key, ProgressReader};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let stream = agcm::encrypt(&key, b"gigabytes of snapshot");
    ///
    /// let source = ProgressReader::new(&stream[..], Some(stream.len() as u64), |progress| {
    ///     eprint!("\r{:3} %", progress.percent().unwrap_or(0));
    /// });
    /// let mut restored = Vec::new();
    /// DecryptReader::new(source, &key).read_to_end(&mut restored).await?;
    /// # assert_eq!(restored, b"gigabytes of snapshot");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A [`DecryptReader`](crate::DecryptReader) does not look for more after the end of its stream, so the end of file
    /// under it may never be seen; the last call is then one of the ordinary ones.
    ///
    /// # Cancel safety
    ///
    /// As the inner reader.
    pub struct ProgressReader<R, F> {
        #[pin]
        inner: R,
        meter: Meter<F>,
    }
}

impl<R, F: FnMut(Progress)> ProgressReader<R, F> {
    /// Counts what is read from `inner`, of `total` bytes if that is known.
    pub fn new(inner: R, total: Option<u64>, callback: F) -> Self {
        Self { inner, meter: Meter::new(total, callback) }
    }
}

impl<R, F> ProgressReader<R, F> {
    /// The inner reader.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. What is read from it directly is not counted.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Gives the inner reader back.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead, F: FnMut(Progress)> AsyncRead for ProgressReader<R, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        ready!(this.inner.poll_read(cx, buf))?;
        match buf.filled().len() - before {
            0 if room => this.meter.end(),
            len => this.meter.add(len as u64),
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: AsyncBufRead, F: FnMut(Progress)> AsyncBufRead for ProgressReader<R, F> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.project();
        let buf = ready!(this.inner.poll_fill_buf(cx))?;
        if buf.is_empty() {
            this.meter.end();
        }
        Poll::Ready(Ok(buf))
    }

    fn consume(self: Pin<&mut Self>, len: usize) {
        let this = self.project();
        this.inner.consume(len);
        this.meter.add(len as u64);
    }
}

impl<R, F> fmt::Debug for ProgressReader<R, F> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressReader").field("meter", &self.meter).finish_non_exhaustive()
    }
}

pin_project! {
    /// A writer that tells a callback how much was written through it.
    ///
    /// As [`ProgressReader`]; the last call comes when the writer was shut down.
    ///
    /// ```
    /// use agcm::{EncryptWriter, Key, ProgressWriter};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let upload = ProgressWriter::new(Vec::new(), None, |progress| eprint!("\r{} bytes sent", progress.done));
    /// let mut writer = EncryptWriter::new(upload, &Key::generate());
    /// writer.write_all(b"gigabytes of snapshot").await?;
    /// writer.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As the inner writer.
    pub struct ProgressWriter<W, F> {
        #[pin]
        inner: W,
        meter: Meter<F>,
    }
}

impl<W, F: FnMut(Progress)> ProgressWriter<W, F> {
    /// Counts what is written to `inner`, of `total` bytes if that is known.
    pub fn new(inner: W, total: Option<u64>, callback: F) -> Self {
        Self { inner, meter: Meter::new(total, callback) }
    }
}

impl<W, F> ProgressWriter<W, F> {
    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer. What is written to it directly is not counted.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Gives the inner writer back.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: AsyncWrite, F: FnMut(Progress)> AsyncWrite for ProgressWriter<W, F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let len = ready!(this.inner.poll_write(cx, buf))?;
        this.meter.add(len as u64);
        Poll::Ready(Ok(len))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let len = ready!(this.inner.poll_write_vectored(cx, bufs))?;
        this.meter.add(len as u64);
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        ready!(this.inner.poll_shutdown(cx))?;
        this.meter.end();
        Poll::Ready(Ok(()))
    }
}

impl<W, F> fmt::Debug for ProgressWriter<W, F> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressWriter").field("meter", &self.meter).finish_non_exhaustive()
    }
}
