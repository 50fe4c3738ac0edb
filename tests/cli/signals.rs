//! Stopped in the middle by a signal: nothing is left behind.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    folder::Folder,
    tool::{
        Run, Running, agcm, folder, folder_with_stream, in_folder, one_line, partials, plain_agcm, plaintext, read,
        text, until,
    },
};

const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)];

fn send(running: &mut Running, signal: Signal) {
    kill_process(Pid::from_child(running.child()), signal).unwrap();
}

/// What it says is that it was stopped, and that nothing was made.
#[track_caller]
fn assert_stopped(output: &Output, status: i32) {
    let line = one_line(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert!(line.contains("stopped") || line.contains("cancelled"), "{line}");
}

/// Starts it, lets it read this and wait for more, sends the signal in the middle of writing a file, and waits for its end.
#[track_caller]
fn stop_while_it_reads(folder: &Folder, line: &str, input: &[u8], signal: Signal) -> Output {
    let mut running = Running::with_pipes(&mut plain_agcm(folder, line));
    let mut stdin = running.stdin();
    stdin.write_all(input).unwrap();
    until("a file is being written", || partials(folder) == 1);
    send(&mut running, signal);
    let output = running.output();
    drop(stdin);
    output
}

#[test]
fn nothing_is_left_of_what_is_stopped_while_its_input_comes_slowly() {
    for (signal, status) in SIGNALS {
        let folder = folder_with_stream(3_000_000);
        let (plain, sealed) = (read(&folder, "plain"), read(&folder, "sealed"));
        for (line, input) in [("encrypt -k key -o new", &plain), ("decrypt -k key -o new", &sealed)] {
            for input in [&input[..10_000], &input[..2_500_000]] {
                assert_stopped(&stop_while_it_reads(&folder, line, input, signal), status);
                folder.assert_holds(&["key", "other", "plain", "sealed"]);
            }
        }
    }
}

#[test]
fn a_target_that_was_to_be_replaced_is_as_it_was() {
    let folder = folder_with_stream(3_000_000);
    folder.write("target", "precious");
    let sealed = read(&folder, "sealed");
    assert_stopped(&stop_while_it_reads(&folder, "decrypt -f -k key -o target", &sealed[..10_000], Signal::INT), 130);
    assert_eq!(read(&folder, "target"), b"precious");
    folder.assert_holds(&["key", "other", "plain", "sealed", "target"]);
}

/// More than can be encrypted before a signal arrives. It takes no room on the disk, as all of it is a hole.
fn long_file(folder: &Folder, name: &str) {
    File::create(folder.path(name)).unwrap().set_len(64 << 30).unwrap();
}

#[test]
fn nothing_is_left_of_a_file_that_is_stopped() {
    let folder = folder();
    long_file(&folder, "plain");
    for (signal, status) in SIGNALS {
        for line in ["encrypt -k key plain -o sealed", "encrypt -k key plain -o sealed --chunk-size 10MiB"] {
            let mut running = Running::with_pipes(&mut plain_agcm(&folder, line));
            until("a file is being written", || partials(&folder) == 1);
            send(&mut running, signal);
            assert_stopped(&running.output(), status);
            folder.assert_holds(&["key", "other", "plain"]);
        }
    }
}

#[test]
fn neither_file_nor_key_is_left_of_a_snapshot_that_is_stopped() {
    let folder = folder();
    long_file(&folder, "plain");
    for (signal, status) in SIGNALS {
        let line = "snapshot encrypt -q --keys keys --id db plain -o sealed";
        let mut running = Running::with_pipes(&mut plain_agcm(&folder, line));
        until("a file is being written", || partials(&folder) == 1);
        assert!(folder.path("keys/db.key").exists(), "the key is stored before anything is sealed with it");
        send(&mut running, signal);
        assert_stopped(&running.output(), status);
        folder.assert_holds(&["key", "keys", "other", "plain"]);
        assert_eq!(agcm(&folder, "keys --keys keys list").succeeds(), b"");
    }
    // A shorter one under the same id.
    folder.write("plain", plaintext(1000));
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    agcm(&folder, "snapshot restore --keys keys --id db sealed -o again").succeeds();
}

#[test]
fn what_prints_is_stopped_as_well_even_if_nobody_reads_it() {
    let folder = folder_with_stream(3_000_000);
    let sealed = read(&folder, "sealed");
    let plain = read(&folder, "plain");
    for len in [70_000, 100_000] {
        for (line, input) in [
            ("encrypt -k key", &plain[..len]),
            ("decrypt -k key", &sealed[..len]),
            ("encrypt -k key plain", b""),
            ("decrypt -k key sealed", b""),
            ("cat -k key --range 1.. sealed", b""),
        ] {
            let mut running = Running::with_pipes(&mut plain_agcm(&folder, line));
            let mut stdin = running.stdin();
            stdin.write_all(input).unwrap();
            // Once there is some output, it is at work; soon after, the pipe is full.
            running.child().stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
            thread::sleep(Duration::from_millis(50));
            send(&mut running, Signal::INT);
            assert_stopped(&running.output(), 130);
        }
    }
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}

#[test]
fn what_only_reads_is_stopped_as_well() {
    let folder = folder_with_stream(3_000_000);
    let sealed = read(&folder, "sealed");
    for line in ["verify -k key", "inspect"] {
        let mut running = Running::with_pipes(&mut plain_agcm(&folder, line));
        let mut stdin = running.stdin();
        // Most of it has to have been read for this to be done.
        stdin.write_all(&sealed[..2_000_000]).unwrap();
        send(&mut running, Signal::INT);
        assert_stopped(&running.output(), 130);
    }
}

/// A named pipe that nobody has opened for writing.
fn pipe(folder: &Folder) {
    assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
}

/// Opening a pipe waits until somebody opens its other end.
fn open(folder: &Folder) -> File {
    File::options().write(true).open(folder.path("pipe")).unwrap()
}

#[test]
fn a_named_pipe_that_comes_slowly_is_like_standard_input() {
    let folder = folder_with_stream(3_000_000);
    pipe(&folder);
    let sealed = read(&folder, "sealed");
    for (line, input) in
        [("encrypt -k key pipe -o new", &[7; 10_000][..]), ("decrypt -k key pipe -o new", &sealed[..70_000])]
    {
        let mut running = Running::start(plain_agcm(&folder, line).stderr(Stdio::piped()));
        let mut pipe = open(&folder);
        pipe.write_all(input).unwrap();
        until("a file is being written", || partials(&folder) == 1);
        send(&mut running, Signal::TERM);
        assert_stopped(&running.output(), 143);
        folder.assert_holds(&["key", "other", "pipe", "plain", "sealed"]);
    }
}

#[test]
fn a_named_pipe_that_nobody_writes_to_is_not_waited_for() {
    let folder = folder();
    pipe(&folder);
    for line in ["encrypt -k key pipe -o new", "decrypt -k key pipe", "verify -k key pipe", "inspect pipe"] {
        let mut running = Running::start(plain_agcm(&folder, line).stderr(Stdio::piped()));
        // Nothing shows from outside that it waits, but there is nothing that it could leave if it does not yet.
        thread::sleep(Duration::from_millis(200));
        send(&mut running, Signal::INT);
        assert_stopped(&running.output(), 130);
        folder.assert_holds(&["key", "other", "pipe"]);
    }
}

/// A snapshot or a stream to be rekeyed is read as a file is: only when something comes, or the writer goes away, too, is
/// there time to look at signals.
#[test]
fn neither_file_nor_key_is_left_of_a_snapshot_of_a_pipe_once_its_writer_is_gone() {
    let folder = folder_with_stream(100_000);
    pipe(&folder);
    let sealed = read(&folder, "sealed");
    let plain = vec![7; 10_000];
    fs::create_dir(folder.path("keys")).unwrap();
    fs::set_permissions(folder.path("keys"), Permissions::from_mode(0o700)).unwrap();
    fs::copy(folder.path("key"), folder.path("keys/old.key")).unwrap();
    fs::set_permissions(folder.path("keys/old.key"), Permissions::from_mode(0o600)).unwrap();
    let in_context = agcm(&folder, "encrypt -k key -c old plain").succeeds();
    for (line, input) in [
        ("snapshot encrypt -q --keys keys --id db pipe -o new", &plain),
        ("snapshot restore --keys keys --id old pipe -o new", &in_context),
        ("rekey -k key --to-key other pipe -o new", &sealed),
    ] {
        let mut running = Running::start(plain_agcm(&folder, line).stderr(Stdio::piped()));
        let mut pipe = open(&folder);
        pipe.write_all(&input[..10_000]).unwrap();
        until("a file is being written", || partials(&folder) == 1);
        send(&mut running, Signal::TERM);
        // It looks the same before the signal came through and after that.
        thread::sleep(Duration::from_millis(200));
        drop(pipe);
        // Of a stream, it may see first that it is cut.
        let output = running.output();
        one_line(&output.stderr);
        assert_eq!(output.status.code(), Some(143));
        folder.assert_holds(&["key", "keys", "other", "pipe", "plain", "sealed"]);
        assert_eq!(text(&agcm(&folder, "keys --keys keys list").succeeds()), "old\n", "after {line}");
    }
}

#[test]
fn whoever_cannot_wait_asks_twice() {
    let folder = folder();
    pipe(&folder);
    let mut running = Running::start(
        plain_agcm(&folder, "snapshot encrypt -q --keys keys --id db pipe -o new").stderr(Stdio::piped()),
    );
    let mut pipe = open(&folder);
    pipe.write_all(&[7; 10_000]).unwrap();
    until("a file is being written", || partials(&folder) == 1);
    until("it has ended", || {
        send(&mut running, Signal::TERM);
        // Two that come at once are one.
        thread::sleep(Duration::from_millis(20));
        running.child().try_wait().unwrap().is_some()
    });
    // That nothing is left cannot be said then.
    let output = running.output();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(143), ""));
    assert!(!folder.path("new").exists());
}

