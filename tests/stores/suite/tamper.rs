//! Damage of every kind to what lies in the inner store.

use agcm::{Error, Key, object_store::EncryptedStore};
use agcm_stores::content;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

use crate::{in_chunks, watched};

const CHUNK: usize = 16;

/// An object of four chunks, of which the last is shorter, and what it was.
async fn sealed(key: &Key) -> (Vec<u8>, Vec<u8>) {
    let (path, content) = (Path::from("a"), content(55));
    let store = EncryptedStore::with_options(InMemory::new(), key, &in_chunks(CHUNK));
    store.put(&path, content.clone().into()).await.unwrap();
    let sealed = store.get_ref().get(&path).await.unwrap().bytes().await.unwrap();
    (sealed.to_vec(), content)
}

/// A store with this object, as one finds it that knows nothing of it.
async fn with(key: &Key, object: Vec<u8>) -> (EncryptedStore<InMemory>, Path) {
    let (inner, path) = (InMemory::new(), Path::from("a"));
    inner.put(&path, object.into()).await.unwrap();
    (EncryptedStore::with_options(inner, key, &in_chunks(CHUNK)), path)
}

#[tokio::test]
async fn no_byte_of_an_object_can_be_changed_unnoticed() {
    let key = Key::generate();
    let (sealed, content) = sealed(&key).await;
    for at in 0..sealed.len() {
        for flip in [1, 0x80] {
            let mut changed = sealed.clone();
            changed[at] ^= flip;
            let (store, path) = with(&key, changed).await;

            // All of it: nothing goes unnoticed, and what came before is right.
            match store.get(&path).await {
                Ok(result) => {
                    let error = result.bytes().await.unwrap_err();
                    assert!(
                        Error::from_store(&error).is_some() || error.to_string().contains("uniform"),
                        "{at}: {error}"
                    );
                }
                Err(error) => assert!(Error::from_store(&error).is_some(), "{at}: {error}"),
            }

            // A range: an error, or right; and an error if it is in the frames that hold it, or in either end.
            let ranges = [20..40, 3..5, 54..55];
            for (range, frames) in ranges.iter().zip([1..3, 0..1, 3..4]) {
                let held = 80 + frames.start * 36..80 + frames.end * 36;
                let must_fail = at < 80 || at >= sealed.len() - 37 || held.contains(&at);
                match store.get_range(&path, range.clone()).await {
                    Ok(bytes) => {
                        assert!(!must_fail, "{at} {range:?}");
                        assert_eq!(bytes, content[range.start as usize..range.end as usize]);
                    }
                    Err(error) => {
                        assert!(must_fail, "{at} {range:?}: {error}");
                        assert!(Error::from_store(&error).is_some(), "{at}: {error}");
                    }
                }
            }

            // Several at once: they are one request, but only the frames that hold them count.
            let must_fail = at < 80 || at >= sealed.len() - 37 || !(80 + 36..80 + 2 * 36).contains(&at);
            match store.get_ranges(&path, &[3..5, 54..55, 40..48]).await {
                Ok(found) => {
                    assert!(!must_fail, "{at}");
                    assert_eq!(found, [&content[3..5], &content[54..55], &content[40..48]]);
                }
                Err(error) => {
                    assert!(must_fail, "{at}: {error}");
                    assert!(Error::from_store(&error).is_some(), "{at}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_object_can_be_cut_or_grown_unnoticed() {
    let key = Key::generate();
    let (sealed, _) = sealed(&key).await;
    let cuts = (0..sealed.len()).map(|len| sealed[..len].to_vec());
    let grown = [1, 20, 36, 37, 117].map(|more| [&sealed[..], &vec![0; more]].concat());
    let twice = [[&sealed[..], &sealed].concat()];
    for object in cuts.chain(grown).chain(twice) {
        let len = object.len();
        let (store, path) = with(&key, object).await;
        let whole = match store.get(&path).await {
            Ok(result) => result.bytes().await.unwrap_err(),
            Err(error) => error,
        };
        // Of a length that no stream has it is only said that something is missing, whichever way it came about.
        let is_possible = agcm::geometry::Uniform::from_stream_len(len as u64, 16).is_some();
        let expected = match len > sealed.len() && is_possible {
            true => Error::TrailingData { at: sealed.len() as u64 },
            false => Error::Truncated { at: len as u64 },
        };
        assert_eq!(Error::from_store(&whole), Some(expected), "{len}: {whole}");
        assert!(whole.to_string().contains("the object \"a\""), "{whole}");
        for range in [0..1, 20..40, 54..55] {
            let error = store.get_range(&path, range.clone()).await.unwrap_err();
            assert!(Error::from_store(&error).is_some(), "{len} {range:?}: {error}");
            store.get_ranges(&path, &[range]).await.unwrap_err();
        }
        if len < sealed.len() {
            let found = Error::from_store(&store.get_range(&path, 0..1).await.unwrap_err());
            assert_eq!(found, Some(Error::Truncated { at: len as u64 }));
        }
    }
}

#[tokio::test]
async fn frames_cannot_change_places() {
    let key = Key::generate();
    let (mut changed, _) = sealed(&key).await;
    changed[80..80 + 72].rotate_left(36);
    let (store, path) = with(&key, changed).await;
    let error = store.get(&path).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::Corrupt { frame: 0, at: 80 }));
    let error = store.get_range(&path, 16..32).await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::Corrupt { frame: 1, at: 116 }));
}

#[tokio::test]
async fn what_came_before_damage_is_right_and_the_error_is_said_again_instead_of_an_end() {
    use futures::StreamExt;

    let key = Key::generate();
    let (mut changed, content) = sealed(&key).await;
    changed[80 + 2 * 36 + 10] ^= 1;
    let (store, path) = with(&key, changed).await;
    for range in [None, Some(1..55)] {
        let start = range.is_some() as usize;
        let options = object_store::GetOptions::new().with_range(range);
        let mut pieces = store.get_opts(&path, options).await.unwrap().into_stream();
        let mut found = Vec::new();
        for _ in 0..2 {
            found.extend(pieces.next().await.unwrap().unwrap());
        }
        assert_eq!(found, content[start..32]);
        for _ in 0..3 {
            let error = pieces.next().await.unwrap().unwrap_err();
            assert_eq!(Error::from_store(&error), Some(Error::Corrupt { frame: 2, at: 152 }));
        }
    }
}

#[tokio::test]
async fn a_store_that_lies_about_the_length_of_an_object_is_found_out() {
    let (key, path) = (Key::generate(), Path::from("a"));
    let whole = |len: usize| (117 + len + 20 * len.div_ceil(100)) as u64;
    let store = EncryptedStore::with_options(InMemory::new(), &key, &in_chunks(100));
    store.put(&path, content(250).into()).await.unwrap();
    let sealed = store.get_ref().get(&path).await.unwrap().bytes().await.unwrap();
    let grown = [&sealed[..], b"more"].concat();
    let cases = [
        (sealed.to_vec(), whole(100), "not as long as the store has said"),
        (sealed.to_vec(), whole(200), "not as long as the store has said"),
        (sealed.to_vec(), whole(249), "not as long as the store has said"),
        (sealed.to_vec(), whole(251), "not as long as the store has said"),
        (two_chunks(&key), whole(300), "not as long as the store has said"),
        (grown, whole(250), "more bytes follow its end at byte 427"),
        (sealed[..300].to_vec(), whole(250), "stops at byte 300"),
    ];
    for (object, size, expected) in cases {
        let (store, watched) = watched(&key, &in_chunks(100));
        watched.inner().put(&path, object.into()).await.unwrap();
        watched.set_size(size);
        let result = store.get(&path).await.unwrap();
        assert_eq!(result.meta.size, size - 117 - 20 * result.meta.size.div_ceil(100));
        let error = result.bytes().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        // By offset, what is said to be the object may well be one.
        assert_eq!(store.get_range(&path, 0..1).await.is_ok(), expected.starts_with("more bytes"));
    }
}

#[tokio::test]
async fn what_follows_what_was_asked_for_is_not_taken_in() {
    let (key, path) = (Key::generate(), Path::from("a"));
    let (store, watched) = watched(&key, &in_chunks(100));
    store.put(&path, content(250).into()).await.unwrap();
    watched.set_endless();
    assert_eq!(store.get_range(&path, 90..210).await.unwrap(), content(250)[90..210]);
    assert_eq!(store.get_ranges(&path, &[90..210, 3..4]).await.unwrap()[1], content(250)[3..4]);
    let error = store.get(&path).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::TrailingData { at: 427 }));
    let received = watched.received();
    assert!(received < 10 * 1024 * 1024, "{received} bytes were taken in");
}

#[tokio::test]
async fn an_answer_to_another_range_is_refused() {
    let (key, path) = (Key::generate(), Path::from("a"));
    let (store, watched) = watched(&key, &in_chunks(100));
    store.put(&path, content(250).into()).await.unwrap();
    // All of it, as servers answer that know no ranges.
    watched.set_whole();
    let error = store.get_range(&path, 90..210).await.unwrap_err();
    assert!(error.to_string().contains("was asked for the bytes 0..80, and has answered with 0..427"), "{error}");
}

/// A stream of two full chunks of 100 bytes.
fn two_chunks(key: &Key) -> Vec<u8> {
    agcm::EncryptOptions::new().chunk_size(100).unwrap().encrypt(key, &[7; 200])
}
