//! Replaces the content of a user's file, keeping owner and mode, also if it is a symlink or a mount point, and also if
//! root does it for the user.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::files::{WriteDurability, write_and_rename};

/// The longest chain of symlinks that is followed, as in the kernel.
const MAX_LINKS: usize = 40;

/// Follows symlinks to their end, where a file may or may not exist.
///
/// # Errors
/// The links form a loop.
pub fn resolve_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("it is a symlink that leads back to itself"))
}

/// Gives `file` the owner of `like`, if this process may (as root does for a user).
///
/// # Errors
/// The other file cannot be examined.
pub fn copy_owner(like: &Path, file: &Path) -> io::Result<()> {
    let (wanted, existing) = (fs::metadata(like)?, fs::metadata(file)?);
    if (wanted.uid(), wanted.gid()) != (existing.uid(), existing.gid()) {
        // Without the permission the owner stays unchanged.
        let _ = chown(file, Some(wanted.uid()), Some(wanted.gid()));
    }
    Ok(())
}

/// Replaces the file's content atomically, by a rename. A mount point, a file with several hard links and one whose
/// owner would change cannot be renamed onto; those are written in place.
///
/// # Errors
/// The file cannot be written.
pub fn replace_file(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    make_folder(folder)?;
    let existing = match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        about => Some(about?),
    };
    if existing.as_ref().is_some_and(|about| about.nlink() > 1) {
        return write_in_place(file, content);
    }
    let draft = folder.join(format!(".sessiond-{}.draft", std::process::id()));
    let give_rights = |written: &File| give_rights(written, folder, existing.as_ref());
    let done = write_and_rename((CWD, &draft, file), content, WriteDurability::Content, give_rights);
    let Err(error) = done else { return sync_folder(folder) };
    // A mount point (EBUSY), another user's file, a folder without write permission.
    match existing {
        Some(_) if error.kind() != ErrorKind::StorageFull && error.kind() != ErrorKind::QuotaExceeded => {
            write_in_place(file, content)
        }
        _ => Err(error),
    }
}

/// Gives a new file the owner and mode of the one that it replaces, or else the owner of its folder.
fn give_rights(written: &File, folder: &Path, existing: Option<&fs::Metadata>) -> io::Result<()> {
    let owner = match existing {
        Some(about) => about.clone(),
        None => fs::metadata(folder)?,
    };
    let own = written.metadata()?;
    if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
        let given = std::os::unix::fs::fchown(written, Some(owner.uid()), Some(owner.gid()));
        // A new file may keep this user as its owner; an existing file's owner must not change.
        if existing.is_some() {
            given?;
        }
    }
    written.set_permissions(Permissions::from_mode(existing.map_or(0o600, |about| about.mode() & 0o7777)))
}

fn write_in_place(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut written = OpenOptions::new().write(true).open(file)?;
    written.write_all(content)?;
    written.set_len(content.len() as u64)?;
    written.sync_all()
}

/// Makes a rename durable. Errors are ignored, since not every file system supports it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).or(Ok(()))
}

/// Creates the folder and its missing parents, with the owner of the nearest existing parent.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return Ok(()) };
    make_folder(above)?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| copy_owner(above, folder)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn follows_symlinks_to_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("dotfiles/settings.json", at("relative")).unwrap();
        symlink(at("relative"), at("absolute")).unwrap();
        symlink("circle", at("circle")).unwrap();
        assert_eq!(resolve_links(&at("absolute")).unwrap(), at("dotfiles/settings.json"));
        assert_eq!(resolve_links(&at("none")).unwrap(), at("none"));
        assert!(resolve_links(&at("circle")).is_err());
        replace_file(&resolve_links(&at("absolute")).unwrap(), b"new").unwrap();
        assert_eq!(text(&at("absolute")), "new");
        assert!(at("relative").symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn keeps_mode_and_hard_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "a longer text").unwrap();
        fs::set_permissions(at("file"), Permissions::from_mode(0o640)).unwrap();
        replace_file(&at("file"), b"short").unwrap();
        assert_eq!((text(&at("file")), fs::metadata(at("file")).unwrap().mode() & 0o7777), ("short".into(), 0o640));
        fs::hard_link(at("file"), at("other")).unwrap();
        replace_file(&at("file"), b"new").unwrap();
        assert_eq!(text(&at("other")), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn keeps_the_owner_when_root_writes_for_a_user() {
        const USER: u32 = 4242;
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        if chown(&home, Some(USER), Some(USER)).is_err() {
            return testkit::skip::skip("keeps_the_owner_when_root_writes_for_a_user", "root");
        }
        let file = home.join(".claude/settings.json");
        for content in ["new", "changed"] {
            replace_file(&file, content.as_bytes()).unwrap();
            for path in [&file, file.parent().unwrap()] {
                let about = fs::metadata(path).unwrap();
                assert_eq!((about.uid(), about.gid()), (USER, USER), "{}", path.display());
            }
        }
    }

    #[test]
    fn writes_in_place_what_cannot_be_renamed_onto() {
        let dir = tempfile::tempdir().unwrap();
        let (file, source) = (dir.path().join("file"), dir.path().join("source"));
        fs::write(&file, "").unwrap();
        fs::write(&source, "old and long").unwrap();
        let mount = |args: &[&std::ffi::OsStr]| std::process::Command::new("mount").args(args).output();
        let mounted = mount(&["--bind".as_ref(), source.as_os_str(), file.as_os_str()]);
        if !mounted.is_ok_and(|output| output.status.success()) {
            return testkit::skip::skip("writes_in_place_what_cannot_be_renamed_onto", "a bind mount");
        }
        let replaced = replace_file(&file, b"new");
        let seen = text(&source);
        let unmounted = std::process::Command::new("umount").arg(&file).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
        replaced.unwrap();
        assert_eq!(seen, "new");
    }
}
