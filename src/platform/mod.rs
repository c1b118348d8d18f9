//! Everything that depends on the operating system: processes, sockets, files, limits, default paths.
//!
//! Code for Linux and macOS differs only here. The portable variants, which poll, also compile on Linux and are tested
//! there.

pub mod caller;
pub mod default_paths;
pub mod desktop;
pub mod disk;
pub mod files;
pub mod git;
pub mod limits;
pub mod local_time;
pub mod lock_holder;
pub mod memory;
pub mod peer;
pub mod process;
pub mod program;
pub mod random;
pub mod replace;
pub mod small_file;
pub mod socket;
pub mod trusted_roots;
pub mod wake;

/// Lets tasks wait until a descriptor can be read. Must be called within a tokio runtime with I/O.
#[cfg(target_os = "linux")]
fn readable(descriptor: std::os::fd::OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    // SAFETY: an OwnedFd is open for as long as it lives, is always the same descriptor, and is handed over here.
    #[allow(unsafe_code)]
    let registered =
        unsafe { tokio::io::unix::AsyncFd::register_with_interest(descriptor, tokio::io::Interest::READABLE) };
    Ok(registered?)
}
