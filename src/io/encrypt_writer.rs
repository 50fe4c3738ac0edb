//! Plaintext written in, stream written out.
//!
//! Dropping a writer must never finish its stream, an error must never lose or re-seal a byte, and `Pending` must mean that
//! nothing was taken.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::{io::AsyncWrite, task::coop};

use super::{poll::poll_write_some, seal_queue::SealQueue};
use crate::{error::Error, key::Key, options::EncryptOptions};

pin_project! {
    /// Encrypts what is written to it and writes the stream to `W`.
    ///
    /// **A flush does not end the current chunk.** It writes out every complete chunk, but what is in a partly filled one
    /// stays, because [`tokio::io::copy`] flushes whenever its reader has to wait, and every cut would cost a frame. When the
    /// peer has to see what was written so far, call [`flush_chunk`](Self::flush_chunk), or set
    /// [`EncryptOptions::cut_on_flush`].
    ///
    /// **End the stream with [`shutdown`](tokio::io::AsyncWriteExt::shutdown) or [`finish`](Self::finish).** Neither
    /// dropping the writer nor [`tokio::io::copy`] does. A stream that was not finished reads as
    /// [`Truncated`](Error::Truncated), so an early `?` can never pass for success.
    ///
    /// ```
    /// use agcm::{EncryptWriter, Key};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let mut writer = EncryptWriter::new(Vec::new(), &key);
    /// writer.write_all(b"row 1\n").await?;
    /// writer.write_all(b"row 2\n").await?;
    /// writer.shutdown().await?;
    ///
    /// let stream = writer.into_inner();
    /// assert_eq!(agcm::decrypt(&key, &stream)?, b"row 1\nrow 2\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An error of the inner writer is passed on and loses nothing: calling again goes on where it stopped, and nothing is
    /// sealed twice. If the inner writer takes nothing (`Ok(0)`), that is
    /// [`WriteZero`](io::ErrorKind::WriteZero). Writing after the end is [`Error::Finished`], past the limits of a stream
    /// [`Error::StreamTooLong`]; nothing was taken then. The first write or flush fails if the operating system gives no
    /// random bytes, and may be tried again.
    ///
    /// # Cancel safety
    ///
    /// `write` is cancel safe: if it was dropped, nothing was taken. `write_all` is not, as with every writer: how much was
    /// taken is not known. `flush`, `shutdown`, [`flush_chunk`](Self::flush_chunk) and [`finish`](Self::finish) may be
    /// dropped and called again.
    ///
    /// # Memory
    ///
    /// One chunk and less than 4 KiB, from the first byte on until the stream is finished; wiped then, and on drop, and kept
    /// for the next stream ([`trim_memory`](crate::trim_memory)). Chunks of 1 MiB and more are sealed on the blocking pool of
    /// the runtime; smaller ones in place, in [cooperative](tokio::task::coop) steps of 8 KiB, so that a task's turn ends after
    /// 1 MiB. A whole chunk that is written in one slice is sealed from there, without being copied first.
    ///
    /// With several [workers](EncryptOptions::workers), up to twice as many batches: a write takes up to 1 MiB at a time, and
    /// waits only if all of them are under way. A flush waits until all is sealed and written, so flush seldom;
    /// [`tokio::io::copy`] does whenever its reader has to wait.
    pub struct EncryptWriter<W> {
        #[pin]
        inner: W,
        queue: SealQueue,
        cut_on_flush: bool,
        // The inner writer was shut down.
        closed: bool,
    }
}

impl<W> EncryptWriter<W> {
    /// A writer with the default options. Nothing is written before the first write or flush.
    #[must_use]
    pub fn new(inner: W, key: &Key) -> Self {
        Self::with_options(inner, key, &EncryptOptions::new())
    }

    /// A writer with options: another chunk size, a context, flushes that cut.
    ///
    /// ```
    /// use agcm::{EncryptOptions, EncryptWriter, Key};
    ///
    /// let options = EncryptOptions::new().chunk_size(1024 * 1024)?.context("nightly")?;
    /// let writer = EncryptWriter::with_options(tokio::io::sink(), &Key::generate(), &options);
    /// # let _ = writer;
    /// # Ok::<(), agcm::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(inner: W, key: &Key, options: &EncryptOptions) -> Self {
        Self { inner, queue: SealQueue::new(key, options), cut_on_flush: options.cut_on_flush, closed: false }
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer. What is written to it directly lands in the middle of the stream.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The inner writer, pinned. What is written to it directly lands in the middle of the stream.
    pub fn get_pin_mut(self: Pin<&mut Self>) -> Pin<&mut W> {
        self.project().inner
    }

