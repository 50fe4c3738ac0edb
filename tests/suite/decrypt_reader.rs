//! `DecryptReader`, sentence by sentence of what it promises.

use std::{
    io::ErrorKind,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use agcm::{DecryptOptions, DecryptReader, EncryptOptions, EncryptWriter, Error, Key, KeyRing, Trailing};
use futures::executor::block_on;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::{
    drive::{busy_runtime, poll_once, poll_read, read_to_end},
    script::{Op, Reader, Script},
    vectors::plaintext,
};

const MIB: usize = 1024 * 1024;

fn stream(key: &Key, len: usize) -> Vec<u8> {
    EncryptOptions::new().chunk_size(16).unwrap().encrypt(key, &plaintext(len))
}

#[test]
fn it_leaves_the_byte_after_the_stream_unread() {
    let key = Key::generate();
    for len in [0, 1, 16, 17, 100] {
        for script in [Script::default(), Script::repeat([Op::Some(1)]), Script::repeat([Op::Some(7), Op::Pending])] {
            let joined = [&stream(&key, len)[..], b"next"].concat();
            let mut reader = DecryptReader::new(Reader::new(&joined, script), &key);
            let (read, result) = read_to_end(&mut reader);
            result.unwrap();
            assert_eq!(read, plaintext(len));
            assert_eq!(reader.into_inner().data, b"next");
        }
    }
}

#[test]
fn streams_in_a_row_are_read_one_after_the_other() {
    let key = Key::generate();
    let joined = [stream(&key, 20), stream(&key, 0), stream(&key, 33)].concat();
    let mut rest = &joined[..];
    for len in [20, 0, 33] {
        let mut reader = DecryptReader::new(rest, &key);
        let (read, result) = read_to_end(&mut reader);
        result.unwrap();
        assert_eq!(read, plaintext(len));
        rest = reader.into_inner();
    }
    assert!(rest.is_empty());
}

#[test]
fn one_inner_read_a_frame() {
    let key = Key::generate();
    let stream = stream(&key, 16 * 50);
    let mut reader = DecryptReader::new(Reader::new(&stream, Script::default()), &key);
    assert_eq!(read_to_end(&mut reader).0, plaintext(16 * 50));
    // Prelude with the first word, fifty frames each with the next word, the final frame.
    assert_eq!(reader.get_ref().polls, 52);
}

#[test]
fn with_reject_one_more_read_finds_nothing_or_is_an_error() {
    let key = Key::generate();
    let reject = DecryptOptions::new().trailing(Trailing::Reject);
    let whole = stream(&key, 20);
    let mut reader = DecryptReader::with_options(Reader::new(&whole, Script::default()), &key, &reject);
    read_to_end(&mut reader).1.unwrap();

    // The end of file is withheld until it is known that nothing follows.
    let script = Script::once([Op::Some(84), Op::Some(99), Op::Some(99), Op::Some(99), Op::Stall]);
    let mut reader = DecryptReader::with_options(Reader::new(&whole, script), &key, &reject);
    let mut read = vec![];
    while let Poll::Ready(bytes) = poll_read(&mut reader, 99) {
        let bytes = bytes.unwrap();
        assert!(!bytes.is_empty(), "an end of file too soon");
        read.extend(bytes);
    }
    assert_eq!(read, plaintext(20));
    assert!(poll_read(&mut reader, 99).ready_and(|bytes| bytes.unwrap().is_empty()));

    let joined = [&whole[..], b"next"].concat();
    let mut reader = DecryptReader::with_options(&joined[..], &key, &reject);
    let (read, result) = read_to_end(&mut reader);
    assert_eq!(read, plaintext(20));
    assert_eq!(Error::from_io(&result.unwrap_err()), Some(Error::TrailingData { at: whole.len() as u64 }));
    assert_eq!(reader.into_inner(), b"ext", "one byte was enough to tell");
}

trait PollExt<T> {
    fn ready_and(self, test: impl FnOnce(T) -> bool) -> bool;
}

impl<T> PollExt<T> for Poll<T> {
    fn ready_and(self, test: impl FnOnce(T) -> bool) -> bool {
        match self {
            Poll::Ready(value) => test(value),
            Poll::Pending => false,
        }
    }
}

#[test]
fn a_complete_frame_is_not_held_back_for_the_next_word() {
    let key = Key::generate();
    let stream = stream(&key, 40);
    // Exactly to the end of the first frame, then nothing for a long time.
    let script = Script::once([Op::Some(84), Op::Some(32), Op::Stall, Op::Stall]);
    let mut reader = DecryptReader::new(Reader::new(&stream, script), &key);
    let first = poll_read(&mut reader, 99);
    assert!(first.ready_and(|bytes| bytes.unwrap() == plaintext(16)));
    assert!(poll_read(&mut reader, 99).is_pending());
}

#[tokio::test]
async fn a_chunk_arrives_although_its_peer_pauses_after_flush_chunk() {
    let key = Key::generate();
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut writer = EncryptWriter::new(near, &key);
    let mut reader = DecryptReader::new(far, &key);
    for word in ["what", "is", "said", "arrives"] {
        writer.write_all(word.as_bytes()).await.unwrap();
        writer.flush_chunk().await.unwrap();
        // The writer does nothing more: were the reader to wait for it, this would hang.
        let mut heard = vec![0; word.len()];
        reader.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, word.as_bytes());
    }
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0);
}

