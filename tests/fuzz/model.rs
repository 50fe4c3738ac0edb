//! What has to become of any bytes that are given out for a stream: which plaintext is released, and which error that is.
//!
//! It is the page of the format once more, on the bare primitives, slow and without I/O, and shares no code with the crate.
//! So it can be asked about whatever a fuzzer makes.

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use agcm::Error;
use hkdf::Hkdf;
use sha2::Sha256;

use crate::ways::Opened;

/// A reader's side: what it knows, and what it was told.
#[derive(Clone)]
pub struct Model {
    pub keys: Vec<[u8; 32]>,
    pub context: Vec<u8>,
    pub max_chunk: u32,
}

/// A stream whose prelude was opened.
struct Sealed {
    cipher: Aes256Gcm,
    nonce: [u8; 12],
    chunk: usize,
}

/// What a reader by offset can find.
pub struct Layout {
    pub total: usize,
    pub uniform: bool,
    /// The frames in order: their plaintext, or what is wrong with them.
    pub frames: Vec<(usize, Result<Vec<u8>, Error>)>,
    /// What is wrong with a frame word, so that there are no more frames. Never in a uniform stream, where the words are not
    /// needed to find the frames.
    pub walk: Result<(), Error>,
}

impl Model {
    pub fn new(key: [u8; 32]) -> Self {
        Self { keys: vec![key], context: Vec::new(), max_chunk: 10 * 1024 * 1024 }
    }

    /// A stream read in order: what is released, and where it ends.
    pub fn read(&self, stream: &[u8]) -> (Vec<u8>, Result<usize, Error>) {
        let mut released = Vec::new();
        let result = self.read_into(stream, &mut released);
        (released, result)
    }

    /// By what takes its input for exactly one stream.
    pub fn whole(&self, stream: &[u8]) -> Opened {
        let (released, end) = self.read(stream);
        let result = match end {
            Ok(at) if at < stream.len() => Err(Error::TrailingData { at: at as u64 }),
            other => other.map(drop),
        };
        (released, result)
    }

    /// By what takes its input for any number of streams.
    pub fn framed(&self, mut streams: &[u8]) -> Opened {
        let mut released = Vec::new();
        while !streams.is_empty() {
            match self.read_into(streams, &mut released) {
                Ok(end) => streams = &streams[end..],
                Err(error) => return (released, Err(error)),
            }
        }
        (released, Ok(()))
    }

