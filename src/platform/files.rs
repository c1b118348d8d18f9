//! Folders and files that are for their user alone, whichever process makes them first, under whichever umask.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Each state folder holds at least one of these as soon as any process has used it.
const OURS: [&str; 6] = ["identity.json", "lock", "sessiond.db", "spool", "agents", "hooks.log"];

/// Makes a state folder, with those above it, for this user alone. One that is open to others is closed to them, unless
/// it holds files of other programs.
///
/// # Errors
/// `PermissionDenied` where it belongs to another user: files of this user in it would keep its owner out.
pub fn make_private_folder(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir)?;
    let found = fs::metadata(dir)?;
    if let Some(refusal) = foreign_owner(dir, &found) {
        return Err(io::Error::new(ErrorKind::PermissionDenied, refusal));
    }
    let mode = found.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if !is_ours(dir)? {
        tracing::warn!(dir = %dir.display(), "the state folder is open to other users and holds other files; run `chmod 0700` on it");
        return Ok(());
    }
    fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))
}

/// Why this user must not write to a folder, if it belongs to another one.
pub fn foreign_owner(dir: &Path, found: &Metadata) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    let owner = found.uid();
    let dir = dir.display();
    (owner != user).then(|| {
        format!(
            "it belongs to user {owner}, and this is user {user}; run it as user {owner}, or `chown -R {user} {dir}`"
        )
    })
}

/// How to open a file that is written by its user alone.
pub fn private_file() -> OpenOptions {
    let mut options = File::options();
    options.mode(FILE_MODE);
    options
}

/// Closes this user's own files in a state folder to other users. Older versions left them to the umask.
///
/// # Errors
/// A file of ours belongs to another user, as one that a start by root left behind.
pub fn make_files_private(dir: &Path) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Not followed, so it is the entry itself that is looked at.
        let Ok(found) = entry.metadata() else { continue };
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("sessiond.db") || OURS.contains(&name));
        if let Some(refusal) = foreign_owner(dir, &found).filter(|_| is_ours && user != 0) {
            let why = format!("{}: {refusal}", name.display());
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
        if found.is_file() && found.uid() == user && found.mode() & 0o077 != 0 {
            fs::set_permissions(entry.path(), Permissions::from_mode(FILE_MODE))?;
        }
    }
    Ok(())
}

fn is_ours(dir: &Path) -> io::Result<bool> {
    // A new file system is not quite empty.
    let mut others = fs::read_dir(dir)?.flatten().filter(|entry| entry.file_name() != "lost+found");
    Ok(others.next().is_none() || OURS.iter().any(|name| dir.join(name).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn folders_of_ours_are_closed_and_folders_of_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("a/b");
        make_private_folder(&new).unwrap();
        assert_eq!((mode(&new), mode(&dir.path().join("a"))), (0o700, 0o700));

        for name in OURS {
            let known = dir.path().join(format!("with-{name}"));
            fs::create_dir_all(known.join(name)).unwrap();
            fs::set_permissions(&known, Permissions::from_mode(0o755)).unwrap();
            make_private_folder(&known).unwrap();
            assert_eq!(mode(&known), 0o700, "{name}");
        }
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("thesis"), "").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o755)).unwrap();
        make_private_folder(&other).unwrap();
        assert_eq!(mode(&other), 0o755);
    }

    #[test]
    fn files_are_closed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let inside = dir.path().join("state");
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "").unwrap();
        fs::write(inside.join("sessiond.db"), "").unwrap();
        for path in [&outside, &inside.join("sessiond.db")] {
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        make_files_private(&inside).unwrap();
        assert_eq!((mode(&inside.join("sessiond.db")), mode(&outside)), (0o600, 0o644));
    }
}
