use std::{
    fs, io,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use agcm::{DEFAULT_CHUNK_SIZE, DecryptOptions, EncryptOptions, FileOptions, Key, geometry::Uniform};
use agcm_services::http::{MAX_TRANSFERS, Service, serve};
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode, header};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::support::{assert_same, content, flip, names, numbers, until};

const MB: usize = 1_000_000;
const CHUNK: u64 = DEFAULT_CHUNK_SIZE as u64;
/// Both ends of a stream, and the salt.
const OPENING: u64 = 80 + 37 + 20;

/// A service on loopback.
struct Running {
    parent: TempDir,
    folder: PathBuf,
    key: Key,
    service: Service,
    address: SocketAddr,
    client: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(|service| service, Duration::from_secs(60)).await
    }

    async fn start_with(choose: impl FnOnce(Service) -> Service, grace: Duration) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("files");
        fs::create_dir(&folder).unwrap();
        let key = Key::generate();
        let service = choose(Service::new(&folder, key.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn({
            let service = service.clone();
            async move { serve(listener, &service, async { drop(stopped.await) }, grace).await }
        });
        Self { parent, folder, key, service, address, client: Client::new(), stop, serving }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.agcm"))
    }

    fn get(&self, name: &str) -> RequestBuilder {
        self.client.get(self.url(name))
    }

    fn put(&self, name: &str, body: impl Into<Body>) -> RequestBuilder {
        self.client.put(self.url(name)).body(body)
    }

    async fn store(&self, name: &str, content: &[u8]) -> String {
        let response = self.put(name, content.to_vec()).send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        header(&response, header::ETAG)
    }

    async fn download(&self, name: &str) -> Bytes {
        let response = self.get(name).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.bytes().await.unwrap()
    }

    async fn range(&self, name: &str, range: &str) -> Response {
        self.get(name).header(header::RANGE, range).send().await.unwrap()
    }

    async fn raw(&self, request: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    }

    /// The first line of the answer.
    async fn status(&self, request: &str) -> String {
        let mut answer = Vec::new();
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        self.raw(&request).await.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    }
}

