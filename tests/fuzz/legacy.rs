//! Streams of the Go library, as they were written, changed, or any bytes: `GoReader` must do with them as the model does.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use agcm::{Error, Key, legacy::GoReader};
use tokio::io::AsyncBufRead;

use crate::{
    choices::{Choices, READ_FAULTS},
    drive::poll_read,
    model,
    mutated::change,
    reference::go_stream,
    script::Reader,
    vectors::plaintext,
};

/// The key of `c64_p1000.agcm`, one of the streams that the Go library wrote, and another.
const KEYS: [&str; 2] = [
    "1f5b0a1cd36bd4e4a0230caae8f2b7d5f8753aee1c5822f9b1ad14c91a2fb667",
    "0909090909090909090909090909090909090909090909090909090909090909",
];

pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let keys = KEYS.map(|key| *key.parse::<Key>().unwrap().expose_bytes());
    let used = choices.one_of(&[&keys[..], &keys[..1], &keys[1..], &[]]);
    let script = choices.script(READ_FAULTS);
    let sizes = [0; 3].map(|_| 1 + choices.up_to(200));
    let stream = match choices.yes() {
        true => choices.rest().to_vec(),
        false => made(&mut choices, &keys[1]),
    };

    let ring = used.iter().copied().map(Key::from_bytes).collect::<agcm::KeyRing>();
    let mut reader = GoReader::new(Reader::new(&stream, script), ring);
    let mut released = Vec::new();
    let result = loop {
        let size = sizes[released.len() % 3];
        match read(&mut reader, size, released.len() % 2 == 0) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => break Ok(()),
            Poll::Ready(Ok(bytes)) => released.extend(bytes),
            Poll::Ready(Err(error)) => {
                // The inner reader's does not end it.
                if let Some(error) = Error::from_io(&error) {
                    break Err(error);
                }
            }
            Poll::Pending => {}
        }
    };
    match (read(&mut reader, 9, true), result) {
        (Poll::Ready(Ok(bytes)), Ok(())) => assert!(bytes.is_empty(), "an end of file stays one"),
        (Poll::Ready(Err(again)), Err(error)) => assert_eq!(Error::from_io(&again), Some(error), "it is sticky"),
        (other, _) => panic!("{other:?}"),
    }
    assert_eq!((released, result), model::go(used, &stream));
}

/// By one way of reading or the other.
pub fn read(reader: &mut (impl AsyncBufRead + Unpin), size: usize, buffered: bool) -> Poll<std::io::Result<Vec<u8>>> {
    if !buffered {
        return poll_read(reader, size);
    }
    let filled = Pin::new(&mut *reader).poll_fill_buf(&mut Context::from_waker(Waker::noop()));
    filled.map_ok(|bytes| bytes[..size.min(bytes.len())].to_vec()).map_ok(|bytes| {
        Pin::new(reader).consume(bytes.len());
        bytes
    })
}

/// A stream of the fuzzer's choice, and changed as anyone could.
fn made(choices: &mut Choices<'_>, key: &[u8; 32]) -> Vec<u8> {
    let chunk = choices.one_of(&[16, 1, 2, 7, 64, 1000, 10 * 1024 * 1024]);
    let mut stream = |nonce: u8| {
        let lens: Vec<usize> = (0..choices.up_to(12)).map(|_| 1 + choices.up_to(99.min(chunk as usize - 1))).collect();
        let plaintext = plaintext(lens.iter().sum());
        let mut rest = &plaintext[..];
        let chunks = lens.iter().map(|len| {
            let (chunk, after) = rest.split_at(*len);
            rest = after;
            chunk
        });
        let chunks: Vec<&[u8]> = chunks.collect();
        let stream = go_stream(key, [nonce; 12], chunk, &chunks);
        let mut at = 24;
        let mut parts = vec![stream[..24].to_vec()];
        for len in lens {
            parts.push(stream[at..at + len + 20].to_vec());
            at += len + 20;
        }
        parts
    };
    let (mut parts, other) = (stream(1), stream(2));
    for _ in 0..8 {
        if choices.are_over() {
            break;
        }
        change(choices, &mut parts, &other);
    }
    parts.concat()
}
