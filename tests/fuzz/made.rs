//! Streams of the fuzzer's choice, sealed by the reference: the same bytes for the same choices.

use agcm::{DecryptOptions, Key, KeyRing};

use crate::{choices::Choices, model::Model, reference::Reference, vectors::plaintext};

pub const KEY: [u8; 32] = [9; 32];
const OTHER_KEY: [u8; 32] = [8; 32];

/// The most plaintext in a frame, whatever the chunk size, and the most frames.
const MOST_IN_A_FRAME: usize = 48;
const MOST_FRAMES: usize = 12;

pub struct Made {
    pub reference: Reference,
    pub plaintext: Vec<u8>,
    /// Header, key frame, data frames, final frame.
    pub parts: Vec<Vec<u8>>,
    pub context: &'static [u8],
}

impl Made {
    pub fn choose(choices: &mut Choices<'_>, nonce: u8) -> Self {
        let chunk = choices.chunk_size();
        let context = choices.one_of(&[&b""[..], b"context"]);
        let most = MOST_IN_A_FRAME.min(chunk);
        let uniform = most == chunk && choices.yes();
        let count = choices.up_to(MOST_FRAMES);
        let lens: Vec<usize> =
            (0..count).map(|i| if uniform && i + 1 < count { most } else { 1 + choices.up_to(most - 1) }).collect();
        Self::of_frames(nonce, chunk, context, &lens)
    }

    pub fn of_frames(nonce: u8, chunk: usize, context: &'static [u8], lens: &[usize]) -> Self {
        let reference = Reference::new(&KEY, [nonce; 12], [nonce; 20], u32::try_from(chunk).unwrap(), context);
        let plaintext = plaintext(lens.iter().sum());
        let prelude = reference.prelude();
        let mut parts = vec![prelude[..24].to_vec(), prelude[24..].to_vec()];
        let mut at = 0;
        for len in lens {
            parts.push(reference.data(at as u64, &plaintext[at..at + len]));
            at += len;
        }
        let uniform = lens.iter().rev().skip(1).all(|len| *len == chunk);
        parts.push(reference.end(at as u64, lens.len() as u64, u8::from(uniform)));
        Self { reference, plaintext, parts, context }
    }
}

/// Keys and options of a reader that may be able to open such a stream, and what it has to find.
pub fn reader(choices: &mut Choices<'_>, context: &[u8]) -> (KeyRing, DecryptOptions, Model) {
    let keys = choices.one_of(&[vec![KEY], vec![OTHER_KEY, KEY], vec![KEY, OTHER_KEY], vec![OTHER_KEY], vec![]]);
    let max_chunk = choices.one_of(&[10 * 1024 * 1024, 65_536, 16, 1]);
    let context = if choices.up_to(9) == 9 { b"another one" } else { context };
    let ring = keys.iter().copied().map(Key::from_bytes).collect();
    let options = DecryptOptions::new().context(context).unwrap().max_chunk_size(max_chunk as usize).unwrap();
    (ring, options, Model { keys, context: context.to_vec(), max_chunk })
}
