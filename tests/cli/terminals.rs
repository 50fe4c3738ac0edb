//! What goes to a terminal, and what does not.

use std::{fs::File, io::Write, process::Stdio, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    folder::Folder,
    terminal::Terminal,
    tool::{
        KEY, Run, Running, agcm, assert_same, assert_tells_no_key, folder, folder_with_stream, one_line, plain_agcm,
        read, text,
    },
};

/// Runs it with a terminal as its standard output. Returns its status, what the terminal shows, and its standard error.
#[track_caller]
fn shown(folder: &Folder, line: &str) -> (Option<i32>, Vec<u8>, Vec<u8>) {
    let terminal = Terminal::new();
    let mut command = plain_agcm(folder, line);
    command.stdin(Stdio::null()).stdout(terminal.stdio()).stderr(Stdio::piped());
    let running = Running::start(&mut command);
    drop(command);
    let output = running.output();
    let shown = terminal.shown();
    assert_tells_no_key(&shown, KEY);
    (output.status.code(), shown, output.stderr)
}

#[track_caller]
fn assert_refused(folder: &Folder, line: &str) {
    let (status, shown, stderr) = shown(folder, line);
    let words = one_line(&stderr);
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("terminal") && words.contains("-f"), "{words}");
    assert_eq!(text(&shown), "");
}

/// A folder with a stream of this text, `sealed`.
fn with_text(words: &[u8]) -> Folder {
    let folder = folder();
    folder.write("sealed", agcm(&folder, "encrypt -k key").write_stdin(words).succeeds());
    folder
}

#[test]
fn a_stream_goes_to_a_terminal_only_if_forced() {
    let folder = folder_with_stream(1000);
    assert_refused(&folder, "encrypt -k key plain");
    assert_refused(&folder, "encrypt -k key");
    assert_refused(&folder, "encrypt -k key plain -o -");
    let terminal = Terminal::new();
    let words = agcm(&folder, &format!("encrypt -k key plain -o {}", terminal.name())).fails(2);
    assert!(words.contains("terminal"), "{words}");
    assert_eq!(text(&terminal.shown()), "");

    let (status, stream, stderr) = shown(&folder, "encrypt -f -k key plain");
    assert_eq!((status, text(&stderr)), (Some(0), String::new()));
    assert_same(&agcm(&folder, "decrypt -k key").write_stdin(stream).succeeds(), &read(&folder, "plain"));
}

#[test]
fn text_is_shown_on_a_terminal() {
    let words = "some rows,\tand more\r\nin lines: äöü €\n".repeat(5000);
    let folder = with_text(words.as_bytes());
    for line in ["decrypt -k key sealed", "cat -k key --range .. sealed"] {
        let (status, shown, stderr) = shown(&folder, line);
        assert_eq!((status, text(&stderr)), (Some(0), String::new()));
        assert_same(&shown, words.as_bytes());
    }
}

#[test]
fn binary_data_is_shown_on_a_terminal_only_if_forced() {
    for binary in [&b"\x1b[31mred"[..], b"a\0b", b"rows\x07", b"rows\x7f"] {
        let folder = with_text(binary);
        for line in ["decrypt -k key sealed", "cat -k key --range .. sealed"] {
            assert_refused(&folder, line);
            let (status, shown, _) = shown(&folder, &format!("{line} -f"));
            assert_eq!((status, &shown[..]), (Some(0), binary));
        }
    }
}

/// A terminal takes these for commands, too: U+009B is what ESC [ is.
#[test]
fn control_characters_beyond_ascii_are_binary() {
    for binary in ["red: \u{9b}31m".as_bytes(), b"red: \x9b31m", b"\xff\xfe"] {
        assert_refused(&with_text(binary), "decrypt -k key sealed");
    }
    // The two bytes of one are in two chunks.
    let folder = folder();
    let stream = agcm(&folder, "encrypt -k key --chunk-size 6").write_stdin("red: \u{9b}31m").succeeds();
    folder.write("sealed", stream);
    let (status, shown, _) = shown(&folder, "decrypt -k key sealed");
    assert_eq!((status, &shown[..]), (Some(2), &b"red: \xc2"[..]));
}

#[test]
fn text_may_be_cut_anywhere() {
    let words = "äöü €, 𝄞".repeat(10);
    for size in 1..6 {
        let folder = folder();
        let stream =
            agcm(&folder, &format!("encrypt -k key --chunk-size {size}")).write_stdin(words.clone()).succeeds();
        folder.write("sealed", stream);
        let (status, shown, _) = shown(&folder, "decrypt -k key sealed");
        assert_eq!((status, text(&shown)), (Some(0), words.clone()));
    }
}

#[test]
fn text_that_turns_into_binary_data_ends_before_that() {
    let words = "some rows\n".repeat(20_000);
    let folder = with_text(&[words.as_bytes(), b"\0\x1b]"].concat());
    let (status, shown, stderr) = shown(&folder, "decrypt -k key sealed");
    assert_eq!(status, Some(2));
    one_line(&stderr);
    assert!(shown.len() > 10_000 && words.as_bytes().starts_with(&shown));
}

