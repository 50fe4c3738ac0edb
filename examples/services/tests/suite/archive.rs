use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use agcm::{EncryptWriter, Error, Key};
use agcm_services::archive::{extract, list, pack};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_tar::{Builder, EntryType, Header};

use crate::support::{assert_same, content, flip, names};

/// A folder with files, among them a large one, an empty one and one in a folder of its own.
fn make_tree(at: &Path) {
    fs::create_dir_all(at.join("a/b")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    fs::write(at.join("a/b/large"), content(3_000_000, 60)).unwrap();
    fs::write(at.join("a/small"), "rows").unwrap();
    fs::write(at.join("nothing"), "").unwrap();
    fs::write(at.join("x".repeat(150)), "a long name").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        symlink("a/small", at.join("link")).unwrap();
        fs::set_permissions(at.join("a/small"), fs::Permissions::from_mode(0o640)).unwrap();
    }
}

/// All that is in a folder, in order: paths, and contents or where links lead.
fn tree(at: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![at.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let content = if path.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if path.is_dir() {
                folders.push(path.clone());
                b"a folder".to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            found.push((path.strip_prefix(at).unwrap().to_owned(), content));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_folder_that_was_packed_is_listed_and_extracted_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let [folder, sealed, extracted] = ["folder", "sealed", "extracted"].map(|name| home.path().join(name));
    make_tree(&folder);
    let key = Key::generate();
    pack(&folder, &sealed, &key).await.unwrap();
    assert!(fs::read(&sealed).unwrap().starts_with(b"AGCM"));

    let mut listed = list(&sealed, &key).await.unwrap();
    listed.retain(|(path, _)| path.ends_with("large") || path.ends_with("nothing"));
    listed.sort();
    let lens: Vec<_> =
        listed.iter().map(|(path, len)| (path.strip_prefix(".").unwrap_or(path).to_str().unwrap(), *len)).collect();
    assert_eq!(lens, [("a/b/large", 3_000_000), ("nothing", 0)]);

    extract(&sealed, &extracted, &key).await.unwrap();
    let (before, after) = (tree(&folder), tree(&extracted));
    assert_eq!(
        before.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        after.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
    for (one, other) in before.iter().zip(&after) {
        assert_same(&one.1, &other.1);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(extracted.join("a/small")).unwrap().permissions().mode() & 0o777, 0o640);
    }
    // Nothing that is there is replaced.
    assert_eq!(extract(&sealed, &extracted, &key).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    pack(&folder, &sealed, &key).await.unwrap_err();
    assert_eq!(names(home.path()), ["extracted", "folder", "sealed"]);
}

#[tokio::test]
async fn nothing_is_extracted_or_listed_of_an_archive_that_is_not_whole() {
    let home = tempfile::tempdir().unwrap();
    let [folder, sealed, extracted] = ["folder", "sealed", "extracted"].map(|name| home.path().join(name));
    make_tree(&folder);
    let key = Key::generate();
    pack(&folder, &sealed, &key).await.unwrap();
    let whole = fs::read(&sealed).unwrap();
    let fails = async || {
        let error = extract(&sealed, &extracted, &key).await.unwrap_err();
        let found = Error::from_io(&error);
        assert_eq!(Error::from_io(&list(&sealed, &key).await.unwrap_err()), found);
        assert_eq!(names(home.path()), ["folder", "sealed"]);
        found.unwrap_or_else(|| panic!("{error}"))
    };

    // Every file of the archive is there, and its end; only that of the stream is not.
    fs::write(&sealed, &whole[..whole.len() - 37]).unwrap();
    assert_eq!(fails().await, Error::Truncated { at: whole.len() as u64 - 37 });
    fs::write(&sealed, &whole[..1_000_000]).unwrap();
    assert!(matches!(fails().await, Error::Truncated { .. }));
    fs::write(&sealed, [&whole[..], b"?"].concat()).unwrap();
    assert!(matches!(fails().await, Error::TrailingData { .. }));
    fs::write(&sealed, &whole).unwrap();
    flip(&sealed, whole.len() as u64 - 5);
    assert!(matches!(fails().await, Error::Corrupt { .. }));
    flip(&sealed, 2_000_000);
    assert!(matches!(fails().await, Error::Corrupt { .. }));
}

#[tokio::test]
async fn what_fails_to_be_packed_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    pack(&home.path().join("missing"), &home.path().join("sealed"), &Key::generate()).await.unwrap_err();
    assert_eq!(names(home.path()), [""; 0]);
}

#[tokio::test]
async fn a_folder_is_not_packed_into_itself() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("folder");
    make_tree(&folder);
    let before = tree(&folder);
    let mut into =
        vec![folder.join("sealed"), folder.join("a/b/sealed"), home.path().join("folder/../folder/a/sealed")];
    let mut from = vec![folder.clone(), folder.join("a/..")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.join("a"), home.path().join("into")).unwrap();
        std::os::unix::fs::symlink("folder", home.path().join("from")).unwrap();
        into.push(home.path().join("into/sealed"));
        from.push(home.path().join("from"));
    }
    for (src, dst) in from.iter().flat_map(|src| into.iter().map(move |dst| (src, dst))) {
        // It would not end before the disk is full.
        let packed = timeout(Duration::from_secs(2), pack(src, dst, &Key::generate())).await;
        let error = packed.expect("it packs itself").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{src:?} {dst:?}: {error}");
        assert!(error.to_string().contains("in the folder that is packed"), "{error}");
        assert_eq!(tree(&folder), before, "{src:?} {dst:?}");
    }
    // What only begins with the same letters is another folder.
    fs::create_dir(home.path().join("folder2")).unwrap();
    pack(&folder, &home.path().join("folder2/sealed"), &Key::generate()).await.unwrap();
}

