//! What is told through the feature `tracing`: of every way to encrypt and decrypt, at every ending, and nothing that is secret.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside this test can reach anything in it")]

mod recorder;
mod secrets;
mod ways;

use std::panic::{RefUnwindSafe, UnwindSafe};

use agcm::{
    DecryptOptions, Decryptor, EncryptOptions, EncryptWriter, Encryptor, Error, FileOptions, Key, RangeReader,
    SeekReader, Trailing,
    codec::{FrameDecoder, FrameEncoder},
    encrypt_file,
};
use bytes::Bytes;
use recorder::{Log, Told, alone};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};
use tracing::{Level, info_span};
use ways::{CHUNK, DECRYPTING, ENCRYPTING, FRAMES, LEN, PARTLY_DECRYPTING, PARTLY_ENCRYPTING, plaintext};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn chunks() -> EncryptOptions {
    EncryptOptions::new().chunk_size(CHUNK).unwrap()
}

/// The events of this target, in order.
fn events<'a>(log: &'a Log, target: &str) -> Vec<&'a Told> {
    assert_eq!(log.entered, 0, "a span is left as often as it is entered");
    log.events.iter().filter(|event| event.target == target).collect()
}

fn names<'a>(events: &[&'a Told]) -> Vec<&'a str> {
    events.iter().map(|event| &event.name[..]).collect()
}

/// Checks that one stream was opened and ended, and how; also that its span says so.
#[track_caller]
fn assert_one_stream(log: &Log, way: &str, direction: &str, outcome: &str, (bytes, frames): (usize, usize)) -> Told {
    let events = events(log, "agcm::stream");
    assert_eq!(names(&events), ["stream opened", &format!("stream {outcome}")], "{way}");
    let (opened, ended) = (events[0], events[1]);
    assert_eq!(opened.level, Level::DEBUG, "{way}");
    let ids: Vec<_> = (1..).zip(&log.spans).filter(|(_, span)| span.target == "agcm::stream").collect();
    let [(id, span)] = ids[..] else { panic!("{way}: {} spans", ids.len()) };
    assert_eq!((&span.name[..], span.level), ("stream", Level::DEBUG));
    assert_eq!(span.fields["outcome"], outcome);
    for told in [opened, ended, span] {
        assert_eq!(told.fields["direction"], direction, "{way}");
        assert_eq!(told.number("chunk_size"), CHUNK as u64, "{way}");
    }
    for told in [ended, span] {
        assert_eq!((told.number("bytes"), told.number("frames")), (bytes as u64, frames as u64), "{way}");
        assert!((0.0..60.0).contains(&told.fields["seconds"].parse().unwrap()), "{way}");
    }
    assert_eq!((opened.parent, ended.parent), (Some(id), Some(id)), "{way}");
    ended.clone()
}

/// What a subscriber does, nobody knows; but the types are no less than without it.
#[test]
fn the_feature_takes_no_property_from_a_type() {
    fn has_all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    has_all::<(Encryptor, Decryptor, FrameEncoder, FrameDecoder)>();
}

#[test]
fn every_way_to_encrypt_tells_of_a_stream_that_is_opened_and_finished() {
    let alone = alone();
    let runtime = runtime();
    for (way, encrypt) in ENCRYPTING {
        let log = alone.record(|| drop(runtime.block_on(encrypt(&Key::generate(), &chunks()))));
        let ended = assert_one_stream(&log, way, "encrypt", "finished", (LEN, FRAMES));
        assert_eq!(ended.level, Level::DEBUG);
    }
}

#[test]
fn a_stream_that_nobody_finishes_is_dropped_after_what_was_sealed() {
    let alone = alone();
    let runtime = runtime();
    for (way, encrypt) in PARTLY_ENCRYPTING {
        let log = alone.record(|| runtime.block_on(encrypt(&Key::generate(), &chunks())));
        let ended = assert_one_stream(&log, way, "encrypt", "dropped", (2 * CHUNK, 2));
        assert_eq!(ended.level, Level::DEBUG);
    }
}

#[test]
fn every_way_to_decrypt_tells_of_a_stream_that_is_whole() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let stream = chunks().encrypt(&key, &plaintext());
    for (way, decrypt) in DECRYPTING {
        let log = alone.record(|| runtime.block_on(decrypt(&key, &DecryptOptions::new(), &stream)).unwrap());
        let ended = assert_one_stream(&log, way, "decrypt", "finished", (LEN, FRAMES));
        assert_eq!(ended.level, Level::DEBUG);
    }
}

