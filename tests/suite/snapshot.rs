//! Snapshots: a key is there before the first byte that needs it, and goes only if there is no file.

use std::{
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::Mutex,
};

use agcm::{
    DecryptOptions, EncryptOptions, Error, FileOptions, Key, SnapshotError, encrypt_snapshot,
    keystore::{DirKeyStore, KeyStore, KeyStoreError},
    restore_snapshot,
};
use futures::future::{BoxFuture, FutureExt};
use tokio_util::sync::CancellationToken;

use crate::{folder::Folder, vectors::plaintext};

/// A store that keeps its keys in a folder of its own, and notes what it was asked for, and what was in the folder of the
/// files then.
struct Witness {
    keys: DirKeyStore,
    home: Folder,
    watched: PathBuf,
    seen: Mutex<Vec<(&'static str, Vec<String>)>>,
    /// What it fails to do.
    broken: Option<&'static str>,
}

impl Witness {
    fn of(watched: &Folder) -> Self {
        let home = Folder::new();
        Self {
            keys: DirKeyStore::new(home.path("keys")),
            home,
            watched: watched.root().to_owned(),
            seen: Mutex::default(),
            broken: None,
        }
    }

    fn failing_to(self, broken: &'static str) -> Self {
        Self { broken: Some(broken), ..self }
    }

    fn look(&self, asked: &'static str) {
        let mut names: Vec<String> = fs::read_dir(&self.watched)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        self.seen.lock().unwrap().push((asked, names));
    }

    async fn asked(&self, to: &'static str) -> Result<(), KeyStoreError> {
        self.look(to);
        if self.broken == Some(to) {
            return Err(io::Error::other(format!("this store cannot {to}")).into());
        }
        Ok(())
    }

    #[track_caller]
    fn assert_saw(&self, expected: &[(&str, &[&str])]) {
        let seen = self.seen.lock().unwrap();
        let seen: Vec<(&str, Vec<&str>)> =
            seen.iter().map(|(asked, names)| (*asked, names.iter().map(String::as_str).collect())).collect();
        let expected: Vec<(&str, Vec<&str>)> = expected.iter().map(|(asked, names)| (*asked, names.to_vec())).collect();
        assert_eq!(seen, expected);
    }
}

impl KeyStore for Witness {
    fn store<'a>(&'a self, id: &'a str, key: &'a Key) -> BoxFuture<'a, Result<(), KeyStoreError>> {
        async move {
            self.asked("store").await?;
            self.keys.store(id, key).await?;
            // If somebody does not wait for this to be done, there is time to be caught at it.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            self.look("stored");
            Ok(())
        }
        .boxed()
    }

    fn retrieve<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Key, KeyStoreError>> {
        async move {
            self.asked("retrieve").await?;
            self.keys.retrieve(id).await
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, KeyStoreError>> {
        self.keys.list()
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), KeyStoreError>> {
        async move {
            self.asked("remove").await?;
            self.keys.remove(id).await
        }
        .boxed()
    }
}

/// A folder with a file `src`, and a store elsewhere.
fn begin(plain: &[u8]) -> (Folder, PathBuf, PathBuf, Witness) {
    let folder = Folder::new();
    let (src, dst) = (folder.write("src", plain), folder.path("dst"));
    let keys = Witness::of(&folder);
    (folder, src, dst, keys)
}

#[tokio::test]
async fn snapshots_make_the_round_trip() {
    for len in [0, 1, 65_536, 200_000] {
        let plain = plaintext(len);
        let (folder, src, dst, keys) = begin(&plain);
        assert_eq!(encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap(), len as u64);
        assert_eq!(restore_snapshot(&dst, folder.path("again"), &keys, "db-1").await.unwrap(), len as u64);
        assert!(fs::read(folder.path("again")).unwrap() == plain);
        assert!(fs::read(&src).unwrap() == plain);
        assert_eq!(keys.list().await.unwrap(), ["db-1"]);
        folder.assert_holds(&["again", "dst", "src"]);
    }
}

#[tokio::test]
async fn the_stored_key_and_the_id_as_context_open_the_stream() {
    let (_folder, src, dst, keys) = begin(b"some rows");
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    let key = keys.retrieve("db-1").await.unwrap();
    let stream = fs::read(&dst).unwrap();
    let with = |context: &str| DecryptOptions::new().context(context).unwrap();
    assert_eq!(with("db-1").decrypt(&key, &stream).unwrap(), b"some rows");
    for other in ["", "db-2", "db-11", "DB-1"] {
        assert_eq!(with(other).decrypt(&key, &stream), Err(Error::KeyMismatch));
    }
}

#[tokio::test]
async fn every_snapshot_has_a_key_of_its_own() {
    let (folder, src, dst, keys) = begin(b"some rows");
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    encrypt_snapshot(&src, folder.path("other"), &keys, "db-2").await.unwrap();
    assert_ne!(keys.retrieve("db-1").await.unwrap(), keys.retrieve("db-2").await.unwrap());
    let error = restore_snapshot(&dst, folder.path("again"), &keys, "db-2").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Stream(Error::KeyMismatch)), "{error:?}");
    folder.assert_holds(&["dst", "other", "src"]);
}

