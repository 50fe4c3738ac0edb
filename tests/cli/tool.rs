//! The binary, run in a folder of its own; and what must hold for every run of it.

use std::{
    env, fs,
    io::Read,
    process::{self, Child, ChildStdin, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use assert_cmd::Command;

use crate::{folder::Folder, forms::shown};

pub const KEY: &str = "c4a1f05d37be82e96011da4b9c7f2835e8063ab1945dcf7210f6b8de43a95c07";
pub const OTHER: &str = "5b90e23fa7c814d6f0396bde821c45a70d7ef13496b8c25a1fe380d49c6b72e5";

/// Far more than anything here takes: what hangs is to fail.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that holds two key files, `key` and `other`.
pub fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("key", format!("{KEY}\n"));
    folder.write("other", format!("{OTHER}\n"));
    folder
}

/// A folder that also holds a file, `plain`, and what `key` makes of it, `sealed`.
pub fn folder_with_stream(len: usize) -> Folder {
    let folder = folder();
    folder.write("plain", plaintext(len));
    agcm(&folder, "encrypt -k key plain -o sealed").succeeds();
    folder
}

pub fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + 7) % 251).unwrap()).collect()
}

#[track_caller]
pub fn read(folder: &Folder, name: &str) -> Vec<u8> {
    fs::read(folder.path(name)).unwrap()
}

/// As `assert_eq!`, without printing what nobody can read.
#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8]) {
    assert!(found == expected, "{} bytes were found, {} other ones expected", found.len(), expected.len());
}

/// `agcm LINE` in this folder; spaces divide the words of the line.
pub fn agcm(folder: &Folder, line: &str) -> Command {
    let mut command = Command::from_std(plain_agcm(folder, line));
    command.timeout(PATIENCE);
    command
}

/// The same, to be started and left to itself.
pub fn plain_agcm(folder: &Folder, line: &str) -> process::Command {
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_agcm"));
    command.args(line.split_whitespace());
    in_folder(command, folder)
}

/// A command that works in this folder and knows nothing of the keys of whoever runs the tests.
pub fn in_folder(mut command: process::Command, folder: &Folder) -> process::Command {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"AGCM_") {
            command.env_remove(name);
        }
    }
    // What a panic would tell, too, is looked at.
    command.env("RUST_BACKTRACE", "1").current_dir(folder.root());
    command
}

/// How a run is to end. All of these also see to it that nobody is told a key.
pub trait Run {
    /// With status 0 and nothing on standard error. Returns its output.
    #[track_caller]
    fn succeeds(&mut self) -> Vec<u8>;

    /// With this status, and one line on standard error, which is returned.
    #[track_caller]
    fn fails(&mut self, status: i32) -> String;

    /// With what is said about a command line that cannot be understood.
    #[track_caller]
    fn is_misused(&mut self) -> String;
}

impl Run for Command {
    fn succeeds(&mut self) -> Vec<u8> {
        let output = checked(self.output().unwrap());
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{self:?}");
        output.stdout
    }

    fn fails(&mut self, status: i32) -> String {
        let output = checked(self.output().unwrap());
        let line = one_line(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{self:?}: {line}");
        line
    }

    fn is_misused(&mut self) -> String {
        let output = checked(self.output().unwrap());
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{self:?}: {words}");
        assert!(words.starts_with("error: ") && output.stdout.is_empty(), "{self:?}: {words}");
        words
    }
}

/// The one line that a failure is told in.
#[track_caller]
pub fn one_line(stderr: &[u8]) -> String {
    let line = text(stderr);
    assert!(line.starts_with("agcm: ") && line.ends_with('\n') && line.lines().count() == 1, "{line:?}");
    line
}

#[track_caller]
pub fn checked(output: Output) -> Output {
    for bytes in [&output.stdout, &output.stderr] {
        assert_tells_no_key(bytes, KEY);
        assert_tells_no_key(bytes, OTHER);
        assert!(!contains(bytes, b"panicked"), "{}", text(bytes));
    }
    output
}

/// Of a text, four bytes of the key in a row are too many, in whatever form. In what is binary they would be there by chance, so of that
/// it is half a key.
#[track_caller]
pub fn assert_tells_no_key(bytes: &[u8], key: &str) {
    let raw = base16ct::lower::decode_vec(key).unwrap();
    if std::str::from_utf8(bytes).is_ok() && bytes.len() < 64 * 1024 {
        assert_eq!(shown(bytes, &raw), None, "a key was shown: {}", text(bytes));
    }
    for half in [0..16, 16..32] {
        let digits = &key[2 * half.start..2 * half.end];
        for form in
            [digits.into(), digits.to_uppercase().into_bytes(), raw[half.clone()].into(), numbers(&raw[half.clone()])]
        {
            assert!(!contains(bytes, &form), "a key was shown");
        }
    }
}

/// As `{:?}` shows them.
fn numbers(bytes: &[u8]) -> Vec<u8> {
    format!("{bytes:?}").trim_matches(['[', ']']).into()
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process that is at work, and is not left behind.
pub struct Running(Child);

impl Running {
    /// Starts it, with pipes for whatever was not chosen.
    pub fn start(command: &mut process::Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Starts it with pipes in all three places.
    pub fn with_pipes(command: &mut process::Command) -> Self {
        Self::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().unwrap()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// What it came to. What it has written must fit into a pipe.
    #[track_caller]
    pub fn output(mut self) -> Output {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it hangs");
            thread::sleep(Duration::from_millis(2));
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().map(|mut pipe| pipe.read_to_end(&mut stdout).unwrap());
        self.0.stderr.take().map(|mut pipe| pipe.read_to_end(&mut stderr).unwrap());
        checked(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
#[cfg(unix)]
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// How many files of this folder are being written, or were when their writer was killed.
pub fn partials(folder: &Folder) -> usize {
    let names = fs::read_dir(folder.root()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".partial")).count()
}
