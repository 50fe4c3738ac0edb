//! Many streams at once, and one that goes on for very long: what they hold in memory, and who waits for whom.
//!
//! ```text
//! cargo bench --bench load                          # streams and waits
//! cargo bench --bench load -- soak --gib 200        # 200 GiB through writer, socket and reader; several runs add up
//! ```
//!
//! `streams` opens 10 000 streams in one process, over pipes in memory and over loopback, each from an `EncryptWriter` to a
//! `DecryptReader`. When all of them are in the middle, they wait for each other and the memory of the process is looked at; when half
//! of all bytes have arrived, how far each has come. Every byte that arrives is compared.
//!
//! `waits` has tasks that only ask for their next turn, beside tasks that seal without ever having to wait. Between two turns of the
//! former lies what is said to be bounded: the turns of all who are before it in the queue, each with less than 2 MiB of work in
//! place. That is compared with the time that the bare AEAD takes for so much, in this run.
//!
//! `soak` fails if what arrives differs, or if the process holds more in the end than after its first GiB, by a MiB or more.

mod common;

use std::{
    env, fs, io,
    ops::Range,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use agcm::{DecryptReader, EncryptOptions, EncryptWriter, Key};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, simplex, sink},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::Barrier,
    task::{JoinSet, yield_now},
};

use crate::common::{
    GIB, KIB, MIB, Results, Spread,
    bare::{BACKEND, Bare, TAG},
    only_tested, size,
};

const STREAMS: usize = 10_000;
/// Of each of them.
const LENGTH: usize = MIB;
/// How much a pipe in memory holds, in bytes.
const PIPE: usize = 16 * KIB;

/// How long the tasks of one row seal.
const WAITING: Duration = Duration::from_secs(5);
/// What can be worked on in place before a task has to give way.
const TURN: usize = 2 * MIB;

fn main() -> ExitCode {
    if only_tested() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<_> = env::args().collect();
    let after = |name| {
        args.iter().skip_while(|arg| *arg != name).nth(1).map(|arg| arg.parse::<usize>().expect("it is a number"))
    };
    if let Some(gib) = after("--gib") {
        return runtime().block_on(soak(gib * GIB));
    }
    if let Some(row) = after("--row") {
        one_row(&ROWS[row]);
        return ExitCode::SUCCESS;
    }
    let mut results = Results::new("load");
    streams(&mut results);
    waits(&mut results);
    ExitCode::SUCCESS
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be built")
}

// Many streams at once.

struct Row {
    over: Over,
    chunk: usize,
    /// Otherwise the plaintext is sent as it is: what there is to be held without us.
    sealed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Memory,
    Loopback,
}

const ROWS: [Row; 6] = [
    Row { over: Over::Memory, chunk: 64 * KIB, sealed: false },
    Row { over: Over::Memory, chunk: 4 * KIB, sealed: true },
    Row { over: Over::Memory, chunk: 64 * KIB, sealed: true },
    Row { over: Over::Loopback, chunk: 64 * KIB, sealed: false },
    Row { over: Over::Loopback, chunk: 4 * KIB, sealed: true },
    Row { over: Over::Loopback, chunk: 64 * KIB, sealed: true },
];

/// Each row in a process of its own, for what one has freed is there for the next, whoever counts it.
fn streams(results: &mut Results) {
    if !results.wanted("streams") {
        return;
    }
    println!("{STREAMS} streams of {} at once ({BACKEND}):", size(LENGTH));
    for row in 0..ROWS.len() {
        let this = env::current_exe().expect("this program is somewhere");
        let status = Command::new(this).args(["--bench", "--row", &row.to_string()]).status();
        assert!(status.expect("it can be started again").success());
    }
}

fn one_row(row: &Row) {
    // Both ends of a connection are in this process, and a few files more.
    let streams = if row.over == Over::Memory { STREAMS } else { STREAMS.min((open_files() - 100) / 2) };
    let before = resident();
    let start = Instant::now();
    let seen = runtime().block_on(all_at_once(streams, row));
    let seconds = start.elapsed().as_secs_f64();
    let held = (seen.memory - before) as f64 / streams as f64 / KIB as f64;
    let [slowest, fastest] = [seen.arrived[0], seen.arrived[streams - 1]].map(|bytes| bytes / KIB as u64);
    let what = if row.sealed { format!("in chunks of {}", size(row.chunk)) } else { "not encrypted".into() };
    println!(
        "  over {:?}, {what}: {streams} streams, {held:.1} KiB held for each, {:.2} GiB/s in all; \
         when half had arrived, {slowest} to {fastest} KiB of each, fairness {:.3}",
        row.over,
        (streams * LENGTH) as f64 / GIB as f64 / seconds,
        fairness(&seen.arrived),
    );
}

