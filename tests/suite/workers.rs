//! Several workers: the same streams, the same plaintext and the same errors as with one, and nothing held back.

use std::{
    fs,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use agcm::{
    DecryptOptions, DecryptReader, EncryptOptions, EncryptReader, EncryptWriter, Error, FileOptions, Key, Trailing,
    decrypt,
};
use futures::executor::block_on;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    runtime::{Builder, Runtime},
};

use crate::{
    drive::{OtherTask, busy_runtime, error, poll_flush, poll_once, poll_read, poll_shutdown, poll_write, taken},
    encrypt_writer::frames,
    folder::Folder,
    script::{Op, Reader, Script, Writer},
    streams::Stream,
    vectors::plaintext,
};

const MIB: usize = 1024 * 1024;

/// Of these there are twenty in a batch, so that both have an inside.
const CHUNK: usize = 50_000;
const BATCH: usize = 20 * CHUNK;

fn sealing(chunk_size: usize, workers: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(chunk_size).unwrap().workers(workers)
}

fn opening(workers: usize) -> DecryptOptions {
    DecryptOptions::new().workers(workers)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// The frames of a uniform stream.
fn uniform(len: usize, chunk_size: usize) -> Vec<usize> {
    let mut frames = vec![chunk_size; len / chunk_size];
    frames.extend((len % chunk_size > 0).then_some(len % chunk_size));
    frames
}

/// Asserts that a stream has these frames, and that one worker reads this plaintext out of it.
#[track_caller]
fn assert_holds(key: &Key, stream: &[u8], lengths: &[usize], plain: &[u8]) {
    assert!(frames(stream) == lengths, "the lengths of the frames");
    assert!(decrypt(key, stream).unwrap() == plain);
}

/// Fails a test that would hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it waits for what will not come")
}

#[test]
fn the_stream_is_the_same_whatever_the_sizes() {
    let key = Key::generate();
    let plain = plaintext(11 * MIB);
    let around = |chunk: usize, more: &[usize]| {
        let mut lens = vec![0, 1, chunk - 1, chunk, chunk + 1];
        lens.extend_from_slice(more);
        lens
    };
    let batches = |chunk: usize| {
        let batch = MIB / (chunk + 20) * chunk;
        around(chunk, &[batch - 1, batch, batch + 1, 2 * batch + chunk / 2])
    };
    let mut workers = [2, 3, 8, 0].into_iter().cycle();
    let mut pieces = [usize::MAX, 1013, 70_001, MIB + 7, 65_536].into_iter().cycle();
    let runtime = runtime();
    for (chunk, lens) in [
        (1, vec![0, 1, 2, 28_339, 28_340, 200_000]),
        (1000, batches(1000)),
        (4096, batches(4096)),
        (65_536, batches(65_536)),
        (100_000, batches(100_000)),
        (MIB + 1, around(MIB + 1, &[3 * MIB + 3, 4 * MIB])),
        (10 * MIB, vec![0, 1, 10 * MIB, 10 * MIB + 1]),
    ] {
        for len in lens {
            let (workers, piece) = (workers.next().unwrap(), pieces.next().unwrap());
            let (plain, lengths) = (&plain[..len], uniform(len, chunk));
            assert_holds(&key, &sealing(chunk, workers).encrypt(&key, plain), &lengths, plain);
            println!("{len} bytes in chunks of {chunk} by {workers} workers, in pieces of {piece}");
            runtime.block_on(async {
                let mut writer = EncryptWriter::with_options(Vec::new(), &key, &sealing(chunk, workers));
                for piece in plain.chunks(piece) {
                    writer.write_all(piece).await.unwrap();
                }
                writer.shutdown().await.unwrap();
                let written = writer.into_inner();
                assert_holds(&key, &written, &lengths, plain);

                let mut read = Vec::with_capacity(written.len());
                let mut reader = EncryptReader::with_options(plain, &key, &sealing(chunk, workers));
                reader.read_to_end(&mut read).await.unwrap();
                assert_holds(&key, &read, &lengths, plain);

                for buffered in [false, true] {
                    let (opened, result, rest) = open(&key, &read[..], &opening(workers), buffered).await;
                    result.unwrap();
                    assert!(opened == plain && rest.is_empty());
                }
                assert!(opening(workers).decrypt(&key, &read).unwrap() == plain);
            });
        }
    }
}

/// All that a reader of a stream releases, what was wrong with it, and its inner reader.
async fn open<R: AsyncRead + Unpin>(
    key: &Key,
    inner: R,
    options: &DecryptOptions,
    buffered: bool,
) -> (Vec<u8>, Result<(), Error>, R) {
    let mut reader = DecryptReader::with_options(inner, key, options);
    let mut released = Vec::new();
    let result = if buffered {
        tokio::io::copy_buf(&mut reader, &mut released).await.map(drop)
    } else {
        reader.read_to_end(&mut released).await.map(drop)
    };
    let result = result.map_err(|error| Error::from_io(&error).unwrap());
    if let Err(error) = result {
        for _ in 0..2 {
            let again = reader.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(Error::from_io(&again), Some(error), "it is sticky");
        }
    } else {
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0, "an end of file stays one");
    }
    (released, result, reader.into_inner())
}

#[test]
fn the_inner_writer_may_take_little_or_be_pending() {
    let key = Key::generate();
    let plain = plaintext(5 * BATCH / 2 + 7);
    for ops in [
        vec![Op::Some(7777)],
        vec![Op::Some(100_000), Op::Pending],
        vec![Op::Pending, Op::Some(1), Op::Some(300_000), Op::Pending, Op::Pending],
    ] {
        for workers in [2, 3] {
            runtime().block_on(async {
                let inner = Writer::new(Script::repeat(ops.clone()));
                let mut writer = EncryptWriter::with_options(inner, &key, &sealing(CHUNK, workers));
                for piece in plain.chunks(123_456) {
                    writer.write_all(piece).await.unwrap();
                }
                writer.shutdown().await.unwrap();
                assert_holds(&key, &writer.into_inner().data, &uniform(plain.len(), CHUNK), &plain);
            });
        }
    }
}

