//! A chosen chunk size: 1 MiB, for a sink that likes large writes.
//!
//! ```text
//! cargo run --example chunk_size
//! ```

use std::io;

use agcm::{DecryptOptions, DecryptReader, EncryptOptions, EncryptWriter, Key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1024 * 1024;

#[tokio::main]
async fn main() -> io::Result<()> {
    let key = Key::generate();
    let snapshot = vec![42; 5 * MIB];

    // The chunk size is written in the stream; only the encrypting side chooses it.
    let options = EncryptOptions::new().chunk_size(MIB)?;
    let mut writer = EncryptWriter::with_options(Vec::new(), &key, &options);
    writer.write_all(&snapshot).await?;
    writer.shutdown().await?;
    let stream = writer.into_inner();
    println!("{} bytes became {}", snapshot.len(), stream.len());

    // A reader must hold one chunk, so it can say how large a chunk may be. Without this it accepts up to 10 MiB.
    let options = DecryptOptions::new().max_chunk_size(MIB)?;
    let mut restored = Vec::new();
    DecryptReader::with_options(&stream[..], &key, &options).read_to_end(&mut restored).await?;
    assert!(restored == snapshot);
    Ok(())
}
