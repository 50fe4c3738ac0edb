//! Tests of `EncryptedStore`: what others ask of any store, what its own pages promise, and what must be an error.

mod binding;
mod foreign;
mod integration;
mod parquet;
mod ranges;
mod requests;
mod tamper;
mod upload;
mod versions;

use agcm::{
    Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::{ETags, Watched};
use object_store::memory::InMemory;

/// A store over memory, and what watches over it.
fn watched(key: &Key, options: &StoreOptions) -> (EncryptedStore<Watched>, Watched) {
    let watched = Watched::with_etags(InMemory::new(), ETags::Strong);
    (EncryptedStore::with_options(watched.clone(), key, options), watched)
}

fn in_chunks(size: usize) -> StoreOptions {
    StoreOptions::new().chunk_size(size).unwrap()
}
