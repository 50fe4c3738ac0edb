//! What it costs to read a few bytes out of the middle of a large encrypted file.
//!
//! ```text
//! cargo bench --bench random_access
//! ```
//!
//! `RangeReader::read_range` of 4 KiB at random places of a 1 GiB file stands next to the least that any reader has to do for
//! it: one positioned read of the chunk that holds them, and opening that chunk in place. The bare read is done twice: on this
//! thread, and on the blocking pool, as an async program has to do it. Then, what it costs to open a file of 4 GiB and read
//! its first byte, next to one of 4 MiB.
//!
//! The files are in the page cache, or the disk would be all that is measured. (Needs 5 GiB in the folder for temporary files,
//! which `TMPDIR` names. Unix only: Windows has other positioned reads.) Machines drift between two benchmarks, so the sides take turns, and what is printed is the median
//! over many pairs of the ratio of their times, with the range of its middle half.

use std::{
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aes_gcm::{Aes256Gcm, KeyInit, Tag, aead::AeadInOut};
use agcm::{Key, PositionedFile, RangeReader, SeekReader, encrypt_file};
use tokio::{
    io::AsyncReadExt,
    runtime::{Builder, Runtime},
    task::spawn_blocking,
};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
const CHUNK: usize = 64 * 1024;
const RANGE: usize = 4096;
const PAIRS: usize = 2001;

/// Does it once; returns the time it took.
type Run<'a> = Box<dyn FnMut() -> Duration + 'a>;

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// A simple generator of places, which is all that is needed of it.
struct Places(u64);

impl Places {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % end
    }
}

/// Ranges of 4 KiB, each within one chunk.
fn place(places: &mut Places, len: u64) -> u64 {
    places.below(len / CHUNK as u64) * CHUNK as u64 + places.below((CHUNK - RANGE) as u64)
}

fn ranges<'a>(runtime: &'a Runtime, path: &Path, key: &Key) -> Run<'a> {
    let reader = runtime.block_on(async {
        let file = PositionedFile::open(path).await.expect("the file is there");
        RangeReader::open(file, key).await.expect("the stream opens")
    });
    let mut places = Places(1);
    Box::new(move || {
        let start = place(&mut places, reader.len());
        timed(|| {
            let range = runtime.block_on(reader.read_range(start..start + RANGE as u64));
            black_box(range.expect("the stream is intact"));
        })
    })
}

/// A bare chunk in the file's place: its plaintext does not matter, only that it opens.
struct Bare {
    file: Arc<File>,
    chunks: u64,
    cipher: Aes256Gcm,
    sealed: Vec<u8>,
    tag: Tag,
    places: Places,
}

impl Bare {
    fn new(path: &Path) -> Self {
        let file = File::open(path).expect("the file is there");
        let chunks = file.metadata().expect("it has a length").len() / (CHUNK as u64 + 20);
        let cipher = Aes256Gcm::new(&[1; 32].into());
        let mut sealed = vec![0; CHUNK];
        let tag = cipher
            .encrypt_inout_detached(&[7; 12].into(), b"", sealed.as_mut_slice().into())
            .expect("64 KiB can be sealed");
        Self { file: Arc::new(file), chunks, cipher, sealed, tag, places: Places(2) }
    }

    /// Where the next read is.
    fn at(&mut self) -> u64 {
        80 + self.places.below(self.chunks) * (CHUNK as u64 + 20)
    }

    fn open(&self, chunk: &mut [u8]) {
        let opened = self.cipher.decrypt_inout_detached(&[7; 12].into(), b"", chunk.into(), &self.tag);
        black_box(opened).expect("what was sealed opens");
    }
}

/// What was read is replaced by a chunk that opens, which is not timed.
fn bare(path: &Path) -> Run<'static> {
    let mut bare = Bare::new(path);
    let mut chunk = vec![0; CHUNK];
    Box::new(move || {
        let at = bare.at();
        let read = timed(|| bare.file.read_exact_at(&mut chunk, at).expect("the file can be read"));
        chunk.copy_from_slice(&bare.sealed);
        read + timed(|| bare.open(&mut chunk))
    })
}