#[tokio::test]
async fn a_key_under_another_id_opens_nothing() {
    let (folder, src, dst, keys) = begin(b"some rows");
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    encrypt_snapshot(&src, folder.path("other"), &keys, "db-2").await.unwrap();
    let file = |name| keys.home.path("keys").join(name);
    // The right key, under a name that is not its own.
    fs::rename(file("db-1.key"), file("x")).unwrap();
    fs::rename(file("db-2.key"), file("db-1.key")).unwrap();
    fs::rename(file("x"), file("db-2.key")).unwrap();
    for id in ["db-1", "db-2"] {
        let error = restore_snapshot(&dst, folder.path("again"), &keys, id).await.unwrap_err();
        assert!(matches!(error, SnapshotError::Stream(Error::KeyMismatch)), "{error:?}");
    }
    folder.assert_holds(&["dst", "other", "src"]);
}

#[tokio::test]
async fn the_options_of_files_hold_for_snapshots_and_their_context_gives_way_to_the_id() {
    let plain = plaintext(5000);
    let (folder, src, dst, keys) = begin(&plain);
    folder.write("dst", "old");
    let options = FileOptions::new()
        .encrypt_options(EncryptOptions::new().chunk_size(1000).unwrap().context("mine").unwrap())
        .decrypt_options(DecryptOptions::new().context("mine").unwrap())
        .overwrite(true);
    options.encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    let stream = fs::read(&dst).unwrap();
    assert_eq!(stream.len(), 117 + 5 * (1000 + 20));
    let key = keys.retrieve("db-1").await.unwrap();
    assert!(DecryptOptions::new().context("db-1").unwrap().decrypt(&key, &stream).unwrap() == plain);
    folder.write("again", "old");
    options.restore_snapshot(&dst, folder.path("again"), &keys, "db-1").await.unwrap();
    assert!(fs::read(folder.path("again")).unwrap() == plain);

    let careful = FileOptions::new().decrypt_options(DecryptOptions::new().max_chunk_size(999).unwrap());
    let error = careful.restore_snapshot(&dst, folder.path("more"), &keys, "db-1").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Stream(Error::ChunkTooLarge { chunk: 1000, max: 999 })), "{error:?}");
    folder.assert_holds(&["again", "dst", "src"]);
}

#[tokio::test]
async fn the_key_is_stored_before_anything_is_written() {
    let (folder, src, dst, keys) = begin(&plaintext(100_000));
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    keys.assert_saw(&[("store", &["src"]), ("stored", &["src"])]);
    folder.assert_holds(&["dst", "src"]);
}

#[tokio::test]
async fn if_the_key_cannot_be_stored_nothing_is_written() {
    let (folder, src, dst, keys) = begin(b"some rows");
    let keys = keys.failing_to("store");
    let error = encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap_err();
    assert!(matches!(error, SnapshotError::KeyStore(KeyStoreError::Io(_))), "{error:?}");
    assert!(error.to_string().contains("this store cannot store"), "{error}");
    // What was not stored need not be removed: it might be somebody else's.
    keys.assert_saw(&[("store", &["src"])]);
    folder.assert_holds(&["src"]);
}

#[tokio::test]
async fn an_id_that_no_store_takes_writes_nothing() {
    let (folder, src, dst, keys) = begin(b"some rows");
    let error = encrypt_snapshot(&src, &dst, &keys, "../db").await.unwrap_err();
    assert!(matches!(error, SnapshotError::KeyStore(KeyStoreError::BadId { .. })), "{error:?}");
    let error = restore_snapshot(&src, &dst, &keys, "../db").await.unwrap_err();
    assert!(matches!(error, SnapshotError::KeyStore(KeyStoreError::BadId { .. })), "{error:?}");
    folder.assert_holds(&["src"]);
    keys.home.assert_holds(&[]);
}

