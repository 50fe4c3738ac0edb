//! No room left: one clear line, nothing behind it, and the same again once there is room.

use std::{
    fs,
    process::{Command, Output},
};

use crate::{
    folder::Folder,
    tool::{Run, agcm, assert_same, checked, folder, folder_with_stream, in_folder, one_line, plaintext, read, text},
};

/// A shell script, in which `$0` is the binary.
#[track_caller]
fn script(folder: &Folder, shell: &[&str], script: &str) -> Output {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", script, env!("CARGO_BIN_EXE_agcm")]);
    checked(in_folder(command, folder).output().unwrap())
}

/// Runs it in the shell, where no file can grow beyond this many blocks: of 512 bytes or twice that, as the shell likes.
/// Returns what it says as it fails.
#[track_caller]
fn fails_with_quota(folder: &Folder, line: &str) -> String {
    let quota = format!("trap '' XFSZ; ulimit -f 64; exec \"$0\" {line}");
    let output = script(folder, &["sh"], &quota);
    let words = one_line(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{line}: {words}");
    words
}

#[test]
fn a_file_that_may_not_grow_leaves_nothing_behind() {
    let folder = folder_with_stream(300_000);
    for line in [
        "encrypt -k key plain -o new",
        "encrypt -k key -o new <plain",
        "decrypt -k key sealed -o new",
        "decrypt -k key -o new <sealed",
        "rekey -k key --to-key other sealed -o new",
    ] {
        let words = fails_with_quota(&folder, line);
        assert!(words.contains("\"new\"") && words.contains("too large"), "{words}");
        folder.assert_holds(&["key", "other", "plain", "sealed"]);
    }
    let sealed = read(&folder, "sealed");
    fails_with_quota(&folder, "rekey -k key --to-key other sealed");
    assert_same(&read(&folder, "sealed"), &sealed);

    folder.write("target", "precious");
    fails_with_quota(&folder, "decrypt -f -k key sealed -o target");
    assert_eq!(read(&folder, "target"), b"precious");
    agcm(&folder, "decrypt -f -k key sealed -o target").succeeds();
    assert_same(&read(&folder, "target"), &plaintext(300_000));
    folder.assert_holds(&["key", "other", "plain", "sealed", "target"]);
}

#[test]
fn a_snapshot_that_may_not_grow_can_be_made_again_under_its_id() {
    let folder = folder();
    folder.write("plain", plaintext(300_000));
    let words = fails_with_quota(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed");
    assert!(words.contains("\"sealed\""), "{words}");
    folder.assert_holds(&["key", "keys", "other", "plain"]);
    assert_eq!(fs::read_dir(folder.path("keys")).unwrap().count(), 0, "the key is gone, too");

    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o sealed").succeeds();
    fails_with_quota(&folder, "snapshot restore --keys keys --id db sealed -o again");
    folder.assert_holds(&["key", "keys", "other", "plain", "sealed"]);
    agcm(&folder, "snapshot restore --keys keys --id db sealed -o again").succeeds();
    assert_same(&read(&folder, "again"), &plaintext(300_000));
}

/// A shell for which the folder `disk` is a disk of 1 MiB; `None` where that is not permitted.
#[cfg(target_os = "linux")]
fn on_small_disk(folder: &Folder, line: &str) -> Option<Output> {
    fs::create_dir_all(folder.path("disk")).unwrap();
    let shell = ["unshare", "-rm", "sh"];
    let mount = "mount -t tmpfs -o size=1m agcm-test disk";
    let mut probe = Command::new(shell[0]);
    probe.args(&shell[1..]).args(["-c", mount]);
    if !in_folder(probe, folder).output().is_ok_and(|output| output.status.success()) {
        println!("passed by: to mount a small disk is not permitted here");
        return None;
    }
    Some(script(folder, &shell, &format!("set -e; {mount}; {line}")))
}

/// Fails at first, with an empty disk afterwards, and succeeds when the disk is larger.
#[cfg(target_os = "linux")]
fn fails_until_there_is_room(folder: &Folder, line: &str, check: &str) {
    let Some(output) = on_small_disk(
        folder,
        &format!(
            "if \"$0\" {line}; then exit 9; else echo status $?; fi
             ls -A disk
             mount -o remount,size=16m disk
             \"$0\" {line} >&2
             {check} >&2"
        ),
    ) else {
        return;
    };
    let words = one_line(&output.stderr);
    assert!(words.contains("No space left") && words.contains("\"disk/new\""), "{words}");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "status 1\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = folder_with_stream(3_000_000);
    let decrypted = "\"$0\" decrypt -k key disk/new | cmp - plain";
    fails_until_there_is_room(&folder, "encrypt -k key plain -o disk/new", decrypted);
    fails_until_there_is_room(&folder, "encrypt -k key -o disk/new <plain", decrypted);
    fails_until_there_is_room(&folder, "decrypt -k key sealed -o disk/new", "cmp disk/new plain");
    fails_until_there_is_room(&folder, "decrypt -k key -o disk/new <sealed", "cmp disk/new plain");
    folder.assert_holds(&["disk", "key", "other", "plain", "sealed"]);
}

/// A command that runs on small disks, and what is there before and after.
#[cfg(target_os = "linux")]
struct Case {
    /// Makes what is on the disk before; there is room for that.
    before: &'static str,
    line: &'static str,
    /// Whether that is all that is on the disk, and nothing was changed elsewhere.
    is_as_before: &'static str,
    /// Whether it is all done, and right.
    is_done: &'static str,
}

/// Runs it on disks of each of these sizes, in units of `unit`, and where that was too little, once more where there is room.
/// Returns how often it failed, and was done.
#[cfg(target_os = "linux")]
#[track_caller]
fn at_sizes(folder: &Folder, case: &Case, sizes: &str, unit: &str) -> Option<(usize, usize)> {
    let Case { before, line, is_as_before, is_done } = case;
    let output = on_small_disk(
        folder,
        &format!(
            "for size in {sizes}; do
                 mount -o remount,size=16m,nr_inodes=1000 disk
                 {before}
                 mount -o remount,{unit} disk
                 status=0; \"$0\" {line} 2>words || status=$?
                 mount -o remount,size=16m,nr_inodes=1000 disk
                 if [ $status = 0 ]; then
                     if [ -s words ] || ! {{ {is_done}; }}; then echo wrong at $size; fi
                 else
                     cat words >&2
                     if ! {{ {is_as_before}; }}; then echo left at $size: $(find disk); fi
                     \"$0\" {line}; {is_done}
                 fi
                 echo $status at $size
                 rm -rf disk/* disk/.agcm*
             done
             rm words"
        ),
    )?;
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{line}: {stdout}{stderr}");
    let count = |status| stdout.lines().filter(|line| line.starts_with(status)).count();
    let (failed, done) = (count("1 at "), count("0 at "));
    assert_eq!(stdout.lines().count(), failed + done, "{line}: {stdout}");
    assert_eq!(stderr.lines().count(), failed, "{line}: {stderr}");
    for words in stderr.lines() {
        assert!(words.starts_with("agcm: ") && words.contains("No space left") && words.contains("disk"), "{words}");
    }
    Some((failed, done))
}

#[cfg(target_os = "linux")]
const NEW_STREAM: &str = "\"$0\" decrypt -k key disk/new | cmp - plain";

#[cfg(target_os = "linux")]
const NOTHING: &str = "[ -z \"$(ls -A disk)\" ]";

#[cfg(target_os = "linux")]
#[test]
fn whatever_the_size_of_a_disk_there_is_all_of_a_file_or_nothing() {
    // Eight chunks, on 16 pages; with a context, as snapshots have it.
    let folder = folder();
    folder.write("plain", plaintext(62_000));
    agcm(&folder, "encrypt -k key --chunk-size 8KiB plain -o sealed").succeeds();
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o snapshot").succeeds();
    let case = |line, is_done| Case { before: ":", line, is_as_before: NOTHING, is_done };
    let old = |line, is_as_before, is_done| Case { before: "cp plain disk/new", line, is_as_before, is_done };
    let pages = |first: usize| (first..first + 18).map(|pages| format!("{} ", 4 * pages)).collect::<String>();
    let untouched = "[ \"$(ls -A disk)\" = new ] && cmp disk/new plain";
    for (first, case) in [
        (1, case("encrypt -k key --chunk-size 8KiB plain -o disk/new", NEW_STREAM)),
        (1, case("encrypt -k key --chunk-size 8KiB -o disk/new <plain", NEW_STREAM)),
        (1, case("decrypt -k key sealed -o disk/new", "cmp disk/new plain")),
        (1, case("decrypt -k key -o disk/new <sealed", "cmp disk/new plain")),
        (1, case("rekey -k key --to-key key sealed -o disk/new", NEW_STREAM)),
        (1, case("snapshot restore --keys keys --id db snapshot -o disk/new", "cmp disk/new plain")),
        (
            1,
            case(
                "snapshot encrypt -q --keys disk/keys --id db plain -o disk/new",
                "\"$0\" snapshot restore -f --keys disk/keys --id db disk/new -o disk/again && cmp disk/again plain",
            ),
        ),
        (16, old("encrypt -f -k key plain -o disk/new", untouched, NEW_STREAM)),
        (
            16,
            Case {
                before: "cp sealed disk/new",
                line: "rekey -k key --to-key other disk/new",
                is_as_before: "[ \"$(ls -A disk)\" = new ] && cmp disk/new sealed",
                is_done: "\"$0\" decrypt -k other disk/new | cmp - plain",
            },
        ),
    ] {
        // The folder of keys was made for good.
        let case = match case.line.contains("disk/keys") {
            true => Case { is_as_before: "[ -z \"$(find disk -type f)\" ]", ..case },
            false => case,
        };
        let Some((failed, done)) = at_sizes(&folder, &case, &pages(first), "size=${size}k") else { return };
        assert!(failed >= 15 && done >= 1, "{}: {failed} failed, {done} were done", case.line);
    }
    folder.assert_holds(&["disk", "key", "keys", "other", "plain", "sealed", "snapshot"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_room_for_another_name_leaves_nothing_behind() {
    let folder = folder_with_stream(1000);
    let case = |line, is_done| Case { before: ":", line, is_as_before: "[ -z \"$(find disk -type f)\" ]", is_done };
    for case in [
        case("encrypt -k key plain -o disk/new", NEW_STREAM),
        case("decrypt -k key -o disk/new <sealed", "cmp disk/new plain"),
        case("keygen -o disk/new", "[ $(wc -c <disk/new) = 65 ]"),
        case(
            "snapshot encrypt -q --keys disk/keys --id db plain -o disk/new",
            "\"$0\" snapshot restore -f --keys disk/keys --id db disk/new -o disk/again && cmp disk/again plain",
        ),
    ] {
        let Some((failed, done)) = at_sizes(&folder, &case, "1 2 3 4 5 6", "nr_inodes=$size") else { return };
        assert!(failed >= 1 && done >= 1, "{}: {failed} failed, {done} were done", case.line);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn several_workers_on_a_full_disk_leave_nothing_behind() {
    let folder = folder_with_stream(4_300_000);
    let case = |line, is_done| Case { before: ":", line, is_as_before: NOTHING, is_done };
    for case in [
        case("encrypt -j 2 -k key plain -o disk/new", NEW_STREAM),
        case("decrypt -j 2 -k key sealed -o disk/new", "cmp disk/new plain"),
    ] {
        let Some(ends) = at_sizes(&folder, &case, "4 64 1000 2500 4100 4196 4300", "size=${size}k") else { return };
        assert_eq!(ends, (6, 1), "{}", case.line);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_key_of_a_snapshot_behind() {
    let folder = folder();
    folder.write("plain", plaintext(3_000_000));
    // If the first had left its key, the second could not use the id again.
    fails_until_there_is_room(
        &folder,
        "snapshot encrypt -q --keys keys --id db plain -o disk/new",
        "\"$0\" snapshot restore --keys keys --id db disk/new -o again && cmp again plain",
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_key_that_finds_no_room_is_not_there_at_all() {
    let folder = folder();
    folder.write("plain", "plain");
    let Some(output) = on_small_disk(
        &folder,
        "mkdir -m 700 disk/keys
         cat /dev/zero >disk/fill 2>&- || true
         \"$0\" keygen -o disk/new || echo status $?
         \"$0\" snapshot encrypt -q --keys disk/keys --id db plain -o sealed || echo status $?
         rm disk/fill
         find disk",
    ) else {
        return;
    };
    assert_eq!(text(&output.stdout), "status 1\nstatus 1\ndisk\ndisk/keys\n");
    let words = text(&output.stderr);
    assert!(words.lines().count() == 2 && words.lines().all(|line| line.starts_with("agcm: ")), "{words}");
    folder.assert_holds(&["disk", "key", "other", "plain"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let folder = folder_with_stream(1000);
    for line in [
        "keygen",
        "encrypt -k key plain",
        "decrypt -k key sealed",
        "verify -k key sealed",
        "inspect sealed",
        "inspect --json sealed",
        "cat -k key --range .. sealed",
        "cat -k key --range ..1 sealed",
        "completions bash",
        "man",
        "bench plain",
    ] {
        for to in [" >/dev/full", " -o /dev/full"] {
            if to.contains("-o") && !line.starts_with("encrypt") && !line.starts_with("decrypt") {
                continue;
            }
            let output = script(&folder, &["sh"], &format!("exec \"$0\" {line}{to}"));
            let words = one_line(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{line}: {words}");
            assert!(words.contains("No space left"), "{line}: {words}");
        }
    }
}
