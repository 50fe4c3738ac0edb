//! Uploads in parts: plaintext is put in, parts of the stream go to the inner store.
//!
//! Every chunk is sealed once, in the order of the stream, whatever the order in which parts are waited for. An upload
//! that was not completed must never become an object, and one that is dropped or has failed is aborted.

use std::{
    collections::VecDeque,
    fmt,
    future::ready,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use object_store::{MultipartUpload, PutPayload, PutResult, UploadPart, path::Path};
use tokio::runtime::Handle;

use super::{
    fault::Fault,
    options::LEAST_PART_LEN,
    work::{Sealing, split_to},
};
use crate::{
    encrypt::Encryptor,
    error::Error,
    format::{FRAME_OVERHEAD, PRELUDE_LEN},
};

/// An object on its way into the inner store.
pub(super) struct Upload {
    path: Path,
    inner: Arc<Inner>,
    /// `None` once the last frame was sealed, or nothing may follow for another reason.
    encryptor: Option<Encryptor>,
    /// How long the parts for the inner store are, in bytes; `None` until it is chosen or the first part is there.
    part_len: Option<usize>,
    /// Plaintext that is not yet enough for a part.
    waiting: VecDeque<Bytes>,
    waiting_len: usize,
    /// How much of the stream the frames make up that were given out for sealing, in bytes.
    sealed: u64,
    /// How much of the stream went into parts, in bytes.
    parted: u64,
    last: Started,
    /// What is done when the object is there.
    completed: Box<dyn Fn() + Send>,
}

/// Resolves when a part was sealed and the inner store has it, to what its last frame holds of the next part. Whoever
/// waits for it, or for one behind it, drives it.
type Started = Shared<BoxFuture<'static, Result<Bytes, Lost>>>;

/// Why a part was not begun.
#[derive(Debug, Clone)]
struct Lost(String);

impl From<Lost> for Fault {
    fn from(Lost(words): Lost) -> Self {
        Self::Words(words)
    }
}

/// The upload of the inner store, and what became of its parts.
struct Inner {
    /// `None` once it was completed or aborted, or while that is done.
    upload: Mutex<Option<Box<dyn MultipartUpload>>>,
    /// How many parts were begun and have not arrived.
    missing: AtomicUsize,
    /// Where it can be aborted if nobody waits.
    runtime: Option<Handle>,
}

impl Inner {
    /// No code of the inner store that panics leaves anything here but an upload that fails.
    fn upload(&self) -> MutexGuard<'_, Option<Box<dyn MultipartUpload>>> {
        self.upload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the upload out, to end it one way or the other.
    fn end(&self) -> Option<Ending> {
        let upload = self.upload().take()?;
        Some(Ending { upload: Some(upload), runtime: self.runtime.clone() })
    }
}

/// An upload that is aborted when this is dropped.
struct Ending {
    upload: Option<Box<dyn MultipartUpload>>,
    runtime: Option<Handle>,
}

impl Ending {
    async fn put(&mut self, part: PutPayload) -> object_store::Result<()> {
        match &mut self.upload {
            Some(upload) => upload.put_part(part).await,
            None => Ok(()),
        }
    }

    async fn complete(&mut self) -> object_store::Result<Option<PutResult>> {
        let Some(upload) = &mut self.upload else { return Ok(None) };
        let result = upload.complete().await?;
        self.upload = None;
        Ok(Some(result))
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let aborted = upload.abort().await;
        // If it has failed, it would fail again.
        self.upload = None;
        aborted
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let (Some(mut upload), Some(runtime)) = (self.upload.take(), &self.runtime) {
            runtime.spawn(async move { upload.abort().await });
        }
    }
}

impl Upload {
    pub(super) fn new(
        path: Path,
        upload: Box<dyn MultipartUpload>,
        (encryptor, prelude): (Encryptor, [u8; PRELUDE_LEN]),
        part_len: Option<usize>,
        completed: impl Fn() + Send + 'static,
    ) -> Self {
        let inner = Inner {
            upload: Mutex::new(Some(upload)),
            missing: AtomicUsize::new(0),
            runtime: Handle::try_current().ok(),
        };
        Self {
            path,
            inner: Arc::new(inner),
            encryptor: Some(encryptor),
            part_len,
            waiting: VecDeque::new(),
            waiting_len: 0,
            sealed: PRELUDE_LEN as u64,
            parted: 0,
            last: ready(Ok(Bytes::copy_from_slice(&prelude))).boxed().shared(),
            completed: Box::new(completed),
        }
    }
}

impl Upload {
    /// The next part, if there is enough for it.
    fn next_part(&mut self, part_len: usize) -> Option<Result<BoxFuture<'static, Result<(), Fault>>, Fault>> {
        let encryptor = self.encryptor.as_mut()?;
        let chunk = encryptor.chunk_size();
        let end = self.parted.saturating_add(part_len as u64);
        let frames = end.saturating_sub(self.sealed).div_ceil((chunk + FRAME_OVERHEAD) as u64);
        let len = usize::try_from(frames).ok()?.checked_mul(chunk)?;
        if self.waiting_len < len {
            return None;
        }
        let sealing = match Sealing::new(encryptor, split_to(&mut self.waiting, len), len) {
            Ok(sealing) => sealing,
            Err(error) => return Some(Err(error.into())),
        };
        self.waiting_len -= len;
        self.sealed += frames * (chunk + FRAME_OVERHEAD) as u64;
        self.parted = end;
        Some(Ok(self.begin(sealing, part_len)))
    }

    /// A part of the stream that begins with what the frames before have left over, and goes on with these.
    fn begin(&mut self, sealing: Sealing, part_len: usize) -> BoxFuture<'static, Result<(), Fault>> {
        let inner = self.inner.clone();
        inner.missing.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Mutex::new(None));
        let (to, before, its) = (slot.clone(), self.last.clone(), inner.clone());
        let started = async move {
            let left = before.await?;
            let frames = sealing.run().await.map_err(|error| Lost(error.to_string()))?;
            let mut pieces = VecDeque::from([left, frames.into()]);
            let part = split_to(&mut pieces, part_len);
            // In the order of the stream: each waits for the one before.
            let Some(upload) = &mut *its.upload() else {
                return Err(Lost("the upload was ended before this part".into()));
            };
            *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(upload.put_part(part.into_iter().collect()));
            // A copy, so that it does not keep all of the part in memory.
            Ok(Vec::from(pieces).concat().into())
        };
        let started = started.boxed().shared();
        self.last = started.clone();
        let part = async move {
            started.await?;
            let part: Option<UploadPart> = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(part) = part {
                part.await?;
            }
            inner.missing.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        };
        part.boxed()
    }

    /// Sends the rest of the stream, and completes the upload.
    async fn finish(&mut self, mut encryptor: Encryptor, ending: &mut Ending) -> Result<PutResult, Fault> {
        let missing = self.inner.missing.load(Ordering::Relaxed);
        if missing > 0 {
            let words = format!(
                "{missing} of its parts did not arrive: they have failed, or nobody has waited for them; the upload \
                 was aborted, begin it anew"
            );
            return Err(Fault::Words(words));
        }
        let sealing = Sealing::new(&mut encryptor, std::mem::take(&mut self.waiting), self.waiting_len)?;
        let left = self.last.clone().await?;
        let mut rest = VecDeque::from([left, sealing.run().await?.into(), Bytes::copy_from_slice(&encryptor.finish())]);
        while !rest.is_empty() {
            let part = split_to(&mut rest, self.part_len.unwrap_or(LEAST_PART_LEN));
            ending.put(part.into_iter().collect()).await?;
        }
        let result = ending.complete().await?;
        result.ok_or_else(|| Error::Finished.into())
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.encryptor.is_none() {
            return ready(Err(Fault::from(Error::Finished).about(&self.path))).boxed();
        }
        let len = data.content_length();
        let part_len = *self.part_len.get_or_insert(len.max(LEAST_PART_LEN));
        self.waiting.extend(data.into_iter().filter(|piece| !piece.is_empty()));
        self.waiting_len += len;
        let mut parts = Vec::new();
        while let Some(part) = self.next_part(part_len) {
            match part {
                Ok(part) => parts.push(part),
                Err(fault) => {
                    self.inner.missing.fetch_add(1, Ordering::Relaxed);
                    self.encryptor = None;
                    return ready(Err(fault.about(&self.path))).boxed();
                }
            }
        }
        let path = self.path.clone();
        let all = async move {
            // One after the other, so that no more than one of them is in memory sealed.
            for part in parts {
                part.await.map_err(|fault| fault.about(&path))?;
            }
            Ok(())
        };
        all.boxed()
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let (Some(encryptor), Some(mut ending)) = (self.encryptor.take(), self.inner.end()) else {
            return Err(Fault::from(Error::Finished).about(&self.path));
        };
        match self.finish(encryptor, &mut ending).await {
            Ok(result) => {
                (self.completed)();
                Ok(result)
            }
            Err(fault) => {
                // The caller has to know what went wrong first.
                let _ = ending.abort().await;
                Err(fault.about(&self.path))
            }
        }
    }

    /// Once it has ended, one way or the other, there is nothing to abort.
    async fn abort(&mut self) -> object_store::Result<()> {
        self.encryptor = None;
        self.waiting.clear();
        match self.inner.end() {
            Some(mut ending) => ending.abort().await,
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Where it goes on its own: aborted, and never completed.
        drop(self.inner.end());
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("parted", &self.parted).finish_non_exhaustive()
    }
}
