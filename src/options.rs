//! What can be chosen: chunk size and context when encrypting, limits and context when decrypting.
//!
//! The setters check, so that options which exist are valid ones. No secret is ever an option.

use std::{num::NonZeroUsize, sync::Arc};

use crate::{
    blocking::available_parallelism,
    error::Error,
    format::{ChunkSize, MAX_CONTEXT_LEN},
};

/// How a stream is encrypted.
///
/// ```
/// use agcm::EncryptOptions;
///
/// let options = EncryptOptions::new().chunk_size(1024 * 1024)?.context("backups/2026-11-22")?;
/// # let _ = options;
/// # Ok::<(), agcm::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct EncryptOptions {
    pub(crate) chunk_size: ChunkSize,
    pub(crate) context: Context,
    pub(crate) cut_on_flush: bool,
    /// `None` until it is chosen: the default depends on what is done.
    pub(crate) workers: Option<NonZeroUsize>,
}

impl EncryptOptions {
    /// The defaults: chunks of 64 KiB, no context, flushes that do not cut.
    pub fn new() -> Self {
        Self { chunk_size: ChunkSize::DEFAULT, context: Context::default(), cut_on_flush: false, workers: None }
    }

    /// Sets the chunk size in bytes: how much plaintext is sealed, and must be held in memory, at a time.
    ///
    /// Each chunk costs 20 bytes in the stream. Small chunks let a reader have the first byte sooner; from 64 KiB on the
    /// overhead (0.03 %) and the cost per chunk no longer matter. A reader of a few bytes somewhere in the stream has to read
    /// and open all of the chunk that holds them. Readers and writers seal and open chunks of 1 MiB and more off the async
    /// threads. [The guide](crate::guide::chunk_size) says when another one than the default is worth it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidChunkSize`] unless it is 1 ..= [`MAX_CHUNK_SIZE`](crate::MAX_CHUNK_SIZE).
    pub fn chunk_size(self, size: usize) -> Result<Self, Error> {
        Ok(Self { chunk_size: ChunkSize::new(size as u64)?, ..self })
    }

    /// Binds the stream to an application context: whoever decrypts must give the same bytes.
    ///
    /// The context is not stored in the stream. It keeps a stream from being taken for another one under the same key: bind
    /// the object's name, the tenant, the purpose. It need not be secret.
    /// [The guide](crate::guide::keys#binding-a-stream-to-what-it-is-for-contexts) has more about that.
    ///
    /// # Errors
    ///
    /// [`Error::ContextTooLong`] over 65 535 bytes.
    pub fn context(self, context: impl AsRef<[u8]>) -> Result<Self, Error> {
        Ok(Self { context: Context::new(context.as_ref())?, ..self })
    }

    /// Makes every flush of an [`EncryptWriter`](crate::EncryptWriter) end the current chunk, so that the peer can read all
    /// that was written so far.
    ///
    /// Meant for interactive use where [`flush_chunk`](crate::EncryptWriter::flush_chunk) is out of reach, behind
    /// `dyn AsyncWrite` for example. Off by default, because [`tokio::io::copy`] flushes whenever its reader has to wait:
    /// the chunks would shrink, and the stream would become irregular, which makes it costly to
    /// [read by offset](crate::SeekReader#seeking).
    pub fn cut_on_flush(self, cut: bool) -> Self {
        Self { cut_on_flush: cut, ..self }
    }

    /// Seals on so many cores at a time; 0 means on all there are.
    ///
    /// Batches of chunks, of about 1 MiB together, are sealed on the blocking pool of the runtime while the next ones are
    /// filled in and the ones before are written: what comes out, and its order, are the same as without. All adapters of
    /// the process together never have more batches worked on at a time than there are cores. Without a runtime they work
    /// in place.
    ///
    /// A stream then holds up to `2 * n` batches in memory instead of one chunk: 4 MiB with two workers, or four chunks if
    /// those are larger than 1 MiB each. More workers than there are cores only hold more. One worker is the default: for
    /// adapters that means that chunks under 1 MiB are sealed in the task itself.
    ///
    /// For one-shots and [work on files](crate::FileOptions) a worker is a thread. The first is the one that does the work
    /// anyway, and all others of the process together are fewer than there are cores. One-shots have one worker unless more
    /// are chosen; files have up to four, unless another number is chosen, and one as long as they are under 4 MiB. The
    /// [codec](crate::codec) and [re-encrypting](crate::rekey_file) work in order, whatever is chosen.
    ///
    /// ```
    /// use agcm::{EncryptOptions, Key};
    ///
    /// let key = Key::generate();
    /// let plaintext = vec![7; 5_000_000];
    /// let stream = EncryptOptions::new().workers(2).encrypt(&key, &plaintext);
    /// assert_eq!(agcm::decrypt(&key, &stream)?, plaintext);
    /// # Ok::<(), agcm::Error>(())
    /// ```
    pub fn workers(self, n: usize) -> Self {
        Self { workers: Some(workers(n)), ..self }
    }
}

