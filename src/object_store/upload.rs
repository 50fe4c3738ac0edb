//! Uploads in parts: plaintext is put in, parts of the stream go to the inner store.
//!
//! Every chunk is sealed once, in the order of the stream, whatever the order in which parts are waited for. An upload
//! that was not completed must never become an object, and one that is dropped or has failed is aborted.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::ready,
    iter, mem,
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
use tokio::{runtime::Handle, sync};

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
    chunk_size: usize,
    /// How long the parts for the inner store are, in bytes; `None` until it is chosen or the first part is there.
    part_len: Option<usize>,
    /// Plaintext that is not yet enough for a part.
    waiting: VecDeque<Bytes>,
    waiting_len: usize,
    /// How much of the stream the frames make up that were given out for sealing, in bytes.
    sealed: u64,
    /// How much of the stream went into parts, in bytes.
    parted: u64,
    /// How many parts those are.
    parts: usize,
    /// The upload, once nothing more can be put.
    ending: Option<Ending>,
    /// Where it was begun.
    runtime: Option<Handle>,
    /// What is done when the object is there.
    completed: Box<dyn Fn() + Send>,
}

/// What the futures of the parts share.
struct Inner {
    queue: Mutex<Queue>,
    /// How many parts there are that have not arrived.
    missing: AtomicUsize,
}

/// The parts on their way to the inner store, which has to get them in the order of the stream. Whoever waits for one
/// drives those before it as well.
struct Queue {
    /// `None` once it is to be completed or aborted.
    upload: Option<Box<dyn MultipartUpload>>,
    /// How many parts the inner store was given.
    begun: usize,
    /// The next one, if somebody has waited for it, or for one behind it.
    sealing: Option<Frames>,
    /// Those behind it.
    behind: VecDeque<Sealing>,
    /// What the last frame that was sealed holds of the next part.
    left: Bytes,
    /// The parts that the inner store was given, and nobody has waited for yet.
    under_way: HashMap<usize, UploadPart>,
}

/// The frames of a part, for all who wait for them.
type Frames = Shared<BoxFuture<'static, Result<Bytes, Lost>>>;

/// Why a part was not begun.
#[derive(Debug, Clone)]
struct Lost(String);

fn lost() -> Lost {
    Lost("a part of the upload was lost".into())
}

impl From<Lost> for Fault {
    fn from(Lost(words): Lost) -> Self {
        Self::Words(words)
    }
}

impl Inner {
    /// No code of the inner store that panics leaves anything here but an upload that fails.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the upload out, to end it one way or the other.
    fn end(&self) -> Option<Box<dyn MultipartUpload>> {
        let mut queue = self.queue();
        let upload = queue.upload.take()?;
        // There is plaintext in them.
        queue.sealing = None;
        queue.behind.clear();
        queue.under_way.clear();
        Some(upload)
    }

    /// Seals what comes before this part and the part itself, and returns what the inner store does with it.
    async fn begin(&self, part: usize, part_len: usize) -> Result<UploadPart, Lost> {
        loop {
            let (next, frames) = {
                let mut queue = self.queue();
                if queue.upload.is_none() {
                    return Err(Lost("the upload was ended before this part had arrived".into()));
                }
                if let Some(upload) = queue.under_way.remove(&part) {
                    return Ok(upload);
                }
                if part < queue.begun {
                    return Err(lost());
                }
                (queue.begun, queue.frames()?)
            };
            let frames = frames.await?;
            let mut queue = self.queue();
            // Others may have waited for it, too.
            if queue.begun == next {
                queue.put(frames, part_len);
            }
        }
    }
}

impl Queue {
    /// The frames of the next part.
    fn frames(&mut self) -> Result<Frames, Lost> {
        if self.sealing.is_none() {
            let sealing = self.behind.pop_front().ok_or_else(lost)?;
            let frames = async move { sealing.run().await.map(Bytes::from).map_err(|error| Lost(error.to_string())) };
            self.sealing = Some(frames.boxed().shared());
        }
        self.sealing.clone().ok_or_else(lost)
    }

