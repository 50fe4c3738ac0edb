//! Files: encrypted, decrypted, verified and re-encrypted, and published whole or not at all.
//!
//! A target appears under its name only when it is complete and on disk. What was there before is never touched unless it
//! was asked for, and then replaced in one step; nothing is left behind by an error, a panic or a future that was dropped.
//! All work is done on the blocking pool.

mod bulk;
mod ends;
mod job;
mod options;
mod pump;
pub(crate) mod target;

use std::{io, path::Path};

pub use self::options::FileOptions;
use crate::key::{Key, KeyRing};

/// Encrypts the file `src` into a new file `dst`, and returns the number of plaintext bytes.
///
/// The stream is written to a temporary file in the folder of `dst`, synced to disk, and renamed. On Unix `dst` gets the
/// permissions that the umask gives to new files, whatever those of `src` are.
///
/// All work is done on the blocking pool, and from 4 MiB on by up to four threads, if there are as many cores: while one
/// waits for the disk, another seals. [`EncryptOptions::workers`](crate::EncryptOptions::workers) chooses how many, and 1
/// that they are none. Memory stays at half a megabyte, or two chunks, for each of them, whatever the size of the file; at
/// one chunk if there is one.
///
/// For another chunk size, a context, progress, or to replace a file that is there, see [`FileOptions`].
///
/// ```
/// use agcm::{Key, decrypt_file, encrypt_file, verify_file};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = |name| folder.path().join(name);
/// # let (plain, sealed, restored) = (path("db.dump"), path("db.dump.agcm"), path("db.restored"));
/// # std::fs::write(&plain, "some rows")?;
/// let key = Key::generate();
/// encrypt_file(&plain, &sealed, &key).await?;
/// verify_file(&sealed, &key).await?; // all of it is there, and opens
/// decrypt_file(&sealed, &restored, &key).await?;
/// # assert_eq!(std::fs::read(&restored)?, b"some rows");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is anything at `dst`
/// ([`IsADirectory`](io::ErrorKind::IsADirectory) for a folder); it is never replaced, even if it comes into being while
/// this runs. Whatever the file system says, with the path and what was to be done there. A large `src` that becomes
/// shorter while it is read is [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) (one that grows is encrypted up to where its
/// end is met; with one worker, so is one that shrinks). After an error there is no `dst`, and no temporary file. (If the
/// process is killed, a file `.agcm-*.partial` stays in the folder of `dst`, and may be deleted.)
///
/// # Cancel safety
///
/// If the future is dropped, the work stops within 256 KiB or one chunk, and the temporary file is removed, a moment later.
/// If that comes too late, `dst` is complete.
///
/// # Panics
///
/// Outside a Tokio runtime, as everything in `tokio::fs`.
pub async fn encrypt_file(src: impl AsRef<Path>, dst: impl AsRef<Path>, key: &Key) -> io::Result<u64> {
    FileOptions::new().encrypt_file(src, dst, key).await
}

/// Decrypts the file `src` into a new file `dst`, and returns the number of plaintext bytes.
///
/// As [`encrypt_file`] the other way round. `dst` appears only when the whole stream was authenticated to its end. On Unix
/// only its owner may read it (mode 0600); elsewhere the permissions are those of the folder. If the process is killed,
/// plaintext stays in a file `.agcm-*.partial` in the folder of `dst`, with the same permissions: delete it.
///
/// For a stream with a context see [`FileOptions`].
///
/// # Errors
///
/// As for [`encrypt_file`], and what is wrong with the stream, to be had by [`Error::from_io`](crate::Error::from_io): also
/// [`TrailingData`](crate::Error::TrailingData) if anything follows it.
///
/// # Cancel safety
///
/// As for [`encrypt_file`].
///
/// # Panics
///
/// Outside a Tokio runtime.
pub async fn decrypt_file(src: impl AsRef<Path>, dst: impl AsRef<Path>, keys: impl Into<KeyRing>) -> io::Result<u64> {
    FileOptions::new().decrypt_file(src, dst, keys).await
}

/// Authenticates all of the file `src`, and returns the number of plaintext bytes. Nothing is written.
///
/// If this says that a backup is good, [`decrypt_file`] restores it, as long as the file stays as it is.
/// If it does not, [the runbook](crate::guide::restoring) says how to go on.
///
/// # Errors
///
/// What is wrong with the stream, as for [`decrypt_file`], or whatever the file system says.
///
/// # Cancel safety
///
/// If the future is dropped, the work stops within 256 KiB or one chunk.
///
/// # Panics
///
/// Outside a Tokio runtime.
pub async fn verify_file(src: impl AsRef<Path>, keys: impl Into<KeyRing>) -> io::Result<u64> {
    FileOptions::new().verify_file(src, keys).await
}

/// Encrypts the stream in the file `path` anew under another key, in its place, and returns the number of plaintext bytes.
///
/// In one pass, without plaintext on disk: each frame is authenticated, and sealed under `key`. The new stream takes the
/// place of the old one in one step, when all of it is on disk and the old one was authenticated to its end; until then the
/// old one is untouched. Chunk size and permissions stay; nonce and salt are fresh; a stream with short chunks in the
/// middle becomes uniform.
///
/// For a stream with a context, or a new file beside the old one, see [`FileOptions::rekey_file`].
///
/// ```
/// use agcm::{Key, KeyRing, rekey_file, verify_file};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let backup = folder.path().join("backup.agcm");
/// # let (older, old, new) = (Key::generate(), Key::generate(), Key::generate());
/// # std::fs::write(&backup, agcm::encrypt(&old, b"some rows"))?;
/// let keys: KeyRing = [older, old].into_iter().collect(); // whichever it was
/// rekey_file(&backup, keys, &new).await?;
/// verify_file(&backup, &new).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`decrypt_file`]. The old stream is as it was then. Only if the folder cannot be synced at the very end, the new
/// one is in its place already, and the error says that it was the folder.
///
/// # Cancel safety
///
/// As for [`encrypt_file`]; if dropping comes too late, the new stream is complete.
///
/// # Panics
///
/// Outside a Tokio runtime.
pub async fn rekey_file(path: impl AsRef<Path>, keys: impl Into<KeyRing>, key: &Key) -> io::Result<u64> {
    FileOptions::new().rekey_file(path.as_ref(), path.as_ref(), keys, key).await
}
