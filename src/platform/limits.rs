//! What the system lets this process have.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What macOS allows at least, even where it refuses the hard limit that it names (OPEN_MAX).
const MODEST: u64 = 10_240;

/// Raises the number of files this process may have open as far as it may by itself.
/// Returns the limit now in force; none if there is no limit.
///
/// # Errors
/// The system refuses; the limit stays what it was.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let raised = |current| setrlimit(Resource::Nofile, Rlimit { current, ..limit }).map(|()| current);
    if limit.current == limit.maximum {
        return Ok(limit.current);
    }
    let modest = limit.maximum.map_or(MODEST, |maximum| maximum.min(MODEST));
    let lower = |error| match limit.current {
        Some(current) if current < modest => raised(Some(modest)),
        _ => Err(error),
    };
    Ok(raised(limit.maximum).or_else(lower)?)
}

/// Keeps the pools in which the C library's allocator holds what was freed to two: there may be eight for each
/// processor, and every thread makes itself one. To be called before the second thread starts.
pub fn share_freed_memory() {
    // Other C libraries have no such pools.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers and writes one; no other thread is there to read it.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// How many bytes this user may still write to the file system that `path` lies on.
///
/// # Errors
/// There is no such path, or its file system does not say.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, raised);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raise_open_files().unwrap(), raised);
    }

    #[test]
    fn free_space_is_told_of_places_that_exist() {
        assert!(free_bytes(Path::new("/")).is_ok());
        assert!(free_bytes(Path::new("/no/such/place")).is_err());
    }
}
