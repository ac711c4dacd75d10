//! By what names of hosts are looked up: `/etc/hosts` and `/etc/resolv.conf`, and nothing else.
//!
//! Owns one call at the start. A file that is linked statically has both of glibc's ways within; every other way that
//! `/etc/nsswitch.conf` names would be a library of the system that it runs on, made for another libc than its own.

/// Has names looked up by what is built in. To be called before any is, with one thread.
pub(crate) fn look_up_by_what_is_built_in() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, ways) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
        #[expect(unsafe_code, reason = "what is called below")]
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, ways: *const libc::c_char) -> libc::c_int;
        }
        #[expect(unsafe_code, reason = "a setting of the C library has no safe handle")]
        // SAFETY: both are strings that live for ever, which it copies or reads; no other thread is there yet. A failure
        // leaves its own ways.
        unsafe {
            __nss_configure_lookup(database.as_ptr(), ways.as_ptr());
        }
    }
}
