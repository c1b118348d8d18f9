//! Finds the process that holds a lock on a file.

use std::fmt;
use std::path::Path;

/// A process, and the name of its program if the system reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    pub(crate) pid: u32,
    pub(crate) program: Option<String>,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(f, "{program} (pid {})", self.pid),
            None => write!(f, "pid {}", self.pid),
        }
    }
}

/// Finds a process other than this one that holds a POSIX lock on one of `files`; write locks are preferred to read
/// locks. `None` where the system does not list locks (macOS), or the holder is in another PID namespace.
pub fn find(files: &[&Path]) -> Option<LockHolder> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let inodes: Vec<u64> = files.iter().filter_map(|file| inode(file)).collect();
    let pid = holder_in(&locks, &inodes, std::process::id())?;
    Some(LockHolder { pid, program: program(pid) })
}

fn inode(file: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).ok().map(|metadata| metadata.ino())
}

/// The process's name, without characters that are unsafe to print: a process can choose any name.
fn program(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(crate::domain::text::one_line(name.trim()))
}

/// The pid in the first line of `/proc/locks` that is about one of `inodes`, write locks first. The device is not
/// compared: on overlay and btrfs the one listed there differs from the one that `stat` gives.
fn holder_in(locks: &str, inodes: &[u64], this: u32) -> Option<u32> {
    let of_others = |kind: &str| {
        locks.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (class, _, access) = (fields.next()?, fields.next()?, fields.next()?);
            let (pid, file) = (fields.next()?.parse().ok()?, fields.next()?);
            let inode = file.rsplit(':').next()?.parse().ok()?;
            (class == "POSIX" && access == kind && pid != this && inodes.contains(&inode)).then_some(pid)
        })
    };
    of_others("WRITE").or_else(|| of_others("READ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  READ  41 fe:00:77 128 128\n\
         2: FLOCK  ADVISORY  WRITE 42 fe:00:77 0 EOF\n\
         2: -> POSIX  ADVISORY  WRITE 46 fe:00:77 120 120\n\
         3: POSIX  ADVISORY  WRITE 43 fe:00:77 120 120\n\
         4: POSIX  ADVISORY  WRITE 44 fe:00:78 120 120\n\
         5: OFDLCK ADVISORY  WRITE -1 fe:00:77 0 EOF\n\
         garbage\n";

    #[test]
    fn prefers_the_holder_of_a_write_lock() {
        assert_eq!(holder_in(LOCKS, &[77], 1), Some(43));
        assert_eq!(holder_in(LOCKS, &[77], 43), Some(41), "not this process itself");
        assert_eq!(holder_in(LOCKS, &[78, 5], 1), Some(44));
        assert_eq!(holder_in(LOCKS, &[5], 1), None);
        assert_eq!(holder_in("", &[77], 1), None);
    }
}
