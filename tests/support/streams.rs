//! Small streams of every shape, for tests that try every offset.

use agcm::{EncryptOptions, Encryptor, Key};

use crate::vectors::plaintext;

/// A stream and what is in it.
pub struct Stream {
    pub chunk_size: usize,
    /// The plaintext length of each data frame.
    pub frames: Vec<usize>,
    pub plaintext: Vec<u8>,
    pub bytes: Vec<u8>,
}

impl Stream {
    /// A stream with exactly these frames.
    pub fn of_frames(key: &Key, chunk_size: usize, frames: &[usize]) -> Self {
        let options = EncryptOptions::new().chunk_size(chunk_size).unwrap();
        let (mut encryptor, prelude) = Encryptor::start(key, &options).unwrap();
        let plaintext = plaintext(frames.iter().sum());
        let mut bytes = prelude.to_vec();
        let mut rest = &plaintext[..];
        for &len in frames {
            let (chunk, after) = rest.split_at(len);
            encryptor.seal(chunk, &mut bytes).unwrap();
            rest = after;
        }
        bytes.extend_from_slice(&encryptor.finish());
        Self { chunk_size, frames: frames.to_vec(), plaintext, bytes }
    }

    /// A uniform stream of this much plaintext.
    pub fn uniform(key: &Key, chunk_size: usize, len: usize) -> Self {
        let mut frames = vec![chunk_size; len / chunk_size];
        frames.extend((len % chunk_size > 0).then_some(len % chunk_size));
        Self::of_frames(key, chunk_size, &frames)
    }

    pub fn is_uniform(&self) -> bool {
        self.frames.iter().rev().skip(1).all(|&len| len == self.chunk_size)
    }

    /// Where frame `i` begins in the stream, and where in the plaintext; for one past the last, where they end.
    pub fn start_of(&self, i: usize) -> (usize, usize) {
        let position: usize = self.frames[..i].iter().sum();
        (80 + position + 20 * i, position)
    }
}

/// Some hundred small streams, uniform and irregular.
pub fn small(key: &Key) -> Vec<Stream> {
    let mut streams = Vec::new();
    for chunk_size in [1, 2, 3, 5, 8, 16] {
        for len in [0, 1, 2, 4, 5, 8, 15, 16, 17, 31] {
            streams.push(Stream::uniform(key, chunk_size, len));
        }
    }
    let irregular: [(usize, &[usize]); 12] = [
        (2, &[1, 1]),
        (2, &[1, 2]),
        (3, &[1, 1, 1, 1, 1, 1, 1, 1]),
        (8, &[8, 7, 8]),
        (8, &[1, 8, 8, 8]),
        (8, &[8, 8, 1, 8]),
        (10, &[6, 10]),
        (16, &[16, 5, 16]),
        (16, &[3, 16, 16, 2]),
        (40, &[1, 2, 3, 4, 5, 6, 7]),
        (40, &[7, 6, 5, 4, 3, 2, 1]),
        (10 * 1024 * 1024, &[9, 1, 1, 20]),
    ];
    streams.extend(irregular.map(|(chunk_size, frames)| Stream::of_frames(key, chunk_size, frames)));
    // A simple generator, with the same streams in every run.
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = (state * 1_103_515_245 + 12345) % (1 << 31);
        usize::try_from(state >> 8).unwrap() % below
    };
    for _ in 0..40 {
        let chunk_size = 2 + random(9);
        let frames: Vec<usize> = (0..2 + random(8)).map(|_| 1 + random(chunk_size)).collect();
        streams.push(Stream::of_frames(key, chunk_size, &frames));
    }
    assert!(streams.len() > 100 && streams.iter().filter(|stream| !stream.is_uniform()).count() > 40);
    streams
}
