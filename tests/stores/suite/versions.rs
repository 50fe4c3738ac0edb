//! Objects that are replaced while they are read, and conditions of every kind.

use agcm::{
    Error, Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::{ETags, Watched, content, failure};
use futures::{FutureExt, StreamExt};
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, memory::InMemory, path::Path,
};

use crate::{in_chunks, watched};

const CHUNK: usize = 1000;

/// Two versions of an object, sealed; both hold 10 500 bytes, the second all the same ones.
async fn versions(key: &Key) -> [Vec<u8>; 2] {
    let (store, path) = (EncryptedStore::with_options(InMemory::new(), key, &in_chunks(CHUNK)), Path::from("a"));
    let mut sealed = Vec::new();
    for content in [content(10_500), vec![2; 10_500]] {
        store.put(&path, content.into()).await.unwrap();
        sealed.push(store.get_ref().get(&path).await.unwrap().bytes().await.unwrap().to_vec());
    }
    sealed.try_into().unwrap()
}

/// A store with the first version, which is replaced just before the request of this number.
async fn replaced_before(request: usize, etags: ETags) -> (EncryptedStore<Watched>, Watched, Path) {
    let (key, path) = (Key::generate(), Path::from("a"));
    let [first, second] = versions(&key).await;
    let watched = Watched::with_etags(InMemory::new(), etags);
    watched.inner().put(&path, first.into()).await.unwrap();
    let (inner, at, mut requests) = (watched.clone(), path.clone(), 0);
    watched.set_hook(move |_| {
        requests += 1;
        if requests == request {
            inner.inner().put(&at, second.clone().into()).now_or_never().unwrap().unwrap();
        }
        None
    });
    (EncryptedStore::with_options(watched.clone(), &key, &in_chunks(CHUNK)), watched, path)
}

