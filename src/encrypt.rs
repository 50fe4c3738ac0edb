//! The encrypting half of the core: plaintext in, frames out, no I/O.
//!
//! Every adapter that encrypts stands on [`Encryptor`]. It must never seal two things under one nonce: it owns the position,
//! is not `Clone`, and [`Encryptor::finish`] consumes it.

use std::{fmt, io, sync::Arc};

use bytes::BufMut;

use crate::{
    aead::{Body, StreamKey},
    error::Error,
    format::{
        FINAL_FRAME_LEN, FRAME_OVERHEAD, Header, Kind, NONCE_LEN, PRELUDE_LEN, SALT_LEN, TAG_LEN, TRAILER_LEN, Tally,
        WORD_LEN,
    },
    key::Key,
    observe::{Direction, Watch},
    options::EncryptOptions,
    random,
};

/// Encrypts one stream, frame by frame, without doing any I/O.
///
/// This is the core that the adapters of this crate share; use it where none of them fits, in synchronous code for example.
/// The stream is what it hands out, in order: the prelude, a frame per chunk, the final frame.
///
/// Each call does at most one AEAD operation and writes into a buffer that the caller owns. Chunks may be shorter than the
/// chunk size, but only if all of them except the last are full is the stream *uniform*, which readers that seek like best.
///
/// Dropping an `Encryptor` does not finish its stream: readers will say [`Error::Truncated`].
///
/// An `Encryptor` is not `Clone`, because two that go on from one state would seal different data under the same nonces. What
/// the type system cannot prevent is that a process forks, or a virtual machine is restored from a snapshot, in the middle of
/// a stream, and both copies go on with it: drop what is open in one of them.
///
/// ```
/// use std::io::{self, Write};
/// use agcm::{EncryptOptions, Encryptor, Key};
///
/// fn encrypt_to(mut out: impl Write, key: &Key, plaintext: &[u8]) -> io::Result<()> {
///     let (mut encryptor, prelude) = Encryptor::start(key, &EncryptOptions::new())?;
///     out.write_all(&prelude)?;
///
///     let mut frame = Vec::new();
///     for chunk in plaintext.chunks(encryptor.chunk_size()) {
///         frame.clear();
///         encryptor.seal(chunk, &mut frame)?;
///         out.write_all(&frame)?;
///     }
///     out.write_all(&encryptor.finish())
/// }
///
/// let key = Key::generate();
/// let mut stream = Vec::new();
/// encrypt_to(&mut stream, &key, b"synchronous")?;
/// assert_eq!(agcm::decrypt(&key, &stream)?, b"synchronous");
/// # Ok::<(), io::Error>(())
/// ```
pub struct Encryptor {
    key: Arc<StreamKey>,
    tally: Tally,
    watch: Watch,
}

impl Encryptor {
    /// Starts a stream under fresh randomness and returns its prelude (header and key frame), the first 80 bytes.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random bytes.
    pub fn start(key: &Key, options: &EncryptOptions) -> io::Result<(Self, [u8; PRELUDE_LEN])> {
        // In one go: for a short stream, to ask the system takes longer than to seal.
        let mut randomness = [0; NONCE_LEN + SALT_LEN];
        random::fill(&mut randomness)?;
        let (mut nonce, mut salt) = ([0; NONCE_LEN], [0; SALT_LEN]);
        nonce.copy_from_slice(&randomness[..NONCE_LEN]);
        salt.copy_from_slice(&randomness[NONCE_LEN..]);
        Ok(Self::start_with(key, options, nonce, salt))
    }

    /// Starts a stream with a given nonce and salt, which must never have been used under this key: private, for `start` and
    /// for the tests that hold us against the reference vectors.
    pub(crate) fn start_with(
        key: &Key,
        options: &EncryptOptions,
        nonce: [u8; NONCE_LEN],
        salt: [u8; SALT_LEN],
    ) -> (Self, [u8; PRELUDE_LEN]) {
        let chunk_size = options.chunk_size;
        let (key, prelude) = StreamKey::start(key, Header { nonce, chunk_size }, salt, options.context.as_bytes());
        let mut watch = Watch::new(Direction::Encrypt);
        watch.start(chunk_size.get());
        (Self { key: Arc::new(key), tally: Tally::new(chunk_size), watch }, prelude.encode())
    }

