//! Whole slices in one call: the same stream format, for data that is in memory anyway.
//!
//! Built on the same core as the adapters, so that each opens what the other sealed. It must never return part of a
//! plaintext: on an error there is none.

use std::{
    mem,
    ops::{ControlFlow, Range},
    sync::{Mutex, PoisonError},
};

use zeroize::Zeroizing;

use crate::{
    decrypt::{Decryptor, Deferral, Deferred, Step},
    encrypt::{Encryptor, Permit},
    error::Error,
    format::{FINAL_FRAME_LEN, FRAME_OVERHEAD, PRELUDE_LEN},
    geometry::Uniform,
    key::{Key, KeyRing},
    options::{DecryptOptions, EncryptOptions, Trailing},
    parallel::{BATCH_LEN, Workers, chunks_per_batch},
    threads::for_each,
};

/// Encrypts a slice with the default options.
///
/// ```
/// use agcm::Key;
///
/// let key = Key::generate();
/// let stream = agcm::encrypt(&key, b"a small secret");
/// assert_eq!(agcm::decrypt(&key, &stream)?, b"a small secret");
/// # Ok::<(), agcm::Error>(())
/// ```
///
/// # Panics
///
/// As [`EncryptOptions::encrypt`].
#[must_use]
pub fn encrypt(key: &Key, plaintext: &[u8]) -> Vec<u8> {
    EncryptOptions::new().encrypt(key, plaintext)
}

/// Decrypts a whole stream with the default options: no context, and nothing may follow the stream.
///
/// # Errors
///
/// As [`DecryptOptions::decrypt`].
pub fn decrypt(keys: impl Into<KeyRing>, stream: &[u8]) -> Result<Vec<u8>, Error> {
    DecryptOptions::new().decrypt(keys, stream)
}

impl EncryptOptions {
    /// Encrypts a slice.
    ///
    /// Allocates the stream, and nothing else of its size. [Workers](Self::workers) are threads of their own here, and this one.
    ///
    /// ```
    /// use agcm::{DecryptOptions, EncryptOptions, Key};
    ///
    /// let key = Key::generate();
    /// let stream = EncryptOptions::new().context("invoice 17")?.encrypt(&key, b"42.00");
    /// assert_eq!(DecryptOptions::new().context("invoice 17")?.decrypt(&key, &stream)?, b"42.00");
    /// # Ok::<(), agcm::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes (use [`Encryptor`] to handle that), or if the slice
    /// is past the limits of a stream: 2^40 chunks, which takes a terabyte in memory and chunks of a byte.
    #[must_use]
    pub fn encrypt(&self, key: &Key, plaintext: &[u8]) -> Vec<u8> {
        let (mut encryptor, prelude) = match Encryptor::start(key, self) {
            Ok(started) => started,
            Err(error) => panic!("no stream can be started: {error}"),
        };
        let len = Uniform::of(plaintext.len() as u64, self.chunk_size).map(|layout| layout.stream_len());
        let Some(len) = len.ok().and_then(|len| usize::try_from(len).ok()) else {
            panic!("the slice cannot be one stream: {}", Error::StreamTooLong)
        };
        let mut stream = vec![0; len];
        let (start, frames) = stream.split_at_mut(PRELUDE_LEN);
        let (frames, end) = frames.split_at_mut(frames.len() - FINAL_FRAME_LEN);
        start.copy_from_slice(&prelude);

        let chunk_size = encryptor.chunk_size();
        let chunks = chunks_per_batch(chunk_size);
        let frames = frames.chunks_mut(chunks * (chunk_size + FRAME_OVERHEAD));
        let batches = plaintext.chunks(chunks * chunk_size).zip(frames).map(|(plaintext, frames)| {
            match encryptor.permit(plaintext.len()) {
                Ok(permit) => (permit, plaintext, frames),
                Err(error) => panic!("the slice cannot be one stream: {error}"),
            }
        });
        let seal = |(): &mut (), (permit, plaintext, frames): (Permit, &[u8], &mut [u8])| {
            permit.seal_from(plaintext, frames);
            ControlFlow::Continue(())
        };
        for_each(Workers::chosen(self.workers), batches, || (), seal);
        end.copy_from_slice(&encryptor.finish());
        stream
    }
}

