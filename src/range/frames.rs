//! Finds the frames that hold a range of plaintext, and reads them.
//!
//! In a uniform stream that is arithmetic and one read. In an irregular one the frames are walked to; what was found on the way
//! is shared by all who read, and is never more than a hint: what the frames hold is for [`Opening`] to check.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes};
use tokio::task::coop;

use super::opening::{Fault, Opening};
use crate::{
    by_offset::{self, ByOffset, Index, MAX_WALK_LEN},
    error::Error,
    format::{FRAME_OVERHEAD, Tally, WORD_LEN},
    key::KeyRing,
    observe,
    options::DecryptOptions,
    read_at::ReadAt,
};

/// A stream in a source, and the way to its frames.
pub(super) struct Frames<S> {
    pub(super) source: S,
    /// Where in the source the stream begins.
    base: u64,
    pub(super) stream: Arc<ByOffset>,
    index: Mutex<Index>,
}

impl<S: ReadAt> Frames<S> {
    /// Checks both ends of the stream that begins at byte `base` of `source`.
    pub(super) async fn open(source: S, base: u64, keys: &KeyRing, options: &DecryptOptions) -> io::Result<Self> {
        let len = source.len().await?.saturating_sub(base);
        let [head, tail] = ByOffset::ends(len);
        let head = read_exactly(&source, base, head).await.map_err(io::Error::from)?;
        let tail = read_exactly(&source, base, tail).await.map_err(io::Error::from)?;
        let stream = ByOffset::open(len, [&head, &tail], keys, options).map_err(by_offset::explain)?;
        let index = Mutex::new(Index::new(stream.start()));
        Ok(Self { source, base, stream: Arc::new(stream), index })
    }

    /// Reads plaintext from `range.start` on: all up to `least`, and what else its last frame holds of the range. Returns the
    /// place behind that frame too.
    ///
    /// `from` is the place of the frame that begins where the range does, if it is known.
    pub(super) async fn read(
        &self,
        from: Option<Tally>,
        range: Range<u64>,
        least: u64,
    ) -> Result<(Bytes, Tally), Fault> {
        let read = self.try_read(from, range, least).await;
        if let Err(Fault::Stream(error)) = read {
            observe::range_failed(error);
            self.index().doubt(error);
        }
        read
    }

    async fn try_read(&self, from: Option<Tally>, range: Range<u64>, least: u64) -> Result<(Bytes, Tally), Fault> {
        let (first, sealed, end) = self.read_frames(from, range.start..least).await?;
        let range = range.start..range.end.min(end.total());
        let plaintext = Opening::new(self.stream.clone(), first, sealed, range).run().await?;
        self.index().confirm(&end);
        Ok((plaintext, end))
    }

    /// The frames that hold a range of plaintext, the place of the first, and the one behind the last.
    async fn read_frames(&self, from: Option<Tally>, range: Range<u64>) -> Result<(Tally, Bytes, Tally), Fault> {
        if let (Some(first), Some(last)) = (self.stream.find(range.start), self.stream.find(range.end - 1)) {
            let end = last.after(self.stream.most_at(&last));
            return Ok((first, self.read_sealed(first.end()..end.end()).await?, end));
        }
        let first = match from {
            Some(from) => from,
            None => self.walk_to(range.start).await?,
        };
        let (sealed, end) = self.walk_through(first, range.end).await?;
        Ok((first, sealed, end))
    }

    /// Walks to the frame that holds this byte of the plaintext.
    ///
    /// Whoever walks does so alone. To wait for another who is on the way could take for ever: it may be a future that is kept
    /// and not polled.
    async fn walk_to(&self, position: u64) -> Result<Tally, Fault> {
        let mut place = self.stream.start();
        let mut words = Bytes::new();
        loop {
            // Over a source that is never pending, a long walk would not let others run.
            coop::consume_budget().await;
            let Some(word) = words.first_chunk() else {
                // Others may have come further meanwhile.
                let (known, behind) = self.index().around(position);
                if known.total() == position || behind.is_some_and(|behind| behind.frames() == known.frames() + 1) {
                    return Ok(known);
                }
                if known.total() > place.total() {
                    place = known;
                }
                let end = place.end() + self.stream.walk_len(MAX_WALK_LEN) as u64;
                words = self.read_sealed(place.end()..end.min(self.stream.end_of_data())).await?;
                continue;
            };
            let len = self.stream.step(&place, *word)?;
            let next = place.after(len);
            self.index().note(next);
            if next.total() > position {
                return Ok(place);
            }
            words.advance(words.len().min(FRAME_OVERHEAD + len));
            place = next;
        }
    }

    /// Reads the frames from `first` on that hold the plaintext up to `position`, and finds out where they end on the way.
    /// That takes one read, if the guess of how long they are is a good one.
    async fn walk_through(&self, first: Tally, position: u64) -> Result<(Bytes, Tally), Fault> {
        let mut sealed = Bytes::new();
        let mut place = first;
        while place.total() < position {
            coop::consume_budget().await;
            let before = place.end() - first.end();
            match usize::try_from(before).ok().and_then(|before| sealed.get(before..)?.first_chunk()) {
                Some(word) => {
                    place.add(self.stream.step(&place, *word)?);
                    self.index().note(place);
                }
                None => {
                    let guess = self.stream.guess_end(&first, &place, position);
                    let end = match self.index().around(position - 1) {
                        (last, Some(behind)) if behind.frames() == last.frames() + 1 => behind.end(),
                        (_, Some(behind)) => behind.end().min(guess),
                        (_, None) => guess,
                    };
                    sealed = self.read_on(first, sealed, end.max(place.end() + WORD_LEN as u64)).await?;
                }
            }
        }
        sealed = self.read_on(first, sealed, place.end()).await?;
        if let Ok(len) = usize::try_from(place.end() - first.end()) {
            sealed.truncate(len);
        }
        Ok((sealed, place))
    }

    /// Reads what is missing of the stream from `first` to `end`.
    async fn read_on(&self, first: Tally, sealed: Bytes, end: u64) -> Result<Bytes, Fault> {
        let start = first.end() + sealed.len() as u64;
        if start >= end {
            return Ok(sealed);
        }
        let more = self.read_sealed(start..end).await?;
        Ok(if sealed.is_empty() { more } else { [sealed, more].concat().into() })
    }

    async fn read_sealed(&self, range: Range<u64>) -> Result<Bytes, Fault> {
        read_exactly(&self.source, self.base, range).await
    }

    /// What is done under this lock does not panic, and whatever it were to leave could be forgotten.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads these bytes of the stream, which were there when its length was asked for.
async fn read_exactly(source: &impl ReadAt, base: u64, range: Range<u64>) -> Result<Bytes, Fault> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    if len == 0 {
        return Ok(Bytes::new());
    }
    let words = match source.read_at(base + range.start, len).await {
        Ok(bytes) if bytes.len() == len => return Ok(bytes),
        Ok(bytes) => {
            format!("the source was asked for {len} bytes at {}, and returned {}", base + range.start, bytes.len())
        }
        // Loops that read piece by piece would take it for a clean end.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let at = source.len().await?.saturating_sub(base);
            if at < range.end {
                return Err(Error::Truncated { at }.into());
            }
            format!("the source ended early, although it says that it is long enough: {error}")
        }
        Err(error) => return Err(error.into()),
    };
    Err(io::Error::other(words).into())
}
