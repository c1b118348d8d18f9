//! Checks of this machine: the program, the configuration, the identity, the daemon's status, the socket, the store and the
//! disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytesize::ByteSize;

use crate::client::Client;
use crate::config::{Environment, Loaded, Settings};
use crate::domain::Finding;
use crate::store::{self, IdentityFile};
use crate::wire::{ErrorDetail, StatusBody};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// With less free space than this, in bytes, writes fail soon.
const LOW_DISK_BYTES: u64 = 100 << 20;

pub(super) fn program() -> Finding {
    let path = std::env::current_exe().map_or_else(|_| "an unknown folder".into(), |path| path.display().to_string());
    Finding::good("program", format!("sessiond {VERSION} in {path}"))
}

/// Other programs of this name, which a shell may run instead.
pub(super) fn other_programs(environment: &Environment<'_>) -> Vec<Finding> {
    let file =
        |path: &Path| fs::metadata(path).ok().filter(|found| found.is_file()).map(|found| (found.dev(), found.ino()));
    let own = std::env::current_exe().ok().and_then(|path| file(&path));
    let path = (environment.variable)("PATH").unwrap_or_default();
    let mut seen = vec![own];
    let mut others = Vec::new();
    for candidate in std::env::split_paths(&path).map(|dir| dir.join("sessiond")) {
        let found = file(&candidate);
        if found.is_some() && !seen.contains(&found) {
            seen.push(found);
            others.push(candidate);
        }
    }
    others.iter().map(other).collect()
}

fn other(path: &PathBuf) -> Finding {
    let output = Command::new(path).arg("--version").output().ok();
    let version_line =
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let shown = path.display();
    match version_line.strip_prefix("sessiond ") {
        Some(VERSION) => {
            Finding::odd("path", format!("a second sessiond {VERSION} is {shown}"), format!("remove {shown}"))
        }
        _ => Finding::wrong(
            "path",
            format!("another version, {version_line:?}, is {shown}"),
            format!("remove {shown}, or install this one there"),
        ),
    }
}

pub(super) fn config(loaded: &Loaded) -> Finding {
    match &loaded.config_path {
        Some(path) if loaded.file_exists => Finding::good("config", format!("{} is valid", path.display())),
        Some(path) => Finding::good("config", format!("there is no {}, so the defaults hold", path.display())),
        None => Finding::good("config", "no file, so the defaults hold"),
    }
}

pub(super) fn identity(settings: &Settings) -> Finding {
    let explicit = settings.machine.name.as_ref();
    match (IdentityFile::in_folder(&settings.state_dir).load(), explicit) {
        (Ok(Some(pinned)), Some(name)) if pinned.name != *name => Finding::wrong(
            "identity",
            format!("this host is pinned as {}, but configured as {name}", pinned.name),
            format!("run `sessiond identity rename {name}`, or configure {}", pinned.name),
        ),
        (Ok(Some(pinned)), _) => Finding::good("identity", format!("{}, host id {}", pinned.name, pinned.host_id)),
        (Ok(None), _) => Finding::odd("identity", "none is pinned yet", "the first `sessiond run` pins one"),
        (Err(error), _) => Finding::odd("identity", error.to_string(), "run this as the daemon's user, or as root"),
    }
}