impl DecryptOptions {
    /// Decrypts a whole stream. Unless [`Trailing::Leave`] was chosen, nothing may follow it.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the stream, in the order that [the format](crate::format#what-a-reader-checks) states. What
    /// was decrypted up to there is wiped, not returned.
    pub fn decrypt(&self, keys: impl Into<KeyRing>, stream: &[u8]) -> Result<Vec<u8>, Error> {
        let mut runs = Vec::new();
        let mut decryptor = Decryptor::new(keys, self);
        let scanned = self.scan(&mut decryptor, stream, &mut runs);
        // Wiped, unless all of it is authentic.
        let mut plaintext = Zeroizing::new(vec![0; runs.iter().map(|run| run.plaintext).sum()]);
        let mut rest = &mut plaintext[..];
        let jobs = runs.into_iter().enumerate().map(|(i, run)| {
            let (out, later) = mem::take(&mut rest).split_at_mut(run.plaintext);
            rest = later;
            (i, run, out)
        });
        let first: Mutex<Option<(usize, Error, Deferred)>> = Mutex::new(None);
        let open = |(): &mut (), (i, mut run, out): (usize, Run, &mut [u8])| {
            let Err(error) = run.open_into(stream, out) else { return ControlFlow::Continue(()) };
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(earlier, ..)| i < *earlier) {
                *first = Some((i, error, run.first));
            }
            // What comes behind a bad frame does not count.
            ControlFlow::Break(())
        };
        for_each(Workers::chosen(self.workers), jobs, || (), open);
        match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error, place)) => {
                decryptor.reached(&place);
                Err(decryptor.fail(error))
            }
            None => {
                decryptor.reached_all();
                scanned.map(|()| mem::take(&mut *plaintext))
            }
        }
    }

    /// Looks at all of a stream but the insides of its data frames, and notes where those are: also if what it finds behind them is
    /// an error.
    fn scan(&self, decryptor: &mut Decryptor, stream: &[u8], runs: &mut Vec<Run>) -> Result<(), Error> {
        let mut at = 0;
        loop {
            match decryptor.defer(&stream[at..])? {
                Deferral::Data { consumed, deferred } => {
                    Run::add(runs, at..at + consumed, deferred);
                    at += consumed;
                }
                Deferral::Step(Step::Start { consumed } | Step::Data { consumed, .. }) => at += consumed,
                Deferral::Step(Step::Incomplete { .. }) => return decryptor.end_of_input(stream.len() - at),
                Deferral::Step(Step::End { consumed }) if self.trailing != Some(Trailing::Leave) => {
                    // The decryptor takes nothing after the end, and calls whatever there is trailing data.
                    return decryptor.defer(&stream[at + consumed..]).map(drop);
                }
                Deferral::Step(Step::End { .. }) => return Ok(()),
            }
        }
    }
}

/// Data frames that lie one behind the other, and are opened together.
struct Run {
    first: Deferred,
    /// Where they are in the stream.
    frames: Range<usize>,
    /// How much plaintext they hold, in bytes.
    plaintext: usize,
}

impl Run {
    /// Puts a frame into the last run, or begins another one with it.
    fn add(runs: &mut Vec<Self>, frame: Range<usize>, place: Deferred) {
        let plaintext = frame.len() - FRAME_OVERHEAD;
        match runs.last_mut() {
            Some(run) if run.plaintext + plaintext <= BATCH_LEN => {
                run.frames.end = frame.end;
                run.plaintext += plaintext;
            }
            _ => runs.push(Self { first: place, frames: frame, plaintext }),
        }
    }

    /// Opens the frames into `out`, which has the length of their plaintext, up to the first bad one.
    fn open_into(&mut self, stream: &[u8], mut out: &mut [u8]) -> Result<(), Error> {
        let mut frames = &stream[self.frames.clone()];
        while !frames.is_empty() {
            let len = self.first.open_into(frames, out)?;
            frames = &frames[len + FRAME_OVERHEAD..];
            out = &mut out[len..];
        }
        Ok(())
    }
}
