//! `EncryptReader`, sentence by sentence of what it promises.

use std::{io::ErrorKind, pin::Pin, task::Poll};

use agcm::{DecryptReader, EncryptOptions, EncryptReader, EncryptWriter, Error, Key, decrypt, geometry::Uniform};
use futures::executor::block_on;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::{
    drive::{OtherTask, busy_runtime, poll_once, poll_read, read_to_end},
    encrypt_writer::frames,
    script::{Op, Reader, Script},
    vectors::plaintext,
};

const MIB: usize = 1024 * 1024;

fn chunks_of(size: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(size).unwrap()
}

#[test]
fn chunks_are_full_whatever_the_pieces_of_the_inner_reader() {
    let key = Key::generate();
    for len in [0, 1, 15, 16, 17, 32, 33, 100] {
        let plain = plaintext(len);
        let expected: Vec<usize> = plain.chunks(16).map(<[u8]>::len).collect();
        for ops in [
            vec![Op::Some(1000)],
            vec![Op::Some(1)],
            vec![Op::Some(1), Op::Pending],
            vec![Op::Pending, Op::Some(3), Op::Some(15), Op::Pending, Op::Pending, Op::Some(7)],
        ] {
            let inner = Reader::new(&plain, Script::repeat(ops));
            let mut reader = EncryptReader::with_options(inner, &key, &chunks_of(16));
            let (stream, result) = read_to_end(&mut reader);
            result.unwrap();
            assert_eq!(frames(&stream), expected);
            assert_eq!(stream.len() as u64, Uniform::new(len as u64, 16).unwrap().stream_len());
            assert_eq!(decrypt(&key, &stream).unwrap(), plain);
            assert_eq!(block_on(reader.read(&mut [0; 9])).unwrap(), 0, "an end of file stays one");
        }
    }
}

#[test]
fn the_inner_reader_is_not_read_again_after_its_end() {
    let key = Key::generate();
    // Something arrives after the end of file; it must not become part of anything.
    let plain = plaintext(40);
    let script = Script::once([Op::Some(7), Op::Some(7), Op::Zero, Op::Some(20)]);
    let mut reader = EncryptReader::with_options(Reader::new(&plain, script), &key, &chunks_of(16));
    let (stream, result) = read_to_end(&mut reader);
    result.unwrap();
    assert!(poll_read(&mut reader, 9).is_ready());
    assert_eq!(reader.get_ref().polls, 3);
    assert_eq!(decrypt(&key, &stream).unwrap(), plain[..14]);
}

#[test]
fn nothing_comes_out_before_a_chunk_is_full_and_then_all_of_its_frame() {
    let key = Key::generate();
    let plain = plaintext(40);
    let script = Script::once([Op::Some(15), Op::Stall, Op::Some(1), Op::Stall]);
    let mut reader = EncryptReader::with_options(Reader::new(&plain, script), &key, &chunks_of(16));
    assert!(poll_read(&mut reader, 999).is_pending());
    let Poll::Ready(Ok(first)) = poll_read(&mut reader, 999) else { panic!("the chunk is full") };
    assert_eq!(first.len(), 80 + 36, "the prelude and a frame, in one piece");
    assert!(poll_read(&mut reader, 999).is_pending());
}

#[test]
fn pieces_of_any_size_and_mixed_with_fill_buf() {
    let key = Key::generate();
    let plain = plaintext(200);
    for size in [1, 2, 15, 36, 37, 80, 116, 117, 500] {
        let mut reader = EncryptReader::with_options(&plain[..], &key, &chunks_of(16));
        let mut stream = Vec::new();
        block_on(async {
            loop {
                let mut piece = vec![0; size];
                let n = reader.read(&mut piece).await.unwrap();
                stream.extend_from_slice(&piece[..n]);
                let buffered = reader.fill_buf().await.unwrap();
                let n = buffered.len().min(3);
                stream.extend_from_slice(&buffered[..n]);
                reader.consume(n);
                if n == 0 {
                    break;
                }
            }
        });
        assert_eq!(decrypt(&key, &stream).unwrap(), plain, "{size}");
    }
}

#[test]
fn an_inner_error_passes_and_reading_may_be_resumed() {
    let key = Key::generate();
    let plain = plaintext(100);
    for position in 0..12 {
        let mut ops = vec![Op::Some(11); position];
        ops.push(Op::Error(ErrorKind::ConnectionReset));
        ops.resize(40, Op::Some(11));
        let inner = Reader::new(&plain, Script::once(ops));
        let mut reader = EncryptReader::with_options(inner, &key, &chunks_of(16));
        let (mut stream, result) = read_to_end(&mut reader);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(decrypt(&key, &stream), Err(Error::Truncated { at: stream.len() as u64 }));
        let (rest, result) = read_to_end(&mut reader);
        result.unwrap();
        stream.extend(rest);
        assert_eq!(frames(&stream), [16, 16, 16, 16, 16, 16, 4], "nothing is lost, cut or sealed twice");
        assert_eq!(decrypt(&key, &stream).unwrap(), plain);
    }
}

#[test]
fn a_read_that_is_dropped_loses_nothing() {
    let key = Key::generate();
    let plain = plaintext(100);
    let inner = Reader::new(&plain, Script::repeat([Op::Some(9), Op::Pending]));
    let mut reader = EncryptReader::with_options(inner, &key, &chunks_of(16));
    let mut stream = Vec::new();
    loop {
        let mut piece = [0; 7];
        // Polled once and dropped, over and over.
        match poll_once(reader.read(&mut piece)) {
            Poll::Ready(Ok(0)) => break,
            Poll::Ready(Ok(n)) => stream.extend_from_slice(&piece[..n]),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => {}
        }
    }
    assert_eq!(frames(&stream), [16, 16, 16, 16, 16, 16, 4]);
    assert_eq!(decrypt(&key, &stream).unwrap(), plain);
}

