//! Objects sealed on their way into a store, and opened on their way out (feature `object_store`).
//!
//! [`EncryptedStore`] is an [`ObjectStore`] over another one, of the crate
//! [`object_store`](https://docs.rs/object_store/0.14) 0.14: S3 and what speaks its language, Google's and Azure's,
//! HTTP, files, memory. Whatever works over an `ObjectStore` works over encrypted data then. This must never give out a
//! byte that was not authenticated at its own place, nor the end of an object that has not come to its end, nor bytes
//! of two versions as one; and no key, nor any plaintext, may ever reach the inner store.
//!
//! ```
//! use agcm::{Key, object_store::EncryptedStore};
//! use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> object_store::Result<()> {
//! let store = EncryptedStore::new(InMemory::new(), &Key::generate());
//! let path = Path::from("2026/11/rows");
//! store.put(&path, "row 1\nrow 2\nrow 3\n".into()).await?;
//!
//! assert_eq!(store.head(&path).await?.size, 18);
//! assert_eq!(store.get_range(&path, 6..12).await?, "row 2\n");
//! assert_eq!(store.get(&path).await?.bytes().await?, "row 1\nrow 2\nrow 3\n");
//! // What lies in the inner store is a stream like any other.
//! let sealed = store.get_ref().get(&path).await?.bytes().await?;
//! assert_eq!(sealed.len(), 117 + 20 + 18);
//! # Ok(())
//! # }
//! ```
//!
//! The module is called like the crate: next to `use object_store::...` name what you import from it, as above, rather than
//! all of `agcm::*`.
//!
//! # What is stored
//!
//! Each object is one [stream](crate::format) that anything of this crate opens, under the path and with the attributes
//! and tags that the caller gave: these are not encrypted. Each is sealed with randomness of its own, so the same
//! content is never the same object twice. A store has **one chunk size**, [`StoreOptions::chunk_size`], and writes
//! uniform streams only: so the length of an object tells that of its plaintext, and where each byte of it is. Objects
//! of another chunk size and irregular streams are refused when they are got (where all of an object is got, an
//! irregular one when its first short chunk comes).
//!
//! # What is authenticated, and what is not
//!
//! - Every byte that is given out, at its own place in its own object. The size that comes with a range is authentic as
//!   well.
//! - **Where all of an object is got, only the end says that it was whole.** What came before an error is an authentic
//!   prefix. An error in what [`GetResult::into_stream`] returns does not end it: it is said again for as long as it is
//!   asked. [`GetResult::bytes`] allocates on the word of the inner store, which says how long the object is: where that is
//!   not trusted to let the program live, use `into_stream`.
//! - **Sizes in `head`, in listings, and with all of an object follow from the length of what is stored, and are not
//!   authenticated**, and neither are names, times, ETags (those of the sealed objects), versions, attributes and tags.
//!   A listing may leave out objects, or show some that nobody put.
//! - Whoever can write to the inner store can delete objects, bring back old versions, and put objects in each other's
//!   place. The last is an error with [`StoreOptions::bind_path`], and unnoticed without it. Nothing here can tell an
//!   old version from the newest.
//! - What is no stream of this store, but lies in it: `get` is an error, and so is `head` where no stream of the store can
//!   have its length. In listings that is shown with the length that it has, so that it can be found and deleted, and one such object does not make a listing useless.
//!   (Many lengths are also that of some stream.)
//!
//! # Versions
//!
//! A range is read by several requests. From the second on, all are for just the version that the first has found: by
//! its ETag (`If-Match`), and if the inner store has none, or a weak one, by its version or the time when it was
//! changed. An object that is replaced meanwhile ends in [`Precondition`](object_store::Error::Precondition), never in
//! bytes of both. If the inner store heeds no condition at all, what it answers still says which version that is; and
//! if it says nothing, frames of another version do not open. Conditions of the caller ([`GetOptions::if_match`] and
//! the others) are the inner store's to check, with the first request; its ETags and versions are passed on as they
//! are, so that they can be used for conditional puts as well.
//!
//! The two ends of an object are remembered once they were checked, by path and ETag, as many as
//! [`StoreOptions::cache`] says. If it turns out that the object was replaced since, it is opened anew, so that a later
//! read never sees an old version. (Where a server gives two versions the same ETag, the first range of the new one may be
//! [`Corrupt`](crate::Error::Corrupt), and is right when it is read again.) Where there is no strong ETag nothing is
//! remembered.
//!
//! # Requests
//!
//! | operation | requests to the inner store |
//! |---|---|
//! | `put` | 1, 117 bytes longer, and 20 a chunk |
//! | `get` of all of an object | 1 |
//! | `get_range`, `get` of a range: the first of an object | 3: the first 80 bytes, the last 37, the frames that hold the range |
//! | a later one | 1: the frames that hold the range |
//! | a later one, with conditions other than that on the ETag that is remembered | 2: the first 80 bytes again |
//! | a later one, if the object was replaced | 4: that which fails, and 3 |
//! | `get_ranges` | as above, and 1 for every range, or for several that lie less than 1 MiB apart; 10 at a time |
//! | `head` | 1 |
//! | `list` | as the inner store |
//! | multipart upload | 1 to begin, 1 for every `part_len` bytes of the stream and 1 for its rest, 1 to complete |
//! | `copy`, `rename` | 1; with bound paths those of a `get` and a `put` or an upload, and to rename another to delete |
//! | `delete` | as the inner store |
//!
//! Several that open an object at the same time do so each by itself.
//!
//! # Copies and renames
//!
//! Are the inner store's own, and cost nothing here, unless [paths are bound](StoreOptions::bind_path). Then what was
//! sealed for one path is of no use under another, so the object is read, opened, and **sealed anew under its new path,
//! by the client**: it goes over the network twice. As the target appears at once or not at all, a failure leaves
//! everything as it was; but a rename deletes the source afterwards, so a failure in between leaves both, and what is
//! put there meanwhile is deleted. Attributes come along, tags do not. Over 5 MiB it is a multipart upload, which
//! cannot be conditional: so where the target must not exist yet, the object goes through memory in one piece, and
//! [`NotSupported`](object_store::Error::NotSupported) is the answer above 64 MiB.
//!
//! # Uploads
//!
//! The parts of an upload may be of any length, and their futures may be polled in any order, as with other stores.
//! What goes to the inner store are parts of one length (some ask for that): [`StoreOptions::part_len`]. A part is put
//! when there is enough for it; the future of [`put_part`](MultipartUpload::put_part) is ready when all that it filled
//! has arrived. `complete` puts the rest, a part or two (more where they are hardly longer than a chunk, or shorter).
//! Every chunk is sealed once; whatever the inner store sends again are the same bytes.
//!
//! An upload becomes an object only by [`complete`](MultipartUpload::complete), and only if all of its parts have
//! arrived. Otherwise `complete` is an error and aborts it. If to abort it fails, it never completes all the same, and
//! [`abort`](MultipartUpload::abort) can be tried again: that is `Ok` only if the inner store has aborted the upload, or
//! it had ended before. So whoever wants to be sure calls it after an error of `complete`. One that is dropped is
//! aborted on the runtime where it was begun, which is tried once; without a runtime, or if that shuts down first, the
//! inner store is left to clean up after it, for which S3 needs a lifecycle rule. Where parts are still on their way
//! when it is aborted, S3 may keep them as well.
//!
//! # Errors
//!
//! What the inner store says is passed on as it is. What is wrong with a stream is a
//! [`Generic`](object_store::Error::Generic) of the store `"agcm"` that says which object it is, and
//! [`Error::from_store`] has the [`Error`] in it. There is none in it where the stream may be right, and the store it lies in
//! is not for it: another chunk size, an irregular stream, an empty range, or a length that is not what was said.
//!
//! # Memory
//!
//! To put an object in one piece takes as much again as it is long. To get one, or a range of it, takes a chunk at a
//! time, and the piece of the answer that it is in (up to 1 MiB of it are taken at once); `get_ranges` holds what it
//! returns as well, and what lies between two ranges that share a frame. An upload holds less than a part and a chunk
//! of plaintext that waits, as the [`Bytes`] that it came in, and each part that is under way: its plaintext until it
//! was sealed, and what was sealed until it was sent, in whole frames and with a copy of up to a frame of the last one
//! for the next part. How many those are is up to the caller. Chunks of 1 MiB and more,
//! and parts, are sealed and opened on the blocking pool of the runtime; plaintext that is not given out is wiped.
//!
//! # Cancel safety
//!
//! Futures may be dropped at any time, as with the inner store: a put that is dropped may have happened or not.
//! Dropping that of `complete` aborts the upload, if it is not complete by then.
//!
//! # What is left out
//!
//! `MultipartStore`, `PaginatedListStore` and `Signer` of the crate `object_store` are not implemented: parts that come
//! in any order cannot be sealed in that of the stream, and who has a signed URL has no key.