fn is_precondition(error: &StoreError) -> bool {
    matches!(error, StoreError::Precondition { .. })
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_opened_or_read_is_an_error_and_never_a_mixture() {
    let first = content(10_500);
    for etags in [ETags::Strong, ETags::Weak, ETags::None, ETags::Ignored] {
        for request in 1..=4 {
            let (store, watched, path) = replaced_before(request, etags).await;
            let result = store.get_range(&path, 2500..4100).await;
            match request {
                1 => assert_eq!(result.unwrap(), [2; 1600][..]),
                2 | 3 => {
                    let error = result.unwrap_err();
                    // Where nothing else tells versions apart, their keys do.
                    let told = is_precondition(&error) || (etags == ETags::None && Error::from_store(&error).is_some());
                    assert!(told, "{etags:?} {request}: {error}");
                }
                _ => assert_eq!(result.unwrap(), first[2500..4100]),
            }
            watched.log();
            // Whatever it was, the next one sees what is there.
            let now = store.get_ranges(&path, &[2500..4100, 0..1]).await.unwrap();
            assert_eq!(now, [&[2; 1600][..], &[2]], "{etags:?} {request}");
        }
    }
}

#[tokio::test]
async fn a_remembered_object_that_was_replaced_is_opened_anew() {
    let (store, watched) = watched(&Key::generate(), &in_chunks(CHUNK));
    let path = Path::from("a");
    let replace = async |content: Vec<u8>| {
        // Past the store, which therefore does not know.
        let sealed = {
            let store = &store;
            let aside = Path::from("aside");
            store.put(&aside, content.into()).await.unwrap();
            watched.inner().get(&aside).await.unwrap().bytes().await.unwrap()
        };
        watched.inner().put(&path, sealed.into()).await.unwrap();
        watched.log();
    };
    replace(content(5000)).await;
    assert_eq!(store.get_range(&path, 0..10).await.unwrap(), content(10));
    replace(vec![2; 9000]).await;
    assert_eq!(store.get_range(&path, 0..10).await.unwrap(), [2; 10][..]);
    assert_eq!(watched.log(), ["get 80..1100 match", "get 0..80", "get 9260..9297 match", "get 80..1100 match"]);
    // It is longer: what was outside of the old one is inside of the new one.
    replace(vec![3; 20_000]).await;
    assert_eq!(store.get_range(&path, 15_000..15_010).await.unwrap(), [3; 10][..]);
    replace(vec![4; 30_000]).await;
    assert_eq!(store.get_ranges(&path, &[25_000..25_010, 1..3]).await.unwrap(), [&[4; 10][..], &[4; 2]]);
    // And a suffix is that of the new one.
    replace(Vec::new()).await;
    let suffix = GetOptions::new().with_range(Some(GetRange::Suffix(10)));
    assert_eq!(store.get_opts(&path, suffix.clone()).await.unwrap().bytes().await.unwrap(), "");
    replace(vec![5; 100]).await;
    assert_eq!(store.get_opts(&path, suffix).await.unwrap().bytes().await.unwrap(), [5; 10][..]);
    watched.inner().delete(&path).await.unwrap();
    for _ in 0..2 {
        let error = store.get_range(&path, 0..1).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_object_whose_etag_has_come_twice_is_opened_anew_once_it_does_not_fit() {
    let (key, path) = (Key::generate(), Path::from("a"));
    let [first, second] = versions(&key).await;
    for by_ranges in [true, false] {
        let watched = Watched::with_etags(InMemory::new(), ETags::Repeated);
        watched.inner().put(&path, first.clone().into()).await.unwrap();
        let store = EncryptedStore::with_options(watched.clone(), &key, &in_chunks(CHUNK));
        assert_eq!(store.get_range(&path, 2500..4100).await.unwrap(), content(10_500)[2500..4100]);
        watched.inner().put(&path, second.clone().into()).await.unwrap();
        if by_ranges {
            assert_eq!(store.get_ranges(&path, &[2500..4100, 0..1]).await.unwrap(), [&[2; 1600][..], &[2]]);
        } else {
            // It is found too late for this one.
            let error = store.get_range(&path, 2500..4100).await.unwrap_err();
            assert!(matches!(Error::from_store(&error), Some(Error::Corrupt { .. })), "{error}");
        }
        assert_eq!(store.get_range(&path, 2500..4100).await.unwrap(), [2; 1600][..]);
    }
}

#[tokio::test]
async fn what_is_written_through_the_store_is_opened_anew_at_once() {
    let (store, watched) = watched(&Key::generate(), &in_chunks(CHUNK));
    let (path, other) = (Path::from("a"), Path::from("b"));
    store.put(&other, vec![9; 10].into()).await.unwrap();
    for step in 0..4 {
        store.put(&path, vec![1; 10].into()).await.unwrap();
        store.get_range(&path, 0..1).await.unwrap();
        let expected = match step {
            0 => store.put(&path, vec![2; 10].into()).await.map(|_| 2).unwrap(),
            1 => {
                let mut upload = store.put_multipart(&path).await.unwrap();
                upload.put_part(vec![3; 10].into()).await.unwrap();
                upload.complete().await.map(|_| 3).unwrap()
            }
            2 => store.copy(&other, &path).await.map(|_| 9).unwrap(),
            _ => store.rename(&other, &path).await.map(|_| 9).unwrap(),
        };
        watched.log();
        assert_eq!(store.get_range(&path, 0..1).await.unwrap(), [expected][..]);
        assert_eq!(watched.log().len(), 3, "nothing was asked for that could only fail");
    }
    store.delete(&path).await.unwrap();
    watched.log();
    store.get_range(&path, 0..1).await.unwrap_err();
    assert_eq!(watched.log(), ["get 0..80"]);
}

#[tokio::test]
async fn a_caller_who_asks_for_a_version_gets_that_or_an_error() {
    let (store, watched) = watched(&Key::generate(), &in_chunks(CHUNK));
    let path = Path::from("a");
    let range = |options: GetOptions| options.with_range(Some(10..20));
    store.put(&path, vec![1; 3000].into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    let this = || GetOptions::new().with_if_match(meta.e_tag.clone());
    watched.log();
    store.get_opts(&path, range(this())).await.unwrap();
    assert_eq!(watched.log(), ["get 0..80 match", "get 3140..3177 match", "get 80..1100 match"]);
    store.get_opts(&path, range(this())).await.unwrap();
    assert_eq!(watched.log(), ["get 80..1100 match"]);
    // Any other condition is for the inner store to check.
    let unlike = GetOptions::new().with_if_none_match(Some("\"other\""));
    store.get_opts(&path, range(unlike)).await.unwrap();
    assert_eq!(watched.log(), ["get 0..80", "get 80..1100 match"]);
    for (options, expected) in [
        (GetOptions::new().with_if_none_match(meta.e_tag.clone()), "NotModified"),
        (GetOptions::new().with_if_modified_since(Some(meta.last_modified)), "NotModified"),
        (GetOptions::new().with_if_match(Some("\"other\"")), "Precondition"),
    ] {
        for options in [range(options.clone()), options] {
            let error = store.get_opts(&path, options).await.unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        }
    }
    watched.inner().copy(&path, &Path::from("b")).await.unwrap();
    watched.inner().copy(&Path::from("b"), &path).await.unwrap();
    // The same bytes, but another version.
    for options in [range(this()), this()] {
        assert!(is_precondition(&store.get_opts(&path, options).await.unwrap_err()));
    }
    assert_eq!(store.get_range(&path, 10..20).await.unwrap(), [1; 10][..]);
}

#[tokio::test]
async fn without_strong_etags_nothing_is_remembered_and_requests_are_bound_to_the_time() {
    for etags in [ETags::Weak, ETags::None] {
        let watched = Watched::with_etags(InMemory::new(), etags);
        let store = EncryptedStore::with_options(watched.clone(), &Key::generate(), &in_chunks(CHUNK));
        let path = Path::from("a");
        store.put(&path, content(3000).into()).await.unwrap();
        watched.log();
        for _ in 0..2 {
            assert_eq!(store.get_range(&path, 10..20).await.unwrap(), content(20)[10..]);
            assert_eq!(watched.log(), ["get 0..80", "get 3140..3177 unmodified", "get 80..1100 unmodified"]);
        }
    }
}

#[tokio::test]
async fn no_more_objects_are_remembered_than_was_said() {
    for (most, requests) in [(0, [3, 3]), (1, [3, 1]), (2, [1, 1])] {
        let (store, watched) = watched(&Key::generate(), &in_chunks(CHUNK).cache(most));
        let [a, b] = ["a", "b"].map(Path::from);
        for path in [&a, &b] {
            store.put(path, content(10).into()).await.unwrap();
            store.get_range(path, 0..1).await.unwrap();
        }
        watched.log();
        let found = [&a, &a].map(|path| {
            store.get_range(path, 0..1).now_or_never().unwrap().unwrap();
            watched.log().len()
        });
        assert_eq!(found, requests, "{most}");
    }
}

#[tokio::test]
async fn conditional_puts_are_those_of_the_inner_store() {
    let (store, watched) = watched(&Key::generate(), &StoreOptions::new());
    let path = Path::from("a");
    let first = store.put_opts(&path, "1".into(), PutMode::Create.into()).await.unwrap();
    let error = store.put_opts(&path, "2".into(), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error}");
    let update = || PutMode::Update(first.clone().into());
    store.put_opts(&path, "3".into(), update().into()).await.unwrap();
    assert!(is_precondition(&store.put_opts(&path, "4".into(), update().into()).await.unwrap_err()));
    assert_eq!(watched.log(), ["put 138 Create", "put 138 Create", "put 138 Update", "put 138 Update"]);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "3");
}

#[tokio::test]
async fn errors_of_the_inner_store_are_passed_on_and_end_nothing_else() {
    let (store, watched) = watched(&Key::generate(), &in_chunks(CHUNK));
    let path = Path::from("a");
    store.put(&path, content(3000).into()).await.unwrap();
    for request in 1..=3 {
        let mut requests = 0;
        watched.set_hook(move |_| {
            requests += 1;
            (requests == request).then(failure)
        });
        let error = store.get_range(&path, 10..20).await.unwrap_err();
        assert_eq!(error.to_string(), failure().to_string());
        watched.set_hook(|_| None);
        assert_eq!(store.get_range(&path, 10..20).await.unwrap(), content(20)[10..]);
        // Forgotten, for the next turn.
        store.put(&path, content(3000).into()).await.unwrap();
    }
    watched.set_hook(|_| Some(failure()));
    store.put(&path, "new".into()).await.unwrap_err();
    store.get(&path).await.unwrap_err();
    store.head(&path).await.unwrap_err();
    store.copy(&path, &Path::from("b")).await.unwrap_err();
    let deleted = store.delete_stream(futures::stream::iter([Ok(path.clone())]).boxed());
    assert!(deleted.collect::<Vec<_>>().await[0].is_err());
    watched.set_hook(|_| None);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content(3000));
}
