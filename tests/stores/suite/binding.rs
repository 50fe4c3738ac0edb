//! Objects that are bound to their paths, and what copying and renaming them takes.

use agcm::{
    Error, Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::{content, failure};
use object_store::{
    Attribute, Attributes, Error as StoreError, ObjectStore, ObjectStoreExt, PutOptions, memory::InMemory, path::Path,
};

use crate::watched;

fn bound() -> StoreOptions {
    StoreOptions::new().bind_path("s3://bucket/")
}

/// Exchanges two objects in the inner store.
async fn swap(inner: &dyn ObjectStore, a: &Path, b: &Path) {
    let aside = Path::from("aside");
    inner.rename(a, &aside).await.unwrap();
    inner.rename(b, a).await.unwrap();
    inner.rename(&aside, b).await.unwrap();
}

#[tokio::test]
async fn objects_that_were_swapped_do_not_open_if_they_are_bound_to_their_paths_and_only_then() {
    let (key, a, b) = (Key::generate(), Path::from("a"), Path::from("b"));
    for (options, is_noticed) in [(bound(), true), (StoreOptions::new(), false)] {
        let store = EncryptedStore::with_options(InMemory::new(), &key, &options);
        store.put(&a, "of a".into()).await.unwrap();
        store.put(&b, "of b".into()).await.unwrap();
        assert_eq!(store.get_range(&a, 0..4).await.unwrap(), "of a");
        swap(store.get_ref(), &a, &b).await;
        if is_noticed {
            for error in [store.get(&a).await.unwrap_err(), store.get_range(&a, 0..4).await.unwrap_err()] {
                assert_eq!(Error::from_store(&error), Some(Error::KeyMismatch), "{error}");
            }
        } else {
            assert_eq!(store.get(&a).await.unwrap().bytes().await.unwrap(), "of b");
            assert_eq!(store.get_range(&a, 0..4).await.unwrap(), "of b");
        }
    }
}

#[tokio::test]
async fn the_context_is_the_prefix_and_the_path() {
    let (key, path) = (Key::generate(), Path::from("2026/rows"));
    let store = EncryptedStore::with_options(InMemory::new(), &key, &bound());
    store.put(&path, "row".into()).await.unwrap();
    let sealed = store.get_ref().get(&path).await.unwrap().bytes().await.unwrap();
    let options = agcm::DecryptOptions::new().context("s3://bucket/2026/rows").unwrap();
    assert_eq!(options.decrypt(&key, &sealed).unwrap(), b"row");
    // The same under another bucket's name is another object.
    let options = StoreOptions::new().bind_path("s3://other/");
    let other = EncryptedStore::with_options(store.into_inner(), &key, &options);
    let error = other.get(&path).await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::KeyMismatch));
    let too_long = EncryptedStore::with_options(InMemory::new(), &key, &StoreOptions::new().bind_path([0; 65_530]));
    let error = too_long.put(&path, "row".into()).await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::ContextTooLong(65_539)));
}

#[tokio::test]
async fn copies_are_the_inner_stores_own_unless_paths_are_bound() {
    let (store, watched) = watched(&Key::generate(), &StoreOptions::new());
    let [a, b, c] = ["a", "b", "c"].map(Path::from);
    store.put(&a, "row".into()).await.unwrap();
    watched.log();
    store.copy(&a, &b).await.unwrap();
    store.copy_if_not_exists(&a, &b).await.unwrap_err();
    store.rename(&a, &c).await.unwrap();
    store.rename_if_not_exists(&c, &b).await.unwrap_err();
    assert_eq!(watched.log(), ["copy", "copy Create", "rename", "rename Create"]);
    for path in [b, c] {
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "row");
    }
}

