//! No run shows a key, but for the one that makes it.

use crate::tool::{KEY, OTHER, Run, agcm, checked, contains, folder_with_stream, read, text};
#[cfg(target_os = "linux")]
use crate::tool::{Running, plain_agcm, until};

#[test]
fn no_output_of_any_command_holds_a_key() {
    let folder = folder_with_stream(100_000);
    let raw = base16ct::lower::decode_vec(KEY).unwrap();
    let stream = read(&folder, "sealed");
    folder.write("cut", &stream[..90_000]);
    folder.write("raw", &raw);
    folder.write("upper", KEY.to_uppercase());
    folder.write("long", format!("{KEY}00\n"));
    folder.write("prefixed", format!("key: {KEY}\n"));
    folder.write("doubled", format!("{KEY}\n{OTHER}\n"));
    folder.write("raw-long", [&raw[..], b"!"].concat());
    let mut seen = [0; 2];
    for key in ["key", "raw", "upper", "long", "prefixed", "doubled", "raw-long", "other", "missing"] {
        for line in [
            "encrypt -k KEY plain",
            "encrypt -k KEY plain -o new -f",
            "encrypt -k KEY plain -o plain",
            "encrypt -k KEY --chunk-size 0 plain",
            "encrypt -k KEY --nonsense plain",
            "encrypt -k KEY -k KEY plain",
            "decrypt -k KEY sealed",
            "decrypt -k KEY sealed -o again -f",
            "decrypt -k KEY cut",
            "decrypt -k KEY cut -o again -f",
            "decrypt -k KEY plain",
            "decrypt -k KEY missing",
            "verify -k KEY sealed",
            "verify -k KEY -k other -c wrong sealed",
            "inspect KEY",
            "inspect --json sealed",
            "cat -k KEY --range ..10 sealed",
            "cat -k KEY --range 10..5 sealed",
            "rekey -k KEY --to-key other sealed -o rekeyed -f",
            "rekey -k other --to-key KEY sealed -o rekeyed -f",
            "import --from-go -k KEY --to-key other sealed",
            "import --from-go -k other --to-key KEY plain",
            "keys --keys KEY list",
            "keys --keys KEY export a",
            "snapshot encrypt --keys keys --id a --passphrase-file nowhere plain -o snap",
            "snapshot restore --keys KEY --id a sealed -o snap",
            "keygen -o KEY",
        ] {
            // Where a key file is written instead of read, there is one already.
            if line.starts_with("keygen") && key == "missing" {
                continue;
            }
            let output = checked(agcm(&folder, &line.replace("KEY", key)).output().unwrap());
            seen[usize::from(output.status.success())] += 1;
        }
    }
    for value in [KEY.to_owned(), KEY.to_uppercase(), format!("{KEY}0"), format!(" {KEY}"), KEY[1..].to_owned()] {
        for name in ["AGCM_KEY", "AGCM_PASSPHRASE"] {
            for line in [
                "encrypt plain",
                "decrypt sealed",
                "decrypt cut",
                "verify sealed",
                "--help",
                "encrypt --help",
                "decrypt",
            ] {
                let output = checked(agcm(&folder, line).env(name, &value).output().unwrap());
                seen[usize::from(output.status.success())] += 1;
            }
        }
    }
    assert!(seen.iter().all(|&runs| runs > 50), "of both kinds: {seen:?}");
}

const PASSPHRASE: &str = "Zwei Wege fuehren hin";

#[test]
fn no_output_of_any_command_holds_a_passphrase() {
    let folder = folder_with_stream(1000);
    folder.write("words", format!("{PASSPHRASE}\n"));
    folder.write("wrong", format!("{PASSPHRASE}?\n"));
    folder.write("lines", format!("{PASSPHRASE}\n{PASSPHRASE}\n"));
    let mut seen = [0; 2];
    let mut run = |line: &str, passphrase: Option<&str>| {
        let mut command = agcm(&folder, line);
        passphrase.map(|passphrase| command.env("AGCM_PASSPHRASE", passphrase));
        let output = checked(command.output().unwrap());
        for part in ["Zwei", "Wege", "fuehren"] {
            assert!(!contains(&output.stdout, part.as_bytes()), "{line}");
            assert!(!contains(&output.stderr, part.as_bytes()), "{line}: {}", text(&output.stderr));
        }
        seen[usize::from(output.status.success())] += 1;
    };
    for words in ["words", "wrong", "lines", "missing", "."] {
        for line in [
            "snapshot encrypt --keys keys --id a plain -o snap --passphrase-file",
            "snapshot encrypt --keys keys --id a plain -o other-snap --passphrase-file",
            "snapshot restore --keys keys --id a snap -f -o restored --passphrase-file",
            "snapshot verify --keys keys --id a snap --passphrase-file",
            "snapshot verify --keys keys --id none snap --passphrase-file",
            "snapshot verify --keys keys --id a plain --passphrase-file",
            "keys --keys keys export a --passphrase-file",
        ] {
            run(&format!("{line} {words}"), None);
        }
    }
    for passphrase in [PASSPHRASE, "", "Zwei Wege"] {
        run("snapshot verify --keys keys --id a snap", Some(passphrase));
        run("snapshot verify --help", Some(passphrase));
        run("snapshot verify", Some(passphrase));
        run("keys --keys keys list", Some(passphrase));
    }
    assert!(seen.iter().all(|&runs| runs > 8), "of both kinds: {seen:?}");
}

#[test]
fn a_key_in_the_place_of_a_file_name_is_not_repeated() {
    let folder = folder_with_stream(1000);
    for key in [
        KEY.to_owned(),
        KEY.to_uppercase(),
        KEY[1..].to_owned(),
        format!("{KEY}0"),
        format!("0x{KEY}"),
        KEY[..40].into(),
    ] {
        for line in [
            "decrypt -k KEY sealed",
            "encrypt -k KEY plain",
            "rekey -k key --to-key KEY sealed",
            "cat -k KEY --range .. sealed",
        ] {
            assert!(agcm(&folder, &line.replace("KEY", &key)).fails(2).contains("looks like a key"), "{line}");
        }
        let line = agcm(&folder, "decrypt sealed").env("AGCM_KEYFILE", &key).fails(2);
        assert!(line.contains("AGCM_KEYFILE") && line.contains("looks like a key"), "{line}");
    }
    // What is merely not there is named.
    assert!(agcm(&folder, "decrypt -k 2026-11-23.key sealed").fails(1).contains("2026-11-23.key"));
}

/// Where the kernel writes cores to files, none is left; elsewhere only the limit is looked at.
#[cfg(target_os = "linux")]
#[test]
fn a_crash_leaves_no_core() {
    use std::io::Write;

    use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};

    if getrlimit(Resource::Core).maximum.is_some_and(|most| most < 4096) {
        // Not by the macro, which is not shown where a test passes.
        let _ = writeln!(std::io::stderr(), "passed by: no process may leave a core here");
        return;
    }
    let folder = folder_with_stream(1000);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -c $(ulimit -H -c); exec \"$0\" encrypt -k key"])
        .arg(plain_agcm(&folder, "").get_program());
    let mut running = Running::with_pipes(&mut crate::tool::in_folder(command, &folder));
    let _stdin = running.stdin();
    let process = running.child().id();
    let limit = || std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    until("it lets no core be left", || {
        limit()
            .lines()
            .any(|line| line.starts_with("Max core file size ") && line.split_whitespace().nth(4) == Some("1"))
    });
    let id = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(id, Signal::ABORT).unwrap();
    let status = running.output().status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6));
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status));
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}
