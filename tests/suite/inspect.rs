//! `inspect`: what can be found out without the key, and what cannot.

use agcm::{Error, Inspection, Key, geometry::Uniform, inspect};
use futures::executor::block_on;

use crate::{
    drive::OtherTask,
    reference::word,
    script::{Op, Reader, Script},
    streams::{self, Stream},
    vectors::{self, Invalid},
    ways,
};

fn look(stream: &[u8]) -> Result<Inspection, Error> {
    let whole = block_on(inspect(stream)).map_err(|error| Error::from_io(&error).unwrap());
    let script = Script::repeat([Op::Some(3), Op::Pending, Op::Some(50)]);
    let pieces = block_on(inspect(Reader::new(stream, script))).map_err(|error| Error::from_io(&error).unwrap());
    assert_eq!(whole, pieces);
    whole
}

#[test]
fn it_finds_what_is_in_a_stream() {
    for stream in streams::small(&Key::generate()) {
        let found = look(&stream.bytes).unwrap();
        assert_eq!(found.version, 1);
        assert_eq!(found.chunk_size, stream.chunk_size);
        assert_eq!(found.nonce, stream.bytes[8..20]);
        assert_eq!(found.frames, stream.frames.len() as u64);
        assert_eq!(found.plaintext_len, stream.plaintext.len() as u64);
        assert_eq!(found.stream_len, stream.bytes.len() as u64);
        assert_eq!(found.uniform, stream.is_uniform());
        assert_eq!(found.problem, None);
    }
}

#[test]
fn it_says_how_far_a_cut_stream_goes() {
    let stream = Stream::of_frames(&Key::generate(), 16, &[16, 3, 16, 9]);
    for cut in 0..stream.bytes.len() {
        let expected = Error::Truncated { at: cut as u64 };
        if cut < 24 {
            assert_eq!(look(&stream.bytes[..cut]), Err(expected));
            continue;
        }
        let found = look(&stream.bytes[..cut]).unwrap();
        assert_eq!(found.problem, Some(expected), "{cut}");
        assert_eq!(found.stream_len, cut as u64);
        let whole = (0..=4).rev().find(|&i| stream.start_of(i).0 <= cut).unwrap_or(0);
        assert_eq!(found.frames, whole as u64, "{cut}");
        assert_eq!(found.plaintext_len, stream.start_of(whole).1 as u64);
    }
}

#[test]
fn a_header_and_a_length_make_a_guess() {
    for stream in streams::small(&Key::generate()).iter().filter(|stream| stream.is_uniform()) {
        let header = look(&stream.bytes[..24]).unwrap();
        let layout = Uniform::from_stream_len(stream.bytes.len() as u64, header.chunk_size).unwrap();
        assert_eq!(layout.plaintext_len(), stream.plaintext.len() as u64);
    }
}

#[test]
fn it_finds_what_needs_no_key_and_nothing_else() {
    for Invalid { name, error, stream, .. } in vectors::invalid() {
        let found = match look(&stream) {
            Ok(found) => found.problem.map(ways::name),
            Err(error) => Some(ways::name(error)),
        };
        match error.as_str() {
            "KeyMismatch" if name == "another chunk size" => assert!(found.is_none_or(|found| found == "InvalidFrame")),
            // Frames that were relabelled can look like anything.
            "KeyMismatch" | "Corrupt" => assert_eq!(found, None, "{name}"),
            _ => assert_eq!(found, Some(error), "{name}"),
        }
    }
}

#[test]
fn it_says_where_a_frame_is_impossible_and_where_more_follows() {
    let stream = Stream::uniform(&Key::generate(), 16, 40);
    let mut bytes = stream.bytes.clone();
    bytes[116..120].copy_from_slice(&word(2, 33));
    let found = look(&bytes).unwrap();
    let expected = Error::InvalidFrame { frame: 1, at: 116, word: u32::from_le_bytes(word(2, 33)) };
    assert_eq!((found.problem, found.frames, found.stream_len), (Some(expected), 1, 116));

    let mut bytes = stream.bytes.clone();
    bytes[24..28].copy_from_slice(&word(1, 51));
    let found = look(&bytes).unwrap();
    let expected = Error::InvalidFrame { frame: 0, at: 24, word: u32::from_le_bytes(word(1, 51)) };
    assert_eq!((found.problem, found.frames, found.stream_len), (Some(expected), 0, 24));

    let at = stream.bytes.len() as u64;
    let found = look(&[&stream.bytes[..], b"x"].concat()).unwrap();
    assert_eq!(found.problem, Some(Error::TrailingData { at }));
    assert_eq!((found.frames, found.stream_len), (3, at));
}

#[tokio::test]
async fn a_long_stream_lets_other_tasks_run() {
    let mut other = OtherTask::spawn();
    let stream = Stream::uniform(&Key::generate(), 8, 8000).bytes;
    assert_eq!(inspect(&stream[..]).await.unwrap().frames, 1000);
    other.had_turns();
}

#[test]
fn the_readers_own_error_passes() {
    let stream = Stream::uniform(&Key::generate(), 16, 40).bytes;
    let script = Script::once([Op::Some(90), Op::Error(std::io::ErrorKind::TimedOut)]);
    let error = block_on(inspect(Reader::new(&stream, script))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
