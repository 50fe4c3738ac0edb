//! Small steps that tests of adapters take over and over.

use std::{
    fmt::Debug,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
};

use agcm::Error;
use futures::executor::block_on;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// Polls a future a single time, and drops it.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub fn poll_read(reader: &mut (impl AsyncRead + Unpin), len: usize) -> Poll<io::Result<Vec<u8>>> {
    let mut bytes = vec![0; len];
    let mut buf = ReadBuf::new(&mut bytes);
    Pin::new(reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf).map_ok(|()| buf.filled().to_vec())
}

pub fn poll_write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(writer).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
}

pub fn poll_flush(writer: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
    Pin::new(writer).poll_flush(&mut Context::from_waker(Waker::noop()))
}

pub fn poll_shutdown(writer: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
    Pin::new(writer).poll_shutdown(&mut Context::from_waker(Waker::noop()))
}

/// What was read before the end or the error.
pub fn read_to_end(reader: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, io::Result<()>) {
    let mut read = Vec::new();
    let result = block_on(reader.read_to_end(&mut read)).map(drop);
    (read, result)
}

#[track_caller]
pub fn taken(poll: Poll<io::Result<usize>>) -> usize {
    match poll {
        Poll::Ready(Ok(n)) => n,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn error(poll: Poll<io::Result<impl Debug>>) -> io::Error {
    match poll {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// What the stream or the caller did wrong, which is what the result has to be.
#[track_caller]
pub fn stream_error(result: io::Result<impl Debug>) -> Error {
    Error::from_io(&result.unwrap_err()).unwrap()
}

/// A runtime whose only blocking thread is busy until the sender is dropped.
pub fn busy_runtime() -> (Runtime, mpsc::Sender<()>) {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let (release, busy) = mpsc::channel();
    runtime.spawn_blocking(move || busy.recv().unwrap_err());
    (runtime, release)
}

/// Another task of a runtime with one thread, which counts how often it is its turn.
pub struct OtherTask {
    turns: Arc<AtomicUsize>,
    seen: usize,
    task: JoinHandle<()>,
}

impl OtherTask {
    pub fn spawn() -> Self {
        let turns = Arc::new(AtomicUsize::new(0));
        let counter = turns.clone();
        let task = tokio::spawn(async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        Self { turns, seen: 0, task }
    }

    /// Asserts that it had some turns since it was last asked, while the one that asks did a thousand small things.
    #[track_caller]
    pub fn had_turns(&mut self) {
        let turns = self.turns.load(Ordering::Relaxed);
        assert!(turns - self.seen >= 5, "{} turns", turns - self.seen);
        self.seen = turns;
    }
}

impl Drop for OtherTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}