    /// Gives the inner store the next part, whose frames these are, behind what was left over before.
    fn put(&mut self, frames: Bytes, part_len: usize) {
        let Some(upload) = &mut self.upload else { return };
        // Frames are only sealed where what is left is too short for the part.
        let is_longer = !frames.is_empty();
        let mut pieces = VecDeque::from([mem::take(&mut self.left), frames]);
        let part = split_to(&mut pieces, part_len).into_iter().collect();
        self.left = match pieces.pop_front() {
            // A copy, so that it does not keep all of the part in memory. Of each frame there is one at most, however
            // many parts it makes up.
            Some(left) if is_longer => Bytes::copy_from_slice(&left),
            left => left.unwrap_or_default(),
        };
        let begun = self.begun;
        self.begun += 1;
        self.sealing = None;
        // If this panics, those behind it are at their places all the same. Whoever waits for this one never sees it
        // arrive, so the upload is not completed.
        let part = upload.put_part(part);
        self.under_way.insert(begun, part);
    }
}

/// An upload that is to be completed or aborted. It stays here until the inner store has said that one of them is done.
#[derive(Clone)]
struct Ending {
    /// Whoever has the lock ends it; `None` once it has ended.
    upload: Arc<sync::Mutex<Option<Box<dyn MultipartUpload>>>>,
    /// Where it can be aborted if nobody waits.
    runtime: Option<Handle>,
}

impl Ending {
    /// Puts the last parts, and completes it.
    async fn complete(&self, parts: impl Iterator<Item = PutPayload>) -> object_store::Result<Option<PutResult>> {
        let mut ending = self.upload.lock().await;
        let Some(upload) = &mut *ending else { return Ok(None) };
        for part in parts {
            upload.put_part(part).await?;
        }
        let result = upload.complete().await?;
        *ending = None;
        Ok(Some(result))
    }

    /// Aborts it, if it has not ended. After an error it can be tried again.
    async fn abort(&self) -> object_store::Result<()> {
        let mut ending = self.upload.lock().await;
        if let Some(upload) = &mut *ending {
            upload.abort().await?;
            *ending = None;
        }
        Ok(())
    }

    /// The same, and nobody waits for it.
    fn abort_unseen(&self) {
        if self.upload.try_lock().is_ok_and(|upload| upload.is_none()) {
            return;
        }
        if let Some(runtime) = &self.runtime {
            let ending = self.clone();
            runtime.spawn(async move { ending.abort().await });
        }
    }
}