/// What was seen of streams that ran at once.
struct Seen {
    /// When all of them were in the middle.
    memory: usize,
    /// How many bytes of each had arrived when half of all had, in order of size.
    arrived: Vec<u64>,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

async fn all_at_once(streams: usize, row: &Row) -> Seen {
    let (key, chunk) = (Key::generate(), row.chunk);
    let options = EncryptOptions::new().chunk_size(chunk).expect("a legal size");
    // Two for each stream, and whoever looks at them.
    let all_are_in_the_middle = Arc::new(Barrier::new(2 * streams + 1));
    let looked_at = Arc::new(Barrier::new(2 * streams + 1));
    let arrived: Arc<Vec<AtomicU64>> = Arc::new((0..streams).map(|_| AtomicU64::new(0)).collect());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback is there");
    let mut tasks = JoinSet::new();
    for stream in 0..streams {
        let (near, far): (Writer, Reader) = match row.over {
            Over::Memory => {
                let (far, near) = simplex(PIPE);
                (Box::new(near), Box::new(far))
            }
            Over::Loopback => {
                let near = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
                let (far, _) = listener.accept().await.expect("somebody connects");
                (Box::new(near), Box::new(far))
            }
        };
        // Of a chunk, to be in the middle of one on either side.
        let half = if row.sealed { chunk / 2 } else { 0 };
        let (mut writer, mut reader): (Writer, Reader) = if row.sealed {
            let writer = EncryptWriter::with_options(near, &key, &options);
            (Box::new(writer), Box::new(DecryptReader::new(far, &key)))
        } else {
            (near, far)
        };
        let barriers = [all_are_in_the_middle.clone(), looked_at.clone()];
        tasks.spawn(async move {
            let first = LENGTH / 4 + half;
            send(&mut writer, stream as u64, 0..first).await.expect("the other end reads");
            writer.flush().await.expect("the other end reads"); // all but the half of a chunk
            for barrier in barriers {
                barrier.wait().await;
            }
            send(&mut writer, stream as u64, first..LENGTH).await.expect("the other end reads");
            writer.shutdown().await.expect("the other end reads");
        });
        let barriers = [all_are_in_the_middle.clone(), looked_at.clone()];
        let arrived = arrived.clone();
        tasks.spawn(async move {
            // A part of a chunk stays where it was opened.
            let first = LENGTH / 4 - half;
            receive(&mut reader, stream as u64, 0..first, &arrived[stream]).await.expect("all arrives");
            for barrier in barriers {
                barrier.wait().await;
            }
            receive(&mut reader, stream as u64, first..LENGTH, &arrived[stream]).await.expect("all arrives");
            assert_eq!(reader.read_u8().await.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
        });
    }
    all_are_in_the_middle.wait().await;
    let memory = resident();
    looked_at.wait().await;
    let half = (streams * LENGTH / 2) as u64;
    let mut seen = Vec::new();
    while seen.iter().sum::<u64>() < half {
        yield_now().await;
        seen = arrived.iter().map(|bytes| bytes.load(Relaxed)).collect();
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no task panics");
    }
    seen.sort_unstable();
    Seen { memory, arrived: seen }
}

/// Jain's index (Jain, Chiu, Hawe, 1984): 1 if all have the same, 1/n if one has all.
fn fairness(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| (share as f64).powi(2)).sum();
    sum * sum / squares / shares.len() as f64
}

// Who waits, and for how long.

fn waits(results: &mut Results) {
    let runtime = runtime();
    // On two threads: nobody, one task that seals for each, and many.
    let rows = [64 * KIB, MIB - 1, MIB, 10 * MIB].into_iter().flat_map(|chunk| [2, 32].map(|busy| (chunk, busy)));
    for (chunk, busy) in rows.chain([(64 * KIB, 0_u32)]) {
        let name = format!("waits beside {busy} that seal chunks of {}", size(chunk));
        if !results.wanted(&name) {
            continue;
        }
        // In the second-level cache, as what a task seals is not: so this is the least it can take.
        let turn = bare_time(TURN);
        let before_it = busy.div_ceil(2).max(1);
        let waited = runtime.block_on(wait_beside(chunk, busy));
        // As if those that seal were shared out evenly, and long chunks were sealed in place, too.
        let yardstick = turn * before_it;
        let (longest, all) = (waited.last().copied().unwrap_or_default(), waited.len());
        let at = |per_mille: usize| waited[(all - 1) * per_mille / 1000];
        println!(
            "  {name}: median {:?}, 99.9 % {:?}, longest {longest:?} of {all}; {before_it} turns of {} would take the bare AEAD {yardstick:?}",
            at(500),
            at(999),
            size(TURN),
        );
    }
}

/// How long tasks waited for their next turn, in order of length, while others were sealing.
async fn wait_beside(chunk: usize, busy: u32) -> Vec<Duration> {
    let over = Arc::new(AtomicBool::new(false));
    let mut sealing = JoinSet::new();
    for _ in 0..busy {
        let over = over.clone();
        sealing.spawn(async move {
            let options = EncryptOptions::new().chunk_size(chunk).expect("a legal size");
            let mut writer = EncryptWriter::with_options(sink(), &Key::generate(), &options);
            let plaintext = vec![7; chunk];
            while !over.load(Relaxed) {
                writer.write_all(&plaintext).await.expect("a sink takes all");
            }
        });
    }
    let mut waiting = JoinSet::new();
    for _ in 0..4 {
        let over = over.clone();
        waiting.spawn(async move {
            let mut waited = Vec::new();
            while !over.load(Relaxed) {
                let since = Instant::now();
                yield_now().await;
                waited.push(since.elapsed());
            }
            waited
        });
    }
    tokio::time::sleep(WAITING).await;
    over.store(true, Relaxed);
    let mut waited: Vec<_> = waiting.join_all().await.into_iter().flatten().collect();
    sealing.join_all().await;
    waited.sort_unstable();
    waited
}

/// How long the bare AEAD takes for so many bytes, in frames of 64 KiB: the median of some attempts.
fn bare_time(len: usize) -> Duration {
    let (bare, mut frame) = (Bare::new(), vec![0; 64 * KIB + TAG]);
    let times = (0..51).map(|_| {
        let start = Instant::now();
        (0..len / (64 * KIB)).for_each(|_| bare.seal(&mut frame));
        start.elapsed().as_secs_f64()
    });
    Duration::from_secs_f64(Spread::of(times).median)
}

// One stream that goes on for long.

async fn soak(len: usize) -> ExitCode {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback is there");
    let near = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
    let (far, _) = listener.accept().await.expect("somebody connects");
    let key = Key::generate();
    let mut writer = EncryptWriter::new(near, &key);
    let sender = tokio::spawn(async move {
        send(&mut writer, 0, 0..len).await?;
        writer.shutdown().await
    });
    let arrived = Arc::new(AtomicU64::new(0));
    let (mut reader, counted) = (DecryptReader::new(far, &key), arrived.clone());
    let receiver = tokio::spawn(async move {
        receive(&mut reader, 0, 0..len, &counted).await?;
        // The final frame says that this was all of it.
        io::Result::Ok(reader.fill_buf().await?.is_empty())
    });
    let start = Instant::now();
    let mut settled: Option<usize> = None;
    let mut most = 0;
    let mut next = GIB as u64;
    while !receiver.is_finished() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (now, arrived) = (resident(), arrived.load(Relaxed));
        most = if settled.is_some() { most.max(now) } else { 0 };
        if arrived < next {
            continue;
        }
        let settled = *settled.get_or_insert(now);
        most = most.max(now);
        println!(
            "  {:4} GiB, {:5} s: {} KiB resident, {:+} KiB",
            arrived / GIB as u64,
            start.elapsed().as_secs(),
            now / KIB,
            (now as i64 - settled as i64) / KIB as i64,
        );
        next = arrived + (len as u64 / 20).max(GIB as u64);
    }
    sender.await.expect("no task panics").expect("the other end reads");
    let is_whole = receiver.await.expect("no task panics").expect("all arrives as it was sent");
    let grown = most as i64 - settled.unwrap_or_default() as i64;
    // Nothing is flat that was not looked at.
    let is_flat = settled.is_some_and(|settled| settled > 0) && grown < MIB as i64;
    println!(
        "{} through EncryptWriter, loopback and DecryptReader ({BACKEND}) in {} s: {}, memory {} (it grew by {} KiB at most, and was {} KiB)",
        size(len),
        start.elapsed().as_secs(),
        if is_whole { "whole and every byte as it was sent" } else { "NOT WHOLE" },
        if is_flat { "flat" } else { "NOT FLAT" },
        grown / KIB as i64,
        most / KIB,
    );
    if is_whole && is_flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// What is sent.

/// Sends a range of what is in a stream.
async fn send(writer: &mut (impl AsyncWrite + Unpin), stream: u64, range: Range<usize>) -> io::Result<()> {
    let mut piece = vec![0; 8 * KIB];
    for start in range.clone().step_by(piece.len()) {
        let piece = &mut piece[..(range.end - start).min(8 * KIB)];
        make(stream, start, piece);
        writer.write_all(piece).await?;
    }
    Ok(())
}

/// Receives a range of what is in a stream, and compares all of it.
async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    stream: u64,
    range: Range<usize>,
    arrived: &AtomicU64,
) -> io::Result<()> {
    let (mut piece, mut expected) = (vec![0; 8 * KIB], vec![0; 8 * KIB]);
    for start in range.clone().step_by(piece.len()) {
        let len = (range.end - start).min(8 * KIB);
        reader.read_exact(&mut piece[..len]).await?;
        make(stream, start, &mut expected[..len]);
        if piece[..len] != expected[..len] {
            return Err(io::Error::other(format!("stream {stream} has other bytes than were sent, from {start} on")));
        }
        arrived.fetch_add(len as u64, Relaxed);
    }
    Ok(())
}

/// No eight bytes of all streams are the same: number of the stream and place. `start` is a multiple of eight.
fn make(stream: u64, start: usize, bytes: &mut [u8]) {
    for (i, word) in bytes.chunks_mut(8).enumerate() {
        let number = (stream << 48) ^ (start / 8 + i) as u64;
        word.copy_from_slice(&number.to_le_bytes()[..word.len()]);
    }
}

// What the system says.

/// The memory of this process that is in use, in bytes; zero where it cannot be told.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|pages| pages.split(' ').nth(1)?.parse().ok());
    pages.unwrap_or(0) * 4 * KIB
}

/// How many files this process may have open.
fn open_files() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    usize::MAX
}
