//! Keys in a folder, one file each.
//!
//! Whatever others may read is refused, not repaired: a key that others may have read is not a secret any more, and somebody
//! has to know. An id must never lead out of the folder.

use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
};

use futures_core::future::BoxFuture;
use zeroize::Zeroizing;

use super::store::{KeyStore, KeyStoreError, blocking, on_the_blocking_pool};
#[cfg(feature = "passphrase")]
use super::wrapping::Passphrase;
use crate::{
    error::at,
    file::target::Folder,
    key::Key,
    key_file::{MAX_FILE_LEN, create, read_short},
};

/// What the files of keys end in.
const SUFFIX: &str = ".key";
/// The longest id, in bytes: with its suffix within the 255 that file systems allow.
const MAX_ID_LEN: usize = 200;

/// A [`KeyStore`] in a folder of the file system.
///
/// The key with the id `db` is in the file `db.key`: 64 hex digits and a newline. Key files of the command line
/// (`agcm keygen`), and of 32 raw bytes, may be put there as well.
///
/// An id is 1 to 200 ASCII letters, digits, `.`, `_` and `-`, and begins with a letter, a digit or `_`. On file systems that
/// don't tell upper case from lower case, ids that differ only by that are one.
///
/// On Unix the folder has mode 0700 and the files 0600. The folder, but not those above it, is made by the first [`store`](KeyStore::store). If others
/// than the owner have any right to it or to a file, that is
/// [`UnsafePermissions`](KeyStoreError::UnsafePermissions). Elsewhere, keep the folder where only you may read.
/// Who the owner is is not looked at: root may use the keys of others.
/// A key file appears whole or not at all, after it was synced to disk.
///
/// ```
/// use agcm::{Key, keystore::{DirKeyStore, KeyStore, KeyStoreError}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), KeyStoreError> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("keys");
/// let keys = DirKeyStore::new(path);
/// let key = Key::generate();
/// keys.store("db-2026-11-22", &key).await?;
/// assert_eq!(keys.retrieve("db-2026-11-22").await?, key);
/// assert_eq!(keys.list().await?, ["db-2026-11-22"]);
/// keys.remove("db-2026-11-22").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Under a passphrase
///
/// With the feature `passphrase`, keys can be wrapped under one, so that whoever gets at the folder or at a copy of it has
/// to guess that first. A wrapped key is in the same file, in this form:
///
/// ```text
/// $argon2id$v=19$m=65536,t=3,p=4$mdQa3aXLmmRyGGu6ePeqeA
/// <a stream of format 1, of the 32 bytes of the key>
/// ```
///
/// The line is a [PHC string] without a hash, and ends in one newline. The key of the stream is Argon2id ([RFC 9106]) of
/// the passphrase with the version, costs and salt of that line, 32 bytes long; the line, without its newline, is the
/// stream's context. Costs that are read from a file are taken only up to 1 GiB of memory, 64 passes and 64 lanes, and a
/// product of memory and passes of 4 GiB, so that a changed file cannot occupy the machine for long.
///
/// [PHC string]: https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md
/// [RFC 9106]: https://www.rfc-editor.org/rfc/rfc9106
///
/// # Cancel safety
///
/// Every operation may be dropped; it is then done or not, but never in part.
///
/// # Panics
///
/// All operations, outside a Tokio runtime.
#[derive(Debug, Clone)]
pub struct DirKeyStore {
    folder: PathBuf,
    #[cfg(feature = "passphrase")]
    passphrase: Option<Passphrase>,
}

