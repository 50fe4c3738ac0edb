//! Objects whose two ends were checked, and the requests that are pinned to just that version of them.
//!
//! A request must never get bytes of another version unnoticed: where the inner store knows ETags, every one asks for
//! that which was opened, and what is answered is looked at too. Where it knows none, the tags of the frames still keep
//! versions apart.

use std::{mem, ops::Range, sync::Arc};

use bytes::Bytes;
use object_store::{
    Attributes, Error as StoreError, Extensions, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, path::Path,
};

use super::{
    body::{self, check_chunk_size, irregular},
    fault::{Fault, replaced},
};
use crate::{
    by_offset::{self, ByOffset},
    error::Error,
    format::{ChunkSize, PRELUDE_LEN, Prelude},
    geometry::Uniform,
    key::KeyRing,
    options::DecryptOptions,
};

/// An object in one version, ready to read any of its frames.
pub(super) struct Opened {
    path: Path,
    pub(super) stream: Arc<ByOffset>,
    pub(super) layout: Uniform,
    /// As the inner store has it.
    sealed: ObjectMeta,
    /// The version that was asked for by name.
    version: Option<String>,
}

/// What came along with an answer.
pub(super) struct Along {
    pub(super) attributes: Attributes,
    pub(super) extensions: Extensions,
}

/// How objects are opened.
pub(super) struct Opener<'a> {
    pub(super) keys: &'a KeyRing,
    pub(super) options: DecryptOptions,
    pub(super) chunk_size: ChunkSize,
}

impl Opened {
    /// Checks the two ends of the object, by a request for each. The first carries all the conditions of `asked`. If
    /// what is `known` is that version, it saves the second.
    pub(super) async fn open(
        inner: &impl ObjectStore,
        path: &Path,
        asked: &GetOptions,
        known: Option<Arc<Self>>,
        opener: &Opener<'_>,
    ) -> object_store::Result<(Arc<Self>, Along)> {
        let first = GetOptions { range: Some((0..PRELUDE_LEN as u64).into()), ..asked.clone() };
        let mut answer = match inner.get_opts(path, first).await {
            Ok(answer) => answer,
            Err(error) => return Err(explain(inner, path, asked, error).await),
        };
        let (sealed, attributes) = (answer.meta.clone(), mem::take(&mut answer.attributes));
        let along = Along { attributes, extensions: mem::take(&mut answer.extensions) };
        let version = asked.version.clone();
        if let Some(known) = known.filter(|known| known.is(&sealed) && known.version == version) {
            return Ok((known, along));
        }
        let first = 0..sealed.size.min(PRELUDE_LEN as u64);
        check_range(path, &first, &answer)?;
        let head = read(answer, path, &first).await?;
        // What is no stream at all is told without another request.
        Prelude::parse(&head, ChunkSize::MAX).map_err(|error| Fault::from(error).about(path))?;

        let [_, tail] = ByOffset::ends(sealed.size);
        let tail = if tail.is_empty() {
            Bytes::new()
        } else {
            let options = pinned(&sealed, &version, tail.clone(), asked.extensions.clone());
            let answer = request(inner, path, &sealed, tail.clone(), options).await?;
            read(answer, path, &tail).await?
        };
        let stream = open_ends(sealed.size, [&head, &tail], opener).map_err(|fault| fault.about(path))?;
        let layout = Uniform::of(stream.total(), opener.chunk_size).map_err(|error| Fault::from(error).about(path))?;
        let opened = Self { path: path.clone(), stream: Arc::new(stream), layout, sealed, version };
        Ok((Arc::new(opened), along))
    }

    /// Whether a later request can be sure to get this version: only then is it worth to be remembered.
    pub(super) fn is_lasting(&self) -> bool {
        self.version.is_none() && strong(&self.sealed).is_some()
    }

    /// Whether a request with these conditions may be answered from this version: with none at all, or with one that
    /// asks for just this.
    pub(super) fn answers(&self, asked: &GetOptions) -> bool {
        let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, version, .. } = asked;
        if_none_match.is_none()
            && if_modified_since.is_none()
            && if_unmodified_since.is_none()
            && version.is_none()
            && if_match.as_deref().is_none_or(|asked| Some(asked) == strong(&self.sealed))
    }

    fn is(&self, sealed: &ObjectMeta) -> bool {
        is_same(&self.sealed, sealed)
    }

    /// What is known of the object, with the length of its plaintext.
    pub(super) fn meta(&self) -> ObjectMeta {
        ObjectMeta { size: self.layout.plaintext_len(), ..self.sealed.clone() }
    }

    /// Asks the inner store for a range of this version, by one request.
    pub(super) async fn get(
        &self,
        inner: &impl ObjectStore,
        range: Range<u64>,
        extensions: Extensions,
    ) -> object_store::Result<GetResult> {
        let options = pinned(&self.sealed, &self.version, range.clone(), extensions);
        request(inner, &self.path, &self.sealed, range, options).await
    }

    /// What a range means for this object.
    pub(super) fn resolve(&self, range: &GetRange) -> object_store::Result<Range<u64>> {
        resolve(range, self.layout.plaintext_len()).map_err(|fault| fault.about(&self.path))
    }
}

