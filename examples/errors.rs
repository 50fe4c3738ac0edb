//! What can be wrong with a stream, and what to do about it.
//!
//! ```text
//! cargo run --example errors
//! ```

use std::io;

use agcm::{DecryptOptions, DecryptReader, EncryptOptions, Error, Key, KeyRing, Trailing};
use tokio::io::AsyncReadExt;

/// What a restore can do next.
fn advice(error: &io::Error) -> &'static str {
    match Error::from_io(error) {
        Some(Error::KeyMismatch) => "try the other keys; check the context",
        Some(Error::Truncated { .. }) => "fetch it again: what is there is intact, but not all",
        Some(Error::Corrupt { .. } | Error::InvalidFrame { .. }) => "use another copy: this one was damaged or changed",
        Some(Error::TrailingData { .. }) => "check what was appended; the stream itself is whole",
        Some(Error::BadMagic) => "decompress or decode it first, or it is another file altogether",
        Some(Error::LegacyStream) => "it was written by the Go library",
        Some(Error::UnsupportedVersion(_)) => "upgrade agcm",
        Some(Error::ChunkTooLarge { .. }) => "raise max_chunk_size, if its sender may use that much memory",
        Some(_) => "read the message",
        // Not the stream: the disk, the network. With these, reading may be resumed.
        None => "try again",
    }
}

async fn restore(what: &str, stream: &[u8], keys: impl Into<KeyRing>) {
    let options = DecryptOptions::new().max_chunk_size(1 << 20).expect("1 MiB is legal").trailing(Trailing::Reject);
    let mut plaintext = Vec::new();
    let mut reader = DecryptReader::with_options(stream, keys, &options);
    match reader.read_to_end(&mut plaintext).await {
        Ok(len) => println!("{what}: {len} bytes, whole"),
        // What was read before the error is an authentic prefix. It is not the snapshot.
        Err(error) => println!("{what}: {error}\n    after {} bytes -> {}", plaintext.len(), advice(&error)),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let key = Key::generate();
    let good = agcm::encrypt(&key, &[7; 200_000]);
    let mut damaged = good.clone();
    damaged[100_000] ^= 1;
    let mut renamed = good.clone();
    renamed[83] = 9; // the kind of the first frame
    let huge = EncryptOptions::new().chunk_size(10 << 20)?.encrypt(&key, b"");
    let mut future = good.clone();
    future[4] = 2;
    let old_and_new: KeyRing = [Key::generate(), key.clone()].into_iter().collect();

    restore("as it was written", &good, &key).await;
    restore("with one of several keys", &good, old_and_new).await;
    restore("with a wrong key", &good, &Key::generate()).await;
    restore("cut", &good[..100_000], &key).await;
    restore("damaged", &damaged, &key).await;
    restore("with a frame that is none", &renamed, &key).await;
    restore("with something after it", &[&good[..], b"?"].concat(), &key).await;
    restore("not a stream", b"PK\x03\x04", &key).await;
    restore("from the future", &future, &key).await;
    restore("with large chunks", &huge, &key).await;
    Ok(())
}
