//! Stream read from the inner reader, plaintext read out.
//!
//! It must never read a byte past the end of the stream, never report an end of file before the final frame was checked, and
//! never hold a complete frame back while it waits for more.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::{
    open_queue::{Next, OpenQueue},
    poll::{poll_read_buffered, poll_read_some},
};
use crate::{
    key::KeyRing,
    offload::OFFLOAD_LEN,
    options::{DecryptOptions, Trailing},
};

pin_project! {
    /// Reads a stream from `R` and gives out its plaintext.
    ///
    /// **Only the end of file says that the stream was whole.** Every byte that is read was authenticated, but what was read
    /// before an error is a prefix of the plaintext, not the plaintext: do not act on it as if it were complete. End of file
    /// is reported only after the final frame was checked.
    ///
    /// ```
    /// use agcm::{DecryptReader, Key};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let key = Key::generate();
    /// let stream = agcm::encrypt(&key, b"row 1\nrow 2\n");
    ///
    /// let mut reader = DecryptReader::new(&stream[..], &key);
    /// let mut plaintext = String::new();
    /// reader.read_to_string(&mut plaintext).await?;
    /// assert_eq!(plaintext, "row 1\nrow 2\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The reader never reads past the end of the stream: afterwards the inner reader stands at the next byte, and
    /// [`into_inner`](Self::into_inner) can go on with it. Where the stream should be all there is, choose
    /// [`Trailing::Reject`]; then a byte after it is an error, found by one more read.
    ///
    /// A frame is given out as soon as it is complete, without waiting for the next one. Through [`AsyncBufRead`]
    /// ([`tokio::io::copy_buf`] for example) it is given out without being copied.
    ///
    /// # As a `Stream`, and from one
    ///
    /// The bridges are those of `tokio_util::io`: `StreamReader` makes a reader of a `Stream` of `Bytes`, and `ReaderStream` a
    /// `Stream` of this reader, best `with_capacity(reader, 64 * 1024)`. Their speed is some 0.98 of a loop over the
    /// [core](crate::Decryptor) that copies once less, and with the feature `aws-lc-rs` 0.94; with the 4 KiB that `ReaderStream`
    /// begins with, 0.94 and 0.86. Where that counts, [`framed_read`](crate::codec::framed_read) hands each frame out where it
    /// has arrived, and is no slower than the loop (chunks of 64 KiB; `benches/streams.rs`, pairwise, 2026-11-23, on a machine
    /// with other work to do).
    ///
    /// ```
    /// use agcm::{DecryptOptions, Key, Trailing, codec::{Frame, FrameDecoder, framed_read}};
    /// use bytes::Bytes;
    /// use futures::{Stream, TryStreamExt};
    /// use std::io;
    /// use tokio_util::io::StreamReader;
    ///
    /// /// The plaintext of one stream. It ends when that was whole, and otherwise in an error.
    /// fn decrypted(stream: impl Stream<Item = io::Result<Bytes>>, key: &Key) -> impl Stream<Item = io::Result<Bytes>> {
    ///     let one = DecryptOptions::new().trailing(Trailing::Reject);
    ///     let frames = framed_read(StreamReader::new(stream), FrameDecoder::with_options(key, &one));
    ///     frames.try_filter_map(async |frame| Ok(match frame {
    ///         Frame::Data(plaintext) => Some(plaintext),
    ///         Frame::End => None,
    ///     }))
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> io::Result<()> {
    /// # let key = Key::generate();
    /// # let body = agcm::encrypt(&key, b"some rows");
    /// # for (cut, is_whole) in [(body.len(), true), (body.len() - 1, false), (100, false), (0, false)] {
    /// #     let pieces: Vec<_> = body[..cut].chunks(50).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    /// #     let all: io::Result<Vec<Bytes>> = decrypted(futures::stream::iter(pieces), &key).try_collect().await;
    /// #     assert_eq!(all.is_ok(), is_whole);
    /// #     if is_whole { assert_eq!(all?, ["some rows"]) }
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the stream is an [`Error`](crate::Error) inside an [`io::Error`], to be had by
    /// [`Error::from_io`](crate::Error::from_io). It is sticky: every later read returns it again, and never an end of file.
    /// An error of the inner reader is passed on as it is, and reading may be resumed after it.
    ///
    /// # Cancel safety
    ///
    /// `read`, `fill_buf` and whatever else is cancel safe for readers in general are cancel safe: if one was dropped,
    /// nothing is lost.
    ///
    /// # Memory
    ///
    /// One chunk and less than 4 KiB, and until a frame has authenticated, no more than twice what has arrived and 4 KiB,
    /// whatever the header says; wiped at the end, on error and on drop, and kept for the next stream
    /// ([`trim_memory`](crate::trim_memory)). [`DecryptOptions::max_chunk_size`] bounds the chunk. Chunks of 1 MiB and more are
    /// opened on the blocking pool of the runtime; smaller ones in place, in [cooperative](tokio::task::coop) steps of 8 KiB, so
    /// that a task's turn ends after 1 MiB. Each read of the inner reader is a step, too.
    ///
    /// With several [workers](DecryptOptions::workers), up to twice as many batches, as soon as one frame has authenticated: it
    /// reads ahead as long as there is something to be read, and room, but never past the end of the stream.
    pub struct DecryptReader<R> {
        #[pin]
        inner: R,
        queue: OpenQueue,
        // The inner reader's, until all was given out that came before it.
        failed: Option<io::Error>,
    }
}

impl<R> DecryptReader<R> {
    /// A reader with the default options: no context, chunks of any legal size, and bytes after the stream are left.
    #[must_use]
    pub fn new(inner: R, keys: impl Into<KeyRing>) -> Self {
        Self::with_options(inner, keys, &DecryptOptions::new())
    }

    /// A reader with options.
    ///
    /// ```
    /// use agcm::{DecryptOptions, DecryptReader, Key, Trailing};
    ///
    /// let key = Key::generate();
    /// let options = DecryptOptions::new().context("nightly")?.trailing(Trailing::Reject);
    /// let reader = DecryptReader::with_options(&b"AGCM"[..], &key, &options);
    /// # let _ = reader;
    /// # Ok::<(), agcm::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(inner: R, keys: impl Into<KeyRing>, options: &DecryptOptions) -> Self {
        Self { inner, queue: OpenQueue::new(keys.into(), options, Trailing::Leave), failed: None }
    }

    /// The inner reader.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. What is read from it directly is missing from the stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner reader, pinned. What is read from it directly is missing from the stream.
    pub fn get_pin_mut(self: Pin<&mut Self>) -> Pin<&mut R> {
        self.project().inner
    }

    /// Gives the inner reader back: at the byte after the stream, if that was read to its end. Otherwise what was read ahead,
    /// at most a frame or all batches, is discarded and wiped.
    ///
    /// To have all the plaintext is not to have read to the end, even where its length was known in advance: the final frame
    /// is still to come, and with it the news that the stream was whole. Read on until there are 0 bytes.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead> DecryptReader<R> {
    /// Reads and opens until there is plaintext in the buffer, or in `out` if a whole frame's fits in there, or the stream
    /// has ended.
    fn poll_advance(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<()>> {
        let mut this = self.project();
        let queue = this.queue;
        let mut may_read = this.failed.is_none();
        loop {
            match queue.next(may_read)? {
                Next::Take | Next::End => return Poll::Ready(Ok(())),
                Next::Read => match poll_read_some(this.inner.as_mut(), cx, &mut queue.spare()) {
                    Poll::Ready(Ok(0)) => queue.end_of_input(),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => {
                        *this.failed = Some(error);
                        may_read = false;
                    }
                    Poll::Pending => may_read = false,
                },
                Next::Open(len) => match &mut out {
                    Some(out) if queue.is_one_frame() && len < OFFLOAD_LEN && out.remaining() >= len => {
                        // No more than the frame: the caller's buffer may be large, and not initialised.
                        let n = queue.open_into(out.initialize_unfilled_to(len));
                        // Nothing if it is bad, which is said next.
                        out.advance(n);
                        return Poll::Ready(Ok(()));
                    }
                    _ => queue.open(),
                },
                Next::Wait => ready!(queue.poll_opened(cx))?,
                Next::Stalled => {
                    return match this.failed.take() {
                        Some(error) => Poll::Ready(Err(error)),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

impl<R: AsyncRead> AsyncRead for DecryptReader<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.remaining();
        if before == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.as_mut().poll_advance(cx, Some(out)))?;
        if out.remaining() < before {
            return Poll::Ready(Ok(()));
        }
        poll_read_buffered(self, cx, out)
    }
}

impl<R: AsyncRead> AsyncBufRead for DecryptReader<R> {
    fn poll_fill_buf(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        ready!(self.as_mut().poll_advance(cx, None))?;
        Poll::Ready(Ok(self.project().queue.plaintext()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        self.project().queue.consume(n);
    }
}

impl<R> fmt::Debug for DecryptReader<R> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptReader").field("queue", &self.queue).finish_non_exhaustive()
    }
}
