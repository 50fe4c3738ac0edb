//! What a secret is must not show in which instructions run: where a commitment or a tag is wrong, where keys differ, which hex
//! digits a key has, which key and which plaintext are worked on.
//!
//! Nothing is timed. A process under ptrace makes calls that differ in nothing but bytes that are secret, and is stopped after each
//! instruction; the lists of their addresses must be the same. So a loop that ends early, a branch and a call that depend on a
//! secret are found, in all that the call runs through, down to malloc and memcpy. That the method finds them is tested
//! with comparisons that do end early.
//!
//! What it cannot show: addresses of data that depend on a secret (tables, and so caches), instructions that themselves
//! take longer for some operands, and what a processor does ahead of time. And it holds for what it ran: these inputs,
//! this build, this processor. Without AES instructions the code is another. A `==` of two arrays of 32 bytes is
//! no different here from `ct_eq` where the compiler has made it so; it owes that to nobody.

use std::{
    env,
    hint::black_box,
    process::{self, Command},
};

use agcm::{EncryptOptions, Encryptor, Error, Key, KeyRing};
use nix::{
    libc,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getsid},
};

use crate::traced::{self, Shell};

/// Tells this binary, started once more, to make the calls of a test instead of looking at them.
const TRACED: &str = "AGCM_TRACED";

/// More than ten times what the longest of the calls takes. A call that takes more has lost its way to its second mark.
const MOST_INSTRUCTIONS: usize = 1_000_000;

/// The addresses of all instructions of a call.
type Trace = Vec<u64>;

