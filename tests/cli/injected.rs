//! Each operation on a file fails, in turn, in every way that a disk knows; and the process is killed there.
//!
//! Whatever happens, a target is the old file or the new one, whole; a run that says that it is done is; what fails says so in
//! one line that names a file, and leaves nothing behind.
//!
//! `AGCM_INJECT=all` runs through all places and ways for every command; otherwise, the first command of each test fails at every
//! place, and of the rest one in eleven is chosen. Where processes may not be traced, it is said so, and nothing is tested; with
//! `AGCM_REQUIRE_PTRACE=1` that is a failure.

use std::{collections::BTreeMap, env, fs, os::unix::fs::PermissionsExt, thread};

use agcm::{DecryptOptions, Key};
use nix::errno::Errno;

use crate::{
    folder::Folder,
    tool::{KEY, OTHER, Run, agcm, folder_with_stream, plaintext, read, text},
    traced,
    tracer::{self, Fault, Operation, Plan, Traced},
};

/// Three chunks, of which the last is short.
const LEN: usize = 150_000;
/// Enough for several workers, and a rest.
const LARGE: usize = 4_300_000;

/// All files below a folder, with their modes; folders end in a slash.
type Files = BTreeMap<String, (u32, Vec<u8>)>;

fn files(folder: &Folder) -> Files {
    let (mut files, mut folders) = (Files::new(), vec![String::new()]);
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.path(&below)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            let metadata = entry.metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                folders.push(format!("{name}/"));
                files.insert(format!("{name}/"), (mode, Vec::new()));
            } else if metadata.is_symlink() {
                let to = fs::read_link(entry.path()).unwrap();
                files.insert(name, (mode, to.into_os_string().into_encoded_bytes()));
            } else {
                files.insert(name, (mode, fs::read(entry.path()).unwrap()));
            }
        }
    }
    files
}

