//! Streams that were cut, changed, rearranged or forged: always an error, and never a byte that was not authentic.

use agcm::{DecryptOptions, EncryptOptions, Encryptor, Error, Key, KeyRing, RangeReader};
use bytes::Bytes;
use futures::executor::block_on;

use crate::{
    reference::{Reference, word},
    streams::Stream,
    vectors::plaintext,
    ways::{self, Way},
};

const PRELUDE: usize = 80;

/// The parts of a stream of `plaintext(len)` in chunks of 16: prelude, data frames, final frame.
fn parts(key: &Key, len: usize) -> Vec<Vec<u8>> {
    let options = EncryptOptions::new().chunk_size(16).unwrap();
    let (mut encryptor, prelude) = Encryptor::start(key, &options).unwrap();
    let mut parts = vec![prelude.to_vec()];
    for chunk in plaintext(len).chunks(16) {
        let mut frame = Vec::new();
        encryptor.seal(chunk, &mut frame).unwrap();
        parts.push(frame);
    }
    parts.push(encryptor.finish().to_vec());
    parts
}

fn all_ways() -> impl Iterator<Item = &'static (&'static str, Way)> {
    ways::WHOLE.iter().chain(ways::FRAMED)
}

/// How many plaintext bytes lie in frames that end at or before `at`.
fn intact(parts: &[Vec<u8>], at: usize) -> usize {
    let mut end = PRELUDE;
    let mut total = 0;
    for frame in &parts[1..parts.len() - 1] {
        end += frame.len();
        if end > at {
            break;
        }
        total += frame.len() - 20;
    }
    total
}

