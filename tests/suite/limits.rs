//! The limits that the pages give follow from the format's constants and the bounds that are cited there.

use agcm::{DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, format};

/// The bytes that AES turns over at a time.
const BLOCK: f64 = 16.0;

fn blocks(bytes: u64) -> f64 {
    bytes as f64 / BLOCK
}

/// The PRP/PRF switching bound: what sets a stream of so many blocks apart from randomness, at most, as a power of two.
fn advantage(sum_of_squares: f64) -> f64 {
    sum_of_squares.log2() - 129.0
}

#[test]
fn one_stream_of_the_greatest_length_gives_away_at_most_2_to_the_minus_33() {
    assert_eq!(advantage(blocks(format::MAX_PLAINTEXT_LEN).powi(2)), -33.0);
}

#[test]
fn under_one_key_sums_of_squares_of_blocks_stay_under_2_to_the_96() {
    let greatest = blocks(format::MAX_PLAINTEXT_LEN).powi(2);
    let many = blocks(64 << 30).powi(2) * 2_f64.powi(32);
    assert_eq!([greatest.log2(), many.log2()], [96.0, 96.0], "one stream of 4 PiB, or 2^32 streams of 64 GiB");
    assert_eq!(advantage(many), -33.0);
}

#[test]
fn streams_draw_the_same_randomness_with_2_to_the_minus_129() {
    let drawn = 8.0 * (12 + 20) as f64;
    let pairs = 2.0 * 64.0 - 1.0;
    assert_eq!(pairs - drawn, -129.0, "among 2^64 streams");
}

#[test]
fn a_frame_is_forged_with_about_2_to_the_minus_108() {
    // The hash is a polynomial over the ciphertext and one block of lengths, with as many zeroes at most.
    let degree = blocks(MAX_CHUNK_SIZE as u64) + 1.0;
    let chance = degree.log2() - 128.0;
    assert!((-109.0..=-108.0).contains(&chance), "{chance}");
}

/// AES-GCM counts the blocks of a message in 32 bits, two of which are not for the message.
#[test]
fn no_frame_is_too_long_for_the_counter_of_aes_gcm() {
    assert!(blocks(MAX_CHUNK_SIZE as u64) <= 2_f64.powi(32) - 2.0);
}

#[test]
fn the_overhead_is_three_parts_in_ten_thousand() {
    let share = format::FRAME_OVERHEAD as f64 / DEFAULT_CHUNK_SIZE as f64;
    assert!((0.000_3..0.000_31).contains(&share), "{share}");
    assert_eq!(format::STREAM_OVERHEAD, 117);
}
