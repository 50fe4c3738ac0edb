//! One operation on a file, on the blocking pool.
//!
//! A job must never publish anything after it was told to stop, and whoever is told of its progress may panic.

use std::{
    fs::{File, Metadata},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;

use super::{
    pump::{Callback, Sink, Source, stop_if},
    target::{Existing, Target, Visibility},
};
use crate::{error::at, progress::Meter};

/// A file that is to be made, and how.
pub(super) struct NewFile {
    path: PathBuf,
    visibility: Visibility,
    existing: Existing,
    /// The file whose owner it should have, if that can be.
    like: Option<Metadata>,
}

impl NewFile {
    pub(super) fn new(path: &Path, visibility: Visibility, existing: Existing) -> Self {
        Self { path: path.to_owned(), visibility, existing, like: None }
    }

    /// May take the place of the source, if it has the same name; and has its permissions, unless others were chosen.
    pub(super) fn succeeding(mut self, job: &Job) -> io::Result<Self> {
        if job.path.canonicalize().ok() == self.path.canonicalize().ok() {
            self.existing = Existing::Replace;
        }
        if let Visibility::Umask = self.visibility {
            let metadata = job.metadata()?;
            self.visibility = Visibility::Exactly(metadata.permissions());
            self.like = Some(metadata);
        }
        Ok(self)
    }

    pub(super) fn create(self) -> io::Result<Target> {
        let target = Target::create(&self.path, self.visibility, self.existing)?;
        #[cfg(unix)]
        if let Some(like) = self.like {
            use std::os::unix::fs::{MetadataExt, fchown};
            // Only root may give files away, and a group only who is in it: for others the file is theirs, as any new file.
            let _ = fchown(target.file(), Some(like.uid()), Some(like.gid()));
        }
        Ok(target)
    }
}

/// Work on one source.
pub(super) struct Job {
    path: PathBuf,
    file: File,
    meter: Meter<Callback>,
    cancelled: CancellationToken,
}

impl Job {
    pub(super) fn start(path: PathBuf, callback: Callback, cancelled: CancellationToken) -> io::Result<Self> {
        stop_if(&cancelled)?;
        let file = File::open(&path).map_err(|error| at(&path, "opening", error))?;
        // Of a pipe or a device the length says nothing.
        let len = file.metadata().ok().filter(Metadata::is_file).map(|metadata| metadata.len());
        Ok(Self { path, file, meter: Meter::new(len, callback), cancelled })
    }

    /// Makes the new file out of the source, whose place it must not take.
    pub(super) fn convert_to_another(
        self,
        new: NewFile,
        work: impl FnOnce(Source<'_>, Sink<'_>, &CancellationToken) -> io::Result<u64>,
    ) -> io::Result<u64> {
        if new.existing == Existing::Replace && self.is_at(&new.path)? {
            let words = "this is the source itself, which must not be replaced; choose another target";
            return Err(at(&new.path, "creating", io::Error::new(io::ErrorKind::InvalidInput, words)));
        }
        self.convert(new, work)
    }

    /// Makes the new file out of the source.
    pub(super) fn convert(
        self,
        new: NewFile,
        work: impl FnOnce(Source<'_>, Sink<'_>, &CancellationToken) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let target = new.create()?;
        let total = self.pump(Sink { path: target.path(), file: target.file() }, work)?;
        target.publish()?;
        Ok(total)
    }

    /// Does the work, and says that it is done. Nothing is published yet, in case whoever is told panics.
    pub(super) fn pump<W: Write>(
        mut self,
        to: W,
        work: impl FnOnce(Source<'_>, W, &CancellationToken) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let from = Source { path: &self.path, file: &self.file, meter: &mut self.meter };
        let total = work(from, to, &self.cancelled)?;
        self.meter.end();
        stop_if(&self.cancelled)?;
        Ok(total)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata().map_err(|error| at(&self.path, "looking at", error))
    }

    /// Whether the source is what is at `path`, by whatever name.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let (own, there) = (self.metadata()?, path.metadata());
            Ok(there.is_ok_and(|there| (own.dev(), own.ino()) == (there.dev(), there.ino())))
        }
        #[cfg(not(unix))]
        Ok(self.path.canonicalize()? == path.canonicalize().unwrap_or_default())
    }
}
