//! Streaming AES-256-GCM for async Rust, on Tokio.
//!
//! `agcm` encrypts and decrypts byte streams of any size in constant memory: snapshots to disk, over sockets, into object
//! stores. Whatever was cut, changed, reordered, spliced or sealed under another key is an error that says what is wrong and
//! where, and no byte of plaintext is released before its tag was checked.
//!
//! This page says which type is for what. The [guide] is for what no type can say: [chunk sizes](guide::chunk_size),
//! [keys](guide::keys), [a runbook for restoring](guide::restoring), [coming from the Go library](guide::from_go),
//! [what logs can tell](guide::observability), and [when to take something else](guide::choosing).
//!
//! # Which type do I want?
//!
//! | I have | I want | use |
//! |---|---|---|
//! | a file | an encrypted file, and back | [`encrypt_file`], [`decrypt_file`]; [`FileOptions`] for a context, progress, overwriting |
//! | an encrypted file | to know that it can be restored | [`verify_file`] |
//! | an encrypted file, and a new key | to have it under that | [`rekey_file`] |
//! | a file, and keys kept by id | a snapshot with a key of its own, and back | [`encrypt_snapshot`], [`restore_snapshot`], [`keystore`] |
//! | bytes to write, and a file, a socket, anything [`AsyncWrite`](tokio::io::AsyncWrite) | to write them encrypted | [`EncryptWriter`] |
//! | an encrypted [`AsyncRead`](tokio::io::AsyncRead) | to read the plaintext | [`DecryptReader`] |
//! | an [`AsyncRead`](tokio::io::AsyncRead), and something that pulls | to give it the stream | [`EncryptReader`] |
//! | something that pushes an encrypted stream, and an [`AsyncWrite`](tokio::io::AsyncWrite) | the plaintext written there | [`DecryptWriter`] |
//! | an encrypted file, or anything [`AsyncSeek`](tokio::io::AsyncSeek) | to read the plaintext from any place | [`SeekReader`] |
//! | an encrypted file or object, and many readers | ranges of the plaintext, many at once | [`RangeReader`], over any [`ReadAt`] |
#![cfg_attr(
    feature = "object_store",
    doc = "| an object store of the crate `object_store` | its objects encrypted, for whatever works over such a store | [`EncryptedStore`](object_store::EncryptedStore) |"
)]
#![cfg_attr(
    not(feature = "object_store"),
    doc = "| an object store of the crate `object_store` | its objects encrypted, for whatever works over such a store | `object_store::EncryptedStore`, with the feature of that name |"
)]
//! | a length | to know another: `Content-Length`, `Range` | [`geometry`] |
//! | a stream, and no key | to know what it is | [`inspect()`] |
//! | work that takes long | to see how far it is | [`FileOptions::progress`], [`ProgressReader`], [`ProgressWriter`] |
//! | a stream of the Go library Harpocrates | to read it once more | [`legacy::GoReader`] |
//! | a `Stream` of `Bytes`, or a wish for one | bridges, and what they cost | [`DecryptReader`](DecryptReader#as-a-stream-and-from-one), [`EncryptReader`](EncryptReader#as-a-stream-and-from-one) |
//! | requests and answers on a connection | what is written to arrive now | [`EncryptWriter::flush_chunk`] |
//! | a connection for several streams in a row | a `Sink` and `Stream` of frames | [`codec::framed`] |
//! | a slice in memory | a `Vec` | [`encrypt()`], [`decrypt()`] |
//! | synchronous code, or I/O of my own | only the cryptography | [`Encryptor`], [`Decryptor`] |
//! | an [`io::Error`](std::io::Error) | to know what to do | [`Error::from_io`], and [the runbook](guide::restoring) |
//!
//! All of them write and read one format, [version 1](mod@format), so what one seals every other opens. What can be chosen is
//! in [`EncryptOptions`] and [`DecryptOptions`]; whatever decrypts takes one [`Key`] or several ([`KeyRing`]).
//!
//! In debug builds AES is some hundred times slower, unless the profile says otherwise
//! (`[profile.dev.package."*"]`, `opt-level = 3`).
//!
//! # Features
//!
//! None is on by default. `passphrase` wraps the keys of a [`DirKeyStore`](keystore::DirKeyStore) under a passphrase,
//! `keyring` (Rust 1.88) adds a key store on the keychain of the operating system, `object_store` is an object store whose
//! objects lie encrypted in another one (module `object_store`), `tracing` tells [what streams do](guide::observability), and
//! `cli` is the command line, `agcm`.
//!
//! `aws-lc-rs` puts AWS-LC, in C and assembler, in the place of the crates of RustCrypto: AES-256-GCM and the key schedule
//! go through the crate [`aws-lc-rs`](https://docs.rs/aws-lc-rs) then. The streams are the same, byte for byte, and so is
//! the API; it needs a C compiler, and on processors with wide vectors it is several times as fast. [`backend()`] tells
//! which of the two is compiled in. One thing differs within a call: RustCrypto checks a tag before it decrypts, AWS-LC
//! decrypts while it hashes, and zeroes what it wrote if the tag then does not match. So while [`Decryptor`] or a reader is
//! working, the buffer that was lent to it may hold plaintext that nobody vouches for, and when it returns, it never does.
//! Another in memory: AWS-LC wipes what it frees, but each call leaves the hash key of GHASH behind on the stack.
//!
//! `fips` is `aws-lc-rs` with the feature of that name passed through: AWS-LC's FIPS module in the place of AWS-LC. The
//! module needs CMake, Go and Perl to be built, and this crate is not tested with it. What runs is the code of the module,
//! but that is not compliance: sealing with AES-GCM counts as approved there only under nonces that the module draws
//! itself, or those of TLS, while this format, like every one of numbered frames, has nonces of its own. Nor is the
//! randomness the module's: it is the operating system's.
//!
//! # Files
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use agcm::{Key, decrypt_file, encrypt_file};
//!
//! let key = Key::generate();
//! encrypt_file("db.dump", "db.dump.agcm", &key).await?;
//! decrypt_file("db.dump.agcm", "db.restored", &key).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Sockets, and anything else that is written and read
//!
//! ```
//! use agcm::{DecryptReader, EncryptWriter, Key};
//! use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> io::Result<()> {
//! let key = Key::generate();
//! let (near, far) = io::duplex(64 * 1024); // or the two ends of a TCP connection
//!
//! let send = async {
//!     let mut writer = EncryptWriter::new(near, &key);
//!     writer.write_all(b"gigabytes of snapshot").await?;
//!     writer.shutdown().await // without this, the other side will say `Truncated`
//! };
//! let receive = async {
//!     let mut plaintext = Vec::new();
//!     DecryptReader::new(far, &key).read_to_end(&mut plaintext).await?;
//!     io::Result::Ok(plaintext)
//! };
//! let (sent, received) = tokio::join!(send, receive);
//! sent?;
//! assert_eq!(received?, b"gigabytes of snapshot");
//! # Ok(())
//! # }
//! ```
//!
//! # Being told what is wrong
//!
//! What each error means, and what to do about it at three in the morning, is in [the runbook](guide::restoring).
//!
//! ```
//! use agcm::{Error, Key};
//!
//! let key = Key::generate();
//! let stream = agcm::encrypt(&key, b"all or nothing");
//!
//! assert_eq!(agcm::decrypt(&Key::generate(), &stream), Err(Error::KeyMismatch));
//! assert_eq!(agcm::decrypt(&key, &stream[..90]), Err(Error::Truncated { at: 90 }));
//!
//! let mut changed = stream.clone();
//! changed[85] ^= 1;
//! assert_eq!(agcm::decrypt(&key, &changed), Err(Error::Corrupt { frame: 0, at: 80 }));
//! println!("{}", agcm::decrypt(&key, &changed).unwrap_err());
//! ```
//!
//! # How it is made
//!
#![doc = include_str!("guide/architecture.svg")]
//!
//! Each layer is a way in: whoever has I/O of their own starts at the core, and gets the same streams. Whatever is above the
//! cipher is the same for both of its backends.
//!
//! # What it does not protect against
//!
//! Anyone can see how long a stream is, and how long its frames. A stream says that its writer had the key, not who that
//! was. Whole streams can be dropped, or replayed: bind what they are for with a [context](EncryptOptions::context). Keys
//! must be random; [limits per key](crate::format#limits-and-where-they-come-from) are generous, not endless. What a reader
//! released before an error is an authentic prefix, not the stream. And a range that was read says nothing of the rest.

