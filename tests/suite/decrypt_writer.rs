//! `DecryptWriter`, sentence by sentence of what it promises.

use std::{future::poll_fn, io::ErrorKind, pin::Pin, task::Poll};

use agcm::{DecryptOptions, DecryptWriter, EncryptOptions, Error, Key, Trailing};
use futures::executor::block_on;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{
    drive::{OtherTask, busy_runtime, poll_once, poll_shutdown, poll_write, stream_error, taken},
    script::{Op, Script, Writer},
    streams::Stream,
    vectors::plaintext,
};

const MIB: usize = 1024 * 1024;

fn scripted(key: &Key, script: Script) -> DecryptWriter<Writer> {
    DecryptWriter::new(Writer::new(script), key)
}

#[test]
fn a_frame_is_released_only_when_it_is_complete() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 40);
    let mut writer = scripted(&key, Script::default());
    block_on(async {
        for (i, byte) in stream.bytes.iter().enumerate() {
            writer.write_all(&[*byte]).await.unwrap();
            writer.flush().await.unwrap();
            let whole = (0..=3).rev().find(|&frame| stream.start_of(frame).0 <= i + 1);
            let released = whole.map_or(0, |frame| stream.start_of(frame).1);
            assert_eq!(writer.get_ref().data, stream.plaintext[..released], "after {} bytes", i + 1);
            assert_eq!(writer.is_complete(), i + 1 == stream.bytes.len());
        }
        assert_eq!(writer.get_ref().flushes, stream.bytes.len(), "each flush reached the inner writer");
        writer.shutdown().await.unwrap();
    });
}

#[test]
fn the_write_that_completes_a_bad_frame_fails_itself() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 48);
    let (second, _) = stream.start_of(1);
    let (third, _) = stream.start_of(2);
    let mut damaged = stream.bytes.clone();
    damaged[second + 10] ^= 1;
    let expected = Error::Corrupt { frame: 1, at: second as u64 };
    for piece in [1, 2, 7, 35, 36] {
        let mut writer = scripted(&key, Script::default());
        block_on(async {
            writer.write_all(&damaged[..second]).await.unwrap();
            let mut at = second;
            while at + piece < third {
                writer.write_all(&damaged[at..at + piece]).await.unwrap();
                at += piece;
            }
            assert_eq!(stream_error(writer.write(&damaged[at..third]).await), expected);
            for _ in 0..2 {
                assert_eq!(stream_error(writer.write(&damaged[third..]).await), expected);
                assert_eq!(stream_error(writer.write(&[]).await), expected);
                assert_eq!(stream_error(writer.flush().await), expected);
                assert_eq!(stream_error(writer.finish().await), expected);
                assert_eq!(stream_error(writer.shutdown().await), expected);
            }
        });
        assert!(!writer.is_complete());
        assert_eq!(writer.get_ref().closes, 0);
        assert_eq!(writer.into_inner().data, stream.plaintext[..16], "the frame before it, and nothing of it");
    }
}

#[test]
fn without_the_end_shutdown_and_finish_are_truncated_and_shut_nothing_down() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 40).bytes;
    for cut in 0..stream.len() {
        for finish in [false, true] {
            let mut writer = scripted(&key, Script::default());
            block_on(async {
                writer.write_all(&stream[..cut]).await.unwrap();
                let result = if finish { writer.finish().await } else { writer.shutdown().await };
                assert_eq!(stream_error(result), Error::Truncated { at: cut as u64 });
                // It is too late for the rest.
                assert_eq!(stream_error(writer.write(&stream[cut..]).await), Error::Truncated { at: cut as u64 });
                assert_eq!(stream_error(writer.shutdown().await), Error::Truncated { at: cut as u64 });
            });
            assert!(!writer.is_complete());
            assert_eq!((writer.get_ref().closes, writer.get_ref().flushes), (0, 0));
        }
    }
}

