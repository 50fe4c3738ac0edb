//! Files that are compressed and then encrypted, in this order, in constant memory.
//!
//! The other order is of no use: to whoever has no key, and a compressor has none, ciphertext is noise, and noise does
//! not become shorter. [`store_wrongly`] is there to show it.
//!
//! # What compression gives away
//!
//! Encryption hides what the bytes are, not how many. Compression makes their number depend on what they are: a dump of
//! rows that repeat becomes shorter than one of rows that don't, and anyone who sees the stream sees that. For
//! snapshots on a disk of one's own that is mostly harmless.
//!
//! It is not where somebody else chooses a part of what is compressed together with a secret, again and again, and sees
//! the lengths: a guess that agrees with the secret becomes shorter than one that doesn't, so the secret can be guessed
//! piece by piece, with no key at all. Against TLS these attacks are known as CRIME (CVE-2012-4929) and BREACH
//! (CVE-2013-3587); RFC 7457, section 2.6, sums them up. [`len_with`] shows it. No cipher helps. What helps is not to
//! compress what others can write to; to compress it apart from secrets; or not to compress at all.

use std::{io, path::Path};

use agcm::{DecryptOptions, DecryptReader, EncryptReader, FileOptions, Key, Trailing};
use async_compression::tokio::bufread::{GzipDecoder, GzipEncoder};
use tempfile::NamedTempFile;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy},
    task::spawn_blocking,
};

/// How much is read of a file at a time, in bytes.
const CAPACITY: usize = 64 * 1024;

/// Compresses the file `src` and encrypts that, into a new file `dst`, which appears when it is whole.
///
/// # Errors
///
/// If `src` cannot be read, or `dst` is there or cannot be written.
pub async fn store(src: &Path, dst: &Path, key: &Key) -> io::Result<()> {
    let compressed = GzipEncoder::new(BufReader::with_capacity(CAPACITY, File::open(src).await?));
    FileOptions::new().encrypt_from(compressed, dst, key).await?;
    Ok(())
}

/// Decrypts the file `src` and decompresses that, into a new file `dst`, which appears when all of the stream was
/// authentic. Returns its length, which must not be more than `max_len`: a few bytes can become very many.
///
/// # Errors
///
/// If `src` is not what [`store`] writes, or was damaged or cut; if it holds more than `max_len`; if `dst` is there or
/// cannot be written.
pub async fn restore(src: &Path, dst: &Path, key: &Key, max_len: u64) -> io::Result<u64> {
    let folder = dst.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let options = DecryptOptions::new().trailing(Trailing::Reject);
    let stream = BufReader::with_capacity(CAPACITY, File::open(src).await?);
    let mut compressed = DecryptReader::with_options(stream, key, &options);

    // Until it has its name it is removed when it is dropped.
    let (file, temporary) = spawn_blocking(move || NamedTempFile::new_in(folder)).await??.into_parts();
    let mut file = File::from_std(file);
    let mut plaintext = GzipDecoder::new(&mut compressed).take(max_len.saturating_add(1));
    let len = copy(&mut plaintext, &mut file).await?;
    if len > max_len {
        return Err(io::Error::other(format!("it holds more than {max_len} bytes")));
    }
    // The decompressor stops where its own format ends. What it has not seen is the end of the stream, before which
    // nobody knows whether that was all.
    if !compressed.fill_buf().await?.is_empty() {
        return Err(io::Error::other("something follows what was compressed"));
    }
    file.sync_all().await?;
    let dst = dst.to_owned();
    spawn_blocking(move || temporary.persist_noclobber(dst)).await??;
    Ok(len)
}

/// Encrypts the file `src` and compresses that, and returns the length, which is not worth it.
///
/// # Errors
///
/// If `src` cannot be read.
pub async fn store_wrongly(src: &Path, key: &Key) -> io::Result<u64> {
    let stream = EncryptReader::new(File::open(src).await?, key);
    let mut compressed = GzipEncoder::new(BufReader::with_capacity(CAPACITY, stream));
    copy(&mut compressed, &mut tokio::io::sink()).await
}

/// How long the encrypted stream of a page is that holds a secret and what somebody else has chosen: all that an
/// attacker has to see.
///
/// # Errors
///
/// None, in memory.
pub async fn len_with(chosen: &str, secret: &str, compress: bool, key: &Key) -> io::Result<usize> {
    let page = format!("you asked for {chosen}; hidden in this page: token={secret}");
    let mut content = page.clone().into_bytes();
    if compress {
        content.clear();
        GzipEncoder::new(page.as_bytes()).read_to_end(&mut content).await?;
    }
    let mut stream = agcm::EncryptWriter::new(Vec::new(), key);
    stream.write_all(&content).await?;
    stream.shutdown().await?;
    Ok(stream.into_inner().len())
}
