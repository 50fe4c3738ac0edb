//! `RangeReader` and its sources, sentence by sentence of what they promise.

use std::{
    io::{self, ErrorKind},
    ops::Range,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use agcm::{
    DecryptOptions, EncryptOptions, Error, Key, MAX_RANGE_LEN, PositionedFile, RangeReader, ReadAt, geometry::Uniform,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, executor::block_on, future::BoxFuture};
use proptest::{collection::vec, prelude::*};

use crate::{
    drive::{OtherTask, busy_runtime, poll_once, stream_error},
    reference::word,
    streams::{self, Stream},
    vectors::{self, plaintext},
};

const MIB: usize = 1024 * 1024;

fn open(key: &Key, stream: &[u8]) -> RangeReader<Bytes> {
    block_on(RangeReader::open(Bytes::copy_from_slice(stream), key)).unwrap()
}

fn read<S: ReadAt>(reader: &RangeReader<S>, range: Range<usize>) -> io::Result<Bytes> {
    block_on(reader.read_range(range.start as u64..range.end as u64))
}

/// What a source does with a read, by its number.
type Tamper = Box<dyn Fn(usize, Bytes) -> io::Result<Bytes> + Send + Sync>;

/// Notes what is read of it, and does with it as it is told.
struct Source {
    bytes: Bytes,
    reads: Mutex<Vec<Range<u64>>>,
    tamper: Tamper,
}

impl Source {
    fn new(bytes: &[u8]) -> Self {
        Self::tampering(bytes, |_, bytes| Ok(bytes))
    }

    fn tampering(bytes: &[u8], tamper: impl Fn(usize, Bytes) -> io::Result<Bytes> + Send + Sync + 'static) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), reads: Mutex::default(), tamper: Box::new(tamper) }
    }

    fn take_reads(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }
}

impl ReadAt for Source {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        ReadAt::len(&self.bytes)
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let number = {
            let mut reads = self.reads.lock().unwrap();
            reads.push(offset..offset + len as u64);
            reads.len() - 1
        };
        Box::pin(async move {
            let bytes = self.bytes.read_at(offset, len).await?;
            (self.tamper)(number, bytes)
        })
    }
}

/// Is pending once before each read.
struct Slow(Source);

impl ReadAt for Slow {
    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        ReadAt::len(&self.0)
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.read_at(offset, len).await
        })
    }
}

