//! Agreement with the independent reference, through everything that opens a stream.

use agcm::{DecryptOptions, KeyRing};
use sha2::{Digest, Sha256};

use crate::{
    reference::Reference,
    vectors::{self, Invalid, Valid},
    ways::{self, Opened},
};

fn key(bytes: [u8; 32]) -> KeyRing {
    agcm::Key::from_bytes(bytes).into()
}

/// The stream of a vector: as it stands there, or, where it is too long for that, made anew and checked by its hash.
fn stream(vector: &Valid) -> Vec<u8> {
    let chunk_size = u32::try_from(vector.chunk_size).unwrap();
    let reference = Reference::new(&vector.key, vector.nonce, vector.salt, chunk_size, &vector.context);
    let plaintext = vectors::plaintext(vector.plaintext_len);
    let mut rest = &plaintext[..];
    let mut chunks = Vec::new();
    for len in &vector.frames {
        let (chunk, after) = rest.split_at(*len);
        chunks.push(chunk);
        rest = after;
    }
    let made = reference.stream(&chunks);

    assert_eq!(made.len(), vector.stream_len, "{}", vector.name);
    assert_eq!(Sha256::digest(&made)[..], vector.stream_sha256, "{}", vector.name);
    assert!(vector.stream.as_ref().is_none_or(|stream| *stream == made), "{}", vector.name);
    made
}

#[test]
fn every_valid_vector_opens_every_way() {
    for vector in vectors::valid() {
        let options = DecryptOptions::new().context(&vector.context).unwrap();
        let expected: Opened = (vectors::plaintext(vector.plaintext_len), Ok(()));
        let stream = stream(&vector);
        for (way, open) in ways::all() {
            // A range of a byte opens a whole frame.
            if way.ends_with("range, byte by byte") && vector.plaintext_len > 30_000 {
                continue;
            }
            assert!(open(&key(vector.key), &options, &stream) == expected, "{} by {way}", vector.name);
        }
    }
}

#[test]
fn every_invalid_vector_fails_every_way_with_the_named_error() {
    for Invalid { name, error, key: bytes, context, stream } in vectors::invalid() {
        let options = DecryptOptions::new().context(&context).unwrap();
        for (way, open) in ways::WHOLE {
            let (_, result) = open(&key(bytes), &options, &stream);
            assert_eq!(result.map_err(ways::name), Err(error.clone()), "{name} by {way}");
        }
        for (way, open) in ways::FRAMED {
            let (_, result) = open(&key(bytes), &options, &stream);
            let expected = match name.as_str() {
                // Between streams the input may end, and after a stream another one may begin.
                "empty input" | "two streams back to back" => Ok(()),
                "one byte after the end" => Err("BadMagic".to_owned()),
                _ => Err(error.clone()),
            };
            assert_eq!(result.map_err(ways::name), expected, "{name} by {way}");
        }
    }
}

#[test]
fn every_invalid_vector_fails_by_offset() {
    let named = ["BadMagic", "UnsupportedVersion", "InvalidChunkSize", "KeyMismatch", "LegacyStream"];
    for Invalid { name, error, key: bytes, context, stream } in vectors::invalid() {
        let options = DecryptOptions::new().context(&context).unwrap();
        let (_, in_order) = ways::WHOLE.iter().find(|(way, _)| *way == "reader").unwrap();
        let (prefix, _) = in_order(&key(bytes), &options, &stream);
        for (way, open) in ways::BY_OFFSET {
            let (released, result) = open(&key(bytes), &options, &stream);
            let found = ways::name(result.expect_err(&format!("{name} by {way}")));
            // Of whatever comes before the first data frame, the error is the same as anywhere.
            if named.contains(&error.as_str()) || stream.len() < 80 {
                assert_eq!(found, error, "{name} by {way}");
            }
            assert!(prefix.starts_with(&released), "{name} by {way}: a wrong byte");
        }
    }
}