    /// By one of the ways of `ways`, from the first byte of plaintext to the last.
    pub fn way(&self, name: &str, stream: &[u8]) -> Opened {
        if name.starts_with("frames") {
            return self.framed(stream);
        }
        let by_offset = name.starts_with("seek") || name.starts_with("range");
        if !by_offset {
            let (released, result) = self.whole(stream);
            let all_or_nothing = name == "one-shot" && result.is_err();
            return (if all_or_nothing { Vec::new() } else { released }, result);
        }
        match self.layout(stream) {
            Err(error) => (Vec::new(), Err(error)),
            Ok(layout) if name == "range" || name == "range, as a stream" => match layout.range(0..layout.total) {
                Ok(plaintext) => (plaintext, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            },
            Ok(layout) => layout.frame_by_frame(),
        }
    }

    fn read_into(&self, stream: &[u8], released: &mut Vec<u8>) -> Result<usize, Error> {
        let cut = Error::Truncated { at: stream.len() as u64 };
        let sealed = self.prelude(stream)?;
        let (mut at, mut frame, mut total, mut uniform, mut short) = (80, 0_u64, 0_u64, true, false);
        loop {
            let place = at as u64;
            let (kind, len) = word(stream, at).ok_or(cut)?;
            if !sealed.may_be(kind, len) {
                return Err(Error::InvalidFrame { frame, at: place, word: number(stream, at) });
            }
            let body = stream.get(at + 4..at + 4 + len).ok_or(cut)?;
            let position = if kind == 3 { 0 } else { total };
            let corrupt = Error::Corrupt { frame, at: place };
            let plaintext = sealed.open(kind, position, body).ok_or(corrupt)?;
            at += 4 + len;
            if kind == 3 {
                let expected = [&total.to_le_bytes()[..], &frame.to_le_bytes(), &[u8::from(uniform)]].concat();
                return if plaintext == expected { Ok(at) } else { Err(corrupt) };
            }
            uniform &= !short;
            short = plaintext.len() < sealed.chunk;
            total += plaintext.len() as u64;
            frame += 1;
            released.extend(plaintext);
        }
    }

    fn prelude(&self, stream: &[u8]) -> Result<Sealed, Error> {
        let cut = Error::Truncated { at: stream.len() as u64 };
        let seen = stream.len().min(4);
        if stream[..seen] != b"AGCM"[..seen] {
            return Err(Error::BadMagic);
        }
        if stream.len() < 24 {
            return Err(cut);
        }
        if number(stream, 4) != 1 {
            return Err(Error::UnsupportedVersion(number(stream, 4)));
        }
        let chunk = number(stream, 20);
        if !(1..=10 * 1024 * 1024).contains(&chunk) {
            return Err(Error::InvalidChunkSize(chunk.into()));
        }
        if chunk > self.max_chunk {
            return Err(Error::ChunkTooLarge { chunk: chunk.into(), max: self.max_chunk.into() });
        }
        match word(stream, 24).ok_or(cut)? {
            (0, _) => return Err(Error::LegacyStream),
            (1, 52) => {}
            _ => return Err(Error::InvalidFrame { frame: 0, at: 24, word: number(stream, 24) }),
        }
        let commitment = stream.get(48..80).ok_or(cut)?;
        let info = [b"AGCM-v1\0", &stream[..24], &stream[28..48], &self.context].concat();
        let okm = self.keys.iter().map(|key| {
            let mut okm = [0; 64];
            Hkdf::<Sha256>::from_prk(key).unwrap().expand(&info, &mut okm).unwrap();
            okm
        });
        let okm = okm.into_iter().find(|okm| okm[32..] == *commitment).ok_or(Error::KeyMismatch)?;
        let cipher = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
        Ok(Sealed { cipher, nonce: stream[8..20].try_into().unwrap(), chunk: chunk as usize })
    }

    /// What a reader by offset finds in what is exactly one stream, or why it does not open.
    pub fn layout(&self, stream: &[u8]) -> Result<Layout, Error> {
        let sealed = self.prelude(stream)?;
        if stream.len() < 117 || word(stream, stream.len() - 37) != Some((3, 33)) {
            return Err(Error::Truncated { at: stream.len() as u64 });
        }
        let (data, end) = stream.split_at(stream.len() - 37);
        let chunk = sealed.chunk as u64;
        let corrupt = Error::Corrupt { frame: (data.len() as u64 - 80).div_ceil(20 + chunk), at: data.len() as u64 };
        let trailer = sealed.open(3, 0, &end[4..]).ok_or(corrupt)?;
        let [total, count] = [0, 8].map(|at| u64::from_le_bytes(trailer[at..at + 8].try_into().unwrap()));
        let uniform = match trailer[16] {
            0 => false,
            1 => true,
            _ => return Err(corrupt),
        };
        let exact = u128::from(total) + 20 * u128::from(count) + 80 == data.len() as u128;
        let possible = if uniform {
            u128::from(count) == u128::from(total).div_ceil(chunk.into())
        } else {
            count > 1 && count <= total && u128::from(total) < u128::from(count) * u128::from(chunk)
        };
        if !exact || !possible {
            return Err(corrupt);
        }
        let (total, count) = (usize::try_from(total).unwrap(), usize::try_from(count).unwrap());
        let mut layout = Layout { total, uniform, frames: Vec::new(), walk: Ok(()) };
        layout.walk = layout.find(&sealed, data, count);
        Ok(layout)
    }
}

impl Layout {
    fn find(&mut self, sealed: &Sealed, data: &[u8], count: usize) -> Result<(), Error> {
        let (mut at, mut position) = (80, 0);
        let mut full = true;
        for frame in 0..count {
            let full_before = full;
            let (number, place) = (frame as u64, at as u64);
            let found = word(data, at).unwrap();
            let invalid = Error::InvalidFrame { frame: number, at: place, word: self::number(data, at) };
            let expected = sealed.chunk.min(self.total - position);
            if self.uniform && found != (2, expected + 16) {
                self.frames.push((position, Err(invalid)));
                (at, position) = (at + 20 + expected, position + expected);
                continue;
            }
            if found.0 != 2 || !sealed.may_be(2, found.1) {
                return Err(invalid);
            }
            let len = found.1 - 16;
            // The frames behind it must hold all that is left.
            let behind = count - frame - 1;
            let left = self.total.checked_sub(position + len).ok_or(invalid)?;
            if behind > 0 && !(behind..=behind * sealed.chunk).contains(&left) {
                return Err(invalid);
            }
            full &= len == sealed.chunk;
            let next = (at + 20 + len, position + len);
            // With the last frame, all must be as the end says; and all full before it would be a uniform stream.
            if frame + 1 == count && (next.1 != self.total || full_before != self.uniform) {
                return Err(Error::Corrupt { frame: number + 1, at: next.0 as u64 });
            }
            let opened = sealed.open(2, position as u64, &data[at + 4..next.0]);
            self.frames.push((position, opened.ok_or(Error::Corrupt { frame: number, at: place })));
            (at, position) = next;
        }
        Ok(())
    }

    /// One frame after the other, up to the first that is bad.
    fn frame_by_frame(&self) -> Opened {
        let mut released = Vec::new();
        for (_, frame) in &self.frames {
            match frame {
                Ok(plaintext) => released.extend_from_slice(plaintext),
                Err(error) => return (released, Err(*error)),
            }
        }
        (released, self.walk)
    }

