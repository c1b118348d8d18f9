//! Memory that is free and still counts as this process's.

/// Gives what the allocator keeps for later back to the system. Takes a millisecond or so for each ten MiB.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes the allocator's own locks, and frees nothing that is in use.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
