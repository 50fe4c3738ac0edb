//! Nothing shows a key: neither what holds one or has seen one, nor an error or a panic of it, in any form of formatting.

use std::{
    any::Any,
    error,
    fmt::{self, Debug, Display},
    io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
};

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, Decryptor, EncryptOptions, EncryptReader, EncryptWriter, Encryptor,
    Error, FileOptions, Key, KeyRing, PositionedFile, RangeReader, SeekReader, SnapshotError,
    codec::{FrameDecoder, FrameEncoder},
    keystore::{DirKeyStore, KeyStore, KeyStoreError},
    legacy::GoReader,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};

use crate::{folder::Folder, forms::shown, reference::go_stream};

/// Of bytes that are in no ordinary text, and no two of which are alike.
const KEY: [u8; 32] = *b"\xd1\x87\xe2\x93\xf4\xa5\x96\xb8\xc9\x8a\xdb\x9c\xed\xae\xbf\x81\xc2\x94\xd4\xa6\xe6\xb7\xf8\x89\xca\x9b\xdc\xad\xee\xc0\x90\x8f";

fn key() -> Key {
    Key::from_bytes(KEY)
}

fn hex() -> String {
    KEY.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn assert_is_silent(text: &str) {
    assert_eq!(shown(text.as_bytes(), &KEY), None, "{text}");
}

#[track_caller]
fn assert_debug_is_silent(value: &dyn Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}"), format!("{value:x?}"), format!("{value:#X?}")] {
        assert!(!text.is_empty());
        assert_is_silent(&text);
    }
}

/// And all that it was caused by.
#[track_caller]
fn assert_error_is_silent(error: &(dyn error::Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        assert_debug_is_silent(&error);
        assert_is_silent(&format!("{error} {error:#}"));
        if let Some(error) = error.downcast_ref::<io::Error>() {
            assert_is_silent(&format!("{:?} {:?}", error.get_ref(), error.kind()));
        }
        next = error.source();
    }
}

#[test]
fn a_key_can_be_formatted_for_nobody_to_read() {
    trait Otherwise {
        fn is_shown(&self) -> bool {
            false
        }
    }
    // What a type has by itself comes before what a trait gives it.
    macro_rules! is {
        ($type:ty: $($bound:tt)+) => {{
            struct Probe<T>(PhantomData<T>);
            impl<T: $($bound)+> Probe<T> {
                #[allow(dead_code, reason = "where the bound does not hold")]
                fn is_shown(&self) -> bool {
                    true
                }
            }
            impl<T> Otherwise for Probe<T> {}
            Probe::<$type>(PhantomData).is_shown()
        }};
    }
    assert!(is!(u8: Display) && is!(u8: fmt::LowerHex) && is!(Vec<u8>: AsRef<[u8]>) && is!(String: std::ops::Deref));
    assert!(!is!(Key: Display) && !is!(KeyRing: Display));
    assert!(!is!(Key: fmt::LowerHex) && !is!(Key: fmt::UpperHex));
    assert!(
        !is!(Key: AsRef<[u8]>) && !is!(Key: AsRef<[u8; 32]>) && !is!(Key: AsRef<str>) && !is!(Key: std::ops::Deref)
    );
    assert!(!is!(Key: Into<Vec<u8>>) && !is!(Key: Into<[u8; 32]>) && !is!(Key: Into<String>));
}

