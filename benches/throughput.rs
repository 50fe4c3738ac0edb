//! How much of the bare cipher's speed is left after the stream around it.
//!
//! ```text
//! cargo bench --bench throughput                           # with --features aws-lc-rs: on that, and beside it bare
//! cargo bench --bench throughput -- EncryptWriter          # only what has that in its name
//! ```
//!
//! Each adapter, the codec and the one-shots stand next to the bare AEAD of the same backend, which seals or opens as many bytes
//! in place, chunk by chunk, in the second-level cache; the cost of starting and finishing the streams is part of their figure.
//! Criterion gives the throughput of each. What is to be quoted are the ratios printed after that: see `common`.
//!
//! Streams of 512 KiB stay in the second-level cache, as data does that a program has just produced. Streams of 4 MiB do not,
//! and who reads one pays for fetching it besides.

mod common;

use std::{
    hint::black_box,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use agcm::{DecryptOptions, DecryptReader, EncryptWriter, Encryptor, Key};
use criterion::{Criterion, Throughput};
use serde_json::json;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWriteExt, ReadBuf},
    runtime::{Builder, Runtime},
};

use crate::common::{
    GIB, KIB, MIB, Results, Rounds, Run, Spread,
    bare::{self, BACKEND},
    only_tested,
    ours::{self, Shape, sealing},
    size, timed,
};

const CHUNK: usize = 64 * KIB;
const CHUNKS: [usize; 7] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 10 * MIB];
const STREAMS: [usize; 6] = [KIB, 16 * KIB, 256 * KIB, 4 * MIB, 64 * MIB, 256 * MIB];
/// What one ratio may take.
const BUDGET: Duration = Duration::from_millis(700);

/// A way to put streams of some shape through.
struct Way {
    name: &'static str,
    make: for<'a> fn(&'a Runtime, Shape) -> Run<'a>,
    /// What it is measured against.
    bare: fn(usize, usize) -> Run<'static>,
}

const WAYS: [Way; 11] = [
    Way {
        name: "EncryptWriter, written by the chunk",
        make: |runtime, shape| ours::writer(runtime, sealing(shape.chunk), shape, shape.chunk),
        bare: bare::seal,
    },
    Way {
        name: "EncryptWriter, written by 8 KiB",
        make: |runtime, shape| ours::writer(runtime, sealing(shape.chunk), shape, 8 * KIB),
        bare: bare::seal,
    },
    Way {
        name: "EncryptReader, fill_buf",
        make: |runtime, shape| ours::pulling_encryptor(runtime, sealing(shape.chunk), shape),
        bare: bare::seal,
    },
    Way { name: "FrameEncoder", make: |_, shape| ours::frame_encoder(shape), bare: bare::seal },
    Way { name: "encrypt", make: |_, shape| ours::sealed_at_once(sealing(shape.chunk), shape), bare: bare::seal },
    Way {
        name: "DecryptReader, fill_buf",
        make: |runtime, shape| ours::buffered_reader(runtime, DecryptOptions::new(), shape),
        bare: bare::open,
    },
    Way {
        name: "DecryptReader, read by 64 KiB",
        make: |runtime, shape| ours::reader(runtime, DecryptOptions::new(), shape),
        bare: bare::open,
    },
    Way {
        name: "DecryptWriter",
        make: |runtime, shape| ours::pushed_decryptor(runtime, DecryptOptions::new(), shape),
        bare: bare::open,
    },
    Way { name: "FrameDecoder", make: |_, shape| ours::frame_decoder(shape), bare: bare::open },
    Way { name: "decrypt", make: |_, shape| ours::opened_at_once(DecryptOptions::new(), shape), bare: bare::open },
    // Against itself: how far off a ratio may be.
    Way { name: "bare AEAD", make: |_, shape| bare::seal(shape.piece(), shape.bytes()), bare: bare::seal },
];

fn main() {
    let runtime = Builder::new_current_thread().build().expect("a runtime can be built");
    let mut results = Results::new("throughput");
    if !results.are_kept() {
        for_criterion(&runtime);
    }
    // Nobody who only tests or lists benchmarks wants figures.
    if only_tested() {
        return;
    }
    println!("share of the speed of bare {BACKEND}, pairwise (median, middle half):");
    for way in &WAYS {
        for stream in [512 * KIB, 4 * MIB] {
            share(&mut results, &runtime, "adapters", way, Shape::new(CHUNK, stream));
        }
    }
    for way in &WAYS {
        for chunk in CHUNKS {
            share(&mut results, &runtime, "chunk sizes", way, Shape::new(chunk, (4 * chunk).max(4 * MIB)));
        }
    }
    for way in &WAYS {
        for stream in STREAMS {
            share(&mut results, &runtime, "stream lengths", way, Shape::new(CHUNK, stream));
        }
    }
    let short = Shape { chunk: CHUNK, stream: SHORT, times: STEP / SHORT };
    if results.wanted("EncryptWriter, long") {
        let others = [ours::writer(&runtime, sealing(CHUNK), short, CHUNK), bare::seal(CHUNK, STEP)];
        long(&mut results, "EncryptWriter, long", long_writer(&runtime), others);
    }
    if results.wanted("DecryptReader, long") {
        let others = [ours::buffered_reader(&runtime, DecryptOptions::new(), short), bare::open(CHUNK, STEP)];
        long(&mut results, "DecryptReader, long", long_reader(), others);
    }
}

