//! Parquet over an encrypted store: the right answer, and little more fetched than without encryption.

use std::sync::Arc;

use agcm::Key;
use agcm_stores::Watched;
use object_store::memory::InMemory;

use crate::{in_chunks, watched};

#[path = "../../../examples/stores/parquet.rs"]
mod example;

#[tokio::test]
async fn a_query_fetches_the_frames_that_hold_what_it_needs() {
    let plain = Watched::new(InMemory::new());
    let plain = example::measure(Arc::new(plain.clone()), &plain, 700).await.unwrap();
    assert!(plain.object > 30_000_000, "{plain:?}");
    for chunk in [4 * 1024, 64 * 1024] {
        let (store, watched) = watched(&Key::generate(), &in_chunks(chunk));
        let sealed = example::measure(Arc::new(store), &watched, 700).await.unwrap();
        // The first range opens the object, by two requests more; the size is one more for both.
        assert_eq!(sealed.requests, plain.requests + 2, "{sealed:?} {plain:?}");
        // Each range begins and ends in a chunk that is needed in part; 0.5 % are the frames' own.
        let most = plain.fetched + plain.fetched / 200 + 117 + 2 * sealed.requests as u64 * chunk as u64;
        assert!(sealed.fetched < most, "{sealed:?} {plain:?}");
        assert!(sealed.fetched < sealed.object / 15, "{sealed:?}");
    }
}
