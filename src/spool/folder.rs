//! Reads a spool folder through the descriptor of a verified folder, never by path.
//!
//! Other users may write to the shared folder, so nothing in it is trusted. A file is opened relative to the folder's
//! descriptor without following links, and the opened file is compared with the listed one. The daemon renames nothing in
//! the folder, and unlinks a file only after its content is imported or copied.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, fsync, openat, statat, unlinkat};
use rustix::io::Errno;

use super::{EXTENSION, MAX_FILE_SIZE, SpooledRequest};

/// The age, in seconds, at which an unfinished draft of a client is removed.
const MAX_DRAFT_AGE: i64 = 3600;

/// Who may write to a spool folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Only its owner.
    Private,
    /// Other users, too, each only their own files: the folder must be sticky.
    Shared,
}

/// A verified spool folder.
#[derive(Debug)]
pub struct SpoolFolder {
    descriptor: OwnedFd,
    /// The only group whose members may add files, beside the owner and root; none if all users may.
    members: Option<u32>,
}

/// Identifies a file and its content: a file that was replaced or changed has another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileVersion {
    inode: u64,
    changed_at: (i64, i64),
}

impl FileVersion {
    #[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between systems")]
    fn of(stat: &Stat) -> Self {
        Self { inode: stat.st_ino as u64, changed_at: (stat.st_ctime as i64, stat.st_ctime_nsec as i64) }
    }
}

/// A file in a spool folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpoolEntry {
    pub(crate) name: String,
    /// The file's owner, on whose behalf the request is applied.
    pub uid: u32,
    pub(crate) version: FileVersion,
    /// When it was written, in microseconds since 1970, according to its name, or else to the file system.
    pub written_at: i64,
    /// Why it cannot be a request, if that is known without opening it.
    pub refusal: Option<&'static str>,
}

/// Why a file was not read as a request.
#[derive(Debug)]
pub enum ReadError {
    /// It was removed or replaced since it was listed.
    Changed,
    /// This daemon must not open it.
    Refused(String),
    /// Its content is not a request.
    Invalid {
        /// The content, for the quarantine.
        content: Vec<u8>,
        /// Why it is not one.
        reason: String,
    },
    /// The file system failed.
    Failed(io::Error),
}

const NOT_A_FILE: &str = "it is not a regular file";
const SEVERAL_NAMES: &str = "it has several names (hard links)";
const TOO_LARGE: &str = "it is too large";

impl SpoolFolder {
    /// Opens the folder at `path`; none if it does not exist.
    ///
    /// # Errors
    /// It is a symbolic link, belongs to another user than `owner`, or may be written by users who should not.
    pub fn open(path: &Path, owner: u32, sharing: Sharing) -> io::Result<Option<Self>> {
        if owner == 0 {
            verify_parents(path)?;
        }
        let descriptor = match open_folder(path, OFlags::RDONLY) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let stat = fstat(&descriptor)?;
        verify_rights(&stat, owner, sharing)?;
        let open_to_all = Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH);
        Ok(Some(Self { descriptor, members: (!open_to_all).then_some(stat.st_gid) }))
    }

    /// Whether only members of this group can have written files here. The kernel enforces that, also for members that the
    /// user database does not list.
    pub fn is_for_members_of(&self, group: Option<u32>) -> bool {
        group.is_some() && self.members == group
    }

    /// Calls `visit` for each file that may hold a request, in no particular order, and removes old drafts. `now`: seconds
    /// since 1970.
    pub fn scan(&self, now: i64, mut visit: impl FnMut(SpoolEntry)) -> io::Result<()> {
        for listed in Dir::read_from(&self.descriptor)? {
            let listed = listed?;
            let Ok(name) = listed.file_name().to_str() else { continue };
            let is_draft = name.starts_with('.');
            if !name.ends_with(EXTENSION) {
                continue;
            }
            let Ok(stat) = statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if !is_draft {
                visit(entry(name, &stat));
            } else if is_file(&stat) && now.saturating_sub(seconds(&stat)) > MAX_DRAFT_AGE {
                let _ = unlinkat(&self.descriptor, name, AtFlags::empty());
            }
        }
        Ok(())
    }

    /// Reads the request in a file that [`SpoolFolder::scan`] listed.
    pub fn read(&self, entry: &SpoolEntry) -> Result<SpooledRequest, ReadError> {
        if let Some(reason) = entry.refusal {
            return Err(ReadError::Refused(reason.to_owned()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.descriptor, entry.name.as_str(), flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::LOOP) => return Err(ReadError::Changed),
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(ReadError::Refused("the daemon's user may not read it".to_owned()));
            }
            Err(error) => return Err(ReadError::Failed(error.into())),
        };
        let stat = fstat(&file).map_err(|error| ReadError::Failed(error.into()))?;
        // The file may have been replaced after the listing, so the opened one is checked again.
        if FileVersion::of(&stat) != entry.version || stat.st_uid != entry.uid || refusal(&stat).is_some() {
            return Err(ReadError::Changed);
        }
        let mut content = Vec::new();
        File::from(file).take(MAX_FILE_SIZE + 1).read_to_end(&mut content).map_err(ReadError::Failed)?;
        if content.len() as u64 > MAX_FILE_SIZE {
            return Err(ReadError::Refused(TOO_LARGE.to_owned()));
        }
        serde_json::from_slice(&content).map_err(|error| ReadError::Invalid { content, reason: error.to_string() })
    }

    /// Unlinks files whose content is stored elsewhere, durably: a power cut does not bring them back. A file that was
    /// replaced since it was listed stays.
    pub fn remove<'a>(&self, entries: impl Iterator<Item = &'a SpoolEntry>) -> io::Result<()> {
        for entry in entries {
            match statat(&self.descriptor, entry.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileVersion::of(&stat) == entry.version => {}
                _ => continue,
            }
            match unlinkat(&self.descriptor, entry.name.as_str(), AtFlags::empty()) {
                Err(error) if error != Errno::NOENT => return Err(error.into()),
                _ => {}
            }
        }
        Ok(fsync(&self.descriptor)?)
    }
}

