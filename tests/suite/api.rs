//! Keys, options, errors and one-shots, as a caller meets them.

use std::{error, fmt, io};

use agcm::{
    DecryptOptions, Decryptor, EncryptOptions, EncryptWriter, Encryptor, Error, Key, KeyRing, MAX_CHUNK_SIZE, Trailing,
    codec::{FrameDecoder, FrameEncoder},
    decrypt, encrypt, format,
};

use bytes::Bytes;
use futures::executor::block_on;

use crate::vectors::plaintext;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

fn counting() -> [u8; 32] {
    std::array::from_fn(|i| u8::try_from(i).unwrap())
}

#[test]
fn keys_are_32_bytes_or_64_hex_digits_and_nothing_else() {
    assert_eq!(HEX.parse::<Key>().unwrap().expose_bytes(), &counting());
    assert_eq!(HEX.to_lowercase().parse::<Key>().unwrap(), Key::from_bytes(counting()));
    for bad in [
        "",
        "00",
        &HEX[..62],
        &HEX[..63],
        &format!("{HEX}0"),
        &format!("{HEX}00"),
        &format!("{HEX}\n"),
        &format!(" {HEX}"),
        &format!("0x{}", &HEX[2..]),
        &format!("g{}", &HEX[1..]),
        &format!("{}é", &HEX[2..]),
    ] {
        assert_eq!(bad.parse::<Key>(), Err(Error::InvalidKey), "{bad:?}");
    }
    assert_eq!(Key::try_from(&counting()[..]).unwrap(), Key::from_bytes(counting()));
    for len in [0, 16, 31, 33, 64] {
        assert_eq!(Key::try_from(&vec![0; len][..]), Err(Error::InvalidKey));
    }
}

#[test]
fn generated_keys_differ() {
    assert_ne!(Key::generate(), Key::generate());
    let key = Key::generate();
    assert_eq!(key, key.clone());
}

#[test]
fn nothing_that_holds_a_key_shows_it() {
    let key = Key::from_bytes([0xab; 32]);
    let ring = KeyRing::from(&key);
    let started = Encryptor::start(&key, &EncryptOptions::new()).unwrap().0;
    let stream = encrypt(&key, b"abc");
    let ranges = block_on(agcm::RangeReader::open(Bytes::from(stream.clone()), &key)).unwrap();
    let shown: &[&dyn fmt::Debug] = &[
        &key,
        &ring,
        &started,
        &Decryptor::new(&key, &DecryptOptions::new()),
        &EncryptWriter::new((), &key),
        &agcm::DecryptReader::new((), &key),
        &agcm::EncryptReader::new((), &key),
        &agcm::DecryptWriter::new((), &key),
        &agcm::legacy::GoReader::new((), &key),
        &block_on(agcm::SeekReader::open(io::Cursor::new(&stream), &key)).unwrap(),
        &ranges,
        &ranges.stream(0..3).unwrap(),
        &FrameEncoder::new(&key),
        &FrameDecoder::new(&key),
        &agcm::ProgressReader::new((), None, |_| {}),
        &agcm::ProgressWriter::new((), None, |_| {}),
    ];
    for value in shown {
        let debug = format!("{value:?} {value:#?}");
        // Four bytes of it in a row: the streams that are shown hold random bytes, and may hold one or two.
        let debug: String = debug.split_whitespace().collect();
        assert!(debug.starts_with(char::is_uppercase), "{debug}");
        assert!(!debug.contains(":,"), "a part shows nothing at all: {debug}");
        for leak in ["171,171,171,171", "0xab,0xab", "abababab", "ABABABAB", "\\xab\\xab\\xab\\xab"] {
            assert!(!debug.contains(leak), "{debug}");
        }
    }
    assert_eq!(format!("{key:?}"), "Key(..)");
    assert_eq!(format!("{ring:?}"), "KeyRing { keys: 1 }");
}

#[test]
fn a_one_shot_opens_what_a_one_shot_sealed() {
    let key = Key::generate();
    for len in [0, 1, 65_535, 65_536, 65_537, 200_000] {
        let plain = plaintext(len);
        let stream = encrypt(&key, &plain);
        assert_eq!(stream.len(), 117 + len + 20 * len.div_ceil(65_536));
        assert!(decrypt(&key, &stream).unwrap() == plain);
    }
}

#[test]
fn one_shots_reject_what_follows_unless_told_to_leave_it() {
    let key = Key::generate();
    let joined = [encrypt(&key, b"a"), encrypt(&key, b"b")].concat();
    let at = joined.len() as u64 / 2;
    assert_eq!(decrypt(&key, &joined), Err(Error::TrailingData { at }));
    let leave = DecryptOptions::new().trailing(Trailing::Leave);
    assert_eq!(leave.decrypt(&key, &joined).unwrap(), b"a");
    let reject = DecryptOptions::new().trailing(Trailing::Reject);
    assert_eq!(reject.decrypt(&key, &joined), Err(Error::TrailingData { at }));
}

