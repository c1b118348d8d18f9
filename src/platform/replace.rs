//! Replacing a file of the user's as a whole, with the owner and the mode that it had, also where it is a symlink or a
//! mount point, and also for root who works for a user.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::files::{WriteDurability, write_and_rename};

/// No chain of symlinks is longer.
const LINKS: usize = 40;

/// The file that a path leads to by symlinks, whether it exists or not.
///
/// # Errors
/// The links lead in a circle.
pub fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("it is a symlink that leads in a circle"))
}

/// Gives a file the owner of another, if this process may: root works for a user.
///
/// # Errors
/// The other file cannot be examined.
pub fn owned_as(like: &Path, file: &Path) -> io::Result<()> {
    let (wanted, there) = (fs::metadata(like)?, fs::metadata(file)?);
    if (wanted.uid(), wanted.gid()) != (there.uid(), there.gid()) {
        // Without the right to do so the file stays with who made it.
        let _ = chown(file, Some(wanted.uid()), Some(wanted.gid()));
    }
    Ok(())
}

/// Replaces the file by this content: all of it or nothing, where the file can be renamed onto. A mount point and a
/// file with several names cannot, and neither can one whose owner would change; those are written in place.
///
/// # Errors
/// What keeps the file from being written.
pub fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    make_folder(folder)?;
    let there = match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        about => Some(about?),
    };
    if there.as_ref().is_some_and(|about| about.nlink() > 1) {
        return write_in_place(file, content);
    }
    let draft = folder.join(format!(".sessiond-{}.draft", std::process::id()));
    let give_rights = |written: &File| give_rights(written, folder, there.as_ref());
    let done = write_and_rename((CWD, &draft, file), content, WriteDurability::Content, give_rights);
    let Err(error) = done else { return sync_folder(folder) };
    // A mount point (EBUSY), another user's file, a folder that takes no new files.
    match there {
        Some(_) if error.kind() != ErrorKind::StorageFull && error.kind() != ErrorKind::QuotaExceeded => {
            write_in_place(file, content)
        }
        _ => Err(error),
    }
}

/// Gives a new file the owner and mode of the one that it replaces, or else the owner of its folder.
fn give_rights(written: &File, folder: &Path, there: Option<&fs::Metadata>) -> io::Result<()> {
    let owner = match there {
        Some(about) => about.clone(),
        None => fs::metadata(folder)?,
    };
    let own = written.metadata()?;
    if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
        let given = std::os::unix::fs::fchown(written, Some(owner.uid()), Some(owner.gid()));
        // A new file of this user's own in another's folder is in order, a changed owner is not.
        if there.is_some() {
            given?;
        }
    }
    written.set_permissions(Permissions::from_mode(there.map_or(0o600, |about| about.mode() & 0o7777)))
}

fn write_in_place(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut written = OpenOptions::new().write(true).open(file)?;
    written.write_all(content)?;
    written.set_len(content.len() as u64)?;
    written.sync_all()
}

/// A rename counts on the disk only once the folder does; not every file system can say so.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).or(Ok(()))
}

/// Makes the folder and those above it that are missing, owned as the nearest one that is there.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return Ok(()) };
    make_folder(above)?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| owned_as(above, folder)),
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
    fn symlinks_are_followed_to_files_that_do_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("dotfiles/settings.json", at("relative")).unwrap();
        symlink(at("relative"), at("absolute")).unwrap();
        symlink("circle", at("circle")).unwrap();
        assert_eq!(end_of_links(&at("absolute")).unwrap(), at("dotfiles/settings.json"));
        assert_eq!(end_of_links(&at("none")).unwrap(), at("none"));
        assert!(end_of_links(&at("circle")).is_err());
        replace(&end_of_links(&at("absolute")).unwrap(), b"new").unwrap();
        assert_eq!(text(&at("absolute")), "new");
        assert!(at("relative").symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn mode_and_names_of_a_file_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "a longer text").unwrap();
        fs::set_permissions(at("file"), Permissions::from_mode(0o640)).unwrap();
        replace(&at("file"), b"short").unwrap();
        assert_eq!((text(&at("file")), fs::metadata(at("file")).unwrap().mode() & 0o7777), ("short".into(), 0o640));
        fs::hard_link(at("file"), at("other")).unwrap();
        replace(&at("file"), b"new").unwrap();
        assert_eq!(text(&at("other")), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn owner_is_kept_where_root_writes_for_a_user() {
        const USER: u32 = 4242;
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        if chown(&home, Some(USER), Some(USER)).is_err() {
            return println!("skipped: owner_is_kept_where_root_writes_for_a_user needs root");
        }
        let file = home.join(".claude/settings.json");
        for content in ["new", "changed"] {
            replace(&file, content.as_bytes()).unwrap();
            for path in [&file, file.parent().unwrap()] {
                let about = fs::metadata(path).unwrap();
                assert_eq!((about.uid(), about.gid()), (USER, USER), "{}", path.display());
            }
        }
    }

    #[test]
    fn file_that_cannot_be_renamed_onto_is_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let (file, source) = (dir.path().join("file"), dir.path().join("source"));
        fs::write(&file, "").unwrap();
        fs::write(&source, "old and long").unwrap();
        let mount = |args: &[&std::ffi::OsStr]| std::process::Command::new("mount").args(args).output();
        let mounted = mount(&["--bind".as_ref(), source.as_os_str(), file.as_os_str()]);
        if !mounted.is_ok_and(|output| output.status.success()) {
            return println!("skipped: file_that_cannot_be_renamed_onto_is_written_in_place needs a bind mount");
        }
        let replaced = replace(&file, b"new");
        let seen = text(&source);
        let unmounted = std::process::Command::new("umount").arg(&file).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
        replaced.unwrap();
        assert_eq!(seen, "new");
    }
}