#[tokio::test]
async fn whatever_holds_a_key_or_has_used_one_shows_none() {
    let folder = Folder::new();
    let (key, ring) = (key(), KeyRing::from(key()));
    assert_debug_is_silent(&key);
    assert_debug_is_silent(&ring);
    assert_debug_is_silent(&(Some(&key), vec![key.clone()], Ok::<_, ()>(&ring)));

    let (mut encryptor, _) = Encryptor::start(&key, &EncryptOptions::new()).unwrap();
    encryptor.seal(b"abc", &mut Vec::new()).unwrap();
    assert_debug_is_silent(&encryptor);
    let stream = agcm::encrypt(&key, &[7; 100_000]);
    let mut decryptor = Decryptor::new(&ring, &DecryptOptions::new());
    assert_debug_is_silent(&decryptor);
    decryptor.open(&stream, &mut Vec::new()).unwrap();
    assert_debug_is_silent(&decryptor);

    for workers in [1, 2] {
        let (sealing, opening) = (EncryptOptions::new().workers(workers), DecryptOptions::new().workers(workers));
        let sealing = sealing.context("context").unwrap();
        assert_debug_is_silent(&(&sealing, &opening));
        // New, at work, and done.
        let mut writer = EncryptWriter::with_options(tokio::io::sink(), &key, &sealing);
        assert_debug_is_silent(&writer);
        writer.write_all(&[7; 70_000]).await.unwrap();
        assert_debug_is_silent(&writer);
        writer.shutdown().await.unwrap();
        assert_debug_is_silent(&writer);
        let mut reader = EncryptReader::with_options(&[7; 70_000][..], &key, &sealing);
        assert_debug_is_silent(&reader);
        reader.read_u8().await.unwrap();
        assert_debug_is_silent(&reader);
        let mut reader = DecryptReader::with_options(&stream[..], &ring, &opening);
        assert_debug_is_silent(&reader);
        reader.fill_buf().await.unwrap();
        assert_debug_is_silent(&reader);
        let mut writer = DecryptWriter::with_options(tokio::io::sink(), &ring, &opening);
        assert_debug_is_silent(&writer);
        writer.write_all(&stream[..90_000]).await.unwrap();
        assert_debug_is_silent(&writer);
    }
    let mut reader = GoReader::new(io::Cursor::new(go_stream(&KEY, [7; 12], 100, &[b"abc"])), &ring);
    assert_debug_is_silent(&reader);
    reader.read_u8().await.unwrap();
    assert_debug_is_silent(&reader);
    let mut reader = SeekReader::open(io::Cursor::new(&stream), &ring).await.unwrap();
    reader.read_u8().await.unwrap();
    assert_debug_is_silent(&reader);
    let ranges = RangeReader::open(Bytes::from(stream.clone()), &ring).await.unwrap();
    ranges.read_range(5..10).await.unwrap();
    assert_debug_is_silent(&ranges);
    assert_debug_is_silent(&ranges.stream(0..3).unwrap());
    let path = folder.write("sealed", &stream);
    let file = RangeReader::open(PositionedFile::open(path).await.unwrap(), &ring).await.unwrap();
    assert_debug_is_silent(&(file.get_ref(), &file));

    let (mut encoder, mut wire) = (FrameEncoder::new(&key), BytesMut::new());
    assert_debug_is_silent(&encoder);
    encoder.encode(Bytes::from_static(b"abc").into(), &mut wire).unwrap();
    assert_debug_is_silent(&encoder);
    let mut decoder = FrameDecoder::new(&ring);
    decoder.decode(&mut wire).unwrap();
    assert_debug_is_silent(&decoder);
    assert_debug_is_silent(&FileOptions::new().encrypt_options(EncryptOptions::new().context("context").unwrap()));
}

#[tokio::test]
async fn what_is_said_of_a_wrong_key_does_not_repeat_it() {
    let (folder, hex) = (Folder::new(), hex());
    let raw = [&KEY[..], &KEY[..1]].concat();
    let texts = [
        hex[1..].to_owned(),
        format!("{hex}0"),
        format!("{hex}{hex}"),
        format!(" {hex}"),
        format!("0x{hex}"),
        format!("key={hex}"),
        format!("{hex}\n\n"),
        hex.to_uppercase() + "\r\n.",
        format!("{}g", &hex[1..]),
        format!("[{}]", KEY.map(|byte| byte.to_string()).join(", ")),
    ];
    for text in &texts {
        assert_error_is_silent(&text.parse::<Key>().unwrap_err());
        assert_error_is_silent(&Key::from_file_content(text.as_bytes()).unwrap_err());
        let path = folder.write("bad", text);
        assert_error_is_silent(&Key::read_file(path).await.unwrap_err());
    }
    assert_error_is_silent(&Key::try_from(&raw[..]).unwrap_err());
    assert_error_is_silent(&Key::from_file_content(&raw).unwrap_err());
    assert_error_is_silent(&Key::read_file(folder.write("raw", &raw)).await.unwrap_err());
    assert_error_is_silent(&key().write_file(folder.path("raw")).await.unwrap_err());
}

