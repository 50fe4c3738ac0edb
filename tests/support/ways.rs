//! Every way to open a whole stream, behind one signature.
//!
//! Each returns what was released, and whether the stream was whole or what was wrong with it.

use std::io;

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, Decryptor, Error, KeyRing, RangeReader, SeekReader, Step, Trailing,
    codec::{Frame, FrameDecoder},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, executor::block_on};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::FramedRead;

use crate::script::{Op, Reader, Script, Seekable, Writer};

pub type Opened = (Vec<u8>, Result<(), Error>);
pub type Way = fn(&KeyRing, &DecryptOptions, &[u8]) -> Opened;

/// The ways that take their input for exactly one stream.
pub const WHOLE: &[(&str, Way)] = &[
    ("one-shot", |keys, options, stream| match options.decrypt(keys, stream) {
        Ok(plaintext) => (plaintext, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    }),
    ("reader", |keys, options, stream| reader(keys, options, stream)),
    ("reader, byte by byte", |keys, options, stream| {
        reader(keys, options, Reader::new(stream, Script::repeat([Op::Some(1)])))
    }),
    ("reader, a byte or pending", |keys, options, stream| {
        reader(keys, options, Reader::new(stream, Script::repeat([Op::Some(1), Op::Pending])))
    }),
    ("reader, pieces and pending", |keys, options, stream| {
        let ops = [Op::Pending, Op::Some(3), Op::Some(29), Op::Pending, Op::Pending, Op::Some(1000)];
        reader(keys, options, Reader::new(stream, Script::repeat(ops)))
    }),
    ("reader, two workers", |keys, options, stream| reader(keys, &options.clone().workers(2), stream)),
    ("reader, two workers, byte by byte", |keys, options, stream| {
        reader(keys, &options.clone().workers(2), Reader::new(stream, Script::repeat([Op::Some(1)])))
    }),
    ("reader, two workers, a byte or pending", |keys, options, stream| {
        reader(keys, &options.clone().workers(2), Reader::new(stream, Script::repeat([Op::Some(1), Op::Pending])))
    }),
    ("reader, three workers, pieces and pending", |keys, options, stream| {
        let ops = [Op::Pending, Op::Some(3), Op::Some(29), Op::Pending, Op::Pending, Op::Some(1000)];
        reader(keys, &options.clone().workers(3), Reader::new(stream, Script::repeat(ops)))
    }),
    ("decryptor", |keys, options, stream| decryptor(keys, options, stream, stream.len())),
    ("decryptor, byte by byte", |keys, options, stream| decryptor(keys, options, stream, 1)),
    ("decryptor in place", decryptor_in_place),
    ("writer", |keys, options, stream| writer(keys, options, stream, usize::MAX, Script::default())),
    ("writer, byte by byte", |keys, options, stream| {
        writer(keys, options, stream, 1, Script::repeat([Op::Some(1), Op::Pending]))
    }),
    ("writer, pieces", |keys, options, stream| {
        let ops = [Op::Pending, Op::Some(3), Op::Some(29), Op::Pending, Op::Pending, Op::Some(1000)];
        writer(keys, options, stream, 23, Script::repeat(ops))
    }),
];

/// The readers by offset, which look at the end of their input first: they may give another error from the final frame on, and
/// release frames behind a damaged one.
pub const BY_OFFSET: &[(&str, Way)] = &[
    ("seek reader", |keys, options, stream| seek_reader(keys, options, stream, Script::default())),
    ("seek reader, byte by byte", |keys, options, stream| {
        seek_reader(keys, options, stream, Script::repeat([Op::Some(1)]))
    }),
    ("seek reader, a byte or pending", |keys, options, stream| {
        seek_reader(keys, options, stream, Script::repeat([Op::Some(1), Op::Pending]))
    }),
    ("range", |keys, options, stream| {
        by_range(keys, options, stream, |reader, plaintext| {
            let range = block_on(reader.read_range(0..reader.len()))?;
            plaintext.extend_from_slice(&range);
            Ok(())
        })
    }),
    ("range, byte by byte", |keys, options, stream| {
        by_range(keys, options, stream, |reader, plaintext| {
            for at in 0..reader.len() {
                plaintext.extend_from_slice(&block_on(reader.read_range(at..at + 1))?);
            }
            Ok(())
        })
    }),
    ("range, as a stream", |keys, options, stream| {
        by_range(keys, options, stream, |reader, plaintext| {
            let mut pieces = reader.stream(0..reader.len()).unwrap();
            while let Some(piece) = block_on(pieces.next()) {
                plaintext.extend_from_slice(&piece?);
            }
            Ok(())
        })
    }),
];

/// The frame decoders, which take their input for any number of streams in a row.
pub const FRAMED: &[(&str, Way)] = &[
    ("frames", |keys, options, stream| frames(keys, options, stream)),
    ("frames, byte by byte", |keys, options, stream| {
        frames(keys, options, Reader::new(stream, Script::repeat([Op::Some(1)])))
    }),
    ("frames, a byte or pending", |keys, options, stream| {
        frames(keys, options, Reader::new(stream, Script::repeat([Op::Some(1), Op::Pending])))
    }),
];

/// Every way to open a stream that is valid, and followed by nothing.
pub fn all() -> impl Iterator<Item = &'static (&'static str, Way)> {
    WHOLE.iter().chain(FRAMED).chain(BY_OFFSET)
}

