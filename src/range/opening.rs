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
    io::offload::{OFFLOAD_LEN, Offload},
};

/// The frames of a range on their way to plaintext.
pub(super) struct Opening {
    stream: Arc<ByOffset>,
    /// Where the next frame is, and that frame and those behind it.
    place: Tally,
    sealed: Bytes,
    /// The range of plaintext, and as much of it as was opened; the rest is zero.
    range: Range<u64>,
    plaintext: Zeroizing<Vec<u8>>,
    result: Result<(), Error>,
}

impl Opening {
    /// `sealed` are all the frames from `place` on that hold a part of `range`.
    pub(super) fn new(stream: Arc<ByOffset>, place: Tally, sealed: Bytes, range: Range<u64>) -> Self {
        // The frames are longer, and they are in memory.
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        Self { stream, place, sealed, range, plaintext: Zeroizing::new(vec![0; len]), result: Ok(()) }
    }

    /// Opens all of it: here, frame by frame, or elsewhere if it is long.
    pub(super) async fn run(mut self) -> io::Result<Bytes> {
        let len = self.sealed.len();
        if len < OFFLOAD_LEN {
            while self.is_going_on() {
                coop::consume_budget().await;
                self.step();
            }
            return Ok(self.finish()?);
        }
        let mut offload = Offload::new(self);
        offload.run(len, |opening| {
            while opening.is_going_on() {
                opening.step();
            }
        });
        let finished = poll_fn(|cx| offload.poll(cx).map_ok(Self::finish)).await?;
        Ok(finished?)
    }

    fn is_going_on(&self) -> bool {
        self.result.is_ok() && !self.sealed.is_empty()
    }

    /// Opens the next frame.
    fn step(&mut self) {
        self.result = self.try_step();
    }

    fn try_step(&mut self) -> Result<(), Error> {
        let len = self.stream.whole_frame(&self.place, &self.sealed)?;
        let (ciphertext, rest) = self.sealed[WORD_LEN..].split_at(len);
        let tag = &rest[..TAG_LEN];

        let frame = self.place.total()..self.place.after(len).total();
        let part = frame.start.max(self.range.start)..frame.end.min(self.range.end);
        if part.is_empty() {
            return Err(self.source_has_changed());
        }
        let out = &mut self.plaintext[within(&part, self.range.start)];
        if part == frame {
            self.stream.open_body(&self.place, Body::Into { ciphertext, plaintext: out }, tag)?;
        } else {
            let mut whole = Zeroizing::new(ciphertext.to_vec());
            self.stream.open_body(&self.place, Body::InPlace(&mut whole), tag)?;
            out.copy_from_slice(&whole[within(&part, frame.start)]);
        }
        self.sealed.advance(FRAME_OVERHEAD + len);
        self.place.add(len);
        Ok(())
    }

    /// The whole range, if all of it was opened.
    fn finish(&mut self) -> Result<Bytes, Error> {
        self.result?;
        if self.place.total() < self.range.end {
            return Err(self.source_has_changed());
        }
        Ok(mem::take(&mut *self.plaintext).into())
    }

    /// These are not the frames that were walked past.
    fn source_has_changed(&self) -> Error {
        Error::Corrupt { frame: self.place.frames(), at: self.place.end() }
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
