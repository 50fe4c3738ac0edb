//! Plaintext read from the inner reader, stream read out.
//!
//! It must never end the stream unless the inner reader has come to its end, never seal a chunk that is not full before that,
//! and never seal one twice.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::{
    poll::{poll_read_buffered, poll_read_some},
    seal_queue::SealQueue,
};
use crate::{key::Key, options::EncryptOptions};

pin_project! {
    /// Reads plaintext from `R` and gives out the stream.
    ///
    /// For whatever pulls its input: the body of an upload, [`tokio::io::copy`] into something that is not to be wrapped. The
    /// stream ends when the inner reader does, and only then: if that fails, or is given up on, what was read so far is
    /// [`Truncated`](crate::Error::Truncated).
    ///
    /// ```
    /// use agcm::{EncryptReader, Key};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let mut reader = EncryptReader::new(&b"row 1\nrow 2\n"[..], &key);
    /// let mut stream = Vec::new();
    /// reader.read_to_end(&mut stream).await?;
    /// assert_eq!(agcm::decrypt(&key, &stream)?, b"row 1\nrow 2\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// **Nothing comes out before a chunk is full**, or the input at its end, however small the pieces that the inner reader
    /// gives: the stream is always uniform. So [`geometry::Uniform`](crate::geometry::Uniform) knows its length beforehand if
    /// that of the plaintext is known. For a source that pauses and whose data must not wait, write it to an
    /// [`EncryptWriter`](crate::EncryptWriter) and use [`flush_chunk`](crate::EncryptWriter::flush_chunk).
    ///
    /// Through [`AsyncBufRead`] ([`tokio::io::copy_buf`] for example) a frame is given out without being copied.
    ///
    /// # As a `Stream`, and from one
    ///
    /// The bridges are those of `tokio_util::io`: `StreamReader` makes a reader of a `Stream` of `Bytes`, and `ReaderStream` a
    /// `Stream` of this reader, best `with_capacity(reader, 64 * 1024)`. Their speed is 0.94 (good to a tenth) of a
    /// [`FrameEncoder`](crate::codec::FrameEncoder) that is given each piece as an item, which copies once less, and with the
    /// feature `aws-lc-rs` 0.83; with the 4 KiB that `ReaderStream` begins with, 0.92 and 0.78 (chunks of 64 KiB;
    /// `benches/streams.rs`, pairwise, 2026-11-23, on a machine with other work to do). But the stream of the encoder has frames
    /// as long as the pieces, so that it is uniform only if those are full chunks; this one always is. The pieces of the
    /// `Stream` are not frames.
    ///
    /// ```
    /// use std::io;
    ///
    /// use agcm::{EncryptReader, Key};
    /// use bytes::Bytes;
    /// use futures::{Stream, TryStreamExt, stream};
    /// use tokio_util::io::{ReaderStream, StreamReader};
    ///
    /// fn encrypted(stream: impl Stream<Item = io::Result<Bytes>>, key: &Key) -> impl Stream<Item = io::Result<Bytes>> {
    ///     ReaderStream::with_capacity(EncryptReader::new(StreamReader::new(stream), key), 64 * 1024)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> io::Result<()> {
    /// let key = Key::generate();
    /// let pieces = stream::iter([Ok("row 1\n".into()), Ok("row 2\n".into())]);
    /// let sealed: Vec<Bytes> = Box::pin(encrypted(pieces, &key)).try_collect().await?;
    /// assert_eq!(agcm::decrypt(&key, &sealed.concat())?, b"row 1\nrow 2\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An error of the inner reader is passed on as it is, and reading may be resumed after it: nothing is lost or sealed
    /// twice. Past the limits of a stream every read is [`StreamTooLong`](crate::Error::StreamTooLong). The first read
    /// fails if the operating system gives no random bytes, and may be tried again.
    ///
    /// # Cancel safety
    ///
    /// `read`, `fill_buf` and whatever else is cancel safe for readers in general are cancel safe: if one was dropped,
    /// nothing is lost.
    ///
    /// # Memory
    ///
    /// One chunk and less than 4 KiB, from the first read on until the stream was read to its end; wiped then, and on drop,
    /// and kept for the next stream ([`trim_memory`](crate::trim_memory)). Chunks of 1 MiB and more are sealed on the blocking
    /// pool of the runtime; smaller ones in place, in [cooperative](tokio::task::coop) steps of 8 KiB, so that a task's turn
    /// ends after 1 MiB. Each read of the inner reader is a step, too.
    ///
    /// With several [workers](EncryptOptions::workers), up to twice as many batches: it reads ahead as long as there is something
    /// to be read, and room.
    pub struct EncryptReader<R> {
        #[pin]
        inner: R,
        queue: SealQueue,
        // What the inner reader said last, until all was given out that came before it.
        ended: Option<io::Result<()>>,
    }
}

