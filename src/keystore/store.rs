//! What a key store does, and what can go wrong.

use std::{error, fmt, io, path::PathBuf, sync::Arc};

use futures_core::future::BoxFuture;

use crate::key::Key;

/// Keeps keys by id.
///
/// [`encrypt_snapshot`](crate::encrypt_snapshot) and [`restore_snapshot`](crate::restore_snapshot) take one. It is
/// `dyn`-compatible, and implemented for `&T`, `Box<T>` and `Arc<T>` as well. [`BoxFuture`] is the one of the crates
/// `futures` and `futures_core`: a pinned box of a future that is `Send`.
///
/// ```
/// use std::{collections::BTreeMap, sync::Mutex};
/// use agcm::{Key, keystore::{KeyStore, KeyStoreError}};
/// use futures::future::{BoxFuture, FutureExt, ready};
///
/// /// Keeps keys in memory: for tests.
/// #[derive(Default)]
/// struct Memory(Mutex<BTreeMap<String, Key>>);
///
/// impl KeyStore for Memory {
///     fn store<'a>(&'a self, id: &'a str, key: &'a Key) -> BoxFuture<'a, Result<(), KeyStoreError>> {
///         let mut keys = self.0.lock().unwrap();
///         if keys.contains_key(id) {
///             return ready(Err(KeyStoreError::IdTaken(id.to_owned()))).boxed();
///         }
///         keys.insert(id.to_owned(), key.clone());
///         ready(Ok(())).boxed()
///     }
///
///     fn retrieve<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Key, KeyStoreError>> {
///         let key = self.0.lock().unwrap().get(id).cloned();
///         ready(key.ok_or_else(|| KeyStoreError::NoSuchId(id.to_owned()))).boxed()
///     }
///
///     fn list(&self) -> BoxFuture<'_, Result<Vec<String>, KeyStoreError>> {
///         let ids = self.0.lock().unwrap().keys().cloned().collect();
///         ready(Ok(ids)).boxed()
///     }
///
///     fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), KeyStoreError>> {
///         let key = self.0.lock().unwrap().remove(id);
///         ready(key.map(drop).ok_or_else(|| KeyStoreError::NoSuchId(id.to_owned()))).boxed()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), KeyStoreError> {
/// let keys = Memory::default();
/// let key = Key::generate();
/// keys.store("db", &key).await?;
/// assert_eq!(keys.retrieve("db").await?, key);
/// assert!(matches!(keys.store("db", &Key::generate()).await, Err(KeyStoreError::IdTaken(_))));
/// # Ok(())
/// # }
/// ```
pub trait KeyStore: Send + Sync {
    /// Stores a key under a new id.
    ///
    /// When this returns, the key will survive whatever the store is meant to survive. A key is never replaced: of two that
    /// are stored under one id at the same time, one is an error.
    ///
    /// # Errors
    ///
    /// [`IdTaken`](KeyStoreError::IdTaken), [`BadId`](KeyStoreError::BadId), or whatever keeps the store from storing. Only
    /// where that cannot be known (a connection that was cut) the key may be there all the same.
    fn store<'a>(&'a self, id: &'a str, key: &'a Key) -> BoxFuture<'a, Result<(), KeyStoreError>>;

    /// The key that is stored under an id.
    ///
    /// # Errors
    ///
    /// [`NoSuchId`](KeyStoreError::NoSuchId), [`BadId`](KeyStoreError::BadId), or whatever keeps the store from finding it.
    fn retrieve<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Key, KeyStoreError>>;

    /// All ids, in alphabetical order.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from knowing.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, KeyStoreError>>;

    /// Removes the key that is stored under an id. Whatever it has encrypted can never be decrypted again.
    ///
    /// # Errors
    ///
    /// [`NoSuchId`](KeyStoreError::NoSuchId), [`BadId`](KeyStoreError::BadId), or whatever keeps the store from removing it.
    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), KeyStoreError>>;
}