fn bare_on_the_pool<'a>(runtime: &'a Runtime, path: &Path) -> Run<'a> {
    let mut bare = Bare::new(path);
    Box::new(move || {
        let (at, file) = (bare.at(), bare.file.clone());
        let mut chunk = Vec::new();
        let read = timed(|| {
            let read = spawn_blocking_on(runtime, move || {
                let mut chunk = vec![0; CHUNK];
                file.read_exact_at(&mut chunk, at).map(|()| chunk)
            });
            chunk = read.expect("the file can be read");
        });
        chunk.copy_from_slice(&bare.sealed);
        read + timed(|| bare.open(&mut chunk))
    })
}

fn spawn_blocking_on<T: Send + 'static>(runtime: &Runtime, work: impl FnOnce() -> T + Send + 'static) -> T {
    runtime.block_on(async { spawn_blocking(work).await.expect("it does not panic") })
}

fn first_byte_by_range<'a>(runtime: &'a Runtime, path: &'a Path, key: &'a Key) -> Run<'a> {
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let file = PositionedFile::open(path).await.expect("the file is there");
                let reader = RangeReader::open(file, key).await.expect("the stream opens");
                black_box(reader.read_range(0..1).await.expect("the stream is intact"));
            });
        })
    })
}

fn first_byte_by_seek<'a>(runtime: &'a Runtime, path: &'a Path, key: &'a Key) -> Run<'a> {
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let file = tokio::fs::File::open(path).await.expect("the file is there");
                let mut reader = SeekReader::open(file, key).await.expect("the stream opens");
                black_box(reader.read_u8().await.expect("the stream is intact"));
            });
        })
    })
}

/// Prints the median of `ours / other`, in turn, and the range of its middle half.
fn compare(what: &str, mut ours: Run<'_>, mut other: Run<'_>) {
    let (mut times, mut ratios): (Vec<Duration>, Vec<f64>) = (0..PAIRS)
        .map(|_| {
            let (ours, other) = (ours(), other());
            (ours, ours.as_secs_f64() / other.as_secs_f64())
        })
        .unzip();
    times.sort();
    ratios.sort_by(f64::total_cmp);
    let [low, median, high] = [PAIRS / 4, PAIRS / 2, PAIRS * 3 / 4].map(|i| ratios[i]);
    println!("    {what:58} {median:.2}  ({low:.2} ..= {high:.2})   {:.1?}", times[PAIRS / 2]);
}

fn sealed(runtime: &Runtime, folder: &Path, key: &Key, len: u64) -> PathBuf {
    let (plain, sealed) = (folder.join("plain"), folder.join(format!("{len}.agcm")));
    File::create(&plain).and_then(|file| file.set_len(len)).expect("a sparse file can be made");
    runtime.block_on(encrypt_file(&plain, &sealed, key)).expect("there is room for the file");
    std::fs::remove_file(plain).expect("it was there");
    sealed
}

fn main() {
    // Nobody who only tests or lists benchmarks wants figures, or gigabytes on the disk.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime can be built");
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let key = Key::generate();
    let [small, medium, large] = [4 * MIB, GIB, 4 * GIB].map(|len| sealed(&runtime, folder.path(), &key, len));

    println!("times as ratios, pairwise (median, middle half), and the median time of the first:");
    let by_range = || ranges(&runtime, &medium, &key);
    compare("read_range of 4 KiB / bare read and open, this thread", by_range(), bare(&medium));
    compare("read_range of 4 KiB / bare read on the pool, and open", by_range(), bare_on_the_pool(&runtime, &medium));
    compare(
        "RangeReader, open and first byte: 4 GiB / 4 MiB",
        first_byte_by_range(&runtime, &large, &key),
        first_byte_by_range(&runtime, &small, &key),
    );
    compare(
        "SeekReader, open and first byte: 4 GiB / 4 MiB",
        first_byte_by_seek(&runtime, &large, &key),
        first_byte_by_seek(&runtime, &small, &key),
    );
}