#[tokio::test]
async fn no_error_of_a_stream_a_file_or_a_store_shows_a_key() {
    let errors = [
        Error::BadMagic,
        Error::UnsupportedVersion(7),
        Error::InvalidChunkSize(7),
        Error::ChunkTooLarge { chunk: 7, max: 6 },
        Error::LegacyStream,
        Error::InvalidFrame { frame: 7, at: 7, word: 7 },
        Error::KeyMismatch,
        Error::Corrupt { frame: 7, at: 7 },
        Error::Truncated { at: 0 },
        Error::Truncated { at: 24 },
        Error::TrailingData { at: 7 },
        Error::StreamTooLong,
        Error::Finished,
        Error::InvalidKey,
        Error::ContextTooLong(7),
        Error::RangeOutOfBounds { start: 1, end: 2, len: 1 },
        Error::RangeTooLong { len: 7, max: 6 },
    ];
    for error in errors {
        assert_error_is_silent(&error);
        assert_error_is_silent(&io::Error::from(error));
        assert_error_is_silent(&SnapshotError::from(error));
        assert_error_is_silent(&KeyStoreError::from(io::Error::from(error)));
    }

    let folder = Folder::new();
    let (key, other) = (key(), Key::generate());
    let path = |name: &str| folder.path(name);
    folder.write("plain", [7; 1000]);
    agcm::encrypt_file(path("plain"), path("sealed"), &key).await.unwrap();
    let sealed = std::fs::read(path("sealed")).unwrap();
    folder.write("cut", &sealed[..500]);
    assert_error_is_silent(&agcm::decrypt_file(path("sealed"), path("new"), &other).await.unwrap_err());
    assert_error_is_silent(&agcm::decrypt_file(path("cut"), path("new"), &key).await.unwrap_err());
    assert_error_is_silent(&agcm::encrypt_file(path("plain"), path("sealed"), &key).await.unwrap_err());
    assert_error_is_silent(&agcm::rekey_file(path("cut"), &key, &key).await.unwrap_err());
    let ended = EncryptWriter::new(tokio::io::sink(), &key);
    let mut ended = ended;
    ended.shutdown().await.unwrap();
    assert_error_is_silent(&ended.write_all(b"more").await.unwrap_err());

    let keys = DirKeyStore::new(path("keys"));
    keys.store("db", &key).await.unwrap();
    assert_debug_is_silent(&keys);
    assert_error_is_silent(&keys.store("db", &key).await.unwrap_err());
    assert_error_is_silent(&keys.store("-", &key).await.unwrap_err());
    assert_error_is_silent(&keys.retrieve("none").await.unwrap_err());
    assert_error_is_silent(&agcm::encrypt_snapshot(path("plain"), path("new"), &keys, "db").await.unwrap_err());
    assert_error_is_silent(&agcm::restore_snapshot(path("cut"), path("new"), &keys, "db").await.unwrap_err());
    // A key file that was damaged still has most of the key.
    let stored = std::fs::read(path("keys/db.key")).unwrap();
    std::fs::write(path("keys/db.key"), &stored[1..]).unwrap();
    assert_error_is_silent(&keys.retrieve("db").await.unwrap_err());
    #[cfg(unix)]
    {
        std::fs::set_permissions(path("keys/db.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert_error_is_silent(&keys.retrieve("db").await.unwrap_err());
    }
}

#[cfg(feature = "passphrase")]
#[tokio::test]
async fn neither_a_passphrase_nor_what_is_said_of_one_shows_it() {
    use agcm::keystore::Passphrase;

    let folder = Folder::new();
    // As if it were the key, to be found in each form.
    let passphrase = Passphrase::new(KEY).costs(8, 1, 1).unwrap();
    assert_debug_is_silent(&passphrase);
    let keys = DirKeyStore::new(folder.path("keys")).passphrase(passphrase.clone());
    assert_debug_is_silent(&keys);
    keys.store("db", &key()).await.unwrap();
    let wrong = DirKeyStore::new(folder.path("keys")).passphrase(Passphrase::new(&KEY[1..]).costs(8, 1, 1).unwrap());
    assert_error_is_silent(&wrong.retrieve("db").await.unwrap_err());
    assert_error_is_silent(&DirKeyStore::new(folder.path("keys")).retrieve("db").await.unwrap_err());
    assert_error_is_silent(&passphrase.costs(0, 0, 0).unwrap_err());
}

#[cfg(feature = "keyring")]
#[tokio::test]
async fn neither_a_keychain_nor_its_errors_show_a_key() {
    use agcm::keystore::KeychainStore;

    let keys = KeychainStore::with_store("com.example.test", keyring_core::mock::Store::new().unwrap());
    keys.store("db", &key()).await.unwrap();
    assert_debug_is_silent(&keys);
    assert_error_is_silent(&keys.store("db", &key()).await.unwrap_err());
    assert_error_is_silent(&keys.retrieve("none").await.unwrap_err());
}

#[test]
fn no_panic_shows_a_key() {
    #[track_caller]
    fn assert_panics_silently(work: impl FnOnce()) {
        let panic: Box<dyn Any + Send> = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        assert_is_silent(&words.expect("a panic says something"));
    }
    let key = key();
    assert_panics_silently(|| {
        Encryptor::start(&key, &EncryptOptions::new()).unwrap().0.seal_in_place(&mut [7]).unwrap()
    });
    assert_panics_silently(|| assert_eq!(key, Key::generate()));
    assert_panics_silently(|| assert_ne!(Some(&key), Some(&key)));
    assert_panics_silently(|| panic!("{key:?} {:#?}", Some(&key)));
    assert_panics_silently(|| drop(hex()[1..].parse::<Key>().unwrap()));
    assert_panics_silently(|| drop(agcm::decrypt(Key::generate(), &agcm::encrypt(&key, b"abc")).unwrap()));
    assert_panics_silently(|| {
        let mut reader = DecryptReader::new(&b""[..], &key);
        tokio::io::AsyncBufRead::consume(std::pin::Pin::new(&mut reader), 1);
    });
    // Outside of a runtime.
    assert_panics_silently(|| drop(futures::executor::block_on(key.write_file("never"))));
}