fn for_criterion(runtime: &Runtime) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let shape = Shape::new(CHUNK, 4 * MIB);
    let mut group = criterion.benchmark_group(size(shape.stream));
    group.throughput(Throughput::Bytes(shape.bytes() as u64));
    let bare = [("seal in place", bare::seal(CHUNK, shape.stream)), ("open in place", bare::open(CHUNK, shape.stream))];
    for (name, mut run) in bare {
        let name = format!("{name}, {BACKEND}");
        group.bench_function(name, |bencher| bencher.iter_custom(|n| (0..n).map(|_| run()).sum()));
    }
    for way in &WAYS[..WAYS.len() - 1] {
        let mut run = (way.make)(runtime, shape);
        group.bench_function(way.name, |bencher| bencher.iter_custom(|n| (0..n).map(|_| run()).sum()));
    }
    group.finish();
    criterion.final_summary();
}

fn share(results: &mut Results, runtime: &Runtime, group: &str, way: &Way, shape: Shape) {
    let name = format!("{}: {} in chunks of {}", way.name, size(shape.stream), size(shape.chunk));
    // What the one-shots return is fresh memory, and where it is this much the system hands it out anew each time.
    let returned = matches!(way.name, "encrypt" | "decrypt") && shape.stream > 16 * MIB;
    if returned || !results.wanted(&name) {
        return;
    }
    let mut sides = [(way.make)(runtime, shape), (way.bare)(shape.piece(), shape.bytes())];
    let rounds = Rounds::take(shape.bytes(), BUDGET, 5, &mut sides);
    let details = json!({
        "way": way.name, "chunk": shape.chunk, "stream": shape.stream, "ours": rounds.rate(0), "base": rounds.rate(1),
    });
    results.add(group, &name, rounds.ratio(0, 1), details);
}

/// How far the one long stream goes on before the others have their turn, and how much those do then.
const STEP: usize = 128 * MIB;
const SHORT: usize = 16 * MIB;
const LONGEST: usize = 16 * GIB;

/// A stream of 16 GiB beside streams of 16 MiB, and beside the bare AEAD. The long one is made once, and stopped at each step
/// for the others to do as much: so one stream yields many pairs, and shows whether it slows down on its way.
fn long(results: &mut Results, name: &str, mut stream: Run<'_>, mut others: [Run<'_>; 2]) {
    others.iter_mut().for_each(|run| {
        run(); // which only warms memory up
    });
    let rounds: Vec<_> = (0..LONGEST / STEP).map(|_| (stream(), others[0](), others[1]())).collect();
    for length in [4 * GIB, LONGEST] {
        let rounds = || rounds[..length / STEP].iter();
        for (other, said) in [(0, "streams of 16 MiB"), (1, "the bare AEAD")] {
            let other = |round: &(Duration, Duration, Duration)| [round.1, round.2][other].as_secs_f64();
            let details = json!({
                "way": name, "chunk": CHUNK, "stream": length, "against": said,
                "ours": length as f64 / rounds().map(|round| round.0.as_secs_f64()).sum::<f64>(),
                "base": length as f64 / rounds().map(other).sum::<f64>(),
            });
            let ratio = Spread::of(rounds().map(|round| other(round) / round.0.as_secs_f64()));
            results.add("long streams", &format!("{name}: {} against {said}", size(length)), ratio, details);
        }
    }
}

/// Each call goes a step further in one stream.
fn long_writer(runtime: &Runtime) -> Run<'_> {
    let mut writer = EncryptWriter::new(tokio::io::sink(), &Key::generate());
    let chunk = vec![0; CHUNK];
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                for _ in 0..STEP / CHUNK {
                    writer.write_all(&chunk).await.expect("a sink takes everything");
                }
            });
        })
    })
}

/// Each call goes a step further in one stream, which is sealed a piece ahead, while no time is taken.
fn long_reader() -> Run<'static> {
    let key = Key::generate();
    let (mut encryptor, prelude) = Encryptor::start(&key, &sealing(CHUNK)).expect("there is randomness");
    let mut reader = DecryptReader::new(Piece { stream: prelude.to_vec(), read: 0 }, &key);
    read_piece(&mut reader);
    let chunk = vec![0; CHUNK];
    Box::new(move || {
        (0..STEP / SHORT)
            .map(|_| {
                let piece = reader.get_mut();
                piece.stream.clear();
                piece.read = 0;
                for _ in 0..SHORT / CHUNK {
                    encryptor.seal(&chunk, &mut piece.stream).expect("a stream can be this long");
                }
                timed(|| assert_eq!(read_piece(&mut reader), SHORT))
            })
            .sum()
    })
}

/// A stream in memory, of which only this piece has arrived.
struct Piece {
    stream: Vec<u8>,
    read: usize,
}

impl AsyncRead for Piece {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.stream[self.read..];
        if left.is_empty() {
            return Poll::Pending; // nobody waits: it is polled again when there is more
        }
        let n = left.len().min(buf.remaining());
        buf.put_slice(&left[..n]);
        self.read += n;
        Poll::Ready(Ok(()))
    }
}

/// All the plaintext of what has arrived; returns how much it was.
fn read_piece(reader: &mut DecryptReader<Piece>) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = 0;
    while let Poll::Ready(plaintext) = Pin::new(&mut *reader).poll_fill_buf(&mut cx) {
        let n = black_box(plaintext).expect("the stream is intact").len();
        Pin::new(&mut *reader).consume(n);
        read += n;
    }
    read
}