#[test]
fn after_an_inner_error_a_retry_goes_on_where_it_stopped() {
    let key = Key::generate();
    let plain = plaintext(5 * BATCH / 2 + 7);
    let failures = [(Op::Error(ErrorKind::TimedOut), ErrorKind::TimedOut), (Op::Zero, ErrorKind::WriteZero)];
    // Some 17 calls take all of it. The failure at each of them in turn, and once at none.
    for position in 0..20 {
        let (op, kind) = failures[position % 2];
        let mut ops = vec![Op::Some(150_003); position];
        ops.push(op);
        ops.resize(100, Op::Some(150_003));
        runtime().block_on(async {
            let inner = Writer::new(Script::once(ops));
            let mut writer = EncryptWriter::with_options(inner, &key, &sealing(CHUNK, 2 + position % 3));
            let (mut failed, mut rest) = (0, &plain[..]);
            while !rest.is_empty() {
                // Flushed as well now and then, so that a failure is met by either.
                let flushed = if rest.len() % 3 == 0 { writer.flush().await } else { Ok(()) };
                let result = match flushed {
                    Ok(()) => writer.write(&rest[..rest.len().min(77_777)]).await,
                    Err(error) => Err(error),
                };
                match result {
                    Ok(n) => rest = &rest[n..],
                    Err(error) => {
                        assert_eq!(error.kind(), kind);
                        failed += 1;
                    }
                }
            }
            while let Err(error) = writer.shutdown().await {
                assert_eq!(error.kind(), kind);
                failed += 1;
            }
            let inner = writer.into_inner();
            assert_eq!(failed, usize::from(position < inner.writes.len()), "position {position}");
            assert_holds(&key, &inner.data, &uniform(plain.len(), CHUNK), &plain);
        });
    }
}

/// What was made of a stream, and its parts.
struct Damage<'a> {
    stream: &'a Stream,
    /// Where each data frame begins, and where the final one does.
    starts: Vec<usize>,
}

impl<'a> Damage<'a> {
    fn of(stream: &'a Stream) -> Self {
        Self { stream, starts: (0..=stream.frames.len()).map(|i| stream.start_of(i).0).collect() }
    }

    fn flip(&self, at: usize) -> Vec<u8> {
        let mut bytes = self.stream.bytes.clone();
        bytes[at] ^= 1;
        bytes
    }

    fn frame(&self, i: usize) -> &[u8] {
        &self.stream.bytes[self.starts[i]..self.starts[i + 1]]
    }

    /// With other frames, or none, in the place of frames `i` and after, of which there are `n`.
    fn replace(&self, i: usize, n: usize, frames: &[&[u8]]) -> Vec<u8> {
        let bytes = &self.stream.bytes;
        [&bytes[..self.starts[i]], &frames.concat(), &bytes[self.starts[i + n]..]].concat()
    }

    /// Everything that is done to the frames at these places, and around them.
    fn all(&self, places: &[usize]) -> Vec<Vec<u8>> {
        let (bytes, last) = (&self.stream.bytes, self.starts.len() - 1);
        let mut all = Vec::new();
        for at in [0, 10, 22, 24, 27, 30, 60, 79] {
            all.push(self.flip(at));
            all.push(bytes[..at].to_vec());
        }
        for &i in places {
            let (start, end) = (self.starts[i], self.starts[i + 1]);
            all.extend([start + 3, start + 4, end - 17, end - 1].map(|at| self.flip(at)));
            all.extend([start, start + 4, end - 1].map(|at| bytes[..at].to_vec()));
            all.push(self.replace(i, 1, &[]));
            all.push(self.replace(i, 0, &[self.frame(i)]));
            if i + 1 < last {
                all.push(self.replace(i, 2, &[self.frame(i + 1), self.frame(i)]));
            }
            // The end too soon, and with it whatever is wrong behind it; and two things wrong, of which the first counts.
            all.push(self.replace(i, 0, &[&bytes[self.starts[last]..]]));
            let mut twice = self.flip(start + 10);
            twice[self.starts[last] + 3] ^= 1;
            all.push(twice);
            let mut twice = self.flip(self.starts[last] + 10);
            twice[start + 10] ^= 1;
            all.push(twice);
        }
        for at in [0, 3, 4, 20, 36] {
            all.push(self.flip(self.starts[last] + at));
            all.push(bytes[..self.starts[last] + at].to_vec());
        }
        all.push([&bytes[..], b"x"].concat());
        all
    }
}

#[test]
fn damage_shows_as_it_does_to_one_worker() {
    let key = Key::generate();
    let uniform = Stream::uniform(&key, CHUNK, 2 * BATCH + 70_000);
    // Some 25 frames are in a batch of this one.
    let cut: Vec<usize> = (0..65).map(|i| if i % 3 == 0 { CHUNK } else { 1 + i * 7919 % CHUNK }).collect();
    let irregular = Stream::of_frames(&key, CHUNK, &cut);
    assert!(irregular.plaintext.len() > 2 * BATCH - CHUNK);
    let scripts = [
        Script::default(),
        Script::repeat([Op::Some(30_011), Op::Some(4), Op::Pending]),
        Script::repeat([Op::Pending, Op::Some(MIB), Op::Some(3)]),
    ];
    let mut turn = 0;
    let runtime = runtime();
    // The first frame is opened alone, the twenty behind it together.
    for (stream, places) in [(&uniform, [0, 1, 20, 21, 41]), (&irregular, [0, 13, 26, 28, 64])] {
        for damaged in Damage::of(stream).all(&places) {
            let expected = block_on(open(&key, &damaged[..], &opening(1).trailing(Trailing::Reject), false));
            assert!(stream.plaintext.starts_with(&expected.0));
            turn += 1;
            let inner = Reader::new(&damaged, scripts[turn % 3].clone());
            let options = opening(2 + turn / 2 % 2).trailing(Trailing::Reject);
            let (released, result, _) = runtime.block_on(open(&key, inner, &options, turn % 2 == 0));
            assert_eq!(result, expected.1, "{options:?}");
            assert!(released == expected.0, "{} and {} bytes", released.len(), expected.0.len());
            if turn % 2 == 0 {
                assert_eq!(opening(2 + turn / 2 % 2).decrypt(&key, &damaged).map(drop), expected.1, "by a one-shot");
            }
        }
    }
}

