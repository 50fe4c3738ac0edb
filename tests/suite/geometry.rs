//! `geometry` against streams that exist, and against counting.

use agcm::{
    Error, Key,
    format::{MAX_FRAMES, MAX_PLAINTEXT_LEN},
    geometry::{Uniform, plaintext_len, stream_len},
};

use crate::streams::{self, Stream};

#[test]
fn lengths_are_those_of_real_streams_and_back() {
    for stream in streams::small(&Key::generate()) {
        let len = stream.bytes.len() as u64;
        let (total, frames) = (stream.plaintext.len() as u64, stream.frames.len() as u64);
        assert_eq!(stream_len(total, frames), Some(len));
        assert_eq!(plaintext_len(len, frames), Some(total));
        if stream.is_uniform() {
            let layout = Uniform::new(total, stream.chunk_size).unwrap();
            assert_eq!((layout.stream_len(), layout.frames()), (len, frames));
            assert_eq!((layout.chunk_size(), layout.plaintext_len()), (stream.chunk_size, total));
            assert_eq!(Uniform::from_stream_len(len, stream.chunk_size), Some(layout));
        }
    }
}

#[test]
fn some_lengths_are_those_of_no_stream() {
    for chunk_size in 1..20 {
        // Every length that a stream can have, by counting; all others are none's.
        let mut expected = vec![None; 600];
        for total in 0..200 {
            let layout = Uniform::new(total, chunk_size).unwrap();
            let len = usize::try_from(layout.stream_len()).unwrap();
            if let Some(place) = expected.get_mut(len) {
                assert_eq!(*place, None, "two layouts of one length");
                *place = Some(layout);
            }
        }
        for (len, expected) in
            expected.into_iter().enumerate().filter(|(len, _)| len / (20 + chunk_size) * chunk_size < 190)
        {
            assert_eq!(Uniform::from_stream_len(len as u64, chunk_size), expected, "{len} in chunks of {chunk_size}");
        }
    }
}

#[test]
fn every_range_is_covered_by_the_frames_that_hold_it_and_no_other() {
    let key = Key::generate();
    for (chunk_size, len) in [(1, 7), (3, 10), (3, 9), (16, 5), (16, 16), (16, 40), (5, 0)] {
        let stream = Stream::uniform(&key, chunk_size, len);
        let layout = Uniform::new(len as u64, chunk_size).unwrap();
        for start in 0..=len {
            for end in start..=len {
                let cover = layout.covering(start as u64..end as u64).unwrap();
                let first =
                    (0..stream.frames.len()).find(|&i| stream.start_of(i + 1).1 > start).unwrap_or(len / chunk_size);
                let behind = (0..=stream.frames.len()).find(|&i| stream.start_of(i).1 >= end).unwrap();
                let behind = if start == end { first } else { behind };
                assert_eq!(cover.frames, first as u64..behind as u64, "{start}..{end} of {len} in {chunk_size}");
                if start < end {
                    let [(at, position), (end_at, end_position)] = [first, behind].map(|i| stream.start_of(i));
                    assert_eq!(cover.stream, at as u64..end_at as u64);
                    assert_eq!(cover.plaintext, position as u64..end_position as u64);
                } else {
                    assert!(cover.stream.is_empty() && cover.plaintext.is_empty());
                }
            }
            assert_eq!(
                layout.covering(start as u64..len as u64 + 1),
                Err(Error::RangeOutOfBounds { start: start as u64, end: len as u64 + 1, len: len as u64 })
            );
        }
    }
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    let reversed = 5..4;
    let layout = Uniform::new(10, 3).unwrap();
    assert_eq!(layout.covering(reversed), Err(Error::RangeOutOfBounds { start: 5, end: 4, len: 10 }));
}

#[test]
fn limits_are_refused_and_nothing_overflows() {
    let longest = Uniform::new(MAX_PLAINTEXT_LEN, 65_536).unwrap();
    assert_eq!(Uniform::from_stream_len(longest.stream_len(), 65_536), Some(longest));
    assert_eq!(longest.covering(MAX_PLAINTEXT_LEN - 1..MAX_PLAINTEXT_LEN).unwrap().frames, (1 << 36) - 1..1 << 36);
    assert_eq!(Uniform::new(MAX_PLAINTEXT_LEN + 1, 65_536), Err(Error::StreamTooLong));
    assert_eq!(Uniform::from_stream_len(longest.stream_len() + 1, 65_536), None);
    assert!(Uniform::new(MAX_FRAMES, 1).is_ok());
    assert_eq!(Uniform::new(MAX_FRAMES + 1, 1), Err(Error::StreamTooLong));
    for bad in [0, 10 * 1024 * 1024 + 1, usize::MAX] {
        assert_eq!(Uniform::new(5, bad), Err(Error::InvalidChunkSize(bad as u64)));
        assert_eq!(Uniform::from_stream_len(1000, bad), None);
    }
    let extremes = [0, 1, 116, 117, 118, 1 << 40, 1 << 52, 1 << 53, u64::MAX - 117, u64::MAX - 1, u64::MAX];
    for a in extremes {
        for b in extremes {
            let (len, back) = (stream_len(a, b), plaintext_len(a, b));
            assert!(len.is_none_or(|len| plaintext_len(len, b) == Some(a)));
            assert!(back.is_none_or(|total| stream_len(total, b) == Some(a)));
            for layout in [Uniform::new(a, 65_536).ok(), Uniform::from_stream_len(a, 1)].into_iter().flatten() {
                let _ = layout.covering(a.min(b)..b.max(a));
            }
        }
        let _ = Uniform::from_stream_len(a, 10 * 1024 * 1024);
    }
    assert_eq!(stream_len(5, 0), None);
    assert_eq!(stream_len(0, 1), None);
    assert_eq!(stream_len(5, 6), None);
}
