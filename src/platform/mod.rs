//! The one place where Linux and macOS differ.
//!
//! Each portable variant (the polling ones) also compiles on Linux and is tested there.

pub mod limits;
pub mod peer;
pub mod places;
pub mod process;
pub mod wake;

/// Lets tokio wait until this descriptor can be read.
///
/// # Errors
/// It is of a kind that cannot be waited for.
#[cfg(target_os = "linux")]
fn watch_readable(fd: std::os::fd::OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    // Deprecated because some other type could lie about its descriptor, which an OwnedFd cannot;
    // the replacement does the same, but is unsafe to call.
    #[allow(deprecated)]
    tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}
