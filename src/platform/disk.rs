//! Errors of a full disk.

use std::io::{self, ErrorKind};

/// Whether an error means that no more data fits: the file system is full (ENOSPC), the user's quota is used up
/// (EDQUOT), or the file may not become longer (EFBIG, from RLIMIT_FSIZE or the file system).
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Makes a write beyond the limit of a file's size (RLIMIT_FSIZE) fail with EFBIG, instead of ending the process with
/// SIGXFSZ. Child processes have the default behaviour again.
///
/// # Errors
/// The system refuses; such a write then still ends the process.
pub fn report_file_size_limit() -> io::Result<()> {
    // A handler that does nothing, because SIG_IGN would be inherited across exec.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_space_quota_and_file_size_limit_mean_a_full_disk() {
        for full in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT, rustix::io::Errno::FBIG] {
            assert!(is_full(&full.into()), "{full}");
        }
        for other in [rustix::io::Errno::IO, rustix::io::Errno::ROFS, rustix::io::Errno::ACCESS] {
            assert!(!is_full(&other.into()), "{other}");
        }
    }
}
