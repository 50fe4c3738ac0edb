//! Keys in files: 64 hex digits and a newline, or 32 raw bytes.
//!
//! A new key file is for its owner alone, appears whole or not at all, and never takes the place of another file.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    str,
};

use zeroize::Zeroizing;

use crate::{
    blocking,
    error::{Error, at},
    file::target::{Existing, Target, Visibility},
    key::Key,
};

/// More than any key file holds, in bytes.
pub(crate) const MAX_FILE_LEN: usize = 4096;

impl Key {
    /// The key in what a key file holds: 64 hex digits, which may be followed by one newline (`\n` or `\r\n`), or exactly
    /// 32 raw bytes.
    ///
    /// ```
    /// use agcm::Key;
    ///
    /// let hex = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    /// let raw: Vec<u8> = (0..32).collect();
    /// assert_eq!(Key::from_file_content(hex)?, Key::from_file_content(&raw)?);
    /// # Ok::<(), agcm::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] for anything else. 32 bytes that are hex digits are half a key, not raw bytes.
    #[doc(alias = "from_hex")]
    pub fn from_file_content(content: &[u8]) -> Result<Self, Error> {
        // Half a key in hex would pass for a whole one in raw bytes. Decoding it tells in constant time.
        let mut half = Zeroizing::new([0; Self::LEN / 2]);
        if content.len() == Self::LEN && base16ct::mixed::decode(content, &mut half[..]).is_err() {
            return Self::try_from(content);
        }
        let line = content.strip_suffix(b"\n").map_or(content, |line| line.strip_suffix(b"\r").unwrap_or(line));
        str::from_utf8(line).map_err(|_| Error::InvalidKey)?.parse()
    }

    /// Reads the key in a file, of one of the forms of [`from_file_content`](Self::from_file_content).
    ///
    /// Who else may read the file is not looked at: secrets that an orchestrator mounts are often readable for all. A
    /// [`DirKeyStore`](crate::keystore::DirKeyStore) is strict about that.
    ///
    /// ```
    /// use agcm::Key;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("backup.key");
    /// let key = Key::generate();
    /// key.write_file(&path).await?;
    /// assert_eq!(Key::read_file(&path).await?, key);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] inside of an [`io::Error`], or whatever the file system says; both with the path, neither with
    /// any of what the file holds.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn read_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        blocking::io(move || {
            let content = File::open(&path)
                .and_then(|file| read_short(&file))
                .map_err(|error| at(&path, "reading the key file", error))?;
            Self::from_file_content(&content).map_err(|error| at(&path, "reading the key file", error.into()))
        })
        .await
    }

    /// Writes the key to a new file, as 64 hex digits and a newline. On Unix only its owner may read it (mode 0600).
    ///
    /// The file is synced to disk before it gets its name.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is anything at `path`, which is never replaced. Whatever the
    /// file system says, with the path; there is no new file then.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the file is written or not, but never in part.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn write_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (path, key) = (path.as_ref().to_owned(), self.clone());
        blocking::io(move || create(&path, &key.to_file_content())).await
    }

    /// The key as 64 hex digits, to store it somewhere safe. The text is the caller's to keep from others, and is wiped.
    ///
    /// ```
    /// use agcm::Key;
    ///
    /// let key = Key::generate();
    /// assert_eq!(key.expose_hex().parse::<Key>()?, key);
    /// # Ok::<(), agcm::Error>(())
    /// ```
    #[must_use]
    pub fn expose_hex(&self) -> Zeroizing<String> {
        let mut digits = Zeroizing::new([0; 2 * Self::LEN]);
        match base16ct::lower::encode_str(self.expose_bytes(), &mut digits[..]) {
            Ok(hex) => Zeroizing::new(hex.to_owned()),
            Err(_) => unreachable!("64 bytes hold 64 hex digits"),
        }
    }

    /// 64 hex digits and a newline.
    pub(crate) fn to_file_content(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.expose_hex().as_bytes(), b"\n"].concat())
    }
}

/// Makes a new file for its owner alone.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let target = Target::create(path, Visibility::Owner, Existing::Keep)?;
    match target.file().write_all(content) {
        Ok(()) => target.publish(),
        Err(error) => Err(target.discard(at(path, "writing", error))),
    }
}

/// All of a file, or the first [`MAX_FILE_LEN`] bytes.
pub(crate) fn read_short(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Of its full size from the start: growing would leave a copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 32));
    file.take(MAX_FILE_LEN as u64).read_to_end(&mut content)?;
    Ok(content)
}