#[tokio::test]
async fn an_archive_cannot_write_outside_of_its_folder_even_if_its_author_has_the_key() {
    let home = tempfile::tempdir().unwrap();
    let [sealed, extracted] = ["sealed", "extracted"].map(|name| home.path().join(name));
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let key = Key::generate();
    let header = |kind, path: &str, link: &str| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        // As no library would write it.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(if kind == EntryType::Regular { 4 } else { 0 });
        header.set_mode(0o644);
        header.set_cksum();
        header
    };
    let file = |path| (header(EntryType::Regular, path, ""), &b"evil"[..]);
    let link = |to| (header(EntryType::Symlink, "way", to), &b""[..]);
    for (entries, refused) in [
        // That one is left out.
        (vec![file("../outside/one"), file("two")], false),
        (vec![link("../../outside"), file("way/two")], true),
        (vec![link("../../outside")], true),
        (vec![link("/etc")], true),
    ] {
        let mut archive = Builder::new(EncryptWriter::new(Vec::new(), &key));
        for (header, content) in entries {
            archive.append(&header, content).await.unwrap();
        }
        let mut stream = archive.into_inner().await.unwrap();
        stream.shutdown().await.unwrap();
        fs::write(&sealed, stream.into_inner()).unwrap();
        match extract(&sealed, &extracted, &key).await {
            Ok(()) => {
                assert!(!refused && names(&extracted) == ["two"]);
                fs::remove_dir_all(&extracted).unwrap();
            }
            Err(error) => assert!(refused && !extracted.exists(), "{error}"),
        }
        assert_eq!(names(&outside), [""; 0]);
    }
}

#[test]
fn the_program_packs_lists_and_extracts() {
    let home = tempfile::tempdir().unwrap();
    make_tree(&home.path().join("folder"));
    fs::write(home.path().join("key"), "5a".repeat(32)).unwrap();
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_tar")).args(args).current_dir(home.path()).output().unwrap();
    assert!(run(&["pack", "key", "folder", "sealed"]).status.success());
    let listed = String::from_utf8(run(&["list", "key", "sealed"]).stdout).unwrap();
    assert!(listed.contains("     3000000 ") && listed.contains("a/b/large"), "{listed}");
    assert!(run(&["extract", "key", "sealed", "extracted"]).status.success());
    assert_eq!(tree(&home.path().join("extracted")), tree(&home.path().join("folder")));
    assert!(!run(&["extract", "key", "folder"]).status.success());
}
