//! From one file to another, frame by frame, in synchronous code on the blocking pool.
//!
//! Memory stays at one chunk. The bulk of a large file is left to [several workers](super::bulk).

use std::{
    io::{self, BufRead, Read, Seek, SeekFrom, Write},
    num::NonZeroUsize,
};

use tokio_util::sync::CancellationToken;

use super::{
    bulk,
    ends::{Sink, Source, stop_if},
};
use crate::{
    encrypt::Encryptor,
    error::at,
    format::{FRAME_OVERHEAD, WORD_LEN},
    io::open_queue::{Next, OpenQueue},
    key::{Key, KeyRing},
    options::{DecryptOptions, EncryptOptions, Trailing},
    pool::Buffer,
};

/// Encrypts all of `from`; returns the number of plaintext bytes.
pub(super) fn seal(
    key: &Key,
    options: &EncryptOptions,
    mut from: Source<'_>,
    mut to: Sink<'_>,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let (mut encryptor, prelude) = Encryptor::start(key, options)?;
    to.write_all(&prelude)?;
    let bulk = bulk::seal(&mut encryptor, &mut from, &to, options.workers, cancelled)?;
    Ok(bulk + seal_rest(encryptor, from, to, cancelled)?)
}

/// Encrypts the plaintext of another stream; returns the number of its bytes.
pub(super) fn seal_anew(
    key: &Key,
    options: &EncryptOptions,
    from: Opened<'_>,
    mut to: Sink<'_>,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let (encryptor, prelude) = Encryptor::start(key, options)?;
    to.write_all(&prelude)?;
    seal_rest(encryptor, from, to, cancelled)
}

/// Encrypts what is left of `from`, and ends the stream; returns the number of plaintext bytes.
fn seal_rest(
    mut encryptor: Encryptor,
    mut from: impl Read,
    mut to: Sink<'_>,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let chunk_size = encryptor.chunk_size();
    let mut frame = Buffer::zeroed(chunk_size + FRAME_OVERHEAD);
    let mut total = 0;
    loop {
        let len = read_full(&mut from, &mut frame[WORD_LEN..][..chunk_size])?;
        if len > 0 {
            let frame = &mut frame[..len + FRAME_OVERHEAD];
            encryptor.seal_in_place(frame)?;
            to.write_all(frame)?;
            total += len as u64;
        }
        // Whatever a growing file gains after its end was seen would make the stream irregular.
        if len < chunk_size {
            break;
        }
        stop_if(cancelled)?;
    }
    to.write_all(&encryptor.finish())?;
    stop_if(cancelled)?;
    Ok(total)
}

/// Decrypts all of `from`; returns the number of plaintext bytes.
pub(super) fn open(mut from: Opened<'_>, mut to: Sink<'_>, cancelled: &CancellationToken) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let plaintext = from.fill_buf()?;
        stop_if(cancelled)?;
        let len = plaintext.len();
        if len == 0 {
            return Ok(total);
        }
        to.write_all(plaintext)?;
        let is_first = total == 0;
        total += len as u64;
        from.consume(len);
        if is_first {
            // The stream was made by somebody who knows the key, and how large its chunks are may be believed.
            total += from.open_bulk(&to, total, cancelled)?;
        }
    }
}

/// The plaintext of a file, whose end of file says that the stream was whole.
pub(super) struct Opened<'a> {
    queue: OpenQueue,
    from: Source<'a>,
    chunk_size: Option<usize>,
    workers: Option<NonZeroUsize>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(from: Source<'a>, keys: KeyRing, options: &DecryptOptions) -> Self {
        let queue = OpenQueue::of_one_frame(keys, options, Trailing::Reject);
        Self { queue, from, chunk_size: None, workers: options.workers }
    }

    /// Opens the full chunks of a large file, as far as there are no others between them and nothing is wrong. `written` bytes
    /// of plaintext were before.
    fn open_bulk(&mut self, to: &Sink<'_>, written: u64, cancelled: &CancellationToken) -> io::Result<u64> {
        let Some(place) = self.queue.place() else { return Ok(0) };
        let ahead = self.queue.read_ahead();
        let bulk = bulk::open((&place, ahead), written, &mut self.from, to, self.workers, cancelled)?;
        let Some(chunks) = bulk else { return Ok(0) };
        let next = if chunks == 0 { place.at() + ahead as u64 } else { self.queue.leap(chunks) };
        self.from.file.seek(SeekFrom::Start(next)).map_err(|error| at(self.from.path, "reading", error))?;
        Ok(chunks * place.chunk_size() as u64)
    }

    /// The chunk size of the stream, in bytes. Reads the start of it.
    pub(super) fn chunk_size(&mut self) -> io::Result<usize> {
        self.fill_buf()?;
        match self.chunk_size {
            Some(chunk_size) => Ok(chunk_size),
            None => unreachable!("a stream that has plaintext, or has ended, has begun"),
        }
    }
}

impl BufRead for Opened<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Self { queue, from, chunk_size, .. } = self;
        loop {
            let next = queue.next(true).map_err(|error| at(from.path, "decrypting", error.into()))?;
            // The stream forgets it at its end.
            *chunk_size = chunk_size.or(queue.chunk_size());
            match next {
                Next::Open(_) => queue.open_here(),
                Next::Take | Next::End => return Ok(self.queue.plaintext()),
                Next::Wait | Next::Stalled => unreachable!("nothing is away, and more can always be read"),
                Next::Read => {
                    let spare = queue.spare();
                    let (limit, buf) = (spare.limit(), spare.into_inner());
                    let len = buf.len();
                    buf.resize(len + limit, 0);
                    let read = read_full(from, &mut buf[len..]);
                    buf.truncate(len + read.as_ref().copied().unwrap_or(0));
                    if read? == 0 {
                        queue.end_of_input();
                    }
                }
            }
        }
    }

    fn consume(&mut self, n: usize) {
        self.queue.consume(n);
    }
}

impl Read for Opened<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

/// Fills `buf`, unless the input ends before; returns how much was read.
fn read_full(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match from.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
