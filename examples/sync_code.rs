//! Synchronous code that writes and reads encrypted streams: over something asynchronous through `SyncIoBridge`, and
//! without any async by the core alone.
//!
//! ```text
//! cargo run --example sync_code
//! ```
//!
//! `SyncIoBridge` is for a synchronous library between asynchronous ends, such as a socket of Tokio's. It takes a
//! thread of the blocking pool for as long as the library runs, and must not be used on any other thread of the
//! runtime: it would panic. Each call goes through the runtime, so small ones are better collected by a `BufWriter` or
//! `BufReader`.
//!
//! Where both ends are synchronous, there is nothing to be bridged: [`Encryptor`] and [`Decryptor`] do the
//! cryptography, and need neither a runtime nor a thread.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use agcm::{
    DEFAULT_CHUNK_SIZE, DecryptOptions, DecryptReader, Decryptor, EncryptOptions, EncryptWriter, Encryptor, Error, Key,
    Step,
};
use tokio::task::spawn_blocking;
use tokio_util::io::SyncIoBridge;

const ROWS: u64 = 200_000;

/// Stands for a library that knows nothing of async.
fn dump(mut out: impl Write) -> io::Result<()> {
    (0..ROWS).try_for_each(|i| writeln!(out, "{i},{}", i * i))?;
    out.flush()
}

/// Another one. Returns how many rows it has read, all of which were right.
fn load(input: impl BufRead) -> io::Result<u64> {
    let mut rows = 0;
    for line in input.lines() {
        let line = line?;
        let row =
            line.split_once(',').and_then(|(i, square)| Some((i.parse::<u64>().ok()?, square.parse::<u64>().ok()?)));
        assert_eq!(row, Some((rows, rows * rows)));
        rows += 1;
    }
    Ok(rows)
}

/// From one task to another, with a synchronous library at each end.
async fn over_async(key: &Key, whole: bool) -> io::Result<u64> {
    let (near, far) = tokio::io::duplex(64 * 1024); // or the two ends of a TCP connection
    let writer = EncryptWriter::new(near, key);
    let writing = spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(DEFAULT_CHUNK_SIZE, SyncIoBridge::new(writer));
        dump(&mut out)?;
        // What is flushed has arrived. Only this says that it was all.
        if whole { out.get_mut().shutdown() } else { Ok(()) }
    });
    let reader = DecryptReader::new(far, key);
    // A `DecryptReader` is a `BufRead` behind the bridge as well: nothing more is copied.
    let reading = spawn_blocking(move || load(SyncIoBridge::new(reader)));
    writing.await??;
    reading.await?
}

/// A `Write` that encrypts. It is the stream of one chunk after the other, and the end.
struct Sealing<W> {
    encryptor: Encryptor,
    chunk: Vec<u8>,
    frame: Vec<u8>,
    out: W,
}

impl<W: Write> Sealing<W> {
    fn start(mut out: W, key: &Key) -> io::Result<Self> {
        let (encryptor, prelude) = Encryptor::start(key, &EncryptOptions::new())?;
        out.write_all(&prelude)?;
        Ok(Self { encryptor, chunk: Vec::new(), frame: Vec::new(), out })
    }

    fn seal(&mut self) -> io::Result<()> {
        self.frame.clear();
        self.encryptor.seal(&self.chunk, &mut self.frame)?;
        self.chunk.clear();
        self.out.write_all(&self.frame)
    }

    /// Without this the stream is cut.
    fn finish(mut self) -> io::Result<W> {
        if !self.chunk.is_empty() {
            self.seal()?;
        }
        let Self { encryptor, mut out, .. } = self;
        out.write_all(&encryptor.finish())?;
        Ok(out)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.encryptor.chunk_size() - self.chunk.len();
        let taken = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.seal()?;
        }
        Ok(taken)
    }

    /// Chunks are sealed when they are full, so that the stream stays uniform.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A `Read` that decrypts. It ends only where the stream is known to be whole.
struct Opening<R> {
    decryptor: Decryptor,
    buffer: Vec<u8>,
    plaintext: std::ops::Range<usize>,
    consumed: usize,
    input: R,
}

impl<R: Read> Opening<R> {
    fn start(input: R, key: &Key) -> Self {
        let decryptor = Decryptor::new(key, &DecryptOptions::new());
        Self { decryptor, buffer: Vec::new(), plaintext: 0..0, consumed: 0, input }
    }
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.plaintext.is_empty() && !out.is_empty() {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            match self.decryptor.open_in_place(&mut self.buffer)? {
                Step::Start { consumed } => self.consumed = consumed,
                Step::Data { consumed, plaintext } => (self.consumed, self.plaintext) = (consumed, plaintext),
                Step::End { .. } => return Ok(0),
                Step::Incomplete { required, .. } => {
                    let missing = (required - self.buffer.len()) as u64;
                    if self.input.by_ref().take(missing).read_to_end(&mut self.buffer)? == 0 {
                        self.decryptor.end_of_input(self.buffer.len())?;
                    }
                }
            }
        }
        let read = (&self.buffer[self.plaintext.clone()]).read(out)?;
        self.plaintext.start += read;
        Ok(read)
    }
}

fn without_async(key: &Key) -> io::Result<u64> {
    let mut sealing = Sealing::start(Vec::new(), key)?; // or a file
    dump(BufWriter::with_capacity(DEFAULT_CHUNK_SIZE, &mut sealing))?;
    let stream = sealing.finish()?;
    load(BufReader::new(Opening::start(&stream[..], key)))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let key = Key::generate();

    let rows = over_async(&key, true).await?;
    assert_eq!(rows, ROWS);
    println!("{rows} rows went from one synchronous library to another through SyncIoBridge");

    let cut = over_async(&key, false).await.expect_err("a stream without an end");
    assert!(matches!(Error::from_io(&cut), Some(Error::Truncated { .. })));
    println!("without shutdown the reader says: {cut}");

    let rows = without_async(&key)?;
    assert_eq!(rows, ROWS);
    println!("{rows} rows went the same way without any async");
    Ok(())
}
