//! How a command fails: one line for people, and a status for scripts.

use std::io;

use agcm::{Error, SnapshotError, keystore::KeyStoreError};

/// Why a command was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    /// `None` if there is nothing to say: whoever read our output has closed it.
    pub(crate) words: Option<String>,
}

impl Failure {
    fn new(status: u8, words: impl Into<String>) -> Self {
        Self { status, words: Some(words.into()) }
    }

    /// The command line is wrong.
    pub(crate) fn usage(words: impl Into<String>) -> Self {
        Self::new(2, words)
    }

    pub(crate) fn other(words: impl Into<String>) -> Self {
        Self::new(1, words)
    }

    /// Says behind it what would help.
    pub(crate) fn with(self, hint: &str) -> Self {
        Self { words: self.words.map(|words| format!("{words}; {hint}")), ..self }
    }

    /// Says before it what it is about.
    pub(crate) fn about(self, what: &str) -> Self {
        Self { words: self.words.map(|words| format!("{what}: {words}")), ..self }
    }
}

fn status(error: Error) -> u8 {
    match error {
        Error::KeyMismatch => 3,
        Error::InvalidKey | Error::Finished => 1,
        Error::ContextTooLong(_) | Error::RangeOutOfBounds { .. } | Error::RangeTooLong { .. } => 2,
        _ => 4,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(status(error), error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { status: 1, words: None };
        }
        Self::new(Error::from_io(&error).map_or(1, status), error.to_string())
    }
}

/// As any other error of a file that is written, with what would help.
pub(crate) fn unless_forced(error: io::Error) -> Failure {
    let exists = error.kind() == io::ErrorKind::AlreadyExists;
    let failure = Failure::from(error);
    if exists { failure.with("choose another name, or -f") } else { failure }
}

impl From<KeyStoreError> for Failure {
    fn from(error: KeyStoreError) -> Self {
        let status = match error {
            KeyStoreError::NoSuchId(_) => 5,
            KeyStoreError::WrongPassphrase(_) => 3,
            KeyStoreError::BadId { .. } => 2,
            _ => 1,
        };
        let hint = match error {
            KeyStoreError::NoPassphrase(_) => Some("--passphrase-file or AGCM_PASSPHRASE"),
            KeyStoreError::IdTaken(_) => {
                Some("or, if it is left over from a snapshot that was never made, remove it (agcm keys remove)")
            }
            _ => None,
        };
        let failure = Self::new(status, error.to_string());
        match hint {
            Some(hint) => failure.with(hint),
            None => failure,
        }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) => unless_forced(error),
            SnapshotError::Stream(error) => error.into(),
            SnapshotError::KeyStore(error) => error.into(),
            error => Self::other(error.to_string()),
        }
    }
}
