//! Streams of the Go library: what `GoReader` reads, what it cannot notice, and that nothing else opens one.

use agcm::{DecryptOptions, Error, Key, KeyRing, decrypt, inspect, legacy::GoReader};
use futures::executor::block_on;
use serde_json::Value;

use crate::{
    drive::{OtherTask, busy_runtime, poll_once, read_to_end, stream_error},
    reference::{go_stream, word},
    script::{Op, Reader, Script},
    vectors::plaintext,
    ways,
};

/// A stream that the Go library wrote.
struct GoStream {
    name: &'static str,
    bytes: &'static [u8],
    key: Key,
    chunk_size: usize,
    plaintext: Vec<u8>,
}

impl GoStream {
    /// Where its chunks begin and end.
    fn chunks(&self) -> Vec<&'static [u8]> {
        let mut rest = &self.bytes[24..];
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let len = 4 + u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
            chunks.push(&rest[..len]);
            rest = &rest[len..];
        }
        chunks
    }

    /// Its header, and these chunks behind it.
    fn with(&self, chunks: &[&[u8]]) -> Vec<u8> {
        [&self.bytes[..24], &chunks.concat()].concat()
    }
}

macro_rules! files {
    ($($name:literal),*) => {
        [$(($name, &include_bytes!(concat!("../vectors/legacy/", $name))[..])),*]
    };
}

fn streams() -> Vec<GoStream> {
    let files: [(&str, &[u8]); 6] = files!(
        "c16_p0.agcm",
        "c16_p1.agcm",
        "c16_p17.agcm",
        "c64_p1000.agcm",
        "c1024_p5000.agcm",
        "c65536_p65536.agcm"
    );
    let manifest: Value = serde_json::from_str(include_str!("../vectors/legacy/manifest.json")).unwrap();
    let streams = manifest["streams"].as_array().unwrap();
    assert_eq!(streams.len(), files.len());
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    files
        .into_iter()
        .map(|(name, bytes)| {
            let stream = streams.iter().find(|stream| stream["file"] == name).unwrap();
            assert_eq!(bytes.len(), number(&stream["file_len"]), "{name}");
            GoStream {
                name,
                bytes,
                key: stream["key_hex"].as_str().unwrap().parse().unwrap(),
                chunk_size: number(&stream["chunk_size"]),
                plaintext: plaintext(number(&stream["plaintext_len"])),
            }
        })
        .collect()
}

fn of_16_chunks() -> GoStream {
    streams().into_iter().find(|stream| stream.name == "c64_p1000.agcm").unwrap()
}

fn read(stream: &[u8], keys: impl Into<KeyRing>) -> (Vec<u8>, Result<(), Error>) {
    let (read, result) = read_to_end(&mut GoReader::new(stream, keys));
    (read, result.map_err(|error| Error::from_io(&error).unwrap()))
}

#[test]
fn what_the_go_library_wrote_is_read() {
    for stream in streams() {
        assert_eq!(stream.chunks().len(), stream.plaintext.len().div_ceil(stream.chunk_size), "{}", stream.name);
        let (read, result) = read(stream.bytes, &stream.key);
        assert_eq!(result, Ok(()), "{}", stream.name);
        assert!(read == stream.plaintext, "{}", stream.name);
    }
}

/// What holds the streams below to the format.
#[test]
fn streams_made_here_are_those_of_the_go_library() {
    for stream in streams() {
        let chunks: Vec<&[u8]> = stream.plaintext.chunks(stream.chunk_size).collect();
        let nonce = stream.bytes[8..20].try_into().unwrap();
        let chunk_size = u32::try_from(stream.chunk_size).unwrap();
        assert!(go_stream(stream.key.expose_bytes(), nonce, chunk_size, &chunks) == stream.bytes, "{}", stream.name);
    }
}

#[test]
fn large_chunks_are_opened_elsewhere() {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};

    let (key, plain) = (Key::generate(), plaintext(3_000_000));
    let chunks: Vec<&[u8]> = plain.chunks(1024 * 1024).collect();
    let stream = go_stream(key.expose_bytes(), [7; 12], 1024 * 1024, &chunks);
    let mut reader = GoReader::new(&stream[..], &key);
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        assert!(poll_once(reader.fill_buf()).is_pending());
        drop(release);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        assert!(read == plain);
    });
}

#[test]
fn in_any_pieces() {
    for stream in streams() {
        for piece in [1, 3, 17, 1000] {
            let script = Script::repeat([Op::Some(piece), Op::Pending, Op::Some(2 * piece)]);
            let mut reader = GoReader::new(Reader::new(stream.bytes, script), &stream.key);
            let (read, result) = read_to_end(&mut reader);
            result.unwrap();
            assert!(read == stream.plaintext, "{}", stream.name);
        }
    }
}

#[test]
fn of_several_keys_the_right_one_is_used() {
    let stream = of_16_chunks();
    let keys: KeyRing = [Key::generate(), stream.key.clone(), Key::generate()].into_iter().collect();
    assert_eq!(read(stream.bytes, &keys), (stream.plaintext, Ok(())));
}

