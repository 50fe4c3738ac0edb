//! `SeekReader`, sentence by sentence of what it promises.

use std::{
    io::{Cursor, ErrorKind, SeekFrom},
    pin::Pin,
    task::{Context, Poll},
};

use agcm::{DecryptOptions, EncryptOptions, Error, Key, KeyRing, SeekReader};
use futures::executor::block_on;
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeek, AsyncSeekExt};

use crate::{
    drive::{OtherTask, busy_runtime, poll_once, stream_error},
    reference::word,
    script::{Op, Script, Seekable},
    streams::{self, Stream},
    vectors::plaintext,
};

const MIB: usize = 1024 * 1024;

fn open<'a>(key: &Key, stream: &'a [u8]) -> SeekReader<Seekable<'a>> {
    open_scripted(key, stream, Script::default())
}

fn open_scripted<'a>(key: &Key, stream: &'a [u8], script: Script) -> SeekReader<Seekable<'a>> {
    let mut reader = block_on(SeekReader::open(Seekable::new(stream, Script::default()), key)).unwrap();
    reader.get_mut().script = script;
    reader
}

fn read_at(reader: &mut SeekReader<Seekable<'_>>, at: usize, len: usize) -> std::io::Result<Vec<u8>> {
    block_on(async {
        let mut bytes = vec![0; len];
        reader.seek(SeekFrom::Start(at as u64)).await?;
        reader.read_exact(&mut bytes).await?;
        Ok(bytes)
    })
}

#[test]
fn every_offset_and_length_of_every_small_stream() {
    let key = Key::generate();
    for stream in streams::small(&key) {
        // In order, and so that every read begins anywhere with respect to the one before.
        let mut reader = open(&key, &stream.bytes);
        let len = stream.plaintext.len();
        assert_eq!((reader.len(), reader.is_empty()), (len as u64, len == 0));
        assert_eq!((reader.chunk_size(), reader.is_uniform()), (stream.chunk_size, stream.is_uniform()));
        for start in 0..=len {
            for end in (start..=len).rev() {
                let read = read_at(&mut reader, start, end - start).unwrap();
                assert_eq!(read, stream.plaintext[start..end], "{start}..{end} of {:?}", stream.frames);
            }
        }
        for start in 0..len {
            let mut fresh = open_scripted(&key, &stream.bytes, Script::repeat([Op::Some(3), Op::Pending]));
            assert_eq!(read_at(&mut fresh, start, len - start).unwrap(), stream.plaintext[start..]);
        }
    }
}

