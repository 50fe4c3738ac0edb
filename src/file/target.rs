//! A file that appears whole or not at all: written beside its name, synced, and only then given it.
//!
//! It must never be seen half-written under its name, and never leave anything behind that was not published. Only a process
//! that is killed, or a machine that stops, leaves a temporary file, named `.agcm-*.partial`.

use std::{
    error, fmt,
    fs::{self, File, Metadata, Permissions},
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::error::{Explained, and, at};

/// Who may read a new file.
#[derive(Debug, Clone)]
pub(crate) enum Visibility {
    /// Whoever the process lets read its files.
    Umask,
    Owner,
    /// As these say, whatever the umask; until it is published, its owner.
    Exactly(Permissions),
}

/// What becomes of a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and creating the new one fails.
    Keep,
    /// The new one takes its place, in one step.
    Replace,
}

/// A file that has no name yet: a temporary one in the folder where it will appear, removed unless it is published.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    folder: Folder,
    temporary: NamedTempFile,
    permissions: Option<Permissions>,
    existing: Existing,
}

impl Target {
    pub(crate) fn create(path: &Path, visibility: Visibility, existing: Existing) -> io::Result<Self> {
        let path = checked(path, existing).map_err(|error| at(path, "creating", error))?;
        let folder = Folder::of(&path)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".agcm-").suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = if let Visibility::Umask = visibility { 0o666 } else { 0o600 };
            builder.permissions(Permissions::from_mode(mode));
        }
        let temporary = builder
            .tempfile_in(&folder.path)
            .map_err(|error| at(&folder.path, "creating a temporary file in", error))?;
        let permissions = if let Visibility::Exactly(permissions) = visibility { Some(permissions) } else { None };
        Ok(Self { path, folder, temporary, permissions, existing })
    }

    /// Takes the rights of its group away, which is not the one that they were meant for.
    #[cfg(unix)]
    pub(crate) fn withhold_from_group(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        if let Some(permissions) = &mut self.permissions {
            permissions.set_mode(permissions.mode() & !0o070);
        }
    }

    /// Where it will appear. A symbolic link was followed.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, to be written.
    pub(crate) fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Gives the file its name, once it is on disk.
    pub(crate) fn publish(self) -> io::Result<()> {
        let own = match self.complete() {
            Ok(own) => own,
            Err(error) => return Err(self.discard(error)),
        };
        let Self { path, folder, temporary, existing, .. } = self;
        let temporary_path = temporary.path().to_owned();
        let published = match existing {
            Existing::Keep => temporary.persist_noclobber(&path),
            Existing::Replace => temporary.persist(&path),
        };
        // Over a network, what was done may be answered with an error.
        let published = published.map_err(|error| (place(&path, &own, &temporary_path), error.error, Some(error.file)));
        #[cfg(test)]
        let published = published.and_then(|file| {
            let checked = faults::check(&path, Fault::Rename).map(|()| file);
            checked.map_err(|error| (place(&path, &own, &temporary_path), error, None))
        });
        if let Err((place, error, temporary)) = published {
            let error = at(&path, "publishing", error);
            let discard = |error| match temporary {
                Some(temporary) => discard(temporary, error),
                None => error,
            };
            match place {
                Place::Taken => {}
                Place::NotTaken => return Err(discard(error)),
                Place::Unknown => return Err(InPlace::error(discard(error))),
            }
        }
        // Where a file system cannot rename without replacing, the file had two names, and may have kept them.
        if existing == Existing::Keep {
            remove_second_name(&temporary_path).map_err(InPlace::error)?;
        }

        let synced = folder.sync();
        #[cfg(test)]
        let synced = synced.and(faults::check(&path, Fault::SyncFolder));
        synced.map_err(|error| {
            let error = at(&folder.path, "syncing", error);
            // Whether the name would survive a crash is not known, and an error should mean that there is no new file. But what
            // was replaced cannot be brought back.
            match existing {
                Existing::Keep if fs::remove_file(&path).is_ok() => error,
                _ => InPlace::error(error),
            }
        })
    }

    /// Sees to it that all of it is on disk.
    fn complete(&self) -> io::Result<Metadata> {
        let (path, file) = (&self.path, self.file());
        if let Some(permissions) = &self.permissions {
            let set = file.set_permissions(permissions.clone());
            set.map_err(|error| at(path, "setting the permissions of", error))?;
        }
        let synced = file.sync_all();
        #[cfg(test)]
        let synced = synced.and(faults::check(path, Fault::Sync));
        synced.map_err(|error| at(path, "syncing", error))?;
        file.metadata().map_err(|error| at(path, "looking at", error))
    }

    /// Removes the file, as this went wrong. The error also says so if that fails, too.
    pub(crate) fn discard(self, error: io::Error) -> io::Error {
        discard(self.temporary, error)
    }
}

