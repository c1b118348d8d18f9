//! The project of a folder: the name of its git repository, else of the folder itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::domain::Project;
use crate::domain::agent::project_named;

/// The project of a folder, which may no longer exist.
pub fn of(folder: &Path) -> Project {
    let place = folder.ancestors().find_map(repository).unwrap_or_else(|| folder.to_owned());
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    project_named(name.strip_suffix(".git").unwrap_or(&name))
}

/// The repository whose work tree begins in this folder. All work trees of one repository are one project.
fn repository(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    let kind = fs::metadata(&git).ok()?;
    if kind.is_dir() {
        return Some(folder.to_owned());
    }
    main_work_tree(folder, &git).or_else(|| Some(folder.to_owned()))
}

/// A linked work tree has a file `.git` that names its own folder in the repository; that names the common one.
/// A submodule has such a file too, but is a repository of its own.
fn main_work_tree(folder: &Path, git: &Path) -> Option<PathBuf> {
    let own = folder.join(line(git)?.strip_prefix("gitdir: ")?);
    let common = fs::canonicalize(own.join(line(&own.join("commondir"))?)).ok()?;
    let parent = common.parent()?;
    // A repository without a work tree inside the folder that holds its work trees, as `.bare` does.
    let is_inside = matches!(common.file_name()?.to_str(), Some(".git" | ".bare")) || points_to(parent, &common);
    Some(if is_inside { parent.to_owned() } else { common })
}

/// Whether the folder's file `.git` names this repository.
fn points_to(folder: &Path, repository: &Path) -> bool {
    let named = line(&folder.join(".git"))
        .and_then(|line| Some(folder.join(line.strip_prefix("gitdir: ")?)))
        .and_then(|named| fs::canonicalize(named).ok());
    named.is_some_and(|named| named == repository)
}

/// The first line of a small file.
fn line(path: &Path) -> Option<String> {
    const LONGEST: u64 = 8192;
    let text =
        fs::metadata(path).ok().filter(|m| m.is_file() && m.len() <= LONGEST).and_then(|_| fs::read(path).ok())?;
    Some(String::from_utf8(text).ok()?.lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_is_named_after_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in [
            "My Repo/.git/worktrees/wt",
            "My Repo/src/deep",
            "elsewhere/wt/src",
            "plain/Ordner",
            "bare.git/worktrees/b",
            "b",
            "My Repo/sub",
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let worktree = at("My Repo/.git/worktrees/wt");
        fs::write(at("elsewhere/wt/.git"), format!("gitdir: {}\n", worktree.display())).unwrap();
        fs::write(worktree.join("commondir"), "../..\n").unwrap();
        fs::write(at("bare.git/worktrees/b/commondir"), "../..\n").unwrap();
        fs::write(at("b/.git"), format!("gitdir: {}\n", at("bare.git/worktrees/b").display())).unwrap();
        for (repository, layout) in [("alpha", ".bare"), ("beta", "repository"), ("gamma", ".repo.git")] {
            let common = at(repository).join(layout);
            fs::create_dir_all(common.join("worktrees/main")).unwrap();
            fs::create_dir_all(at(repository).join("main/src")).unwrap();
            fs::write(at(repository).join(".git"), format!("gitdir: ./{layout}\n")).unwrap();
            fs::write(common.join("worktrees/main/commondir"), "../..\n").unwrap();
            let own = common.join("worktrees/main");
            fs::write(at(repository).join("main/.git"), format!("gitdir: {}\n", own.display())).unwrap();
        }
        fs::write(at("My Repo/sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();
        for (folder, project) in [
            ("My Repo", "my-repo"),
            ("My Repo/src/deep", "my-repo"),
            ("My Repo/src/gone", "my-repo"),
            ("elsewhere/wt/src", "my-repo"),
            ("b", "bare"),
            ("alpha", "alpha"),
            ("alpha/main", "alpha"),
            ("alpha/main/src", "alpha"),
            ("beta/main", "beta"),
            ("gamma/main", "gamma"),
            ("My Repo/sub", "sub"),
            ("plain/Ordner", "ordner"),
            ("gone", "gone"),
        ] {
            assert_eq!(of(&at(folder)).as_str(), project, "{folder}");
        }
        of(Path::new("/"));
    }
}
