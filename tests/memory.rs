//! What is allocated, by an allocator that counts. What is left in memory that is freed is looked at in `secrets/`.
//!
//! Counts are per thread, and what is counted runs on the thread of its test, so tests do not disturb each other. A block that
//! is resized counts for the difference: where the allocator has to move it, the old and the new exist together for a moment.
//!
//! Buffers that are kept for the next stream are not allocated anew, so each test begins without any, and no other runs beside it.

#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, unreachable_pub, reason = "shared with the suite")]
#[path = "support/reference.rs"]
mod reference;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, EncryptOptions, EncryptReader, EncryptWriter, Encryptor, Error, Key,
    RangeReader, SeekReader, legacy::GoReader,
};
use futures::executor::block_on;
use reference::go_stream;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, ReadBuf},
    runtime::{Builder, Runtime},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const CHUNK: usize = 64 * KIB;
const CHUNKS: usize = 256 * MIB / CHUNK;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LARGE: Cell<usize> = const { Cell::new(0) };
}

/// Keeps other tests away, and frees what they have left to be used again.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    let alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    // The first of its kind makes room for what is kept.
    let mut writer = EncryptWriter::new(tokio::io::sink(), &Key::generate());
    block_on(writer.shutdown()).unwrap();
    // And so does the first who asks for the number of cores: some systems have it in a file.
    let _ = EncryptOptions::new().workers(0);
    agcm::trim_memory();
    alone
}

