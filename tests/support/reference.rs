//! A second implementation of the format on the bare primitives, slow and small, sharing no code with the crate.
//!
//! It makes the streams that the crate cannot be made to write: the long vectors with their fixed nonces, and forgeries by
//! someone who has the key. The vectors hold it to the format.

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use hkdf::Hkdf;
use sha2::Sha256;

/// The pieces of one stream, sealed on demand.
pub struct Reference {
    header: [u8; 24],
    salt: [u8; 20],
    commitment: [u8; 32],
    cipher: Aes256Gcm,
}

impl Reference {
    pub fn new(key: &[u8; 32], nonce: [u8; 12], salt: [u8; 20], chunk_size: u32, context: &[u8]) -> Self {
        let mut header = [0; 24];
        header[..4].copy_from_slice(b"AGCM");
        header[4] = 1;
        header[8..20].copy_from_slice(&nonce);
        header[20..].copy_from_slice(&chunk_size.to_le_bytes());
        let mut okm = [0; 64];
        let info = [b"AGCM-v1\0", &header[..], &salt, context].concat();
        Hkdf::<Sha256>::from_prk(key).unwrap().expand(&info, &mut okm).unwrap();
        let cipher = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
        Self { header, salt, commitment: okm[32..].try_into().unwrap(), cipher }
    }

    pub fn prelude(&self) -> Vec<u8> {
        [&self.header[..], &word(1, 52), &self.salt, &self.commitment].concat()
    }

    pub fn data(&self, position: u64, plaintext: &[u8]) -> Vec<u8> {
        self.frame(2, position, plaintext)
    }

    pub fn end(&self, total: u64, frames: u64, layout: u8) -> Vec<u8> {
        let trailer = [&total.to_le_bytes()[..], &frames.to_le_bytes(), &[layout]].concat();
        self.frame(3, 0, &trailer)
    }

    /// A whole, honest stream of these chunks.
    pub fn stream(&self, chunks: &[&[u8]]) -> Vec<u8> {
        let chunk_size = u32::from_le_bytes(self.header[20..].try_into().unwrap()) as usize;
        let (mut stream, mut total) = (self.prelude(), 0);
        for chunk in chunks {
            stream.extend(self.data(total, chunk));
            total += chunk.len() as u64;
        }
        let uniform = chunks.iter().rev().skip(1).all(|chunk| chunk.len() == chunk_size);
        stream.extend(self.end(total, chunks.len() as u64, u8::from(uniform)));
        stream
    }

    fn frame(&self, kind: u8, position: u64, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce: [u8; 12] = self.header[8..20].try_into().unwrap();
        nonce[0] ^= kind;
        for (byte, position) in nonce[4..].iter_mut().zip(position.to_le_bytes()) {
            *byte ^= position;
        }
        let mut body = plaintext.to_vec();
        let tag = self.cipher.encrypt_inout_detached(&nonce.into(), b"", body.as_mut_slice().into()).unwrap();
        [&word(kind, body.len() + tag.len())[..], &body, &tag].concat()
    }
}

pub fn word(kind: u8, len: usize) -> [u8; 4] {
    let len = u32::try_from(len).unwrap().to_le_bytes();
    [len[0], len[1], len[2], kind]
}

/// A stream as the Go library wrote them: all chunks under one nonce, and no end.
pub fn go_stream(key: &[u8; 32], nonce: [u8; 12], chunk_size: u32, chunks: &[&[u8]]) -> Vec<u8> {
    let cipher = Aes256Gcm::new_from_slice(key).unwrap();
    let mut stream = [b"AGCM\x01\0\0\0", &nonce[..], &chunk_size.to_le_bytes()].concat();
    for chunk in chunks {
        let mut body = chunk.to_vec();
        let tag = cipher.encrypt_inout_detached(&nonce.into(), b"", body.as_mut_slice().into()).unwrap();
        stream.extend_from_slice(&u32::try_from(body.len() + tag.len()).unwrap().to_le_bytes());
        stream.extend_from_slice(&[&body[..], &tag].concat());
    }
    stream
}
