//! Snapshots with a key store, and the keys in it.

use std::fs;

use crate::{
    folder::Folder,
    tool::{Run, Running, agcm, assert_same, assert_tells_no_key, folder, one_line, plain_agcm, plaintext, read, text},
};

fn with_plain(len: usize) -> Folder {
    let folder = folder();
    folder.write("plain", plaintext(len));
    folder
}

/// The ids in the key store `keys`.
#[track_caller]
fn ids(folder: &Folder) -> String {
    text(&agcm(folder, "keys --keys keys list").succeeds())
}

#[test]
fn a_snapshot_has_a_key_of_its_own_and_is_restored_with_it() {
    for len in [0, 1, 65_536, 300_000] {
        let folder = with_plain(len);
        assert_eq!(agcm(&folder, "snapshot encrypt -q --keys keys --id db-1 plain -o sealed").succeeds(), b"");
        assert_eq!(agcm(&folder, "snapshot restore --keys keys --id db-1 sealed -o again").succeeds(), b"");
        assert_same(&read(&folder, "again"), &plaintext(len));
        folder.assert_holds(&["again", "key", "keys", "other", "plain", "sealed"]);

        // The id is the context, and the key file is one like any other.
        assert_same(&agcm(&folder, "decrypt -k keys/db-1.key -c db-1 sealed").succeeds(), &plaintext(len));
        agcm(&folder, "decrypt -k keys/db-1.key sealed").fails(3);
    }
}

#[test]
fn a_snapshot_is_verified_with_its_key() {
    let folder = with_plain(300_000);
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    let words = text(&agcm(&folder, "snapshot verify --keys keys --id db sealed").succeeds());
    assert!(words.contains("300000") && words.contains("sealed"), "{words}");
    assert_eq!(agcm(&folder, "snapshot verify -q --keys keys --id db sealed").succeeds(), b"");
    agcm(&folder, "snapshot verify --keys keys --id unknown sealed").fails(5);

    agcm(&folder, "snapshot encrypt --keys keys --id other plain -o sealed2").succeeds();
    let line = agcm(&folder, "snapshot verify --keys keys --id db sealed2").fails(3);
    assert!(line.contains("sealed2"), "{line}");
    let mut stream = read(&folder, "sealed");
    stream[150_000] ^= 1;
    folder.write("corrupt", stream);
    let mut command = agcm(&folder, "snapshot verify --keys keys --id db corrupt");
    assert!(command.fails(4).contains("corrupt"));
    assert_eq!(command.output().unwrap().stdout, b"");
}

#[test]
fn a_new_key_store_is_spoken_of_in_case_nobody_meant_to_make_one() {
    let folder = with_plain(10);
    let encrypt = |options: &str| agcm(&folder, &format!("snapshot encrypt {options} plain")).output().unwrap();
    let output = encrypt("--keys keys --id a -o 1");
    let line = one_line(&output.stderr);
    assert!(output.status.success() && line.contains("\"keys\"") && line.contains("new"), "{line}");
    for options in ["--keys keys --id b -o 2", "-q --keys other-keys --id a -o 3"] {
        let output = encrypt(options);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    }
}

#[test]
fn a_snapshot_is_made_even_if_nobody_is_left_to_be_told() {
    let folder = with_plain(10);
    let mut running =
        Running::with_pipes(&mut plain_agcm(&folder, "snapshot encrypt --keys keys --id a plain -o sealed"));
    drop(running.child().stderr.take());
    assert_eq!(running.output().status.code(), Some(0));
    agcm(&folder, "snapshot verify --keys keys --id a sealed").succeeds();
}

#[test]
fn keys_and_their_folder_are_not_replaced_by_a_snapshot() {
    let folder = with_plain(10);
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    let key = read(&folder, "keys/db.key");
    folder.write("passphrase", "correct horse");
    for line in [
        "snapshot encrypt -f --keys keys --id a plain -o keys",
        "snapshot encrypt -f --keys keys --id a plain -o keys/db.key",
        "snapshot encrypt -f --keys keys --id a --passphrase-file passphrase plain -o passphrase",
        "snapshot restore -f --keys keys --id db sealed -o keys/db.key",
    ] {
        agcm(&folder, line).fails(2);
    }
    for line in
        ["encrypt --keys keys --id a - -o new", "encrypt --keys keys --id a plain -o -", "verify --keys keys --id db -"]
    {
        agcm(&folder, &format!("snapshot {line}")).fails(2);
    }
    assert_same(&read(&folder, "keys/db.key"), &key);
    assert_eq!((read(&folder, "passphrase"), ids(&folder)), (b"correct horse".to_vec(), "db\n".to_owned()));
    folder.assert_holds(&["key", "keys", "other", "passphrase", "plain", "sealed"]);
}

