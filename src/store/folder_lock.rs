//! The exclusive use of a state folder: one daemon at a time, by flock.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::platform::files;
use crate::store::error::OpenError;
use crate::store::sqlite::connection;

/// Holds the flock for the daemon's life, and its pid for the error of a second daemon.
const LOCK: &str = "lock";

/// The exclusive use of a state folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if it is missing, and locks it against other daemons.
    ///
    /// # Errors
    /// `InUse` when another process holds it, `Folder` when it cannot be made or written.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let folder = |source| OpenError::Folder { dir: dir.display().to_string(), source };
        if let Ok(found) = fs::metadata(dir) {
            refuse_foreign(dir, &found)?;
        }
        make(dir).map_err(folder)?;
        files::make_private_folder(dir).and_then(|()| files::make_files_private(dir)).map_err(folder)?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(dir.join(LOCK))
            .map_err(folder)?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::InUse { dir: dir.display().to_string(), pid: pid.trim().parse().ok() });
        }
        // The pid only informs: the lock itself is what counts, so a stale pid is harmless.
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        noted.map_err(folder)?;
        Ok(Self { _file: file })
    }
}

/// Files that another user than the folder's owner makes would keep the owner out. That holds for root, too: as when
/// `sudo` keeps HOME.
fn refuse_foreign(dir: &Path, found: &fs::Metadata) -> Result<(), OpenError> {
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(OpenError::ForeignFolder { dir: dir.display().to_string(), owner, user })
}

/// Makes a folder, and those above it, so that a power cut does not take them away again. One that is
/// there may have been made just now and not been synced.
fn make(dir: &Path) -> std::io::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        make(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
    }
    match connection::sync_folder(parent) {
        Err(error) if cannot_be_synced(error.kind()) => Ok(()),
        synced => synced,
    }
}

/// A folder that may not be read, or on which nothing can be written anyway, is not for this daemon to sync.
fn cannot_be_synced(why: ErrorKind) -> bool {
    matches!(
        why,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput | ErrorKind::Unsupported
    )
}
