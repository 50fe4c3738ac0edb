//! Random bytes, straight from the operating system for every call.
//!
//! Nothing is ever buffered in user space: a forked process or a restored virtual machine would hand the same bytes out
//! twice, and a nonce with them.

use std::io;

use rand::{TryRng, rngs::SysRng};

/// `N` fresh random bytes, or the error of the operating system's generator.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    #[cfg(test)]
    failing::check()?;

    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| io::Error::other(format!("the operating system gives no random bytes: {error}")))?;
    Ok(bytes)
}

/// Lets a test see what an adapter does when the generator fails, which it hardly ever does by itself.
#[cfg(test)]
pub(crate) mod failing {
    use std::{cell::Cell, io};

    thread_local!(static FAIL: Cell<bool> = const { Cell::new(false) });

    /// From now on the generator fails on this thread, or works again.
    pub(crate) fn set(fail: bool) {
        FAIL.set(fail);
    }

    pub(super) fn check() -> io::Result<()> {
        if FAIL.get() { Err(io::Error::other("the generator was told to fail")) } else { Ok(()) }
    }
}