/// What is done to a reader, and to a `Cursor` over the plaintext beside it.
#[derive(Debug, Clone)]
enum Action {
    Seek(SeekFrom),
    Read(usize),
    /// Fills the buffer and consumes some of it.
    Consume(usize),
    /// Begins a read, and drops it if it is pending.
    Abandon,
    /// Moves the inner reader.
    Disturb,
    DisturbPinned,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0u64..150).prop_map(|to| Action::Seek(SeekFrom::Start(to))),
        (-150i64..150).prop_map(|to| Action::Seek(SeekFrom::Current(to))),
        (-150i64..50).prop_map(|to| Action::Seek(SeekFrom::End(to))),
        prop_oneof![Just(i64::MIN), Just(i64::MAX)].prop_map(|to| Action::Seek(SeekFrom::Current(to))),
        (0usize..60).prop_map(Action::Read),
        (0usize..60).prop_map(Action::Read),
        (0usize..9).prop_map(Action::Consume),
        Just(Action::Abandon),
        Just(Action::Disturb),
        Just(Action::DisturbPinned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_reads_and_seeks_as_a_cursor_does(
        actions in vec(action(), 0..40),
        chunk_size in 1usize..30,
        frames in vec(1usize..30, 0..12),
        uniform: bool,
        pieces in 1usize..50,
        pending: bool,
    ) {
        let key = Key::generate();
        let frames: Vec<usize> = frames.iter().map(|len| len.min(&chunk_size)).copied().collect();
        let stream = if uniform {
            Stream::uniform(&key, chunk_size, frames.iter().sum())
        } else {
            Stream::of_frames(&key, chunk_size, &frames)
        };
        let ops = if pending { vec![Op::Some(pieces), Op::Pending] } else { vec![Op::Some(pieces)] };
        let mut reader = open_scripted(&key, &stream.bytes, Script::repeat(ops));
        let mut cursor = Cursor::new(&stream.plaintext[..]);
        block_on(async {
            for action in &actions {
                match action {
                    Action::Seek(to) => {
                        let (ours, theirs) = (reader.seek(*to).await, cursor.seek(*to).await);
                        assert_eq!(ours.map_err(|error| error.kind()), theirs.map_err(|error| error.kind()));
                    }
                    Action::Read(len) => {
                        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                        (&mut reader).take(*len as u64).read_to_end(&mut ours).await.unwrap();
                        (&mut cursor).take(*len as u64).read_to_end(&mut theirs).await.unwrap();
                        assert_eq!(ours, theirs);
                    }
                    Action::Consume(n) => {
                        let buffered = reader.fill_buf().await.unwrap();
                        let n = buffered.len().min(*n);
                        let mut theirs = vec![0; n];
                        cursor.read_exact(&mut theirs).await.unwrap();
                        assert_eq!(buffered[..n], theirs);
                        reader.consume(n);
                    }
                    Action::Abandon => drop(poll_once(reader.fill_buf())),
                    Action::Disturb => {
                        let _ = reader.get_mut().read(&mut [0; 5]).await.unwrap();
                        let mut pinned = Pin::new(&mut reader).get_pin_mut();
                        let _ = pinned.read(&mut [0; 5]).await.unwrap();
                    }
                    Action::DisturbPinned => {
                        let mut pinned = Pin::new(&mut reader).get_pin_mut();
                        let _ = pinned.read(&mut [0; 5]).await.unwrap();
                    }
                }
                assert_eq!(reader.stream_position().await.unwrap(), cursor.position());
            }
        });
    }
}

#[test]
fn past_the_end_there_is_nothing_and_before_the_start_is_an_error() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 40);
    let mut reader = open(&key, &stream.bytes);
    block_on(async {
        for to in [SeekFrom::Start(40), SeekFrom::Start(u64::MAX), SeekFrom::End(0), SeekFrom::End(i64::MAX)] {
            reader.seek(to).await.unwrap();
            assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0);
            assert!(reader.fill_buf().await.unwrap().is_empty());
        }
        reader.seek(SeekFrom::Start(7)).await.unwrap();
        for to in [SeekFrom::Current(-8), SeekFrom::End(-41), SeekFrom::Current(i64::MIN)] {
            assert_eq!(reader.seek(to).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(reader.stream_position().await.unwrap(), 7, "it stays where it is");
        }
        assert_eq!(reader.read_u8().await.unwrap(), stream.plaintext[7]);
    });
}

#[test]
fn opening_takes_two_small_reads_and_a_byte_one_frame() {
    let key = Key::generate();
    for frames in [&[16; 1000][..], &[16], &[]] {
        let stream = Stream::of_frames(&key, 16, frames);
        let mut reader = open(&key, &stream.bytes);
        assert_eq!((reader.get_ref().reads, reader.get_ref().read), (2, 117));
        assert!(reader.get_ref().seeks <= 3);
        if frames.is_empty() {
            continue;
        }
        for at in [0, 16 * (frames.len() - 1), 16 * frames.len() / 2] {
            let before = (reader.get_ref().reads, reader.get_ref().read);
            assert_eq!(read_at(&mut reader, at, 1).unwrap(), stream.plaintext[at..at + 1]);
            let inner = reader.get_ref();
            let read = inner.read - before.1;
            assert!(read == 36 || (frames.len() == 1 && read == 0), "{read}");
            assert!(inner.reads - before.0 <= 1);
        }
    }
}

#[test]
fn reads_that_give_little_add_up_to_the_frame_and_no_more() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 20);
    let mut reader = open_scripted(&key, &stream.bytes, Script::repeat([Op::Some(10)]));
    let before = reader.get_ref().read;
    assert_eq!(read_at(&mut reader, 17, 1).unwrap(), stream.plaintext[17..18]);
    assert_eq!(reader.get_ref().read - before, 24);
}

