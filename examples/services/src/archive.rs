//! A folder in one encrypted file: a tar archive that is encrypted as it is made, and extracted as it is decrypted.
//!
//! Nothing else ever lies on the disk, and memory stays constant. Of the two crates for tar on Tokio it is
//! `astral-tokio-tar` that is kept; `tokio-tar`, which it comes from, is not, and has a known fault (CVE-2025-62518).
//!
//! # What is extracted before the end was seen
//!
//! A tar archive is read from front to back, so files are written while most of the stream has not been looked at yet.
//! Each byte of them is authentic, but nobody knows yet whether they are all: the stream may have been cut, or be
//! damaged further back. So [`extract`] fills a folder that has no name yet, reads the stream to *its* end, which is
//! not where the archive ends, and only then gives the folder its name. For the same reason [`list`] returns nothing
//! before it has read all.

use std::{
    io,
    path::{Path, PathBuf},
};

use agcm::{DecryptOptions, DecryptReader, EncryptWriter, Key, Trailing};
use futures::TryStreamExt;
use tempfile::NamedTempFile;
use tokio::{
    fs::{File, canonicalize},
    io::{AsyncWriteExt, BufReader, copy, sink},
    task::spawn_blocking,
};
use tokio_tar::{Archive, ArchiveBuilder, Builder};

/// Packs what is in the folder `src` into a new encrypted file `dst`, which appears when it is whole.
///
/// Symbolic links stay links; owners, permissions and times are kept as far as tar has them.
///
/// # Errors
///
/// If `src` cannot be read, or `dst` is there, cannot be written, or would be in `src`.
pub async fn pack(src: &Path, dst: &Path, key: &Key) -> io::Result<()> {
    let folder = parent(dst);
    // By no other path either: the archive would find itself among what it packs, and read what it writes.
    if canonicalize(&folder).await?.starts_with(canonicalize(src).await?) {
        let words = "the archive would be in the folder that is packed; choose another place for it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    let (file, temporary) = spawn_blocking(move || NamedTempFile::new_in(folder)).await??.into_parts();

    let mut archive = Builder::new(EncryptWriter::new(File::from_std(file), key));
    archive.follow_symlinks(false);
    // If this fails, what was written has the end of an archive, which the builder adds whatever happens. It does not
    // have the end of a stream, so nobody takes it for whole.
    archive.append_dir_all(".", src).await?;
    let mut stream = archive.into_inner().await?;
    stream.shutdown().await?;
    stream.get_ref().sync_all().await?;

    let dst = dst.to_owned();
    spawn_blocking(move || temporary.persist_noclobber(dst)).await??;
    Ok(())
}

/// The paths in the archive `src` and how long they are, if all of it is authentic.
///
/// # Errors
///
/// If `src` is not what [`pack`] writes, or was damaged or cut.
pub async fn list(src: &Path, key: &Key) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut stream = open(src, key).await?;
    let mut found = Vec::new();
    let mut entries = Archive::new(&mut stream).entries()?;
    while let Some(entry) = entries.try_next().await? {
        found.push((entry.path()?.into_owned(), entry.effective_size()));
    }
    drop(entries);
    read_to_its_end(stream).await?;
    Ok(found)
}

/// Extracts the archive `src` into a new folder `dst`, which appears when all of the stream was authentic.
///
/// # Errors
///
/// If `src` is not what [`pack`] writes, or was damaged or cut; if it has a link that leads out of the folder; if `dst`
/// is there or cannot be written. Nothing of it is left then.
pub async fn extract(src: &Path, dst: &Path, key: &Key) -> io::Result<()> {
    let folder = parent(dst);
    let mut stream = open(src, key).await?;
    // Until it has its name it is removed, with all that is in it, when it is dropped.
    let fresh = spawn_blocking(move || tempfile::Builder::new().prefix(".extracting-").tempdir_in(folder)).await??;
    // Whoever has the key may still not write elsewhere: the crate sees to paths, and this to links that lead out of
    // the folder.
    let archive = ArchiveBuilder::new(&mut stream).set_preserve_permissions(true).set_allow_external_symlinks(false);
    let inside = fresh.path().join("all");
    archive.build().unpack(&inside).await?;
    read_to_its_end(stream).await?;

    if tokio::fs::symlink_metadata(dst).await.is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    tokio::fs::rename(inside, dst).await
}

type Stream = DecryptReader<BufReader<File>>;

async fn open(path: &Path, key: &Key) -> io::Result<Stream> {
    let options = DecryptOptions::new().trailing(Trailing::Reject);
    let file = BufReader::with_capacity(64 * 1024, File::open(path).await?);
    Ok(DecryptReader::with_options(file, key, &options))
}

/// Whoever reads an archive stops where that ends. Only what comes behind says that the stream was whole.
async fn read_to_its_end(mut stream: Stream) -> io::Result<()> {
    copy(&mut stream, &mut sink()).await?;
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