#[test]
fn a_context_is_part_of_the_key() {
    let key = Key::generate();
    let with = |context: &[u8]| DecryptOptions::new().context(context).unwrap();
    let longest = vec![7; 65_535];
    for context in [&b"tenant 1"[..], &[0], &longest] {
        let stream = EncryptOptions::new().context(context).unwrap().encrypt(&key, b"secret");
        assert_eq!(with(context).decrypt(&key, &stream).unwrap(), b"secret");
        for other in [&b""[..], b"tenant 2", b"tenant 11", &[0, 0], &longest[1..]] {
            assert_eq!(with(other).decrypt(&key, &stream), Err(Error::KeyMismatch));
        }
    }
    // No context and an empty one are the same.
    let stream = EncryptOptions::new().context("").unwrap().encrypt(&key, b"secret");
    assert_eq!(decrypt(&key, &stream).unwrap(), b"secret");
}

#[test]
fn options_that_exist_are_valid() {
    for bad in [0, MAX_CHUNK_SIZE + 1, usize::MAX] {
        let expected = Error::InvalidChunkSize(bad as u64);
        assert_eq!(EncryptOptions::new().chunk_size(bad).unwrap_err(), expected);
        assert_eq!(DecryptOptions::new().max_chunk_size(bad).unwrap_err(), expected);
    }
    for good in [1, 65_536, MAX_CHUNK_SIZE] {
        assert!(EncryptOptions::new().chunk_size(good).is_ok());
        assert!(DecryptOptions::new().max_chunk_size(good).is_ok());
    }
    let long = vec![0; 65_536];
    assert_eq!(EncryptOptions::new().context(&long).unwrap_err(), Error::ContextTooLong(65_536));
    assert_eq!(DecryptOptions::new().context(&long).unwrap_err(), Error::ContextTooLong(65_536));
}

const ALL: [Error; 16] = [
    Error::BadMagic,
    Error::UnsupportedVersion(2),
    Error::InvalidChunkSize(0),
    Error::ChunkTooLarge { chunk: 2, max: 1 },
    Error::LegacyStream,
    Error::InvalidFrame { frame: 3, at: 188, word: 7 },
    Error::KeyMismatch,
    Error::Corrupt { frame: 3, at: 188 },
    Error::Truncated { at: 188 },
    Error::TrailingData { at: 188 },
    Error::StreamTooLong,
    Error::Finished,
    Error::InvalidKey,
    Error::ContextTooLong(65_536),
    Error::RangeOutOfBounds { start: 5, end: 20, len: 10 },
    Error::RangeTooLong { len: 1 << 40, max: 1 << 26 },
];

#[test]
fn errors_survive_the_way_through_io_error_even_when_wrapped() {
    #[derive(Debug)]
    struct Wrapped(io::Error);
    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn error::Error + 'static)> {
            Some(&self.0)
        }
    }

    for error in ALL {
        let io = io::Error::from(error);
        assert_eq!(Error::from_io(&io), Some(error));
        assert_eq!(io.to_string(), error.to_string());
        let caller = matches!(
            error,
            Error::Finished
                | Error::InvalidKey
                | Error::ContextTooLong(_)
                | Error::RangeOutOfBounds { .. }
                | Error::RangeTooLong { .. }
        );
        let kind = if caller { io::ErrorKind::InvalidInput } else { io::ErrorKind::InvalidData };
        assert_eq!(io.kind(), kind, "{error:?}");
        let wrapped = io::Error::other(Wrapped(io::Error::other(Wrapped(io))));
        assert_eq!(Error::from_io(&wrapped), Some(error));
    }
    assert_eq!(Error::from_io(&io::ErrorKind::InvalidData.into()), None);
    assert_eq!(Error::from_io(&io::Error::from_raw_os_error(5)), None);
}

#[test]
fn every_message_says_where_and_what_to_do() {
    for error in ALL {
        let message = error.to_string();
        assert!(message.len() > 40 && message.len() < 250, "{message}");
        assert!(!message.ends_with('.') && !message.contains("  "), "{message}");
    }
    for (error, limit) in [
        (Error::InvalidChunkSize(0), MAX_CHUNK_SIZE as u64),
        (Error::StreamTooLong, 52),
        (Error::StreamTooLong, 40),
        (Error::ContextTooLong(99_999), format::MAX_CONTEXT_LEN as u64),
    ] {
        assert!(error.to_string().contains(&limit.to_string()), "{error}");
    }
    assert_eq!((format::MAX_PLAINTEXT_LEN, format::MAX_FRAMES), (1 << 52, 1 << 40));
    assert!(Error::Corrupt { frame: 3, at: 188 }.to_string().contains("frame 3, at byte 188"));
    assert!(Error::Truncated { at: 24 }.to_string().contains("Go library"), "a bare header");
    assert!(!Error::Truncated { at: 25 }.to_string().contains("Go library"));
}
