//! `EncryptWriter`, sentence by sentence of what it promises.

use std::{io::ErrorKind, task::Poll};

use agcm::{DecryptReader, EncryptOptions, EncryptWriter, Error, Key, decrypt};
use futures::executor::block_on;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    runtime::Builder,
};

use crate::{
    drive::{OtherTask, busy_runtime, error, poll_flush, poll_once, poll_shutdown, poll_write, taken},
    script::{Op, Script, Writer},
    vectors::plaintext,
};

const PRELUDE: usize = 80;
const FINAL: usize = 37;

fn chunks_of(size: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(size).unwrap()
}

/// A writer with chunks of 16 bytes over one that follows a script.
fn scripted(script: Script) -> (Key, EncryptWriter<Writer>) {
    let key = Key::generate();
    let writer = EncryptWriter::with_options(Writer::new(script), &key, &chunks_of(16));
    (key, writer)
}

/// The lengths of the plaintext in a stream's data frames.
pub fn frames(stream: &[u8]) -> Vec<usize> {
    let mut at = PRELUDE;
    let mut frames = Vec::new();
    while stream[at + 3] == 2 {
        let len = usize::from(stream[at]) | usize::from(stream[at + 1]) << 8 | usize::from(stream[at + 2]) << 16;
        frames.push(len - 16);
        at += 4 + len;
    }
    assert_eq!(stream[at..at + 4], [33, 0, 0, 3]);
    assert_eq!(at + FINAL, stream.len());
    frames
}

#[test]
fn nothing_happens_before_the_first_byte() {
    let (_, mut writer) = scripted(Script::default());
    assert_eq!(taken(poll_write(&mut writer, b"")), 0);
    assert_eq!(writer.get_ref().polls, 0);
    assert!(writer.into_inner().data.is_empty());
}

#[test]
fn a_write_takes_at_most_a_chunk_and_leaves_the_inner_writer_alone_after() {
    let (key, mut writer) = scripted(Script::default());
    let plain = plaintext(40);
    assert_eq!(taken(poll_write(&mut writer, &plain)), 16);
    assert_eq!(writer.get_ref().polls, 0, "sealed, but not written before the next call");
    assert_eq!(taken(poll_write(&mut writer, &plain[16..])), 16);
    assert_eq!(writer.get_ref().writes, [PRELUDE + 36], "prelude and first frame leave in one write");
    assert_eq!(taken(poll_write(&mut writer, &plain[32..])), 8);
    assert_eq!(writer.get_ref().writes, [PRELUDE + 36, 36], "word, ciphertext and tag leave in one write");
    assert!(poll_shutdown(&mut writer).is_ready());
    assert_eq!(writer.get_ref().writes, [PRELUDE + 36, 36, 28 + FINAL], "the rest and the final frame, too");
    assert_eq!(decrypt(&key, &writer.into_inner().data).unwrap(), plain);
}

