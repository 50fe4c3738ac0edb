//! The stream format, version 1: what every byte of a stream means, and the limits.
//!
//! This page is the specification; the code below it only parses and encodes. It never touches a key, never does I/O, and
//! never trusts a length: whatever it parses is unauthenticated until [`Decryptor`](crate::Decryptor) says otherwise.
//!
#![doc = include_str!("guide/format.svg")]
//!
//! All integers are little-endian. A stream is
//!
//! ```text
//! header (24) | key frame (4 + 52) | data frame* | final frame (4 + 33)
//! ```
//!
//! # Header, 24 bytes
//!
//! | offset | size | field | value |
//! |---|---|---|---|
//! | 0 | 4 | magic | `AGCM` |
//! | 4 | 4 | version | 1 |
//! | 8 | 12 | nonce | random, fresh for every stream |
//! | 20 | 4 | chunk size C | 1 ..= 10 MiB (10 485 760); default 65 536 |
//!
//! # Frames
//!
//! A frame is a 4-byte word, `kind << 24 | length` (so: a 24-bit length, then one byte of kind), then `length` bytes.
//!
//! | kind | name | length | body |
//! |---|---|---|---|
//! | 1 | key | 52 | salt (20 random bytes), then the key commitment (32); in the clear; always the first frame, exactly once |
//! | 2 | data | p + 16, with 1 <= p <= C | AES-256-GCM ciphertext of p plaintext bytes, then the tag |
//! | 3 | final | 17 + 16 | AES-256-GCM ciphertext of `total: u64, frames: u64, layout: u8`, then the tag; always the last frame |
//!
//! `total` is the number of plaintext bytes, `frames` the number of data frames. `layout` is 1 (*uniform*) when every data
//! frame but the last holds exactly C bytes, else 0 (*irregular*). An empty plaintext has no data frame and is uniform.
//! Nothing follows the final frame. Kind 0 is never written: the first word of a stream of the Go library Harpocrates reads
//! as kind 0, which is how the two formats are told apart.
//!
//! # Key schedule
//!
//! Once per stream, from the 32-byte input key (uniformly random) and an optional application *context* (0 ..= 65 535 bytes,
//! never stored in the stream; both sides must know it), with HKDF-Expand of [RFC 5869]:
//!
//! ```text
//! okm        = HKDF-Expand-SHA-256(prk = key, info = "AGCM-v1" || 0x00 || header (24) || salt (20) || context, L = 64)
//! stream key = okm[0..32]        key commitment = okm[32..64]
//! ```
//!
//! # Nonces
//!
//! The nonce of a sealed frame is the header's nonce XOR `kind: u8 | 0x00 0x00 0x00 | position: u64`: the per-record nonce
//! of TLS 1.3 ([RFC 8446], section 5.3), with bytes counted instead of records, and little-endian. A data frame's position
//! is the number of plaintext bytes before it, which never comes twice, since no frame is empty. The final frame's is 0; it
//! is sealed exactly once. So no nonce comes twice under a stream key. Associated data is empty: header, salt and context
//! are bound through the key, and a frame opens at its own plaintext offset and nowhere else.
//!
//! # What a reader checks
//!
//! In this order, and no plaintext byte is released before the check that covers it:
//!
//! 1. the magic, as soon as there are bytes to compare ([`BadMagic`]); when all 24 bytes are in, the version
//!    ([`UnsupportedVersion`]), then the chunk size ([`InvalidChunkSize`], [`ChunkTooLarge`] over the reader's own limit);
//! 2. the first frame word: kind 0 is [`LegacyStream`]; anything but kind 1 and length 52 is [`InvalidFrame`];
//! 3. the key commitment, in constant time ([`KeyMismatch`]: a wrong key, a wrong context, or a changed header or salt);
//! 4. each frame word: an unknown kind, a second key frame, a length out of range are [`InvalidFrame`], and a data frame that
//!    passes the limits is [`StreamTooLong`], before the body is read;
//! 5. each tag ([`Corrupt`], with the frame's number, from 0, and its place in the stream);
//! 6. the final frame's total, frames and layout against what was read, exactly ([`Corrupt`], for any other layout, too);
//! 7. the end: input that stops anywhere before the end of the final frame is [`Truncated`]; bytes after it are
//!    [`TrailingData`] where the input is meant to be one whole stream.
//!
//! Memory follows bytes received, not bytes announced: nothing whose size the header states is allocated before the
//! commitment was checked, and until the first data frame has authenticated a buffer is at most twice what has arrived plus
//! 4 KiB, because anyone who saw a header and key frame can replay them.
//!
//! # By offset
//!
//! F, the length of a stream, is 117 + total + 20 · frames always; in a uniform stream frames = ceil(total / C), and data
//! frame i starts at `80 + i (C + 20)`. So a reader that can read at any offset checks both ends first: prelude, then the
//! last 37 bytes. Errors of header, first frame word and key are as above; F under 117, or no word of a final frame 37
//! bytes before the end, is [`Truncated`]; a final frame that fails its tag, or that F or the number of frames does not
//! agree with, is [`Corrupt`]. After that, length and layout are authentic.
//!
//! Each data frame that it reads must carry exactly the word that the layout expects ([`InvalidFrame`]), and open at its
//! position ([`Corrupt`]); damage elsewhere is found by the read that touches it. An irregular stream is walked, frame word
//! by frame word, as far as needed. A forged word can mislead that walk into an error, but never into wrong bytes: the
//! position in the nonce sees to that.
//!
//! # Limits, and where they come from
//!
//! * At most [2^52 bytes](MAX_PLAINTEXT_LEN) (4 PiB) and [2^40 data frames](MAX_FRAMES) a stream; [`StreamTooLong`] past them,
//!   on both sides.
//! * 32 random bytes per stream (nonce and salt): among 2^64 streams under one key, two agree with probability 2^-129
//!   (birthday bound, (2^64)² / 2 / 2^256).
//! * Confidentiality: one stream of 4 PiB is σ = 2^48 blocks, which gives an attacker an advantage of about σ²/2^129 = 2^-33
//!   (the PRP/PRF switching bound for AES in counter mode, as in [IRTF AEAD limits], section 5.1). Advantages add up over
//!   the streams of a key, each under its own stream key, so keep the sum of σ² under 2^96: one such stream, or 2^32 streams of
//!   64 GiB.
//! * One attempt to forge a frame succeeds with probability at most about 2^-108 (the polynomial hash over the 655 360 blocks
//!   of a 10 MiB frame; [NIST SP 800-38D], appendix B).
//! * To make one stream that opens under two keys or contexts costs about 2^128 steps (a collision in the 32-byte
//!   commitment).
//!
//! # Overhead
//!
//! [117 bytes](STREAM_OVERHEAD) a stream and [20 bytes](FRAME_OVERHEAD) a data frame: 0.03 % at the default chunk size.
//! [`geometry`](crate::geometry) calculates with that.
//!
//! ```
//! use agcm::format::{FRAME_OVERHEAD, STREAM_OVERHEAD};
//!
//! let plaintext = [7u8; 70_000]; // two frames at the default chunk size of 65 536
//! let stream = agcm::encrypt(&agcm::Key::generate(), &plaintext);
//! assert_eq!(stream.len(), plaintext.len() + 2 * FRAME_OVERHEAD + STREAM_OVERHEAD);
//! ```
//!
//! [RFC 5869]: https://www.rfc-editor.org/rfc/rfc5869
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446
//! [IRTF AEAD limits]: https://datatracker.ietf.org/doc/draft-irtf-cfrg-aead-limits/
//! [NIST SP 800-38D]: https://csrc.nist.gov/pubs/sp/800/38/d/final
//! [`BadMagic`]: crate::Error::BadMagic
//! [`UnsupportedVersion`]: crate::Error::UnsupportedVersion
//! [`InvalidChunkSize`]: crate::Error::InvalidChunkSize
//! [`ChunkTooLarge`]: crate::Error::ChunkTooLarge
//! [`LegacyStream`]: crate::Error::LegacyStream
//! [`InvalidFrame`]: crate::Error::InvalidFrame
//! [`KeyMismatch`]: crate::Error::KeyMismatch
//! [`Corrupt`]: crate::Error::Corrupt
//! [`Truncated`]: crate::Error::Truncated
//! [`TrailingData`]: crate::Error::TrailingData
//! [`StreamTooLong`]: crate::Error::StreamTooLong