fn remove_second_name(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // If it cannot be looked at, it may be there.
        _ => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, "removing", error)),
            _ => Ok(()),
        },
    }
}

fn discard(temporary: NamedTempFile, error: io::Error) -> io::Error {
    match temporary.close() {
        // It says which file it is.
        Err(removing) if removing.kind() != io::ErrorKind::NotFound => and(
            error,
            format!("and what was written until then could not be removed: {removing}; it may be plaintext: delete it"),
        ),
        _ => error,
    }
}

/// What became of a name that could not be given.
enum Place {
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix can tell"))]
    Taken,
    NotTaken,
    Unknown,
}

#[cfg(unix)]
fn place(path: &Path, own: &Metadata, _temporary: &Path) -> Place {
    match path.symlink_metadata() {
        Ok(there) if is_one_file(own, &there) => Place::Taken,
        Ok(_) => Place::NotTaken,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Place::NotTaken,
        Err(_) => Place::Unknown,
    }
}

/// Elsewhere metadata does not say which file it is of, but a file has one name only.
#[cfg(not(unix))]
fn place(_path: &Path, _own: &Metadata, temporary: &Path) -> Place {
    if temporary.symlink_metadata().is_ok() { Place::NotTaken } else { Place::Unknown }
}

/// Whether this is one file, by whatever names.
#[cfg(unix)]
pub(crate) fn is_one_file(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether this may be one file: elsewhere, metadata does not say which file it is of.
#[cfg(not(unix))]
pub(crate) fn is_one_file(one: &Metadata, other: &Metadata) -> bool {
    (one.len(), one.modified().ok()) == (other.len(), other.modified().ok())
}

/// The file has its name, or may have it, but that might not survive a crash.
#[derive(Debug)]
struct InPlace(io::Error);

impl InPlace {
    fn error(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error))
    }
}

impl fmt::Display for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the new file is whole and may be in its place, but might not be after a power failure: {}", self.0)
    }
}

impl error::Error for InPlace {}

/// Whether this error may have left the new file in its place.
pub(crate) fn is_in_place(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<InPlace>())
}

/// Refuses early what publishing would refuse after all the work, and says where the file will really be.
fn checked(path: &Path, existing: Existing) -> io::Result<PathBuf> {
    let refuse = |kind, words| Err(io::Error::new(kind, words));
    // `folder/` and `folder/.` have a name for the standard library, but ask for a folder, as the file system would say in the end.
    let bytes = path.as_os_str().as_encoded_bytes();
    if path.file_name().is_none_or(|name| !bytes.ends_with(name.as_encoded_bytes())) {
        return refuse(io::ErrorKind::InvalidInput, "this path does not name a file");
    }
    let there = match path.symlink_metadata() {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        Err(error) => return Err(error),
    };
    if there.is_dir() {
        return refuse(io::ErrorKind::IsADirectory, "there is a folder of this name");
    }
    // Only to save the work: what decides is that publishing does not replace.
    if existing == Existing::Keep {
        return refuse(
            io::ErrorKind::AlreadyExists,
            "there is something of this name already, and it is not replaced unless that is asked for",
        );
    }
    // The link stays, and the file that it leads to is replaced, as writing to it would have done.
    let path = path.canonicalize().map_err(|error| Explained::error("following this link".to_owned(), error))?;
    let there = path.metadata()?;
    if there.is_dir() {
        refuse(io::ErrorKind::IsADirectory, "this leads to a folder")
    } else if !there.is_file() {
        refuse(io::ErrorKind::InvalidInput, "this is a device or a pipe, which no file should take the place of")
    } else {
        Ok(path)
    }
}

