use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Runs git as a user would who has no settings.
fn git(folder: &Path, words: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(folder).args(["-c", "user.name=n", "-c", "user.email=e", "-c", "protocol.file.allow=always"]);
    command.args(words).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

fn commit_in(folder: &Path, text: &str) {
    fs::write(folder.join("file"), text).unwrap();
    git(folder, &["add", "file"]);
    git(folder, &["commit", "-q", "-m", "m"]);
}

/// A repository with a commit, whose remote has a password.
fn repository(folder: &Path) -> PathBuf {
    let folder = folder.join("app");
    fs::create_dir_all(&folder).unwrap();
    git(&folder, &["init", "-q", "-b", "main"]);
    git(&folder, &["remote", "add", "origin", "https://me:secret@github.com/team/app.git"]);
    commit_in(&folder, "one");
    fs::canonicalize(folder).unwrap()
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

fn inspect(folder: &Path) -> Option<Repository> {
    Some(Inspection::begin(folder, Some(&path()))?.finish(Instant::now() + LONG))
}

/// What the files say, without git.
fn read(folder: &Path) -> Repository {
    Inspection::begin(folder, None).unwrap().finish(Instant::now() + LONG)
}

fn shown(repository: &Repository) -> (&str, Option<&str>, Option<&str>, Option<bool>) {
    let Repository { name, branch, worktree, dirty, .. } = repository;
    (name, branch.as_deref(), worktree.as_deref(), *dirty)
}

#[test]
fn files_and_git_agree_on_a_working_tree() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    let top = app.to_str();
    fs::create_dir(app.join("src")).unwrap();
    let by_files = read(&app.join("src"));
    assert_eq!(shown(&by_files), ("github.com/team/app", Some("main"), top, None));
    let found = inspect(&app.join("src")).unwrap();
    assert_eq!(shown(&found), ("github.com/team/app", Some("main"), top, Some(false)));
    assert_eq!(found.head, by_files.head);
    assert_eq!(found.head.as_ref().map(String::len), Some(40));
    fs::write(app.join("new"), "not tracked").unwrap();
    assert_eq!(inspect(&app).unwrap().dirty, Some(false));
    fs::write(app.join("file"), "changed").unwrap();
    assert_eq!(inspect(&app).unwrap().dirty, Some(true));
    git(&app, &["pack-refs", "--all"]);
    assert_eq!(read(&app).head, found.head, "from packed references");
    git(&app, &["checkout", "-q", "--detach"]);
    assert_eq!((read(&app).branch, read(&app).head), (None, found.head.clone()));
    assert_eq!(inspect(&app).unwrap().branch, None);
}

#[test]
fn ahead_and_behind_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    git(dir.path(), &["clone", "-q", app.to_str().unwrap(), "clone"]);
    let clone = dir.path().join("clone");
    commit_in(&clone, "two");
    commit_in(&clone, "three");
    commit_in(&app, "other");
    git(&clone, &["fetch", "-q"]);
    let found = inspect(&clone).unwrap();
    assert_eq!((found.ahead, found.behind, found.dirty), (Some(2), Some(1), Some(false)));
    assert_eq!(found.name, app.to_str().unwrap(), "a path names no host");
    assert_eq!(inspect(&app).unwrap().ahead, None, "without an upstream branch");
}

#[test]
fn linked_and_nested_working_trees_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    git(&app, &["worktree", "add", "-q", "../tree", "-b", "feature/x"]);
    let tree = fs::canonicalize(dir.path().join("tree")).unwrap();
    let found = inspect(&tree).unwrap();
    assert_eq!(shown(&found), ("github.com/team/app", Some("feature/x"), tree.to_str(), Some(false)));
    assert_eq!(read(&tree).head, found.head);

    let outer = dir.path().join("outer");
    fs::create_dir(&outer).unwrap();
    git(&outer, &["init", "-q", "-b", "trunk"]);
    git(&outer, &["submodule", "--quiet", "add", app.to_str().unwrap(), "inner"]);
    let inner = fs::canonicalize(outer.join("inner")).unwrap();
    let found = inspect(&inner).unwrap();
    assert_eq!(shown(&found), (app.to_str().unwrap(), Some("main"), inner.to_str(), Some(false)));
    assert_eq!(inspect(&outer).unwrap().name, "outer", "without a remote it is the folder's name");
    assert_eq!(inspect(&outer).unwrap().head, None, "there is no commit yet");

    // The main repository is gone.
    fs::remove_dir_all(&app).unwrap();
    let found = inspect(&tree).unwrap();
    assert_eq!(shown(&found), ("app", None, tree.to_str(), None));
}

