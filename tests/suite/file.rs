//! `encrypt_file` and `decrypt_file`: published whole or not at all.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::Path,
};

use agcm::{EncryptOptions, Error, Key, decrypt, decrypt_file, encrypt, encrypt_file};

use crate::{drive::poll_once, encrypt_writer::frames, folder::Folder, vectors::plaintext};

#[tokio::test]
async fn files_make_the_round_trip() {
    for len in [0, 1, 65_535, 65_536, 65_537, 300_000] {
        let folder = Folder::new();
        let (key, plain) = (Key::generate(), plaintext(len));
        let src = folder.write("a plain", &plain);
        assert_eq!(encrypt_file(&src, folder.path("b sealed"), &key).await.unwrap(), len as u64);
        let stream = fs::read(folder.path("b sealed")).unwrap();
        assert_eq!(frames(&stream).len(), len.div_ceil(65_536));
        assert!(decrypt(&key, &stream).unwrap() == plain);

        assert_eq!(decrypt_file(folder.path("b sealed"), folder.path("c again"), &key).await.unwrap(), len as u64);
        assert!(fs::read(folder.path("c again")).unwrap() == plain);
        folder.assert_holds(&["a plain", "b sealed", "c again"]);
    }
}

#[tokio::test]
async fn streams_of_other_chunk_sizes_decrypt_too() {
    let key = Key::generate();
    for chunk_size in [7, 1024 * 1024] {
        let folder = Folder::new();
        let plain = plaintext(1_500_000 * chunk_size.min(1000) / 1000);
        let stream = EncryptOptions::new().chunk_size(chunk_size).unwrap().encrypt(&key, &plain);
        decrypt_file(folder.write("sealed", stream), folder.path("plain"), &key).await.unwrap();
        assert!(fs::read(folder.path("plain")).unwrap() == plain);
    }
}

