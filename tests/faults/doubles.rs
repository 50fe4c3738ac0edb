//! The inner values that adapters are given: what they do is up to an [`Injector`].

use std::{
    io::{self, SeekFrom},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use agcm::ReadAt;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use crate::inject::{Injector, Op};

/// The gate of what is there only once.
const ONLY: u64 = 0;

/// Reads `data`.
pub struct Reader {
    pub injector: Injector,
    pub data: Arc<Vec<u8>>,
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(buf.remaining() > 0, "a read into no room cannot be told from the end");
        assert!(!self.injector.state().at_end, "it is read again after its end");
        let most = ready!(self.injector.poll(ONLY, cx, Op::Read))?;
        let mut state = self.injector.state();
        let n = most.min(buf.remaining()).min(self.data.len() - state.read);
        buf.put_slice(&self.data[state.read..state.read + n]);
        state.read += n;
        state.at_end = n == 0;
        Poll::Ready(Ok(()))
    }
}

/// Keeps what is written in the state of its injector.
pub struct Writer {
    pub injector: Injector,
}

impl Writer {
    fn assert_open(&self) {
        assert!(!self.injector.state().closed, "it is used after it was shut down");
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!buf.is_empty(), "a write of nothing cannot be told from a failure");
        self.assert_open();
        let n = ready!(self.injector.poll(ONLY, cx, Op::Write))?.min(buf.len());
        let mut state = self.injector.state();
        state.written.extend_from_slice(&buf[..n]);
        state.dirty |= n > 0;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.assert_open();
        ready!(self.injector.poll(ONLY, cx, Op::Flush))?;
        self.injector.state().dirty = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.assert_open();
        ready!(self.injector.poll(ONLY, cx, Op::Shutdown))?;
        self.injector.state().closed = true;
        Poll::Ready(Ok(()))
    }
}

/// What a source by offset holds; it may be exchanged under the adapter.
pub type Shared = Arc<Mutex<Bytes>>;

/// A reader that can seek, as strict as `tokio::fs::File`: it refuses to be sent anywhere while it is busy.
pub struct Seekable {
    pub injector: Injector,
    pub data: Shared,
    /// In percent: it arrives elsewhere and says so, or does not.
    pub elsewhere: usize,
    pub lies: usize,
    at: u64,
    going: Option<u64>,
    reading: bool,
}

impl Seekable {
    pub fn new(injector: Injector, data: Shared, elsewhere: usize, lies: usize) -> Self {
        Self { injector, data, elsewhere, lies, at: 0, going: None, reading: false }
    }
}

impl AsyncRead for Seekable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(buf.remaining() > 0, "a read into no room cannot be told from the end");
        assert!(self.going.is_none(), "it is read while it is on its way");
        let poll = self.injector.poll(ONLY, cx, Op::Read);
        self.reading = poll.is_pending();
        let most = match ready!(poll) {
            Ok(most) => most,
            Err(error) => {
                // Where it stands now is anyone's guess, unless it was only interrupted: many of Tokio's helpers try again then.
                self.at += u64::from(error.kind() != io::ErrorKind::Interrupted);
                return Poll::Ready(Err(error));
            }
        };
        let data = self.data.lock().unwrap().clone();
        let rest = usize::try_from(self.at).ok().and_then(|at| data.get(at..)).unwrap_or_default();
        let n = most.min(buf.remaining()).min(rest.len());
        buf.put_slice(&rest[..n]);
        self.injector.state().read += n;
        self.at += n as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Seekable {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        assert!(!self.reading && self.going.is_none(), "it is sent somewhere while it is busy");
        let len = self.data.lock().unwrap().len() as u64;
        let to = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset).unwrap(),
            SeekFrom::End(offset) => len.checked_add_signed(offset).unwrap(),
        };
        self.going = Some(to);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if self.reading {
            // A read that somebody gave up on; what it would have read is lost.
            let poll = self.injector.poll(ONLY, cx, Op::Seek);
            self.reading = poll.is_pending();
            self.at += u64::from(poll.is_ready());
            return poll.map_ok(|_| self.at);
        }
        let Some(to) = self.going else { return Poll::Ready(Ok(self.at)) };
        let result = ready!(self.injector.poll(ONLY, cx, Op::Seek));
        self.going = None;
        if result.is_err() {
            self.at += 1;
        }
        result?;
        self.at = to;
        let mut state = self.injector.state();
        if state.dice.percent(self.elsewhere) {
            state.count("a seek that arrived elsewhere");
            state.call.lie = true;
            drop(state);
            self.at = to.saturating_sub(1).max(1) + 2;
        } else if state.dice.percent(self.lies) {
            state.count("a seek that lied");
            state.call.lie = true;
            drop(state);
            self.at = to + 1;
            return Poll::Ready(Ok(to));
        }
        Poll::Ready(Ok(self.at))
    }
}

/// A source that is read at offsets.
pub struct Source {
    pub injector: Injector,
    pub data: Shared,
    /// In percent: it gives too little, too much, or says that it is longer or shorter than it is.
    pub lies: usize,
}

impl ReadAt for Source {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async {
            Gate::new(&self.injector).await?;
            let len = self.data.lock().unwrap().len() as u64;
            let mut state = self.injector.state();
            if state.dice.percent(self.lies) {
                state.count("a length that lied");
                state.call.lie = true;
                let wrong = [0, len / 2, len.saturating_sub(1), len + 1, len * 2, u64::MAX];
                return Ok(state.dice.pick(&wrong));
            }
            Ok(len)
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            Gate::new(&self.injector).await?;
            let data = self.data.lock().unwrap().clone();
            let bytes = data.read_at(offset, len).await?;
            let mut state = self.injector.state();
            if state.dice.percent(self.lies) {
                state.count("a read at an offset that lied");
                state.call.lie = true;
                let end = bytes.len();
                return Ok(match state.dice.below(4) {
                    0 => bytes.slice(..end / 2),
                    1 => bytes.slice(..end - 1),
                    2 => Bytes::new(),
                    _ => [&bytes[..], b"more"].concat().into(),
                });
            }
            Ok(bytes)
        })
    }
}

/// Waits for its turn, or fails.
struct Gate {
    injector: Injector,
    gate: u64,
}

impl Gate {
    fn new(injector: &Injector) -> Self {
        Self { injector: injector.clone(), gate: injector.new_gate() }
    }
}

impl Future for Gate {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.injector.poll(self.gate, cx, Op::ReadAt).map_ok(|_| ())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.injector.close_gate(self.gate);
    }
}
