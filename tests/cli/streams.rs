//! Encrypting, decrypting, verifying, looking, reading ranges.

#[cfg(unix)]
use std::fs;

use serde_json::Value;

use crate::{
    folder::Folder,
    tool::{Run, agcm, assert_same, folder, folder_with_stream, plaintext, read, text},
};

#[test]
fn what_was_encrypted_comes_back_by_every_way() {
    for len in [0, 1, 65_535, 65_536, 65_537, 300_000] {
        let folder = folder();
        let plain = plaintext(len);
        folder.write("plain", &plain);
        agcm(&folder, "encrypt -k key plain -o 1").succeeds();
        agcm(&folder, "encrypt -k key -o 2").write_stdin(plain.clone()).succeeds();
        folder.write("3", agcm(&folder, "encrypt -k key plain").succeeds());
        folder.write("4", agcm(&folder, "encrypt -k key - -o -").write_stdin(plain.clone()).succeeds());
        for sealed in ["1", "2", "3", "4"] {
            let stream = read(&folder, sealed);
            assert_eq!(stream.len(), 117 + len + 20 * len.div_ceil(65_536));
            agcm(&folder, &format!("decrypt -k key {sealed} -o {sealed}a")).succeeds();
            agcm(&folder, &format!("decrypt -k key - -o {sealed}b")).write_stdin(stream.clone()).succeeds();
            assert_same(&read(&folder, &format!("{sealed}a")), &plain);
            assert_same(&read(&folder, &format!("{sealed}b")), &plain);
            assert_same(&agcm(&folder, &format!("decrypt -k key {sealed}")).succeeds(), &plain);
            assert_same(&agcm(&folder, "decrypt -k key - -o -").write_stdin(stream).succeeds(), &plain);
        }
    }
}

#[test]
fn any_number_of_jobs_does_the_same() {
    let folder = folder();
    for (jobs, len) in [("-j 0", 300_000), ("-j 1", 300_000), ("-j 1000000", 300_000), ("--jobs 2", 4_300_000)] {
        let plain = plaintext(len);
        folder.write("plain", &plain);
        agcm(&folder, &format!("encrypt {jobs} -k key plain -f -o file")).succeeds();
        folder.write("piped", agcm(&folder, &format!("encrypt {jobs} -k key")).write_stdin(plain.clone()).succeeds());
        assert_eq!(read(&folder, "piped").len(), 117 + len + 20 * len.div_ceil(65_536));
        agcm(&folder, &format!("verify {jobs} -k key file")).succeeds();
        agcm(&folder, &format!("decrypt {jobs} -k key file -f -o again")).succeeds();
        assert_same(&read(&folder, "again"), &plain);
        assert_same(&agcm(&folder, &format!("decrypt {jobs} -k key piped")).succeeds(), &plain);
    }
    for jobs in ["x", "", "1.5"] {
        agcm(&folder, "encrypt -k key plain -o sealed").arg(format!("--jobs={jobs}")).is_misused();
    }
    folder.assert_holds(&["again", "file", "key", "other", "piped", "plain"]);
}

/// Under these names, too, they are pipes, and no files that could be replaced.
#[cfg(unix)]
#[test]
fn standard_input_and_output_have_names() {
    let folder = folder();
    let stream = agcm(&folder, "encrypt -k key /dev/stdin -o /dev/stdout").write_stdin("rows").succeeds();
    assert_eq!(agcm(&folder, "decrypt -k key /dev/stdin -o /dev/stdout").write_stdin(stream).succeeds(), b"rows");
}

#[test]
fn two_streams_of_one_file_have_nothing_in_common() {
    let folder = folder_with_stream(1000);
    let again = agcm(&folder, "encrypt -k key plain").succeeds();
    let first = read(&folder, "sealed");
    assert!(first[..8] == again[..8] && first[8..20] != again[8..20] && first[28..48] != again[28..48]);
}

#[cfg(unix)]
#[test]
fn devices_are_read_and_written_as_they_are() {
    let folder = folder_with_stream(1000);
    agcm(&folder, "decrypt -k key sealed -o /dev/null").succeeds();
    agcm(&folder, "encrypt -k key /dev/null -o empty").succeeds();
    assert_eq!(agcm(&folder, "decrypt -k key empty").succeeds(), b"");
    assert!(fs::metadata("/dev/null").is_ok_and(|there| !there.is_file()));
}

#[cfg(unix)]
#[test]
fn plaintext_is_for_its_owner_and_streams_are_ordinary_files() {
    use std::{os::unix::fs::PermissionsExt, process::Command};

    let folder = folder();
    folder.write("plain", "plain");
    for (umask, expected) in [("000", 0o666), ("027", 0o640)] {
        let script = format!(
            "umask {umask}; \"$0\" encrypt -fk key plain -o sealed && \"$0\" decrypt -fk key sealed -o again &&
             \"$0\" decrypt -fk key -o again2 <sealed && \"$0\" encrypt -fk key -o sealed2 <plain"
        );
        let script = ["-c", &script, env!("CARGO_BIN_EXE_agcm")];
        let status = Command::new("sh").args(script).current_dir(folder.root()).status().unwrap();
        assert!(status.success());
        for (name, expected) in [("sealed", expected), ("sealed2", expected), ("again", 0o600), ("again2", 0o600)] {
            let mode = fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{name} under umask {umask}");
        }
    }
}