use crate::error::Error;

/// The chunk size that is used unless another is chosen, in bytes: 64 KiB. [The guide](crate::guide::chunk_size) says why.
pub const DEFAULT_CHUNK_SIZE: usize = 64 * 1024;
/// The largest chunk size of a stream, in bytes: 10 MiB.
pub const MAX_CHUNK_SIZE: usize = 10 * 1024 * 1024;
/// The most plaintext that one stream holds, in bytes: 2^52, or 4 PiB.
pub const MAX_PLAINTEXT_LEN: u64 = 1 << 52;
/// The most data frames that one stream holds: 2^40.
pub const MAX_FRAMES: u64 = 1 << 40;
/// The longest application context, in bytes.
pub const MAX_CONTEXT_LEN: usize = 65_535;

/// The length of the header, in bytes.
pub const HEADER_LEN: usize = 24;
/// The length of what comes before the first data frame, header and key frame together, in bytes.
pub const PRELUDE_LEN: usize = HEADER_LEN + WORD_LEN + KEY_BODY_LEN;
/// What a data frame adds to its plaintext, word and tag together, in bytes.
pub const FRAME_OVERHEAD: usize = WORD_LEN + TAG_LEN;
/// The length of the final frame, in bytes.
pub const FINAL_FRAME_LEN: usize = FRAME_OVERHEAD + TRAILER_LEN;
/// What a stream adds to its data frames, in bytes: header, key frame and final frame. Also the length of the shortest
/// stream.
pub const STREAM_OVERHEAD: usize = PRELUDE_LEN + FINAL_FRAME_LEN;

