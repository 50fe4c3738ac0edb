//! How a run fails: its status, its one line, and what is as it was before.

use std::{
    fs,
    io::{Read, Write},
};

use crate::{
    folder::Folder,
    tool::{Run, Running, agcm, assert_same, folder, folder_with_stream, one_line, plain_agcm, plaintext, read},
};

/// A folder with a good stream, `sealed`, and others by the name of what is wrong with them.
fn with_bad_streams() -> Folder {
    let folder = folder_with_stream(300_000);
    let good = read(&folder, "sealed");
    let mut corrupt = good.clone();
    corrupt[200_000] ^= 1;
    folder.write("corrupt", corrupt);
    folder.write("cut", &good[..250_000]);
    folder.write("short", &good[..good.len() - 1]);
    folder.write("two", [&good[..], &good].concat());
    folder.write("empty", "");
    folder.write("text", "certainly no stream");
    folder.write("almost", &good[..10]);
    folder
}

const BAD: [&str; 7] = ["corrupt", "cut", "short", "two", "empty", "text", "almost"];

#[test]
fn bad_streams_have_status_4_and_are_named() {
    let folder = with_bad_streams();
    for bad in BAD {
        for line in [
            &format!("decrypt -k key {bad}"),
            &format!("decrypt -k key {bad} -o new"),
            &format!("verify -k key {bad}"),
            &format!("rekey -k key --to-key other {bad} -o new"),
        ] {
            let line = agcm(&folder, line).fails(4);
            assert!(line.contains(&format!("{bad:?}")), "{line}");
            assert!(!folder.path("new").exists());
        }
        let stream = read(&folder, bad);
        for line in ["decrypt -k key", "decrypt -k key -o new", "verify -k key -"] {
            let line = agcm(&folder, line).write_stdin(stream.clone()).fails(4);
            assert!(line.contains("standard input"), "{line}");
            assert!(!folder.path("new").exists());
        }
    }
    for bad in ["cut", "short", "two", "empty", "text", "almost"] {
        let line = agcm(&folder, &format!("cat -k key --range 0..1 {bad}")).fails(4);
        assert!(line.contains(bad), "{line}");
    }
    for bad in ["empty", "text", "almost"] {
        assert!(agcm(&folder, &format!("inspect {bad}")).fails(4).contains(bad));
    }
    assert_eq!(crate::tool::partials(&folder), 0);
}

#[test]
fn what_is_put_out_before_a_fault_is_authentic() {
    let folder = with_bad_streams();
    let plain = read(&folder, "plain");
    for (bad, len) in [("corrupt", 3 * 65_536), ("cut", 3 * 65_536), ("short", 300_000), ("two", 300_000)] {
        let output = agcm(&folder, &format!("decrypt -k key {bad}")).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert_same(&output.stdout, &plain[..len]);
    }
}

#[test]
fn a_wrong_key_has_status_3() {
    let folder = folder_with_stream(1000);
    for line in [
        "decrypt -k other sealed",
        "decrypt -k other sealed -o new",
        "verify -k other sealed",
        "cat -k other --range .. sealed",
    ] {
        let line = agcm(&folder, line).fails(3);
        assert!(line.contains("\"sealed\""), "{line}");
    }
    let line = agcm(&folder, "decrypt -k other -o new").write_stdin(read(&folder, "sealed")).fails(3);
    assert!(line.contains("standard input"), "{line}");
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}

#[test]
fn what_is_not_there_is_named() {
    let folder = folder_with_stream(10);
    fs::create_dir(folder.path("folder")).unwrap();
    for (line, path) in [
        ("encrypt -k key missing", "missing"),
        ("encrypt -k key missing -o new", "missing"),
        ("encrypt -k key plain -o nowhere/new", "nowhere"),
        ("encrypt -k missing plain", "missing"),
        ("decrypt -k key missing", "missing"),
        ("decrypt -k key missing -o new", "missing"),
        ("verify -k key missing", "missing"),
        ("inspect missing", "missing"),
        ("cat -k key --range .. missing", "missing"),
        ("rekey -k key --to-key other missing", "missing"),
        ("bench missing", "missing"),
        ("encrypt -k key folder", "folder"),
        ("encrypt -k key folder -o new", "folder"),
        ("encrypt -k key plain -o folder", "folder"),
        ("encrypt -f -k key plain -o folder", "folder"),
        ("encrypt -k key plain -o new/", "new/"),
        ("decrypt -k key folder", "folder"),
        ("decrypt -k key folder -o new", "folder"),
        ("verify -k key folder", "folder"),
        ("inspect folder", "folder"),
    ] {
        let words = agcm(&folder, line).fails(1);
        assert!(words.contains(path), "{line}: {words}");
    }
    folder.assert_holds(&["folder", "key", "other", "plain", "sealed"]);
}

