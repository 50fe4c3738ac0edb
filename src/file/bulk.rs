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
    ops::ControlFlow,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio_util::sync::CancellationToken;

use super::ends::{Callback, Sink, Source, stop_if};
use crate::{
    decrypt::Deferred,
    encrypt::{Encryptor, Permit},
    error::{Error, at},
    format::{FINAL_FRAME_LEN, FRAME_OVERHEAD, PRELUDE_LEN},
    parallel::Workers,
    pool::Buffer,
    positioned::{self, read_exact_at, write_all_at},
    progress::Meter,
    threads::for_each,
};

/// How much of a file must be full chunks, in bytes, for more than one worker to be worth it.
const LARGE: u64 = 4 * 1024 * 1024;

/// How much one worker takes at a time, in bytes: plaintext and frames together stay in the second-level cache.
const SHARE_LEN: usize = 256 * 1024;

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
    if position(from)? != 0 {
        return Ok(0);
    }
    let shares = Shares::of(chunk_size);
    let permits = shares.split(full).map(|(start, len)| (start, encryptor.permit(len)));
    let (source, from_path) = (from.file, from.path);
    let shared = Shared::of(from);
    let seal = |buffers: &mut Buffers, start, permit: Permit| -> io::Result<u64> {
        stop_if(cancelled)?;
        let plaintext = &mut buffers.plaintext[..permit.len()];
        let frames = &mut buffers.frames[..permit.frames_len()];
        read_exact_at(source, plaintext, start).map_err(|error| at(from_path, "reading", shortened(error)))?;
        permit.seal_from(plaintext, frames);
        write_all_at(file, frames, shares.frames_at(start)).map_err(|error| at(to.path, "writing", error))?;
        Ok(plaintext.len() as u64)
    };
    let work = |buffers: &mut Buffers, (start, permit): (u64, Result<Permit, Error>)| {
        shared.note(permit.map_err(io::Error::from).and_then(|permit| seal(buffers, start, permit)))
    };
    for_each(workers, permits, || shares.buffers(), work);
    shared.end()?;
    move_to(from.file, full).map_err(|error| at(from.path, "reading", error))?;
    move_to(file, shares.frames_at(full)).map_err(|error| at(to.path, "writing", error))?;
    Ok(full)
}

/// Opens the full chunks that follow in `from`, beginning with the one at `place`, of which `ahead` bytes were read, into `to`
/// behind the `written` bytes that are there, and moves that to behind them. Returns how many of them lie there one behind the
/// other and are authentic; `None` if the file is not worth it, and nothing was done.
///
/// Whether a chunk is bad, or is none of these, is left open: whoever goes on behind the good ones finds out.
pub(super) fn open(
    (place, ahead): (&Deferred, usize),
    written: u64,
    from: &mut Source<'_>,
    to: &Sink<'_>,
    workers: Option<NonZeroUsize>,
    cancelled: &CancellationToken,
) -> io::Result<Option<u64>> {
    let metadata = from.file.metadata().map_err(|error| at(from.path, "looking at", error))?;
    let chunk_size = place.chunk_size();
    let room = metadata.len().saturating_sub(place.at() + FINAL_FRAME_LEN as u64);
    let chunks = (room / (chunk_size + FRAME_OVERHEAD) as u64).min(place.most_chunks());
    let full = chunks * chunk_size as u64;
    let Some(workers) = worth_it(full, workers).filter(|_| metadata.is_file()) else { return Ok(None) };
    if position(from)? != place.at() + ahead as u64 {
        return Ok(None);
    }
    let shares = Shares::of(chunk_size);
    // How many chunks come before the first one that is not good.
    let good = AtomicU64::new(chunks);
    let source = from.file;
    let shared = Shared::of(from);
    let open = |buffers: &mut Buffers, start: u64, len: usize| -> io::Result<Option<u64>> {
        stop_if(cancelled)?;
        let first = start / chunk_size as u64;
        let mut place = place.behind(first);
        let plaintext = &mut buffers.plaintext[..len];
        let frames = &mut buffers.frames[..shares.frames_len(len)];
        // To read them again, one by one, tells what is wrong.
        let mut bad = read_exact_at(source, frames, place.at()).is_err().then_some(first);
        let frames = frames.chunks(chunk_size + FRAME_OVERHEAD);
        for (i, (chunk, frame)) in (first..).zip(plaintext.chunks_mut(chunk_size).zip(frames)) {
            if bad.is_none() && place.open_full_into(frame, chunk).is_err() {
                bad = Some(i);
            }
        }
        if let Some(bad) = bad {
            good.fetch_min(bad, Relaxed);
            return Ok(None);
        }
        if let Some(file) = to.file {
            write_all_at(file, plaintext, written + start).map_err(|error| at(to.path, "writing", error))?;
        }
        Ok(Some(shares.frames_len(len) as u64 - if first == 0 { ahead as u64 } else { 0 }))
    };
    let work = |buffers: &mut Buffers, (start, len): (u64, usize)| match open(buffers, start, len).transpose() {
        Some(done) => shared.note(done),
        None => ControlFlow::Break(()),
    };
    for_each(workers, shares.split(full), || shares.buffers(), work);
    // A write that has failed must not be tried again: it may be told only once that earlier ones are lost.
    shared.end()?;
    // Nothing was written of the share that the first bad chunk is in.
    let good = match good.into_inner() {
        all if all == chunks => all,
        good => good - good % shares.chunks as u64,
    };
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
    let is_worth_it = full >= LARGE && workers != Workers::ONE && usize::try_from(full).is_ok();
    (positioned::AVAILABLE && is_worth_it).then_some(workers)
}