#[test]
fn what_is_wrong_with_a_stream_is_told_once_with_what_was_authentic_before_it() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let whole = chunks().encrypt(&key, &plaintext());
    let at = |frame: usize| 80 + frame * (CHUNK + 20);
    let damaged = |at: usize| {
        let mut stream = whole.clone();
        stream[at] ^= 1;
        stream
    };
    let last = whole.len() - 1;
    let cases = [
        (damaged(at(2) + 9), Error::Corrupt { frame: 2, at: at(2) as u64 }, 2),
        (damaged(at(0) + 9), Error::Corrupt { frame: 0, at: 80 }, 0),
        (damaged(last), Error::Corrupt { frame: FRAMES as u64, at: last as u64 - 36 }, FRAMES),
        (whole[..at(3) + 100].to_vec(), Error::Truncated { at: at(3) as u64 + 100 }, 3),
        (whole[..last].to_vec(), Error::Truncated { at: last as u64 }, FRAMES),
    ];
    for (stream, error, frames) in cases {
        for (way, decrypt) in DECRYPTING {
            let log =
                alone.record(|| drop(runtime.block_on(decrypt(&key, &DecryptOptions::new(), &stream)).unwrap_err()));
            let bytes = (frames * CHUNK).min(LEN);
            let ended = assert_one_stream(&log, way, "decrypt", "failed", (bytes, frames));
            assert_eq!(ended.fields["error"], format!("{error:?}"), "{way}");
            let cut = matches!(error, Error::Truncated { .. });
            assert_eq!(ended.level, if cut { Level::INFO } else { Level::WARN }, "{way}");
        }
    }
}

#[test]
fn a_stream_that_cannot_be_opened_has_failed_and_has_no_span() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let stream = chunks().encrypt(&key, &plaintext());
    for (way, decrypt) in DECRYPTING {
        for (stream, error) in [(&stream[..], "KeyMismatch"), (b"ABCDEF", "BadMagic"), (b"", "Truncated { at: 0 }")] {
            // An input without any frames is no stream to a codec, but the end of them.
            if stream.is_empty() && way == "codec" {
                continue;
            }
            let other = Key::generate();
            let log =
                alone.record(|| drop(runtime.block_on(decrypt(&other, &DecryptOptions::new(), stream)).unwrap_err()));
            let events = events(&log, "agcm::stream");
            assert_eq!(names(&events), ["stream failed"], "{way}");
            assert_eq!(events[0].fields["error"], error, "{way}");
            assert_eq!((events[0].number("bytes"), events[0].number("frames")), (0, 0));
            assert!(!events[0].fields.contains_key("chunk_size"));
            assert!(log.spans.iter().all(|span| span.target != "agcm::stream"), "{way}");
        }
    }
}

#[test]
fn a_reader_that_is_given_up_is_dropped_after_what_it_opened() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let stream = chunks().encrypt(&key, &plaintext());
    for (way, decrypt) in PARTLY_DECRYPTING {
        let log = alone.record(|| runtime.block_on(decrypt(&key, &stream)));
        let ended = assert_one_stream(&log, way, "decrypt", "dropped", (CHUNK, 1));
        assert_eq!(ended.level, Level::DEBUG);
    }
}

#[test]
fn what_follows_a_stream_fails_it_after_it_was_finished() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let stream = [chunks().encrypt(&key, &plaintext()), b"x".to_vec()].concat();
    let reject = DecryptOptions::new().trailing(Trailing::Reject);
    for (way, decrypt) in DECRYPTING {
        let log = alone.record(|| drop(runtime.block_on(decrypt(&key, &reject, &stream)).unwrap_err()));
        let events = events(&log, "agcm::stream");
        assert_eq!(names(&events), ["stream opened", "stream finished", "stream failed"], "{way}");
        assert!(events[2].fields["error"].starts_with("TrailingData"), "{way}");
        assert_eq!(events[2].number("bytes"), LEN as u64);
    }
}

/// Those who read ahead know how a stream ends before they have opened what comes before that.
#[test]
fn workers_tell_of_an_end_when_all_before_it_was_opened() {
    const LONG: usize = 64 * 1024;
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let options = EncryptOptions::new().chunk_size(LONG).unwrap().workers(2);
    let plain = vec![7; 60 * LONG];
    let whole = options.encrypt(&key, &plain);
    let at = |frame: usize| 80 + frame * (LONG + 20);
    let mut damaged = whole.clone();
    damaged[at(40) + 5] ^= 1;
    let cases = [(&whole[..], "finished", 60), (&damaged, "failed", 40), (&whole[..at(50) + 7], "failed", 50)];
    for (stream, outcome, frames) in cases {
        for (way, decrypt) in DECRYPTING {
            let log = alone.record(|| drop(runtime.block_on(decrypt(&key, &DecryptOptions::new().workers(2), stream))));
            let events = events(&log, "agcm::stream");
            assert_eq!(names(&events), ["stream opened", &format!("stream {outcome}")], "{way}");
            assert_eq!(
                (events[1].number("bytes"), events[1].number("frames")),
                (frames * LONG as u64, frames),
                "{way}"
            );
        }
    }
    let log = alone.record(|| {
        runtime.block_on(async {
            let mut writer = EncryptWriter::with_options(tokio::io::sink(), &key, &options);
            writer.write_all(&plain).await.unwrap();
            writer.shutdown().await.unwrap();
        });
    });
    let events = events(&log, "agcm::stream");
    assert_eq!((events[1].number("bytes"), events[1].number("frames")), (60 * LONG as u64, 60));
}