#[test]
fn a_one_shot_leaves_what_it_may_leave() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, CHUNK, 2 * BATCH + 7);
    let joined = [&stream.bytes[..], b"next"].concat();
    let at = stream.bytes.len() as u64;
    for workers in [1, 2, 3] {
        assert_eq!(opening(workers).decrypt(&key, &joined).map(drop), Err(Error::TrailingData { at }));
        let leave = opening(workers).trailing(Trailing::Leave);
        assert!(leave.decrypt(&key, &joined).unwrap() == stream.plaintext);
        let mut damaged = joined.clone();
        for at in [BATCH, 2 * BATCH + 600] {
            damaged[at] ^= 1;
        }
        let frame = BATCH / (CHUNK + 20);
        let first = Error::Corrupt { frame: frame as u64, at: stream.start_of(frame).0 as u64 };
        assert_eq!(leave.decrypt(&key, &damaged).map(drop), Err(first), "whoever finds its own first");
    }
}

/// From this much on, a file is worked on by several.
const LARGE_FILE: usize = 4 * MIB;

#[tokio::test]
async fn files_are_the_same_whatever_the_sizes() {
    let (key, folder) = (Key::generate(), Folder::new());
    let (plain, sealed, again) = (folder.path("plain"), folder.path("sealed"), folder.path("again"));
    let content = plaintext(LARGE_FILE + 3 * MIB);
    let mut workers = [2, 3, 8, 0, 1].into_iter().cycle();
    for (chunk, lens) in [
        (65_536, vec![LARGE_FILE - 1, LARGE_FILE, LARGE_FILE + 1, LARGE_FILE + 65_536, LARGE_FILE + 99_999]),
        (CHUNK, vec![84 * CHUNK - 1, 84 * CHUNK, 84 * CHUNK + 1, 85 * CHUNK, 110 * CHUNK]),
        (MIB + 1, vec![LARGE_FILE, 4 * MIB + 4, 4 * MIB + 5, 5 * MIB + 4, 6 * MIB + 100]),
        (1000, vec![LARGE_FILE + 1001]),
    ] {
        for len in lens {
            let (n, m, content) = (workers.next().unwrap(), workers.next().unwrap(), &content[..len]);
            fs::write(&plain, content).unwrap();
            let files =
                FileOptions::new().overwrite(true).encrypt_options(sealing(chunk, n)).decrypt_options(opening(m));
            assert_eq!(files.encrypt_file(&plain, &sealed, &key).await.unwrap(), len as u64);
            assert_holds(&key, &fs::read(&sealed).unwrap(), &uniform(len, chunk), content);
            assert_eq!(files.verify_file(&sealed, &key).await.unwrap(), len as u64);
            assert_eq!(files.decrypt_file(&sealed, &again, &key).await.unwrap(), len as u64);
            assert!(fs::read(&again).unwrap() == content, "{len} bytes in chunks of {chunk}, {n} and {m}");
        }
    }
    folder.assert_holds(&["again", "plain", "sealed"]);
}

#[tokio::test]
async fn damage_to_a_file_shows_as_it_does_to_one_worker() {
    let (key, folder) = (Key::generate(), Folder::new());
    let sealed = folder.path("sealed");
    let uniform = Stream::uniform(&key, CHUNK, 90 * CHUNK + 7);
    // Full chunks, which are read by several; then others between them, and full ones again.
    let mut lengths = vec![CHUNK; 95];
    (lengths[40], lengths[70], lengths[71]) = (CHUNK - 1, 3, 5);
    let irregular = Stream::of_frames(&key, CHUNK, &lengths);
    let mut turn = 0;
    for (stream, places, skip) in [(&uniform, [1, 6, 90], 16), (&irregular, [0, 40, 93], 17)] {
        let damaged = Damage::of(stream).all(&places);
        // What is wrong with the start is wrong for every file, large or not. Every other of the rest will do.
        for damaged in damaged.iter().skip(skip).step_by(2).chain([&stream.bytes]) {
            fs::write(&sealed, damaged).unwrap();
            let expected = opening(1).decrypt(&key, damaged).map(|plaintext| plaintext.len() as u64);
            turn += 1;
            let files = FileOptions::new().decrypt_options(opening(2 + turn % 2));
            let result = match turn % 3 {
                0 => files.decrypt_file(&sealed, folder.path("never"), &key).await,
                _ => files.verify_file(&sealed, &key).await,
            };
            assert_eq!(result.map_err(|error| Error::from_io(&error).unwrap()), expected);
            if turn % 3 == 0 && expected.is_ok() {
                assert!(fs::read(folder.path("never")).unwrap() == stream.plaintext);
                fs::remove_file(folder.path("never")).unwrap();
            }
            folder.assert_holds(&["sealed"]);
        }
    }
    fs::write(&sealed, &irregular.bytes).unwrap();
    for workers in [1, 2, 3] {
        let files = FileOptions::new().overwrite(true).decrypt_options(opening(workers));
        files.decrypt_file(&sealed, folder.path("again"), &key).await.unwrap();
        assert!(fs::read(folder.path("again")).unwrap() == irregular.plaintext, "{workers} workers");
    }
}

