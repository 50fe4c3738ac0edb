//! `Stream`s of `Bytes` in and out: whether to put the adapters between the bridges of `tokio_util::io`, or to go through the codec.
//!
//! ```text
//! cargo bench --bench streams                              # with --features aws-lc-rs: on that
//! ```
//!
//! Each way stands next to a loop of its own over the core, which gathers a frame, opens or seals it where it lies, and hands it
//! out as it is: that is what a type for this could do. What arrives are pieces of 64 KiB, which frames are not aligned to.

mod common;

use std::{hint::black_box, io, time::Duration};

use agcm::{
    DecryptOptions, DecryptReader, Decryptor, EncryptOptions, EncryptReader, Encryptor, Key, Step,
    codec::{Frame, FrameDecoder, FrameEncoder, framed_read},
};
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, pin_mut, stream};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio_util::{
    codec::Encoder,
    io::{ReaderStream, StreamReader},
};

use crate::common::{KIB, MIB, Results, Rounds, Run, bare::BACKEND, only_tested, size, timed};

const PIECE: usize = 64 * KIB;
const LEN: usize = 4 * MIB;
const BUDGET: Duration = Duration::from_secs(3);

fn main() {
    if only_tested() {
        return;
    }
    let runtime = Builder::new_current_thread().build().expect("a runtime can be built");
    let mut results = Results::new("streams");
    println!("share of the speed of a loop over the core, {BACKEND}, pairwise (median, middle half):");
    for chunk in [16 * KIB, 64 * KIB, 256 * KIB] {
        let way = |make: fn(Input) -> Output| decrypting(&runtime, chunk, make);
        let sides = [
            ("decrypt, loop over the core", way(opened_by_hand)),
            ("decrypt, framed_read(StreamReader)", way(opened_by_frames)),
            ("decrypt, ReaderStream(DecryptReader(StreamReader)), capacity 4 KiB", way(|input| opened(input, 4 * KIB))),
            (
                "decrypt, ReaderStream(DecryptReader(StreamReader)), capacity 64 KiB",
                way(|input| opened(input, 64 * KIB)),
            ),
            ("decrypt, the same, capacity 1 MiB", way(|input| opened(input, MIB))),
            ("decrypt, loop over the core, again", way(opened_by_hand)),
        ];
        compare(&mut results, chunk, sides);
        let way = |make: fn(Input, usize) -> Output| encrypting(&runtime, chunk, make);
        let sides = [
            ("encrypt, FrameEncoder over each piece", way(sealed_by_hand)),
            (
                "encrypt, ReaderStream(EncryptReader(StreamReader)), capacity 4 KiB",
                way(|input, chunk| sealed(input, chunk, 4 * KIB)),
            ),
            (
                "encrypt, ReaderStream(EncryptReader(StreamReader)), capacity 64 KiB",
                way(|input, chunk| sealed(input, chunk, 64 * KIB)),
            ),
            ("encrypt, the same, capacity 1 MiB", way(|input, chunk| sealed(input, chunk, MIB))),
            ("encrypt, loop over the core", way(sealed_by_core)),
            ("encrypt, FrameEncoder over each piece, again", way(sealed_by_hand)),
        ];
        compare(&mut results, chunk, sides);
    }
}

/// Each against the first.
fn compare<const N: usize>(results: &mut Results, chunk: usize, sides: [(&str, Run<'_>); N]) {
    let (names, mut sides): (Vec<_>, Vec<_>) = sides.into_iter().unzip();
    let rounds = Rounds::take(LEN, BUDGET, 5, &mut sides);
    for (i, name) in names.iter().enumerate().skip(1) {
        let details = json!({ "way": name, "chunk": chunk, "ours": rounds.rate(i), "base": rounds.rate(0) });
        results.add("streams", &format!("{name}: chunks of {}", size(chunk)), rounds.ratio(i, 0), details);
    }
}

type Input = std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>>>>;
type Output = Input;

thread_local! {
    static KEY: Key = Key::generate();
}

fn key() -> Key {
    KEY.with(Key::clone)
}

fn options(chunk: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(chunk).expect("a chunk size that streams can have")
}

/// The pieces exist already, as what a socket has handed out.
fn input(all: &Bytes) -> Input {
    let pieces = (0..all.len()).step_by(PIECE).map(|at| Ok(all.slice(at..all.len().min(at + PIECE))));
    Box::pin(stream::iter(pieces.collect::<Vec<_>>()))
}

async fn drain(output: Output) -> usize {
    pin_mut!(output);
    let mut len = 0;
    while let Some(piece) = output.next().await {
        len += black_box(piece.expect("the stream is intact")).len();
    }
    len
}

fn decrypting(runtime: &Runtime, chunk: usize, make: fn(Input) -> Output) -> Run<'_> {
    let sealed = Bytes::from(options(chunk).encrypt(&key(), &vec![0; LEN]));
    Box::new(move || {
        let input = input(&sealed);
        timed(|| assert_eq!(runtime.block_on(drain(make(input))), LEN))
    })
}

fn encrypting(runtime: &Runtime, chunk: usize, make: fn(Input, usize) -> Output) -> Run<'_> {
    let plaintext = Bytes::from(vec![0; LEN]);
    Box::new(move || {
        let input = input(&plaintext);
        timed(|| assert!(runtime.block_on(drain(make(input, chunk))) > LEN))
    })
}

