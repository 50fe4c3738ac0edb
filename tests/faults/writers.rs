//! What is written into, with faults behind it.

use std::{
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use agcm::{
    DecryptOptions, DecryptWriter, Decryptor, EncryptOptions, EncryptWriter, Error, Key, ProgressWriter, Step,
    codec::{Frame, FrameEncoder},
};
use bytes::Bytes;
use futures::Sink;
use tokio::io::AsyncWrite;
use tokio_util::codec::FramedWrite;

use crate::{
    doubles::Writer,
    drive::Run,
    specimen::{Model, Shape, Specimen, any_key},
};

type Inner = Box<dyn AsyncWrite + Send + Unpin>;

/// The inner writer, with a count in front of it now and then.
fn inner(run: &mut Run, len: usize) -> (Inner, Option<Arc<AtomicU64>>) {
    run.move_about(len);
    let writer = Writer { injector: run.injector.clone() };
    if !run.dice.percent(25) {
        return (Box::new(writer), None);
    }
    run.injector.count("through a ProgressWriter");
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    let writer = ProgressWriter::new(writer, None, move |progress| {
        assert!(progress.done >= counted.swap(progress.done, Ordering::Relaxed), "it counts backwards");
    });
    (Box::new(writer), Some(done))
}

#[track_caller]
fn assert_counted(run: &Run, done: Option<Arc<AtomicU64>>) {
    let state = run.injector.state();
    if let Some(done) = done {
        let (done, written) = (done.load(Ordering::Relaxed), state.written.len() as u64);
        assert!(if state.closed { done == written } else { done <= written }, "{done} of {written} bytes were counted");
    }
}

/// Whoever gets the stream, as far as it has come.
struct Peer {
    decryptor: Decryptor,
    at: usize,
    released: Vec<u8>,
}

impl Peer {
    fn new(key: &Key) -> Self {
        Self { decryptor: Decryptor::new(key, &DecryptOptions::new()), at: 0, released: Vec::new() }
    }

    #[track_caller]
    fn gets(&mut self, stream: &[u8]) {
        while !self.decryptor.is_complete() {
            match self.decryptor.open(&stream[self.at..], &mut self.released).unwrap() {
                Step::Start { consumed } | Step::Data { consumed, .. } | Step::End { consumed } => self.at += consumed,
                Step::Incomplete { .. } => break,
            }
        }
    }
}

pub async fn encrypt_writer(mut run: Run) {
    let Shape { chunk, len } = Shape::any(&mut run.dice);
    let (plaintext, key) = (run.dice.bytes(len), any_key(&mut run.dice));
    let (workers, cuts) = (1 + run.dice.below(4), run.dice.percent(20));
    run.injector.note(|| format!("chunk {chunk}, {len} bytes, {workers} workers, cuts: {cuts}"));
    let options = EncryptOptions::new().chunk_size(chunk).unwrap().workers(workers).cut_on_flush(cuts);
    let (inner, counted) = inner(&mut run, len);
    let mut writer = EncryptWriter::with_options(inner, &key, &options);
    let mut peer = Peer::new(&key);

    let is_dropped = run.dice.percent(15);
    let goal = if is_dropped || run.dice.percent(10) { run.dice.below(len + 1) } else { len };
    let piece = 1 + run.dice.pick(&[len / 40, len / 5, len, chunk, 2 * chunk]).max(len / 500);
    let flushes = run.dice.pick(&[1, 1, 15]);
    let (mut taken, mut may_be_irregular) = (0, cuts);
    while taken < goal && !run.is_hopeless() {
        let op = run.dice.below(100);
        if op < flushes {
            let result = run.try_drive(|cx| Pin::new(&mut writer).poll_flush(cx)).await;
            if let Some(Ok(())) = result.map(|result| run.check_writer(result)) {
                assert_flushed(&run, &mut peer, taken, if cuts { 1 } else { chunk });
            }
        } else if op < 2 * flushes {
            may_be_irregular = true;
            let result = run.attempt(writer.flush_chunk()).await;
            if let Some(Ok(())) = result.map(|result| run.check_writer(result)) {
                assert_flushed(&run, &mut peer, taken, 1);
            }
        } else if op < 2 * flushes + 2 {
            let result = run.drive(|cx| Pin::new(&mut writer).poll_write(cx, &[])).await;
            assert_eq!(run.check_writer(result), Ok(0));
        } else {
            let end = goal.min(taken + 1 + run.dice.below(piece));
            taken += write(&mut run, &mut writer, &plaintext[taken..end]).await.unwrap_or(0);
        }
    }
    run.injector.note(|| format!("{taken} bytes were taken"));

    if is_dropped {
        drop(writer);
        let state = run.injector.state();
        let error = agcm::decrypt(&key, &state.written).unwrap_err();
        assert_eq!(error, Error::Truncated { at: state.written.len() as u64 }, "it was never finished");
        peer.gets(&state.written);
        assert!(plaintext[..taken].starts_with(&peer.released));
        return;
    }

    let mut is_finished = false;
    while !is_finished && !run.is_hopeless() {
        let result = match run.dice.below(4) {
            0 => run.attempt(writer.finish()).await,
            1 => run.try_drive(|cx| Pin::new(&mut writer).poll_finish(cx)).await,
            2 => run.try_drive(|cx| Pin::new(&mut writer).poll_shutdown(cx)).await,
            _ => {
                let flushed = run.try_drive(|cx| Pin::new(&mut writer).poll_flush(cx)).await;
                may_be_irregular |= cuts;
                if let Some(Ok(())) = flushed.map(|flushed| run.check_writer(flushed)) {
                    assert!(!run.injector.state().dirty, "a flush that left something unflushed");
                }
                // Whether it is taken tells whether the end was sealed by now.
                if taken < len && run.dice.percent(10) {
                    match write(&mut run, &mut writer, &plaintext[taken..]).await {
                        Ok(n) => taken += n,
                        Err(error) => assert_eq!(error, Error::Finished),
                    }
                }
                continue;
            }
        };
        is_finished = matches!(result.map(|result| run.check_writer(result)), Some(Ok(())));
    }
    let stream = run.injector.state().written.clone();
    if !is_finished {
        // Nothing worked any more, and nobody was told otherwise. What has come is not more than was taken.
        peer.gets(&stream);
        assert!(plaintext[..taken].starts_with(&peer.released));
        return;
    }
    assert!(!run.injector.state().dirty, "it was finished and is not flushed");
    assert!(agcm::decrypt(&key, &stream).unwrap() == plaintext[..taken], "another plaintext than was taken");
    if !may_be_irregular {
        assert_eq!(stream.len(), 117 + taken + 20 * taken.div_ceil(chunk), "a uniform stream");
    }

    // Whatever comes then, nothing more is written.
    let mut is_closed = run.injector.state().closed;
    for _ in 0..6 {
        let polls = run.injector.state().polls;
        let result = match run.dice.below(4) {
            0 => run.attempt(writer.finish()).await,
            1 => {
                let result = run.try_drive(|cx| Pin::new(&mut writer).poll_shutdown(cx)).await;
                is_closed |= matches!(result, Some(Ok(())));
                result
            }
            2 => run.try_drive(|cx| Pin::new(&mut writer).poll_flush(cx)).await,
            _ => {
                let result = run.drive(|cx| Pin::new(&mut writer).poll_write(cx, b"more")).await;
                assert_eq!(run.check_writer(result), Err(Some(Error::Finished)));
                continue;
            }
        };
        if let Some(result) = result {
            assert!(matches!(run.check_writer(result), Ok(()) | Err(None)));
        }
        if is_closed && polls < run.injector.state().polls {
            // It was the one that closed it.
            assert!(run.injector.state().closed);
        }
    }
    assert!(run.injector.state().written == stream);
    assert_counted(&run, counted);
}

/// Writes some of a slice, in one of the ways there are; says how much was taken.
async fn write(run: &mut Run, writer: &mut EncryptWriter<Inner>, slice: &[u8]) -> Result<usize, Error> {
    let vectored = run.dice.percent(20);
    let middle = run.dice.below(slice.len() + 1);
    let result = run
        .try_drive(|cx| {
            if vectored {
                let (a, b) = slice.split_at(middle);
                let slices = [IoSlice::new(&[]), IoSlice::new(a), IoSlice::new(b)];
                Pin::new(&mut *writer).poll_write_vectored(cx, &slices)
            } else {
                Pin::new(&mut *writer).poll_write(cx, slice)
            }
        })
        .await;
    run.injector.note(|| format!("  write {}: {result:?}", slice.len()));
    match result.map(|result| run.check_writer(result)) {
        Some(Ok(n)) => {
            assert!((1..=slice.len()).contains(&n), "{n} of {} bytes", slice.len());
            Ok(n)
        }
        Some(Err(Some(error))) => Err(error),
        Some(Err(None)) | None => Ok(0),
    }
}

/// Fewer bytes than `less_than` were held back.
#[track_caller]
fn assert_flushed(run: &Run, peer: &mut Peer, taken: usize, less_than: usize) {
    let state = run.injector.state();
    assert!(!state.dirty, "a flush that left something unflushed");
    peer.gets(&state.written);
    let held = taken - peer.released.len();
    assert!(held < less_than, "the flush held back {held} bytes");
}

pub async fn decrypt_writer(mut run: Run) {
    let specimen = Specimen::any(&mut run.dice);
    let (stream, how) = specimen.spoiled(&mut run.dice);
    let model = Model::of(&specimen.key, &stream, true);
    model.check(&specimen, how, true);
    run.injector.note(|| format!("chunk {}, {how:?}: {:?}", specimen.chunk, model.result));
    let (inner, counted) = inner(&mut run, stream.len());
    let mut writer = DecryptWriter::new(inner, &specimen.key);

    let piece = 1 + run
        .dice
        .pick(&[stream.len() / 40, stream.len() / 5, stream.len(), specimen.chunk, 50])
        .max(stream.len() / 500);
    let gives_up = run.dice.percent(10).then(|| run.dice.below(stream.len() + 1));
    let goal = gives_up.unwrap_or(stream.len());
    let (mut taken, mut error) = (0, None);
    while taken < goal && error.is_none() && !run.is_hopeless() {
        let result = if run.dice.percent(10) {
            run.try_drive(|cx| Pin::new(&mut writer).poll_flush(cx)).await.map(|result| {
                run.check_writer(result).map(|()| {
                    let state = run.injector.state();
                    assert!(!state.dirty && state.written.len() >= model.complete(taken), "flushed, and not all of it");
                })
            })
        } else {
            let end = goal.min(taken + 1 + run.dice.below(piece));
            let slice = &stream[taken..end];
            let result = run.try_drive(|cx| Pin::new(&mut writer).poll_write(cx, slice)).await;
            run.injector.note(|| format!("  write {}: {result:?}", slice.len()));
            result.map(|result| {
                run.check_writer(result).map(|n| {
                    assert!((1..=slice.len()).contains(&n), "{n} of {} bytes", slice.len());
                    taken += n;
                    if let Some(needed) = model.needed(&stream) {
                        assert!(taken < needed, "the write that completes what is bad does not fail");
                    }
                    assert_eq!(writer.is_complete(), model.end > 0 && taken == model.end);
                })
            })
        };
        if let Some(Err(Some(found))) = result {
            error = Some(found);
        }
        assert!(model.released.starts_with(&run.injector.state().written));
    }

    let mut is_finished = false;
    while error.is_none() && !is_finished && !run.is_hopeless() {
        let result = match run.dice.below(2) {
            0 => run.attempt(writer.finish()).await,
            _ => run.try_drive(|cx| Pin::new(&mut writer).poll_shutdown(cx)).await,
        };
        match result.map(|result| run.check_writer(result)) {
            Some(Ok(())) => is_finished = true,
            Some(Err(found)) => error = found,
            None => {}
        }
    }
    // What came of it: of all the stream, or of its beginning.
    let cut = Model::of(&specimen.key, &stream[..taken], true);
    let expected = if taken == stream.len() || model.needed(&stream).is_some() && error == model.result.err() {
        &model
    } else {
        &cut
    };
    {
        let state = run.injector.state();
        assert!(expected.released.starts_with(&state.written));
        if is_finished {
            assert_eq!(expected.result, Ok(()), "the stream is not whole");
            assert!(!state.dirty);
        }
        if let Some(error) = error {
            assert_eq!(expected.result, Err(error));
            assert!(!state.closed, "the inner writer is closed only if all is well");
        }
        if is_finished || error.is_some() {
            assert!(state.written == expected.released, "all that is authentic has left");
        }
    }
    if let Some(error) = error {
        for _ in 0..4 {
            let result = match run.dice.below(4) {
                0 => run.complete(writer.finish()).await,
                1 => run.drive(|cx| Pin::new(&mut writer).poll_shutdown(cx)).await,
                2 => run.drive(|cx| Pin::new(&mut writer).poll_flush(cx)).await,
                _ => run.drive(|cx| Pin::new(&mut writer).poll_write(cx, b"more")).await.map(|_| ()),
            };
            assert_eq!(run.check_writer(result), Err(Some(error)), "it is sticky");
        }
    } else if is_finished {
        assert!(writer.is_complete());
        let closed = run.injector.state().closed;
        let result = run.drive(|cx| Pin::new(&mut writer).poll_write(cx, b"more")).await;
        assert!(matches!(run.check_writer(result), Err(Some(Error::TrailingData { .. }))));
        let result = run.drive(|cx| Pin::new(&mut writer).poll_shutdown(cx)).await;
        assert_eq!(run.check_writer(result).is_ok(), closed, "what an earlier shutdown has done stays done");
    }
    assert_counted(&run, counted);
}

pub async fn framed_write(mut run: Run) {
    let Shape { chunk, len } = Shape::any(&mut run.dice);
    let (plaintext, key) = (Bytes::from(run.dice.bytes(len)), any_key(&mut run.dice));
    let options = EncryptOptions::new().chunk_size(chunk).unwrap();
    let (inner, _) = inner(&mut run, len);
    let mut frames = FramedWrite::new(inner, FrameEncoder::with_options(&key, &options));
    if run.dice.percent(50) {
        let boundary = 1 + run.dice.below(100_000);
        frames.set_backpressure_boundary(boundary);
    }
    // The streams that were sent, the last one of which goes on.
    let mut sent = vec![Vec::new()];
    let piece = 1 + run.dice.pick(&[len / 20, len, chunk]);
    let (mut at, mut begun) = (0, false);
    let mut items = 0;
    while (at < len || begun) && items < 200 && !run.is_hopeless() {
        let item = if at == len || run.dice.percent(10) {
            Frame::End
        } else {
            let end = len.min(at + run.dice.below(piece + 1));
            Frame::Data(plaintext.slice(at..end))
        };
        if run.dice.percent(20) {
            let result = run.try_drive(|cx| Pin::new(&mut frames).poll_flush(cx)).await;
            if let Some(Ok(())) = result.map(|result| run.check_writer(result)) {
                assert!(!run.injector.state().dirty);
            }
        }
        let ready = run.try_drive(|cx| Pin::new(&mut frames).poll_ready(cx)).await;
        if !matches!(ready.map(|ready| run.check_writer(ready)), Some(Ok(()))) {
            continue;
        }
        items += 1;
        match &item {
            Frame::Data(data) => {
                at += data.len();
                begun |= !data.is_empty();
                sent.last_mut().unwrap().extend_from_slice(data);
            }
            Frame::End => {
                begun = false;
                sent.push(Vec::new());
            }
        }
        Pin::new(&mut frames).start_send(item).unwrap();
    }
    let mut is_closed = false;
    while !is_closed && !run.is_hopeless() {
        let result = run.try_drive(|cx| Pin::new(&mut frames).poll_close(cx)).await;
        is_closed = matches!(result.map(|result| run.check_writer(result)), Some(Ok(())));
    }

    let written = run.injector.state().written.clone();
    let (mut rest, last) = (&written[..], sent.len() - 1);
    for (i, sent) in sent.iter().enumerate() {
        let model = Model::of(&key, rest, false);
        assert!(sent.starts_with(&model.released), "plaintext that was not sent");
        if i == last || model.result.is_err() {
            assert!(model.result.is_err(), "a stream that nobody has ended");
            assert!(!is_closed || i == last && model.released == *sent, "it was closed, and something is missing");
            return;
        }
        assert!(model.released == *sent, "something is missing");
        rest = &rest[model.end..];
    }
}
