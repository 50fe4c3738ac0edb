//! Snapshots: a file and its key, each in its place, bound to each other by an id.
//!
//! A key is stored before the first byte is sealed under it, and never removed while there may be a file that needs it.

use std::{error, fmt, io, path::Path};

use crate::{
    blocking,
    error::{Error, at},
    file::{FileOptions, target::is_in_place},
    key::Key,
    keystore::{KeyStore, KeyStoreError},
};

/// Encrypts the file `src` into a new file `dst` under a key of its own, which is stored under `id`; returns the number of
/// plaintext bytes.
///
/// The key is made and stored first, then the file is encrypted as by [`encrypt_file`](crate::encrypt_file), with the id as
/// its context, so that a key that was stored under another id does not open it; then the key is wiped. If no file was
/// published, the key is removed again, so that the same can be tried once more, after making room for example.
///
/// ```
/// use agcm::{encrypt_snapshot, keystore::DirKeyStore, restore_snapshot};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agcm::SnapshotError> {
/// # let folder = tempfile::tempdir()?;
/// # let path = |name| folder.path().join(name);
/// # let (dump, sealed, restored) = (path("db.dump"), path("db.dump.agcm"), path("db.restored"));
/// # std::fs::write(&dump, "some rows")?;
/// let keys = DirKeyStore::new(path("keys"));
/// encrypt_snapshot(&dump, &sealed, &keys, "db-2026-11-22").await?;
/// restore_snapshot(&sealed, &restored, &keys, "db-2026-11-22").await?;
/// # assert_eq!(std::fs::read(&restored)?, b"some rows");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`SnapshotError`]: the store's, or as for [`encrypt_file`](crate::encrypt_file). Then there is no `dst`, and no key under
/// this id that was not there before; except for [`KeyLeft`](SnapshotError::KeyLeft), where the key could not be removed.
/// If the error says that the file is in its place all the same, so is the key.
///
/// # Cancel safety
///
/// If the future is dropped, there may be a key under the id, with a file or without one: it is not removed, as it might be
/// needed. If there is no `dst`, [`remove`](KeyStore::remove) it before trying again. To stop the work and have that done,
/// use [`FileOptions::cancel_on`].
///
/// # Panics
///
/// Outside a Tokio runtime, and as [`Key::generate`].
pub async fn encrypt_snapshot(
    src: impl AsRef<Path>,
    dst: impl AsRef<Path>,
    keys: &dyn KeyStore,
    id: &str,
) -> Result<u64, SnapshotError> {
    FileOptions::new().encrypt_snapshot(src, dst, keys, id).await
}

/// Decrypts the file `src` into a new file `dst`, with the key that is stored under `id`; returns the number of plaintext
/// bytes.
///
/// `dst` appears, whole, or does not, as by [`decrypt_file`](crate::decrypt_file).
///
/// # Errors
///
/// [`SnapshotError`]: the store's, where an id that is not there is [`NoSuchId`](KeyStoreError::NoSuchId), or as for
/// [`decrypt_file`](crate::decrypt_file).
///
/// # Cancel safety
///
/// As for [`decrypt_file`](crate::decrypt_file).
///
/// # Panics
///
/// Outside a Tokio runtime.
pub async fn restore_snapshot(
    src: impl AsRef<Path>,
    dst: impl AsRef<Path>,
    keys: &dyn KeyStore,
    id: &str,
) -> Result<u64, SnapshotError> {
    FileOptions::new().restore_snapshot(src, dst, keys, id).await
}

impl FileOptions {
    /// As the function [`encrypt_snapshot`], with these options. The context of
    /// [`encrypt_options`](Self::encrypt_options) gives way to the id.
    ///
    /// # Errors
    ///
    /// As there, and as for [`encrypt_file`](Self::encrypt_file).
    ///
    /// # Cancel safety
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    pub async fn encrypt_snapshot(
        &self,
        src: impl AsRef<Path>,
        dst: impl AsRef<Path>,
        keys: &dyn KeyStore,
        id: &str,
    ) -> Result<u64, SnapshotError> {
        let options = self.chosen_encrypt_options().context(id)?;
        let key = Key::generate();
        let before = exists(dst.as_ref()).await?;
        keys.store(id, &key).await?;
        let appeared = if before { Ok(false) } else { exists(dst.as_ref()).await };
        let refused = match appeared {
            Ok(false) => None,
            // It may be the key itself that is there now.
            Ok(true) => {
                let words = "something of this name has just come into being, and is not replaced";
                Some(at(dst.as_ref(), "creating", io::Error::new(io::ErrorKind::AlreadyExists, words)))
            }
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            return Err(without_key(keys, id, error.into()).await);
        }
        let result = self.clone().encrypt_options(options).encrypt_file(src, dst, &key).await;
        let error = match result {
            Ok(len) => return Ok(len),
            Err(error) if is_in_place(&error) => return Err(error.into()),
            Err(error) => SnapshotError::from(error),
        };
        Err(without_key(keys, id, error).await)
    }

