//! What is freed: everything that touches a key or plaintext is done, given up half-way, or made to fail, and nothing of them may
//! be in any block that comes back meanwhile.

use std::{
    any::Any,
    collections::BTreeMap,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Waker},
};

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, Decryptor, EncryptOptions, EncryptReader, EncryptWriter, Encryptor,
    FileOptions, Key, KeyRing, PositionedFile, RangeReader, SeekReader, Step,
    codec::{Frame, FrameDecoder, FrameEncoder},
    keystore::{DirKeyStore, KeyStore},
    legacy::GoReader,
};
use bytes::BytesMut;
use futures::{FutureExt, TryStreamExt, executor::block_on};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt, sink},
    runtime::{Builder, Runtime},
};
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    allocator::{Block, watch},
    folder::Folder,
    needles::{MARK, Needles, aside, schedules},
    reference::{Reference, go_stream},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Of bytes that are found in nothing else.
const KEY: [u8; 32] = *b"\xd1\x87\xe2\x93\xf4\xa5\x96\xb8\xc9\x8a\xdb\x9c\xed\xae\xbf\x81\xc2\x93\xd4\xa5\xe6\xb7\xf8\x89\xca\x9b\xdc\xad\xee\xbf\x90\x8f";
const OTHER: [u8; 32] = *b"\x9d\xe1\xb5\x88\xcc\xa0\xf4\xd8\x9c\xe0\xb4\x87\xcb\xaf\xf3\xd7\x9b\xef\xb3\x86\xca\xae\xf2\xd6\x9a\xee\xb2\x85\xc9\xad\xf1\xd5";

/// One test at a time may watch.
pub fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a caller keeps until nobody looks any more.
#[derive(Default)]
struct Kept {
    /// The streams tell which keys there were.
    streams: Vec<Vec<u8>>,
    others: Vec<Box<dyn Any>>,
}

impl Kept {
    fn stream(&mut self, stream: Vec<u8>) {
        self.streams.push(stream);
    }

    fn other(&mut self, other: impl Any) {
        self.others.push(Box::new(other));
    }
}

/// Does some work, and finds nothing secret in what was freed.
#[track_caller]
fn assert_wipes(what: &str, needles: Needles, work: impl FnOnce(&mut Kept)) {
    let (finds, schedules) = look(needles, work);
    // Each kind once for each length of a block.
    let kinds: BTreeMap<_, _> = finds.iter().map(|(what, block, at)| ((*what, block.len), *at)).collect();
    let lines: Vec<_> = kinds.iter().map(|((what, len), at)| format!("{what} at {at} of {len}")).collect();
    assert!(finds.is_empty(), "{what}: {} were freed: {lines:#?}", finds.len());
    assert_eq!(schedules, 0, "{what}: key schedules that no stream here has");
}

