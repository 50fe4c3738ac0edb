//! What throughput each chunk size gives on this machine.
//!
//! From memory to memory, so that it measures the work and not the disk; all sizes in turn, round by round, because the speed of
//! a machine drifts; and medians.

use std::{
    hint::black_box,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agcm::{DecryptOptions, DecryptReader, EncryptOptions, EncryptWriter, Key};
use indicatif::HumanBytes;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, copy_buf, sink},
};

use crate::{
    args::{Jobs, Size},
    failure::Failure,
    streams::Run,
};

const SIZES: [Size; 7] =
    [Size(4 << 10), Size(16 << 10), Size(64 << 10), Size(256 << 10), Size(1 << 20), Size(4 << 20), Size(10 << 20)];
/// How much is measured, in bytes.
const MOST: u64 = 16 << 20;
/// The first one only warms up.
const ROUNDS: usize = 10;
/// What is this close to the best counts as as good, in percent: two runs of the same differ by as much.
const MARGIN: u64 = 5;

/// One line of the table: throughputs in MiB/s.
#[derive(Debug, Clone, Copy)]
struct Line {
    size: Size,
    encrypt: u64,
    decrypt: u64,
}

pub(crate) async fn run(run: &Run, jobs: &Jobs, input: Option<PathBuf>) -> Result<(), Failure> {
    let data = match &input {
        Some(path) => {
            let reading = |error| Failure::from(error).about(&format!("reading {path:?}"));
            run.unless_cancelled(async { read(path).await.map_err(reading) }).await?
        }
        None => (0..MOST).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect(),
    };
    if data.is_empty() {
        return Err(Failure::usage("an empty file has no throughput: choose another one"));
    }
    let lines = run.unless_cancelled(measure(&data, jobs)).await?;
    let best = pick(&lines);
    let mut table = format!("{}\n", agcm::backend());
    let workers = match jobs.jobs {
        None | Some(1) => "one worker".to_owned(),
        Some(0) => "as many workers as cores".to_owned(),
        Some(n) => format!("{n} workers"),
    };
    table += &format!("{} from memory, {workers}, median of {} runs\n", HumanBytes(data.len() as u64), ROUNDS - 1);
    table += "chunk size   encrypt MiB/s   decrypt MiB/s   overhead\n";
    for Line { size, encrypt, decrypt } in &lines {
        let overhead = 100.0 * 20.0 / size.0 as f64;
        let mark = if *size == best { "  <- as fast as any, and the smallest" } else { "" };
        table += &format!("{:>10}   {encrypt:>13}   {decrypt:>13}   {overhead:>6.3} %{mark}\n", size.to_string());
    }
    run.print(format!("{table}agcm encrypt --chunk-size {best}\n")).await
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path).await?.take(MOST).read_to_end(&mut data).await?;
    Ok(data)
}

/// A chunk size that is measured.
struct Candidate {
    size: Size,
    options: EncryptOptions,
    stream: Vec<u8>,
    encrypt: Vec<Duration>,
    decrypt: Vec<Duration>,
}

async fn measure(data: &[u8], jobs: &Jobs) -> Result<Vec<Line>, Failure> {
    let (key, decrypt) = (Key::generate(), jobs.open(DecryptOptions::new()));
    let mut candidates = Vec::with_capacity(SIZES.len());
    for size in SIZES {
        let options = jobs.seal(EncryptOptions::new().chunk_size(size.0)?);
        let stream = options.encrypt(&key, data);
        candidates.push(Candidate { size, options, stream, encrypt: Vec::new(), decrypt: Vec::new() });
    }
    for round in 0..ROUNDS {
        for candidate in &mut candidates {
            let start = Instant::now();
            let mut writer = EncryptWriter::with_options(sink(), &key, &candidate.options);
            writer.write_all(black_box(data)).await?;
            writer.shutdown().await?;
            let encrypted = start.elapsed();

            let start = Instant::now();
            let reader = DecryptReader::with_options(black_box(&candidate.stream[..]), &key, &decrypt);
            copy_buf(&mut { reader }, &mut sink()).await?;
            if round > 0 {
                candidate.encrypt.push(encrypted);
                candidate.decrypt.push(start.elapsed());
            }
            tokio::task::yield_now().await;
        }
    }
    let line = |Candidate { size, encrypt, decrypt, .. }| Line {
        size,
        encrypt: throughput(data.len(), encrypt),
        decrypt: throughput(data.len(), decrypt),
    };
    Ok(candidates.into_iter().map(line).collect())
}

/// In MiB/s, by the median.
fn throughput(len: usize, mut times: Vec<Duration>) -> u64 {
    times.sort();
    let median = times[times.len() / 2].as_nanos().max(1);
    u64::try_from(len as u128 * 1_000_000_000 / median / (1 << 20)).unwrap_or(u64::MAX)
}

/// The smallest chunk size that is about as fast as the fastest: smaller chunks cost less memory, and less to read one byte.
fn pick(lines: &[Line]) -> Size {
    let slower = |line: &Line| line.encrypt.min(line.decrypt);
    let best = lines.iter().map(slower).max().unwrap_or(0);
    let good = |line: &&Line| slower(line) * 100 >= best * (100 - MARGIN);
    lines.iter().filter(good).map(|line| line.size).min_by_key(|size| size.0).unwrap_or(SIZES[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(speeds: &[(u64, u64)]) -> Vec<Line> {
        SIZES.iter().zip(speeds).map(|(&size, &(encrypt, decrypt))| Line { size, encrypt, decrypt }).collect()
    }

    #[test]
    fn the_smallest_that_is_as_good_as_any_is_picked() {
        assert_eq!(pick(&lines(&[(100, 100), (200, 200), (300, 300), (310, 305), (305, 310)])), SIZES[2]);
        assert_eq!(pick(&lines(&[(300, 100), (100, 300), (200, 200)])), SIZES[2], "the slower direction counts");
        assert_eq!(pick(&lines(&[(100, 100), (100, 100)])), SIZES[0]);
        assert_eq!(pick(&lines(&[(100, 100), (107, 107)])), SIZES[1]);
    }

    #[test]
    fn throughput_is_that_of_the_median() {
        let times = [5, 1, 2].map(Duration::from_secs).to_vec();
        assert_eq!(throughput(8 << 20, times), 4);
    }
}