#[test]
fn the_byte_after_the_stream_is_left_unread() {
    let key = Key::generate();
    let runtime = runtime();
    let lens = [0, 1, CHUNK, CHUNK + 1, BATCH, BATCH + 1, 2 * BATCH - 1, 5 * BATCH + 7];
    let streams = lens.map(|len| Stream::uniform(&key, CHUNK, len));
    let joined: Vec<u8> = streams.iter().flat_map(|stream| &stream.bytes).copied().collect();
    for script in [
        Script::default(),
        Script::repeat([Op::Some(20_000), Op::Pending]),
        Script::repeat([Op::Some(400_000), Op::Some(1), Op::Some(3)]),
    ] {
        for workers in [2, 3] {
            let mut inner = Reader::new(&joined, script.clone());
            for stream in &streams {
                let before = inner.data.len();
                let (released, result, rest) =
                    runtime.block_on(open(&key, inner, &opening(workers), stream.bytes.len() % 2 == 0));
                result.unwrap();
                assert!(released == stream.plaintext);
                assert_eq!(before - rest.data.len(), stream.bytes.len());
                inner = rest;
            }
            assert!(inner.data.is_empty());
        }
    }
}

#[test]
fn not_a_byte_too_many_is_read_however_few_there_are() {
    let key = Key::generate();
    for len in [0, 1, 16, 17, 100] {
        let stream = Stream::uniform(&key, 16, len);
        let joined = [&stream.bytes[..], &[0; 100]].concat();
        for script in [
            Script::repeat([Op::Some(1)]),
            Script::repeat([Op::Some(1), Op::Pending]),
            // To the end of a frame, and not to the end of the word behind it.
            Script::once([Op::Some(84), Op::Some(32)]),
            Script::once([Op::Some(84), Op::Some(32), Op::Pending, Op::Some(36), Op::Pending]),
        ] {
            for buffered in [false, true] {
                let inner = Reader::new(&joined, script.clone());
                let (released, result, rest) = block_on(open(&key, inner, &opening(2), buffered));
                result.unwrap();
                assert_eq!((released, rest.data), (stream.plaintext.clone(), &[0; 100][..]));
            }
        }
    }
}

#[test]
fn with_reject_the_end_is_withheld_until_nothing_follows() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, CHUNK, BATCH + 7);
    let mut inner = Reader::new(&stream.bytes, Script::default());
    let mut reader = DecryptReader::with_options(
        Stalling { inner: &mut inner, stalled: false },
        &key,
        &opening(2).trailing(Trailing::Reject),
    );
    let mut read = Vec::new();
    while let Poll::Ready(bytes) = poll_read(&mut reader, 99_999) {
        let bytes = bytes.unwrap();
        assert!(!bytes.is_empty(), "an end of file too soon");
        read.extend(bytes);
    }
    assert!(read == stream.plaintext);
    assert!(poll_read(&mut reader, 99).is_pending());
    reader.get_mut().stalled = true;
    assert!(matches!(poll_read(&mut reader, 99), Poll::Ready(Ok(bytes)) if bytes.is_empty()));
}

/// Is pending at the end of its data, until it is told that it was.
struct Stalling<'a, 'b> {
    inner: &'a mut Reader<'b>,
    stalled: bool,
}

impl AsyncRead for Stalling<'_, '_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.inner.data.is_empty() && !self.stalled {
            return Poll::Pending;
        }
        Pin::new(&mut *self.inner).poll_read(cx, buf)
    }
}

#[test]
fn complete_frames_are_not_held_back_for_what_follows() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, CHUNK, 4 * BATCH + 7);
    // Exactly to the end of a frame, or some way into the one behind it.
    for frames in [1, 2, 20, 21, 45] {
        for more in [0, 4, 5, 10_000] {
            let end = stream.start_of(frames).0;
            if end + more > stream.bytes.len() - 37 {
                continue;
            }
            let mut inner = Reader::new(&stream.bytes[..end + more], Script::default());
            let inner = Stalling { inner: &mut inner, stalled: false };
            let mut reader = DecryptReader::with_options(inner, &key, &opening(2));
            let mut read = vec![0; frames * CHUNK];
            runtime().block_on(async {
                soon(reader.read_exact(&mut read)).await.unwrap();
                assert!(poll_once(reader.read(&mut [0; 9])).is_pending());
                assert!(poll_once(reader.fill_buf()).is_pending());
            });
            assert!(stream.plaintext.starts_with(&read));
        }
    }
}

#[test]
fn a_chunk_arrives_although_its_peer_pauses_after_flush_chunk() {
    let key = Key::generate();
    let said = plaintext(3 * MIB);
    runtime().block_on(soon(async {
        let (near, far) = tokio::io::duplex(4 * MIB);
        let mut writer = EncryptWriter::with_options(near, &key, &sealing(CHUNK, 2));
        let mut reader = DecryptReader::with_options(far, &key, &opening(2));
        for len in [1, 5, CHUNK, CHUNK - 1, CHUNK + 1, BATCH - 1, BATCH, BATCH + 1, 3 * MIB, 2] {
            writer.write_all(&said[..len]).await.unwrap();
            writer.flush_chunk().await.unwrap();
            // The writer does nothing more: were the reader to wait for it, this would hang.
            let mut heard = vec![0; len];
            reader.read_exact(&mut heard).await.unwrap();
            assert!(said.starts_with(&heard));
        }
        writer.shutdown().await.unwrap();
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0);
    }));
}

#[test]
fn a_flush_writes_every_complete_frame_and_does_not_cut() {
    let key = Key::generate();
    for cut in [false, true] {
        let mut writer = EncryptWriter::with_options(Writer::default(), &key, &sealing(CHUNK, 2).cut_on_flush(cut));
        let (mut total, mut lengths, mut filled) = (0, Vec::new(), 0);
        let writes = [0, 5, CHUNK - 5, 2 * CHUNK, CHUNK + 1, 2 * CHUNK + 3, BATCH, 2 * BATCH + 7, 17 * CHUNK, 1];
        runtime().block_on(soon(async {
            for (i, len) in writes.into_iter().enumerate() {
                writer.write_all(&plaintext(BATCH * 3)[..len]).await.unwrap();
                writer.flush().await.unwrap();
                total += len;
                filled += len;
                while filled >= CHUNK {
                    lengths.push(CHUNK);
                    filled -= CHUNK;
                }
                if cut && filled > 0 {
                    lengths.push(std::mem::take(&mut filled));
                }
                let complete: usize = lengths.iter().map(|len| len + 20).sum();
                assert_eq!(writer.get_ref().data.len(), 80 + complete, "write {i}");
                assert_eq!(writer.get_ref().flushes, i + 1);
            }
            writer.shutdown().await.unwrap();
        }));
        lengths.extend((filled > 0).then_some(filled));
        let stream = writer.into_inner().data;
        assert!(frames(&stream) == lengths);
        assert_eq!(decrypt(&key, &stream).unwrap().len(), total);
    }
}

