//! One stream, whole or damaged, read in every order and in any pieces: all must release the same bytes, and say the same of
//! what is wrong, namely what the model does.
//!
//! In order, that is exact. By offset a read touches some frames only: it must succeed if those are intact, whatever else is
//! not, and otherwise fail with the error of the first that is not. Only where an irregular stream has a bad frame word is that
//! left open, since it depends on the way: then a read may fail, or give the right bytes.

use std::{io, io::SeekFrom, task::Poll};

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, Error, KeyRing, RangeReader, SeekReader, Trailing,
    codec::{Frame, FrameDecoder},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, executor::block_on};
use tokio::io::AsyncSeekExt;
use tokio_util::codec::Decoder;

use crate::{
    choices::{Choices, READ_FAULTS, WRITE_FAULTS},
    drive::{poll_flush, poll_once, poll_shutdown, poll_write},
    legacy::read,
    made::{self, Made},
    model::{Layout, Model},
    raw::look,
    script::{Reader, Seekable, Writer},
    ways::Opened,
};

/// One of the readers of a stream, and what it was given.
struct Case {
    keys: KeyRing,
    options: DecryptOptions,
    model: Model,
    stream: Vec<u8>,
    plaintext: Vec<u8>,
}

pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let made = Made::choose(&mut choices, 1);
    let (keys, options, model) = made::reader(&mut choices, made.context);
    let mut stream = made.parts.concat();
    for _ in 0..choices.up_to(2) {
        damage(&mut choices, &mut stream);
    }
    let case = Case { keys, options, model, stream, plaintext: made.plaintext };
    look(&case.model, &case.stream);
    let expected = case.model.whole(&case.stream);

    let workers = choices.workers();
    let slice = case.options.clone().workers(workers).decrypt(&case.keys, &case.stream);
    assert_eq!(slice, expected.1.map(|()| expected.0.clone()), "one-shot");
    assert_eq!(case.pushed(&mut choices), expected, "DecryptWriter");
    case.pulled(&mut choices, &expected);
    assert_eq!(case.decoded(&mut choices), case.model.framed(&case.stream), "FrameDecoder");

    let layout = case.model.layout(&case.stream);
    case.seeks(&mut choices, &layout);
    case.ranges(&mut choices, &layout);
}

fn damage(choices: &mut Choices<'_>, stream: &mut Vec<u8>) {
    let at = choices.up_to(stream.len());
    match choices.up_to(3) {
        0 if at < stream.len() => stream[at] ^= 1 << choices.up_to(7),
        1 => stream.truncate(at),
        2 => stream.extend_from_slice(choices.bytes(40)),
        _ => {
            let end = (at + choices.up_to(40)).min(stream.len());
            stream.drain(at..end);
        }
    }
}

/// What the stream did; `None` if that is the inner reader's or writer's.
fn stream_error(error: &io::Error) -> Option<Error> {
    Error::from_io(error)
}