#[test]
fn reading_on_needs_no_seek_and_no_byte_twice() {
    let key = Key::generate();
    for frames in [&[16; 50][..], &[16, 3, 16, 16, 9, 1, 16, 16]] {
        let stream = Stream::of_frames(&key, 16, frames);
        let mut reader = open(&key, &stream.bytes);
        let (seeks, read) = (reader.get_ref().seeks, reader.get_ref().read);
        let mut all = Vec::new();
        block_on(reader.read_to_end(&mut all)).unwrap();
        assert_eq!(all, stream.plaintext);
        assert_eq!(reader.get_ref().seeks - seeks, 1);
        assert_eq!(reader.get_ref().read - read, stream.bytes.len() - 117);
    }
}

#[test]
fn an_irregular_stream_is_walked_once_and_then_known() {
    let key = Key::generate();
    // Frames that are longer than what is read at a time while walking, so that each takes a read.
    let frames: Vec<usize> = (0..200).map(|i| 5000 + i % 3).collect();
    let stream = Stream::of_frames(&key, 6000, &frames);
    let mut reader = open(&key, &stream.bytes);
    let reads = |reader: &mut SeekReader<Seekable<'_>>, frame: usize| {
        let before = reader.get_ref().reads;
        let at = stream.start_of(frame).1;
        assert_eq!(read_at(reader, at, 1).unwrap(), stream.plaintext[at..=at]);
        reader.get_ref().reads - before
    };
    // A word each of the frames before it, then its own word and the rest of it.
    assert_eq!(reads(&mut reader, 150), 150 + 2);
    assert!(reads(&mut reader, 20) <= 2);
    assert!(reads(&mut reader, 149) <= 2);
    assert!(reads(&mut reader, 151) <= 3);
    // From the farthest known place on, whose next word was read along.
    assert_eq!(reads(&mut reader, 199), 47 + 1);
}

#[test]
fn small_frames_are_walked_in_blocks() {
    let key = Key::generate();
    let frames: Vec<usize> = (0..20_000).map(|i| 1 + i % 2).collect();
    let stream = Stream::of_frames(&key, 2, &frames);
    let mut reader = open(&key, &stream.bytes);
    let last = stream.plaintext.len() - 1;
    let before = reader.get_ref().reads;
    assert_eq!(read_at(&mut reader, last, 1).unwrap(), stream.plaintext[last..]);
    let reads = reader.get_ref().reads - before;
    assert!(reads <= stream.bytes.len() / 4000 + 2, "{reads}");
    // Of 20 000 places every 32nd is known, so a walk passes at most 31 frames, which one block holds.
    for at in [1, 9_999, 25_000, 12_345] {
        let before = reader.get_ref().reads;
        assert_eq!(read_at(&mut reader, at, 1).unwrap(), stream.plaintext[at..=at]);
        assert!(reader.get_ref().reads - before <= 2);
    }
}

#[test]
fn damage_is_found_where_it_is_and_nowhere_else() {
    let key = Key::generate();
    for frames in [&[16, 16, 16, 16, 9][..], &[16, 3, 16, 9]] {
        let stream = Stream::of_frames(&key, 16, frames);
        for damaged in 0..frames.len() {
            let (at, position) = stream.start_of(damaged);
            let (end, end_position) = stream.start_of(damaged + 1);
            // Behind the word, which an irregular stream needs on the way to later frames.
            for byte in [at + 4, (at + end) / 2, end - 1] {
                let mut bytes = stream.bytes.clone();
                bytes[byte] ^= 0x40;
                let mut reader = open(&key, &bytes);
                let expected = Error::Corrupt { frame: damaged as u64, at: at as u64 };
                for start in 0..stream.plaintext.len() {
                    let touched = (position..end_position).contains(&start);
                    let read = read_at(&mut reader, start, 1);
                    if touched {
                        assert_eq!(stream_error(read), expected);
                        assert_eq!(stream_error(block_on(reader.read_u8())), expected, "it is still there");
                    } else {
                        assert_eq!(read.unwrap(), stream.plaintext[start..=start]);
                    }
                }
                let mut all = Vec::new();
                block_on(reader.rewind()).unwrap();
                assert_eq!(stream_error(block_on(reader.read_to_end(&mut all))), expected);
                assert_eq!(all, stream.plaintext[..position]);
            }
        }
    }
}