    /// The chunk size of the stream, in bytes: the most that one frame holds.
    #[must_use]
    pub fn chunk_size(&self) -> usize {
        self.tally.chunk_size().get()
    }

    /// Seals the next chunk and appends its frame, [`FRAME_OVERHEAD`] bytes longer, to `out`.
    ///
    /// # Errors
    ///
    /// As for [`seal_in_place`](Self::seal_in_place); `out` is then as it was.
    pub fn seal(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        out.reserve(chunk.len() + FRAME_OVERHEAD);
        self.seal_onto(chunk, out)
    }

    /// [`seal`](Self::seal) onto any buffer that grows at its end.
    pub(crate) fn seal_onto(&mut self, chunk: &[u8], out: &mut (impl BufMut + AsMut<[u8]>)) -> Result<(), Error> {
        self.admit(chunk.len())?;
        let start = out.as_mut().len();
        out.put_bytes(0, WORD_LEN);
        out.put_slice(chunk);
        out.put_bytes(0, TAG_LEN);
        self.seal_in_place(&mut out.as_mut()[start..])
    }

    /// Seals the next chunk where it lies: `frame` holds 4 bytes of any content, the plaintext, and 16 bytes of any content,
    /// and becomes the frame. Nothing is copied.
    ///
    /// ```
    /// use agcm::{EncryptOptions, Encryptor, Key};
    ///
    /// let key = Key::generate();
    /// let (mut encryptor, prelude) = Encryptor::start(&key, &EncryptOptions::new())?;
    /// let mut frame = *b"....in place................";
    /// encryptor.seal_in_place(&mut frame)?;
    ///
    /// let stream = [&prelude[..], &frame, &encryptor.finish()].concat();
    /// assert_eq!(agcm::decrypt(&key, &stream)?, b"in place");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidChunkSize`] for an empty chunk (the format has no empty frames), [`Error::ChunkTooLarge`] for one over
    /// the chunk size, [`Error::StreamTooLong`] past the limits of a stream. Nothing was sealed then, `frame` is as it was,
    /// and the stream can go on.
    ///
    /// # Panics
    ///
    /// If `frame` is shorter than [`FRAME_OVERHEAD`].
    pub fn seal_in_place(&mut self, frame: &mut [u8]) -> Result<(), Error> {
        assert!(frame.len() >= FRAME_OVERHEAD, "a frame has room for its word and its tag");
        let len = frame.len() - FRAME_OVERHEAD;
        self.admit(len)?;
        self.permit(len)?.seal_in_place(frame);
        Ok(())
    }

    /// Gives out the places of the next `len` plaintext bytes, in full chunks but for the last, which may be shorter. Whoever
    /// has the permit seals them, or the stream is of no use.
    ///
    /// # Errors
    ///
    /// [`Error::StreamTooLong`] past the limits of a stream; then none of them was given out.
    pub(crate) fn permit(&mut self, len: usize) -> Result<Permit, Error> {
        let chunk_size = self.chunk_size();
        self.tally.admit(len, len.div_ceil(chunk_size) as u64)?;
        let permit = Permit { key: self.key.clone(), position: self.tally.total(), len, chunk_size };
        self.tally.add_chunks(len);
        self.watch.reach(self.tally.total(), self.tally.frames());
        Ok(permit)
    }

    /// Ends the stream: returns its final frame. Whoever reads the stream takes it for whole only with this frame at its end.
    #[must_use = "a stream without its final frame is truncated"]
    pub fn finish(mut self) -> [u8; FINAL_FRAME_LEN] {
        let mut frame = [0; FINAL_FRAME_LEN];
        frame[WORD_LEN..][..TRAILER_LEN].copy_from_slice(&self.tally.trailer().encode());
        seal_frame(&self.key, Kind::Final, 0, None, &mut frame);
        self.watch.finish();
        frame
    }

