//! A file that appears whole or not at all: written beside its name, synced, and only then given it.
//!
//! It must never be seen half-written under its name, and never leave anything behind that was not published. Only a process
//! that is killed, or a machine that stops, leaves a temporary file, named `.agcm-*.partial`.

use std::{
    error, fmt,
    fs::{self, File, Permissions},
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::error::at;

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
        let Self { path, folder, temporary, permissions, existing } = self;
        if let Some(permissions) = permissions {
            let set = temporary.as_file().set_permissions(permissions);
            set.map_err(|error| at(&path, "setting the permissions of", error))?;
        }
        temporary.as_file().sync_all().map_err(|error| at(&path, "syncing", error))?;
        let published = match existing {
            Existing::Keep => temporary.persist_noclobber(&path),
            Existing::Replace => temporary.persist(&path),
        };
        published.map_err(|error| at(&path, "publishing", error.error))?;
        folder.sync().map_err(|error| {
            let error = at(&folder.path, "syncing", error);
            // Whether the name would survive a crash is not known, and an error should mean that there is no new file. But what
            // was replaced cannot be brought back.
            match existing {
                Existing::Keep if fs::remove_file(&path).is_ok() => error,
                _ => io::Error::new(error.kind(), InPlace(error)),
            }
        })
    }
}

/// The file could not be published in a way that survives a crash, but it has its name.
#[derive(Debug)]
struct InPlace(io::Error);

impl fmt::Display for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the new file is whole and in its place, but might not be after a power failure: {}", self.0)
    }
}

impl error::Error for InPlace {}

/// Whether this error left the new file in its place.
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
            "there is something of this name already, which is replaced only if that is asked for (overwrite, -f)",
        );
    }
    // The link stays, and the file that it leads to is replaced, as writing to it would have done.
    let path = path.canonicalize()?;
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
