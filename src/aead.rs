//! The key schedule, and sealing and opening one frame.
//!
//! The only file that names a crypto backend. Everything here is stateless: a [`StreamKey`] seals and opens by position
//! through `&self`, so that workers can share it. That is why it must never leave the crate: nothing here keeps a caller
//! from sealing one position twice.

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce, Tag,
    aead::{AeadInOut, inout::InOutBuf},
};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    format::{COMMITMENT_LEN, Header, Kind, NONCE_LEN, Prelude, SALT_LEN, TAG_LEN, TRAILER_LEN, Trailer},
    key::{Key, KeyRing},
};

/// A frame did not authenticate. The buffer that it was to be opened in holds no plaintext of it: it is as it was, or zeroes.
#[derive(Debug)]
pub(crate) struct Unauthentic;

/// A frame's body that is to be sealed or opened, and where the result goes.
pub(crate) enum Body<'a> {
    InPlace(&'a mut [u8]),
    /// Both are of one length.
    Into {
        from: &'a [u8],
        to: &'a mut [u8],
    },
}

impl<'a> Body<'a> {
    fn into_buf(self) -> InOutBuf<'a, 'a, u8> {
        match self {
            Self::InPlace(body) => body.into(),
            Self::Into { from, to } => match InOutBuf::new(from, to) {
                Ok(body) => body,
                Err(_) => unreachable!("whoever makes a body cuts both sides to one length"),
            },
        }
    }
}

/// The key of one stream, ready to seal and open its frames.
///
/// The expanded key sits behind a box, so that moving the stream that owns it copies no key.
pub(crate) struct StreamKey {
    cipher: Box<Aes256Gcm>,
    nonce: [u8; NONCE_LEN],
}

impl StreamKey {
    /// Starts a stream: its key, and the prelude that lets a reader derive the same.
    pub(crate) fn start(key: &Key, header: Header, salt: [u8; SALT_LEN], context: &[u8]) -> (Self, Prelude) {
        let secrets = Secrets::derive(key, &header, &salt, context);
        let prelude = Prelude { header, salt, commitment: *secrets.commitment() };
        (secrets.into_stream_key(header.nonce), prelude)
    }

    /// The key of a stream that begins with `prelude`, from the one key of the ring that it commits to.
    pub(crate) fn find(keys: &KeyRing, prelude: &Prelude, context: &[u8]) -> Result<Self, Error> {
        keys.keys().iter().find_map(|key| Self::matching(key, prelude, context)).ok_or(Error::KeyMismatch)
    }

    /// `None` if `key` and `context` are not those that the stream commits to.
    fn matching(key: &Key, prelude: &Prelude, context: &[u8]) -> Option<Self> {
        let secrets = Secrets::derive(key, &prelude.header, &prelude.salt, context);
        let matches: bool = secrets.commitment().ct_eq(&prelude.commitment).into();
        matches.then(|| secrets.into_stream_key(prelude.header.nonce))
    }

    /// Encrypts `body` and returns its tag.
    pub(crate) fn seal(&self, kind: Kind, position: u64, body: Body<'_>) -> [u8; TAG_LEN] {
        let nonce = self.nonce(kind, position);
        match self.cipher.encrypt_inout_detached(&nonce, b"", body.into_buf()) {
            Ok(tag) => tag.into(),
            Err(_) => unreachable!("AES-GCM takes 64 GiB under one nonce, and a frame has at most 16 MiB"),
        }
    }

    /// Decrypts `body` if this is its tag. If not, nothing of the plaintext is left where it would have gone.
    pub(crate) fn open(&self, kind: Kind, position: u64, body: Body<'_>, tag: &[u8]) -> Result<(), Unauthentic> {
        let nonce = self.nonce(kind, position);
        let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| Unauthentic)?;
        self.cipher.decrypt_inout_detached(&nonce, b"", body.into_buf(), &Tag::from(tag)).map_err(|_| Unauthentic)
    }

    /// What the body of a final frame says, tag included; `None` if it does not authenticate, or says nothing sensible.
    pub(crate) fn open_trailer(&self, body: &[u8]) -> Option<Trailer> {
        let (&sealed, tag) = body.split_first_chunk::<TRAILER_LEN>()?;
        let mut trailer = sealed;
        self.open(Kind::Final, 0, Body::InPlace(&mut trailer), tag).ok()?;
        Trailer::parse(&trailer)
    }

    fn nonce(&self, kind: Kind, position: u64) -> Nonce<aes_gcm::aes::cipher::consts::U12> {
        let mut nonce = self.nonce;
        nonce[0] ^= kind as u8;
        for (byte, position) in nonce[4..].iter_mut().zip(position.to_le_bytes()) {
            *byte ^= position;
        }
        nonce.into()
    }
}

/// A key of the Go library, which seals all chunks of a stream under one nonce. It can only open.
pub(crate) struct GoKey {
    cipher: Box<Aes256Gcm>,
    nonce: [u8; NONCE_LEN],
}

impl GoKey {
    pub(crate) fn new(key: &Key, nonce: [u8; NONCE_LEN]) -> Self {
        Self { cipher: Box::new(Aes256Gcm::new(key.expose_bytes().into())), nonce }
    }

    /// As [`StreamKey::open`].
    pub(crate) fn open(&self, body: Body<'_>, tag: &[u8]) -> Result<(), Unauthentic> {
        let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| Unauthentic)?;
        let opened = self.cipher.decrypt_inout_detached(&self.nonce.into(), b"", body.into_buf(), &Tag::from(tag));
        opened.map_err(|_| Unauthentic)
    }
}

/// The output of the key schedule: stream key, then key commitment.
struct Secrets(Zeroizing<[u8; Key::LEN + COMMITMENT_LEN]>);

impl Secrets {
    fn derive(key: &Key, header: &Header, salt: &[u8; SALT_LEN], context: &[u8]) -> Self {
        let mut okm = Zeroizing::new([0; Key::LEN + COMMITMENT_LEN]);
        let expanded = Hkdf::<Sha256>::from_prk(key.expose_bytes())
            .map(|hkdf| hkdf.expand_multi_info(&[b"AGCM-v1\0", &header.encode(), salt, context], &mut okm[..]));
        match expanded {
            Ok(Ok(())) => Self(okm),
            _ => unreachable!("HKDF-SHA-256 takes a key of 32 bytes and yields up to 8160"),
        }
    }

    fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        let (_, commitment) = self.split();
        commitment
    }

    fn into_stream_key(self, nonce: [u8; NONCE_LEN]) -> StreamKey {
        let (key, _) = self.split();
        StreamKey { cipher: Box::new(Aes256Gcm::new(key.into())), nonce }
    }

    fn split(&self) -> (&[u8; Key::LEN], &[u8; COMMITMENT_LEN]) {
        match (self.0.first_chunk(), self.0.last_chunk()) {
            (Some(key), Some(commitment)) => (key, commitment),
            _ => unreachable!("64 bytes hold 32 and 32"),
        }
    }
}