#[test]
fn a_flush_that_was_pending_goes_on() {
    let key = Key::generate();
    let plain = plaintext(2 * CHUNK + 5);
    let script = Script::once([Op::Stall, Op::Some(30), Op::Stall, Op::Some(CHUNK), Op::Stall]);
    let mut writer = EncryptWriter::with_options(Writer::new(script), &key, &sealing(CHUNK, 2));
    assert_eq!(taken(poll_write(&mut writer, &plain)), plain.len());
    for _ in 0..3 {
        assert!(poll_once(writer.flush_chunk()).is_pending());
    }
    // What comes meanwhile waits behind it.
    assert_eq!(taken(poll_write(&mut writer, &plain)), plain.len());
    assert!(poll_flush(&mut writer).is_ready());
    assert_eq!(writer.get_ref().data.len(), 80 + 4 * (CHUNK + 20) + 25);
    assert!(poll_shutdown(&mut writer).is_ready());
    assert_holds(&key, &writer.into_inner().data, &[CHUNK, CHUNK, 5, CHUNK, CHUNK, 5], &[&plain[..], &plain].concat());
}

#[test]
fn what_leaves_together_leaves_in_one_write() {
    let key = Key::generate();
    for piece in [77_777, CHUNK] {
        let mut writer = EncryptWriter::with_options(Writer::default(), &key, &sealing(CHUNK, 2));
        block_on(async {
            for piece in plaintext(2 * BATCH + CHUNK + 5).chunks(piece) {
                writer.write_all(piece).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        assert_eq!(writer.get_ref().writes, [80 + BATCH + 400, BATCH + 400, CHUNK + 5 + 40 + 37]);
    }
    // And so does the end, with a batch that was full.
    let mut writer = EncryptWriter::with_options(Writer::default(), &key, &sealing(CHUNK, 2));
    block_on(async {
        writer.write_all(&plaintext(BATCH)).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    assert_eq!(writer.get_ref().writes, [80 + BATCH + 400 + 37]);
}

#[test]
fn complete_chunks_are_not_held_back_by_a_source_that_is_pending() {
    let key = Key::generate();
    let plain = plaintext(4 * BATCH);
    let lens = [CHUNK, CHUNK + 1, 2 * CHUNK, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 2 * CHUNK + 5];
    // The last has a frame that is shorter than a prelude, in a batch that was not the first.
    for (chunk, len) in lens.map(|len| (CHUNK, len)).into_iter().chain([(16, 4 * MIB / 36 * 16 + 16 + 5)]) {
        let mut inner = Reader::new(&plain[..len], Script::default());
        let inner = Stalling { inner: &mut inner, stalled: false };
        let mut reader = EncryptReader::with_options(inner, &key, &sealing(chunk, 2));
        let mut stream = vec![0; 80 + len / chunk * (chunk + 20)];
        runtime().block_on(async {
            soon(reader.read_exact(&mut stream)).await.unwrap();
            assert!(poll_once(reader.read(&mut [0; 9])).is_pending());
            reader.get_mut().stalled = true;
            soon(reader.read_to_end(&mut stream)).await.unwrap();
        });
        assert_holds(&key, &stream, &uniform(len, chunk), &plain[..len]);
    }
}

#[test]
fn an_error_of_the_source_passes_after_what_came_before_it() {
    let key = Key::generate();
    let plain = plaintext(BATCH + 3 * CHUNK + 7);
    let runtime = runtime();
    // A chunk takes three of these pieces.
    for position in [0, 1, 3, 4, 6, 59, 60, 61, 63, 70] {
        let mut ops = vec![Op::Some(20_000); position];
        ops.push(Op::Error(ErrorKind::ConnectionReset));
        ops.resize(200, Op::Some(20_000));
        let mut before = Vec::new();
        for workers in [1, 2, 3] {
            let inner = Reader::new(&plain, Script::once(ops.clone()));
            let mut reader = EncryptReader::with_options(inner, &key, &sealing(CHUNK, workers));
            let mut stream = Vec::new();
            runtime.block_on(async {
                let failed = soon(reader.read_to_end(&mut stream)).await.unwrap_err();
                assert_eq!(failed.kind(), ErrorKind::ConnectionReset);
                before.push(stream.len());
                soon(reader.read_to_end(&mut stream)).await.unwrap();
            });
            assert_holds(&key, &stream, &uniform(plain.len(), CHUNK), &plain);
        }
        let first = before[0];
        assert_eq!(before, [first; 3], "what was given out before the error at {position}");
    }
}

#[test]
fn an_error_below_a_reader_passes_after_what_came_before_it() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, CHUNK, 2 * BATCH + 7);
    let runtime = runtime();
    for position in [0, 1, 2, 3, 5, 40, 43, 79] {
        let mut ops = vec![Op::Some(30_000); position];
        ops.push(Op::Error(ErrorKind::ConnectionReset));
        let mut before = Vec::new();
        for workers in [1, 2, 3] {
            let inner = Reader::new(&stream.bytes, Script::once(ops.clone()));
            let mut reader = DecryptReader::with_options(inner, &key, &opening(workers));
            let mut read = Vec::new();
            runtime.block_on(async {
                let failed = soon(reader.read_to_end(&mut read)).await.unwrap_err();
                assert_eq!(failed.kind(), ErrorKind::ConnectionReset);
                before.push(read.len());
                soon(tokio::io::copy_buf(&mut reader, &mut read)).await.unwrap();
            });
            assert!(read == stream.plaintext);
        }
        let first = before[0];
        assert_eq!(before, [first; 3], "what was released before the error at {position}");
    }
}

#[test]
fn pieces_of_any_size_and_mixed_with_fill_buf() {
    let key = Key::generate();
    let plain = plaintext(BATCH + 3 * CHUNK + 7);
    runtime().block_on(async {
        for size in [1001, CHUNK, CHUNK + 20, BATCH, 3 * MIB] {
            let mut piece = vec![0; size];
            let inner = Reader::new(&plain, Script::repeat([Op::Some(33_333), Op::Pending]));
            let mut reader = EncryptReader::with_options(inner, &key, &sealing(CHUNK, 2));
            let mut stream = Vec::new();
            loop {
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
            assert_holds(&key, &stream, &uniform(plain.len(), CHUNK), &plain);

            let inner = Reader::new(&stream, Script::repeat([Op::Some(44_444), Op::Pending]));
            let mut reader = DecryptReader::with_options(inner, &key, &opening(2));
            let mut read = Vec::new();
            loop {
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
            assert!(read == plain);
        }
    });
}

#[test]
fn what_was_shown_stays_until_it_is_consumed() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, CHUNK, 3 * BATCH);
    let inner = Reader::new(&stream.bytes, Script::repeat([Op::Some(400_000), Op::Pending]));
    let mut reader = DecryptReader::with_options(inner, &key, &opening(2));
    runtime().block_on(async {
        let mut read = 0;
        while read < stream.plaintext.len() {
            let shown = reader.fill_buf().await.unwrap().to_vec();
            assert!(stream.plaintext[read..].starts_with(&shown));
            for _ in 0..2 {
                match Pin::new(&mut reader).poll_fill_buf(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(again) => assert!(again.unwrap() == shown),
                    Poll::Pending => panic!("it was there"),
                }
            }
            reader.consume(shown.len());
            read += shown.len();
        }
    });
}

#[test]
fn while_an_opened_batch_is_taken_nothing_is_read() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, CHUNK, 3 * BATCH);
    // The first frame, which is opened by itself, and a batch.
    let (end, _) = stream.start_of(21);
    let mut inner = Reader::new(&stream.bytes[..end], Script::default());
    let inner = Stalling { inner: &mut inner, stalled: false };
    let mut reader = DecryptReader::with_options(inner, &key, &opening(2));
    runtime().block_on(async {
        let mut read = vec![0; 2 * CHUNK];
        reader.read_exact(&mut read).await.unwrap();
        // More has come meanwhile.
        reader.get_mut().inner.data = &stream.bytes[end..];
        let polls = reader.get_ref().inner.polls;
        for _ in 2..21 {
            reader.read_exact(&mut read[..CHUNK]).await.unwrap();
            assert_eq!(reader.get_ref().inner.polls, polls);
        }
        reader.get_mut().stalled = true;
        read.clear();
        reader.read_to_end(&mut read).await.unwrap();
        assert!(read == stream.plaintext[21 * CHUNK..]);
    });
}

#[test]
fn a_batch_goes_on_being_filled_while_another_one_is_sealed() {
    let key = Key::generate();
    let plain = plaintext(3 * BATCH);
    // A batch and three chunks, nothing, and then all the rest.
    let source = Reader::new(&plain, Script::once([[Op::Some(CHUNK); 23].as_slice(), &[Op::Stall]].concat()));
    let mut reader = EncryptReader::with_options(source, &key, &sealing(CHUNK, 2));
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        assert!(poll_once(reader.fill_buf()).is_pending());
        drop(release);
        for len in [80 + BATCH + 400, BATCH + 400] {
            assert_eq!(reader.fill_buf().await.unwrap().len(), len);
            reader.consume(len);
        }
    });
}

