//! How much of the bare cipher's speed is left after the stream around it.
//!
//! ```text
//! cargo bench --bench throughput
//! ```
//!
//! Each adapter stands next to the `aes-gcm` crate sealing or opening the same 64 KiB chunks in place, on warm memory, on one
//! thread; the cost of starting and finishing the stream is part of its figure. Criterion gives the throughput of each.
//! Machines drift between two benchmarks, so what is to be quoted are the ratios printed at the end: both sides in turn, a
//! millisecond or less each, and the median over many such pairs.
//!
//! Streams of 512 KiB stay in the second-level cache, as data does that a program has just produced. Streams of 4 MiB do not,
//! and a reader of one pays for fetching it besides, which the cipher, working in place, hides behind its arithmetic.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aes_gcm::{Aes256Gcm, KeyInit, Tag, aead::AeadInOut};
use agcm::{DecryptReader, DecryptWriter, EncryptReader, EncryptWriter, Key};
use criterion::{Criterion, Throughput};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

const CHUNK: usize = 64 * 1024;
/// How many chunks a stream has: of 512 KiB, and of 4 MiB.
const STREAMS: [usize; 2] = [8, 64];
const NONCE: [u8; 12] = [7; 12];

/// Pushes one stream through; returns the time it took.
type Run<'a> = Box<dyn FnMut() -> Duration + 'a>;

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn bare_seal(chunks: usize) -> Run<'static> {
    let cipher = Aes256Gcm::new(&[1; 32].into());
    let mut frames = vec![vec![0u8; CHUNK]; chunks];
    Box::new(move || {
        timed(|| {
            for chunk in &mut frames {
                let tag = cipher.encrypt_inout_detached(&NONCE.into(), b"", chunk.as_mut_slice().into());
                black_box(tag).expect("64 KiB can be sealed");
            }
        })
    })
}

fn bare_open(chunks: usize) -> Run<'static> {
    let cipher = Aes256Gcm::new(&[1; 32].into());
    let mut sealed = vec![0u8; CHUNK];
    let tag: Tag =
        cipher.encrypt_inout_detached(&NONCE.into(), b"", sealed.as_mut_slice().into()).expect("64 KiB can be sealed");
    let mut frames = vec![sealed.clone(); chunks];
    Box::new(move || {
        frames.iter_mut().for_each(|chunk| chunk.copy_from_slice(&sealed)); // not timed
        timed(|| {
            for chunk in &mut frames {
                let opened = cipher.decrypt_inout_detached(&NONCE.into(), b"", chunk.as_mut_slice().into(), &tag);
                black_box(opened).expect("what was sealed opens");
            }
        })
    })
}

fn writer(runtime: &Runtime, chunks: usize) -> Run<'_> {
    let (key, chunk) = (Key::generate(), vec![0u8; CHUNK]);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let mut writer = EncryptWriter::new(tokio::io::sink(), &key);
                for _ in 0..chunks {
                    writer.write_all(&chunk).await.expect("a sink takes everything");
                }
                writer.shutdown().await.expect("a sink can be shut down");
            });
        })
    })
}

fn reader(runtime: &Runtime, chunks: usize) -> Run<'_> {
    let key = Key::generate();
    let stream = agcm::encrypt(&key, &vec![0u8; CHUNK * chunks]);
    let mut plaintext = vec![0u8; CHUNK];
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let mut reader = DecryptReader::new(&stream[..], &key);
                while black_box(reader.read(&mut plaintext).await).expect("the stream is intact") > 0 {}
            });
        })
    })
}

/// Takes all that a reader has in its buffer, over and over, until it ends.
async fn drain(mut reader: impl AsyncBufRead + Unpin) {
    loop {
        let n = black_box(reader.fill_buf().await).expect("neither memory nor stream is damaged").len();
        if n == 0 {
            break;
        }
        reader.consume(n);
    }
}

fn buffered_reader(runtime: &Runtime, chunks: usize) -> Run<'_> {
    let key = Key::generate();
    let stream = agcm::encrypt(&key, &vec![0u8; CHUNK * chunks]);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                drain(DecryptReader::new(&stream[..], &key)).await;
            });
        })
    })
}

fn pulling_encryptor(runtime: &Runtime, chunks: usize) -> Run<'_> {
    let key = Key::generate();
    let plaintext = vec![0u8; CHUNK * chunks];
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                drain(EncryptReader::new(&plaintext[..], &key)).await;
            });
        })
    })
}

fn pushed_decryptor(runtime: &Runtime, chunks: usize) -> Run<'_> {
    let key = Key::generate();
    let stream = agcm::encrypt(&key, &vec![0u8; CHUNK * chunks]);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let mut writer = DecryptWriter::new(tokio::io::sink(), &key);
                writer.write_all(&stream).await.expect("a sink takes everything");
                writer.shutdown().await.expect("the stream is whole");
            });
        })
    })
}

/// The median of `bare / ours`, in turn, and the range of its middle half.
fn share(mut ours: Run<'_>, mut bare: Run<'_>) -> (f64, f64, f64) {
    let mut ratios: Vec<f64> = (0..801).map(|_| bare().as_secs_f64() / ours().as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[400], ratios[200], ratios[600])
}

fn main() {
    let runtime = Builder::new_current_thread().build().expect("a runtime can be built");
    let mut criterion = Criterion::default().configure_from_args();
    for chunks in STREAMS {
        let mut group = criterion.benchmark_group(format!("{} KiB", chunks * CHUNK / 1024));
        group.throughput(Throughput::Bytes((chunks * CHUNK) as u64));
        let sides: [(&str, Run<'_>); 7] = [
            ("seal in place, aes-gcm", bare_seal(chunks)),
            ("EncryptWriter to sink", writer(&runtime, chunks)),
            ("EncryptReader, fill_buf", pulling_encryptor(&runtime, chunks)),
            ("open in place, aes-gcm", bare_open(chunks)),
            ("DecryptReader, read", reader(&runtime, chunks)),
            ("DecryptReader, fill_buf", buffered_reader(&runtime, chunks)),
            ("DecryptWriter to sink", pushed_decryptor(&runtime, chunks)),
        ];
        for (name, mut run) in sides {
            group.bench_function(name, |bencher| bencher.iter_custom(|n| (0..n).map(|_| run()).sum()));
        }
        group.finish();
    }
    criterion.final_summary();

    // Nobody who only tests or lists benchmarks wants figures.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    println!("share of the bare cipher's throughput, pairwise (median, middle half):");
    for chunks in STREAMS {
        let pairs = [
            ("EncryptWriter to sink", writer(&runtime, chunks), bare_seal(chunks)),
            ("EncryptReader, fill_buf", pulling_encryptor(&runtime, chunks), bare_seal(chunks)),
            ("DecryptReader, read", reader(&runtime, chunks), bare_open(chunks)),
            ("DecryptReader, fill_buf", buffered_reader(&runtime, chunks), bare_open(chunks)),
            ("DecryptWriter to sink", pushed_decryptor(&runtime, chunks), bare_open(chunks)),
        ];
        for (name, ours, bare) in pairs {
            let (median, low, high) = share(ours, bare);
            println!("    {:4} KiB  {name:24} {median:.3}  ({low:.3} ..= {high:.3})", chunks * CHUNK / 1024);
        }
    }
}
