//! A pseudo-terminal, and all that was ever shown on it.

use std::{
    ffi::CString,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Instant,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::{FdFlags, fcntl_setfd},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use crate::tool::{PATIENCE, text};

pub struct Terminal {
    name: CString,
    /// Of our own, so that the terminal stays one while nobody else has it open.
    slave: OwnedFd,
    arriving: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    pub fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        // Otherwise it would be in the hands of every process that is started from here.
        fcntl_setfd(&master, FdFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        // What is written to it is to be read as it is, without a carriage return before each newline.
        let mut termios = tcgetattr(&slave).unwrap();
        termios.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &termios).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { name, slave, arriving: read_all(master.into()), shown: Vec::new() }
    }

    /// For a process to have as one of its three.
    pub fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    pub fn name(&self) -> &str {
        self.name.to_str().unwrap()
    }

    /// Waits until this is shown.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str) {
        let start = Instant::now();
        while !self.shows(what) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let Ok(more) = self.arriving.recv_timeout(left) else { panic!("{:?}", text(&self.shown)) };
            self.shown.extend(more);
        }
    }

    /// Whether this is shown by now.
    pub fn shows(&mut self, what: &str) -> bool {
        self.shown.extend(self.arriving.try_iter().flatten());
        text(&self.shown).contains(what)
    }

    /// All that was shown, once no process has the terminal any more.
    pub fn shown(self) -> Vec<u8> {
        let Self { slave, arriving, mut shown, .. } = self;
        drop(slave);
        shown.extend(arriving.into_iter().flatten());
        shown
    }
}

/// Reads on a thread of its own: a terminal that nobody reads soon blocks its writers.
fn read_all(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buf = [0; 4096];
        // The last one to close the terminal makes this an error, or an end of file.
        while let Ok(len @ 1..) = master.read(&mut buf) {
            if sender.send(buf[..len].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
