//! What is read from, with faults behind it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use agcm::{
    DecryptOptions, DecryptReader, EncryptOptions, EncryptReader, Error, Key, KeyRing, ProgressReader, Trailing,
    codec::{Frame, FrameDecoder},
    legacy::GoReader,
};
use futures::Stream;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio_util::codec::FramedRead;

use crate::{
    doubles::Reader,
    drive::Run,
    inject::number,
    reference::go_stream,
    specimen::{Model, Shape, Specimen, any_key},
};

type Inner = Box<dyn AsyncRead + Send + Unpin>;

/// The inner reader, with a count in front of it now and then.
pub fn inner(run: &mut Run, data: Vec<u8>) -> Inner {
    run.move_about(data.len());
    let reader = Reader { injector: run.injector.clone(), data: Arc::new(data) };
    if !run.dice.percent(25) {
        return Box::new(reader);
    }
    run.injector.count("through a ProgressReader");
    let injector = run.injector.clone();
    Box::new(ProgressReader::new(reader, None, move |progress| {
        assert!(progress.done <= injector.state().read as u64, "more is counted than was read");
    }))
}

/// The one who reads: in pieces of all sizes, with and without a buffer of his own.
struct Taker {
    piece: usize,
    buffered: usize,
    buf: Vec<u8>,
}

impl Taker {
    fn any(run: &mut Run, len: usize, chunk: usize) -> Self {
        let piece = 1 + run.dice.pick(&[len / 40, len / 5, len, chunk, 2 * chunk, 50]).max(len / 500);
        Self { piece, buffered: run.dice.pick(&[0, 30, 100]), buf: vec![0; piece] }
    }

    /// Reads some onto `out` and says how much; `None` if that was given up. `when_pending` is called whenever it is pending.
    async fn take(
        &mut self,
        run: &mut Run,
        reader: &mut (impl AsyncBufRead + Unpin),
        out: &mut Vec<u8>,
        mut when_pending: impl FnMut(usize),
    ) -> Option<io::Result<usize>> {
        let len = 1 + run.dice.below(self.piece);
        let is_buffered = run.dice.percent(self.buffered);
        let is_empty = !is_buffered && run.dice.percent(2);
        let buf = &mut self.buf[..if is_empty { 0 } else { len }];
        let so_far = out.len();
        let result = run
            .try_drive(|cx| {
                let poll = if is_buffered { take_buffered(reader, cx, buf) } else { take(reader, cx, buf) };
                if poll.is_pending() {
                    when_pending(so_far);
                }
                poll
            })
            .await;
        run.injector.note(|| format!("  read {len}: {result:?}"));
        if let Some(Ok(n)) = result {
            out.extend_from_slice(&self.buf[..n]);
            if is_empty {
                return None;
            }
        }
        result
    }
}

