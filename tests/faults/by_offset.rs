//! What is read by offset, with faults behind it.

use std::{
    io::{self, SeekFrom},
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Poll, ready},
};

use agcm::{Error, RangeReader, SeekReader};
use futures::{Stream, future::join_all};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, AsyncSeekExt, ReadBuf};

use crate::{
    doubles::{Seekable, Shared, Source},
    drive::Run,
    inject::number,
    specimen::Specimen,
};

/// A stream by offset, what is wrong with it, and what may become of it.
struct Case {
    specimen: Specimen,
    data: Shared,
    /// The plaintext of the one frame that does not open.
    damaged: Range<usize>,
}

impl Case {
    fn any(run: &mut Run) -> Self {
        let specimen = Specimen::any(&mut run.dice);
        let mut pieces = specimen.pieces.clone();
        let mut damaged = 0..0;
        if !specimen.lens.is_empty() && run.dice.percent(30) {
            let frame = run.dice.below(specimen.lens.len());
            let start = specimen.lens[..frame].iter().sum();
            damaged = start..start + specimen.lens[frame];
            // Not its word, which could mislead a walk to those behind it.
            let at = 4 + run.dice.below(pieces[1 + frame].len() - 4);
            pieces[1 + frame][at] ^= 1;
        }
        run.move_about(specimen.plaintext.len());
        run.lying = run.dice.percent(25);
        let (chunk, lying) = (specimen.chunk, run.lying);
        run.injector.note(|| format!("chunk {chunk}, damaged: {damaged:?}, lying: {lying}"));
        Self { specimen, data: Arc::new(Mutex::new(pieces.concat().into())), damaged }
    }

    fn len(&self) -> usize {
        self.specimen.plaintext.len()
    }

    /// How likely an answer is a wrong one, in percent.
    fn lies(&self, run: &mut Run) -> usize {
        if run.lying { run.dice.pick(&[0, 5, 30]) } else { 0 }
    }

    /// Writes over what is read, or cuts it, now and then.
    fn meddle(&self, run: &mut Run) {
        if !run.lying || !run.dice.percent(10) {
            return;
        }
        run.injector.count("a source that was written to");
        let mut bytes = self.specimen.stream();
        match run.dice.below(4) {
            0 => bytes.truncate(run.dice.below(bytes.len())),
            1 => {
                let others = Specimen::any(&mut run.dice);
                bytes = others.stream();
            }
            2 => {
                let at = run.dice.below(bytes.len());
                bytes[at] ^= 1;
            }
            _ => {}
        }
        *self.data.lock().unwrap() = bytes.into();
    }

    /// What is said of a read of this range is justified.
    #[track_caller]
    fn check(&self, run: &mut Run, range: Range<usize>, error: &io::Error) {
        assert_ne!(error.kind(), io::ErrorKind::UnexpectedEof, "loops could take it for a clean end: {error:?}");
        let Some(error) = run.check_source(error).filter(|_| !run.lying) else { return };
        let is_hit = self.damaged.start < range.end && range.start < self.damaged.end;
        assert!(matches!(error, Error::Corrupt { .. }) && is_hit, "{error:?} at {range:?}");
    }
}

impl Run {
    /// Several reads may fail at a time, so an injected error need not be the oldest.
    #[track_caller]
    fn check_source(&mut self, error: &io::Error) -> Option<Error> {
        if let Some(number) = number(error) {
            let mut state = self.injector.state();
            let place = state.unreported.iter().position(|&other| other == number);
            let place = place.unwrap_or_else(|| panic!("{error:?} was passed on before"));
            state.unreported.swap(0, place);
        }
        self.check_reader(error)
    }
}

pub async fn seek_reader(mut run: Run) {
    let case = Case::any(&mut run);
    let elsewhere = if run.lying { run.dice.pick(&[0, 20]) } else { 0 };
    let lies = case.lies(&mut run);
    let mut attempts = 0;
    let mut reader = loop {
        attempts += 1;
        run.calm_down(attempts);
        if run.is_hopeless() {
            return;
        }
        case.meddle(&mut run);
        let inner = Seekable::new(run.injector.clone(), case.data.clone(), elsewhere, lies);
        match run.attempt(SeekReader::open(inner, &case.specimen.key)).await {
            Some(Ok(reader)) => break reader,
            Some(Err(error)) if run.lying && number(&error).is_none() => return,
            Some(Err(error)) => assert_eq!(run.check_source(&error), None, "while it was opened"),
            None => {}
        }
        // What was given up takes its errors along.
        run.injector.state().unreported.clear();
    };
    // To be interrupted is not passed on by what Tokio has for reading.
    run.injector.state().unreported.clear();
    let plaintext = &case.specimen.plaintext;
    assert!(run.lying || reader.len() == plaintext.len() as u64);
    let is_other = reader.len() != plaintext.len() as u64;
    let mut buf = vec![0; 1 + run.dice.pick(&[case.len(), case.specimen.chunk, 30])];
    let mut position = 0;
    for _ in 0..10 + run.dice.below(30) {
        if run.is_hopeless() || is_other {
            return;
        }
        case.meddle(&mut run);
        if run.dice.percent(50) {
            position = run.dice.below(case.len() + 20);
            let offset = i64::try_from(position).unwrap();
            let to = match run.dice.below(3) {
                0 => SeekFrom::Start(position as u64),
                1 => SeekFrom::End(offset - i64::try_from(case.len()).unwrap()),
                _ => SeekFrom::Current(offset - i64::try_from(reader.stream_position().await.unwrap()).unwrap()),
            };
            let mut going = Pin::new(&mut reader);
            going.as_mut().start_seek(to).unwrap();
            assert_eq!(run.drive(|cx| going.as_mut().poll_complete(cx)).await.unwrap(), position as u64);
        }
        let len = 1 + run.dice.below(buf.len());
        let is_buffered = run.dice.percent(30);
        let buf = &mut buf[..len];
        let result = run
            .try_drive(|cx| {
                if is_buffered {
                    let shown = ready!(Pin::new(&mut reader).poll_fill_buf(cx))?;
                    let n = shown.len().min(buf.len());
                    buf[..n].copy_from_slice(&shown[..n]);
                    Pin::new(&mut reader).consume(n);
                    return Poll::Ready(Ok(n));
                }
                let mut buf = ReadBuf::new(buf);
                ready!(Pin::new(&mut reader).poll_read(cx, &mut buf))?;
                Poll::Ready(Ok(buf.filled().len()))
            })
            .await;
        run.injector.note(|| format!("  read {len} at {position}: {result:?}"));
        match result {
            None => {}
            Some(Ok(0)) => assert!(position >= case.len(), "an end in the middle, at {position}"),
            Some(Ok(n)) => {
                assert!(buf[..n] == plaintext[position..position + n], "other plaintext than is there");
                let hit = position.max(case.damaged.start)..(position + n).min(case.damaged.end);
                assert!(hit.is_empty() || run.lying, "plaintext that is not authentic");
                position += n;
            }
            Some(Err(error)) => case.check(&mut run, position..position + 1, &error),
        }
    }
}