impl Default for EncryptOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// How a stream is decrypted.
///
/// ```
/// use agcm::{DecryptOptions, Trailing};
///
/// let options = DecryptOptions::new()
///     .context("backups/2026-11-22")?
///     .max_chunk_size(1024 * 1024)?
///     .trailing(Trailing::Reject);
/// # let _ = options;
/// # Ok::<(), agcm::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct DecryptOptions {
    pub(crate) context: Context,
    pub(crate) max_chunk_size: ChunkSize,
    /// `None` until it is chosen: the default depends on what reads.
    pub(crate) trailing: Option<Trailing>,
    /// `None` until it is chosen, too.
    pub(crate) workers: Option<NonZeroUsize>,
}

impl DecryptOptions {
    /// The defaults: no context, chunks of any legal size.
    pub fn new() -> Self {
        Self { context: Context::default(), max_chunk_size: ChunkSize::MAX, trailing: None, workers: None }
    }

    /// Sets the context that the stream was encrypted with. Another one gives [`Error::KeyMismatch`].
    ///
    /// # Errors
    ///
    /// [`Error::ContextTooLong`] over 65 535 bytes.
    pub fn context(self, context: impl AsRef<[u8]>) -> Result<Self, Error> {
        Ok(Self { context: Context::new(context.as_ref())?, ..self })
    }

    /// Refuses streams with larger chunks than this many bytes ([`Error::ChunkTooLarge`]), to bound what one reader may hold
    /// in memory. By default all are accepted, up to 10 MiB.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidChunkSize`] unless it is 1 ..= [`MAX_CHUNK_SIZE`](crate::MAX_CHUNK_SIZE).
    pub fn max_chunk_size(self, size: usize) -> Result<Self, Error> {
        Ok(Self { max_chunk_size: ChunkSize::new(size as u64)?, ..self })
    }

    /// Says what bytes after the end of the stream mean.
    pub fn trailing(self, trailing: Trailing) -> Self {
        Self { trailing: Some(trailing), ..self }
    }

    /// Opens on so many cores at a time, as [`EncryptOptions::workers`] seals; 0 means on all there are.
    ///
    /// What is released, and the error if there is one, is the same as without: nothing before all that comes before it was
    /// authenticated. Until the first chunk was, there is no more than one.
    ///
    /// A [`DecryptWriter`](crate::DecryptWriter) always has one worker, since the write that completes a bad frame is to fail
    /// itself; and so have the codec, the readers by offset, and those of [`legacy`](crate::legacy) streams.
    pub fn workers(self, n: usize) -> Self {
        Self { workers: Some(workers(n)), ..self }
    }
}

impl Default for DecryptOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// As many as were asked for, or as there are cores.
fn workers(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).or(NonZeroUsize::new(available_parallelism())).unwrap_or(NonZeroUsize::MIN)
}

/// What bytes after the end of a stream mean.
///
/// Unless it is chosen, adapters over readers and connections leave them, and what takes a whole input (one-shots, files)
/// rejects them, so that two streams joined by `cat a b` do not silently lose the second. A
/// [`DecryptWriter`](crate::DecryptWriter) always rejects them, and for readers by offset ([`SeekReader`](crate::SeekReader),
/// [`RangeReader`](crate::RangeReader)) the stream ends where the input does, or is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailing {
    /// They belong to whoever reads next; not one of them is read.
    Leave,
    /// They are an error, [`Error::TrailingData`].
    Reject,
}

/// An application context that is not too long.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context(Option<Arc<[u8]>>);

impl Context {
    fn new(context: &[u8]) -> Result<Self, Error> {
        if context.len() > MAX_CONTEXT_LEN {
            return Err(Error::ContextTooLong(context.len()));
        }
        Ok(Self(Some(context.into())))
    }

    /// This one, if it was chosen, otherwise the other.
    pub(crate) fn or(&self, other: &Self) -> Self {
        if self.0.is_some() { self.clone() } else { other.clone() }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
