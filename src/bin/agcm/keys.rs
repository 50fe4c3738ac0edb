//! Where the keys of a command come from, and where those go that it makes or exports.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use agcm::{
    Error, Key, KeyRing,
    keystore::{DirKeyStore, Passphrase},
};
use zeroize::Zeroizing;

use crate::{
    failure::Failure,
    guards::needs_name,
    streams::{Output, Run},
};

/// More than any passphrase, in bytes.
const MAX_PASSPHRASE_FILE_LEN: usize = 4096;

/// The key in this file, or in that of the environment, or in the environment.
pub(crate) async fn one(file: Option<&Path>) -> Result<Key, Failure> {
    match file {
        Some(file) => from_file(file).await,
        None => from_environment().await,
    }
}

/// The keys in these files, or the one of the environment.
pub(crate) async fn ring(files: &[PathBuf]) -> Result<KeyRing, Failure> {
    if files.is_empty() {
        return Ok(from_environment().await?.into());
    }
    let mut keys = Vec::with_capacity(files.len());
    for file in files {
        keys.push(from_file(file).await?);
    }
    Ok(keys.into_iter().collect())
}

/// The keys to decrypt with, and the one in this file to encrypt with.
pub(crate) async fn both(files: &[PathBuf], to: &Path) -> Result<(KeyRing, Key), Failure> {
    Ok((ring(files).await?, one(Some(to)).await?))
}

async fn from_file(file: &Path) -> Result<Key, Failure> {
    // Not `-`: standard input is for what is encrypted.
    needs_name(file)?;
    read(file).await
}

async fn read(file: &Path) -> Result<Key, Failure> {
    match Key::read_file(file).await {
        // It would stand in the logs of whatever runs this.
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_key(file.as_os_str()) => Err(Failure::usage(
            "what is given as the name of a key file looks like a key: put it into a file, or into AGCM_KEY; others may have seen it",
        )),
        result => Ok(result?),
    }
}

/// Whether it has half the digits of a key in a row: of one that was not copied as a whole, too.
fn may_be_key(name: &OsStr) -> bool {
    let runs = name.as_encoded_bytes().split(|byte| !byte.is_ascii_hexdigit());
    runs.map(<[u8]>::len).max() >= Some(Key::LEN)
}

async fn from_environment() -> Result<Key, Failure> {
    if let Some(file) = set("AGCM_KEYFILE") {
        return read(Path::new(&file)).await.map_err(|failure| failure.about("AGCM_KEYFILE"));
    }
    match set("AGCM_KEY") {
        Some(key) => {
            let key = Zeroizing::new(key.into_encoded_bytes());
            let key = std::str::from_utf8(&key).map_err(|_| Error::InvalidKey).and_then(str::parse);
            key.map_err(|error| Failure::from(error).about("AGCM_KEY"))
        }
        None => Err(Failure::usage(
            "there is no key: give one with -k KEYFILE (agcm keygen -o KEYFILE makes one), or AGCM_KEYFILE",
        )),
    }
}

/// The key store in a folder.
pub(crate) async fn store(folder: &Path, passphrase_file: Option<&Path>) -> Result<DirKeyStore, Failure> {
    let store = DirKeyStore::new(folder);
    let passphrase = match (passphrase_file, env::var_os("AGCM_PASSPHRASE")) {
        (Some(file), _) => {
            needs_name(file)?;
            let reading = |error| Failure::from(error).about(&format!("reading the passphrase file {file:?}"));
            let path = file.to_owned();
            let line = tokio::task::spawn_blocking(move || read_line(&path)).await;
            line.map_err(io::Error::other).and_then(|line| line).map_err(reading)?
        }
        (None, Some(passphrase)) => Zeroizing::new(passphrase.into_encoded_bytes()),
        (None, None) => return Ok(store),
    };
    if passphrase.is_empty() {
        // More likely to have been lost than to be meant; and keys would be stored in the clear.
        return Err(Failure::usage("the passphrase is empty"));
    }
    Ok(store.passphrase(Passphrase::new(&*passphrase)))
}

/// The one line of a short file, which an editor may have ended.
fn read_line(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE_FILE_LEN + 64));
    File::open(path)?.take(MAX_PASSPHRASE_FILE_LEN as u64).read_to_end(&mut content)?;
    let line = content.strip_suffix(b"\n").map_or(&content[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
    if line.contains(&b'\n') || content.len() == MAX_PASSPHRASE_FILE_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not one line of less than 4 KiB"));
    }
    Ok(Zeroizing::new(line.to_vec()))
}

/// Writes a key file, or prints what one holds.
pub(crate) async fn write(run: &Run, key: &Key, output: Output) -> Result<(), Failure> {
    match output {
        Output::File(path) => Ok(key.write_file(path).await?),
        Output::Special(path) => {
            Err(Failure::usage(format!("{path:?} is a device or a pipe: write to standard output for that")))
        }
        Output::Stdout => {
            let hex = key.expose_hex();
            run.print(Zeroizing::new(format!("{}\n", *hex)).as_bytes()).await
        }
    }
}

/// What is set and empty is taken as not set: that is how some callers unset it.
fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
