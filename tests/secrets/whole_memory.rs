//! The whole memory of a process: one that has encrypted and decrypted in all ways and let go of everything is looked at from
//! outside, through `/proc`. So stacks and the heap of C are seen as well, and nothing that looks is in what is looked at.
//!
//! On the heap nothing may be left. What is left on stacks is printed (`--nocapture`), and is not promised.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, EncryptOptions, EncryptReader, EncryptWriter, Key, PositionedFile,
    RangeReader, SeekReader,
    keystore::{DirKeyStore, KeyStore},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, copy_buf, sink},
    runtime::Builder,
};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    folder::Folder,
    freed::alone,
    needles::{MARK, Needles},
    reference::Reference,
};

/// Where the process that is looked at finds what to work on; set for that process only.
const CHILD: &str = "AGCM_TEST_OF_MEMORY";
/// With this set, it is a failure if the memory of a process of ours cannot be read.
const REQUIRED: &str = "AGCM_REQUIRE_PTRACE";

/// How much of a thread's memory is its stack: what the standard library asks for, and what lies behind it.
const STACK_LEN: u64 = 2 * 1024 * 1024 + 64 * 1024;

const KEY: [u8; 32] = *b"\xe1\x97\xd2\x83\xc4\xb5\xa6\x98\xf9\x9a\xeb\x8c\xdd\xbe\xcf\xa1\xd2\x83\xf4\xb5\xc6\x97\xe8\x99\xfa\x8b\xdc\xbd\xce\xaf\xa0\x9f";
const PASSPHRASE: &str = "Drei Wege, und am Ende fuehrt doch keiner ganz zum Ziel";
const LEN: usize = 5 * 1024 * 1024;

#[test]
fn a_process_that_is_done_has_no_secret_on_its_heap() {
    if let Some(folder) = env::var_os(CHILD) {
        return work(Path::new(&folder));
    }
    let _alone = alone();
    let folder = Folder::new();
    let mut plain = MARK.repeat(LEN / MARK.len());
    plain.extend_from_slice(b"ends");
    folder.write("plain", &plain);
    folder.write("key", KEY);
    folder.write("passphrase", PASSPHRASE);
    let sealed = Reference::new(&KEY, [7; 12], [9; 20], 65_536, b"").stream(&plain.chunks(65_536).collect::<Vec<_>>());
    folder.write("sealed", &sealed);

    let mut process = Process::start(&folder);
    process.wait_until("busy");
    let Some(memory) = process.memory() else { return };
    let busy = Finds::of(&memory, &needles(&folder));
    process.go_on();
    process.wait_until("done");
    let Some(memory) = process.memory() else { return };
    let done = Finds::of(&memory, &needles(&folder));
    process.end();

    // It looks where it has to.
    for what in ["key", "stream key", "round key", "plaintext"] {
        assert!(busy.heap.contains_key(what), "while it is busy there is a {what}: {:?}", busy.heap);
    }
    assert!(
        busy.stacks.contains_key("plaintext"),
        "and what is put on the stack of a thread is seen: {:?}",
        busy.stacks
    );
    println!("{}: left on stacks: {:?}", agcm::backend(), done.stacks);
    assert!(done.heap.is_empty(), "left on the heap: {:?}", done.heap);
}

fn needles(folder: &Folder) -> Needles {
    let mut needles = Needles::new(&[KEY]);
    needles.add("passphrase", PASSPHRASE.as_bytes());
    let mut streams = 0;
    for entry in fs::read_dir(folder.root()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        streams += usize::from(needles.add_stream(&bytes));
    }
    assert!(streams > 1, "the streams of that process are known");
    needles
}

/// Which secrets were found how often.
#[derive(Default)]
struct Finds {
    heap: BTreeMap<&'static str, usize>,
    stacks: BTreeMap<&'static str, usize>,
}

impl Finds {
    fn of(memory: &[Region], needles: &Needles) -> Self {
        let mut finds = Self::default();
        for region in memory {
            let counts = if region.is_stack { &mut finds.stacks } else { &mut finds.heap };
            for find in needles.find(&region.bytes) {
                *counts.entry(find.what).or_default() += 1;
            }
        }
        finds
    }
}

struct Region {
    is_stack: bool,
    bytes: Vec<u8>,
}

