//! From one file to another, frame by frame, in synchronous code on the blocking pool.
//!
//! Memory stays at a chunk or two. Everything that is read is counted, and the work stops within one chunk of being told to.

use std::{
    fs::File,
    io::{self, BufRead, Read, Write},
    path::Path,
};

use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    encrypt::Encryptor,
    error::at,
    format::{FRAME_OVERHEAD, WORD_LEN},
    io::open_queue::{Next, OpenQueue},
    key::{Key, KeyRing},
    options::{DecryptOptions, EncryptOptions, Trailing},
    progress::{Meter, Progress},
};

/// Whom an operation tells about how far it has come.
pub(super) type Callback = Box<dyn FnMut(Progress) + Send>;

/// Encrypts all of `from`; returns the number of plaintext bytes.
pub(super) fn seal(
    key: &Key,
    options: &EncryptOptions,
    mut from: impl Read,
    mut to: impl Write,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let (mut encryptor, prelude) = Encryptor::start(key, options)?;
    let chunk_size = encryptor.chunk_size();
    let mut frame = Zeroizing::new(vec![0; chunk_size + FRAME_OVERHEAD]);
    let mut total = 0;
    to.write_all(&prelude)?;
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
pub(super) fn open(mut from: Opened<'_>, mut to: impl Write, cancelled: &CancellationToken) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let plaintext = from.fill_buf()?;
        stop_if(cancelled)?;
        let len = plaintext.len();
        if len == 0 {
            return Ok(total);
        }
        to.write_all(plaintext)?;
        total += len as u64;
        from.consume(len);
    }
}

/// The plaintext of a file, whose end of file says that the stream was whole.
pub(super) struct Opened<'a> {
    queue: OpenQueue,
    from: Source<'a>,
    chunk_size: Option<usize>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(from: Source<'a>, keys: KeyRing, options: &DecryptOptions) -> Self {
        Self { queue: OpenQueue::of_one_frame(keys, options, Trailing::Reject), from, chunk_size: None }
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
        let Self { queue, from, chunk_size } = self;
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

/// A file that is read, counted, with errors that say which one it is.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) meter: &'a mut Meter<Callback>,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buf).map_err(|error| at(self.path, "reading", error))?;
        self.meter.add(len as u64);
        Ok(len)
    }
}

/// A file that is written, with errors that say which one it is.
pub(super) struct Sink<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
}

impl Write for Sink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf).map_err(|error| at(self.path, "writing", error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| at(self.path, "writing", error))
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

/// Ends work that is not wanted any more.
pub(super) fn stop_if(cancelled: &CancellationToken) -> io::Result<()> {
    if cancelled.is_cancelled() { Err(stopped()) } else { Ok(()) }
}

/// Not `Interrupted`, which many a loop would try again.
pub(super) fn stopped() -> io::Error {
    io::Error::other("the operation was cancelled; nothing was published")
}