#[test]
fn a_file_name_cannot_make_a_second_line() {
    let folder = folder();
    let line = agcm(&folder, "encrypt -k key").arg("a\nagcm: b\u{1b}[31m").fails(1);
    assert!(!line.contains('\u{1b}'), "{line:?}");
}

#[test]
fn a_command_line_that_cannot_be_understood_has_status_2() {
    let folder = folder();
    for line in [
        "",
        "encipher",
        "encrypt -k",
        "encrypt -k key a b",
        "encrypt --nonsense",
        "snapshot",
        "snapshot encrypt plain",
        "keys list",
        "completions",
        "completions tcsh",
        "cat -k key",
    ] {
        let output = agcm(&folder, line).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{line}");
    }
    assert!(!agcm(&folder, "--version").succeeds().is_empty());
    assert!(!agcm(&folder, "encrypt --help").succeeds().is_empty());
}

#[test]
fn a_target_is_replaced_only_if_that_is_asked_for() {
    let folder = folder_with_stream(70_000);
    let (plain, sealed) = (read(&folder, "plain"), read(&folder, "sealed"));
    for (line, input) in [
        ("encrypt -k key plain -o target", None),
        ("encrypt -k key -o target", Some(&plain)),
        ("decrypt -k key sealed -o target", None),
        ("decrypt -k key -o target", Some(&sealed)),
    ] {
        folder.write("target", "precious");
        let words = agcm(&folder, line).write_stdin(input.cloned().unwrap_or_default()).fails(1);
        assert!(words.contains("\"target\"") && words.contains("-f"), "{words}");
        assert_eq!(read(&folder, "target"), b"precious");
        agcm(&folder, &format!("{line} -f")).write_stdin(input.cloned().unwrap_or_default()).succeeds();
        if line.starts_with("encrypt") {
            assert_same(&agcm(&folder, "decrypt -k key target").succeeds(), &plain);
        } else {
            assert_same(&read(&folder, "target"), &plain);
        }
    }
    folder.assert_holds(&["key", "other", "plain", "sealed", "target"]);
}

#[test]
fn a_run_that_fails_leaves_the_target_as_it_was() {
    let folder = with_bad_streams();
    folder.write("target", "precious");
    for bad in BAD {
        agcm(&folder, &format!("decrypt -f -k key {bad} -o target")).fails(4);
        agcm(&folder, "decrypt -f -k key -o target").write_stdin(read(&folder, bad)).fails(4);
    }
    agcm(&folder, "decrypt -f -k other sealed -o target").fails(3);
    agcm(&folder, "decrypt -f -k other -o target").write_stdin(read(&folder, "sealed")).fails(3);
    agcm(&folder, "encrypt -f -k key missing -o target").fails(1);
    assert_eq!(read(&folder, "target"), b"precious");
    assert_eq!(crate::tool::partials(&folder), 0);
}

#[test]
fn a_file_is_not_replaced_by_what_was_made_of_it() {
    let folder = folder_with_stream(1000);
    fs::hard_link(folder.path("plain"), folder.path("second-name")).unwrap();
    let sealed = read(&folder, "sealed");
    for line in [
        "encrypt -f -k key plain -o plain",
        "encrypt -f -k key plain -o ./second-name",
        "decrypt -f -k key sealed -o sealed",
    ] {
        agcm(&folder, line).fails(2);
    }
    // Not even if the shell opens it.
    #[cfg(unix)]
    for (line, input) in [("encrypt -f -k key -o second-name", "plain"), ("decrypt -f -k key -o sealed", "sealed")] {
        let mut command = plain_agcm(&folder, line);
        command.stdin(fs::File::open(folder.path(input)).unwrap());
        let output = command.output().unwrap();
        assert!(one_line(&output.stderr).contains("what is read") && output.status.code() == Some(2));
    }
    assert_same(&read(&folder, "plain"), &plaintext(1000));
    assert_same(&read(&folder, "sealed"), &sealed);
    folder.assert_holds(&["key", "other", "plain", "sealed", "second-name"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_without_a_word() {
    let folder = folder_with_stream(4_000_000);
    for line in ["decrypt -k key sealed", "encrypt -k key plain", "cat -k key --range .. sealed", "decrypt -k key"] {
        let mut running = Running::with_pipes(&mut plain_agcm(&folder, line));
        let mut stdin = running.stdin();
        let sealed = read(&folder, "sealed");
        // The end of this may find nobody who reads it.
        let writer = std::thread::spawn(move || stdin.write_all(&sealed));
        let mut stdout = running.child().stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        let output = running.output();
        let _ = writer.join().unwrap();
        assert!(!output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
        #[cfg(unix)]
        assert_eq!(output.status.code(), Some(1), "{line}");
    }
}
