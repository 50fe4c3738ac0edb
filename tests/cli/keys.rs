//! Keys: made, read from files, taken from the environment.

use std::fs;

use crate::tool::{KEY, OTHER, Run, agcm, folder, folder_with_stream, read, text};

#[track_caller]
fn assert_is_key(content: &[u8]) {
    let hex = content.strip_suffix(b"\n").unwrap();
    assert!(hex.len() == 64 && hex.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
}

#[test]
fn a_new_key_file_holds_64_hex_digits_and_opens_what_it_sealed() {
    let folder = folder();
    assert_eq!(agcm(&folder, "keygen -o new").succeeds(), b"");
    assert_is_key(&read(&folder, "new"));
    folder.assert_holds(&["key", "new", "other"]);
    let stream = agcm(&folder, "encrypt -k new").write_stdin("rows").succeeds();
    assert_eq!(agcm(&folder, "decrypt -k new").write_stdin(stream).succeeds(), b"rows");
}

#[cfg(unix)]
#[test]
fn a_new_key_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let script = ["-c", "umask 0; exec \"$0\" keygen -o new", env!("CARGO_BIN_EXE_agcm")];
    assert!(std::process::Command::new("sh").args(script).current_dir(folder.root()).status().unwrap().success());
    assert_eq!(fs::metadata(folder.path("new")).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_key_file_is_never_replaced() {
    let folder = folder();
    assert!(agcm(&folder, "keygen -o key").fails(1).contains("key"));
    assert_eq!(text(&read(&folder, "key")), format!("{KEY}\n"));
    agcm(&folder, "keygen -f -o key").is_misused();
    assert!(agcm(&folder, "keygen -o nowhere/key").fails(1).contains("nowhere"));
    folder.assert_holds(&["key", "other"]);
}

#[test]
fn a_new_key_is_printed_where_no_file_is_named() {
    let folder = folder();
    let keys = [agcm(&folder, "keygen").succeeds(), agcm(&folder, "keygen -o -").succeeds()];
    keys.iter().for_each(|key| assert_is_key(key));
    assert_ne!(keys[0], keys[1]);
    folder.assert_holds(&["key", "other"]);
}

#[cfg(unix)]
#[test]
fn a_new_key_does_not_go_to_a_device() {
    let folder = folder();
    assert!(agcm(&folder, "keygen -o /dev/null").fails(2).contains("/dev/null"));
}

#[test]
fn key_files_have_several_forms() {
    let folder = folder_with_stream(10);
    let raw = base16ct::lower::decode_vec(KEY).unwrap();
    for content in [
        format!("{KEY}\r\n").as_bytes(),
        format!("{KEY}\n").as_bytes(),
        KEY.as_bytes(),
        KEY.to_uppercase().as_bytes(),
        &raw,
    ] {
        folder.write("form", content);
        assert_eq!(agcm(&folder, "decrypt -k form sealed").succeeds(), read(&folder, "plain"));
    }
}

#[cfg(unix)]
#[test]
fn a_key_may_come_through_a_pipe() {
    let folder = folder_with_stream(10);
    let plain = agcm(&folder, "decrypt -k /dev/stdin sealed").write_stdin(format!("{KEY}\n")).succeeds();
    assert_eq!(plain, read(&folder, "plain"));
}

#[test]
fn a_key_is_not_replaced_by_what_is_encrypted_with_it() {
    let folder = folder_with_stream(10);
    fs::hard_link(folder.path("key"), folder.path("second-name")).unwrap();
    for line in [
        "encrypt -f -k key plain -o key",
        "encrypt -f -k key plain -o ./second-name",
        "encrypt -f -k key -o key",
        "decrypt -f -k other -k key sealed -o other",
        "decrypt -f -k key -o key",
        "rekey -f -k key --to-key other sealed -o other",
        "rekey -f -k key --to-key other sealed -o key",
        "import --from-go -f -k key --to-key other sealed -o other",
    ] {
        let line = agcm(&folder, line).write_stdin("rows").fails(2);
        assert!(line.contains("is a key"), "{line}");
    }
    agcm(&folder, "encrypt -f plain -o key").env("AGCM_KEYFILE", "key").fails(2);
    assert_eq!(text(&read(&folder, "key")), format!("{KEY}\n"));
    assert_eq!(text(&read(&folder, "other")), format!("{OTHER}\n"));
    folder.assert_holds(&["key", "other", "plain", "sealed", "second-name"]);
}

#[test]
fn a_key_in_the_place_of_a_key_file_is_not_repeated() {
    let folder = folder_with_stream(10);
    for line in ["encrypt plain -k", "decrypt sealed -k", "rekey -k key sealed --to-key", "cat --range .. sealed -k"] {
        agcm(&folder, line).arg(KEY).fails(2);
    }
    // And standard input is for something else.
    agcm(&folder, "encrypt plain -k -").fails(2);
}

#[test]
fn what_is_no_key_file_is_refused_and_named() {
    let folder = folder_with_stream(10);
    fs::create_dir(folder.path("folder")).unwrap();
    let raw = base16ct::lower::decode_vec(KEY).unwrap();
    for content in [
        b"",
        &raw[..31],
        &[&raw[..], b"\n"].concat(),
        &KEY.as_bytes()[..63],
        format!("{KEY}0").as_bytes(),
        format!("{KEY}\n\n").as_bytes(),
        format!("{KEY} \n").as_bytes(),
        format!("0x{KEY}\n").as_bytes(),
        format!("{KEY}\n{OTHER}\n").as_bytes(),
        KEY.replace('c', "g").as_bytes(),
    ] {
        folder.write("bad", content);
        for line in [
            "encrypt -k bad plain -o new",
            "decrypt -k bad sealed -o new",
            "decrypt -k key -k bad sealed -o new",
            "verify -k bad sealed",
            "cat -k bad --range .. sealed",
            "rekey -k bad --to-key other sealed",
            "rekey -k key --to-key bad sealed",
        ] {
            let line = agcm(&folder, line).fails(1);
            assert!(line.contains("bad"), "{line}");
        }
    }
    for name in ["missing", "folder"] {
        assert!(agcm(&folder, &format!("encrypt -k {name} plain -o new")).fails(1).contains(name));
    }
    folder.assert_holds(&["bad", "folder", "key", "other", "plain", "sealed"]);
}

#[test]
fn without_a_key_nothing_is_done() {
    let folder = folder_with_stream(10);
    for line in [
        "encrypt plain -o new",
        "decrypt sealed -o new",
        "verify sealed",
        "cat --range .. sealed",
        "rekey --to-key other sealed",
        "import --from-go --to-key other sealed -o new",
    ] {
        for empty in [false, true] {
            let mut command = agcm(&folder, line);
            if empty {
                command.env("AGCM_KEY", "").env("AGCM_KEYFILE", "");
            }
            assert!(command.fails(2).contains("-k"));
        }
    }
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}

#[test]
fn the_environment_stands_in_for_the_key_file() {
    let folder = folder_with_stream(10);
    let plain = read(&folder, "plain");
    for (name, value) in [("AGCM_KEY", KEY), ("AGCM_KEYFILE", "key")] {
        let stream = agcm(&folder, "encrypt plain").env(name, value).succeeds();
        assert_eq!(agcm(&folder, "decrypt -k key").write_stdin(stream).succeeds(), plain);
        assert_eq!(agcm(&folder, "decrypt sealed").env(name, value).succeeds(), plain);
        agcm(&folder, "verify sealed").env(name, value).succeeds();
        assert_eq!(agcm(&folder, "cat --range .. sealed").env(name, value).succeeds(), plain);
        agcm(&folder, "rekey --to-key other sealed -o rekeyed -f").env(name, value).succeeds();
        agcm(&folder, "verify -k other rekeyed").succeeds();
    }
}

#[test]
fn a_named_key_file_wins_over_the_environment_and_its_key_file_over_its_key() {
    let folder = folder_with_stream(10);
    let line = "verify -q sealed";
    for (file, key) in [("other", OTHER), ("missing", "no key")] {
        agcm(&folder, "verify -q -k key sealed").env("AGCM_KEYFILE", file).env("AGCM_KEY", key).succeeds();
        agcm(&folder, line).env("AGCM_KEYFILE", "key").env("AGCM_KEY", key).succeeds();
    }
    agcm(&folder, line).env("AGCM_KEYFILE", "other").env("AGCM_KEY", KEY).fails(3);
    agcm(&folder, line).env("AGCM_KEYFILE", "").env("AGCM_KEY", KEY).succeeds();
    agcm(&folder, line).env("AGCM_KEYFILE", "key").env("AGCM_KEY", "").succeeds();
    agcm(&folder, "verify -q -k other sealed").env("AGCM_KEY", KEY).fails(3);
}

#[test]
fn a_bad_key_in_the_environment_is_blamed_on_it() {
    let folder = folder_with_stream(10);
    for value in ["no key".to_owned(), format!("{KEY} "), format!("{KEY}\n"), KEY[1..].to_owned()] {
        let line = agcm(&folder, "verify sealed").env("AGCM_KEY", value).fails(1);
        assert!(line.contains("AGCM_KEY:"), "{line}");
    }
    let line = agcm(&folder, "verify sealed").env("AGCM_KEYFILE", "missing").fails(1);
    assert!(line.contains("AGCM_KEYFILE") && line.contains("missing"), "{line}");
}
