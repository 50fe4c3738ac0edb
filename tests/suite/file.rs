//! `encrypt_file` and `decrypt_file`: published whole or not at all.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use agcm::{EncryptOptions, Error, Key, decrypt, decrypt_file, encrypt, encrypt_file};
use tempfile::TempDir;

use crate::{drive::poll_once, encrypt_writer::frames, vectors::plaintext};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    #[track_caller]
    fn assert_holds(&self, names: &[&str]) {
        let mut found: Vec<String> =
            fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, names);
    }
}

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
        encrypt_file(folder.0.path(), folder.path("dst"), &key).await.unwrap_err(),
        ErrorKind::IsADirectory,
        folder.0.path(),
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
mod in_the_middle {
    use std::{fs::OpenOptions, process::Command, time::Duration};

    use super::*;

    fn pipe(folder: &Folder) -> PathBuf {
        let path = folder.path("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    async fn open_for_writing(path: &Path) -> File {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path).unwrap()).await.unwrap()
    }

    /// Waits until the folder holds a file that is being written.
    async fn until_begun(folder: &Folder) {
        while !fs::read_dir(folder.0.path())
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
            while fs::read_dir(folder.0.path()).unwrap().count() > 1 {
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
