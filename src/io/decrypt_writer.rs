//! Stream written in, plaintext written out.
//!
//! It must never write a byte that was not authenticated, never shut the inner writer down unless the stream was whole, and
//! never call a write a success that completed a bad frame.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::{io::AsyncWrite, task::coop};

use super::{
    open_queue::{Next, OpenQueue},
    poll::poll_write_some,
};
use crate::{
    key::KeyRing,
    offload::OFFLOAD_LEN,
    options::{DecryptOptions, Trailing},
};

pin_project! {
    /// Takes a stream that is written to it and writes its plaintext to `W`.
    ///
    /// **Only [`shutdown`](tokio::io::AsyncWriteExt::shutdown) or [`finish`](Self::finish) tells you that the stream was
    /// whole.** Every byte that reaches `W` was authenticated, but if the stream was cut, neither a write nor
    /// [`tokio::io::copy`] notices: what `W` has by then is a prefix of the plaintext. Without the end of the stream
    /// `shutdown` is [`Truncated`](crate::Error::Truncated) and does not shut `W` down.
    ///
    /// ```
    /// use agcm::{DecryptWriter, Error, Key};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let stream = agcm::encrypt(&key, b"row 1\nrow 2\n");
    ///
    /// let mut writer = DecryptWriter::new(Vec::new(), &key);
    /// writer.write_all(&stream).await?;
    /// writer.shutdown().await?;
    /// assert_eq!(writer.into_inner(), b"row 1\nrow 2\n");
    ///
    /// let mut writer = DecryptWriter::new(Vec::new(), &key);
    /// writer.write_all(&stream[..150 - 40]).await?; // it has no end
    /// let error = writer.shutdown().await.unwrap_err();
    /// assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: 110 }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A frame is opened by the write that completes it. Its plaintext is written to `W` by the next write, or by a flush:
    /// flush when the source pauses.
    ///
    /// # The end of the stream
    ///
    /// A slice that crosses the end is taken up to there: `write` returns how much of it belonged to the stream. Then
    /// [`is_complete`](Self::is_complete) is true, and all of the plaintext was written to `W`. A write after that is
    /// [`TrailingData`](crate::Error::TrailingData), whatever [`DecryptOptions::trailing`] says: there is no place to leave
    /// what it brings. So where something follows the stream, look at `is_complete` between writes, and go on with
    /// [`into_inner`](Self::into_inner). ([`tokio::io::copy`] and `write_all` do not look. After they have failed with
    /// `TrailingData`, `is_complete` still says that the plaintext is all there; to flush it is up to you.)
    ///
    /// # Errors
    ///
    /// What is wrong with the stream is an [`Error`](crate::Error) inside an [`io::Error`], to be had by
    /// [`Error::from_io`](crate::Error::from_io). The write that completes a bad frame fails itself, and nothing of that
    /// frame reaches `W`. It is sticky: every later write, flush and shutdown returns it again. (What an earlier,
    /// successful shutdown or flush has done stays done.)
    ///
    /// An error of the inner writer is passed on and loses nothing: calling again goes on where it stopped. If the inner
    /// writer takes nothing (`Ok(0)`), that is [`WriteZero`](io::ErrorKind::WriteZero).
    ///
    /// # Cancel safety
    ///
    /// `write` is cancel safe: if it was dropped, nothing was taken, and what is written next must begin with the same bytes
    /// (as it must, being the same stream). `write_all` is not, as with every writer. `flush`, `shutdown` and
    /// [`finish`](Self::finish) may be dropped and called again.
    ///
    /// # Memory
    ///
    /// One chunk and less than 4 KiB, and until a frame has authenticated, no more than twice what has arrived and 4 KiB,
    /// whatever the header says; wiped at the end, on error and on drop. [`DecryptOptions::max_chunk_size`] bounds the chunk.
    /// Chunks of 1 MiB and more are opened on the blocking pool of the runtime; smaller ones in place, in
    /// [cooperative](tokio::task::coop) steps of 8 KiB, so that a task's turn ends after 1 MiB.
    pub struct DecryptWriter<W> {
        #[pin]
        inner: W,
        queue: OpenQueue,
        // A frame is being opened elsewhere, and the write that brought its last byte, this one, is pending. So by all that its
        // caller knows the byte was not taken, and will come again.
        pending_byte: Option<u8>,
        // The inner writer was shut down.
        closed: bool,
    }
}