/// The folder of a new file, to make names in it survive a crash.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// `None` where folders cannot be opened: on other systems than Unix, or because this one may be written but not read.
    /// Found out before the work is done, which would be in vain if it were found out after.
    file: Option<File>,
}

impl Folder {
    /// The folder of the file at `path`.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let path = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // The dot keeps a pipe in the folder's place from being opened, which could take for ever.
        let file = match File::open(path.join(".")) {
            _ if !cfg!(unix) => None,
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(at(&path, "opening the folder", error)),
        };
        Ok(Self { path, file })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.file.as_ref().map_or(Ok(()), File::sync_all) {
            // Some file systems, network ones among them, cannot sync a folder; there is nothing more to be done there.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
use faults::Fault;

/// Lets a test see what happens when a disk fails, which it hardly ever does by itself.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod faults {
    use std::{
        io,
        path::{Path, PathBuf},
        sync::Mutex,
    };

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        Sync,
        /// It is done, and answered with an error.
        Rename,
        SyncFolder,
    }

    static FAULTS: Mutex<Vec<(PathBuf, Fault)>> = Mutex::new(Vec::new());

    /// Once, when this file is published.
    pub(crate) fn set(path: &Path, fault: Fault) {
        FAULTS.lock().unwrap().push((path.to_owned(), fault));
    }

    pub(super) fn is_set(path: &Path) -> bool {
        FAULTS.lock().unwrap().iter().any(|(faulty, _)| faulty == path)
    }

    pub(super) fn check(path: &Path, fault: Fault) -> io::Result<()> {
        let mut faults = FAULTS.lock().unwrap();
        match faults.iter().position(|(faulty, kind)| faulty == path && *kind == fault) {
            Some(i) => {
                faults.remove(i);
                Err(io::Error::other("the disk was told to fail"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;

    use super::*;

    /// Publishes "new" with this fault; returns the error, and what is there then.
    fn publish(existing: Existing, fault: Fault) -> (io::Result<()>, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        // As the target has it: the folder itself may be reached by a link.
        let path = folder.path().canonicalize().unwrap().join("dst");
        if existing == Existing::Replace {
            fs::write(&path, "old").unwrap();
        }
        let target = Target::create(&path, Visibility::Umask, existing).unwrap();
        target.file().write_all(b"new").unwrap();
        faults::set(&path, fault);
        let result = target.publish();
        assert!(!faults::is_set(&path), "it has happened");
        let there = fs::read_to_string(&path).ok();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), usize::from(there.is_some()), "nothing else is left");
        (result, there)
    }

    #[test]
    fn a_file_that_is_not_on_disk_gets_no_name() {
        for (existing, before) in [(Existing::Keep, None), (Existing::Replace, Some("old"))] {
            let (result, there) = publish(existing, Fault::Sync);
            assert!(!is_in_place(&result.unwrap_err()));
            assert_eq!(there.as_deref(), before);
        }
    }

    #[test]
    fn a_name_that_may_not_survive_is_taken_back_or_said_to_be_there() {
        let (result, there) = publish(Existing::Keep, Fault::SyncFolder);
        assert!(!is_in_place(&result.unwrap_err()));
        assert_eq!(there, None);

        let (result, there) = publish(Existing::Replace, Fault::SyncFolder);
        assert!(is_in_place(&result.unwrap_err()));
        assert_eq!(there.unwrap(), "new");
    }

    #[test]
    fn a_name_that_was_given_counts_even_if_that_was_answered_with_an_error() {
        for existing in [Existing::Keep, Existing::Replace] {
            let (result, there) = publish(existing, Fault::Rename);
            // Where that can be seen.
            assert!(if cfg!(unix) { result.is_ok() } else { is_in_place(&result.unwrap_err()) });
            assert_eq!(there.unwrap(), "new");
        }
    }
}