async fn open(run: &mut Run, case: &Case) -> Option<RangeReader<Source>> {
    let lies = case.lies(run);
    for attempts in 0.. {
        if run.is_hopeless() {
            break;
        }
        run.calm_down(attempts);
        case.meddle(run);
        let source = Source { injector: run.injector.clone(), data: case.data.clone(), lies };
        match run.attempt(RangeReader::open(source, &case.specimen.key)).await {
            Some(Ok(reader)) => {
                let is_other = reader.len() != case.len() as u64;
                assert!(!is_other || run.lying);
                return (!is_other).then_some(reader);
            }
            Some(Err(error)) if run.lying && number(&error).is_none() => {
                assert_ne!(error.kind(), io::ErrorKind::UnexpectedEof);
                return None;
            }
            Some(Err(error)) => assert_eq!(run.check_source(&error), None, "while it was opened"),
            None => {}
        }
        run.injector.state().unreported.clear();
    }
    None
}

fn any_range(run: &mut Run, len: usize) -> Range<usize> {
    let (a, b) = (run.dice.below(len + 1), run.dice.below(len + 1));
    a.min(b)..a.max(b)
}

pub async fn range_reader(mut run: Run) {
    let case = Case::any(&mut run);
    let Some(reader) = open(&mut run, &case).await else { return };
    let plaintext = &case.specimen.plaintext;
    for _ in 0..3 + run.dice.below(8) {
        if run.is_hopeless() {
            return;
        }
        case.meddle(&mut run);
        let ranges: Vec<_> = (0..1 + run.dice.below(3)).map(|_| any_range(&mut run, case.len())).collect();
        let reads = ranges.iter().map(|range| reader.read_range(range.start as u64..range.end as u64));
        let Some(results) = run.attempt(join_all(reads)).await else {
            run.injector.state().unreported.clear();
            continue;
        };
        for (range, result) in ranges.iter().zip(results) {
            run.injector.note(|| format!("  {range:?}: {:?}", result.as_ref().map(|bytes| bytes.len())));
            match result {
                Ok(bytes) => {
                    assert!(bytes == plaintext[range.clone()], "other plaintext than is there");
                    let hit = range.start.max(case.damaged.start)..range.end.min(case.damaged.end);
                    assert!(hit.is_empty() || run.lying, "plaintext that is not authentic");
                }
                Err(error) => case.check(&mut run, range.clone(), &error),
            }
        }
    }
}

pub async fn range_stream(mut run: Run) {
    let case = Case::any(&mut run);
    let Some(reader) = open(&mut run, &case).await else { return };
    let range = if run.dice.percent(30) { 0..case.len() } else { any_range(&mut run, case.len()) };
    let mut pieces = reader.stream(range.start as u64..range.end as u64).unwrap();
    let mut at = range.start;
    while !run.is_hopeless() {
        case.meddle(&mut run);
        let Some(item) = run.try_drive(|cx| Pin::new(&mut pieces).poll_next(cx)).await else { continue };
        match item {
            Some(Ok(bytes)) => {
                assert!(!bytes.is_empty());
                assert!(bytes == case.specimen.plaintext[at..at + bytes.len()], "other plaintext than is there");
                at += bytes.len();
            }
            None => {
                assert_eq!(at, range.end, "it ends before all of the range was given out");
                let again = run.drive(|cx| Pin::new(&mut pieces).poll_next(cx)).await;
                assert!(again.is_none());
                return;
            }
            Some(Err(error)) => {
                case.check(&mut run, at..range.end, &error);
                let Some(error) = Error::from_io(&error) else { continue };
                for _ in 0..3 {
                    let again = run.drive(|cx| Pin::new(&mut pieces).poll_next(cx)).await;
                    let again = again.unwrap().unwrap_err();
                    assert_eq!(Error::from_io(&again), Some(error), "it is sticky");
                }
                return;
            }
        }
    }
}
