//! Random bytes, straight from the operating system for every call.
//!
//! Nothing is kept here for later: a forked process or a restored virtual machine would hand the same bytes out twice, and start
//! two streams with one nonce. (Where the C library asks the kernel's code in user space, as glibc 2.41 does on Linux 6.11, the kernel sees
//! to that.)

use std::io;

use rand::{TryRng, rngs::SysRng};

/// Fills `bytes` with fresh random ones, where they lie: no copy of what may become a key stays on the stack.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(test)]
    failing::check()?;

    SysRng
        .try_fill_bytes(bytes)
        .map_err(|error| io::Error::other(format!("the operating system gives no random bytes: {error}")))
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