#[test]
fn every_prefix_is_truncated() {
    let key = Key::generate();
    let parts = parts(&key, 70);
    let stream = parts.concat();
    let whole = plaintext(70);
    for cut in 0..stream.len() {
        for (way, open) in all_ways() {
            let (released, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &stream[..cut]);
            if cut == 0 && way.starts_with("frames") {
                assert_eq!(result, Ok(()));
                continue;
            }
            assert_eq!(result, Err(Error::Truncated { at: cut as u64 }), "cut at {cut} by {way}");
            if *way != "one-shot" {
                assert_eq!(released, whole[..intact(&parts, cut)], "cut at {cut} by {way}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_and_releases_only_frames_before_it() {
    let key = Key::generate();
    let parts = parts(&key, 70);
    let stream = parts.concat();
    let whole = plaintext(70);
    for bit in 0..stream.len() * 8 {
        let mut changed = stream.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        for (way, open) in all_ways() {
            let (released, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &changed);
            assert!(result.is_err(), "bit {bit} by {way}");
            let expected = if *way == "one-shot" { 0 } else { intact(&parts, bit / 8) };
            assert_eq!(released, whole[..expected], "bit {bit} by {way}");
        }
    }
}

/// The readers by offset look at the end first, so what they say of a cut stream they say when they open it.
#[test]
fn every_prefix_is_truncated_by_offset() {
    let key = Key::generate();
    for chunk in [16, 7] {
        let stream = EncryptOptions::new().chunk_size(chunk).unwrap().encrypt(&key, &plaintext(70));
        for cut in 0..stream.len() {
            for (way, open) in ways::BY_OFFSET {
                let opened = open(&KeyRing::from(&key), &DecryptOptions::new(), &stream[..cut]);
                assert_eq!(opened, (vec![], Err(Error::Truncated { at: cut as u64 })), "cut at {cut} by {way}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_by_offset() {
    let key = Key::generate();
    let uniform = Stream::uniform(&key, 16, 70);
    let irregular = Stream::of_frames(&key, 16, &[16, 3, 16, 9]);
    for stream in [uniform, irregular] {
        for bit in 0..stream.bytes.len() * 8 {
            let mut changed = stream.bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            for (way, open) in ways::BY_OFFSET {
                let (released, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &changed);
                assert!(result.is_err(), "bit {bit} by {way}");
                let intact = (0..=stream.frames.len()).rev().find(|&i| stream.start_of(i).0 <= bit / 8);
                let intact = intact.map_or(0, |i| stream.start_of(i).1);
                assert!(released.len() <= intact && stream.plaintext.starts_with(&released), "bit {bit} by {way}");
            }
        }
    }
}

/// Asserts what every way says of a rearranged stream.
fn assert_error(key: &Key, parts: &[&[u8]], expected: Error) {
    let stream = parts.concat();
    for (way, open) in all_ways() {
        let (_, result) = open(&KeyRing::from(key), &DecryptOptions::new(), &stream);
        assert_eq!(result, Err(expected), "by {way}");
    }
    for (way, open) in ways::BY_OFFSET {
        let (_, result) = open(&KeyRing::from(key), &DecryptOptions::new(), &stream);
        assert!(result.is_err(), "by {way}");
    }
}

#[test]
fn frames_open_in_their_own_place_of_their_own_stream_only() {
    let key = Key::generate();
    let [p, a, b, c, end] = &parts(&key, 48)[..] else { panic!("three chunks") };
    let [p2, a2, b2, _, end2] = &parts(&key, 48)[..] else { panic!("three chunks") };
    let corrupt = |frame| Error::Corrupt { frame, at: 80 + frame * 36 };

    assert_error(&key, &[p, b, c, end], corrupt(0)); // the first dropped
    assert_error(&key, &[p, a, c, end], corrupt(1)); // one in the middle dropped
    assert_error(&key, &[p, a, b, end], corrupt(2)); // the last dropped
    assert_error(&key, &[p, end], corrupt(0)); // all dropped
    assert_error(&key, &[p, a, a, b, c, end], corrupt(1)); // one doubled
    assert_error(&key, &[p, a, b, c, c, end], corrupt(3)); // the last doubled
    assert_error(&key, &[p, b, a, c, end], corrupt(0)); // two swapped
    assert_error(&key, &[p, a, c, b, end], corrupt(1)); // two swapped
    assert_error(&key, &[p, a, b2, c, end], corrupt(1)); // one spliced in from another stream
    assert_error(&key, &[p, a, b, c, end2], corrupt(3)); // the end of another stream
    assert_error(&key, &[p2, a, b, c, end], corrupt(0)); // the beginning of another stream
    assert_error(&key, &[p, a2, b2, c, end], corrupt(0)); // the beginnings of two streams
}

#[test]
fn a_final_frame_in_the_middle_ends_nothing() {
    let key = Key::generate();
    let [p, a, b, c, end] = &parts(&key, 48)[..] else { panic!("three chunks") };
    assert_error(&key, &[p, a, end, b, c], Error::Corrupt { frame: 1, at: 116 });
}

#[test]
fn someone_with_the_key_cannot_make_a_stream_lie_about_itself() {
    let bytes = [9; 32];
    let key = Key::from_bytes(bytes);
    let r = Reference::new(&bytes, [1; 12], [2; 20], 16, b"");
    let plain = plaintext(48);
    let [a, b, c] = [0, 16, 32].map(|at| r.data(at as u64, &plain[at..][..16]));
    let p = r.prelude();
    let corrupt = Error::Corrupt { frame: 3, at: 80 + 3 * 36 };
    for (total, frames, layout) in
        [(47, 3, 1), (49, 3, 1), (0, 3, 1), (48, 2, 1), (48, 4, 1), (48, 3, 0), (48, 3, 2), (48, 3, 255)]
    {
        let end = r.end(total, frames, layout);
        assert_error(&key, &[&p, &a, &b, &c, &end], corrupt);
        // The readers by offset need not read a frame to see it.
        assert_error_by_offset(&key, &[&p, &a, &b, &c, &end], &[corrupt], 0);
    }
    // An irregular stream that says it is uniform.
    let short = r.data(16, &plain[16..20]);
    let rest = r.data(20, &plain[20..36]);
    let parts: &[&[u8]] = &[&p, &a, &short, &rest, &r.end(36, 3, 1)];
    assert_error(&key, parts, Error::Corrupt { frame: 3, at: 80 + 36 + 24 + 36 });
    let word = u32::from_le_bytes(word(2, 20));
    assert_error_by_offset(&key, parts, &[Error::InvalidFrame { frame: 1, at: 116, word }], 16);
    // A uniform one that says it is irregular, and could be by its numbers: the walk sees that it is not.
    let last = r.data(32, &plain[32..40]);
    let parts: &[&[u8]] = &[&p, &a, &b, &last, &r.end(40, 3, 0)];
    let at_the_end = Error::Corrupt { frame: 3, at: 80 + 2 * 36 + 28 };
    assert_error(&key, parts, at_the_end);
    assert_error_by_offset(&key, parts, &[at_the_end], 32);
    // An irregular one that says it has a frame more than there is plaintext for, with bytes in its place.
    let filler = [0; 20];
    let parts: &[&[u8]] = &[&p, &a, &short, &filler, &r.end(20, 3, 0)];
    assert_error(&key, parts, Error::InvalidFrame { frame: 2, at: 80 + 36 + 24, word: 0 });
    assert_error_by_offset(&key, parts, &[Error::InvalidFrame { frame: 1, at: 116, word }], 16);
    // One that says more than any stream can hold.
    for (total, frames) in [((1 << 52) + 1, 3), (48, (1 << 40) + 1), (u64::MAX, u64::MAX)] {
        for layout in [0, 1] {
            let corrupt = Error::Corrupt { frame: 1, at: 116 };
            assert_error_by_offset(&key, &[&p, &a, &r.end(total, frames, layout)], &[corrupt], 0);
        }
    }
    // One of no frames, or of one, that says it is irregular: it does not even open.
    let short = r.data(0, &plain[..9]);
    for (parts, corrupt) in [
        (vec![&p, &r.end(0, 0, 0)], Error::Corrupt { frame: 0, at: 80 }),
        (vec![&p, &short, &r.end(9, 1, 0)], Error::Corrupt { frame: 1, at: 80 + 29 }),
    ] {
        let stream: Vec<u8> = parts.into_iter().flatten().copied().collect();
        assert_error_by_offset(&key, &[&stream], &[corrupt], 0);
        let opened = block_on(RangeReader::open(Bytes::from(stream), &key)).map(drop);
        assert_eq!(Error::from_io(&opened.unwrap_err()), Some(corrupt));
    }
}

/// Asserts that every reader by offset says one of these, having released no more than `most` bytes.
fn assert_error_by_offset(key: &Key, parts: &[&[u8]], expected: &[Error], most: usize) {
    let stream = parts.concat();
    for (way, open) in ways::BY_OFFSET {
        let (released, result) = open(&KeyRing::from(key), &DecryptOptions::new(), &stream);
        assert!(result.is_err_and(|error| expected.contains(&error)), "{result:?} by {way}");
        assert!(released.len() <= most && plaintext(most).starts_with(&released), "by {way}");
    }
}

#[test]
fn frame_words_are_refused_before_their_body_arrives() {
    let bytes = [9; 32];
    let key = Key::from_bytes(bytes);
    let r = Reference::new(&bytes, [1; 12], [2; 20], 16, b"");
    let illegal = [
        word(0, 32), // a legacy frame, or none at all
        word(1, 52), // a second key frame
        word(2, 15), // not even a tag
        word(2, 16), // an empty data frame
        word(2, 33), // one byte over the chunk size
        word(2, 0xff_ffff),
        word(3, 32),
        word(3, 34),
        word(4, 32),
        word(255, 32),
    ];
    for bad in illegal {
        let at = Error::InvalidFrame { frame: 1, at: 116, word: u32::from_le_bytes(bad) };
        assert_error(&key, &[&r.prelude(), &r.data(0, &[7; 16]), &bad], at);
    }
    for bad in [word(1, 51), word(1, 53), word(2, 32), word(3, 33), word(9, 52)] {
        let at = Error::InvalidFrame { frame: 0, at: 24, word: u32::from_le_bytes(bad) };
        assert_error(&key, &[&r.prelude()[..24], &bad], at);
    }
    for len in [16, 52, 0xff_ffff] {
        assert_error(&key, &[&r.prelude()[..24], &word(0, len)], Error::LegacyStream);
    }
}

#[test]
fn the_header_is_checked_in_the_order_of_the_format() {
    let key = Key::generate();
    let header =
        |version: u32, chunk: u32| [b"AGCM", &version.to_le_bytes()[..], &[5; 12], &chunk.to_le_bytes()].concat();
    assert_error(&key, &[b"agcm"], Error::BadMagic);
    assert_error(&key, &[b"AGC\0"], Error::BadMagic);
    assert_error(&key, &[b"x"], Error::BadMagic);
    assert_error(&key, &[&header(2, 0)], Error::UnsupportedVersion(2));
    assert_error(&key, &[&header(1, 0), &word(0, 9)], Error::InvalidChunkSize(0));
    assert_error(&key, &[&header(1, 10 * 1024 * 1024 + 1)], Error::InvalidChunkSize(10 * 1024 * 1024 + 1));
    assert_error(&key, &[&header(1, 10 * 1024 * 1024), &word(0, 9)], Error::LegacyStream);
    assert_error(&key, &[&header(1, 1), &word(1, 52), &[0; 52]], Error::KeyMismatch);
}

#[test]
fn a_reader_can_refuse_large_chunks() {
    let key = Key::generate();
    let stream = EncryptOptions::new().chunk_size(4097).unwrap().encrypt(&key, b"small");
    let limited = |max| DecryptOptions::new().max_chunk_size(max).unwrap();
    for (way, open) in all_ways() {
        let (_, result) = open(&KeyRing::from(&key), &limited(4096), &stream);
        assert_eq!(result, Err(Error::ChunkTooLarge { chunk: 4097, max: 4096 }), "by {way}");
        assert_eq!(open(&KeyRing::from(&key), &limited(4097), &stream).1, Ok(()), "by {way}");
    }
}

#[test]
fn trailing_data_is_placed_at_the_end_of_the_stream() {
    let key = Key::generate();
    let mut stream = parts(&key, 20).concat();
    let at = stream.len() as u64;
    stream.push(0);
    for (way, open) in ways::WHOLE {
        let (_, result) = open(&KeyRing::from(&key), &DecryptOptions::new(), &stream);
        assert_eq!(result, Err(Error::TrailingData { at }), "by {way}");
    }
}
