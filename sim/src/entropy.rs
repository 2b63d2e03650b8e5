//! The process's entropy, from the seed.
//!
//! Hash maps, random number generators and ids of every library in the process end at libc's
//! `getrandom`. The functions here stand in its place: the linker finds them first, and libraries
//! that look the symbol up at run time find them because `build.rs` exports them. One thread asks,
//! so the order of the answers is the order of the program.

use std::sync::atomic::{AtomicU64, Ordering};

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

static STATE: AtomicU64 = AtomicU64::new(0);
/// How often the process asked.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Everything random follows from this from now on.
pub fn seed(seed: u64) {
    STATE.store(seed.wrapping_mul(GAMMA) ^ GAMMA, Ordering::SeqCst);
}

/// How often anyone asked for entropy: part of what must be the same the next time.
pub fn asked() -> u64 {
    ASKED.load(Ordering::SeqCst)
}

/// 64 bits (SplitMix64).
pub fn next() -> u64 {
    let state = STATE.fetch_add(GAMMA, Ordering::SeqCst).wrapping_add(GAMMA);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// # Safety
/// As for libc's function: `buf` has `len` bytes to be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, _flags: u32) -> isize {
    ASKED.fetch_add(1, Ordering::SeqCst);
    let mut at = 0;
    while at < len {
        let bytes = next().to_le_bytes();
        let count = bytes.len().min(len - at);
        // SAFETY: `at + count <= len`, and the caller gives `len` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.add(at), count) };
        at += count;
    }
    len as isize
}

/// # Safety
/// As for libc's function: `buf` has `len` bytes to be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(buf: *mut u8, len: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { getrandom(buf, len, 0) };
    0
}
