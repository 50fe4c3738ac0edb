//! The arguments of the command line, and nothing but their form.

use std::{ffi::OsString, ops::Range, path::PathBuf, str::FromStr};

use agcm::{DEFAULT_CHUNK_SIZE, DecryptOptions, EncryptOptions};
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

/// Encrypts and decrypts streams of any size with AES-256-GCM, in constant memory.
///
/// INPUT and OUTPUT are files; `-`, or nothing, is standard input and standard output. An OUTPUT file appears whole or not at
/// all, and replaces another only with -f. What goes to standard output has been authenticated, but only exit status 0
/// says that it was all. The commands cat, rekey and snapshot need files.
#[derive(Debug, Parser)]
#[command(name = "agcm", version, propagate_version = true, after_help = EXIT_STATUS, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// No progress, and no words about success
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  input or output failed, or anything else
  2  the command line is wrong
  3  no key given opens the stream, or the passphrase is wrong
  4  the stream is corrupt, cut, of the Go library, or no stream
  5  there is no key with this id
  128 + the number of the signal that ended it

Signals:
  After INT, TERM or HUP it stops, and removes what it has begun. If that has to wait for a disk or a pipe, another
  one ends it at once, and may leave a file behind; within half a second, it is taken for the first.

Environment:
  AGCM_KEYFILE        the key file, where there is no -k
  AGCM_KEY            the key itself, 64 hex digits, where there is neither
  AGCM_PASSPHRASE     the passphrase of a key store, where there is no --passphrase-file