fn reader(keys: &KeyRing, options: &DecryptOptions, inner: impl AsyncRead + Unpin) -> Opened {
    let options = options.clone().trailing(Trailing::Reject);
    let mut reader = DecryptReader::with_options(inner, keys, &options);
    let mut plaintext = Vec::new();
    block_on(async {
        let Err(error) = reader.read_to_end(&mut plaintext).await else {
            assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0, "an end of file stays one");
            return (plaintext, Ok(()));
        };
        let error = Error::from_io(&error).unwrap();
        // What the stream did is sticky, and is never followed by an end of file.
        for _ in 0..3 {
            let again = reader.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(Error::from_io(&again), Some(error));
        }
        (plaintext, Err(error))
    })
}

fn writer(keys: &KeyRing, options: &DecryptOptions, stream: &[u8], piece: usize, script: Script) -> Opened {
    let inner = Writer { flush: script.clone(), close: script.clone(), ..Writer::new(script) };
    let mut writer = DecryptWriter::with_options(inner, keys, options);
    let result = block_on(async {
        for piece in stream.chunks(piece) {
            writer.write_all(piece).await?;
        }
        writer.shutdown().await?;
        writer.shutdown().await?;
        writer.flush().await
    });
    let result = result.map_err(|error| {
        let error = Error::from_io(&error).unwrap();
        // What the stream did is sticky, and is never taken back by a flush or a shutdown.
        block_on(async {
            for again in [
                writer.write(b"more").await.unwrap_err(),
                writer.flush().await.unwrap_err(),
                writer.finish().await.unwrap_err(),
                writer.shutdown().await.unwrap_err(),
            ] {
                assert_eq!(Error::from_io(&again), Some(error));
            }
        });
        error
    });
    let inner = writer.into_inner();
    assert_eq!(inner.closes, usize::from(result.is_ok()), "it is shut down only if all is well");
    (inner.data, result)
}

fn seek_reader(keys: &KeyRing, options: &DecryptOptions, stream: &[u8], script: Script) -> Opened {
    let mut plaintext = Vec::new();
    let result = block_on(async {
        let inner = Seekable::new(stream, script);
        let mut reader = SeekReader::open_with_options(inner, keys, options).await?;
        if let Err(error) = reader.read_to_end(&mut plaintext).await {
            let again = reader.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(Error::from_io(&again), Error::from_io(&error), "the damage is still there");
            return Err(error);
        }
        assert_eq!(reader.len(), plaintext.len() as u64);
        Ok(())
    });
    (plaintext, result.map_err(|error| Error::from_io(&error).unwrap()))
}

fn by_range(
    keys: &KeyRing,
    options: &DecryptOptions,
    stream: &[u8],
    read: impl Fn(&RangeReader<Bytes>, &mut Vec<u8>) -> io::Result<()>,
) -> Opened {
    let mut plaintext = Vec::new();
    let source = Bytes::copy_from_slice(stream);
    let result = block_on(RangeReader::open_with_options(source, keys, options))
        .and_then(|reader| read(&reader, &mut plaintext));
    (plaintext, result.map_err(|error| Error::from_io(&error).unwrap()))
}

