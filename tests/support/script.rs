//! Readers and writers that do as they are told: short, late, failing, or nothing at all.

use std::{
    io::{self, SeekFrom},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// What an inner reader or writer does when it is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Takes or gives at most this many bytes.
    Some(usize),
    /// Wakes the task and is pending.
    Pending,
    /// Is pending and wakes nobody.
    Stall,
    /// Fails.
    Error(io::ErrorKind),
    /// Takes nothing, and says so. (A reader: end of file.)
    Zero,
}

/// Plays its operations, then plays them again if it is to repeat, else takes or gives all there is.
#[derive(Debug, Clone, Default)]
pub struct Script {
    ops: Vec<Op>,
    next: usize,
    repeat: bool,
}

impl Script {
    pub fn once(ops: impl Into<Vec<Op>>) -> Self {
        Self { ops: ops.into(), next: 0, repeat: false }
    }

    pub fn repeat(ops: impl Into<Vec<Op>>) -> Self {
        Self { repeat: true, ..Self::once(ops) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.repeat && self.next == self.ops.len() {
            self.next = 0;
        }
        let op = self.ops.get(self.next).copied().unwrap_or(Op::Some(usize::MAX));
        self.next += 1;
        match op {
            Op::Some(n) => Poll::Ready(Ok(n)),
            Op::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Op::Stall => Poll::Pending,
            Op::Error(kind) => Poll::Ready(Err(kind.into())),
            Op::Zero => Poll::Ready(Ok(0)),
        }
    }
}

/// A reader of `data`.
#[derive(Debug)]
pub struct Reader<'a> {
    pub data: &'a [u8],
    pub script: Script,
    /// How often it was polled.
    pub polls: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8], script: Script) -> Self {
        Self { data, script, polls: 0 }
    }
}

impl AsyncRead for Reader<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.polls += 1;
        self.script.poll(cx).map_ok(|n| {
            let n = n.min(buf.remaining()).min(self.data.len());
            buf.put_slice(&self.data[..n]);
            self.data = &self.data[n..];
        })
    }
}

/// A writer that keeps what it is given.
#[derive(Debug, Default)]
pub struct Writer {
    pub data: Vec<u8>,
    pub script: Script,
    pub flush: Script,
    pub close: Script,
    /// The length of each write that it took.
    pub writes: Vec<usize>,
    pub flushes: usize,
    pub closes: usize,
    /// How often it was polled, for anything.
    pub polls: usize,
}

impl Writer {
    pub fn new(script: Script) -> Self {
        Self { script, ..Self::default() }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.polls += 1;
        assert_eq!(self.closes, 0, "a writer that was shut down is written to");
        self.script.poll(cx).map_ok(|n| {
            let n = n.min(buf.len());
            self.data.extend_from_slice(&buf[..n]);
            self.writes.push(n);
            n
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.polls += 1;
        self.flush.poll(cx).map_ok(|_| self.flushes += 1)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.polls += 1;
        self.close.poll(cx).map_ok(|_| self.closes += 1)
    }
}

/// A seekable reader of `data` that is as strict as `tokio::fs::File`: it refuses to be sent anywhere while it is busy.
#[derive(Debug)]
pub struct Seekable<'a> {
    pub data: &'a [u8],
    pub script: Script,
    at: u64,
    busy: bool,
    pub reads: usize,
    pub seeks: usize,
    /// How many bytes were read.
    pub read: usize,
}

impl<'a> Seekable<'a> {
    pub fn new(data: &'a [u8], script: Script) -> Self {
        Self { data, script, at: 0, busy: false, reads: 0, seeks: 0, read: 0 }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let poll = self.script.poll(cx);
        self.busy = poll.is_pending();
        // Where it stands after a failure is anyone's guess.
        self.at += u64::from(matches!(poll, Poll::Ready(Err(_))));
        poll
    }
}

impl AsyncRead for Seekable<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(cx).map_ok(|n| {
            let rest = self.data.get(usize::try_from(self.at).unwrap()..).unwrap_or_default();
            let n = n.min(buf.remaining()).min(rest.len());
            buf.put_slice(&rest[..n]);
            self.at += n as u64;
            self.reads += 1;
            self.read += n;
        })
    }
}

impl AsyncSeek for Seekable<'_> {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        assert!(!self.busy, "a busy reader is sent somewhere");
        let len = self.data.len() as u64;
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset).unwrap(),
            SeekFrom::End(offset) => len.checked_add_signed(offset).unwrap(),
        };
        self.seeks += 1;
        self.busy = true;
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if self.busy {
            // Some pieces of a script are for readers only.
            match self.poll(cx) {
                Poll::Ready(Ok(_)) => {}
                other => return other.map_ok(|_| self.at),
            }
        }
        Poll::Ready(Ok(self.at))
    }
}