fn count(old: usize, new: usize) {
    let held = HELD.get() + new as isize - old as isize;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
    ALLOCATIONS.set(ALLOCATIONS.get() + usize::from(new > 0));
    LARGE.set(LARGE.get() + usize::from(new >= CHUNK));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The peak and the number of allocations since it was made, beyond what was held then.
struct Since {
    held: isize,
    allocations: usize,
    large: usize,
}

impl Since {
    fn now() -> Self {
        PEAK.set(HELD.get());
        Self { held: HELD.get(), allocations: ALLOCATIONS.get(), large: LARGE.get() }
    }

    fn peak(&self) -> usize {
        usize::try_from(PEAK.get() - self.held).unwrap()
    }

    fn allocations(&self) -> usize {
        ALLOCATIONS.get() - self.allocations
    }

    /// How many of them were as large as a chunk.
    fn large(&self) -> usize {
        LARGE.get() - self.large
    }
}

/// A stream of any length that is made while it is read, without allocating.
struct Source {
    encryptor: Option<Encryptor>,
    frame: Vec<u8>,
    sent: usize,
    chunks: usize,
}

impl Source {
    fn new(key: &Key, chunks: usize) -> Self {
        let (encryptor, prelude) = Encryptor::start(key, &EncryptOptions::new()).unwrap();
        let mut frame = Vec::with_capacity(CHUNK + 20);
        frame.extend_from_slice(&prelude);
        Self { encryptor: Some(encryptor), frame, sent: 0, chunks }
    }
}

impl AsyncRead for Source {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.sent == this.frame.len() {
            this.sent = 0;
            this.frame.clear();
            if this.chunks > 0 {
                this.chunks -= 1;
                this.frame.resize(CHUNK + 20, 7);
                this.encryptor.as_mut().unwrap().seal_in_place(&mut this.frame)?;
            } else if let Some(encryptor) = this.encryptor.take() {
                this.frame.extend_from_slice(&encryptor.finish());
            }
        }
        let n = buf.remaining().min(this.frame.len() - this.sent);
        buf.put_slice(&this.frame[this.sent..this.sent + n]);
        this.sent += n;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_writer_holds_one_chunk_and_allocates_nothing_once_it_runs() {
    let _alone = alone();
    let (key, chunk) = (Key::generate(), vec![7; CHUNK]);
    let since = Since::now();
    let mut writer = EncryptWriter::new(tokio::io::sink(), &key);
    assert!(since.peak() < 256, "nothing to speak of before the first byte: {}", since.peak());
    block_on(async {
        writer.write_all(&chunk).await.unwrap();
        let running = Since::now();
        for _ in 1..CHUNKS {
            writer.write_all(&chunk).await.unwrap();
        }
        writer.write_all(b"part of a chunk").await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(running.allocations(), 0);
        writer.shutdown().await.unwrap();
    });
    assert!(since.peak() <= CHUNK + 4 * KIB, "{}", since.peak());
    agcm::trim_memory();
    let finished = Since::now();
    drop(writer);
    assert!(finished.held - HELD.get() < 256, "the buffer is given back when the stream is finished");
}

#[test]
fn a_reader_holds_one_chunk_and_allocates_nothing_once_it_runs() {
    let _alone = alone();
    let key = Key::generate();
    for buffered in [false, true] {
        let source = Source::new(&key, CHUNKS);
        let mut plaintext = vec![0; if buffered { 0 } else { CHUNK }];
        let since = Since::now();
        let mut reader = DecryptReader::new(source, &key);
        assert!(since.peak() < 256, "nothing to speak of before the first byte: {}", since.peak());
        let mut total = 0;
        block_on(async {
            let mut running = Since::now();
            loop {
                let n = if buffered {
                    let n = reader.fill_buf().await.unwrap().len();
                    reader.consume(n);
                    n
                } else {
                    reader.read(&mut plaintext).await.unwrap()
                };
                if n == 0 {
                    break;
                }
                total += n;
                // The first frame grows the buffer as it arrives; the second finds it as large as it gets.
                if total == 2 * CHUNK {
                    running.allocations = ALLOCATIONS.get();
                }
            }
            assert_eq!(running.allocations(), 0);
        });
        assert_eq!(total, CHUNKS * CHUNK);
        assert!(since.peak() <= CHUNK + 4 * KIB, "{}", since.peak());
    }
}

#[test]
fn a_pulling_encryptor_holds_one_chunk_and_allocates_nothing_once_it_runs() {
    let _alone = alone();
    let key = Key::generate();
    let since = Since::now();
    let mut reader = EncryptReader::new(tokio::io::repeat(7).take((CHUNKS * CHUNK + 5) as u64), &key);
    assert!(since.peak() < 256, "nothing to speak of before the first byte: {}", since.peak());
    let mut total = 0;
    block_on(async {
        let mut running = None;
        loop {
            let n = reader.fill_buf().await.unwrap().len();
            if n == 0 {
                break;
            }
            reader.consume(n);
            total += n;
            assert_eq!(running.get_or_insert_with(Since::now).allocations(), 0);
        }
    });
    assert_eq!(total, 117 + CHUNKS * (CHUNK + 20) + 25);
    assert!(since.peak() <= CHUNK + 4 * KIB, "{}", since.peak());
    agcm::trim_memory();
    let finished = Since::now();
    drop(reader);
    assert!(finished.held - HELD.get() < 256, "the buffer is given back when the stream is finished");
}

#[test]
fn a_pushed_decryptor_holds_one_chunk_and_allocates_nothing_once_it_runs() {
    let _alone = alone();
    let key = Key::generate();
    let mut source = Source::new(&key, CHUNKS);
    let mut piece = vec![0; 50_000];
    let since = Since::now();
    let mut writer = DecryptWriter::new(tokio::io::sink(), &key);
    assert!(since.peak() < 256, "nothing to speak of before the first byte: {}", since.peak());
    block_on(async {
        let mut running = Since::now();
        let mut total = 0;
        loop {
            let n = source.read(&mut piece).await.unwrap();
            if n == 0 {
                break;
            }
            writer.write_all(&piece[..n]).await.unwrap();
            total += n;
            if total < 3 * CHUNK {
                running = Since::now();
            }
        }
        assert_eq!(running.allocations(), 0);
        writer.shutdown().await.unwrap();
    });
    assert!(since.peak() <= CHUNK + 4 * KIB, "{}", since.peak());
}

/// As many streams at once as a busy server has: in the middle of a chunk on either side, with nothing for what is finished.
#[test]
fn ten_thousand_streams_at_once_hold_a_chunk_each() {
    const STREAMS: usize = 10_000;
    const CHUNK: usize = 4 * KIB;
    let _alone = alone();
    let (key, chunk) = (Key::generate(), [7; CHUNK]);
    let options = EncryptOptions::new().chunk_size(CHUNK).unwrap();
    let stream = options.encrypt(&key, &[7; 5 * CHUNK]);
    let mut writers = Vec::with_capacity(STREAMS);
    let mut readers = Vec::with_capacity(STREAMS);
    let since = Since::now();
    block_on(async {
        for _ in 0..STREAMS {
            let mut writer = EncryptWriter::with_options(tokio::io::sink(), &key, &options);
            let mut reader = DecryptReader::new(&stream[..], &key);
            for _ in 0..2 {
                writer.write_all(&chunk).await.unwrap();
                reader.read_exact(&mut [0; CHUNK]).await.unwrap();
            }
            writer.write_all(&chunk[..CHUNK / 2]).await.unwrap();
            reader.read_exact(&mut [0; CHUNK / 2]).await.unwrap();
            writers.push(writer);
            readers.push(reader);
        }
        assert!(since.peak() <= STREAMS * 2 * (CHUNK + 4 * KIB), "{} bytes", since.peak());
        assert!(since.peak() >= STREAMS * 2 * CHUNK, "they were in the middle");

        for (writer, reader) in writers.iter_mut().zip(&mut readers) {
            writer.write_all(&chunk).await.unwrap();
            writer.shutdown().await.unwrap();
            let mut rest = Vec::with_capacity(3 * CHUNK);
            assert_eq!(reader.read_to_end(&mut rest).await.unwrap(), 5 * CHUNK / 2);
        }
    });
    agcm::trim_memory();
    let finished = Since::now();
    let left = finished.held - since.held;
    assert!(left <= (STREAMS * KIB) as isize, "{left} bytes for streams that are finished");
}

/// The most that `workers` may hold: twice as many batches, and what says where they are.
fn batches(workers: usize) -> usize {
    2 * workers * (MIB + KIB) + 8 * KIB
}

/// As many as make some fifty batches.
const SOME_CHUNKS: usize = 50 * MIB / CHUNK;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

#[test]
fn a_writer_with_workers_holds_two_batches_for_each_and_makes_no_more_once_it_runs() {
    let _alone = alone();
    let (key, chunk) = (Key::generate(), vec![7; CHUNK]);
    let runtime = runtime();
    for workers in [2, 3] {
        agcm::trim_memory();
        let since = Since::now();
        let options = EncryptOptions::new().workers(workers);
        let mut writer = EncryptWriter::with_options(tokio::io::sink(), &key, &options);
        assert!(since.peak() < 512, "nothing to speak of before the first byte: {}", since.peak());
        runtime.block_on(async {
            writer.write_all(b"first").await.unwrap();
            assert_eq!(since.large(), 1, "no more batches than are needed");
            for _ in 0..SOME_CHUNKS {
                writer.write_all(&chunk).await.unwrap();
            }
            for _ in 0..SOME_CHUNKS / 2 {
                writer.write_all(&chunk).await.unwrap();
                writer.flush_chunk().await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        assert!(since.large() <= 2 * workers, "{} large allocations", since.large());
        assert!(since.peak() <= batches(workers), "{} for {workers} workers", since.peak());
        agcm::trim_memory();
        let finished = Since::now();
        drop(writer);
        assert!(finished.held - HELD.get() < KIB as isize, "all is given back when the stream is finished");
    }
}

#[test]
fn a_reader_with_workers_holds_two_batches_for_each_and_makes_no_more_once_it_runs() {
    let _alone = alone();
    let key = Key::generate();
    let runtime = runtime();
    for (workers, buffered) in [(2, false), (3, true)] {
        let source = Source::new(&key, SOME_CHUNKS);
        let mut plaintext = vec![0; if buffered { 0 } else { CHUNK }];
        agcm::trim_memory();
        let since = Since::now();
        let mut reader = DecryptReader::with_options(source, &key, &DecryptOptions::new().workers(workers));
        assert!(since.peak() < 512, "nothing to speak of before the first byte: {}", since.peak());
        let mut total = 0;
        runtime.block_on(async {
            loop {
                let n = if buffered {
                    let n = reader.fill_buf().await.unwrap().len();
                    reader.consume(n);
                    n
                } else {
                    reader.read(&mut plaintext).await.unwrap()
                };
                if n == 0 {
                    break;
                }
                total += n;
            }
        });
        assert_eq!(total, SOME_CHUNKS * CHUNK);
        // The buffer for the first frame has grown as it arrived.
        assert!(since.large() <= 2 * workers + 2, "{} large allocations", since.large());
        assert!(since.peak() <= batches(workers), "{} for {workers} workers", since.peak());
        agcm::trim_memory();
        let finished = Since::now();
        drop(reader);
        // The source has a buffer of its own.
        assert!(finished.held - HELD.get() < (CHUNK + 2 * KIB) as isize, "all is given back at the end");
    }
}

#[test]
fn a_pulling_encryptor_with_workers_holds_two_batches_for_each_and_makes_no_more_once_it_runs() {
    let _alone = alone();
    let key = Key::generate();
    let runtime = runtime();
    let since = Since::now();
    let source = tokio::io::repeat(7).take((SOME_CHUNKS * CHUNK + 5) as u64);
    let mut reader = EncryptReader::with_options(source, &key, &EncryptOptions::new().workers(2));
    assert!(since.peak() < 512, "nothing to speak of before the first byte: {}", since.peak());
    let total = runtime.block_on(tokio::io::copy_buf(&mut reader, &mut tokio::io::sink())).unwrap();
    assert_eq!(total, (117 + SOME_CHUNKS * (CHUNK + 20) + 25) as u64);
    assert!(since.large() <= 4, "{} large allocations", since.large());
    assert!(since.peak() <= batches(2), "{}", since.peak());
    agcm::trim_memory();
    let finished = Since::now();
    drop(reader);
    assert!(finished.held - HELD.get() < KIB as isize, "all is given back when the stream is finished");
}

#[test]
fn a_seeking_reader_holds_one_chunk_and_a_bounded_index() {
    let _alone = alone();
    let key = Key::generate();
    let stream = agcm::encrypt(&key, &vec![7; 16 * MIB]);
    let since = Since::now();
    let mut reader = block_on(SeekReader::open(io::Cursor::new(&stream), &key)).unwrap();
    assert!(since.peak() < 2 * KIB, "nothing to speak of before the first byte: {}", since.peak());
    block_on(async {
        reader.read_u8().await.unwrap();
        let running = Since::now();
        for at in [5 * MIB, 100, 16 * MIB - 1, 8 * MIB] {
            reader.seek(io::SeekFrom::Start(at as u64)).await.unwrap();
            reader.read_u8().await.unwrap();
        }
        assert_eq!(running.allocations(), 0);
    });
    assert!(since.peak() <= CHUNK + 4 * KIB, "{}", since.peak());

    // 100 000 frames, of which no more than 1024 places are kept.
    let (mut encryptor, prelude) = Encryptor::start(&key, &EncryptOptions::new()).unwrap();
    let mut stream = prelude.to_vec();
    for i in 0..100_000 {
        encryptor.seal(&[7; 3][..1 + i % 3], &mut stream).unwrap();
    }
    stream.extend_from_slice(&encryptor.finish());
    let since = Since::now();
    let mut reader = block_on(SeekReader::open(io::Cursor::new(&stream), &key)).unwrap();
    block_on(async {
        reader.seek(io::SeekFrom::End(-1)).await.unwrap();
        reader.read_u8().await.unwrap();
    });
    assert!(since.peak() <= CHUNK + 4 * KIB + 24 * KIB, "{}", since.peak());
}

#[test]
fn a_seeking_reader_never_grows_its_buffer() {
    let _alone = alone();
    // Of an irregular stream, the word behind a frame is read along with it.
    let key = Key::generate();
    let (mut encryptor, prelude) = Encryptor::start(&key, &EncryptOptions::new()).unwrap();
    let mut stream = prelude.to_vec();
    for len in [100, CHUNK, CHUNK, 5000, CHUNK, 3] {
        encryptor.seal(&vec![7; len], &mut stream).unwrap();
    }
    stream.extend_from_slice(&encryptor.finish());
    let mut reader = block_on(SeekReader::open(io::Cursor::new(&stream), &key)).unwrap();
    block_on(async {
        reader.read_u8().await.unwrap();
        let mut byte = [0];
        let running = Since::now();
        while reader.read(&mut byte).await.unwrap() > 0 {}
        // All but the index, of which there is a place for each of the six frames.
        assert!(running.peak() < 512, "{}", running.peak());
    });
}

#[test]
fn a_range_holds_what_is_returned_and_one_chunk() {
    let _alone = alone();
    let key = Key::generate();
    // Slices of this are not copied, so what a range has read does not count here.
    let source = bytes::Bytes::from(agcm::encrypt(&key, &vec![7; 4 * MIB]));
    let since = Since::now();
    let reader = block_on(RangeReader::open(source, &key)).unwrap();
    assert!(since.peak() < 2 * KIB, "{}", since.peak());
    for (start, end) in [(100, 4196), (CHUNK - 10, CHUNK + 10), (0, 4 * MIB), (5, 3 * MIB)] {
        let since = Since::now();
        let range = block_on(reader.read_range(start as u64..end as u64)).unwrap();
        assert_eq!(range.len(), end - start);
        assert!(since.peak() <= end - start + CHUNK + KIB, "{}", since.peak());
        let held = HELD.get() - since.held;
        assert!(
            held <= (end - start + KIB) as isize,
            "of a chunk that was needed in part, only that part is kept: {held}"
        );
    }
    // A forged header costs nothing here either: its ends are what is read.
    let forged = [&large_prelude(&key)[..], &[0x10, 0, 0xa0, 2], &[0; 500]].concat();
    let source = bytes::Bytes::from(forged);
    let since = Since::now();
    block_on(RangeReader::open(source, &key)).unwrap_err();
    assert!(since.peak() < 4 * KIB, "{}", since.peak());
}

/// A stream's prelude that announces the largest chunks.
fn large_prelude(key: &Key) -> Vec<u8> {
    let options = EncryptOptions::new().chunk_size(10 * MIB).unwrap();
    Encryptor::start(key, &options).unwrap().1.to_vec()
}

/// The first error of a stream, and the most that was held until then: by a reader with one worker, or with many, or by a
/// writer, whichever held more.
fn first_error(stream: &[u8], key: &Key) -> (Option<Error>, usize) {
    let since = Since::now();
    let mut reader = DecryptReader::new(stream, key);
    let mut byte = [0];
    let error = block_on(reader.read(&mut byte)).unwrap_err();
    let peak = since.peak();
    drop(reader);

    let since = Since::now();
    let mut reader = DecryptReader::with_options(stream, key, &DecryptOptions::new().workers(8));
    let by_workers = block_on(reader.read(&mut byte)).unwrap_err();
    assert_eq!(Error::from_io(&by_workers), Error::from_io(&error));
    let peak = peak.max(since.peak());
    drop(reader);

    let since = Since::now();
    let mut writer = DecryptWriter::new(tokio::io::sink(), key);
    let pushed = block_on(async {
        writer.write_all(stream).await?;
        writer.shutdown().await
    });
    assert_eq!(Error::from_io(&pushed.unwrap_err()), Error::from_io(&error));
    (Error::from_io(&error), peak.max(since.peak()))
}

#[test]
fn nothing_is_allocated_on_the_word_of_a_header() {
    let _alone = alone();
    let stream = large_prelude(&Key::generate());
    let (error, peak) = first_error(&stream, &Key::generate());
    assert_eq!(error, Some(Error::KeyMismatch));
    assert!(peak < 4 * KIB, "{peak}");
}

#[test]
fn nothing_is_allocated_on_the_word_of_a_frame() {
    let _alone = alone();
    let key = Key::generate();
    let mut stream = large_prelude(&key);
    // A data frame of 10 MiB and a tag.
    stream.extend_from_slice(&[0x10, 0, 0xa0, 2]);
    let (error, peak) = first_error(&stream, &key);
    assert_eq!(error, Some(Error::Truncated { at: 84 }));
    assert!(peak < 8 * KIB, "{peak}");
}

#[test]
fn until_a_frame_has_authenticated_memory_follows_what_has_arrived() {
    let _alone = alone();
    let key = Key::generate();
    let mut stream = EncryptOptions::new().chunk_size(MIB).unwrap().encrypt(&key, &vec![7; MIB]);
    let last = stream.len() - 37 - 1;
    stream[last] ^= 1;
    for arrived in [100, 5000, 20_000, 100_000, 500_000, stream.len()] {
        let (error, peak) = first_error(&stream[..arrived], &key);
        assert!(matches!(error, Some(Error::Truncated { .. } | Error::Corrupt { .. })));
        // Beside the buffer there is the expanded key, and a little more.
        assert!(peak <= 2 * arrived + 4 * KIB + 2 * KIB, "{peak} for {arrived}");
    }
}

#[test]
fn a_reader_of_go_streams_holds_what_has_arrived_and_then_one_chunk() {
    let _alone = alone();
    let key = Key::generate();
    let stream =
        go_stream(key.expose_bytes(), [7; 12], u32::try_from(MIB).unwrap(), &[&[7; 500_000], &[8; MIB - 1], &[9; 100]]);
    for arrived in [24, 28, 100, 5000, 20_000, 100_000] {
        for key in [&key, &Key::generate()] {
            let since = Since::now();
            let mut reader = GoReader::new(&stream[..arrived], key);
            let _ = block_on(reader.read(&mut [0])).map_err(drop);
            assert!(since.peak() <= 2 * arrived + 4 * KIB + 2 * KIB, "{} for {arrived}", since.peak());
        }
    }
    let (since, before) = (Since::now(), HELD.get());
    let mut reader = GoReader::new(&stream[..], &key);
    block_on(tokio::io::copy_buf(&mut reader, &mut tokio::io::sink())).unwrap();
    assert!(since.peak() <= MIB + 8 * KIB, "{}", since.peak());
    assert!(HELD.get() - before < 4 * KIB as isize, "nothing is kept at the end");
}