impl Case {
    fn pulled(&self, choices: &mut Choices<'_>, whole: &Opened) {
        let reject = choices.yes();
        let trailing = if reject { Trailing::Reject } else { Trailing::Leave };
        let options = self.options.clone().trailing(trailing).workers(choices.workers());
        let inner = Reader::new(&self.stream, choices.script(READ_FAULTS));
        let mut reader = DecryptReader::with_options(inner, &self.keys, &options);
        let sizes = [0; 4].map(|_| 1 + choices.up_to(300));
        let (mut released, mut steps) = (Vec::new(), 0);
        let mut step = |reader: &mut _| {
            steps += 1;
            read(reader, sizes[steps % 4], steps % 5 < 2)
        };
        let result = loop {
            match step(&mut reader) {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => break Ok(()),
                Poll::Ready(Ok(bytes)) => released.extend(bytes),
                Poll::Ready(Err(error)) if stream_error(&error).is_some() => break Err(stream_error(&error).unwrap()),
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        };
        match (step(&mut reader), result) {
            (Poll::Ready(Ok(bytes)), Ok(())) => assert!(bytes.is_empty(), "an end of file stays one"),
            (Poll::Ready(Err(again)), Err(error)) => assert_eq!(stream_error(&again), Some(error), "it is sticky"),
            (other, _) => panic!("{other:?}"),
        }
        if reject {
            return assert_eq!((&released, &result), (&whole.0, &whole.1), "DecryptReader");
        }
        let (expected, end) = self.model.read(&self.stream);
        assert_eq!((released, result), (expected, end.map(drop)), "DecryptReader");
        if let Ok(end) = end {
            assert_eq!(reader.into_inner().data, &self.stream[end..], "it stands behind the stream");
        }
    }

    fn pushed(&self, choices: &mut Choices<'_>) -> Opened {
        let inner = Writer {
            flush: choices.script(WRITE_FAULTS),
            close: choices.script(WRITE_FAULTS),
            ..Writer::new(choices.script(WRITE_FAULTS))
        };
        let mut writer = DecryptWriter::with_options(inner, &self.keys, &self.options);
        let sizes = [0; 4].map(|_| 1 + choices.up_to(300));
        let flushes = choices.up_to(7);
        let (mut at, mut steps) = (0, 0);
        let result = loop {
            steps += 1;
            assert!(steps < 100_000, "it does not get on");
            let rest = &self.stream[at..];
            let poll = if rest.is_empty() {
                poll_shutdown(&mut writer)
            } else if steps % 8 < flushes {
                match poll_flush(&mut writer) {
                    Poll::Ready(Err(error)) if stream_error(&error).is_some() => Poll::Ready(Err(error)),
                    // Each flush is followed by a write, whatever becomes of it.
                    _ => write(&mut writer, rest, sizes[steps % 4], &mut at),
                }
            } else {
                write(&mut writer, rest, sizes[steps % 4], &mut at)
            };
            match poll {
                Poll::Ready(Ok(())) if rest.is_empty() => break Ok(()),
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(error)) => {
                    if let Some(error) = stream_error(&error) {
                        break Err(error);
                    }
                }
            }
        };
        let complete = matches!(result, Ok(()) | Err(Error::TrailingData { .. }));
        assert_eq!(writer.is_complete(), complete);
        if let Err(error) = result {
            for again in [poll_flush(&mut writer), poll_once(writer.finish()), poll_shutdown(&mut writer)] {
                assert!(
                    matches!(again, Poll::Ready(Err(again)) if stream_error(&again) == Some(error)),
                    "it is sticky"
                );
            }
        }
        let inner = writer.into_inner();
        assert_eq!(inner.closes, usize::from(result.is_ok()), "it is shut down only if all is well");
        (inner.data, result)
    }

    fn decoded(&self, choices: &mut Choices<'_>) -> Opened {
        let mut decoder = FrameDecoder::with_options(&self.keys, &self.options);
        let (mut input, mut released, mut at) = (BytesMut::new(), Vec::new(), 0);
        let result = loop {
            let is_over = at == self.stream.len();
            let item = if is_over { decoder.decode_eof(&mut input) } else { decoder.decode(&mut input) };
            match item {
                Ok(Some(Frame::Data(data))) => released.extend_from_slice(&data),
                Ok(Some(Frame::End)) => {}
                Ok(None) if is_over => break Ok(()),
                Ok(None) => {
                    let end = (at + 1 + choices.up_to(300)).min(self.stream.len());
                    input.extend_from_slice(&self.stream[at..end]);
                    at = end;
                }
                Err(error) => break Err(stream_error(&error).unwrap()),
            }
        };
        (released, result)
    }

