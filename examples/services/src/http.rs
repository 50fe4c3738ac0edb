//! A folder of encrypted files behind HTTP: the service that the program `http` runs.
//!
//! Files are encrypted as they arrive, and decrypted as they leave. What is on disk under a name is always a whole
//! stream, and no byte of plaintext ever lies there. A download must never end cleanly unless all of it was authentic.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /name` | 201, or 204 if it replaced another; it appears when all of it has arrived and is on disk |
//! | `GET /name` | 200 and all of it; with a `Range` 206 and that part, for which only the frames that hold it are read |
//! | `HEAD /name` | the length of the plaintext, from both ends of the stream |
//! | `DELETE /name` | 204, when that is on disk |
//!
//! Each file is bound to its name by the [context](agcm::EncryptOptions::context): if somebody renames or swaps files
//! on the disk, they don't open. Who may do what is not the service's business, nor is TLS: put a proxy before it that
//! sees to both, and to clients that are too slow.
//!
//! # Versions
//!
//! Each stream has 20 random bytes of salt of its own, so the salt is a strong `ETag`, and costs nothing. `If-Match`,
//! `If-None-Match` and `If-Range` are heeded. With `PUT`, `If-None-Match: *` replaces nothing, and `If-Match` only the
//! version that the client has seen; both are checked before the upload, and in the moment before it is published.
//! Whoever downloads goes on with the version that they began with.
//!
//! The server drops a request whose client has left, but not what works for it: whatever publishes or removes a file has
//! the name's turn until that is done, so nothing that another client was told meanwhile is undone by it.
//!
//! # Ranges
//!
//! One range, of the forms `a-b`, `a-` and `-n`. A `Range` that is malformed, has several ranges or comes with another
//! method than `GET` is ignored, as RFC 9110 allows; one beyond the end is 416.
//!
//! # Limits
//!
//! At most [`MAX_TRANSFERS`] uploads and downloads go on at a time, each in some 4 MiB of memory, whatever its length;
//! beyond that, 503. An upload is at most as long as [`Service::max_len`] says; beyond that, 413.
//!
//! # When things go wrong
//!
//! An upload that is cut leaves nothing behind. One whose client leaves after the last byte and before the answer is there
//! whole, or not at all. Up to 1 MiB of a download is opened before the answer begins, so that damage there is answered
//! with 500; damage further back cuts the connection, and the client sees that the body is shorter than its
//! `Content-Length`. What was wrong is said on standard error, not to the client.

