//! What a stream or a caller can do wrong, as plain data.
//!
//! [`Error`] is small and `Copy`, so adapters can remember it and return it again. It never holds an I/O error (those
//! pass through unchanged), and it never holds a byte of key or plaintext.

use std::{error, fmt, io, path::Path};

/// What a stream or a caller did wrong.
///
/// [The runbook](crate::guide::restoring#what-is-wrong-with-a-stream) says of each what it means, what it does not mean, and
/// what to do.
///
/// In the variants, `frame` is the number of a data frame, counted from 0 (the final frame has the number that the next
/// data frame would have had), and `at` is an offset in the encrypted stream, in bytes from the first byte of its header.
/// Readers by offset look at the final frame first, and have to guess its number: it is the one it has in a uniform stream.
///
/// # In and out of `io::Error`
///
/// Adapters speak [`std::io::Error`]. An `Error` becomes one of kind [`InvalidData`](io::ErrorKind::InvalidData) if the
/// stream is at fault ([`Truncated`](Self::Truncated) too: `UnexpectedEof` would look like a clean end to the loops over
/// `read_u32` that exist) or of kind [`InvalidInput`](io::ErrorKind::InvalidInput) if the caller is.
/// Where either can be ([`InvalidChunkSize`](Self::InvalidChunkSize), [`ChunkTooLarge`](Self::ChunkTooLarge),
/// [`StreamTooLong`](Self::StreamTooLong)), it counts as the stream. [`Error::from_io`] gets it back:
///
/// ```
/// use agcm::{DecryptReader, Error, Key};
/// use tokio::io::AsyncReadExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let stream = agcm::encrypt(&Key::generate(), b"snapshot");
/// let mut reader = DecryptReader::new(&stream[..], &Key::generate());
/// let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
///
/// assert_eq!(Error::from_io(&error), Some(Error::KeyMismatch));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The input does not begin with `AGCM`.
    BadMagic,
    /// The header states a version of the format that this crate does not know.
    UnsupportedVersion(u32),
    /// A chunk size outside 1 byte ..= 10 MiB, in a header or in a caller's options.
    InvalidChunkSize(u64),
    /// A valid chunk size that is more than the reader accepts, or a chunk that is longer than its stream's chunk size.
    ChunkTooLarge {
        /// The chunk's size, in bytes.
        chunk: u64,
        /// The most that is accepted, in bytes.
        max: u64,
    },
    /// A stream of the Go library Harpocrates: the same magic and version, another format.
    LegacyStream,
    /// A frame word that cannot stand where it stands.
    InvalidFrame {
        /// The number of the frame.
        frame: u64,
        /// Where the frame begins.
        at: u64,
        /// The four bytes that were found, as a little-endian integer: kind in the top 8 bits, length in the rest.
        word: u32,
    },
    /// None of the keys opens the stream: a wrong key, a wrong context, or a changed header or salt.
    KeyMismatch,
    /// A frame that does not authenticate, or a final frame that does not describe what came before it.
    Corrupt {
        /// The number of the frame.
        frame: u64,
        /// Where the frame begins.
        at: u64,
    },
    /// The input ended before the end of the final frame.
    Truncated {
        /// Where the input ended.
        at: u64,
    },
    /// There are bytes after the final frame, where the input is meant to be one whole stream.
    TrailingData {
        /// Where the final frame ended.
        at: u64,
    },
    /// The stream passes 4 PiB (2^52 bytes) of plaintext or 2^40 data frames.
    StreamTooLong,
    /// A write to a stream that was finished already.
    Finished,
    /// A key that is not exactly 32 bytes, or not exactly 64 hex digits.
    InvalidKey,
    /// A context of more than 65 535 bytes; the number is its length.
    ContextTooLong(usize),
    /// A range of the plaintext that is not within it, or that ends before it starts. All in bytes.
    RangeOutOfBounds {
        /// Where the range starts.
        start: u64,
        /// Where it ends: the first byte behind it.
        end: u64,
        /// The length of the plaintext.
        len: u64,
    },
    /// A range of the plaintext that is too long to be held in memory at once.
    RangeTooLong {
        /// The length of the range, in bytes.
        len: u64,
        /// The most that is read at once, in bytes.
        max: u64,
    },
}

impl Error {
    /// The `Error` inside an [`io::Error`], if there is one.
    ///
    /// Looks through the whole chain of sources, so an error that was wrapped on its way up is found too.
    ///
    /// ```
    /// use std::io;
    /// use agcm::Error;
    ///
    /// let error = io::Error::from(Error::Truncated { at: 65_620 });
    /// assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    /// assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: 65_620 }));
    /// assert_eq!(Error::from_io(&io::Error::other("disk on fire")), None);
    /// ```
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<Self> {
        fn inside(error: &io::Error) -> Option<&(dyn error::Error + 'static)> {
            error.get_ref().map(|inner| inner as _)
        }

        let mut next = inside(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            next = if let Some(explained) = error.downcast_ref::<Explained>() {
                inside(&explained.cause)
            } else if let Some(error) = error.downcast_ref::<io::Error>() {
                // Its own `source` skips the error that it wraps, which may be the one we look for.
                inside(error)
            } else {
                error.source()
            };
        }
        None
    }

