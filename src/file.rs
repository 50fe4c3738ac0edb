//! Files: encrypted or decrypted beside their target, and published whole or not at all.
//!
//! A target appears under its name only when it is complete and on disk. Nothing that was there before is ever replaced, and
//! nothing is left behind by an error, a panic or a future that was dropped. Only a process that is killed, or a machine that
//! stops, leaves its temporary file, named `.agcm-*.partial`.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    blocking,
    encrypt::Encryptor,
    error::Explained,
    format::{FRAME_OVERHEAD, WORD_LEN},
    io::open_buffer::{Next, OpenBuffer},
    key::{Key, KeyRing},
    options::{DecryptOptions, EncryptOptions, Trailing},
};

/// Encrypts the file `src` into a new file `dst`, and returns the number of plaintext bytes.
///
/// The stream is written to a temporary file in the folder of `dst`, synced to disk, and renamed. All work is done on the
/// blocking pool; memory stays at one chunk, whatever the size of the file. On Unix `dst` gets the permissions that the umask
/// gives to new files, whatever those of `src` are.
///
/// The stream has the default options. For others (a context, larger chunks) put an [`EncryptWriter`](crate::EncryptWriter) over
/// a file.
///
/// ```
/// use agcm::{Key, decrypt_file, encrypt_file};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = |name| folder.path().join(name);
/// # let (plain, sealed, restored) = (path("db.dump"), path("db.dump.agcm"), path("db.restored"));
/// # std::fs::write(&plain, "some rows")?;
/// let key = Key::generate();
/// encrypt_file(&plain, &sealed, &key).await?;
/// decrypt_file(&sealed, &restored, &key).await?;
/// # assert_eq!(std::fs::read(&restored)?, b"some rows");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is anything at `dst`; it is never replaced, even if it comes into
/// being while this runs. Whatever the file system says, with the path and what was to be done there. After an error there
/// is no `dst`, and no temporary file. (If the process is killed, a file `.agcm-*.partial` stays in the folder of `dst`, and
/// may be deleted.)
///
/// # Cancel safety
///
/// If the future is dropped, the work stops within one chunk, and the temporary file is removed, a moment later. If that
/// comes too late, `dst` is complete.
///
/// # Panics
///
/// Outside a Tokio runtime, as everything in `tokio::fs`.
pub async fn encrypt_file(src: impl AsRef<Path>, dst: impl AsRef<Path>, key: &Key) -> io::Result<u64> {
    let (src, dst) = (src.as_ref().to_owned(), dst.as_ref().to_owned());
    let key = key.clone();
    run(move |cancelled| {
        convert(&src, &dst, Visibility::Umask, |from, to| seal(&key, &EncryptOptions::new(), from, to, cancelled))
    })
    .await
}

/// Decrypts the file `src` into a new file `dst`, and returns the number of plaintext bytes.
///
/// As [`encrypt_file`] the other way round. `dst` appears only when the whole stream was authenticated to its end. On Unix only
/// its owner may read it (mode 0600); elsewhere the permissions are those of the folder. If the process is killed, plaintext
/// stays in a file `.agcm-*.partial` in the folder of `dst`, with the same permissions: delete it.
///
/// For a stream with a context, read it through a [`DecryptReader`](crate::DecryptReader).
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
    let (src, dst) = (src.as_ref().to_owned(), dst.as_ref().to_owned());
    let buffer = OpenBuffer::new(keys.into(), &DecryptOptions::new(), Trailing::Reject);
    run(move |cancelled| convert(&src, &dst, Visibility::Owner, |from, to| open(buffer, from, to, cancelled))).await
}

/// Runs blocking work that is told to stop when the future is dropped.
async fn run<T: Send + 'static>(
    work: impl FnOnce(&CancellationToken) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let token = CancellationToken::new();
    let dropped = token.clone().drop_guard();
    let result = blocking::io(move || {
        stop_if(&token)?;
        work(&token)
    })
    .await;
    dropped.disarm();
    result
}

/// Makes the new file `dst` out of `src`.
fn convert(
    src: &Path,
    dst: &Path,
    visibility: Visibility,
    pump: impl FnOnce(Named<'_>, Named<'_>) -> io::Result<u64>,
) -> io::Result<u64> {
    let from = File::open(src).map_err(|error| at(src, "opening", error))?;
    let target = Target::create(dst, visibility)?;
    let total = pump(Named { path: src, file: &from }, Named { path: dst, file: target.temporary.as_file() })?;
    target.publish()?;
    Ok(total)
}

fn seal(
    key: &Key,
    options: &EncryptOptions,
    mut from: Named<'_>,
    mut to: Named<'_>,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let (mut encryptor, prelude) = Encryptor::start(key, options)?;
    let chunk_size = encryptor.chunk_size();
    let mut frame = Zeroizing::new(vec![0; chunk_size + FRAME_OVERHEAD]);
    let mut total = 0;
    to.write_all(&prelude)?;
    loop {
        let len = read_full(&mut from, &mut frame[WORD_LEN..][..chunk_size])?;
        if len > 0 {
            let frame = &mut frame[..len + FRAME_OVERHEAD];
            encryptor.seal_in_place(frame)?;
            to.write_all(frame)?;
            total += len as u64;
        }
        // Whatever a growing file gains after its end was seen would make the stream irregular.
        if len < chunk_size {
            break;
        }
        stop_if(cancelled)?;
    }
    to.write_all(&encryptor.finish())?;
    stop_if(cancelled)?;
    Ok(total)
}