#[test]
fn a_slice_that_crosses_the_end_is_taken_up_to_there() {
    let key = Key::generate();
    for len in [0, 5, 16, 40] {
        for leave in [false, true] {
            let stream = Stream::uniform(&key, 16, len);
            let joined = [&stream.bytes[..], b"and more"].concat();
            let options = DecryptOptions::new().trailing(if leave { Trailing::Leave } else { Trailing::Reject });
            let mut writer = DecryptWriter::with_options(Writer::default(), &key, &options);
            let mut rest = &joined[..];
            block_on(async {
                while !writer.is_complete() {
                    let n = writer.write(rest).await.unwrap();
                    assert!(n > 0);
                    rest = &rest[n..];
                }
                assert_eq!(rest, b"and more");
                assert_eq!(writer.get_ref().data, stream.plaintext, "all of it is written by then");
                assert_eq!(writer.write(&[]).await.unwrap(), 0);
                writer.finish().await.unwrap();
                let expected = Error::TrailingData { at: stream.bytes.len() as u64 };
                assert_eq!(stream_error(writer.write(rest).await), expected);
                assert_eq!(stream_error(writer.shutdown().await), expected);
                assert!(writer.is_complete(), "the stream was whole all the same");
            });
            assert_eq!((writer.get_ref().closes, writer.get_ref().flushes), (0, 1));
            assert_eq!(writer.into_inner().data, stream.plaintext);
        }
    }
}

#[test]
fn write_all_over_the_end_fails() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 40).bytes;
    let joined = [&stream[..], &stream[..]].concat();
    let mut writer = scripted(&key, Script::default());
    assert_eq!(stream_error(block_on(writer.write_all(&joined))), Error::TrailingData { at: stream.len() as u64 });
    assert_eq!(writer.get_ref().data, plaintext(40), "nothing of the second stream");
}

#[test]
fn pending_means_that_nothing_was_taken_and_nothing_is_written_twice() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 48);
    let mut writer = scripted(&key, Script::once([Op::Stall, Op::Some(3), Op::Stall]));
    let first = taken(poll_write(&mut writer, &stream.bytes));
    assert_eq!(writer.get_ref().polls, 0, "what was accepted is not written by the same call");
    let mut at = first;
    let mut pending = 0;
    while at < stream.bytes.len() {
        match poll_write(&mut writer, &stream.bytes[at..]) {
            Poll::Ready(n) => at += n.unwrap(),
            Poll::Pending => pending += 1,
        }
    }
    assert_eq!(pending, 2);
    assert!(poll_shutdown(&mut writer).is_ready());
    assert_eq!(writer.into_inner().data, stream.plaintext);
}

/// The task may have used up its turn half-way through a slice. What was taken by then has to be said.
#[tokio::test]
async fn a_write_that_has_to_give_way_says_what_it_has_taken() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 48);
    let mut writer = DecryptWriter::new(Vec::new(), &key);
    let mut rest = &stream.bytes[..];
    tokio::task::yield_now().await;
    let first = poll_fn(|cx| {
        // Of the 128 steps of a turn one is left, for the prelude, and none for a frame.
        for _ in 0..127 {
            if let Poll::Ready(step) = tokio::task::coop::poll_proceed(cx) {
                step.made_progress();
            }
        }
        assert!(tokio::task::coop::has_budget_remaining());
        let poll = Pin::new(&mut writer).poll_write(cx, rest);
        assert!(!tokio::task::coop::has_budget_remaining());
        Poll::Ready(taken(poll))
    });
    let first = first.await;
    assert_eq!(first, 84, "the prelude and a word");
    rest = &rest[first..];
    writer.write_all(rest).await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(writer.into_inner(), stream.plaintext);
}

#[test]
fn an_inner_error_passes_and_loses_nothing() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 48);
    for position in 0..12 {
        for fault in [Op::Error(ErrorKind::ConnectionReset), Op::Zero] {
            let mut ops = vec![Op::Some(5); position];
            ops.push(fault);
            let mut writer = scripted(&key, Script::once(ops));
            let (mut rest, mut failures) = (&stream.bytes[..], Vec::new());
            while !rest.is_empty() {
                match block_on(writer.write(rest)) {
                    Ok(n) => rest = &rest[n..],
                    Err(error) => failures.push(error.kind()),
                }
            }
            let expected = if fault == Op::Zero { ErrorKind::WriteZero } else { ErrorKind::ConnectionReset };
            assert_eq!(failures, [expected]);
            block_on(writer.shutdown()).unwrap();
            assert_eq!(writer.into_inner().data, stream.plaintext);
        }
    }
}

