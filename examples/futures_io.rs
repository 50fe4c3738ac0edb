//! For whoever speaks the traits of `futures-io` (async-std, smol, many libraries) in the place of Tokio's:
//! `tokio_util::compat` translates, on either side of an adapter, and costs next to nothing.
//!
//! ```text
//! cargo run --example futures_io
//! ```
//!
//! Nothing here needs a runtime of Tokio's: the adapters work on any executor. (Work on files does need
//! one; several workers are one without it.)

use std::io::{self, SeekFrom};

use agcm::{DecryptReader, EncryptWriter, Error, Key, SeekReader};
use futures::{
    executor::block_on,
    io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt, Cursor, copy},
};
use tokio_util::compat::{
    FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt, TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt,
};

/// Stands for a library that speaks `futures-io` and writes to whatever it is given.
async fn dump(mut out: impl AsyncWrite + Unpin) -> io::Result<()> {
    for i in 0..100_000u32 {
        out.write_all(&i.to_le_bytes()).await?;
    }
    // What Tokio calls `shutdown`: without it, the stream would be `Truncated`.
    out.close().await
}

/// Another one, which reads. Returns how many numbers there were, all of which were right.
async fn load(mut input: impl AsyncRead + Unpin) -> io::Result<usize> {
    let mut content = Vec::new();
    input.read_to_end(&mut content).await?;
    let numbers = content.chunks_exact(4).zip(0..);
    Ok(numbers.map(|(bytes, i): (_, u32)| assert_eq!(bytes, i.to_le_bytes())).count())
}

async fn run() -> io::Result<()> {
    let key = Key::generate();

    // Inside, a writer of futures-io; outside, one as well: each is translated where it meets Tokio's traits.
    let mut stream = Vec::new();
    let inner = Cursor::new(&mut stream).compat_write();
    dump(EncryptWriter::new(inner, &key).compat_write()).await?;
    assert_eq!(agcm::decrypt(&key, &stream)?.len(), 400_000);
    println!("encrypted {} bytes for a library that speaks futures-io", stream.len());

    let inner = Cursor::new(&stream).compat();
    let numbers = load(DecryptReader::new(inner, &key).compat()).await?;
    assert_eq!(numbers, 100_000);
    println!("and gave another one back all {numbers} numbers");

    // A source that knows how to seek keeps that, too.
    let mut reader = SeekReader::open(Cursor::new(&stream).compat(), &key).await?.compat();
    reader.seek(SeekFrom::Start(4 * 77_777)).await?;
    let mut number = [0; 4];
    reader.read_exact(&mut number).await?;
    assert_eq!(number, 77_777u32.to_le_bytes());
    println!("number 77777 was read without those before it");

    // Errors come through as they are.
    let cut = DecryptReader::new(Cursor::new(&stream[..200_000]).compat(), &key).compat();
    let error = copy(cut, &mut futures::io::sink()).await.expect_err("half a stream");
    assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: 200_000 }));
    println!("half a stream: {error}");
    Ok(())
}

fn main() -> io::Result<()> {
    block_on(run())
}
