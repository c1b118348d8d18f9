//! Resource limits of this process.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit (OPEN_MAX) that macOS accepts even if it refuses the hard limit that it reports.
const MACOS_OPEN_MAX: u64 = 10_240;

/// Raises the soft limit of open files to the hard limit. Returns the new limit; `None` if there is none.
///
/// # Errors
/// The system refuses; the limit is unchanged.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let raised = |current| setrlimit(Resource::Nofile, Rlimit { current, ..limit }).map(|()| current);
    if limit.current == limit.maximum {
        return Ok(limit.current);
    }
    let modest = limit.maximum.map_or(MACOS_OPEN_MAX, |maximum| maximum.min(MACOS_OPEN_MAX));
    let lower = |error| match limit.current {
        Some(current) if current < modest => raised(Some(modest)),
        _ => Err(error),
    };
    Ok(raised(limit.maximum).or_else(lower)?)
}

/// Limits glibc's malloc to two arenas; by default there may be eight for each processor, each with free memory of its
/// own. Must be called before the second thread starts.
pub fn limit_malloc_arenas() {
    // Other C libraries have no arenas.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers and writes one; no other thread is there to read it.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// The free space, in bytes, that this user may use on the file system of `path`.
///
/// # Errors
/// There is no such path, or its file system does not report it.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_the_soft_limit_to_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, raised);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raise_open_files().unwrap(), raised);
    }

    #[test]
    fn reports_free_space_of_existing_paths() {
        assert!(free_bytes(Path::new("/")).is_ok());
        assert!(free_bytes(Path::new("/no/such/place")).is_err());
    }
}
