//! What can be chosen for work on files, and the work itself, put together from jobs, pumps and targets.
//!
//! Whether a file was published must never be left open: only what waits is cut short by being cancelled.

use std::{
    fmt,
    fs::Permissions,
    io::{self, Write},
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::{io::InspectReader, sync::CancellationToken};
use zeroize::Zeroizing;

use super::{
    ends::{Callback, Sink, stop_if, stopped},
    job::{Job, NewFile},
    pump::{Opened, open, seal, seal_anew},
    target::{Existing, Visibility},
};
use crate::{
    blocking,
    io::{DecryptReader, EncryptReader},
    key::{Key, KeyRing},
    observe,
    options::{DecryptOptions, EncryptOptions, Trailing},
    progress::{Progress, ProgressReader},
};

/// How much of what comes from a reader is written at a time, in bytes: a hop to the blocking pool costs as much as this
/// does.
const BATCH_LEN: usize = 1024 * 1024;

/// How files are encrypted and decrypted, beyond the defaults of [`encrypt_file`](crate::encrypt_file) and its kin.
///
/// ```
/// use agcm::{DecryptOptions, EncryptOptions, FileOptions, Key};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = |name| folder.path().join(name);
/// # let (plain, sealed, restored) = (path("db.dump"), path("db.dump.agcm"), path("db.restored"));
/// # std::fs::write(&plain, "some rows")?;
/// let key = Key::generate();
/// let options = FileOptions::new()
///     .encrypt_options(EncryptOptions::new().chunk_size(1024 * 1024)?.context("db/2026-11-22")?)
///     .decrypt_options(DecryptOptions::new().context("db/2026-11-22")?)
///     .overwrite(true)
///     .progress(|progress| eprint!("\r{:3} %", progress.percent().unwrap_or(0)));
///
/// options.encrypt_file(&plain, &sealed, &key).await?;
/// options.decrypt_file(&sealed, &restored, &key).await?;
/// # assert_eq!(std::fs::read(&restored)?, b"some rows");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct FileOptions {
    encrypt: Option<EncryptOptions>,
    decrypt: DecryptOptions,
    existing: Existing,
    permissions: Option<Permissions>,
    progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    cancel: CancellationToken,
}

impl FileOptions {
    /// The defaults: those of the functions of the same names, like [`encrypt_file`](crate::encrypt_file).
    pub fn new() -> Self {
        Self {
            encrypt: None,
            decrypt: DecryptOptions::new(),
            existing: Existing::Keep,
            permissions: None,
            progress: None,
            cancel: CancellationToken::new(),
        }
    }

    /// How streams are encrypted: their chunk size, their context, by how many [workers](EncryptOptions::workers).
    pub fn encrypt_options(self, options: EncryptOptions) -> Self {
        Self { encrypt: Some(options), ..self }
    }

    /// How streams are decrypted: their context, a limit for their chunks, by how many
    /// [workers](DecryptOptions::workers). Unless [`Trailing::Leave`] is chosen, nothing may
    /// follow a stream in its file.
    pub fn decrypt_options(self, options: DecryptOptions) -> Self {
        Self { decrypt: options, ..self }
    }

    /// Whether a file that is at the target is replaced, in one step, when the new one is complete. By default it is an
    /// error.
    ///
    /// If a symbolic link is there, the file that it leads to is replaced. A folder, a device or a pipe never is; neither
    /// is the source, except by [`rekey_file`](Self::rekey_file). Other files are not looked at: what a reader reads from,
    /// or the file of a key, is replaced if it is named.
    ///
    /// If the folder cannot be synced at the very end, the new file is in its place already, and the error says so.
    pub fn overwrite(self, overwrite: bool) -> Self {
        Self { existing: if overwrite { Existing::Replace } else { Existing::Keep }, ..self }
    }