/// What the docs say it cannot promise. Were one of these an error, the docs should say so.
#[test]
fn cuts_between_chunks_and_chunks_in_another_order_go_unnoticed() {
    let stream = of_16_chunks();
    let chunks = stream.chunks();
    for kept in 0..chunks.len() {
        let (read, result) = read(&stream.with(&chunks[..kept]), &stream.key);
        assert_eq!((&read[..], result), (&stream.plaintext[..64 * kept], Ok(())), "cut behind chunk {kept}");
    }
    let swapped = [&stream.plaintext[64..128], &stream.plaintext[..64]].concat();
    assert_eq!(read(&stream.with(&[chunks[1], chunks[0]]), &stream.key), (swapped, Ok(())));
    let repeated = [&stream.plaintext[..64], &stream.plaintext[..64]].concat();
    assert_eq!(read(&stream.with(&[chunks[0], chunks[0]]), &stream.key), (repeated, Ok(())));
}

/// Why nothing but reading it once more and encrypting it anew is left to do with such a stream.
#[test]
fn two_chunks_show_the_xor_of_their_plaintexts() {
    let stream = of_16_chunks();
    let chunks = stream.chunks();
    let xor = |one: &[u8], two: &[u8]| one.iter().zip(two).map(|(a, b)| a ^ b).collect::<Vec<_>>();
    let sealed = xor(&chunks[0][4..68], &chunks[1][4..68]);
    assert_eq!(sealed, xor(&stream.plaintext[..64], &stream.plaintext[64..128]));
}

/// Two tags under one nonce give away what GHASH multiplies with (A. Joux, "Authentication failures in NIST version of GCM",
/// 2006); with chunks of one block it takes no more than a division. What is made of that here uses nothing but the stream, and what
/// one of its chunks said.
#[test]
fn whoever_sees_two_chunks_and_knows_one_can_write_what_they_like() {
    let key = Key::generate();
    let stream = go_stream(key.expose_bytes(), [9; 12], 16, &[b"a known header: ", b"a secret inside."]);
    let block = |at: usize| u128::from_be_bytes(stream[at..at + 16].try_into().unwrap());
    let ([first, second], [first_tag, second_tag]) = ([block(28), block(64)], [block(44), block(80)]);
    let known = u128::from_be_bytes(*b"a known header: ");

    assert_eq!((known ^ first ^ second).to_be_bytes(), *b"a secret inside.");

    let square_of_hash_key = multiply(first_tag ^ second_tag, invert(first ^ second));
    let forged = first ^ known ^ u128::from_be_bytes(*b"what they like.\n");
    let forged_tag = first_tag ^ multiply(first ^ forged, square_of_hash_key);
    let forgery = [&stream[..24], &word(0, 32), &forged.to_be_bytes(), &forged_tag.to_be_bytes()].concat();
    assert_eq!(read(&forgery, &key), (b"what they like.\n".to_vec(), Ok(())));
}

/// In the field of GHASH (NIST SP 800-38D, section 6.3).
fn multiply(a: u128, mut b: u128) -> u128 {
    let mut product = 0;
    for i in (0..128).rev() {
        product ^= b * ((a >> i) & 1);
        b = (b >> 1) ^ ((0xe1 << 120) * (b & 1));
    }
    product
}

/// All elements but zero are roots of `x^(2^128 - 1) = 1`.
fn invert(a: u128) -> u128 {
    let (mut power, mut inverse) = (a, 1 << 127);
    for _ in 1..128 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
    }
    inverse
}

#[test]
fn a_cut_inside_of_something_is_truncated() {
    for stream in streams().into_iter().filter(|stream| stream.bytes.len() < 2000) {
        let ends: Vec<usize> = stream
            .chunks()
            .iter()
            .scan(24, |at, chunk| {
                *at += chunk.len();
                Some(*at)
            })
            .chain([24])
            .collect();
        for cut in (0..stream.bytes.len()).filter(|cut| !ends.contains(cut)) {
            let (read, result) = read(&stream.bytes[..cut], &stream.key);
            assert_eq!(result, Err(Error::Truncated { at: cut as u64 }), "{}", stream.name);
            assert!(stream.plaintext.starts_with(&read));
        }
    }
}

