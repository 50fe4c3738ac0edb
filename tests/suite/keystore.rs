//! Keys by id, in a folder: never replaced, never shown, and not read where others may read them.

use std::{error, fs, io, io::ErrorKind, path::PathBuf, sync::Arc};

use agcm::{
    Key, SnapshotError,
    keystore::{DirKeyStore, KeyStore, KeyStoreError},
};

use crate::{drive::poll_once, folder::Folder};

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A key that is easily found in a text.
fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

/// The key of [`HEX`].
fn counting() -> Key {
    HEX.parse().unwrap()
}

/// A folder that may hold keys, as a store would make it.
fn home() -> Folder {
    let folder = Folder::new();
    #[cfg(unix)]
    unix::chmod(folder.root(), 0o700);
    folder
}

fn store(folder: &Folder) -> DirKeyStore {
    DirKeyStore::new(folder.root())
}

/// Puts a file among the keys, as somebody would who copies one there with care.
fn put(folder: &Folder, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.write(name, bytes);
    #[cfg(unix)]
    unix::chmod(&path, 0o600);
    path
}

fn ids(expected: &[&str]) -> Vec<String> {
    expected.iter().map(|&id| id.to_owned()).collect()
}

/// Whatever is told about a key, none of these may be in it: its bytes as hex, as a list, or escaped.
#[track_caller]
pub fn assert_shows_nothing_of(byte: u8, text: &str) {
    let text: String = text.split_whitespace().collect();
    for leak in [
        format!("{byte:02x}{byte:02x}{byte:02x}"),
        format!("{byte:02X}{byte:02X}{byte:02X}"),
        format!("{byte},{byte},{byte}"),
        format!("0x{byte:02x},0x{byte:02x}"),
        format!("\\x{byte:02x}\\x{byte:02x}"),
    ] {
        assert!(!text.contains(&leak), "{text}");
    }
}

/// What every store has to do, whatever it keeps its keys in.
pub async fn assert_is_a_key_store(keys: impl KeyStore) {
    let (first, second) = (Key::generate(), Key::generate());
    keys.store("beta", &first).await.unwrap();
    keys.store("alpha", &second).await.unwrap();
    assert_eq!(keys.retrieve("beta").await.unwrap(), first);
    assert_eq!(keys.retrieve("alpha").await.unwrap(), second);
    assert_eq!(keys.list().await.unwrap(), ids(&["alpha", "beta"]));

    // A key is never replaced, not even by itself.
    for key in [&first, &second] {
        let error = keys.store("beta", key).await.unwrap_err();
        assert!(matches!(&error, KeyStoreError::IdTaken(id) if id == "beta"), "{error:?}");
        assert_eq!(keys.retrieve("beta").await.unwrap(), first);
    }

    keys.remove("beta").await.unwrap();
    for error in [
        keys.retrieve("beta").await.unwrap_err(),
        keys.remove("beta").await.unwrap_err(),
        keys.retrieve("gamma").await.unwrap_err(),
        keys.remove("gamma").await.unwrap_err(),
    ] {
        assert!(matches!(&error, KeyStoreError::NoSuchId(id) if id == "beta" || id == "gamma"), "{error:?}");
        // Who may ask for one id may not learn of others.
        assert!(!format!("{error} {error:?}").contains("alpha"), "{error}");
    }
    assert_eq!(keys.list().await.unwrap(), ids(&["alpha"]));
    assert_eq!(keys.retrieve("alpha").await.unwrap(), second);

    keys.store("beta", &second).await.unwrap();
    assert_eq!(keys.retrieve("beta").await.unwrap(), second);
    keys.remove("alpha").await.unwrap();
    keys.remove("beta").await.unwrap();
    assert_eq!(keys.list().await.unwrap(), ids(&[]));
}