impl<W> DecryptWriter<W> {
    /// A writer with the default options: no context, chunks of any legal size.
    #[must_use]
    pub fn new(inner: W, keys: impl Into<KeyRing>) -> Self {
        Self::with_options(inner, keys, &DecryptOptions::new())
    }

    /// A writer with options.
    ///
    /// ```
    /// use agcm::{DecryptOptions, DecryptWriter, Key};
    ///
    /// let options = DecryptOptions::new().context("nightly")?.max_chunk_size(1024 * 1024)?;
    /// let writer = DecryptWriter::with_options(tokio::io::sink(), &Key::generate(), &options);
    /// # let _ = writer;
    /// # Ok::<(), agcm::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(inner: W, keys: impl Into<KeyRing>, options: &DecryptOptions) -> Self {
        // Left or not, what follows the stream is an error here.
        let options = options.clone().trailing(Trailing::Reject);
        // With more workers, the write that completes a bad frame could not fail itself.
        let queue = OpenQueue::of_one_frame(keys.into(), &options, Trailing::Reject);
        Self { inner, queue, pending_byte: None, closed: false }
    }

    /// Whether the stream was written to its end, and all of its plaintext to the inner writer.
    ///
    /// ```
    /// use agcm::{DecryptWriter, Key};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let key = Key::generate();
    /// let message = [&agcm::encrypt(&key, b"the encrypted part")[..], b"and now in the clear"].concat();
    ///
    /// let mut rest = &message[..];
    /// let mut writer = DecryptWriter::new(Vec::new(), &key);
    /// while !writer.is_complete() && !rest.is_empty() {
    ///     let n = writer.write(rest).await?;
    ///     rest = &rest[n..];
    /// }
    /// writer.finish().await?; // fails if that was not all of the stream
    /// assert_eq!(rest, b"and now in the clear");
    /// assert_eq!(writer.into_inner(), b"the encrypted part");
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_complete(&self) -> bool {
        self.queue.is_complete()
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer. What is written to it directly lands in the middle of the plaintext.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The inner writer, pinned. What is written to it directly lands in the middle of the plaintext.
    pub fn get_pin_mut(self: Pin<&mut Self>) -> Pin<&mut W> {
        self.project().inner
    }

    /// Gives the inner writer back. What was taken and not written to it yet, at most a frame, is discarded and wiped:
    /// [`finish`](Self::finish) first.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: AsyncWrite> DecryptWriter<W> {
    /// Says that the stream was written, checks that it was whole, and flushes its plaintext; but leaves the inner writer
    /// open for whatever comes next.
    ///
    /// Cancel safe: if it was dropped, calling it again goes on.
    ///
    /// # Errors
    ///
    /// [`Truncated`](crate::Error::Truncated) unless the stream has come to its end, or the error that it failed with before,
    /// or the inner writer's.
    pub async fn finish(&mut self) -> io::Result<()>
    where
        W: Unpin,
    {
        poll_fn(|cx| Pin::new(&mut *self).poll_finish(cx)).await
    }

    /// [`finish`](Self::finish), to be polled.
    ///
    /// # Errors
    ///
    /// As for [`finish`](Self::finish).
    pub fn poll_finish(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.as_mut().poll_check_end(cx))?;
        self.project().inner.poll_flush(cx)
    }

    /// Writes out the plaintext, and fails unless it was all there is.
    fn poll_check_end(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_drain(cx))?;
        let queue = self.project().queue;
        if !queue.is_complete() {
            queue.end_of_input();
        }
        queue.next(true)?;
        Poll::Ready(Ok(()))
    }

    /// Writes out the plaintext of the frame that was opened, and looks at the word behind it, if that was taken too.
    fn poll_drain(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        let queue = this.queue;
        loop {
            match queue.next(true)? {
                Next::Take => {
                    let n = ready!(poll_write_some(this.inner.as_mut(), cx, queue.plaintext()))?;
                    queue.consume(n);
                }
                Next::Wait => ready!(queue.poll_opened(cx))?,
                Next::Open(_) => queue.open(),
                Next::Read | Next::Stalled | Next::End => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Takes from the front of a slice that is not empty, up to the end of a frame or of the stream at most. There is no
    /// plaintext to be written out.
    ///
    /// | the next step lacks    | and is                          | then                                        |
    /// |------------------------|---------------------------------|---------------------------------------------|
    /// | more than the slice has|                                 | take all                                    |
    /// | no more than it has    | prelude, word, short frame, end | take that much, do the step                 |
    /// | several bytes          | a long frame                    | take all but the last one                   |
    /// | one byte               | a long frame                    | wait for it to be opened, then take the byte|
    ///
    /// So the write that completes a long frame has taken nothing while it is pending.
    fn poll_take(self: Pin<&mut Self>, cx: &mut Context<'_>, stream: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let mut taken = 0;
        let queue = this.queue;
        loop {
            let rest = &stream[taken..];
            match queue.next(true)? {
                Next::Open(_) => queue.open(),
                // What begins behind the end is taken too, to be refused; but not together with what comes before.
                Next::Read if rest.is_empty() || (queue.is_complete() && taken > 0) => break,
                Next::Read => {
                    let (missing, len) = (queue.missing(), queue.step_len());
                    if rest.len() < missing {
                        taken += queue.fill(rest);
                        continue;
                    }
                    if len >= OFFLOAD_LEN && missing > 1 {
                        taken += queue.fill(&rest[..missing - 1]);
                        break;
                    }
                    // The step gets complete and will be done, so this is the last place where the task can be made to wait.
                    match coop::poll_proceed(cx) {
                        Poll::Ready(coop) => coop.made_progress(),
                        Poll::Pending if taken > 0 => break,
                        Poll::Pending => return Poll::Pending,
                    }
                    if len >= OFFLOAD_LEN {
                        debug_assert_eq!(taken, 0, "what comes before the last byte was taken by another write");
                        taken += queue.fill(&rest[..1]);
                        *this.pending_byte = Some(rest[0]);
                        queue.next(true)?;
                        queue.open();
                        ready!(queue.poll_opened(cx))?;
                        queue.next(true)?;
                        *this.pending_byte = None;
                        break;
                    }
                    taken += queue.fill(rest);
                }
                Next::Take | Next::Wait | Next::Stalled | Next::End => break,
            }
        }
        Poll::Ready(Ok(taken))
    }
}

impl<W: AsyncWrite> AsyncWrite for DecryptWriter<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, stream: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.as_mut().project();
        ready!(this.queue.poll_opened(cx))?;
        this.queue.next(true)?;
        let Some(&first) = stream.first() else { return Poll::Ready(Ok(0)) };
        if let Some(byte) = this.pending_byte.take() {
            if byte != first {
                this.queue.take_back();
                this.queue.next(true)?;
            }
            return Poll::Ready(Ok(1));
        }
        ready!(self.as_mut().poll_drain(cx))?;
        self.poll_take(cx, stream)
    }

    /// Writes out the plaintext of every frame that is complete, and flushes the inner writer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.as_mut().poll_drain(cx))?;
        self.project().inner.poll_flush(cx)
    }

    /// Checks that the stream was whole, and only then shuts the inner writer down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        // Not every writer flushes when it is shut down, as it should: standard output of Tokio does not.
        ready!(self.as_mut().poll_finish(cx))?;
        let this = self.project();
        ready!(this.inner.poll_shutdown(cx))?;
        *this.closed = true;
        Poll::Ready(Ok(()))
    }
}

impl<W> fmt::Debug for DecryptWriter<W> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptWriter").field("queue", &self.queue).finish_non_exhaustive()
    }
}
