//! What lies in the inner store and is none of ours, or of another kind.

use agcm::{
    EncryptOptions, Encryptor, Error, Key, KeyRing,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::content;
use futures::TryStreamExt;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

use crate::{in_chunks, watched};

/// A stream of chunks of up to 16 bytes, cut where it is said.
fn irregular(key: &Key, chunks: &[&[u8]]) -> Vec<u8> {
    let (mut encryptor, prelude) = Encryptor::start(key, &EncryptOptions::new().chunk_size(16).unwrap()).unwrap();
    let mut stream = prelude.to_vec();
    for chunk in chunks {
        encryptor.seal(chunk, &mut stream).unwrap();
    }
    stream.extend(encryptor.finish());
    stream
}

#[tokio::test]
async fn what_is_no_stream_is_listed_with_its_length_and_cannot_be_read() {
    let store = EncryptedStore::new(InMemory::new(), &Key::generate());
    let inner = store.get_ref();
    let objects: [(&str, Vec<u8>, Error); 4] = [
        ("empty", vec![], Error::Truncated { at: 0 }),
        ("short", b"AGCM".to_vec(), Error::Truncated { at: 4 }),
        ("text", vec![b'x'; 100], Error::BadMagic),
        // As long as if it held a byte less than a chunk.
        ("random", vec![7; 65_652], Error::BadMagic),
    ];
    for (name, object, _) in &objects {
        inner.put(&Path::from(*name), object.clone().into()).await.unwrap();
    }
    store.put(&Path::from("ours"), "row".into()).await.unwrap();

    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let sizes: Vec<_> = listed.iter().map(|meta| (meta.location.as_ref(), meta.size)).collect();
    let expected = [("empty", 0), ("ours", 3), ("random", 65_515), ("short", 4), ("text", 100)];
    assert_eq!(sizes, expected);
    let offset = store.list_with_offset(None, &Path::from("ours"));
    let listed: Vec<_> = offset.map_ok(|meta| meta.size).try_collect().await.unwrap();
    assert_eq!(listed, [65_515, 4, 100]);
    let listed = store.list_with_delimiter(None).await.unwrap().objects;
    assert_eq!(listed.iter().map(|meta| meta.size).collect::<Vec<_>>(), [0, 3, 65_515, 4, 100]);

    for (name, _, expected) in objects {
        let path = Path::from(name);
        let error = store.get(&path).await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(expected), "{name}: {error}");
        let error = store.get_range(&path, 0..1).await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(expected), "{name}: {error}");
        assert!(error.to_string().contains(&format!("the object {name:?}")), "{error}");
        if name != "random" {
            let error = store.head(&path).await.unwrap_err();
            assert!(error.to_string().contains("something else has written it"), "{error}");
        }
        store.delete(&path).await.unwrap();
    }
}

#[tokio::test]
async fn another_chunk_size_is_refused_before_anything_is_given_out() {
    let (key, path) = (Key::generate(), Path::from("a"));
    for (theirs, ours) in [(1000, 1001), (1001, 1000)] {
        let store = EncryptedStore::with_options(InMemory::new(), &key, &in_chunks(theirs));
        store.put(&path, content(5000).into()).await.unwrap();
        let store = EncryptedStore::with_options(store.into_inner(), &key, &in_chunks(ours));
        let ranged = GetOptions::new().with_range(Some(0..1));
        for options in [GetOptions::new(), ranged] {
            let error = store.get_opts(&path, options).await.unwrap_err().to_string();
            assert!(error.contains(&format!("chunks of {theirs} bytes")), "{error}");
            assert!(error.contains(&format!("of this store have {ours}")), "{error}");
        }
    }
}

