//! Streams of the Go library Harpocrates, versions 1.x: for reading what there is, once, on the way to a format that is safe.
//!
//! Only [`GoReader`] opens them, and only by its name: everything else in this crate refuses them, as
//! [`LegacyStream`](Error::LegacyStream), and nothing must ever open one of both formats by guessing. Nothing here writes
//! one: under that format every chunk is sealed with the same nonce.
//!
//! All integers are little-endian. A stream is
//!
//! ```text
//! header (24) | (length: u32 | ciphertext and tag (length))*
//! ```
//!
//! with the header of [version 1](crate::format#header-24-bytes), and chunks of at most the header's chunk size, sealed with
//! AES-256-GCM under the key itself and the header's nonce. There is no end: the stream stops where the input does.
//!
//! [The guide](crate::guide::from_go) says how to move from one library to the other.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use pin_project_lite::pin_project;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use zeroize::Zeroizing;

use crate::{
    aead::{Body, GoKey},
    error::{Error, Explained},
    format::{ChunkSize, HEADER_LEN, Header, NONCE_LEN, TAG_LEN, WORD_LEN},
    io::poll::{poll_read_buffered, poll_read_some},
    key::KeyRing,
    offload::Offload,
};

/// Until a chunk has authenticated, the buffer holds at most twice what has arrived and this much, in bytes.
const UNTRUSTED_LEN: usize = 4096;

/// What the first word of a stream of version 1 looks like to the Go library: a chunk of 16 MiB and 52 bytes.
const KEY_FRAME_WORD: u32 = 1 << 24 | 52;

pin_project! {
    /// Reads a stream of the Go library Harpocrates (1.x) from `R` and gives out its plaintext.
    ///
    /// **What it cannot promise.** The format has no authenticated order, number or end of chunks, so nobody can tell
    /// whether a stream was cut between two chunks, emptied behind its header, put in another order, had chunks repeated,
    /// or chunks put in from another stream of the same nonce. Its chunks were sealed under one nonce, so somebody who saw
    /// a stream of two chunks or more may have learnt the XOR of their plaintexts, and may be able to forge chunks, and
    /// with that whatever this reader gives out. Read what there is, check it by what you know of it (a length, a hash, the
    /// restored database), encrypt it anew, and do not use the key again.
    ///
    /// A chunk that does authenticate is one that somebody with the key, or with the means above, has sealed; no byte is
    /// given out before.
    ///
    /// ```
    /// use agcm::{EncryptWriter, Key, legacy::GoReader};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (old_stream, old_key) = (
    /// #     &include_bytes!("../tests/vectors/legacy/c16_p17.agcm")[..],
    /// #     "344d68958f9fb599217b3c19ffe6a9ef57d6c6fa3dbdf065a146425c0395dc5f".parse::<Key>()?,
    /// # );
    /// let mut old = GoReader::new(old_stream, &old_key);
    /// let key = Key::generate();
    /// let mut new = EncryptWriter::new(Vec::new(), &key);
    /// let len = tokio::io::copy_buf(&mut old, &mut new).await?;
    /// new.shutdown().await?;
    /// assert_eq!(len, 17);
    /// # assert_eq!(agcm::decrypt(&key, &new.into_inner())?.len(), 17);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The command line does that with `agcm import --from-go`.
    ///
    /// # Errors
    ///
    /// [`BadMagic`](Error::BadMagic), [`UnsupportedVersion`](Error::UnsupportedVersion),
    /// [`InvalidChunkSize`](Error::InvalidChunkSize), and [`Truncated`](Error::Truncated) where the input stops inside of
    /// something. A length that no chunk has is [`InvalidFrame`](Error::InvalidFrame) (so is a stream of format 1, and the
    /// message says so). A chunk that does not authenticate is [`Corrupt`](Error::Corrupt), but if it is the first one,
    /// [`KeyMismatch`](Error::KeyMismatch): a wrong key and a damaged first chunk look the same. Each is sticky. An error of
    /// the inner reader is passed on as it is, and reading may be resumed after it.
    ///
    /// # Cancel safety
    ///
    /// As for [`DecryptReader`](crate::DecryptReader).
    ///
    /// # Memory
    ///
    /// One chunk and less than 4 KiB, and until a chunk has authenticated, no more than twice what has arrived and 4 KiB;
    /// wiped at the end, on error and on drop. Chunks of 1 MiB and more are opened on the blocking pool.
    pub struct GoReader<R> {
        #[pin]
        inner: R,
        buffer: Offload<GoBuffer>,
    }
}