fn open(
    mut buffer: OpenBuffer,
    mut from: Named<'_>,
    mut to: Named<'_>,
    cancelled: &CancellationToken,
) -> io::Result<u64> {
    let mut total = 0;
    loop {
        match buffer.next().map_err(|error| at(from.path, "decrypting", error.into()))? {
            Next::Open(_) => buffer.open(),
            Next::Take => {
                let plaintext = buffer.plaintext();
                let len = plaintext.len();
                to.write_all(plaintext)?;
                total += len as u64;
                buffer.consume(len);
                stop_if(cancelled)?;
            }
            Next::Read => {
                let spare = buffer.spare();
                let (limit, buf) = (spare.limit(), spare.into_inner());
                let len = buf.len();
                buf.resize(len + limit, 0);
                let read = read_full(&mut from, &mut buf[len..]);
                buf.truncate(len + read.as_ref().copied().unwrap_or(0));
                if read? == 0 {
                    buffer.end_of_input();
                }
            }
            Next::End => {
                stop_if(cancelled)?;
                return Ok(total);
            }
        }
    }
}

/// Fills `buf`, unless the input ends before; returns how much was read.
fn read_full(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match from.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Ends the work of a future that was dropped; nobody is left to see the error.
fn stop_if(cancelled: &CancellationToken) -> io::Result<()> {
    if cancelled.is_cancelled() { Err(io::Error::other("the operation was dropped")) } else { Ok(()) }
}

/// Who may read a new file.
enum Visibility {
    /// Whoever the process lets read its files.
    Umask,
    Owner,
}

/// A file that has no name yet: a temporary one in the folder where it will appear, removed unless it is published.
struct Target<'a> {
    path: &'a Path,
    folder: Folder<'a>,
    temporary: NamedTempFile,
}

impl<'a> Target<'a> {
    fn create(path: &'a Path, visibility: Visibility) -> io::Result<Self> {
        // `folder/` and `folder/.` have a name for the standard library, but ask for a folder, as the file system would say
        // after all the work.
        let bytes = path.as_os_str().as_encoded_bytes();
        if path.file_name().is_none_or(|name| !bytes.ends_with(name.as_encoded_bytes())) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "this path does not name a file");
            return Err(at(path, "creating", error));
        }
        // Only to save the work: what decides is that publishing does not replace.
        if path.symlink_metadata().is_ok() {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "it is there already and is never replaced");
            return Err(at(path, "creating", error));
        }
        let folder = Folder::of(path)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".agcm-").suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = match visibility {
                Visibility::Umask => 0o666,
                Visibility::Owner => 0o600,
            };
            builder.permissions(fs::Permissions::from_mode(mode));
        }
        #[cfg(not(unix))]
        let _ = visibility;
        let temporary =
            builder.tempfile_in(folder.path).map_err(|error| at(folder.path, "creating a temporary file in", error))?;
        Ok(Self { path, folder, temporary })
    }

    /// Gives the file its name, once it is on disk.
    fn publish(self) -> io::Result<()> {
        let Self { path, folder, temporary } = self;
        temporary.as_file().sync_all().map_err(|error| at(path, "syncing", error))?;
        temporary.persist_noclobber(path).map_err(|error| at(path, "publishing", error.error))?;
        folder.sync().map_err(|error| {
            // Whether the name would survive a crash is not known, so it must not stay: an error means that there is no file.
            let _ = fs::remove_file(path);
            at(folder.path, "syncing", error)
        })
    }
}

/// The folder of a new file, to make names in it survive a crash.
struct Folder<'a> {
    path: &'a Path,
    /// `None` where folders cannot be opened: on other systems than Unix, or because this one may be written but not read.
    /// Found out before the work is done, which would be in vain if it were found out after.
    file: Option<File>,
}

impl<'a> Folder<'a> {
    fn of(path: &'a Path) -> io::Result<Self> {
        let path = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The dot keeps a pipe in the folder's place from being opened, which could take for ever.
        let file = match File::open(path.join(".")) {
            _ if !cfg!(unix) => None,
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(at(path, "opening the folder", error)),
        };
        Ok(Self { path, file })
    }

    fn sync(&self) -> io::Result<()> {
        match self.file.as_ref().map_or(Ok(()), File::sync_all) {
            // Some file systems, network ones among them, cannot sync a folder; there is nothing more to be done there.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }
}

/// A file whose errors say which one it is.
struct Named<'a> {
    path: &'a Path,
    file: &'a File,
}

impl Read for Named<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf).map_err(|error| at(self.path, "reading", error))
    }
}

impl Write for Named<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf).map_err(|error| at(self.path, "writing", error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| at(self.path, "writing", error))
    }
}

/// Adds to an error where it happened.
fn at(path: &Path, doing: &str, error: io::Error) -> io::Error {
    Explained::error(format!("{doing} {path:?}"), error)
}
