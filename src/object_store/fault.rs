//! Errors on their way to and from those of the crate `object_store`.
//!
//! Each says which object it is about, and none holds a byte of key or plaintext.

use std::{error, io};

use object_store::path::Path;

use crate::error::{Error, Explained};

/// What this crate calls itself in the errors of the crate `object_store`.
pub(super) const STORE: &str = "agcm";

impl Error {
    /// The `Error` inside an error of the crate [`object_store`](mod@crate::object_store), if there is one. (Feature `object_store`.)
    ///
    /// Looks through the whole chain of sources, as [`from_io`](Self::from_io) does.
    ///
    /// ```
    /// use agcm::{Error, Key, object_store::EncryptedStore};
    /// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> object_store::Result<()> {
    /// let (path, inner) = (Path::from("rows"), InMemory::new());
    /// inner.put(&path, agcm::encrypt(&Key::generate(), b"row 1").into()).await?;
    ///
    /// let store = EncryptedStore::new(inner, &Key::generate());
    /// let error = store.get(&path).await.unwrap_err();
    /// assert_eq!(Error::from_store(&error), Some(Error::KeyMismatch));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn from_store(error: &object_store::Error) -> Option<Self> {
        let mut next = error::Error::source(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<Self>() {
                return Some(*error);
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::from_io(error);
            }
            next = error.source();
        }
        None
    }
}

/// Why something was not read or written: kept by whoever has to say it again.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the stream did wrong.
    Stream(Error),
    /// The same, in words that say it better.
    Explained(Error, String),
    /// Nothing that has a name among the errors of streams.
    Words(String),
    /// The inner store's.
    Store(object_store::Error),
}

impl Fault {
    /// As an error about this object.
    pub(super) fn about(self, path: &Path) -> object_store::Error {
        let cause = match self {
            Self::Stream(error) => error.into(),
            Self::Explained(error, words) => Explained::instead(words, error.into()),
            Self::Words(words) => io::Error::new(io::ErrorKind::InvalidData, words),
            Self::Store(error) => return error,
        };
        let source = Explained::error(format!("the object {:?}", path.as_ref()), cause);
        object_store::Error::Generic { store: STORE, source: source.into() }
    }

    /// The same once more. An error of the inner store cannot be had twice: what is left of it are its words.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Stream(error) => Self::Stream(*error),
            Self::Explained(error, words) => Self::Explained(*error, words.clone()),
            Self::Words(words) => Self::Words(words.clone()),
            Self::Store(error) => Self::Words(format!("reading it had failed before: {error}")),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Stream(error)
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

/// A chunk was lost with the thread that worked on it.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Words(error.to_string())
    }
}

/// The object is no longer the one that was opened.
pub(super) fn replaced(path: &Path) -> object_store::Error {
    object_store::Error::Precondition {
        path: path.to_string(),
        source: "it was replaced while it was read; read it anew".into(),
    }
}
