//! Streams, good and bad, and what is to be had from them.

use agcm::{DecryptOptions, Decryptor, EncryptOptions, Encryptor, Error, Key, Step};

use crate::{inject::Dice, reference::Reference};

/// A chunk size and a length of plaintext.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub chunk: usize,
    pub len: usize,
}

impl Shape {
    /// Mostly small. Now and then batches of several workers get full, or chunks are so long that they are worked on elsewhere.
    pub fn any(dice: &mut Dice) -> Self {
        let (chunk, most) = match dice.below(1000) {
            0..600 => {
                let chunk = dice.pick(&[1, 2, 3, 7, 16, 100]);
                (chunk, chunk * 12 + 40)
            }
            600..960 => {
                let chunk = dice.pick(&[1000, 4096, 16_384, 65_536]);
                (chunk, chunk * 4)
            }
            960..985 => (dice.pick(&[16_384, 65_536, 100_000, 300_000]), 3_000_000),
            _ => {
                let chunk = dice.pick(&[1 << 20, (1 << 20) + 1, 1_300_000]);
                (chunk, chunk * 5 / 2)
            }
        };
        let len = if dice.percent(30) { chunk * dice.below(most / chunk + 1) } else { dice.below(most + 1) };
        Self { chunk, len }
    }
}

/// A stream in its pieces, each with the plaintext it holds.
pub struct Specimen {
    pub key: Key,
    pub chunk: usize,
    pub plaintext: Vec<u8>,
    /// Prelude, data frames, final frame.
    pub pieces: Vec<Vec<u8>>,
    /// The plaintext length of each data frame.
    pub lens: Vec<usize>,
}

impl Specimen {
    pub fn any(dice: &mut Dice) -> Self {
        let shape = Shape::any(dice);
        Self::of(dice, shape)
    }

    /// Uniform or irregular.
    pub fn of(dice: &mut Dice, Shape { chunk, len }: Shape) -> Self {
        let key = any_key(dice);
        let plaintext = dice.bytes(len);
        let irregular = dice.pick(&[0, 0, 20, 100]);
        let mut lens = Vec::new();
        let mut left = len;
        while left > 0 {
            let most = chunk.min(left);
            // Not too many, in long streams.
            let least = if len > 20_000 { most / 4 + 1 } else { 1 };
            let len = if dice.percent(irregular) { least + dice.below(most - least + 1) } else { most };
            lens.push(len);
            left -= len;
        }
        let pieces = seal(&key, chunk, &plaintext, &lens);
        Self { key, chunk, plaintext, pieces, lens }
    }