pub(crate) const MAGIC: [u8; 4] = *b"AGCM";
pub(crate) const VERSION: u32 = 1;
pub(crate) const NONCE_LEN: usize = 12;
pub(crate) const SALT_LEN: usize = 20;
pub(crate) const COMMITMENT_LEN: usize = 32;
pub(crate) const WORD_LEN: usize = 4;
pub(crate) const TAG_LEN: usize = 16;
pub(crate) const TRAILER_LEN: usize = 17;
const KEY_BODY_LEN: usize = SALT_LEN + COMMITMENT_LEN;

/// How long a frame can be behind the key frame, in bytes.
pub(crate) fn longest_frame(chunk_size: usize) -> usize {
    FINAL_FRAME_LEN.max(FRAME_OVERHEAD + chunk_size)
}

/// The first 24 bytes of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) chunk_size: ChunkSize,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..20].copy_from_slice(&self.nonce);
        bytes[20..].copy_from_slice(&self.chunk_size.0.to_le_bytes());
        bytes
    }

    /// Checks what is there of a header; `None` until it is all there.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(Error::BadMagic);
        }
        if bytes.len() < HEADER_LEN {
            return Ok(None);
        }
        let version = read_u32(&bytes[4..8]);
        if version != VERSION {
            return Err(Error::UnsupportedVersion(version));
        }
        let chunk_size = ChunkSize::new(u64::from(read_u32(&bytes[20..24])))?;
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&bytes[8..20]);
        Ok(Some(Self { nonce, chunk_size }))
    }
}

/// A chunk size that the format allows: 1 ..= [`MAX_CHUNK_SIZE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkSize(u32);

#[expect(clippy::cast_possible_truncation, reason = "the two constants are under 2^24")]
impl ChunkSize {
    pub(crate) const DEFAULT: Self = Self(DEFAULT_CHUNK_SIZE as u32);
    pub(crate) const MAX: Self = Self(MAX_CHUNK_SIZE as u32);

