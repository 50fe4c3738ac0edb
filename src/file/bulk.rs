//! The bulk of a large file: its full chunks, which several workers seal or open at the same time.
//!
//! Where a full chunk is in the one file follows from where it is in the other, so each worker reads, works, and writes at
//! places of its own; while one waits for the disk, another seals. What has to be in order, the start and the end of a stream,
//! is not for here, and neither is to find out what is wrong with one: where something is, that place and all behind it are
//! left to whoever reads in order.
//!
//! This must never seal a place twice, so nobody may go on sealing after an error here.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio_util::sync::CancellationToken;

use super::ends::{Callback, Sink, Source, stop_if};
use crate::{
    decrypt::Deferred,
    encrypt::Encryptor,
    error::at,
    format::{FINAL_FRAME_LEN, FRAME_OVERHEAD, PRELUDE_LEN},
    parallel::{Workers, for_each},
    pool::Buffer,
    positioned::{self, read_exact_at, write_all_at},
    progress::Meter,
};

/// How much of a file must be full chunks, in bytes, for more than one worker to be worth it.
const LARGE: u64 = 4 * 1024 * 1024;

/// How much one worker takes at a time, in bytes: plaintext and frames together stay in the second-level cache.
const BATCH_LEN: usize = 256 * 1024;

/// How many workers there are unless that is chosen, if there are as many cores: more would wait for the disk, mostly.
const MOST_WORKERS: usize = 4;

/// Seals the full chunks that `from` has by its length into their places in `to`, and moves both to behind them. Returns how much
/// plaintext that was: nothing, if the file is not worth it.
pub(super) fn seal(
    encryptor: &mut Encryptor,
    from: &mut Source<'_>,
    to: &Sink<'_>,
    workers: Option<NonZeroUsize>,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let chunk_size = encryptor.chunk_size();
    let metadata = from.file.metadata().map_err(|error| at(from.path, "looking at", error))?;
    let full = metadata.len() - metadata.len() % chunk_size as u64;
    let (Some(workers), Some(file)) = (worth_it(full, workers), to.file.filter(|_| metadata.is_file())) else {
        return Ok(0);
    };
    let batch = Batch::of(chunk_size);
    let permits = batch.split(full).map(|(start, len)| (start, encryptor.permit(len)));
    let shared = Mutex::new(Shared { meter: &mut *from.meter, error: None });
    let (source, path) = (from.file, from.path);
    for_each(
        workers,
        permits,
        || batch.buffers(),
        |buffers, (start, permit)| {
            let work = || {
                stop_if(cancelled)?;
                let permit = permit?;
                let plaintext = &mut buffers.plaintext[..permit.len()];
                read_exact_at(source, plaintext, start).map_err(|error| at(path, "reading", shortened(error)))?;
                let frames = &mut buffers.frames[..permit.frames_len()];
                let len = plaintext.len() as u64;
                permit.seal_from(plaintext, frames);
                write_all_at(file, frames, batch.frames_at(start)).map_err(|error| at(to.path, "writing", error))?;
                Ok(len)
            };
            // If somebody has panicked or failed, no more is to be done.
            if shared.lock().is_ok_and(|shared| shared.error.is_none()) {
                let done = work();
                if let Ok(mut shared) = shared.lock() {
                    match done {
                        Ok(len) => shared.meter.add(len),
                        Err(error) => shared.error = shared.error.take().or(Some(error)),
                    }
                }
            }
        },
    );
    if let Some(error) = shared.into_inner().ok().and_then(|shared| shared.error) {
        return Err(error);
    }
    move_to(from.file, full).map_err(|error| at(from.path, "reading", error))?;
    move_to(file, batch.frames_at(full)).map_err(|error| at(to.path, "writing", error))?;
    Ok(full)
}