#![forbid(unsafe_code)]

// Lowest first: imports point upwards on this list, which is downwards in the crate.
mod blocking;
mod error;
pub mod format;
mod observe;
mod random;

mod key;
mod offload;
mod options;
mod parallel;
mod pool;
mod positioned;
mod threads;

mod aead;
pub mod geometry;

mod backend;
mod by_offset;
mod decrypt;
mod encrypt;

pub mod codec;
mod io;
mod oneshot;

mod file;
pub mod guide;
mod inspect;
mod key_file;
pub mod keystore;
pub mod legacy;
#[cfg(feature = "object_store")]
pub mod object_store;
mod progress;
mod range;
mod read_at;
mod snapshot;

/// The quick start of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the integration tests")]
#[path = "../tests/support/vectors.rs"]
mod vectors;

pub use crate::{
    backend::{Backend, backend},
    decrypt::{Decryptor, Step},
    encrypt::Encryptor,
    error::Error,
    file::{FileOptions, decrypt_file, encrypt_file, rekey_file, verify_file},
    format::{DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE},
    inspect::{Inspection, inspect},
    io::{DecryptReader, DecryptWriter, EncryptReader, EncryptWriter, SeekReader},
    key::{Key, KeyRing},
    oneshot::{decrypt, encrypt},
    options::{DecryptOptions, EncryptOptions, Trailing},
    pool::trim_memory,
    progress::{Progress, ProgressReader, ProgressWriter},
    range::{MAX_RANGE_LEN, RangeReader, RangeStream},
    read_at::{PositionedFile, ReadAt},
    snapshot::{SnapshotError, encrypt_snapshot, restore_snapshot},
};