Files:
  New plaintext and keys are for their owner only (0600), streams as the umask says.
  .agcm-*.partial is what an agcm that was killed has left: it may hold plaintext, and may be deleted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new key: 64 hex digits and a newline
    Keygen {
        /// The new key file, readable by its owner only; never replaces a file
        #[arg(short, long, value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Encrypt INPUT
    Encrypt {
        #[command(flatten)]
        key: OneKey,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        chunk_size: ChunkSize,
        #[command(flatten)]
        force: Force,
        #[command(flatten)]
        jobs: Jobs,
        #[command(flatten)]
        files: Files,
    },
    /// Decrypt INPUT
    Decrypt {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        force: Force,
        #[command(flatten)]
        jobs: Jobs,
        #[command(flatten)]
        files: Files,
    },
    /// Authenticate all of INPUT, and write nothing
    Verify {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        jobs: Jobs,
        #[command(flatten)]
        input: Input,
    },
    /// Say what INPUT is, without a key; nothing of it is authenticated
    Inspect {
        /// As one line of JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        input: Input,
    },
    /// Encrypt INPUT anew under another key: in its place, or to OUTPUT
    Rekey {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        to: ToKey,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        force: Force,
        /// The encrypted file
        #[arg(value_hint = ValueHint::FilePath)]
        input: PathBuf,
        /// A new file, instead of the place of INPUT
        #[arg(short, long, value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Decrypt a range of INPUT, without reading the rest, to standard output
    Cat {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        context: Context,
        /// Bytes of the plaintext, the first to the one behind the last: 0..100, 4096.., ..100
        #[arg(long, value_name = "A..B")]
        range: ByteRange,
        #[command(flatten)]
        force: Force,
        /// The encrypted file
        #[arg(value_hint = ValueHint::FilePath)]
        input: PathBuf,
    },
    /// Encrypt anew what another program has encrypted
    Import {
        /// INPUT is a stream of the Go library Harpocrates 1.x. Whether it was cut or reordered cannot be told
        #[arg(long, required = true)]
        from_go: bool,
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        to: ToKey,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        chunk_size: ChunkSize,
        #[command(flatten)]
        force: Force,
        #[command(flatten)]
        files: Files,
    },
    /// Encrypt a file under a key of its own, kept in a key store, or restore it
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// List, export or remove the keys of a key store
    Keys {
        /// The folder of the key store
        #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
        keys: Option<PathBuf>,
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Measure the throughput for several chunk sizes, and pick one
    Bench {
        #[command(flatten)]
        jobs: Jobs,
        /// Up to 16 MiB of this file are measured, from memory; otherwise, 16 MiB of made-up data
        #[arg(value_hint = ValueHint::FilePath)]
        input: Option<PathBuf>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Make a key, store it under ID, and encrypt INPUT with it
    Encrypt {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        chunk_size: ChunkSize,
        #[command(flatten)]
        snapshot: SnapshotFiles,
    },
    /// Decrypt INPUT with the key that is stored under ID
    Restore {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        snapshot: SnapshotFiles,
    },
    /// Authenticate all of INPUT with the key that is stored under ID, and write nothing
    Verify {
        #[command(flatten)]
        store: Store,
        /// The file to read
        #[arg(value_hint = ValueHint::FilePath)]
        input: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print all ids, one a line
    List,
    /// Write a key into a file of its own, for -k: unwrapped, if it is under a passphrase
    Export {
        /// The id of the key
        id: String,
        /// It is wrapped under the passphrase in this file, of one line
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        passphrase_file: Option<PathBuf>,
        /// The new key file, readable by its owner only; never replaces a file
        #[arg(short, long, value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Remove a key. What it has encrypted can never be decrypted again
    Remove {
        /// The id of the key
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneKey {
    /// The key file: 64 hex digits, or 32 raw bytes
    #[arg(short, long, value_name = "KEYFILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The key file; given several times, the one that fits is used
    #[arg(short, long = "key", value_name = "KEYFILE", value_hint = ValueHint::FilePath)]
    pub(crate) keys: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ToKey {
    /// The key file of the new key
    #[arg(long, value_name = "KEYFILE", value_hint = ValueHint::FilePath)]
    pub(crate) to_key: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Context {
    /// What the stream is for; whoever decrypts must give the same
    #[arg(short, long)]
    pub(crate) context: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ChunkSize {
    /// How much is sealed at a time: 1 byte to 10MiB
    #[arg(long, value_name = "SIZE", default_value_t = Size(DEFAULT_CHUNK_SIZE))]
    pub(crate) chunk_size: Size,
}

#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Work on N cores, 0 for all there are. By default up to 4 from file to file, from 4 MiB on, and 1 for pipes and in memory;
    /// for those each holds 2 MiB, or 2 chunks
    #[arg(short, long, value_name = "N", value_parser = workers)]
    pub(crate) jobs: Option<usize>,
}

/// More than there are cores would only hold more memory.
fn workers(n: &str) -> Result<usize, String> {
    let n: usize = n.parse().map_err(|_| "how many cores, a whole number; 0 for all".to_owned())?;
    Ok(std::thread::available_parallelism().map_or(n, |cores| n.min(cores.get())))
}

impl Jobs {
    pub(crate) fn seal(&self, options: EncryptOptions) -> EncryptOptions {
        self.jobs.map_or(options.clone(), |n| options.workers(n))
    }

    pub(crate) fn open(&self, options: DecryptOptions) -> DecryptOptions {
        self.jobs.map_or(options.clone(), |n| options.workers(n))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Force {
    /// Replace OUTPUT if it exists; write binary data to a terminal
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Input {
    /// The file to read; standard input if it is `-` or left out
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) input: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    #[command(flatten)]
    pub(crate) input: Input,
    /// The file to write; standard output if it is `-` or left out
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Store {
    /// The folder of the key store
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) keys: PathBuf,
    /// The id of the key
    #[arg(long)]
    pub(crate) id: String,
    /// Keys are wrapped under the passphrase in this file, of one line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotFiles {
    #[command(flatten)]
    pub(crate) force: Force,
    /// The file to read
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) input: PathBuf,
    /// The file to write
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
}

/// A number of bytes, as people write it: 65536, 64KiB, 1MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

const UNITS: [(&str, usize); 2] = [("MiB", 1024 * 1024), ("KiB", 1024)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
            .unwrap_or((text.strip_suffix('B').unwrap_or(text), 1));
        let size = digits.trim_end().parse().ok().and_then(|number: usize| number.checked_mul(unit));
        size.map(Self).ok_or_else(|| "a size is a number of bytes, KiB or MiB: 65536, 64KiB, 1MiB".to_owned())
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0 % unit == 0) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A range of the plaintext whose end may be left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    start: u64,
    end: Option<u64>,
}

impl ByteRange {
    pub(crate) fn of(self, len: u64) -> Range<u64> {
        self.start..self.end.unwrap_or(len)
    }
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        text.split_once("..")
            .and_then(|(start, end)| Some(Self { start: number(start)?.unwrap_or(0), end: number(end)? }))
            .ok_or_else(|| "a range is two numbers of bytes, A..B, where each may be left out".to_owned())
    }
}
