//! Runs the binary under ptrace, as a debugger does, and gets at each of its operations on the files of one folder: to count
//! them, to have one fail, to have it done in part only, to kill the process there.
//!
//! Operations are counted over all threads, from the moment that the runtime is built: what the loader does is not the
//! binary's. An operation that is made to fail is never done, unless that is asked for.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::PathBuf,
    process::{Command, ExitStatus, Output},
};

use nix::{
    errno::Errno,
    libc::{self, user_regs_struct},
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    folder::Folder,
    tool::{checked, in_folder},
    traced::Shell,
};

/// Where a system call says which file it is about.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// In an argument with a descriptor.
    Fd(usize),
    /// In an argument with a path.
    Path(usize),
    /// In an argument with a path, behind the one with its folder. If it is empty, that is the file.
    PathAt(usize),
}

/// All calls of the kernel that do something to a file.
const CALLS: [(libc::c_long, &str, Of); 45] = [
    (libc::SYS_access, "access", Of::Path(0)),
    (libc::SYS_chmod, "chmod", Of::Path(0)),
    (libc::SYS_chown, "chown", Of::Path(0)),
    (libc::SYS_close, "close", Of::Fd(0)),
    (libc::SYS_copy_file_range, "copy_file_range", Of::Fd(0)),
    (libc::SYS_faccessat, "faccessat", Of::PathAt(1)),
    (libc::SYS_faccessat2, "faccessat2", Of::PathAt(1)),
    (libc::SYS_fallocate, "fallocate", Of::Fd(0)),
    (libc::SYS_fchmod, "fchmod", Of::Fd(0)),
    (libc::SYS_fchmodat, "fchmodat", Of::PathAt(1)),
    (libc::SYS_fchown, "fchown", Of::Fd(0)),
    (libc::SYS_fchownat, "fchownat", Of::PathAt(1)),
    (libc::SYS_fdatasync, "fdatasync", Of::Fd(0)),
    (libc::SYS_flock, "flock", Of::Fd(0)),
    (libc::SYS_fstat, "fstat", Of::Fd(0)),
    (libc::SYS_fsync, "fsync", Of::Fd(0)),
    (libc::SYS_ftruncate, "ftruncate", Of::Fd(0)),
    (libc::SYS_getdents64, "getdents64", Of::Fd(0)),
    (libc::SYS_link, "link", Of::Path(1)),
    (libc::SYS_linkat, "linkat", Of::PathAt(3)),
    (libc::SYS_lseek, "lseek", Of::Fd(0)),
    (libc::SYS_lstat, "lstat", Of::Path(0)),
    (libc::SYS_mkdir, "mkdir", Of::Path(0)),
    (libc::SYS_mkdirat, "mkdirat", Of::PathAt(1)),
    (libc::SYS_newfstatat, "newfstatat", Of::PathAt(1)),
    (libc::SYS_open, "open", Of::Path(0)),
    (libc::SYS_openat, "openat", Of::PathAt(1)),
    (libc::SYS_openat2, "openat2", Of::PathAt(1)),
    (libc::SYS_pread64, "pread64", Of::Fd(0)),
    (libc::SYS_preadv2, "preadv2", Of::Fd(0)),
    (libc::SYS_pwrite64, "pwrite64", Of::Fd(0)),
    (libc::SYS_pwritev2, "pwritev2", Of::Fd(0)),
    (libc::SYS_read, "read", Of::Fd(0)),
    (libc::SYS_readlink, "readlink", Of::Path(0)),
    (libc::SYS_readlinkat, "readlinkat", Of::PathAt(1)),
    (libc::SYS_readv, "readv", Of::Fd(0)),
    (libc::SYS_rename, "rename", Of::Path(1)),
    (libc::SYS_renameat, "renameat", Of::PathAt(3)),
    (libc::SYS_renameat2, "renameat2", Of::PathAt(3)),
    (libc::SYS_stat, "stat", Of::Path(0)),
    (libc::SYS_statx, "statx", Of::PathAt(1)),
    (libc::SYS_unlink, "unlink", Of::Path(0)),
    (libc::SYS_unlinkat, "unlinkat", Of::PathAt(1)),
    (libc::SYS_write, "write", Of::Fd(0)),
    (libc::SYS_writev, "writev", Of::Fd(0)),
];

/// One operation on a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The name of the system call.
    pub call: &'static str,
    /// The file within the folder; empty for the folder itself.
    pub file: String,
    /// It may make a file.
    pub creates: bool,
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with an error, and not done.
    Fails(Errno),
    /// It is done, and answered with an error all the same, as over a network.
    DoneBut(Errno),
    /// Half of the bytes are read or written.
    Short,
    /// The process is killed before it is done.
    Killed,
    /// The process is killed when it is done.
    KilledAfter,
}

/// Which operations something happens to.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    /// The one with this number.
    pub at: Option<(usize, Fault)>,
    /// All of these but that one fail.
    pub always: Option<fn(&Operation) -> Option<Errno>>,
}

/// How a run went.
pub struct Traced {
    pub output: Output,
    pub operations: Vec<Operation>,
    /// The one that something happened to.
    pub hit: Option<Operation>,
}

impl Traced {
    pub fn killed(&self) -> bool {
        self.output.status.signal() == Some(libc::SIGKILL)
    }
}