#[tokio::test]
async fn irregular_streams_are_refused_and_no_byte_of_theirs_is_at_a_wrong_place() {
    let (key, path) = (Key::generate(), Path::from("a"));
    let rows = content(60);
    let cut_early = irregular(&key, &[&rows[..10], &rows[10..26], &rows[26..42], &rows[42..49]]);
    let cut_late = irregular(&key, &[&rows[..16], &rows[16..26], &rows[26..42], &rows[42..49]]);
    for (stream, whole_chunks) in [(cut_early, 0), (cut_late, 1)] {
        let store = EncryptedStore::with_options(InMemory::new(), &key, &in_chunks(16));
        store.get_ref().put(&path, stream.into()).await.unwrap();
        let error = store.get_range(&path, 0..1).await.unwrap_err();
        assert!(error.to_string().contains("no uniform stream"), "{error}");
        // That it is not shows when its first short chunk comes.
        match store.get(&path).await {
            Ok(result) => {
                let pieces: Vec<_> =
                    futures::StreamExt::collect(futures::StreamExt::take(result.into_stream(), 3)).await;
                let (right, wrong) = pieces.split_at(whole_chunks);
                assert!(right.iter().all(|piece| *piece.as_ref().unwrap() == rows[..16]));
                for piece in wrong {
                    assert!(piece.as_ref().unwrap_err().to_string().contains("no uniform stream"));
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    // Most of them are so long that it shows at once.
    let store = EncryptedStore::with_options(InMemory::new(), &key, &in_chunks(16));
    let stream = irregular(&key, &[&rows[..10], &rows[10..16]]);
    store.get_ref().put(&path, stream.into()).await.unwrap();
    let error = store.get(&path).await.unwrap_err();
    assert!(error.to_string().contains("no stream that this store writes"), "{error}");
}

#[tokio::test]
async fn objects_of_before_a_rotation_open_and_new_ones_are_sealed_under_the_new_key() {
    let (old, new, path) = (Key::generate(), Key::generate(), Path::from("a"));
    let store = EncryptedStore::new(InMemory::new(), &old);
    store.put(&path, "old".into()).await.unwrap();
    let store = EncryptedStore::new(store.into_inner(), &new);
    for error in [store.get(&path).await.unwrap_err(), store.get_range(&path, 0..1).await.unwrap_err()] {
        assert_eq!(Error::from_store(&error), Some(Error::KeyMismatch));
    }
    let ring: KeyRing = [Key::generate(), old.clone()].into_iter().collect();
    let store = store.also_opens(ring);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "old");
    assert_eq!(store.get_range(&path, 0..2).await.unwrap(), "ol");
    store.put(&path, "new".into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "new");
    let sealed = store.get_ref().get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(agcm::decrypt(&new, &sealed).unwrap(), b"new");
}

#[tokio::test]
async fn what_is_stored_is_a_stream_that_anything_opens() {
    let key = Key::generate();
    let options = StoreOptions::new().chunk_size(100).unwrap().context("tenant 7").unwrap();
    let (store, path) = (EncryptedStore::with_options(InMemory::new(), &key, &options), Path::from("a/b"));
    // In pieces that do not care for chunks.
    let rows = content(1234);
    let payload = rows.chunks(77).map(bytes::Bytes::copy_from_slice).collect::<object_store::PutPayload>();
    store.put(&path, payload).await.unwrap();
    let sealed = store.get_ref().get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(sealed.len(), 117 + 13 * 20 + 1234);
    let options = agcm::DecryptOptions::new().context("tenant 7").unwrap();
    assert_eq!(options.decrypt(&key, &sealed).unwrap(), rows);
    let reader = agcm::RangeReader::open_with_options(sealed, &key, &options).await.unwrap();
    assert!(reader.is_uniform() && reader.chunk_size() == 100);
}

#[tokio::test]
async fn neither_keys_nor_plaintext_are_shown() {
    let key = Key::from_bytes([0xab; 32]);
    let (store, watched) = watched(&key, &StoreOptions::new());
    let upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let shown = format!("{store:?} {store} {upload:?}");
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    assert!(shown.contains("EncryptedStore(Watched)"), "{shown}");
    drop((upload, watched));
}
