//! Any sequence of operations, sizes and contexts makes the round trip.

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, EncryptOptions, EncryptReader, EncryptWriter, Key, KeyRing,
    codec::{Frame, FrameEncoder},
};
use bytes::BytesMut;
use futures::executor::block_on;
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Encoder;

use crate::{
    encrypt_writer::frames,
    script::{Op, Reader, Script, Writer},
    ways,
};

/// What is done to a writer between its first byte and its shutdown.
#[derive(Debug, Clone)]
enum Action {
    Write(Vec<u8>),
    Flush,
    FlushChunk,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..200).prop_map(Action::Write),
        1 => Just(Action::Flush),
        1 => Just(Action::FlushChunk),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let op = prop_oneof![3 => (1usize..100).prop_map(Op::Some), 1 => Just(Op::Pending)];
    // A script of nothing but `Pending` would never get anywhere.
    vec(op, 0..10).prop_map(|mut ops| {
        ops.push(Op::Some(13));
        Script::repeat(ops)
    })
}

fn chunk_size() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..50, Just(64), Just(65_536)]
}

/// The frames that a list of actions must make, and all that they write.
fn expected(actions: &[Action], chunk_size: usize, cut_on_flush: bool) -> (Vec<usize>, Vec<u8>) {
    let (mut frames, mut plaintext, mut filled) = (Vec::new(), Vec::new(), 0);
    for action in actions {
        match action {
            Action::Write(data) => {
                plaintext.extend_from_slice(data);
                filled += data.len();
                while filled >= chunk_size {
                    frames.push(chunk_size);
                    filled -= chunk_size;
                }
            }
            Action::FlushChunk if filled > 0 => frames.push(std::mem::take(&mut filled)),
            Action::Flush if cut_on_flush && filled > 0 => frames.push(std::mem::take(&mut filled)),
            Action::Flush | Action::FlushChunk => {}
        }
    }
    if filled > 0 {
        frames.push(filled);
    }
    (frames, plaintext)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_done_to_a_writer_every_reader_gets_what_was_written(
        actions in vec(action(), 0..12),
        chunk_size in chunk_size(),
        context in vec(any::<u8>(), 0..40),
        cut_on_flush: bool,
        workers in 1usize..4,
        script in script(),
    ) {
        let key = Key::generate();
        let options = EncryptOptions::new()
            .chunk_size(chunk_size).unwrap()
            .context(&context).unwrap()
            .cut_on_flush(cut_on_flush)
            .workers(workers);
        let mut writer = EncryptWriter::with_options(Writer::new(script), &key, &options);
        block_on(async {
            for action in &actions {
                match action {
                    Action::Write(data) => writer.write_all(data).await.unwrap(),
                    Action::Flush => writer.flush().await.unwrap(),
                    Action::FlushChunk => writer.flush_chunk().await.unwrap(),
                }
            }
            writer.shutdown().await.unwrap();
        });
        let stream = writer.into_inner().data;
        let (lengths, plaintext) = expected(&actions, chunk_size, cut_on_flush);
        prop_assert_eq!(frames(&stream), lengths);

        // The layout flag is right, too: every reader checks it against the frames that it has seen.
        let options = DecryptOptions::new().context(&context).unwrap();
        for (way, open) in ways::all() {
            let (read, result) = open(&KeyRing::from(&key), &options, &stream);
            prop_assert_eq!(result, Ok(()), "by {}", way);
            prop_assert!(read == plaintext, "by {}", way);
        }
    }

    #[test]
    fn however_it_is_read_the_plaintext_is_the_same(
        plaintext in vec(any::<u8>(), 0..1000),
        chunk_size in chunk_size(),
        reads in vec(1usize..300, 1..8),
        workers in 1usize..4,
        script in script(),
    ) {
        let key = Key::generate();
        let stream = EncryptOptions::new().chunk_size(chunk_size).unwrap().encrypt(&key, &plaintext);
        let options = DecryptOptions::new().workers(workers);
        let mut reader = DecryptReader::with_options(Reader::new(&stream, script), &key, &options);
        let mut read = Vec::new();
        block_on(async {
            for size in reads.iter().cycle() {
                let mut piece = vec![0; *size];
                let n = reader.read(&mut piece).await.unwrap();
                if n == 0 {
                    break;
                }
                read.extend_from_slice(&piece[..n]);
            }
        });
        prop_assert_eq!(read, plaintext);
    }

    #[test]
    fn however_it_is_pulled_every_reader_gets_what_was_read(
        plaintext in vec(any::<u8>(), 0..1000),
        chunk_size in chunk_size(),
        reads in vec(1usize..300, 1..8),
        workers in 1usize..4,
        script in script(),
    ) {
        let key = Key::generate();
        let options = EncryptOptions::new().chunk_size(chunk_size).unwrap().workers(workers);
        let mut reader = EncryptReader::with_options(Reader::new(&plaintext, script), &key, &options);
        let mut stream = Vec::new();
        block_on(async {
            for size in reads.iter().cycle() {
                let mut piece = vec![0; *size];
                let n = reader.read(&mut piece).await.unwrap();
                if n == 0 {
                    break;
                }
                stream.extend_from_slice(&piece[..n]);
            }
        });
        let lengths: Vec<usize> = plaintext.chunks(chunk_size).map(<[u8]>::len).collect();
        prop_assert_eq!(frames(&stream), lengths);
        for (way, open) in ways::all() {
            let (read, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &stream);
            prop_assert_eq!(result, Ok(()), "by {}", way);
            prop_assert!(read == plaintext, "by {}", way);
        }
    }

    #[test]
    fn however_it_is_pushed_the_plaintext_is_the_same(
        plaintext in vec(any::<u8>(), 0..1000),
        chunk_size in chunk_size(),
        writes in vec(prop_oneof![3 => 1usize..300, 1 => Just(0)], 1..8),
        script in script(),
    ) {
        let key = Key::generate();
        let stream = EncryptOptions::new().chunk_size(chunk_size).unwrap().encrypt(&key, &plaintext);
        let mut writer = DecryptWriter::new(Writer::new(script), &key);
        let mut rest = &stream[..];
        block_on(async {
            // A write of nothing stands for a flush.
            for size in writes.iter().chain([&50]).cycle() {
                let piece = &rest[..rest.len().min(*size)];
                if piece.is_empty() {
                    writer.flush().await.unwrap();
                }
                let n = writer.write(piece).await.unwrap();
                rest = &rest[n..];
                if rest.is_empty() {
                    break;
                }
            }
            writer.shutdown().await.unwrap();
        });
        prop_assert_eq!(writer.into_inner().data, plaintext);
    }

    #[test]
    fn whatever_is_encoded_every_reader_gets(
        items in vec(vec(any::<u8>(), 0..200), 0..10),
        chunk_size in chunk_size(),
    ) {
        let key = Key::generate();
        let options = EncryptOptions::new().chunk_size(chunk_size).unwrap();
        let mut encoder = FrameEncoder::with_options(&key, &options);
        let mut stream = BytesMut::new();
        for item in &items {
            encoder.encode(Frame::Data(item.clone().into()), &mut stream).unwrap();
        }
        encoder.encode(Frame::End, &mut stream).unwrap();
        let lengths: Vec<usize> = items.iter().flat_map(|item| item.chunks(chunk_size)).map(<[u8]>::len).collect();
        prop_assert_eq!(frames(&stream), lengths);
        for (way, open) in ways::all() {
            let (read, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &stream);
            prop_assert_eq!(result, Ok(()), "by {}", way);
            prop_assert!(read == items.concat(), "by {}", way);
        }
    }

    #[test]
    fn arbitrary_bytes_never_open_and_never_panic(
        prefix in 0usize..120,
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let key = Key::generate();
        let genuine = EncryptOptions::new().chunk_size(16).unwrap().encrypt(&key, &[7; 40]);
        let stream = [&genuine[..prefix.min(genuine.len())], &bytes].concat();
        prop_assume!(stream != genuine);
        for (way, open) in ways::WHOLE.iter().chain(ways::BY_OFFSET) {
            let (read, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &stream);
            prop_assert!(result.is_err(), "by {}", way);
            prop_assert!([7; 40].starts_with(&read), "by {}", way);
        }
    }
}
