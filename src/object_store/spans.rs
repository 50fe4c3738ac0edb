//! Which bytes of an object are to be fetched for some ranges of its plaintext: as few requests as are worth it, and no
//! frame twice.

use std::ops::Range;

use object_store::OBJECT_STORE_COALESCE_DEFAULT;

use crate::{error::Error, geometry::Uniform};

/// Bytes of an object that are fetched by one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Where they are in the object.
    pub(super) sealed: Range<u64>,
    /// The plaintext that is wanted of them: ranges in order, no two with a part in the same frame.
    pub(super) plaintext: Vec<Range<u64>>,
}

/// The spans for some ranges, none of which is empty, in order.
pub(super) fn spans(layout: &Uniform, ranges: &[Range<u64>]) -> Result<Vec<Span>, Error> {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut spans = Vec::<Span>::new();
    for range in ranges {
        let sealed = layout.covering(range.clone())?.stream;
        match spans.last_mut() {
            Some(span) if sealed.start <= span.sealed.end.saturating_add(OBJECT_STORE_COALESCE_DEFAULT) => {
                match span.plaintext.last_mut() {
                    // In the same frames, or in those behind.
                    Some(last) if sealed.start <= span.sealed.end => last.end = last.end.max(range.end),
                    _ => span.plaintext.push(range),
                }
                span.sealed.end = span.sealed.end.max(sealed.end);
            }
            _ => spans.push(Span { sealed, plaintext: vec![range] }),
        }
    }
    Ok(spans)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#[allow(clippy::single_range_in_vec_init, reason = "they are ranges")]
mod tests {
    use super::*;

    /// The spans in a stream of 10 000 chunks of 1000 bytes.
    fn in_chunks(ranges: &[Range<u64>]) -> Vec<(Range<u64>, Vec<Range<u64>>)> {
        let layout = Uniform::new(10_000_000, 1000).unwrap();
        let spans = spans(&layout, ranges).unwrap().into_iter();
        // In frames, which are easier to read.
        let frame = |at: u64| (at - 80) / 1020;
        spans.map(|span| (frame(span.sealed.start)..frame(span.sealed.end), span.plaintext)).collect()
    }

    #[test]
    fn what_lies_near_to_each_other_is_one_span_and_no_frame_is_wanted_twice() {
        assert_eq!(in_chunks(&[]), []);
        assert_eq!(in_chunks(&[5..6]), [(0..1, vec![5..6])]);
        assert_eq!(in_chunks(&[5..6, 900..1001]), [(0..2, vec![5..1001])]);
        assert_eq!(in_chunks(&[900..1001, 5..6, 950..960]), [(0..2, vec![5..1001])]);
        assert_eq!(in_chunks(&[0..1000, 1000..2000]), [(0..2, vec![0..2000])]);
        assert_eq!(in_chunks(&[0..1, 2000..2001]), [(0..3, vec![0..1, 2000..2001])]);
        assert_eq!(in_chunks(&[0..2500, 1..2]), [(0..3, vec![0..2500])]);
    }

    #[test]
    fn what_is_more_than_a_mebibyte_away_is_a_span_of_its_own() {
        // 1 048 576 bytes are 1028 frames and a bit.
        assert_eq!(in_chunks(&[0..1, 1_029_000..1_029_001]), [(0..1030, vec![0..1, 1_029_000..1_029_001])]);
        let apart = [(0..1, vec![0..1]), (1030..1031, vec![1_030_000..1_030_001])];
        assert_eq!(in_chunks(&[1_030_000..1_030_001, 0..1]), apart);
    }
}
