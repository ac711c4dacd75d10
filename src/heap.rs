//! How many heaps the process has: glibc gives each thread one, of eight for each processor at most, and has the others share.
//!
//! Owns one call at the start. With one number everywhere, memory does not hang on how many processors a machine has; and with
//! enough of them for biotope's own threads none of these shares the main one, in which whoever asks for many large zeroed pieces
//! (sled does, for figures that nobody reads) writes to a quarter of them.

/// More than biotope has threads of its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: libc::c_int = 32;

/// Has the C library make so many heaps. To be called before there is another thread.
pub(crate) fn set_out() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a setting of the C library has no safe handle")]
    // SAFETY: it takes two numbers; no other thread is there yet. A failure leaves the usual number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
}
