//! Processes that run under ptrace, as under a debugger, from their first instruction on.

use std::{
    env,
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::ptrace::{self, Options},
    unistd::Pid,
};

/// Whether a process may trace another one here. If not, that is said, or with `AGCM_REQUIRE_PTRACE` it is a failure.
pub fn is_permitted() -> bool {
    let mut shell = Shell::start(Command::new("sh").args(["-c", "read _"]));
    let permitted = ptrace::seize(shell.pid(), Options::empty()).is_ok();
    shell.go();
    shell.0.wait().unwrap();
    if !permitted {
        assert!(env::var_os("AGCM_REQUIRE_PTRACE").is_none(), "processes may not be traced here");
        // Not by the macro, which is not shown where a test passes.
        let _ = writeln!(std::io::stderr(), "passed by: processes may not be traced here");
    }
    permitted
}

/// A shell that waits until it is traced, and then becomes what is to be traced. What that puts out must fit into a pipe.
pub struct Shell(Child);

impl Shell {
    /// Traces a shell whose script begins with `read _`, with all its threads. Each system call stops it.
    pub fn trace(command: &mut Command) -> Self {
        let mut shell = Self::start(command);
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(shell.pid(), options).unwrap();
        shell.go();
        shell
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    /// What it has put out, and what it has complained about, once it has ended.
    pub fn output(mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        (stdout, stderr)
    }

    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn go(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
}