#[test]
fn pending_means_that_nothing_was_taken_and_a_longer_slice_may_come() {
    let (key, mut writer) = scripted(Script::once([Op::Stall, Op::Some(7), Op::Stall]));
    let plain = plaintext(64);
    assert_eq!(taken(poll_write(&mut writer, &plain[..16])), 16);
    // Twice pending, in the middle of draining the second time, each with another slice.
    assert!(poll_write(&mut writer, &plain[16..20]).is_pending());
    assert!(poll_write(&mut writer, &plain[16..64]).is_pending());
    assert_eq!(taken(poll_write(&mut writer, &plain[16..30])), 14);
    block_on(async {
        writer.write_all(&plain[30..]).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [16, 16, 16, 16]);
    assert_eq!(decrypt(&key, &stream).unwrap(), plain);
}

#[test]
fn the_inner_writer_may_take_a_byte_at_a_time_or_be_pending() {
    for ops in [vec![Op::Some(1)], vec![Op::Some(1), Op::Pending], vec![Op::Pending, Op::Some(5), Op::Some(2)]] {
        let (key, mut writer) = scripted(Script::repeat(ops));
        let plain = plaintext(100);
        block_on(async {
            writer.write_all(&plain).await.unwrap();
            writer.flush().await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let stream = writer.into_inner().data;
        assert_eq!(frames(&stream), [16, 16, 16, 16, 16, 16, 4]);
        assert_eq!(decrypt(&key, &stream).unwrap(), plain);
    }
}

#[test]
fn an_inner_writer_that_takes_nothing_is_an_error_and_not_a_loop() {
    let (key, mut writer) = scripted(Script::once([Op::Some(10), Op::Zero, Op::Zero]));
    assert_eq!(taken(poll_write(&mut writer, &[7; 16])), 16);
    assert_eq!(error(poll_write(&mut writer, &[7; 16])).kind(), ErrorKind::WriteZero);
    assert_eq!(error(poll_flush(&mut writer)).kind(), ErrorKind::WriteZero);
    // Were it to take something again, nothing would be lost.
    assert!(poll_shutdown(&mut writer).is_ready());
    assert_eq!(decrypt(&key, &writer.into_inner().data).unwrap(), [7; 16]);
}

#[test]
fn after_an_inner_error_a_retry_goes_on_where_it_stopped() {
    let kind = ErrorKind::TimedOut;
    let plain = plaintext(48);
    // What leaves together is 116, 36 and 73 bytes, nine at a time: 13, 4 and 9 calls. The error at each of them in turn.
    for position in 0..30 {
        let mut ops = vec![Op::Some(9); position];
        ops.push(Op::Error(kind));
        ops.resize(60, Op::Some(9));
        let (key, mut writer) = scripted(Script::once(ops));
        let mut failures = 0;
        let mut rest = &plain[..];
        while !rest.is_empty() {
            match poll_write(&mut writer, rest) {
                Poll::Ready(Ok(n)) => rest = &rest[n..],
                other => {
                    assert_eq!(error(other).kind(), kind);
                    failures += 1;
                }
            }
        }
        while let Poll::Ready(Err(error)) = poll_shutdown(&mut writer) {
            assert_eq!(error.kind(), kind);
            failures += 1;
        }
        assert_eq!(failures, usize::from(position < 26));
        let stream = writer.into_inner().data;
        assert_eq!(frames(&stream), [16, 16, 16]);
        assert_eq!(decrypt(&key, &stream).unwrap(), plain);
    }
}

#[test]
fn a_flush_writes_complete_frames_and_does_not_cut() {
    let (key, mut writer) = scripted(Script::default());
    block_on(async {
        writer.flush().await.unwrap();
        assert_eq!(writer.get_ref().data.len(), PRELUDE, "header and key frame");
        writer.write_all(&[7; 5]).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(writer.get_ref().data.len(), PRELUDE, "nothing of a partly filled chunk");
        writer.write_all(&[7; 11]).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(writer.get_ref().data.len(), PRELUDE + 36, "a complete frame");
        assert_eq!(writer.get_ref().flushes, 3, "and each flush reached the inner writer");
        writer.write_all(&[7; 16]).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [16, 16]);
    assert_eq!(decrypt(&key, &stream).unwrap(), [7; 32]);
}

#[test]
fn a_flush_may_be_pending_and_is_repeated() {
    let (key, mut writer) = scripted(Script::once([Op::Stall, Op::Some(30), Op::Stall]));
    writer.get_mut().flush = Script::once([Op::Stall]);
    assert_eq!(taken(poll_write(&mut writer, &[7; 3])), 3);
    for _ in 0..3 {
        assert!(poll_flush(&mut writer).is_pending());
    }
    assert!(poll_flush(&mut writer).is_ready());
    assert_eq!(writer.get_ref().data.len(), PRELUDE);
    assert!(poll_shutdown(&mut writer).is_ready());
    assert_eq!(decrypt(&key, &writer.into_inner().data).unwrap(), [7; 3]);
}

#[test]
fn flush_chunk_cuts_once() {
    let (key, mut writer) = scripted(Script::repeat([Op::Some(3), Op::Pending]));
    block_on(async {
        writer.flush_chunk().await.unwrap();
        assert_eq!(writer.get_ref().data.len(), PRELUDE, "there was nothing to cut");
        writer.write_all(b"abc").await.unwrap();
        writer.flush_chunk().await.unwrap();
        assert_eq!(writer.get_ref().data.len(), PRELUDE + 23);
        writer.flush_chunk().await.unwrap();
        assert_eq!(writer.get_ref().data.len(), PRELUDE + 23);
        writer.write_all(&[7; 20]).await.unwrap();
        writer.finish().await.unwrap();
    });
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [3, 16, 4]);
    assert_eq!(decrypt(&key, &stream).unwrap(), [&b"abc"[..], &[7; 20]].concat());
}

#[test]
fn flush_chunk_dropped_half_way_goes_on_when_called_again() {
    let (key, mut writer) = scripted(Script::once([Op::Some(50), Op::Stall, Op::Some(20), Op::Stall]));
    assert_eq!(taken(poll_write(&mut writer, b"abc")), 3);
    for _ in 0..2 {
        assert!(poll_once(writer.flush_chunk()).is_pending());
    }
    block_on(writer.flush_chunk()).unwrap();
    assert_eq!(writer.get_ref().data.len(), PRELUDE + 23);
    block_on(writer.finish()).unwrap();
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [3]);
    assert_eq!(decrypt(&key, &stream).unwrap(), b"abc");
}

#[test]
fn cut_on_flush_makes_every_flush_cut() {
    let key = Key::generate();
    let options = chunks_of(16).cut_on_flush(true);
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &options);
    block_on(async {
        let writer: &mut (dyn AsyncWrite + Unpin) = &mut writer;
        for word in ["a", "bc", "def"] {
            writer.write_all(word.as_bytes()).await.unwrap();
            writer.flush().await.unwrap();
            writer.flush().await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let stream = writer.into_inner();
    assert_eq!(frames(&stream), [1, 2, 3]);
    assert_eq!(decrypt(&key, &stream).unwrap(), b"abcdef");
}

#[test]
fn shutdown_may_be_polled_after_pending_and_after_ready() {
    let (key, mut writer) = scripted(Script::once([Op::Stall, Op::Some(90), Op::Stall]));
    writer.get_mut().close = Script::once([Op::Stall, Op::Error(ErrorKind::TimedOut)]);
    assert_eq!(taken(poll_write(&mut writer, b"abc")), 3);
    for _ in 0..3 {
        assert!(poll_shutdown(&mut writer).is_pending());
    }
    assert_eq!(error(poll_shutdown(&mut writer)).kind(), ErrorKind::TimedOut);
    for _ in 0..3 {
        assert!(matches!(poll_shutdown(&mut writer), Poll::Ready(Ok(()))));
        assert!(matches!(poll_flush(&mut writer), Poll::Ready(Ok(()))), "a flush after it succeeds");
    }
    assert_eq!(writer.get_ref().closes, 1, "the inner writer is shut down once");
    assert_eq!(Error::from_io(&error(poll_write(&mut writer, b"x"))), Some(Error::Finished));
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [3]);
    assert_eq!(decrypt(&key, &stream).unwrap(), b"abc");
}

/// There are writers that lose what was not flushed when they are shut down, standard output of Tokio among them.
#[test]
fn shutdown_flushes_first() {
    let (key, mut writer) = scripted(Script::default());
    writer.get_mut().flush = Script::once([Op::Error(ErrorKind::TimedOut)]);
    block_on(writer.write_all(b"abc")).unwrap();
    assert_eq!(error(poll_shutdown(&mut writer)).kind(), ErrorKind::TimedOut);
    assert_eq!(writer.get_ref().closes, 0);
    block_on(writer.shutdown()).unwrap();
    assert_eq!((writer.get_ref().flushes, writer.get_ref().closes), (1, 1));
    assert_eq!(decrypt(&key, &writer.into_inner().data).unwrap(), b"abc");
}

#[test]
fn a_write_is_refused_as_soon_as_a_shutdown_has_begun() {
    let (_, mut writer) = scripted(Script::once([Op::Stall]));
    assert!(poll_shutdown(&mut writer).is_pending());
    let refused = error(poll_write(&mut writer, b"x"));
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(Error::from_io(&refused), Some(Error::Finished));
}

#[test]
fn shutting_down_at_once_makes_an_empty_stream() {
    let (key, mut writer) = scripted(Script::default());
    block_on(writer.shutdown()).unwrap();
    assert_eq!(writer.get_ref().writes, [PRELUDE + FINAL]);
    assert_eq!(decrypt(&key, &writer.into_inner().data).unwrap(), b"");
}

#[test]
fn dropping_never_finishes_a_stream() {
    for written in [0, 1, 15, 16, 17, 32, 33] {
        for flush in [false, true] {
            let key = Key::generate();
            let mut stream = Vec::new();
            let mut writer = EncryptWriter::with_options(&mut stream, &key, &chunks_of(16));
            block_on(async {
                writer.write_all(&plaintext(written)).await.unwrap();
                if flush {
                    writer.flush().await.unwrap();
                }
            });
            drop(writer);
            let at = stream.len() as u64;
            assert_eq!(decrypt(&key, &stream), Err(Error::Truncated { at }));
        }
    }
}

#[test]
fn finish_leaves_the_inner_writer_open() {
    let (key, mut writer) = scripted(Script::default());
    block_on(async {
        writer.write_all(b"abc").await.unwrap();
        writer.finish().await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(Error::from_io(&writer.write_all(b"x").await.unwrap_err()), Some(Error::Finished));
        writer.flush().await.unwrap();
        assert!(writer.get_ref().flushes >= 1, "what was finished was flushed");
        assert_eq!(writer.get_ref().closes, 0);

        let mut inner = writer.into_inner();
        let end = inner.data.len();
        inner.write_all(b"and more").await.unwrap();
        assert_eq!(decrypt(&key, &inner.data[..end]).unwrap(), b"abc");
        assert_eq!(inner.data[end..], *b"and more");
    });
}

#[test]
fn shutdown_after_finish_only_shuts_down() {
    let (key, mut writer) = scripted(Script::default());
    block_on(async {
        writer.write_all(b"abc").await.unwrap();
        writer.finish().await.unwrap();
        writer.shutdown().await.unwrap();
        writer.finish().await.unwrap();
    });
    assert_eq!(writer.get_ref().closes, 1);
    assert_eq!(decrypt(&key, &writer.into_inner().data).unwrap(), b"abc");
}

#[test]
fn finish_that_failed_or_was_dropped_goes_on_when_called_again() {
    let ops = [Op::Some(20), Op::Error(ErrorKind::TimedOut), Op::Some(70), Op::Stall, Op::Zero];
    let (key, mut writer) = scripted(Script::once(ops));
    writer.get_mut().flush = Script::once([Op::Error(ErrorKind::BrokenPipe), Op::Stall]);
    block_on(async {
        writer.write_all(b"abc").await.unwrap();
        assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(poll_once(writer.finish()).is_pending());
        assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::WriteZero);
        assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(poll_once(writer.finish()).is_pending());
        writer.finish().await.unwrap();
    });
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [3]);
    assert_eq!(decrypt(&key, &stream).unwrap(), b"abc");
}

#[tokio::test]
async fn copy_from_a_file_makes_full_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    let plain = plaintext(5 * 65_536 + 1234);
    std::fs::write(&path, &plain).unwrap();

    let key = Key::generate();
    let mut file = tokio::fs::File::open(&path).await.unwrap();
    let mut writer = EncryptWriter::new(Writer::default(), &key);
    assert_eq!(tokio::io::copy(&mut file, &mut writer).await.unwrap(), plain.len() as u64);
    let at = writer.get_ref().data.len() as u64;
    assert_eq!(decrypt(&key, &writer.get_ref().data), Err(Error::Truncated { at }), "copy does not finish the stream");
    writer.shutdown().await.unwrap();

    assert!(writer.get_ref().flushes > 0, "the copy has flushed in between, which is what this is about");
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [65_536, 65_536, 65_536, 65_536, 65_536, 1234]);
    assert_eq!(decrypt(&key, &stream).unwrap(), plain);
}