#[test]
fn every_offset_and_length_of_every_small_stream() {
    let key = Key::generate();
    for stream in streams::small(&key) {
        let reader = open(&key, &stream.bytes);
        let len = stream.plaintext.len();
        assert_eq!((reader.len(), reader.is_empty()), (len as u64, len == 0));
        assert_eq!((reader.chunk_size(), reader.is_uniform()), (stream.chunk_size, stream.is_uniform()));
        for start in 0..=len {
            for end in (start..=len).rev() {
                let range = read(&reader, start..end).unwrap();
                assert_eq!(range, stream.plaintext[start..end], "{start}..{end} of {:?}", stream.frames);
            }
        }
        for start in 0..=len {
            let pieces: Vec<Bytes> = block_on(reader.stream(start as u64..len as u64).unwrap().try_collect()).unwrap();
            assert_eq!(pieces.concat(), stream.plaintext[start..]);
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}

#[test]
fn ranges_are_checked() {
    let key = Key::generate();
    let reader = open(&key, &Stream::uniform(&key, 16, 40).bytes);
    for at in [0, 1, 16, 40] {
        assert!(read(&reader, at..at).unwrap().is_empty());
    }
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    let reversed = 5..4;
    for range in [0..41, 40..41, 41..41, 100..200, u64::MAX - 1..u64::MAX, reversed] {
        let expected = Error::RangeOutOfBounds { start: range.start, end: range.end, len: 40 };
        let error = block_on(reader.read_range(range.clone())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(Error::from_io(&error), Some(expected));
        assert_eq!(error.to_string().contains("ends before it starts"), range.start > range.end, "{error}");
        assert_eq!(reader.stream(range).unwrap_err(), expected);
    }
    let empty = open(&key, &Stream::uniform(&key, 16, 0).bytes);
    assert!(read(&empty, 0..0).unwrap().is_empty());
    assert!(block_on(empty.stream(0..0).unwrap().next()).is_none());
}

#[test]
fn a_range_is_one_read_of_just_the_frames_that_hold_it() {
    let key = Key::generate();
    for len in [1, 15, 16, 40, 160] {
        let stream = Stream::uniform(&key, 16, len);
        let layout = Uniform::new(len as u64, 16).unwrap();
        let reader = block_on(RangeReader::open(Source::new(&stream.bytes), &key)).unwrap();
        let end = stream.bytes.len() as u64;
        assert_eq!(reader.get_ref().take_reads(), [0..80, end - 37..end], "two small reads, however long it is");
        for start in 0..len {
            for end in start..=len.min(start + 50) {
                read(&reader, start..end).unwrap();
                let cover = layout.covering(start as u64..end as u64).unwrap();
                let expected = if start == end { vec![] } else { vec![cover.stream] };
                assert_eq!(reader.get_ref().take_reads(), expected, "{start}..{end} of {len}");
            }
        }
    }
}

/// Frames that are so long that the word of each takes a read to find.
fn long_irregular(key: &Key) -> Stream {
    let frames: Vec<usize> = (0..100).map(|i| 20_000 + i % 3).collect();
    Stream::of_frames(key, 24_000, &frames)
}

#[test]
fn an_irregular_stream_is_walked_once_and_then_known() {
    let key = Key::generate();
    let stream = long_irregular(&key);
    let reader = block_on(RangeReader::open(Source::new(&stream.bytes), &key)).unwrap();
    reader.get_ref().take_reads();
    let at = |frame: usize| stream.start_of(frame).1;
    let bytes_of = |frames: Range<usize>| stream.start_of(frames.start).0 as u64..stream.start_of(frames.end).0 as u64;
    let reads_of = |range: Range<usize>| {
        assert_eq!(read(&reader, range.clone()).unwrap(), stream.plaintext[range]);
        reader.get_ref().take_reads()
    };
    // A word for each frame up to its own, then just that frame.
    let reads = reads_of(at(60) + 5..at(60) + 9);
    assert_eq!((reads.len(), reads.last()), (62, Some(&bytes_of(60..61))));
    for i in [3, 59, 60] {
        assert_eq!(reads_of(at(i) + 5..at(i) + 9), [bytes_of(i..i + 1)]);
    }
    assert_eq!(reads_of(at(20) + 1..at(40) + 1), [bytes_of(20..41)], "all the frames of a range in one read");
    // Where nobody has been, the end is a guess, of which a frame or so is too much.
    let reads = reads_of(at(61)..at(99) + 1);
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert!(reads.iter().map(|read| read.end - read.start).sum::<u64>() < 40 * 20_022);
    assert_eq!(reads_of(at(61)..at(99) + 1), [bytes_of(61..100)]);
}

#[test]
fn a_known_place_far_behind_a_range_does_not_make_it_longer() {
    let key = Key::generate();
    let frames: Vec<usize> = (0..2100).map(|i| 1000 + i % 3).collect();
    let stream = Stream::of_frames(&key, 2000, &frames);
    let reader = block_on(RangeReader::open(Source::new(&stream.bytes), &key)).unwrap();
    // Of so many frames, every fourth is remembered.
    read(&reader, 0..stream.plaintext.len()).unwrap();
    reader.get_ref().take_reads();
    let (at, start) = stream.start_of(401);
    assert_eq!(read(&reader, start + 5..start + 6).unwrap(), stream.plaintext[start + 5..start + 6]);
    let reads = reader.get_ref().take_reads();
    let read: u64 = reads.iter().filter(|read| read.start >= at as u64).map(|read| read.end - read.start).sum();
    assert!((1022..1100).contains(&read), "{reads:?}");
}

#[test]
fn all_of_a_stream_is_a_few_reads_even_if_its_frames_are_small_or_badly_guessed() {
    let key = Key::generate();
    let small: Vec<usize> = (0..5000).map(|i| 1 + i % 7).collect();
    let long_last: Vec<usize> = (0..500).map(|i| if i < 490 { 1 } else { 5000 }).collect();
    let long_first: Vec<usize> = (0..500).map(|i| if i < 10 { 5000 } else { 1 }).collect();
    for frames in [small, long_last, long_first] {
        let stream = Stream::of_frames(&key, 8000, &frames);
        let len = stream.plaintext.len();
        let reader = block_on(RangeReader::open(Source::new(&stream.bytes), &key)).unwrap();
        for range in [0..len, 0..len / 2, len / 3..len / 2, len - 5..len, 0..len] {
            reader.get_ref().take_reads();
            assert_eq!(read(&reader, range.clone()).unwrap(), stream.plaintext[range.clone()]);
            let reads = reader.get_ref().take_reads();
            assert!(reads.len() <= 8, "{range:?}: {}", reads.len());
            let bytes: u64 = reads.iter().map(|read| read.end - read.start).sum();
            assert!(bytes <= 2 * stream.bytes.len() as u64);
        }
        let pieces = reader.stream(0..len as u64).unwrap().map_ok(|piece| piece.to_vec());
        assert!(block_on(pieces.try_concat()).unwrap() == stream.plaintext);
        assert!(reader.get_ref().take_reads().len() <= 4);
        read(&reader, 0..len).unwrap();
        let reads = reader.get_ref().take_reads();
        assert!(reads.len() <= if frames.len() < 1024 { 1 } else { 3 }, "{reads:?}");
    }
}

#[test]
fn where_one_has_walked_many_at_once_need_not() {
    let key = Key::generate();
    let stream = long_irregular(&key);
    let reader = block_on(RangeReader::open(Slow(Source::new(&stream.bytes)), &key)).unwrap();
    let len = stream.plaintext.len();
    block_on(read_owned(&reader, len - 1..len)).unwrap();
    reader.get_ref().0.take_reads();
    let ranges = (0..50).map(|i| read_owned(&reader, len - 1 - i * 10_000..len - i * 10_000));
    let ranges = block_on(futures::future::join_all(ranges));
    for (i, range) in ranges.into_iter().enumerate() {
        assert_eq!(range.unwrap(), stream.plaintext[len - 1 - i * 10_000..len - i * 10_000]);
    }
    assert_eq!(reader.get_ref().0.take_reads().len(), 50);
}

/// A future that somebody keeps and does not poll must not hold up any other.
#[test]
fn who_gives_up_half_way_keeps_nobody_from_walking() {
    let key = Key::generate();
    let stream = long_irregular(&key);
    let len = stream.plaintext.len();
    let reader = block_on(RangeReader::open(Slow(Source::new(&stream.bytes)), &key)).unwrap();
    let mut kept = Box::pin(reader.read_range(len as u64 - 1..len as u64));
    let mut pieces = reader.stream(len as u64 / 2..len as u64).unwrap();
    assert!(poll_once(&mut kept).is_pending());
    assert!(poll_once(pieces.next()).is_pending());
    assert_eq!(read(&reader, len - 1..len).unwrap(), stream.plaintext[len - 1..]);
    // What has walked meanwhile helps whoever goes on.
    reader.get_ref().0.take_reads();
    assert_eq!(block_on(kept).unwrap(), stream.plaintext[len - 1..]);
    assert!(reader.get_ref().0.take_reads().len() <= 3);
    assert!(block_on(pieces.try_next()).unwrap().unwrap() == stream.plaintext[len / 2..]);
}

/// Words that were forged on the way, or a stream that changes its ways, must not make a range much longer than it is.
#[test]
fn a_guess_never_takes_in_much_more_than_a_range() {
    let key = Key::generate();
    let ones_first: Vec<usize> = (0..30_000).map(|i| if i < 29_500 { 1 } else { 10_000 }).collect();
    let ones_last: Vec<usize> = (0..30_000).map(|i| if i < 500 { 10_000 } else { 1 }).collect();
    for frames in [ones_first, ones_last] {
        let stream = Stream::of_frames(&key, 10_000, &frames);
        let reader = block_on(RangeReader::open(Source::new(&stream.bytes), &key)).unwrap();
        let len = stream.plaintext.len();
        for range in [0..20_000, 0..500_000, len - 500_000..len - 100_000, len - 20_000..len] {
            read(&reader, range.start..range.start + 1).unwrap();
            reader.get_ref().take_reads();
            assert!(read(&reader, range.clone()).unwrap() == stream.plaintext[range.clone()]);
            let reads = reader.get_ref().take_reads();
            let bytes: u64 = reads.iter().map(|read| read.end - read.start).sum();
            let frame_at =
                |position: usize| (0..frames.len()).take_while(|&i| stream.start_of(i).1 <= position).count() - 1;
            let sealed = stream.start_of(frame_at(range.end - 1) + 1).0 - stream.start_of(frame_at(range.start)).0;
            // Between two known places lie 32 frames that may have to be walked past.
            assert!(bytes <= 2 * sealed as u64 + 32 * 10_020 + 65_536, "{range:?}: {bytes} for {sealed}");
            assert!(reads.len() <= 12, "{range:?}: {}", reads.len());
        }
    }
}

/// A source may itself be a stream that is decrypted. What is wrong with that is not wrong with this.
#[test]
fn an_error_of_another_stream_below_is_one_of_the_source() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 65_536, 3 * MIB);
    let failing = Source::tampering(&stream.bytes, |number, bytes| match number {
        3 => Err(Error::Corrupt { frame: 5, at: 500 }.into()),
        _ => Ok(bytes),
    });
    let reader = block_on(RangeReader::open(failing, &key)).unwrap();
    let mut pieces = reader.stream(0..3 * MIB as u64).unwrap();
    assert!(block_on(pieces.next()).unwrap().is_ok());
    assert_eq!(stream_error(block_on(pieces.next()).unwrap()), Error::Corrupt { frame: 5, at: 500 });
    assert!(block_on(pieces.next()).unwrap().unwrap() == stream.plaintext[MIB..2 * MIB]);
}

async fn read_owned<S: ReadAt>(reader: &RangeReader<S>, range: Range<usize>) -> io::Result<Bytes> {
    reader.read_range(range.start as u64..range.end as u64).await
}

#[test]
fn damage_does_not_cost_the_way_to_other_places() {
    let key = Key::generate();
    let stream = long_irregular(&key);
    let mut damaged = stream.bytes.clone();
    damaged[stream.start_of(50).0 + 100] ^= 1;
    let reader = block_on(RangeReader::open(Source::new(&damaged), &key)).unwrap();
    let byte_of = |frame: usize| {
        reader.get_ref().take_reads();
        let at = stream.start_of(frame).1;
        (read(&reader, at..at + 1).is_ok(), reader.get_ref().take_reads().len())
    };
    assert_eq!(byte_of(90), (true, 91), "a word for each frame before it, and the frame");
    for _ in 0..3 {
        assert_eq!(byte_of(50), (false, 1));
        assert_eq!(byte_of(90), (true, 1));
    }
    assert_eq!(byte_of(99), (true, 9), "the words from the last known place on, and the frame");
}

#[test]
fn damage_is_found_by_the_ranges_that_touch_it_and_no_other() {
    let key = Key::generate();
    for frames in [&[8, 8, 8, 8, 5][..], &[8, 3, 8, 5]] {
        let stream = Stream::of_frames(&key, 8, frames);
        let uniform = stream.is_uniform();
        for damaged in 0..frames.len() {
            let (at, position) = stream.start_of(damaged);
            let (end, end_position) = stream.start_of(damaged + 1);
            // Of a uniform stream any byte; an irregular one needs the words on the way to later frames.
            for byte in if uniform { at..end } else { at + 4..end } {
                let mut bytes = stream.bytes.clone();
                bytes[byte] ^= 1;
                let reader = open(&key, &bytes);
                for start in 0..stream.plaintext.len() {
                    for end in start + 1..=stream.plaintext.len() {
                        let range = read(&reader, start..end);
                        if start < end_position && end > position {
                            let expected = match stream_error(range) {
                                Error::Corrupt { frame, at } | Error::InvalidFrame { frame, at, .. } => (frame, at),
                                other => panic!("{other:?}"),
                            };
                            assert_eq!(expected, (damaged as u64, at as u64));
                        } else {
                            assert_eq!(range.unwrap(), stream.plaintext[start..end]);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_word_that_leads_past_the_end_is_no_word() {
    let key = Key::generate();
    let stream = Stream::of_frames(&key, 16, &[3, 2, 4]);
    let (at, position) = stream.start_of(1);
    for len in [7, 16] {
        let mut bytes = stream.bytes.clone();
        bytes[at..at + 4].copy_from_slice(&word(2, 16 + len));
        let word = u32::from_le_bytes(word(2, 16 + len));
        let expected = Error::InvalidFrame { frame: 1, at: at as u64, word };
        assert_eq!(stream_error(read(&open(&key, &bytes), position..position + 1)), expected);
    }
}

#[test]
fn a_changed_word_is_never_the_way_to_a_wrong_byte() {
    let key = Key::generate();
    for frames in [&[16, 3, 16, 9][..], &[1, 2, 3, 4, 5], &[3, 3, 3, 3, 3, 3]] {
        let stream = Stream::of_frames(&key, 16, frames);
        for damaged in 0..frames.len() {
            let (at, _) = stream.start_of(damaged);
            for len in 16..60 {
                let mut bytes = stream.bytes.clone();
                bytes[at..at + 4].copy_from_slice(&word(2, len));
                let reader = open(&key, &bytes);
                for start in 0..stream.plaintext.len() {
                    for end in start..=stream.plaintext.len() {
                        match read(&reader, start..end) {
                            Ok(range) => assert_eq!(range, stream.plaintext[start..end]),
                            Err(error) => assert!(Error::from_io(&error).is_some()),
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Each read gives the bytes of one of two streams of one key and one length, or of one with a word changed.
    #[test]
    fn a_source_that_changes_between_reads_never_gives_mixed_plaintext(
        one in vec(1usize..9, 2..8),
        two in vec(1usize..9, 2..8),
        choices in vec(0usize..3, 1..20),
        changed in (0usize..8, 17usize..25),
        ranges in vec((0usize..70, 0usize..70), 1..6),
    ) {
        let key = Key::generate();
        let one = Stream::of_frames(&key, 8, &one);
        let two = Stream::of_frames(&key, 8, &two);
        let mut three = one.bytes.clone();
        let (at, _) = one.start_of(changed.0 % one.frames.len());
        three[at..at + 4].copy_from_slice(&word(2, changed.1));

        let mut other = two.bytes.clone();
        other.resize(one.bytes.len(), 0);
        let streams = [one.bytes.clone(), other, three];
        let bytes = Bytes::from(one.bytes.clone());
        let start = bytes.as_ptr() as usize;
        let source = Source {
            bytes,
            reads: Mutex::default(),
            tamper: Box::new(move |number, bytes| {
                // Opening sees the first; where a read is, its place in memory tells.
                let at = bytes.as_ptr() as usize - start;
                let choice = if number < 2 { 0 } else { choices[number % choices.len()] };
                Ok(Bytes::copy_from_slice(&streams[choice][at..at + bytes.len()]))
            }),
        };
        let reader = block_on(RangeReader::open(source, &key)).unwrap();
        for (a, b) in ranges {
            let (a, b) = (a % (one.plaintext.len() + 1), b % (one.plaintext.len() + 1));
            let range = a.min(b)..a.max(b);
            match read(&reader, range.clone()) {
                Ok(found) => assert_eq!(found, one.plaintext[range]),
                Err(error) => assert!(Error::from_io(&error).is_some(), "{error}"),
            }
        }
    }
}

/// What was not opened must not be returned, not even as zeros.
#[test]
fn a_walk_that_was_misled_never_ends_in_less_than_was_asked_for() {
    let key = Key::generate();
    let stream = Stream::of_frames(&key, 40, &[5, 5, 40, 40]);
    let lie = |number: usize| {
        Source::tampering(&stream.bytes, move |read, bytes| {
            if read != number {
                return Ok(bytes);
            }
            // The first two frames, of 5 bytes each, as if they were one of 30.
            Ok([&word(2, 16 + 30)[..], &bytes[4..]].concat().into())
        })
    };
    let reader = block_on(RangeReader::open(lie(2), &key)).unwrap();
    match read(&reader, 1..30) {
        Ok(range) => assert_eq!(range, stream.plaintext[1..30]),
        Err(error) => assert!(Error::from_io(&error).is_some()),
    }
    for _ in 0..2 {
        assert_eq!(read(&reader, 1..30).unwrap(), stream.plaintext[1..30], "it is honest again");
        assert_eq!(read(&reader, 7..90).unwrap(), stream.plaintext[7..90]);
    }

    // The walk goes on from where the lie has led it, to a frame of another position. What has led there is not believed again.
    let reader = block_on(RangeReader::open(lie(2), &key)).unwrap();
    assert_eq!(stream_error(read(&reader, 40..41)), Error::Corrupt { frame: 1, at: 130 });
    assert_eq!(read(&reader, 40..41).unwrap(), stream.plaintext[40..41]);

    // The lie is remembered, because the read behind it fails for another reason.
    let stream = Stream::of_frames(&key, 40, &[5, 5, 40, 40]);
    let source = Source::tampering(&stream.bytes, |read, bytes| match read {
        2 => Ok([&word(2, 16 + 30)[..], &bytes[4..]].concat().into()),
        3 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(bytes),
    });
    let reader = block_on(RangeReader::open(source, &key)).unwrap();
    assert_eq!(read(&reader, 1..30).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(stream_error(read(&reader, 7..9)), Error::Corrupt { frame: 0, at: 80 });
    assert_eq!(read(&reader, 7..9).unwrap(), stream.plaintext[7..9]);
}

#[test]
fn the_vectors_do_as_their_names_say() {
    let vector =
        vectors::valid().into_iter().find(|v| v.name.starts_with("same count and total as a uniform")).unwrap();
    let reader = open(&Key::from_bytes(vector.key), &vector.stream.unwrap());
    let plain = plaintext(vector.plaintext_len);
    for start in 0..=plain.len() {
        for end in start..=plain.len() {
            assert_eq!(read(&reader, start..end).unwrap(), plain[start..end], "not where a uniform stream has it");
        }
    }

    // An intact frame between others, of as many bytes in all.
    let vector = vectors::invalid().into_iter().find(|v| v.name.contains("frames around an intact one")).unwrap();
    let options = DecryptOptions::new().context(&vector.context).unwrap();
    let source = Bytes::from(vector.stream);
    let reader = block_on(RangeReader::open_with_options(source, &Key::from_bytes(vector.key), &options)).unwrap();
    let total = usize::try_from(reader.len()).unwrap();
    let opened: Vec<usize> = (0..total).filter(|&at| read(&reader, at..at + 1).is_ok()).collect();
    assert!(opened.is_empty(), "the intact one has moved by a byte, and opens where it was and nowhere else");
    assert!(matches!(stream_error(read(&reader, 0..total)), Error::Corrupt { .. }));
}

#[test]
fn too_long_a_range_is_refused_and_streamed() {
    let key = Key::generate();
    let len = usize::try_from(MAX_RANGE_LEN).unwrap() + 1;
    let source = Bytes::from(agcm::encrypt(&key, &vec![7; len]));
    let reader = block_on(RangeReader::open(source, &key)).unwrap();
    let expected = Error::RangeTooLong { len: len as u64, max: MAX_RANGE_LEN };
    assert_eq!(stream_error(read(&reader, 0..len)), expected);
    assert_eq!(read(&reader, 1..len).unwrap().len(), len - 1);
    let mut total = 0;
    let mut pieces = reader.stream(0..len as u64).unwrap();
    while let Some(piece) = block_on(pieces.try_next()).unwrap() {
        assert!(piece.iter().all(|&byte| byte == 7));
        total += piece.len();
    }
    assert_eq!(total, len);
}

#[test]
fn pieces_of_a_stream_are_full_frames_and_each_is_read_once() {
    let key = Key::generate();
    for frames in [vec![65_536; 50], (0..70).map(|i| 65_536 - i).collect()] {
        let stream = Stream::of_frames(&key, 65_536, &frames);
        let reader = block_on(RangeReader::open(Source::new(&stream.bytes), &key)).unwrap();
        reader.get_ref().take_reads();
        let range = 1000..stream.plaintext.len() - 1000;
        let pieces = reader.stream(range.start as u64..range.end as u64).unwrap();
        let pieces: Vec<Bytes> = block_on(pieces.try_collect()).unwrap();
        assert!(pieces.concat() == stream.plaintext[range]);
        assert!(pieces.iter().all(|piece| piece.len() <= MIB + 65_536));
        assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() >= MIB));
        let reads = reader.get_ref().take_reads();
        let bytes: u64 = reads.iter().map(|read| read.end - read.start).sum();
        if stream.is_uniform() {
            assert_eq!(reads.len(), pieces.len());
            assert!(reads.windows(2).all(|pair| pair[0].end == pair[1].start), "no frame twice");
        } else {
            // A piece's end is a guess.
            assert!(reads.len() <= 2 * pieces.len(), "{}", reads.len());
            assert!(bytes <= stream.bytes.len() as u64 + 2 * 65_556 * pieces.len() as u64);
        }
    }
}

#[test]
fn a_stream_of_pieces_goes_on_after_a_fault_and_never_past_damage() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 65_536, 3 * MIB);
    let failing = Source::tampering(&stream.bytes, |number, bytes| match number {
        3 => Err(ErrorKind::ConnectionReset.into()),
        _ => Ok(bytes),
    });
    let reader = block_on(RangeReader::open(failing, &key)).unwrap();
    let mut pieces = reader.stream(0..3 * MIB as u64).unwrap();
    let mut all = Vec::new();
    let mut failures = 0;
    while let Some(piece) = block_on(pieces.next()) {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 1);
    assert!(all == stream.plaintext);

    let mut damaged = stream.bytes.clone();
    damaged[80 + 20 * 65_556 + 100] ^= 1;
    let reader = block_on(RangeReader::open(Source::new(&damaged), &key)).unwrap();
    let mut pieces = reader.stream(0..3 * MIB as u64).unwrap();
    assert!(block_on(pieces.next()).unwrap().unwrap() == stream.plaintext[..MIB]);
    for _ in 0..5 {
        let expected = Error::Corrupt { frame: 20, at: 80 + 20 * 65_556 };
        assert_eq!(stream_error(block_on(pieces.next()).unwrap()), expected);
    }
    assert_eq!(reader.get_ref().take_reads().len(), 2 + 2, "and nothing is read again for it");
}

#[test]
fn short_reads_are_errors_and_a_source_that_shrank_is_truncated() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 40).bytes;
    for tampered in 0..3 {
        for longer in [false, true] {
            let source = Source::tampering(&stream, move |number, bytes| {
                Ok(match (number == tampered, longer) {
                    (false, _) => bytes,
                    (true, false) => bytes.slice(..bytes.len() - 1),
                    (true, true) => [&bytes[..], b"x"].concat().into(),
                })
            });
            let result = block_on(async {
                let reader = RangeReader::open(source, &key).await?;
                reader.read_range(0..5).await
            });
            let error = result.unwrap_err();
            assert_eq!((error.kind(), Error::from_io(&error)), (ErrorKind::Other, None), "{error}");
            let asked = [80, 37, 36][tampered];
            let got = if longer { asked + 1 } else { asked - 1 };
            assert!(error.to_string().contains(&format!("asked for {asked} bytes")), "{error}");
            assert!(error.to_string().ends_with(&format!("returned {got}")), "{error}");
        }
    }

    // Never `UnexpectedEof`, which a loop over pieces would take for a clean end.
    let shrinking = Arc::new(Mutex::new(Bytes::from(stream.clone())));
    struct Shrinking(Arc<Mutex<Bytes>>);
    impl ReadAt for Shrinking {
        fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
            let len = self.0.lock().unwrap().len() as u64;
            Box::pin(async move { Ok(len) })
        }

        fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
            let bytes = self.0.lock().unwrap().clone();
            Box::pin(async move { bytes.read_at(offset, len).await })
        }
    }
    let reader = block_on(RangeReader::open(Shrinking(shrinking.clone()), &key)).unwrap();
    *shrinking.lock().unwrap() = Bytes::copy_from_slice(&stream[..120]);
    assert_eq!(read(&reader, 0..16).unwrap(), plaintext(16));
    assert_eq!(stream_error(read(&reader, 0..17)), Error::Truncated { at: 120 });

    // The source's last bytes, and some in the middle.
    for failing in [1, 2] {
        let source = Source::tampering(&stream, move |number, bytes| match number == failing {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(bytes),
        });
        let error = block_on(async { RangeReader::open(source, &key).await?.read_range(0..16).await }).unwrap_err();
        assert_eq!((error.kind(), Error::from_io(&error)), (ErrorKind::Other, None), "it is as long as it was");
    }
}

#[test]
fn the_sources_own_error_passes_and_costs_nothing() {
    let key = Key::generate();
    let stream = Stream::of_frames(&key, 16, &[16, 3, 16]);
    for fails in 0..5 {
        let source = Source::tampering(&stream.bytes, move |number, bytes| match number == fails {
            true => Err(ErrorKind::PermissionDenied.into()),
            false => Ok(bytes),
        });
        let opened = block_on(RangeReader::open(&source, &key));
        let reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
                assert!(fails < 2);
                continue;
            }
        };
        let results = [(); 3].map(|()| read(&reader, 17..30));
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].kind(), ErrorKind::PermissionDenied);
        assert!(results.iter().flatten().all(|range| *range == stream.plaintext[17..30]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_ranges_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealed");
    let key = Key::generate();
    for uniform in [true, false] {
        let frames: Vec<usize> = if uniform { vec![1000; 300] } else { (0..300).map(|i| 900 + i % 100).collect() };
        let stream = Stream::of_frames(&key, 1000, &frames);
        std::fs::write(&path, &stream.bytes).unwrap();
        let file: Arc<dyn ReadAt> = Arc::new(PositionedFile::open(&path).await.unwrap());
        let reader = RangeReader::open(file, &key).await.unwrap();
        let plain = Arc::new(stream.plaintext);
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                let (reader, plain) = (reader.clone(), plain.clone());
                tokio::spawn(async move {
                    let start = i * 7919 % (plain.len() - 5000);
                    let range = reader.read_range(start as u64..start as u64 + 5000).await.unwrap();
                    assert_eq!(range, plain[start..start + 5000]);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[test]
fn long_ranges_are_opened_off_the_async_threads() {
    let key = Key::generate();
    let plain = plaintext(3 * MIB);
    let source = Bytes::from(EncryptOptions::new().chunk_size(100_000).unwrap().encrypt(&key, &plain));
    let reader = block_on(RangeReader::open(source, &key)).unwrap();
    // What is sealed is a mebibyte, and not a byte more.
    let source = Bytes::from(EncryptOptions::new().chunk_size(MIB - 20).unwrap().encrypt(&key, &plain));
    let shortest = block_on(RangeReader::open(source, &key)).unwrap();
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        assert!(poll_once(shortest.read_range(5..6)).is_pending());
        // A short one has to wait for nobody.
        assert!(reader.read_range(5..900_000).await.unwrap() == plain[5..900_000]);
        let mut long = Box::pin(reader.read_range(5..2_000_000));
        assert!(poll_once(&mut long).is_pending());
        let dropped = reader.read_range(5..2_000_000);
        assert!(poll_once(dropped).is_pending());
        drop(release);
        assert!(long.await.unwrap() == plain[5..2_000_000]);
    });
    // Without a runtime too.
    assert!(read(&reader, 7..3 * MIB).unwrap() == plain[7..]);

    let mut damaged = reader.get_ref().to_vec();
    damaged[80 + 10 * 100_020 + 50] ^= 1;
    let reader = open(&key, &damaged);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(reader.read_range(5..2_000_000));
    assert_eq!(stream_error(result), Error::Corrupt { frame: 10, at: 80 + 10 * 100_020 });
}

#[tokio::test]
async fn long_work_lets_other_tasks_run() {
    let mut other = OtherTask::spawn();
    let key = Key::generate();
    let frames: Vec<usize> = (0..2000).map(|i| 100 + i % 2).collect();
    let stream = Stream::of_frames(&key, 6000, &frames);
    let reader = RangeReader::open(Bytes::from(stream.bytes), &key).await.unwrap();
    assert_eq!(reader.read_range(0..200_000).await.unwrap(), stream.plaintext[..200_000]);
    other.had_turns();

    let frames: Vec<usize> = (0..1000).map(|i| 5000 + i % 2).collect();
    let stream = Stream::of_frames(&key, 6000, &frames);
    let reader = RangeReader::open(Bytes::from(stream.bytes), &key).await.unwrap();
    let end = stream.plaintext.len() as u64;
    reader.read_range(end - 1..end).await.unwrap();
    other.had_turns();
}

#[test]
fn a_stream_behind_something_else() {
    let key = Key::generate();
    let options = EncryptOptions::new().chunk_size(16).unwrap().context("tape 7").unwrap();
    let plain = plaintext(60);
    let object = Bytes::from([b"a header of ours", &options.encrypt(&key, &plain)[..]].concat());
    let options = DecryptOptions::new().context("tape 7").unwrap();
    let reader = block_on(RangeReader::open_at(object.clone(), 16, &key, &options)).unwrap();
    assert_eq!(read(&reader, 33..60).unwrap(), plain[33..]);
    for base in [object.len() as u64, 1 << 40, u64::MAX] {
        let result = block_on(RangeReader::open_at(object.clone(), base, &key, &options));
        assert_eq!(stream_error(result), Error::Truncated { at: 0 });
    }
}

#[tokio::test]
async fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealed");
    let key = Key::generate();
    let plain = plaintext(200_000);
    std::fs::write(&path, agcm::encrypt(&key, &plain)).unwrap();

    let file = PositionedFile::from(std::fs::File::open(&path).unwrap());
    assert_eq!(ReadAt::len(&file).await.unwrap(), std::fs::metadata(&path).unwrap().len());
    assert_eq!(file.read_at(0, 4).await.unwrap(), "AGCM");
    let len = ReadAt::len(&file).await.unwrap();
    for (offset, n) in [(len, 1), (len - 3, 4), (u64::MAX >> 1, 1), (0, usize::try_from(len).unwrap() + 1)] {
        assert!(file.read_at(offset, n).await.is_err(), "{offset} {n}");
    }
    assert_eq!(file.read_at(len - 3, 4).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(file.read_at(len, 0).await.unwrap().is_empty());

    let reader = RangeReader::open(file, &key).await.unwrap();
    assert!(reader.read_range(1..199_999).await.unwrap() == plain[1..199_999]);
    // The file is cut while it is read.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70_000).unwrap();
    assert!(reader.read_range(0..65_536).await.unwrap() == plain[..65_536]);
    assert_eq!(stream_error(reader.read_range(65_000..66_000).await), Error::Truncated { at: 70_000 });

    let missing = folder.path().join("missing");
    let error = PositionedFile::open(&missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("missing"), "{error}");
    let error = PositionedFile::open(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
}

/// The range is opened piece by piece, so that who gives up does not keep a place for all of it.
#[test]
fn a_long_range_that_was_dropped_is_not_opened_to_its_end() {
    let key = Key::generate();
    let stream = Stream::of_frames(&key, 16, &vec![16; 1 << 18]);
    let reader = open(&key, &stream.bytes);
    // On the only thread that there is, each job comes in its turn.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let mut range = Box::pin(reader.read_range(0..reader.len()));
        let mut turns = 0;
        // 9 MiB of frames, a MiB at a time. No job is over before the poll that has sent it.
        loop {
            let (release, busy) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || busy.recv().unwrap_err());
            if poll_once(&mut range).is_ready() {
                break;
            }
            turns += 1;
            drop(release);
            busy.await.unwrap();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            // It has not come to its turn if other tests have all the places for long work.
            std::thread::sleep(Duration::from_millis(1));
            assert!(turns < 1000);
        }
        assert!(turns >= 8, "{turns}");
    });
}

/// What is in the page cache does not have to wait for the blocking pool; what is not, or is long, has.
#[cfg(target_os = "linux")]
#[test]
fn cached_ranges_of_a_file_need_no_pool() {
    use rustix::io::{ReadWriteFlags, preadv2};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealed");
    let key = Key::generate();
    let plain = plaintext(MIB);
    std::fs::write(&path, agcm::encrypt(&key, &plain)).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let mut probe = vec![0; 100_000];
    let read = preadv2(&file, &mut [io::IoSliceMut::new(&mut probe)], 0, ReadWriteFlags::NOWAIT);
    if read != Ok(probe.len()) {
        eprintln!("skipped: this file system says {read:?}");
        return;
    }
    let file = PositionedFile::from(file);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reader = runtime.block_on(RangeReader::open(file, &key)).unwrap();
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        assert!(reader.read_range(100_000..250_000).await.unwrap() == plain[100_000..250_000]);
        let mut long = Box::pin(reader.read_range(0..400_000));
        assert!(poll_once(&mut long).is_pending());
        let mut past_the_end = reader.get_ref().read_at(u64::MAX, 1);
        assert!(poll_once(&mut past_the_end).is_pending());
        drop(release);
        assert!(long.await.unwrap() == plain[..400_000]);
        past_the_end.await.unwrap_err();
    });
}

#[test]
fn sources_of_every_kind() {
    let key = Key::generate();
    let stream = Bytes::from(agcm::encrypt(&key, b"abc"));
    block_on(async {
        let by_value = RangeReader::open(stream.clone(), &key).await.unwrap();
        let by_reference = RangeReader::open(&stream, &key).await.unwrap();
        let shared = RangeReader::open(Arc::new(stream.clone()), &key).await.unwrap();
        let boxed: Box<dyn ReadAt> = Box::new(stream.clone());
        let boxed = RangeReader::open(boxed, &key).await.unwrap();
        assert_eq!(boxed.read_range(1..3).await.unwrap(), "bc");
        let dynamic: &dyn ReadAt = &stream;
        let dynamic = RangeReader::open(dynamic, &key).await.unwrap();
        assert_eq!(by_value.read_range(1..3).await.unwrap(), "bc");
        assert_eq!(by_reference.read_range(1..3).await.unwrap(), "bc");
        assert_eq!(shared.read_range(1..3).await.unwrap(), "bc");
        assert_eq!(dynamic.read_range(1..3).await.unwrap(), "bc");
        let end = Bytes::len(&stream) as u64;
        for (offset, len) in [(end, 1), (0, Bytes::len(&stream) + 1), (u64::MAX, 1), (1, usize::MAX)] {
            assert_eq!(stream.read_at(offset, len).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }

        let clone = by_value.clone();
        assert!(by_value.into_inner().is_none(), "a clone still uses it");
        assert_eq!(clone.into_inner(), Some(stream));
    });
}

#[test]
fn a_dropped_range_loses_nothing() {
    let key = Key::generate();
    let stream = Stream::of_frames(&key, 16, &[16, 3, 16, 9]);
    let reader = block_on(RangeReader::open(Slow(Source::new(&stream.bytes)), &key)).unwrap();
    for polls in 0..4 {
        let mut range = Box::pin(reader.read_range(17..40));
        for _ in 0..polls {
            if let Poll::Ready(range) = poll_once(&mut range) {
                assert_eq!(range.unwrap(), stream.plaintext[17..40]);
                break;
            }
        }
    }
    assert_eq!(read(&reader, 17..40).unwrap(), stream.plaintext[17..40]);
}

#[test]
fn futures_and_types_are_send_and_sync() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    fn check<T: Send + Sync + Unpin + Clone>() {}
    check::<RangeReader<Bytes>>();
    check::<PositionedFile>();
    let key = Key::generate();
    let source = Bytes::from(agcm::encrypt(&key, b"abc"));
    let reader = block_on(send(RangeReader::open(source, &key))).unwrap();
    assert_eq!(block_on(send(reader.read_range(0..3))).unwrap(), "abc");
    fn sync<T: Send + Sync + Unpin>(_: T) {}
    sync(reader.stream(0..3).unwrap());
}