/// What a range means for a plaintext of `len` bytes.
pub(super) fn resolve(range: &GetRange, len: u64) -> Result<Range<u64>, Fault> {
    let out_of_bounds = |start, end| Fault::Stream(Error::RangeOutOfBounds { start, end, len });
    match *range {
        GetRange::Bounded(Range { start, end }) if start == end => {
            Err(Fault::Words(format!("the range {start}..{end} is empty; ask for at least a byte")))
        }
        GetRange::Bounded(Range { start, end }) if start > end || start >= len => Err(out_of_bounds(start, end)),
        GetRange::Bounded(Range { start, end }) => Ok(start..end.min(len)),
        GetRange::Offset(start) if start >= len => Err(out_of_bounds(start, len.max(start))),
        GetRange::Offset(start) => Ok(start..len),
        GetRange::Suffix(n) => Ok(len.saturating_sub(n)..len),
    }
}

fn open_ends(len: u64, ends: [&[u8]; 2], opener: &Opener<'_>) -> Result<ByOffset, Fault> {
    let stream = ByOffset::open(len, ends, opener.keys, &opener.options)
        .map_err(|error| Fault::Explained(error, by_offset::explain(error).to_string()))?;
    check_chunk_size(stream.chunk_size(), opener.chunk_size)?;
    if !stream.is_uniform() {
        return Err(irregular(stream.chunk_size()));
    }
    Ok(stream)
}

/// An ETag that stands for just these bytes. `If-Match` never holds for a weak one.
fn strong(sealed: &ObjectMeta) -> Option<&str> {
    sealed.e_tag.as_deref().filter(|etag| !etag.starts_with("W/"))
}

/// A request for a range of just this version, as far as that can be said to the inner store.
fn pinned(sealed: &ObjectMeta, version: &Option<String>, range: Range<u64>, extensions: Extensions) -> GetOptions {
    let options = GetOptions { range: Some(range.into()), extensions, ..GetOptions::default() };
    if let Some(etag) = strong(sealed) {
        return GetOptions { if_match: Some(etag.to_owned()), version: version.clone(), ..options };
    }
    let version = version.clone().or_else(|| sealed.version.clone());
    let if_unmodified_since = version.is_none().then_some(sealed.last_modified);
    GetOptions { version, if_unmodified_since, ..options }
}

/// Sends a pinned request, and looks at what was answered: not every server heeds conditions.
async fn request(
    inner: &impl ObjectStore,
    path: &Path,
    sealed: &ObjectMeta,
    range: Range<u64>,
    options: GetOptions,
) -> object_store::Result<GetResult> {
    let answer = inner.get_opts(path, options).await?;
    if !is_same(sealed, &answer.meta) {
        return Err(replaced(path));
    }
    check_range(path, &range, &answer)?;
    Ok(answer)
}

/// Whether an answer is one to what was asked.
fn check_range(path: &Path, range: &Range<u64>, answer: &GetResult) -> object_store::Result<()> {
    if answer.range == *range {
        return Ok(());
    }
    let words = format!("the store was asked for the bytes {range:?}, and has answered with {:?}", answer.range);
    Err(Fault::Words(words).about(path))
}

/// All of an answer to a request for one of the ends: no more than was asked for.
async fn read(answer: GetResult, path: &Path, range: &Range<u64>) -> object_store::Result<Bytes> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    body::read(answer, len).await.map_err(|fault| fault.about(path))
}

/// Whether both are the same version, by what the inner store says.
fn is_same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    one.size == other.size
        && one.e_tag == other.e_tag
        && one.version == other.version
        && (one.e_tag.is_some() || one.last_modified == other.last_modified)
}

/// Why the first bytes of an object cannot be had. Where there are none, stores say so in many ways.
async fn explain(inner: &impl ObjectStore, path: &Path, asked: &GetOptions, error: StoreError) -> StoreError {
    if !matches!(error, StoreError::Generic { .. } | StoreError::NotSupported { .. }) {
        return error;
    }
    let head = GetOptions { head: true, range: None, ..asked.clone() };
    match inner.get_opts(path, head).await {
        Ok(answer) if answer.meta.size == 0 => Fault::Stream(Error::Truncated { at: 0 }).about(path),
        _ => error,
    }
}