impl<R> EncryptReader<R> {
    /// A reader with the default options. Nothing is read before the first read.
    #[must_use]
    pub fn new(inner: R, key: &Key) -> Self {
        Self::with_options(inner, key, &EncryptOptions::new())
    }

    /// A reader with options: another chunk size, a context. ([`EncryptOptions::cut_on_flush`] has no meaning here.)
    ///
    /// ```
    /// use agcm::{EncryptOptions, EncryptReader, Key};
    ///
    /// let options = EncryptOptions::new().chunk_size(1024 * 1024)?.context("nightly")?;
    /// let reader = EncryptReader::with_options(tokio::io::empty(), &Key::generate(), &options);
    /// # let _ = reader;
    /// # Ok::<(), agcm::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(inner: R, key: &Key, options: &EncryptOptions) -> Self {
        Self { inner, queue: SealQueue::new(key, options), ended: None }
    }

    /// The inner reader.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. What is read from it directly is missing from the plaintext.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner reader, pinned. What is read from it directly is missing from the plaintext.
    pub fn get_pin_mut(self: Pin<&mut Self>) -> Pin<&mut R> {
        self.project().inner
    }

    /// Gives the inner reader back. What was read from it and not given out yet, at most a chunk, is discarded and wiped.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead> EncryptReader<R> {
    /// Reads and seals until there is something to be given out, or all of it was.
    ///
    /// | of the batches              | of the input      | then                                                |
    /// |-----------------------------|-------------------|-----------------------------------------------------|
    /// | one is being given out      |                   | go on with it                                       |
    /// | there is room in one        | there may be more | read it, and seal the batch if it is full           |
    /// | there is room in one        | nothing for now   | seal the chunks that are full, if no batch is ahead |
    /// | there is room in one        | nothing is left   | seal it, and the final frame behind it              |
    /// | there is room for no more   |                   | wait for the first, and give it out                 |
    /// | all were given out          | an error          | the error                                           |
    fn poll_advance(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        let queue = this.queue;
        queue.start()?;
        while this.ended.is_none() && queue.has_room() && !queue.is_leaving() {
            if queue.is_full() {
                match queue.admit() {
                    Ok(()) => queue.seal(),
                    Err(_) if queue.is_under_way() || !queue.ready().is_empty() => break,
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
                continue;
            }
            match poll_read_some(this.inner.as_mut(), cx, &mut queue.spare()) {
                Poll::Ready(Ok(0)) => *this.ended = Some(Ok(())),
                Poll::Ready(Ok(n)) => queue.read(n),
                Poll::Ready(Err(error)) => {
                    // The caller may never come back for them. If they are too much for the stream, that shows when it does.
                    if queue.admit().is_ok() {
                        queue.seal_full_chunks();
                    }
                    *this.ended = Some(Err(error));
                }
                Poll::Pending if queue.is_under_way() => break,
                Poll::Pending => {
                    queue.admit()?;
                    queue.send_full_chunks();
                    if !queue.is_under_way() && queue.ready().is_empty() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        if matches!(this.ended, Some(Ok(()))) && !queue.is_finished() {
            match queue.admit() {
                Ok(()) => queue.finish(),
                Err(_) if queue.is_under_way() || !queue.ready().is_empty() => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        if ready!(queue.poll_sealed(cx))?.is_empty() && queue.ready().is_empty() {
            if let Some(Err(error)) = this.ended.take_if(|ended| ended.is_err()) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: AsyncRead> AsyncRead for EncryptReader<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_buffered(self, cx, out)
    }
}

impl<R: AsyncRead> AsyncBufRead for EncryptReader<R> {
    fn poll_fill_buf(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        ready!(self.as_mut().poll_advance(cx))?;
        Poll::Ready(Ok(self.project().queue.ready()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        self.project().queue.advance(n);
    }
}

impl<R> fmt::Debug for EncryptReader<R> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptReader").field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{sync::mpsc, task::Waker};

    use futures::executor::block_on;
    use tokio::{io::AsyncReadExt, runtime::Builder};

    use super::*;
    use crate::{error::Error, format::MAX_PLAINTEXT_LEN, options::DecryptOptions, random};

    /// A reader of a stream that has room for this many bytes more.
    fn about_to_end(plaintext: &[u8], room: u64) -> EncryptReader<&[u8]> {
        let options = EncryptOptions::new().chunk_size(16).unwrap();
        let mut reader = EncryptReader::with_options(plaintext, &Key::generate(), &options);
        reader.queue.start().unwrap();
        reader.queue.skip_to(MAX_PLAINTEXT_LEN - room, 0);
        reader
    }

    #[test]
    fn a_stream_may_reach_its_limit_but_not_pass_it() {
        for len in [0, 1, 16, 17, 20] {
            let mut stream = Vec::new();
            block_on(about_to_end(&[7; 20][..len], 20).read_to_end(&mut stream)).unwrap();
            assert_eq!(stream.len(), 117 + len + 20 * len.div_ceil(16));
        }
        for len in [21, 40] {
            let (mut stream, plaintext) = (Vec::new(), vec![7; len]);
            let mut reader = about_to_end(&plaintext, 20);
            for _ in 0..2 {
                let error = block_on(reader.read_to_end(&mut stream)).unwrap_err();
                assert_eq!(Error::from_io(&error), Some(Error::StreamTooLong));
            }
            assert_eq!(stream.len(), 80 + 36, "what was full before, and no end");
        }
    }

    #[test]
    fn what_is_sealed_elsewhere_comes_before_the_error_that_the_stream_is_too_long() {
        const CHUNK: usize = 600_000;
        let options = EncryptOptions::new().chunk_size(CHUNK).unwrap().workers(2);
        // The input ends behind the limit, or fills a chunk there.
        for len in [2 * CHUNK - 1, 2 * CHUNK] {
            let plaintext = vec![7; len];
            let mut reader = EncryptReader::with_options(&plaintext[..], &Key::generate(), &options);
            reader.queue.start().unwrap();
            reader.queue.skip_to(MAX_PLAINTEXT_LEN - (2 * CHUNK as u64 - 2), 0);
            let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
            let (release, busy) = mpsc::channel::<()>();
            runtime.spawn_blocking(move || busy.recv().unwrap_err());
            runtime.block_on(async {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut reader).poll_fill_buf(&mut cx).is_pending());
                drop(release);
                let mut stream = Vec::new();
                let error = reader.read_to_end(&mut stream).await.unwrap_err();
                assert_eq!(Error::from_io(&error), Some(Error::StreamTooLong));
                assert_eq!(stream.len(), 80 + CHUNK + 20);
            });
        }
    }

    #[test]
    fn without_randomness_nothing_is_read_and_a_retry_works() {
        let key = Key::generate();
        let mut reader = EncryptReader::new(&b"plain"[..], &key);
        let mut stream = Vec::new();
        block_on(async {
            random::failing::set(true);
            reader.read_to_end(&mut stream).await.unwrap_err();
            random::failing::set(false);
            assert_eq!(*reader.get_ref(), b"plain");
            reader.read_to_end(&mut stream).await.unwrap();
        });
        assert_eq!(DecryptOptions::new().decrypt(&key, &stream).unwrap(), b"plain");
    }
}