/// An input, and what is said of it if it shows.
type Case = (&'static str, Vec<u8>);

/// Makes the same call with each of these inputs, all of one length, in a process of its own; `test` is the name of the test
/// that calls this. `None` where processes may not be traced.
fn traces(test: &str, cases: &[Case], call: impl Fn(&[u8])) -> Option<Vec<Trace>> {
    traces_of_prepared(test, cases, |_| (), |input, ()| call(input))
}

/// The same for calls to which something belongs that is prepared before, and not looked at.
fn traces_of_prepared<P>(
    test: &str,
    cases: &[Case],
    prepare: impl Fn(&[u8]) -> P,
    call: impl Fn(&[u8], P),
) -> Option<Vec<Trace>> {
    if env::var_os(TRACED).is_some() {
        make_calls(cases, prepare, call);
    }
    if !traced::is_permitted() {
        return None;
    }
    let mut command = Command::new("sh");
    command.args(["-c", r#"read _; exec "$0" "$@""#]).arg(env::current_exe().unwrap());
    command.args(["--exact", &format!("constant_time::{test}"), "--nocapture"]).env(TRACED, "1");
    let shell = Shell::trace(&mut command);
    let traces = follow(shell.pid());
    let (stdout, stderr) = shell.output();
    let output = [stdout, stderr].concat();
    assert_eq!(traces.len(), cases.len(), "{}", String::from_utf8_lossy(&output));
    Some(traces)
}

/// Makes the calls, each between two marks, with all inputs in one place of memory.
fn make_calls<P>(cases: &[Case], prepare: impl Fn(&[u8]) -> P, call: impl Fn(&[u8], P)) -> ! {
    let mut input = cases[0].1.clone();
    // What is done once only is done before; then the heap is the same before each call. AWS-LC keeps its last 16 errors.
    for _ in 0..20 {
        for (_, bytes) in cases {
            input.copy_from_slice(bytes);
            call(black_box(&input), prepare(&input));
        }
    }
    for (_, bytes) in cases {
        input.copy_from_slice(bytes);
        call_between_marks(&call, &input, prepare(&input));
    }
    process::exit(0);
}

/// Inlined it could be there twice, at two places.
#[inline(never)]
fn call_between_marks<P>(call: &dyn Fn(&[u8], P), input: &[u8], prepared: P) {
    mark();
    call(black_box(input), prepared);
    mark();
}

/// A system call that nothing else makes, neither the shell nor what is tested. What it returns is 0 where the session was begun
/// outside of this container, which is as good.
#[inline(never)]
fn mark() {
    let _ = black_box(getsid(None));
}

/// Follows the process to its end, instruction by instruction from each first mark to the second.
fn follow(process: Pid) -> Vec<Trace> {
    let mut traces = Vec::new();
    // Only what this thread has started: other tests wait for children of their own.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let (thread, signal) = match waitpid(None, Some(flags)).unwrap() {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == process => return traces,
            WaitStatus::PtraceSyscall(thread) => {
                let regs = ptrace::getregs(thread).unwrap();
                let is_exit = ptrace::syscall_info(thread).unwrap().op == libc::PTRACE_SYSCALL_INFO_EXIT;
                if is_exit && regs.orig_rax == libc::SYS_getsid as u64 {
                    let Some(trace) = step(thread, regs.rip) else {
                        // Then there are fewer traces than calls, and what the process has said tells why.
                        kill(process, Signal::SIGKILL).unwrap();
                        return traces;
                    };
                    traces.push(trace);
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, _, _) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        ptrace::syscall(thread, signal).unwrap();
    }
}

/// What the thread runs from here until it is here again, which is behind the next mark. `None` if it does not come there.
fn step(thread: Pid, here: u64) -> Option<Trace> {
    let mut trace = Vec::new();
    loop {
        ptrace::step(thread, None).unwrap();
        let status = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        if status != WaitStatus::Stopped(thread, Signal::SIGTRAP) || trace.len() == MOST_INSTRUCTIONS {
            return None;
        }
        let at = ptrace::getregs(thread).unwrap().rip;
        if at == here {
            return Some(trace);
        }
        trace.push(at);
    }
}

/// All inputs run the same instructions.
#[track_caller]
fn assert_same(test: &str, cases: &[Case], call: impl Fn(&[u8])) {
    assert_same_traces(cases, traces(test, cases, call));
}

#[track_caller]
fn assert_same_traces(cases: &[Case], traces: Option<Vec<Trace>>) {
    let Some(traces) = traces else { return };
    assert!(traces[0].len() > 100, "{} instructions cannot be all", traces[0].len());
    for ((name, _), trace) in cases.iter().zip(&traces).skip(1) {
        let common = trace.iter().zip(&traces[0]).take_while(|(a, b)| a == b).count();
        assert!(
            *trace == traces[0],
            "{name} shows: {} instructions, {} of {}, and after {common} they differ",
            trace.len(),
            traces[0].len(),
            cases[0].0,
        );
    }
}

/// The method finds what it is for.
#[test]
fn a_comparison_that_ends_early_shows() {
    let cases = [("all equal", 64), ("the first byte", 0), ("the second byte", 1), ("the last byte", 31)];
    let cases = cases.map(|(name, at)| {
        let mut bytes = [7; 65];
        bytes[at] = 8;
        (name, bytes[..64].to_vec())
    });
    let by_byte = |input: &[u8]| {
        let (a, b) = input.split_at(input.len() / 2);
        black_box(a.iter().zip(b).all(|(a, b)| black_box(a) == black_box(b)));
    };
    let Some(traces) = traces("a_comparison_that_ends_early_shows", &cases, by_byte) else { return };
    let lens: Vec<usize> = traces.iter().map(Vec::len).collect();
    assert!(lens[1] < lens[2] && lens[2] < lens[3] && lens[3] < lens[0], "{lens:?}");
}

#[test]
fn a_comparison_of_long_slices_by_equality_shows() {
    let cases = [("the first byte", 0), ("the last byte", 2047)].map(|(name, at)| {
        let mut bytes = vec![7; 4096];
        bytes[at] = 8;
        (name, bytes)
    });
    let by_memcmp = |input: &[u8]| {
        let (a, b) = input.split_at(input.len() / 2);
        black_box(a == b);
    };
    let Some(traces) = traces("a_comparison_of_long_slices_by_equality_shows", &cases, by_memcmp) else { return };
    assert!(traces[0].len() < traces[1].len(), "{} and {}", traces[0].len(), traces[1].len());
}

#[test]
fn where_a_commitment_is_wrong_does_not_show() {
    let key = key(1);
    let stream = agcm::encrypt(&key, &[0; 400]);
    let cases = [
        ("its first byte", wrong(&stream, 48..49)),
        ("its second byte", wrong(&stream, 49..50)),
        ("the middle", wrong(&stream, 64..65)),
        ("its last byte", wrong(&stream, 79..80)),
        ("all of it", wrong(&stream, 48..80)),
        ("that of another key", agcm::encrypt(&self::key(2), &[0; 400])),
    ];
    let ring = KeyRing::from(key);
    assert_same("where_a_commitment_is_wrong_does_not_show", &cases, |stream| {
        assert_eq!(agcm::decrypt(&ring, stream), Err(Error::KeyMismatch));
    });
}

#[test]
fn where_a_tag_is_wrong_does_not_show() {
    let key = key(1);
    let stream = agcm::encrypt(&key, &[0; 400]);
    let body = 84..484;
    let tag = body.end..body.end + 16;
    let cases = [
        ("its first byte", wrong(&stream, tag.start..tag.start + 1)),
        ("its last byte", wrong(&stream, tag.end - 1..tag.end)),
        ("all of it", wrong(&stream, tag)),
        ("the first byte of ciphertext", wrong(&stream, body.start..body.start + 1)),
        ("the last byte of ciphertext", wrong(&stream, body.end - 1..body.end)),
    ];
    let ring = KeyRing::from(key);
    assert_same("where_a_tag_is_wrong_does_not_show", &cases, |stream| {
        assert_eq!(agcm::decrypt(&ring, stream), Err(Error::Corrupt { frame: 0, at: 80 }));
    });
}

#[test]
fn where_keys_differ_does_not_show() {
    let equal = [7; 2 * Key::LEN];
    let cases = [
        ("nowhere", equal.to_vec()),
        ("in the first byte", wrong(&equal, 0..1)),
        ("in the last byte", wrong(&equal, 31..32)),
        ("in all", wrong(&equal, 0..32)),
    ];
    assert_same("where_keys_differ_does_not_show", &cases, |input| {
        let (a, b) = input.split_at(Key::LEN);
        let (a, b) = (Key::try_from(a).unwrap(), Key::try_from(b).unwrap());
        black_box(a == b);
    });
}

#[test]
fn which_hex_digits_a_key_has_does_not_show() {
    let digits = ["0", "9", "a", "f", "A", "F", "0123456789abcdefABCDEF9876543210", "Fa0f9A00"];
    let cases = digits.map(|digits| (digits, digits.repeat(2 * Key::LEN / digits.len()).into_bytes()));
    assert_same("which_hex_digits_a_key_has_does_not_show", &cases, |hex| {
        black_box(std::str::from_utf8(hex).unwrap().parse::<Key>().unwrap());
        black_box(Key::from_file_content(hex).unwrap());
    });
}

#[test]
fn which_bytes_a_key_file_has_does_not_show() {
    let cases = [("no hex digit", 0), ("one hex digit", 1), ("a half of them", 16), ("all but one", 31)].map(
        |(name, digits)| {
            let mut bytes = vec![0; Key::LEN];
            bytes[..digits].fill(b'a');
            (name, bytes)
        },
    );
    assert_same("which_bytes_a_key_file_has_does_not_show", &cases, |bytes| {
        black_box(Key::from_file_content(bytes).unwrap());
    });
}

#[test]
fn where_a_key_is_no_hex_does_not_show() {
    let cases = [("the first digit", 0), ("the second digit", 1), ("the last digit", 63)].map(|(name, at)| {
        let mut hex = vec![b'7'; 2 * Key::LEN];
        hex[at] = b'g';
        (name, hex)
    });
    assert_same("where_a_key_is_no_hex_does_not_show", &cases, |hex| {
        black_box(std::str::from_utf8(hex).unwrap().parse::<Key>().unwrap_err());
    });
}

/// To draw randomness is no part of it: some C libraries ask the kernel every third time only.
#[test]
fn which_key_and_plaintext_are_sealed_does_not_show() {
    let cases = secrets().map(|(name, key, plaintext)| (name, [&key[..], &plaintext].concat()));
    let start = |input: &[u8]| {
        let key = Key::try_from(&input[..Key::LEN]).unwrap();
        (Encryptor::start(&key, &EncryptOptions::new()).unwrap().0, Vec::with_capacity(1000))
    };
    let seal = |input: &[u8], (mut encryptor, mut stream): (Encryptor, Vec<u8>)| {
        encryptor.seal(&input[Key::LEN..], &mut stream).unwrap();
        stream.extend_from_slice(&encryptor.finish());
        black_box(stream);
    };
    let traces = traces_of_prepared("which_key_and_plaintext_are_sealed_does_not_show", &cases, start, seal);
    assert_same_traces(&cases, traces);
}

#[test]
fn which_key_and_plaintext_are_opened_does_not_show() {
    let cases = secrets().map(|(name, key, plaintext)| {
        let stream = agcm::encrypt(&Key::from_bytes(key), &plaintext);
        (name, [&key[..], &stream].concat())
    });
    assert_same("which_key_and_plaintext_are_opened_does_not_show", &cases, |input| {
        let (key, stream) = input.split_at(Key::LEN);
        black_box(agcm::decrypt(Key::try_from(key).unwrap(), stream).unwrap());
    });
}

fn secrets() -> [(&'static str, [u8; Key::LEN], [u8; 400]); 4] {
    [
        ("zeroes", [0; Key::LEN], [0; 400]),
        ("ones", [0xff; Key::LEN], [0xff; 400]),
        ("a key and zeroes", *key(1).expose_bytes(), [0; 400]),
        ("a key and numbers", *key(2).expose_bytes(), std::array::from_fn(|i| u8::try_from(i % 251).unwrap())),
    ]
}

/// A key of many different bytes.
fn key(seed: u8) -> Key {
    let bytes = (0..=u8::MAX).map(|i| i.wrapping_mul(73).wrapping_add(seed.wrapping_mul(151)));
    Key::try_from(&bytes.take(Key::LEN).collect::<Vec<u8>>()[..]).unwrap()
}

fn wrong(bytes: &[u8], places: std::ops::Range<usize>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[places].iter_mut().for_each(|byte| *byte ^= 0x5a);
    bytes
}