#[test]
fn a_changed_word_is_never_the_way_to_a_wrong_byte() {
    let key = Key::generate();
    for frames in [&[16, 16, 16, 16, 9][..], &[16, 3, 16, 9], &[1, 2, 3, 4, 5]] {
        let stream = Stream::of_frames(&key, 16, frames);
        for damaged in 0..frames.len() {
            let (at, _) = stream.start_of(damaged);
            for len in 16..40 {
                let mut bytes = stream.bytes.clone();
                bytes[at..at + 4].copy_from_slice(&word(2, len));
                if bytes == stream.bytes {
                    continue;
                }
                let mut reader = open(&key, &bytes);
                for start in 0..stream.plaintext.len() {
                    match read_at(&mut reader, start, 1) {
                        Ok(read) => assert_eq!(read, stream.plaintext[start..=start]),
                        Err(error) => assert!(matches!(
                            Error::from_io(&error),
                            Some(Error::InvalidFrame { .. } | Error::Corrupt { .. })
                        )),
                    }
                }
                let mut all = Vec::new();
                block_on(reader.rewind()).unwrap();
                block_on(reader.read_to_end(&mut all)).unwrap_err();
                assert!(stream.plaintext.starts_with(&all));
            }
        }
    }
}

#[test]
fn a_wrong_word_that_was_read_once_is_not_remembered() {
    let key = Key::generate();
    let stream = Stream::of_frames(&key, 16, &[16, 3, 16, 9]);
    let mut bytes = stream.bytes.clone();
    let (at, _) = stream.start_of(1);
    bytes[at..at + 4].copy_from_slice(&word(2, 16 + 7));
    let mut reader = open(&key, &bytes);
    read_at(&mut reader, 30, 1).unwrap_err();
    reader.get_mut().data = &stream.bytes;
    assert_eq!(read_at(&mut reader, 30, 10).unwrap(), stream.plaintext[30..40]);
}

#[test]
fn an_inner_error_passes_and_reading_may_be_resumed() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60);
    // A seek, and four reads for each of three frames, three for the last.
    for position in 0..16 {
        let mut ops = vec![Op::Some(11); position];
        ops.push(Op::Error(ErrorKind::ConnectionReset));
        ops.resize(60, Op::Some(11));
        let mut reader = open_scripted(&key, &stream.bytes, Script::once(ops));
        let mut read = Vec::new();
        let error = block_on(reader.read_to_end(&mut read)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(Error::from_io(&error), None);
        block_on(reader.read_to_end(&mut read)).unwrap();
        assert_eq!(read, stream.plaintext);
    }
}

#[test]
fn after_a_seek_that_failed_or_moved_it_elsewhere_the_inner_reader_is_sent_anew() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60);
    for ops in [
        // The seek fails; it is pending, and then fails.
        vec![Op::Error(ErrorKind::TimedOut)],
        vec![Op::Pending, Op::Error(ErrorKind::TimedOut)],
        // A read is pending when it is sent elsewhere, and fails then.
        vec![Op::Some(9), Op::Some(5), Op::Stall, Op::Error(ErrorKind::TimedOut)],
    ] {
        let mut reader = open_scripted(&key, &stream.bytes, Script::once(ops.clone()));
        let mut failures = 0;
        for at in [3, 40, 20, 55, 3] {
            loop {
                block_on(reader.seek(SeekFrom::Start(at))).unwrap();
                match poll_once(reader.read_u8()) {
                    Poll::Ready(Ok(byte)) => {
                        assert_eq!(byte, stream.plaintext[usize::try_from(at).unwrap()], "{ops:?}");
                        break;
                    }
                    Poll::Ready(Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::TimedOut, "{ops:?}");
                        failures += 1;
                    }
                    // Whoever waits no longer reads elsewhere.
                    Poll::Pending => break,
                }
            }
        }
        assert_eq!(failures, 1, "{ops:?}");
    }
}