#[test]
fn every_flipped_byte_is_noticed_and_none_is_released() {
    let stream = of_16_chunks();
    for at in 0..stream.bytes.len() {
        let mut bytes = stream.bytes.to_vec();
        bytes[at] ^= 0x40;
        let (read, result) = read(&bytes, &stream.key);
        let chunk = at.saturating_sub(24) / 84;
        match (at, result) {
            (0..4, Err(Error::BadMagic)) | (4..8, Err(Error::UnsupportedVersion(_))) => {}
            // A larger chunk size still has room for all chunks.
            (20..23, Ok(())) => assert_eq!(read, stream.plaintext),
            (20..24, Err(Error::InvalidChunkSize(_) | Error::InvalidFrame { frame: 0, .. })) => {}
            (8..20, Err(Error::KeyMismatch)) => {}
            (24.., Err(error)) => {
                assert!(read.len() <= 64 * chunk && stream.plaintext.starts_with(&read));
                match error {
                    Error::KeyMismatch => assert_eq!(chunk, 0),
                    Error::Corrupt { frame, at } => assert_eq!((frame, at), (chunk as u64, 24 + 84 * chunk as u64)),
                    Error::InvalidFrame { frame, at, .. } => {
                        assert_eq!((frame, at), (chunk as u64, 24 + 84 * chunk as u64));
                    }
                    error => panic!("{at}: {error:?}"),
                }
            }
            (at, result) => panic!("{at}: {result:?}"),
        }
    }
}

#[test]
fn an_error_is_sticky_and_a_wrong_key_looks_like_a_damaged_first_chunk() {
    let stream = of_16_chunks();
    let mut reader = GoReader::new(stream.bytes, Key::generate());
    for _ in 0..3 {
        let (read, result) = read_to_end(&mut reader);
        let error = result.unwrap_err();
        assert_eq!((read, Error::from_io(&error)), (vec![], Some(Error::KeyMismatch)));
        assert!(error.to_string().contains("looks the same there"), "{error}");
    }
}

#[test]
fn damage_is_said_to_be_in_a_stream_of_the_go_library() {
    let stream = of_16_chunks();
    let mut bytes = stream.bytes.to_vec();
    bytes[24 + 84 + 10] ^= 1;
    let error = read_to_end(&mut GoReader::new(&bytes[..], &stream.key)).1.unwrap_err();
    assert_eq!(Error::from_io(&error), Some(Error::Corrupt { frame: 1, at: 24 + 84 }));
    assert!(error.to_string().starts_with("chunk 1 of this stream of the Go library, at byte 108,"), "{error}");
}

#[test]
fn an_empty_stream_and_a_stream_of_format_1_are_told_apart() {
    let empty = &streams()[0];
    assert_eq!(read(empty.bytes, &empty.key), (vec![], Ok(())));
    // A wrong key goes unnoticed there, too.
    assert_eq!(read(empty.bytes, Key::generate()), (vec![], Ok(())));

    let key = Key::generate();
    let (_, result) = read_to_end(&mut GoReader::new(&agcm::encrypt(&key, b"new")[..], &key));
    let error = result.unwrap_err();
    let expected = Error::InvalidFrame { frame: 0, at: 24, word: u32::from_le_bytes(word(1, 52)) };
    assert_eq!(Error::from_io(&error), Some(expected));
    assert!(error.to_string().contains("format 1"), "{error}");
}

#[test]
fn lengths_that_no_chunk_has_are_refused_before_anything_is_read_or_kept_for_them() {
    let stream = of_16_chunks();
    for len in [0, 1, 16, 64 + 17, 1 << 24, u32::MAX] {
        let bytes = stream.with(&[&len.to_le_bytes(), &[0; 200]]);
        let (_, result) = read(&bytes, &stream.key);
        assert_eq!(result, Err(Error::InvalidFrame { frame: 0, at: 24, word: len }));
    }
}

#[test]
fn a_readers_own_error_passes_and_reading_resumes() {
    let stream = of_16_chunks();
    let script = Script::once([Op::Some(100), Op::Error(std::io::ErrorKind::TimedOut)]);
    let mut reader = GoReader::new(Reader::new(stream.bytes, script), &stream.key);
    let (mut all, result) = read_to_end(&mut reader);
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    let (rest, result) = read_to_end(&mut reader);
    result.unwrap();
    all.extend(rest);
    assert_eq!(all, stream.plaintext);
}

#[test]
fn nothing_else_opens_one() {
    for stream in streams() {
        let empty = stream.bytes.len() == 24;
        let expected = if empty { Error::Truncated { at: 24 } } else { Error::LegacyStream };
        assert_eq!(decrypt(&stream.key, stream.bytes), Err(expected));
        for (name, way) in ways::all() {
            let (read, result) = way(&KeyRing::from(&stream.key), &DecryptOptions::new(), stream.bytes);
            assert_eq!((read, result), (vec![], Err(expected)), "{name}: {}", stream.name);
        }
        if !empty {
            assert_eq!(stream_error(block_on(inspect(stream.bytes))), Error::LegacyStream);
        }
    }
    let message = Error::LegacyStream.to_string();
    assert!(message.contains("import"), "it says what to do next: {message}");
    assert!(Error::Truncated { at: 24 }.to_string().contains("Go library"));
}

#[tokio::test]
async fn a_long_stream_lets_other_tasks_run() {
    use tokio::io::AsyncReadExt;

    let mut other = OtherTask::spawn();
    let stream = of_16_chunks();
    let many = stream.with(&vec![stream.chunks()[0]; 2000]);
    let mut read = Vec::new();
    GoReader::new(&many[..], &stream.key).read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 64 * 2000);
    other.had_turns();
}