#[test]
fn while_a_sealed_batch_is_taken_nothing_is_read() {
    let key = Key::generate();
    let plain = plaintext(3 * BATCH);
    // A batch, nothing, and then all the rest.
    let source = Reader::new(&plain, Script::once([[Op::Some(CHUNK); 20].as_slice(), &[Op::Pending]].concat()));
    let mut reader = EncryptReader::with_options(source, &key, &sealing(CHUNK, 2));
    let mut stream = vec![0; 80 + BATCH + 400];
    // Where there is no runtime, it is sealed at once.
    block_on(async {
        for piece in stream.chunks_mut(CHUNK) {
            reader.read_exact(piece).await.unwrap();
            assert_eq!(reader.get_ref().polls, 21, "as long as there was something, and no more");
        }
        reader.read_to_end(&mut stream).await.unwrap();
    });
    assert_holds(&key, &stream, &uniform(plain.len(), CHUNK), &plain);
}

/// What a batch holds of an irregular stream may be a little less than what it has room for.
#[test]
fn where_the_next_frame_would_not_fit_into_a_batch_it_goes_into_another_one() {
    let key = Key::generate();
    // There is room for two of these in a batch, and for the word behind them.
    let chunk = 500_000;
    for more in 0..10 {
        let lens = [chunk, chunk / 2, chunk / 2 - 20 + more, chunk, chunk, chunk, 1];
        let stream = Stream::of_frames(&key, chunk, &lens);
        runtime().block_on(async {
            let (opened, result, _) = open(&key, &stream.bytes[..], &opening(2), false).await;
            result.unwrap();
            assert!(opened == stream.plaintext);
        });
    }
}

#[test]
fn frames_that_were_shown_do_not_go_away_again_to_be_sealed_with_others() {
    let key = Key::generate();
    let plain = plaintext(2 * BATCH);
    // Two of them are not worth being handed over.
    let chunk = 20_000;
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        // Two chunks, and all the others as soon as it is asked again.
        let source = Reader::new(&plain, Script::once([Op::Some(chunk), Op::Some(chunk), Op::Stall]));
        let mut reader = EncryptReader::with_options(source, &key, &sealing(chunk, 2));
        let mut stream = Vec::new();
        for taken in [0, 10] {
            for _ in 0..3 {
                match Pin::new(&mut reader).poll_fill_buf(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(shown) => assert_eq!(shown.unwrap().len(), 80 + 2 * (chunk + 20) - taken),
                    Poll::Pending => panic!("they were there"),
                }
            }
            if taken == 0 {
                stream.resize(10, 0);
                reader.read_exact(&mut stream).await.unwrap();
            }
        }
        drop(release);
        reader.read_to_end(&mut stream).await.unwrap();
        assert_holds(&key, &stream, &uniform(plain.len(), chunk), &plain);
    });
}

