//! How much an adapter does before it lets other tasks have their turn.
//!
//! A runtime with one thread, and two tasks: one moves bytes through an adapter as fast as it can, between ends that are always
//! ready; the other looks, whenever it gets its turn, at how far the first has come since. No clock is involved.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use agcm::{
    DecryptReader, DecryptWriter, EncryptOptions, EncryptReader, EncryptWriter, Key, RangeReader, SeekReader,
    codec::{Frame, FrameDecoder, FrameEncoder},
};
use futures::{SinkExt, TryStreamExt};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::vectors::plaintext;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Chunks that are sealed and opened in place, the last of them the longest such.
const CHUNKS: [usize; 4] = [KIB, 4 * KIB, 64 * KIB, MIB - 1];
/// What is moved; of short chunks less, which is more work than it seems.
fn length(chunk_size: usize) -> usize {
    if chunk_size == KIB { 2 * MIB } else { 8 * MIB }
}

/// What may be moved in one turn: what was worked on, 1 MiB and the chunk that goes beyond it, so less than 2 MiB; and behind it
/// the chunk that was left over from the turn before. Frames are longer than chunks.
fn most_allowed(chunk_size: usize, chunks_beyond: usize) -> usize {
    (MIB + chunks_beyond * chunk_size) / 100 * 103
}

/// Bytes that went through an end.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Takes everything at once, and is never pending.
struct Sink(Count);

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.0.fetch_add(bytes.len(), Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Gives as much as it is asked for, and is never pending.
struct Source(io::Cursor<Vec<u8>>, Count);

impl AsyncRead for Source {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, out);
        self.1.0.fetch_add(out.filled().len() - before, Relaxed);
        read
    }
}

/// The most that was counted between two turns of another task, and how many turns that had.
fn most_in_a_turn(count: &Count, work: impl Future<Output = io::Result<()>> + Send + 'static) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let work = tokio::spawn(work);
        let count = count.clone();
        let other = tokio::spawn(async move {
            let (mut last, mut most, mut turns) = (0, 0, 0);
            while !work.is_finished() {
                let mut had_its_turn = false;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut had_its_turn, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                let now = count.get();
                (last, most, turns) = (now, most.max(now - last), turns + usize::from(now > last));
            }
            work.await.unwrap().unwrap();
            (most.max(count.get() - last), turns + 1)
        });
        other.await.unwrap()
    })
}

/// `work` gets a key, a chunk size, plaintext, and the stream of it.
fn assert_fair<F: Future<Output = io::Result<()>> + Send + 'static>(
    work: impl Fn(Key, usize, Vec<u8>, Vec<u8>, Count) -> F,
) {
    assert_fair_but_for(2, work);
}

fn assert_fair_but_for<F: Future<Output = io::Result<()>> + Send + 'static>(
    chunks_beyond: usize,
    work: impl Fn(Key, usize, Vec<u8>, Vec<u8>, Count) -> F,
) {
    for chunk_size in CHUNKS {
        let (key, count, plain) = (Key::generate(), Count::default(), plaintext(length(chunk_size)));
        let stream = sealing(chunk_size).encrypt(&key, &plain);
        let (most, turns) = most_in_a_turn(&count, work(key, chunk_size, plain, stream, count.clone()));
        assert!(count.get() >= length(chunk_size), "{chunk_size}: all of it was seen");
        assert!(most <= most_allowed(chunk_size, chunks_beyond), "{chunk_size}: {most} bytes in one turn, of {turns}");
    }
}

fn sealing(chunk_size: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(chunk_size).unwrap()
}

#[test]
fn encrypt_writer_gives_way_after_a_mebibyte() {
    assert_fair(|key, chunk_size, plain, _, count| async move {
        let mut writer = EncryptWriter::with_options(Sink(count), &key, &sealing(chunk_size));
        // In one call, by pieces that are not chunks, and by chunks.
        writer.write_all(&plain).await?;
        for piece in plain.chunks(chunk_size / 2 + 1) {
            writer.write_all(piece).await?;
            writer.flush().await?;
        }
        for chunk in plain.chunks(chunk_size) {
            writer.write_all(chunk).await?;
        }
        writer.shutdown().await
    });
}

