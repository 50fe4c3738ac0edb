//! Keys on the keychain of the operating system.
//!
//! A keychain replaces what it is told to store. This store must not, so it looks first, and one operation at a time.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_core::future::BoxFuture;
use keyring_core::{CredentialStore, Entry, Error};
use zeroize::Zeroizing;

use super::store::{KeyStore, KeyStoreError, blocking, on_the_blocking_pool};
use crate::key::Key;

/// The account under which the ids are listed: keychains have no search that works alike on all systems. It has a name,
/// because for the keychain of macOS one without would be any account.
const INDEX: &str = "agcm-ids";
/// The longest id, in bytes.
const MAX_ID_LEN: usize = 200;

/// One operation of this process at a time, as each looks before it writes.
static TURN: Mutex<()> = Mutex::new(());

/// A [`KeyStore`] on the keychain of the operating system: Keychain on macOS, Credential Manager on Windows, and the Secret
/// Service (GNOME Keyring, KWallet) elsewhere.
///
/// Each key is one entry, whose service is that of the store, and whose account is the id; the secret is the 32 bytes of
/// the key. An id is 1 to 200 bytes of text without control characters, and not `agcm-ids`: the entry of that account holds
/// the ids, one a line, because keychains have no search that works alike everywhere. On Windows it has room for about 2500
/// bytes of ids.
///
/// Operations of one process take turns. Keychains themselves replace what they are told to store, so two *processes* that
/// store a key under one new id in the same moment may both succeed, and one key is lost; or one of two new ids may be
/// missing in the list, but not its key. Where several machines or processes make keys, use a service that decides.
///
/// ```no_run
/// use agcm::{encrypt_snapshot, keystore::KeychainStore};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = KeychainStore::native("com.example.backup")?;
/// encrypt_snapshot("db.dump", "db.dump.agcm", &keys, "db-2026-11-22").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Every operation may be dropped; it is then done or not.
///
/// # Panics
///
/// All operations, outside a Tokio runtime.
#[derive(Clone)]
pub struct KeychainStore {
    service: Arc<str>,
    keychain: Arc<CredentialStore>,
}

impl KeychainStore {
    /// The keychain of this system, for the keys of `service` (the name of an application).
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be reached.
    pub fn native(service: &str) -> Result<Self, KeyStoreError> {
        if let Err(error) = keyring::Entry::store_status() {
            return Err(io::Error::other(format!("there is no keychain on this system: {error}")).into());
        }
        match keyring_core::get_default_store() {
            Some(keychain) => Ok(Self::with_store(service, keychain)),
            None => Err(io::Error::other("there is no keychain on this system").into()),
        }
    }

