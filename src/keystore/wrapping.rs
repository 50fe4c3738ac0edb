//! Keys wrapped under a passphrase.
//!
//! The form is described at [`DirKeyStore`](super::DirKeyStore). Nothing that a file says may make this take more memory or
//! time than its limits, and a derived key is wiped like any other.

use std::{fmt, io, sync::Arc};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Ident, ParamsString, PasswordHash, Salt},
};
use zeroize::Zeroizing;

use super::store::KeyStoreError;
use crate::{
    encrypt::Encryptor,
    error::Error,
    key::Key,
    options::{DecryptOptions, EncryptOptions},
    random,
};

/// What new keys are wrapped with: "if much less memory is available", RFC 9106, section 4. 64 MiB.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const SALT_LEN: usize = 16;

/// The most that a file may ask for: 1 GiB, and as much work as 4 GiB in one pass, some seconds.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 64;
const MAX_WORK_KIB: u64 = 4 * 1024 * 1024;

/// A passphrase that keys are wrapped under, and what guessing it costs.
///
/// It is wiped when the last clone is dropped, and shows itself nowhere.
///
/// The costs are those that [RFC 9106] recommends where 64 MiB of memory are to be had: 3 passes, 4 lanes; some tenths of a
/// second on today's machines. Choose more where that can be waited for.
///
/// ```
/// use agcm::keystore::{KeyStoreError, Passphrase};
///
/// let passphrase = Passphrase::new("correct horse battery staple").costs(256 * 1024, 3, 4)?; // 256 MiB
/// assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// [RFC 9106]: https://www.rfc-editor.org/rfc/rfc9106
#[derive(Clone)]
pub struct Passphrase {
    secret: Arc<Zeroizing<Vec<u8>>>,
    costs: Params,
}

impl Passphrase {
    /// A passphrase, as bytes or text: what is typed must be the same bytes every time, without a newline at the end.
    ///
    /// What is passed in is the caller's to wipe.
    #[must_use]
    pub fn new(passphrase: impl AsRef<[u8]>) -> Self {
        let secret = Arc::new(Zeroizing::new(passphrase.as_ref().to_vec()));
        match Params::new(MEMORY_KIB, PASSES, LANES, Some(Key::LEN)) {
            Ok(costs) => Self { secret, costs },
            Err(_) => unreachable!("the costs of an RFC are legal"),
        }
    }

    /// Sets what it costs to try a passphrase on the keys that are stored from now on: memory in KiB, passes over it, and
    /// lanes. Keys that were stored before keep their costs.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) over 1 GiB, 64 passes, 64 lanes, or 4 GiB of memory times passes, which
    /// would not be read again; and for less than one pass, one lane, and 8 KiB a lane.
    pub fn costs(self, memory_kib: u32, passes: u32, lanes: u32) -> io::Result<Self> {
        let costs = Params::new(memory_kib, passes, lanes, Some(Key::LEN)).ok().filter(may_be_paid);
        let costs = costs.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "these costs of a passphrase are outside of what Argon2 or agcm allow",
            )
        })?;
        Ok(Self { costs, ..self })
    }

    pub(super) fn wrap(&self, key: &Key) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut salt = [0; SALT_LEN];
        random::fill(&mut salt)?;
        let line = line(&self.costs, &salt)?;
        let wrapping_key = self.derive(&self.costs, &salt)?;

        let options = EncryptOptions::new().context(&line)?;
        let (mut encryptor, prelude) = Encryptor::start(&wrapping_key, &options)?;
        let mut content = Zeroizing::new(Vec::with_capacity(line.len() + 1 + 256));
        content.extend_from_slice(line.as_bytes());
        content.push(b'\n');
        content.extend_from_slice(&prelude);
        encryptor.seal(key.expose_bytes(), &mut content)?;
        content.extend_from_slice(&encryptor.finish());
        Ok(content)
    }

    pub(super) fn unwrap(&self, id: &str, content: &[u8]) -> Result<Key, KeyStoreError> {
        let not_a_key = |reason| KeyStoreError::NotAKey { id: id.to_owned(), reason };
        let (line, stream) = content
            .iter()
            .position(|&byte| byte == b'\n')
            .and_then(|end| Some((std::str::from_utf8(&content[..end]).ok()?, &content[end + 1..])))
            .ok_or_else(|| not_a_key("it begins like a wrapped key, but not with a line of text"))?;
        let (costs, salt) =
            parse(line).ok_or_else(|| not_a_key("its first line is none of Argon2id, version 19, costs and salt"))?;
        if !may_be_paid(&costs) {
            return Err(not_a_key("its first line asks for more memory or time than is allowed"));
        }
        let wrapping_key = self.derive(&costs, &salt)?;
        let options = DecryptOptions::new().context(line).map_err(|_| not_a_key("its first line is too long"))?;
        match options.decrypt(&wrapping_key, stream).map(Zeroizing::new) {
            Ok(bytes) => Key::try_from(&bytes[..]).map_err(|_| not_a_key("it is wrapped, but not 32 bytes long")),
            Err(Error::KeyMismatch) => Err(KeyStoreError::WrongPassphrase(id.to_owned())),
            Err(_) => Err(not_a_key("the stream behind its first line is damaged")),
        }
    }

    fn derive(&self, costs: &Params, salt: &[u8]) -> io::Result<Key> {
        let mut bytes = Zeroizing::new([0; Key::LEN]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs.clone());
        // Ours to wipe: what it held would give the key away as well as the passphrase.
        let mut memory = Zeroizing::new(vec![Block::default(); costs.block_count()]);
        argon2
            .hash_password_into_with_memory(&self.secret, salt, &mut *bytes, &mut memory[..])
            .map_err(io::Error::other)?;
        Ok(Key::try_from(&bytes[..])?)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The first line of a wrapped key, without its newline.
fn line(costs: &Params, salt: &[u8]) -> io::Result<String> {
    let line = || {
        Some(PasswordHash {
            algorithm: Ident::new("argon2id").ok()?,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(costs).ok()?,
            salt: Some(Salt::new(salt).ok()?),
            hash: None,
        })
    };
    line().map(|line| line.to_string()).ok_or_else(|| io::Error::other("costs or salt don't fit into a PHC string"))
}

/// Costs and salt of a line. `None` unless it is exactly one that we would write: nothing is left to a default.
fn parse(text: &str) -> Option<(Params, Salt)> {
    let parsed = PasswordHash::new(text).ok()?;
    let (costs, salt) = (Params::try_from(&parsed).ok()?, parsed.salt?);
    // Without what else Argon2 takes from a line: a key id, data.
    let costs = Params::new(costs.m_cost(), costs.t_cost(), costs.p_cost(), Some(Key::LEN)).ok()?;
    let same = salt.len() == SALT_LEN && line(&costs, &salt).is_ok_and(|line| line == text);
    same.then_some((costs, salt))
}

fn may_be_paid(costs: &Params) -> bool {
    let (memory, passes, lanes) = (costs.m_cost(), costs.t_cost(), costs.p_cost());
    memory <= MAX_MEMORY_KIB
        && passes <= MAX_PASSES
        && lanes <= MAX_LANES
        && u64::from(memory) * u64::from(passes) <= MAX_WORK_KIB
}
