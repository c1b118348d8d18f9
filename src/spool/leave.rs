//! Leaving a request in the spool, as a client does.
//!
//! A later heartbeat of a session replaces an earlier one that still waits, so that the spool grows with sessions, not
//! with heartbeats. The new file is written before the old one is unlinked: a daemon or another client that works in
//! the folder at the same time loses nothing.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, openat, renameat, unlinkat};

use super::folder::open_folder;
use super::{ENDING, MAX_FILE, MAX_FILES, Spool, SpooledRequest};
use crate::platform::files;

/// For so long, in microseconds, an equal heartbeat is not written again: a status line is drawn all the time.
const UNCHANGED: i64 = 5_000_000;

/// Its owner may read and write it; in the shared spool the folder's group, the daemon among it, may read it.
const PRIVATE_FILE: u32 = 0o600;
const SHARED_FILE: u32 = 0o640;

#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

impl Spool {
    /// Leaves a request: when this returns it is on the disk. `random` tells its name from all others.
    ///
    /// # Errors
    /// The folder cannot be made or written, or too many requests wait in it.
    pub fn leave(&self, request: &SpooledRequest, random: u64) -> io::Result<()> {
        self.make()?;
        let folder = open_folder(self.dir(), if self.is_shared() { SEARCH } else { OFlags::RDONLY })?;
        let mut request = request.clone();
        request.redact();
        let earlier = self.earlier_heartbeat(&folder, &request)?;
        if let Some((_, earlier)) = &earlier {
            request.write = request.write.merged_with(earlier.write.clone());
            if request.write == earlier.write && (0..UNCHANGED).contains(&(request.at - earlier.at)) {
                return Ok(());
            }
        }
        let mark = request.write.mark();
        let name = format!("{:020}-{random:016x}{mark}{ENDING}", request.at.max(0));
        let draft = format!(".{name}");
        let written = self.write_file(&folder, &draft, &name, &serde_json::to_vec(&request)?);
        if written.is_err() {
            let _ = unlinkat(&folder, &draft, AtFlags::empty());
        }
        written?;
        if let Some((earlier, _)) = earlier {
            let _ = unlinkat(&folder, &earlier, AtFlags::empty());
        }
        self.note_heartbeat(&mark, &name);
        Ok(())
    }

    fn write_file(&self, folder: &OwnedFd, draft: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(folder, draft, flags, Mode::RUSR | Mode::WUSR)?);
        let mode = if self.is_shared() { SHARED_FILE } else { PRIVATE_FILE };
        // Whatever the umask took away: the daemon must be able to read it.
        fchmod(&file, Mode::from_raw_mode(mode as rustix::fs::RawMode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        renameat(folder, draft, folder, name)?;
        match rustix::fs::fsync(folder) {
            // The shared folder may not be read; its file system writes the name in its own time.
            Err(rustix::io::Errno::BADF) if self.is_shared() => Ok(()),
            synced => Ok(synced?),
        }
    }

    /// The waiting heartbeat that `request` replaces, and its file's name.
    fn earlier_heartbeat(
        &self,
        folder: &OwnedFd,
        request: &SpooledRequest,
    ) -> io::Result<Option<(String, SpooledRequest)>> {
        let mark = request.write.mark();
        let candidate = if self.is_shared() {
            self.note(&mark).and_then(|note| fs::read_to_string(note).ok())
        } else {
            let names = self.names()?;
            let found = names.iter().rev().find(|name| !mark.is_empty() && name.contains(&mark)).cloned();
            if found.is_none() && names.len() >= MAX_FILES {
                return Err(io::Error::other(format!("{MAX_FILES} requests wait there already")));
            }
            found
        };
        let Some(name) = candidate.filter(|name| !name.contains('/') && !mark.is_empty() && name.contains(&mark))
        else {
            return Ok(None);
        };
        let earlier = read_own(folder, &name)
            .filter(|earlier| request.write.replaces(&earlier.write) && earlier.sockets == request.sockets);
        Ok(earlier.map(|earlier| (name, earlier)))
    }

    fn note(&self, mark: &str) -> Option<PathBuf> {
        self.notes.as_ref().filter(|_| !mark.is_empty()).map(|dir| dir.join(mark.trim_start_matches('-')))
    }

    /// Notes the name of a heartbeat in a folder that cannot be listed. Without the note the next one only does not
    /// replace it.
    fn note_heartbeat(&self, mark: &str, name: &str) {
        let Some((note, dir)) = self.note(mark).zip(self.notes.as_ref()) else { return };
        let made = dir.parent().map_or(Ok(()), files::make_private_folder).and_then(|()| {
            fs::create_dir(dir)
                .or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        });
        if made.is_ok() {
            let mut file = files::private_file();
            let _ =
                file.create(true).truncate(true).write(true).open(note).and_then(|mut f| f.write_all(name.as_bytes()));
        }
    }
}

/// Reads an earlier request of this user.
fn read_own(folder: &OwnedFd, name: &str) -> Option<SpooledRequest> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut content = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut content).ok()?;
    serde_json::from_slice(&content).ok()
}
