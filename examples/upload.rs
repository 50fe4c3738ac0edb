//! A file as the body of an upload, encrypted while the client pulls it: `EncryptReader`, with the `Content-Length` known
//! before the first byte.
//!
//! ```text
//! cargo run --release --example upload
//! ```
//!
//! The HTTP here is just enough to show it. With a client library the reader is the body: as a stream of bytes, for example,
//! by `tokio_util::io::ReaderStream::with_capacity(reader, 64 * 1024)`.

use std::{io, path::Path};

use agcm::{DEFAULT_CHUNK_SIZE, DecryptReader, EncryptReader, Key, geometry::Uniform};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, copy_buf},
    net::{TcpListener, TcpStream},
};

/// Encrypts and sends a file in constant memory.
async fn upload(path: &Path, mut socket: TcpStream, key: &Key) -> io::Result<()> {
    let file = File::open(path).await?;
    let len = file.metadata().await?.len();
    // The stream of an `EncryptReader` is always uniform, so its length follows from that of the file.
    let announced = Uniform::new(len, DEFAULT_CHUNK_SIZE)?.stream_len();
    socket.write_all(format!("PUT /backup HTTP/1.1\r\nContent-Length: {announced}\r\n\r\n").as_bytes()).await?;

    // Should the file grow meanwhile, no more of it is sent than was announced; should it shrink, the end of the stream comes
    // too soon, and the request fails.
    let mut body = EncryptReader::new(file.take(len), key);
    let sent = copy_buf(&mut body, &mut socket).await?;
    if sent != announced {
        return Err(io::Error::other("the file has changed while it was uploaded"));
    }
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).await?;
    if answer.trim_end() != "HTTP/1.1 201 Created" {
        return Err(io::Error::other(answer));
    }
    println!("sent {len} bytes of plaintext as {sent} bytes");
    Ok(())
}

/// A server that stores what it is sent. It has no key.
async fn serve(listener: TcpListener, path: &Path) -> io::Result<()> {
    let (socket, _) = listener.accept().await?;
    let mut socket = BufReader::new(socket);
    let mut announced = None;
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", len)) => announced = len.parse().ok(),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let len: u64 = announced.ok_or_else(|| io::Error::other("no length was announced"))?;
    let mut stored = File::create(path).await?;
    let received = copy(&mut (&mut socket).take(len), &mut stored).await?;
    stored.flush().await?;
    let answer = if received == len { "201 Created" } else { "400 Bad Request" };
    socket.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let [plain, stored] = ["plain", "stored"].map(|name| folder.path().join(name));
    let content: Vec<u8> = (0..50_000_000u32).map(|i| (i % 251) as u8).collect();
    tokio::fs::write(&plain, &content).await?;
    let key = Key::generate();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    tokio::try_join!(upload(&plain, socket, &key), serve(listener, &stored))?;

    let mut restored = Vec::new();
    DecryptReader::new(BufReader::new(File::open(&stored).await?), &key).read_to_end(&mut restored).await?;
    assert!(restored == content);
    println!("what the server stored opens with the key, and is what was sent");
    Ok(())
}
