//! Opens the frames that hold a range of plaintext, and keeps just that range.
//!
//! What it returns is all of the range or nothing, and every byte of it authenticated at its own position.

use std::{future::poll_fn, io, mem, ops::Range, sync::Arc};

use bytes::{Buf, Bytes};
use tokio::task::coop;
use zeroize::Zeroizing;

use crate::{
    aead::Body,
    by_offset::ByOffset,
    error::Error,
    format::{FRAME_OVERHEAD, TAG_LEN, Tally, WORD_LEN},
    offload::{OFFLOAD_LEN, Offload, note_work},
};

/// Why a range was not read. An error of the source is none of the stream, even if there is one of a stream inside: the source
/// may itself be one that is decrypted.
#[derive(Debug)]
pub(super) enum Fault {
    Stream(Error),
    Source(io::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Stream(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Stream(error) => error.into(),
            Fault::Source(error) => error,
        }
    }
}

/// The frames of a range on their way to plaintext.
pub(super) struct Opening {
    stream: Arc<ByOffset>,
    /// Where the next frame is, and that frame and those behind it.
    place: Tally,
    sealed: Bytes,
    range: Range<u64>,
    /// The beginning of the range, as far as it was opened. It never grows beyond what was allocated for it, so no copy is
    /// left behind.
    plaintext: Zeroizing<Vec<u8>>,
    result: Result<(), Error>,
}

impl Opening {
    /// `sealed` are all the frames from `place` on that hold a part of `range`.
    pub(super) fn new(stream: Arc<ByOffset>, place: Tally, sealed: Bytes, range: Range<u64>) -> Self {
        // The frames are longer, and they are in memory.
        let len = usize::try_from(range.end - range.start).unwrap_or(0).min(sealed.len());
        let plaintext = Zeroizing::new(Vec::with_capacity(len));
        Self { stream, place, sealed, range, plaintext, result: Ok(()) }
    }

    /// Opens all of it: here, frame by frame, or elsewhere if it is long.
    pub(super) async fn run(mut self) -> Result<Bytes, Fault> {
        while self.is_going_on() && self.sealed.len() < OFFLOAD_LEN {
            coop::consume_budget().await;
            self.step();
        }
        let mut offload = Offload::new(self);
        loop {
            let opening = poll_fn(|cx| offload.poll(cx).map_ok(|opening| opening.is_going_on())).await?;
            match offload.get_mut() {
                Some(finished) if !opening => return Ok(finished.finish()?),
                // Not all at once: others want a place too, and whoever waits for this may have gone.
                _ => offload.run(OFFLOAD_LEN, Self::step_on),
            }
        }
    }

    fn is_going_on(&self) -> bool {
        self.result.is_ok() && !self.sealed.is_empty()
    }

    /// Opens frames for about as long as one that is just long enough to be opened elsewhere.
    fn step_on(&mut self) {
        let left = self.sealed.len().saturating_sub(OFFLOAD_LEN);
        while self.is_going_on() && self.sealed.len() > left {
            self.step();
        }
    }

    /// Opens the next frame.
    fn step(&mut self) {
        self.result = self.try_step();
    }

    fn try_step(&mut self) -> Result<(), Error> {
        let len = self.stream.whole_frame(&self.place, &self.sealed)?;
        note_work(len);
        let (ciphertext, rest) = self.sealed[WORD_LEN..].split_at(len);
        let tag = &rest[..TAG_LEN];

        let frame = self.place.total()..self.place.after(len).total();
        let opened = self.plaintext.len();
        let part = self.range.start + opened as u64..frame.end.min(self.range.end);
        if part.is_empty() {
            // It ends before the range begins: a walk was misled, and this is not the frame that it was taken for.
            return Err(Error::Corrupt { frame: self.place.frames(), at: self.place.end() });
        }
        if part == frame {
            self.plaintext.resize(opened + len, 0);
            let body = Body::Into { from: ciphertext, to: &mut self.plaintext[opened..] };
            if let Err(error) = self.stream.open_body(&self.place, body, tag) {
                self.plaintext.truncate(opened);
                return Err(error);
            }
        } else {
            let mut whole = Zeroizing::new(ciphertext.to_vec());
            self.stream.open_body(&self.place, Body::InPlace(&mut whole), tag)?;
            self.plaintext.extend_from_slice(&whole[within(&part, frame.start)]);
        }
        self.sealed.advance(FRAME_OVERHEAD + len);
        self.place.add(len);
        Ok(())
    }

    /// The whole range, if all of it was opened.
    fn finish(&mut self) -> Result<Bytes, Error> {
        self.result?;
        let opened = self.range.start + self.plaintext.len() as u64;
        assert_eq!(opened, self.range.end, "the frames were those that hold the range");
        Ok(mem::take(&mut *self.plaintext).into())
    }
}

/// A range of positions, counted from `start` on.
fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    let index = |position: u64| usize::try_from(position - start);
    match (index(range.start), index(range.end)) {
        (Ok(start), Ok(end)) => start..end,
        _ => unreachable!("what is in memory can be counted"),
    }
}