fn header(response: &Response, name: header::HeaderName) -> String {
    response.headers().get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

/// A body in pieces, whose length is not announced.
fn pieces(content: &[u8]) -> Body {
    let pieces: Vec<_> = content.chunks(77_777).map(Bytes::copy_from_slice).map(io::Result::Ok).collect();
    Body::wrap_stream(stream::iter(pieces))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_lies_encrypted_on_disk_and_is_downloaded_byte_for_byte() {
    let running = Running::start().await;
    let content = content(24 * MB, 1);
    let response = running.put("db.dump", pieces(&content)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let etag = header(&response, header::ETAG);

    assert_eq!(names(&running.folder), ["db.dump.agcm"]);
    let stream = fs::read(running.file("db.dump")).unwrap();
    let layout = Uniform::new(content.len() as u64, DEFAULT_CHUNK_SIZE).unwrap();
    assert_eq!(stream.len() as u64, layout.stream_len());
    let bound = DecryptOptions::new().context("/db.dump").unwrap();
    assert_same(&bound.decrypt(&running.key, &stream).unwrap(), &content);

    let response = running.get("db.dump").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.content_length(), Some(content.len() as u64));
    assert_eq!(header(&response, header::ETAG), etag);
    assert_eq!(header(&response, header::ACCEPT_RANGES), "bytes");
    assert_same(&response.bytes().await.unwrap(), &content);
}

#[tokio::test]
async fn files_of_every_length_around_a_chunk_come_back() {
    let running = Running::start().await;
    for len in [0, 1, DEFAULT_CHUNK_SIZE - 1, DEFAULT_CHUNK_SIZE, DEFAULT_CHUNK_SIZE + 1, 1 << 20, (1 << 20) + 1] {
        let content = content(len, 2);
        running.store("file", &content).await;
        assert_same(&running.download("file").await, &content);
        running.put("file", pieces(&content)).send().await.unwrap();
        assert_same(&running.download("file").await, &content);
    }
}

#[tokio::test]
async fn ranges_at_the_borders_of_chunks_and_anywhere_are_those_of_the_plaintext() {
    let running = Running::start().await;
    let content = content(3 * MB + 123, 3);
    let len = content.len() as u64;
    running.store("file", &content).await;

    let mut ranges: Vec<Range<u64>> = vec![0..1, 0..len, len - 1..len, 1..len - 1];
    for border in (0..=len).step_by(DEFAULT_CHUNK_SIZE).chain([len]) {
        ranges.extend([
            border.saturating_sub(1)..border + 1,
            border.saturating_sub(CHUNK)..border,
            border..border + CHUNK,
        ]);
    }
    let mut below = numbers(3);
    for _ in 0..100 {
        let start = below(len);
        ranges.push(start..start + 1 + below(len - start));
    }
    ranges.retain(|range| range.start < range.end.min(len));

    for Range { start, end } in ranges {
        let response = running.range("file", &format!("bytes={start}-{}", end - 1)).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{start}..{end}");
        let end = end.min(len);
        assert_eq!(header(&response, header::CONTENT_RANGE), format!("bytes {start}-{}/{len}", end - 1));
        assert_eq!(response.content_length(), Some(end - start));
        assert_same(&response.bytes().await.unwrap(), &content[start as usize..end as usize]);
    }
}

#[tokio::test]
async fn a_range_may_be_open_at_either_end() {
    let running = Running::start().await;
    let content = content(200_000, 4);
    running.store("file", &content).await;
    for (asked, range) in [
        ("bytes=150000-", 150_000..200_000),
        ("bytes=-70000", 130_000..200_000),
        ("bytes=-200000", 0..200_000),
        ("bytes=-200001", 0..200_000),
        ("bytes=199999-99999999999999999999999", 199_999..200_000),
        ("Bytes=5-9", 5..10),
        ("bytes=5-9,", 5..10),
    ] {
        let response = running.range("file", asked).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{asked}");
        let expected = format!("bytes {}-{}/200000", range.start, range.end - 1);
        assert_eq!(header(&response, header::CONTENT_RANGE), expected, "{asked}");
        assert_same(&response.bytes().await.unwrap(), &content[range]);
    }
}

#[tokio::test]
async fn a_range_beyond_the_end_is_answered_with_the_length() {
    let running = Running::start().await;
    running.store("file", &content(200_000, 5)).await;
    running.store("empty", b"").await;
    for (name, asked, len) in [
        ("file", "bytes=200000-", 200_000),
        ("file", "bytes=200000-200000", 200_000),
        ("file", "bytes=-0", 200_000),
        ("empty", "bytes=0-", 0),
        ("empty", "bytes=0-0", 0),
    ] {
        let response = running.range(name, asked).await;
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{asked}");
        assert_eq!(header(&response, header::CONTENT_RANGE), format!("bytes */{len}"));
        assert_eq!(response.bytes().await.unwrap(), "");
    }
    assert_eq!(running.range("empty", "bytes=-1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_no_single_range_of_bytes_is_ignored() {
    let running = Running::start().await;
    let content = content(200_000, 6);
    running.store("file", &content).await;
    for asked in [
        "bytes=0-1,3-4",
        "bytes=5-4",
        "bytes=-",
        "bytes=",
        "bytes=a-b",
        "bytes=1",
        "rows=0-1",
        "0-1",
        "bytes=+1-2",
        "bytes=1--2",
    ] {
        let response = running.range("file", asked).await;
        assert_eq!(response.status(), StatusCode::OK, "{asked}");
        assert_eq!(header(&response, header::CONTENT_RANGE), "");
        assert_same(&response.bytes().await.unwrap(), &content);
    }
    let twice = running.get("file").header(header::RANGE, "bytes=0-1").header(header::RANGE, "bytes=3-4");
    assert_eq!(twice.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn only_the_frames_that_hold_a_range_are_read() {
    let running = Running::start().await;
    let content = content(8 * MB, 7);
    running.store("file", &content).await;
    let layout = Uniform::new(content.len() as u64, DEFAULT_CHUNK_SIZE).unwrap();
    for range in
        [0..1, CHUNK - 1..CHUNK + 1, 5_000_000..5_000_100, 1_000_000..4_000_000, 7_999_999..8_000_000, 0..8_000_000]
    {
        let before = running.service.bytes_read();
        let response = running.range("file", &format!("bytes={}-{}", range.start, range.end - 1)).await;
        assert_same(&response.bytes().await.unwrap(), &content[range.start as usize..range.end as usize]);
        let cover = layout.covering(range.clone()).unwrap().stream;
        assert_eq!(running.service.bytes_read() - before, OPENING + cover.end - cover.start, "{range:?}");
    }
}

#[tokio::test]
async fn head_gives_the_length_of_the_plaintext_and_reads_none_of_it() {
    let running = Running::start().await;
    let etag = running.store("file", &content(5 * MB, 8)).await;
    let before = running.service.bytes_read();
    // A range is for GET.
    let head = running.client.head(running.url("file")).header(header::RANGE, "bytes=0-1").send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, header::CONTENT_LENGTH), "5000000");
    assert_eq!(header(&head, header::ACCEPT_RANGES), "bytes");
    assert_eq!(header(&head, header::ETAG), etag);
    assert_eq!(running.service.bytes_read() - before, OPENING);

    let missing = running.client.head(running.url("other")).send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_version_is_told_from_another_by_its_etag() {
    let running = Running::start().await;
    let content = content(100_000, 9);
    let first = running.store("file", &content).await;
    let etag = running.store("file", &content).await;
    assert!(etag != first && etag.len() == 42 && etag.starts_with('"'), "{etag}");

    let status = async |name: header::HeaderName, value: &str| {
        let response = running.get("file").header(name, value).send().await.unwrap();
        assert!(response.status() == StatusCode::PRECONDITION_FAILED || header(&response, header::ETAG) == etag);
        response.status().as_u16()
    };
    assert_eq!(status(header::IF_NONE_MATCH, &etag).await, 304);
    assert_eq!(status(header::IF_NONE_MATCH, &format!("{first}, W/{etag}")).await, 304);
    assert_eq!(status(header::IF_NONE_MATCH, "*").await, 304);
    assert_eq!(status(header::IF_NONE_MATCH, &first).await, 200);
    assert_eq!(status(header::IF_MATCH, &etag).await, 200);
    assert_eq!(status(header::IF_MATCH, "*").await, 200);
    assert_eq!(status(header::IF_MATCH, &first).await, 412);
    // A weak one does not say that the bytes are the same.
    assert_eq!(status(header::IF_MATCH, &format!("W/{etag}")).await, 412);
}

#[tokio::test]
async fn a_part_is_sent_only_of_the_version_that_the_client_has_begun_with() {
    let running = Running::start().await;
    let content = content(100_000, 10);
    let old = running.store("file", &content).await;
    let etag = running.store("file", &content).await;
    for (condition, status) in [
        (etag.clone(), StatusCode::PARTIAL_CONTENT),
        (old, StatusCode::OK),
        (format!("W/{etag}"), StatusCode::OK),
        ("Sun, 06 Nov 2094 08:49:37 GMT".into(), StatusCode::OK),
        ("neither".into(), StatusCode::OK),
    ] {
        let request = running.get("file").header(header::RANGE, "bytes=7-").header(header::IF_RANGE, &condition);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{condition}");
        let start = if status == StatusCode::OK { 0 } else { 7 };
        assert_same(&response.bytes().await.unwrap(), &content[start..]);
    }
}

#[tokio::test]
async fn a_file_is_replaced_or_removed_only_as_the_client_means_it() {
    let running = Running::start().await;
    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
    let put = |content: &'static str| running.put("file", content);
    let delete = || running.client.delete(running.url("file"));

    assert_eq!(status(put("one").header(header::IF_MATCH, "*")).await, 412);
    assert_eq!(status(delete()).await, 404);
    assert_eq!(names(&running.folder), [""; 0]);
    assert_eq!(status(put("one").header(header::IF_NONE_MATCH, "*")).await, 201);
    assert_eq!(status(put("two").header(header::IF_NONE_MATCH, "*")).await, 412);
    assert_eq!(running.download("file").await, "one");

    let one = header(&running.get("file").send().await.unwrap(), header::ETAG);
    assert_eq!(status(put("two")).await, 204);
    assert_eq!(status(put("three").header(header::IF_MATCH, &one)).await, 412);
    assert_eq!(status(delete().header(header::IF_MATCH, &one)).await, 412);
    assert_eq!(running.download("file").await, "two");
    let two = header(&running.get("file").send().await.unwrap(), header::ETAG);
    assert_eq!(status(put("three").header(header::IF_MATCH, &two)).await, 204);
    assert_eq!(status(put("four").header(header::CONTENT_RANGE, "bytes 0-3/8")).await, 400);
    assert_eq!(running.download("file").await, "three");
    assert_eq!(status(delete()).await, 204);
    assert_eq!(status(running.get("file")).await, 404);
    assert_eq!(names(&running.folder), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_no_longer_holds_when_all_has_arrived_is_not_met() {
    let running = Running::start().await;
    let etag = running.store("file", b"one").await;
    for condition in [(header::IF_MATCH, etag.as_str(), "file"), (header::IF_NONE_MATCH, "*", "new")] {
        let (name, value, file) = condition;
        let (go_on, wait) = oneshot::channel::<()>();
        let begin = stream::iter([io::Result::Ok(Bytes::from_static(b"late"))]);
        let end = stream::once(async move {
            wait.await.unwrap();
            io::Result::Ok(Bytes::from_static(b"comer"))
        });
        let late = running.put(file, Body::wrap_stream(begin.chain(end))).header(name, value).send();
        let late = tokio::spawn(late);
        until("the upload has begun", || names(&running.folder).iter().any(|name| name.ends_with(".partial"))).await;
        running.store(file, b"two").await;
        go_on.send(()).unwrap();
        assert_eq!(late.await.unwrap().unwrap().status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(running.download(file).await, "two");
    }
    assert_eq!(names(&running.folder), ["file.agcm", "new.agcm"]);
}

#[tokio::test]
async fn names_that_could_leave_the_folder_are_refused() {
    let running = Running::start().await;
    // It would even open.
    let options = |name: &str| FileOptions::new().encrypt_options(EncryptOptions::new().context(name).unwrap());
    let outside = running.parent.path().join("outside.agcm");
    options("/../outside").encrypt_from(&b"secret"[..], &outside, &running.key).await.unwrap();
    let hidden = running.folder.join(".hidden.agcm");
    options("/.hidden").encrypt_from(&b"secret"[..], &hidden, &running.key).await.unwrap();
    let sealed = fs::read(&outside).unwrap();

    let long = "x".repeat(201);
    let bad = [
        "..%2foutside",
        "%2e%2e%2foutside",
        "..",
        "%2e%2e",
        ".hidden",
        "%2ehidden",
        "a%2fb",
        "a%5cb",
        "a%00b",
        "a%20b",
        "%c3%a4",
        "%ff",
        "C:x",
        &long,
    ];
    for name in bad {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let body = if method == "PUT" { "\r\nContent-Length: 0" } else { "" };
            let status = running.status(&format!("{method} /{name} HTTP/1.1{body}")).await;
            assert!(status.starts_with("HTTP/1.1 400"), "{method} {name}: {status}");
        }
    }
    for path in ["/", "/../outside", "/files/../../outside", "//outside", "/a/b"] {
        let status = running.status(&format!("GET {path} HTTP/1.1")).await;
        assert!(status.starts_with("HTTP/1.1 404"), "{path}: {status}");
    }
    assert_eq!(names(&running.folder), [".hidden.agcm"]);
    assert_eq!(names(running.parent.path()), ["files", "outside.agcm"]);
    assert_same(&fs::read(&outside).unwrap(), &sealed);
    running.store(&long[1..], b"just short enough").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_leaves_nothing_and_what_was_there_stays() {
    let running = Running::start().await;
    let content = content(3 * MB, 11);
    let old = running.store("old", b"as it was").await;
    let is_partial = || names(&running.folder).iter().any(|name| name.ends_with(".partial"));
    let announced = format!("HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", content.len() + 1);
    let chunked = "HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

    for name in ["old", "new"] {
        for head in [&announced[..], chunked] {
            for only_half_closed in [false, true] {
                let mut socket = running.raw(&format!("PUT /{name} {head}")).await;
                if head == chunked {
                    socket.write_all(format!("{:x}\r\n", content.len()).as_bytes()).await.unwrap();
                }
                socket.write_all(&content).await.unwrap();
                if head == chunked {
                    socket.write_all(b"\r\n").await.unwrap();
                }
                until("the upload has begun", is_partial).await;
                if only_half_closed {
                    // All that comes is there, and one byte less than was announced, or no last chunk.
                    socket.shutdown().await.unwrap();
                    let mut answer = Vec::new();
                    socket.read_to_end(&mut answer).await.unwrap();
                    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
                }
                drop(socket);
                until("the upload is gone", || !is_partial()).await;
                assert_eq!(names(&running.folder), ["old.agcm"]);
            }
        }
        // A client whose own source fails.
        let (fail, wait) = oneshot::channel::<()>();
        let begin = stream::iter([io::Result::Ok(Bytes::from(content.clone()))]);
        let end = stream::once(async move {
            wait.await.unwrap();
            Err(io::Error::other("the tape is torn"))
        });
        let failing = tokio::spawn(running.put(name, Body::wrap_stream(begin.chain(end))).send());
        until("the upload has begun", is_partial).await;
        fail.send(()).unwrap();
        failing.await.unwrap().unwrap_err();
        until("the upload is gone", || !is_partial()).await;
        assert_eq!(names(&running.folder), ["old.agcm"]);
    }
    let response = running.get("old").send().await.unwrap();
    assert_eq!(header(&response, header::ETAG), old);
    assert_eq!(response.bytes().await.unwrap(), "as it was");
}

#[tokio::test]
async fn an_upload_that_is_too_long_is_refused_before_it_is_sent_or_where_it_becomes_so() {
    let running = Running::start_with(|service| service.max_len(MB as u64), Duration::ZERO).await;
    running.store("file", &content(MB, 12)).await;
    let head = format!("PUT /other HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n", MB + 1);
    let mut answer = [0; 12];
    running.raw(&head).await.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");

    let body = content(MB + 1, 12);
    let mut socket = running.raw("PUT /other HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    socket.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await.unwrap();
    socket.write_all(&body).await.unwrap();
    socket.write_all(b"\r\n0\r\n\r\n").await.unwrap();
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(names(&running.folder), ["file.agcm"]);
}

#[tokio::test]
async fn damage_on_the_disk_is_never_the_end_of_a_download() {
    let running = Running::start().await;
    let content = content(8 * MB, 13);
    running.store("file", &content).await;
    let layout = Uniform::new(content.len() as u64, DEFAULT_CHUNK_SIZE).unwrap();
    let damaged = layout.covering(6_000_000..6_000_001).unwrap();
    flip(&running.file("file"), damaged.stream.start + 1000);

    // The head of the answer was sent when it is met.
    let response = running.get("file").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut pieces = response.bytes_stream();
    let mut got = Vec::new();
    let failed = loop {
        match pieces.next().await {
            Some(Ok(piece)) => got.extend_from_slice(&piece),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(failed, "{} bytes came, and then the end", got.len());
    assert!(got.len() as u64 <= damaged.plaintext.start);
    assert_same(&got, &content[..got.len()]);

    for (range, status) in [
        (damaged.plaintext.clone(), 500),
        (damaged.plaintext.start..damaged.plaintext.start + 1, 500),
        (0..damaged.plaintext.start, 206),
        (damaged.plaintext.end..8_000_000, 206),
    ] {
        let response = running.range("file", &format!("bytes={}-{}", range.start, range.end - 1)).await;
        assert_eq!(response.status().as_u16(), status, "{range:?}");
        if status == 206 {
            assert_same(&response.bytes().await.unwrap(), &content[range.start as usize..range.end as usize]);
        }
    }

    // Near the start there is still time to say so.
    flip(&running.file("file"), 1000);
    assert_eq!(running.get("file").send().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    // A damaged file can be replaced like any other.
    running.store("file", &content).await;
    assert_same(&running.download("file").await, &content);
}

#[tokio::test]
async fn files_that_were_swapped_or_cut_on_the_disk_are_not_sent() {
    let running = Running::start().await;
    let content = content(300_000, 14);
    running.store("one", &content).await;
    running.store("two", &content).await;
    fs::copy(running.file("one"), running.file("two")).unwrap();
    let cut = fs::OpenOptions::new().write(true).open(running.file("one")).unwrap();
    for len in [cut.metadata().unwrap().len() - 1, 200_000, 100, 30, 0] {
        cut.set_len(len).unwrap();
        for request in [running.get("one"), running.client.head(running.url("one"))] {
            assert_eq!(request.send().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR, "{len}");
        }
    }
    let response = running.get("two").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let words = response.text().await.unwrap();
    assert!(!words.contains("key") && !words.contains("files/"), "the client is told: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_uploads_of_one_name_one_is_there_and_whole() {
    let running = Running::start().await;
    let contents: Vec<_> = (0..8).map(|i| content(MB + 1000 * i, 20 + i as u64)).collect();
    let is_over = AtomicBool::new(false);
    let uploads = async {
        let uploads = contents.iter().map(|content| running.put("file", pieces(content)).send());
        let statuses: Vec<_> = join_all(uploads).await.into_iter().map(|response| response.unwrap().status()).collect();
        assert_eq!(statuses.iter().filter(|&&status| status == StatusCode::CREATED).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|&&status| status == StatusCode::NO_CONTENT).count(), 7, "{statuses:?}");
        is_over.store(true, Relaxed);
    };
    let downloads = async {
        while !is_over.load(Relaxed) {
            let response = running.get("file").send().await.unwrap();
            if response.status() != StatusCode::NOT_FOUND {
                let got = response.bytes().await.unwrap();
                assert!(contents.iter().any(|content| content[..] == got[..]), "{} bytes are nobody's", got.len());
            }
        }
    };
    tokio::join!(uploads, downloads);
    let got = running.download("file").await;
    assert!(contents.iter().any(|content| content[..] == got[..]));
    assert_eq!(names(&running.folder), ["file.agcm"]);

    let uploads =
        contents.iter().map(|content| running.put("new", pieces(content)).header(header::IF_NONE_MATCH, "*").send());
    let mut created = Vec::new();
    for (i, response) in join_all(uploads).await.into_iter().enumerate() {
        match response.unwrap().status() {
            StatusCode::CREATED => created.push(i),
            status => assert_eq!(status, StatusCode::PRECONDITION_FAILED),
        }
    }
    assert_eq!(created.len(), 1);
    assert_same(&running.download("new").await, &contents[created[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_with_the_version_that_it_began_with() {
    let running = Running::start().await;
    let (old, new) = (content(24 * MB, 30), content(24 * MB, 31));
    running.store("file", &old).await;
    let mut response = running.get("file").send().await.unwrap();
    let mut got = response.chunk().await.unwrap().unwrap().to_vec();
    running.store("file", &new).await;
    assert_same(&running.download("file").await, &new);
    let again = running.client.delete(running.url("file")).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NO_CONTENT);
    while let Some(piece) = response.chunk().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert_same(&got, &old);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_transfers_than_there_are_places_are_turned_away() {
    let running = Running::start().await;
    running.store("file", &content(24 * MB, 32)).await;
    let mut uploads = Vec::new();
    for i in 0..MAX_TRANSFERS - 1 {
        uploads.push(running.raw(&format!("PUT /{i} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")).await);
    }
    until("they have begun", || names(&running.folder).len() == MAX_TRANSFERS).await;
    // A download has its place for as long as it goes on.
    let download = running.get("file").send().await.unwrap();
    let status = async || running.client.head(running.url("file")).send().await.unwrap().status();
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    let refused = running.put("other", "x").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(download.bytes().await.unwrap());
    assert_eq!(status().await, StatusCode::OK);
    drop(uploads);
    until("they are gone", || names(&running.folder) == ["file.agcm"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_told_to_stop_ends_what_it_has_begun() {
    let running = Running::start().await;
    let content = content(24 * MB, 33);
    running.store("file", &content).await;
    let mut response = running.get("file").send().await.unwrap();
    let mut got = response.chunk().await.unwrap().unwrap().to_vec();

    running.stop.send(()).unwrap();
    timeout(Duration::from_secs(60), async { while TcpStream::connect(running.address).await.is_ok() {} })
        .await
        .unwrap();
    assert!(!running.serving.is_finished());
    while let Some(piece) = response.chunk().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert_same(&got, &content);
    timeout(Duration::from_secs(60), running.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_does_not_keep_the_service_from_stopping() {
    let running = Running::start_with(|service| service, Duration::from_millis(100)).await;
    let stalled = running.raw("PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nxxx").await;
    until("the upload has begun", || !names(&running.folder).is_empty()).await;
    running.stop.send(()).unwrap();
    let stopped = timeout(Duration::from_secs(60), running.serving).await.unwrap().unwrap();
    assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(stalled);
    until("the upload is gone", || names(&running.folder).is_empty()).await;
}
