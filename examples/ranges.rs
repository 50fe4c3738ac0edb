//! Ranges of an encrypted object that lies on an HTTP server, many at once, each by one `Range` request for just the chunks that
//! hold it: a `ReadAt` of one's own under a `RangeReader`.
//!
//! ```text
//! cargo run --release --example ranges
//! ```
//!
//! The HTTP here is just enough to show it: `Object::request` is where a client library goes. Every request asks for the
//! version that the first one has seen (`If-Match`), so an object that is replaced meanwhile is told from a damaged one.

use std::{collections::HashMap, io, net::SocketAddr, ops::Range, sync::Arc};

use agcm::{Key, RangeReader, ReadAt};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

type Headers = HashMap<String, String>;

/// An object on a server, in one version.
struct Object {
    server: SocketAddr,
    len: u64,
    etag: String,
}

impl Object {
    async fn find(server: SocketAddr) -> io::Result<Self> {
        let (headers, _) = Self::request(server, "HEAD / HTTP/1.1\r\n\r\n").await?;
        let header = |name: &str| headers.get(name).cloned().ok_or_else(|| io::Error::other(format!("no {name}")));
        let len = header("content-length")?.parse().map_err(io::Error::other)?;
        Ok(Self { server, len, etag: header("etag")? })
    }

    async fn get(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Range { start, end } = range;
        // Both ends count in HTTP.
        let range = format!("bytes={start}-{}", end - 1);
        let request = format!("GET / HTTP/1.1\r\nIf-Match: {}\r\nRange: {range}\r\n\r\n", self.etag);
        let (_, body) = Self::request(self.server, &request).await?;
        Ok(body)
    }

    async fn request(server: SocketAddr, request: &str) -> io::Result<(Headers, Bytes)> {
        let mut socket = BufReader::new(TcpStream::connect(server).await?);
        socket.write_all(request.as_bytes()).await?;
        let (status, headers) = read_head(&mut socket).await?;
        if !status.starts_with("HTTP/1.1 2") {
            return Err(io::Error::other(status));
        }
        let mut body = Vec::new();
        socket.read_to_end(&mut body).await?;
        Ok((headers, body.into()))
    }
}

impl ReadAt for Object {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async { Ok(self.len) })
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(self.get(offset..offset + len as u64))
    }
}

/// The first line of a request or an answer, and its headers.
async fn read_head(socket: &mut BufReader<TcpStream>) -> io::Result<(String, Headers)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Ok((lines.into_iter().next().unwrap_or_default(), headers))
}

/// Serves an object to everybody. It has no key.
async fn serve(listener: TcpListener, object: Bytes) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(answer(socket, object.clone()));
    }
}

async fn answer(socket: TcpStream, object: Bytes) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let (line, headers) = read_head(&mut socket).await?;
    if line.starts_with("HEAD") {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"v1\"\r\n\r\n", object.len());
        return socket.write_all(head.as_bytes()).await;
    }
    if headers.get("if-match").is_some_and(|etag| etag != "\"v1\"") {
        return socket.write_all(b"HTTP/1.1 412 Precondition Failed\r\n\r\n").await;
    }
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(start, end)| Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?)));
    let Some((start, end)) = range.filter(|(start, end)| start <= end && *end < object.len()) else {
        return socket.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\n\r\n").await;
    };
    let part = object.slice(start..end + 1);
    socket
        .write_all(format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\r\n", part.len()).as_bytes())
        .await?;
    socket.write_all(&part).await
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let key = Key::generate();
    let content: Vec<u8> = (0..50_000_000u32).map(|i| (i % 251) as u8).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    tokio::spawn(serve(listener, agcm::encrypt(&key, &content).into()));

    // Two small requests check both ends of the stream; from then on its length is authentic.
    let object = Arc::new(Object::find(server).await?);
    let reader = RangeReader::open(object, &key).await?;
    println!("an object of {} bytes of plaintext, in chunks of {}", reader.len(), reader.chunk_size());

    // A few bytes are one request for one chunk, and any number of them can be under way.
    let (header, footer) = tokio::try_join!(reader.read_range(0..100), reader.read_range(49_999_900..50_000_000))?;
    assert_eq!((&header[..], &footer[..]), (&content[..100], &content[49_999_900..]));
    println!("read its first and its last 100 bytes");

    // A long range as a stream of pieces, one after the other: the body of an answer, or an `AsyncRead` through
    // `tokio_util::io::StreamReader`.
    let pieces = reader.stream(1_000_000..20_000_000)?;
    let total = pieces.try_fold(0, |total, piece| async move { Ok(total + piece.len()) }).await?;
    println!("streamed {total} bytes");

    // The same from a server that is far away: several ranges at once, in order.
    let step = 64 * reader.chunk_size() as u64;
    let ranges = (0..reader.len()).step_by(64 * reader.chunk_size()).map(|start| start..reader.len().min(start + step));
    let mut pieces = stream::iter(ranges).map(|range| reader.read_range(range)).buffered(4);
    let mut restored = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        restored.extend_from_slice(&piece);
    }
    assert!(restored == content);
    println!("read all of it, four ranges at a time");
    Ok(())
}