/// Where a file is read next. It may have been opened by a name that stands for one that somebody has read from.
fn position(from: &Source<'_>) -> io::Result<u64> {
    let mut file = from.file;
    file.stream_position().map_err(|error| at(from.path, "reading", error))
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

/// What the workers of a file have in common.
struct Shared<'a>(Mutex<(&'a mut Meter<Callback>, Option<io::Error>)>);

impl<'a> Shared<'a> {
    fn of(from: &'a mut Source<'_>) -> Self {
        Self(Mutex::new((&mut *from.meter, None)))
    }

    /// Notes that so much was read and is done, or what has failed. Says whether the others are to go on: also not if whoever is
    /// told of the progress has panicked.
    fn note(&self, done: io::Result<u64>) -> ControlFlow<()> {
        let Ok(mut shared) = self.0.lock() else { return ControlFlow::Break(()) };
        let (meter, error) = &mut *shared;
        match done {
            Ok(len) => {
                meter.add(len);
                ControlFlow::Continue(())
            }
            Err(first) => {
                error.get_or_insert(first);
                ControlFlow::Break(())
            }
        }
    }

    fn end(self) -> io::Result<()> {
        match self.0.into_inner() {
            Ok((_, Some(error))) => Err(error),
            Ok((_, None)) => Ok(()),
            Err(_) => unreachable!("a panic of one worker is one of all"),
        }
    }
}

/// How the chunks of a file are shared out.
#[derive(Clone, Copy)]
struct Shares {
    chunk_size: usize,
    chunks: usize,
}

/// What one worker works with.
struct Buffers {
    plaintext: Buffer,
    frames: Buffer,
}

impl Shares {
    fn of(chunk_size: usize) -> Self {
        Self { chunk_size, chunks: (SHARE_LEN / (chunk_size + FRAME_OVERHEAD)).max(1) }
    }

    /// Where the shares of so much plaintext begin, and how long they are, in bytes of plaintext.
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

    /// How long the frames of so much plaintext are.
    fn frames_len(self, plaintext: usize) -> usize {
        plaintext + plaintext / self.chunk_size * FRAME_OVERHEAD
    }

    fn buffers(self) -> Buffers {
        let plaintext = self.chunks * self.chunk_size;
        Buffers { plaintext: Buffer::zeroed(plaintext), frames: Buffer::zeroed(self.frames_len(plaintext)) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{io::Write, path::Path};

    use super::*;
    use crate::{
        decrypt::{Decryptor, Step},
        key::Key,
        options::{DecryptOptions, EncryptOptions},
        progress::Progress,
    };

    /// A file that holds this, open to be read only.
    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        File::open(file.path()).unwrap()
    }

    fn workers() -> Option<NonZeroUsize> {
        NonZeroUsize::new(2)
    }

    /// What a failed write says may be the last that is heard of data that others have written.
    #[test]
    fn a_write_that_fails_is_an_error_and_is_not_tried_again() {
        let key = Key::generate();
        let mut stream = EncryptOptions::new().encrypt(&key, &vec![7; 6_000_000]);
        let source = file(&stream);
        let mut decryptor = Decryptor::new(&key, &DecryptOptions::new());
        assert!(matches!(decryptor.open_in_place(&mut stream), Ok(Step::Start { .. })));
        move_to(&source, PRELUDE_LEN as u64).unwrap();

        let not_writable = file(b"");
        let mut meter = Meter::new(None, Box::new(|_: Progress| ()) as Callback);
        let mut from = Source { path: Path::new("from"), file: &source, meter: &mut meter };
        let to = Sink { path: Path::new("to"), file: Some(&not_writable) };
        let place = decryptor.place().unwrap();
        let error = open((&place, 0), 0, &mut from, &to, workers(), &CancellationToken::new()).unwrap_err();
        assert!(error.to_string().starts_with("writing \"to\""), "{error}");

        let plain = file(&vec![7; 6_000_000]);
        let mut from = Source { path: Path::new("from"), file: &plain, meter: &mut meter };
        let (mut encryptor, _) = Encryptor::start(&key, &EncryptOptions::new()).unwrap();
        let error = seal(&mut encryptor, &mut from, &to, workers(), &CancellationToken::new()).unwrap_err();
        assert!(error.to_string().starts_with("writing \"to\""), "{error}");
    }

    #[test]
    fn a_file_that_was_read_from_is_left_to_whoever_reads_in_order() {
        let (plain, sink) = (file(&vec![7; 6_000_000]), file(b""));
        move_to(&plain, 1).unwrap();
        let mut meter = Meter::new(None, Box::new(|_: Progress| ()) as Callback);
        let mut from = Source { path: Path::new("from"), file: &plain, meter: &mut meter };
        let to = Sink { path: Path::new("to"), file: Some(&sink) };
        let (mut encryptor, _) = Encryptor::start(&Key::generate(), &EncryptOptions::new()).unwrap();
        assert_eq!(seal(&mut encryptor, &mut from, &to, workers(), &CancellationToken::new()).unwrap(), 0);
    }

    #[test]
    fn the_shares_of_a_file_are_all_of_it_in_order() {
        for (chunk_size, chunks) in [(1, 5_000_000), (65_536, 100), (300_000, 20), (262_124, 17)] {
            let shares = Shares::of(chunk_size);
            let full = chunks * chunk_size as u64;
            let mut end = 0;
            for (start, len) in shares.split(full) {
                assert_eq!(start, end);
                assert!(len > 0 && len % chunk_size == 0 && len <= shares.chunks * chunk_size);
                assert!(shares.chunks == 1 || shares.frames_len(len) <= SHARE_LEN);
                end += len as u64;
            }
            assert_eq!(end, full);
        }
    }
}