#[test]
fn what_the_stream_did_is_sticky_and_never_an_end_of_file() {
    let key = Key::generate();
    let mut damaged = stream(&key, 100);
    damaged[80 + 36 + 10] ^= 1;
    let mut reader = DecryptReader::new(&damaged[..], &key);
    let (read, result) = read_to_end(&mut reader);
    assert_eq!(read, plaintext(16), "the authentic prefix");
    let expected = Some(Error::Corrupt { frame: 1, at: 116 });
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(Error::from_io(&error), expected);
    block_on(async {
        for _ in 0..3 {
            assert_eq!(Error::from_io(&reader.read(&mut [0; 9]).await.unwrap_err()), expected);
            assert_eq!(Error::from_io(&reader.fill_buf().await.unwrap_err()), expected);
        }
    });
    assert!(!reader.get_ref().is_empty(), "and nothing more is read");
}

#[test]
fn a_truncated_stream_stays_truncated_even_if_more_arrives() {
    let key = Key::generate();
    let stream = stream(&key, 40);
    let script = Script::once([Op::Some(84), Op::Some(36), Op::Zero]);
    let mut reader = DecryptReader::new(Reader::new(&stream, script), &key);
    let (read, result) = read_to_end(&mut reader);
    assert_eq!(read, plaintext(16));
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "not UnexpectedEof, which some loops take for a clean end");
    assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: 120 }));
    let (_, again) = read_to_end(&mut reader);
    assert_eq!(Error::from_io(&again.unwrap_err()), Some(Error::Truncated { at: 120 }));
}

#[test]
fn an_inner_error_passes_and_reading_may_be_resumed() {
    let key = Key::generate();
    let stream = stream(&key, 100);
    for position in 0..30 {
        let mut ops = vec![Op::Some(11); position];
        ops.push(Op::Error(ErrorKind::ConnectionReset));
        ops.resize(80, Op::Some(11));
        let mut reader = DecryptReader::new(Reader::new(&stream, Script::once(ops)), &key);
        let (mut read, result) = read_to_end(&mut reader);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(Error::from_io(&error), None);
        let (rest, result) = read_to_end(&mut reader);
        result.unwrap();
        read.extend(rest);
        assert_eq!(read, plaintext(100));
    }
}

#[test]
fn read_pieces_of_any_size_and_mixed_with_fill_buf() {
    let key = Key::generate();
    let stream = stream(&key, 200);
    for size in [1, 2, 15, 16, 17, 31, 32, 33, 500] {
        let mut reader = DecryptReader::new(&stream[..], &key);
        let mut read = Vec::new();
        block_on(async {
            loop {
                let mut piece = vec![0; size];
                let n = reader.read(&mut piece).await.unwrap();
                read.extend_from_slice(&piece[..n]);
                let buffered = reader.fill_buf().await.unwrap();
                let n = buffered.len().min(3);
                read.extend_from_slice(&buffered[..n]);
                reader.consume(n);
                if n == 0 {
                    break;
                }
            }
        });
        assert_eq!(read, plaintext(200), "{size}");
    }
}

#[test]
fn a_read_into_nothing_reads_nothing() {
    let key = Key::generate();
    let stream = stream(&key, 20);
    let mut reader = DecryptReader::new(Reader::new(&stream, Script::default()), &key);
    assert!(poll_read(&mut reader, 0).ready_and(|bytes| bytes.unwrap().is_empty()));
    assert_eq!(reader.get_ref().polls, 0);
    Pin::new(&mut reader).consume(0);
    assert_eq!(read_to_end(&mut reader).0, plaintext(20));
    Pin::new(&mut reader).consume(0);
}

