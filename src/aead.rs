//! The key schedule, and sealing and opening one frame.
//!
//! Only the files in `aead/` name a crypto backend, and a feature chooses which of them is used. Everything here is
//! stateless: a [`StreamKey`] seals and opens by position through `&self`, so that workers can share it. That is why it must
//! never leave the crate: nothing here keeps a caller from sealing one position twice.

// The backends have one face: `Cipher`, `expand` and `name`. The one in Rust is there for the tests even if it is not chosen: they
// compare the other one with it.
#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod body;
#[cfg(any(test, not(feature = "aws-lc-rs")))]
mod rust_crypto;
mod stack;
#[cfg(test)]
mod standards;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

#[cfg(feature = "aws-lc-rs")]
use self::aws_lc as backend;
pub(crate) use self::body::{Body, Unauthentic};
#[cfg(not(feature = "aws-lc-rs"))]
use self::rust_crypto as backend;
use self::stack::{FRAME_DEPTH, SETUP_DEPTH, then_wipe_stack};
use crate::{
    error::Error,
    format::{COMMITMENT_LEN, Header, Kind, NONCE_LEN, Prelude, SALT_LEN, TAG_LEN, TRAILER_LEN, Trailer},
    key::{Key, KeyRing},
};

/// The name of the backend that is compiled in.
pub(crate) fn backend_name() -> &'static str {
    backend::name()
}

/// The key of one stream, ready to seal and open its frames. Moving it copies no key.
pub(crate) struct StreamKey {
    cipher: backend::Cipher,
    nonce: [u8; NONCE_LEN],
}

impl StreamKey {
    /// Starts a stream: its key, and the prelude that lets a reader derive the same.
    pub(crate) fn start(key: &Key, header: Header, salt: [u8; SALT_LEN], context: &[u8]) -> (Self, Prelude) {
        then_wipe_stack::<SETUP_DEPTH, _>(|| {
            let mut secrets = Secrets::default();
            secrets.derive(key, &header, &salt, context);
            let commitment = *secrets.commitment();
            (secrets.stream_key(header.nonce), Prelude { header, salt, commitment })
        })
    }

    /// The key of a stream that begins with `prelude`, from the one key of the ring that it commits to.
    pub(crate) fn find(keys: &KeyRing, prelude: &Prelude, context: &[u8]) -> Result<Self, Error> {
        keys.keys().iter().find_map(|key| Self::matching(key, prelude, context)).ok_or(Error::KeyMismatch)
    }

    /// `None` if `key` and `context` are not those that the stream commits to.
    fn matching(key: &Key, prelude: &Prelude, context: &[u8]) -> Option<Self> {
        then_wipe_stack::<SETUP_DEPTH, _>(|| {
            let mut secrets = Secrets::default();
            secrets.derive(key, &prelude.header, &prelude.salt, context);
            let matches: bool = secrets.commitment().ct_eq(&prelude.commitment).into();
            matches.then(|| secrets.stream_key(prelude.header.nonce))
        })
    }

    /// Encrypts `body` and returns its tag.
    pub(crate) fn seal(&self, kind: Kind, position: u64, body: Body<'_>) -> [u8; TAG_LEN] {
        then_wipe_stack::<FRAME_DEPTH, _>(|| self.cipher.seal(self.nonce(kind, position), body))
    }

    /// Decrypts `body` if this is its tag. If not, nothing of the plaintext is left where it would have gone.
    pub(crate) fn open(&self, kind: Kind, position: u64, body: Body<'_>, tag: &[u8]) -> Result<(), Unauthentic> {
        let tag = tag.try_into().map_err(|_| Unauthentic)?;
        then_wipe_stack::<FRAME_DEPTH, _>(|| self.cipher.open(self.nonce(kind, position), body, tag))
    }

    /// What the body of a final frame says, tag included; `None` if it does not authenticate, or says nothing sensible.
    pub(crate) fn open_trailer(&self, body: &[u8]) -> Option<Trailer> {
        let (&sealed, tag) = body.split_first_chunk::<TRAILER_LEN>()?;
        let mut trailer = sealed;
        self.open(Kind::Final, 0, Body::InPlace(&mut trailer), tag).ok()?;
        Trailer::parse(&trailer)
    }

    fn nonce(&self, kind: Kind, position: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.nonce;
        nonce[0] ^= kind as u8;
        for (byte, position) in nonce[4..].iter_mut().zip(position.to_le_bytes()) {
            *byte ^= position;
        }
        nonce
    }
}

/// A key of the Go library, which seals all chunks of a stream under one nonce. It can only open.
pub(crate) struct GoKey {
    cipher: backend::Cipher,
    nonce: [u8; NONCE_LEN],
}

impl GoKey {
    pub(crate) fn new(key: &Key, nonce: [u8; NONCE_LEN]) -> Self {
        then_wipe_stack::<SETUP_DEPTH, _>(|| Self { cipher: backend::Cipher::new(key.expose_bytes()), nonce })
    }

    /// As [`StreamKey::open`].
    pub(crate) fn open(&self, body: Body<'_>, tag: &[u8]) -> Result<(), Unauthentic> {
        let tag = tag.try_into().map_err(|_| Unauthentic)?;
        then_wipe_stack::<FRAME_DEPTH, _>(|| self.cipher.open(self.nonce, body, tag))
    }
}

