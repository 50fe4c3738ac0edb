//! Any lengths: the arithmetic of `geometry` against the same in numbers that cannot overflow.

use agcm::{
    Error,
    geometry::{Uniform, plaintext_len, stream_len},
};

use crate::choices::Choices;

const MOST_PLAINTEXT: u128 = 1 << 52;
const MOST_FRAMES: u128 = 1 << 40;
const MOST_CHUNK: u64 = 10 * 1024 * 1024;

pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let [a, b, c] = [0; 3].map(|_| number(&mut choices));
    lengths(a, b);
    let chunk = match choices.up_to(2) {
        0 => 1 + choices.up_to(100) as u64,
        1 => 1 + choices.any::<u32>() as u64 % MOST_CHUNK,
        _ => number(&mut choices),
    };
    layout(a, chunk, b..c);
    if chunk > 0 {
        // Near a length that some stream has.
        let len = len_of(u128::from(a % (1 << 53)), u128::from(a % (1 << 53)).div_ceil(chunk.into()));
        backwards(u64::try_from(len).unwrap_or(u64::MAX).wrapping_add(b % 3).wrapping_sub(1), chunk);
    }
    backwards(a, chunk);
}

/// Any number, or one near a limit.
fn number(choices: &mut Choices<'_>) -> u64 {
    let near = [0, 117, 65_536, MOST_CHUNK, 1 << 40, 1 << 52, (1 << 52) + 117 + 20 * (1 << 40), u64::MAX];
    match choices.up_to(2) {
        0 => choices.any::<u16>().into(),
        1 => choices.one_of(&near).wrapping_add(choices.any::<u8>() as u64).wrapping_sub(128),
        _ => choices.any(),
    }
}

fn len_of(total: u128, frames: u128) -> u128 {
    117 + total + 20 * frames
}

fn is_possible(total: u128, frames: u128) -> bool {
    total <= MOST_PLAINTEXT && frames <= MOST_FRAMES && frames <= total && (frames == 0) == (total == 0)
}

fn lengths(a: u64, b: u64) {
    let expected = is_possible(a.into(), b.into()).then(|| len_of(a.into(), b.into()));
    assert_eq!(stream_len(a, b).map(u128::from), expected);

    let total = u128::from(a).checked_sub(len_of(0, b.into()));
    let total = total.filter(|total| is_possible(*total, b.into()));
    assert_eq!(plaintext_len(a, b).map(u128::from), total);
}

fn layout(total: u64, chunk: u64, range: std::ops::Range<u64>) {
    // What has no `usize` cannot be asked for.
    let Ok(chunk_size) = usize::try_from(chunk) else { return };
    let frames = u128::from(total).div_ceil(chunk.max(1).into());
    let expected = if !(1..=MOST_CHUNK).contains(&chunk) {
        Err(Error::InvalidChunkSize(chunk))
    } else if !is_possible(total.into(), frames) {
        Err(Error::StreamTooLong)
    } else {
        Ok(len_of(total.into(), frames))
    };
    let made = Uniform::new(total, chunk_size);
    assert_eq!(made.map(|made| made.stream_len().into()), expected);
    let Ok(made) = made else { return };
    assert_eq!((made.chunk_size() as u64, made.plaintext_len(), made.frames().into()), (chunk, total, frames));
    assert_eq!(Uniform::from_stream_len(made.stream_len(), made.chunk_size()), Some(made));

    cover(&made, range.clone());
    // Most ranges lie outside.
    let [start, end] = [range.start, range.end].map(|at| at.checked_rem(total).unwrap_or(0));
    cover(&made, start..end);
    cover(&made, start.min(end)..start.max(end));
}

fn cover(layout: &Uniform, range: std::ops::Range<u64>) {
    let (total, chunk) = (layout.plaintext_len(), layout.chunk_size() as u64);
    if range.start > range.end || range.end > total {
        let error = Error::RangeOutOfBounds { start: range.start, end: range.end, len: total };
        assert_eq!(layout.covering(range), Err(error));
        return;
    }
    let cover = layout.covering(range.clone()).unwrap();
    if range.is_empty() {
        assert!(cover.frames.is_empty() && cover.stream.is_empty() && cover.plaintext.is_empty());
        return;
    }
    let [start, end] = [range.start, range.end].map(u128::from);
    let (first, last) = (start / u128::from(chunk), end.div_ceil(chunk.into()));
    let position = |frame: u128| (frame * u128::from(chunk)).min(total.into());
    let at = |frame: u128| 80 + position(frame) + 20 * frame;
    let wide = |range: &std::ops::Range<u64>| u128::from(range.start)..u128::from(range.end);
    assert_eq!(wide(&cover.frames), first..last);
    assert_eq!(wide(&cover.plaintext), position(first)..position(last));
    assert_eq!(wide(&cover.stream), at(first)..at(last));
    assert!(cover.plaintext.start <= range.start && range.end <= cover.plaintext.end);
    assert!(cover.stream.end + 37 <= layout.stream_len());
}

/// From the length of a stream: there is at most one plaintext that is so long, and it is found if it is there.
fn backwards(len: u64, chunk: u64) {
    let Ok(chunk_size) = usize::try_from(chunk) else { return };
    let found = Uniform::from_stream_len(len, chunk_size);
    if let Some(found) = found {
        assert_eq!((found.stream_len(), found.chunk_size() as u64), (len, chunk));
    }
    if !(1..=MOST_CHUNK).contains(&chunk) {
        return assert_eq!(found, None);
    }
    // All full frames but for the last: so many of them that one more would be too long.
    let data = u128::from(len).checked_sub(117);
    let expected = data.and_then(|data| {
        let (full, rest) = (data / u128::from(chunk + 20), data % u128::from(chunk + 20));
        let last = if rest == 0 { 0 } else { rest.checked_sub(20).filter(|last| *last > 0)? };
        let (total, frames) = (full * u128::from(chunk) + last, full + u128::from(last > 0));
        is_possible(total, frames).then_some(total)
    });
    assert_eq!(found.map(|found| found.plaintext_len().into()), expected);
}