#[test]
fn flush_and_shutdown_may_be_pending_and_are_repeated() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 16);
    let mut writer = scripted(&key, Script::once([Op::Stall, Op::Some(3), Op::Error(ErrorKind::TimedOut)]));
    writer.get_mut().flush = Script::once([Op::Stall]);
    writer.get_mut().close = Script::once([Op::Stall, Op::Error(ErrorKind::TimedOut)]);
    block_on(writer.write_all(&stream.bytes[..116])).unwrap();
    assert!(poll_once(writer.flush()).is_pending());
    assert_eq!(block_on(writer.flush()).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(poll_once(writer.flush()).is_pending());
    block_on(writer.flush()).unwrap();
    assert_eq!(writer.get_ref().data, stream.plaintext);

    block_on(writer.write_all(&stream.bytes[116..])).unwrap();
    assert!(poll_shutdown(&mut writer).is_pending());
    assert_eq!(block_on(writer.shutdown()).unwrap_err().kind(), ErrorKind::TimedOut);
    block_on(writer.shutdown()).unwrap();
    let polls = writer.get_ref().polls;
    for _ in 0..3 {
        block_on(writer.shutdown()).unwrap();
        block_on(writer.finish()).unwrap();
        block_on(writer.flush()).unwrap();
    }
    assert_eq!((writer.get_ref().closes, writer.get_ref().polls), (1, polls), "what is closed is left alone");
    assert_eq!(stream_error(block_on(writer.write(b"x"))), Error::TrailingData { at: stream.bytes.len() as u64 });
}

