//! One operation on a file, on the blocking pool.
//!
//! A job must never publish anything after it was told to stop, and whoever is told of its progress may panic.

use std::{
    fs::{File, Metadata},
    io,
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;

use super::{
    ends::{Callback, Sink, Source, stop_if},
    target::{Existing, Target, Visibility, is_one_file},
};
use crate::{error::at, progress::Meter};

/// A file that is to be made, and how.
pub(super) struct NewFile {
    path: PathBuf,
    visibility: Visibility,
    existing: Existing,
    /// What the source was when the work began, if this is to succeed it.
    source: Option<Metadata>,
    /// It takes the place of the source.
    in_place: bool,
    /// It has the permissions of the source, which are meant for its owner and group.
    inherits: bool,
}

impl NewFile {
    pub(super) fn new(path: &Path, visibility: Visibility, existing: Existing) -> Self {
        Self { path: path.to_owned(), visibility, existing, source: None, in_place: false, inherits: false }
    }

    /// May take the place of the source, if it has the same name; and has its permissions, unless others were chosen.
    pub(super) fn succeeding(mut self, job: &Job) -> io::Result<Self> {
        let metadata = job.metadata()?;
        if let (Some(source), Some(target)) = (place(&job.path)?, place(&self.path)?) {
            self.in_place = source == target;
        }
        if self.in_place {
            self.existing = Existing::Replace;
        }
        if let Visibility::Umask = self.visibility {
            self.visibility = Visibility::Exactly(metadata.permissions());
            self.inherits = true;
        }
        self.source = Some(metadata);
        Ok(self)
    }

    /// Refuses to take the place of anything but the source as it was.
    fn check_place(&self, path: &Path) -> io::Result<()> {
        let (true, Some(source)) = (self.in_place, &self.source) else { return Ok(()) };
        let same = |there: &Metadata| {
            let (now, then) = ((there.len(), there.modified().ok()), (source.len(), source.modified().ok()));
            is_one_file(there, source) && now == then
        };
        match path.metadata() {
            Ok(there) if same(&there) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path, "looking at", error)),
            _ => {}
        }
        Err(at(path, "publishing", io::Error::other("the file was changed meanwhile, and is left as it is; try again")))
    }

    pub(super) fn create(&self) -> io::Result<Target> {
        let target = Target::create(&self.path, self.visibility.clone(), self.existing)?;
        #[cfg(unix)]
        let mut target = target;
        #[cfg(unix)]
        if let Some(like) = &self.source {
            use std::os::unix::fs::{MetadataExt, fchown};
            // Only root may give files away, and to a group only who is in it. For others the file is theirs, as any new file.
            let given = fchown(target.file(), Some(like.uid()), Some(like.gid()));
            let given = given.or_else(|_| fchown(target.file(), None, Some(like.gid())));
            if given.is_err() && self.inherits {
                target.withhold_from_group();
            }
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
        let total = self.pump(Sink { path: target.path(), file: Some(target.file()) }, work);
        match total.and_then(|total| new.check_place(target.path()).map(|()| total)) {
            Ok(total) => target.publish().map(|()| total),
            Err(error) => Err(target.discard(error)),
        }
    }

    /// Does the work, and says that it is done. Nothing is published yet, in case whoever is told panics.
    pub(super) fn pump(
        mut self,
        to: Sink<'_>,
        work: impl FnOnce(Source<'_>, Sink<'_>, &CancellationToken) -> io::Result<u64>,
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
        let own = self.metadata()?;
        match path.metadata() {
            Ok(there) => Ok(is_one_file(&own, &there)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(path, "looking at", error)),
        }
    }
}

/// Where the file at `path` really is, if there is one.
fn place(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // There are drives of Windows that cannot say where a file is.
        Err(_) if cfg!(windows) => Ok(None),
        Err(error) => Err(at(path, "looking for", error)),
    }
}