/// With a bar in the middle of it, nobody could read the text.
#[test]
fn no_bar_is_drawn_where_the_plaintext_is_shown() {
    let words = "some rows\n".repeat(200_000);
    let folder = with_text(words.as_bytes());
    let terminal = Terminal::new();
    let mut command = plain_agcm(&folder, "decrypt -k key sealed");
    command.stdin(Stdio::null()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let running = Running::start(&mut command);
    drop(command);
    assert_eq!(running.output().status.code(), Some(0));
    assert_same(&terminal.shown(), words.as_bytes());
}

/// What a terminal as standard error shows of a run that succeeds.
#[track_caller]
fn drawn(folder: &Folder, line: &str) -> String {
    let terminal = Terminal::new();
    let mut command = plain_agcm(folder, line);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal.stdio());
    let running = Running::start(&mut command);
    drop(command);
    assert_eq!(running.output().status.code(), Some(0));
    text(&terminal.shown())
}

#[test]
fn progress_is_drawn_on_a_terminal_and_nowhere_else() {
    let folder = folder_with_stream(1_000_000);
    // With one that is there already, nothing is to be said about it.
    agcm(&folder, "snapshot encrypt -q --keys keys --id first plain -o snapshot-first").succeeds();
    for line in [
        "encrypt -fk key plain -o sealed",
        "encrypt -k key plain",
        "decrypt -fk key sealed -o again",
        "decrypt -k key sealed",
        "verify -k key sealed",
        "rekey -k key --to-key key sealed",
        "snapshot encrypt -f --keys keys --id ID plain -o snapshot-ID",
        "snapshot restore -f --keys keys --id ID snapshot-ID -o restored",
    ] {
        let bar = drawn(&folder, &line.replace("ID", "a"));
        // Its line is cleared again at the end.
        assert!(bar.contains("B/s") && bar.ends_with(CLEARED), "{line}: {bar:?}");
        assert_eq!(drawn(&folder, &format!("{} -q", line.replace("ID", "b"))), "", "{line}");
        // This sees to it that there is nothing in a pipe.
        agcm(&folder, &line.replace("ID", "c")).succeeds();
    }
}

#[test]
fn what_is_said_at_the_end_is_on_a_line_of_its_own() {
    let folder = folder_with_stream(1_000_000);
    let shown = drawn(&folder, "snapshot encrypt --keys keys --id a plain -o snapshot");
    assert!(one_line(shown.rsplit(CLEARED).next().unwrap().as_bytes()).contains("new key store"), "{shown:?}");
    let folder = folder_with_stream(1_000_000);
    folder.write("corrupt", &read(&folder, "sealed")[..900_000]);
    let terminal = Terminal::new();
    let mut command = plain_agcm(&folder, "decrypt -k key corrupt -o new");
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal.stdio());
    let running = Running::start(&mut command);
    drop(command);
    assert_eq!(running.output().status.code(), Some(4));
    let shown = text(&terminal.shown());
    assert!(one_line(shown.rsplit(CLEARED).next().unwrap().as_bytes()).contains("corrupt"), "{shown:?}");
}

/// How the last line on a terminal is emptied.
const CLEARED: &str = "\r\x1b[2K";

/// That it goes on for long enough is seen to by an output that nobody reads, or by an input that never ends.
#[test]
fn the_bar_shows_how_much_is_done_and_how_long_it_will_take() {
    let folder = folder_with_stream(3_000_000);
    File::create(folder.path("long")).unwrap().set_len(64 << 30).unwrap();
    for line in [
        "encrypt -k key plain",
        "decrypt -k key sealed",
        "encrypt -k key long -o new",
        "snapshot encrypt --keys keys --id a long -o new",
    ] {
        let mut terminal = Terminal::new();
        let mut command = plain_agcm(&folder, line);
        command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(terminal.stdio());
        let mut running = Running::start(&mut command);
        drop(command);
        for part in [" % [", "MiB", "B/s", " left"] {
            terminal.wait_for(part);
        }
        kill_process(Pid::from_child(running.child()), Signal::TERM).unwrap();
        assert_eq!(running.output().status.code(), Some(143));
        // What was drawn is gone, and only why it ended is left.
        one_line(text(&terminal.shown()).rsplit(CLEARED).next().unwrap().as_bytes());
    }
}

#[test]
fn what_has_no_known_length_is_seen_to_live() {
    let folder = folder();
    let mut terminal = Terminal::new();
    let mut command = plain_agcm(&folder, "encrypt -k key -o sealed");
    command.env("TERM", "xterm").stdin(Stdio::piped()).stderr(terminal.stdio());
    let mut running = Running::start(&mut command);
    drop(command);
    let mut stdin = running.stdin();
    // Not faster than the eye: of what comes at once, only the start is told before more comes.
    while !terminal.shows("MiB") {
        stdin.write_all(&[7; 1 << 20]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    drop(stdin);
    assert_eq!(running.output().status.code(), Some(0));
    assert!(!text(&terminal.shown()).contains('%'));
}
