//! Uploads in parts: what arrives, what must not become an object, and what is aborted.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agcm::{
    Error, Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::{content, failure};
use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{join_all, ready},
    stream::BoxStream,
};
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
    WriteMultipart, path::Path,
};
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::Config};

use crate::watched;

fn options(chunk: usize, part: usize) -> StoreOptions {
    StoreOptions::new().chunk_size(chunk).unwrap().part_len(part)
}

/// How long the parts were that the inner store got.
fn parts(log: &[String]) -> Vec<usize> {
    let parts = log.iter().filter_map(|request| request.strip_prefix("part ")?.split(" of ").nth(1));
    parts.map(|len| len.parse().unwrap()).collect()
}

/// A store of which nothing is asked but uploads: it keeps the parts as they come, and stores nothing.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    parts: Vec<PutPayload>,
    /// How many aborts were begun, and how many of them have come to their end, which takes a while.
    aborts: (usize, usize),
    completed: bool,
    /// How many parts it was given, and which of them is one too many for it.
    puts: usize,
    panics_at: Option<usize>,
}

impl Kept {
    /// A store over a new one.
    fn watched(key: &Key, options: &StoreOptions) -> (EncryptedStore<Self>, Self) {
        let kept = Self::default();
        (EncryptedStore::with_options(kept.clone(), key, options), kept)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MultipartUpload for Kept {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut state = self.state();
        state.puts += 1;
        assert_ne!(Some(state.puts), state.panics_at, "as it was told to");
        state.parts.push(data);
        ready(Ok(())).boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        self.state().completed = true;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.state().aborts.0 += 1;
        tokio::task::yield_now().await;
        self.state().aborts.1 += 1;
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for Kept {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> StoreResult<PutResult> {
        unreachable!()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        Ok(Box::new(self.clone()))
    }

    async fn get_opts(&self, _: &Path, _: GetOptions) -> StoreResult<GetResult> {
        unreachable!()
    }

    fn delete_stream(&self, _: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        unreachable!()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        unreachable!()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> StoreResult<ListResult> {
        unreachable!()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> StoreResult<()> {
        unreachable!()
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

proptest! {
    #![proptest_config(Config { cases: 200, ..Config::default() })]

    #[test]
    fn parts_of_any_length_in_any_order_make_up_the_object(
        chunk in 1..100_usize,
        part in 1..500_usize,
        lens in vec(0..300_usize, 0..20),
        order in vec(any::<Index>(), 20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, watched) = watched(&Key::generate(), &options(chunk, part));
            let (path, content) = (Path::from("a"), content(lens.iter().sum()));
            let mut upload = store.put_multipart(&path).await.unwrap();
            let mut rest = &content[..];
            let mut futures = Vec::new();
            for len in &lens {
                let (now, later) = rest.split_at(*len);
                rest = later;
                // In pieces that do not care for chunks.
                futures.push(upload.put_part(now.chunks(7).map(bytes::Bytes::copy_from_slice).collect::<PutPayload>()));
            }
            for order in order {
                if !futures.is_empty() {
                    futures.swap_remove(order.index(futures.len())).await.unwrap();
                }
            }
            watched.inner().head(&path).await.unwrap_err();
            upload.complete().await.unwrap();

            let sealed = watched.inner().head(&path).await.unwrap().size as usize;
            let parts = parts(&watched.log());
            let (last, full) = parts.split_last().unwrap();
            assert!(full.iter().all(|len| *len == part) && (1..=part).contains(last), "{parts:?} of {part}");
            assert_eq!(parts.iter().sum::<usize>(), sealed);
            assert_eq!(sealed, 117 + content.len() + 20 * content.len().div_ceil(chunk));
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content);
            if !content.is_empty() {
                assert_eq!(store.get_range(&path, 0..9999).await.unwrap(), content);
            }
        });
    }
}

#[tokio::test]
async fn a_part_is_sent_as_soon_as_there_is_enough_for_it() {
    let (store, watched) = watched(&Key::generate(), &options(100, 1000));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let mut sent = 0;
    for put in 1..2000_usize {
        upload.put_part(vec![7; 11].into()).await.unwrap();
        sent += parts(&watched.log()).len();
        // What waits is less than a part and a chunk.
        let waits = (put * 11).saturating_sub(sent * 1000);
        assert!(waits < 1000 + 100, "{waits} bytes after {put} puts");
    }
    drop(upload);
}

#[tokio::test]
async fn parts_have_the_length_of_the_first_that_is_put_but_what_s3_asks_for() {
    // With what sealing adds to it: 92 frames, and a byte for the ends of the stream.
    for (first, expected) in [(1000, 5 * 1024 * 1024), (6_000_000, 6_000_000 + 92 * 20 + 1)] {
        let (store, watched) = watched(&Key::generate(), &StoreOptions::new());
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        upload.put_part(vec![1; first].into()).await.unwrap();
        for _ in 0..4 {
            upload.put_part(vec![1; 6_000_000].into()).await.unwrap();
        }
        upload.complete().await.unwrap();
        let parts = parts(&watched.log());
        assert!(parts[..parts.len() - 1].iter().all(|len| *len == expected), "{parts:?}");
        assert!(parts.len() > 3);
    }
}

#[tokio::test]
async fn chunks_may_be_longer_than_parts_and_are_sealed_elsewhere_if_they_are_long() {
    for (chunk, part) in [(3_000_000, 1_000_000), (10 * 1024 * 1024, 5 * 1024 * 1024), (1_500_000, 4_000_000)] {
        let (store, watched) = watched(&Key::generate(), &options(chunk, part));
        let (path, content) = (Path::from("a"), content(12_345_678));
        let mut upload = store.put_multipart(&path).await.unwrap();
        let puts: Vec<_> = content.chunks(2_000_000).map(|data| upload.put_part(data.to_vec().into())).collect();
        assert!(join_all(puts).await.into_iter().all(|put| put.is_ok()));
        upload.complete().await.unwrap();
        let parts = parts(&watched.log());
        assert!(parts[..parts.len() - 1].iter().all(|len| *len == part), "{parts:?}");
        assert!(store.get(&path).await.unwrap().bytes().await.unwrap() == content);
        assert!(store.get_range(&path, 2_999_999..9_000_001).await.unwrap() == content[2_999_999..9_000_001]);
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_aborted_and_never_completed() {
    let (store, watched) = watched(&Key::generate(), &options(100, 1000));
    let path = Path::from("a");
    for puts in [0, 3, 30] {
        let mut upload = store.put_multipart(&path).await.unwrap();
        for _ in 0..puts {
            upload.put_part(vec![1; 100].into()).await.unwrap();
        }
        watched.log();
        drop(upload);
        tokio::task::yield_now().await;
        assert_eq!(watched.log(), ["abort"]);
        assert!(matches!(store.head(&path).await.unwrap_err(), StoreError::NotFound { .. }));
        watched.log();
    }
}

#[test]
fn an_upload_that_is_dropped_outside_of_its_runtime_is_aborted_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (store, watched) = watched(&Key::generate(), &options(100, 1000));
    let upload = runtime.block_on(store.put_multipart(&Path::from("a"))).unwrap();
    drop(upload);
    assert_eq!(watched.log(), ["upload"]);
    runtime.block_on(tokio::task::yield_now());
    assert_eq!(watched.log(), ["abort"]);
}

#[tokio::test]
async fn to_drop_what_completes_is_to_abort() {
    // All of it waits for the end, and is then sealed on the blocking pool.
    let (store, watched) = watched(&Key::generate(), &options(100_000, usize::MAX));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    upload.put_part(vec![1; 5_000_000].into()).await.unwrap();
    assert!(upload.complete().now_or_never().is_none());
    tokio::task::yield_now().await;
    assert_eq!(watched.log(), ["upload", "abort"]);
    let error = upload.complete().await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::Finished));
    assert!(watched.inner().head(&Path::from("a")).await.is_err());
}

#[tokio::test]
async fn very_many_parts_can_be_under_way() {
    let (store, watched) = watched(&Key::generate(), &options(100, 1000));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let first = upload.put_part(vec![1; 20_000_000].into());
    let second = upload.put_part(vec![2; 20_000_000].into());
    // Whoever waits for the later ones sees to the earlier ones as well.
    second.await.unwrap();
    drop(first);
    upload.complete().await.unwrap_err();
    assert_eq!(watched.log().last().unwrap(), "abort");
}

#[tokio::test]
async fn a_part_that_failed_or_was_given_up_keeps_the_upload_from_being_completed() {
    for fails in [true, false] {
        let (store, watched) = watched(&Key::generate(), &options(100, 1000));
        let path = Path::from("a");
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part(vec![1; 2000].into()).await.unwrap();
        if fails {
            watched.set_hook(|request| request.starts_with("part 3").then(failure));
            let error = upload.put_part(vec![1; 2000].into()).await.unwrap_err();
            assert_eq!(error.to_string(), failure().to_string());
        } else {
            drop(upload.put_part(vec![1; 2000].into()));
        }
        // Others may go on.
        upload.put_part(vec![1; 2000].into()).await.unwrap();
        watched.log();
        let error = upload.complete().await.unwrap_err();
        assert!(error.to_string().contains("did not arrive"), "{error}");
        assert!(error.to_string().ends_with("the upload was aborted, begin it anew"), "{error}");
        assert_eq!(watched.log(), ["abort"]);
        assert!(watched.inner().head(&path).await.is_err());
        // It has ended: there is nothing to abort, and nothing to go on with.
        upload.abort().await.unwrap();
        let error = upload.put_part(vec![1; 10].into()).await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(Error::Finished));
        let error = upload.complete().await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(Error::Finished));
        drop(upload);
        tokio::task::yield_now().await;
        assert!(watched.log().is_empty());
    }
}

#[tokio::test]
async fn what_fails_at_the_end_is_an_error_and_aborts() {
    for fails in ["part 1", "complete"] {
        let (store, watched) = watched(&Key::generate(), &options(100, 1000));
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        upload.put_part(vec![1; 200].into()).await.unwrap();
        watched.set_hook(move |request| request.starts_with(fails).then(failure));
        let error = upload.complete().await.unwrap_err();
        assert_eq!(error.to_string(), failure().to_string());
        assert_eq!(watched.log().last().unwrap(), "abort");
        assert!(watched.inner().head(&Path::from("a")).await.is_err());
    }
}

#[tokio::test]
async fn an_upload_can_be_aborted_and_nothing_of_it_is_left() {
    let (store, watched) = watched(&Key::generate(), &options(100, 1000));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    upload.put_part(vec![1; 2000].into()).await.unwrap();
    let late = upload.put_part(vec![1; 2000].into());
    watched.log();
    upload.abort().await.unwrap();
    late.await.unwrap_err();
    drop(upload);
    tokio::task::yield_now().await;
    assert_eq!(watched.log(), ["abort"]);
}

#[tokio::test]
async fn an_abort_that_failed_can_be_tried_again_and_is_when_the_upload_is_dropped() {
    let (store, watched) = watched(&Key::generate(), &options(100, 1000));
    for again in [true, false] {
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        upload.put_part(vec![1; 2000].into()).await.unwrap();
        let late = upload.put_part(vec![1; 2000].into());
        watched.log();
        watched.set_hook(|request| (request == "abort").then(failure));
        for _ in 0..3 {
            let error = upload.abort().await.unwrap_err();
            assert_eq!(error.to_string(), failure().to_string());
            assert_eq!(watched.log(), ["abort"]);
        }
        // It goes no further all the same.
        late.await.unwrap_err();
        upload.put_part(vec![1; 2000].into()).await.unwrap_err();
        upload.complete().await.unwrap_err();
        assert!(watched.log().is_empty());

        watched.set_hook(|_| None);
        if again {
            upload.abort().await.unwrap();
            assert_eq!(watched.log(), ["abort"]);
            upload.abort().await.unwrap();
        }
        drop(upload);
        tokio::task::yield_now().await;
        assert_eq!(watched.log(), if again { &[][..] } else { &["abort"][..] });
    }
}

#[tokio::test]
async fn an_abort_whose_future_was_dropped_is_not_taken_for_done() {
    for again in [true, false] {
        let (store, kept) = Kept::watched(&Key::generate(), &options(100, 1000));
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        assert!(upload.abort().now_or_never().is_none());
        if again {
            upload.abort().await.unwrap();
            assert_eq!(kept.state().aborts, (2, 1));
        }
        drop(upload);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(kept.state().aborts, (2, 1));
    }
}

#[tokio::test]
async fn to_drop_what_completes_is_to_abort_and_if_that_fails_it_can_be_tried_again() {
    for again in [true, false] {
        let (store, watched) = watched(&Key::generate(), &options(100_000, usize::MAX));
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        upload.put_part(vec![1; 5_000_000].into()).await.unwrap();
        watched.set_hook(|request| (request == "abort").then(failure));
        assert!(upload.complete().now_or_never().is_none());
        if again {
            // First comes what it does on its own, then this.
            tokio::task::yield_now().await;
            upload.abort().await.unwrap_err();
            assert_eq!(watched.log(), ["upload", "abort", "abort"]);
            watched.set_hook(|_| None);
            upload.abort().await.unwrap();
            drop(upload);
        } else {
            tokio::task::yield_now().await;
            assert_eq!(watched.log(), ["upload", "abort"]);
            watched.set_hook(|_| None);
            drop(upload);
        }
        tokio::task::yield_now().await;
        assert_eq!(watched.log(), ["abort"]);
    }
}

#[tokio::test]
async fn what_could_not_be_completed_and_not_be_aborted_says_so_and_can_be_aborted() {
    for fails in ["nobody waits", "complete"] {
        let (store, watched) = watched(&Key::generate(), &options(100, 1000));
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        upload.put_part(vec![1; 200].into()).await.unwrap();
        if fails != "complete" {
            drop(upload.put_part(vec![1; 2000].into()));
        }
        watched.set_hook(move |request| (request == fails || request == "abort").then(failure));
        let error = upload.complete().await.unwrap_err().to_string();
        if fails == "complete" {
            assert_eq!(error, failure().to_string());
        } else {
            assert!(error.contains("did not arrive") && !error.contains("was aborted"), "{error}");
            assert!(error.contains(&failure().to_string()), "{error}");
        }
        assert_eq!(watched.log().last().unwrap(), "abort");

        watched.set_hook(|_| None);
        // Whatever came of it, it is never completed.
        let error = upload.complete().await.unwrap_err();
        assert_eq!(Error::from_store(&error), Some(Error::Finished));
        assert!(watched.log().is_empty());
        upload.abort().await.unwrap();
        assert_eq!(watched.log(), ["abort"]);
        upload.abort().await.unwrap();
        drop(upload);
        tokio::task::yield_now().await;
        assert!(watched.log().is_empty());
        assert!(watched.inner().head(&Path::from("a")).await.is_err());
    }
}

#[tokio::test]
async fn parts_much_shorter_than_a_chunk_are_not_copied_over_and_over() {
    let (key, content) = (Key::generate(), content(50_000));
    let (store, kept) = Kept::watched(&key, &options(10_000, 16));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    upload.put_part(content.clone().into()).await.unwrap();
    upload.complete().await.unwrap();

    let parts = std::mem::take(&mut kept.state().parts);
    let (mut pieces, mut end) = (0, std::ptr::null());
    for piece in parts.iter().flat_map(|part| part.iter()).filter(|piece| !piece.is_empty()) {
        // One that goes on where the last one ended was not moved.
        pieces += usize::from(piece.as_ptr() != end);
        end = piece.as_ptr_range().end;
    }
    // The ends of the stream, and each of the five frames with one copy.
    assert!(pieces <= 2 + 5 * 2, "{} parts lie in {pieces} places", parts.len());
    let sealed: Vec<u8> = parts.iter().flat_map(|part| part.iter()).flatten().copied().collect();
    assert_eq!(agcm::decrypt(&key, &sealed).unwrap(), content);
}

#[tokio::test]
async fn what_is_left_over_does_not_keep_all_of_a_part_in_memory() {
    let (store, kept) = Kept::watched(&Key::generate(), &options(100, 100_000));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    upload.put_part(vec![1; 250_000].into()).await.unwrap();
    let parts = std::mem::take(&mut kept.state().parts);
    // What the first had no place for is not in its allocation.
    let (first, second) = (parts[0].iter().last().unwrap(), parts[1].iter().next().unwrap());
    assert!(second.len() < 120);
    assert_ne!(first.as_ptr_range().end, second.as_ptr());
}

#[tokio::test]
async fn as_many_parts_as_the_caller_puts_are_no_more_for_the_inner_store() {
    // S3 takes 10 000; from 117 on there is place for the two ends of the stream.
    let (store, kept) = Kept::watched(&Key::generate(), &StoreOptions::new());
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let (mut parts, part) = (0, bytes::Bytes::from(vec![1; 5 * 1024 * 1024]));
    for _ in 0..117 {
        upload.put_part(part.clone().into()).await.unwrap();
        parts += std::mem::take(&mut kept.state().parts).len();
    }
    upload.complete().await.unwrap();
    parts += kept.state().parts.len();
    assert_eq!(parts, 117);
}

#[tokio::test]
async fn a_store_that_panics_gets_the_next_parts_as_they_are_and_completes_nothing() {
    let (store, kept) = Kept::watched(&Key::generate(), &options(100, 1000));
    kept.state().panics_at = Some(2);
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let puts: Vec<_> = (0..4).map(|_| upload.put_part(vec![1; 2000].into())).collect();
    let mut ends = Vec::new();
    for put in puts {
        ends.push(AssertUnwindSafe(put).catch_unwind().await.map(|put| put.is_ok()).ok());
    }
    assert_eq!(ends, [None, Some(true), Some(true), Some(true)]);
    let lens: Vec<_> = kept.state().parts.iter().map(PutPayload::content_length).collect();
    assert!(lens.len() > 5 && lens.iter().all(|len| *len == 1000), "{lens:?}");
    let error = upload.complete().await.unwrap_err();
    assert!(error.to_string().contains("1 of its parts did not arrive"), "{error}");
    assert!(!kept.state().completed);
    assert_eq!(kept.state().aborts, (1, 1));
}

#[tokio::test]
async fn a_part_that_was_lost_to_a_panic_in_another_is_an_error() {
    let (store, kept) = Kept::watched(&Key::generate(), &options(100, 1000));
    kept.state().panics_at = Some(1);
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let first = upload.put_part(vec![1; 1100].into());
    let second = upload.put_part(vec![1; 1100].into());
    let third = upload.put_part(vec![1; 1100].into());
    // It has to begin the first.
    assert!(AssertUnwindSafe(second).catch_unwind().await.is_err());
    let error = first.await.unwrap_err();
    assert!(error.to_string().contains("was lost"), "{error}");
    // For that, nothing else is begun.
    assert_eq!(kept.state().puts, 1);
    third.await.unwrap();
    upload.complete().await.unwrap_err();
    assert!(!kept.state().completed);
}

#[tokio::test]
async fn an_upload_that_has_ended_holds_no_plaintext() {
    struct Plaintext {
        bytes: Vec<u8>,
        _held: Arc<()>,
    }
    impl AsRef<[u8]> for Plaintext {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    for completes in [true, false] {
        let (store, _) = Kept::watched(&Key::generate(), &options(100_000, 3_000_000));
        let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
        let held = Arc::new(());
        let plaintext = Plaintext { bytes: vec![1; 20_000_000], _held: held.clone() };
        // It is begun, and nobody waits for it any longer.
        assert!(upload.put_part(bytes::Bytes::from_owner(plaintext).into()).now_or_never().is_none());
        if completes {
            upload.complete().await.unwrap_err();
        } else {
            upload.abort().await.unwrap();
        }
        // On the blocking pool it may have to come to its end.
        for _ in 0..500 {
            if Arc::strong_count(&held) > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(Arc::strong_count(&held), 1, "completes: {completes}");
        drop(upload);
    }
}

#[tokio::test]
async fn a_stream_that_would_be_too_long_is_an_error_and_completing_it_aborts() {
    // 2^40 frames are the most. None of this is ever sealed.
    let (store, kept) = Kept::watched(&Key::generate(), &options(1, 21 * ((1 << 40) + 100)));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let piece = bytes::Bytes::from(vec![0; 1 << 26]);
    let data: PutPayload = std::iter::repeat_n(piece, (1 << 14) + 1).collect();
    let error = upload.put_part(data).await.unwrap_err();
    assert_eq!(Error::from_store(&error), Some(Error::StreamTooLong));
    upload.complete().await.unwrap_err();
    assert_eq!(kept.state().aborts, (1, 1));
    assert!(!kept.state().completed);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_waits_to_be_sealed_has_no_place_reserved_for_its_frames() {
    let virtual_kib = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        size.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (store, _) = Kept::watched(&Key::generate(), &options(1_000_000, 1 << 28));
    let mut upload = store.put_multipart(&Path::from("a")).await.unwrap();
    let before = virtual_kib();
    // 64 GiB, in 256 parts.
    let data: PutPayload = std::iter::repeat_n(bytes::Bytes::from(vec![0; 1 << 26]), 1 << 10).collect();
    let put = upload.put_part(data);
    let more = virtual_kib().saturating_sub(before) >> 20;
    // Other tests need some, too.
    assert!(more < 16, "{more} GiB");
    drop(put);
}

#[tokio::test]
async fn writers_of_the_crate_object_store_write_through_it() {
    let (store, watched) = watched(&Key::generate(), &StoreOptions::new());
    let (path, content) = (Path::from("a"), content(23_000_000));
    let mut writer = WriteMultipart::new(store.put_multipart(&path).await.unwrap());
    for data in content.chunks(100_000) {
        writer.wait_for_capacity(2).await.unwrap();
        writer.write(data);
    }
    writer.finish().await.unwrap();
    assert!(store.get(&path).await.unwrap().bytes().await.unwrap() == content);

    watched.set_hook(|request| request.starts_with("part 2").then(failure));
    let mut writer = WriteMultipart::new(store.put_multipart(&path).await.unwrap());
    writer.write(&content);
    let error = writer.finish().await.unwrap_err();
    assert_eq!(error.to_string(), failure().to_string());
    assert!(watched.log().contains(&"abort".to_owned()));
    assert!(store.get(&path).await.unwrap().bytes().await.unwrap() == content);
}