    /// All of a range, or what is wrong with a frame that holds part of it; or with the way there.
    pub fn range(&self, range: std::ops::Range<usize>) -> Result<Vec<u8>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.walk?;
        let mut plaintext = Vec::new();
        let mut first = Ok(());
        for (i, (position, frame)) in self.frames.iter().enumerate() {
            let end = self.frames.get(i + 1).map_or(self.total, |(position, _)| *position);
            if *position >= range.end || end <= range.start {
                continue;
            }
            match frame {
                Ok(frame) => plaintext.extend_from_slice(
                    &frame[range.start.saturating_sub(*position)..(range.end - position).min(frame.len())],
                ),
                Err(error) => first = first.and(Err(*error)),
            }
        }
        first.map(|()| plaintext)
    }
}

impl Sealed {
    fn may_be(&self, kind: u8, len: usize) -> bool {
        match kind {
            2 => (17..=self.chunk + 16).contains(&len),
            3 => len == 33,
            _ => false,
        }
    }

    fn open(&self, kind: u8, position: u64, body: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = self.nonce;
        nonce[0] ^= kind;
        for (byte, position) in nonce[4..].iter_mut().zip(position.to_le_bytes()) {
            *byte ^= position;
        }
        open(&self.cipher, nonce, body)
    }
}

fn open(cipher: &Aes256Gcm, nonce: [u8; 12], body: &[u8]) -> Option<Vec<u8>> {
    let (ciphertext, tag) = body.split_last_chunk::<16>()?;
    let mut plaintext = ciphertext.to_vec();
    let opened = cipher.decrypt_inout_detached(&nonce.into(), b"", plaintext.as_mut_slice().into(), tag.into());
    opened.ok().map(|()| plaintext)
}

/// A stream of the Go library: what is released, and what is wrong.
pub fn go(keys: &[[u8; 32]], stream: &[u8]) -> Opened {
    let mut released = Vec::new();
    let result = go_into(keys, stream, &mut released);
    (released, result)
}

fn go_into(keys: &[[u8; 32]], stream: &[u8], released: &mut Vec<u8>) -> Result<(), Error> {
    let cut = Error::Truncated { at: stream.len() as u64 };
    let seen = stream.len().min(4);
    if stream[..seen] != b"AGCM"[..seen] {
        return Err(Error::BadMagic);
    }
    let header = stream.get(..24).ok_or(cut)?;
    if number(header, 4) != 1 {
        return Err(Error::UnsupportedVersion(number(header, 4)));
    }
    let chunk = number(header, 20);
    if !(1..=10 * 1024 * 1024).contains(&chunk) {
        return Err(Error::InvalidChunkSize(chunk.into()));
    }
    let nonce: [u8; 12] = header[8..20].try_into().unwrap();
    let mut ciphers: Vec<Aes256Gcm> = keys.iter().map(|key| Aes256Gcm::new_from_slice(key).unwrap()).collect();
    let (mut at, mut frame) = (24, 0);
    while at < stream.len() {
        if stream.len() - at < 4 {
            return Err(cut);
        }
        let len = number(stream, at);
        if !(17..=chunk + 16).contains(&len) {
            return Err(Error::InvalidFrame { frame, at: at as u64, word: len });
        }
        let body = stream.get(at + 4..at + 4 + len as usize).ok_or(cut)?;
        let opened = ciphers.iter().enumerate().find_map(|(i, cipher)| Some((i, open(cipher, nonce, body)?)));
        let Some((i, plaintext)) = opened else {
            return Err(if frame == 0 { Error::KeyMismatch } else { Error::Corrupt { frame, at: at as u64 } });
        };
        // The one that has opened the first chunk is the one for all.
        ciphers = vec![ciphers.swap_remove(i)];
        released.extend(plaintext);
        (at, frame) = (at + 4 + len as usize, frame + 1);
    }
    Ok(())
}

/// Kind and length of the frame at `at`, if its word is there.
fn word(stream: &[u8], at: usize) -> Option<(u8, usize)> {
    let word = stream.get(at..at + 4)?;
    Some((word[3], usize::from(word[0]) | usize::from(word[1]) << 8 | usize::from(word[2]) << 16))
}

fn number(stream: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(stream[at..at + 4].try_into().unwrap())
}

/// The model has to agree with what was made without it.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{vectors, ways};

    #[test]
    fn the_model_reads_every_valid_vector() {
        for vector in vectors::valid() {
            let Some(stream) = vector.stream else { continue };
            let model = Model { context: vector.context, ..Model::new(vector.key) };
            for (way, _) in ways::all() {
                assert!(model.way(way, &stream) == (vectors::plaintext(vector.plaintext_len), Ok(())), "{way}");
            }
        }
    }

    #[test]
    fn the_model_says_of_every_invalid_vector_what_is_wrong_with_it() {
        for vector in vectors::invalid() {
            let model = Model { context: vector.context, ..Model::new(vector.key) };
            let (_, result) = model.whole(&vector.stream);
            assert_eq!(result.map_err(ways::name), Err(vector.error), "{}", vector.name);
            assert!(model.layout(&vector.stream).is_ok_and(|layout| layout.frame_by_frame().1.is_ok()).eq(&false));
        }
    }
}