fn opened(input: Input, capacity: usize) -> Output {
    Box::pin(ReaderStream::with_capacity(DecryptReader::new(StreamReader::new(input), key()), capacity))
}

fn opened_by_frames(input: Input) -> Output {
    let frames = framed_read(StreamReader::new(input), FrameDecoder::new(key()));
    Box::pin(frames.try_filter_map(|frame| async move {
        Ok(match frame {
            Frame::Data(data) => Some(data),
            Frame::End => None,
        })
    }))
}

fn opened_by_hand(input: Input) -> Output {
    let state = (input, Decryptor::new(key(), &DecryptOptions::new()), BytesMut::new());
    Box::pin(stream::try_unfold(state, |(mut input, mut decryptor, mut buffer)| async move {
        loop {
            match decryptor.open_in_place(&mut buffer)? {
                Step::Start { consumed } => buffer.advance(consumed),
                Step::Data { consumed, plaintext } => {
                    let mut frame = buffer.split_to(consumed);
                    frame.truncate(plaintext.end);
                    frame.advance(plaintext.start);
                    return Ok(Some((frame.freeze(), (input, decryptor, buffer))));
                }
                Step::End { .. } => return Ok(None),
                Step::Incomplete { required, .. } => {
                    let Some(piece) = input.try_next().await? else {
                        decryptor.end_of_input(buffer.len())?;
                        return Ok(None);
                    };
                    buffer.reserve(required.max(buffer.len() + piece.len()) - buffer.len());
                    buffer.extend_from_slice(&piece);
                }
            }
        }
    }))
}

fn sealed(input: Input, chunk: usize, capacity: usize) -> Output {
    Box::pin(ReaderStream::with_capacity(
        EncryptReader::with_options(StreamReader::new(input), &key(), &options(chunk)),
        capacity,
    ))
}

/// Frames are no longer than pieces here.
fn sealed_by_hand(input: Input, chunk: usize) -> Output {
    let mut encoder = FrameEncoder::with_options(&key(), &options(chunk));
    let frames = input.map_ok(Frame::from).chain(stream::iter([Ok(Frame::End)]));
    Box::pin(frames.map(move |frame| {
        let mut buffer = BytesMut::new();
        encoder.encode(frame?, &mut buffer)?;
        Ok(buffer.freeze())
    }))
}

/// Gathers a chunk, in the place where it is sealed.
fn sealed_by_core(input: Input, chunk: usize) -> Output {
    let (encryptor, prelude) = Encryptor::start(&key(), &options(chunk)).expect("there is randomness");
    let start = stream::iter([Ok(Bytes::copy_from_slice(&prelude))]);
    let state = (input, Some(encryptor), Bytes::new());
    let frames = stream::try_unfold(state, move |(mut input, mut encryptor, mut piece)| async move {
        let Some(mut sealing) = encryptor.take() else { return Ok(None) };
        let mut frame = BytesMut::with_capacity(chunk + 20);
        frame.resize(4, 0);
        while frame.len() < 4 + chunk {
            if piece.is_empty() {
                match input.try_next().await? {
                    Some(next) => piece = next,
                    None => break,
                }
            }
            let len = piece.len().min(4 + chunk - frame.len());
            frame.extend_from_slice(&piece.split_to(len));
        }
        if frame.len() == 4 {
            return Ok(Some((Bytes::copy_from_slice(&sealing.finish()), (input, None, piece))));
        }
        frame.resize(frame.len() + 16, 0);
        sealing.seal_in_place(&mut frame).map_err(io::Error::from)?;
        Ok(Some((frame.freeze(), (input, Some(sealing), piece))))
    });
    Box::pin(start.chain(frames))
}