    /// Another store of the crate `keyring_core`, for the keys of `service`.
    ///
    /// ```
    /// use agcm::{Key, keystore::{KeyStore, KeyStoreError, KeychainStore}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let in_memory = keyring_core::mock::Store::new()?;
    /// let keys = KeychainStore::with_store("com.example.backup", in_memory);
    /// let key = Key::generate();
    /// keys.store("db", &key).await?;
    /// assert_eq!(keys.retrieve("db").await?, key);
    /// assert_eq!(keys.list().await?, ["db"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_store(service: &str, keychain: Arc<CredentialStore>) -> Self {
        Self { service: service.into(), keychain }
    }

    /// The entry of an account, and whoever has it holds the turn.
    fn entry(&self, account: &str) -> Result<Entry, KeyStoreError> {
        self.keychain.build(&self.service, account, None).map_err(broken)
    }

    fn store_now(&self, id: &str, key: &Key) -> Result<(), KeyStoreError> {
        let _turn = turn();
        let entry = self.entry(checked(id)?)?;
        match entry.get_secret().map(Zeroizing::new) {
            Err(Error::NoEntry) => {}
            Ok(_) => return Err(KeyStoreError::IdTaken(id.to_owned())),
            Err(error) => return Err(broken(error)),
        }
        // Listed first: a key that no list shows would be worse than a line without a key, which `list` leaves out.
        let mut ids = self.ids()?;
        if let Err(place) = ids.binary_search_by(|listed| (**listed).cmp(id)) {
            ids.insert(place, id.to_owned());
            self.set_ids(&ids)?;
        }
        entry.set_secret(key.expose_bytes()).map_err(broken)
    }

    fn retrieve_now(&self, id: &str) -> Result<Key, KeyStoreError> {
        let _turn = turn();
        match self.entry(checked(id)?)?.get_secret().map(Zeroizing::new) {
            Ok(secret) => Key::try_from(&secret[..])
                .map_err(|_| KeyStoreError::NotAKey { id: id.to_owned(), reason: "it is not 32 bytes long" }),
            Err(Error::NoEntry) => Err(KeyStoreError::NoSuchId(id.to_owned())),
            Err(error) => Err(broken(error)),
        }
    }

    fn list_now(&self) -> Result<Vec<String>, KeyStoreError> {
        let _turn = turn();
        let mut ids = Vec::new();
        for id in self.ids()? {
            match self.entry(&id)?.get_secret().map(Zeroizing::new) {
                Ok(_) => ids.push(id),
                Err(Error::NoEntry) => {}
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(ids)
    }

    fn remove_now(&self, id: &str) -> Result<(), KeyStoreError> {
        let _turn = turn();
        match self.entry(checked(id)?)?.delete_credential() {
            Ok(()) => {}
            Err(Error::NoEntry) => return Err(KeyStoreError::NoSuchId(id.to_owned())),
            Err(error) => return Err(broken(error)),
        }
        // The key is gone. A line that is left is not listed.
        let _ = self.ids().and_then(|mut ids| {
            ids.retain(|listed| listed != id);
            self.set_ids(&ids)
        });
        Ok(())
    }

    /// The ids that were listed, in order.
    fn ids(&self) -> Result<Vec<String>, KeyStoreError> {
        let ids = match self.entry(INDEX)?.get_secret() {
            Ok(ids) => {
                String::from_utf8(ids).map_err(|_| io::Error::other("the list of ids on the keychain is not text"))?
            }
            Err(Error::NoEntry) => return Ok(Vec::new()),
            Err(error) => return Err(broken(error)),
        };
        Ok(ids.lines().map(str::to_owned).collect())
    }

    fn set_ids(&self, ids: &[String]) -> Result<(), KeyStoreError> {
        // Not as a password, which takes twice the room on Windows.
        self.entry(INDEX)?.set_secret(ids.join("\n").as_bytes()).map_err(broken)
    }
}

on_the_blocking_pool!(KeychainStore);

impl fmt::Debug for KeychainStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeychainStore").field("service", &self.service).finish_non_exhaustive()
    }
}

fn checked(id: &str) -> Result<&str, KeyStoreError> {
    // Windows does not tell upper case from lower case.
    let rule = "an id is 1 to 200 bytes of text without control characters, and not agcm-ids, where the ids are listed";
    if (1..=MAX_ID_LEN).contains(&id.len()) && !id.contains(char::is_control) && !id.eq_ignore_ascii_case(INDEX) {
        Ok(id)
    } else {
        Err(KeyStoreError::BadId { id: id.to_owned(), rule })
    }
}

/// The next who waits for it; a panic in a keychain leaves nothing half-done here.
fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some errors of a keychain hold what was stored there, so only what is known to be words is passed on.
fn broken(error: Error) -> KeyStoreError {
    io::Error::other(match error {
        Error::PlatformFailure(error) => format!("the keychain failed: {error}"),
        Error::NoStorageAccess(error) => format!("the keychain cannot be used, it may be locked: {error}"),
        Error::TooLong(_, most) => format!("the keychain takes no more than {most} bytes"),
        Error::Ambiguous(_) => "the keychain has several entries of this id".to_owned(),
        Error::NotSupportedByStore(what) => format!("the keychain cannot do this: {what}"),
        _ => "the keychain failed, or holds what is no key".to_owned(),
    })
    .into()
}
