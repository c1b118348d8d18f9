//! Free memory that the allocator keeps.

/// Returns the allocator's free memory to the system. Takes about a millisecond for each ten MiB.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes the allocator's own locks, and frees nothing that is in use.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