#[tokio::test]
async fn an_id_that_is_no_context_is_refused_before_a_key_is_stored() {
    let (folder, src, dst, keys) = begin(b"some rows");
    let id = "x".repeat(65_536);
    for error in [
        encrypt_snapshot(&src, &dst, &keys, &id).await.unwrap_err(),
        restore_snapshot(&src, &dst, &keys, &id).await.unwrap_err(),
    ] {
        assert!(matches!(error, SnapshotError::Stream(Error::ContextTooLong(65_536))), "{error:?}");
    }
    keys.assert_saw(&[]);
    folder.assert_holds(&["src"]);
}

#[tokio::test]
async fn a_key_that_was_there_before_is_neither_replaced_nor_removed() {
    let (folder, src, dst, keys) = begin(b"some rows");
    let old = Key::generate();
    keys.keys.store("db-1", &old).await.unwrap();
    for target in [&dst, &src, &folder.path("missing/dst")] {
        let error = encrypt_snapshot(&src, target, &keys, "db-1").await.unwrap_err();
        assert!(matches!(&error, SnapshotError::KeyStore(KeyStoreError::IdTaken(id)) if id == "db-1"), "{error:?}");
        assert_eq!(keys.retrieve("db-1").await.unwrap(), old);
    }
    folder.assert_holds(&["src"]);
}

#[tokio::test]
async fn a_second_snapshot_of_one_id_leaves_the_first_as_it_is() {
    let (folder, src, dst, keys) = begin(b"some rows");
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    let before = fs::read(&dst).unwrap();
    // Also where its file would be replaced.
    let options = FileOptions::new().overwrite(true);
    let error = options.encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap_err();
    assert!(matches!(error, SnapshotError::KeyStore(KeyStoreError::IdTaken(_))), "{error:?}");
    assert_eq!(fs::read(&dst).unwrap(), before);
    restore_snapshot(&dst, folder.path("again"), &keys, "db-1").await.unwrap();
}

