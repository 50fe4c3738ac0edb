//! The secret that a stream is sealed under, and rings of them.
//!
//! A [`Key`] is wiped when it is dropped, compares in constant time, and never shows itself: not through `Debug`, and there
//! is no `Display`. Its bytes live in one place on the heap, so that moving a key leaves no copy behind.

use std::{fmt, str::FromStr, sync::Arc};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{error::Error, random};

/// A 256-bit secret key.
///
/// It must be uniformly random: [`Key::generate`], a key management service, or the output of a password hash, never a
/// password itself. One key serves 2^64 streams ([where this comes from](crate::format#limits-and-where-they-come-from)).
/// Where to keep it, how to change it, and what never to do with it, is in [the guide](crate::guide::keys).
///
/// ```
/// use agcm::Key;
///
/// let key = Key::generate();
/// assert_eq!(format!("{key:?}"), "Key(..)");
///
/// let same = Key::try_from(&key.expose_bytes()[..])?;
/// assert!(key == same);
///
/// let parsed: Key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".parse()?;
/// assert_eq!(parsed.expose_bytes()[31], 0x1f);
/// # Ok::<(), agcm::Error>(())
/// ```
pub struct Key(Box<[u8; Key::LEN]>);

impl Key {
    /// The length of a key, in bytes.
    pub const LEN: usize = 32;

    /// All zero, to be filled in where it lies.
    fn zeroed() -> Self {
        Self(Box::new([0; Self::LEN]))
    }

    /// A new key, from the operating system's random number generator.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes. This does not happen on a machine that works; going on with a key that
    /// is not random would be worse.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Self::zeroed();
        match random::fill(&mut key.0[..]) {
            Ok(()) => key,
            Err(error) => panic!("no key can be generated: {error}"),
        }
    }

    /// The key with these bytes, which must be uniformly random.
    ///
    /// The array that is passed in is the caller's to wipe.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; Self::LEN]) -> Self {
        let mut key = Self::zeroed();
        key.0.copy_from_slice(&bytes);
        // Not by `Zeroizing`, which it would have to be moved into.
        bytes.zeroize();
        key
    }

    /// The key's bytes, to store them somewhere safe.
    ///
    /// The name is long so that a review finds each place where a key leaves its type.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = Error;

    /// Takes exactly 32 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] for any other length.
    fn try_from(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() != Self::LEN {
            return Err(Error::InvalidKey);
        }
        let mut key = Self::zeroed();
        key.0.copy_from_slice(bytes);
        Ok(key)
    }
}

impl FromStr for Key {
    type Err = Error;

    /// Takes exactly 64 hex digits, in lower or upper case; decoded in constant time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] for anything else, white space included: a file may end in a newline, and is for [`Key::from_file_content`].
    fn from_str(hex: &str) -> Result<Self, Error> {
        let mut key = Self::zeroed();
        // The decoder takes shorter input too, and would leave the rest of the key zero.
        if hex.len() != 2 * Self::LEN || base16ct::mixed::decode(hex, &mut key.0[..]).is_err() {
            return Err(Error::InvalidKey);
        }
        Ok(key)
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        // Not derived: a copy might come by way of the stack.
        let mut key = Self::zeroed();
        key.0.copy_from_slice(&self.0[..]);
        key
    }
}

impl PartialEq for Key {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0[..].ct_eq(&other.0[..]).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

/// The keys that a reader tries: the stream's key commitment picks the right one.
///
/// Whatever decrypts takes `impl Into<KeyRing>`, so a single `&key` will do. With several, streams under an old and a new
/// key can be read side by side while keys are rotated. Each key costs one key derivation (some microseconds) per stream;
/// no data is decrypted in vain. A ring of no keys opens nothing.
///
/// ```
/// use agcm::{Key, KeyRing};
///
/// let (old, new) = (Key::generate(), Key::generate());
/// let stream = agcm::encrypt(&old, b"from before the rotation");
///
/// let ring: KeyRing = [new, old].into_iter().collect();
/// assert_eq!(agcm::decrypt(&ring, &stream)?, b"from before the rotation");
/// # Ok::<(), agcm::Error>(())
/// ```
#[derive(Clone)]
pub struct KeyRing(Arc<[Key]>);

impl KeyRing {
    pub(crate) fn keys(&self) -> &[Key] {
        &self.0
    }
}

impl From<Key> for KeyRing {
    fn from(key: Key) -> Self {
        Self(Arc::new([key]))
    }
}

impl From<&Key> for KeyRing {
    fn from(key: &Key) -> Self {
        key.clone().into()
    }
}

impl From<&KeyRing> for KeyRing {
    /// Shares the keys; none is copied.
    fn from(ring: &KeyRing) -> Self {
        ring.clone()
    }
}

impl FromIterator<Key> for KeyRing {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.0.len()).finish()
    }
}