fn take(reader: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(buf);
    ready!(Pin::new(reader).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

fn take_buffered(
    reader: &mut (impl AsyncBufRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let shown = ready!(Pin::new(&mut *reader).poll_fill_buf(cx))?;
    let n = shown.len().min(buf.len());
    buf[..n].copy_from_slice(&shown[..n]);
    Pin::new(reader).consume(n);
    Poll::Ready(Ok(n))
}

pub async fn encrypt_reader(mut run: Run) {
    let Shape { chunk, len } = Shape::any(&mut run.dice);
    let (plaintext, key) = (run.dice.bytes(len), any_key(&mut run.dice));
    let workers = 1 + run.dice.below(4);
    run.injector.note(|| format!("chunk {chunk}, {len} bytes, {workers} workers"));
    let options = EncryptOptions::new().chunk_size(chunk).unwrap().workers(workers);
    let mut reader = EncryptReader::with_options(inner(&mut run, plaintext.clone()), &key, &options);
    let mut taker = Taker::any(&mut run, len + 200, chunk);
    let is_dropped = run.dice.percent(10);
    let goal = if is_dropped { run.dice.below(len + 1) } else { usize::MAX };

    // Of what was read every chunk that is full has left, and nothing else.
    let full_chunks = |read: usize| if read < chunk { 0 } else { 80 + read / chunk * (chunk + 20) };
    let (mut stream, mut is_ended) = (Vec::new(), false);
    while stream.len() < goal && !is_ended && !run.is_hopeless() {
        let (injector, is_alone) = (run.injector.clone(), run.is_alone());
        let when_pending = |so_far| {
            let read = injector.state().read;
            assert!(!is_alone || so_far == full_chunks(read), "it holds back what is full: {so_far} of {read} bytes");
        };
        match taker.take(&mut run, &mut reader, &mut stream, when_pending).await {
            Some(Ok(0)) => is_ended = true,
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                assert_eq!(run.check_reader(&error), None);
                let read = run.injector.state().read;
                assert_eq!(stream.len(), full_chunks(read), "an error comes after what was read before it");
            }
        }
    }
    if !is_ended {
        assert!(matches!(agcm::decrypt(&key, &stream), Err(Error::Truncated { .. })) || goal < usize::MAX);
        let model = Model::of(&key, &stream, true);
        assert!(plaintext.starts_with(&model.released));
        return;
    }
    run.assert_all_reported();
    assert!(run.injector.state().at_end, "the stream ended before the plaintext did");
    assert_eq!(stream.len(), 117 + len + 20 * len.div_ceil(chunk), "a uniform stream");
    assert!(agcm::decrypt(&key, &stream).unwrap() == plaintext);
    for _ in 0..3 {
        let again = taker.take(&mut run, &mut reader, &mut stream, |_| panic!("it is pending after the end")).await;
        assert!(matches!(again, Some(Ok(0)) | None));
    }
}

pub async fn decrypt_reader(mut run: Run) {
    let specimen = Specimen::any(&mut run.dice);
    let (stream, how) = specimen.spoiled(&mut run.dice);
    let reject = run.dice.percent(50);
    let model = Model::of(&specimen.key, &stream, reject);
    model.check(&specimen, how, reject);
    let workers = 1 + run.dice.below(4);
    run.injector.note(|| format!("chunk {}, {workers} workers, {how:?}: {:?}", specimen.chunk, model.result));
    let trailing = if reject { Trailing::Reject } else { Trailing::Leave };
    let options = DecryptOptions::new().workers(workers).trailing(trailing);
    let keys: KeyRing = match run.dice.percent(20) {
        true => [any_key(&mut run.dice), specimen.key.clone()].into_iter().collect(),
        false => (&specimen.key).into(),
    };
    let mut reader = DecryptReader::with_options(inner(&mut run, stream.clone()), keys, &options);
    let mut taker = Taker::any(&mut run, stream.len(), specimen.chunk);
    let goal = if run.dice.percent(5) { run.dice.below(model.released.len() + 1) } else { usize::MAX };

    let mut plaintext = Vec::new();
    while plaintext.len() < goal && !run.is_hopeless() {
        let (injector, is_alone) = (run.injector.clone(), run.is_alone());
        let when_pending = |so_far| {
            let read = injector.state().read;
            assert!(
                !is_alone || so_far == model.complete(read),
                "it holds back what is whole: {so_far} of {read} bytes"
            );
        };
        let result = taker.take(&mut run, &mut reader, &mut plaintext, when_pending).await;
        assert!(model.released.starts_with(&plaintext), "plaintext that is not authentic");
        let (read, at_end) = run.injector.state().read_so_far();
        assert!(reject || model.result.is_err() || read <= model.end, "it reads past the end of the stream");
        match result {
            Some(Ok(0)) => {
                assert_eq!(model.result, Ok(()), "a clean end of a bad stream");
                assert!(plaintext == specimen.plaintext);
                assert!(read == model.end && at_end == reject);
                run.assert_all_reported();
                assert_sticky(&mut run, &mut taker, &mut reader, None).await;
                return;
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => match run.check_reader(&error) {
                Some(error) => {
                    assert_eq!(model.result, Err(error));
                    assert_eq!(plaintext.len(), model.released.len(), "all that is authentic comes before the error");
                    assert_sticky(&mut run, &mut taker, &mut reader, Some(error)).await;
                    return;
                }
                None => {
                    assert_eq!(plaintext.len(), model.complete(read), "an error comes after what was read before it")
                }
            },
        }
    }
}

/// The end comes again, or the error; and the inner reader is left alone.
async fn assert_sticky(
    run: &mut Run,
    taker: &mut Taker,
    reader: &mut (impl AsyncBufRead + Unpin),
    error: Option<Error>,
) {
    let polls = run.injector.state().polls;
    let mut more = Vec::new();
    for _ in 0..4 {
        match (taker.take(run, reader, &mut more, |_| panic!("it is pending after the end")).await, error) {
            (Some(Err(again)), Some(error)) => assert_eq!(Error::from_io(&again), Some(error), "it is sticky"),
            (Some(Ok(0)), None) | (None, _) => {}
            (other, _) => panic!("{other:?} after {error:?}"),
        }
    }
    assert_eq!(run.injector.state().polls, polls, "the inner reader is polled after the end");
}

/// What a decoder has to give: the plaintext of each stream, and whether it was whole.
fn streams_in(key: &Key, mut rest: &[u8]) -> (Vec<Vec<u8>>, Result<(), Error>) {
    let mut streams = Vec::new();
    while !rest.is_empty() {
        let model = Model::of(key, rest, false);
        streams.push(model.released);
        if model.result.is_err() {
            return (streams, model.result);
        }
        rest = &rest[model.end..];
    }
    streams.push(Vec::new());
    (streams, Ok(()))
}

pub async fn framed_read(mut run: Run) {
    let first = Specimen::any(&mut run.dice);
    let mut connection = Vec::new();
    for _ in 0..run.dice.below(3) {
        // Under the same key, on the same connection.
        let len = run.dice.below(300);
        let plaintext = run.dice.bytes(len);
        connection.extend(EncryptOptions::new().chunk_size(16).unwrap().encrypt(&first.key, &plaintext));
    }
    let (stream, how) = first.spoiled(&mut run.dice);
    connection.extend(stream);
    let (expected, end) = streams_in(&first.key, &connection);
    let follows = matches!(how, Some("another stream follows"));
    // To be cut at its very start is to be no stream at all.
    let is_nothing = connection.is_empty() || how == Some("cut between frames") && end.is_ok();
    assert!(end.is_ok() == (how.is_none() || follows || is_nothing) || how == Some("cut"), "{how:?}: {end:?}");
    run.injector.note(|| format!("{} streams, {how:?}: {end:?}", expected.len()));

    let capacity = run.dice.pick(&[1, 16, 8192]);
    let decoder = FrameDecoder::new(&first.key);
    let mut frames = FramedRead::with_capacity(inner(&mut run, connection), decoder, capacity);
    let mut streams = vec![Vec::new()];
    let mut was_error = false;
    while !run.is_hopeless() {
        let Some(item) = run.try_drive(|cx| Pin::new(&mut frames).poll_next(cx)).await else { continue };
        match item {
            Some(Ok(Frame::Data(data))) => {
                assert!(!data.is_empty());
                streams.last_mut().unwrap().extend_from_slice(&data);
            }
            Some(Ok(Frame::End)) => streams.push(Vec::new()),
            Some(Err(error)) => match run.check_reader(&error) {
                None => {
                    was_error = true;
                    continue;
                }
                Some(error) => {
                    assert_eq!(end, Err(error));
                    assert!(streams == expected, "all that is authentic comes before the error");
                    return;
                }
            },
            // That is how it pauses after an error.
            None if was_error => {}
            None => {
                assert_eq!(end, Ok(()), "a clean end of a bad stream");
                assert!(streams == expected);
                run.assert_all_reported();
                return;
            }
        }
        was_error = false;
        let (now, before) = streams.split_last().unwrap();
        assert!(
            expected.starts_with(before) && expected[before.len()].starts_with(now),
            "plaintext that is not authentic"
        );
    }
}

pub async fn go_reader(mut run: Run) {
    let Shape { chunk, len } = Shape::any(&mut run.dice);
    let (plaintext, key) = (run.dice.bytes(len), any_key(&mut run.dice));
    let chunks: Vec<&[u8]> = plaintext.chunks(chunk).collect();
    let nonce = run.dice.bytes(12).try_into().unwrap();
    let mut stream = go_stream(key.expose_bytes(), nonce, u32::try_from(chunk).unwrap(), &chunks);
    let ends: Vec<(usize, usize)> =
        (1..=chunks.len()).map(|i| ((i * chunk).min(len), i)).map(|(len, i)| (24 + 20 * i + len, len)).collect();

    // What of it is to be had, and whether that is all: a stream that was cut between two chunks looks whole.
    let (mut sound, mut is_good) = (len, true);
    match run.dice.below(6) {
        0 => {
            stream.truncate(run.dice.below(stream.len()));
            sound = ends.iter().rev().find(|(end, _)| *end <= stream.len()).map_or(0, |(_, len)| *len);
            is_good = stream.len() == 24 || ends.iter().any(|(end, _)| *end == stream.len());
        }
        1 if !chunks.is_empty() => {
            // Beyond the header, of which only the nonce is in what a chunk authenticates.
            let at = 24 + run.dice.below(stream.len() - 24);
            stream[at] ^= 1 << run.dice.below(8);
            sound = ends.iter().rev().find(|(end, _)| *end <= at).map_or(0, |(_, len)| *len);
            is_good = false;
        }
        _ => {}
    }
    run.injector.note(|| format!("chunk {chunk}, {len} bytes, good: {is_good}, {sound} sound"));
    let mut reader = GoReader::new(inner(&mut run, stream.clone()), &key);
    let mut taker = Taker::any(&mut run, stream.len(), chunk);
    let complete =
        |read: usize| ends.iter().rev().find(|(end, _)| *end <= read).map_or(0, |(_, plaintext)| *plaintext).min(sound);

    let mut out = Vec::new();
    while !run.is_hopeless() {
        let (injector, is_alone) = (run.injector.clone(), run.is_alone());
        let when_pending = |so_far| {
            let read = injector.state().read;
            assert!(!is_alone || so_far == complete(read), "it holds back what is whole: {so_far} of {read} bytes");
        };
        let result = taker.take(&mut run, &mut reader, &mut out, when_pending).await;
        assert!(plaintext[..sound].starts_with(&out), "plaintext that is not authentic");
        match result {
            Some(Ok(0)) => {
                assert!(is_good, "a clean end of a bad stream");
                assert_eq!(out.len(), sound);
                run.assert_all_reported();
                assert_sticky(&mut run, &mut taker, &mut reader, None).await;
                return;
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                if let Some(error) = run.check_reader(&error) {
                    assert!(!is_good, "{error:?}");
                    assert_eq!(out.len(), sound, "all that is authentic comes before the error");
                    assert_sticky(&mut run, &mut taker, &mut reader, Some(error)).await;
                    return;
                }
            }
        }
    }
}

/// One adapter in another: what was read in the clear comes out in the clear.
pub async fn nested_readers(mut run: Run) {
    let Shape { chunk, len } = Shape::any(&mut run.dice);
    let (plaintext, key) = (run.dice.bytes(len), any_key(&mut run.dice));
    let workers = 1 + run.dice.below(4);
    let options = EncryptOptions::new().chunk_size(chunk).unwrap().workers(workers);
    let sealed = EncryptReader::with_options(inner(&mut run, plaintext.clone()), &key, &options);
    let options = DecryptOptions::new().workers(1 + run.dice.below(4)).trailing(Trailing::Reject);
    let mut reader = DecryptReader::with_options(sealed, &key, &options);
    let mut taker = Taker::any(&mut run, len, chunk);
    let mut out = Vec::new();
    while !run.is_hopeless() {
        let result = taker.take(&mut run, &mut reader, &mut out, |_| ()).await;
        assert!(plaintext.starts_with(&out));
        match result {
            Some(Ok(0)) => {
                assert_eq!(out.len(), len);
                run.assert_all_reported();
                return;
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => assert!(number(&error).is_some() && run.check_reader(&error).is_none()),
        }
    }
}
