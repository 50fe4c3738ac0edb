//! One entry out of a large encrypted archive, without decrypting the rest: a zip file, encrypted as it is made, and read
//! through `SeekReader` by a library that knows nothing of encryption.
//!
//! ```text
//! cargo run --release --example archive
//! ```

use std::{
    io::{self, Read, SeekFrom, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use agcm::{EncryptWriter, Key, SeekReader};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncSeek, AsyncWriteExt, ReadBuf},
    task::spawn_blocking,
};
use tokio_util::io::SyncIoBridge;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

const TABLES: usize = 200;
const ROWS: usize = 50_000;

fn row(table: usize, row: usize) -> String {
    format!("{row},user-{},{}\n", (row * 7919 + table) % 1_000_003, row * table)
}

/// Writes the archive entry by entry, encrypting as it goes: memory stays at one chunk.
async fn back_up(path: PathBuf, key: &Key) -> io::Result<()> {
    let writer = EncryptWriter::new(File::create(path).await?, key);
    let bridge = SyncIoBridge::new(writer);
    // The zip library is a synchronous one.
    let bridge = spawn_blocking(move || {
        let mut archive = ZipWriter::new_stream(bridge);
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for table in 0..TABLES {
            archive.start_file(format!("table-{table:03}.csv"), options)?;
            for i in 0..ROWS {
                archive.write_all(row(table, i).as_bytes())?;
            }
        }
        io::Result::Ok(archive.finish()?.into_inner())
    });
    // Ends the stream, without which it would be `Truncated`; then waits for the disk.
    let mut writer = bridge.await??.into_inner();
    writer.shutdown().await?;
    writer.get_ref().sync_all().await
}

/// Reads a single entry: the archive's directory at its end, then that entry.
async fn restore(path: &Path, key: &Key, entry: &'static str) -> io::Result<(String, u64)> {
    let file = Counted { inner: File::open(path).await?, read: 0 };
    let bridge = SyncIoBridge::new(SeekReader::open(file, key).await?);
    let restored = spawn_blocking(move || {
        let mut archive = ZipArchive::new(bridge)?;
        let mut content = String::new();
        archive.by_name(entry)?.read_to_string(&mut content)?;
        io::Result::Ok((content, archive.into_inner().into_inner().get_ref().read))
    });
    restored.await?
}

/// Counts what is read of a file, to show how little it is.
struct Counted {
    inner: File,
    read: u64,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.read += (buf.filled().len() - before) as u64;
        poll
    }
}

impl AsyncSeek for Counted {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.inner).start_seek(to)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.inner).poll_complete(cx)
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("backup.zip.agcm");
    let key = Key::generate();

    back_up(path.clone(), &key).await?;
    let len = tokio::fs::metadata(&path).await?.len();
    println!("an encrypted archive of {TABLES} tables: {:.1} MiB", len as f64 / 1048576.0);

    let (content, read) = restore(&path, &key, "table-123.csv").await?;
    let expected: String = (0..ROWS).map(|i| row(123, i)).collect();
    assert_eq!(content, expected);
    println!("restored table-123.csv: {:.1} MiB", content.len() as f64 / 1048576.0);
    println!(
        "by reading {:.1} MiB of the archive, {:.1} % of it",
        read as f64 / 1048576.0,
        read as f64 / len as f64 * 100.0
    );
    Ok(())
}