#[test]
fn encrypt_writer_gives_way_when_each_flush_seals() {
    assert_fair(|key, chunk_size, plain, _, count| async move {
        let mut writer = EncryptWriter::with_options(Sink(count), &key, &sealing(chunk_size));
        for piece in plain.chunks(chunk_size - 1) {
            writer.write_all(piece).await?;
            writer.flush_chunk().await?;
        }
        writer.shutdown().await
    });
}

#[test]
fn encrypt_reader_gives_way_after_a_mebibyte() {
    assert_fair(|key, chunk_size, plain, _, count| async move {
        let source = Source(io::Cursor::new(plain), count);
        let mut reader = EncryptReader::with_options(source, &key, &sealing(chunk_size));
        tokio::io::copy_buf(&mut reader, &mut Sink(Count::default())).await.map(drop)
    });
}

#[test]
fn decrypt_reader_gives_way_after_a_mebibyte() {
    assert_fair(|key, _, plain, stream, count| async move {
        // Straight into the caller's buffer, and from frame to frame.
        let mut reader = DecryptReader::new(Source(io::Cursor::new(stream.clone()), count.clone()), &key);
        let mut restored = vec![0; plain.len()];
        reader.read_exact(&mut restored).await?;
        let mut reader = DecryptReader::new(Source(io::Cursor::new(stream), count), &key);
        loop {
            let len = reader.fill_buf().await?.len();
            if len == 0 {
                return Ok(());
            }
            reader.consume(len);
        }
    });
}

#[test]
fn decrypt_writer_gives_way_after_a_mebibyte() {
    assert_fair(|key, _, _, stream, count| async move {
        let mut writer = DecryptWriter::new(Sink(count), &key);
        writer.write_all(&stream).await?;
        writer.shutdown().await
    });
}

#[test]
fn readers_by_offset_give_way_after_a_mebibyte() {
    assert_fair(|key, chunk_size, plain, stream, count| async move {
        let mut reader = SeekReader::open(io::Cursor::new(stream.clone()), &key).await?;
        tokio::io::copy_buf(&mut reader, &mut Sink(count.clone())).await?;
        // Where there is 1 MiB or more to be opened, that is done elsewhere: then this task is idle, and may be quick to go on.
        if chunk_size < MIB / 2 {
            let reader = RangeReader::open(bytes::Bytes::from(stream), &key).await?;
            for start in (0..plain.len()).step_by(chunk_size) {
                let range = start as u64..(start + chunk_size).min(plain.len()) as u64;
                count.0.fetch_add(reader.read_range(range).await?.len(), Relaxed);
            }
        }
        Ok(())
    });
}

/// A codec has nobody to tell that it gives way; the connection does, as all of Tokio's do, once what was read ahead is used up.
#[test]
fn a_connection_of_frames_gives_way_after_a_mebibyte() {
    assert_fair_but_for(4, |key, chunk_size, plain, stream, count| async move {
        let (mut near, far) = duplex(stream.len());
        near.write_all(&stream).await?;
        drop(near);
        let mut frames = FramedRead::new(far, FrameDecoder::new(&key));
        while let Some(frame) = frames.try_next().await? {
            if let Frame::Data(data) = frame {
                count.0.fetch_add(data.len(), Relaxed);
            }
        }
        let encoder = FrameEncoder::with_options(&key, &sealing(chunk_size));
        let mut frames = FramedWrite::new(tokio::io::sink(), encoder);
        frames.set_backpressure_boundary(MIB / 2);
        for chunk in plain.chunks(chunk_size) {
            frames.feed(Frame::Data(chunk.to_vec().into())).await?;
            count.0.fetch_add(chunk.len(), Relaxed);
        }
        frames.send(Frame::End).await
    });
}
