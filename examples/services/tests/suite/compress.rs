use std::{fs, io::Write, process::Command};

use agcm::{Error, Key};
use agcm_services::compress::{len_with, restore, store, store_wrongly};

use crate::support::{assert_same, content, flip, names};

#[tokio::test]
async fn what_was_compressed_and_encrypted_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = Key::generate();
    for (i, content) in [vec![], b"x".to_vec(), b"a row\n".repeat(500_000), content(2_000_000, 50)].iter().enumerate() {
        let [plain, sealed, restored] = ["plain", "sealed", "restored"].map(|name| path(&format!("{name}-{i}")));
        fs::write(&plain, content).unwrap();
        store(&plain, &sealed, &key).await.unwrap();
        assert!(fs::read(&sealed).unwrap().starts_with(b"AGCM"));
        let len = restore(&sealed, &restored, &key, content.len() as u64).await.unwrap();
        assert_eq!(len, content.len() as u64);
        assert_same(&fs::read(&restored).unwrap(), content);
    }
}

#[tokio::test]
async fn it_is_the_plaintext_that_becomes_shorter_and_not_the_ciphertext() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = Key::generate();
    fs::write(path("plain"), b"a row\n".repeat(500_000)).unwrap();
    store(&path("plain"), &path("sealed"), &key).await.unwrap();
    assert!(fs::metadata(path("sealed")).unwrap().len() < 30_000);
    assert!(store_wrongly(&path("plain"), &key).await.unwrap() > 3_000_000);
}

#[tokio::test]
async fn what_is_not_all_of_it_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = Key::generate();
    let content = content(1_000_000, 51);
    fs::write(path("plain"), &content).unwrap();
    store(&path("plain"), &path("sealed"), &key).await.unwrap();
    let sealed = fs::read(path("sealed")).unwrap();
    let before = names(folder.path());
    let restored = async || restore(&path("sealed"), &path("restored"), &key, 1_000_000).await.unwrap_err();

    // All that was compressed is there; only the end of the stream is not.
    fs::write(path("sealed"), &sealed[..sealed.len() - 37]).unwrap();
    let error = restored().await;
    assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: sealed.len() as u64 - 37 }), "{error}");
    fs::write(path("sealed"), &sealed).unwrap();
    flip(&path("sealed"), 500_000);
    assert!(matches!(Error::from_io(&restored().await), Some(Error::Corrupt { .. })));
    fs::write(path("sealed"), [&sealed[..], b"?"].concat()).unwrap();
    assert!(matches!(Error::from_io(&restored().await), Some(Error::TrailingData { .. })));

    // Authentic, and not what `store` writes.
    let mut compressed = agcm::decrypt(&key, &sealed).unwrap();
    compressed.push(0);
    fs::write(path("sealed"), agcm::encrypt(&key, &compressed)).unwrap();
    assert!(restored().await.to_string().contains("something follows"));
    fs::write(path("sealed"), agcm::encrypt(&key, &compressed[..compressed.len() - 2])).unwrap();
    restored().await;
    assert_eq!(names(folder.path()), before);
}

#[tokio::test]
async fn a_few_bytes_that_would_become_very_many_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = Key::generate();
    fs::File::create(path("plain")).unwrap().write_all(&vec![0; 10_000_000]).unwrap();
    store(&path("plain"), &path("sealed"), &key).await.unwrap();
    assert!(fs::metadata(path("sealed")).unwrap().len() < 20_000);
    let error = restore(&path("sealed"), &path("restored"), &key, 9_999_999).await.unwrap_err();
    assert!(error.to_string().contains("more than 9999999"), "{error}");
    assert_eq!(names(folder.path()), ["plain", "sealed"]);
    // Nor is anything replaced.
    restore(&path("sealed"), &path("plain"), &key, 10_000_000).await.unwrap_err();
    restore(&path("sealed"), &path("restored"), &key, 10_000_000).await.unwrap();
}

#[tokio::test]
async fn with_compression_the_length_tells_a_right_guess_from_wrong_ones() {
    let key = Key::generate();
    let len = async |guess: &str, compress| len_with(guess, "7f3a9c0e51d2", compress, &key).await.unwrap();
    for wrong in ["token=000000000000", "token=123456789abc", "token=d21e50c9a3f7", "token=7f3a9cabcdef"] {
        assert!(len("token=7f3a9c0e51d2", true).await < len(wrong, true).await);
        assert_eq!(len("token=7f3a9c0e51d2", false).await, len(wrong, false).await);
    }
}

#[test]
fn the_program_checks_what_it_shows() {
    let output = Command::new(env!("CARGO_BIN_EXE_compress")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("byte for byte"));
}
