//! What the tests and examples of the feature `object_store` share: an inner store that writes down what is asked of it
//! and fails on demand, and an S3 server if there is one.

use std::{
    env, fmt,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, RenameTargetMode, Result, UploadPart,
    aws::{AmazonS3, AmazonS3Builder, S3CopyIfNotExists},
    coalesce_ranges,
    path::Path,
};

/// Called with each request before it is passed on; what it returns is the answer then.
type Hook = Box<dyn FnMut(&str) -> Option<object_store::Error> + Send>;

/// A store that writes down what is asked of it.
///
/// To clone it is to have the same one.
#[derive(Clone)]
pub struct Watched(Arc<State>);

struct State {
    inner: Box<dyn ObjectStore>,
    log: Mutex<Vec<String>>,
    hook: Mutex<Option<Hook>>,
    received: AtomicU64,
    etags: ETags,
    /// What it says of how long objects are, if that is not true.
    size: Mutex<Option<u64>>,
    /// Whether it answers with all of an object whatever the range.
    whole: AtomicBool,
    /// Whether its answers go on for ever.
    endless: AtomicBool,
}

/// What the store says of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ETags {
    /// As the inner store does.
    Strong,
    /// As servers do that compress.
    Weak,
    /// None, and knows no conditions but those on times.
    None,
    /// As the inner store does, and heeds no conditions.
    Ignored,
    /// The same for each object that was changed in the same second and has the same length, as of some servers of files.
    Repeated,
}

impl Watched {
    pub fn new(inner: impl ObjectStore) -> Self {
        Self::with_etags(inner, ETags::Strong)
    }

    pub fn with_etags(inner: impl ObjectStore, etags: ETags) -> Self {
        let inner = Box::new(inner);
        Self(Arc::new(State {
            inner,
            log: Mutex::default(),
            hook: Mutex::default(),
            received: AtomicU64::new(0),
            etags,
            size: Mutex::default(),
            whole: AtomicBool::new(false),
            endless: AtomicBool::new(false),
        }))
    }

    /// What it stores, around all that it does.
    pub fn inner(&self) -> &dyn ObjectStore {
        &self.0.inner
    }

    /// What was asked of it since the last time.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.log.lock().unwrap())
    }

    /// How many bytes of objects it has given out since the last time.
    pub fn received(&self) -> u64 {
        self.0.received.swap(0, Relaxed)
    }

    /// Calls this with each request from now on.
    pub fn set_hook(&self, hook: impl FnMut(&str) -> Option<object_store::Error> + Send + 'static) {
        *self.0.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Says from now on that each object is this long.
    pub fn set_size(&self, size: u64) {
        *self.0.size.lock().unwrap() = Some(size);
    }

    /// Answers with all of an object whatever the range, from now on.
    pub fn set_whole(&self) {
        self.0.whole.store(true, Relaxed);
    }

    /// Goes on behind each answer from now on, and never ends.
    pub fn set_endless(&self) {
        self.0.endless.store(true, Relaxed);
    }

    fn note(&self, request: String) -> Result<()> {
        let failure = self.0.hook.lock().unwrap().as_mut().and_then(|hook| hook(&request));
        self.0.log.lock().unwrap().push(request);
        failure.map_or(Ok(()), Err)
    }

    fn seen(&self, meta: ObjectMeta) -> ObjectMeta {
        let e_tag = match self.0.etags {
            ETags::Strong | ETags::Ignored => meta.e_tag,
            ETags::Weak => meta.e_tag.map(|etag| format!("W/{etag}")),
            ETags::None => None,
            ETags::Repeated => Some(format!("\"{}\"", meta.size)),
        };
        let size = self.0.size.lock().unwrap().unwrap_or(meta.size);
        ObjectMeta { e_tag, size, ..meta }
    }
}