/// What waits for a pipe cannot clean up until it hears from it.
#[test]
fn two_signals_in_a_row_are_one_request() {
    let folder = folder_with_stream(100_000);
    let sealed = read(&folder, "sealed");
    pipe(&folder);
    for (second, pause) in [(Signal::TERM, 5), (Signal::TERM, 100), (Signal::INT, 50)] {
        let line = "rekey -k key --to-key other pipe -o new";
        let mut running = Running::start(plain_agcm(&folder, line).stderr(Stdio::piped()));
        let mut pipe = open(&folder);
        pipe.write_all(&sealed[..10_000]).unwrap();
        until("a file is being written", || partials(&folder) == 1);
        send(&mut running, Signal::TERM);
        thread::sleep(Duration::from_millis(pause));
        send(&mut running, second);
        // The second one would have ended it by now.
        thread::sleep(Duration::from_millis(100));
        drop(pipe);
        let output = running.output();
        one_line(&output.stderr);
        assert_eq!(output.status.code(), Some(143));
        folder.assert_holds(&["key", "other", "pipe", "plain", "sealed"]);
    }
}

/// It sends a signal to the process, and one to its group.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_of_what_took_too_long() {
    let folder = folder_with_stream(3_000_000);
    let sealed = read(&folder, "sealed");
    for _ in 0..2 {
        let mut command = Command::new("timeout");
        command.args(["1", env!("CARGO_BIN_EXE_agcm"), "decrypt", "-k", "key", "-o", "new"]);
        let mut running = Running::with_pipes(&mut in_folder(command, &folder));
        let mut stdin = running.stdin();
        stdin.write_all(&sealed[..2_500_000]).unwrap();
        let output = running.output();
        drop(stdin);
        assert_stopped(&output, 124);
        folder.assert_holds(&["key", "other", "plain", "sealed"]);
    }
}

