//! Wipes what key schedules and frames leave on the stack.
//!
//! Backends wipe what they know of, but not what the compiler has moved or spilled. That would stay for as long as the thread does
//! not get there again, and worse: what is moved to the heap has gaps that are not initialised, and takes along what was there before.
//! So key schedules came to be in memory that nobody would wipe. This is an effort, not a promise: it rests on how the compiler lays out
//! the stack, which `tests/secrets` looks at.

use std::hint::black_box;

/// How much of the stack is wiped when a key was set up, and when a frame was sealed or opened, in bytes. `tests/secrets` finds
/// something left with 3 KiB and 1 KiB, in a debug build. Each wipe of a frame takes some 0.1 µs: a hundredth of the time of a chunk of
/// 64 KiB, a quarter of that of one of 256 bytes (2026-11-23, sealed and opened by one-shots, as pairs with a build that wipes nothing).
pub(super) const SETUP_DEPTH: usize = 8 * 1024;
pub(super) const FRAME_DEPTH: usize = 3 * 1024;

/// Does some work, and wipes what it has left on the stack, down to this depth.
pub(super) fn then_wipe_stack<const DEPTH: usize, T>(work: impl FnOnce() -> T) -> T {
    // Not a part of its caller, so that it begins where the wipe will begin.
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    // Also if the work panics.
    let _wiped_afterwards = Wipe::<DEPTH>;
    apart(work)
}

struct Wipe<const DEPTH: usize>;

impl<const DEPTH: usize> Drop for Wipe<DEPTH> {
    // It begins where the work began, so it must not become a part of its caller either.
    #[inline(never)]
    fn drop(&mut self) {
        black_box(&mut [0u8; DEPTH]);
    }
}
