//! The backend in Rust, of the crates of RustCrypto.
//!
//! It checks a tag before it decrypts, so what it refuses to open is as it was. The expanded key sits behind a box, so that
//! moving the stream that owns it copies no key, and is wiped there. On the stack each call leaves some of it; so whoever calls this
//! wipes that afterwards.

use aes_gcm::{
    Aes256Gcm, KeyInit, Tag,
    aead::{AeadInOut, inout::InOutBuf},
};
use hkdf::Hkdf;
use sha2::Sha256;

use super::body::{Body, Unauthentic};
use crate::{
    format::{NONCE_LEN, TAG_LEN},
    key::Key,
};

pub(super) fn name() -> &'static str {
    "aes-gcm (RustCrypto)"
}

/// AES-256-GCM under one key, without associated data.
pub(super) struct Cipher(Box<Aes256Gcm>);

impl Cipher {
    pub(super) fn new(key: &[u8; Key::LEN]) -> Self {
        Self(Box::new(Aes256Gcm::new(key.into())))
    }

    /// Encrypts `body` and returns its tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], body: Body<'_>) -> [u8; TAG_LEN] {
        match self.0.encrypt_inout_detached(&nonce.into(), b"", buffers(body)) {
            Ok(tag) => tag.into(),
            Err(_) => unreachable!("AES-GCM takes 64 GiB under one nonce, and a frame has at most 16 MiB"),
        }
    }

    /// Decrypts `body` if this is its tag.
    pub(super) fn open(&self, nonce: [u8; NONCE_LEN], body: Body<'_>, tag: [u8; TAG_LEN]) -> Result<(), Unauthentic> {
        let opened = self.0.decrypt_inout_detached(&nonce.into(), b"", buffers(body), &Tag::from(tag));
        opened.map_err(|_| Unauthentic)
    }
}

fn buffers(body: Body<'_>) -> InOutBuf<'_, '_, u8> {
    match body {
        Body::InPlace(body) => body.into(),
        Body::Into { from, to } => match InOutBuf::new(from, to) {
            Ok(body) => body,
            Err(_) => unreachable!("whoever makes a body cuts both sides to one length"),
        },
    }
}

/// HKDF-Expand-SHA-256 of the parts of `info`, one after the other.
pub(super) fn expand(key: &[u8; Key::LEN], info: &[&[u8]], okm: &mut [u8]) {
    let expanded = Hkdf::<Sha256>::from_prk(key).map(|hkdf| hkdf.expand_multi_info(info, okm));
    assert!(matches!(expanded, Ok(Ok(()))), "HKDF-SHA-256 takes a key of 32 bytes and yields up to 8160");
}