    /// As the function [`restore_snapshot`], with these options. The context of
    /// [`decrypt_options`](Self::decrypt_options) gives way to the id.
    ///
    /// # Errors
    ///
    /// As there, and as for [`decrypt_file`](Self::decrypt_file).
    ///
    /// # Cancel safety
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    pub async fn restore_snapshot(
        &self,
        src: impl AsRef<Path>,
        dst: impl AsRef<Path>,
        keys: &dyn KeyStore,
        id: &str,
    ) -> Result<u64, SnapshotError> {
        let options = self.chosen_decrypt_options().context(id)?;
        let key = keys.retrieve(id).await?;
        Ok(self.clone().decrypt_options(options).decrypt_file(src, dst, key).await?)
    }
}

/// Removes the key of a snapshot that was not published, so that nothing needs it.
async fn without_key(keys: &dyn KeyStore, id: &str, error: SnapshotError) -> SnapshotError {
    match keys.remove(id).await {
        Ok(()) => error,
        Err(removing) => SnapshotError::KeyLeft { id: id.to_owned(), error: Box::new(error), removing },
    }
}

/// Whether there is anything at a path, or where it leads.
async fn exists(path: &Path) -> io::Result<bool> {
    let path = path.to_owned();
    blocking::io(move || path.try_exists().map_err(|error| at(&path, "looking at", error))).await
}

/// What keeps a snapshot from being made or restored: [the runbook](crate::guide::restoring) says what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The files.
    Io(io::Error),
    /// The stream, or what was asked of it.
    Stream(Error),
    /// The key store.
    KeyStore(KeyStoreError),
    /// No file was published, and removing the key that was stored for it failed: remove it, or use another id.
    KeyLeft {
        /// The id of the key.
        id: String,
        /// Why there is no file.
        error: Box<SnapshotError>,
        /// Why the key is still there.
        removing: KeyStoreError,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Stream(error) => error.fmt(f),
            Self::KeyStore(error) => error.fmt(f),
            Self::KeyLeft { id, error, removing } => write!(
                f,
                "{error}; and the key {id:?}, which nothing needs now, may be left, as removing it failed: {removing}; remove it \
                 before trying again with this id"
            ),
        }
    }
}

impl error::Error for SnapshotError {}

impl From<io::Error> for SnapshotError {
    /// What a stream did wrong is a [`Stream`](Self::Stream), wherever it came from.
    fn from(error: io::Error) -> Self {
        match Error::from_io(&error) {
            Some(error) => Self::Stream(error),
            None => Self::Io(error),
        }
    }
}

impl From<Error> for SnapshotError {
    fn from(error: Error) -> Self {
        Self::Stream(error)
    }
}

impl From<KeyStoreError> for SnapshotError {
    fn from(error: KeyStoreError) -> Self {
        Self::KeyStore(error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        file::target::faults::{self, Fault},
        keystore::DirKeyStore,
    };

    /// Makes a snapshot over an old one while the disk fails; returns the error, and whether the key is kept.
    async fn over_an_old_one(fault: Fault) -> (SnapshotError, bool) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let path = |name: &str| folder.join(name);
        std::fs::write(path("src"), "rows").unwrap();
        std::fs::write(path("dst"), "old").unwrap();
        let keys = DirKeyStore::new(path("keys"));
        faults::set(&path("dst"), fault);
        let options = FileOptions::new().overwrite(true);
        let error = options.encrypt_snapshot(path("src"), path("dst"), &keys, "id").await.unwrap_err();
        let kept = keys.retrieve("id").await.is_ok();
        if kept {
            // It is what the new file needs.
            restore_snapshot(path("dst"), path("again"), &keys, "id").await.unwrap();
        } else {
            assert_eq!(std::fs::read(path("dst")).unwrap(), b"old");
        }
        (error, kept)
    }

    #[tokio::test]
    async fn a_key_is_removed_only_if_no_file_needs_it() {
        let (error, kept) = over_an_old_one(Fault::Sync).await;
        assert!(!kept, "{error}");
        let (error, kept) = over_an_old_one(Fault::SyncFolder).await;
        assert!(kept, "{error}");
        assert!(error.to_string().contains("in its place"), "{error}");
    }
}
