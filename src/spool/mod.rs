//! The spool: a folder in which clients leave their requests while no daemon answers.
//!
//! One request is one file, written under a draft name, synced and then renamed, so that it is there whole or not at
//! all. Its name begins with the time at which it was made. The daemon imports each file once and unlinks it.
//!
//! There are two kinds of folders. `spool` in a state folder is for its owner alone. The system service's clients may
//! not enter its state folder; they leave their files in a shared folder, which belongs to the service's user and to
//! the group that may use the daemon, with the mode 3730: members may add files and neither list the folder nor remove
//! each other's files, and the setgid bit gives each file the group by which the daemon may read it.
//!
//! The daemon trusts nothing in a folder that others may write to: see [`folder`]. What can never be imported is copied
//! to the [`quarantine`] in the state folder, with the reason.

pub mod folder;
mod leave;
mod monitor;
pub mod quarantine;
mod request;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use folder::{Entry, ReadError, Sharing, SpoolFolder};
pub use monitor::{SpoolMonitor, Summary};
pub use request::{SpooledRequest, Write};

use crate::platform::default_paths::{DefaultPaths, Env, Os, STATE_DIR_VAR, path_in};
use crate::platform::files;

/// The spool within a state folder.
const FOLDER: &str = "spool";
/// The shared spool of the system service.
const SHARED: &str = "/var/spool/sessiond";
/// Members of its group may add files; sticky and setgid. Without a way to open a folder that may not be read, as on
/// macOS, they may list it too.
const SHARED_MODE: u32 = if cfg!(target_os = "linux") { 0o3730 } else { 0o3770 };
const ENDING: &str = ".json";
/// A file holds one request, which has 64 KiB at most, in JSON that may be escaped once more.
const MAX_FILE: u64 = 256 << 10;
/// How many files a user may leave in the own spool: it must not grow without end because nobody starts the daemon.
const MAX_FILES: usize = 10_000;
/// In the state folder of a user of the shared spool: the names of that user's last heartbeats in it.
const NOTES: &str = "spooled";

/// A spool folder, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    dir: PathBuf,
    sharing: Sharing,
    /// Where a client of the shared spool notes the names of its files, which it may not list.
    notes: Option<PathBuf>,
}

impl Spool {
    /// Where a client leaves its requests: in the state folder that it shares with its daemon, or in the shared spool
    /// of the system service.
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
            let notes = own.filter(|dir| !dir.exists() || is_mine(dir)).map(|dir| dir.join(NOTES));
            return Some(Self { dir: SHARED.into(), sharing: Sharing::Shared, notes });
        }
        own.map(|dir| Self::in_folder(&dir))
    }

    pub fn in_folder(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(FOLDER), sharing: Sharing::Private, notes: None }
    }

    /// The shared spool, as the daemon sees it.
    pub fn shared() -> Self {
        Self { dir: SHARED.into(), sharing: Sharing::Shared, notes: None }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// Makes a private spool if it is missing, with its state folder, for its user alone.
    ///
    /// # Errors
    /// The state folder belongs to another user, or cannot be made.
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

    /// Makes the shared spool for the members of `group`, or sets its group and mode right. For root, who alone may;
    /// elsewhere the package's tmpfiles.d does.
    ///
    /// # Errors
    /// The folder cannot be made, or is not root's own.
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
            // The package's: it belongs to the service's user and is that user's to set up.
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

    /// The names in the folder that may be requests, oldest first.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries {
            match entry?.file_name().into_string() {
                Ok(name) if name.ends_with(ENDING) && !name.starts_with('.') => names.push(name),
                _ => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests;
