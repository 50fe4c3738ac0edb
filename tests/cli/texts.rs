//! What is printed for people and shells: the benchmark, completions, the manual page.

use std::process::{Command, Stdio};

use crate::tool::{Run, agcm, folder, plaintext, text};

const COMMANDS: [&str; 12] = [
    "keygen",
    "encrypt",
    "decrypt",
    "verify",
    "inspect",
    "rekey",
    "cat",
    "import",
    "snapshot",
    "keys",
    "bench",
    "completions",
];

#[test]
fn the_benchmark_prints_a_table_and_the_chunk_size_it_picks() {
    let folder = folder();
    folder.write("sample", plaintext(100_000));
    let words = text(&agcm(&folder, "bench sample").succeeds());
    assert_eq!(words.lines().next(), Some(&*agcm::backend().to_string()));
    let rows: Vec<_> = words.lines().filter(|line| line.contains(" %")).map(|line| line.split_whitespace()).collect();
    assert_eq!(rows.len(), 7, "{words}");
    let sizes: Vec<_> = rows
        .into_iter()
        .map(|mut row| {
            let size = row.next().unwrap();
            assert!(row.take(2).all(|speed| speed.parse::<u64>().unwrap() > 0), "{words}");
            size
        })
        .collect();
    let picked = words.lines().last().unwrap().strip_prefix("agcm encrypt --chunk-size ").unwrap();
    assert!(sizes.contains(&picked), "{words}");
    let stream = agcm(&folder, &format!("encrypt -k key --chunk-size {picked} sample")).succeeds();
    assert_eq!(agcm(&folder, "decrypt -k key").write_stdin(stream).succeeds(), plaintext(100_000));
    folder.assert_holds(&["key", "other", "sample"]);
}

#[test]
fn nothing_is_measured_without_data() {
    let folder = folder();
    folder.write("empty", "");
    agcm(&folder, "bench empty").fails(2);
}

#[test]
fn completions_know_every_command() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = agcm(&folder, &format!("completions {shell}")).succeeds();
        for command in COMMANDS {
            assert!(text(&script).contains(command), "{command} in {shell}");
        }
        assert!(text(&script).contains("chunk-size"), "{shell}");
        folder.write("script", script);
        let check = Command::new(shell)
            .args(["-n", "script"])
            .current_dir(folder.root())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        match check {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", text(&output.stderr)),
            Err(error) => println!("{shell} is not here to read its script: {error}"),
        }
    }
}

#[test]
fn the_manual_has_every_command_and_option() {
    let page = text(&agcm(&folder(), "man").succeeds()).replace("\\-", "-");
    assert!(page.contains(".TH agcm 1") && page.contains("Exit status"));
    for command in COMMANDS {
        assert!(page.contains(&format!(".TH agcm-{command} 1")), "{command}");
    }
    for command in ["snapshot-encrypt", "snapshot-restore", "keys-list", "keys-export", "keys-remove"] {
        assert!(page.contains(&format!(".TH agcm-{command} 1")), "{command}");
    }
    for option in
        ["--chunk-size", "--context", "--range", "--to-key", "--from-go", "--passphrase-file", "--id", "--json"]
    {
        // The environment names one of them in passing.
        assert!(page.contains(&format!("\\fB{option}\\fR")), "{option}");
    }
}