#[tokio::test]
async fn bound_objects_are_sealed_anew_for_their_new_path() {
    // In one piece, and by an upload.
    for len in [10_000, 6_000_000] {
        let (store, watched) = watched(&Key::generate(), &bound());
        let [a, b, c] = ["a", "b", "c"].map(Path::from);
        let attributes = Attributes::from_iter([(Attribute::ContentType, "text/plain")]);
        let options = PutOptions::from(attributes.clone());
        store.put_opts(&a, content(len).into(), options).await.unwrap();
        watched.log();
        store.copy(&a, &b).await.unwrap();
        let log = watched.log();
        match len {
            10_000 => assert_eq!(log, ["get", "put 10137 Overwrite"]),
            _ => assert_eq!(log, ["get", "upload", "part 1 of 5242880", "part 2 of 759077", "complete"]),
        }
        store.rename(&a, &c).await.unwrap();
        assert_eq!(watched.log().last().unwrap(), "delete a");
        assert!(matches!(store.get(&a).await.unwrap_err(), StoreError::NotFound { .. }));
        for path in [b, c] {
            let result = store.get(&path).await.unwrap();
            assert_eq!(result.attributes, attributes);
            assert!(result.bytes().await.unwrap() == content(len));
        }
    }
}

#[tokio::test]
async fn bound_objects_are_created_only_where_nothing_is() {
    let (store, watched) = watched(&Key::generate(), &bound());
    let [a, b, c] = ["a", "b", "c"].map(Path::from);
    store.put(&a, content(6_000_000).into()).await.unwrap();
    store.put(&b, "there".into()).await.unwrap();
    for error in [store.copy_if_not_exists(&a, &b).await, store.rename_if_not_exists(&a, &b).await] {
        assert!(matches!(error, Err(StoreError::AlreadyExists { .. })), "{error:?}");
    }
    assert_eq!(store.get(&b).await.unwrap().bytes().await.unwrap(), "there");
    watched.log();
    store.rename_if_not_exists(&a, &c).await.unwrap();
    assert_eq!(watched.log(), ["get", "put 6001957 Create", "delete a"]);
    assert!(store.get(&c).await.unwrap().bytes().await.unwrap() == content(6_000_000));
    // In place: sealed anew, and not deleted.
    store.rename(&c, &c).await.unwrap();
    assert!(store.get(&c).await.unwrap().bytes().await.unwrap() == content(6_000_000));
}

#[tokio::test]
async fn what_would_go_through_memory_may_not_be_too_long() {
    let (store, watched) = watched(&Key::generate(), &bound());
    let [a, b] = ["a", "b"].map(Path::from);
    store.put(&a, vec![0; 64 * 1024 * 1024 + 1].into()).await.unwrap();
    watched.log();
    let error = store.copy_if_not_exists(&a, &b).await.unwrap_err();
    assert!(matches!(error, StoreError::NotSupported { .. }), "{error}");
    assert_eq!(watched.log(), ["get"]);
}

#[tokio::test]
async fn a_copy_that_fails_leaves_everything_as_it_was() {
    let key = Key::generate();
    let [a, b] = ["a", "b"].map(Path::from);
    // The source is damaged at its end; or a request fails.
    for (damaged, fails) in [(true, ""), (false, "part 2"), (false, "complete"), (false, "upload")] {
        let (store, watched) = watched(&key, &bound());
        store.put(&a, content(11_000_000).into()).await.unwrap();
        store.put(&b, "there".into()).await.unwrap();
        if damaged {
            let mut sealed = watched.inner().get(&a).await.unwrap().bytes().await.unwrap().to_vec();
            *sealed.last_mut().unwrap() ^= 1;
            watched.inner().put(&a, sealed.into()).await.unwrap();
        }
        watched.set_hook(move |request| (!fails.is_empty() && request.starts_with(fails)).then(failure));
        watched.log();
        let error = store.rename(&a, &b).await.unwrap_err();
        assert_eq!(Error::from_store(&error).is_some(), damaged, "{error}");
        let log = watched.log();
        assert_eq!(log.iter().any(|request| request == "abort"), fails != "upload", "{log:?}");
        assert!(!log.iter().any(|request| request.starts_with("delete")), "{log:?}");
        watched.set_hook(|_| None);
        assert_eq!(store.get(&b).await.unwrap().bytes().await.unwrap(), "there");
        store.head(&a).await.unwrap();
    }
}