#[cfg(unix)]
#[test]
fn a_key_store_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = with_plain(10);
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    for (name, mode) in [("keys", 0o700), ("keys/db.key", 0o600)] {
        assert_eq!(fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode | 0o040)).unwrap();
        let line = agcm(&folder, "snapshot restore --keys keys --id db sealed -o again").fails(1);
        assert!(line.contains(name), "{line}");
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    agcm(&folder, "snapshot restore --keys keys --id db sealed -o again").succeeds();
}

#[test]
fn keys_are_listed_and_removed() {
    let folder = with_plain(10);
    for id in ["b", "a", "c.2026-11-22"] {
        agcm(&folder, &format!("snapshot encrypt -q --keys keys --chunk-size 3 --id {id} plain -o sealed-{id}"))
            .succeeds();
    }
    assert_eq!(ids(&folder), "a\nb\nc.2026-11-22\n");
    assert_eq!(agcm(&folder, "keys --keys keys remove b").succeeds(), b"");
    assert_eq!(ids(&folder), "a\nc.2026-11-22\n");
    agcm(&folder, "snapshot restore --keys keys --id b sealed-b -o again").fails(5);
    agcm(&folder, "snapshot restore --keys keys --id a sealed-a -o again").succeeds();
}

#[test]
fn an_unknown_id_is_told_from_other_failures_and_names_no_other_one() {
    let folder = with_plain(10);
    agcm(&folder, "snapshot encrypt -q --keys keys --id secret-project plain -o sealed").succeeds();
    for line in [
        "snapshot restore --keys keys --id unknown sealed -o again",
        "keys --keys keys export unknown -o again",
        "keys --keys keys remove unknown",
    ] {
        let line = agcm(&folder, line).fails(5);
        assert!(line.contains("unknown") && !line.contains("secret"), "{line}");
    }
    folder.assert_holds(&["key", "keys", "other", "plain", "sealed"]);
    assert_eq!(ids(&folder), "secret-project\n");
}

#[test]
fn an_id_must_not_lead_out_of_its_folder() {
    let folder = with_plain(10);
    agcm(&folder, "snapshot encrypt -q --keys keys --id good plain -o sealed").succeeds();
    for id in ["../key", "a/b", "", ".hidden", "-a", "a b", "ä", &"a".repeat(201)] {
        for line in ["snapshot encrypt -q --keys keys plain -o new", "snapshot restore --keys keys sealed -o new"] {
            agcm(&folder, line).arg(format!("--id={id}")).fails(2);
        }
        for line in ["remove", "export -o new"] {
            agcm(&folder, &format!("keys --keys keys {line} --")).arg(id).fails(2);
        }
    }
    folder.assert_holds(&["key", "keys", "other", "plain", "sealed"]);
    assert_eq!(ids(&folder), "good\n");
}

#[test]
fn an_id_is_taken_once() {
    let folder = with_plain(10);
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    let key = read(&folder, "keys/db.key");
    for options in ["", "-f "] {
        let line = agcm(&folder, &format!("snapshot encrypt -q {options}--keys keys --id db plain -o second")).fails(1);
        assert!(line.contains("\"db\""), "{line}");
    }
    assert_same(&read(&folder, "keys/db.key"), &key);
    folder.assert_holds(&["key", "keys", "other", "plain", "sealed"]);
}

#[test]
fn a_failed_snapshot_keeps_no_key_and_is_made_again_under_its_id() {
    let folder = with_plain(70_000);
    folder.write("taken", "precious");
    for line in [
        "snapshot encrypt -q --keys keys --id db missing -o sealed",
        "snapshot encrypt -q --keys keys --id db plain -o taken",
        "snapshot encrypt -q --keys keys --id db plain -o plain -f",
        "snapshot encrypt -q --keys keys --id db plain -o nowhere/sealed",
    ] {
        agcm(&folder, line).fails(1);
        assert_eq!(ids(&folder), "", "after {line}");
        folder.assert_holds(&["key", "keys", "other", "plain", "taken"]);
    }
    assert_eq!(read(&folder, "taken"), b"precious");
    assert_same(&read(&folder, "plain"), &plaintext(70_000));
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o taken -f").succeeds();
    agcm(&folder, "snapshot restore --keys keys --id db taken -o again").succeeds();
    assert_same(&read(&folder, "again"), &plaintext(70_000));
}

