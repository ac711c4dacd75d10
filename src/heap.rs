//! How many heaps the process has: glibc gives each thread one, of eight for each processor at most, and has the others share.
//!
//! Owns one call at the start. On few processors, biotope's own threads would share the main heap by chance, and whoever asks that
//! one for many large zeroed pieces (sled does, for figures that nobody reads) writes to a quarter of them.

/// More than biotope has threads of its own while it has nothing to do.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_LEAST: libc::c_int = 32;

/// Has the C library make as many heaps as biotope has threads of its own, at least. To be called before there is another thread.
pub(crate) fn set_out() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let usual = std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(8);
        let is_chosen = ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"].iter().any(|name| std::env::var_os(name).is_some());
        if is_chosen || usual >= HEAPS_LEAST.unsigned_abs() as usize {
            return;
        }
        #[expect(unsafe_code, reason = "a setting of the C library has no safe handle")]
        // SAFETY: it takes two numbers; no other thread is there yet. A failure leaves the usual number.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, HEAPS_LEAST);
        }
    }
}