    fn seeks(&self, choices: &mut Choices<'_>, layout: &Result<Layout, Error>) {
        let base = choices.up_to(5);
        let input = [&b"?????"[..base], &self.stream].concat();
        let script = choices.script(READ_FAULTS);
        let opened =
            block_on(SeekReader::open_at(Seekable::new(&input, script), base as u64, &self.keys, &self.options));
        let mut reader = match (opened, layout) {
            (Ok(reader), Ok(_)) => reader,
            (Err(error), layout) => {
                if let Some(error) = stream_error(&error) {
                    assert_eq!(Some(error), layout.as_ref().err().copied(), "SeekReader");
                }
                return;
            }
            (Ok(_), Err(error)) => panic!("it opens, in spite of {error:?}"),
        };
        let layout = layout.as_ref().unwrap();
        assert_eq!((reader.len(), reader.is_uniform()), (layout.total as u64, layout.uniform));
        let mut position = 0;
        let mut asks = 0;
        while !choices.are_over() && asks < 40 {
            asks += 1;
            if choices.yes() {
                let target = choices.up_to(layout.total + 20);
                let [from_here, from_end] = [position, layout.total].map(|from| target as i64 - from as i64);
                let to = choices.one_of(&[
                    SeekFrom::Start(target as u64),
                    SeekFrom::Current(from_here),
                    SeekFrom::End(from_end),
                ]);
                assert_eq!(block_on(reader.seek(to)).unwrap(), target as u64);
                position = target;
            }
            // One byte at least must be right; how many come is up to the reader.
            let size = 1 + choices.up_to(300);
            let wanted = position..(position + 1).min(layout.total).max(position);
            let expected = layout.range(wanted.clone());
            match read(&mut reader, size, choices.yes()) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => {
                    if let Some(error) = stream_error(&error) {
                        self.assert_excused(layout, error, expected.err());
                    }
                }
                Poll::Ready(Ok(bytes)) => {
                    assert_eq!(bytes.is_empty(), wanted.is_empty());
                    let right = self.plaintext.get(position..position + bytes.len());
                    assert!(bytes.is_empty() || right == Some(&bytes), "another place's bytes");
                    assert!(layout.walk.is_err() || expected.is_ok(), "damage goes unnoticed");
                    position += bytes.len();
                }
            }
        }
    }

    fn ranges(&self, choices: &mut Choices<'_>, layout: &Result<Layout, Error>) {
        let base = choices.up_to(5);
        let input = Bytes::from([&b"?????"[..base], &self.stream].concat());
        let opened = block_on(RangeReader::open_at(input, base as u64, &self.keys, &self.options));
        let opened = opened.map_err(|error| stream_error(&error).unwrap());
        let (reader, layout) = match (opened, layout) {
            (Ok(reader), Ok(layout)) => (reader, layout),
            (opened, layout) => {
                return assert_eq!(opened.err(), layout.as_ref().err().copied(), "RangeReader");
            }
        };
        assert_eq!((reader.len(), reader.is_uniform()), (layout.total as u64, layout.uniform));
        for _ in 0..20 {
            let [start, end] = [0; 2].map(|_| choices.up_to(layout.total + 3));
            let range = start as u64..end as u64;
            let read = if choices.yes() {
                block_on(reader.read_range(range)).map(Vec::from)
            } else {
                reader.stream(range).map_err(io::Error::from).and_then(|pieces| {
                    let pieces: Vec<io::Result<Bytes>> = block_on(pieces.take(9).collect());
                    let pieces: io::Result<Vec<Bytes>> = pieces.into_iter().collect();
                    pieces.map(|pieces| pieces.concat())
                })
            };
            let read = read.map_err(|error| stream_error(&error).unwrap());
            if start > end || end > layout.total {
                let [start, end, len] = [start, end, layout.total].map(|at| at as u64);
                assert_eq!(read, Err(Error::RangeOutOfBounds { start, end, len }));
                continue;
            }
            let expected = layout.range(start..end);
            match read {
                Err(error) => self.assert_excused(layout, error, expected.err()),
                Ok(bytes) => {
                    assert_eq!(bytes, self.plaintext[start..end], "another place's bytes");
                    assert!(layout.walk.is_err() || expected.is_ok(), "damage goes unnoticed");
                }
            }
            if choices.are_over() {
                break;
            }
        }
    }

    /// Asserts that a reader by offset may say this of the frames that it was to read.
    fn assert_excused(&self, layout: &Layout, error: Error, expected: Option<Error>) {
        if layout.walk.is_ok() {
            assert_eq!(Some(error), expected);
        } else {
            assert!(matches!(error, Error::InvalidFrame { .. } | Error::Corrupt { .. }), "{error:?}");
        }
    }
}

fn write(writer: &mut DecryptWriter<Writer>, rest: &[u8], size: usize, at: &mut usize) -> Poll<io::Result<()>> {
    poll_write(writer, &rest[..size.min(rest.len())]).map_ok(|taken| {
        assert!(taken > 0 && taken <= size);
        *at += taken;
    })
}