#[test]
fn a_failed_restoration_says_what_it_was_about_and_leaves_nothing_behind() {
    let folder = with_plain(70_000);
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    agcm(&folder, "snapshot encrypt -q --keys keys --id other plain -o sealed2").succeeds();
    let stream = read(&folder, "sealed");
    folder.write("cut", &stream[..stream.len() - 1]);
    folder.write("target", "precious");
    for (line, status, about) in [
        ("restore --keys keys --id db sealed2 -o target -f", 3, "sealed2"),
        ("restore --keys keys --id db cut -o target -f", 4, "cut"),
        ("restore --keys keys --id db missing -o target -f", 1, "missing"),
        ("restore --keys keys --id db sealed -o target", 1, "target"),
        ("restore --keys nowhere --id db sealed -o target -f", 1, "nowhere"),
    ] {
        let line = agcm(&folder, &format!("snapshot {line}")).fails(status);
        assert!(line.contains(about), "{line}");
        assert_eq!(read(&folder, "target"), b"precious");
    }
    // The key of one snapshot under the id of another.
    fs::copy(folder.path("keys/db.key"), folder.path("keys/copy.key")).unwrap();
    agcm(&folder, "snapshot restore --keys keys --id copy sealed -o target -f").fails(3);
    folder.write("keys/copy.key", "no key");
    let line = agcm(&folder, "snapshot restore --keys keys --id copy sealed -o target -f").fails(1);
    assert!(line.contains("copy"), "{line}");
    folder.assert_holds(&["cut", "key", "keys", "other", "plain", "sealed", "sealed2", "target"]);
}

#[test]
fn a_key_store_that_is_not_there_is_an_error() {
    let folder = folder();
    for line in ["keys --keys nowhere list", "keys --keys nowhere export id", "keys --keys nowhere remove id"] {
        assert!(agcm(&folder, line).fails(1).contains("nowhere"));
    }
    for line in ["keys list", "keys export id", "keys remove id"] {
        assert!(agcm(&folder, line).fails(2).contains("--keys"));
    }
    assert!(agcm(&folder, "keys --keys key list").fails(1).contains("\"key\""));
}

#[test]
fn keys_are_kept_under_a_passphrase() {
    let folder = with_plain(1000);
    // The end of the line, as an editor makes it, is no part of it.
    folder.write("passphrase", "correct horse\r\n");
    agcm(&folder, "snapshot encrypt -q --keys keys --id a --passphrase-file passphrase plain -o sealed").succeeds();
    assert!(read(&folder, "keys/a.key").starts_with(b"$argon2id$"));

    let restore = "snapshot restore --keys keys --id a sealed -o again";
    let passphrase = "AGCM_PASSPHRASE";
    let line = agcm(&folder, restore).fails(1);
    assert!(line.contains("passphrase"), "{line}");
    agcm(&folder, restore).env(passphrase, "").fails(2);
    let line = agcm(&folder, restore).env(passphrase, "wrong horse").fails(3);
    assert!(!line.contains("wrong horse"), "{line}");
    folder.assert_holds(&["key", "keys", "other", "passphrase", "plain", "sealed"]);
    agcm(&folder, restore).env(passphrase, "correct horse").succeeds();
    // The file wins.
    agcm(&folder, &format!("{restore} -f --passphrase-file passphrase")).env(passphrase, "wrong horse").succeeds();
    assert_same(&read(&folder, "again"), &plaintext(1000));

    // Neither listing nor removing needs it.
    assert_eq!(ids(&folder), "a\n");
    agcm(&folder, "keys --keys keys remove a").succeeds();
}

#[test]
fn a_passphrase_that_is_missing_or_empty_is_an_error() {
    let folder = with_plain(10);
    for (content, status) in [(None, 1), (Some(""), 2), (Some("\n"), 2), (Some("\r\n"), 2), (Some("first\nsecond"), 1)]
    {
        if let Some(content) = content {
            folder.write("passphrase", content);
        }
        let line = agcm(&folder, "snapshot encrypt -q --keys keys --id a --passphrase-file passphrase plain -o sealed");
        let line = { line }.fails(status);
        assert!(line.contains("passphrase") && !line.contains("second"), "{line}");
    }
    folder.assert_holds(&["key", "other", "passphrase", "plain"]);
}

#[test]
fn the_key_of_a_snapshot_is_never_shown() {
    let folder = with_plain(1000);
    agcm(&folder, "snapshot encrypt -q --keys keys --id a plain -o sealed").succeeds();
    let key = text(&read(&folder, "keys/a.key"));
    folder.write("keys/b.key", format!("{}0\n", key.trim()));
    let mut stream = read(&folder, "sealed");
    stream[200] ^= 1;
    folder.write("corrupt", stream);
    for line in [
        "snapshot encrypt -q --keys keys --id a plain -o new",
        "snapshot restore --keys keys --id a sealed -o again",
        "snapshot restore --keys keys --id a corrupt -o again -f",
        "snapshot restore --keys keys --id b sealed -o again -f",
        "keys --keys keys list",
        "inspect sealed",
        "verify -k keys/a.key sealed",
        "verify -k keys/b.key sealed",
        "verify -k keys/a.key -c a sealed",
        "keys --keys keys remove a",
    ] {
        let output = agcm(&folder, line).output().unwrap();
        assert_tells_no_key(&output.stdout, key.trim());
        assert_tells_no_key(&output.stderr, key.trim());
    }
}

