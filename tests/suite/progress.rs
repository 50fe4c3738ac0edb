//! Progress: what the callback is told, and how often.

use std::{
    io::ErrorKind,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agcm::{DecryptOptions, EncryptOptions, FileOptions, Key, Progress, ProgressReader, ProgressWriter};
use futures::executor::block_on;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::{
    folder::Folder,
    script::{Op, Reader, Script, Writer},
};

/// What a callback was told.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Progress>>>);

impl Told {
    pub fn callback(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let told = self.0.clone();
        move |progress| told.lock().unwrap().push(progress)
    }

    /// Bytes done and total, in order. However it was told, this must hold.
    pub fn all(&self) -> Vec<(u64, Option<u64>)> {
        let told = self.0.lock().unwrap();
        for progress in &*told {
            assert!(progress.total.is_none_or(|total| progress.done <= total), "{progress:?}");
            assert!(progress.percent().is_none_or(|percent| percent <= 100), "{progress:?}");
        }
        assert!(told.is_sorted_by_key(|progress| progress.done), "{told:?}");
        told.iter().map(|progress| (progress.done, progress.total)).collect()
    }

    pub fn last(&self) -> (u64, Option<u64>) {
        *self.all().last().unwrap()
    }
}

#[test]
fn the_end_corrects_a_total_that_was_wrong() {
    for (len, total) in
        [(1000, None), (1000, Some(1000)), (1000, Some(10)), (1000, Some(5000)), (0, Some(0)), (0, Some(9))]
    {
        let told = Told::default();
        let data = vec![7; len];
        let mut reader = ProgressReader::new(&data[..], total, told.callback());
        let mut read = Vec::new();
        block_on(reader.read_to_end(&mut read)).unwrap();
        assert_eq!(read, data);
        assert_eq!(told.last(), (len as u64, Some(len as u64)));
        let calls = told.all().len();
        block_on(reader.read_to_end(&mut read)).unwrap();
        assert_eq!(told.all().len(), calls, "an end that is seen twice is told once");
    }
}

/// Some of a large file is read in order, and the rest by several workers.
#[tokio::test]
async fn every_byte_of_a_large_file_counts_once() {
    let (folder, key) = (Folder::new(), Key::generate());
    let plain = folder.write("plain", vec![7; 9_000_000]);
    let sealed = folder.path("sealed");
    for workers in [1, 2, 3] {
        let files = FileOptions::new()
            .overwrite(true)
            .encrypt_options(EncryptOptions::new().workers(workers))
            .decrypt_options(DecryptOptions::new().workers(workers));
        let told = Told::default();
        files.clone().progress(told.callback()).encrypt_file(&plain, &sealed, &key).await.unwrap();
        assert_eq!(told.last(), (9_000_000, Some(9_000_000)));

        let told = Told::default();
        files.progress(told.callback()).verify_file(&sealed, &key).await.unwrap();
        let len = std::fs::metadata(&sealed).unwrap().len();
        assert_eq!(told.last(), (len, Some(len)));
    }
}

#[test]
fn percent_of_everything() {
    let percent = |done, total| {
        let told = Told::default();
        let mut reader = ProgressReader::new(tokio::io::repeat(0), Some(total), told.callback());
        block_on(reader.read_exact(&mut vec![0; done])).unwrap();
        told.0.lock().unwrap()[0].percent()
    };
    assert_eq!(percent(1, 3), Some(33));
    assert_eq!(percent(2, 3), Some(66));
    assert_eq!(percent(999, 1000), Some(99), "not 100 before all of it is done");
    assert_eq!(percent(1000, 1000), Some(100));
    assert_eq!(percent(10, 1), Some(100));
    assert_eq!(percent(1, u64::MAX), Some(0));
}

#[test]
fn a_callback_is_called_now_and_then_however_fast_the_stream() {
    let told = Told::default();
    let start = Instant::now();
    let mut reader = ProgressReader::new(tokio::io::repeat(7), None, told.callback());
    // Long enough that calls come after the first.
    while start.elapsed() < Duration::from_millis(300) {
        block_on(reader.read_exact(&mut [0; 10])).unwrap();
    }
    // One call at the first, and one for each twentieth of a second that it took.
    let most = 1 + start.elapsed().as_millis() / 50;
    let calls = told.all();
    assert!(calls.len() > 1 && calls.len() as u128 <= most, "{} calls", calls.len());
    assert_eq!(calls[0].0, 10, "the first bytes are told at once");
}

#[test]
fn what_is_read_through_a_buffer_counts_when_it_is_consumed() {
    let told = Told::default();
    let mut reader = ProgressReader::new(BufReader::new(&b"one\ntwo\n"[..]), Some(8), told.callback());
    let mut line = String::new();
    block_on(reader.read_line(&mut line)).unwrap();
    assert_eq!(told.last(), (4, Some(8)));
    while block_on(reader.read_line(&mut line)).unwrap() > 0 {}
    assert_eq!(told.last(), (8, Some(8)));

    let told = Told::default();
    let mut reader = ProgressReader::new(&b"short"[..], Some(100), told.callback());
    block_on(tokio::io::copy_buf(&mut reader, &mut tokio::io::sink())).unwrap();
    assert_eq!(told.last(), (5, Some(5)), "the end of a buffer is an end");
}

#[test]
fn an_error_and_an_empty_read_are_neither_progress_nor_an_end() {
    let told = Told::default();
    let script = Script::once([Op::Error(ErrorKind::TimedOut), Op::Pending]);
    let mut reader = ProgressReader::new(Reader::new(b"abc", script), Some(3), told.callback());
    assert_eq!(block_on(reader.read(&mut [])).ok(), None);
    assert_eq!(block_on(reader.read(&mut [])).unwrap(), 0);
    assert_eq!(told.all(), []);
    block_on(reader.read_to_end(&mut Vec::new())).unwrap();
    assert_eq!(told.last(), (3, Some(3)));
}

#[test]
fn a_writer_counts_what_was_taken_and_ends_when_it_is_shut_down() {
    let told = Told::default();
    let inner =
        Writer { close: Script::once([Op::Error(ErrorKind::TimedOut)]), ..Writer::new(Script::once([Op::Some(2)])) };
    let mut writer = ProgressWriter::new(inner, Some(5), told.callback());
    block_on(writer.write_all(b"abcde")).unwrap();
    assert_eq!(told.all()[0], (2, Some(5)), "a short write counts for what it is");
    block_on(writer.flush()).unwrap();
    block_on(writer.shutdown()).unwrap_err();
    let calls = told.all().len();
    block_on(writer.shutdown()).unwrap();
    assert_eq!(told.last(), (5, Some(5)));
    assert_eq!(told.all().len(), calls + 1, "a shutdown that failed was no end");
    assert_eq!((writer.get_ref().flushes, writer.get_ref().closes), (1, 1));
    assert_eq!(writer.into_inner().data, b"abcde");
}

#[test]
fn writes_of_several_slices_count_as_well() {
    let told = Told::default();
    let mut writer = ProgressWriter::new(Vec::new(), None, told.callback());
    assert!(writer.is_write_vectored());
    assert!(!ProgressWriter::new(Writer::default(), None, |_| {}).is_write_vectored());
    block_on(writer.write_vectored(&[std::io::IoSlice::new(b"abc"), std::io::IoSlice::new(b"de")])).unwrap();
    assert_eq!(told.last(), (5, None));
}