/// Makes the folder hold these files and nothing else.
fn restore(folder: &Folder, wanted: &Files) {
    let found = files(folder);
    for name in found.keys().rev().filter(|name| !wanted.contains_key(*name)) {
        let path = folder.path(name);
        if name.ends_with('/') { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    for (name, file) in wanted.iter().filter(|(name, file)| found.get(*name) != Some(*file)) {
        let path = folder.path(name);
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::write(&path, &file.1).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(file.0)).unwrap();
    }
}

/// What a command makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Makes {
    Nothing,
    Plaintext,
    /// A stream that this key opens.
    Stream(&'static str),
    /// A stream that the key under the id `new` opens.
    Snapshot,
    Key,
    /// There is no target any more.
    Room,
}

/// A command, and what it is to come to.
#[derive(Debug, Clone, Copy)]
struct Case {
    line: &'static str,
    target: &'static str,
    makes: Makes,
    /// What it ends with if nothing happens.
    status: i32,
    len: usize,
}

const fn case(line: &'static str, target: &'static str, makes: Makes) -> Case {
    Case { line, target, makes, status: 0, len: LEN }
}

/// One that fails whatever happens.
const fn fails(status: i32, line: &'static str) -> Case {
    Case { line, target: "", makes: Makes::Nothing, status, len: LEN }
}

/// The folder that all commands find: with a key store, and a snapshot that is to be replaced.
fn set_up(len: usize) -> Folder {
    let folder = folder_with_stream(len);
    let mut corrupt = read(&folder, "sealed");
    *corrupt.last_mut().unwrap() ^= 1;
    folder.write("corrupt", corrupt);
    folder.write("target", "precious");
    folder.write("text", "no stream");
    fs::hard_link(folder.path("key"), folder.path("same-key")).unwrap();
    fs::hard_link(folder.path("plain"), folder.path("same-plain")).unwrap();
    std::os::unix::fs::symlink("target", folder.path("link")).unwrap();
    agcm(&folder, "snapshot encrypt -q --keys keys --id db plain -o snapshot").succeeds();
    folder
}

/// A file that belongs to what the snapshot makes, besides its target.
fn is_of_the_key(name: &str) -> bool {
    name == "keys/new.key" || name == "new-keys/" || name == "new-keys/new.key"
}

fn is_partial(name: &str) -> bool {
    name.ends_with(".partial")
}

impl Case {
    /// What it writes goes to standard output, where it cannot be taken back.
    fn prints(&self) -> bool {
        self.line.contains('>')
    }

    /// Whether this is all of what the command makes.
    fn is_whole(&self, folder: &Folder, found: &[u8]) -> bool {
        let plain = plaintext(self.len);
        let opens = |key: &str, context: &str| {
            let options = DecryptOptions::new().context(context).unwrap();
            let key = key.trim_end().parse::<Key>();
            key.is_ok_and(|key| options.decrypt(&key, found).is_ok_and(|found| found == plain))
        };
        let stored = |store: &str| fs::read_to_string(folder.path(store).join("new.key"));
        match self.makes {
            Makes::Nothing | Makes::Room => false,
            Makes::Plaintext => found == plain,
            Makes::Stream(key) => opens(key, ""),
            Makes::Snapshot => {
                ["keys", "new-keys"].iter().any(|store| stored(store).is_ok_and(|key| opens(&key, "new")))
            }
            Makes::Key => found.len() == 65 && text(found).trim_end().parse::<Key>().is_ok(),
        }
    }

    /// Whether the new file is in the place of the target, whole; and not the old one, as it was.
    fn is_made(&self, folder: &Folder, before: &Files, after: &Files) -> Result<bool, String> {
        match (before.get(self.target), after.get(self.target)) {
            (old, found) if old == found => Ok(false),
            (_, None) if self.makes == Makes::Room => Ok(true),
            (_, None) => Err("the target is gone".to_owned()),
            (_, Some((_, found))) if self.prints() => {
                let is_authentic = self.makes != Makes::Plaintext || plaintext(self.len).starts_with(found);
                if is_authentic { Ok(self.is_whole(folder, found)) } else { Err("what is put out is wrong".to_owned()) }
            }
            (_, Some((_, found))) if !self.is_whole(folder, found) => {
                Err("the target is neither the old one nor the new one".to_owned())
            }
            (_, Some((mode, _))) if self.is_secret() && *mode != 0o600 => Err(format!("the target has mode {mode:o}")),
            _ => Ok(true),
        }
    }

    fn is_secret(&self) -> bool {
        matches!(self.makes, Makes::Plaintext | Makes::Key)
    }

    /// Whether some file is named that has to do with this.
    fn names_a_file(&self, folder: &Folder, words: &str) -> bool {
        // A link was followed, so the whole path is told.
        let root = folder.root().canonicalize().unwrap().to_str().unwrap().to_owned();
        let names = self.line.split([' ', '<', '>']).filter(|word| !word.is_empty() && !word.starts_with('-'));
        names.chain([".", self.target]).any(|name| words.contains(&format!("{name:?}")))
            || words.contains(&format!("\"{root}"))
            || words.contains("\"keys/")
            || words.contains("\"new-keys/")
            || words.contains("standard input") && self.line.contains('<')
            || words.contains("the output") && self.prints()
    }
}

/// How a run ended that was tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    Killed,
}