    pub(crate) fn new(size: u64) -> Result<Self, Error> {
        match u32::try_from(size) {
            Ok(size) if (1..=Self::MAX.0).contains(&size) => Ok(Self(size)),
            _ => Err(Error::InvalidChunkSize(size)),
        }
    }

    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

/// What a frame is, as the top byte of its word and the first byte of its nonce say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Key = 1,
    Data = 2,
    Final = 3,
}

impl Kind {
    /// The frame word of a body of `len` bytes.
    #[expect(clippy::cast_possible_truncation, reason = "no body is longer than the largest chunk and a tag")]
    pub(crate) fn word(self, len: usize) -> [u8; WORD_LEN] {
        debug_assert!(len < 1 << 24, "the length of a frame has 24 bits");
        ((self as u32) << 24 | len as u32).to_le_bytes()
    }
}

/// The 80 bytes before the first data frame.
#[derive(Debug)]
pub(crate) struct Prelude {
    pub(crate) header: Header,
    pub(crate) salt: [u8; SALT_LEN],
    pub(crate) commitment: [u8; COMMITMENT_LEN],
}

impl Prelude {
    pub(crate) fn encode(&self) -> [u8; PRELUDE_LEN] {
        let mut bytes = [0; PRELUDE_LEN];
        bytes[..24].copy_from_slice(&self.header.encode());
        bytes[24..28].copy_from_slice(&Kind::Key.word(KEY_BODY_LEN));
        bytes[28..48].copy_from_slice(&self.salt);
        bytes[48..].copy_from_slice(&self.commitment);
        bytes
    }

    /// Checks what is there of a prelude; `None` until it is all there. The commitment is for the key schedule to check.
    pub(crate) fn parse(bytes: &[u8], max_chunk: ChunkSize) -> Result<Option<Self>, Error> {
        let Some(header) = Header::parse(bytes)? else { return Ok(None) };
        if header.chunk_size > max_chunk {
            return Err(Error::ChunkTooLarge { chunk: header.chunk_size.0.into(), max: max_chunk.0.into() });
        }
        let Some(word) = bytes.get(24..28) else { return Ok(None) };
        if word != Kind::Key.word(KEY_BODY_LEN) {
            return Err(match word[3] {
                0 => Error::LegacyStream,
                _ => Error::InvalidFrame { frame: 0, at: HEADER_LEN as u64, word: read_u32(word) },
            });
        }
        if bytes.len() < PRELUDE_LEN {
            return Ok(None);
        }
        let (mut salt, mut commitment) = ([0; SALT_LEN], [0; COMMITMENT_LEN]);
        salt.copy_from_slice(&bytes[28..48]);
        commitment.copy_from_slice(&bytes[48..PRELUDE_LEN]);
        Ok(Some(Self { header, salt, commitment }))
    }
}

/// A frame word that may stand after the key frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// A data frame of this many plaintext bytes, 1 ..= chunk size.
    Data(usize),
    Final,
}

impl Word {
    /// Parses the first four bytes of a frame; `Err` holds the word that is not legal here.
    pub(crate) fn parse(bytes: &[u8], chunk_size: ChunkSize) -> Result<Self, u32> {
        let word = read_u32(&bytes[..WORD_LEN]);
        let (kind, len) = (word >> 24, (word & 0xff_ffff) as usize);
        let plaintext = len.saturating_sub(TAG_LEN);
        if kind == Kind::Data as u32 && (1..=chunk_size.get()).contains(&plaintext) {
            Ok(Self::Data(plaintext))
        } else if kind == Kind::Final as u32 && plaintext == TRAILER_LEN {
            Ok(Self::Final)
        } else {
            Err(word)
        }
    }

    /// The length of the whole frame, word and tag included.
    pub(crate) fn frame_len(self) -> usize {
        match self {
            Self::Data(plaintext) => FRAME_OVERHEAD + plaintext,
            Self::Final => FINAL_FRAME_LEN,
        }
    }
}

