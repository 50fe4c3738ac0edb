//! The tests that the crate `object_store` has for every store, over memory, files and S3.

use agcm::{
    Key,
    object_store::{EncryptedStore, StoreOptions},
};
use object_store::{ObjectStore, integration::*, local::LocalFileSystem, memory::InMemory};

/// All that applies. Each of these runs without and with the path bound.
async fn all(store: &dyn ObjectStore, can: Can) {
    put_get_delete_list(store).await;
    list_with_offset_exclusivity(store).await;
    get_opts(store).await;
    list_uses_directories_correctly(store).await;
    list_with_delimiter(store).await;
    get_nonexistent_object(store, None).await.unwrap_err();
    rename_and_copy(store).await;
    if can.copy_if_not_exists {
        copy_if_not_exists(store).await;
    }
    copy_rename_nonexistent_object(store).await;
    stream_get(store).await;
    put_opts(store, can.update).await;
    put_get_attributes(store).await;
    multipart_out_of_order(store).await;
    multipart_race_condition(store, true).await;
}

/// What the inner store can do.
#[derive(Clone, Copy)]
struct Can {
    update: bool,
    copy_if_not_exists: bool,
}

fn options() -> [StoreOptions; 3] {
    [
        StoreOptions::new(),
        // No part ends where a chunk does.
        StoreOptions::new().chunk_size(5000).unwrap().part_len(5 * 1024 * 1024 + 1),
        StoreOptions::new().bind_path("test/").cache(1),
    ]
}

#[tokio::test]
async fn over_memory() {
    for options in options() {
        let store = EncryptedStore::with_options(InMemory::new(), &Key::generate(), &options);
        all(&store, Can { update: true, copy_if_not_exists: true }).await;
    }
}

#[tokio::test]
async fn over_memory_where_most_of_what_is_put_has_several_chunks() {
    let options = StoreOptions::new().chunk_size(5).unwrap();
    let store = EncryptedStore::with_options(InMemory::new(), &Key::generate(), &options);
    put_get_delete_list(&store).await;
    get_opts(&store).await;
    rename_and_copy(&store).await;
    copy_if_not_exists(&store).await;
    put_opts(&store, true).await;
}

#[tokio::test]
async fn over_files() {
    for options in options() {
        let folder = tempfile::tempdir().unwrap();
        let inner = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let store = EncryptedStore::with_options(inner, &Key::generate(), &options);
        all(&store, Can { update: false, copy_if_not_exists: true }).await;
    }
}

#[tokio::test]
async fn over_s3() {
    // The plainest is in the others; here it takes long.
    for (i, options) in options().into_iter().enumerate().skip(1) {
        let Some(inner) = agcm_stores::s3(&format!("suite-{i}")).await else { return };
        let store = EncryptedStore::with_options(inner, &Key::generate(), &options);
        all(&store, Can { update: true, copy_if_not_exists: true }).await;
    }
}
