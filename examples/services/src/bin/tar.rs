//! Folders in encrypted archives; see [`agcm_services::archive`].
//!
//! ```text
//! cd examples/services
//! umask 077; openssl rand -hex 32 >archive.key
//! cargo run --release --bin tar -- pack archive.key FOLDER folder.tar.agcm
//! cargo run --release --bin tar -- list archive.key folder.tar.agcm
//! cargo run --release --bin tar -- extract archive.key folder.tar.agcm FRESH-FOLDER
//! ```

use std::{env, error::Error, fs, path::Path, process::ExitCode};

use agcm::Key;
use agcm_services::archive::{extract, list, pack};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tar: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let key = |path| -> Result<Key, Box<dyn Error>> { Ok(fs::read_to_string(path)?.trim_end().parse()?) };
    match (args.first().and_then(|command| command.to_str()), args.get(1..).unwrap_or_default()) {
        (Some("pack"), [file, folder, archive]) => pack(Path::new(folder), Path::new(archive), &key(file)?).await?,
        (Some("extract"), [file, archive, folder]) => {
            extract(Path::new(archive), Path::new(folder), &key(file)?).await?
        }
        (Some("list"), [file, archive]) => {
            for (path, len) in list(Path::new(archive), &key(file)?).await? {
                println!("{len:12} {}", path.display());
            }
        }
        _ => {
            return Err(
                "usage: tar pack KEYFILE FOLDER ARCHIVE | list KEYFILE ARCHIVE | extract KEYFILE ARCHIVE FOLDER".into(),
            );
        }
    }
    Ok(())
}