/// There are writers that lose what was not flushed when they are shut down, standard output of Tokio among them.
#[test]
fn shutdown_flushes_first() {
    let key = Key::generate();
    let mut writer = scripted(&key, Script::default());
    writer.get_mut().flush = Script::once([Op::Error(ErrorKind::TimedOut)]);
    block_on(writer.write_all(&Stream::uniform(&key, 16, 16).bytes)).unwrap();
    assert_eq!(block_on(writer.shutdown()).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(writer.get_ref().closes, 0);
    block_on(writer.shutdown()).unwrap();
    assert_eq!((writer.get_ref().flushes, writer.get_ref().closes), (1, 1));
}

#[test]
fn finish_flushes_and_leaves_the_inner_writer_open() {
    let key = Key::generate();
    let mut writer = scripted(&key, Script::default());
    block_on(async {
        writer.write_all(&agcm::encrypt(&key, b"abc")).await.unwrap();
        writer.finish().await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!((writer.get_ref().closes, writer.get_ref().flushes), (0, 2));
        let mut inner = writer.into_inner();
        inner.write_all(b" and more").await.unwrap();
        assert_eq!(inner.data, b"abc and more");
    });
}

#[tokio::test]
async fn copy_moves_a_stream_and_only_shutdown_sees_that_it_was_cut() {
    let key = Key::generate();
    let plain = plaintext(300_000);
    let stream = agcm::encrypt(&key, &plain);
    let mut writer = DecryptWriter::new(Vec::new(), &key);
    tokio::io::copy(&mut &stream[..], &mut writer).await.unwrap();
    writer.shutdown().await.unwrap();
    assert!(writer.get_ref() == &plain);

    // Cut between two frames.
    let mut writer = DecryptWriter::new(Vec::new(), &key);
    tokio::io::copy(&mut &stream[..80 + 65_556], &mut writer).await.unwrap();
    assert!(writer.get_ref() == &plain[..65_536]);
    assert_eq!(stream_error(writer.shutdown().await), Error::Truncated { at: 80 + 65_556 });
}

/// A stream of two large frames.
fn large(key: &Key) -> (Vec<u8>, Vec<u8>) {
    let plain = plaintext(2 * MIB);
    (EncryptOptions::new().chunk_size(MIB).unwrap().encrypt(key, &plain), plain)
}

#[test]
fn large_frames_are_opened_off_the_async_threads() {
    let key = Key::generate();
    let (stream, plain) = large(&key);
    let mut writer = scripted(&key, Script::default());
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        let mut at = 0;
        while at < 80 + MIB + 20 - 1 {
            at += taken(poll_write(&mut writer, &stream[at..]));
        }
        assert_eq!(at, 80 + MIB + 20 - 1, "all but the last byte of the frame");
        for _ in 0..3 {
            assert!(poll_write(&mut writer, &stream[at..]).is_pending());
            assert!(poll_once(writer.flush()).is_pending());
            assert!(!writer.is_complete());
        }
        drop(release);
        assert_eq!(writer.write(&stream[at..]).await.unwrap(), 1);
        writer.write_all(&stream[at + 1..]).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    assert!(writer.into_inner().data == plain);

    // Where there is no runtime, they are opened all the same.
    let mut writer = scripted(&key, Script::default());
    block_on(async {
        writer.write_all(&stream).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    assert!(writer.into_inner().data == plain);
}

#[tokio::test]
async fn the_write_that_completes_a_bad_large_frame_fails_itself() {
    let key = Key::generate();
    let (mut stream, plain) = large(&key);
    let second = 80 + MIB + 20;
    stream[second + 5] ^= 1;
    let expected = Error::Corrupt { frame: 1, at: second as u64 };
    let end = second + MIB + 20;
    // Its last byte comes with what follows, or is where the slice ends.
    for last in [&stream[end - 1..], &stream[end - 1..end]] {
        let mut writer = scripted(&key, Script::default());
        writer.write_all(&stream[..end - 1]).await.unwrap();
        assert_eq!(stream_error(writer.write(last).await), expected);
        assert_eq!(stream_error(writer.shutdown().await), expected);
        assert!(writer.into_inner().data == plain[..MIB]);
    }
}

#[tokio::test]
async fn large_frames_may_come_in_pieces_of_any_size() {
    let key = Key::generate();
    let (stream, plain) = large(&key);
    for piece in [MIB / 3, MIB + 20] {
        let mut writer = scripted(&key, Script::default());
        let (prelude, frames) = stream.split_at(80);
        writer.write_all(prelude).await.unwrap();
        for piece in frames.chunks(piece) {
            writer.write_all(piece).await.unwrap();
        }
        writer.shutdown().await.unwrap();
        assert!(writer.into_inner().data == plain);
    }
}

/// The write of a large frame's last byte was dropped while the frame was opened elsewhere. Nothing was taken, by all that the
/// caller knows: the byte must not be taken twice, and what is written must be what was opened.
#[test]
fn a_dropped_write_of_the_last_byte_is_neither_lost_nor_counted_twice() {
    let key = Key::generate();
    let (stream, plain) = large(&key);
    let last = 80 + MIB + 20 - 1;
    for (flush, next) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1), (true, 2)] {
        let mut writer = scripted(&key, Script::default());
        let (runtime, release) = busy_runtime();
        runtime.block_on(async {
            writer.write_all(&stream[..last]).await.unwrap();
            assert!(poll_once(writer.write(&stream[last..])).is_pending());
            drop(release);
            if flush {
                writer.flush().await.unwrap();
            }
            match next {
                0 => {
                    writer.write_all(&stream[last..]).await.unwrap();
                    writer.shutdown().await.unwrap();
                    assert!(writer.get_ref().data == plain);
                }
                // Something else comes in its place: that stream is a bad one.
                1 => {
                    let expected = Error::Corrupt { frame: 0, at: 80 };
                    assert_eq!(stream_error(writer.write(&[stream[last] ^ 1]).await), expected);
                    assert_eq!(stream_error(writer.shutdown().await), expected);
                }
                // Nothing comes: it was not whole.
                _ => assert!(matches!(stream_error(writer.shutdown().await), Error::Truncated { .. })),
            }
        });
    }
}

#[tokio::test]
async fn long_work_lets_other_tasks_run() {
    let mut other = OtherTask::spawn();
    let key = Key::generate();
    let stream = Stream::uniform(&key, 64, 64_000).bytes;
    let mut writer = DecryptWriter::new(Vec::new(), &key);
    writer.write_all(&stream).await.unwrap();
    writer.shutdown().await.unwrap();
    other.had_turns();
}

#[test]
fn it_is_send_sync_and_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<DecryptWriter<Vec<u8>>>();
}
