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
    let place = fs::canonicalize(output).or_else(|_| match (output.parent(), output.file_name()) {
        (Some(folder), Some(name)) => Ok(fs::canonicalize(folder)?.join(name)),
        _ => Err(io::ErrorKind::NotFound.into()),
    });
    let place = place.unwrap_or_else(|_: io::Error| output.to_owned());
    let chosen = env::var_os("AGCM_KEYFILE").filter(|name| !name.is_empty()).map(PathBuf::from);
    for key in keys.into_iter().cloned().chain(chosen) {
        let key_place = fs::canonicalize(&key).unwrap_or_else(|_| key.clone());
        if place.starts_with(key_place) || is_one_file(output, &key) {
            return Err(Failure::usage(format!(
                "{output:?} is a key, or where one will be, and must not be replaced; choose another name"
            )));
        }
    }
    Ok(())
}

#[cfg(unix)]
pub(crate) fn is_one_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path| fs::metadata(path).ok().map(|there| (there.dev(), there.ino()));
    file(one).is_some_and(|one| file(other) == Some(one))
}

#[cfg(not(unix))]
pub(crate) fn is_one_file(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}