/// What must hold after every run.
fn check(case: &Case, folder: &Folder, before: &Files, traced: &Traced, fault: Fault) -> Result<End, String> {
    let after = files(folder);
    let made = case.is_made(folder, before, &after)?;
    for (name, file) in before.iter().filter(|(name, _)| *name != case.target) {
        if after.get(name) != Some(file) {
            return Err(format!("{name} has changed"));
        }
    }
    let new: Vec<&str> = after.keys().filter(|name| !before.contains_key(*name)).map(String::as_str).collect();
    if let Some(name) = new.iter().find(|name| **name != case.target && !is_partial(name) && !is_of_the_key(name)) {
        return Err(format!("{name} is left"));
    }
    let is_left = new.iter().any(|name| is_partial(name));
    let key_is_left = new.iter().any(|name| name.ends_with("new.key")) && !made;
    let code = traced.output.status.code();
    let words = text(&traced.output.stderr);
    let end = match code {
        None if !traced.killed() => return Err(format!("{:?}", traced.output.status)),
        None => {
            // Plaintext and keys are for their owner, wherever they are.
            let is_secret = |name: &str| case.is_secret() || name.contains("keys/");
            if let Some(name) = new.iter().find(|name| is_secret(name) && after[**name].0 & 0o077 > 0 && !case.prints())
            {
                return Err(format!("others may read {name}"));
            }
            End::Killed
        }
        Some(0) => {
            if case.makes != Makes::Nothing && !made {
                return Err("it says that it is done, and it is not".to_owned());
            }
            let is_quiet = words.is_empty() || new.contains(&"new-keys/") && words.contains("new key store");
            if !is_quiet || is_left {
                return Err(format!("it is done, with {words:?} and {new:?}"));
            }
            End::Done
        }
        Some(code) => {
            if code != 1 && code != case.status {
                return Err(format!("status {code}: {words}"));
            }
            if !words.starts_with("agcm: ") || words.lines().count() != 1 {
                return Err(format!("this is not one line: {words:?}"));
            }
            if !case.names_a_file(folder, &words) {
                return Err(format!("no file is named: {words}"));
            }
            let unread = traced.hit.as_ref().filter(|hit| hit.call == "read" && matches!(fault, Fault::Fails(_)));
            if let Some(Operation { file, .. }) = unread
                && ["plain", "sealed"].contains(&file.as_str())
                && !words.contains(&format!("{file:?}"))
                && !(words.contains("standard input") && case.line.contains('<'))
            {
                return Err(format!("it is not told that {file:?} could not be read: {words}"));
            }
            if let Fault::Fails(errno) | Fault::DoneBut(errno) = fault
                && case.status == 0
                && !words.contains(&format!("os error {}", errno as i32))
            {
                return Err(format!("the cause is not told: {words}"));
            }
            if is_left && !words.contains(".partial") {
                return Err(format!("{new:?} is left, and nothing said of it: {words}"));
            }
            if made && !case.prints() && case.makes != Makes::Room && !words.contains("in its place") {
                return Err(format!("the new file is there, and nothing said of it: {words}"));
            }
            if key_is_left && !words.contains("may be left") && !words.contains("in its place") {
                return Err(format!("a key is left, and nothing said of it: {words}"));
            }
            End::Failed
        }
    };
    // The same again. If all is as it was before but for a key of the snapshot, that is what was done at first.
    let as_before = after.iter().filter(|(name, _)| !is_partial(name) && !is_of_the_key(name)).eq(before.iter());
    if end != End::Done && !made && !as_before && case.status == 0 {
        if key_is_left {
            let store = if new.contains(&"keys/new.key") { "keys" } else { "new-keys" };
            agcm(folder, &format!("keys --keys {store} remove new")).succeeds();
        }
        let again = tracer::run(folder, case.line, Plan::default());
        let after = files(folder);
        if again.output.status.code() != Some(0)
            || case.makes != Makes::Nothing && !case.is_made(folder, before, &after)?
        {
            return Err(format!("it cannot be done again: {}", text(&again.output.stderr)));
        }
    }
    Ok(end)
}

/// The ways in which an operation can go wrong, the first of which nothing may leave out.
fn faults(operation: &Operation) -> Vec<Fault> {
    let is = |calls: &[&str]| calls.contains(&operation.call);
    let (transfers, renames) = (is(&["read", "pread64", "write", "pwrite64"]), is(&["renameat", "renameat2"]));
    let makes = operation.creates || renames;
    let mut faults = vec![Fault::Fails(Errno::EIO), Fault::Killed];
    if makes || is(&["write", "pwrite64", "fsync", "ftruncate", "unlink", "unlinkat"]) {
        faults.extend([Fault::DoneBut(Errno::EIO), Fault::KilledAfter]);
    }
    if makes || is(&["write", "pwrite64"]) {
        faults.push(Fault::Fails(Errno::ENOSPC));
    }
    if makes || is(&["openat", "unlink", "unlinkat"]) {
        faults.push(Fault::Fails(Errno::EACCES));
    }
    if is(&["openat"]) {
        faults.push(Fault::Fails(Errno::EMFILE));
    }
    if transfers || is(&["openat", "fsync", "ftruncate"]) {
        faults.push(Fault::Fails(Errno::EINTR));
    }
    if transfers {
        faults.push(Fault::Short);
    }
    faults
}

/// Whether a command may be done all the same: what is not in this list must fail.
fn may_be_harmless(case: &Case, operation: &Operation, fault: Fault) -> bool {
    let fault_is = |errno| fault == Fault::Fails(errno);
    match operation.call {
        // Tried again, or gone on with.
        _ if fault_is(Errno::EINTR) || fault == Fault::Short => true,
        // Everything that was written is synced before.
        "close" => true,
        // It has its name, as can be seen.
        "renameat" | "renameat2" | "linkat" => matches!(fault, Fault::DoneBut(_)),
        // A second name that could not be removed is removed once more; and what cannot be renamed without replacing is linked.
        "unlinkat" => true,
        // Files that are not the process's to give away belong to whoever rekeys them, and not to a group of others.
        "fchown" => true,
        // Whether it is in memory already is only asked to be quick.
        "preadv2" => true,
        // A folder that may be written and not read is not synced.
        "openat" => fault_is(Errno::EACCES) && (operation.file.is_empty() || operation.file.ends_with("keys")),
        // What several workers cannot read is read once more, in order, which tells what is wrong.
        "pread64" => !case.line.contains("encrypt"),
        // Looked at before the work only to refuse it early, to say how much there is, or what kind of file it may be. What
        // decides is looked at again, or is what opening or publishing says.
        "statx" | "readlink" => true,
        _ => false,
    }
}

