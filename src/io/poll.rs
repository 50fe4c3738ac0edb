//! The steps that several adapters take in the same way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};
use tokio_util::io::poll_read_buf;

/// Reads into a buffer that has room; 0 at the end. Each read is a cooperative step: a reader that is never pending, and
/// gives little at a time, must not keep other tasks from theirs.
pub(crate) fn poll_read_some<R: AsyncRead>(
    reader: Pin<&mut R>,
    cx: &mut Context<'_>,
    buf: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    let step = ready!(coop::poll_proceed(cx));
    let read = ready!(poll_read_buf(reader, cx, buf));
    step.made_progress();
    Poll::Ready(read)
}

/// Reads by copying out of what the reader has buffered.
pub(crate) fn poll_read_buffered<R: AsyncBufRead>(
    mut reader: Pin<&mut R>,
    cx: &mut Context<'_>,
    out: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if out.remaining() > 0 {
        let buffered = ready!(reader.as_mut().poll_fill_buf(cx))?;
        let n = buffered.len().min(out.remaining());
        out.put_slice(&buffered[..n]);
        reader.consume(n);
    }
    Poll::Ready(Ok(()))
}

/// Writes some of `bytes`, which are not empty; a writer that takes none is an error, or its caller would call for ever.
pub(crate) fn poll_write_some<W: AsyncWrite>(
    writer: Pin<&mut W>,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(writer.poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => Poll::Ready(Ok(n)),
    }
}