/// Whatever keeps a file from being published, the key goes, and when the cause is gone, the same works.
#[tokio::test]
async fn what_fails_leaves_no_key_and_can_be_tried_again() {
    type Step = fn(&Folder);
    let cases: [(&str, ErrorKind, Step, Step); 5] = [
        (
            "a file at the target",
            ErrorKind::AlreadyExists,
            |folder| drop(folder.write("dst", "old")),
            |folder| {
                assert_eq!(fs::read(folder.path("dst")).unwrap(), b"old");
                fs::remove_file(folder.path("dst")).unwrap();
            },
        ),
        (
            "a folder at the target",
            ErrorKind::IsADirectory,
            |folder| {
                fs::create_dir(folder.path("dst")).unwrap();
                folder.write("dst/inner", "old");
            },
            |folder| {
                assert_eq!(fs::read(folder.path("dst/inner")).unwrap(), b"old");
                fs::remove_dir_all(folder.path("dst")).unwrap();
            },
        ),
        (
            "no source",
            ErrorKind::NotFound,
            |folder| fs::remove_file(folder.path("src")).unwrap(),
            |folder| drop(folder.write("src", "some rows")),
        ),
        #[cfg(unix)]
        (
            "a folder as the source",
            ErrorKind::IsADirectory,
            |folder| {
                fs::remove_file(folder.path("src")).unwrap();
                fs::create_dir(folder.path("src")).unwrap();
            },
            |folder| {
                fs::remove_dir(folder.path("src")).unwrap();
                folder.write("src", "some rows");
            },
        ),
        #[cfg(unix)]
        (
            "a link to nowhere at the target",
            ErrorKind::AlreadyExists,
            |folder| std::os::unix::fs::symlink("nowhere", folder.path("dst")).unwrap(),
            |folder| fs::remove_file(folder.path("dst")).unwrap(),
        ),
    ];
    for (case, kind, break_it, mend_it) in cases {
        let (folder, src, dst, keys) = begin(b"some rows");
        break_it(&folder);
        let before = fs::read_dir(folder.root()).unwrap().count();
        let error = encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap_err();
        assert!(matches!(&error, SnapshotError::Io(error) if error.kind() == kind), "{case}: {error:?}");
        assert!(error.to_string().contains(folder.root().to_str().unwrap()), "{error}");
        assert_eq!(keys.list().await.unwrap(), [""; 0], "{case}");
        assert_eq!(fs::read_dir(folder.root()).unwrap().count(), before, "{case}");
        // The key goes last, when nothing is left that may need it.
        let seen = keys.seen.lock().unwrap().clone();
        assert_eq!(seen.iter().map(|(asked, _)| *asked).collect::<Vec<_>>(), ["store", "stored", "remove"], "{case}");
        assert_eq!(seen[2].1, seen[0].1, "{case}");

        mend_it(&folder);
        encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
        restore_snapshot(&dst, folder.path("again"), &keys, "db-1").await.unwrap();
        assert_eq!(fs::read(folder.path("again")).unwrap(), b"some rows");
        folder.assert_holds(&["again", "dst", "src"]);
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_removed_is_said_to_be_left() {
    let (folder, src, dst, keys) = begin(b"some rows");
    let keys = keys.failing_to("remove");
    folder.write("dst", "old");
    let error = encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap_err();
    let message = error.to_string();
    let SnapshotError::KeyLeft { id, error, removing } = error else { panic!("{message}") };
    assert_eq!(id, "db-1");
    assert!(matches!(&*error, SnapshotError::Io(error) if error.kind() == ErrorKind::AlreadyExists), "{error:?}");
    assert!(matches!(removing, KeyStoreError::Io(_)), "{removing:?}");
    for words in ["\"db-1\"", &error.to_string(), "this store cannot remove", dst.to_str().unwrap()] {
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(keys.list().await.unwrap(), ["db-1"]);
    folder.assert_holds(&["dst", "src"]);
}

#[tokio::test]
async fn an_unknown_id_restores_nothing() {
    let (folder, src, dst, keys) = begin(b"some rows");
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    let error = restore_snapshot(&dst, folder.path("again"), &keys, "db-2").await.unwrap_err();
    assert!(matches!(&error, SnapshotError::KeyStore(KeyStoreError::NoSuchId(id)) if id == "db-2"), "{error:?}");
    assert!(!error.to_string().contains("db-1"), "{error}");
    folder.assert_holds(&["dst", "src"]);
}

#[tokio::test]
async fn what_cannot_be_restored_leaves_nothing_behind_and_the_key_where_it_is() {
    let (folder, src, dst, keys) = begin(&plaintext(200_000));
    encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    let good = fs::read(&dst).unwrap();
    let mut damaged = good.clone();
    damaged[150_000] ^= 1;
    let longer = [&good[..], b"x"].concat();
    let at = 80 + 2 * (65_536 + 20);
    let streams: [(&[u8], Error); 3] = [
        (&damaged, Error::Corrupt { frame: 2, at }),
        (&good[..180_000], Error::Truncated { at: 180_000 }),
        (&longer, Error::TrailingData { at: good.len() as u64 }),
    ];
    for (stream, expected) in streams {
        fs::write(&dst, stream).unwrap();
        let error = restore_snapshot(&dst, folder.path("again"), &keys, "db-1").await.unwrap_err();
        assert!(matches!(&error, SnapshotError::Stream(error) if *error == expected), "{error:?}");
        folder.assert_holds(&["dst", "src"]);
    }
    let error = restore_snapshot(folder.path("missing"), folder.path("again"), &keys, "db-1").await.unwrap_err();
    assert!(matches!(&error, SnapshotError::Io(error) if error.kind() == ErrorKind::NotFound), "{error:?}");
    let error = restore_snapshot(&dst, &src, &keys, "db-1").await.unwrap_err();
    assert!(matches!(&error, SnapshotError::Io(error) if error.kind() == ErrorKind::AlreadyExists), "{error:?}");
    fs::write(&dst, &good).unwrap();
    restore_snapshot(&dst, folder.path("again"), &keys, "db-1").await.unwrap();
    assert_eq!(keys.list().await.unwrap(), ["db-1"]);
}

#[tokio::test]
async fn a_snapshot_that_was_cancelled_before_it_began_leaves_nothing() {
    let (folder, src, dst, keys) = begin(b"some rows");
    let token = CancellationToken::new();
    token.cancel();
    let options = FileOptions::new().cancel_on(token);
    let error = options.encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap_err();
    assert!(matches!(&error, SnapshotError::Io(_)), "{error:?}");
    assert_eq!(keys.list().await.unwrap(), [""; 0]);
    folder.assert_holds(&["src"]);
}

#[tokio::test]
async fn a_callback_that_panics_fails_the_snapshot_and_leaves_nothing() {
    // At the first bytes, and at the end, when the file is whole.
    for at in [1, 2_000_000] {
        let (folder, src, dst, keys) = begin(&plaintext(2_000_000));
        let options =
            FileOptions::new().progress(move |progress| assert!(progress.done < at, "this panic is part of a test"));
        let error = options.encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap_err();
        assert!(matches!(&error, SnapshotError::Io(_)), "{error:?}");
        assert_eq!(keys.list().await.unwrap(), [""; 0]);
        folder.assert_holds(&["src"]);
        encrypt_snapshot(&src, &dst, &keys, "db-1").await.unwrap();
    }
}

/// A pipe as the source lets a test stop a snapshot when its file is half-written.
#[cfg(unix)]
mod in_the_middle {
    use std::{io::Write, sync::Arc, time::Duration};

    use super::*;
    use crate::file::in_the_middle::{open_for_writing, pipe, until_begun};

    #[tokio::test]
    async fn a_snapshot_that_is_cancelled_leaves_nothing() {
        let folder = Folder::new();
        let (src, dst) = (pipe(&folder), folder.path("dst"));
        let keys = Arc::new(Witness::of(&folder));
        let token = CancellationToken::new();
        let operation = tokio::spawn({
            let (src, dst, keys, token) = (src.clone(), dst.clone(), keys.clone(), token.clone());
            async move { FileOptions::new().cancel_on(token).encrypt_snapshot(src, dst, &*keys, "db-1").await }
        });
        let mut pipe = open_for_writing(&src).await;
        pipe.write_all(&[7; 1000]).unwrap();
        until_begun(&folder).await;
        assert_eq!(keys.list().await.unwrap(), ["db-1"], "the key of what is being written is there");
        token.cancel();
        // The read that waits for more must come to an end first.
        drop(pipe);
        let error = operation.await.unwrap().unwrap_err();
        assert!(matches!(&error, SnapshotError::Io(_)), "{error:?}");
        assert!(error.to_string().contains("cancelled"), "{error}");
        assert_eq!(keys.list().await.unwrap(), [""; 0]);
        folder.assert_holds(&["pipe"]);
        keys.assert_saw(&[("store", &["pipe"]), ("stored", &["pipe"]), ("remove", &["pipe"])]);
    }

    /// It may have come too late, so nobody but the caller can know whether the key is needed.
    #[tokio::test]
    async fn a_snapshot_that_is_dropped_leaves_its_key_and_no_file() {
        let folder = Folder::new();
        let (src, dst) = (pipe(&folder), folder.path("dst"));
        let keys = Arc::new(Witness::of(&folder));
        let operation = tokio::spawn({
            let (src, dst, keys) = (src.clone(), dst.clone(), keys.clone());
            async move { encrypt_snapshot(src, dst, &*keys, "db-1").await }
        });
        let pipe = open_for_writing(&src).await;
        until_begun(&folder).await;
        operation.abort();
        assert!(operation.await.unwrap_err().is_cancelled());
        drop(pipe);
        while fs::read_dir(folder.root()).unwrap().count() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        folder.assert_holds(&["pipe"]);
        assert_eq!(keys.list().await.unwrap(), ["db-1"]);
    }

    #[tokio::test]
    async fn a_target_that_appears_meanwhile_stays_and_the_key_goes() {
        let folder = Folder::new();
        let (src, dst) = (pipe(&folder), folder.path("dst"));
        let keys = Arc::new(Witness::of(&folder));
        let operation = tokio::spawn({
            let (src, dst, keys) = (src.clone(), dst.clone(), keys.clone());
            async move { encrypt_snapshot(src, dst, &*keys, "db-1").await }
        });
        let pipe = open_for_writing(&src).await;
        until_begun(&folder).await;
        folder.write("dst", "somebody else's");
        drop(pipe);
        let error = operation.await.unwrap().unwrap_err();
        assert!(matches!(&error, SnapshotError::Io(error) if error.kind() == ErrorKind::AlreadyExists), "{error:?}");
        assert_eq!(keys.list().await.unwrap(), [""; 0]);
        assert_eq!(fs::read(&dst).unwrap(), b"somebody else's");
        folder.assert_holds(&["dst", "pipe"]);
    }
}

/// The store makes a file where the snapshot would be.
#[tokio::test]
async fn a_snapshot_never_takes_the_place_of_its_own_key() {
    let folder = Folder::new();
    let src = folder.write("src", "rows");
    let keys = DirKeyStore::new(folder.path("keys"));
    let options = FileOptions::new().overwrite(true);
    #[cfg(unix)]
    std::os::unix::fs::symlink("keys/id.key", folder.path("link")).unwrap();
    for dst in ["keys/id.key", if cfg!(unix) { "link" } else { "keys/id.key" }] {
        let error = options.encrypt_snapshot(&src, folder.path(dst), &keys, "id").await.unwrap_err();
        assert!(matches!(&error, SnapshotError::Io(error) if error.kind() == ErrorKind::AlreadyExists), "{error}");
        assert!(keys.list().await.unwrap().is_empty(), "and it is removed");
    }
}
