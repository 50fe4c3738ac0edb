//! What can be chosen for a store. No secret is ever an option.

use object_store::path::Path;

use crate::{
    error::Error,
    format::ChunkSize,
    options::{DecryptOptions, EncryptOptions},
};

/// How many opened objects a store remembers unless another number is chosen.
const CACHE: usize = 256;
/// The least that S3 takes for a part that is not the last, in bytes.
pub(super) const LEAST_PART_LEN: usize = 5 * 1024 * 1024;

/// The length of the parts in which an object of `len` bytes is uploaded: at most 9000, of the 10 000 that S3 takes, so that there is
/// room for what chunks take.
pub(super) fn object_part_len(len: u64) -> usize {
    usize::try_from(len.div_ceil(9000)).unwrap_or(usize::MAX).max(LEAST_PART_LEN)
}

/// How an [`EncryptedStore`](super::EncryptedStore) seals and opens objects.
///
/// Chunk size and context are what writers and readers of the same objects have to agree upon.
///
/// ```
/// use agcm::{Key, object_store::{EncryptedStore, StoreOptions}};
/// use object_store::memory::InMemory;
///
/// let options = StoreOptions::new().chunk_size(256 * 1024)?.bind_path("s3://backups/");
/// let store = EncryptedStore::with_options(InMemory::new(), &Key::generate(), &options);
/// # let _ = store;
/// # Ok::<(), agcm::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct StoreOptions {
    pub(super) chunk_size: ChunkSize,
    binding: Binding,
    pub(super) cache: usize,
    pub(super) part_len: Option<usize>,
}

/// What the streams are bound to.
#[derive(Debug, Clone)]
enum Binding {
    Constant(Vec<u8>),
    /// The path, behind these bytes.
    Path(Vec<u8>),
}

impl StoreOptions {
    /// The defaults: chunks of 64 KiB, no context, 256 opened objects remembered.
    pub fn new() -> Self {
        Self { chunk_size: ChunkSize::DEFAULT, binding: Binding::Constant(Vec::new()), cache: CACHE, part_len: None }
    }

    /// Sets the one chunk size of the store, in bytes. Objects of another one are refused when they are got; `head` and
    /// listings look at lengths only, and show them with a wrong size.
    ///
    /// A range is read in whole chunks, so readers of many short ranges want small ones; each costs 20 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidChunkSize`] unless it is 1 ..= [`MAX_CHUNK_SIZE`](crate::MAX_CHUNK_SIZE).
    pub fn chunk_size(self, size: usize) -> Result<Self, Error> {
        Ok(Self { chunk_size: ChunkSize::new(size as u64)?, ..self })
    }

    /// Binds every object to a [context](EncryptOptions::context), the same for all of the store.
    ///
    /// # Errors
    ///
    /// [`Error::ContextTooLong`] over 65 535 bytes.
    pub fn context(self, context: impl AsRef<[u8]>) -> Result<Self, Error> {
        // It checks.
        let _ = EncryptOptions::new().context(context.as_ref())?;
        Ok(Self { binding: Binding::Constant(context.as_ref().to_vec()), ..self })
    }

    /// Binds every object to its path: the [context](EncryptOptions::context) of its stream is `prefix`, and then the
    /// path as the store is asked for it, `s3://backups/2026/11/rows.parquet` for example. Takes the place of
    /// [`context`](Self::context).
    ///
    /// Then nobody who can write to the inner store can pass off one object for another: it does not open under another
    /// path ([`Error::KeyMismatch`]). With the bucket's name in the prefix, nor in another bucket. The price is that
    /// copying and renaming [have to seal objects anew](super#copies-and-renames). End a prefix with a character that
    /// no path begins with, `/` for example; an empty one is fine too.
    pub fn bind_path(self, prefix: impl AsRef<[u8]>) -> Self {
        Self { binding: Binding::Path(prefix.as_ref().to_vec()), ..self }
    }

    /// How many opened objects are remembered, so that the next range of one of them costs no more than its own
    /// request. 0 remembers none.
    ///
    /// Each takes about a KiB, stream keys among it and no plaintext, and all are wiped when they are forgotten. What
    /// was not used for longest goes first.
    pub fn cache(self, objects: usize) -> Self {
        Self { cache: objects, ..self }
    }

    /// Sets the length of the parts that a multipart upload sends to the inner store, in bytes: all of them but the
    /// last.
    ///
    /// Otherwise it is that of the first part that is put with what sealing adds to it (20 bytes a chunk, and 1), or
    /// 5 MiB if that is shorter. So if all parts that are put are as long as the first, and that is at least 5 MiB, the
    /// inner store gets as many of them, or one more if they are less than 117. S3 takes up to 10 000, of 5 MiB to
    /// 5 GiB: with 5 MiB that makes a stream of 48 GiB, and a longer one needs longer parts.
    ///
    /// At least 1 byte; what is in memory at a time [follows from it](super#memory).
    pub fn part_len(self, len: usize) -> Self {
        Self { part_len: Some(len.max(1)), ..self }
    }

    pub(super) fn binds_path(&self) -> bool {
        matches!(self.binding, Binding::Path(_))
    }

    fn context_of(&self, path: &Path) -> Vec<u8> {
        match &self.binding {
            Binding::Constant(context) => context.clone(),
            Binding::Path(prefix) => [prefix, path.as_ref().as_bytes()].concat(),
        }
    }

    /// How the object at this path is sealed.
    pub(super) fn sealing(&self, path: &Path) -> Result<EncryptOptions, Error> {
        EncryptOptions::new().chunk_size(self.chunk_size.get())?.context(self.context_of(path))
    }

    /// How the object at this path is opened.
    pub(super) fn opening(&self, path: &Path) -> Result<DecryptOptions, Error> {
        DecryptOptions::new().context(self.context_of(path))
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::geometry::Uniform;

    #[test]
    fn what_is_uploaded_by_itself_has_no_more_parts_than_s3_takes() {
        let tib = 1 << 40;
        for len in [6_000_000, 1 << 30, 50 << 30, 5 * tib] {
            let sealed = Uniform::new(len, 1000).unwrap().stream_len();
            assert!(sealed.div_ceil(object_part_len(len) as u64) <= 10_000, "{len}");
        }
        assert_eq!(object_part_len(6_000_000), LEAST_PART_LEN);
    }
}
