//! Whole slices in one call: the same stream format, for data that is in memory anyway.
//!
//! Built on the same core as the adapters, so that each opens what the other sealed. It must never return part of a
//! plaintext: on an error there is none.

use zeroize::Zeroize;

use crate::{
    decrypt::{Decryptor, Step},
    encrypt::Encryptor,
    error::Error,
    geometry::Uniform,
    key::{Key, KeyRing},
    options::{DecryptOptions, EncryptOptions, Trailing},
};

/// Encrypts a slice with the default options.
///
/// ```
/// use agcm::Key;
///
/// let key = Key::generate();
/// let stream = agcm::encrypt(&key, b"a small secret");
/// assert_eq!(agcm::decrypt(&key, &stream)?, b"a small secret");
/// # Ok::<(), agcm::Error>(())
/// ```
///
/// # Panics
///
/// As [`EncryptOptions::encrypt`].
#[must_use]
pub fn encrypt(key: &Key, plaintext: &[u8]) -> Vec<u8> {
    EncryptOptions::new().encrypt(key, plaintext)
}

/// Decrypts a whole stream with the default options: no context, and nothing may follow the stream.
///
/// # Errors
///
/// As [`DecryptOptions::decrypt`].
pub fn decrypt(keys: impl Into<KeyRing>, stream: &[u8]) -> Result<Vec<u8>, Error> {
    DecryptOptions::new().decrypt(keys, stream)
}

impl EncryptOptions {
    /// Encrypts a slice.
    ///
    /// Allocates the stream, and nothing else of its size.
    ///
    /// ```
    /// use agcm::{DecryptOptions, EncryptOptions, Key};
    ///
    /// let key = Key::generate();
    /// let stream = EncryptOptions::new().context("invoice 17")?.encrypt(&key, b"42.00");
    /// assert_eq!(DecryptOptions::new().context("invoice 17")?.decrypt(&key, &stream)?, b"42.00");
    /// # Ok::<(), agcm::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes (use [`Encryptor`] to handle that), or if the slice
    /// is past the limits of a stream: 2^40 chunks, which takes a terabyte in memory and chunks of a byte.
    #[must_use]
    pub fn encrypt(&self, key: &Key, plaintext: &[u8]) -> Vec<u8> {
        let (mut encryptor, prelude) = match Encryptor::start(key, self) {
            Ok(started) => started,
            Err(error) => panic!("no stream can be started: {error}"),
        };
        let len = Uniform::of(plaintext.len() as u64, self.chunk_size).map(|layout| layout.stream_len());
        let mut stream = Vec::with_capacity(len.ok().and_then(|len| len.try_into().ok()).unwrap_or(0));
        stream.extend_from_slice(&prelude);
        for chunk in plaintext.chunks(encryptor.chunk_size()) {
            if let Err(error) = encryptor.seal(chunk, &mut stream) {
                panic!("the slice cannot be one stream: {error}");
            }
        }
        stream.extend_from_slice(&encryptor.finish());
        stream
    }
}

impl DecryptOptions {
    /// Decrypts a whole stream. Unless [`Trailing::Leave`] was chosen, nothing may follow it.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the stream, in the order that [the format](crate::format#what-a-reader-checks) states. What
    /// was decrypted up to there is wiped, not returned.
    pub fn decrypt(&self, keys: impl Into<KeyRing>, stream: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plaintext = Vec::new();
        match self.decrypt_into(keys.into(), stream, &mut plaintext) {
            Ok(()) => Ok(plaintext),
            Err(error) => {
                plaintext.zeroize();
                Err(error)
            }
        }
    }

    fn decrypt_into(&self, keys: KeyRing, mut stream: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        let mut decryptor = Decryptor::new(keys, self);
        loop {
            match decryptor.open(stream, plaintext)? {
                Step::Start { consumed } => {
                    stream = &stream[consumed..];
                    // Plaintext is shorter than its frames: it never grows again, so no copy is left that nobody wipes.
                    plaintext.reserve_exact(stream.len());
                }
                Step::Data { consumed, .. } => stream = &stream[consumed..],
                Step::Incomplete { .. } => return decryptor.end_of_input(stream.len()),
                Step::End { consumed } if self.trailing != Some(Trailing::Leave) => {
                    // The decryptor takes nothing after the end, and calls whatever there is trailing data.
                    return decryptor.open(&stream[consumed..], plaintext).map(drop);
                }
                Step::End { .. } => return Ok(()),
            }
        }
    }
}