    /// Sets the permissions of new files, exactly, whatever the umask says. They get them when they are complete; until then
    /// only their owner may read them.
    ///
    /// By default plaintext is for its owner (0600 on Unix), a stream as the umask says, and a stream that is re-encrypted
    /// keeps those it had.
    pub fn permissions(self, permissions: Permissions) -> Self {
        Self { permissions: Some(permissions), ..self }
    }

    /// Calls back with how much of the source was read, in bytes, and its length, where that is known.
    ///
    /// At the first bytes, then at most twenty times a second, and once at the end of the source, before the target is
    /// synced and published; from a thread that does some of the work, never from two at once. If the callback panics,
    /// nothing is left behind: an operation on a file fails, one on a reader panics, too.
    pub fn progress(self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self { progress: Some(Arc::new(callback)), ..self }
    }

    /// Stops the operations with these options when `token` is cancelled: within 256 KiB or one chunk, with an error, and
    /// without leaving anything behind, as if the future was dropped; but here one can wait until it was cleaned up. The
    /// error's kind is [`Other`](io::ErrorKind::Other); the token knows better whether it was cancelled.
    ///
    /// ```
    /// use agcm::{FileOptions, Key};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = |name| folder.path().join(name);
    /// # std::fs::write(path("db.dump"), "some rows")?;
    /// let token = CancellationToken::new();
    /// token.cancel(); // a task that waits for Ctrl-C would do that
    ///
    /// let options = FileOptions::new().cancel_on(token);
    /// options.encrypt_file(path("db.dump"), path("db.agcm"), &Key::generate()).await.unwrap_err();
    /// assert!(!path("db.agcm").exists());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_on(self, token: CancellationToken) -> Self {
        Self { cancel: token, ..self }
    }

    /// As the function [`encrypt_file`](crate::encrypt_file), with these options.
    ///
    /// # Errors
    ///
    /// As there. If files may be [overwritten](Self::overwrite), [`InvalidInput`](io::ErrorKind::InvalidInput) for a `dst`
    /// that is `src`, or a device or pipe.
    ///
    /// # Cancel safety
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn encrypt_file(&self, src: impl AsRef<Path>, dst: impl AsRef<Path>, key: &Key) -> io::Result<u64> {
        let new = self.new_file(dst.as_ref(), Visibility::Umask);
        let (key, options) = (key.clone(), self.chosen_encrypt_options());
        self.run("encrypt_file", src.as_ref(), move |job| {
            job.convert_to_another(new, |from, to, cancelled| seal(&key, &options, from, to, cancelled))
        })
        .await
    }

    /// As the function [`decrypt_file`](crate::decrypt_file), with these options.
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
    /// Outside a Tokio runtime.
    pub async fn decrypt_file(
        &self,
        src: impl AsRef<Path>,
        dst: impl AsRef<Path>,
        keys: impl Into<KeyRing>,
    ) -> io::Result<u64> {
        let new = self.new_file(dst.as_ref(), Visibility::Owner);
        let (keys, options) = (keys.into(), self.decrypt.clone());
        self.run("decrypt_file", src.as_ref(), move |job| {
            job.convert_to_another(new, |from, to, cancelled| open(Opened::new(from, keys, &options), to, cancelled))
        })
        .await
    }

    /// As the function [`verify_file`](crate::verify_file), with these options.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn verify_file(&self, src: impl AsRef<Path>, keys: impl Into<KeyRing>) -> io::Result<u64> {
        let (keys, options) = (keys.into(), self.decrypt.clone());
        self.run("verify_file", src.as_ref(), move |job| {
            let nowhere = Sink { path: Path::new(""), file: None };
            job.pump(nowhere, |from, to, cancelled| open(Opened::new(from, keys, &options), to, cancelled))
        })
        .await
    }

    /// As the function [`rekey_file`](crate::rekey_file), with these options, and with a target: the same path for the
    /// stream to be replaced, another one for a new file.
    ///
    /// Unless [`encrypt_options`](Self::encrypt_options) were chosen, the new stream has the chunk size of the old one; and
    /// its context, unless those have one. (To unbind it, choose an empty one.)
    ///
    /// # Errors
    ///
    /// As there. A file at `dst` that is not the source is [`AlreadyExists`](io::ErrorKind::AlreadyExists), unless
    /// [`overwrite`](Self::overwrite) was chosen. Whatever was chosen, nothing may follow the stream in its file; and a
    /// source that was replaced or changed meanwhile stays as it is.
    ///
    /// # Cancel safety
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn rekey_file(
        &self,
        src: impl AsRef<Path>,
        dst: impl AsRef<Path>,
        keys: impl Into<KeyRing>,
        key: &Key,
    ) -> io::Result<u64> {
        let new = self.new_file(dst.as_ref(), Visibility::Umask);
        let (keys, key) = (keys.into(), key.clone());
        // What follows the stream would be lost with the file that it is in.
        let (decrypt, encrypt) = (self.decrypt.clone().trailing(Trailing::Reject), self.encrypt.clone());
        self.run("rekey_file", src.as_ref(), move |job| {
            let new = new.succeeding(&job)?;
            job.convert(new, |from, to, cancelled| {
                let mut plaintext = Opened::new(from, keys, &decrypt);
                let options = match encrypt {
                    Some(options) => options,
                    None => EncryptOptions::new().chunk_size(plaintext.chunk_size()?)?,
                };
                // Whoever asks for another chunk size does not mean to unbind the stream.
                let options = EncryptOptions { context: options.context.or(&decrypt.context), ..options };
                seal_anew(&key, &options, plaintext, to, cancelled)
            })
        })
        .await
    }

    /// Encrypts all that `reader` has into a new file `dst`, and returns the number of plaintext bytes.
    ///
    /// For what arrives over a socket or a pipe; a file is better encrypted by [`encrypt_file`](Self::encrypt_file). `dst`
    /// appears as it does there, when the reader has ended and the stream is complete.
    ///
    /// ```
    /// use agcm::{FileOptions, Key};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = |name| folder.path().join(name);
    /// let (key, options) = (Key::generate(), FileOptions::new());
    /// options.encrypt_from(&b"some rows"[..], path("db.agcm"), &key).await?;
    ///
    /// let stream = tokio::fs::File::open(path("db.agcm")).await?; // or a socket
    /// options.decrypt_from(stream, path("db.restored"), &key).await?;
    /// # assert_eq!(std::fs::read(path("db.restored"))?, b"some rows");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The reader's, passed on as they are, or as for [`encrypt_file`](Self::encrypt_file). There is no new file then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the temporary file is removed; at the very end, that may come too late, and `dst` is
    /// complete. What was read from the reader is lost.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn encrypt_from(&self, reader: impl AsyncRead, dst: impl AsRef<Path>, key: &Key) -> io::Result<u64> {
        let new = self.new_file(dst.as_ref(), Visibility::Umask);
        let work = async {
            let mut total = 0;
            let reader = InspectReader::new(reader, |bytes| total += bytes.len() as u64);
            let reader = ProgressReader::new(reader, None, self.callback());
            let stream = EncryptReader::with_options(reader, key, &self.chosen_encrypt_options());
            self.publish_from(stream, new).await?;
            Ok(total)
        };
        observe::Job::new("encrypt_from").watch(work).await
    }

    /// Decrypts the stream that `reader` has into a new file `dst`, and returns the number of plaintext bytes.
    ///
    /// As [`encrypt_from`](Self::encrypt_from) the other way round: `dst` appears only when the stream was authenticated to
    /// its end. Unless [`Trailing::Leave`] was chosen, the reader must end there, too.
    ///
    /// # Errors
    ///
    /// The reader's, what is wrong with the stream, or as for [`decrypt_file`](Self::decrypt_file). There is no new file
    /// then.
    ///
    /// # Cancel safety
    ///
    /// As for [`encrypt_from`](Self::encrypt_from).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn decrypt_from(
        &self,
        reader: impl AsyncRead,
        dst: impl AsRef<Path>,
        keys: impl Into<KeyRing>,
    ) -> io::Result<u64> {
        let reader = ProgressReader::new(reader, None, self.callback());
        let options = self.decrypt.clone().trailing(self.decrypt.trailing.unwrap_or(Trailing::Reject));
        let plaintext = DecryptReader::with_options(reader, keys, &options);
        let new = self.new_file(dst.as_ref(), Visibility::Owner);
        observe::Job::new("decrypt_from").watch(self.publish_from(plaintext, new)).await
    }

    pub(crate) fn chosen_encrypt_options(&self) -> EncryptOptions {
        self.encrypt.clone().unwrap_or_default()
    }

    pub(crate) fn chosen_decrypt_options(&self) -> DecryptOptions {
        self.decrypt.clone()
    }

    fn new_file(&self, path: &Path, default: Visibility) -> NewFile {
        let visibility = self.permissions.clone().map_or(default, Visibility::Exactly);
        NewFile::new(path, visibility, self.existing)
    }

    fn callback(&self) -> Callback {
        match self.progress.clone() {
            Some(callback) => Box::new(move |progress| callback(progress)),
            None => Box::new(|_| ()),
        }
    }

    /// Runs blocking work on the file `src`, which is told to stop when the future is dropped.
    async fn run(
        &self,
        name: &'static str,
        src: &Path,
        work: impl FnOnce(Job) -> io::Result<u64> + Send + 'static,
    ) -> io::Result<u64> {
        let (src, callback) = (src.to_owned(), self.callback());
        let token = self.cancel.child_token();
        let dropped = token.clone().drop_guard();
        let watched = observe::Job::new(name);
        let work = watched.carry(move || work(Job::start(src, callback, token)?));
        let result = watched.watch(blocking::io(work)).await;
        dropped.disarm();
        result
    }

    /// Makes a new file of all that `reader` has, and returns its length.
    async fn publish_from(&self, reader: impl AsyncRead, new: NewFile) -> io::Result<u64> {
        let mut reader = pin!(reader);
        let mut target = blocking::io(move || new.create()).await?;
        let mut batch = Zeroizing::new(Vec::with_capacity(BATCH_LEN));
        let mut total = 0;
        loop {
            // Only what waits for others is cut short: whether a file was published must not be left open.
            let read = self.cancel.run_until_cancelled(read_batch(reader.as_mut(), &mut batch)).await;
            // It may have been cancelled by what was called for the last bytes.
            let read = read.unwrap_or_else(|| Err(stopped())).and_then(|()| stop_if(&self.cancel));
            if let Err(error) = read {
                return blocking::io(move || Err(target.discard(error))).await;
            }
            if batch.is_empty() {
                break;
            }
            total += batch.len() as u64;
            (target, batch) = blocking::io(move || {
                let written = Sink { path: target.path(), file: Some(target.file()) }.write_all(&batch);
                if let Err(error) = written {
                    return Err(target.discard(error));
                }
                batch.clear();
                Ok((target, batch))
            })
            .await?;
        }
        blocking::io(move || target.publish()).await?;
        Ok(total)
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FileOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOptions")
            .field("encrypt", &self.encrypt)
            .field("decrypt", &self.decrypt)
            .field("existing", &self.existing)
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

/// Reads until `batch` is full or there is no more.
async fn read_batch(mut reader: Pin<&mut impl AsyncRead>, batch: &mut Vec<u8>) -> io::Result<()> {
    while batch.len() < BATCH_LEN {
        let room = BATCH_LEN - batch.len();
        if reader.read_buf(&mut (&mut *batch).limit(room)).await? == 0 {
            break;
        }
    }
    Ok(())
}