/// Findings of the daemon's status.
pub(super) fn daemon(status: &Result<StatusBody, ErrorDetail>) -> Vec<Finding> {
    let status = match status {
        Ok(status) => status,
        Err(error) => return vec![Finding::wrong("daemon", error.message.clone(), error.hint.clone())],
    };
    let daemon = &status.daemon;
    let found = format!("sessiond {} runs as process {}", daemon.version, daemon.pid);
    let mut findings = vec![if daemon.version == VERSION {
        Finding::good("daemon", found)
    } else {
        Finding::wrong("daemon", format!("{found}, and this is {VERSION}"), "restart it: `sessiond install` does")
    }];
    if let Some(error) = &status.config.error {
        findings.push(Finding::wrong(
            "config",
            format!("not in force: {error}"),
            "fix the file; the daemon reloads it",
        ));
    }
    if let Some(conflict) = &status.machine.conflict {
        findings.push(Finding::wrong("identity", conflict.message.clone(), "see `sessiond identity --help`"));
    }
    if let Some(error) = &status.store.sync_error {
        findings.push(Finding::wrong("store", error.clone(), "free space on the disk, or raise store.max_size"));
    }
    if status.central.unreadable_rows > 0 {
        findings.push(Finding::odd(
            "mirror",
            format!("{} rows in central could not be read and were skipped", status.central.unreadable_rows),
            "find rows with empty times or odd ids in central, and correct them",
        ));
    }
    if let Some(damage) = &status.store.damage {
        findings.push(Finding::odd("store", damage.clone(), "inspect the damaged file, then remove it"));
    }
    if status.parked > 0 {
        findings.push(Finding::odd(
            "parked",
            format!("central rejects {} sessions and records", status.parked),
            "see `sessiond parked list`",
        ));
    }
    for blocked in &status.backlog.blocked {
        let found = format!("pending records for central's {}: {}", blocked.table, blocked.records);
        findings.push(Finding::wrong("records", found, blocked.reason.clone()));
    }
    findings.push(link(status));
    findings
}

fn link(status: &StatusBody) -> Finding {
    let central = &status.central;
    let why = central.last_error.as_deref().map_or(String::new(), |error| format!(": {error}"));
    let found = format!("{}{why}; pending sessions: {}", central.state.replace('_', " "), status.backlog.sessions);
    match central.state.as_str() {
        "connected" | "off" => Finding::good("link", found),
        "connecting" => Finding::odd("link", found, "check again in a few seconds"),
        "schema_missing" => Finding::wrong("link", found, "run `sessiond migrate`"),
        _ => Finding::wrong("link", found, "nothing is lost; see the findings of central below"),
    }
}

pub(super) fn socket(client: &Client) -> Finding {
    for path in client.socket_candidates() {
        let Ok(found) = fs::symlink_metadata(path) else { continue };
        let shown = path.display();
        if !found.file_type().is_socket() {
            return Finding::wrong("socket", format!("{shown} is not a socket"), "remove it, and restart the daemon");
        }
        let mode = found.permissions().mode() & 0o777;
        let rights = format!("{shown}, mode {mode:04o}, user {}, group {}", found.uid(), found.gid());
        return match mode & 0o007 {
            0 => Finding::good("socket", rights),
            _ => Finding::odd(
                "socket",
                format!("{rights}: every user may connect"),
                "restrict it by socket.mode = \"0660\" and socket.group",
            ),
        };
    }
    Finding::wrong("socket", "there is none", "start the daemon: `sessiond install`, or `sessiond run`")
}

pub(super) fn store(state_dir: &Path) -> Vec<Finding> {
    match store::examine(state_dir) {
        Ok(None) => vec![Finding::odd(
            "store",
            format!("there is none in {} yet", state_dir.display()),
            "the first `sessiond run` creates it",
        )],
        Ok(Some(problems)) if problems.is_empty() => {
            vec![Finding::good("store", format!("the one in {} is intact", state_dir.display()))]
        }
        Ok(Some(problems)) => problems
            .into_iter()
            .map(|problem| {
                Finding::wrong(
                    "store",
                    problem,
                    "restart the daemon: it moves a damaged store aside and copies what can be read",
                )
            })
            .collect(),
        Err(error) => {
            let found = format!("the one in {} cannot be read: {error}", state_dir.display());
            vec![Finding::odd("store", found, "run this as the daemon's user, or as root")]
        }
    }
}

pub(super) fn disk(state_dir: &Path) -> Finding {
    // The folder may not exist yet, or be hidden: the nearest existing one above it is on the same disk.
    let Some(free) = state_dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok()) else {
        return Finding::odd("disk", "its free space is unknown", "check it with `df`");
    };
    let bytes = free.f_bavail.saturating_mul(free.f_frsize);
    let found = format!("{} free under {}", ByteSize(bytes), state_dir.display());
    if bytes < LOW_DISK_BYTES {
        return Finding::wrong("disk", found, "free space: on a full disk nothing is recorded");
    }
    Finding::good("disk", found)
}
