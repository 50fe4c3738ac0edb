//! Any operations on what encrypts: every reader gets what was written, and the frames are where they were to be.
//!
//! The crate draws the nonce of each stream, so two runs differ by that, and by nothing that is decided here.

use std::task::Poll;

use agcm::{
    DecryptOptions, EncryptOptions, EncryptReader, EncryptWriter, Error, Key, KeyRing,
    codec::{Frame, FrameDecoder, FrameEncoder},
};
use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    choices::{Choices, READ_FAULTS, WRITE_FAULTS},
    drive::{poll_flush, poll_once, poll_shutdown, poll_write},
    legacy::read,
    made::KEY,
    model::Model,
    script::{Reader, Writer},
    vectors::plaintext,
    ways,
};

const MOST: usize = 600;

pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.up_to(2) {
        0 => writer(&mut choices),
        1 => reader(&mut choices),
        _ => encoder(&mut choices),
    }
}

fn options(choices: &mut Choices<'_>) -> (EncryptOptions, usize, DecryptOptions, Model) {
    let context = choices.one_of(&["", "context"]);
    let chunk = choices.chunk_size();
    let workers = choices.workers();
    let options = EncryptOptions::new().chunk_size(chunk).unwrap().context(context).unwrap().workers(workers);
    let model = Model { context: context.into(), ..Model::new(KEY) };
    (options, chunk, DecryptOptions::new().context(context).unwrap(), model)
}

/// Asserts that a stream has these frames and this plaintext, by the model and by one of the ways to open it.
fn assert_is(
    choices: &mut Choices<'_>,
    stream: &[u8],
    expected: (&[usize], &[u8]),
    options: &DecryptOptions,
    model: &Model,
) {
    let (lens, plaintext) = expected;
    assert_eq!(model.whole(stream), (plaintext.to_vec(), Ok(())));
    assert_eq!(frames(stream), lens);
    let ways: Vec<_> = ways::all().collect();
    let (name, open) = choices.one_of(&ways);
    assert_eq!(open(&KeyRing::from(Key::from_bytes(KEY)), options, stream), (plaintext.to_vec(), Ok(())), "{name}");
}

/// The lengths of the plaintext in the data frames of a whole stream.
fn frames(stream: &[u8]) -> Vec<usize> {
    let (mut at, mut frames) = (80, Vec::new());
    while stream[at + 3] == 2 {
        let len = usize::from(stream[at]) | usize::from(stream[at + 1]) << 8 | usize::from(stream[at + 2]) << 16;
        frames.push(len - 16);
        at += 4 + len;
    }
    frames
}

/// What an `EncryptWriter` was told, and what frames that has to make.
struct Told {
    chunk: usize,
    frames: Vec<usize>,
    filled: usize,
    total: usize,
}

impl Told {
    fn write(&mut self, len: usize) {
        self.total += len;
        self.filled += len;
        while self.filled >= self.chunk {
            self.frames.push(self.chunk);
            self.filled -= self.chunk;
        }
    }

    fn cut(&mut self) {
        if self.filled > 0 {
            self.frames.push(std::mem::take(&mut self.filled));
        }
    }

    /// How long the stream is up to the last whole frame.
    fn len(&self) -> usize {
        80 + self.frames.iter().map(|len| len + 20).sum::<usize>()
    }
}