    /// Whether `len` more plaintext bytes and `frames` more data frames are within the limits of a stream: a caller that must
    /// not fail half-way asks before it takes anything.
    pub(crate) fn admit_more(&self, len: usize, frames: u64) -> Result<(), Error> {
        self.tally.admit(len, frames)
    }

    fn admit(&self, len: usize) -> Result<(), Error> {
        if len == 0 {
            return Err(Error::InvalidChunkSize(0));
        }
        if len > self.chunk_size() {
            return Err(Error::ChunkTooLarge { chunk: len as u64, max: self.chunk_size() as u64 });
        }
        self.tally.admit(len, 1)
    }

    /// An encryptor that has sealed all but this much, to reach the limits of a stream in a test.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, total: u64, frames: u64) {
        self.tally = Tally::at(total, frames, self.tally.chunk_size());
    }
}

/// The places of some plaintext in its stream, each of which may be sealed once: so sealing uses it up, and it is not `Clone`.
///
/// It may go to another thread, and several may be used in any order.
pub(crate) struct Permit {
    key: Arc<StreamKey>,
    position: u64,
    len: usize,
    chunk_size: usize,
}

impl Permit {
    /// How much plaintext it is for, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How long the frames will be, in bytes, words and tags included.
    pub(crate) fn frames_len(&self) -> usize {
        self.len + FRAME_OVERHEAD * self.len.div_ceil(self.chunk_size)
    }

    /// Seals the chunks where they lie, each with room for its word before it and for its tag behind it.
    pub(crate) fn seal_in_place(self, frames: &mut [u8]) {
        assert_eq!(frames.len(), self.frames_len(), "what is sealed has the length that was asked for");
        for (position, frame) in self.places().zip(frames.chunks_mut(self.chunk_size + FRAME_OVERHEAD)) {
            seal_frame(&self.key, Kind::Data, position, None, frame);
        }
    }

    /// Seals the chunks of `plaintext` into `frames`. Nothing is copied but by the cipher.
    pub(crate) fn seal_from(self, plaintext: &[u8], frames: &mut [u8]) {
        assert_eq!(plaintext.len(), self.len, "what is sealed has the length that was asked for");
        assert_eq!(frames.len(), self.frames_len(), "and the frames have theirs");
        let frames = frames.chunks_mut(self.chunk_size + FRAME_OVERHEAD);
        for ((position, chunk), frame) in self.places().zip(plaintext.chunks(self.chunk_size)).zip(frames) {
            seal_frame(&self.key, Kind::Data, position, Some(chunk), frame);
        }
    }

    /// Where the chunks stand in the plaintext.
    fn places(&self) -> impl Iterator<Item = u64> + use<> {
        (self.position..).step_by(self.chunk_size)
    }
}

