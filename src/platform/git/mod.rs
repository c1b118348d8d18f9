//! The git repository that a folder belongs to: what its files say, and what `git status` says within a time limit.
//!
//! A repository may be hostile, on a slow disk, or huge. Its files are only read, each up to a limit. git runs no program
//! that the repository names (see `status`), and is killed at the limit.

mod config;
mod remote;
mod status;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::small_file;
use crate::domain::work::Repository;
use config::Config;
use status::StatusQuery;

/// The largest file that is read, such as HEAD, in bytes.
const MAX_LINE_FILE: u64 = 8192;
/// The largest file of packed references that is searched.
const MAX_PACKED_REFS: u64 = 8 << 20;

/// A repository whose files were read, and for whose working tree git was started.
#[derive(Debug)]
pub struct Inspection {
    repository: Repository,
    status: Option<StatusQuery>,
}

impl Inspection {
    /// Reads the files of the repository that `folder` is in, and starts git. `path`: where git is looked for.
    pub fn begin(folder: &Path, path: Option<&std::ffi::OsStr>) -> Option<Self> {
        let place = Place::of(folder)?;
        let config = Config::read(&place);
        let repository = place.describe(&config);
        let top = place.top.as_deref().filter(|_| !config.names_programs && place.git_dir.is_dir());
        let status = top.and_then(|top| StatusQuery::start(top, path));
        Some(Self { repository, status })
    }

    /// What is known at `until` at the latest.
    pub fn finish(self, until: Instant) -> Repository {
        let mut repository = self.repository;
        let Some(status) = self.status.and_then(|status| status.finish(until)) else { return repository };
        repository.dirty = Some(status.is_dirty);
        repository.ahead = status.ahead;
        repository.behind = status.behind;
        // It also reads references that are kept in another format.
        repository.branch = status.branch;
        repository.head = status.head;
        repository
    }
}

/// Where a repository is.
struct Place {
    /// The folder of the working tree; `None`: this is none.
    top: Option<PathBuf>,
    /// The working tree's own files.
    git_dir: PathBuf,
    /// The files that all working trees of the repository share.
    common_dir: PathBuf,
}

impl Place {
    fn of(folder: &Path) -> Option<Self> {
        folder.ancestors().find_map(|folder| Self::at(folder).or_else(|| Self::bare_at(folder)))
    }

    /// The repository whose working tree begins in this folder.
    fn at(folder: &Path) -> Option<Self> {
        let git = folder.join(".git");
        let kind = fs::metadata(&git).ok()?;
        let git_dir = if kind.is_dir() {
            // An empty folder of that name is no repository.
            fs::symlink_metadata(git.join("HEAD")).ok()?;
            git
        } else {
            folder.join(first_line(&git)?.strip_prefix("gitdir: ")?)
        };
        let top = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let git_dir = fs::canonicalize(&git_dir).unwrap_or(git_dir);
        Some(Self { top: Some(top), common_dir: common_dir(&git_dir), git_dir })
    }

    /// The repository without a working tree that this folder is.
    fn bare_at(folder: &Path) -> Option<Self> {
        let is_bare = folder.join("objects").is_dir() && folder.join("refs").is_dir();
        let git_dir = folder.to_owned();
        first_line(&folder.join("HEAD")).filter(|_| is_bare)?;
        Some(Self { top: None, common_dir: common_dir(&git_dir), git_dir })
    }

    fn describe(&self, config: &Config) -> Repository {
        let (branch, head) = self.head();
        // A folder may hold a repository without a working tree and the working trees beside it.
        let is_bare = config.is_bare && self.git_dir == self.common_dir;
        let top = self.top.as_deref().filter(|_| !is_bare);
        Repository {
            name: config.remote.clone().unwrap_or_else(|| self.name()),
            branch,
            worktree: top.and_then(Path::to_str).map(str::to_owned),
            head,
            ..Repository::default()
        }
    }

    /// The name of the folder that the repository is in.
    fn name(&self) -> String {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let own = name(&self.common_dir).unwrap_or_default();
        let of_folder = matches!(own.as_str(), ".git" | ".bare").then(|| name(self.common_dir.parent()?)).flatten();
        of_folder.unwrap_or_else(|| own.strip_suffix(".git").unwrap_or(&own).to_owned())
    }

    /// The branch and the commit that are checked out.
    fn head(&self) -> (Option<String>, Option<String>) {
        let path = self.git_dir.join("HEAD");
        // Old versions of git made it a link to the branch.
        let linked = fs::read_link(&path).ok().and_then(|link| link.into_os_string().into_string().ok());
        let named = linked.filter(|link| link.starts_with("refs/"));
        let Some(line) = named.map(|name| format!("ref: {name}")).or_else(|| first_line(&path)) else {
            return (None, None);
        };
        let Some(reference) = line.strip_prefix("ref:").map(str::trim) else { return (None, commit(&line)) };
        let is_name = !reference.split('/').any(|part| part.is_empty() || part == ".." || part == ".");
        // A repository that keeps its references in tables has a placeholder here.
        if !is_name || reference == "refs/heads/.invalid" {
            return (None, None);
        }
        let branch = reference.strip_prefix("refs/heads/").unwrap_or(reference).to_owned();
        (Some(branch), self.commit_of(reference))
    }

    fn commit_of(&self, reference: &str) -> Option<String> {
        let loose = first_line(&self.common_dir.join(reference)).and_then(|line| commit(&line));
        loose.or_else(|| {
            let (_, mut reader) = small_file::open(&self.common_dir.join("packed-refs"), MAX_PACKED_REFS)?;
            let mut text = Vec::new();
            reader.read_to_end(&mut text).ok()?;
            let text = String::from_utf8_lossy(&text);
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(_, name)| *name == reference).and_then(|(id, _)| commit(id))
        })
    }
}

/// A linked working tree names the repository's folder in a file; its own may not exist any more.
fn common_dir(git_dir: &Path) -> PathBuf {
    if let Some(line) = first_line(&git_dir.join("commondir")) {
        let common = git_dir.join(line);
        return fs::canonicalize(&common).unwrap_or(common);
    }
    let linked = git_dir.parent().filter(|folder| folder.ends_with("worktrees") && !git_dir.exists());
    linked.and_then(Path::parent).unwrap_or(git_dir).to_owned()
}

/// A commit's id, of SHA-1 or SHA-256.
fn commit(text: &str) -> Option<String> {
    let is_id = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

fn first_line(path: &Path) -> Option<String> {
    let (_, mut reader) = small_file::open(path, MAX_LINE_FILE)?;
    let mut text = String::new();
    reader.read_to_string(&mut text).ok()?;
    Some(text.lines().next()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests;
