//! The path of this program that a service or a hook should run.
//!
//! Package managers keep each version in a separate folder and switch a symlink at an upgrade: Homebrew's
//! `bin/sessiond` points to `Cellar/sessiond/1.0/bin/sessiond`, a Nix profile to `/nix/store/...`, mise's `latest` to
//! `1.0`. A service file with the folder of a version would stop working with the next upgrade. So the path is the one by
//! which the program was called, without resolving symlinks, rather than `current_exe`, which resolves all of them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Names that version managers give to the symlink to the newest version.
const NEWEST_LINKS: [&str; 2] = ["latest", "current"];

/// The absolute path by which this program was called; the path of its file if the former is unknown or another file's.
pub fn installed_path() -> PathBuf {
    let argv0 = env::args_os().next().unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    let file = env::current_exe().unwrap_or_else(|_| PathBuf::from("sessiond"));
    path_of_call(&argv0, &env::current_dir().unwrap_or_default(), &path, &file)
}

/// The path that `argv0` names in the folder `here`, if it is one of `file`, else `file` itself.
fn path_of_call(argv0: &OsStr, here: &Path, path: &OsStr, file: &Path) -> PathBuf {
    let name = Path::new(argv0);
    let called = match name.components().count() {
        0 => None,
        1 if !argv0.as_encoded_bytes().contains(&b'/') => {
            find_on_path(name, here, path).into_iter().find(|found| is_same_file(found, file))
        }
        _ => Some(absolute(name, here)).filter(|called| is_same_file(called, file)),
    };
    let called = called.unwrap_or_else(|| file.to_owned());
    if contains_version(&called) { stable_path(&called, here, path).unwrap_or(called) } else { called }
}

/// Another path to the same file that stays valid after an upgrade.
fn stable_path(called: &Path, here: &Path, path: &OsStr) -> Option<PathBuf> {
    let name = called.file_name()?;
    let found = find_on_path(Path::new(name), here, path).into_iter();
    found.chain(version_link_paths(called)).find(|other| !contains_version(other) && is_same_file(other, called))
}

/// The path with `latest` or `current` in place of the version in it.
fn version_link_paths(called: &Path) -> Vec<PathBuf> {
    let parts: Vec<_> = called.components().collect();
    let Some(place) = parts.iter().position(is_version) else { return Vec::new() };
    let with = |name: &&str| {
        let name: &OsStr = OsStr::new(*name);
        let changed = parts.iter().enumerate();
        changed.map(|(at, part)| if at == place { name } else { part.as_os_str() }).collect()
    };
    NEWEST_LINKS.iter().map(with).collect()
}

fn contains_version(path: &Path) -> bool {
    path.starts_with("/nix/store") || path.components().any(|part| is_version(&part))
}

/// `1.0`, `v1.0.3` and `1.0.3_1` are versions.
fn is_version(part: &Component<'_>) -> bool {
    let Some(name) = part.as_os_str().to_str() else { return false };
    let number = name.strip_prefix('v').unwrap_or(name);
    number.starts_with(|first: char| first.is_ascii_digit()) && number.contains('.')
}

/// The executable files of this name in the folders of PATH, first found first.
fn find_on_path(name: &Path, here: &Path, path: &OsStr) -> Vec<PathBuf> {
    let folders = env::split_paths(path).map(|folder| absolute(&folder, here));
    folders.map(|folder| folder.join(name)).filter(|file| is_executable(file)).collect()
}

fn absolute(path: &Path, here: &Path) -> PathBuf {
    let kept = path.components().filter(|part| *part != Component::CurDir);
    here.join(kept.collect::<PathBuf>())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// Whether both paths name one file. If the running program's file was replaced, there is none to compare with, and any
/// executable at the path counts as its newer version.
fn is_same_file(path: &Path, file: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|about: fs::Metadata| (about.dev(), about.ino())).ok();
    match identity(file) {
        Some(known) => identity(path) == Some(known),
        None => is_executable(path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A program at this path below the folder.
    fn program(dir: &Path, path: &str) -> PathBuf {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    fn link(dir: &Path, target: &str, path: &str) -> PathBuf {
        let link = dir.join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, &link).unwrap();
        link
    }

    #[test]
    fn keeps_the_symlinks_of_the_path_it_was_called_by() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let file = program(&dir, "Cellar/sessiond/1.0/bin/sessiond");
        let linked = link(&dir, "../Cellar/sessiond/1.0/bin/sessiond", "bin/sessiond");
        let path = env::join_paths([dir.join("none"), dir.join("bin")]).unwrap();
        let called = |argv0: &Path| path_of_call(argv0.as_os_str(), &dir, &path, &file);
        for argv0 in [Path::new("sessiond"), Path::new("./bin/sessiond"), Path::new("bin/sessiond"), &linked] {
            assert_eq!(called(argv0), linked, "{argv0:?}");
        }
        assert_eq!(called(&file), linked, "the link on PATH outlives the version's folder");
        let relative = path_of_call("sessiond".as_ref(), &dir, "bin".as_ref(), &file);
        assert_eq!(relative, linked, "a relative folder in PATH");
    }

    #[test]
    fn replaces_the_folder_of_a_version_by_the_link_to_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let file = program(&dir, "mise/installs/sessiond/1.0.3/bin/sessiond");
        link(&dir, "1.0.3", "mise/installs/sessiond/latest");
        let path = file.parent().unwrap().as_os_str().to_owned();
        let expected = dir.join("mise/installs/sessiond/latest/bin/sessiond");
        assert_eq!(path_of_call("sessiond".as_ref(), &dir, &path, &file), expected);
        program(&dir, "mise/installs/sessiond/2.0/bin/sessiond");
        let newer = dir.join("mise/installs/sessiond/2.0/bin/sessiond");
        let known = path_of_call(newer.as_os_str(), &dir, "".as_ref(), &newer);
        assert_eq!(known, newer, "`latest` leads to another version, so it is not the same program");
    }

    #[test]
    fn uses_the_files_path_if_the_name_is_another_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let file = program(&dir, "own/sessiond");
        program(&dir, "other/sessiond");
        let other = dir.join("other").into_os_string();
        for argv0 in ["sessiond", "", "no/such", "-sessiond", "other/sessiond"] {
            assert_eq!(path_of_call(argv0.as_ref(), &dir, &other, &file), file, "{argv0}");
        }
        let replaced = dir.join("own/sessiond (deleted)");
        assert_eq!(path_of_call("own/sessiond".as_ref(), &dir, &other, &replaced), file, "upgraded while it runs");
    }
}
