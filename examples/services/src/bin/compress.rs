//! Compression and encryption: the sizes of both orders, and what compression gives away; see
//! [`agcm_services::compress`].
//!
//! ```text
//! cd examples/services
//! cargo run --release --bin compress -- [PATH]
//! ```
//!
//! Without a path it makes a sample. It ends with status 0 only if the file came back byte for byte.

use std::{env, fs, io, io::Write, path::PathBuf};

use agcm::{Key, encrypt_file};
use agcm_services::compress::{len_with, restore, store, store_wrongly};

#[tokio::main]
async fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let plain = match env::args_os().nth(1) {
        Some(given) => PathBuf::from(given),
        None => {
            let mut sample = io::BufWriter::new(fs::File::create(path("sample.csv"))?);
            for i in 0..200_000u64 {
                writeln!(sample, "{i},user-{},{}", i * 7919 % 100_003, i * i % 997)?;
            }
            sample.flush()?;
            path("sample.csv")
        }
    };
    let key = Key::generate();
    let len = fs::metadata(&plain)?.len();
    encrypt_file(&plain, path("encrypted"), &key).await?;
    store(&plain, &path("compressed"), &key).await?;
    println!("{len} bytes of plaintext");
    println!("{} encrypted", fs::metadata(path("encrypted"))?.len());
    println!("{} compressed, then encrypted", fs::metadata(path("compressed"))?.len());
    println!("{} encrypted, then compressed", store_wrongly(&plain, &key).await?);

    restore(&path("compressed"), &path("restored"), &key, len).await?;
    assert!(fs::read(path("restored"))? == fs::read(&plain)?);
    println!("what was stored came back, byte for byte");

    println!(
        "the length of a page that holds a secret and what an attacker has chosen, encrypted, or compressed before:"
    );
    for guess in ["token=7f3a9c0e51d2", "token=000000000000", "token=123456789abc"] {
        let lens =
            (len_with(guess, "7f3a9c0e51d2", false, &key).await?, len_with(guess, "7f3a9c0e51d2", true, &key).await?);
        println!("    {guess}: {} and {}", lens.0, lens.1);
    }
    Ok(())
}
