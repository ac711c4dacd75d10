//! Memory for a fuzz target: an allocation larger than any that the house has reason for ends the run.
//!
//! A length that was read from untrusted bytes must be checked before it is allocated by; this is what notices.

use std::alloc::{GlobalAlloc, Layout, System};

/// Four largest frames: a buffer that doubles while it takes one may come to two.
const BYTES_MAX: usize = 16 << 20;

struct Bounded;

fn check(bytes: usize) {
    if bytes > BYTES_MAX {
        eprintln!("an allocation of {bytes} bytes, more than {BYTES_MAX}");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it came; what is too large never returns.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static BOUNDED: Bounded = Bounded;