#[test]
fn a_read_into_nothing_reads_nothing_and_starts_no_stream() {
    let key = Key::generate();
    let mut reader = EncryptReader::new(Reader::new(b"abc", Script::default()), &key);
    assert!(matches!(poll_read(&mut reader, 0), Poll::Ready(Ok(bytes)) if bytes.is_empty()));
    assert_eq!(reader.get_ref().polls, 0);
    reader.consume(0);
    assert_eq!(decrypt(&key, &read_to_end(&mut reader).0).unwrap(), b"abc");
    reader.consume(0);
}

#[test]
fn each_reader_has_its_own_randomness_and_takes_its_options() {
    let key = Key::generate();
    let options = chunks_of(7).context("upload 1").unwrap().cut_on_flush(true);
    let [one, two] =
        [(); 2].map(|()| read_to_end(&mut EncryptReader::with_options(&b"the same"[..], &key, &options)).0);
    assert_ne!(one[8..48], two[8..48]);
    assert_eq!(frames(&one), [7, 1]);
    assert_eq!(decrypt(&key, &one), Err(Error::KeyMismatch));
    let context = agcm::DecryptOptions::new().context("upload 1").unwrap();
    assert_eq!(context.decrypt(&key, &one).unwrap(), b"the same");
}

#[tokio::test]
async fn what_it_reads_out_of_a_file_goes_into_a_writer_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    let plain = plaintext(3 * 65_536 + 1234);
    std::fs::write(&path, &plain).unwrap();
    let key = Key::generate();
    let file = tokio::fs::File::open(&path).await.unwrap();
    let mut stream = Vec::new();
    tokio::io::copy_buf(&mut EncryptReader::new(file, &key), &mut stream).await.unwrap();
    assert_eq!(frames(&stream), [65_536, 65_536, 65_536, 1234]);

    // And one adapter over the other gives back what went in.
    let mut there_and_back = DecryptReader::new(EncryptReader::new(&plain[..], &key), &key);
    let mut read = Vec::new();
    there_and_back.read_to_end(&mut read).await.unwrap();
    assert!(read == plain);
}

#[test]
fn large_chunks_are_sealed_off_the_async_threads() {
    let key = Key::generate();
    let plain = plaintext(2 * MIB + 5);
    let mut reader = EncryptReader::with_options(&plain[..], &key, &chunks_of(MIB));
    let mut stream = Vec::new();
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        for _ in 0..3 {
            assert!(poll_once(reader.read(&mut [0; 100])).is_pending());
        }
        drop(release);
        reader.read_to_end(&mut stream).await.unwrap();
    });
    assert_eq!(frames(&stream), [MIB, MIB, 5]);
    assert!(decrypt(&key, &stream).unwrap() == plain);

    // Where there is no runtime, they are sealed all the same.
    let (stream, result) = read_to_end(&mut EncryptReader::with_options(&plain[..], &key, &chunks_of(MIB)));
    result.unwrap();
    assert!(decrypt(&key, &stream).unwrap() == plain);
}

#[tokio::test]
async fn long_work_lets_other_tasks_run() {
    let mut other = OtherTask::spawn();
    let key = Key::generate();
    let plain = plaintext(64_000);
    // 1000 frames of which 128 make a turn; then 1000 streams of nothing but an end.
    let mut reader = EncryptReader::with_options(&plain[..], &key, &chunks_of(64));
    while reader.read(&mut [0; 1000]).await.unwrap() > 0 {}
    other.had_turns();
    // Or small pieces that don't fill a chunk.
    let pieces = Reader::new(&plain, Script::repeat([Op::Some(1)]));
    let mut reader = EncryptReader::new(pieces, &key);
    while reader.read(&mut [0; 1000]).await.unwrap() > 0 {}
    other.had_turns();
    for _ in 0..1000 {
        let mut reader = EncryptReader::new(tokio::io::empty(), &key);
        while reader.read(&mut [0; 1000]).await.unwrap() > 0 {}
    }
    other.had_turns();
}

#[test]
fn pull_and_push_make_the_same_frames() {
    let key = Key::generate();
    for len in [0, 5, 16, 50] {
        let (pulled, _) = read_to_end(&mut EncryptReader::with_options(&plaintext(len)[..], &key, &chunks_of(16)));
        let mut writer = EncryptWriter::with_options(Vec::new(), &key, &chunks_of(16));
        block_on(async {
            writer.write_all(&plaintext(len)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let pushed = writer.into_inner();
        assert_eq!((pulled.len(), frames(&pulled)), (pushed.len(), frames(&pushed)));
    }
}

#[test]
fn what_was_read_and_not_given_out_is_gone_with_the_reader() {
    let key = Key::generate();
    let mut reader = EncryptReader::with_options(&b"0123456789"[..], &key, &chunks_of(4));
    assert_eq!(block_on(reader.read(&mut [0; 10])).unwrap(), 10);
    assert_eq!(reader.get_mut(), b"456789");
    assert_eq!(*Pin::new(&mut reader).get_pin_mut(), b"456789");
    assert_eq!(reader.into_inner(), b"456789");
}

#[test]
fn it_is_send_sync_and_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<EncryptReader<&[u8]>>();
}
