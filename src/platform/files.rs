//! Folders and files that only their user can read, regardless of the process that creates them and its umask.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

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

/// What a power cut can undo of an atomic write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteDurability {
    /// Everything: the file may have its old content, the new content, or none. For files that are only a cache.
    Unsynced,
    /// The replacement as a whole: the file has its old or its new content.
    Content,
    /// Nothing: the file has its new content.
    ContentAndName,
}

/// Replaces the content of the file at `path`, or creates it, with exactly this mode.
///
/// The content is written to a draft in the same folder, which is then renamed to `path`: another process that reads the
/// file sees either the old or the new content, and after an error the old content stays. Each process uses a draft of its
/// own, so that processes may write the same file at the same time; the last rename wins.
///
/// # Errors
/// The file or its folder cannot be written or, as `durability` requires, synced.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32, durability: WriteDurability) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let draft = folder.join(format!(".{}.{}.draft", name.display(), std::process::id()));
    write_and_rename((CWD, &draft, path), content, durability, |file| set_mode(file, mode))?;
    match durability {
        WriteDurability::ContentAndName => sync_folder(File::open(folder)?.as_fd()),
        WriteDurability::Unsynced | WriteDurability::Content => Ok(()),
    }
}

/// As [`write_atomically`], in a folder that is open. The draft is named `.NAME`, so no other writer may use this name at
/// the same time.
///
/// # Errors
/// The file or the folder cannot be written or, as `durability` requires, synced.
pub fn write_atomically_in(
    folder: BorrowedFd<'_>,
    name: &str,
    content: &[u8],
    mode: u32,
    durability: WriteDurability,
) -> io::Result<()> {
    let draft = format!(".{name}");
    write_and_rename((folder, draft.as_ref(), name.as_ref()), content, durability, |file| set_mode(file, mode))?;
    match durability {
        WriteDurability::ContentAndName => sync_folder(folder),
        WriteDurability::Unsynced | WriteDurability::Content => Ok(()),
    }
}

/// Writes the draft, which `prepare` gives its owner and mode before it has content, and renames it to `name`. The folder
/// is not synced. After an error no draft is left.
pub(super) fn write_and_rename(
    (folder, draft, name): (BorrowedFd<'_>, &Path, &Path),
    content: &[u8],
    durability: WriteDurability,
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let write = || {
        // A process with this id may have been killed here before. Created again, so that no link is followed.
        let _ = unlinkat(folder, draft, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(folder, draft, flags, Mode::RUSR | Mode::WUSR)?);
        prepare(&file)?;
        file.write_all(content)?;
        if durability != WriteDurability::Unsynced {
            file.sync_all()?;
        }
        Ok(renameat(folder, draft, folder, name)?)
    };
    let written = write();
    if written.is_err() {
        let _ = unlinkat(folder, draft, AtFlags::empty());
    }
    written
}

/// Syncs the names in a folder. Some file systems cannot do it (`EINVAL`), and neither can a descriptor that may only be
/// searched (`EBADF`); then the names are synced when the file system does it by itself.
fn sync_folder(folder: BorrowedFd<'_>) -> io::Result<()> {
    match fsync(folder) {
        Err(Errno::BADF | Errno::INVAL | Errno::NOTSUP) => Ok(()),
        synced => Ok(synced?),
    }
}

/// Sets the mode regardless of the umask.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_content_and_mode_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (content, durability) in [
            ("a longer text", WriteDurability::ContentAndName),
            ("short", WriteDurability::Content),
            ("", WriteDurability::Unsynced),
        ] {
            write_atomically(&path, content.as_bytes(), 0o640, durability).unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), (content, 0o640));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn failed_atomic_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(write_atomically(&path, b"new", 0o600, WriteDurability::Content).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        assert!(write_atomically(&dir.path().join("missing/file"), b"", 0o600, WriteDurability::Content).is_err());
    }

    #[test]
    fn atomic_write_does_not_follow_a_link_at_the_draft() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join(format!(".file.{}.draft", std::process::id()))).unwrap();
        write_atomically(&path, b"new", 0o600, WriteDurability::Content).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

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