fn writer(choices: &mut Choices<'_>) {
    let (options, chunk, decrypt, model) = options(choices);
    let cut_on_flush = choices.yes();
    let options = options.cut_on_flush(cut_on_flush);
    let inner = Writer {
        flush: choices.script(WRITE_FAULTS),
        close: choices.script(WRITE_FAULTS),
        ..Writer::new(choices.script(WRITE_FAULTS))
    };
    let mut writer = EncryptWriter::with_options(inner, &Key::from_bytes(KEY), &options);
    let all = plaintext(MOST + 200);
    let mut told = Told { chunk, frames: Vec::new(), filled: 0, total: 0 };
    let (mut begun, mut finished) = (false, false);
    while !choices.are_over() && told.total < MOST {
        let operation = choices.up_to(6);
        let result = match operation {
            0..=2 => {
                let piece = &all[told.total..][..choices.up_to(200)];
                begun |= !piece.is_empty() && !finished;
                let poll = poll_write(&mut writer, piece);
                if finished {
                    let Poll::Ready(Err(error)) = poll else { panic!("written after the end: {poll:?}") };
                    assert_eq!(Error::from_io(&error), Some(Error::Finished));
                    continue;
                }
                poll.map_ok(|taken| {
                    assert!(taken <= piece.len() && (taken > 0 || piece.is_empty()));
                    told.write(taken);
                })
            }
            3 => {
                begun = true;
                if cut_on_flush && !finished {
                    told.cut();
                }
                poll_flush(&mut writer)
            }
            4 => {
                begun = true;
                if !finished {
                    told.cut();
                }
                poll_once(writer.flush_chunk())
            }
            // As likely as the others, they would end most sequences before they have begun.
            _ if choices.up_to(3) < 3 => continue,
            end => {
                (begun, finished) = (true, true);
                told.cut();
                if end == 5 { poll_once(writer.finish()) } else { poll_shutdown(&mut writer) }
            }
        };
        match result {
            // What was flushed has arrived.
            Poll::Ready(Ok(())) if operation > 2 => {
                assert_eq!(writer.get_ref().data.len(), told.len() + if finished { 37 } else { 0 });
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(error)) => assert_eq!(Error::from_io(&error), None, "the inner writer's"),
        }
    }
    let written = &all[..told.total];
    if !finished && choices.yes() {
        // Dropped: what has arrived is a part of the stream, and no whole one.
        let stream = writer.into_inner().data;
        assert!(begun || stream.is_empty());
        let (released, result) = model.whole(&stream);
        assert_eq!(result, Err(Error::Truncated { at: stream.len() as u64 }));
        assert!(written.starts_with(&released));
        return;
    }
    told.cut();
    let mut polls = 0;
    while !matches!(poll_shutdown(&mut writer), Poll::Ready(Ok(()))) {
        polls += 1;
        assert!(polls < 10_000, "it does not get on");
    }
    assert!(matches!(poll_flush(&mut writer), Poll::Ready(Ok(()))));
    let inner = writer.into_inner();
    assert_eq!(inner.closes, 1);
    assert_is(choices, &inner.data, (&told.frames, written), &decrypt, &model);
}

fn reader(choices: &mut Choices<'_>) {
    let (options, chunk, decrypt, model) = options(choices);
    let plaintext = plaintext(choices.up_to(MOST));
    let inner = Reader::new(&plaintext, choices.script(READ_FAULTS));
    let mut reader = EncryptReader::with_options(inner, &Key::from_bytes(KEY), &options);
    let sizes = [0; 4].map(|_| 1 + choices.up_to(400));
    let given_up = choices.up_to(7) == 7;
    let (mut stream, mut steps) = (Vec::new(), 0);
    loop {
        steps += 1;
        match read(&mut reader, sizes[steps % 4], steps % 5 < 2) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => break,
            Poll::Ready(Ok(bytes)) => stream.extend(bytes),
            Poll::Ready(Err(error)) => assert_eq!(Error::from_io(&error), None, "the inner reader's"),
            Poll::Pending => {}
        }
        if given_up && stream.len() > plaintext.len() / 2 + 60 {
            let (released, result) = model.whole(&stream);
            let whole = stream.len() == plaintext.len() + 117 + 20 * plaintext.len().div_ceil(chunk);
            let expected = if whole { Ok(()) } else { Err(Error::Truncated { at: stream.len() as u64 }) };
            assert_eq!(result, expected);
            assert!(plaintext.starts_with(&released));
            return;
        }
    }
    let lens: Vec<usize> = plaintext.chunks(chunk).map(<[u8]>::len).collect();
    assert_is(choices, &stream, (&lens, &plaintext), &decrypt, &model);
}

fn encoder(choices: &mut Choices<'_>) {
    let (options, chunk, decrypt, model) = options(choices);
    let mut encoder = FrameEncoder::with_options(&Key::from_bytes(KEY), &options);
    let all = plaintext(MOST + 200);
    let (mut stream, mut items, mut at) = (BytesMut::new(), Vec::new(), 0);
    while !choices.are_over() && at < MOST {
        if choices.up_to(5) == 5 {
            encoder.encode(Frame::End, &mut stream).unwrap();
            items.push(Frame::End);
            continue;
        }
        let data = &all[at..][..choices.up_to(200)];
        at += data.len();
        encoder.encode(Frame::Data(data.to_vec().into()), &mut stream).unwrap();
        items.extend(data.chunks(chunk).map(|chunk| Frame::Data(chunk.to_vec().into())));
    }
    let ends = matches!(items.last(), Some(Frame::End) | None);
    let written: Vec<u8> =
        items.iter().flat_map(|item| if let Frame::Data(data) = item { &data[..] } else { &[] }).copied().collect();
    let (released, result) = model.framed(&stream);
    assert_eq!((released, result.is_ok()), (written, ends));

    let mut decoder = FrameDecoder::with_options(Key::from_bytes(KEY), &decrypt);
    let mut input = BytesMut::new();
    let mut decoded = Vec::new();
    while !stream.is_empty() {
        input.extend_from_slice(&stream.split_to(stream.len().min(1 + choices.up_to(300))));
        while let Some(item) = decoder.decode(&mut input).unwrap() {
            decoded.push(item);
        }
    }
    assert_eq!(decoded, items);
    assert_eq!(decoder.decode_eof(&mut input).is_ok(), ends);
}
