//! A log file of bounded size, for service managers that keep no log of their own (launchd).
//!
//! Lines are appended to the file. A line that would make it longer than [`MAX_BYTES`] first renames the file to
//! `FILE.1`, replacing an older one, so the log takes at most twice that on disk. A line that cannot be written is
//! dropped: a full disk must not stop the daemon.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// The length at which the file is rotated: some 50,000 lines.
const MAX_BYTES: u64 = 8 << 20;

/// The log file, shared by all threads.
pub(super) struct LogFile(Mutex<OpenLog>);

struct OpenLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl LogFile {
    /// Opens the file for appending, and creates it for its owner alone if it is missing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_max_bytes(path, MAX_BYTES)
    }

    fn with_max_bytes(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self(Mutex::new(OpenLog { path: path.to_owned(), file, bytes, max_bytes })))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

impl OpenLog {
    fn rotate(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        fs::rename(&self.path, older)?;
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

/// Writes one line: the subscriber calls `write` once for each event.
pub(super) struct LineWriter<'a>(MutexGuard<'a, OpenLog>);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let log = &mut *self.0;
        if log.bytes > 0 && log.bytes + line.len() as u64 > log.max_bytes && log.rotate().is_err() {
            // If the file cannot be rotated, the line is dropped rather than the bound exceeded.
            return Ok(line.len());
        }
        let written = log.file.write(line)?;
        log.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn rotates_at_the_maximum_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessiond.log");
        let log = LogFile::with_max_bytes(&path, 100).unwrap();
        for number in 0..1000 {
            log.make_writer().write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap();
        let older = fs::read_to_string(dir.path().join("sessiond.log.1")).unwrap();
        assert!(kept.ends_with("line 0999\n") && kept.len() <= 100, "{kept}");
        assert_eq!(older.lines().count(), 10, "a full file of whole lines: {older}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn restart_appends_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessiond.log");
        for _ in 0..2 {
            LogFile::with_max_bytes(&path, 100).unwrap().make_writer().write_all(b"a line\n").unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "a line\na line\n");
    }
}
