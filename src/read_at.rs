//! Sources that can be read at any offset, by many at once.
//!
//! An implementation must never return other bytes than those that were asked for, nor fewer.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;

use crate::{blocking, error::Explained, positioned::read_exact_at};

/// The most that is copied out of the page cache on an async thread, in bytes: that takes some 50 µs.
const CACHED_LEN: usize = 256 * 1024;

/// Something whose bytes can be read at any offset, by many at once: a file, an object in a store, a slice of memory.
///
/// [`RangeReader`](crate::RangeReader) reads encrypted streams from it. It is `dyn`-compatible, and implemented for `&T`,
/// `Box<T>` and `Arc<T>` as well. The example `ranges` has one that asks an HTTP server. [`BoxFuture`] is the one of the
/// crates `futures` and `futures_core`: a pinned box of a future that is `Send`.
///
/// ```
/// use std::{io, sync::atomic::{AtomicU64, Ordering}};
/// use agcm::{Key, RangeReader, ReadAt};
/// use bytes::Bytes;
/// use futures::future::BoxFuture;
///
/// /// Counts what is read.
/// struct Counted<S> {
///     source: S,
///     bytes: AtomicU64,
/// }
///
/// impl<S: ReadAt> ReadAt for Counted<S> {
///     fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
///         self.source.len()
///     }
///
///     fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
///         Box::pin(async move {
///             let bytes = self.source.read_at(offset, len).await?;
///             self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
///             Ok(bytes)
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// let key = Key::generate();
/// let stream = Bytes::from(agcm::encrypt(&key, &[7; 1_000_000]));
/// let source = Counted { source: stream, bytes: AtomicU64::new(0) };
///
/// let reader = RangeReader::open(&source, &key).await?;
/// assert_eq!(reader.read_range(500_000..500_100).await?, [7; 100][..]);
/// // Both ends of the stream, and one frame.
/// assert_eq!(source.bytes.load(Ordering::Relaxed), 80 + 37 + 65_556);
/// # Ok(())
/// # }
/// ```
#[expect(clippy::len_without_is_empty, reason = "nobody asks a source whether it is empty")]
pub trait ReadAt: Send + Sync {
    /// How many bytes there are.
    ///
    /// # Errors
    ///
    /// Whatever keeps the source from knowing.
    fn len(&self) -> BoxFuture<'_, io::Result<u64>>;

    /// Reads exactly `len` bytes, from `offset` on.
    ///
    /// Both are within [`len`](Self::len), as that was when it was asked.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if there are fewer bytes: a short read is an error. Whatever else
    /// keeps the source from reading.
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>>;
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        (**self).len()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        (**self).read_at(offset, len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        (**self).len()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        (**self).read_at(offset, len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Box<T> {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        (**self).len()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        (**self).read_at(offset, len)
    }
}

impl ReadAt for Bytes {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        let len = Self::len(self) as u64;
        Box::pin(async move { Ok(len) })
    }

    /// Copies nothing.
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(len));
        let bytes = match (start, end) {
            (Some(start), Some(end)) if end <= Self::len(self) => Ok(self.slice(start..end)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        Box::pin(async move { bytes })
    }
}

/// A file as a source for [`RangeReader`](crate::RangeReader): positioned reads, on the blocking pool of the runtime.
///
/// Positioned means that the file's cursor plays no part, so any number of reads can go on at once. To clone it costs nothing
/// and opens nothing.
///
/// On Linux, up to 256 KiB that lie in the page cache are read at once, without the way to the pool and back, which takes
/// longer than to read and open a chunk.
///
/// ```
/// use agcm::{Key, PositionedFile, RangeReader, encrypt_file};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = |name| folder.path().join(name);
/// # let (plain, sealed) = (path("db.dump"), path("db.dump.agcm"));
/// # std::fs::write(&plain, "row 1\nrow 2\nrow 3\n")?;
/// # let key = Key::generate();
/// encrypt_file(&plain, &sealed, &key).await?;
///
/// let reader = RangeReader::open(PositionedFile::open(&sealed).await?, &key).await?;
/// assert_eq!(reader.read_range(6..12).await?, "row 2\n");
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside a Tokio runtime, as everything in `tokio::fs`.
#[derive(Debug, Clone)]
pub struct PositionedFile(Arc<File>);

impl PositionedFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// What the operating system says, with the path.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let open = move || {
            let file = File::open(&path).and_then(|file| match file.metadata()?.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => Ok(file),
            });
            file.map_err(|error| Explained::error(format!("opening {path:?}"), error))
        };
        Ok(blocking::io(open).await?.into())
    }
}

impl From<File> for PositionedFile {
    /// Takes a file that is open. (One of `tokio::fs` becomes such a `File` by `into_std().await`.)
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

impl ReadAt for PositionedFile {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        let Self(file) = self.clone();
        Box::pin(blocking::io(move || {
            let metadata = file.metadata()?;
            // Devices hold more than their metadata says.
            if metadata.is_file() { Ok(metadata.len()) } else { (&*file).seek(SeekFrom::End(0)) }
        }))
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let Self(file) = self.clone();
        Box::pin(async move {
            let mut bytes = Vec::new();
            if len <= CACHED_LEN {
                bytes.resize(len, 0);
                if read_cached(&file, &mut bytes, offset) {
                    return Ok(bytes.into());
                }
            }
            let read = move || {
                bytes.resize(len, 0);
                read_exact_at(&file, &mut bytes, offset)?;
                Ok(bytes.into())
            };
            blocking::io(read).await
        })
    }
}

/// Reads what the page cache holds, without waiting for a disk. Unless that is all of it, nothing is said of `bytes`.
///
/// (Linux 5.9 and 5.10 may give less than there is; that is not all of it either.)
#[cfg(target_os = "linux")]
fn read_cached(file: &File, bytes: &mut [u8], offset: u64) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};

    // The largest one stands for the file's cursor.
    let len = bytes.len();
    let read = |buf| preadv2(file, &mut [io::IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT);
    offset < u64::MAX && read(bytes).is_ok_and(|read| read == len)
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [u8], _: u64) -> bool {
    false
}
