//! Where plaintext lies in a stream: pure arithmetic on lengths and offsets.
//!
//! It knows no key and does no I/O, and nothing that it says about a stream is authenticated.

use crate::format::{ChunkSize, FRAME_OVERHEAD, STREAM_OVERHEAD};

/// The length of the stream, in bytes, that holds `plaintext` bytes in full chunks; `None` past `u64`.
pub(crate) fn stream_len(plaintext: u64, chunk_size: ChunkSize) -> Option<u64> {
    let frames = plaintext.div_ceil(chunk_size.get() as u64);
    frames.checked_mul(FRAME_OVERHEAD as u64)?.checked_add(plaintext)?.checked_add(STREAM_OVERHEAD as u64)
}