#[test]
fn after_a_wait_that_failed_the_inner_reader_is_not_believed_to_stand_where_it_stood() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60);
    // The first frame is read; the read of the second is pending when the reader is sent to the last, and fails then.
    let ops = [Op::Some(9), Op::Some(36), Op::Stall, Op::Error(ErrorKind::TimedOut)];
    let mut reader = open_scripted(&key, &stream.bytes, Script::once(ops));
    assert_eq!(read_at(&mut reader, 3, 1).unwrap(), stream.plaintext[3..4]);
    block_on(reader.seek(SeekFrom::Start(20))).unwrap();
    assert!(poll_once(reader.read_u8()).is_pending());
    assert_eq!(read_at(&mut reader, 55, 1).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(read_at(&mut reader, 20, 1).unwrap(), stream.plaintext[20..21]);
}

#[test]
#[should_panic(expected = "no more can be consumed than there is")]
fn more_than_there_is_cannot_be_consumed() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60);
    let mut reader = open(&key, &stream.bytes);
    block_on(reader.fill_buf()).unwrap();
    reader.consume(17);
}

#[test]
fn an_error_while_opening_passes() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60).bytes;
    for position in 0..5 {
        let mut ops = vec![Op::Some(1000); position];
        ops.push(Op::Error(ErrorKind::ConnectionReset));
        let error = block_on(SeekReader::open(Seekable::new(&stream, Script::once(ops)), &key)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_source_that_has_become_shorter_is_truncated() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60);
    for cut in [80, 81, 100, 116, 120, 150] {
        let mut reader = open(&key, &stream.bytes);
        reader.get_mut().data = &stream.bytes[..cut];
        let mut read = Vec::new();
        let result = block_on(reader.read_to_end(&mut read));
        assert_eq!(stream_error(result), Error::Truncated { at: cut as u64 });
        assert_eq!(read, stream.plaintext[..(cut - 80) / 36 * 16]);
    }
}

#[test]
fn another_stream_in_its_place_is_corrupt() {
    let key = Key::generate();
    let [one, two] = [(); 2].map(|()| Stream::uniform(&key, 16, 60));
    let mut reader = open(&key, &one.bytes);
    assert_eq!(read_at(&mut reader, 0, 16).unwrap(), one.plaintext[..16]);
    reader.get_mut().data = &two.bytes;
    let expected = Error::Corrupt { frame: 1, at: 116 };
    assert_eq!(stream_error(read_at(&mut reader, 20, 16)), expected);
    reader.get_mut().data = &one.bytes;
    assert_eq!(read_at(&mut reader, 20, 16).unwrap(), one.plaintext[20..36]);
}

/// Says that it is elsewhere than it was sent.
#[derive(Debug)]
struct Astray(Cursor<Vec<u8>>, u64);

impl tokio::io::AsyncRead for Astray {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncSeek for Astray {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> std::io::Result<()> {
        AsyncSeek::start_seek(Pin::new(&mut self.0), to)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<u64>> {
        let off_by = self.1;
        Pin::new(&mut self.0).poll_complete(cx).map_ok(|at| at + off_by)
    }
}

#[test]
fn an_inner_reader_that_goes_elsewhere_is_an_error() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60).bytes;
    let opened = block_on(SeekReader::open(Astray(Cursor::new(stream.clone()), 1), &key));
    assert_eq!(opened.map(drop).unwrap_err().kind(), ErrorKind::Other);
    let mut reader = block_on(SeekReader::open(Astray(Cursor::new(stream), 0), &key)).unwrap();
    reader.get_mut().1 = 1;
    for _ in 0..2 {
        let error = block_on(reader.read_u8()).unwrap_err();
        assert_eq!((error.kind(), Error::from_io(&error)), (ErrorKind::Other, None));
    }
}

/// Says that its end is further on.
#[derive(Debug)]
struct Longer(Cursor<Vec<u8>>, u64);

