//! Where the keys of a command come from.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use agcm::{
    Error, Key, KeyRing,
    keystore::{DirKeyStore, Passphrase},
};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The key in this file, or in that of the environment, or in the environment.
pub(crate) async fn one(file: Option<&Path>) -> Result<Key, Failure> {
    match file {
        Some(file) => Ok(Key::read_file(file).await?),
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
        keys.push(Key::read_file(file).await?);
    }
    Ok(keys.into_iter().collect())
}

/// The keys to decrypt with, and the one in this file to encrypt with.
pub(crate) async fn both(files: &[PathBuf], to: &Path) -> Result<(KeyRing, Key), Failure> {
    Ok((ring(files).await?, one(Some(to)).await?))
}

async fn from_environment() -> Result<Key, Failure> {
    if let Some(file) = set("AGCM_KEYFILE") {
        return Key::read_file(&file).await.map_err(|error| Failure::from(error).about("AGCM_KEYFILE"));
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
pub(crate) fn store(folder: &Path, passphrase_file: Option<&Path>) -> Result<DirKeyStore, Failure> {
    let passphrase = match passphrase_file {
        Some(file) => {
            let content =
                std::fs::read(file).map_err(|error| Failure::from(error).about(&format!("reading {file:?}")))?;
            Some(Zeroizing::new(content))
        }
        None => set("AGCM_PASSPHRASE").map(|passphrase| Zeroizing::new(passphrase.into_encoded_bytes())),
    };
    let store = DirKeyStore::new(folder);
    Ok(match passphrase {
        // An editor ends the line, a person does not mean that.
        Some(passphrase) => match passphrase.split(|byte| matches!(byte, b'\n' | b'\r')).next() {
            None | Some([]) => return Err(Failure::usage("the passphrase is empty")),
            Some(line) => store.passphrase(Passphrase::new(line)),
        },
        None => store,
    })
}

/// What is set and empty is taken as not set: that is how some callers unset it.
fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