mod body;
mod cache;
mod fault;
mod opened;
mod options;
mod spans;
mod upload;
mod work;

use std::{collections::VecDeque, fmt, mem, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyMode, CopyOptions, Extensions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, RenameTargetMode, path::Path,
};
use zeroize::Zeroizing;

pub use self::options::StoreOptions;
use self::{
    body::{Part, Whole},
    cache::Cache,
    fault::Fault,
    opened::{Along, Opened, Opener},
    options::LEAST_PART_LEN,
    spans::{Span, spans},
    upload::Upload,
    work::Sealing,
};
use crate::{
    encrypt::Encryptor,
    error::Error,
    format::{ChunkSize, PRELUDE_LEN},
    geometry::Uniform,
    key::{Key, KeyRing},
};

/// Up to so many spans of one `get_ranges` are fetched at a time.
const SPANS_AT_A_TIME: usize = 10;
/// The longest object that is copied in one piece because its target may not exist, in bytes of plaintext.
const MOST_TO_CREATE: u64 = 64 * 1024 * 1024;

/// An [`ObjectStore`] whose objects lie sealed in another one: see [the module](self) for what that means.
///
/// ```
/// use agcm::{Key, object_store::EncryptedStore};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> object_store::Result<()> {
/// let (old, new) = (Key::generate(), Key::generate());
/// let path = Path::from("rows");
/// let store = EncryptedStore::new(InMemory::new(), &old);
/// store.put(&path, "row 1".into()).await?;
///
/// // After a rotation, and over whatever the inner store is.
/// let store = EncryptedStore::new(store.into_inner(), &new).also_opens(&old);
/// assert_eq!(store.get(&path).await?.bytes().await?, "row 1");
/// # Ok(())
/// # }
/// ```
pub struct EncryptedStore<S> {
    inner: S,
    key: Key,
    keys: KeyRing,
    options: StoreOptions,
    opened: Arc<Cache<Arc<Opened>>>,
}