use std::{
    array, error, fmt, fs,
    future::{Future, IntoFuture},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    ops::Range,
    path::{self, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use agcm::{DecryptOptions, EncryptOptions, FileOptions, Key, PositionedFile, RangeReader, ReadAt};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use headers::{AcceptRanges, ContentLength, ContentRange, ETag, Header, HeaderMapExt, IfMatch, IfNoneMatch, IfRange};
use http_body_util::{LengthLimitError, Limited};
use tokio::{
    net::TcpListener,
    sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{io::StreamReader, sync::CancellationToken, task::TaskTracker};

/// How many uploads and downloads go on at a time.
pub const MAX_TRANSFERS: usize = 64;

/// The longest name, in bytes: with what is added to it, file systems take it.
const MAX_NAME_LEN: usize = 200;

/// Where the salt of a stream is.
const SALT: Range<u64> = 28..48;

/// A folder, and a key. To clone it costs nothing.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    key: Key,
    max_len: u64,
    transfers: Arc<Semaphore>,
    /// Whoever publishes or removes a file has its name's turn. Several names may share one.
    turns: [Arc<Mutex<()>>; 64],
    /// Uploads and removals, which go on without the request that began them.
    work: TaskTracker,
    bytes_read: AtomicU64,
}

impl Service {
    /// A service for the files of a folder, which must be there, and belongs to the service alone.
    pub fn new(folder: impl Into<PathBuf>, key: Key) -> Self {
        Self(Arc::new(Inner {
            folder: folder.into(),
            key,
            max_len: u64::MAX,
            transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            turns: array::from_fn(|_| Arc::default()),
            work: TaskTracker::new(),
            bytes_read: AtomicU64::new(0),
        }))
    }

    /// How long an upload may be, in bytes. Any length, by default.
    ///
    /// # Panics
    ///
    /// If the service was cloned already.
    #[must_use]
    pub fn max_len(mut self, max_len: u64) -> Self {
        Arc::get_mut(&mut self.0).expect("a service that is not in use").max_len = max_len;
        self
    }

    /// How many bytes were read from the files for downloads, to be watched beside how many were sent.
    pub fn bytes_read(&self) -> u64 {
        self.0.bytes_read.load(Relaxed)
    }

    /// The service, to be served alone or as a part of another.
    pub fn router(&self) -> Router {
        // `get` serves HEAD as well.
        Router::new().route("/{name}", routing::get(get).put(put).delete(delete)).with_state(self.clone())
    }

    /// Where the file of a name is. A name is not a path: whatever could leave the folder, or stand for what the
    /// service does not show, is none.
    fn path(&self, name: &str) -> Result<PathBuf, Refusal> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_LEN || name.starts_with('.') || !name.bytes().all(allowed) {
            const WORDS: &str = "names are of letters, digits, '-', '_' and '.', and don't begin with '.'";
            return Err(Refusal(StatusCode::BAD_REQUEST, WORDS));
        }
        Ok(self.0.folder.join(format!("{name}.agcm")))
    }

    /// The turn of a name, which whatever does the work takes along: it must not end before that is done.
    async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let turn = &self.0.turns[hasher.finish() as usize % self.0.turns.len()];
        turn.clone().lock_owned().await
    }

    /// A place among the transfers, until it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = self.0.transfers.clone().try_acquire_owned();
        place.map_err(|_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many transfers at a time; try again"))
    }

    /// The version that is under this path, if any.
    async fn version(&self, path: &path::Path) -> io::Result<Option<ETag>> {
        match PositionedFile::open(path).await {
            Ok(file) => etag(&file).await.map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Serves until `stop` is ready. Then no connection is accepted any more, and transfers have `grace` to end.
///
/// # Errors
///
/// [`TimedOut`](io::ErrorKind::TimedOut) if they have not ended by then. They still go on, until the runtime ends;
/// uploads that are cut short by that leave nothing behind.
pub async fn serve(
    listener: TcpListener,
    service: &Service,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let stopping = CancellationToken::new();
    let guard = stopping.clone().drop_guard();
    let signal = async move {
        stop.await;
        drop(guard);
    };
    let server = axum::serve(listener, service.router()).with_graceful_shutdown(signal);
    let all = async {
        server.into_future().await?;
        // There are no connections any more, but there may be work for clients that have left.
        service.0.work.close();
        service.0.work.wait().await;
        Ok(())
    };
    let too_late = async {
        stopping.cancelled().await;
        sleep(grace).await;
    };
    tokio::select! {
        served = all => served,
        () = too_late => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn get(
    State(service): State<Service>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = service.path(&name)?;
    let place = service.place()?;
    let failed = |error| Refusal::because(&name, error);

    // From here on it is this file that is read, even if another one takes its place.
    let file = PositionedFile::open(&path).await.map_err(failed)?;
    let source = Counted { file, service: service.clone() };
    let etag = etag(&source).await.map_err(failed)?;
    let options = DecryptOptions::new().context(context(&name)).map_err(|error| failed(error.into()))?;
    let reader = RangeReader::open_with_options(source, &service.0.key, &options).await.map_err(failed)?;

    let mut response = Response::new(Body::empty());
    response.headers_mut().typed_insert(AcceptRanges::bytes());
    response.headers_mut().typed_insert(etag.clone());
    let conditions = Conditions::of(&headers)?;
    if conditions.if_match.is_some_and(|condition| !condition.precondition_passes(&etag)) {
        return Err(Refusal::PRECONDITION);
    }
    if conditions.if_none_match.is_some_and(|condition| !condition.precondition_passes(&etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }

    let part = if method == Method::GET { Part::of(&headers, &etag, reader.len()) } else { Part::All };
    let range = match part {
        Part::All => 0..reader.len(),
        Part::Range(range) => {
            let content_range = ContentRange::bytes(range.clone(), reader.len()).map_err(io::Error::other);
            response.headers_mut().typed_insert(content_range.map_err(failed)?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            range
        }
        Part::Nothing => {
            response.headers_mut().typed_insert(ContentRange::unsatisfied_bytes(reader.len()));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // It was announced, so a body that is cut is seen to be.
    response.headers_mut().typed_insert(ContentLength(range.end - range.start));
    if method == Method::GET {
        let mut pieces = reader.stream(range).map_err(|error| failed(error.into()))?;
        // What is in the first piece can still be answered with an error.
        let first = pieces.try_next().await.map_err(failed)?;
        let pieces = stream::iter(first.map(Ok)).chain(pieces).inspect_err(move |error| {
            eprintln!("{name}: {error}");
            let _the_body_has = &place;
        });
        *response.body_mut() = Body::from_stream(pieces);
    }
    Ok(response)
}

async fn put(
    State(service): State<Service>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let path = service.path(&name)?;
    let place = service.place()?;
    let failed = |error| Refusal::because(&name, error);

    // As long as nothing was read of the body, a client that waits for `100 Continue` sends none.
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "files are written whole"));
    }
    if headers.typed_get().is_some_and(|ContentLength(len)| len > service.0.max_len) {
        return Err(Refusal::TOO_LONG);
    }
    let conditions = Conditions::of(&headers)?;
    conditions.check(service.version(&path).await.map_err(failed)?.as_ref())?;

    // If the client leaves, this function ends, but not the task. It gives up as long as nothing is being published; from
    // then on it goes on to the end, and has the name's turn until then.
    let left = CancellationToken::new();
    let _until_the_answer = left.clone().drop_guard();
    let upload = Upload { service: service.clone(), name: name.clone(), path, conditions, _place: place };
    service.0.work.spawn(upload.publish(body, left)).await.map_err(|error| failed(error.into()))?
}

/// What an upload needs that does not end with its request.
struct Upload {
    service: Service,
    name: String,
    path: PathBuf,
    conditions: Conditions,
    _place: OwnedSemaphorePermit,
}

impl Upload {
    async fn publish(self, body: Body, left: CancellationToken) -> Result<Response, Refusal> {
        let Self { service, name, path, conditions, .. } = &self;
        let failed = |error| Refusal::because(name, error);
        let mut turn = None;
        let mut replaces = false;
        let body = Limited::new(body, usize::try_from(service.0.max_len).unwrap_or(usize::MAX));
        let body = Body::new(body).into_data_stream().map_err(Refusal::of_the_body);
        // When all has arrived and before anything is published, it is this name's turn: no other request changes it
        // meanwhile.
        let turn_comes = async {
            turn = Some(service.turn(name).await);
            let version = service.version(path).await?;
            conditions.check(version.as_ref())?;
            replaces = version.is_some();
            Ok(Bytes::new())
        };
        let encrypt = EncryptOptions::new().context(context(name)).map_err(|error| failed(error.into()))?;
        let options = FileOptions::new().encrypt_options(encrypt).overwrite(true).cancel_on(left);
        let reader = StreamReader::new(body.map_err(io::Error::from).chain(stream::once(turn_comes)));
        options.encrypt_from(reader, path, &service.0.key).await.map_err(failed)?;

        let version = service.version(path).await.map_err(failed)?;
        drop(turn);
        let mut response = if replaces { StatusCode::NO_CONTENT } else { StatusCode::CREATED }.into_response();
        if let Some(etag) = version {
            response.headers_mut().typed_insert(etag);
        }
        Ok(response)
    }
}

async fn delete(
    State(service): State<Service>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let path = service.path(&name)?;
    let failed = |error| Refusal::because(&name, error);
    let turn = service.turn(&name).await;
    let version = service.version(&path).await.map_err(failed)?;
    Conditions::of(&headers)?.check(version.as_ref())?;
    let removing = service.0.work.spawn_blocking(move || {
        let _until_it_is_done = turn;
        remove(&path)
    });
    removing.await.map_err(io::Error::from).and_then(|removed| removed).map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a file for good: even after a power failure it is gone.
fn remove(path: &path::Path) -> io::Result<()> {
    // Elsewhere folders cannot be opened like files.
    let folder = path.parent().filter(|_| cfg!(unix)).map(|folder| fs::File::open(folder.join("."))).transpose()?;
    fs::remove_file(path)?;
    match folder.map_or(Ok(()), |folder| folder.sync_all()) {
        // There are file systems that cannot do this, and nothing more is to be had from them.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// What a stream is bound to, so that under another name it does not open.
fn context(name: &str) -> String {
    format!("/{name}")
}

/// The salt of a stream. That of a file too short to be one is empty; what it is, is said by whoever opens it.
async fn etag(file: &impl ReadAt) -> io::Result<ETag> {
    let len = (SALT.end - SALT.start) as usize;
    let salt = match file.read_at(SALT.start, len).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Bytes::new(),
        salt => salt?,
    };
    let hex: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"").parse().map_err(io::Error::other)
}

/// Counts what is read.
struct Counted {
    file: PositionedFile,
    service: Service,
}

impl ReadAt for Counted {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.service.0.bytes_read.fetch_add(len as u64, Relaxed);
        self.file.read_at(offset, len)
    }
}

/// What the client wants to be so, or else nothing is to be done.
struct Conditions {
    if_match: Option<IfMatch>,
    if_none_match: Option<IfNoneMatch>,
}

impl Conditions {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        fn typed<H: Header>(headers: &HeaderMap) -> Result<Option<H>, Refusal> {
            headers.typed_try_get().map_err(|_| Refusal(StatusCode::BAD_REQUEST, "a malformed condition"))
        }
        Ok(Self { if_match: typed(headers)?, if_none_match: typed(headers)? })
    }

    /// Whether they allow this version to be replaced or removed.
    fn check(&self, version: Option<&ETag>) -> Result<(), Refusal> {
        let matches = match (&self.if_match, version) {
            (Some(condition), Some(etag)) => condition.precondition_passes(etag),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let differs = match (&self.if_none_match, version) {
            (Some(condition), Some(etag)) => condition.precondition_passes(etag),
            _ => true,
        };
        if matches && differs { Ok(()) } else { Err(Refusal::PRECONDITION) }
    }
}

/// What a `GET` is for.
#[derive(Debug, PartialEq)]
enum Part {
    All,
    Range(Range<u64>),
    Nothing,
}

impl Part {
    fn of(headers: &HeaderMap, etag: &ETag, len: u64) -> Self {
        let mut values = headers.get_all(header::RANGE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Self::All };
        let unchanged = |condition: IfRange| !condition.is_modified(Some(etag), None);
        // Here a malformed condition is one that does not hold.
        if headers.contains_key(header::IF_RANGE) && !headers.typed_get().is_some_and(unchanged) {
            return Self::All;
        }
        let parsed = value.to_str().ok().and_then(|value| http_range_header::parse_range_header(value).ok());
        match parsed.filter(|ranges| ranges.len() == 1).map(|ranges| ranges.validate(len)) {
            None => Self::All,
            Some(Err(_)) => Self::Nothing,
            // The last bytes of nothing are all of it, for which there is no `Content-Range`.
            Some(Ok(ranges)) => ranges.first().map_or(Self::All, |range| Self::Range(*range.start()..*range.end() + 1)),
        }
    }
}

/// Why a request was not done. It travels through [`io::Error`] where a reader has to say so.
#[derive(Debug, Clone, Copy)]
struct Refusal(StatusCode, &'static str);

impl Refusal {
    const PRECONDITION: Self = Self(StatusCode::PRECONDITION_FAILED, "another version is there, or none");
    const TOO_LONG: Self = Self(StatusCode::PAYLOAD_TOO_LARGE, "longer than this service takes");

    fn of_the_body(error: axum::Error) -> Self {
        let error = error.into_inner();
        let mut next: Option<&(dyn error::Error + 'static)> = Some(&*error);
        while let Some(error) = next {
            if error.is::<LengthLimitError>() {
                return Self::TOO_LONG;
            }
            next = error.source();
        }
        Self(StatusCode::BAD_REQUEST, "the upload was cut")
    }

    /// What went wrong is for the log; to the client it is said only if it is about the request.
    fn because(name: &str, error: io::Error) -> Self {
        if let Some(refusal) = error.get_ref().and_then(|error| error.downcast_ref::<Self>()) {
            return *refusal;
        }
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => {
                Self(StatusCode::NOT_FOUND, "there is no such file")
            }
            kind => {
                eprintln!("{name}: {error}");
                match kind {
                    io::ErrorKind::StorageFull => Self(StatusCode::INSUFFICIENT_STORAGE, "no space is left"),
                    _ => Self(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be read or written; the log says why"),
                }
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

impl error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::other(refusal)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}