/// As `nohup` has it, or a script that runs it in the background.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_whoever_started_it_ignores_does_not_stop_it() {
    let folder = folder();
    let mut command = Command::new("sh");
    let line = format!("trap '' HUP INT; exec {} encrypt -k key -o new", env!("CARGO_BIN_EXE_agcm"));
    command.args(["-c", &line]);
    let mut running = Running::with_pipes(&mut in_folder(command, &folder));
    let mut stdin = running.stdin();
    stdin.write_all(&plaintext(10_000)).unwrap();
    until("a file is being written", || partials(&folder) == 1);
    send(&mut running, Signal::HUP);
    send(&mut running, Signal::INT);
    stdin.write_all(&plaintext(10_000)).unwrap();
    drop(stdin);
    assert_eq!(running.output().status.code(), Some(0));
    let plain = agcm(&folder, "decrypt -k key new").succeeds();
    assert!(plain == [plaintext(10_000), plaintext(10_000)].concat());
}

/// The ids are more than a pipe holds.
#[test]
fn what_is_printed_to_nobody_is_stopped_as_well() {
    let folder = folder();
    agcm(&folder, "snapshot encrypt -q --keys keys --id a key -o sealed").succeeds();
    for i in 0..600 {
        fs::copy(folder.path("keys/a.key"), folder.path(&format!("keys/{i:0200}.key"))).unwrap();
    }
    let mut running = Running::with_pipes(&mut plain_agcm(&folder, "keys --keys keys list"));
    running.child().stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
    send(&mut running, Signal::TERM);
    assert_stopped(&running.output(), 143);
}