#[test]
fn a_failed_frame_leaves_nothing_in_the_callers_buffer() {
    let key = Key::generate();
    let mut damaged = stream(&key, 16);
    damaged[90] ^= 1;
    let mut reader = DecryptReader::new(&damaged[..], &key);
    let mut bytes = [0xaa; 64];
    let mut buf = ReadBuf::new(&mut bytes);
    let poll = Pin::new(&mut reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
    assert!(matches!(poll, Poll::Ready(Err(_))));
    assert!(buf.filled().is_empty());
    assert!([[0xaa; 16], [0; 16]].contains(bytes[..].first_chunk().unwrap()), "not touched, or zeroed");
    assert_eq!(bytes[16..], [0xaa; 48]);
}

#[test]
fn a_read_initialises_no_more_of_a_large_buffer_than_it_needs() {
    let key = Key::generate();
    let stream = stream(&key, 16);
    let mut reader = DecryptReader::new(&stream[..], &key);
    let mut bytes = [std::mem::MaybeUninit::uninit(); 4096];
    let mut buf = ReadBuf::uninit(&mut bytes);
    let poll = Pin::new(&mut reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
    assert!(matches!(poll, Poll::Ready(Ok(()))));
    assert_eq!(buf.filled(), plaintext(16));
    assert_eq!(buf.initialized().len(), 16);
}

#[test]
fn a_ring_opens_the_streams_of_any_of_its_keys() {
    let keys: Vec<Key> = (0..5).map(|_| Key::generate()).collect();
    let ring: KeyRing = keys.iter().cloned().collect();
    for key in &keys {
        let (read, result) = read_to_end(&mut DecryptReader::new(&stream(key, 50)[..], &ring));
        result.unwrap();
        assert_eq!(read, plaintext(50));
    }
    for ring in [ring, KeyRing::from_iter([])] {
        let (_, result) = read_to_end(&mut DecryptReader::new(&stream(&Key::generate(), 50)[..], ring));
        assert_eq!(Error::from_io(&result.unwrap_err()), Some(Error::KeyMismatch));
    }
}

/// Large frames are opened by a task elsewhere; every cut and some damage there must show as everywhere else.
#[tokio::test]
async fn large_frames_fail_as_small_ones_do() {
    let key = Key::generate();
    let plain = plaintext(2 * MIB + 100);
    let whole = EncryptOptions::new().chunk_size(MIB).unwrap().encrypt(&key, &plain);
    let mut damaged = whole.clone();
    damaged[80 + MIB + 20 + 500] ^= 1;
    let frame = MIB + 20;
    for (stream, released, expected) in [
        (&whole[..], plain.len(), None),
        (&damaged, MIB, Some(Error::Corrupt { frame: 1, at: (80 + frame) as u64 })),
        (&whole[..80 + frame + MIB], MIB, Some(Error::Truncated { at: (80 + frame + MIB) as u64 })),
        (&whole[..whole.len() - 1], plain.len(), Some(Error::Truncated { at: (whole.len() - 1) as u64 })),
    ] {
        for use_fill_buf in [false, true] {
            let mut reader = DecryptReader::new(stream, &key);
            let mut read = Vec::new();
            let result = if use_fill_buf {
                tokio::io::copy_buf(&mut reader, &mut read).await.map(drop)
            } else {
                reader.read_to_end(&mut read).await.map(drop)
            };
            assert_eq!(result.as_ref().err().and_then(Error::from_io), expected);
            assert!(read == plain[..released]);
        }
    }
}

#[test]
fn large_frames_are_opened_off_the_async_threads_even_if_there_is_room_for_them() {
    let key = Key::generate();
    for chunk_size in [MIB, MIB + 1] {
        let plain = plaintext(2 * chunk_size);
        let stream = EncryptOptions::new().chunk_size(chunk_size).unwrap().encrypt(&key, &plain);
        let mut reader = DecryptReader::new(&stream[..], &key);
        let (runtime, release) = busy_runtime();
        runtime.block_on(async {
            for _ in 0..2 {
                assert!(poll_read(&mut reader, plain.len()).is_pending());
            }
            drop(release);
            let mut read = vec![0; plain.len()];
            reader.read_exact(&mut read).await.unwrap();
            assert!(read == plain);
        });
    }
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let key = Key::generate();
    let stream = stream(&key, 100);
    let script = Script::repeat([Op::Some(9), Op::Pending]);
    let mut reader = DecryptReader::new(Reader::new(&stream, script), &key);
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 7];
        // Polled once and dropped, over and over.
        match poll_once(reader.read(&mut piece)) {
            Poll::Ready(Ok(0)) => break,
            Poll::Ready(Ok(n)) => read.extend_from_slice(&piece[..n]),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => {}
        }
    }
    assert_eq!(read, plaintext(100));
}