/// The bulk of a large file is opened by several threads, out of sight of who reads in order.
#[test]
fn large_files_tell_of_as_much_as_small_ones() {
    const MANY: usize = 100;
    let (alone, runtime, key) = (alone(), runtime(), Key::generate());
    let plain = vec![7; MANY * 65_536 + 5];
    let whole = agcm::encrypt(&key, &plain);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("plain"), &plain).unwrap();
    let log = alone.record(|| {
        runtime.block_on(encrypt_file(path("plain"), path("sealed"), &key)).unwrap();
    });
    let sealed = events(&log, "agcm::stream");
    assert_eq!(names(&sealed), ["stream opened", "stream finished"]);
    assert_eq!((sealed[1].number("bytes"), sealed[1].number("frames")), (plain.len() as u64, MANY as u64 + 1));

    let at = |frame: usize| 80 + frame * 65_556;
    let mut damaged = whole.clone();
    damaged[at(70) + 5] ^= 1;
    let mut cases = vec![(&whole[..], "finished", plain.len(), MANY + 1), (&damaged, "failed", 70 * 65_536, 70)];
    // One of them ends where those end that are opened together.
    cases.extend((80..84).map(|frame| (&whole[..at(frame) + 50], "failed", frame * 65_536, frame)));
    for (stream, outcome, bytes, frames) in cases {
        std::fs::write(path("sealed"), stream).unwrap();
        for workers in 1..4 {
            let files = FileOptions::new().decrypt_options(DecryptOptions::new().workers(workers));
            let log = alone.record(|| drop(runtime.block_on(files.verify_file(path("sealed"), &key))));
            let events = events(&log, "agcm::stream");
            assert_eq!(names(&events), ["stream opened", &format!("stream {outcome}")]);
            assert_eq!((events[1].number("bytes"), events[1].number("frames")), (bytes as u64, frames as u64));
        }
    }
}

#[test]
fn readers_by_offset_tell_that_they_were_opened_and_what_they_could_not_read() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let mut stream = chunks().encrypt(&key, &plaintext());
    stream[80 + 2 * (CHUNK + 20) + 9] ^= 1;
    let len = stream.len();
    let error = format!("{:?}", Error::Corrupt { frame: 2, at: (80 + 2 * (CHUNK + 20)) as u64 });
    let check = |log: &Log| {
        let events = events(log, "agcm::reader");
        assert_eq!(names(&events), ["reader opened", "range failed"]);
        assert_eq!((events[0].level, events[1].level), (Level::DEBUG, Level::WARN));
        assert_eq!((events[0].number("bytes"), events[0].number("frames")), (LEN as u64, FRAMES as u64));
        assert_eq!((events[0].number("chunk_size"), &events[0].fields["uniform"][..]), (CHUNK as u64, "true"));
        assert_eq!(events[1].fields["error"], error);
        assert_eq!(log.events.len(), 2, "and nothing else, not even when they are dropped");
    };
    check(&alone.record(|| {
        runtime.block_on(async {
            let reader = RangeReader::open(Bytes::from(stream.clone()), &key).await.unwrap();
            reader.read_range(5..500).await.unwrap();
            reader.read_range(2500..2600).await.unwrap_err();
        });
    }));
    check(&alone.record(|| {
        runtime.block_on(async {
            let mut reader = SeekReader::open(std::io::Cursor::new(&stream), &key).await.unwrap();
            reader.read_exact(&mut [0; 500]).await.unwrap();
            reader.seek(std::io::SeekFrom::Start(2500)).await.unwrap();
            reader.read_exact(&mut [0; 10]).await.unwrap_err();
        });
    }));
    #[cfg(feature = "object_store")]
    {
        use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

        let (inner, path) = (InMemory::new(), Path::from("a"));
        runtime.block_on(inner.put(&path, stream.clone().into())).unwrap();
        let options = agcm::object_store::StoreOptions::new().chunk_size(CHUNK).unwrap();
        let store = agcm::object_store::EncryptedStore::with_options(inner, &key, &options);
        check(&alone.record(|| {
            runtime.block_on(async {
                store.get_range(&path, 5..500).await.unwrap();
                store.get_range(&path, 2500..2600).await.unwrap_err();
            });
        }));
        let log = alone.record(|| drop(runtime.block_on(store.get_ranges(&path, &[5..6, 2500..2600])).unwrap_err()));
        assert_eq!(names(&events(&log, "agcm::reader")), ["reader opened", "range failed"]);
    }
    for (cut, error, level) in [
        (&stream[..len - 1], format!("{:?}", Error::Truncated { at: len as u64 - 1 }), Level::INFO),
        (&b"ABCD"[..], "BadMagic".into(), Level::WARN),
    ] {
        let failing = [
            alone.record(|| drop(runtime.block_on(RangeReader::open(Bytes::copy_from_slice(cut), &key)).unwrap_err())),
            alone.record(|| drop(runtime.block_on(SeekReader::open(std::io::Cursor::new(cut), &key)).unwrap_err())),
        ];
        for log in failing {
            let events = events(&log, "agcm::reader");
            assert_eq!((names(&events), events[0].level), (vec!["reader failed"], level));
            assert_eq!(events[0].fields["error"], error);
        }
    }
}

