//! Ranges of every kind give the bytes that they mean.

use agcm::{
    Error, Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::content;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory, path::Path,
};
use proptest::{collection::vec, prelude::*, test_runner::Config};

use crate::in_chunks;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(Config { cases: 300, ..Config::default() })]

    #[test]
    fn all_ranges_are_those_of_the_plaintext(
        chunk in 1..200_usize,
        len in 0..3000_usize,
        ranges in vec((0..3000_u64, 1..2000_u64), 1..12),
        known in any::<bool>(),
    ) {
        run(async {
            let (path, content) = (Path::from("a"), content(len));
            let plain = InMemory::new();
            plain.put(&path, content.clone().into()).await.unwrap();
            let store = EncryptedStore::with_options(InMemory::new(), &Key::generate(), &in_chunks(chunk));
            store.put(&path, content.clone().into()).await.unwrap();
            if known && len > 0 {
                store.get_range(&path, 0..1).await.unwrap();
            }

            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            for range in &ranges {
                let kinds = [GetRange::Bounded(range.clone()), GetRange::Offset(range.start), GetRange::Suffix(range.start)];
                for range in kinds {
                    let options = GetOptions::new().with_range(Some(range.clone()));
                    match plain.get_opts(&path, options.clone()).await {
                        Ok(expected) => {
                            let found = store.get_opts(&path, options).await.unwrap();
                            assert_eq!(found.range, expected.range, "{range:?}");
                            assert_eq!(found.meta.size, len as u64);
                            assert_eq!(found.bytes().await.unwrap(), expected.bytes().await.unwrap(), "{range:?}");
                        }
                        Err(_) => drop(store.get_opts(&path, options).await.unwrap_err()),
                    }
                }
            }
            match plain.get_ranges(&path, &ranges).await {
                Ok(expected) => assert_eq!(store.get_ranges(&path, &ranges).await.unwrap(), expected),
                Err(_) => drop(store.get_ranges(&path, &ranges).await.unwrap_err()),
            }
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content);
            assert_eq!(store.head(&path).await.unwrap().size, len as u64);
        });
    }
}

#[tokio::test]
async fn ranges_of_files_are_right_too() {
    let folder = tempfile::tempdir().unwrap();
    let inner = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let (store, path, content) = (EncryptedStore::new(inner, &Key::generate()), Path::from("a"), content(3_000_000));
    store.put(&path, content.clone().into()).await.unwrap();
    for range in [0..1, 65_535..65_537, 100..2_999_999, 2_999_999..3_000_000] {
        let expected = &content[range.start as usize..range.end as usize];
        assert_eq!(store.get_range(&path, range.clone()).await.unwrap(), expected);
        assert_eq!(store.get_ranges(&path, &[range]).await.unwrap(), [expected]);
    }
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content);
}

#[tokio::test]
async fn ranges_may_be_longer_than_what_a_range_reader_takes_at_once() {
    let len = agcm::MAX_RANGE_LEN + 3_000_000;
    let content = content(len as usize);
    // Chunks that are opened in the task, and some that are opened elsewhere.
    for chunk in [64 * 1024, 3 * 1024 * 1024] {
        let store = EncryptedStore::with_options(InMemory::new(), &Key::generate(), &in_chunks(chunk));
        let path = Path::from("a");
        store.put(&path, content.clone().into()).await.unwrap();
        assert!(store.get_range(&path, 1..len).await.unwrap() == content[1..]);
        let found = store.get_ranges(&path, &[1..len, 5..6]).await.unwrap();
        assert!(found[0] == content[1..] && found[1] == content[5..6]);
        assert!(store.get(&path).await.unwrap().bytes().await.unwrap() == content);
    }
}

#[tokio::test]
async fn a_range_outside_of_the_object_says_so() {
    let store = EncryptedStore::new(InMemory::new(), &Key::generate());
    let path = Path::from("a");
    store.put(&path, "row".into()).await.unwrap();
    for _ in 0..2 {
        let error = store.get_range(&path, 3..4).await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(Error::RangeOutOfBounds { start: 3, end: 4, len: 3 }));
        #[expect(clippy::reversed_empty_ranges)]
        let error = store.get_ranges(&path, &[0..1, 2..1]).await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(Error::RangeOutOfBounds { start: 2, end: 1, len: 3 }));
        let error = store.get_range(&path, 1..1).await.unwrap_err();
        assert!(error.to_string().contains("1..1 is empty"), "{error}");
        // What is longer is cut, as in other stores.
        assert_eq!(store.get_range(&path, 2..9).await.unwrap(), "w");
    }
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let store = EncryptedStore::with_options(InMemory::new(), &Key::generate(), &StoreOptions::default());
    let path = Path::from("a");
    store.put(&path, Vec::new().into()).await.unwrap();
    assert_eq!(store.get_ref().head(&path).await.unwrap().size, 117);
    for _ in 0..2 {
        assert_eq!(store.head(&path).await.unwrap().size, 0);
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "");
        let suffix = GetOptions::new().with_range(Some(GetRange::Suffix(5)));
        let result = store.get_opts(&path, suffix).await.unwrap();
        assert_eq!((result.range.clone(), result.meta.size), (0..0, 0));
        assert_eq!(result.bytes().await.unwrap(), "");
        store.get_range(&path, 0..1).await.unwrap_err();
    }
}
