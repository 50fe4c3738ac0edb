//! The backend in C and assembler, AWS-LC.
//!
//! It decrypts while it hashes, and where the tag then does not match, it zeroes all that it has written. So within one call
//! a buffer may hold plaintext that nobody vouches for, and after the call it never does.
//!
//! The expanded key sits on AWS-LC's own heap, behind a pointer: moving the stream that owns it copies no key. AWS-LC wipes
//! whatever it frees there. What it does not wipe is the stack, where each call leaves the hash key of GHASH, and setting up leaves
//! more; so whoever calls this wipes that afterwards.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
};

use super::body::{Body, Unauthentic};
use crate::{
    format::{NONCE_LEN, TAG_LEN},
    key::Key,
};

/// Whether it is the FIPS module is for the linked library to say: another crate may have chosen that, too.
pub(super) fn name() -> &'static str {
    if aws_lc_rs::try_fips_mode().is_ok() { "aws-lc-rs (FIPS module)" } else { "aws-lc-rs" }
}

/// AES-256-GCM under one key, without associated data.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new(key: &[u8; Key::LEN]) -> Self {
        match UnboundKey::new(&AES_256_GCM, key) {
            Ok(key) => Self(LessSafeKey::new(key)),
            Err(_) => panic!("AWS-LC takes a key of 32 bytes, so there is no memory for it"),
        }
    }

    /// Encrypts `body` and returns its tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], body: Body<'_>) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut tag = [0; TAG_LEN];
        // The last parameter would take the ciphertext of more input, and takes the tag.
        let sealed = match body {
            Body::InPlace(body) => self.0.seal_in_place_scatter(nonce, Aad::empty(), body, &[], &mut tag),
            Body::Into { from, to } => self.0.seal_out_of_place_scatter(nonce, Aad::empty(), from, to, &[], &mut tag),
        };
        match sealed {
            Ok(()) => tag,
            Err(_) => unreachable!("AES-GCM takes 64 GiB under one nonce, and both sides of a body are of one length"),
        }
    }

    /// Decrypts `body` if this is its tag.
    pub(super) fn open(&self, nonce: [u8; NONCE_LEN], body: Body<'_>, tag: [u8; TAG_LEN]) -> Result<(), Unauthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = match body {
            Body::InPlace(body) => self.0.open_in_place_separate_tag(nonce, Aad::empty(), &tag, body).map(drop),
            Body::Into { from, to } => self.0.open_separate_gather(nonce, Aad::empty(), from, &tag, to),
        };
        opened.map_err(|_| Unauthentic)
    }
}

/// HKDF-Expand-SHA-256 of the parts of `info`, one after the other.
pub(super) fn expand(key: &[u8; Key::LEN], info: &[&[u8]], okm: &mut [u8]) {
    let len = Len(okm.len());
    // "Less safe" because the key is taken as it is, without HKDF-Extract: the format says so, for it is uniformly random.
    let expanded = Prk::new_less_safe(HKDF_SHA256, key).expand(info, len).and_then(|expanded| expanded.fill(okm));
    assert!(expanded.is_ok(), "HKDF-SHA-256 takes a key of 32 bytes and yields up to 8160");
}

/// How much is to be derived, in bytes.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}