#[test]
fn work_on_files_has_a_span_that_holds_the_stream_and_is_in_the_callers() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("plain"), plaintext()).unwrap();
    let options = FileOptions::new().encrypt_options(chunks());
    let log = alone.record(|| {
        let _request = info_span!(target: "caller", "request").entered();
        runtime.block_on(async {
            options.encrypt_file(path("plain"), path("sealed"), &key).await.unwrap();
            options.rekey_file(path("sealed"), path("sealed"), &key, &key).await.unwrap();
            options.decrypt_file(path("sealed"), path("restored"), &key).await.unwrap();
            options.verify_file(path("sealed"), &key).await.unwrap();
            options.encrypt_from(&plaintext()[..], path("sealed 2"), &key).await.unwrap();
            options.decrypt_from(&chunks().encrypt(&key, &plaintext())[..], path("restored 2"), &key).await.unwrap();
        });
    });
    let jobs = ["encrypt_file", "rekey_file", "decrypt_file", "verify_file", "encrypt_from", "decrypt_from"];
    let finished = events(&log, "agcm::file");
    let told: Vec<_> = finished.iter().map(|event| (&event.name[..], &event.fields["job"][..])).collect();
    assert_eq!(told, jobs.map(|job| ("file finished", job)));
    let spans: Vec<_> = (1..).zip(&log.spans).filter(|(_, span)| span.target == "agcm::file").collect();
    for ((event, job), (id, span)) in finished.iter().zip(jobs).zip(&spans) {
        assert_eq!((span.parent, event.parent), (Some(1), Some(*id)), "{job}");
        assert_eq!((event.number("bytes"), span.number("bytes")), (LEN as u64, LEN as u64), "{job}");
        assert_eq!((&span.fields["job"][..], &span.fields["outcome"][..]), (job, "finished"));
        assert!(span.fields.contains_key("seconds") && event.fields.contains_key("seconds"));
        let streams = log.spans.iter().filter(|span| span.target == "agcm::stream" && span.parent == Some(*id));
        assert_eq!(streams.count(), if job == "rekey_file" { 2 } else { 1 }, "{job}");
    }
}

#[test]
fn work_on_files_that_fails_or_is_dropped_is_told_without_its_paths() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stream = agcm::encrypt(&key, &plaintext());
    std::fs::write(path("cut"), &stream[..100]).unwrap();
    let log = alone.record(|| {
        runtime.block_on(async {
            encrypt_file(path("nowhere"), path("sealed"), &key).await.unwrap_err();
            agcm::decrypt_file(path("cut"), path("restored"), &key).await.unwrap_err();
            let (never, _far) = tokio::io::duplex(1);
            let options = FileOptions::new();
            let mut job = Box::pin(options.encrypt_from(never, path("never"), &key));
            assert!(futures::poll!(&mut job).is_pending());
        });
    });
    let events = events(&log, "agcm::file");
    assert_eq!(names(&events), ["file failed", "file failed", "file dropped"]);
    assert_eq!([0, 1, 2].map(|i| events[i].level), [Level::INFO, Level::WARN, Level::DEBUG]);
    assert_eq!(events[0].fields["error"], "NotFound");
    assert_eq!(events[1].fields["error"], "Truncated { at: 100 }");
    let spans = log.spans.iter().filter(|span| span.target == "agcm::file");
    assert!(spans.map(|span| &span.fields["outcome"][..]).eq(["failed", "failed", "dropped"]));
}