/// `frame` has room for word, body and tag. The body is made of `chunk`, or of the plaintext that stands in its place.
fn seal_frame(key: &StreamKey, kind: Kind, position: u64, chunk: Option<&[u8]>, frame: &mut [u8]) {
    let (head, tag) = frame.split_at_mut(frame.len() - TAG_LEN);
    let (word, body) = head.split_at_mut(WORD_LEN);
    word.copy_from_slice(&kind.word(body.len() + TAG_LEN));
    let body = match chunk {
        Some(from) => Body::Into { from, to: body },
        None => Body::InPlace(body),
    };
    tag.copy_from_slice(&key.seal(kind, position, body));
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("tally", &self.tally).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        format::{MAX_FRAMES, MAX_PLAINTEXT_LEN},
        vectors,
    };

    fn started(chunk_size: usize) -> Encryptor {
        let options = EncryptOptions::new().chunk_size(chunk_size).unwrap();
        Encryptor::start(&Key::generate(), &options).unwrap().0
    }

    #[test]
    fn sealing_a_chunk_makes_room_for_its_frame_and_not_for_more() {
        let (mut encryptor, mut frame) = (started(1000), Vec::new());
        encryptor.seal(&[7; 1000], &mut frame).unwrap();
        assert_eq!(frame.len(), 1020);
        assert!(frame.capacity() < 2000);
    }

    #[test]
    fn encrypts_every_valid_vector_byte_for_byte() {
        for vector in vectors::valid() {
            let options = EncryptOptions::new().chunk_size(vector.chunk_size).unwrap().context(vector.context).unwrap();
            let key = Key::from_bytes(vector.key);
            let (mut encryptor, prelude) = Encryptor::start_with(&key, &options, vector.nonce, vector.salt);

            let mut stream = prelude.to_vec();
            let plaintext = vectors::plaintext(vector.plaintext_len);
            let mut rest = &plaintext[..];
            for len in vector.frames {
                let (chunk, after) = rest.split_at(len);
                encryptor.seal(chunk, &mut stream).unwrap();
                rest = after;
            }
            assert!(rest.is_empty(), "{}", vector.name);
            stream.extend_from_slice(&encryptor.finish());

            assert_eq!(stream.len(), vector.stream_len, "{}", vector.name);
            assert_eq!(Sha256::digest(&stream)[..], vector.stream_sha256, "{}", vector.name);
            if let Some(expected) = vector.stream {
                assert_eq!(stream, expected, "{}", vector.name);
            }
        }
    }

    #[test]
    fn in_place_and_appended_frames_are_the_same_bytes() {
        let (key, options) = (Key::generate(), EncryptOptions::new());
        let start = || Encryptor::start_with(&key, &options, [1; 12], [2; 20]).0;
        let mut appended = b"before".to_vec();
        start().seal(b"some plaintext", &mut appended).unwrap();

        let mut in_place = [&[0xff; WORD_LEN][..], b"some plaintext", &[0xff; TAG_LEN]].concat();
        start().seal_in_place(&mut in_place).unwrap();
        assert_eq!(appended, [b"before", &in_place[..]].concat());
    }

    #[test]
    fn randomness_is_fresh_for_every_stream() {
        let (key, options) = (Key::generate(), EncryptOptions::new());
        let (_, one) = Encryptor::start(&key, &options).unwrap();
        let (_, two) = Encryptor::start(&key, &options).unwrap();
        assert_ne!(one[8..20], two[8..20], "nonce");
        assert_ne!(one[28..48], two[28..48], "salt");
    }

    #[test]
    fn without_randomness_no_stream_starts() {
        random::failing::set(true);
        let result = Encryptor::start(&Key::from_bytes([1; 32]), &EncryptOptions::new());
        random::failing::set(false);
        assert!(result.is_err());
    }

    #[test]
    fn a_chunk_of_a_wrong_size_is_refused_and_the_stream_goes_on() {
        let mut encryptor = started(16);
        let mut out = vec![7];
        assert_eq!(encryptor.seal(&[], &mut out), Err(Error::InvalidChunkSize(0)));
        assert_eq!(encryptor.seal(&[0; 17], &mut out), Err(Error::ChunkTooLarge { chunk: 17, max: 16 }));
        assert_eq!(out, [7]);
        let mut frame = [9; 16 + 1 + FRAME_OVERHEAD];
        assert_eq!(encryptor.seal_in_place(&mut frame), Err(Error::ChunkTooLarge { chunk: 17, max: 16 }));
        assert_eq!(frame, [9; 16 + 1 + FRAME_OVERHEAD]);
        assert_eq!(encryptor.seal(&[0; 16], &mut out), Ok(()));
    }

    #[test]
    fn a_stream_ends_at_its_limits_and_not_before() {
        let mut encryptor = started(16);
        encryptor.skip_to(MAX_PLAINTEXT_LEN - 20, 0);
        assert_eq!(encryptor.seal(&[0; 16], &mut Vec::new()), Ok(()));
        assert_eq!(encryptor.seal(&[0; 5], &mut Vec::new()), Err(Error::StreamTooLong));
        assert_eq!(encryptor.seal(&[0; 4], &mut Vec::new()), Ok(()));
        assert_eq!(encryptor.seal(&[0; 1], &mut Vec::new()), Err(Error::StreamTooLong));

        let mut encryptor = started(16);
        encryptor.skip_to(0, MAX_FRAMES - 1);
        assert_eq!(encryptor.seal(&[0; 16], &mut Vec::new()), Ok(()));
        assert_eq!(encryptor.seal(&[0; 1], &mut Vec::new()), Err(Error::StreamTooLong));
    }
}
