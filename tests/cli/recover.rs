//! `examples/recover.py` opens what the binary wrote, for the day when there is no binary.

use std::{
    env,
    process::{Command, Stdio},
};

use crate::{
    folder::Folder,
    tool::{Run, agcm, assert_same, checked, folder_with_stream, in_folder, plaintext, read, text},
};

/// Whether it can run here; where it has to, that it cannot is a failure.
fn python() -> bool {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    let works = probe.is_ok_and(|status| status.success());
    assert!(works || env::var_os("AGCM_REQUIRE_PYTHON").is_none(), "there is no python3 with cryptography");
    if !works {
        println!("passed by: there is no python3 with the package cryptography");
    }
    works
}

/// What `recover.py LINE` prints, after it ended with this status.
#[track_caller]
fn recover(folder: &Folder, line: &str, status: i32) -> Vec<u8> {
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/recover.py")).args(line.split_whitespace());
    let output = checked(in_folder(python, folder).output().unwrap());
    assert_eq!(output.status.code(), Some(status), "{line}: {}", text(&output.stderr));
    output.stdout
}

#[test]
fn what_the_binary_wrote_is_recovered_without_it() {
    if !python() {
        return;
    }
    let folder = folder_with_stream(300_000);
    assert_same(&recover(&folder, "-k other -k key sealed", 0), &plaintext(300_000));
    recover(&folder, "-k key sealed -o again", 0);
    assert_same(&read(&folder, "again"), &plaintext(300_000));

    for (len, options) in
        [(0, ""), (0, "-c db"), (1000, "--chunk-size 7 -c db/2026"), (65_536, ""), (300_000, "--chunk-size 1MiB")]
    {
        folder.write("plain", plaintext(len));
        agcm(&folder, &format!("encrypt -f -k key {options} plain -o sealed")).succeeds();
        let context = options.find("-c ").map_or("", |at| &options[at..]);
        assert_same(&recover(&folder, &format!("-k key sealed {context}"), 0), &plaintext(len));
    }

    // What has another way in: a pipe, a new key, a key store.
    folder.write("piped", agcm(&folder, "encrypt -k key").write_stdin(plaintext(200_000)).succeeds());
    agcm(&folder, "rekey -k key --to-key other piped").succeeds();
    assert_same(&recover(&folder, "-k other piped", 0), &plaintext(200_000));
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o snapshot").succeeds();
    assert_same(&recover(&folder, "-k keys/db.key -c db snapshot", 0), &plaintext(300_000));
}

#[test]
fn what_the_binary_refuses_is_not_recovered_either() {
    if !python() {
        return;
    }
    let folder = folder_with_stream(100_000);
    let stream = read(&folder, "sealed");
    folder.write("cut", &stream[..stream.len() - 1]);
    let mut corrupt = stream.clone();
    corrupt[90_000] ^= 1;
    folder.write("corrupt", corrupt);
    folder.write("two", [&stream[..], &stream].concat());
    for (line, status) in [
        ("-k key cut -o new", 4),
        ("-k key corrupt -o new", 4),
        ("-k key two -o new", 4),
        ("-k other sealed -o new", 3),
        ("-k key -c wrong sealed -o new", 3),
        ("-k missing sealed -o new", 1),
        ("-k key sealed -o cut", 1),
    ] {
        recover(&folder, line, status);
    }
    folder.assert_holds(&["corrupt", "cut", "key", "other", "plain", "sealed", "two"]);
}