impl tokio::io::AsyncRead for Longer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncSeek for Longer {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> std::io::Result<()> {
        self.1 = if matches!(to, SeekFrom::End(_)) { 10 } else { 0 };
        AsyncSeek::start_seek(Pin::new(&mut self.0), to)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<u64>> {
        let off_by = self.1;
        Pin::new(&mut self.0).poll_complete(cx).map_ok(|at| at + off_by)
    }
}

#[test]
fn a_source_that_becomes_shorter_while_it_is_opened_is_truncated_there() {
    let key = Key::generate();
    let stream = Stream::uniform(&key, 16, 60).bytes;
    let expected = Error::Truncated { at: stream.len() as u64 };
    let opened = block_on(SeekReader::open(Longer(Cursor::new(stream), 0), &key));
    assert_eq!(stream_error(opened.map(drop)), expected);
}

#[test]
fn what_does_not_open() {
    let key = Key::generate();
    let other = Key::generate();
    let open = |bytes: &[u8], key: &Key| {
        stream_error(block_on(SeekReader::open(Cursor::new(bytes.to_vec()), key)).map(|reader| reader.len()))
    };
    let stream = Stream::uniform(&key, 16, 60).bytes;
    let len = stream.len() as u64;
    assert_eq!(open(&stream, &other), Error::KeyMismatch);
    assert_eq!(open(b"", &key), Error::Truncated { at: 0 });
    assert_eq!(open(b"plain text", &key), Error::BadMagic);
    assert_eq!(open(&[&stream[..], b"x"].concat(), &key), Error::Truncated { at: len + 1 });
    // What is said of the end is said to be of the end of the input.
    let words = |bytes: &[u8]| block_on(SeekReader::open(Cursor::new(bytes.to_vec()), &key)).unwrap_err().to_string();
    assert!(words(&[&stream[..], b"x"].concat()).starts_with("no stream ends where the input does"));
    assert!(words(&[&stream[..], &stream[..]].concat()).starts_with("the end of the input is damaged, or"));
    assert!(words(&stream[..90]).starts_with("the stream stops at byte 90"));
    assert_eq!(open(&[&stream[..], &stream[..]].concat(), &key), Error::Corrupt { frame: 12, at: 2 * len - 37 });
    let mut damaged = stream.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(open(&damaged, &key), Error::Corrupt { frame: 4, at: len - 37 });
    // A frame was dropped: all that is left is authentic, but it is not what the final frame describes.
    let short = [&stream[..116], &stream[152..]].concat();
    assert_eq!(open(&short, &key), Error::Corrupt { frame: 3, at: len - 36 - 37 });

    let options = DecryptOptions::new().max_chunk_size(15).unwrap();
    let result = block_on(SeekReader::open_with_options(Cursor::new(stream), &key, &options));
    assert_eq!(stream_error(result), Error::ChunkTooLarge { chunk: 16, max: 15 });
}

#[test]
fn a_stream_behind_something_else() {
    let key = Key::generate();
    let options = EncryptOptions::new().chunk_size(16).unwrap().context("tape 7").unwrap();
    let plain = plaintext(60);
    let stream = options.encrypt(&key, &plain);
    let file = [b"a header of ours", &stream[..]].concat();
    let options = DecryptOptions::new().context("tape 7").unwrap();
    let ring: KeyRing = [Key::generate(), key].into_iter().collect();
    block_on(async {
        let mut reader = SeekReader::open_at(Cursor::new(file.clone()), 16, &ring, &options).await.unwrap();
        reader.seek(SeekFrom::Start(33)).await.unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, plain[33..]);

        let mut damaged = file.clone();
        damaged[16 + 90] ^= 1;
        let mut reader = SeekReader::open_at(Cursor::new(damaged), 16, &ring, &options).await.unwrap();
        assert_eq!(stream_error(reader.read_u8().await), Error::Corrupt { frame: 0, at: 80 });
        for base in [file.len() as u64, 1 << 40, u64::MAX] {
            let result = SeekReader::open_at(Cursor::new(file.clone()), base, &ring, &options).await;
            assert_eq!(stream_error(result), Error::Truncated { at: 0 });
        }
    });
}

