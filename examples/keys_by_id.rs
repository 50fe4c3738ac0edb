//! Snapshots whose keys are kept by id, somewhere else than the snapshots; and what to do when a key has to be replaced.
//!
//! ```text
//! cargo run --example keys_by_id
//! ```
//!
//! `DirKeyStore` keeps keys in a folder. A client of a key management service implements the trait `KeyStore`.

use agcm::{
    DecryptOptions, EncryptOptions, FileOptions, Key, SnapshotError, encrypt_snapshot,
    keystore::{DirKeyStore, KeyStore, KeyStoreError},
    restore_snapshot,
};

#[tokio::main]
async fn main() -> Result<(), SnapshotError> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    tokio::fs::write(path("db.dump"), "INSERT INTO t VALUES (1);\n".repeat(100_000)).await?;

    // Each snapshot has a key of its own, stored before the first byte is sealed under it.
    let keys = DirKeyStore::new(path("keys"));
    encrypt_snapshot(path("db.dump"), path("db.agcm"), &keys, "db-2026-11-22").await?;
    println!("keys: {}", keys.list().await?.join(", "));

    restore_snapshot(path("db.agcm"), path("db.restored"), &keys, "db-2026-11-22").await?;
    assert_eq!(tokio::fs::read(path("db.restored")).await?, tokio::fs::read(path("db.dump")).await?);

    // The id is the stream's context. With another id's key it would not open, even if the keys were swapped.
    match restore_snapshot(path("db.agcm"), path("again"), &keys, "db-2026-11-21").await {
        Err(SnapshotError::KeyStore(KeyStoreError::NoSuchId(id))) => println!("there is no key {id}"),
        other => panic!("{other:?}"),
    }

    // A key that too many have seen: encrypt anew under another one and its id, in place, without plaintext on disk.
    let (old_id, new_id) = ("db-2026-11-22", "db-2026-11-22.b");
    let (old, new) = (keys.retrieve(old_id).await?, Key::generate());
    keys.store(new_id, &new).await?;
    FileOptions::new()
        .decrypt_options(DecryptOptions::new().context(old_id)?)
        .encrypt_options(EncryptOptions::new().context(new_id)?)
        .rekey_file(path("db.agcm"), path("db.agcm"), &old, &new)
        .await?;
    keys.remove(old_id).await?; // only now that nothing needs it
    println!("keys: {}", keys.list().await?.join(", "));

    let len = restore_snapshot(path("db.agcm"), path("db.restored again"), &keys, new_id).await?;
    println!("{len} bytes restored with the new key");
    Ok(())
}