    /// Gives the inner writer back. What the stream still lacks is discarded and wiped: [`finish`](Self::finish) it first.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: AsyncWrite> EncryptWriter<W> {
    /// Ends the current chunk early and flushes everything, so that the peer can read all that was written so far.
    ///
    /// Costs 20 bytes in the stream, which becomes *irregular* by it unless nothing but the end follows. If there is nothing
    /// to cut, it is a flush.
    ///
    /// Cancel safe: if it was dropped, calling it again goes on.
    ///
    /// ```
    /// use agcm::{DecryptReader, EncryptWriter, Key};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let (near, far) = tokio::io::duplex(1024);
    /// let mut writer = EncryptWriter::new(near, &key);
    /// let mut reader = DecryptReader::new(far, &key);
    ///
    /// writer.write_all(b"ping").await?;
    /// writer.flush_chunk().await?;
    ///
    /// let mut ping = [0; 4];
    /// reader.read_exact(&mut ping).await?; // without waiting for the rest of a chunk
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub async fn flush_chunk(&mut self) -> io::Result<()>
    where
        W: Unpin,
    {
        poll_fn(|cx| Pin::new(&mut *self).poll_flush_chunk(cx)).await
    }

    /// Ends the stream and flushes it, but leaves the inner writer open for whatever comes next.
    ///
    /// Cancel safe: the rest and the final frame are sealed once; if this was dropped or has failed, calling it again goes on
    /// where it stopped.
    ///
    /// ```
    /// use agcm::{EncryptWriter, Key};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (key, socket) = (Key::generate(), Vec::new());
    /// let mut writer = EncryptWriter::new(socket, &key);
    /// writer.write_all(b"the encrypted part").await?;
    /// writer.finish().await?;
    ///
    /// let mut socket = writer.into_inner();
    /// socket.write_all(b"and now in the clear").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub async fn finish(&mut self) -> io::Result<()>
    where
        W: Unpin,
    {
        poll_fn(|cx| Pin::new(&mut *self).poll_finish(cx)).await
    }

    /// [`flush_chunk`](Self::flush_chunk), to be polled.
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub fn poll_flush_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_and(cx, true)
    }

    /// [`finish`](Self::finish), to be polled.
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub fn poll_finish(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.as_mut().poll_seal_end(cx))?;
        self.project().inner.poll_flush(cx)
    }

    fn poll_flush_and(mut self: Pin<&mut Self>, cx: &mut Context<'_>, cut: bool) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        let queue = self.as_mut().project().queue;
        queue.start()?;
        if queue.has_full_chunk() || cut && queue.filled() > 0 {
            ready!(coop::poll_proceed(cx)).made_progress();
            if cut { queue.seal() } else { queue.seal_full_chunks() }
        }
        ready!(self.as_mut().poll_drain(cx))?;
        self.project().inner.poll_flush(cx)
    }

    /// Seals what is left and the final frame, once, and drains.
    fn poll_seal_end(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let queue = self.as_mut().project().queue;
        if !queue.is_finished() {
            queue.start()?;
            // The end leaves in one piece with the last chunk, if that has not left.
            ready!(queue.poll_sealed(cx))?;
            ready!(coop::poll_proceed(cx)).made_progress();
            queue.finish();
        }
        self.poll_drain(cx)
    }

    /// Writes out all that can leave.
    fn poll_drain(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_drain_sealed(cx))?;
        let mut this = self.project();
        while !this.queue.released().is_empty() {
            let n = ready!(poll_write_some(this.inner.as_mut(), cx, this.queue.released()))?;
            this.queue.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes out the batches that are sealed, or waits for them to be.
    fn poll_drain_sealed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        loop {
            let sealed = ready!(this.queue.poll_sealed(cx))?;
            if sealed.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let n = ready!(poll_write_some(this.inner.as_mut(), cx, sealed))?;
            this.queue.advance(n);
        }
    }
}

impl<W: AsyncWrite> AsyncWrite for EncryptWriter<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, plaintext: &[u8]) -> Poll<io::Result<usize>> {
        if self.queue.is_finished() {
            return Poll::Ready(Err(Error::Finished.into()));
        }
        if plaintext.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.as_mut().project().queue.start()?;
        let drained = self.as_mut().poll_drain_sealed(cx)?;
        let queue = self.project().queue;
        if drained.is_pending() && !queue.has_room() {
            return Poll::Pending;
        }
        if queue.fills_a_chunk(plaintext.len()) {
            // It will be sealed, so this is the last place where the task can be made to wait.
            ready!(coop::poll_proceed(cx)).made_progress();
        }
        Poll::Ready(Ok(queue.fill(plaintext)?))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let cut = self.cut_on_flush;
        self.poll_flush_and(cx, cut)
    }

    /// Finishes the stream and shuts the inner writer down.
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

impl<W> fmt::Debug for EncryptWriter<W> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptWriter").field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures::executor::block_on;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{options::DecryptOptions, random};

    #[test]
    fn without_randomness_nothing_is_taken_and_a_retry_works() {
        let key = Key::generate();
        let mut writer = EncryptWriter::new(Vec::new(), &key);
        block_on(async {
            random::failing::set(true);
            writer.write(b"plain").await.unwrap_err();
            writer.flush().await.unwrap_err();
            writer.shutdown().await.unwrap_err();
            random::failing::set(false);
            assert!(writer.get_ref().is_empty());

            writer.write_all(b"plain").await.unwrap();
            writer.shutdown().await.unwrap();
        });
        assert_eq!(DecryptOptions::new().decrypt(&key, writer.get_ref()).unwrap(), b"plain");
    }
}
