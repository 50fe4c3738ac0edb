//! A file to an encrypted file, and back. Neither target ever exists half-written.
//!
//! ```text
//! cargo run --example file_to_file
//! ```

use std::io;

use agcm::{Key, decrypt_file, encrypt_file};

#[tokio::main]
async fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    tokio::fs::write(path("db.dump"), "INSERT INTO t VALUES (1);\n".repeat(100_000)).await?;

    // Keep the key somewhere else than the backup: `key.expose_bytes()` into a key store, and `Key::try_from` back.
    let key = Key::generate();

    let len = encrypt_file(path("db.dump"), path("db.dump.agcm"), &key).await?;
    println!("encrypted {len} bytes");

    let len = decrypt_file(path("db.dump.agcm"), path("db.restored"), &key).await?;
    println!("decrypted {len} bytes");

    assert_eq!(tokio::fs::read(path("db.restored")).await?, tokio::fs::read(path("db.dump")).await?);
    Ok(())
}