/// Has an upload aborted when this is dropped.
struct Guard(Option<Ending>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(ending) = &self.0 {
            ending.abort_unseen();
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
        let queue = Queue {
            upload: Some(upload),
            begun: 0,
            sealing: None,
            behind: VecDeque::new(),
            left: Bytes::copy_from_slice(&prelude),
            under_way: HashMap::new(),
        };
        let missing = AtomicUsize::new(0);
        let inner = Inner { queue: Mutex::new(queue), missing };
        Self {
            path,
            inner: Arc::new(inner),
            chunk_size: encryptor.chunk_size(),
            encryptor: Some(encryptor),
            part_len,
            waiting: VecDeque::new(),
            waiting_len: 0,
            sealed: PRELUDE_LEN as u64,
            parted: 0,
            parts: 0,
            ending: None,
            runtime: Handle::try_current().ok(),
            completed: Box::new(completed),
        }
    }

    /// Takes the places of the next part in the stream, if there is enough for it.
    fn next_part(&mut self, part_len: usize) -> Result<bool, Error> {
        let Some(encryptor) = &mut self.encryptor else { return Ok(false) };
        let chunk = encryptor.chunk_size();
        let end = self.parted.saturating_add(part_len as u64);
        let frames = end.saturating_sub(self.sealed).div_ceil((chunk + FRAME_OVERHEAD) as u64);
        let len = usize::try_from(frames).ok().and_then(|frames| frames.checked_mul(chunk));
        let Some(len) = len.filter(|len| *len <= self.waiting_len) else { return Ok(false) };
        let sealing = Sealing::new(encryptor, split_to(&mut self.waiting, len), len)?;
        self.waiting_len -= len;
        self.sealed += frames * (chunk + FRAME_OVERHEAD) as u64;
        self.parted = end;
        self.inner.queue().behind.push_back(sealing);
        self.inner.missing.fetch_add(1, Ordering::Relaxed);
        self.parts += 1;
        Ok(true)
    }

    /// Lets nothing more be put. Whether anything could be until now.
    fn end(&mut self) -> bool {
        let Some(upload) = self.inner.end() else { return false };
        let upload = Arc::new(sync::Mutex::new(Some(upload)));
        self.ending = Some(Ending { upload, runtime: self.runtime.clone() });
        true
    }

    /// Sends the rest of the stream, and completes the upload.
    async fn finish(&mut self, mut encryptor: Encryptor, ending: &Ending) -> Result<PutResult, Fault> {
        let missing = self.inner.missing.load(Ordering::Relaxed);
        if missing > 0 {
            let words =
                format!("{missing} of its parts did not arrive: they have failed, or nobody has waited for them");
            return Err(Fault::Words(words));
        }
        let sealing = Sealing::new(&mut encryptor, mem::take(&mut self.waiting), self.waiting_len)?;
        let left = mem::take(&mut self.inner.queue().left);
        let mut rest = VecDeque::from([left, sealing.run().await?.into(), Bytes::copy_from_slice(&encryptor.finish())]);
        let part_len = self.part_len.unwrap_or(LEAST_PART_LEN);
        let parts = iter::from_fn(|| {
            let part = split_to(&mut rest, part_len);
            (!part.is_empty()).then(|| part.into_iter().collect())
        });
        let result = ending.complete(parts).await?;
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
        let part_len = *self.part_len.get_or_insert_with(|| part_len_for(len, self.chunk_size));
        self.waiting.extend(data.into_iter().filter(|piece| !piece.is_empty()));
        self.waiting_len += len;
        let first = self.parts;
        let filled = loop {
            match self.next_part(part_len) {
                Ok(true) => {}
                Ok(false) => break first..self.parts,
                Err(error) => {
                    // It cannot be completed without this.
                    self.inner.missing.fetch_add(1, Ordering::Relaxed);
                    self.encryptor = None;
                    return ready(Err(Fault::from(error).about(&self.path))).boxed();
                }
            }
        };
        let (inner, path) = (self.inner.clone(), self.path.clone());
        let put = async move {
            // One after the other, so that no more than one of them is in memory sealed.
            for part in filled {
                inner.begin(part, part_len).await.map_err(|lost| Fault::from(lost).about(&path))?.await?;
                inner.missing.fetch_sub(1, Ordering::Relaxed);
            }
            Ok(())
        };
        put.boxed()
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let encryptor = self.encryptor.take();
        let ends = self.end();
        let (Some(encryptor), true, Some(ending)) = (encryptor, ends, self.ending.clone()) else {
            if ends {
                // Its stream would have been too long.
                let _ = self.abort().await;
            }
            return Err(Fault::from(Error::Finished).about(&self.path));
        };
        let mut guard = Guard(Some(ending.clone()));
        let fault = match self.finish(encryptor, &ending).await {
            Ok(result) => {
                guard.0 = None;
                (self.completed)();
                return Ok(result);
            }
            Err(fault) => fault,
        };
        let aborted = self.abort().await;
        guard.0 = None;
        // The caller has to know what went wrong first.
        let fault = match (fault, aborted) {
            (Fault::Words(words), Ok(())) => Fault::Words(format!("{words}; the upload was aborted, begin it anew")),
            (Fault::Words(words), Err(error)) => Fault::Words(format!(
                "{words}; to abort the upload has failed as well, try that again and begin it anew: {error}"
            )),
            (fault, _) => fault,
        };
        Err(fault.about(&self.path))
    }

    /// Once it has ended, one way or the other, there is nothing to abort. Until it has, this tries.
    async fn abort(&mut self) -> object_store::Result<()> {
        self.encryptor = None;
        self.waiting.clear();
        self.end();
        match &self.ending {
            Some(ending) => ending.abort().await,
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Where it goes on its own: aborted, and never completed.
        self.end();
        if let Some(ending) = &self.ending {
            ending.abort_unseen();
        }
    }
}

/// How long the parts are if those that the caller puts are this long: with what sealing adds to one, so that they are
/// no more for the inner store. Who puts just the 10 000 that S3 takes must not need one more.
fn part_len_for(put_len: usize, chunk_size: usize) -> usize {
    let overhead = FRAME_OVERHEAD.saturating_mul(put_len.div_ceil(chunk_size));
    // One byte more makes up for the 117 of the two ends of the stream, from 117 parts on. With all of them at once not
    // even the first part would go before the next one is put.
    put_len.saturating_add(overhead).saturating_add(1).max(LEAST_PART_LEN)
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("parted", &self.parted).finish_non_exhaustive()
    }
}
