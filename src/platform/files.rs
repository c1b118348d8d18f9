//! Folders and files that only their user can read, whichever process creates them and whatever its umask.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Files of a state folder: any process that uses the folder creates at least one of them.
const STATE_FILES: [&str; 6] = ["identity.json", "lock", "sessiond.db", "spool", "agents", "hooks.log"];

/// Creates a state folder and its missing parents with mode 0700. The mode of an existing folder is corrected, unless it
/// has files of other programs.
///
/// # Errors
/// `PermissionDenied` if it belongs to another user, who could not use this user's files in it.
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
    if !is_state_folder(dir)? {
        tracing::warn!(dir = %dir.display(), "other users can read the state folder, which also has other programs' files; run `chmod 0700` on it");
        return Ok(());
    }
    fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))
}

/// Why this user must not write to the folder, if it belongs to another user.
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

/// Options that create a file with mode 0600.
pub fn private_file() -> OpenOptions {
    let mut options = File::options();
    options.mode(FILE_MODE);
    options
}

/// Sets the mode of this user's own files in a state folder to 0600. Older versions created them by the umask.
///
/// # Errors
/// A file of sessiond's belongs to another user, such as one created by a start as root.
pub fn make_files_private(dir: &Path) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Does not follow symlinks.
        let Ok(found) = entry.metadata() else { continue };
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("sessiond.db") || STATE_FILES.contains(&name));
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

fn is_state_folder(dir: &Path) -> io::Result<bool> {
    // A new file system is not quite empty.
    let mut others = fs::read_dir(dir)?.flatten().filter(|entry| entry.file_name() != "lost+found");
    Ok(others.next().is_none() || STATE_FILES.iter().any(|name| dir.join(name).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn makes_state_folders_private_but_not_folders_of_other_programs() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("a/b");
        make_private_folder(&new).unwrap();
        assert_eq!((mode(&new), mode(&dir.path().join("a"))), (0o700, 0o700));

        for name in STATE_FILES {
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
    fn makes_files_private_without_following_links() {
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