#[test]
fn a_chunk_size_is_a_number_of_bytes_or_of_larger_units() {
    let folder = folder();
    let plain = plaintext(3000);
    for (size, bytes) in [
        ("7", 7),
        ("1", 1),
        ("512B", 512),
        ("64KiB", 64 << 10),
        ("65536", 64 << 10),
        ("1MiB", 1 << 20),
        ("10MiB", 10 << 20),
    ] {
        let stream =
            agcm(&folder, &format!("encrypt -k key --chunk-size {size}")).write_stdin(plain.clone()).succeeds();
        assert_eq!(figures(&folder, &stream)["chunk_size"], bytes);
        assert_same(&agcm(&folder, "decrypt -k key").write_stdin(stream).succeeds(), &plain);
    }
    let stream = agcm(&folder, "encrypt -k key").write_stdin(plain).succeeds();
    assert_eq!(figures(&folder, &stream)["chunk_size"], 64 << 10);
}

#[test]
fn what_is_no_chunk_size_is_refused() {
    let folder = folder();
    folder.write("plain", "plain");
    for size in ["0", "10485761", "11MiB", "1GiB"] {
        let output = agcm(&folder, &format!("encrypt -k key plain -o sealed --chunk-size {size}")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{size}");
    }
    for size in ["x", "", "1.5MiB", "-1", "KiB", "64 kib", "99999999999999999999", "99999999999999MiB"] {
        agcm(&folder, "encrypt -k key plain -o sealed").arg(format!("--chunk-size={size}")).is_misused();
    }
    folder.assert_holds(&["key", "other", "plain"]);
}

#[test]
fn a_stream_opens_under_its_context_only() {
    let folder = folder();
    folder.write("plain", "some rows");
    agcm(&folder, "encrypt -k key -c db/2026 plain -o sealed").succeeds();
    assert_eq!(agcm(&folder, "decrypt -k key --context db/2026 sealed").succeeds(), b"some rows");
    agcm(&folder, "verify -k key -c db/2026 sealed").succeeds();
    assert_eq!(agcm(&folder, "cat -k key -c db/2026 --range 5.. sealed").succeeds(), b"rows");
    for wrong in ["", "-c db/2027", "-c db/2026/", "-c DB/2026", "-c="] {
        agcm(&folder, &format!("decrypt -k key {wrong} sealed")).fails(3);
        agcm(&folder, &format!("verify -k key {wrong} sealed")).fails(3);
        agcm(&folder, &format!("cat -k key {wrong} --range .. sealed")).fails(3);
        agcm(&folder, &format!("rekey -k key --to-key other {wrong} sealed")).fails(3);
    }
    agcm(&folder, "encrypt -k key plain -o without").succeeds();
    agcm(&folder, "decrypt -k key -c db/2026 without").fails(3);
    assert_eq!(agcm(&folder, "decrypt -k key -c= without").succeeds(), b"some rows", "an empty one is none");
}

#[test]
fn a_context_may_be_long_but_not_too_long() {
    let folder = folder();
    let longest = "c".repeat(65_535);
    let stream = agcm(&folder, "encrypt -k key -c").arg(&longest).write_stdin("rows").succeeds();
    assert_eq!(agcm(&folder, "decrypt -k key -c").arg(&longest).write_stdin(stream).succeeds(), b"rows");
    for line in ["encrypt -k key", "decrypt -k key", "verify -k key"] {
        let line = agcm(&folder, line).arg(format!("-c{longest}c")).write_stdin("rows").fails(2);
        assert!(line.contains("65536"), "{line}");
    }
}

#[test]
fn of_several_keys_the_one_that_fits_is_used() {
    let folder = folder_with_stream(70_000);
    let plain = read(&folder, "plain");
    for keys in ["-k other -k key", "-k key -k other", "-k other -k other --key key"] {
        assert_same(&agcm(&folder, &format!("decrypt {keys} sealed")).succeeds(), &plain);
        agcm(&folder, &format!("verify {keys} sealed")).succeeds();
        assert_same(&agcm(&folder, &format!("cat {keys} --range 9.. sealed")).succeeds(), &plain[9..]);
    }
    agcm(&folder, "decrypt -k other -k other sealed").fails(3);
    agcm(&folder, "encrypt -k key -k other plain -o twice").is_misused();
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}

#[test]
fn a_whole_stream_is_verified_and_nothing_is_written() {
    let folder = folder_with_stream(300_000);
    let words = text(&agcm(&folder, "verify -k key sealed").succeeds());
    assert!(words.contains("300000") && words.contains("sealed") && words.lines().count() == 1, "{words}");
    let stream = read(&folder, "sealed");
    let words = text(&agcm(&folder, "verify -k key").write_stdin(stream.clone()).succeeds());
    assert!(words.contains("300000") && words.contains("standard input"), "{words}");
    assert_eq!(agcm(&folder, "verify -q -k key -").write_stdin(stream.clone()).succeeds(), b"");
    assert_eq!(agcm(&folder, "verify --quiet -k key sealed").succeeds(), b"");

    folder.write("cut", &stream[..stream.len() - 1]);
    let output = agcm(&folder, "verify -k key cut").output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(4), Vec::new()), "no word of it being whole");
    folder.assert_holds(&["cut", "key", "other", "plain", "sealed"]);
}