/// Runs each command through all that can happen to it, while all these operations fail besides.
#[track_caller]
fn inject(len: usize, always: Option<fn(&Operation) -> Option<Errno>>, cases: &[Case]) {
    if !traced::is_permitted() {
        return;
    }
    let all = env::var_os("AGCM_INJECT").is_some_and(|value| value == "all");
    let folder = set_up(len);
    let before = files(&folder);
    let (mut turn, mut wrong) = (0, Vec::new());
    for (n, case) in cases.iter().enumerate() {
        let case = Case { len, ..*case };
        let baseline = tracer::run(&folder, case.line, Plan { at: None, always });
        let words = text(&baseline.output.stderr);
        assert_eq!(baseline.output.status.code(), Some(case.status), "{}: {words}", case.line);
        assert!(!baseline.operations.is_empty(), "{}: none of its operations was seen", case.line);
        let is_shared = baseline.operations.iter().any(|operation| operation.call == "pread64");
        let several = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        assert!(is_shared || len != LARGE || !several, "{}: there is one worker only", case.line);
        restore(&folder, &before);
        let (mut runs, mut ends) = (0, BTreeMap::<String, usize>::new());
        for (i, operation) in baseline.operations.iter().enumerate() {
            for fault in faults(operation) {
                // The standard library panics if a folder that it lists cannot be closed, and does not try twice to open one.
                let is_listed = operation.file == "keys" && case.line.ends_with("list");
                if is_listed && (operation.call == "close" || fault == Fault::Fails(Errno::EINTR)) {
                    continue;
                }
                turn += 1;
                let is_first = n == 0 && len == LEN && fault == Fault::Fails(Errno::EIO);
                if !all && !is_first && turn % 11 > 0 {
                    continue;
                }
                let traced = tracer::run(&folder, case.line, Plan { at: Some((i, fault)), always });
                // Where there are several threads, it may have been another one than before, or there were fewer.
                let Some(hit) = traced.hit.clone() else {
                    if traced.output.status.code() != Some(case.status) {
                        wrong.push(format!("agcm {}, untouched: {}", case.line, text(&traced.output.stderr)));
                    }
                    restore(&folder, &before);
                    continue;
                };
                runs += 1;
                let must_succeed = fault == Fault::Fails(Errno::EINTR) || fault == Fault::Short;
                let end = match check(&case, &folder, &before, &traced, fault) {
                    Ok(End::Done) if case.status != 0 => Err("it does what it must not".to_owned()),
                    Ok(End::Done) if !may_be_harmless(&case, &hit, fault) => Err("it says that it is done".to_owned()),
                    Ok(End::Done) if traced.output.stdout != baseline.output.stdout => {
                        Err(format!("it puts out something else: {:?}", text(&traced.output.stdout)))
                    }
                    Ok(End::Failed) if must_succeed && traced.output.status.code() != Some(case.status) => {
                        Err(text(&traced.output.stderr))
                    }
                    end => end,
                };
                match end {
                    Ok(end) => *ends.entry(format!("{end:?}")).or_default() += 1,
                    Err(words) => wrong.push(format!("agcm {}: {fault:?} at {i}, {hit:?}: {words}", case.line)),
                }
                restore(&folder, &before);
            }
        }
        println!("agcm {}: {} operations, {runs} runs: {ends:?}", case.line, baseline.operations.len());
    }
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn encrypting() {
    inject(
        LEN,
        None,
        &[
            case("encrypt -k key plain -o new", "new", Makes::Stream(KEY)),
            case("encrypt -f -k key plain -o target", "target", Makes::Stream(KEY)),
            case("encrypt -k key -o new <plain", "new", Makes::Stream(KEY)),
            case("encrypt -f -k key -o link <plain", "target", Makes::Stream(KEY)),
            case("encrypt -k key plain >out", "out", Makes::Stream(KEY)),
            // Neither a key nor what is read is replaced, by whatever name.
            fails(2, "encrypt -f -k key plain -o same-key"),
            fails(2, "encrypt -f -k key plain -o same-plain"),
            fails(2, "encrypt -f -k key -o same-plain <plain"),
        ],
    );
}

#[test]
fn decrypting() {
    inject(
        LEN,
        None,
        &[
            case("decrypt -k key sealed -o new", "new", Makes::Plaintext),
            case("decrypt -f -k key sealed -o target", "target", Makes::Plaintext),
            case("decrypt -k key -o new <sealed", "new", Makes::Plaintext),
            case("decrypt -k key sealed >out", "out", Makes::Plaintext),
            case("cat -k key --range .. sealed >out", "out", Makes::Plaintext),
            case("verify -k key sealed", "", Makes::Nothing),
            case("verify -k key <sealed", "", Makes::Nothing),
            case("inspect sealed", "", Makes::Nothing),
            fails(4, "decrypt -k key corrupt -o new"),
            fails(4, "decrypt -k key -o new <corrupt"),
            fails(3, "decrypt -k other sealed -o new"),
        ],
    );
}

#[test]
fn rekeying() {
    inject(
        LEN,
        None,
        &[
            case("rekey -k key --to-key other sealed", "sealed", Makes::Stream(OTHER)),
            case("rekey -k key --to-key other sealed -o new", "new", Makes::Stream(OTHER)),
            case("rekey -f -k key --to-key other sealed -o target", "target", Makes::Stream(OTHER)),
            fails(4, "rekey -k key --to-key other corrupt"),
        ],
    );
}

#[test]
fn snapshots() {
    inject(
        LEN,
        None,
        &[
            case("snapshot encrypt --keys keys --id new plain -o new", "new", Makes::Snapshot),
            case("snapshot encrypt --keys new-keys --id new plain -o new", "new", Makes::Snapshot),
            case("snapshot encrypt -f --keys keys --id new plain -o snapshot", "snapshot", Makes::Snapshot),
            case("snapshot restore --keys keys --id db snapshot -o new", "new", Makes::Plaintext),
            case("snapshot verify --keys keys --id db snapshot", "", Makes::Nothing),
        ],
    );
}

#[test]
fn keys() {
    inject(
        LEN,
        None,
        &[
            case("keygen -o new", "new", Makes::Key),
            case("keys --keys keys list", "", Makes::Nothing),
            case("keys --keys keys remove db", "keys/db.key", Makes::Room),
        ],
    );
}

#[test]
fn several_workers() {
    inject(
        LARGE,
        None,
        &[
            case("encrypt -j 2 -k key plain -o new", "new", Makes::Stream(KEY)),
            case("decrypt -j 2 -k key sealed -o new", "new", Makes::Plaintext),
            case("verify -j 2 -k key sealed", "", Makes::Nothing),
            fails(4, "decrypt -j 2 -k key corrupt -o new"),
        ],
    );
}

/// Then a file that must not replace another one is linked to its name, and the temporary name removed.
fn has_no_renameat2(operation: &Operation) -> Option<Errno> {
    (operation.call == "renameat2").then_some(Errno::EINVAL)
}

#[test]
fn where_renaming_cannot_keep_what_is_there() {
    inject(
        LEN,
        Some(has_no_renameat2),
        &[
            case("encrypt -k key plain -o new", "new", Makes::Stream(KEY)),
            case("decrypt -k key sealed -o new", "new", Makes::Plaintext),
            case("snapshot encrypt --keys keys --id new plain -o new", "new", Makes::Snapshot),
            case("keygen -o new", "new", Makes::Key),
        ],
    );
}

fn removes(operation: &Operation) -> Option<Errno> {
    (operation.call == "unlink").then_some(Errno::EIO)
}

#[test]
fn where_nothing_can_be_removed() {
    inject(
        LEN,
        Some(removes),
        &[
            case("encrypt -k key plain -o new", "new", Makes::Stream(KEY)),
            case("encrypt -k key -o new <plain", "new", Makes::Stream(KEY)),
            case("decrypt -f -k key sealed -o target", "target", Makes::Plaintext),
            case("rekey -k key --to-key other sealed", "sealed", Makes::Stream(OTHER)),
            case("snapshot encrypt --keys keys --id new plain -o new", "new", Makes::Snapshot),
            case("keygen -o new", "new", Makes::Key),
            fails(4, "decrypt -k key -o new <corrupt"),
        ],
    );
}
