//! The main job on real bytes: a snapshot to an encrypted file and over TCP, and back, compared byte for byte.
//!
//! ```text
//! cargo run --release --example snapshot [PATH]
//! ```
//!
//! Without a path it makes a sample of 256 MiB. It ends with status 0 only if both ways gave back every byte, and a cut and a
//! changed copy were refused.

use std::{
    error::Error,
    fs,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use agcm::{EncryptWriter, FileOptions, Key, Progress, ProgressReader, decrypt_file, encrypt_file};
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const MIB: u64 = 1024 * 1024;
const SAMPLE_LEN: u64 = 256 * MIB;

#[tokio::main]
async fn main() -> Result {
    let folder = tempfile::Builder::new().prefix("agcm-snapshot-").tempdir()?;
    let path = |name: &str| folder.path().join(name);

    let plain = match std::env::args_os().nth(1) {
        Some(given) => PathBuf::from(given),
        None => make_sample(path("sample"))?,
    };
    let len = fs::metadata(&plain).map_err(|error| format!("{}: {error}", plain.display()))?.len();
    println!("snapshot: {} ({len} bytes)", plain.display());

    // A file, and back.
    let key = Key::generate();
    let sealed = path("snapshot.agcm");
    let restored = path("restored-from-file");
    let step = Step::start("encrypt to a file", len);
    encrypt_file(&plain, &sealed, &key).await?;
    step.done();
    let step = Step::start("decrypt that file", len);
    decrypt_file(&sealed, &restored, &key).await?;
    step.done();
    let sealed_len = fs::metadata(&sealed)?.len();
    let overhead = sealed_len - len;
    println!("  {sealed_len} bytes encrypted: {overhead} more, {:.3} %", 100.0 * overhead as f64 / len.max(1) as f64);
    compare(&plain, &restored)?;
    fs::remove_file(&restored)?;

    // A socket, with the two ends in tasks of their own.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let received = path("restored-from-socket");
    let step = Step::start("send over TCP and decrypt there", len);
    let receiver = tokio::spawn(receive(listener, received.clone(), key.clone()));
    let sender = tokio::spawn(send(TcpStream::connect(address).await?, plain.clone(), len, key.clone()));
    sender.await??;
    receiver.await??;
    step.done();
    compare(&plain, &received)?;
    fs::remove_file(&received)?;

    // What must not open. The one encrypted file serves for both: first it is changed, then it is cut.
    let mut bytes = fs::OpenOptions::new().read(true).write(true).open(&sealed)?;
    flip_a_bit(&mut bytes, sealed_len / 2)?;
    refused("a flipped bit", decrypt_file(&sealed, path("never"), &key).await, &path("never"))?;
    flip_a_bit(&mut bytes, sealed_len / 2)?;
    bytes.set_len(sealed_len * 2 / 3)?;
    refused("a cut file", decrypt_file(&sealed, path("never"), &key).await, &path("never"))?;

    println!("all of it held");
    Ok(())
}

async fn send(socket: TcpStream, path: PathBuf, len: u64, key: Key) -> Result {
    let mut reader = ProgressReader::new(File::open(path).await?, Some(len), show);
    let mut writer = EncryptWriter::new(socket, &key);
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await?; // the end of the stream: a copy does not write it
    Ok(())
}

async fn receive(listener: TcpListener, path: PathBuf, key: Key) -> Result {
    let (socket, _) = listener.accept().await?;
    // The file gets its name only when the stream was whole: what was received before an error is not the snapshot.
    FileOptions::new().decrypt_from(socket, path, &key).await?;
    Ok(())
}

fn refused(what: &str, result: io::Result<u64>, target: &Path) -> Result {
    match result {
        Err(error) if agcm::Error::from_io(&error).is_some() && !target.exists() => {
            println!("  {what} is refused, and nothing is restored: {error}");
            Ok(())
        }
        other => Err(format!("{what}: {other:?}").into()),
    }
}

fn compare(one: &Path, two: &Path) -> Result {
    let mut one = BufReader::with_capacity(1 << 20, fs::File::open(one)?);
    let mut two = BufReader::with_capacity(1 << 20, fs::File::open(two)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = one.read(&mut left)?;
        if n == 0 {
            if two.read(&mut right)? > 0 {
                return Err("the restored file is longer than the original".into());
            }
            println!("  identical, byte for byte");
            return Ok(());
        }
        two.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Err("the restored file differs from the original".into());
        }
    }
}

fn flip_a_bit(file: &mut fs::File, at: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 1])
}

/// Bytes that do not repeat, so that nothing gets away with a frame in a wrong place.
fn make_sample(path: PathBuf) -> io::Result<PathBuf> {
    let mut file = io::BufWriter::with_capacity(1 << 20, fs::File::create(&path)?);
    for i in 0..SAMPLE_LEN / 8 {
        file.write_all(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    file.flush()?;
    Ok(path)
}

/// One timed step, with its throughput in plaintext bytes.
struct Step {
    name: &'static str,
    len: u64,
    start: Instant,
}

impl Step {
    fn start(name: &'static str, len: u64) -> Self {
        Self { name, len, start: Instant::now() }
    }

    fn done(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        println!("{}: {seconds:.2} s, {:.2} GB/s", self.name, self.len as f64 / seconds / 1e9);
    }
}

/// A line that is rewritten until all is done.
fn show(progress: Progress) {
    if let (Some(percent), Some(total)) = (progress.percent(), progress.total) {
        let end = if progress.done < total { '\r' } else { '\n' };
        print!("  {:6} of {} MiB, {percent:3} %{end}", progress.done / MIB, total / MIB);
        let _ = io::stdout().flush(); // a progress line is not worth failing for
    }
}
