//! A global allocator that keeps a copy of all that is freed, for a test to look through afterwards.
//!
//! While it watches, the content of each block is logged when the block is given back, and before it is resized: where the
//! allocator has to move it, the old one is freed as it is. What was logged is looked through later, when the keys of streams
//! are known that did not exist before. It sees what goes through Rust's allocator, so neither stacks nor the heap of C.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr, slice,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst},
};

/// How much can be logged at a time, in bytes. Zeroes at both ends of a block are left out, so wiped blocks take no room.
const LOG_LEN: usize = 192 * 1024 * 1024;
/// Before the content of each block: how long the block is, and how much of it follows.
const HEAD_LEN: usize = 16;

struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

static ARMED: AtomicBool = AtomicBool::new(false);
/// Never freed.
static LOG: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static USED: AtomicUsize = AtomicUsize::new(0);

// Memory is zeroed when it is handed out, so that all of a block may be read when it comes back.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe {
            note(block, layout);
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe {
            note(block, layout);
            let block = System.realloc(block, layout, size);
            if !block.is_null() && size > layout.size() {
                ptr::write_bytes(block.add(layout.size()), 0, size - layout.size());
            }
            block
        }
    }
}

/// Logs the content of a block. Allocates nothing.
unsafe fn note(block: *const u8, layout: Layout) {
    if !ARMED.load(SeqCst) {
        return;
    }
    let content = unsafe { slice::from_raw_parts(block, layout.size()) };
    let content = without_zeroes(content);
    if content.is_empty() {
        return;
    }
    let start = USED.fetch_add(HEAD_LEN + content.len(), SeqCst);
    // What no longer fits is missed when the log is read.
    if start + HEAD_LEN + content.len() <= LOG_LEN {
        let log = LOG.load(SeqCst);
        unsafe {
            ptr::copy_nonoverlapping(layout.size().to_le_bytes().as_ptr(), log.add(start), 8);
            ptr::copy_nonoverlapping(content.len().to_le_bytes().as_ptr(), log.add(start + 8), 8);
            ptr::copy_nonoverlapping(content.as_ptr(), log.add(start + HEAD_LEN), content.len());
        }
    }
}

/// All but the zeroes at both ends. In words, for most of what is freed is wiped, and long.
fn without_zeroes(content: &[u8]) -> &[u8] {
    let is_zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    let mut content = content;
    while let Some((first, rest)) = content.split_first_chunk::<64>() {
        if !is_zero(first) {
            break;
        }
        content = rest;
    }
    while let Some((rest, last)) = content.split_last_chunk::<64>() {
        if !is_zero(last) {
            break;
        }
        content = rest;
    }
    if is_zero(content) { &[] } else { content }
}

/// A block that was freed.
#[derive(Clone, Copy)]
pub struct Block {
    /// How long it was, in bytes, with what is left out here.
    pub len: usize,
    pub content: &'static [u8],
}

/// Does some work, and returns what was freed meanwhile, by all threads. Only one may do this at a time, and what was returned must
/// not be used after the next has begun.
pub fn watch<T>(work: impl FnOnce() -> T) -> (T, Vec<Block>) {
    if LOG.load(SeqCst).is_null() {
        let log = unsafe { System.alloc_zeroed(Layout::array::<u8>(LOG_LEN).unwrap()) };
        assert!(!log.is_null(), "there is room for a log");
        LOG.store(log, SeqCst);
    }
    USED.store(0, SeqCst);
    ARMED.store(true, SeqCst);
    let result = work();
    ARMED.store(false, SeqCst);
    (result, blocks())
}

fn blocks() -> Vec<Block> {
    let used = USED.load(SeqCst);
    assert!(used <= LOG_LEN, "{used} bytes are more than the log holds");
    let mut log: &'static [u8] = unsafe { slice::from_raw_parts(LOG.load(SeqCst), used) };
    let mut blocks = Vec::new();
    while let Some((head, rest)) = log.split_first_chunk::<HEAD_LEN>() {
        let number = |bytes: &[u8]| usize::from_le_bytes(bytes.try_into().unwrap());
        let (content, rest) = rest.split_at(number(&head[8..]));
        blocks.push(Block { len: number(&head[..8]), content });
        log = rest;
    }
    blocks
}