impl<R> GoReader<R> {
    /// A reader of the stream that `inner` holds to its end. Of several keys, the one that opens the first chunk is used.
    #[must_use]
    pub fn new(inner: R, keys: impl Into<KeyRing>) -> Self {
        Self { inner, buffer: Offload::new(GoBuffer::new(keys.into())) }
    }

    /// The inner reader.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. What is read from it directly is missing from the stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Gives the inner reader back. What was read ahead, at most a chunk, is discarded and wiped.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead> AsyncRead for GoReader<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_buffered(self, cx, out)
    }
}

impl<R: AsyncRead> AsyncBufRead for GoReader<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let mut this = self.project();
        loop {
            let buffer = ready!(this.buffer.poll(cx))?;
            match buffer.next()? {
                Next::Take | Next::End => break,
                Next::Open(len) => this.buffer.run(len, GoBuffer::open),
                Next::Read => {
                    if ready!(poll_read_some(this.inner.as_mut(), cx, &mut buffer.spare()))? == 0 {
                        buffer.end_of_input();
                    }
                }
            }
        }
        let buffer = ready!(this.buffer.poll(cx))?;
        Poll::Ready(Ok(buffer.plaintext()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        // What `poll_fill_buf` has shown lies in a buffer that is here.
        if let Some(buffer) = self.project().buffer.get_mut() {
            buffer.consume(n);
        }
    }
}

impl<R> fmt::Debug for GoReader<R> {
    /// Leaves out the inner value, which may be a buffer full of data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoReader").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

enum Next {
    Take,
    /// Open the chunk, of this many bytes.
    Open(usize),
    Read,
    End,
}

/// One chunk on its way in.
struct GoBuffer {
    keys: KeyRing,
    header: Option<Header>,
    /// The one of the keys that has opened the first chunk.
    key: Option<GoKey>,
    /// What is being read: header, length or chunk; of a chunk that is open, the plaintext that is left.
    buf: Zeroizing<Vec<u8>>,
    stage: Stage,
    /// How many chunks were opened, and where the next one begins.
    chunks: u64,
    at: u64,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Header,
    /// The length of a chunk, or the end.
    Length,
    /// A chunk of this many bytes.
    Chunk(usize),
    /// What is left of a chunk begins here.
    Plaintext(usize),
    End,
    Failed(Error),
}

impl GoBuffer {
    fn new(keys: KeyRing) -> Self {
        Self { keys, header: None, key: None, buf: Zeroizing::default(), stage: Stage::Header, chunks: 0, at: 0 }
    }

    /// How much of the input the stage needs.
    fn required(&self) -> usize {
        match self.stage {
            Stage::Header => HEADER_LEN,
            Stage::Length => WORD_LEN,
            Stage::Chunk(len) => len,
            Stage::Plaintext(_) | Stage::End | Stage::Failed(_) => 0,
        }
    }

    /// Parses what has arrived, and says what is next.
    fn next(&mut self) -> io::Result<Next> {
        loop {
            match self.stage {
                Stage::Failed(error) => return Err(explain(error)),
                Stage::Plaintext(_) => return Ok(Next::Take),
                Stage::End => return Ok(Next::End),
                Stage::Chunk(len) if self.buf.len() == len => return Ok(Next::Open(len)),
                // Even of part of a header it shows whether it is one.
                Stage::Header => match Header::parse(&self.buf) {
                    Ok(None) => return Ok(Next::Read),
                    Ok(Some(header)) => {
                        self.header = Some(header);
                        self.next_chunk(HEADER_LEN);
                    }
                    Err(error) => self.fail(error),
                },
                Stage::Length => match self.buf.first_chunk().map(|&word| u32::from_le_bytes(word)) {
                    None => return Ok(Next::Read),
                    Some(word) => match self.chunk_len(word) {
                        Some(len) => {
                            self.buf.clear();
                            self.stage = Stage::Chunk(len);
                        }
                        None => self.fail(Error::InvalidFrame { frame: self.chunks, at: self.at, word }),
                    },
                },
                Stage::Chunk(_) => return Ok(Next::Read),
            }
        }
    }

    /// `None` for a length that no chunk has.
    fn chunk_len(&self, word: u32) -> Option<usize> {
        let most = self.header.as_ref().map_or(ChunkSize::MAX, |header| header.chunk_size).get() + TAG_LEN;
        usize::try_from(word).ok().filter(|len| (TAG_LEN + 1..=most).contains(len))
    }

