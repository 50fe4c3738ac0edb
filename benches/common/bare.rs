//! The bare AEAD of the backend that the crate was built with: what a stream cannot be faster than.

use std::hint::black_box;

use super::{KIB, Run, timed};

pub(crate) const TAG: usize = 16;
const NONCE: [u8; 12] = [7; 12];

#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use rust_crypto::{BACKEND, Bare};

#[cfg(feature = "aws-lc-rs")]
pub(crate) use aws_lc::{BACKEND, Bare};

#[cfg(not(feature = "aws-lc-rs"))]
mod rust_crypto {
    use aes_gcm::{Aes256Gcm, KeyInit, Tag, aead::AeadInOut};

    use super::{NONCE, TAG};

    pub(crate) const BACKEND: &str = "aes-gcm";

    /// A key that is ready.
    pub(crate) struct Bare(Aes256Gcm);

    impl Bare {
        pub(crate) fn new() -> Self {
            Self(Aes256Gcm::new(&[1; 32].into()))
        }

        /// Seals all of `frame` but its last 16 bytes, which receive the tag.
        // Otherwise what else is in the program decides how good the code is that the compiler makes of it.
        #[inline(never)]
        pub(crate) fn seal(&self, frame: &mut [u8]) {
            let (body, tag) = frame.split_last_chunk_mut::<TAG>().expect("a frame has room for its tag");
            let made = self.0.encrypt_inout_detached(&NONCE.into(), b"", body.into());
            *tag = made.expect("a frame can be sealed").into();
        }

        #[inline(never)]
        pub(crate) fn open(&self, frame: &mut [u8]) {
            let (body, tag) = frame.split_last_chunk_mut::<TAG>().expect("a frame has a tag");
            let opened = self.0.decrypt_inout_detached(&NONCE.into(), b"", body.into(), &Tag::from(*tag));
            opened.expect("what was sealed opens");
        }
    }
}

#[cfg(feature = "aws-lc-rs")]
mod aws_lc {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{NONCE, TAG};

    pub(crate) const BACKEND: &str = "aws-lc-rs";

    /// A key that is ready.
    pub(crate) struct Bare(LessSafeKey);

    impl Bare {
        pub(crate) fn new() -> Self {
            Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("32 bytes are a key")))
        }

        /// Seals all of `frame` but its last 16 bytes, which receive the tag.
        // Otherwise what else is in the program decides how good the code is that the compiler makes of it.
        #[inline(never)]
        pub(crate) fn seal(&self, frame: &mut [u8]) {
            let (body, tag) = frame.split_last_chunk_mut::<TAG>().expect("a frame has room for its tag");
            let made = self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(NONCE), Aad::empty(), body);
            tag.copy_from_slice(made.expect("a frame can be sealed").as_ref());
        }

        #[inline(never)]
        pub(crate) fn open(&self, frame: &mut [u8]) {
            let opened = self.0.open_in_place(Nonce::assume_unique_for_key(NONCE), Aad::empty(), frame);
            opened.expect("what was sealed opens");
        }
    }
}

/// Frames that are warm and come round again: as many as `total` bytes are, but no more than the second-level cache holds.
fn frames(piece: usize, total: usize) -> Vec<Vec<u8>> {
    let count = (total.min(512 * KIB) / piece).max(1);
    vec![vec![0; piece + TAG]; count]
}

/// Seals `total` bytes in place, `piece` by `piece`.
pub(crate) fn seal(piece: usize, total: usize) -> Run<'static> {
    let bare = Bare::new();
    let mut frames = frames(piece, total);
    let rounds = total.div_ceil(piece * frames.len());
    Box::new(move || {
        timed(|| {
            for _ in 0..rounds {
                frames.iter_mut().for_each(|frame| bare.seal(black_box(frame)));
            }
        })
    })
}

/// Opens `total` bytes in place, `piece` by `piece`.
pub(crate) fn open(piece: usize, total: usize) -> Run<'static> {
    let bare = Bare::new();
    let mut sealed = vec![0; piece + TAG];
    bare.seal(&mut sealed);
    let mut frames = frames(piece, total);
    let rounds = total.div_ceil(piece * frames.len());
    Box::new(move || {
        (0..rounds)
            .map(|_| {
                frames.iter_mut().for_each(|frame| frame.copy_from_slice(&sealed)); // not timed
                timed(|| frames.iter_mut().for_each(|frame| bare.open(black_box(frame))))
            })
            .sum()
    })
}
