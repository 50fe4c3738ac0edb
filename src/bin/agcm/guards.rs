//! What a command refuses to do to files, because nobody can mean it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// Some commands read or write in any order, or a file only: for them, `-` is not a pipe, and must not become a file of that name.
pub(crate) fn needs_name(path: &Path) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        return Err(Failure::usage(
            "here a file is needed, not standard input or output (./- for a file of that name)",
        ));
    }
    Ok(())
}

/// Refuses to write over a key, by whatever name, or into a folder of them: nothing would open what it has encrypted.
pub(crate) fn keep_keys_from<'a>(output: &Path, keys: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Failure> {
    // It may not be there yet: a key that is, by then, would be replaced all the same.
    let place = match (self::place(output)?, output.parent(), output.file_name()) {
        (Some(place), ..) => Some(place),
        (None, Some(folder), Some(name)) => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            self::place(folder)?.map(|folder| folder.join(name))
        }
        _ => None,
    };
    let place = place.unwrap_or_else(|| output.to_owned());
    // That one may not be for this at all, nor for whoever runs it.
    let chosen = env::var_os("AGCM_KEYFILE").filter(|name| !name.is_empty()).map(PathBuf::from);
    let chosen =
        chosen.filter(|key| !fs::metadata(key).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied));
    for key in keys.into_iter().cloned().chain(chosen) {
        let key_place = self::place(&key)?.unwrap_or_else(|| key.clone());
        if place.starts_with(key_place) || is_one_file(output, &key)? {
            return Err(Failure::usage(format!(
                "{output:?} is a key, or where one will be, and must not be replaced; choose another name"
            )));
        }
    }
    Ok(())
}

/// Whether these are one file, by whatever names. If that cannot be told, they might be.
#[cfg(unix)]
pub(crate) fn is_one_file(one: &Path, other: &Path) -> Result<bool, Failure> {
    use std::os::unix::fs::MetadataExt;
    let file = |path| Ok::<_, Failure>(there(path, fs::metadata(path))?.map(|there| (there.dev(), there.ino())));
    Ok(match file(one)? {
        Some(one) => file(other)? == Some(one),
        None => false,
    })
}

#[cfg(not(unix))]
pub(crate) fn is_one_file(one: &Path, other: &Path) -> Result<bool, Failure> {
    Ok(match place(one)? {
        Some(one) => place(other)? == Some(one),
        None => false,
    })
}

/// Where the file at `path` really is, if there is one.
fn place(path: &Path) -> Result<Option<PathBuf>, Failure> {
    there(path, fs::canonicalize(path))
}

/// What was found, or that nothing is there; an error says neither.
fn there<T>(path: &Path, found: io::Result<T>) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        // There are drives of Windows that cannot say where a file is.
        Err(_) if cfg!(windows) => Ok(None),
        Err(error) => Err(Failure::from(error).about(&format!("looking at {path:?}"))),
    }
}
