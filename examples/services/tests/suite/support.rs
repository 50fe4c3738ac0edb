//! What several tests need.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

/// Bytes that do not repeat, so that nothing gets away with a frame in a wrong place.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; len];
    for (i, word) in (0..).zip(content.chunks_mut(8)) {
        let number = (i ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        word.copy_from_slice(&number.to_le_bytes()[..word.len()]);
    }
    content
}

/// Each number once in a while, always in the same order.
pub(crate) fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    }
}

pub(crate) fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

/// The names in a folder, those of temporary files too.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Waits until something is so, which others bring about.
pub(crate) async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("in a minute not: {what}");
}

/// As `assert_eq`, which would print some MB.
#[track_caller]
pub(crate) fn assert_same(one: &[u8], other: &[u8]) {
    assert_eq!(one.len(), other.len());
    if one != other {
        panic!("they differ at byte {:?}", one.iter().zip(other).position(|(one, other)| one != other));
    }
}