    pub fn stream(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    pub fn is_uniform(&self) -> bool {
        self.lens.iter().rev().skip(1).all(|&len| len == self.chunk)
    }

    /// The stream as it is, or damaged in some way; and how, if it is.
    pub fn spoiled(&self, dice: &mut Dice) -> (Vec<u8>, Option<&'static str>) {
        let mut pieces = self.pieces.clone();
        let last = pieces.len() - 1;
        let frames = last - 1;
        let how = match dice.below(24) {
            0 | 1 => {
                let mut stream = pieces.concat();
                stream.truncate(dice.below(stream.len()));
                return (stream, Some("cut"));
            }
            2 => {
                pieces.truncate(dice.below(pieces.len()));
                "cut between frames"
            }
            3 | 4 => {
                let piece = dice.below(pieces.len());
                let i = dice.below(pieces[piece].len());
                pieces[piece][i] ^= 1 << dice.below(8);
                "a bit was flipped"
            }
            5 => {
                let piece = 1 + dice.below(last);
                let i = dice.below(4);
                pieces[piece][i] ^= 1 << dice.below(8);
                "a bit of a word was flipped"
            }
            6 if frames > 0 => {
                let piece = 1 + dice.below(frames);
                let tag = pieces[piece].len() - 1 - dice.below(16);
                pieces[piece][tag] ^= 1;
                "a bit of a tag was flipped"
            }
            7 if frames > 0 => {
                pieces.remove(1 + dice.below(frames));
                "a frame was taken out"
            }
            8 if frames > 0 => {
                let piece = 1 + dice.below(frames);
                pieces.insert(piece, pieces[piece].clone());
                "a frame came twice"
            }
            9 if frames > 1 => {
                let (a, b) = (1 + dice.below(frames), 1 + dice.below(frames));
                let b = if a == b { a % frames + 1 } else { b };
                pieces.swap(a, b);
                "frames were exchanged"
            }
            10 if frames > 0 => {
                let other = seal(&self.key, self.chunk, &self.plaintext, &self.lens);
                let piece = 1 + dice.below(last);
                pieces[piece] = other[piece].clone();
                "a frame of another stream"
            }
            11 => {
                let len = 1 + dice.below(100);
                pieces.push(dice.bytes(len));
                "something follows"
            }
            12 => {
                pieces.extend(seal(&self.key, self.chunk, &self.plaintext, &self.lens));
                "another stream follows"
            }
            13 => {
                // By somebody who has the key: an honest final frame, but of another stream.
                let prelude = &pieces[0];
                let (nonce, salt) = (prelude[8..20].try_into().unwrap(), prelude[28..48].try_into().unwrap());
                let chunk = u32::try_from(self.chunk).unwrap();
                let reference = Reference::new(self.key.expose_bytes(), nonce, salt, chunk, b"");
                let (total, layout) = (self.plaintext.len() as u64, u8::from(self.is_uniform()));
                pieces[last] = match dice.below(3) {
                    0 => reference.end(total + 1, frames as u64, layout),
                    1 => reference.end(total, frames as u64 + 1, layout),
                    _ => reference.end(total, frames as u64, layout ^ 1),
                };
                "a final frame that does not agree"
            }
            14 => {
                pieces.remove(last);
                "without its end"
            }
            15 => {
                return (dice.bytes(50), Some("no stream at all"));
            }
            _ => return (pieces.concat(), None),
        };
        (pieces.concat(), Some(how))
    }
}

fn seal(key: &Key, chunk: usize, plaintext: &[u8], lens: &[usize]) -> Vec<Vec<u8>> {
    let options = EncryptOptions::new().chunk_size(chunk).unwrap();
    let (mut encryptor, prelude) = Encryptor::start(key, &options).unwrap();
    let mut pieces = vec![prelude.to_vec()];
    let mut rest = plaintext;
    for &len in lens {
        let mut frame = Vec::with_capacity(len + 20);
        encryptor.seal(&rest[..len], &mut frame).unwrap();
        pieces.push(frame);
        rest = &rest[len..];
    }
    pieces.push(encryptor.finish().to_vec());
    pieces
}

pub fn any_key(dice: &mut Dice) -> Key {
    Key::try_from(&dice.bytes(32)[..]).unwrap()
}

/// What is to be had from a stream, by the sans-IO core.
pub struct Model {
    pub released: Vec<u8>,
    pub result: Result<(), Error>,
    /// Of each data frame that opens, where it ends in the stream, and in the plaintext.
    pub ends: Vec<(usize, usize)>,
    /// Where the stream ends, if it is whole.
    pub end: usize,
}

impl Model {
    /// `reject`: nothing may follow.
    pub fn of(key: &Key, stream: &[u8], reject: bool) -> Self {
        let mut decryptor = Decryptor::new(key, &DecryptOptions::new());
        let mut model = Self { released: Vec::new(), result: Ok(()), ends: Vec::new(), end: 0 };
        let mut at = 0;
        loop {
            match decryptor.open(&stream[at..], &mut model.released) {
                Ok(Step::Start { consumed }) => at += consumed,
                Ok(Step::Data { consumed, .. }) => {
                    at += consumed;
                    model.ends.push((at, model.released.len()));
                }
                Ok(Step::End { consumed }) => {
                    at += consumed;
                    model.end = at;
                    if reject && at < stream.len() {
                        model.result = Err(Error::TrailingData { at: at as u64 });
                    }
                    return model;
                }
                Ok(Step::Incomplete { .. }) => {
                    model.result = decryptor.end_of_input(stream.len() - at);
                    assert!(model.result.is_err());
                    return model;
                }
                Err(error) => {
                    model.result = Err(error);
                    return model;
                }
            }
        }
    }

    /// Holds the model itself to what was done to the stream.
    #[track_caller]
    pub fn check(&self, specimen: &Specimen, how: Option<&str>, reject: bool) {
        assert!(specimen.plaintext.starts_with(&self.released), "plaintext of another stream");
        let follows = matches!(how, Some("something follows" | "another stream follows"));
        let is_good = how.is_none() || follows && !reject;
        assert_eq!(self.result.is_ok(), is_good, "{how:?}: {:?}", self.result);
        assert!(!is_good || self.released == specimen.plaintext);
    }

    /// How much plaintext the whole frames hold in the first `read` bytes of the stream.
    pub fn complete(&self, read: usize) -> usize {
        self.ends.iter().take_while(|(end, _)| *end <= read).last().map_or(0, |(_, plaintext)| *plaintext)
    }

    /// How much of the stream must be there for its error to show, but for one that it was cut.
    pub fn needed(&self, stream: &[u8]) -> Option<usize> {
        let at = |at: u64| usize::try_from(at).unwrap();
        match self.result {
            Err(Error::Corrupt { at: place, .. }) => {
                let word = &stream[at(place)..][..4];
                Some(at(place) + 4 + u32::from_le_bytes([word[0], word[1], word[2], 0]) as usize)
            }
            // A word that came with the end of a frame is looked at by the next call.
            Err(Error::InvalidFrame { at: place, .. }) => Some(at(place) + 5),
            Err(Error::TrailingData { at: place }) => Some(at(place) + 1),
            Err(Error::KeyMismatch) => Some(80),
            Err(Error::LegacyStream) => Some(28),
            Err(Error::UnsupportedVersion(_) | Error::InvalidChunkSize(_)) => Some(24),
            Err(Error::BadMagic) => Some(4),
            _ => None,
        }
    }
}
