//! Sealing and opening for futures: in place if that is short, or else on the blocking pool.
//!
//! What is sealed here is sealed once, and where it lies there is no plaintext left.

use std::{collections::VecDeque, future::poll_fn, io};

use bytes::{Buf, Bytes};
use tokio::task::coop;

use crate::{
    encrypt::{Encryptor, Permit},
    error::Error,
    format::{FRAME_OVERHEAD, WORD_LEN},
    offload::{OFFLOAD_LEN, Offload},
    parallel::chunks_per_batch,
};

/// Does work on `len` bytes of a value, a few times over if it says so.
pub(super) async fn work_on<T: Send + 'static>(
    value: T,
    len: usize,
    is_going_on: fn(&T) -> bool,
    step: fn(&mut T),
) -> io::Result<T> {
    let mut offload = Offload::new(value);
    while poll_fn(|cx| offload.poll(cx).map_ok(|value| is_going_on(value))).await? {
        coop::consume_budget().await;
        offload.run(len, step);
    }
    offload.into_inner().ok_or_else(|| io::Error::other("what was worked on is not here"))
}

/// Plaintext in pieces, on its way to the frames that hold it.
pub(super) struct Sealing {
    /// The batches that are still to be sealed, in order.
    batches: VecDeque<Permit>,
    plaintext: VecDeque<Bytes>,
    frames: Vec<u8>,
    chunk_size: usize,
    len: usize,
}

impl Sealing {
    /// Takes the next places of the stream for all of `plaintext`: `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::StreamTooLong`] past the limits of a stream; then no place was taken.
    pub(super) fn new(encryptor: &mut Encryptor, plaintext: VecDeque<Bytes>, len: usize) -> Result<Self, Error> {
        let chunk_size = encryptor.chunk_size();
        encryptor.admit_more(len, len.div_ceil(chunk_size) as u64)?;
        let batch = chunks_per_batch(chunk_size) * chunk_size;
        let mut batches = VecDeque::with_capacity(len.div_ceil(batch));
        let mut left = len;
        while left > 0 {
            let permit = encryptor.permit(left.min(batch))?;
            left -= permit.len();
            batches.push_back(permit);
        }
        Ok(Self { batches, plaintext, frames: Vec::new(), chunk_size, len })
    }

    /// Seals all of it.
    pub(super) async fn run(mut self) -> io::Result<Vec<u8>> {
        // Only now: many may wait for their turn.
        self.frames.reserve_exact(self.len + FRAME_OVERHEAD * self.len.div_ceil(self.chunk_size));
        // Batch by batch: others want a place too.
        let len = self.len.min(OFFLOAD_LEN);
        let done = work_on(self, len, |sealing| !sealing.batches.is_empty(), Self::step).await?;
        Ok(done.frames)
    }

    /// Seals the next batch.
    fn step(&mut self) {
        let Some(permit) = self.batches.pop_front() else { return };
        let start = self.frames.len();
        self.frames.resize(start + permit.frames_len(), 0);
        let frames = &mut self.frames[start..];
        match self.plaintext.front_mut() {
            // In one piece: nothing is copied but by the cipher.
            Some(piece) if piece.len() >= permit.len() => {
                let plaintext = piece.split_to(permit.len());
                permit.seal_from(&plaintext, frames);
            }
            _ => {
                for frame in frames.chunks_mut(self.chunk_size + FRAME_OVERHEAD) {
                    let end = frame.len() - (FRAME_OVERHEAD - WORD_LEN);
                    copy_into(&mut self.plaintext, &mut frame[WORD_LEN..end]);
                }
                permit.seal_in_place(frames);
            }
        }
        while self.plaintext.front().is_some_and(Bytes::is_empty) {
            self.plaintext.pop_front();
        }
    }
}

/// Moves the first bytes of `pieces` to `to`, which is not longer than all of them.
fn copy_into(pieces: &mut VecDeque<Bytes>, mut to: &mut [u8]) {
    while !to.is_empty() {
        let Some(piece) = pieces.front_mut() else { return };
        let n = piece.len().min(to.len());
        let (now, later) = to.split_at_mut(n);
        now.copy_from_slice(&piece[..n]);
        piece.advance(n);
        if piece.is_empty() {
            pieces.pop_front();
        }
        to = later;
    }
}

/// Takes the first `len` bytes out of `pieces`, which hold as many. Nothing is copied.
pub(super) fn split_to(pieces: &mut VecDeque<Bytes>, mut len: usize) -> VecDeque<Bytes> {
    let mut first = VecDeque::new();
    while len > 0 {
        let Some(piece) = pieces.front_mut() else { break };
        let n = piece.len().min(len);
        first.push_back(piece.split_to(n));
        len -= n;
        if piece.is_empty() {
            pieces.pop_front();
        }
    }
    first
}
