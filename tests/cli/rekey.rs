//! Re-encrypting under another key.

use std::fs;

use crate::tool::{Run, agcm, assert_same, folder_with_stream, read};

#[test]
fn a_rekeyed_stream_opens_with_the_new_key_only() {
    let folder = folder_with_stream(300_000);
    agcm(&folder, "rekey -k key --to-key other sealed").succeeds();
    assert_same(&agcm(&folder, "decrypt -k other sealed").succeeds(), &read(&folder, "plain"));
    agcm(&folder, "decrypt -k key sealed").fails(3);
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}

#[test]
fn a_rekeyed_stream_keeps_its_chunk_size_and_its_context() {
    let folder = folder_with_stream(3000);
    agcm(&folder, "encrypt -fk key -c db --chunk-size 1000 plain -o sealed").succeeds();
    agcm(&folder, "rekey -k other -k key -c db --to-key other sealed").succeeds();
    assert_same(&agcm(&folder, "decrypt -k other -c db sealed").succeeds(), &read(&folder, "plain"));
    agcm(&folder, "decrypt -k other sealed").fails(3);
    let figures: serde_json::Value =
        serde_json::from_slice(&agcm(&folder, "inspect --json sealed").succeeds()).unwrap();
    assert_eq!((&figures["chunk_size"], &figures["chunks"]), (&1000.into(), &3.into()));
}

#[cfg(unix)]
#[test]
fn a_rekeyed_stream_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder_with_stream(1000);
    for mode in [0o640, 0o606, 0o400] {
        fs::set_permissions(folder.path("sealed"), fs::Permissions::from_mode(mode)).unwrap();
        agcm(&folder, "rekey -k key --to-key key sealed").succeeds();
        assert_eq!(fs::metadata(folder.path("sealed")).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_what_it_leads_to_is_rekeyed() {
    let folder = folder_with_stream(1000);
    std::os::unix::fs::symlink("sealed", folder.path("link")).unwrap();
    agcm(&folder, "rekey -k key --to-key other link").succeeds();
    assert!(folder.path("link").is_symlink());
    agcm(&folder, "verify -k other sealed").succeeds();
}

#[test]
fn a_new_file_leaves_the_old_one_as_it_is() {
    let folder = folder_with_stream(1000);
    let old = read(&folder, "sealed");
    agcm(&folder, "rekey -k key --to-key other sealed -o new").succeeds();
    assert_same(&read(&folder, "sealed"), &old);
    agcm(&folder, "verify -k other new").succeeds();

    let new = read(&folder, "new");
    assert!(agcm(&folder, "rekey -k key --to-key key sealed -o new").fails(1).contains("new"));
    assert_same(&read(&folder, "new"), &new);
    agcm(&folder, "rekey -f -k key --to-key key sealed -o new").succeeds();
    agcm(&folder, "verify -k key new").succeeds();
}

#[test]
fn a_stream_that_cannot_be_rekeyed_stays_as_it_is() {
    let folder = folder_with_stream(300_000);
    let good = read(&folder, "sealed");
    let mut corrupt = good.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    for (stream, line, status) in [
        (&good[..], "rekey -k other --to-key key sealed", 3),
        (&good, "rekey -k key -c wrong --to-key other sealed", 3),
        (&good, "rekey -k key --to-key missing sealed", 1),
        (&good, "rekey -k missing --to-key other sealed", 1),
        (&good, "rekey --to-key other sealed", 2),
        (&good, "rekey -k key --to-key other -", 2),
        (&corrupt, "rekey -k key --to-key other sealed", 4),
        (&good[..200_000], "rekey -k key --to-key other sealed", 4),
        (&[&good[..], &good].concat(), "rekey -k key --to-key other sealed", 4),
        (b"no stream", "rekey -k key --to-key other sealed", 4),
    ] {
        folder.write("sealed", stream);
        agcm(&folder, line).fails(status);
        agcm(&folder, &format!("{line} -o new")).fails(status);
        assert_same(&read(&folder, "sealed"), stream);
        folder.assert_holds(&["key", "other", "plain", "sealed"]);
    }
    agcm(&folder, "rekey -k key sealed").is_misused();
}
