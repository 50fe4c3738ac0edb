//! A long stream into an object store, encrypted, in parts and in bounded memory; and then a range of it, by a request
//! for just the chunks that hold it. The server, whatever it is, sees ciphertext only.
//!
//! ```text
//! cargo run --release --features object_store --example object_store
//! ```
//!
//! The store is memory here. An `AmazonS3`, a `LocalFileSystem` or any other of the crate `object_store` goes in its
//! place.

use std::time::Instant;

use agcm::{
    Error, Key,
    object_store::{EncryptedStore, StoreOptions},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

const PART: usize = 8 * 1024 * 1024;

/// What is to be stored, as it comes: never all of it at once.
fn snapshot() -> impl stream::Stream<Item = Bytes> {
    stream::iter(0..12_u8).map(|part| Bytes::from(vec![part; PART]))
}

#[tokio::main]
async fn main() -> object_store::Result<()> {
    let key = Key::generate();
    // An object that somebody moves to another path does not open there.
    let options = StoreOptions::new().bind_path("s3://backups/");
    let store = EncryptedStore::with_options(InMemory::new(), &key, &options);
    let path = Path::from("2026/11/db.dump");

    // Up to four parts under way at a time. If any of this fails, or stops, nothing is left behind: the upload is
    // aborted.
    let start = Instant::now();
    let mut upload = store.put_multipart(&path).await?;
    snapshot().map(|part| upload.put_part(part.into())).buffered(4).try_collect::<()>().await?;
    upload.complete().await?;
    println!("stored {} bytes in {:?}", store.head(&path).await?.size, start.elapsed());

    // A range costs the chunks that hold it.
    let range = 3 * PART as u64 - 3..3 * PART as u64 + 3;
    assert_eq!(store.get_range(&path, range).await?, [2, 2, 2, 3, 3, 3][..]);

    // All of it, as it arrives. Only the end says that it was whole.
    let mut pieces = store.get(&path).await?.into_stream();
    let mut total = 0;
    while let Some(piece) = pieces.try_next().await? {
        total += piece.len();
    }
    println!("read {total} bytes");

    // What the inner store has is of no use to whoever has no key, nor under another name.
    let moved = Path::from("2026/11/other.dump");
    store.get_ref().copy(&path, &moved).await?;
    match store.get(&moved).await {
        Err(error) if Error::from_store(&error) == Some(Error::KeyMismatch) => println!("{error}"),
        other => panic!("it should not have opened: {other:?}"),
    }
    Ok(())
}
