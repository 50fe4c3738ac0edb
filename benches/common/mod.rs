//! What the benchmarks share: two sides that take turns, what is said of their ratio, and where results go.
//!
//! A machine that others use, too, drifts between two benchmarks and stalls while it hands out fresh memory. So buffers are
//! warm and used again, and what counts is never a time but the ratio of two times that were taken one right after the other:
//! the median over many such pairs, with the range of their middle half. Where the work is one core's, its time is that of the
//! processor, for a clock on the wall goes on while something else is given the core.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub(crate) mod bare;
pub(crate) mod ours;

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
pub(crate) const GIB: usize = 1024 * MIB;

/// A folder: every benchmark appends its results to a file there, one JSON object a line. `benches/run` makes a page of them.
const RESULTS: &str = "AGCM_BENCH_RESULTS";

/// Does it once; returns the time that counts.
pub(crate) type Run<'a> = Box<dyn FnMut() -> Duration + 'a>;

static BY_THE_WALL: AtomicBool = AtomicBool::new(false);

/// From now on it counts how long something took, not how much work it was: for what waits, or has several cores.
pub(crate) fn time_by_the_wall() {
    BY_THE_WALL.store(true, Relaxed);
}

/// The time that the processor worked for this process, on whichever threads; or the time on the wall.
pub(crate) fn timed(run: impl FnOnce()) -> Duration {
    if BY_THE_WALL.load(Relaxed) {
        let start = Instant::now();
        run();
        return start.elapsed();
    }
    let start = processor_time();
    run();
    processor_time() - start
}

#[cfg(unix)]
fn processor_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("it began at zero")
}

#[cfg(not(unix))]
fn processor_time() -> Duration {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// The median, and the range of the middle half.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) samples: usize,
}

impl Spread {
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        Self { median: sorted[n / 2], low: sorted[n / 4], high: sorted[n - 1 - n / 4], samples: n }
    }
}

/// What several sides did with the same bytes, in turn: the time of each, round by round.
pub(crate) struct Rounds {
    bytes: usize,
    /// By side, then by round; in seconds.
    seconds: Vec<Vec<f64>>,
}

impl Rounds {
    /// As many rounds as `budget` has time for, within reason; an odd number, for there is a median to be found.
    ///
    /// Every other round goes backwards, so that no side always finds the caches as the same other one left them.
    pub(crate) fn take(bytes: usize, budget: Duration, least: usize, sides: &mut [Run<'_>]) -> Self {
        // The first round only warms memory up, the second tells how long one takes.
        let round = |sides: &mut [Run<'_>]| sides.iter_mut().map(|side| side()).sum::<Duration>();
        round(sides);
        let start = Instant::now();
        round(sides);
        let fit = budget.as_secs_f64() / start.elapsed().as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on the same line")]
        let rounds = (fit.min(801.0) as usize).max(least) | 1;

        let mut seconds = vec![Vec::with_capacity(rounds); sides.len()];
        for round in 0..rounds {
            for i in 0..sides.len() {
                let i = if round % 2 == 0 { i } else { sides.len() - 1 - i };
                seconds[i].push(sides[i]().as_secs_f64());
            }
        }
        Self { bytes, seconds }
    }

    /// By how much `side` is faster than `other`.
    pub(crate) fn ratio(&self, side: usize, other: usize) -> Spread {
        Spread::of(self.seconds[side].iter().zip(&self.seconds[other]).map(|(side, other)| other / side))
    }

    /// Any figure that is made of the times of one round.
    pub(crate) fn each(&self, figure: impl Fn(&[f64]) -> f64) -> Spread {
        let rounds = self.seconds[0].len();
        Spread::of((0..rounds).map(|round| figure(&self.seconds.iter().map(|side| side[round]).collect::<Vec<_>>())))
    }

    /// Bytes a second.
    pub(crate) fn rate(&self, side: usize) -> f64 {
        self.bytes as f64 / Spread::of(self.seconds[side].iter().copied()).median
    }
}

/// Prints results, and keeps them where somebody asked for that.
pub(crate) struct Results {
    bench: &'static str,
    file: Option<File>,
    filters: Vec<String>,
}

impl Results {
    pub(crate) fn new(bench: &'static str) -> Self {
        let file = env::var_os(RESULTS).map(|folder| {
            fs::create_dir_all(&folder).expect("the folder for results can be made");
            let path = Path::new(&folder).join(format!("{bench}.jsonl"));
            OpenOptions::new().create(true).append(true).open(path).expect("results can be written")
        });
        let filters = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        Self { bench, file, filters }
    }

    /// Whether the results are kept; then nothing else needs to be measured.
    pub(crate) fn are_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Whether the command line asks for it: it names nothing, or part of this.
    pub(crate) fn wanted(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }

    /// One figure, usually a ratio. `details` is an object.
    pub(crate) fn add(&mut self, group: &str, name: &str, figure: Spread, details: Value) {
        let Spread { median, low, high, samples } = figure;
        println!("  {group:24} {name:52} {median:7.3}  ({low:.3} ..= {high:.3}, n = {samples})");
        let Some(file) = &mut self.file else { return };
        let mut row = json!({
            "bench": self.bench, "backend": bare::BACKEND, "group": group, "name": name,
            "median": median, "low": low, "high": high, "samples": samples,
        });
        if let (Value::Object(row), Value::Object(details)) = (&mut row, details) {
            row.extend(details);
        }
        writeln!(file, "{row}").expect("results can be written");
    }
}

/// Whether these are `cargo test` or a list of names, and nobody wants figures.
pub(crate) fn only_tested() -> bool {
    env::args().any(|arg| arg == "--test" || arg == "--list")
}

/// `65536` as `64 KiB`.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        GIB.. if bytes % GIB == 0 => format!("{} GiB", bytes / GIB),
        MIB.. if bytes % MIB == 0 => format!("{} MiB", bytes / MIB),
        KIB.. if bytes % KIB == 0 => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} B"),
    }
}