    fn kind(self) -> io::ErrorKind {
        match self {
            Self::Finished
            | Self::InvalidKey
            | Self::ContextTooLong(_)
            | Self::RangeOutOfBounds { .. }
            | Self::RangeTooLong { .. } => io::ErrorKind::InvalidInput,
            Self::BadMagic
            | Self::UnsupportedVersion(_)
            | Self::InvalidChunkSize(_)
            | Self::ChunkTooLarge { .. }
            | Self::LegacyStream
            | Self::InvalidFrame { .. }
            | Self::KeyMismatch
            | Self::Corrupt { .. }
            | Self::Truncated { .. }
            | Self::TrailingData { .. }
            | Self::StreamTooLong => io::ErrorKind::InvalidData,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadMagic => f.write_str(
                "not an AGCM stream: it does not begin with \"AGCM\"; check that this is the encrypted file and that \
                 nothing (compression, base64) is wrapped around it",
            ),
            Self::UnsupportedVersion(version) => write!(
                f,
                "format version {version} is not supported (only 1 is); a newer release of agcm wrote this stream, or \
                 its header is damaged"
            ),
            Self::InvalidChunkSize(size) => write!(
                f,
                "chunk size {size} is outside 1 ..= 10485760 bytes (10 MiB); choose another one, or, if it stands in the \
                 header of a stream, look for an undamaged copy"
            ),
            Self::ChunkTooLarge { chunk, max } => write!(
                f,
                "a chunk of {chunk} bytes is over the limit of {max}; cut it smaller when writing, or raise \
                 max_chunk_size when reading a stream that may use that much memory"
            ),
            Self::LegacyStream => f.write_str(
                "written by the Go library Harpocrates, whose format is another one and is not safe; import it into the new \
                 format (agcm import --from-go, or legacy::GoReader)",
            ),
            Self::InvalidFrame { frame, at, word } => write!(
                f,
                "no frame can begin with {word:#010x} (frame {frame}, at byte {at}); the stream was damaged or \
                 changed there: compare it with another copy"
            ),
            Self::KeyMismatch => f.write_str(
                "no key given opens this stream; check that key and context are those it was encrypted with (a \
                 changed header looks the same)",
            ),
            Self::Corrupt { frame, at } => write!(
                f,
                "frame {frame}, at byte {at}, is damaged or was changed; the key is right and what was read before it is \
                 intact: compare this place with another copy"
            ),
            Self::Truncated { at: 0 } => f.write_str(
                "the input is empty, without even a header; the transfer failed or the writer was never finished: look \
                 for another copy",
            ),
            Self::Truncated { at } => {
                write!(
                    f,
                    "the stream stops at byte {at}, before its end; the transfer was cut or the writer was never \
                     finished: look for a longer copy"
                )?;
                if at == 24 {
                    f.write_str(" (a bare header is also what the Go library Harpocrates wrote for an empty input)")?;
                }
                Ok(())
            }
            Self::TrailingData { at } => write!(
                f,
                "the stream is whole, but more bytes follow its end at byte {at}; check whether files were joined, or, \
                 if they are meant to follow, read up to that end only"
            ),
            Self::StreamTooLong => f.write_str(
                "a stream holds at most 4 PiB (2^52 bytes) and 2^40 data frames; split the data over several streams, \
                 or use larger chunks",
            ),
            Self::Finished => f.write_str("the stream was finished already; nothing more can be written to it"),
            Self::InvalidKey => f.write_str(
                "a key is exactly 32 bytes, or 64 hex digits as text; check for a line break, a prefix or a \
                 passphrase in its place",
            ),
            Self::ContextTooLong(len) => {
                write!(f, "a context of {len} bytes is over the limit of 65535; use a hash of it")
            }
            Self::RangeOutOfBounds { start, end, .. } if start > end => {
                write!(f, "the range {start}..{end} ends before it starts; check the order of its offsets")
            }
            Self::RangeOutOfBounds { start, end, len } => write!(
                f,
                "the range {start}..{end} is not within the {len} bytes of plaintext; check the offsets, and whether this \
                 is the stream they are meant for"
            ),
            Self::RangeTooLong { len, max } => write!(
                f,
                "a range of {len} bytes is over the limit of {max} for one read; read it as a stream of pieces, or piece \
                 by piece"
            ),
        }
    }
}

impl error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// An I/O error with more words, of the same kind.
///
/// It shows its cause and does not name it as its source, so that what prints a chain of sources does not print it twice.
#[derive(Debug)]
pub(crate) struct Explained {
    words: String,
    cause: io::Error,
    place: Place,
}

/// Where the words are, from where those of the cause are.
#[derive(Debug)]
enum Place {
    Before,
    /// They say it all, and those of the cause would mislead.
    Instead,
    Behind,
}

impl Explained {
    pub(crate) fn error(words: String, cause: io::Error) -> io::Error {
        io::Error::new(cause.kind(), Self { words, cause, place: Place::Before })
    }

    /// With these words in the place of its own.
    pub(crate) fn instead(words: String, cause: io::Error) -> io::Error {
        io::Error::new(cause.kind(), Self { words, cause, place: Place::Instead })
    }
}

/// Adds to an error what else went wrong.
pub(crate) fn and(cause: io::Error, words: String) -> io::Error {
    io::Error::new(cause.kind(), Explained { words, cause, place: Place::Behind })
}

/// Adds to an error where it happened.
pub(crate) fn at(path: &Path, doing: &str, error: io::Error) -> io::Error {
    Explained::error(format!("{doing} {path:?}"), error)
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Before => write!(f, "{}: {}", self.words, self.cause),
            Place::Instead => f.write_str(&self.words),
            Place::Behind => write!(f, "{}; {}", self.cause, self.words),
        }
    }
}

impl error::Error for Explained {}
