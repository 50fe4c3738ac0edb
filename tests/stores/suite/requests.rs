//! What each operation asks of the inner store: the table of the module's page, request by request.

use agcm::{
    Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::{ETags, Watched, content};
use futures::StreamExt;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

use crate::{in_chunks, watched};

const CHUNK: usize = 1000;

/// A store with an object of 10 500 bytes in chunks of 1000, which are 10 837 sealed.
async fn with_object(etags: ETags) -> (EncryptedStore<Watched>, Watched, Path, Vec<u8>) {
    let (watched, path, content) = (Watched::with_etags(InMemory::new(), etags), Path::from("a/b"), content(10_500));
    let options = StoreOptions::new().chunk_size(CHUNK).unwrap();
    let store = EncryptedStore::with_options(watched.clone(), &Key::generate(), &options);
    store.put(&path, content.clone().into()).await.unwrap();
    assert_eq!(watched.log(), ["put 10837 Overwrite"]);
    (store, watched, path, content)
}

#[tokio::test]
async fn a_range_of_a_new_object_is_three_requests_and_of_a_known_one_a_single_one() {
    let (store, watched, path, content) = with_object(ETags::Strong).await;
    assert_eq!(store.get_range(&path, 2500..4100).await.unwrap(), content[2500..4100]);
    assert_eq!(watched.log(), ["get 0..80", "get 10800..10837 match", "get 2120..5180 match"]);
    assert_eq!(watched.received(), 80 + 37 + 3 * 1020);

    assert_eq!(store.get_range(&path, 10_499..10_500).await.unwrap(), content[10_499..]);
    assert_eq!(watched.log(), ["get 10280..10800 match"]);
    assert_eq!(watched.received(), 520);

    let suffix = GetOptions::new().with_range(Some(GetRange::Suffix(3)));
    let result = store.get_opts(&path, suffix).await.unwrap();
    assert_eq!((result.range.clone(), result.meta.size), (10_497..10_500, 10_500));
    assert_eq!(result.bytes().await.unwrap(), content[10_497..]);
    assert_eq!(watched.log(), ["get 10280..10800 match"]);
}

#[tokio::test]
async fn ranges_are_a_request_for_those_that_lie_together_and_no_frame_is_fetched_twice() {
    let (watched, path, content) = (Watched::new(InMemory::new()), Path::from("a"), content(3_000_000));
    let options = StoreOptions::new().chunk_size(CHUNK).unwrap();
    let store = EncryptedStore::with_options(watched.clone(), &Key::generate(), &options);
    store.put(&path, content.clone().into()).await.unwrap();
    watched.log();
    let ranges = [2_500_000..2_500_100, 0..1, 999..1001, 5..2000, 2_500_050..2_501_000, 0..1, 10_000..10_001];
    for _ in 0..2 {
        let found = store.get_ranges(&path, &ranges).await.unwrap();
        for (range, found) in ranges.iter().zip(found) {
            assert_eq!(found, content[range.start as usize..range.end as usize], "{range:?}");
        }
        let last = watched.log();
        assert_eq!(last[last.len() - 2..], ["get 80..11300 match", "get 2550080..2551100 match"]);
        assert!(matches!(last.len(), 2 | 4), "{last:?}");
    }
    assert_eq!(store.get_ranges(&path, &[]).await.unwrap().len(), 0);
    assert!(watched.log().is_empty());
}

#[tokio::test]
async fn all_of_an_object_is_one_request_and_so_is_what_is_known_of_it() {
    let (store, watched, path, content) = with_object(ETags::Strong).await;
    let result = store.get(&path).await.unwrap();
    assert_eq!((result.range.clone(), result.meta.size), (0..10_500, 10_500));
    assert_eq!(result.bytes().await.unwrap(), content);
    assert_eq!(watched.log(), ["get"]);
    assert_eq!(watched.received(), 10_837);

    assert_eq!(store.head(&path).await.unwrap().size, 10_500);
    assert_eq!(watched.log(), ["head"]);
    let metas: Vec<_> = store.list(None).collect().await;
    assert_eq!(metas[0].as_ref().unwrap().size, 10_500);
    assert_eq!(watched.log(), ["list"]);
}

#[tokio::test]
async fn a_short_object_keeps_no_room_for_a_long_chunk() {
    let (store, _) = watched(&Key::generate(), &in_chunks(10 * 1024 * 1024));
    let path = Path::from("a");
    store.put(&path, content(100).into()).await.unwrap();
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, content(100));
    let room = bytes.try_into_mut().unwrap().capacity();
    assert!(room < 1000, "{room} bytes for 100");
}
