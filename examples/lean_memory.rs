//! Processing in little memory: chunks of 32 KiB, read 8 KiB at a time, whatever the length of the stream.
//!
//! ```text
//! cargo run --release --example lean_memory
//! ```

use std::io;

use agcm::{DecryptOptions, DecryptReader, EncryptOptions, EncryptWriter, Key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KIB: usize = 1024;

#[tokio::main]
async fn main() -> io::Result<()> {
    let key = Key::generate();
    // Between the two there is a pipe of 8 KiB; nothing here ever holds more than a chunk.
    let (near, far) = tokio::io::duplex(8 * KIB);

    let writing = tokio::spawn({
        let key = key.clone();
        async move {
            let options = EncryptOptions::new().chunk_size(32 * KIB)?;
            let mut writer = EncryptWriter::with_options(near, &key, &options);
            for _ in 0..8 * KIB {
                writer.write_all(&[1; 8 * KIB]).await?;
            }
            writer.shutdown().await
        }
    });

    // A stream with larger chunks would be refused before any memory is spent on it.
    let options = DecryptOptions::new().max_chunk_size(32 * KIB)?;
    let mut reader = DecryptReader::with_options(far, &key, &options);
    let mut piece = [0; 8 * KIB];
    let (mut len, mut sum) = (0u64, 0u64);
    loop {
        let n = reader.read(&mut piece).await?;
        if n == 0 {
            break; // the end of a stream that was checked to be whole
        }
        len += n as u64;
        sum += piece[..n].iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
    writing.await??;
    println!("{len} bytes, sum {sum}");
    assert_eq!((len, sum), (64 << 20, 64 << 20));
    Ok(())
}