fn decryptor(keys: &KeyRing, options: &DecryptOptions, stream: &[u8], piece: usize) -> Opened {
    let mut decryptor = Decryptor::new(keys, options);
    let mut plaintext = Vec::new();
    let result = drive_decryptor(&mut decryptor, stream, piece, &mut plaintext);
    assert_eq!(decryptor.is_complete(), result.is_ok());
    if let Err(error) = result {
        assert_eq!(decryptor.open(stream, &mut plaintext.clone()), Err(error), "an error is sticky");
        assert_eq!(decryptor.end_of_input(0), Err(error), "an error is sticky");
    }
    (plaintext, result)
}

fn drive_decryptor(
    decryptor: &mut Decryptor,
    stream: &[u8],
    piece: usize,
    plaintext: &mut Vec<u8>,
) -> Result<(), Error> {
    // `start..end` is what has arrived and is not used up.
    let (mut start, mut end) = (0, 0);
    loop {
        let before = plaintext.len();
        match decryptor.open(&stream[start..end], plaintext)? {
            Step::Start { consumed } => start += consumed,
            Step::Data { consumed, plaintext: range } => {
                assert_eq!(range, before..plaintext.len(), "what was appended");
                start += consumed;
            }
            Step::End { consumed: 0 } => return Ok(()),
            Step::End { consumed } => {
                start += consumed;
                end = stream.len();
            }
            Step::Incomplete { required, allowed } => {
                assert!(end - start < required && required <= allowed);
                if end == stream.len() {
                    return decryptor.end_of_input(end - start);
                }
                end += piece.min(stream.len() - end);
            }
        }
    }
}

fn decryptor_in_place(keys: &KeyRing, options: &DecryptOptions, stream: &[u8]) -> Opened {
    let mut decryptor = Decryptor::new(keys, options);
    let mut input = stream.to_vec();
    let (mut plaintext, mut start) = (Vec::new(), 0);
    loop {
        let rest = &mut input[start..];
        match decryptor.open_in_place(rest) {
            Ok(Step::Start { consumed }) => start += consumed,
            Ok(Step::Data { consumed, plaintext: range }) => {
                plaintext.extend_from_slice(&rest[range]);
                start += consumed;
            }
            Ok(Step::End { consumed: 0 }) => return (plaintext, Ok(())),
            Ok(Step::End { consumed }) => start += consumed,
            Ok(Step::Incomplete { .. }) => {
                let left = rest.len();
                return (plaintext, decryptor.end_of_input(left));
            }
            Err(error) => {
                // Where a frame failed there is its ciphertext or, of a backend that decrypts before it knows, zeroes.
                let mut bytes = rest.iter().zip(&stream[start..]);
                assert!(bytes.all(|(after, before)| after == before || *after == 0), "no plaintext of what failed");
                return (plaintext, Err(error));
            }
        }
    }
}

fn frames(keys: &KeyRing, options: &DecryptOptions, inner: impl AsyncRead + Unpin) -> Opened {
    let decoder = FrameDecoder::with_options(keys, options);
    // A small capacity to begin with, so that growing is part of the test.
    let mut frames = FramedRead::with_capacity(inner, decoder, 16);
    let mut plaintext = Vec::new();
    let mut ended = true;
    block_on(async {
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(Frame::Data(data)) => {
                    assert!(!data.is_empty());
                    plaintext.extend_from_slice(&data);
                    ended = false;
                }
                Ok(Frame::End) => ended = true,
                Err(error) => {
                    use tokio_util::codec::Decoder;
                    let error = Error::from_io(&error).unwrap();
                    for input in [&b""[..], b"AGCM", b"whatever"] {
                        let mut input = BytesMut::from(input);
                        let again = frames.decoder_mut().decode(&mut input).unwrap_err();
                        assert_eq!(Error::from_io(&again), Some(error));
                        let again = frames.decoder_mut().decode_eof(&mut input).unwrap_err();
                        assert_eq!(Error::from_io(&again), Some(error));
                    }
                    return (plaintext, Err(error));
                }
            }
        }
        assert!(ended, "the frames ended without an End and without an error");
        (plaintext, Ok(()))
    })
}

/// The name of an error's variant, as the vectors give it.
pub fn name(error: Error) -> String {
    let debug = format!("{error:?}");
    debug.split([' ', '(', '{']).next().unwrap().to_owned()
}