/// Many tasks store keys under one id, in turns through one of the stores; exactly one may succeed.
pub async fn assert_one_of_many_wins(stores: Vec<Arc<dyn KeyStore>>) {
    let tasks: Vec<_> = (0..32)
        .map(|i| {
            let keys = stores[usize::from(i) % stores.len()].clone();
            tokio::spawn(async move { keys.store("shared", &key(i)).await.map(|()| key(i)) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(key) => winners.push(key),
            Err(KeyStoreError::IdTaken(id)) => assert_eq!(id, "shared"),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    for keys in stores {
        assert_eq!(keys.retrieve("shared").await.unwrap(), winners[0]);
        assert_eq!(keys.list().await.unwrap(), ids(&["shared"]));
    }
}

#[tokio::test]
async fn a_folder_is_a_key_store_through_whatever_leads_to_it() {
    let folder = Folder::new();
    let keys = DirKeyStore::new(folder.path("keys"));
    assert_is_a_key_store(&keys as &dyn KeyStore).await;
    assert_is_a_key_store(Arc::new(keys.clone()) as Arc<dyn KeyStore>).await;
    assert_is_a_key_store(Box::new(keys) as Box<dyn KeyStore>).await;
    folder.assert_holds(&["keys"]);
    assert_eq!(fs::read_dir(folder.path("keys")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_store_under_one_id_one_wins_and_its_key_stays() {
    for _ in 0..3 {
        let folder = Folder::new();
        // Two stores, as two processes would have, and a folder that none of them has made yet.
        let keys = || Arc::new(DirKeyStore::new(folder.path("keys"))) as Arc<dyn KeyStore>;
        assert_one_of_many_wins(vec![keys(), keys()]).await;
        let left: Vec<_> = fs::read_dir(folder.path("keys")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["shared.key"], "the losers leave nothing behind");
    }
}

#[tokio::test]
async fn a_key_file_is_64_hex_digits_and_a_newline() {
    let folder = Folder::new();
    DirKeyStore::new(folder.path("keys")).store("db-1", &counting()).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path("keys/db-1.key")).unwrap(), format!("{HEX}\n"));
    assert_eq!(Key::read_file(folder.path("keys/db-1.key")).await.unwrap(), counting());
}

#[tokio::test]
async fn keys_of_other_origin_are_read() {
    let folder = home();
    let raw: Vec<u8> = (0..32).collect();
    put(&folder, "newline.key", format!("{HEX}\n"));
    put(&folder, "crlf.key", format!("{HEX}\r\n"));
    put(&folder, "bare.key", HEX);
    put(&folder, "upper.key", HEX.to_uppercase());
    put(&folder, "raw.key", &raw);
    for id in store(&folder).list().await.unwrap() {
        assert_eq!(store(&folder).retrieve(&id).await.unwrap(), counting(), "{id}");
    }
    assert_eq!(store(&folder).list().await.unwrap().len(), 5);
    // A raw key may begin like a wrapped one.
    let dollar = [b"$", &raw[1..]].concat();
    put(&folder, "dollar.key", &dollar);
    assert_eq!(store(&folder).retrieve("dollar").await.unwrap().expose_bytes()[..], dollar[..]);
}

/// Beside the folder and in it there are keys that a path would find.
#[tokio::test]
async fn an_id_never_leads_anywhere_else() {
    let folder = Folder::new();
    let keys = DirKeyStore::new(folder.path("keys"));
    keys.store("seen", &counting()).await.unwrap();
    put(&folder, "beside.key", HEX);
    let absolute = folder.path("beside").into_os_string().into_string().unwrap();
    let long = "x".repeat(201);
    for bad in [
        "",
        ".",
        "..",
        "../beside",
        "../keys/seen",
        "./seen",
        "a/b",
        "a/",
        "/",
        "/etc/passwd",
        &absolute,
        "a\\b",
        "..\\beside",
        "C:seen",
        "C:\\seen",
        "\\\\server\\share\\seen",
        ".seen",
        ".agcm-1.partial",
        "-seen",
        "-",
        "se en",
        " seen",
        "seen ",
        "seen\0",
        "\0",
        "seen\n",
        "\n",
        "a\tb",
        "a\u{7f}b",
        "schlüssel",
        "ключ",
        "\u{202e}a",
        "a*",
        "a?",
        "a$b",
        "a~",
        "~",
        "a:b",
        "a|b",
        "a%2fb",
        "'a'",
        "\"a\"",
        &long,
    ] {
        for error in [
            keys.store(bad, &counting()).await.unwrap_err(),
            keys.retrieve(bad).await.unwrap_err(),
            keys.remove(bad).await.unwrap_err(),
        ] {
            assert!(matches!(&error, KeyStoreError::BadId { id, .. } if id == bad), "{error:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }
    assert_eq!(keys.list().await.unwrap(), ids(&["seen"]));
    assert_eq!(fs::read_dir(folder.path("keys")).unwrap().count(), 1);
    folder.assert_holds(&["beside.key", "keys"]);
}

#[tokio::test]
async fn an_id_is_looked_at_before_anything_else_is() {
    let folder = Folder::new();
    let keys = DirKeyStore::new(folder.path("keys"));
    for error in [
        keys.store("../a", &counting()).await.unwrap_err(),
        keys.retrieve("../a").await.unwrap_err(),
        keys.remove("../a").await.unwrap_err(),
    ] {
        assert!(matches!(error, KeyStoreError::BadId { .. }), "{error:?}");
    }
    folder.assert_holds(&[]);
}

#[tokio::test]
async fn ids_are_taken_as_long_as_they_may_be_and_with_all_that_they_may_have() {
    let folder = home();
    let keys = store(&folder);
    let longest = "x".repeat(200);
    let mut good = ["0", "_", "a", "a-", "a.", "a..b", "a.key", "A.b_c-9", "db-2026-11-22T10.30", &longest];
    for (i, id) in good.iter().enumerate() {
        keys.store(id, &key(u8::try_from(i).unwrap())).await.unwrap();
    }
    for (i, id) in good.iter().enumerate() {
        assert_eq!(keys.retrieve(id).await.unwrap(), key(u8::try_from(i).unwrap()), "{id}");
    }
    good.sort_unstable();
    assert_eq!(keys.list().await.unwrap(), ids(&good));
    for id in good {
        keys.remove(id).await.unwrap();
    }
    folder.assert_holds(&[]);
}

#[tokio::test]
async fn a_list_has_the_ids_in_order_and_nothing_else() {
    let folder = home();
    for name in ["b.key", "a.key", "a-1.key", "B.key", "10.key", "9.key"] {
        put(&folder, name, HEX);
    }
    for name in [
        "notes.txt",
        ".agcm-x1.partial",
        ".hidden.key",
        "-x.key",
        "a b.key",
        ".key",
        "c.KEY",
        "c.key~",
        "key",
        "ü.key",
        "c.key.bak",
    ] {
        put(&folder, name, HEX);
    }
    fs::create_dir(folder.path("sub")).unwrap();
    put(&folder, "sub/d.key", HEX);
    #[cfg(target_os = "linux")]
    fs::write(folder.root().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.key")), HEX)
        .unwrap();
    assert_eq!(store(&folder).list().await.unwrap(), ids(&["10", "9", "B", "a", "a-1", "b"]));
}

#[tokio::test]
async fn what_is_not_a_key_is_said_to_be_none_and_not_shown() {
    let long = |len: usize| "c5".repeat(len / 2);
    for content in [
        String::new(),
        "\n".to_owned(),
        "c5".to_owned(),
        "c5c5c5c5\n".to_owned(),
        long(62),
        long(64)[1..].to_owned(),
        long(64) + "c",
        long(64) + "\n\n",
        long(64) + "\r",
        long(64) + " \n",
        " ".to_owned() + &long(64),
        "\u{feff}".to_owned() + &long(64),
        long(62) + "cg\n",
        long(31) + "c",
        long(32) + "\n",
        long(66),
        long(128),
        long(4094),
        long(4096),
        long(5000),
        long(5_000_000),
    ] {
        let folder = home();
        let keys = store(&folder);
        put(&folder, "odd.key", &content);
        let error = keys.retrieve("odd").await.unwrap_err();
        assert!(matches!(&error, KeyStoreError::NotAKey { id, .. } if id == "odd"), "{error:?} for {}", content.len());
        assert_shows_nothing_of(0xc5, &format!("{error} {error:?}"));
        // It was something once, and stays as it is.
        assert_eq!(fs::read_to_string(folder.path("odd.key")).unwrap(), content);
        let error = keys.store("odd", &counting()).await.unwrap_err();
        assert!(matches!(error, KeyStoreError::IdTaken(_)), "{error:?}");
        keys.remove("odd").await.unwrap();
        folder.assert_holds(&[]);
    }
    let folder = home();
    for len in [31, 33, 64, 65, 4095, 4096, 5000] {
        put(&folder, "raw.key", vec![0xc5; len]);
        let error = store(&folder).retrieve("raw").await.unwrap_err();
        assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{error:?} for {len}");
        assert_eq!(error.to_string().contains("too long"), len >= 4096, "{error}");
        assert_shows_nothing_of(0xc5, &format!("{error} {error:?}"));
    }
}

#[tokio::test]
async fn a_folder_in_the_place_of_a_key_is_no_key_and_stays() {
    let folder = home();
    let keys = store(&folder);
    fs::create_dir(folder.path("odd.key")).unwrap();
    put(&folder, "odd.key/inner", "precious");
    let error = keys.retrieve("odd").await.unwrap_err();
    assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{error:?}");
    let error = keys.store("odd", &counting()).await.unwrap_err();
    assert!(matches!(error, KeyStoreError::IdTaken(_)), "{error:?}");
    let error = keys.remove("odd").await.unwrap_err();
    assert!(matches!(error, KeyStoreError::Io(_)), "{error:?}");
    assert!(error.to_string().contains("odd.key"), "{error}");
    assert_eq!(fs::read(folder.path("odd.key/inner")).unwrap(), b"precious");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_made_by_storing_only() {
    let folder = Folder::new();
    let path = folder.path("keys");
    let keys = DirKeyStore::new(&path);
    for error in
        [keys.retrieve("db").await.unwrap_err(), keys.list().await.unwrap_err(), keys.remove("db").await.unwrap_err()]
    {
        // Of an id it says nothing: it may well be there when the disk is mounted.
        assert!(matches!(&error, KeyStoreError::Io(error) if error.kind() == ErrorKind::NotFound), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    folder.assert_holds(&[]);
    keys.store("db", &counting()).await.unwrap();
    folder.assert_holds(&["keys"]);

    // But not the folders above it: the disk that they are on may be missing.
    let deep = folder.path("missing/keys");
    let error = DirKeyStore::new(&deep).store("db", &counting()).await.unwrap_err();
    assert!(matches!(&error, KeyStoreError::Io(error) if error.kind() == ErrorKind::NotFound), "{error:?}");
    assert!(error.to_string().contains(deep.to_str().unwrap()), "{error}");
    folder.assert_holds(&["keys"]);
}

#[tokio::test]
async fn a_file_in_the_place_of_the_folder_is_named() {
    let folder = Folder::new();
    let path = put(&folder, "keys", "a file");
    let keys = DirKeyStore::new(&path);
    for error in [
        keys.store("db", &counting()).await.unwrap_err(),
        keys.retrieve("db").await.unwrap_err(),
        keys.list().await.unwrap_err(),
        keys.remove("db").await.unwrap_err(),
    ] {
        assert!(matches!(&error, KeyStoreError::Io(error) if error.kind() == ErrorKind::NotADirectory), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"a file");
}

#[tokio::test]
async fn neither_a_store_nor_its_errors_show_a_key() {
    let folder = home();
    let keys = store(&folder);
    let secret = key(0xc5);
    keys.store("db", &secret).await.unwrap();
    let taken = keys.store("db", &secret).await.unwrap_err();
    let bad = keys.store("../db", &secret).await.unwrap_err();
    let nowhere = DirKeyStore::new(folder.path("a/b")).store("db", &secret).await.unwrap_err();
    assert_shows_nothing_of(0xc5, &format!("{keys:?} {keys:#?} {taken} {taken:?} {bad} {bad:?} {nowhere} {nowhere:?}"));
}

/// The only thread for blocking work does one thing after the other, so what was dropped is over when the next is.
#[test]
fn storing_that_is_dropped_is_done_or_not() {
    let folder = home();
    let keys = store(&folder);
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        // It may be over already.
        let _ = poll_once(keys.store("db", &counting()));
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        if !keys.list().await.unwrap().is_empty() {
            assert_eq!(keys.retrieve("db").await.unwrap(), counting());
            keys.remove("db").await.unwrap();
        }
    });
    folder.assert_holds(&[]);
}

/// Who may read what, links and pipes.
#[cfg(unix)]
mod unix {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
        time::Duration,
    };

    use super::*;
    use crate::file::in_the_middle::pipe;

    pub fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[track_caller]
    fn assert_unsafe(error: &KeyStoreError, expected: &Path, bits: u32) {
        let KeyStoreError::UnsafePermissions { path, mode } = error else { panic!("{error:?}") };
        assert_eq!((&**path, mode & 0o777), (expected, bits));
        let message = error.to_string();
        assert!(message.contains(expected.to_str().unwrap()) && message.contains(&format!("{bits:03o}")), "{message}");
        assert!(message.contains("chmod"), "{message}");
    }

    #[tokio::test]
    async fn folder_and_keys_are_for_their_owner_alone() {
        let folder = Folder::new();
        DirKeyStore::new(folder.path("keys")).store("db", &counting()).await.unwrap();
        assert_eq!(mode(&folder.path("keys")), 0o700);
        assert_eq!(mode(&folder.path("keys/db.key")), 0o600);
    }

    #[tokio::test]
    async fn a_key_that_others_may_get_at_is_refused_and_left_as_it_is() {
        let folder = home();
        let keys = store(&folder);
        let path = put(&folder, "db.key", HEX);
        for bits in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o440] {
            chmod(&path, bits);
            assert_unsafe(&keys.retrieve("db").await.unwrap_err(), &path, bits);
            assert_eq!(mode(&path), bits);
        }
        for bits in [0o600, 0o400, 0o700] {
            chmod(&path, bits);
            assert_eq!(keys.retrieve("db").await.unwrap(), counting());
        }
        // What it held is not told either.
        put(&folder, "db.key", vec![0xc5; 7]);
        chmod(&path, 0o644);
        assert_unsafe(&keys.retrieve("db").await.unwrap_err(), &path, 0o644);
        // To take it away is part of the remedy.
        keys.remove("db").await.unwrap();
        folder.assert_holds(&[]);
    }

    #[tokio::test]
    async fn a_folder_that_others_may_get_at_is_refused_for_everything_and_left_as_it_is() {
        let folder = Folder::new();
        let path = folder.path("keys");
        let keys = DirKeyStore::new(&path);
        keys.store("db", &counting()).await.unwrap();
        for bits in [0o750, 0o705, 0o710, 0o701, 0o720, 0o702, 0o770, 0o777] {
            chmod(&path, bits);
            for error in [
                keys.store("new", &counting()).await.unwrap_err(),
                keys.retrieve("db").await.unwrap_err(),
                keys.retrieve("unknown").await.unwrap_err(),
                keys.list().await.unwrap_err(),
                keys.remove("db").await.unwrap_err(),
            ] {
                assert_unsafe(&error, &path, bits);
            }
            assert_eq!(mode(&path), bits);
        }
        chmod(&path, 0o700);
        assert_eq!(keys.list().await.unwrap(), ids(&["db"]));
        assert_eq!(keys.retrieve("db").await.unwrap(), counting());
    }

    #[tokio::test]
    async fn a_pipe_in_the_place_of_a_key_is_not_waited_for() {
        let folder = home();
        let keys = store(&folder);
        let path = folder.path("odd.key");
        fs::rename(pipe(&folder), &path).unwrap();
        chmod(&path, 0o600);
        let result = tokio::time::timeout(Duration::from_secs(5), keys.retrieve("odd")).await;
        if result.is_err() {
            // Whoever waits for the other end gets it, so that this test ends.
            drop(fs::OpenOptions::new().write(true).open(&path));
        }
        let error = result.unwrap().unwrap_err();
        assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{error:?}");
        let error = keys.store("odd", &counting()).await.unwrap_err();
        assert!(matches!(error, KeyStoreError::IdTaken(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_link_that_leads_nowhere_is_no_key_and_not_replaced() {
        let folder = home();
        let keys = store(&folder);
        symlink(folder.path("nowhere"), folder.path("db.key")).unwrap();
        let error = keys.retrieve("db").await.unwrap_err();
        assert!(matches!(error, KeyStoreError::NoSuchId(_)), "{error:?}");
        let error = keys.store("db", &counting()).await.unwrap_err();
        assert!(matches!(error, KeyStoreError::IdTaken(_)), "{error:?}");
        folder.assert_holds(&["db.key"]);
        keys.remove("db").await.unwrap();
        folder.assert_holds(&[]);
    }

    #[tokio::test]
    async fn a_link_is_no_way_around_the_permissions() {
        let (folder, elsewhere) = (home(), Folder::new());
        let path = put(&elsewhere, "key", HEX);
        symlink(&path, folder.path("db.key")).unwrap();
        assert_eq!(store(&folder).retrieve("db").await.unwrap(), counting());
        chmod(&path, 0o644);
        assert_unsafe(&store(&folder).retrieve("db").await.unwrap_err(), &folder.path("db.key"), 0o644);
        // The link goes, not what it leads to.
        store(&folder).remove("db").await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), HEX);

        // The same for the folder.
        let outer = Folder::new();
        symlink(folder.root(), outer.path("keys")).unwrap();
        let keys = DirKeyStore::new(outer.path("keys"));
        keys.store("db", &counting()).await.unwrap();
        chmod(folder.root(), 0o755);
        assert_unsafe(&keys.retrieve("db").await.unwrap_err(), &outer.path("keys"), 0o755);
        chmod(folder.root(), 0o700);
    }

    #[tokio::test]
    async fn a_folder_with_a_strange_name_does_not_break_a_message() {
        let folder = Folder::new();
        let path = folder.path("my\nke'ys\u{1b}[2J");
        fs::create_dir(&path).unwrap();
        chmod(&path, 0o755);
        let error = DirKeyStore::new(&path).list().await.unwrap_err();
        assert!(matches!(error, KeyStoreError::UnsafePermissions { .. }), "{error:?}");
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
}

/// One of each, with what its message has to say.
fn errors() -> Vec<(KeyStoreError, &'static [&'static str])> {
    let id = || "db 7\n".to_owned();
    vec![
        (KeyStoreError::NoSuchId(id()), &["no key", "check the spelling"]),
        (KeyStoreError::IdTaken(id()), &["already", "choose another"]),
        (KeyStoreError::BadId { id: id(), rule: "an id is one letter" }, &["an id is one letter"]),
        (KeyStoreError::UnsafePermissions { path: id().into(), mode: 0o100_640 }, &["mode 640", "chmod"]),
        (KeyStoreError::NotAKey { id: id(), reason: "it is a poem" }, &["it is a poem", "look for another copy"]),
        (KeyStoreError::NoPassphrase(id()), &["passphrase", "give it"]),
        (KeyStoreError::WrongPassphrase(id()), &["not the passphrase"]),
        (io::Error::other("the disk is on fire").into(), &["the disk is on fire"]),
    ]
}

fn assert_reads_well(message: &str) {
    assert!(message.len() > 35 && message.len() < 300, "{message}");
    assert!(!message.contains(char::is_control) && !message.contains("  ") && !message.ends_with('.'), "{message}");
}

#[test]
fn every_message_of_a_key_store_is_one_line_that_says_what_to_do() {
    for (error, words) in errors() {
        let message = error.to_string();
        assert_reads_well(&message);
        for word in words {
            assert!(message.contains(word), "{message}");
        }
        if !matches!(error, KeyStoreError::Io(_)) {
            assert!(message.contains("db 7\\n"), "{message}");
        }
    }
}

#[test]
fn every_message_of_a_snapshot_is_one_line_that_says_what_to_do() {
    for (error, words) in errors() {
        let message = error.to_string();
        assert_eq!(SnapshotError::from(error).to_string(), message);

        let (error, _) = errors().into_iter().find(|(error, _)| error.to_string() == message).unwrap();
        let left = SnapshotError::KeyLeft {
            id: "other\n".to_owned(),
            error: Box::new(io::Error::other("the disk is full").into()),
            removing: error,
        };
        let message = left.to_string();
        assert!(!message.contains(char::is_control) && !message.contains("  "), "{message}");
        for word in words.iter().chain(&["the disk is full", "\"other\\n\"", "remove it before"]) {
            assert!(message.contains(word), "{message}");
        }
    }
    assert_eq!(SnapshotError::from(io::Error::other("the disk is full")).to_string(), "the disk is full");
    let error = SnapshotError::from(agcm::Error::KeyMismatch);
    assert_eq!(error.to_string(), agcm::Error::KeyMismatch.to_string());
    // What was wrong with the stream is told apart from what was wrong with the disk, also on its way through `io::Error`.
    let error = SnapshotError::from(io::Error::from(agcm::Error::KeyMismatch));
    assert!(matches!(error, SnapshotError::Stream(agcm::Error::KeyMismatch)), "{error:?}");
}

#[test]
fn errors_go_wherever_errors_go() {
    fn goes_anywhere<T: error::Error + Send + Sync + 'static>() {}
    fn is_shared<T: Send + Sync + 'static>() {}
    goes_anywhere::<KeyStoreError>();
    goes_anywhere::<SnapshotError>();
    is_shared::<DirKeyStore>();
    is_shared::<Arc<dyn KeyStore>>();
    is_shared::<Box<dyn KeyStore>>();

    fn fails() -> Result<(), Box<dyn error::Error + Send + Sync>> {
        Err(SnapshotError::from(KeyStoreError::from(io::Error::from(ErrorKind::TimedOut))))?;
        Ok(())
    }
    let error = fails().unwrap_err();
    let Some(SnapshotError::KeyStore(KeyStoreError::Io(error))) = error.downcast_ref() else { panic!("{error:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // A message has all that is known, so a chain of sources would say it again.
    for (error, _) in errors() {
        assert!(error::Error::source(&error).is_none());
        assert!(error::Error::source(&SnapshotError::from(error)).is_none());
    }
}

#[cfg(feature = "passphrase")]
mod passphrase {
    use std::time::{Duration, Instant};

    use agcm::{DecryptOptions, EncryptOptions, keystore::Passphrase};

    use super::*;

    /// What a line begins with whose costs are those of [`quick`].
    const QUICK: &str = "$argon2id$v=19$m=8,t=1,p=1$";

    /// As cheap as it gets: what is tested is not how long guessing takes.
    fn quick(passphrase: impl AsRef<[u8]>) -> Passphrase {
        Passphrase::new(passphrase).costs(8, 1, 1).unwrap()
    }

    fn with_passphrase(folder: &Folder, passphrase: Passphrase) -> DirKeyStore {
        store(folder).passphrase(passphrase)
    }

    /// A store, a key in it that is wrapped under "sesame", and its file.
    async fn wrapped(folder: &Folder) -> (DirKeyStore, Vec<u8>) {
        let keys = with_passphrase(folder, quick("sesame"));
        keys.store("db", &counting()).await.unwrap();
        (keys, fs::read(folder.path("db.key")).unwrap())
    }

    fn split(content: &[u8]) -> (&str, &[u8]) {
        let end = content.iter().position(|&byte| byte == b'\n').unwrap();
        (std::str::from_utf8(&content[..end]).unwrap(), &content[end + 1..])
    }

    /// Base64 without padding.
    fn unbase64(text: &str) -> Vec<u8> {
        let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bytes, mut bits, mut len) = (Vec::new(), 0u32, 0);
        for digit in text.chars() {
            bits = bits << 6 | u32::try_from(digits.find(digit).unwrap()).unwrap();
            len += 6;
            if len >= 8 {
                len -= 8;
                bytes.push(u8::try_from(bits >> len & 0xff).unwrap());
            }
        }
        bytes
    }

    /// Memory, passes and lanes of a line, and the key that it makes out of a passphrase, as the documentation says.
    fn derive(passphrase: &[u8], line: &str) -> ([u32; 3], Key) {
        let fields: Vec<&str> = line.split('$').collect();
        let ["", "argon2id", "v=19", costs, salt] = fields[..] else { panic!("{line}") };
        let costs: Vec<&str> = costs.split(',').collect();
        let [m, t, p] = costs[..] else { panic!("{line}") };
        let number = |text: &str, name| text.strip_prefix(name).unwrap().parse::<u32>().unwrap();
        let [m, t, p] = [number(m, "m="), number(t, "t="), number(p, "p=")];
        let salt = unbase64(salt);
        assert_eq!(salt.len(), 16);
        let params = argon2::Params::new(m, t, p, Some(32)).unwrap();
        let mut bytes = [0; 32];
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(passphrase, &salt, &mut bytes)
            .unwrap();
        ([m, t, p], Key::from_bytes(bytes))
    }

    /// A file with this line, as if it was wrapped under "sesame".
    fn sealed(line: &str, plaintext: &[u8]) -> Vec<u8> {
        let stream = EncryptOptions::new().context(line).unwrap().encrypt(&derive(b"sesame", line).1, plaintext);
        [line.as_bytes(), b"\n", &stream].concat()
    }

    #[tokio::test]
    async fn a_folder_is_a_key_store_under_a_passphrase_too() {
        let folder = home();
        assert_is_a_key_store(with_passphrase(&folder, quick("sesame"))).await;
        folder.assert_holds(&[]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_that_store_under_one_id_one_wins() {
        let folder = home();
        assert_one_of_many_wins(vec![Arc::new(with_passphrase(&folder, quick("sesame")))]).await;
        folder.assert_holds(&["shared.key"]);
    }

    #[tokio::test]
    async fn a_wrapped_key_is_a_line_and_a_stream_as_documented() {
        let cheap = Passphrase::new("sesame").costs(24, 2, 3).unwrap();
        for (passphrase, costs) in [(Passphrase::new("sesame"), [65_536, 3, 4]), (cheap, [24, 2, 3])] {
            let folder = home();
            with_passphrase(&folder, passphrase).store("db", &counting()).await.unwrap();
            let content = fs::read(folder.path("db.key")).unwrap();
            let (line, stream) = split(&content);
            let (found, wrapping) = derive(b"sesame", line);
            assert_eq!(found, costs);
            let options = DecryptOptions::new().context(line).unwrap();
            assert_eq!(options.decrypt(&wrapping, stream).unwrap(), counting().expose_bytes());
            // What was cheap once opens whatever new keys cost, and the other way round.
            let keys = with_passphrase(&folder, quick("sesame"));
            assert_eq!(keys.retrieve("db").await.unwrap(), counting());
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(fs::metadata(folder.path("db.key")).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }

    /// Made by another program (Python, `cryptography`), from the documentation. The files of today must open for ever.
    #[tokio::test]
    async fn a_key_that_was_wrapped_long_ago_opens() {
        let folder = home();
        let line = "$argon2id$v=19$m=32,t=2,p=2$ZGVmZ2hpamtsbW5vcHFycw\n";
        let stream = concat!(
            "4147434d01000000c8c9cacbcccdcecfd0d1d2d3000001003400000132333435363738393a3b3c3d3e3f404142434445",
            "9bca041b3c3db8ad0ef0ada615213345fcf50995a478081b32a8194c48ab854a3000000222f76e866ebf7c10fdfe2241",
            "037f0ea814674fc596c8b1ea4c6b64b20cf2b1f5078effdd93a753abf5e4ef6edb6036aa2100000351d384745a1c8d8e",
            "05dc22dc074ac41ca93eddf915635fc79cac8b412c282db1eb",
        );
        let stream = base16ct::lower::decode_vec(stream).unwrap();
        put(&folder, "db.key", [line.as_bytes(), &stream].concat());
        assert_eq!(with_passphrase(&folder, quick("sesame")).retrieve("db").await.unwrap(), counting());
    }

    #[tokio::test]
    async fn a_passphrase_is_any_bytes_and_all_of_them_count() {
        let (long, longer) = ("x".repeat(10_000), "x".repeat(10_001));
        let passphrases: [&[u8]; 8] = [
            b"",
            b"sesame",
            b"sesame\n",
            b"Sesame",
            "sésame".as_bytes(),
            b"\xff\0",
            long.as_bytes(),
            longer.as_bytes(),
        ];
        let folder = home();
        for (i, passphrase) in passphrases.iter().enumerate() {
            with_passphrase(&folder, quick(passphrase)).store(&i.to_string(), &counting()).await.unwrap();
        }
        for i in 0..passphrases.len() {
            for (j, passphrase) in passphrases.iter().enumerate() {
                let result = with_passphrase(&folder, quick(passphrase)).retrieve(&i.to_string()).await;
                if i == j {
                    assert_eq!(result.unwrap(), counting());
                } else {
                    assert!(matches!(result.unwrap_err(), KeyStoreError::WrongPassphrase(id) if id == i.to_string()));
                }
            }
        }
    }

    #[tokio::test]
    async fn without_a_passphrase_a_wrapped_key_asks_for_it() {
        let folder = home();
        wrapped(&folder).await;
        let error = store(&folder).retrieve("db").await.unwrap_err();
        assert!(matches!(&error, KeyStoreError::NoPassphrase(id) if id == "db"), "{error:?}");
        // All else needs none.
        assert_eq!(store(&folder).list().await.unwrap(), ids(&["db"]));
        assert!(matches!(store(&folder).store("db", &counting()).await, Err(KeyStoreError::IdTaken(_))));
        store(&folder).remove("db").await.unwrap();
        folder.assert_holds(&[]);
    }

    #[tokio::test]
    async fn keys_in_the_clear_are_read_with_a_passphrase_too() {
        let folder = home();
        store(&folder).store("clear", &counting()).await.unwrap();
        let dollar = [b"$", &[7; 31][..]].concat();
        put(&folder, "raw.key", &dollar);
        let keys = with_passphrase(&folder, quick("sesame"));
        assert_eq!(keys.retrieve("clear").await.unwrap(), counting());
        assert_eq!(keys.retrieve("raw").await.unwrap().expose_bytes()[..], dollar[..]);
    }

    #[tokio::test]
    async fn nothing_is_the_same_when_a_key_is_wrapped_again() {
        let folder = home();
        let (keys, first) = wrapped(&folder).await;
        keys.store("again", &counting()).await.unwrap();
        let second = fs::read(folder.path("again.key")).unwrap();
        let ((first_line, first_stream), (second_line, second_stream)) = (split(&first), split(&second));
        assert!(first_line.starts_with(QUICK) && second_line.starts_with(QUICK), "{first_line} {second_line}");
        assert_ne!(first_line, second_line);
        // Behind the header of 24 bytes, of which 12 are a nonce.
        assert_ne!(first_stream[..24], second_stream[..24]);
        assert_ne!(first_stream[24..], second_stream[24..]);
    }

    #[tokio::test]
    async fn a_wrapped_key_that_was_changed_anywhere_is_no_key() {
        let folder = home();
        let (keys, good) = wrapped(&folder).await;
        for at in 0..good.len() {
            for flip in [0x01, 0x02, 0x10, 0x20, 0x80, 0xff] {
                let mut changed = good.clone();
                changed[at] ^= flip;
                put(&folder, "db.key", changed);
                let error = keys.retrieve("db").await.unwrap_err();
                assert!(
                    matches!(error, KeyStoreError::WrongPassphrase(_) | KeyStoreError::NotAKey { .. }),
                    "byte {at}, {flip:#x}: {error:?}"
                );
            }
        }
        for more in [&b"\n"[..], b"\0", &good] {
            put(&folder, "db.key", [&good, more].concat());
            let error = keys.retrieve("db").await.unwrap_err();
            assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{error:?}");
        }
        put(&folder, "db.key", good);
        assert_eq!(keys.retrieve("db").await.unwrap(), counting());
    }

    #[tokio::test]
    async fn a_wrapped_key_that_was_cut_anywhere_is_no_key() {
        let folder = home();
        let (keys, good) = wrapped(&folder).await;
        for len in 0..good.len() {
            put(&folder, "db.key", &good[..len]);
            let error = keys.retrieve("db").await.unwrap_err();
            assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{len} bytes: {error:?}");
            let error = store(&folder).retrieve("db").await.unwrap_err();
            assert!(
                matches!(error, KeyStoreError::NotAKey { .. } | KeyStoreError::NoPassphrase(_)),
                "{len} bytes: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_wrapped_but_no_key_is_none() {
        let folder = home();
        let (keys, good) = wrapped(&folder).await;
        let line = split(&good).0;
        for len in [0, 31, 33, 64, 65] {
            put(&folder, "db.key", sealed(line, &vec![0xc5; len]));
            let error = keys.retrieve("db").await.unwrap_err();
            assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{len} bytes: {error:?}");
            assert_shows_nothing_of(0xc5, &format!("{error} {error:?}"));
        }
        put(&folder, "db.key", sealed(line, &[0xc5; 32]));
        assert_eq!(keys.retrieve("db").await.unwrap(), key(0xc5));
    }

    /// If a file could name its costs, it could keep the machine busy for days, or make it run out of memory.
    #[tokio::test]
    async fn costs_and_forms_that_we_would_not_write_are_refused_at_once() {
        const SALT: &str = "mdQa3aXLmmRyGGu6ePeqeA";
        let folder = home();
        let (keys, good) = wrapped(&folder).await;
        let stream = split(&good).1;
        let start = Instant::now();
        let costs = |costs: &str| format!("$argon2id$v=19${costs}${SALT}");
        let salt = |salt: &str| format!("{QUICK}{salt}");
        let hash = "A".repeat(43);
        for line in [
            costs("m=1048577,t=1,p=1"),
            costs("m=1048576,t=5,p=1"),
            costs("m=65537,t=64,p=1"),
            costs("m=8,t=65,p=1"),
            costs("m=520,t=1,p=65"),
            costs("m=4194304,t=1,p=1"),
            costs("m=4294967295,t=1,p=1"),
            costs("m=4294967295,t=4294967295,p=16777215"),
            costs("m=8,t=4294967295,p=1"),
            costs("m=4294967295,t=1,p=16777215"),
            costs("m=4294967296,t=1,p=1"),
            costs("m=4294967304,t=1,p=1"),
            costs("m=8,t=4294967297,p=1"),
            costs("m=8,t=1,p=4294967297"),
            costs("m=99999999999999999999999,t=1,p=1"),
            costs("m=-8,t=1,p=1"),
            costs("m=8,t=-1,p=1"),
            // Less than Argon2 allows.
            costs("m=7,t=1,p=1"),
            costs("m=0,t=1,p=1"),
            costs("m=8,t=0,p=1"),
            costs("m=8,t=1,p=0"),
            costs("m=8,t=1,p=2"),
            // Left to a default, or said in another way.
            costs("t=1,p=1"),
            costs("m=8,p=1"),
            costs("m=8,t=1"),
            costs("m=8"),
            costs("m=,t=1,p=1"),
            costs("m,t,p"),
            costs(""),
            format!("$argon2id$v=19${SALT}"),
            format!("$argon2id$m=8,t=1,p=1${SALT}"),
            costs("m=08,t=1,p=1"),
            costs("m=+8,t=1,p=1"),
            costs("m=8.0,t=1,p=1"),
            costs("m=0x8,t=1,p=1"),
            costs("m= 8,t=1,p=1"),
            costs("M=8,t=1,p=1"),
            costs("t=1,m=8,p=1"),
            costs("m=8,t=1,p=1,"),
            costs("m=8,m=8,t=1,p=1"),
            costs("m=8,t=1,p=1,p=1"),
            // More than is said in the documentation.
            costs("m=8,t=1,p=1,x=1"),
            costs("m=8,t=1,p=1,keyid=AAAA"),
            costs("m=8,t=1,p=1,data=AAAA"),
            costs("m=8,t=1,p=1,keyid=AAAA,data=AAAA"),
            salt(&format!("{SALT}${hash}")),
            salt(&format!("{SALT}$")),
            salt(&format!("{SALT}$$")),
            format!("x{QUICK}{SALT}")[1..].to_owned() + " ",
            salt(SALT) + "\r",
            salt(SALT) + "\0",
            " ".to_owned() + &salt(SALT),
            // Another version, another algorithm.
            format!("$argon2id$v=16$m=8,t=1,p=1${SALT}"),
            format!("$argon2id$v=18$m=8,t=1,p=1${SALT}"),
            format!("$argon2id$v=20$m=8,t=1,p=1${SALT}"),
            format!("$argon2id$v=019$m=8,t=1,p=1${SALT}"),
            format!("$argon2id$v=$m=8,t=1,p=1${SALT}"),
            format!("$argon2i$v=19$m=8,t=1,p=1${SALT}"),
            format!("$argon2d$v=19$m=8,t=1,p=1${SALT}"),
            format!("$ARGON2ID$v=19$m=8,t=1,p=1${SALT}"),
            format!("$argon2id$$v=19$m=8,t=1,p=1${SALT}"),
            format!("$scrypt$ln=16,r=8,p=1${SALT}"),
            format!("$2b$12${SALT}"),
            // Another salt.
            salt(""),
            salt("AAAA"),
            salt("mdQa3aXLmmRyGGu6ePeqeA=="),
            salt("mdQa3aXLmmRyGGu6ePeqeB"),
            salt("mdQa3aXLmmRyGGu6ePeqe"),
            salt("mdQa3aXLmmRyGGu6ePeqe_"),
            salt("mdQa3aXL mRyGGu6ePeqeA"),
            salt(&"A".repeat(300)),
            "$".to_owned(),
            "$$".to_owned(),
            "$argon2id".to_owned(),
            QUICK.to_owned(),
            QUICK.trim_end_matches('$').to_owned(),
            format!("${}", "x".repeat(3000)),
            format!("${}", "$".repeat(3000)),
            format!("$argon2id$v=19${}", "m=8,".repeat(700)),
            "$ärgon2id$v=19$m=8,t=1,p=1$".to_owned() + SALT,
        ] {
            put(&folder, "db.key", [line.as_bytes(), b"\n", stream].concat());
            let error = keys.retrieve("db").await.unwrap_err();
            assert!(matches!(error, KeyStoreError::NotAKey { .. }), "{line}: {error:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // That it was the lines: with one that we would write, it is the passphrase.
        put(&folder, "db.key", [salt(SALT).as_bytes(), b"\n", stream].concat());
        let error = keys.retrieve("db").await.unwrap_err();
        assert!(matches!(error, KeyStoreError::WrongPassphrase(_)), "{error:?}");
        put(&folder, "db.key", sealed(&salt(SALT), &[0xc5; 32]));
        assert_eq!(keys.retrieve("db").await.unwrap(), key(0xc5));
    }

    #[tokio::test]
    async fn costs_up_to_the_limits_are_paid() {
        let folder = home();
        for (m, t, p) in [(8, 64, 1), (512, 1, 64)] {
            let keys = with_passphrase(&folder, Passphrase::new("sesame").costs(m, t, p).unwrap());
            keys.store("db", &counting()).await.unwrap();
            assert_eq!(keys.retrieve("db").await.unwrap(), counting());
            keys.remove("db").await.unwrap();
        }
    }

    #[test]
    fn costs_that_could_not_be_read_again_cannot_be_chosen() {
        let costs = |(m, t, p)| Passphrase::new("sesame").costs(m, t, p).map_err(|error| error.kind());
        for good in [(8, 1, 1), (8, 64, 1), (512, 1, 64), (1 << 20, 4, 64), (1 << 16, 64, 1), (65_536, 3, 4)] {
            assert!(costs(good).is_ok(), "{good:?}");
        }
        for bad in [
            (0, 1, 1),
            (7, 1, 1),
            (8, 0, 1),
            (8, 1, 0),
            (15, 1, 2),
            ((1 << 20) + 1, 1, 1),
            (8, 65, 1),
            (520, 1, 65),
            (1 << 20, 5, 1),
            ((1 << 16) + 1, 64, 1),
            (u32::MAX, 1, 1),
            (8, u32::MAX, 1),
            (u32::MAX, 1, u32::MAX),
            (u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert_eq!(costs(bad).unwrap_err(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_passphrase_shows_itself_nowhere() {
        let folder = home();
        let passphrase = quick("c5c5c5c5");
        let keys = with_passphrase(&folder, passphrase.clone());
        keys.store("db", &key(0xc5)).await.unwrap();
        let wrong = with_passphrase(&folder, quick("c5c5c5c5c5")).retrieve("db").await.unwrap_err();
        let none = store(&folder).retrieve("db").await.unwrap_err();
        let costs = passphrase.clone().costs(0, 0, 0).unwrap_err();
        put(&folder, "cut.key", &fs::read(folder.path("db.key")).unwrap()[..100]);
        let cut = keys.retrieve("cut").await.unwrap_err();
        let told = format!(
            "{passphrase:?} {passphrase:#?} {keys:?} {keys:#?} {wrong} {wrong:?} {none} {none:?} {cut:?} {costs:?}"
        );
        assert_shows_nothing_of(0xc5, &told);
        // As the bytes of the text, too.
        assert!(!told.replace(char::is_whitespace, "").contains("99,53,99,53"), "{told}");
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
    }
}
