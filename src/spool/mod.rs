//! The spool: a folder in which clients write their requests while no daemon answers.
//!
//! One request is one file, written under a draft name, synced and then renamed, so that a file is never partial. Its
//! name begins with the time of the request. The daemon imports each file once and unlinks it.
//!
//! There are two kinds of folders. `spool` in a state folder is private to its owner. The system service's clients may
//! not enter its state folder; they write to a shared folder, which belongs to the service's user and to
//! the group that may use the daemon, with the mode 3730: members may add files and neither list the folder nor remove
//! each other's files, and the setgid bit gives each file the group by which the daemon may read it.
//!
//! The daemon trusts nothing in a folder that other users may write to: see [`folder`]. A request that can never be
//! imported is copied to the [`quarantine`] in the state folder, with the reason.

pub mod folder;
mod monitor;
pub mod quarantine;
mod request;
mod write;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use folder::{ReadError, Sharing, SpoolEntry, SpoolFolder};
pub use monitor::{SpoolMonitor, SpoolStatus};
pub use request::{ClientWrite, SpooledRequest};

use crate::platform::default_paths::{DefaultPaths, Env, Os, STATE_DIR_VAR, path_in};
use crate::platform::files;

/// The spool within a state folder.
const FOLDER: &str = "spool";
/// The shared spool of the system service.
const SHARED: &str = "/var/spool/sessiond";
/// Setgid and sticky; members of its group may add files. They may also list it on macOS, where a folder cannot be opened
/// without the right to read it.
const SHARED_MODE: u32 = if cfg!(target_os = "linux") { 0o3730 } else { 0o3770 };
/// The file name extension of a request.
const EXTENSION: &str = ".json";
/// The largest file, in bytes: a request has 64 KiB at most, and JSON escapes may lengthen it.
const MAX_FILE_SIZE: u64 = 256 << 10;
/// How many files a private spool may hold: it must stay bounded if no daemon is ever started.
const MAX_FILES: usize = 10_000;
/// The folder, in the state folder of a user of the shared spool, with the file names of that user's last heartbeats.
const SPOOLED_NAMES: &str = "spooled";

/// A spool folder, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    dir: PathBuf,
    sharing: Sharing,
    /// Where a client of the shared spool, which it may not list, records the names of its heartbeats' files.
    spooled_names: Option<PathBuf>,
}

impl Spool {
    /// The spool that a client writes to: the one in the state folder of its own daemon, or else the shared spool of the
    /// system service. None if the user has neither.
    pub fn of_client(env: Env<'_>, is_root: bool) -> Option<Self> {
        if let Some(named) = path_in(env, STATE_DIR_VAR) {
            return Some(Self::in_folder(&named));
        }
        let own = DefaultPaths::of(Os::here(), is_root, env).state_dir;
        let user = rustix::process::geteuid().as_raw();
        // The system's folder may belong to the service's own user, who is not root.
        let is_mine = |dir: &Path| fs::metadata(dir).is_ok_and(|found| found.uid() == user);
        let has_a_daemon = own.as_ref().is_some_and(|dir| dir.join("identity.json").exists() && is_mine(dir));
        if !has_a_daemon && fs::symlink_metadata(SHARED).is_ok_and(|found| found.is_dir()) {
            let spooled_names = own.filter(|dir| !dir.exists() || is_mine(dir)).map(|dir| dir.join(SPOOLED_NAMES));
            return Some(Self { dir: SHARED.into(), sharing: Sharing::Shared, spooled_names });
        }
        own.map(|dir| Self::in_folder(&dir))
    }

    pub(crate) fn in_folder(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(FOLDER), sharing: Sharing::Private, spooled_names: None }
    }

    /// The shared spool, for the daemon.
    pub fn shared() -> Self {
        Self { dir: SHARED.into(), sharing: Sharing::Shared, spooled_names: None }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// Creates a private spool and its state folder if they are missing, for their user alone.
    ///
    /// # Errors
    /// The state folder belongs to another user, or cannot be created.
    pub fn make(&self) -> io::Result<()> {
        if self.is_shared() {
            return Ok(());
        }
        if let Some(state_dir) = self.dir.parent() {
            files::make_private_folder(state_dir)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Creates the shared spool for the members of `group`, or corrects its group and mode. Needs root; for a service that
    /// runs as another user the package's tmpfiles.d does it.
    ///
    /// # Errors
    /// The folder cannot be created or changed.
    pub fn make_shared(group: u32) -> io::Result<()> {
        let dir = Path::new(SHARED);
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let descriptor = folder::open_folder(dir, rustix::fs::OFlags::RDONLY)?;
        let opened = fs::File::from(descriptor);
        let found = opened.metadata()?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            // The package created it for the service's own user.
            return Ok(());
        }
        std::os::unix::fs::fchown(&opened, None, Some(group))?;
        opened.set_permissions(fs::Permissions::from_mode(SHARED_MODE))
    }

    /// Opens the folder for the daemon that runs as `owner`; none if it does not exist.
    ///
    /// # Errors
    /// It is not safe to read: see [`SpoolFolder::open`].
    pub fn open(&self, owner: u32) -> io::Result<Option<SpoolFolder>> {
        SpoolFolder::open(&self.dir, owner, self.sharing)
    }

    /// The names of the files that may be requests, oldest first.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries {
            match entry?.file_name().into_string() {
                Ok(name) if name.ends_with(EXTENSION) && !name.starts_with('.') => names.push(name),
                _ => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests;