macro_rules! forward {
    ($($through:ty),*) => {$(
        impl<T: KeyStore + ?Sized> KeyStore for $through {
            fn store<'a>(&'a self, id: &'a str, key: &'a Key) -> BoxFuture<'a, Result<(), KeyStoreError>> {
                (**self).store(id, key)
            }

            fn retrieve<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Key, KeyStoreError>> {
                (**self).retrieve(id)
            }

            fn list(&self) -> BoxFuture<'_, Result<Vec<String>, KeyStoreError>> {
                (**self).list()
            }

            fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), KeyStoreError>> {
                (**self).remove(id)
            }
        }
    )*};
}
forward!(&T, Arc<T>, Box<T>);

/// Makes a `KeyStore` out of a type that is `Clone` and has the methods `store_now`, `retrieve_now`, `list_now` and
/// `remove_now`, which block: they are called on the blocking pool.
macro_rules! on_the_blocking_pool {
    ($store:ty) => {
        impl KeyStore for $store {
            fn store<'a>(&'a self, id: &'a str, key: &'a Key) -> BoxFuture<'a, Result<(), KeyStoreError>> {
                let (store, id, key) = (self.clone(), id.to_owned(), key.clone());
                Box::pin(blocking(move || store.store_now(&id, &key)))
            }

            fn retrieve<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Key, KeyStoreError>> {
                let (store, id) = (self.clone(), id.to_owned());
                Box::pin(blocking(move || store.retrieve_now(&id)))
            }

            fn list(&self) -> BoxFuture<'_, Result<Vec<String>, KeyStoreError>> {
                let store = self.clone();
                Box::pin(blocking(move || store.list_now()))
            }

            fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), KeyStoreError>> {
                let (store, id) = (self.clone(), id.to_owned());
                Box::pin(blocking(move || store.remove_now(&id)))
            }
        }
    };
}
pub(super) use on_the_blocking_pool;

/// For that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyStoreError> + Send + 'static,
) -> Result<T, KeyStoreError> {
    crate::blocking::io(move || Ok(work())).await?
}

/// What keeps a key store from doing what it was asked to: [the
/// runbook](crate::guide::restoring#what-is-wrong-with-a-key-store) says what to do about it.
///
/// The messages name ids and paths, never a byte of a key or a passphrase, and never an id that was not asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// There is no key of this id.
    NoSuchId(String),
    /// There is a key of this id already; it stays.
    IdTaken(String),
    /// What this store takes for no id.
    BadId {
        /// The id.
        id: String,
        /// What an id has to be.
        rule: &'static str,
    },
    /// Others than its owner may read, or change, where a key is kept.
    UnsafePermissions {
        /// The file or folder.
        path: PathBuf,
        /// Its permissions (Unix).
        mode: u32,
    },
    /// What is stored under the id is not a key, or is damaged.
    NotAKey {
        /// The id.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key of this id is wrapped under a passphrase, and none was given.
    NoPassphrase(String),
    /// The key of this id is wrapped under another passphrase.
    WrongPassphrase(String),
    /// The file system, the network or the service.
    Io(io::Error),
}

impl fmt::Display for KeyStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchId(id) => {
                write!(
                    f,
                    "there is no key with the id {id:?}; check the spelling, and whether this is the right key store"
                )
            }
            Self::IdTaken(id) => {
                write!(f, "there is a key with the id {id:?} already, and it is never replaced; choose another id")
            }
            Self::BadId { id, rule } => write!(f, "{id:?} cannot be the id of a key: {rule}"),
            Self::UnsafePermissions { path, mode } => write!(
                f,
                "others than its owner may get at {path:?} (mode {:03o}); find out who did, then take these rights away \
                 (chmod go= {path:?})",
                mode & 0o777
            ),
            Self::NotAKey { id, reason } => {
                write!(f, "what is stored with the id {id:?} is not a key: {reason}; look for another copy of it")
            }
            Self::NoPassphrase(id) => {
                write!(f, "the key with the id {id:?} is wrapped under a passphrase: give it, too")
            }
            Self::WrongPassphrase(id) => {
                write!(f, "this is not the passphrase of the key with the id {id:?} (a changed file looks the same)")
            }
            Self::Io(error) => write!(f, "the key store does not work: {error}"),
        }
    }
}

impl error::Error for KeyStoreError {}

impl From<io::Error> for KeyStoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