const MIB: usize = 1024 * 1024;

#[test]
fn large_chunks_are_sealed_and_opened_off_the_async_threads() {
    let key = Key::generate();
    let plain = plaintext(3 * MIB);
    let mut writer = EncryptWriter::with_options(Writer::default(), &key, &chunks_of(MIB));
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        assert_eq!(taken(poll_write(&mut writer, &plain)), MIB);
        for _ in 0..3 {
            assert!(poll_write(&mut writer, &plain[MIB..]).is_pending());
            assert!(poll_flush(&mut writer).is_pending());
            assert!(poll_shutdown(&mut writer).is_pending());
        }
        drop(release);
        writer.write_all(&plain[MIB..]).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let stream = writer.into_inner().data;
    assert_eq!(frames(&stream), [MIB; 3]);

    let mut reader = DecryptReader::new(&stream[..], &key);
    let mut read = Vec::new();
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        for _ in 0..3 {
            assert!(poll_once(reader.read(&mut [0; 100])).is_pending());
        }
        drop(release);
        reader.read_to_end(&mut read).await.unwrap();
    });
    assert!(read == plain);
}

#[test]
fn large_chunks_need_no_runtime() {
    let key = Key::generate();
    let plain = plaintext(2 * MIB + 5);
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &chunks_of(MIB));
    block_on(async {
        writer.write_all(&plain).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let stream = writer.into_inner();
    let mut read = Vec::new();
    block_on(DecryptReader::new(&stream[..], &key).read_to_end(&mut read)).unwrap();
    assert!(read == plain);
}

#[test]
fn a_runtime_that_goes_away_costs_no_chunk() {
    let key = Key::generate();
    let runtime = Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _inside = handle.enter();
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &chunks_of(MIB));
    assert_eq!(taken(poll_write(&mut writer, &vec![7; MIB])), MIB);
    block_on(writer.shutdown()).unwrap();
    assert!(decrypt(&key, writer.get_ref()).unwrap() == [7; MIB]);
}