#[test]
fn repository_without_a_working_tree_has_a_branch() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    git(dir.path(), &["clone", "-q", "--bare", app.to_str().unwrap(), "kept.git"]);
    let bare = dir.path().join("kept.git");
    let found = inspect(&bare.join("refs")).unwrap();
    assert_eq!((found.branch.as_deref(), found.worktree, found.dirty), (Some("main"), None, None));
    git(&bare, &["remote", "remove", "origin"]);
    assert_eq!(inspect(&bare).unwrap().name, "kept");
    // The layout with the repository beside its working trees.
    let beside = dir.path().join("beside");
    fs::create_dir(&beside).unwrap();
    fs::rename(&bare, beside.join(".bare")).unwrap();
    fs::write(beside.join(".git"), "gitdir: ./.bare\n").unwrap();
    let found = inspect(&beside).unwrap();
    assert_eq!(shown(&found), ("beside", Some("main"), None, None));
}

#[test]
fn a_folder_outside_a_repository_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("empty/.git")).unwrap();
    fs::create_dir_all(at("broken")).unwrap();
    fs::write(at("broken/.git"), "no such line\n").unwrap();
    for folder in ["empty", "broken", "absent/folder"] {
        assert!(inspect(&at(folder)).is_none(), "{folder}");
    }
    // Pipes would block a reader.
    fs::create_dir_all(at("pipes/.git")).unwrap();
    for name in ["HEAD", "config", "commondir", "packed-refs"] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipes/.git").join(name), mode).unwrap();
    }
    let found = inspect(&at("pipes")).unwrap();
    assert_eq!(shown(&found), ("pipes", None, fs::canonicalize(at("pipes")).unwrap().to_str(), None));
    for head in ["ref: refs/heads/../../../../etc/passwd", "ref: ", "ref:/", "0123", "\u{0}\u{1b}[31m"] {
        fs::create_dir_all(at("head/.git")).unwrap();
        fs::write(at("head/.git/HEAD"), head).unwrap();
        let found = inspect(&at("head")).unwrap();
        assert_eq!((found.branch, found.head), (None, None), "{head}");
    }
}

#[test]
fn hostile_repository_runs_no_program() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    let evil = dir.path().join("evil");
    fs::write(&evil, format!("#!/bin/sh\ntouch {}/ran\n", dir.path().display())).unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let evil_path = evil.to_str().unwrap();
    for key in ["core.fsmonitor", "core.pager", "core.sshCommand", "core.editor", "diff.external", "core.askPass"] {
        git(&app, &["config", key, evil_path]);
    }
    git(&app, &["config", "core.hooksPath", dir.path().to_str().unwrap()]);
    fs::copy(&evil, dir.path().join("post-index-change")).unwrap();
    fs::write(app.join("file"), "changed").unwrap();
    assert_eq!(inspect(&app).unwrap().dirty, Some(true));
    assert!(!dir.path().join("ran").exists());
    // git would run a filter for each changed file, so it is not asked.
    fs::write(app.join(".gitattributes"), "* filter=x\n").unwrap();
    git(&app, &["config", "filter.x.clean", evil_path]);
    assert_eq!(inspect(&app).unwrap().dirty, None);
    assert!(!dir.path().join("ran").exists());
    // A program in the repository is not git.
    fs::copy(&evil, app.join("git")).unwrap();
    for relative in [".", "", "./"] {
        assert!(Inspection::begin(&app, Some(relative.as_ref())).unwrap().status.is_none());
    }
}

#[test]
fn git_that_hangs_is_killed_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    for (script, head) in [
        ("sleep 600 & echo $! >$0.child; echo $$ >$0.pid; wait", "nothing said"),
        ("sleep 600 & echo $! >$0.child; echo $$ >$0.pid; echo '# branch.oid (initial)'; wait", "half said"),
        (
            "sleep 600 & echo $! >$0.child; echo $$ >$0.pid; echo '# branch.oid (initial)'; exec >&-; wait",
            "output closed",
        ),
    ] {
        let bin = tempfile::tempdir().unwrap();
        let program = bin.path().join("git");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let inspection = Inspection::begin(&app, Some(bin.path().as_os_str())).unwrap();
        let pid_file = program.with_extension("pid");
        let began = Instant::now();
        while !fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n')) {
            assert!(began.elapsed() < LONG);
            std::thread::sleep(Duration::from_millis(5));
        }
        let found = inspection.finish(Instant::now() + Duration::from_millis(50));
        assert_eq!((found.dirty, found.branch.as_deref()), (None, Some("main")), "{head}");
        for name in ["pid", "child"] {
            let pid = fs::read_to_string(program.with_extension(name)).unwrap();
            let runs = || {
                let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            };
            let began = Instant::now();
            while runs() {
                assert!(began.elapsed() < LONG, "{head}: {name} was not killed");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn git_that_fails_or_floods_gives_no_status() {
    let dir = tempfile::tempdir().unwrap();
    let app = repository(dir.path());
    for script in
        ["exit 1", "echo '# branch.oid (initial)'; exit 1", "yes '# branch.x y'", "echo garbage", "kill -9 $$"]
    {
        let bin = tempfile::tempdir().unwrap();
        let program = bin.path().join("git");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([bin.path().to_owned()].into_iter().chain(std::env::split_paths(&path())));
        let found = Inspection::begin(&app, path.ok().as_deref()).unwrap().finish(Instant::now() + LONG);
        assert_eq!((found.dirty, found.branch.as_deref()), (None, Some("main")), "{script}");
    }
}