/// What was found in what the work has freed, and how many key schedules besides.
fn look(needles: Needles, work: impl FnOnce(&mut Kept)) -> (Vec<(&'static str, Block, usize)>, usize) {
    // Before anybody looks, and in a vector that need not grow.
    let mut kept = Kept { streams: Vec::with_capacity(64), others: Vec::with_capacity(64) };
    let ((), blocks) = watch(|| {
        work(&mut kept);
        agcm::trim_memory();
    });
    let streams = std::mem::take(&mut kept.streams);
    aside(move || search(needles, &streams, blocks))
}

fn search(mut needles: Needles, streams: &[Vec<u8>], blocks: Vec<Block>) -> (Vec<(&'static str, Block, usize)>, usize) {
    for stream in streams {
        needles.add_stream(stream);
    }
    let mut found = Vec::new();
    let mut others = 0;
    for block in blocks {
        found.extend(needles.find(block.content).map(|find| (find.what, block, find.at)));
        others += schedules(block.content).count();
    }
    (found, others)
}

/// What nearly all of this is about: one key, and plaintext of marks.
fn needles() -> Needles {
    of_keys(&[KEY])
}

fn of_keys(keys: &'static [[u8; 32]]) -> Needles {
    aside(move || Needles::new(keys))
}

fn key() -> Key {
    Key::try_from(&KEY[..]).unwrap()
}

fn plaintext(len: usize) -> Vec<u8> {
    let mut plaintext = MARK.repeat(len.div_ceil(MARK.len()));
    plaintext.truncate(len);
    plaintext
}

/// Its end waits for all that is still at work on its pool.
fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn chunks_of(len: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(len).unwrap()
}

/// A stream that was not made by the library.
fn stream(chunk_size: usize, plaintext: &[u8]) -> Vec<u8> {
    let lens: Vec<_> = plaintext.chunks(chunk_size).map(<[u8]>::len).collect();
    stream_of(chunk_size, &lens)
}

/// The same, of chunks of these lengths.
fn stream_of(chunk_size: usize, lens: &[usize]) -> Vec<u8> {
    let lens = lens.to_vec();
    aside(move || {
        let chunks: Vec<_> = lens.into_iter().map(plaintext).collect();
        let reference = Reference::new(&KEY, [7; 12], [9; 20], u32::try_from(chunk_size).unwrap(), b"");
        reference.stream(&chunks.iter().map(|chunk| &chunk[..]).collect::<Vec<_>>())
    })
}

/// Chunk sizes and workers that take each way through the adapters: at once, on the blocking pool, and by several.
const SHAPES: [(usize, usize, usize); 4] =
    [(KIB, 1, 20 * KIB), (64 * KIB, 1, 300 * KIB), (MIB, 1, 3 * MIB), (64 * KIB, 2, 4 * MIB)];

/// A writer that lets its caller wait after some bytes, and keeps them.
struct Stalling<'a> {
    written: &'a mut Vec<u8>,
    left: usize,
}

impl AsyncWrite for Stalling<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let n = bytes.len().min(self.left);
        if n == 0 {
            return Poll::Pending;
        }
        self.written.extend_from_slice(&bytes[..n]);
        self.left -= n;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls a future a few times, and gives it up unless it is done.
async fn for_a_moment<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..4 {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[test]
fn what_is_not_wiped_is_seen_in_every_form() {
    let _alone = alone();
    let stream = stream(KIB, &plaintext(KIB));
    let plain = plaintext(100);
    let sealed = stream.clone();
    let known = aside(move || {
        let (mut needles, mut other) = (Needles::new(&[KEY]), sealed.clone());
        other[60] ^= 1;
        [needles.add_stream(&sealed), needles.add_stream(&other)]
    });
    assert_eq!(known, [true, false], "the stream of another key is none of ours");
    // A copy that is freed, and one that is moved away from.
    let (found, schedules) = look(needles(), |kept| {
        drop(std::hint::black_box(KEY.to_vec()));
        let mut grown = std::hint::black_box(plain.clone());
        grown.reserve_exact(1000);
        drop(Key::from_bytes(KEY).expose_bytes().map(|byte| format!("{byte:02x}")).concat());
        kept.other(grown);
    });
    let count = |what| found.iter().filter(|(found, ..)| *found == what).count();
    assert_eq!((count("key"), count("key in hex"), schedules), (2, 4, 0));
    assert!(count("plaintext") >= 5, "{}", count("plaintext"));
    let cipher = aside(|| crate::needles::round_keys(&OTHER));
    let (found, schedules) = look(needles(), |kept| {
        drop(std::hint::black_box(cipher));
        kept.stream(stream);
    });
    assert_eq!((found.len(), schedules), (0, 1), "a key schedule shows whoever's it is");
}

#[test]
fn keys_and_rings_of_them() {
    let _alone = alone();
    let folder = Folder::new();
    let hex = key().expose_hex();
    let files = [
        folder.write("hex", format!("{}\n", *hex)),
        folder.write("raw", KEY),
        folder.write("upper", hex.to_uppercase()),
    ];
    let runtime = runtime();
    let mut missing = folder.path("none");
    assert_wipes("keys", needles(), |kept| {
        drop(Key::from_bytes(KEY));
        let key = Key::try_from(&KEY[..]).unwrap();
        assert_eq!(hex.parse::<Key>().unwrap(), key);
        hex[1..].parse::<Key>().unwrap_err();
        drop(key.expose_hex());
        drop(key.expose_hex().clone());
        let ring: KeyRing = [key.clone(), Key::generate(), key.clone()].into_iter().collect();
        drop((KeyRing::from(&ring), KeyRing::from(&key), KeyRing::from(key.clone()), ring.clone()));
        for path in &files {
            let read = runtime.block_on(Key::read_file(path)).unwrap();
            assert_eq!(read, key);
        }
        for name in ["new", "new"] {
            missing.set_file_name(name);
            let _ = runtime.block_on(key.write_file(&missing)).is_err();
        }
        let mut writer = EncryptWriter::new(Vec::new(), &key);
        block_on(writer.shutdown()).unwrap();
        kept.stream(writer.into_inner());
        drop((EncryptWriter::new((), &key), DecryptReader::new((), &ring), FrameEncoder::new(&key)));
        drop((EncryptReader::new((), &key), DecryptWriter::new((), &ring), FrameDecoder::new(&ring)));
        drop((GoReader::new((), &ring), Decryptor::new(&ring, &DecryptOptions::new())));
    });
    drop(runtime);
}

#[test]
fn one_shots() {
    let _alone = alone();
    for (chunk_size, workers, len) in SHAPES {
        let plain = plaintext(len);
        let (sealing, opening) = (chunks_of(chunk_size).workers(workers), DecryptOptions::new().workers(workers));
        let other = Key::from_bytes(OTHER);
        assert_wipes("one-shots", needles(), |kept| {
            let ring: KeyRing = [other, key()].into_iter().collect();
            let mut stream = sealing.encrypt(&key(), &plain);
            kept.other(opening.decrypt(&ring, &stream).unwrap());
            opening.decrypt(&ring, &stream[..len / 2]).unwrap_err();
            let at = len - 10;
            stream[at] ^= 1;
            opening.decrypt(&ring, &stream).unwrap_err();
            kept.stream(stream);
        });
    }
}

#[test]
fn writers_that_encrypt_finished_and_dropped_at_each_stage() {
    let _alone = alone();
    for (chunk_size, workers, len) in SHAPES {
        let (plain, options) = (plaintext(len), chunks_of(chunk_size).workers(workers));
        assert_wipes("a writer, finished", needles(), |kept| {
            let runtime = runtime();
            runtime.block_on(async {
                let mut writer = EncryptWriter::with_options(Vec::with_capacity(2 * len), &key(), &options);
                writer.write_all(&plain[..100]).await.unwrap();
                writer.flush_chunk().await.unwrap();
                writer.write_all(&plain).await.unwrap();
                writer.shutdown().await.unwrap();
                kept.stream(writer.into_inner());
            });
        });
        // After so many bytes nobody takes any more; what is on its way by then is dropped there.
        for left in [0, 40, 80, 80 + chunk_size / 2, 80 + 2 * chunk_size, len + 50] {
            assert_wipes("a writer, dropped", needles(), |kept| {
                let mut written = Vec::with_capacity(2 * len);
                let runtime = runtime();
                runtime.block_on(async {
                    let mut writer =
                        EncryptWriter::with_options(Stalling { written: &mut written, left }, &key(), &options);
                    for_a_moment(async {
                        writer.write_all(&plain[..10]).await.unwrap();
                        writer.flush().await.unwrap();
                        writer.write_all(&plain[10..]).await.unwrap();
                        writer.shutdown().await
                    })
                    .await;
                });
                drop(runtime);
                kept.stream(written);
            });
        }
    }
}

#[test]
fn readers_that_encrypt_at_their_end_and_dropped_at_each_stage() {
    let _alone = alone();
    for (chunk_size, workers, len) in SHAPES {
        let (plain, options) = (plaintext(len), chunks_of(chunk_size).workers(workers));
        for wanted in [1, 79, 85, chunk_size, 3 * chunk_size + 7, usize::MAX] {
            assert_wipes("a pulling encryptor", needles(), |kept| {
                let mut stream = Vec::with_capacity(2 * len);
                let runtime = runtime();
                runtime.block_on(async {
                    let mut reader = EncryptReader::with_options(&plain[..], &key(), &options);
                    while stream.len() < wanted {
                        let bytes = reader.fill_buf().await.unwrap();
                        let n = bytes.len().min(wanted - stream.len());
                        stream.extend_from_slice(&bytes[..n]);
                        reader.consume(n);
                        if n == 0 {
                            break;
                        }
                    }
                    // Not a byte of it is the plaintext, which it did not know to be the last.
                    let input = (&plain[..len / 3]).chain(tokio::io::empty());
                    let mut reader = EncryptReader::with_options(input, &key(), &options);
                    let _ = for_a_moment(reader.read_u8()).await;
                });
                drop(runtime);
                kept.stream(stream);
            });
        }
    }
}

/// Takes so much of what a reader has, or until it ends or fails.
async fn take(reader: &mut (impl AsyncBufRead + Unpin), mut left: usize) {
    while let (true, Ok(bytes)) = (left > 0, reader.fill_buf().await) {
        let n = bytes.len().min(left);
        left -= n;
        if n == 0 {
            break;
        }
        reader.consume(n);
    }
}

/// What may become of a stream on its way, and another one in its place.
fn damages(stream: &[u8], chunk_size: usize) -> Vec<Vec<u8>> {
    let mut damaged = vec![stream.to_vec(), stream[..stream.len() - 1].to_vec(), stream[..stream.len() / 2].to_vec()];
    for at in [85, 80 + chunk_size + 20 + 10, stream.len() - 45, stream.len() - 5] {
        let mut changed = stream.to_vec();
        changed[at] ^= 1;
        damaged.push(changed);
    }
    // A short frame first, so that what a buffer has grown to is too small for those that follow.
    damaged.push(stream_of(chunk_size, &[100, chunk_size, 1000]));
    damaged
}

#[test]
fn readers_that_decrypt_at_their_end_dropped_and_failed() {
    let _alone = alone();
    for (chunk_size, workers, len) in SHAPES {
        let stream = stream(chunk_size, &plaintext(len));
        let options = DecryptOptions::new().workers(workers);
        for input in damages(&stream, chunk_size) {
            for wanted in [1, chunk_size - 1, chunk_size + 1, len / 2, usize::MAX] {
                assert_wipes("a reader", needles(), |kept| {
                    let runtime = runtime();
                    runtime.block_on(async {
                        let mut reader = DecryptReader::with_options(&input[..], key(), &options);
                        take(&mut reader, wanted).await;
                    });
                    drop(runtime);
                    kept.stream(stream.clone());
                });
            }
        }
        // With the wrong key, too; and there is no stream key then.
        assert_wipes("a reader with another key", of_keys(&[OTHER]), |_| {
            block_on(DecryptReader::new(&stream[..], Key::from_bytes(OTHER)).read_u8()).unwrap_err();
        });
    }
}

#[test]
fn writers_that_decrypt_at_their_end_dropped_and_failed() {
    let _alone = alone();
    for (chunk_size, workers, len) in SHAPES {
        let stream = stream(chunk_size, &plaintext(len));
        let options = DecryptOptions::new().workers(workers);
        for input in damages(&stream, chunk_size) {
            for left in [0, chunk_size / 2, usize::MAX] {
                assert_wipes("a pushed decryptor", needles(), |kept| {
                    let mut plain = Vec::with_capacity(len);
                    let runtime = runtime();
                    runtime.block_on(async {
                        let inner = Stalling { written: &mut plain, left };
                        let mut writer = DecryptWriter::with_options(inner, key(), &options);
                        let work = async {
                            for piece in input.chunks(50_000) {
                                writer.write_all(piece).await?;
                            }
                            writer.shutdown().await
                        };
                        // Where nobody takes what was opened, there is nothing to wait for.
                        if left == usize::MAX {
                            let _ = work.await;
                        } else {
                            for_a_moment(work).await;
                        }
                    });
                    drop(runtime);
                    kept.other(plain);
                    kept.stream(stream.clone());
                });
            }
        }
    }
}

#[test]
fn the_core_and_the_codec() {
    let _alone = alone();
    let plain = plaintext(100 * KIB);
    assert_wipes("the core", needles(), |kept| {
        let mut stream = Vec::with_capacity(200 * KIB);
        let (mut encryptor, prelude) = Encryptor::start(&key(), &chunks_of(10_000)).unwrap();
        stream.extend_from_slice(&prelude);
        for chunk in plain.chunks(10_000) {
            encryptor.seal(chunk, &mut stream).unwrap();
        }
        assert!(encryptor.seal(&plain, &mut stream).is_err());
        stream.extend_from_slice(&encryptor.finish());
        let mut out = Vec::with_capacity(plain.len());
        for bad in [None, Some(0), Some(85), Some(50_000), Some(stream.len() - 5)] {
            let mut input = stream.clone();
            if let Some(at) = bad {
                input[at] ^= 1;
            }
            out.clear();
            let mut decryptor = Decryptor::new(key(), &DecryptOptions::new());
            let mut rest = &input[..];
            while let Ok(Step::Start { consumed } | Step::Data { consumed, .. }) = decryptor.open(rest, &mut out) {
                rest = &rest[consumed..];
            }
            // And dropped half-way.
            let mut decryptor = Decryptor::new(key(), &DecryptOptions::new());
            let _ = decryptor.open(&input, &mut out).and_then(|_| decryptor.open_in_place(&mut input[80..]));
            kept.other(input);
        }
        kept.other(out);
        kept.stream(stream);
    });
    assert_wipes("the codec", needles(), |kept| {
        let (mut encoder, mut wire) = (FrameEncoder::new(&key()), BytesMut::new());
        let (mut first, mut second) = (0, 0);
        for item in [10, 1000, 70 * KIB, 0, 5, 0] {
            let data = bytes::Bytes::copy_from_slice(&plain[..item]);
            kept.other(data.clone());
            let ended = item == 0;
            encoder.encode(if ended { Frame::End } else { Frame::Data(data) }, &mut wire).unwrap();
            if ended && first == 0 {
                first = wire.len();
            }
            second = wire.len();
        }
        kept.stream(wire[..first].to_vec());
        kept.stream(wire[first..second].to_vec());
        encoder.encode(Frame::Data(bytes::Bytes::from_static(b"of a stream that is never ended")), &mut wire).unwrap();
        kept.stream(wire[second..].to_vec());
        drop(encoder);
        // A frame is opened where it lies, and the buffer that it lies in is the caller's.
        let mut decoder = FrameDecoder::new(key());
        let mut input = wire.clone();
        while let Ok(Some(frame)) = decoder.decode(&mut input) {
            kept.other(frame);
        }
        let mut damaged = wire.clone();
        damaged[first + 100] ^= 1;
        let mut decoder = FrameDecoder::new(key());
        while let Ok(Some(frame)) = decoder.decode(&mut damaged) {
            kept.other(frame);
        }
        kept.other((input, damaged, wire));
    });
}

#[test]
fn readers_by_offset() {
    let _alone = alone();
    let len = 3 * MIB + 100;
    let plain = plaintext(len);
    for (chunk_size, irregular) in [(KIB, false), (64 * KIB, false), (MIB, false), (64 * KIB, true)] {
        let stream = if irregular {
            stream_of(chunk_size, &[100, chunk_size, 5000, 1000, chunk_size])
        } else {
            stream(chunk_size, &plain)
        };
        let mut damaged = stream.clone();
        damaged[80 + 20 + 120] ^= 1;
        let folder = Folder::new();
        let path = folder.write("sealed", &stream);
        for input in [stream.clone(), damaged, stream[..stream.len() - 1].to_vec()] {
            assert_wipes("a seeking reader", needles(), |kept| {
                let runtime = runtime();
                runtime.block_on(async {
                    let Ok(mut reader) = SeekReader::open(io::Cursor::new(&input), &key()).await else { return };
                    let end = reader.len();
                    let mut out = vec![0; 2000];
                    for at in [end - 10, 0, 100, end / 2, end / 3] {
                        reader.seek(io::SeekFrom::Start(at)).await.unwrap();
                        let _ = reader.read(&mut out).await;
                    }
                    reader.seek(io::SeekFrom::Start(5)).await.unwrap();
                    let _ = for_a_moment(reader.fill_buf().map(|read| read.map(<[u8]>::len))).await;
                    kept.other(out);
                });
                drop(runtime);
                kept.stream(stream.clone());
            });
            let source = bytes::Bytes::from(input);
            assert_wipes("a reader of ranges", needles(), |kept| {
                let runtime = runtime();
                runtime.block_on(async {
                    let Ok(reader) = RangeReader::open(source, &key()).await else { return };
                    let end = reader.len();
                    for range in [0..10, 95..105, 10..end / 2, 0..end, end - 5..end] {
                        let part = reader.read_range(range.clone()).await;
                        kept.other(part);
                        // What becomes of it when nobody waits for it any more.
                        kept.other(for_a_moment(reader.read_range(range)).await);
                    }
                    let mut pieces = reader.stream(3..end).unwrap();
                    kept.other(pieces.try_next().await);
                    kept.other(for_a_moment(pieces.try_next()).await);
                });
                drop(runtime);
                kept.stream(stream.clone());
            });
        }
        assert_wipes("ranges of a file", needles(), |kept| {
            let runtime = runtime();
            runtime.block_on(async {
                let reader = RangeReader::open(PositionedFile::open(&path).await.unwrap(), &key()).await.unwrap();
                kept.other(reader.read_range(5..reader.len()).await.unwrap());
                kept.other(for_a_moment(reader.read_range(0..reader.len())).await);
            });
            drop(runtime);
            kept.stream(stream);
        });
    }
}

#[test]
fn streams_of_the_go_library() {
    let _alone = alone();
    for (chunk_size, lens) in [(64 * KIB, [100, 64 * KIB, 1000]), (2 * MIB, [MIB, 2 * MIB, 3])] {
        let stream = aside(move || {
            let chunks = lens.map(plaintext);
            go_stream(&KEY, [7; 12], u32::try_from(chunk_size).unwrap(), &chunks.each_ref().map(|chunk| &chunk[..]))
        });
        for cut in [0, 10] {
            for wanted in [1, 99, lens[0] + 1, usize::MAX] {
                // The key itself is that of the cipher.
                let needles = aside(|| {
                    let mut needles = Needles::new(&[KEY]);
                    needles.add_cipher(&KEY);
                    needles
                });
                assert_wipes("a reader of Go streams", needles, |_| {
                    let runtime = runtime();
                    runtime.block_on(async {
                        let ring: KeyRing = [Key::from_bytes(OTHER), key()].into_iter().collect();
                        let mut reader = GoReader::new(&stream[..stream.len() - cut], ring);
                        take(&mut reader, wanted).await;
                    });
                });
            }
        }
    }
}

#[test]
fn an_adapter_that_is_dropped_while_its_chunks_are_worked_on_elsewhere() {
    let _alone = alone();
    let plain = plaintext(6 * MIB);
    let stream = stream(MIB, &plain);
    for workers in [1, 2] {
        assert_wipes("dropped, and the work goes on", needles(), |kept| {
            // The only thread of the pool is busy until all adapters are gone.
            let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
            let (release, busy) = mpsc::channel::<()>();
            runtime.spawn_blocking(move || busy.recv().unwrap_err());
            let mut written = Vec::with_capacity(8 * MIB);
            runtime.block_on(async {
                let options = chunks_of(MIB).workers(workers);
                let inner = Stalling { written: &mut written, left: usize::MAX };
                let mut writer = EncryptWriter::with_options(inner, &key(), &options);
                for_a_moment(async {
                    writer.write_all(b"first").await.unwrap();
                    writer.flush().await.unwrap();
                    writer.write_all(&plain).await
                })
                .await;
                let mut reader = EncryptReader::with_options(&plain[..], &key(), &options);
                for_a_moment(reader.fill_buf().map(drop)).await;
                let opening = DecryptOptions::new().workers(workers);
                let mut reader = DecryptReader::with_options(&stream[..], key(), &opening);
                for_a_moment(reader.fill_buf().map(drop)).await;
                let mut pushed = DecryptWriter::with_options(sink(), key(), &opening);
                for_a_moment(pushed.write_all(&stream)).await;
            });
            drop(release);
            drop(runtime);
            kept.stream(written);
            kept.stream(stream.clone());
        });
    }
}

#[test]
fn files_done_failed_cancelled_and_given_up() {
    let _alone = alone();
    for (workers, len) in [(1, 200 * KIB), (1, 6 * MIB), (2, 6 * MIB)] {
        let folder = Folder::new();
        let (plain, sealed) = (folder.write("plain", plaintext(len)), stream(64 * KIB, &plaintext(len)));
        folder.write("made", &sealed);
        folder.write("cut", &sealed[..sealed.len() - 1]);
        let mut changed = sealed.clone();
        changed[len / 2] ^= 1;
        folder.write("changed", changed);
        let plaintext = plaintext(len);
        let both = of_keys(&[KEY, OTHER]);
        assert_wipes("files", both, |kept| {
            let runtime = runtime();
            let options = FileOptions::new()
                .overwrite(true)
                .encrypt_options(EncryptOptions::new().workers(workers))
                .decrypt_options(DecryptOptions::new().workers(workers));
            let path = |name: &str| folder.path(name);
            runtime.block_on(async {
                let (key, other) = (key(), Key::from_bytes(OTHER));
                options.encrypt_file(&plain, path("sealed"), &key).await.unwrap();
                options.decrypt_file(path("sealed"), path("again"), &key).await.unwrap();
                options.verify_file(path("sealed"), &key).await.unwrap();
                options.rekey_file(path("sealed"), path("rekeyed"), &key, &other).await.unwrap();
                options.encrypt_from(&plaintext[..], path("from"), &key).await.unwrap();
                options.decrypt_from(&sealed[..], path("again"), &key).await.unwrap();
                for name in ["cut", "changed"] {
                    options.decrypt_file(path(name), path("never"), &key).await.unwrap_err();
                    options.verify_file(path(name), &key).await.unwrap_err();
                    options.rekey_file(path(name), path("never"), &key, &other).await.unwrap_err();
                    let input = tokio::fs::File::open(path(name)).await.unwrap();
                    options.decrypt_from(input, path("never"), &key).await.unwrap_err();
                }
                // Futures that are dropped at once, and whose work goes on until it sees that.
                for_a_moment(options.encrypt_file(&plain, path("never"), &key)).await;
                for_a_moment(options.decrypt_file(path("made"), path("never"), &key)).await;
                for_a_moment(options.rekey_file(path("made"), path("never"), &key, &other)).await;
                for_a_moment(options.encrypt_from(&plaintext[..], path("never"), &key)).await;
                for_a_moment(options.decrypt_from(&sealed[..], path("never"), &key)).await;
                // Whoever is told of the progress panics, early and late.
                for calls in [0, 3] {
                    let left = Arc::new(AtomicUsize::new(calls));
                    let options = options.clone().progress(move |_| {
                        assert_ne!(left.fetch_sub(1, SeqCst), 0, "this panic is part of a test");
                    });
                    let _ = options.encrypt_file(&plain, path("never"), &key).await;
                    let _ = options.decrypt_file(path("made"), path("never"), &key).await;
                    let panicked = AssertUnwindSafe(options.decrypt_from(&sealed[..], path("never"), &key));
                    let _ = panicked.catch_unwind().await;
                }
            });
            drop(runtime);
            for name in ["sealed", "rekeyed", "from"] {
                kept.stream(std::fs::read(path(name)).unwrap());
            }
            kept.stream(sealed.clone());
        });
    }
}

#[test]
fn a_panic_of_whoever_reads_or_writes() {
    let _alone = alone();
    struct Panics;
    impl AsyncWrite for Panics {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            panic!("this panic is part of a test")
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            panic!("this panic is part of a test")
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            panic!("this panic is part of a test")
        }
    }
    let plain = plaintext(300 * KIB);
    let stream = stream(64 * KIB, &plain);
    assert_wipes("a panic", needles(), |kept| {
        let write = |work: &dyn Fn()| catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        kept.other(write(&|| block_on(EncryptWriter::new(Panics, &key()).write_all(&plain)).unwrap()));
        kept.other(write(&|| block_on(DecryptWriter::new(Panics, key()).write_all(&stream)).unwrap()));
        kept.stream(stream.clone());
    });
}

#[test]
fn key_stores_and_snapshots() {
    let _alone = alone();
    let folder = Folder::new();
    let plain = folder.write("plain", plaintext(100 * KIB));
    let path = |name: &str| folder.path(name);
    // The keys of snapshots are made by the library: they are known once it is done.
    let keys = DirKeyStore::new(path("keys"));
    runtime().block_on(keys.store("known", &key())).unwrap();
    // Its end waits for what somebody gave up on.
    assert_wipes("a key store", needles(), |_| {
        runtime().block_on(async {
            let key = keys.retrieve("known").await.unwrap();
            keys.store("another", &key).await.unwrap();
            keys.store("another", &key).await.unwrap_err();
            keys.list().await.unwrap();
            for_a_moment(keys.store("third", &key)).await;
            for_a_moment(keys.retrieve("known")).await.map(|key| key.unwrap());
            keys.remove("another").await.unwrap();
        });
    });
    let (made, blocks) = watch(|| {
        runtime().block_on(async {
            agcm::encrypt_snapshot(&plain, path("snapshot"), &keys, "id").await.unwrap();
            agcm::restore_snapshot(path("snapshot"), path("restored"), &keys, "id").await.unwrap();
            agcm::restore_snapshot(path("snapshot"), path("never"), &keys, "known").await.unwrap_err();
            agcm::encrypt_snapshot(path("none"), path("never"), &keys, "without").await.unwrap_err();
        });
        agcm::trim_memory();
        std::fs::read(path("snapshot"))
    });
    let key = runtime().block_on(keys.retrieve("id")).unwrap();
    aside(move || {
        let mut needles = Needles::new(&[*key.expose_bytes(), KEY]).with_context(b"id");
        assert!(needles.add_stream(&made.unwrap()));
        for block in blocks {
            if let Some(find) = needles.find(block.content).next() {
                panic!("snapshots: {} at {} of {} was freed", find.what, find.at, block.len);
            }
        }
    });
}

#[cfg(feature = "passphrase")]
mod passphrase {
    use agcm::keystore::Passphrase;
    use argon2::{Algorithm, Argon2, Block, Params, Version};

    use super::*;

    const WORDS: &[u8; 48] = b"Zwei Wege: nur einer fuehrt am Ende zum Ziel, ja";

    /// The salt of a wrapped key, out of the base64 of its first line.
    fn salt(content: &[u8]) -> Vec<u8> {
        let line = content.split(|&byte| byte == b'\n').next().unwrap();
        let text = line.rsplit(|&byte| byte == b'$').next().unwrap();
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bits, mut len, mut bytes) = (0usize, 0, Vec::new());
        for digit in text {
            bits = bits << 6 | alphabet.iter().position(|known| known == digit).unwrap();
            len += 6;
            if len >= 8 {
                len -= 8;
                bytes.push(u8::try_from(bits >> len & 0xff).unwrap());
            }
        }
        bytes
    }

    #[test]
    fn keys_under_a_passphrase() {
        let _alone = alone();
        let folder = Folder::new();
        let runtime = runtime();
        let path = folder.path("keys");
        let (content, blocks) = watch(|| {
            runtime.block_on(async {
                let passphrase = Passphrase::new(WORDS).costs(64, 2, 2).unwrap();
                let keys = DirKeyStore::new(&path).passphrase(passphrase.clone());
                keys.store("id", &key()).await.unwrap();
                assert_eq!(keys.retrieve("id").await.unwrap(), key());
                let wrong = DirKeyStore::new(&path).passphrase(Passphrase::new("another"));
                wrong.retrieve("id").await.unwrap_err();
                for_a_moment(keys.retrieve("id")).await;
                keys.store("id", &key()).await.unwrap_err();
            });
            agcm::trim_memory();
            drop(runtime);
            std::fs::read(folder.path("keys/id.key")).unwrap()
        });
        let lines = aside(move || search(&content, blocks));
        assert!(lines.is_empty(), "{} were freed: {:#?}", lines.len(), &lines[..lines.len().min(20)]);
    }

    fn search(content: &[u8], blocks: Vec<crate::allocator::Block>) -> Vec<String> {
        let params = Params::new(64, 2, 2, Some(32)).unwrap();
        let mut memory = vec![Block::default(); params.block_count()];
        let mut wrapping = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into_with_memory(WORDS, &salt(content), &mut wrapping, &mut memory).unwrap();
        let line = content.split(|&byte| byte == b'\n').next().unwrap();
        let mut needles = Needles::new(&[KEY, wrapping]).with_context(line);
        assert!(needles.add_stream(&content[line.len() + 1..]), "the wrapping key is the one that was derived here");
        needles.add("passphrase", WORDS);
        for block in &memory {
            let words: &[u64] = block.as_ref();
            needles.add("memory of Argon2", &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
        }
        let mut lines = Vec::new();
        for block in blocks {
            lines.extend(
                needles.find(block.content).map(|find| format!("{} at {} of {}", find.what, find.at, block.len)),
            );
        }
        lines
    }
}

/// A waker that does nothing is enough where nothing is pending.
#[test]
fn a_reader_that_is_dropped_while_it_waits() {
    let _alone = alone();
    let stream = stream(64 * KIB, &plaintext(200 * KIB));
    assert_wipes("a reader that waits", needles(), |kept| {
        for arrived in [50, 84, 1000, 70_000, 150_000] {
            let (mut client, server) = tokio::io::duplex(MIB);
            block_on(client.write_all(&stream[..arrived])).unwrap();
            let mut reader = DecryptReader::new(server, key());
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(bytes)) = Pin::new(&mut reader).poll_fill_buf(&mut cx).map_ok(<[u8]>::len) {
                Pin::new(&mut reader).consume(bytes.min(20_000));
            }
        }
        kept.stream(stream.clone());
    });
}