/// The process that is looked at.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(folder: &Folder) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "whole_memory::a_process_that_is_done_has_no_secret_on_its_heap", "--nocapture"]);
        command.env(CHILD, folder.root()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn wait_until(&mut self, state: &str) {
        let mut line = String::new();
        while line.trim_end() != format!("it is {state}") {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it has ended before it was {state}");
        }
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// All that it may write to. `None` if nobody may look at it.
    fn memory(&self) -> Option<Vec<Region>> {
        let id = self.child.id();
        let memory = match File::open(format!("/proc/{id}/mem")) {
            Ok(memory) => memory,
            Err(error) if env::var_os(REQUIRED).is_none() => {
                // Not by the macro, which is not shown where a test passes.
                let _ =
                    writeln!(io::stderr(), "passed by: the memory of another process cannot be read here ({error})");
                return None;
            }
            Err(error) => panic!("{REQUIRED} is set, and the memory of a process cannot be read: {error}"),
        };
        let mut regions = Vec::new();
        // Where the last mapping ended, if it keeps a stack from what is below it.
        let mut guard = None;
        for line in fs::read_to_string(format!("/proc/{id}/maps")).unwrap().lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            let name = fields.nth(3).unwrap_or_default();
            let (start, end) = range.split_once('-').unwrap();
            let number = |hex| u64::from_str_radix(hex, 16).unwrap();
            let (start, end) = (number(start), number(end));
            let is_threads = guard == Some(start) && name.is_empty();
            guard = (rights.starts_with("---") && end - start <= 64 * 1024).then_some(end);
            if !rights.starts_with("rw") || name.starts_with("[v") {
                continue;
            }
            // Behind a thread's stack there may be anything else, in what is one mapping then.
            let stack_end = match name {
                "[stack]" => end,
                _ if is_threads => end.min(start + STACK_LEN),
                _ => start,
            };
            for (is_stack, start, end) in [(true, start, stack_end), (false, stack_end, end)] {
                if start == end {
                    continue;
                }
                let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
                memory.read_exact_at(&mut bytes, start).unwrap();
                regions.push(Region { is_stack, bytes });
            }
        }
        assert!(regions.iter().any(|region| region.is_stack) && regions.iter().any(|region| !region.is_stack));
        Some(regions)
    }

    fn end(mut self) {
        self.go_on();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the other process look, until that says to go on. Nothing here has a buffer that could keep what was in it before.
fn pause(state: &str) {
    println!("it is {state}");
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    stdin.read_exact(&mut [0]).unwrap();
}

/// All of a file, in memory that is wiped.
fn read(path: &Path) -> Zeroizing<Vec<u8>> {
    let mut file = File::open(path).unwrap();
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()]);
    file.read_exact(&mut bytes).unwrap();
    bytes
}

/// What the process does that is looked at.
fn work(folder: &Path) {
    // It lives on, and so do the stacks of its threads.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let path = |name: &str| folder.join(name);
    let key = runtime.block_on(Key::read_file(path("key"))).unwrap();
    let (plain, sealed) = (read(&path("plain")), read(&path("sealed")));

    let mut writer = EncryptWriter::new(Vec::new(), &key);
    let mut reader = DecryptReader::new(&sealed[..], &key);
    runtime.block_on(async {
        writer.write_all(&plain[..1000]).await.unwrap();
        writer.flush().await.unwrap();
        reader.fill_buf().await.unwrap();
    });
    fs::write(path("stream of the writer"), writer.get_ref()).unwrap();
    let mut on_the_stack = std::hint::black_box(MARK);
    pause("busy");
    drop((writer, reader));
    on_the_stack.zeroize();

    runtime.block_on(in_all_ways(folder, &key, &plain, &sealed));
    drop((key, plain));
    agcm::trim_memory();
    pause("done");
}

async fn in_all_ways(folder: &Path, key: &Key, plain: &[u8], sealed: &[u8]) {
    let path = |name: &str| folder.join(name);
    let made = |name: &str, stream: &[u8]| fs::write(path(name), stream).unwrap();
    let chunks_of = |len| EncryptOptions::new().chunk_size(len).unwrap();

    let key = Key::from_file_content(&Zeroizing::new(key.expose_hex().as_bytes().to_vec())).unwrap();
    for (i, options) in [chunks_of(65_536), chunks_of(1 << 20), chunks_of(65_536).workers(2)].iter().enumerate() {
        let stream = options.encrypt(&key, plain);
        drop(Zeroizing::new(agcm::decrypt(&key, &stream).unwrap()));
        made(&format!("one-shot {i}"), &stream);

        let mut writer = EncryptWriter::with_options(Vec::new(), &key, options);
        writer.write_all(plain).await.unwrap();
        writer.shutdown().await.unwrap();
        made(&format!("writer {i}"), writer.get_ref());
        let mut stream = Vec::new();
        EncryptReader::with_options(plain, &key, options).read_to_end(&mut stream).await.unwrap();
        made(&format!("reader {i}"), &stream);

        let opening = DecryptOptions::new().workers(1 + i % 2);
        let mut reader = DecryptReader::with_options(&stream[..], &key, &opening);
        copy_buf(&mut reader, &mut sink()).await.unwrap();
        let mut writer = DecryptWriter::with_options(sink(), &key, &opening);
        writer.write_all(&stream).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut reader = SeekReader::open(io::Cursor::new(&stream), &key).await.unwrap();
        reader.seek(io::SeekFrom::Start(3_000_000)).await.unwrap();
        reader.fill_buf().await.unwrap();
    }
    DecryptReader::new(&sealed[..sealed.len() - 1], &key)
        .read_to_end(&mut Zeroizing::new(Vec::with_capacity(LEN + 64)))
        .await
        .unwrap_err();

    agcm::encrypt_file(path("plain"), path("file"), &key).await.unwrap();
    agcm::decrypt_file(path("file"), path("again"), &key).await.unwrap();
    agcm::verify_file(path("sealed"), &key).await.unwrap();
    let ranges = RangeReader::open(PositionedFile::open(path("sealed")).await.unwrap(), &key).await.unwrap();
    let range = ranges.read_range(100..2_000_000).await.unwrap();
    // It is ours alone, and so may be wiped.
    drop(Zeroizing::new(Vec::from(range)));

    let keys = DirKeyStore::new(path("keys"));
    keys.store("known", &key).await.unwrap();
    assert_eq!(keys.retrieve("known").await.unwrap(), key);
    #[cfg(feature = "passphrase")]
    {
        use agcm::keystore::Passphrase;
        let passphrase = Passphrase::new(&read(&path("passphrase"))[..]).costs(64, 1, 1).unwrap();
        let keys = DirKeyStore::new(path("keys")).passphrase(passphrase);
        keys.store("wrapped", &key).await.unwrap();
        assert_eq!(keys.retrieve("wrapped").await.unwrap(), key);
    }
}