    /// Goes to the next chunk, `len` bytes of the stream further on.
    fn next_chunk(&mut self, len: usize) {
        self.buf.clear();
        self.at += len as u64;
        self.stage = Stage::Length;
    }

    fn open(&mut self) {
        let (Some(nonce), Some(at)) =
            (self.header.as_ref().map(|header| header.nonce), self.buf.len().checked_sub(TAG_LEN))
        else {
            return;
        };
        let (body, tag) = self.buf.split_at_mut(at);
        let opened = match &self.key {
            Some(key) => key.open(Body::InPlace(body), tag).is_ok(),
            None => {
                self.key = find(&self.keys, nonce, body, tag);
                self.key.is_some()
            }
        };
        match self.chunks {
            _ if opened => {
                self.buf.truncate(at);
                self.stage = Stage::Plaintext(0);
            }
            0 => self.fail(Error::KeyMismatch),
            chunks => self.fail(Error::Corrupt { frame: chunks, at: self.at }),
        }
    }

    /// Room for what the stage still needs, as far as it can be trusted.
    fn spare(&mut self) -> impl BufMut {
        let (len, required) = (self.buf.len(), self.required());
        if self.key.is_some() {
            // Room for a whole chunk is made before anything of it has arrived, so nothing is lost; and not in place, where what
            // is moved could leave plaintext of earlier chunks behind.
            if self.buf.capacity() < required {
                self.buf = Zeroizing::default();
                self.buf.reserve_exact(required);
            }
        } else if len == self.buf.capacity() {
            // All ciphertext so far, so it may be moved without being wiped.
            self.buf.reserve_exact(required.min(2 * len + UNTRUSTED_LEN) - len);
        }
        let spare = self.buf.capacity().min(required) - len;
        (&mut *self.buf).limit(spare)
    }

    fn end_of_input(&mut self) {
        match self.stage {
            Stage::Length if self.buf.is_empty() => {
                self.buf = Zeroizing::default();
                self.stage = Stage::End;
            }
            _ => {
                let before = if let Stage::Chunk(_) = self.stage { WORD_LEN } else { 0 };
                self.fail(Error::Truncated { at: self.at + (before + self.buf.len()) as u64 });
            }
        }
    }

    fn plaintext(&self) -> &[u8] {
        match self.stage {
            Stage::Plaintext(start) => &self.buf[start..],
            _ => &[],
        }
    }

    fn consume(&mut self, n: usize) {
        assert!(n <= self.plaintext().len(), "no more can be consumed than there is");
        if let Stage::Plaintext(start) = self.stage {
            self.stage = Stage::Plaintext(start + n);
            if start + n == self.buf.len() {
                self.chunks += 1;
                self.next_chunk(WORD_LEN + self.buf.len() + TAG_LEN);
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.buf = Zeroizing::default();
        self.stage = Stage::Failed(error);
    }
}

/// The key that opens the first chunk, and has opened it.
fn find(keys: &KeyRing, nonce: [u8; NONCE_LEN], body: &mut [u8], tag: &[u8]) -> Option<GoKey> {
    let keys = keys.keys();
    // What one key fails to open is not there any more for the next.
    let sealed = (keys.len() > 1).then(|| body.to_vec());
    keys.iter().map(|key| GoKey::new(key, nonce)).find(|key| {
        let body = match &sealed {
            Some(sealed) => Body::Into { from: sealed, to: body },
            None => Body::InPlace(body),
        };
        key.open(body, tag).is_ok()
    })
}

/// The words of an error are about version 1. Where they would mislead, others take their place.
fn explain(error: Error) -> io::Error {
    let words = match error {
        Error::InvalidFrame { frame: 0, word: KEY_FRAME_WORD, .. } => {
            "this is a stream of format 1, not one of the Go library: it can be decrypted as it is, and needs no import".to_owned()
        }
        Error::KeyMismatch => {
            "no key given opens the first chunk of this stream of the Go library; it is another one's, or the chunk is damaged, \
             which looks the same there: check the key, then look for another copy"
                .to_owned()
        }
        Error::Corrupt { frame, at } => format!(
            "chunk {frame} of this stream of the Go library, at byte {at}, is damaged or was changed; what came before it may \
             have been cut or put in another order, which cannot be told there: compare it with another copy"
        ),
        _ => return error.into(),
    };
    Explained::instead(words, error.into())
}

impl fmt::Debug for GoBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoBuffer").field("stage", &self.stage).field("at", &self.at).finish_non_exhaustive()
    }
}
