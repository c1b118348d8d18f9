//! Reads small files that agents write. Only regular files are read, and only up to a limit, so that a FIFO or a huge file
//! in their place neither blocks the reader nor fills its memory.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file of at most `max` bytes; reads no more than that if it grows.
pub fn open(path: &Path, max: u64) -> Option<(Metadata, impl Read + use<>)> {
    // Opening a FIFO would wait for a writer; a terminal must not become the daemon's own.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= max)?;
    Some((about, file.take(max)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "text").unwrap();
        mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let mut text = String::new();
        open(&at("file"), 4).unwrap().1.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        for (name, max) in [("file", 3), ("fifo", 4), (".", 4096), ("none", 4)] {
            assert!(open(&at(name), max).is_none(), "{name}");
        }
        assert!(open(Path::new("/dev/zero"), 4).is_none());
    }
}
