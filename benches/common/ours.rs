//! Streams of ours through every adapter, from warm memory to where nothing is kept.

use std::hint::black_box;

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, EncryptOptions, EncryptReader, EncryptWriter, Key,
    codec::{Frame, FrameDecoder, FrameEncoder},
};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, sink},
    runtime::Runtime,
};
use tokio_util::codec::{Decoder, Encoder};

use super::{KIB, Run, timed};

/// What goes through an adapter in one run.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) chunk: usize,
    /// The length of the plaintext.
    pub(crate) stream: usize,
    /// So many streams, one after the other: a clock cannot be asked every microsecond.
    pub(crate) times: usize,
}

impl Shape {
    pub(crate) fn new(chunk: usize, stream: usize) -> Self {
        Self { chunk, stream, times: (512 * KIB / stream).max(1) }
    }

    pub(crate) fn bytes(self) -> usize {
        self.stream * self.times
    }

    /// The length of what is sealed at once.
    pub(crate) fn piece(self) -> usize {
        self.chunk.min(self.stream)
    }

    fn sealed(self, key: &Key) -> Vec<u8> {
        sealing(self.chunk).encrypt(key, &vec![0; self.stream])
    }
}

pub(crate) fn sealing(chunk: usize) -> EncryptOptions {
    EncryptOptions::new().chunk_size(chunk).expect("a chunk size that streams can have")
}

/// `EncryptWriter` to a sink, which `write` bytes at a time are written to.
pub(crate) fn writer(runtime: &Runtime, options: EncryptOptions, shape: Shape, write: usize) -> Run<'_> {
    let (key, plaintext) = (Key::generate(), vec![0; shape.piece()]);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                for _ in 0..shape.times {
                    let mut writer = EncryptWriter::with_options(sink(), &key, &options);
                    let mut left = shape.stream;
                    while left > 0 {
                        let chunk = &plaintext[..left.min(plaintext.len())];
                        for piece in chunk.chunks(write) {
                            writer.write_all(piece).await.expect("a sink takes everything");
                        }
                        left -= chunk.len();
                    }
                    writer.shutdown().await.expect("a sink can be shut down");
                }
            });
        })
    })
}

/// `DecryptReader` from memory, which is read 64 KiB at a time.
pub(crate) fn reader(runtime: &Runtime, options: DecryptOptions, shape: Shape) -> Run<'_> {
    let key = Key::generate();
    let stream = shape.sealed(&key);
    let mut plaintext = vec![0; 64 * KIB];
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                for _ in 0..shape.times {
                    let mut reader = DecryptReader::with_options(&stream[..], &key, &options);
                    while black_box(reader.read(&mut plaintext).await).expect("the stream is intact") > 0 {}
                }
            });
        })
    })
}

/// `DecryptReader` from memory; what it has in its buffer is looked at there.
pub(crate) fn buffered_reader(runtime: &Runtime, options: DecryptOptions, shape: Shape) -> Run<'_> {
    let key = Key::generate();
    let stream = shape.sealed(&key);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                for _ in 0..shape.times {
                    drain(DecryptReader::with_options(&stream[..], &key, &options)).await;
                }
            });
        })
    })
}

pub(crate) fn pulling_encryptor(runtime: &Runtime, options: EncryptOptions, shape: Shape) -> Run<'_> {
    let (key, plaintext) = (Key::generate(), vec![0; shape.stream]);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                for _ in 0..shape.times {
                    drain(EncryptReader::with_options(&plaintext[..], &key, &options)).await;
                }
            });
        })
    })
}

pub(crate) fn pushed_decryptor(runtime: &Runtime, options: DecryptOptions, shape: Shape) -> Run<'_> {
    let key = Key::generate();
    let stream = shape.sealed(&key);
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                for _ in 0..shape.times {
                    let mut writer = DecryptWriter::with_options(sink(), &key, &options);
                    writer.write_all(&stream).await.expect("a sink takes everything");
                    writer.shutdown().await.expect("the stream is whole");
                }
            });
        })
    })
}

pub(crate) fn frame_encoder(shape: Shape) -> Run<'static> {
    let mut encoder = FrameEncoder::with_options(&Key::generate(), &sealing(shape.chunk));
    let plaintext = Bytes::from(vec![0; shape.piece()]);
    let mut out = BytesMut::new();
    Box::new(move || {
        timed(|| {
            for _ in 0..shape.times {
                let mut left = shape.stream;
                while left > 0 {
                    let chunk = plaintext.slice(..left.min(plaintext.len()));
                    left -= chunk.len();
                    encoder.encode(Frame::Data(chunk), &mut out).expect("a stream can go on");
                    black_box(&mut out).clear();
                }
                encoder.encode(Frame::End, &mut out).expect("a stream can end");
                black_box(&mut out).clear();
            }
        })
    })
}

pub(crate) fn frame_decoder(shape: Shape) -> Run<'static> {
    let key = Key::generate();
    let stream = shape.sealed(&key);
    let mut decoder = FrameDecoder::new(&key);
    let mut input = BytesMut::new();
    Box::new(move || {
        (0..shape.times)
            .map(|_| {
                input.extend_from_slice(&stream); // not timed
                timed(|| while let Frame::Data(_) = black_box(next_frame(&mut decoder, &mut input)) {})
            })
            .sum()
    })
}

fn next_frame(decoder: &mut FrameDecoder, input: &mut BytesMut) -> Frame {
    decoder.decode(input).expect("the stream is intact").expect("the stream is whole")
}

pub(crate) fn sealed_at_once(options: EncryptOptions, shape: Shape) -> Run<'static> {
    let (key, plaintext) = (Key::generate(), vec![0; shape.stream]);
    Box::new(move || {
        timed(|| (0..shape.times).for_each(|_| drop(black_box(options.encrypt(&key, black_box(&plaintext))))))
    })
}

pub(crate) fn opened_at_once(options: DecryptOptions, shape: Shape) -> Run<'static> {
    let key = Key::generate();
    let stream = shape.sealed(&key);
    Box::new(move || {
        timed(|| {
            for _ in 0..shape.times {
                black_box(options.decrypt(&key, black_box(&stream)).expect("the stream is intact"));
            }
        })
    })
}

/// Takes all that a reader has in its buffer, over and over, until it ends.
async fn drain(mut reader: impl AsyncBufRead + Unpin) {
    loop {
        let n = black_box(reader.fill_buf().await).expect("neither memory nor stream is damaged").len();
        if n == 0 {
            break;
        }
        reader.consume(n);
    }
}