/// The output of the key schedule: stream key, then key commitment. It is filled in where it lies and never moved, for what is
/// moved leaves a copy behind.
struct Secrets(Zeroizing<[u8; Key::LEN + COMMITMENT_LEN]>);

impl Secrets {
    fn derive(&mut self, key: &Key, header: &Header, salt: &[u8; SALT_LEN], context: &[u8]) {
        backend::expand(key.expose_bytes(), &[b"AGCM-v1\0", &header.encode(), salt, context], &mut self.0[..]);
    }

    fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        let (_, commitment) = self.split();
        commitment
    }

    fn stream_key(&self, nonce: [u8; NONCE_LEN]) -> StreamKey {
        let (key, _) = self.split();
        StreamKey { cipher: backend::Cipher::new(key), nonce }
    }

    fn split(&self) -> (&[u8; Key::LEN], &[u8; COMMITMENT_LEN]) {
        match (self.0.first_chunk(), self.0.last_chunk()) {
            (Some(key), Some(commitment)) => (key, commitment),
            _ => unreachable!("64 bytes hold 32 and 32"),
        }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self(Zeroizing::new([0; Key::LEN + COMMITMENT_LEN]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const KEY: [u8; Key::LEN] = [7; Key::LEN];
    const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];
    /// Around the blocks of AES and the strides of its vector code, and a chunk.
    const LENS: [usize; 14] = [1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097, 65_536];

    /// Without a zero in it, so that one left behind shows.
    fn plaintext(len: usize) -> Vec<u8> {
        (1..=u8::MAX).cycle().take(len).collect()
    }

    /// Test case 15 of the specification of GCM (McGrew and Viega, 2005): 256 bits of key, no associated data.
    #[test]
    fn a_known_answer() {
        let hex = |hex: &str| base16ct::lower::decode_vec(hex).unwrap();
        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let mut body = hex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        );
        let cipher = backend::Cipher::new(&key.try_into().unwrap());
        let tag = cipher.seal(hex("cafebabefacedbaddecaf888").try_into().unwrap(), Body::InPlace(&mut body));
        assert_eq!(
            body,
            hex(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
            )
        );
        assert_eq!(tag[..], hex("b094dac5d93471bdec1a502270e3cc6c"));
    }

    #[test]
    fn all_backends_seal_the_same_bytes_in_place_and_out_of_place() {
        let (cipher, other) = (backend::Cipher::new(&KEY), rust_crypto::Cipher::new(&KEY));
        for len in LENS {
            let plaintext = plaintext(len);
            let mut expected = plaintext.clone();
            let tag = other.seal(NONCE, Body::InPlace(&mut expected));

            let mut sealed = plaintext.clone();
            assert_eq!(cipher.seal(NONCE, Body::InPlace(&mut sealed)), tag, "{len}");
            assert_eq!(sealed, expected, "{len}");
            let mut sealed = vec![0; len];
            assert_eq!(cipher.seal(NONCE, Body::Into { from: &plaintext, to: &mut sealed }), tag, "{len}");
            assert_eq!(sealed, expected, "{len}");

            let mut opened = vec![0; len];
            cipher.open(NONCE, Body::Into { from: &sealed, to: &mut opened }, tag).unwrap();
            assert_eq!(opened, plaintext, "{len}");
            cipher.open(NONCE, Body::InPlace(&mut sealed), tag).unwrap();
            assert_eq!(sealed, plaintext, "{len}");
            other.open(NONCE, Body::InPlace(&mut expected), tag).unwrap();
            assert_eq!(expected, plaintext, "{len}");
        }
    }

    #[test]
    fn all_backends_derive_the_same_keys() {
        for context in [0, 1, 8, 9, 1000, 65_535] {
            let info: [&[u8]; 3] = [b"AGCM-v1\0", &[3; 44], &plaintext(context)];
            let [mut expected, mut okm] = [[0; 64]; 2];
            rust_crypto::expand(&KEY, &info, &mut expected);
            backend::expand(&KEY, &info, &mut okm);
            assert_eq!(okm, expected, "{context}");
        }
    }

    #[test]
    fn what_does_not_authenticate_leaves_no_plaintext_behind() {
        let cipher = backend::Cipher::new(&KEY);
        for len in LENS {
            let mut sealed = plaintext(len);
            let tag = cipher.seal(NONCE, Body::InPlace(&mut sealed));
            let mut wrong_tag = tag;
            wrong_tag[15] ^= 1;
            let mut wrong_nonce = NONCE;
            wrong_nonce[11] ^= 1;
            let mut wrong_end = sealed.clone();
            wrong_end[len - 1] ^= 1;
            for (nonce, sealed, tag) in
                [(NONCE, &sealed, wrong_tag), (wrong_nonce, &sealed, tag), (NONCE, &wrong_end, tag)]
            {
                let mut body = sealed.clone();
                cipher.open(nonce, Body::InPlace(&mut body), tag).unwrap_err();
                assert!(body == *sealed || body == vec![0; len], "{len}");
                let before = vec![0xff; len];
                let mut to = before.clone();
                cipher.open(nonce, Body::Into { from: sealed, to: &mut to }, tag).unwrap_err();
                assert!(to == before || to == vec![0; len], "{len}");
            }
        }
    }

    #[test]
    fn the_names_tell_the_backends_apart() {
        let chosen = backend_name() != rust_crypto::name();
        assert_eq!(chosen, cfg!(feature = "aws-lc-rs"));
    }
}