/// Opens the full chunks that follow in `from`, beginning with the one at `place`, into `to` behind the `written` bytes that are
/// there, and moves that to behind them. Returns how many of them lie there one behind the other and are authentic; `None` if
/// the file is not worth it, and nothing was done.
///
/// What stopped them, if anything did, will stop whoever goes on behind them too: it is not lost.
pub(super) fn open(
    place: &Deferred,
    written: u64,
    from: &mut Source<'_>,
    to: &Sink<'_>,
    workers: Option<NonZeroUsize>,
    cancelled: &CancellationToken,
) -> io::Result<Option<u64>> {
    let metadata = from.file.metadata().map_err(|error| at(from.path, "looking at", error))?;
    let chunk_size = place.chunk_size();
    let room = metadata.len().saturating_sub(place.at() + FINAL_FRAME_LEN as u64);
    let frames = (room / (chunk_size + FRAME_OVERHEAD) as u64).min(place.most_chunks());
    let full = frames * chunk_size as u64;
    let Some(workers) = worth_it(full, workers).filter(|_| metadata.is_file()) else { return Ok(None) };
    let batch = Batch::of(chunk_size);
    // How many chunks there are before the first one that stopped a worker.
    let good = AtomicU64::new(frames);
    let meter = Mutex::new(&mut *from.meter);
    let source = from.file;
    for_each(
        workers,
        batch.split(full),
        || batch.buffers(),
        |buffers, (start, len)| {
            let first = start / chunk_size as u64;
            if first >= good.load(Relaxed) || meter.is_poisoned() {
                return;
            }
            let mut work = || -> Result<(), u64> {
                let mut place = place.behind(first);
                let plaintext = &mut buffers.plaintext[..len];
                let frames = &mut buffers.frames[..len / chunk_size * (chunk_size + FRAME_OVERHEAD)];
                let read = stop_if(cancelled).and_then(|()| read_exact_at(source, frames, place.at()));
                read.map_err(|_| first)?;
                let chunks = plaintext.chunks_mut(chunk_size).zip(frames.chunks(chunk_size + FRAME_OVERHEAD));
                for (i, (chunk, frame)) in (first..).zip(chunks) {
                    place.open_full_into(frame, chunk).map_err(|_| i)?;
                }
                let written = to.file.map_or(Ok(()), |file| write_all_at(file, plaintext, written + start));
                written.map_err(|_| first)
            };
            match work() {
                Ok(()) => {
                    if let Ok(mut meter) = meter.lock() {
                        meter.add(len as u64 + (len / chunk_size * FRAME_OVERHEAD) as u64);
                    }
                }
                Err(bad) => {
                    good.fetch_min(bad, Relaxed);
                }
            }
        },
    );
    stop_if(cancelled)?;
    // The batch with the first bad chunk was not written, nor are the good ones of it.
    let good = good.into_inner();
    let good = if good < frames { good - good % batch.chunks as u64 } else { good };
    if let Some(file) = to.file {
        let end = written + good * chunk_size as u64;
        // What was written behind it may not be the stream's, as a whole.
        let moved = file.set_len(end).and_then(|()| move_to(file, end));
        moved.map_err(|error| at(to.path, "writing", error))?;
    }
    Ok(Some(good))
}

/// The workers for so many bytes of full chunks, if they are worth it.
fn worth_it(full: u64, workers: Option<NonZeroUsize>) -> Option<Workers> {
    let workers = Workers::chosen_or_up_to(workers, MOST_WORKERS);
    (positioned::AVAILABLE && full >= LARGE && workers != Workers::ONE).then_some(workers)
}

fn move_to(mut file: &File, at: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(at)).map(drop)
}

/// A full chunk was there when the work began.
fn shortened(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::UnexpectedEof {
        return error;
    }
    io::Error::new(error.kind(), "the file became shorter while it was read; try again when nobody changes it")
}

/// What the workers of a file share.
struct Shared<'a> {
    meter: &'a mut Meter<Callback>,
    error: Option<io::Error>,
}

/// How the chunks of a file are shared out.
#[derive(Clone, Copy)]
struct Batch {
    chunk_size: usize,
    chunks: usize,
}

/// What one worker works with.
struct Buffers {
    plaintext: Buffer,
    frames: Buffer,
}

impl Batch {
    fn of(chunk_size: usize) -> Self {
        Self { chunk_size, chunks: (BATCH_LEN / (chunk_size + FRAME_OVERHEAD)).max(1) }
    }

    /// Where the batches of so much plaintext begin, and how long they are, in bytes of plaintext.
    fn split(self, full: u64) -> impl ExactSizeIterator<Item = (u64, usize)> {
        let len = self.chunks * self.chunk_size;
        let count = usize::try_from(full.div_ceil(len as u64)).unwrap_or(usize::MAX);
        (0..count).map(move |i| {
            let start = i as u64 * len as u64;
            (start, usize::try_from(full - start).unwrap_or(len).min(len))
        })
    }

    /// Where the frame of the chunk at `start` begins in a uniform stream.
    fn frames_at(self, start: u64) -> u64 {
        PRELUDE_LEN as u64 + start + start / self.chunk_size as u64 * FRAME_OVERHEAD as u64
    }

    fn buffers(self) -> Buffers {
        let plaintext = self.chunks * self.chunk_size;
        Buffers {
            plaintext: Buffer::zeroed(plaintext),
            frames: Buffer::zeroed(plaintext + self.chunks * FRAME_OVERHEAD),
        }
    }
}
