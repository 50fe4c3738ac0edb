//! What the guide and the README say about the command line: that it exists, and that it does what they show.
//!
//! A block of ```` ```console ```` in the guide is a real run: its commands are run in the order of the page, in one folder, and
//! have to print what it shows; `> ` begins what continues a command. Where it shows `...`, anything may stand. Of all other blocks, and of the README, only the commands and their options are looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use crate::{
    folder::Folder,
    tool::{Run, agcm, folder, in_folder, text},
};

const PAGES: [(&str, &str); 5] = [
    ("chunk_size.md", include_str!("../../src/guide/chunk_size.md")),
    ("keys.md", include_str!("../../src/guide/keys.md")),
    ("restoring.md", include_str!("../../src/guide/restoring.md")),
    ("from_go.md", include_str!("../../src/guide/from_go.md")),
    ("choosing.md", include_str!("../../src/guide/choosing.md")),
];
const README: &str = include_str!("../../README.md");

/// A stream of the Go library, and its key.
const GO_STREAM: &[u8] = include_bytes!("../vectors/legacy/c16_p17.agcm");
const GO_KEY: &str = "344d68958f9fb599217b3c19ffe6a9ef57d6c6fa3dbdf065a146425c0395dc5f\n";

/// The lines of all blocks of a language, wherever they are indented to.
fn blocks<'a>(page: &'a str, languages: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut inside: Option<(usize, bool)> = None;
    for line in page.lines() {
        let indent = line.len() - line.trim_start().len();
        match (inside, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => inside = Some((indent, languages.contains(&language))),
            (Some(_), Some(_)) => inside = None,
            (Some((indent, true)), None) => found.push(line.get(indent..).unwrap_or_default()),
            (_, None) => {}
        }
    }
    assert!(inside.is_none(), "a block that does not end");
    found
}

/// Commands, each with what it has to print.
fn runs(page: &str) -> Vec<(String, Vec<&str>)> {
    let mut runs: Vec<(String, Vec<&str>)> = Vec::new();
    for line in blocks(page, &["console"]) {
        match (line.strip_prefix("$ "), line.strip_prefix("> ")) {
            (Some(command), _) => runs.push((command.to_owned(), Vec::new())),
            (None, Some(more)) => {
                let (command, _) = runs.last_mut().expect("a block begins with a command");
                *command += "\n";
                *command += more;
            }
            (None, None) => runs.last_mut().expect("a block begins with a command").1.push(line),
        }
    }
    runs
}

/// A folder with what the commands of a page begin with.
fn prepared(page: &str) -> Folder {
    let folder = Folder::new();
    let dump: String = (1..=200_000).map(|row| format!("{row}\n")).collect();
    match page {
        "from_go.md" => {
            folder.write("old.stream", GO_STREAM);
            folder.write("old.key", GO_KEY);
        }
        "restoring.md" => {}
        _ => {
            folder.write("db.dump", dump);
        }
    }
    folder
}

/// Whether a line is as it was shown.
fn fits(shown: &str, line: &str) -> bool {
    match shown.split_once("...") {
        None => shown == line,
        Some((start, end)) => line.len() + "...".len() >= shown.len() && line.starts_with(start) && line.ends_with(end),
    }
}

#[test]
fn what_the_guide_shows_is_what_happens() {
    // Its commands are those of a shell, with tools that are on every Unix.
    if !cfg!(unix) {
        return;
    }
    let folder_of_the_binary = Path::new(env!("CARGO_BIN_EXE_agcm")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(folder_of_the_binary.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    let (mut count, mut faults) = (0, String::new());
    for (name, page) in PAGES {
        let folder = prepared(name);
        for (command, shown) in runs(page) {
            let mut shell = Command::new("bash");
            shell.args(["-c", &format!("exec 2>&1; umask 077; {command}")]).env("PATH", &path);
            let output = in_folder(shell, &folder).output().unwrap();
            let words = text(&output.stdout);
            let lines: Vec<_> = words.lines().collect();
            let same = lines.len() == shown.len() && shown.iter().zip(&lines).all(|(shown, line)| fits(shown, line));
            if !same || !output.status.success() {
                let (shown, status) = (shown.join("\n"), output.status);
                faults += &format!("{name}: {command}\nis to print\n{shown}\nand prints, {status}\n{words}\n");
            }
            count += 1;
        }
    }
    assert!(faults.is_empty(), "{faults}");
    assert!(count > 40, "the commands were not found: {count}");
}

/// All that is written as code, in a block or in a line.
fn code(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in blocks(page, &["console", "sh"]) {
        let command = line.strip_prefix("$ ").or_else(|| line.strip_prefix("> ")).unwrap_or(line);
        // What is printed names commands, too, and is not for this.
        if command == line && !blocks(page, &["sh"]).contains(&line) {
            continue;
        }
        found.extend(command.split(['|', ';', '>', '#', '(']).map(str::to_owned));
    }
    let mut in_block = false;
    for line in page.lines() {
        in_block ^= line.trim_start().starts_with("```");
        if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_command_and_option_of_guide_and_readme_exists() {
    let folder = folder();
    // What help says of a command, or `None` if there is none.
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut help = |command: &str| {
        let entry = known.entry(command.to_owned()).or_insert_with(|| {
            let output = agcm(&folder, &format!("help {command}")).output().unwrap();
            output.status.success().then(|| text(&output.stdout))
        });
        entry.clone()
    };
    let mut commands = BTreeSet::new();
    for (name, page) in PAGES.into_iter().chain([("README.md", README)]) {
        for piece in code(page) {
            let mut words = piece.split_whitespace().skip_while(|word| word.ends_with("=file") || *word == "$");
            if words.next() != Some("agcm") {
                continue;
            }
            let words: Vec<_> = words.collect();
            let Some(first) = words.first().filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) else {
                continue;
            };
            let mut command = (*first).to_owned();
            if command == "help" {
                continue;
            }
            if let Some(second) = words.get(1).filter(|_| ["snapshot", "keys"].contains(first)) {
                if second.starts_with(|c: char| c.is_ascii_lowercase()) {
                    command = format!("{command} {second}");
                }
            }
            let about = help(&command).unwrap_or_else(|| panic!("{name}: there is no agcm {command}"));
            for option in words.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                let listed = about.lines().any(|line| {
                    let columns = line.trim_start().split("  ").next().unwrap_or_default();
                    columns.split([' ', ',']).any(|word| word == *option)
                });
                assert!(listed, "{name}: agcm {command} has no {option}: {piece}");
            }
            commands.insert(command);
        }
    }
    assert!(commands.len() > 12, "the commands were not found: {commands:?}");
}

#[test]
fn the_statuses_of_the_runbook_are_those_of_the_program() {
    let help = text(&agcm(&folder(), "help").succeeds());
    let (_, rest) = help.split_once("Exit status:\n").unwrap();
    let said: Vec<_> = rest.lines().map_while(|line| line.split_whitespace().next()?.parse::<u8>().ok()).collect();
    let runbook = PAGES.iter().find(|(name, _)| *name == "restoring.md").unwrap().1;
    let listed: Vec<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |")?.0.split(", ").next()?.parse::<u8>().ok())
        .take_while(|status| *status < 128)
        .collect();
    assert_eq!(listed, said[..6], "{said:?}");
}