/// An error that nobody else makes.
pub fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "watched", source: "the network is down".into() }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mode = format!("{:?}", options.mode);
        let mode = mode.split('(').next().unwrap();
        self.note(format!("put {} {mode}", payload.content_length()))?;
        self.0.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.note("upload".into())?;
        let upload = self.0.inner.put_multipart_opts(path, options).await?;
        Ok(Box::new(WatchedUpload { upload, store: self.clone(), parts: 0 }))
    }

    async fn get_opts(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
        let mut request = if options.head { "head" } else { "get" }.to_owned();
        match &options.range {
            Some(GetRange::Bounded(range)) => request += &format!(" {}..{}", range.start, range.end),
            Some(other) => request += &format!(" {other}"),
            None => {}
        }
        let conditions = [
            ("match", options.if_match.is_some()),
            ("unmodified", options.if_unmodified_since.is_some()),
            ("version", options.version.is_some()),
        ];
        for (name, _) in conditions.iter().filter(|(_, is_there)| *is_there) {
            request += &format!(" {name}");
        }
        self.note(request)?;
        match self.0.etags {
            ETags::Strong => {}
            // A weak one never matches.
            ETags::Weak => assert!(options.if_match.is_none(), "a condition that cannot hold"),
            ETags::None => assert!(options.if_match.is_none(), "a condition that cannot be had"),
            ETags::Ignored | ETags::Repeated => {
                options = GetOptions { range: options.range, head: options.head, ..GetOptions::default() };
            }
        }
        if self.0.whole.load(Relaxed) {
            options.range = None;
        }
        let result = self.0.inner.get_opts(path, options).await?;
        let (meta, range, attributes) =
            (self.seen(result.meta.clone()), result.range.clone(), result.attributes.clone());
        let store = self.clone();
        let count = move |bytes: &Bytes| {
            store.0.received.fetch_add(bytes.len() as u64, Relaxed);
        };
        let more = stream::repeat_with(|| Ok(Bytes::from(vec![0; 1024 * 1024])));
        let more = more.take(if self.0.endless.load(Relaxed) { 1024 } else { 0 });
        let payload = GetResultPayload::Stream(result.into_stream().chain(more).inspect_ok(count).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    /// As stores over HTTP do.
    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        coalesce_ranges(ranges, |range| self.get_range(path, range), OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let noted = paths.map(move |path| path.and_then(|path| store.note(format!("delete {path}")).map(|()| path)));
        self.0.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note("list".into()).unwrap();
        self.0.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.note("list".into())?;
        self.0.inner.list_with_delimiter(prefix).await
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note("list".into()).unwrap();
        self.0.inner.list_with_offset(prefix, offset)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.note(if options.mode == CopyMode::Create { "copy Create" } else { "copy" }.into())?;
        self.0.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.note(if options.target_mode == RenameTargetMode::Create { "rename Create" } else { "rename" }.into())?;
        self.0.inner.rename_opts(from, to, options).await
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

#[derive(Debug)]
struct WatchedUpload {
    upload: Box<dyn MultipartUpload>,
    store: Watched,
    parts: usize,
}

#[async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts += 1;
        let (store, part) = (self.store.clone(), format!("part {} of {}", self.parts, data.content_length()));
        let put = self.upload.put_part(data);
        async move {
            store.note(part)?;
            put.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.note("complete".into())?;
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.note("abort".into())?;
        self.upload.abort().await
    }
}

/// A new bucket on the S3 server that `run` has started; `None` if there is none, which is said.
pub async fn s3(bucket: &str) -> Option<AmazonS3> {
    let Ok(endpoint) = env::var("AGCM_S3_ENDPOINT") else {
        assert!(env::var_os("AGCM_REQUIRE_S3").is_none(), "there has to be an S3 server: AGCM_S3_ENDPOINT");
        eprintln!("passed by: no S3 server (AGCM_S3_ENDPOINT); tests/stores/run starts one");
        return None;
    };
    // Each process its own.
    let bucket = format!("{bucket}-{}", std::process::id());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::Client::new().put(format!("{endpoint}/{bucket}")).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    let builder = AmazonS3Builder::new().with_endpoint(endpoint).with_allow_http(true).with_bucket_name(bucket);
    Some(
        builder
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
            .build()
            .unwrap(),
    )
}

/// Bytes that are all over the place, and the same each time.
pub fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}