#[test]
fn futures_that_are_dropped_lose_and_take_nothing() {
    let key = Key::generate();
    let plain = plaintext(4 * BATCH + 7);
    runtime().block_on(async {
        let inner = Writer::new(Script::repeat([Op::Some(200_000), Op::Pending]));
        let mut writer = EncryptWriter::with_options(inner, &key, &sealing(CHUNK, 2));
        let mut rest = &plain[..];
        while !rest.is_empty() {
            match poll_once(writer.write(&rest[..rest.len().min(300_000)])) {
                Poll::Ready(taken) => rest = &rest[taken.unwrap()..],
                Poll::Pending => tokio::task::yield_now().await,
            }
            if let Poll::Ready(flushed) = poll_once(writer.flush()) {
                flushed.unwrap();
            }
        }
        while poll_once(writer.finish()).is_pending() {
            tokio::task::yield_now().await;
        }
        let stream = writer.into_inner().data;
        assert_holds(&key, &stream, &uniform(plain.len(), CHUNK), &plain);

        let inner = Reader::new(&stream, Script::repeat([Op::Some(200_000), Op::Pending]));
        let mut reader = DecryptReader::with_options(inner, &key, &opening(2));
        let (mut read, mut piece) = (Vec::new(), vec![0; 70_000]);
        loop {
            match poll_once(reader.read(&mut piece)) {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(n) => read.extend_from_slice(&piece[..n.unwrap()]),
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        assert!(read == plain);
    });
}

#[test]
fn dropping_in_the_middle_finishes_nothing_and_holds_up_nobody() {
    let key = Key::generate();
    let plain = plaintext(5 * BATCH);
    let stream = Stream::uniform(&key, CHUNK, 5 * BATCH);
    let runtime = runtime();
    for written in [0, 1, CHUNK, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, 5 * BATCH] {
        for flush in [false, true] {
            let mut data = Vec::new();
            runtime.block_on(async {
                let mut writer = EncryptWriter::with_options(&mut data, &key, &sealing(CHUNK, 2));
                writer.write_all(&plain[..written]).await.unwrap();
                if flush {
                    writer.flush().await.unwrap();
                }
            });
            let at = data.len() as u64;
            assert_eq!(decrypt(&key, &data), Err(Error::Truncated { at }));
        }
        runtime.block_on(async {
            let mut piece = vec![0; written];
            let mut reader = DecryptReader::with_options(&stream.bytes[..], &key, &opening(3));
            let _ = poll_once(reader.read(&mut [0; 9]));
            drop(reader);
            let mut reader = DecryptReader::with_options(&stream.bytes[..], &key, &opening(3));
            reader.read_exact(&mut piece).await.unwrap();
            drop(reader);
            let mut reader = EncryptReader::with_options(&plain[..], &key, &sealing(CHUNK, 3));
            let _ = poll_once(reader.read(&mut [0; 9]));
            reader.read_exact(&mut piece).await.unwrap();
        });
    }
    // The runtime waits for what is under way, and for nothing else.
    drop(runtime);
}

#[test]
fn a_finish_that_has_begun_goes_on() {
    let key = Key::generate();
    let plain = plaintext(3 * BATCH + 5);
    let (runtime, release) = busy_runtime();
    let mut writer = EncryptWriter::with_options(Writer::default(), &key, &sealing(CHUNK, 2));
    runtime.block_on(async {
        let mut rest = &plain[..];
        while !rest.is_empty() {
            let n = taken(poll_write(&mut writer, rest));
            rest = &rest[n..];
        }
        for _ in 0..3 {
            assert!(poll_once(writer.finish()).is_pending());
            assert!(poll_shutdown(&mut writer).is_pending());
        }
        drop(release);
        writer.finish().await.unwrap();
        assert_eq!(Error::from_io(&error(poll_write(&mut writer, b"x"))), Some(Error::Finished));
        writer.shutdown().await.unwrap();
    });
    assert_eq!(writer.get_ref().closes, 1);
    assert_holds(&key, &writer.into_inner().data, &uniform(plain.len(), CHUNK), &plain);
}

#[test]
fn while_the_pool_is_busy_a_writer_takes_what_it_may_hold_and_no_more() {
    let key = Key::generate();
    let plain = plaintext(8 * BATCH);
    for workers in [2, 3] {
        let (runtime, release) = busy_runtime();
        let mut writer = EncryptWriter::with_options(Writer::default(), &key, &sealing(CHUNK, workers));
        runtime.block_on(async {
            let mut total = 0;
            while let Poll::Ready(n) = poll_write(&mut writer, &plain[total..]) {
                total += n.unwrap();
            }
            assert_eq!(total, 2 * workers * BATCH);
            for _ in 0..3 {
                assert!(poll_write(&mut writer, &plain[total..]).is_pending());
                assert!(poll_flush(&mut writer).is_pending());
                assert!(poll_shutdown(&mut writer).is_pending());
            }
            assert_eq!(writer.get_ref().polls, 0);
            drop(release);
            writer.write_all(&plain[total..]).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        assert_holds(&key, &writer.into_inner().data, &uniform(plain.len(), CHUNK), &plain);
    }
}

#[test]
fn while_the_pool_is_busy_readers_take_what_they_may_hold_and_no_more() {
    let key = Key::generate();
    let plain = plaintext(8 * BATCH);
    let stream = Stream::uniform(&key, CHUNK, plain.len());
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        let inner = Reader::new(&stream.bytes, Script::default());
        let mut reader = DecryptReader::with_options(inner, &key, &opening(2));
        let (mut read, mut piece) = (0, vec![0; CHUNK]);
        for _ in 0..10 {
            if let Poll::Ready(n) = poll_once(reader.read(&mut piece)) {
                read += n.unwrap();
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(read, CHUNK, "the first alone, which is short");
        let held = stream.bytes.len() - reader.get_ref().data.len() - 80 - (CHUNK + 20);
        assert_eq!(held, 4 * (BATCH + 400) + 4, "and the word behind");

        let inner = Reader::new(&plain, Script::default());
        let mut encrypting = EncryptReader::with_options(inner, &key, &sealing(CHUNK, 2));
        // More than once, since it gives way to others.
        for _ in 0..10 {
            assert!(poll_once(encrypting.read(&mut piece)).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(plain.len() - encrypting.get_ref().data.len(), 4 * BATCH);

        // Nobody vouches yet for the first chunk of this one, so it comes alone.
        let large = Stream::uniform(&key, 100_000, 3 * MIB);
        let mut untrusted =
            DecryptReader::with_options(Reader::new(&large.bytes, Script::default()), &key, &opening(2));
        assert!(poll_once(untrusted.read(&mut piece)).is_pending());
        assert_eq!(large.bytes.len() - untrusted.get_ref().data.len(), 80 + 100_020 + 4);

        drop(release);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest == plain[CHUNK..]);
        let mut sealed = Vec::new();
        encrypting.read_to_end(&mut sealed).await.unwrap();
        assert_holds(&key, &sealed, &stream.frames, &plain);
        let mut opened = Vec::new();
        untrusted.read_to_end(&mut opened).await.unwrap();
        assert!(opened == large.plaintext);
    });
}

#[test]
fn a_runtime_that_goes_away_costs_nothing() {
    let key = Key::generate();
    let plain = plaintext(8 * BATCH + 5);
    let gone = runtime();
    let handle = gone.handle().clone();
    gone.shutdown_background();
    let _inside = handle.enter();
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &sealing(CHUNK, 3));
    block_on(async {
        writer.write_all(&plain).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let stream = writer.into_inner();
    assert_holds(&key, &stream, &uniform(plain.len(), CHUNK), &plain);
    let (released, result, _) = block_on(open(&key, &stream[..], &opening(3), true));
    result.unwrap();
    assert!(released == plain);
}

#[test]
fn abandoned_streams_hold_up_nobody() {
    let key = Key::generate();
    let plain = plaintext(4 * BATCH);
    let stream = Stream::uniform(&key, CHUNK, plain.len());
    runtime().block_on(soon(async {
        let mut writers: Vec<_> =
            (0..10).map(|_| EncryptWriter::with_options(Vec::new(), &key, &sealing(CHUNK, 2))).collect();
        let mut readers: Vec<_> =
            (0..10).map(|_| DecryptReader::with_options(&stream.bytes[..], &key, &opening(2))).collect();
        for (writer, reader) in writers.iter_mut().zip(&mut readers) {
            let mut total = 0;
            while let Poll::Ready(Ok(n @ 1..)) = poll_write(writer, &plain[total..]) {
                total += n;
            }
            let _ = poll_read(reader, 9);
            let _ = poll_read(reader, CHUNK);
        }
        // Never polled again.
        let mut writer = EncryptWriter::with_options(Vec::new(), &key, &sealing(CHUNK, 2));
        writer.write_all(&plain).await.unwrap();
        writer.shutdown().await.unwrap();
        let (released, result, _) = open(&key, &writer.into_inner()[..], &opening(2), false).await;
        result.unwrap();
        assert!(released == plain);
        drop((writers, readers));
    }));
}

/// Neither end of these is ever pending, so only the adapters can give way to other tasks.
#[test]
fn long_work_lets_other_tasks_run() {
    let key = Key::generate();
    runtime().block_on(async {
        let mut other = OtherTask::spawn();
        let chunk = plaintext(64);
        let mut writer = EncryptWriter::with_options(Vec::new(), &key, &sealing(64, 2));
        for _ in 0..1000 {
            writer.write_all(&chunk).await.unwrap();
        }
        for _ in 0..1000 {
            writer.write_all(&chunk[..9]).await.unwrap();
            writer.flush_chunk().await.unwrap();
        }
        writer.shutdown().await.unwrap();
        other.had_turns();
        let stream = writer.into_inner();
        for size in [9, 64, 1000] {
            let mut reader = DecryptReader::with_options(&stream[..], &key, &opening(2));
            let mut piece = vec![0; size];
            while reader.read(&mut piece).await.unwrap() > 0 {}
            other.had_turns();
        }
        let plain = plaintext(64_000);
        let mut reader = EncryptReader::with_options(&plain[..], &key, &sealing(64, 2));
        while reader.read(&mut [0; 1000]).await.unwrap() > 0 {}
        other.had_turns();
    });
}

#[tokio::test]
async fn what_it_reads_out_of_a_file_goes_into_a_file_whole() {
    let folder = tempfile::tempdir().unwrap();
    let plain = plaintext(3 * MIB + 1234);
    let [path, sealed] = ["plain", "sealed"].map(|name| folder.path().join(name));
    fs::write(&path, &plain).unwrap();
    let key = Key::generate();
    let mut file = tokio::fs::File::open(&path).await.unwrap();
    let target = tokio::fs::File::create(&sealed).await.unwrap();
    let mut writer = EncryptWriter::with_options(target, &key, &EncryptOptions::new().workers(2));
    tokio::io::copy(&mut file, &mut writer).await.unwrap();
    writer.shutdown().await.unwrap();
    let stream = fs::read(&sealed).unwrap();
    assert_holds(&key, &stream, &uniform(plain.len(), 65_536), &plain);

    let file = tokio::fs::File::open(&sealed).await.unwrap();
    let (released, result, _) = open(&key, file, &opening(2), true).await;
    result.unwrap();
    assert!(released == plain);

    let file = tokio::fs::File::open(&path).await.unwrap();
    let mut stream = Vec::new();
    let mut reader = EncryptReader::with_options(file, &key, &EncryptOptions::new().workers(2));
    tokio::io::copy_buf(&mut reader, &mut stream).await.unwrap();
    assert_holds(&key, &stream, &uniform(plain.len(), 65_536), &plain);
}