impl<S: ObjectStore> EncryptedStore<S> {
    /// A store with the default options, whose objects are sealed under `key`.
    #[must_use]
    pub fn new(inner: S, key: &Key) -> Self {
        Self::with_options(inner, key, &StoreOptions::new())
    }

    /// A store with options.
    #[must_use]
    pub fn with_options(inner: S, key: &Key, options: &StoreOptions) -> Self {
        Self {
            inner,
            key: key.clone(),
            keys: key.into(),
            options: options.clone(),
            opened: Arc::new(Cache::new(options.cache)),
        }
    }

    /// Opens objects under these keys too: those of before a rotation. New ones are sealed under the key of the store.
    #[must_use]
    pub fn also_opens(self, keys: impl Into<KeyRing>) -> Self {
        let keys = self.keys.keys().iter().chain(keys.into().keys()).cloned().collect();
        Self { keys, ..self }
    }

    /// The inner store.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gives the inner store back.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn opener(&self, path: &Path) -> object_store::Result<Opener<'_>> {
        let options = self.options.opening(path).map_err(|error| Fault::from(error).about(path))?;
        Ok(Opener { keys: &self.keys, options, chunk_size: self.options.chunk_size })
    }

    fn start(&self, path: &Path) -> Result<(Encryptor, [u8; PRELUDE_LEN]), Fault> {
        Ok(Encryptor::start(&self.key, &self.options.sealing(path)?)?)
    }

    async fn seal(&self, path: &Path, payload: PutPayload) -> Result<PutPayload, Fault> {
        let (mut encryptor, prelude) = self.start(path)?;
        let len = payload.content_length();
        let pieces: VecDeque<Bytes> = payload.into_iter().filter(|piece| !piece.is_empty()).collect();
        let frames = Sealing::new(&mut encryptor, pieces, len)?.run().await?;
        let ends = [prelude.to_vec(), frames, encryptor.finish().to_vec()];
        Ok(ends.into_iter().map(Bytes::from).collect())
    }

    async fn begin_upload(
        &self,
        path: &Path,
        options: PutMultipartOptions,
        part_len: Option<usize>,
    ) -> object_store::Result<Upload> {
        let started = self.start(path).map_err(|fault| fault.about(path))?;
        let upload = self.inner.put_multipart_opts(path, options).await?;
        let (opened, to) = (self.opened.clone(), path.clone());
        let completed = move || opened.remove(&to);
        Ok(Upload::new(path.clone(), upload, started, part_len, completed))
    }

    /// A whole object, by one request.
    async fn get_whole(&self, path: &Path, asked: GetOptions) -> object_store::Result<(Whole, ObjectMeta, Along)> {
        let opener = self.opener(path)?;
        let mut answer = self.inner.get_opts(path, asked).await?;
        let along =
            Along { attributes: mem::take(&mut answer.attributes), extensions: mem::take(&mut answer.extensions) };
        let sealed = answer.meta.clone();
        let whole = Whole::start(answer, opener.keys, &opener.options, opener.chunk_size).await;
        let whole = whole.map_err(|fault| fault.about(path))?;
        let meta = ObjectMeta { size: whole.len(), ..sealed };
        Ok((whole, meta, along))
    }

    /// What the inner store knows of an object.
    async fn get_head(&self, path: &Path, asked: GetOptions) -> object_store::Result<GetResult> {
        let range = asked.range.clone();
        let answer = self.inner.get_opts(path, GetOptions { range: None, ..asked }).await?;
        let layout = body::layout(answer.meta.size, self.options.chunk_size).map_err(|fault| fault.about(path))?;
        let len = layout.plaintext_len();
        let range = match &range {
            Some(range) => opened::resolve(range, len).map_err(|fault| fault.about(path))?,
            None => 0..len,
        };
        let meta = ObjectMeta { size: len, ..answer.meta };
        Ok(GetResult { payload: GetResultPayload::Stream(stream::empty().boxed()), meta, range, ..answer })
    }

    /// The object as it was opened before, if that may answer this.
    fn remembered(&self, path: &Path, asked: &GetOptions) -> Option<Arc<Opened>> {
        self.opened.get(path).filter(|opened| opened.answers(asked))
    }

    async fn open(&self, path: &Path, asked: &GetOptions) -> object_store::Result<(Arc<Opened>, Along)> {
        let opener = self.opener(path)?;
        let (opened, along) = Opened::open(&self.inner, path, asked, self.opened.get(path), &opener).await?;
        if opened.is_lasting() {
            self.opened.put(path, opened.clone());
        }
        Ok((opened, along))
    }

    /// Whether this may be because the object is no longer the one that is remembered, which it then is not. Some servers
    /// give two versions the same ETag; then frames do not open.
    fn is_outdated<T>(&self, path: &Path, result: &object_store::Result<T>) -> bool {
        let Err(error) = result else { return false };
        let is_other = matches!(error, object_store::Error::Precondition { .. }) || Error::from_store(error).is_some();
        if is_other || matches!(error, object_store::Error::NotFound { .. }) {
            self.opened.remove(path);
        }
        is_other
    }

    /// A range of an object, by one request if it is remembered.
    async fn get_part(&self, path: &Path, asked: GetOptions, range: GetRange) -> object_store::Result<GetResult> {
        if let Some(opened) = self.remembered(path, &asked) {
            match opened.resolve(&range) {
                Ok(range) if !range.is_empty() => {
                    let result = self.get_frames(&opened, range, asked.extensions.clone()).await;
                    if !self.is_outdated(path, &result) {
                        return result;
                    }
                }
                // It may be another object by now, for which this means something else.
                _ => {}
            }
        }
        let (opened, along) = self.open(path, &asked).await?;
        let range = opened.resolve(&range)?;
        if range.is_empty() {
            let Along { attributes, extensions } = along;
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            return Ok(GetResult { payload, meta: opened.meta(), range, attributes, extensions });
        }
        let result = self.get_frames(&opened, range, asked.extensions).await;
        self.is_outdated(path, &result);
        result
    }

    /// A range of an object that was opened, which is not empty.
    async fn get_frames(
        &self,
        opened: &Opened,
        range: Range<u64>,
        extensions: Extensions,
    ) -> object_store::Result<GetResult> {
        let about = |fault: Fault| fault.about(&opened.meta().location);
        let sealed = opened.layout.covering(range.clone()).map_err(|error| about(error.into()))?.stream;
        let mut answer = opened.get(&self.inner, sealed, extensions).await?;
        let attributes = mem::take(&mut answer.attributes);
        let extensions = mem::take(&mut answer.extensions);
        let part = Part::new(answer, opened.stream.clone(), range.clone()).map_err(about)?;
        let path = opened.meta().location;
        let remembered = self.opened.clone();
        let pieces = part.into_pieces(path.clone()).inspect_err(move |_| remembered.remove(&path));
        let payload = GetResultPayload::Stream(pieces.boxed());
        Ok(GetResult { payload, meta: opened.meta(), range, attributes, extensions })
    }

    /// Ranges of an object that was opened, none of them empty.
    async fn fetch(&self, opened: &Opened, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let path = opened.meta().location;
        let spans = spans(&opened.layout, ranges).map_err(|error| Fault::from(error).about(&path))?;
        let fetched = stream::iter(spans).map(|span| self.fetch_span(opened, span)).buffered(SPANS_AT_A_TIME);
        let fetched = fetched.try_collect::<Vec<_>>().await?.into_iter().flatten();
        // Until all of it is there, it is wiped if it is dropped.
        let fetched: Vec<(u64, Bytes)> =
            fetched.map(|(start, mut bytes)| (start, mem::take(&mut *bytes).into())).collect();
        let find = |range: &Range<u64>| {
            let (start, bytes) = &fetched[fetched.partition_point(|(start, _)| *start <= range.start) - 1];
            bytes.slice(index(range.start - start)..index(range.end - start))
        };
        Ok(ranges.iter().map(find).collect())
    }

    /// The plaintext of a span, each range with its start.
    async fn fetch_span(&self, opened: &Opened, span: Span) -> object_store::Result<Vec<(u64, Zeroizing<Vec<u8>>)>> {
        let path = opened.meta().location;
        let about = |fault: Fault| fault.about(&path);
        let answer = opened.get(&self.inner, span.sealed, Extensions::default()).await?;
        let first = span.plaintext.first().cloned().unwrap_or_default();
        let mut part = Part::new(answer, opened.stream.clone(), first).map_err(about)?;
        let mut fetched = Vec::with_capacity(span.plaintext.len());
        for range in span.plaintext {
            // Not yet read, but authentically there.
            let mut bytes = Zeroizing::new(Vec::with_capacity(index(range.end - range.start)));
            part.read(range.clone(), &mut bytes).await.map_err(about)?;
            fetched.push((range.start, bytes));
        }
        Ok(fetched)
    }

    /// Opens an object and seals it anew under another path.
    async fn reseal(&self, from: &Path, to: &Path, mode: CopyMode, extensions: Extensions) -> object_store::Result<()> {
        let asked = GetOptions { extensions: extensions.clone(), ..GetOptions::default() };
        let (whole, meta, along) = self.get_whole(from, asked).await?;
        let mut pieces = whole.into_pieces(from.clone());
        let create = mode == CopyMode::Create;
        if meta.size <= LEAST_PART_LEN as u64 || create {
            if create && meta.size > MOST_TO_CREATE {
                let words = format!(
                    "{from} has {} bytes, and what is bound to its path and has to be created in one piece may have \
                     {MOST_TO_CREATE}; copy it over whatever is there, or put it under its new path",
                    meta.size
                );
                return Err(object_store::Error::NotSupported { source: words.into() });
            }
            let payload = pieces.try_collect::<Vec<_>>().await?.into_iter().collect();
            let mode = if create { PutMode::Create } else { PutMode::Overwrite };
            let options = PutOptions { mode, attributes: along.attributes, extensions, ..PutOptions::default() };
            return self.put_opts(to, payload, options).await.map(drop);
        }
        let options =
            PutMultipartOptions { attributes: along.attributes, extensions, ..PutMultipartOptions::default() };
        // It comes chunk by chunk, which says nothing of how long parts have to be.
        let part_len = self.options.part_len.unwrap_or_else(|| options::object_part_len(meta.size));
        let mut upload = self.begin_upload(to, options, Some(part_len)).await?;
        while let Some(piece) = pieces.next().await {
            let put = match piece {
                Ok(piece) => upload.put_part(piece.into()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = put {
                // What went wrong first is what the caller has to know.
                let _ = upload.abort().await;
                return Err(error);
            }
        }
        upload.complete().await.map(drop)
    }
}

/// As an index of something that is in memory, or is to be.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// How long an object seems to be: what no stream of the store can be keeps its length.
fn unsealed(sealed: ObjectMeta, chunk_size: ChunkSize) -> ObjectMeta {
    match Uniform::from_stream_len(sealed.size, chunk_size.get()) {
        Some(layout) => ObjectMeta { size: layout.plaintext_len(), ..sealed },
        None => sealed,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore> ObjectStore for EncryptedStore<S> {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let sealed = self.seal(path, payload).await.map_err(|fault| fault.about(path))?;
        let result = self.inner.put_opts(path, sealed, options).await?;
        self.opened.remove(path);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(self.begin_upload(path, options, self.options.part_len).await?))
    }

    async fn get_opts(&self, path: &Path, mut options: GetOptions) -> object_store::Result<GetResult> {
        if options.head {
            return self.get_head(path, options).await;
        }
        if let Some(range) = options.range.take() {
            return self.get_part(path, options, range).await;
        }
        let (whole, meta, along) = self.get_whole(path, options).await?;
        let Along { attributes, extensions } = along;
        let payload = GetResultPayload::Stream(whole.into_pieces(path.clone()));
        Ok(GetResult { payload, range: 0..meta.size, meta, attributes, extensions })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let asked = GetOptions::default();
        let resolve = |opened: &Opened| -> object_store::Result<Vec<_>> {
            ranges.iter().map(|range| opened.resolve(&range.clone().into())).collect()
        };
        if let Some(opened) = self.remembered(path, &asked) {
            if let Ok(ranges) = resolve(&opened) {
                let result = self.fetch(&opened, &ranges).await;
                if !self.is_outdated(path, &result) {
                    return result;
                }
            }
        }
        let (opened, _) = self.open(path, &asked).await?;
        let ranges = resolve(&opened)?;
        let result = self.fetch(&opened, &ranges).await;
        self.is_outdated(path, &result);
        result
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let opened = self.opened.clone();
        self.inner.delete_stream(paths).inspect_ok(move |path| opened.remove(path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let chunk_size = self.options.chunk_size;
        self.inner.list(prefix).map_ok(move |sealed| unsealed(sealed, chunk_size)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let chunk_size = self.options.chunk_size;
        self.inner.list_with_offset(prefix, offset).map_ok(move |sealed| unsealed(sealed, chunk_size)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let mut result = self.inner.list_with_delimiter(prefix).await?;
        let sealed = mem::take(&mut result.objects).into_iter();
        result.objects = sealed.map(|sealed| unsealed(sealed, self.options.chunk_size)).collect();
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        if self.options.binds_path() {
            return self.reseal(from, to, options.mode, options.extensions).await;
        }
        self.inner.copy_opts(from, to, options).await?;
        self.opened.remove(to);
        Ok(())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        if self.options.binds_path() {
            let mode = match options.target_mode {
                RenameTargetMode::Overwrite => CopyMode::Overwrite,
                RenameTargetMode::Create => CopyMode::Create,
            };
            self.reseal(from, to, mode, options.extensions).await?;
            // Onto itself, it is sealed anew, and there.
            return if from == to { Ok(()) } else { self.delete(from).await };
        }
        self.inner.rename_opts(from, to, options).await?;
        self.opened.remove(from);
        self.opened.remove(to);
        Ok(())
    }
}

impl<S: fmt::Display> fmt::Display for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedStore({})", self.inner)
    }
}

impl<S: fmt::Debug> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("inner", &self.inner)
            .field("keys", &self.keys)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
