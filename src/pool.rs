//! Chunk buffers that go from one stream to the next, in the whole process.
//!
//! To allocate a buffer takes longer than to seal a short stream in it: the system hands out its pages one by one, and takes
//! them back at once. A buffer that is given back is wiped first, so nothing of one stream is ever seen by another; and what is
//! kept is bounded, whatever the streams were.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroize;

/// The most that is kept, in bytes: what two workers need, twice.
const MOST: usize = 8 * 1024 * 1024;
/// Shorter buffers are left to the allocator, which is quick to find them, in bytes.
const SHORT: usize = 8 * 1024;

/// How much longer than needed a buffer may be, in bytes.
const MARGIN: usize = 2 * 1024;

/// What is kept, the latest last. All of each buffer is zeroes, up to its capacity.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer for the chunks of a stream. It is wiped when it is dropped, and then kept for another stream.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// A buffer of zeroes.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = take(len).unwrap_or_else(|| vec![0; rounded(len)]);
        buffer.truncate(len);
        Self(buffer)
    }

    /// An empty buffer with room for at least so much.
    pub(crate) fn with_capacity(len: usize) -> Self {
        let mut buffer = take(len).unwrap_or_else(|| Vec::with_capacity(rounded(len)));
        buffer.clear();
        Self(buffer)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (len, capacity) = (self.0.len(), self.0.capacity());
        if !(SHORT..=MOST).contains(&capacity) {
            self.0.zeroize();
            return;
        }
        // What is behind the end may have been in it once.
        self.0.resize(capacity, 0);
        self.0[..len].zeroize();
        keep(std::mem::take(&mut self.0));
    }
}

/// Frees the buffers that are kept for the next stream, which are 8 MiB at most in the whole process.
///
/// Nobody has to call this: what is kept is bounded, and was wiped. It is for a process that has done all its encryption for a long
/// while, or that counts its memory.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let key = agcm::Key::generate();
/// use tokio::io::AsyncWriteExt;
///
/// let mut writer = agcm::EncryptWriter::new(tokio::io::sink(), &key);
/// writer.write_all(b"the last of today").await?;
/// writer.shutdown().await?; // gives its buffer of some 64 KiB back, to be kept
/// agcm::trim_memory();
/// # Ok(())
/// # }
/// ```
pub fn trim_memory() {
    let freed: Vec<_> = kept().drain(..).collect();
    drop(freed);
}

/// Sealing and opening need a few bytes more or less for the same chunk, and are to get the same buffers.
fn rounded(len: usize) -> usize {
    if len < SHORT { len } else { len.next_multiple_of(256) }
}

/// The latest buffer that has room for `len` bytes, and not for many more.
fn take(len: usize) -> Option<Vec<u8>> {
    if len < SHORT {
        return None;
    }
    let mut kept = kept();
    let fits = |buffer: &Vec<u8>| (len..=len + MARGIN).contains(&buffer.capacity());
    let i = kept.iter().rposition(fits)?;
    Some(kept.remove(i))
}

/// Keeps a buffer, which is all zeroes.
fn keep(buffer: Vec<u8>) {
    let freed = put(&mut kept(), buffer);
    drop(freed);
}

/// Puts a buffer behind those that are kept, and takes the oldest out if they are too many.
fn put(kept: &mut Vec<Vec<u8>>, buffer: Vec<u8>) -> Vec<Vec<u8>> {
    let mut held = buffer.capacity() + kept.iter().map(Vec::capacity).sum::<usize>();
    let superfluous = kept.iter().take_while(|oldest| {
        let is_too_much = held > MOST;
        if is_too_much {
            held -= oldest.capacity();
        }
        is_too_much
    });
    let superfluous = superfluous.count();
    let freed = kept.drain(..superfluous).collect();
    kept.push(buffer);
    freed
}

/// Nothing panics while it holds this lock.
fn kept() -> MutexGuard<'static, Vec<Vec<u8>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A length that no other test has, so that its buffers are not taken away.
    fn len(i: usize) -> usize {
        3_000_017 + i * 1_900_000
    }

    #[test]
    fn a_buffer_comes_back_as_zeroes_whatever_was_in_it() {
        let mut buffer = Buffer::with_capacity(len(0));
        buffer.resize(len(0), 7);
        buffer.truncate(10);
        let address = buffer.as_ptr();
        drop(buffer);

        let again = Buffer::zeroed(len(0) - 1000);
        assert_eq!(again.as_ptr(), address, "it is the same one");
        assert_eq!(again.len(), len(0) - 1000);
        assert!(again.iter().all(|&byte| byte == 0));
        drop(again);
        assert_ne!(Buffer::zeroed(len(0) / 2).as_ptr(), address, "too long for this");
        let empty = Buffer::with_capacity(len(0));
        assert!(empty.is_empty() && empty.capacity() >= len(0));
    }

    #[test]
    fn the_oldest_go_and_no_more_of_them_than_have_to() {
        let mut kept = Vec::new();
        for _ in 0..4 {
            assert!(put(&mut kept, Vec::with_capacity(MOST / 4)).is_empty());
        }
        let capacities = |buffers: &[Vec<u8>]| buffers.iter().map(Vec::capacity).collect::<Vec<_>>();
        assert_eq!(capacities(&put(&mut kept, Vec::with_capacity(SHORT))), [MOST / 4]);
        assert_eq!(capacities(&kept), [MOST / 4, MOST / 4, MOST / 4, SHORT]);
        assert_eq!(capacities(&put(&mut kept, Vec::with_capacity(MOST / 2))), [MOST / 4; 2]);
        assert_eq!(capacities(&kept), [MOST / 4, SHORT, MOST / 2]);
        assert_eq!(put(&mut kept, Vec::with_capacity(MOST)).len(), 3);
        assert_eq!(capacities(&kept), [MOST]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers: Vec<_> = (0..4).map(|_| Buffer::zeroed(len(1))).collect();
        drop(buffers);
        assert!(kept().iter().map(Vec::capacity).sum::<usize>() <= MOST);
        drop(Buffer::zeroed(MOST + 1));
        drop(Buffer::zeroed(SHORT - 1));
        assert!(kept().iter().all(|kept| (SHORT..=MOST).contains(&kept.capacity())));
    }
}