/// Not even the one that is only made by this command.
#[test]
fn a_snapshot_takes_the_place_of_no_key() {
    let folder = folder();
    folder.write("plain", "rows");
    agcm(&folder, "snapshot encrypt -q --keys keys --id a plain -o sealed").succeeds();
    for line in [
        "snapshot encrypt -f --keys keys --id b plain -o keys/a.key",
        "snapshot encrypt -f --keys keys --id b plain -o keys/b.key",
        "snapshot encrypt -f --keys new --id b plain -o new/b.key",
        "snapshot restore -f --keys keys --id a sealed -o keys/a.key",
    ] {
        let line = agcm(&folder, line).fails(2);
        assert!(line.contains("must not be replaced"), "{line}");
    }
    assert!(!folder.path("new").exists());
    agcm(&folder, "snapshot verify -q --keys keys --id a sealed").succeeds();
    assert_eq!(agcm(&folder, "keys --keys keys list").succeeds(), b"a\n");
}

#[test]
fn a_key_under_a_passphrase_is_exported_to_save_what_is_left_of_its_snapshot() {
    let folder = with_plain(200_000);
    folder.write("passphrase", "correct horse\n");
    agcm(&folder, "snapshot encrypt -q --keys keys --id a --passphrase-file passphrase plain -o sealed").succeeds();
    let (wrapped, mut stream) = (read(&folder, "keys/a.key"), read(&folder, "sealed"));
    stream[100_000] ^= 1;
    folder.write("sealed", stream);

    let export = "keys --keys keys export a -o exported";
    assert!(agcm(&folder, export).fails(1).contains("--passphrase-file"));
    let line = agcm(&folder, export).env("AGCM_PASSPHRASE", "wrong horse").fails(3);
    assert!(!line.contains("wrong horse"), "{line}");
    folder.assert_holds(&["key", "keys", "other", "passphrase", "plain", "sealed"]);
    assert_eq!(agcm(&folder, &format!("{export} --passphrase-file passphrase")).succeeds(), b"");
    folder.assert_holds(&["exported", "key", "keys", "other", "passphrase", "plain", "sealed"]);
    assert_same(&read(&folder, "keys/a.key"), &wrapped);

    let saved = agcm(&folder, "cat -k exported -c a --range 131072.. sealed").succeeds();
    assert_same(&saved, &plaintext(200_000)[131_072..]);
    // As a new key, it is printed where no file is named.
    for output in ["", "-o -"] {
        let line = format!("keys export a --keys keys {output}");
        let printed = agcm(&folder, line.trim()).env("AGCM_PASSPHRASE", "correct horse").succeeds();
        assert_eq!(printed, read(&folder, "exported"));
    }
}

#[test]
fn an_exported_key_takes_the_place_of_no_file_and_is_no_second_key_of_its_store() {
    let folder = with_plain(10);
    folder.write("passphrase", "correct horse");
    agcm(&folder, "snapshot encrypt -q --keys keys --id a plain -o sealed").succeeds();
    let export = |options: &str| agcm(&folder, &format!("keys --keys keys export a {options}"));
    assert!(export("-o plain").fails(1).contains("plain"));
    assert!(export("-o nowhere/key").fails(1).contains("nowhere"));
    export("-f -o plain").is_misused();
    for options in
        ["-o keys/b.key", "-o keys/a.key", "-o keys", "--passphrase-file passphrase -o passphrase", "-o /dev/null"]
    {
        if cfg!(unix) || !options.contains("/dev/") {
            export(options).fails(2);
        }
    }
    assert_eq!((read(&folder, "plain"), ids(&folder)), (plaintext(10), "a\n".to_owned()));
    folder.assert_holds(&["key", "keys", "other", "passphrase", "plain", "sealed"]);
}

#[cfg(unix)]
#[test]
fn an_exported_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = with_plain(10);
    agcm(&folder, "snapshot encrypt -q --keys keys --id a plain -o sealed").succeeds();
    let export = "umask 0; exec \"$0\" keys --keys keys export a -o exported";
    let script = ["-c", export, env!("CARGO_BIN_EXE_agcm")];
    assert!(std::process::Command::new("sh").args(script).current_dir(folder.root()).status().unwrap().success());
    assert_eq!(fs::metadata(folder.path("exported")).unwrap().permissions().mode() & 0o7777, 0o600);
}
