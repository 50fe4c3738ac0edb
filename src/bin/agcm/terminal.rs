//! What may go to a terminal, and what is one.

use std::{path::Path, str};

use crate::failure::Failure;

/// Whether this is a terminal. Nothing but a device is opened: a pipe would wait for its other end.
#[cfg(unix)]
pub(crate) fn is_terminal(path: &Path) -> bool {
    use std::{fs, io::IsTerminal, os::unix::fs::FileTypeExt};
    let device = fs::metadata(path).is_ok_and(|there| there.file_type().is_char_device());
    device && fs::File::open(path).is_ok_and(|file| file.is_terminal())
}

#[cfg(not(unix))]
pub(crate) fn is_terminal(_: &Path) -> bool {
    false
}

pub(crate) fn binary_to_terminal() -> Failure {
    Failure::usage("binary data would go to the terminal: choose a file with -o, or -f if you mean it")
}

/// Tells text, which a terminal shows, from what it would do something else with: UTF-8 without control characters, which
/// comes in pieces that may end anywhere.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// The start of a character whose end is still to come.
    begun: Vec<u8>,
}

impl Text {
    pub(crate) fn goes_on(&mut self, bytes: &[u8]) -> bool {
        let bytes = [&self.begun, bytes].concat();
        let text = match str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_some() => return false,
            Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        };
        self.begun = bytes[text.len()..].to_vec();
        text.chars().all(|char| !char.is_control() || matches!(char, '\t' | '\n' | '\r'))
    }
}