/// What `inspect --json` says.
fn figures(folder: &Folder, stream: &[u8]) -> Value {
    serde_json::from_slice(&agcm(folder, "inspect --json").write_stdin(stream).succeeds()).unwrap()
}

#[test]
fn a_stream_is_looked_at_without_a_key() {
    let folder = folder_with_stream(300_000);
    let stream = read(&folder, "sealed");
    let found = figures(&folder, &stream);
    let nonce: String = stream[8..20].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = serde_json::json!({
        "version": 1, "chunk_size": 65_536, "nonce": nonce, "chunks": 5, "plaintext_len": 300_000,
        "stream_len": stream.len(), "uniform": true, "problem": null,
    });
    assert_eq!(found, expected);
    assert_eq!(agcm(&folder, "inspect --json sealed").succeeds().iter().filter(|&&byte| byte == b'\n').count(), 1);

    for words in [
        text(&agcm(&folder, "inspect sealed").succeeds()),
        text(&agcm(&folder, "inspect -").write_stdin(stream.clone()).succeeds()),
    ] {
        for figure in ["64KiB", &nonce, "300000 bytes", &format!("{} bytes", stream.len()), "5, all full"] {
            assert!(words.contains(figure), "{figure} is not in {words}");
        }
    }
}

#[test]
fn a_damaged_stream_is_described_up_to_where_it_is_damaged() {
    let folder = folder_with_stream(300_000);
    let stream = read(&folder, "sealed");
    let at = 80 + 2 * 65_556;
    let mut corrupt = stream.clone();
    corrupt[at + 3] = 9;
    let cases: [(&str, &[u8], &str, u64, usize); 4] = [
        ("cut", &stream[..at + 1000], "Truncated", 2, at + 1000),
        ("bare", &stream[..24], "Truncated", 0, 24),
        ("trailing", &[&stream[..], b"x"].concat(), "TrailingData", 5, stream.len()),
        ("corrupt", &corrupt, "InvalidFrame", 2, at),
    ];
    for (name, damaged, error, chunks, len) in cases {
        folder.write(name, damaged);
        let mut command = agcm(&folder, &format!("inspect --json {name}"));
        assert!(command.fails(4).contains(name));
        let found: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!((&found["problem"]["error"], &found["chunks"]), (&error.into(), &chunks.into()), "{name}");
        assert_eq!(found["stream_len"], len, "{name}");
        assert!(found["problem"]["message"].as_str().unwrap().len() > 10);

        let mut command = agcm(&folder, &format!("inspect {name}"));
        command.fails(4);
        let words = text(&command.output().unwrap().stdout);
        assert!(words.contains("64KiB") && !words.contains("looks whole"), "{words}");
    }
}

#[test]
fn a_range_is_read_and_nothing_else() {
    let folder = folder_with_stream(300_000);
    let plain = read(&folder, "plain");
    for (range, expected) in [
        ("0..0", 0..0),
        ("0..1", 0..1),
        ("..100", 0..100),
        ("65535..65537", 65_535..65_537),
        ("70000..", 70_000..300_000),
        ("..", 0..300_000),
        ("0..300000", 0..300_000),
        ("299999..", 299_999..300_000),
        ("300000..", 300_000..300_000),
        ("1234..1234", 1234..1234),
    ] {
        let found = agcm(&folder, &format!("cat -k key --range {range} sealed")).succeeds();
        assert_same(&found, &plain[expected]);
    }
    for range in ["0..300001", "300001..", "299999..18446744073709551615"] {
        let line = agcm(&folder, &format!("cat -k key --range {range} sealed")).fails(2);
        assert!(line.contains("300000") && line.contains("sealed"), "{line}");
    }
    assert!(agcm(&folder, "cat -k key --range 5..3 sealed").fails(2).contains("5..3"));
    for range in ["5", "a..b", "-1..5", "1...5", "", "0x1..5", "..18446744073709551616", "1..2..3"] {
        agcm(&folder, "cat -k key sealed").arg(format!("--range={range}")).is_misused();
    }
    agcm(&folder, "cat -k key sealed").is_misused();
}

#[test]
fn a_range_of_a_stream_with_damage_elsewhere_is_read() {
    let folder = folder_with_stream(300_000);
    let mut stream = read(&folder, "sealed");
    stream[100] ^= 1;
    folder.write("sealed", stream);
    assert_same(&agcm(&folder, "cat -k key --range 70000..70010 sealed").succeeds(), &plaintext(70_010)[70_000..]);
    let line = agcm(&folder, "cat -k key --range ..10 sealed").fails(4);
    assert!(line.contains("sealed") && line.contains("damaged"), "{line}");
}