#[tokio::test]
async fn what_is_at_the_target_is_never_replaced() {
    let folder = Folder::new();
    let key = Key::generate();
    let src = folder.write("src", "new");
    let sealed = folder.write("sealed", encrypt(&key, b"new"));
    let dst = folder.write("dst", "old");
    fs::create_dir(folder.path("folder")).unwrap();

    for error in [
        encrypt_file(&src, &dst, &key).await.unwrap_err(),
        decrypt_file(&sealed, &dst, &key).await.unwrap_err(),
        encrypt_file(&src, &src, &key).await.unwrap_err(),
        decrypt_file(&sealed, &sealed, &key).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    let error = encrypt_file(&src, folder.path("folder"), &key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
    assert_eq!(fs::read(&dst).unwrap(), b"old");
    assert_eq!(fs::read(&src).unwrap(), b"new");
    folder.assert_holds(&["dst", "folder", "sealed", "src"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_dangling_link_is_not_replaced_either() {
    let folder = Folder::new();
    let src = folder.write("src", "new");
    std::os::unix::fs::symlink("nowhere", folder.path("link")).unwrap();
    let error = encrypt_file(&src, folder.path("link"), &Key::generate()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    folder.assert_holds(&["link", "src"]);
}

#[tokio::test]
async fn a_bad_stream_leaves_nothing_behind() {
    let key = Key::generate();
    let good = encrypt(&key, &plaintext(200_000));
    let mut corrupt = good.clone();
    corrupt[150_000] ^= 1;
    let trailing = [&good[..], b"x"].concat();
    let at = 80 + 2 * (65_536 + 20);
    let cases: [(&[u8], &Key, Error); 5] = [
        (&corrupt, &key, Error::Corrupt { frame: 2, at }),
        (&good[..180_000], &key, Error::Truncated { at: 180_000 }),
        (&trailing, &key, Error::TrailingData { at: good.len() as u64 }),
        (&good, &Key::generate(), Error::KeyMismatch),
        (b"", &key, Error::Truncated { at: 0 }),
    ];
    for (stream, key, expected) in cases {
        let folder = Folder::new();
        let src = folder.write("src", stream);
        let error = decrypt_file(&src, folder.path("dst"), key).await.unwrap_err();
        assert_eq!(Error::from_io(&error), Some(expected));
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let message = error.to_string();
        assert!(message.contains(src.to_str().unwrap()), "{message}");
        assert_eq!(message.matches(&expected.to_string()).count(), 1, "{message}");
        assert!(std::error::Error::source(&error).is_none(), "a chain of sources would say it again");
        folder.assert_holds(&["src"]);
    }
}

#[tokio::test]
async fn paths_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let key = Key::generate();
    let src = folder.write("src", "plain");
    let missing = folder.path("missing");
    let expect = |error: io::Error, kind: ErrorKind, path: &Path| {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    };
    expect(encrypt_file(&missing, folder.path("dst"), &key).await.unwrap_err(), ErrorKind::NotFound, &missing);
    expect(decrypt_file(&missing, folder.path("dst"), &key).await.unwrap_err(), ErrorKind::NotFound, &missing);
    expect(encrypt_file(&src, missing.join("dst"), &key).await.unwrap_err(), ErrorKind::NotFound, &missing);
    expect(encrypt_file(&src, missing.join(".."), &key).await.unwrap_err(), ErrorKind::InvalidInput, &missing);
    for name in ["dst/", "dst/.", "dst/.."] {
        let path = folder.path(name);
        expect(encrypt_file(&src, &path, &key).await.unwrap_err(), ErrorKind::InvalidInput, &path);
    }
    #[cfg(unix)]
    expect(
        encrypt_file(folder.root(), folder.path("dst"), &key).await.unwrap_err(),
        ErrorKind::IsADirectory,
        folder.root(),
    );
    folder.assert_holds(&["src"]);
}

#[cfg(unix)]
#[tokio::test]
async fn plaintext_is_for_its_owner_and_streams_are_ordinary_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let key = Key::generate();
    let src = folder.write("src", "plain");
    encrypt_file(&src, folder.path("sealed"), &key).await.unwrap();
    decrypt_file(folder.path("sealed"), folder.path("again"), &key).await.unwrap();
    let mode = |name| fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("again"), 0o600);
    assert_eq!(mode("sealed"), mode("src"), "both as the umask says");
}

/// A pipe as the source lets a test stop an operation at any point: it has read what was written, and waits for more.
#[cfg(unix)]
pub mod in_the_middle {
    use std::{fs::OpenOptions, path::PathBuf, process::Command, time::Duration};

    use super::*;

    pub fn pipe(folder: &Folder) -> PathBuf {
        let path = folder.path("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    pub async fn open_for_writing(path: &Path) -> File {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path).unwrap()).await.unwrap()
    }

    /// Options whose work stands still as soon as it has read something, until the other value is dropped.
    pub fn halted() -> (agcm::FileOptions, std::sync::mpsc::Sender<()>) {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let wait = move |_| released.lock().unwrap().recv().unwrap_or_default();
        (agcm::FileOptions::new().progress(wait), release)
    }

    /// Waits until the folder holds a file that is being written.
    pub async fn until_begun(folder: &Folder) {
        while !fs::read_dir(folder.root())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_str().unwrap().ends_with(".partial"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_pipe_in_the_place_of_the_folder_is_an_error() {
        let folder = Folder::new();
        let (src, dst) = (folder.write("src", "plain"), pipe(&folder).join("dst"));
        let error = encrypt_file(&src, &dst, &Key::generate()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
    }

    #[tokio::test]
    async fn a_target_that_appears_meanwhile_is_not_replaced() {
        let folder = Folder::new();
        let (src, dst) = (pipe(&folder), folder.path("dst"));
        let key = Key::generate();
        let operation = tokio::spawn({
            let (src, dst) = (src.clone(), dst.clone());
            async move { encrypt_file(src, dst, &key).await }
        });
        let mut pipe = open_for_writing(&src).await;
        pipe.write_all(&[7; 1000]).unwrap();
        until_begun(&folder).await;
        assert!(!dst.exists(), "nothing has a name before it is complete");
        fs::write(&dst, "somebody else's").unwrap();
        drop(pipe);
        let error = operation.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(fs::read(&dst).unwrap(), b"somebody else's");
        folder.assert_holds(&["dst", "pipe"]);
    }

    #[tokio::test]
    async fn a_dropped_future_leaves_nothing_behind() {
        let key = Key::generate();
        let stream = encrypt(&key, &plaintext(1_000_000));
        for decrypting in [false, true] {
            let folder = Folder::new();
            let (src, dst) = (pipe(&folder), folder.path("dst"));
            let operation = tokio::spawn({
                let (src, dst, key) = (src.clone(), dst.clone(), key.clone());
                async move {
                    if decrypting { decrypt_file(src, dst, &key).await } else { encrypt_file(src, dst, &key).await }
                }
            });
            let mut pipe = open_for_writing(&src).await;
            until_begun(&folder).await;
            operation.abort();
            assert!(operation.await.unwrap_err().is_cancelled());
            let rest = stream.clone();
            // The task has still to find out. It does within a chunk, so this does not all go down the pipe.
            let result = tokio::task::spawn_blocking(move || pipe.write_all(&rest)).await.unwrap();
            assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
            while fs::read_dir(folder.root()).unwrap().count() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            folder.assert_holds(&["pipe"]);
        }
    }

    /// An operation that was dropped before its turn on the blocking pool does not even open its source, which here would
    /// block for ever.
    #[test]
    fn a_future_that_is_dropped_before_its_work_began_does_nothing() {
        let folder = Folder::new();
        let (src, dst) = (pipe(&folder), folder.path("dst"));
        let (runtime, release) = crate::drive::busy_runtime();
        runtime.block_on(async {
            assert!(poll_once(encrypt_file(&src, &dst, &Key::generate())).is_pending());
            drop(release);
            // Its turn comes before this one's.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        });
        folder.assert_holds(&["pipe"]);
    }
}

/// What is chosen by `FileOptions`, and what more there is to do with files.
mod options {
    use std::{
        io,
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::Duration,
    };

    use agcm::{
        DecryptOptions, FileOptions, KeyRing, Trailing,
        keystore::{DirKeyStore, KeyStore},
        rekey_file, verify_file,
    };
    use futures::{FutureExt, future::BoxFuture};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{drive, progress::Told, streams::Stream};

    fn with_context(context: &str) -> FileOptions {
        FileOptions::new()
            .encrypt_options(EncryptOptions::new().chunk_size(1000).unwrap().context(context).unwrap())
            .decrypt_options(DecryptOptions::new().context(context).unwrap())
    }

    #[tokio::test]
    async fn context_and_chunk_size_are_those_that_were_chosen() {
        let (folder, key) = (Folder::new(), Key::generate());
        let src = folder.write("src", plaintext(2500));
        let options = with_context("nightly");
        options.encrypt_file(&src, folder.path("sealed"), &key).await.unwrap();
        let stream = fs::read(folder.path("sealed")).unwrap();
        assert_eq!(frames(&stream), [1000, 1000, 500]);
        assert_eq!(decrypt(&key, &stream), Err(Error::KeyMismatch));
        options.decrypt_file(folder.path("sealed"), folder.path("plain"), &key).await.unwrap();
        assert_eq!(fs::read(folder.path("plain")).unwrap(), plaintext(2500));
        assert_eq!(options.verify_file(folder.path("sealed"), &key).await.unwrap(), 2500);
        let error = verify_file(folder.path("sealed"), &key).await.unwrap_err();
        assert_eq!(Error::from_io(&error), Some(Error::KeyMismatch));
    }

    #[tokio::test]
    async fn all_that_decrypts_takes_several_keys() {
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        let keys: KeyRing = [Key::generate(), old.clone()].into_iter().collect();
        let sealed = folder.write("sealed", encrypt(&old, b"rows"));
        assert_eq!(verify_file(&sealed, &keys).await.unwrap(), 4);
        decrypt_file(&sealed, folder.path("plain"), &keys).await.unwrap();
        let stream = &fs::read(&sealed).unwrap()[..];
        FileOptions::new().decrypt_from(stream, folder.path("again"), &keys).await.unwrap();
        rekey_file(&sealed, &keys, &new).await.unwrap();
        assert_eq!(decrypt(&new, &fs::read(&sealed).unwrap()).unwrap(), b"rows");
    }

    #[tokio::test]
    async fn overwriting_replaces_a_file_and_only_by_a_whole_one() {
        let (folder, key) = (Folder::new(), Key::generate());
        let options = FileOptions::new().overwrite(true);
        let (src, dst) = (folder.write("src", "new"), folder.write("dst", "old"));
        let bad = folder.write("bad", &encrypt(&key, b"new")[..100]);
        options.decrypt_file(&bad, &dst, &key).await.unwrap_err();
        options.encrypt_file(folder.path("missing"), &dst, &key).await.unwrap_err();
        assert_eq!(fs::read(&dst).unwrap(), b"old");
        options.encrypt_file(&src, &dst, &key).await.unwrap();
        assert_eq!(decrypt(&key, &fs::read(&dst).unwrap()).unwrap(), b"new");
        options.decrypt_file(&dst, folder.path("plain"), &key).await.unwrap();
        folder.assert_holds(&["bad", "dst", "plain", "src"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn overwriting_follows_a_link_and_replaces_neither_source_nor_folder_nor_device() {
        use std::os::unix::fs::symlink;
        let (folder, key) = (Folder::new(), Key::generate());
        let options = FileOptions::new().overwrite(true);
        let src = folder.write("src", "new");
        fs::create_dir(folder.path("folder")).unwrap();
        fs::write(folder.path("folder/old"), "old").unwrap();
        symlink("folder/old", folder.path("link")).unwrap();
        options.encrypt_file(&src, folder.path("link"), &key).await.unwrap();
        assert!(folder.path("link").symlink_metadata().unwrap().is_symlink());
        assert_eq!(decrypt(&key, &fs::read(folder.path("folder/old")).unwrap()).unwrap(), b"new");

        symlink("src", folder.path("other name")).unwrap();
        fs::hard_link(&src, folder.path("hard")).unwrap();
        symlink("folder", folder.path("to folder")).unwrap();
        symlink("nowhere", folder.path("to nowhere")).unwrap();
        // Not a device of the machine: a mistake in what this tests would replace it.
        in_the_middle::pipe(&folder);
        for (name, kind) in [
            ("src", ErrorKind::InvalidInput),
            ("other name", ErrorKind::InvalidInput),
            ("hard", ErrorKind::InvalidInput),
            ("folder", ErrorKind::IsADirectory),
            ("to folder", ErrorKind::IsADirectory),
            ("to nowhere", ErrorKind::NotFound),
            ("pipe", ErrorKind::InvalidInput),
        ] {
            let error = options.encrypt_file(&src, folder.path(name), &key).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(fs::read(&src).unwrap(), b"new");
        assert!(!fs::metadata(folder.path("pipe")).unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path("folder")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn permissions_are_exactly_those_that_were_chosen() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, key) = (Folder::new(), Key::generate());
        let src = folder.write("src", "new");
        for mode in [0o600, 0o640, 0o666, 0o400] {
            let options = FileOptions::new().overwrite(true).permissions(fs::Permissions::from_mode(mode));
            options.encrypt_file(&src, folder.path("sealed"), &key).await.unwrap();
            options.decrypt_file(folder.path("sealed"), folder.path("plain"), &key).await.unwrap();
            options.decrypt_from(&encrypt(&key, b"")[..], folder.path("from"), &key).await.unwrap();
            for name in ["sealed", "plain", "from"] {
                assert_eq!(fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn rekeying_takes_the_place_of_the_stream_and_keeps_its_chunk_size_and_context() {
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        let irregular = Stream::of_frames(&old, 16, &[16, 3, 16, 9]);
        let sealed = folder.write("sealed", &irregular.bytes);
        assert_eq!(rekey_file(&sealed, &old, &new).await.unwrap(), 44);
        let stream = fs::read(&sealed).unwrap();
        assert_eq!(frames(&stream), [16, 16, 12], "it is uniform now");
        assert_eq!(decrypt(&new, &stream).unwrap(), irregular.plaintext);
        assert_eq!(decrypt(&old, &stream), Err(Error::KeyMismatch));

        let options = EncryptOptions::new().chunk_size(7).unwrap().context("a").unwrap();
        let decrypting = |context| DecryptOptions::new().context(context).unwrap();
        for plain in [&b""[..], b"more than one chunk"] {
            let sealed = folder.write("in context", options.encrypt(&old, plain));
            FileOptions::new().decrypt_options(decrypting("a")).rekey_file(&sealed, &sealed, &old, &new).await.unwrap();
            let stream = fs::read(&sealed).unwrap();
            assert_eq!(stream[20..24], [7, 0, 0, 0]);
            assert_eq!(decrypting("a").decrypt(&new, &stream).unwrap(), plain);
        }
        // Another chunk size does not unbind it, only another context does.
        let chunks = FileOptions::new()
            .overwrite(true)
            .decrypt_options(decrypting("a"))
            .encrypt_options(EncryptOptions::new().chunk_size(5).unwrap());
        chunks.rekey_file(folder.path("in context"), folder.path("beside"), &new, &old).await.unwrap();
        let stream = fs::read(folder.path("beside")).unwrap();
        assert_eq!(stream[20..24], [5, 0, 0, 0]);
        assert_eq!(decrypting("a").decrypt(&old, &stream).unwrap(), b"more than one chunk");
        fs::remove_file(folder.path("beside")).unwrap();
        let other = FileOptions::new()
            .decrypt_options(decrypting("a"))
            .encrypt_options(EncryptOptions::new().chunk_size(9).unwrap().context("b").unwrap());
        other.rekey_file(folder.path("in context"), folder.path("beside"), &new, &old).await.unwrap();
        let stream = fs::read(folder.path("beside")).unwrap();
        assert_eq!(stream[20..24], [9, 0, 0, 0]);
        assert_eq!(decrypting("b").decrypt(&old, &stream).unwrap(), b"more than one chunk");
        folder.assert_holds(&["beside", "in context", "sealed"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn rekeying_keeps_permissions_and_follows_a_link() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        let sealed = folder.write("sealed", encrypt(&old, b"rows"));
        fs::set_permissions(&sealed, fs::Permissions::from_mode(0o604)).unwrap();
        // Where the test may give files away, that is kept, too.
        let given = std::os::unix::fs::chown(&sealed, Some(12345), Some(54321)).is_ok();
        symlink("sealed", folder.path("link")).unwrap();
        rekey_file(folder.path("link"), &old, &new).await.unwrap();
        let chosen = FileOptions::new().permissions(fs::Permissions::from_mode(0o640));
        chosen.rekey_file(&sealed, folder.path("beside"), &new, &old).await.unwrap();
        assert_eq!(fs::metadata(folder.path("beside")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(folder.path("link").symlink_metadata().unwrap().is_symlink());
        let metadata = fs::metadata(&sealed).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o604);
        if given {
            assert_eq!((metadata.uid(), metadata.gid()), (12345, 54321));
        }
        assert_eq!(decrypt(&new, &fs::read(&sealed).unwrap()).unwrap(), b"rows");
    }

    #[tokio::test]
    async fn a_stream_that_cannot_be_rekeyed_stays_as_it_was() {
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        let good = encrypt(&old, &plaintext(100_000));
        let mut corrupt = good.clone();
        corrupt[70_000] ^= 1;
        let trailing = [&good[..], b"x"].concat();
        for (bytes, key) in [(&corrupt, &old), (&good[..90_000].to_vec(), &old), (&trailing, &old), (&good, &new)] {
            let sealed = folder.write("sealed", bytes);
            let error = rekey_file(&sealed, key, &new).await.unwrap_err();
            assert!(Error::from_io(&error).is_some(), "{error}");
            assert!(fs::read(&sealed).unwrap() == *bytes);
        }
        folder.write("other", "somebody's");
        let sealed = folder.write("sealed", &good);
        let error = FileOptions::new().rekey_file(&sealed, folder.path("other"), &old, &new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        folder.assert_holds(&["other", "sealed"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_took_the_place_of_a_stream_while_it_was_rekeyed_stays() {
        use super::in_the_middle::{halted, until_begun};
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        for replace in [false, true] {
            let sealed = folder.write("sealed", encrypt(&old, &plaintext(200_000)));
            let (options, release) = halted();
            let operation = tokio::spawn({
                let (sealed, old, new) = (sealed.clone(), old.clone(), new.clone());
                async move { options.rekey_file(&sealed, &sealed, &old, &new).await }
            });
            until_begun(&folder).await;
            if replace {
                fs::rename(folder.write("newer", "tonight's"), &sealed).unwrap();
            } else {
                fs::OpenOptions::new().append(true).open(&sealed).unwrap().write_all(b"more").unwrap();
            }
            drop(release);
            operation.await.unwrap().unwrap_err();
            assert!(fs::read(&sealed).unwrap().ends_with(if replace { b"tonight's" } else { b"more" }));
            folder.assert_holds(&["sealed"]);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_is_rekeyed_into_a_new_file_only() {
        use super::in_the_middle::{open_for_writing, pipe, until_begun};
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        let (src, dst) = (pipe(&folder), folder.path("dst"));
        let operation = tokio::spawn({
            let (src, dst, old) = (src.clone(), dst.clone(), old.clone());
            async move { FileOptions::new().rekey_file(src, dst, &old, &new).await }
        });
        let mut writer = open_for_writing(&src).await;
        until_begun(&folder).await;
        fs::write(&dst, "precious").unwrap();
        writer.write_all(&encrypt(&old, b"rows")).unwrap();
        drop(writer);
        assert_eq!(operation.await.unwrap().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&dst).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn what_follows_a_stream_is_not_lost_when_it_is_rekeyed() {
        let (folder, old, new) = (Folder::new(), Key::generate(), Key::generate());
        let both = [encrypt(&old, b"one"), encrypt(&old, b"two")].concat();
        let sealed = folder.write("sealed", &both);
        let leave = FileOptions::new().decrypt_options(DecryptOptions::new().trailing(Trailing::Leave));
        let error = leave.rekey_file(&sealed, &sealed, &old, &new).await.unwrap_err();
        assert_eq!(Error::from_io(&error), Some(Error::TrailingData { at: both.len() as u64 / 2 }));
        assert_eq!(fs::read(&sealed).unwrap(), both);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn until_a_file_is_whole_only_its_owner_may_read_it_or_as_the_umask_says() {
        use super::in_the_middle::{open_for_writing, pipe, until_begun};
        use std::os::unix::fs::PermissionsExt;
        let (key, mode) =
            (Key::generate(), |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777);
        let everyone = FileOptions::new().permissions(fs::Permissions::from_mode(0o666));
        for (options, decrypting) in [(FileOptions::new(), true), (everyone.clone(), true), (everyone, false)] {
            let folder = Folder::new();
            let (src, dst) = (pipe(&folder), folder.path("dst"));
            let operation = tokio::spawn({
                let (src, key) = (src.clone(), key.clone());
                async move {
                    if decrypting {
                        options.decrypt_file(src, dst, &key).await
                    } else {
                        options.encrypt_file(src, dst, &key).await
                    }
                }
            });
            let writer = open_for_writing(&src).await;
            until_begun(&folder).await;
            let partial = fs::read_dir(folder.root()).unwrap().map(|entry| entry.unwrap().path());
            let partial = partial.into_iter().find(|path| path.extension() == Some("partial".as_ref())).unwrap();
            assert_eq!(mode(partial), 0o600);
            drop(writer);
            let _ = operation.await.unwrap();
        }
        // And those that are made of what a reader has.
        let (folder, options) = (Folder::new(), FileOptions::new());
        options.encrypt_from(&b"x"[..], folder.path("sealed"), &key).await.unwrap();
        options.decrypt_from(&encrypt(&key, b"x")[..], folder.path("plain"), &key).await.unwrap();
        folder.write("ordinary", "");
        assert_eq!(mode(folder.path("plain")), 0o600);
        assert_eq!(mode(folder.path("sealed")), mode(folder.path("ordinary")));
    }

    #[tokio::test]
    async fn verifying_reads_to_the_end_and_writes_nothing() {
        let (folder, key) = (Folder::new(), Key::generate());
        let good = encrypt(&key, &plaintext(100_000));
        let sealed = folder.write("sealed", &good);
        assert_eq!(verify_file(&sealed, &key).await.unwrap(), 100_000);
        let cut = folder.write("sealed", &good[..good.len() - 1]);
        let error = verify_file(&cut, &key).await.unwrap_err();
        assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: good.len() as u64 - 1 }));
        let joined = folder.write("sealed", [&good[..], &good].concat());
        let error = verify_file(&joined, &key).await.unwrap_err();
        assert_eq!(Error::from_io(&error), Some(Error::TrailingData { at: good.len() as u64 }));
        let leave = FileOptions::new().decrypt_options(DecryptOptions::new().trailing(Trailing::Leave));
        assert_eq!(leave.verify_file(&joined, &key).await.unwrap(), 100_000);
        folder.assert_holds(&["sealed"]);
    }

    #[tokio::test]
    async fn progress_goes_to_the_end_of_the_source() {
        let (folder, key) = (Folder::new(), Key::generate());
        for len in [0, 1, 300_000] {
            let src = folder.write("src", plaintext(len));
            let (sealing, opening, from) = (Told::default(), Told::default(), Told::default());
            let overwriting = FileOptions::new().overwrite(true);
            let options = overwriting.clone().progress(sealing.callback());
            options.encrypt_file(&src, folder.path("sealed"), &key).await.unwrap();
            assert_eq!(sealing.last(), (len as u64, Some(len as u64)));
            let stream = fs::read(folder.path("sealed")).unwrap();
            let total = stream.len() as u64;

            let options = overwriting.clone().progress(opening.callback());
            options.decrypt_file(folder.path("sealed"), folder.path("plain"), &key).await.unwrap();
            assert_eq!(opening.last(), (total, Some(total)));
            assert!(opening.all().iter().all(|&(_, known)| known == Some(total)));

            let options = overwriting.clone().progress(from.callback());
            options.decrypt_from(&stream[..], folder.path("plain"), &key).await.unwrap();
            assert_eq!(from.last(), (total, Some(total)));
            let from = Told::default();
            let options = overwriting.progress(from.callback());
            options.encrypt_from(&plaintext(len)[..], folder.path("sealed"), &key).await.unwrap();
            assert_eq!(from.last(), (len as u64, Some(len as u64)));
        }
    }

    #[tokio::test]
    async fn a_callback_that_panics_leaves_nothing_behind() {
        let (folder, key) = (Folder::new(), Key::generate());
        let src = folder.write("src", plaintext(10));
        // The first call is for the first bytes, and the second for the end.
        for calls in [1, 2] {
            let left = AtomicUsize::new(calls);
            let options = FileOptions::new().progress(move |_| {
                assert!(left.fetch_sub(1, Ordering::SeqCst) > 1, "this panic is part of a test");
            });
            options.encrypt_file(&src, folder.path("dst"), &key).await.unwrap_err();
            folder.assert_holds(&["src"]);
        }
    }

    /// What may happen in a callback.
    #[derive(Debug, Clone, Copy)]
    enum Trouble {
        Panic,
        Cancel,
    }

    /// Runs an operation, in whose `n`th call something happens. Returns whether it was called so often, and whether the operation
    /// succeeded.
    async fn with_trouble(
        n: usize,
        trouble: Trouble,
        work: impl FnOnce(FileOptions) -> BoxFuture<'static, bool>,
    ) -> (bool, bool) {
        let (calls, token) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (counted, cancelled) = (calls.clone(), token.clone());
        let options = FileOptions::new().overwrite(true).cancel_on(token).progress(move |_| {
            // After so long, whatever is read next is told, too.
            thread::sleep(Duration::from_millis(51));
            if counted.fetch_add(1, Ordering::SeqCst) + 1 == n {
                match trouble {
                    Trouble::Panic => panic!("this panic is part of a test"),
                    Trouble::Cancel => cancelled.cancel(),
                }
            }
        });
        // What works on a reader panics itself.
        let succeeded = tokio::spawn(work(options)).await.unwrap_or(false);
        (calls.load(Ordering::SeqCst) >= n, succeeded)
    }

    #[tokio::test]
    async fn whichever_call_of_a_callback_goes_wrong_nothing_is_published() {
        type Work = fn(FileOptions, PathBuf, Key) -> BoxFuture<'static, bool>;
        let helpers: [(&str, Work); 9] = [
            ("encrypt_file", |options, at, key| {
                async move { options.encrypt_file(at.join("plain"), at.join("dst"), &key).await.is_ok() }.boxed()
            }),
            ("decrypt_file", |options, at, key| {
                async move { options.decrypt_file(at.join("sealed"), at.join("dst"), &key).await.is_ok() }.boxed()
            }),
            ("verify_file", |options, at, key| {
                async move { options.verify_file(at.join("sealed"), &key).await.is_ok() }.boxed()
            }),
            ("rekey_file in place", |options, at, key| {
                let path = at.join("sealed");
                async move { options.rekey_file(&path, &path, &key, &Key::generate()).await.is_ok() }.boxed()
            }),
            ("rekey_file", |options, at, key| {
                async move { options.rekey_file(at.join("sealed"), at.join("dst"), &key, &key).await.is_ok() }.boxed()
            }),
            ("encrypt_from", |options, at, key| {
                let reader = io::Cursor::new(fs::read(at.join("plain")).unwrap());
                async move { options.encrypt_from(reader, at.join("dst"), &key).await.is_ok() }.boxed()
            }),
            ("decrypt_from", |options, at, key| {
                let reader = io::Cursor::new(fs::read(at.join("sealed")).unwrap());
                async move { options.decrypt_from(reader, at.join("dst"), &key).await.is_ok() }.boxed()
            }),
            ("encrypt_snapshot", |options, at, _| {
                let keys = DirKeyStore::new(at.join("keys"));
                async move { options.encrypt_snapshot(at.join("plain"), at.join("dst"), &keys, "new").await.is_ok() }
                    .boxed()
            }),
            ("restore_snapshot", |options, at, _| {
                let keys = DirKeyStore::new(at.join("keys"));
                async move { options.restore_snapshot(at.join("snapshot"), at.join("dst"), &keys, "db").await.is_ok() }
                    .boxed()
            }),
        ];
        let check = async |name: &str, work: Work, trouble: Trouble| {
            let (folder, key, plain) = (Folder::new(), Key::generate(), plaintext(150_000));
            folder.write("plain", &plain);
            let sealed = encrypt(&key, &plain);
            let keys = DirKeyStore::new(folder.path("keys"));
            agcm::encrypt_snapshot(folder.path("plain"), folder.path("snapshot"), &keys, "db").await.unwrap();
            for n in 1.. {
                folder.write("sealed", &sealed);
                folder.write("dst", "precious");
                let root = folder.root().to_owned();
                let (called, succeeded) = with_trouble(n, trouble, |options| work(options, root, key.clone())).await;
                assert_eq!(succeeded, !called, "{name}: {trouble:?} at {n}");
                folder.assert_holds(&["dst", "keys", "plain", "sealed", "snapshot"]);
                if !called {
                    assert!(n > 3, "{name} has called back {} times only", n - 1);
                    break;
                }
                assert!(fs::read(folder.path("dst")).unwrap() == b"precious", "{name}: {trouble:?} at {n}");
                assert!(fs::read(folder.path("sealed")).unwrap() == sealed, "{name}: {trouble:?} at {n}");
                assert_eq!(keys.list().await.unwrap(), ["db"], "{name}: {trouble:?} at {n}");
            }
        };
        let all = helpers
            .iter()
            .flat_map(|(name, work)| [Trouble::Panic, Trouble::Cancel].map(|trouble| check(name, *work, trouble)));
        futures::future::join_all(all).await;
    }

    #[tokio::test]
    async fn what_is_cancelled_in_the_last_call_for_a_reader_is_not_published() {
        let (folder, key) = (Folder::new(), Key::generate());
        for plain in [&b""[..], b"abc"] {
            for input in [plain.to_vec(), encrypt(&key, plain)] {
                let (token, len) = (CancellationToken::new(), input.len() as u64);
                let cancel = token.clone();
                let options = FileOptions::new().cancel_on(token).progress(move |progress| {
                    if progress.done == len {
                        cancel.cancel();
                    }
                });
                let (dst, is_plain) = (folder.path("dst"), input == plain);
                let result = match is_plain {
                    true => options.encrypt_from(&input[..], dst, &key).await,
                    false => options.decrypt_from(&input[..], dst, &key).await,
                };
                result.unwrap_err();
                folder.assert_holds(&[]);
            }
        }
    }

    #[tokio::test]
    async fn what_a_reader_has_becomes_a_file() {
        let key = Key::generate();
        for len in [0, 1, 65_536, 3_000_000] {
            let (folder, options, plain) = (Folder::new(), FileOptions::new(), plaintext(len));
            let script = crate::script::Script::repeat([crate::script::Op::Some(100_000), crate::script::Op::Pending]);
            let reader = crate::script::Reader::new(&plain, script);
            assert_eq!(options.encrypt_from(reader, folder.path("sealed"), &key).await.unwrap(), len as u64);
            let stream = fs::read(folder.path("sealed")).unwrap();
            assert!(decrypt(&key, &stream).unwrap() == plain);
            assert_eq!(options.decrypt_from(&stream[..], folder.path("plain"), &key).await.unwrap(), len as u64);
            assert!(fs::read(folder.path("plain")).unwrap() == plain);
            folder.assert_holds(&["plain", "sealed"]);
        }
    }

    #[tokio::test]
    async fn a_reader_that_fails_or_is_no_whole_stream_leaves_nothing() {
        let (folder, key) = (Folder::new(), Key::generate());
        let good = encrypt(&key, &plaintext(3_000_000));
        let options = FileOptions::new();
        let joined = [&good[..], b"x"].concat();
        for (stream, expected) in [
            (&good[..2_900_000], Error::Truncated { at: 2_900_000 }),
            (&joined, Error::TrailingData { at: good.len() as u64 }),
        ] {
            let error = options.decrypt_from(stream, folder.path("plain"), &key).await.unwrap_err();
            assert_eq!(Error::from_io(&error), Some(expected));
        }
        let script = crate::script::Script::once([
            crate::script::Op::Some(2_000_000),
            crate::script::Op::Error(ErrorKind::ConnectionReset),
        ]);
        let reader = crate::script::Reader::new(&good, script);
        let error = options.encrypt_from(reader, folder.path("sealed"), &key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        folder.write("there", "old");
        let error = options.encrypt_from(&b"new"[..], folder.path("there"), &key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        folder.assert_holds(&["there"]);
    }

    #[tokio::test]
    async fn cancelling_stops_a_reader_that_waits_and_leaves_nothing() {
        let (folder, key) = (Folder::new(), Key::generate());
        let token = CancellationToken::new();
        let options = FileOptions::new().cancel_on(token.clone());
        let (mut near, far) = tokio::io::duplex(1024);
        let dst = folder.path("dst");
        let operation = tokio::spawn(async move { options.encrypt_from(far, dst, &key).await });
        tokio::io::AsyncWriteExt::write_all(&mut near, &[7; 5000]).await.unwrap();
        token.cancel();
        operation.await.unwrap().unwrap_err();
        folder.assert_holds(&[]);
        drop(near);
    }

    #[tokio::test]
    async fn a_token_that_was_cancelled_stops_everything() {
        let (folder, key) = (Folder::new(), Key::generate());
        let token = CancellationToken::new();
        token.cancel();
        let options = FileOptions::new().cancel_on(token.clone());
        let (src, sealed) = (folder.write("src", "plain"), folder.write("sealed", encrypt(&key, b"rows")));
        options.encrypt_file(&src, folder.path("dst"), &key).await.unwrap_err();
        options.decrypt_file(&sealed, folder.path("dst"), &key).await.unwrap_err();
        options.verify_file(&sealed, &key).await.unwrap_err();
        options.rekey_file(&sealed, &sealed, &key, &Key::generate()).await.unwrap_err();
        options.encrypt_from(&b"x"[..], folder.path("dst"), &key).await.unwrap_err();
        assert_eq!(decrypt(&key, &fs::read(&sealed).unwrap()).unwrap(), b"rows");
        folder.assert_holds(&["sealed", "src"]);
    }

    #[test]
    fn a_future_that_is_dropped_does_not_cancel_the_others_with_its_options() {
        let (folder, key) = (Folder::new(), Key::generate());
        let src = folder.write("src", "plain");
        let options = FileOptions::new();
        let (runtime, release) = drive::busy_runtime();
        runtime.block_on(async {
            assert!(poll_once(options.encrypt_file(&src, folder.path("one"), &key)).is_pending());
            drop(release);
            options.encrypt_file(&src, folder.path("two"), &key).await.unwrap();
        });
        folder.assert_holds(&["src", "two"]);
    }
}

/// Keys in files.
mod keys {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[tokio::test]
    async fn a_key_makes_the_round_trip() {
        let (folder, key) = (Folder::new(), Key::generate());
        key.write_file(folder.path("key")).await.unwrap();
        assert_eq!(Key::read_file(folder.path("key")).await.unwrap(), key);
        let content = fs::read_to_string(folder.path("key")).unwrap();
        assert_eq!(content, format!("{}\n", *key.expose_hex()));
        assert_eq!(content.len(), 65);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(folder.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let error = Key::generate().write_file(folder.path("key")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(folder.path("key")).unwrap(), content);
        folder.assert_holds(&["key"]);
    }

    #[tokio::test]
    async fn hex_with_at_most_one_newline_and_raw_bytes_are_keys_and_nothing_else() {
        let folder = Folder::new();
        let raw: Vec<u8> = (0..32).collect();
        for good in [HEX.to_owned(), format!("{HEX}\n"), format!("{HEX}\r\n"), HEX.to_uppercase()] {
            let path = folder.write("key", good);
            assert_eq!(Key::read_file(&path).await.unwrap().expose_bytes()[..], raw[..]);
        }
        // Raw bytes may look like a line.
        let lines = [&raw[..31], b"\n"].concat();
        assert_eq!(Key::from_file_content(&lines).unwrap().expose_bytes()[..], lines[..]);
        for bad in [
            String::new(),
            format!("{HEX}\n\n"),
            format!("{HEX}\r"),
            format!("{HEX} \n"),
            format!(" {HEX}"),
            format!("\u{feff}{HEX}"),
            HEX[1..].to_owned(),
            HEX[32..].to_owned(),
            format!("{HEX}0"),
            format!("{}g", &HEX[1..]),
            "x".repeat(33),
            "0".repeat(100_000),
        ] {
            let path = folder.write("key", &bad);
            let error = Key::read_file(&path).await.unwrap_err();
            assert_eq!(Error::from_io(&error), Some(Error::InvalidKey), "{bad:?}");
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(!message.contains(&HEX[1..10]), "{message}");
        }
        let error = Key::read_file(folder.path("missing")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