/// Runs `agcm LINE` in this folder to its end. The line is the shell's: it may redirect. What it puts out must fit into a pipe.
pub fn run(folder: &Folder, line: &str, plan: Plan) -> Traced {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("read _; exec \"$0\" {line}"), env!("CARGO_BIN_EXE_agcm")]);
    let shell = Shell::trace(&mut in_folder(command, folder));
    let mut tracer = Tracer {
        root: folder.root().canonicalize().unwrap(),
        process: shell.pid(),
        memory: None,
        begun: false,
        answers: HashMap::new(),
        operations: Vec::new(),
        plan,
    };
    let status = tracer.follow();
    let (stdout, stderr) = shell.output();
    let hit = plan.at.and_then(|(at, _)| tracer.operations.get(at).cloned());
    Traced { output: checked(Output { status, stdout, stderr }), operations: tracer.operations, hit }
}

struct Tracer {
    root: PathBuf,
    process: Pid,
    memory: Option<File>,
    begun: bool,
    /// What becomes of the calls that threads are in.
    answers: HashMap<Pid, Answer>,
    operations: Vec<Operation>,
    plan: Plan,
}

#[derive(Clone, Copy)]
enum Answer {
    Error(Errno),
    Kill,
}

impl Tracer {
    fn follow(&mut self) -> ExitStatus {
        // Only what this thread has started: other tests wait for children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let (thread, signal) = match waitpid(None, Some(flags)).unwrap() {
                WaitStatus::Exited(pid, code) if pid == self.process => return ExitStatus::from_raw(code << 8),
                WaitStatus::Signaled(pid, signal, _) if pid == self.process => {
                    return ExitStatus::from_raw(signal as i32);
                }
                WaitStatus::PtraceSyscall(thread) => {
                    match self.call(thread) {
                        // The thread may have been killed meanwhile, with the others.
                        Ok(()) | Err(Errno::ESRCH) => {}
                        Err(error) => panic!("{error}"),
                    }
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, _, _) => (thread, None),
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                _ => continue,
            };
            match ptrace::syscall(thread, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A thread is about to make a call, or has made it.
    fn call(&mut self, thread: Pid) -> nix::Result<()> {
        let mut regs = ptrace::getregs(thread)?;
        if ptrace::syscall_info(thread)?.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            match self.answers.remove(&thread) {
                Some(Answer::Error(errno)) => {
                    regs.rax = -i64::from(errno as i32) as u64;
                    ptrace::setregs(thread, regs)?;
                }
                Some(Answer::Kill) => kill(self.process, Signal::SIGKILL)?,
                None => {}
            }
            return Ok(());
        }
        let number = regs.orig_rax as i64;
        self.begun |= number == libc::SYS_epoll_create1;
        if !self.begun {
            return Ok(());
        }
        let Some(operation) = self.operation(thread, number, &regs) else { return Ok(()) };
        let chosen = self.plan.at.filter(|(at, _)| *at == self.operations.len());
        let always = self.plan.always.and_then(|fails| fails(&operation)).map(Fault::Fails);
        self.operations.push(operation);
        let answer = match chosen.map(|(_, fault)| fault).or(always) {
            None => return Ok(()),
            Some(Fault::Fails(errno)) => {
                // No call of the kernel has this number.
                regs.orig_rax = u64::MAX;
                Answer::Error(errno)
            }
            Some(Fault::DoneBut(errno)) => Answer::Error(errno),
            Some(Fault::Short) => {
                regs.rdx = regs.rdx.div_ceil(2);
                return ptrace::setregs(thread, regs);
            }
            Some(Fault::Killed) => {
                regs.orig_rax = u64::MAX;
                ptrace::setregs(thread, regs)?;
                return kill(self.process, Signal::SIGKILL);
            }
            Some(Fault::KilledAfter) => Answer::Kill,
        };
        self.answers.insert(thread, answer);
        ptrace::setregs(thread, regs)
    }

    /// What a call does, if that is to a file of the folder.
    fn operation(&mut self, thread: Pid, number: i64, regs: &user_regs_struct) -> Option<Operation> {
        let (_, call, of) = CALLS.iter().find(|(n, ..)| *n == number)?;
        let arguments = [regs.rdi, regs.rsi, regs.rdx, regs.r10];
        let path = match *of {
            Of::Fd(i) => descriptor(thread, arguments[i])?,
            Of::Path(i) => {
                let path = self.text(arguments[i])?;
                self.root.join(path)
            }
            Of::PathAt(i) => {
                let path = self.text(arguments[i])?;
                // The upper half of what is an `int` says nothing.
                let folder = u32::try_from(arguments[i - 1] & 0xffff_ffff).unwrap() as i32;
                match folder {
                    _ if path.is_absolute() => path,
                    libc::AT_FDCWD => self.root.join(path),
                    folder => descriptor(thread, folder.try_into().ok()?)?.join(path),
                }
            }
        };
        // Without `.` in between.
        let path: PathBuf = path.components().collect();
        let file = path.strip_prefix(&self.root).ok()?.to_str()?.to_owned();
        let flags = i32::try_from(regs.rdx & 0xffff_ffff).unwrap_or(0);
        let creates = matches!(*call, "mkdir" | "link" | "linkat") || *call == "openat" && flags & libc::O_CREAT != 0;
        Some(Operation { call, file, creates })
    }

    /// The path at a place in its memory.
    fn text(&mut self, at: u64) -> Option<PathBuf> {
        if self.memory.is_none() {
            self.memory = Some(File::open(format!("/proc/{}/mem", self.process)).ok()?);
        }
        let mut bytes = [0; 1024];
        let len = self.memory.as_ref()?.read_at(&mut bytes, at).ok()?;
        let bytes = bytes[..len].split(|byte| *byte == 0).next()?;
        Some(PathBuf::from(std::str::from_utf8(bytes).ok()?))
    }
}

fn descriptor(thread: Pid, number: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{thread}/fd/{}", number & 0xffff_ffff)).ok()
}