/// A file refuses to go where no file can end.
#[tokio::test]
async fn nobody_is_sent_where_nothing_can_be_read() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::generate());
    let path = folder.path().join("sealed");
    std::fs::write(&path, agcm::encrypt(&key, b"plain")).unwrap();
    let file = tokio::fs::File::open(&path).await.unwrap();
    let result = SeekReader::open_at(file, u64::MAX, &key, &DecryptOptions::new()).await;
    assert_eq!(stream_error(result), Error::Truncated { at: 0 });
}

#[tokio::test]
async fn a_file_that_is_busy_with_a_read_that_was_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealed");
    let key = Key::generate();
    let plain = plaintext(500_000);
    std::fs::write(&path, agcm::encrypt(&key, &plain)).unwrap();
    let file = tokio::fs::File::open(&path).await.unwrap();
    let mut reader = SeekReader::open(file, &key).await.unwrap();
    for at in (0..500_000).rev().step_by(49_999) {
        // The file may be busy with a seek or a read when it is sent elsewhere.
        let _ = poll_once(reader.read(&mut [0; 10]));
        tokio::task::yield_now().await;
        let _ = poll_once(reader.read(&mut [0; 10]));
        reader.seek(SeekFrom::Start(at as u64)).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), plain[at]);
    }
}

#[test]
fn large_frames_are_opened_off_the_async_threads_and_a_seek_does_not_wait() {
    let key = Key::generate();
    let plain = plaintext(3 * MIB);
    let stream = EncryptOptions::new().chunk_size(MIB).unwrap().encrypt(&key, &plain);
    let mut reader = block_on(SeekReader::open(Cursor::new(stream), &key)).unwrap();
    let (runtime, release) = busy_runtime();
    runtime.block_on(async {
        assert!(poll_once(reader.read_u8()).is_pending());
        reader.seek(SeekFrom::Start(2 * MIB as u64 + 7)).await.unwrap();
        assert!(poll_once(reader.read_u8()).is_pending());
        drop(release);
        assert_eq!(reader.read_u8().await.unwrap(), plain[2 * MIB + 7]);
        reader.rewind().await.unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert!(all == plain);
    });
}

/// A frame that is being opened elsewhere turns out to be damaged, when nobody wants it any more.
#[test]
fn damage_is_not_told_to_who_reads_elsewhere() {
    let key = Key::generate();
    let plain = plaintext(3 * MIB);
    let mut stream = EncryptOptions::new().chunk_size(MIB).unwrap().encrypt(&key, &plain);
    stream[80 + 50] ^= 1;
    let expected = Error::Corrupt { frame: 0, at: 80 };
    for elsewhere in [2 * MIB + 7, 3 * MIB, 9 * MIB] {
        let mut reader = block_on(SeekReader::open(Cursor::new(&stream), &key)).unwrap();
        let (runtime, release) = busy_runtime();
        runtime.block_on(async {
            assert!(poll_once(reader.read_u8()).is_pending());
            reader.seek(SeekFrom::Start(elsewhere as u64)).await.unwrap();
            drop(release);
            let mut byte = [0];
            assert_eq!(reader.read(&mut byte).await.unwrap(), usize::from(elsewhere < 3 * MIB));
            assert!(elsewhere >= 3 * MIB || byte[0] == plain[elsewhere]);
            // It was not forgotten either.
            reader.rewind().await.unwrap();
            assert_eq!(stream_error(reader.read_u8().await), expected);
            assert_eq!(stream_error(reader.read_u8().await), expected);
        });
    }
}

#[tokio::test]
async fn a_long_walk_lets_other_tasks_run() {
    let mut other = OtherTask::spawn();
    let key = Key::generate();
    let frames: Vec<usize> = (0..1000).map(|i| 5000 + i % 2).collect();
    let stream = Stream::of_frames(&key, 6000, &frames);
    let mut reader = SeekReader::open(Cursor::new(&stream.bytes), &key).await.unwrap();
    reader.seek(SeekFrom::End(-1)).await.unwrap();
    assert_eq!(reader.read_u8().await.unwrap(), *stream.plaintext.last().unwrap());
    other.had_turns();
}

#[test]
fn it_is_send_sync_and_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<SeekReader<Cursor<Vec<u8>>>>();
}
