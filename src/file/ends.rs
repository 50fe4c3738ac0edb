//! The two ends of work on files: what is read, and what is written.
//!
//! Everything that is read is counted, every error says which file it is about, and work stops when it is told to.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use tokio_util::sync::CancellationToken;

use crate::{
    error::at,
    progress::{Meter, Progress},
};

/// Whom an operation tells about how far it has come.
pub(super) type Callback = Box<dyn FnMut(Progress) + Send>;

/// A file that is read, counted, with errors that say which one it is.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) meter: &'a mut Meter<Callback>,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buf).map_err(|error| at(self.path, "reading", error))?;
        self.meter.add(len as u64);
        Ok(len)
    }
}

/// A file that is written, with errors that say which one it is.
pub(super) struct Sink<'a> {
    pub(super) path: &'a Path,
    /// `None` if nothing is to be written.
    pub(super) file: Option<&'a File>,
}

impl Write for Sink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(mut file) = self.file else { return Ok(buf.len()) };
        file.write(buf).map_err(|error| at(self.path, "writing", error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends work that is not wanted any more.
pub(super) fn stop_if(cancelled: &CancellationToken) -> io::Result<()> {
    if cancelled.is_cancelled() { Err(stopped()) } else { Ok(()) }
}

/// Not `Interrupted`, which many a loop would try again.
pub(super) fn stopped() -> io::Error {
    io::Error::other("the operation was cancelled; nothing was published")
}