/// A writer that nobody polls any more, because a `timeout` or `select!` gave up on it, must not hold up any other.
#[tokio::test]
async fn abandoned_writes_of_large_chunks_hold_up_nobody() {
    let key = Key::generate();
    let chunk = vec![7; MIB];
    let mut abandoned: Vec<_> =
        (0..20).map(|_| EncryptWriter::with_options(Vec::new(), &key, &chunks_of(MIB))).collect();
    for writer in &mut abandoned {
        assert_eq!(taken(poll_write(writer, &chunk)), MIB);
        // Polled once more, with or without success, and never again.
        let _ = poll_write(writer, &chunk);
    }
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &chunks_of(MIB));
    for _ in 0..5 {
        writer.write_all(&chunk).await.unwrap();
    }
    writer.shutdown().await.unwrap();
    assert_eq!(decrypt(&key, writer.get_ref()).unwrap().len(), 5 * MIB);
    drop(abandoned);
}

/// Neither end of these is ever pending, so only the adapters can give way to other tasks.
#[tokio::test]
async fn long_work_lets_other_tasks_run() {
    let mut other = OtherTask::spawn();
    let key = Key::generate();
    let chunk = plaintext(64);
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &chunks_of(64));
    for _ in 0..1000 {
        writer.write_all(&chunk).await.unwrap();
    }
    other.had_turns();
    for _ in 0..1000 {
        writer.write_all(&chunk[..9]).await.unwrap();
        writer.flush_chunk().await.unwrap();
    }
    other.had_turns();
    for _ in 0..1000 {
        let mut writer = EncryptWriter::with_options(Vec::new(), &key, &chunks_of(64));
        writer.finish().await.unwrap();
    }
    other.had_turns();
    writer.shutdown().await.unwrap();

    let stream = writer.into_inner();
    for size in [9, 64, 1000] {
        let mut reader = DecryptReader::new(&stream[..], &key);
        let mut piece = vec![0; size];
        while reader.read(&mut piece).await.unwrap() > 0 {}
        other.had_turns();
    }
    let mut reader = DecryptReader::new(&stream[..], &key);
    loop {
        let n = reader.fill_buf().await.unwrap().len();
        if n == 0 {
            break;
        }
        reader.consume(n);
    }
    other.had_turns();
}

#[test]
fn adapters_are_send_sync_and_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<EncryptWriter<Vec<u8>>>();
    check::<DecryptReader<&[u8]>>();
}