/// Opens a folder; a symbolic link is refused.
pub(super) fn open_folder(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        // The error for a link depends on the system.
        Errno::LOOP | Errno::NOTDIR => refused("it is a link or a file, not a folder"),
        other => other.into(),
    })
}

fn verify_rights(stat: &Stat, owner: u32, sharing: Sharing) -> io::Result<()> {
    if stat.st_uid != owner {
        return Err(refused(&format!("it belongs to user {}, not to user {owner}", stat.st_uid)));
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    let others_write = mode.intersects(Mode::WGRP | Mode::WOTH);
    match sharing {
        Sharing::Private if others_write => Err(refused("other users may write to it; it must have mode 0700")),
        Sharing::Shared if others_write && !mode.contains(Mode::SVTX) => {
            Err(refused("its users may remove each other's files; it must have the sticky bit"))
        }
        _ => Ok(()),
    }
}

/// Checks that only root may write to the folders above, as their writers could replace the spool. Checked only for root,
/// whose rights make it an attack.
fn verify_parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().and_then(|parent| parent.canonicalize().ok()) else { return Ok(()) };
    for folder in parent.ancestors() {
        let stat = rustix::fs::stat(folder)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        let others_write = mode.intersects(Mode::WGRP | Mode::WOTH) && !mode.contains(Mode::SVTX);
        if stat.st_uid != 0 || others_write {
            return Err(refused(&format!("{} may be changed by users other than root", folder.display())));
        }
    }
    Ok(())
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, why)
}

fn entry(name: &str, stat: &Stat) -> SpoolEntry {
    let digits = name.split('-').next().filter(|first| first.len() == 20);
    let written_at = digits.and_then(|digits| digits.parse().ok());
    SpoolEntry {
        name: name.to_owned(),
        uid: stat.st_uid,
        version: FileVersion::of(stat),
        written_at: written_at.unwrap_or_else(|| micros(stat)),
        refusal: refusal(stat),
    }
}

#[allow(clippy::unnecessary_cast, reason = "the type of this field differs between systems")]
fn seconds(stat: &Stat) -> i64 {
    stat.st_mtime as i64
}

/// When the file was written, in microseconds since 1970.
#[allow(clippy::unnecessary_cast, reason = "the type of this field differs between systems")]
fn micros(stat: &Stat) -> i64 {
    seconds(stat).saturating_mul(1_000_000).saturating_add(stat.st_mtime_nsec as i64 / 1000)
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn refusal(stat: &Stat) -> Option<&'static str> {
    match stat {
        stat if !is_file(stat) => Some(NOT_A_FILE),
        // A hard link to another user's file would pass for that user's request.
        stat if stat.st_nlink != 1 => Some(SEVERAL_NAMES),
        stat if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > MAX_FILE_SIZE => Some(TOO_LARGE),
        _ => None,
    }
}