/// What a stream's data frames amount to so far: the state that both sides keep, and that the final frame seals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    total: u64,
    frames: u64,
    chunk_size: ChunkSize,
    /// The last frame was shorter than a chunk: only a uniform stream's last frame may be.
    short: bool,
    irregular: bool,
}

impl Tally {
    pub(crate) fn new(chunk_size: ChunkSize) -> Self {
        Self { total: 0, frames: 0, chunk_size, short: false, irregular: false }
    }

    pub(crate) fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// The tally of this many full chunks.
    pub(crate) fn of_full_chunks(chunk_size: ChunkSize, frames: u64) -> Self {
        Self { total: frames * chunk_size.get() as u64, frames, ..Self::new(chunk_size) }
    }

    /// The plaintext bytes so far, which is the position of the next data frame.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Where in the stream the next frame begins.
    pub(crate) fn end(&self) -> u64 {
        PRELUDE_LEN as u64 + self.total + FRAME_OVERHEAD as u64 * self.frames
    }

    /// Whether `len` more bytes, in `frames` more frames, stay within the limits of a stream.
    pub(crate) fn admit(&self, len: usize, frames: u64) -> Result<(), Error> {
        if len as u64 > MAX_PLAINTEXT_LEN - self.total || frames > MAX_FRAMES - self.frames {
            return Err(Error::StreamTooLong);
        }
        Ok(())
    }

    /// Counts a data frame of `len` plaintext bytes.
    pub(crate) fn add(&mut self, len: usize) {
        self.total += len as u64;
        self.frames += 1;
        self.irregular |= self.short;
        self.short = len < self.chunk_size.get();
    }

    /// Counts the data frames of `len` plaintext bytes: full chunks, but for the last one.
    pub(crate) fn add_chunks(&mut self, len: usize) {
        let (full, rest) = (len / self.chunk_size.get(), len % self.chunk_size.get());
        self.add_full_chunks(full as u64);
        if rest > 0 {
            self.add(rest);
        }
    }

    /// Counts so many data frames of full chunks.
    pub(crate) fn add_full_chunks(&mut self, chunks: u64) {
        if chunks > 0 {
            self.irregular |= self.short;
            self.short = false;
            self.total += chunks * self.chunk_size.get() as u64;
            self.frames += chunks;
        }
    }

    /// The tally with another data frame of `len` plaintext bytes.
    pub(crate) fn after(mut self, len: usize) -> Self {
        self.add(len);
        self
    }

    /// What the final frame says, if the stream ends here.
    pub(crate) fn trailer(&self) -> Trailer {
        Trailer { total: self.total, frames: self.frames, uniform: !self.irregular }
    }

    /// A tally that stands just before the limits, which no test could reach by sealing.
    #[cfg(test)]
    pub(crate) fn at(total: u64, frames: u64, chunk_size: ChunkSize) -> Self {
        Self { total, frames, ..Self::new(chunk_size) }
    }
}

/// The plaintext of the final frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) total: u64,
    pub(crate) frames: u64,
    pub(crate) uniform: bool,
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        bytes[..8].copy_from_slice(&self.total.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.frames.to_le_bytes());
        bytes[16] = u8::from(self.uniform);
        bytes
    }

    /// `None` if no stream can be described so.
    pub(crate) fn parse(bytes: &[u8; TRAILER_LEN]) -> Option<Self> {
        let uniform = match bytes[16] {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { total: read_u64(&bytes[..8]), frames: read_u64(&bytes[8..16]), uniform })
    }
}

/// Callers hand over exactly four bytes.
fn read_u32(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

/// Callers hand over exactly eight bytes.
fn read_u64(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn no_chunks_leave_a_tally_as_it_was() {
        let mut tally = Tally::new(ChunkSize::new(4).unwrap());
        tally.add(4);
        tally.add(2);
        let before = tally.trailer();
        tally.add_chunks(0);
        tally.add_full_chunks(0);
        assert_eq!(tally.trailer(), before);
        tally.add_chunks(1);
        assert!(!tally.trailer().uniform, "the short one was not the last");
    }
}