impl DirKeyStore {
    /// A store in this folder, which need not exist yet.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            #[cfg(feature = "passphrase")]
            passphrase: None,
        }
    }

    /// Wraps the keys that are stored from now on under a passphrase, and opens those that are.
    ///
    /// Keys that are there in the clear are retrieved as before.
    ///
    /// ```
    /// use agcm::{Key, keystore::{DirKeyStore, KeyStore, KeyStoreError, Passphrase}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), KeyStoreError> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("keys");
    /// let keys = DirKeyStore::new(&path).passphrase(Passphrase::new("correct horse battery staple"));
    /// keys.store("db", &Key::generate()).await?;
    ///
    /// let error = DirKeyStore::new(&path).retrieve("db").await.unwrap_err();
    /// assert!(matches!(error, KeyStoreError::NoPassphrase(_)));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "passphrase")]
    #[must_use]
    pub fn passphrase(self, passphrase: Passphrase) -> Self {
        Self { passphrase: Some(passphrase), ..self }
    }

    /// Where the key with this id is.
    fn path(&self, id: &str) -> Result<PathBuf, KeyStoreError> {
        let rule = "an id is 1 to 200 letters, digits, '.', '_' and '-' (ASCII), and begins with none of '.' and '-'";
        if is_id(id) {
            Ok(self.folder.join(format!("{id}{SUFFIX}")))
        } else {
            Err(KeyStoreError::BadId { id: id.to_owned(), rule })
        }
    }

    /// What the file of a new key holds.
    fn wrap(&self, key: &Key) -> io::Result<Zeroizing<Vec<u8>>> {
        #[cfg(feature = "passphrase")]
        if let Some(passphrase) = &self.passphrase {
            return passphrase.wrap(key);
        }
        Ok(key.to_file_content())
    }

    /// The key that a file holds.
    fn unwrap(&self, id: &str, content: &[u8]) -> Result<Key, KeyStoreError> {
        // A raw key may begin with a dollar, but not like this: it is what is left of a wrapped one.
        let cut = content.starts_with(b"$argon2id$");
        if cut || content.starts_with(b"$") && content.len() != Key::LEN {
            #[cfg(feature = "passphrase")]
            return match &self.passphrase {
                Some(passphrase) => passphrase.unwrap(id, content),
                None => Err(KeyStoreError::NoPassphrase(id.to_owned())),
            };
            #[cfg(not(feature = "passphrase"))]
            return Err(KeyStoreError::NoPassphrase(id.to_owned()));
        }
        let reason = "it is not 64 hex digits and a newline, nor 32 raw bytes";
        Key::from_file_content(content).map_err(|_| KeyStoreError::NotAKey { id: id.to_owned(), reason })
    }

    fn store_now(&self, id: &str, key: &Key) -> Result<(), KeyStoreError> {
        let path = self.path(id)?;
        make_folder(&self.folder)?;
        check_folder(&self.folder)?;
        if path.symlink_metadata().is_ok() {
            // To derive a key from a passphrase would be in vain.
            return Err(KeyStoreError::IdTaken(id.to_owned()));
        }
        create(&path, &self.wrap(key)?).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => KeyStoreError::IdTaken(id.to_owned()),
            _ => error.into(),
        })
    }

    fn retrieve_now(&self, id: &str) -> Result<Key, KeyStoreError> {
        let path = self.path(id)?;
        check_folder(&self.folder)?;
        let not_a_key = |reason| KeyStoreError::NotAKey { id: id.to_owned(), reason };
        let reading = |error| at(&path, "reading", error);
        // A pipe in its place could be opened for ever.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(not_a_key("it is no file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyStoreError::NoSuchId(id.to_owned()));
            }
            Err(error) => return Err(reading(error).into()),
        }
        let file = File::open(&path).map_err(reading)?;
        check(&path, &file.metadata().map_err(reading)?)?;
        let content = read_short(&file).map_err(reading)?;
        if content.len() == MAX_FILE_LEN {
            return Err(not_a_key("it is too long"));
        }
        self.unwrap(id, &content)
    }

    fn list_now(&self) -> Result<Vec<String>, KeyStoreError> {
        check_folder(&self.folder)?;
        let reading = |error| at(&self.folder, "reading the folder", error);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(reading)? {
            let name = entry.map_err(reading)?.file_name();
            // What else is in the folder is none of ours.
            if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).filter(|id| is_id(id)) {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    fn remove_now(&self, id: &str) -> Result<(), KeyStoreError> {
        let path = self.path(id)?;
        check_folder(&self.folder)?;
        // Opened before, so that nothing is left to fail behind the removal but the disk.
        let folder = Folder::of(&path)?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(folder.sync().map_err(|error| at(&self.folder, "syncing", error))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyStoreError::NoSuchId(id.to_owned())),
            Err(error) => Err(at(&path, "removing", error).into()),
        }
    }
}

on_the_blocking_pool!(DirKeyStore);

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(allowed) && !id.starts_with(['.', '-'])
}

/// Makes the folder, for its owner alone, if it is not there.
fn make_folder(folder: &Path) -> io::Result<()> {
    let builder = fs::DirBuilder::new();
    #[cfg(unix)]
    let builder = {
        let mut builder = builder;
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
    };
    match builder.create(folder) {
        Ok(()) => {
            // Its name must survive a crash like the names in it.
            let path = folder.components().as_path();
            Folder::of(path)?.sync().map_err(|error| at(folder, "syncing", error))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(at(folder, "creating the folder", error)),
    }
}

fn check_folder(folder: &Path) -> Result<(), KeyStoreError> {
    let opening = |error| at(folder, "opening the folder", error);
    let metadata = fs::metadata(folder).map_err(opening)?;
    if !metadata.is_dir() {
        return Err(opening(io::ErrorKind::NotADirectory.into()).into());
    }
    check(folder, &metadata)
}

/// Refuses what others have rights to.
fn check(path: &Path, metadata: &Metadata) -> Result<(), KeyStoreError> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        if mode & 0o077 != 0 {
            return Err(KeyStoreError::UnsafePermissions { path: path.to_owned(), mode });
        }
    }
    #[cfg(not(unix))]
    let _ = (path, metadata);
    Ok(())
}
