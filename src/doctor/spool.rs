//! Pending requests in the spool: their number, age and reason.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Environment, Settings};
use crate::domain::{Finding, Timestamp, Verdict, time::age};
use crate::platform::default_paths::{DefaultPaths, STATE_DIR_VAR};
use crate::spool::Spool;
use crate::wire::{ErrorDetail, SpoolBody, StatusBody};

/// By the daemon's status, or by the folders if no daemon answers.
pub(super) fn check(
    status: &Result<StatusBody, ErrorDetail>,
    settings: &Settings,
    environment: &Environment<'_>,
) -> Vec<Finding> {
    match status {
        Ok(status) => {
            let client = Spool::of_client(environment.variable, environment.is_root);
            let own = DefaultPaths::of(environment.os, environment.is_root, environment.variable).state_dir;
            let others = [client, own.map(|dir| Spool::in_folder(&dir)), Some(Spool::shared())];
            let unread = unread(&status.spool.read, &status.store.path, others.into_iter().flatten());
            let is_well = |finding: &Finding| finding.verdict == Verdict::Good;
            let of_daemon = of_daemon(&status.spool).into_iter().filter(|found| unread.is_empty() || !is_well(found));
            of_daemon.collect::<Vec<_>>().into_iter().chain(unread).collect()
        }
        Err(_) => {
            let client = Spool::of_client(environment.variable, environment.is_root);
            let mut spools = vec![Spool::in_folder(&settings.state_dir)];
            spools.extend(client.filter(|client| client.dir() != spools[0].dir()));
            spools.iter().filter_map(of_folder).collect()
        }
    }
}

fn of_daemon(spool: &SpoolBody) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in &spool.folders {
        let since = folder.oldest_at.as_deref().map_or(String::new(), |at| format!(", the oldest since {at}"));
        let reason = folder.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        if folder.waiting > 0 || folder.reason.is_some() {
            let found = format!("pending requests in {}: {}{since}{reason}", folder.path, folder.waiting);
            findings.push(Finding::odd("spool", found, "they are retried; see the reason and the daemon's log"));
        }
        if folder.ignored > 0 {
            let reason = folder.ignored_reason.as_deref().unwrap_or("they are not for this daemon");
            let found = format!("{} files in {} are ignored: {reason}", folder.ignored, folder.path);
            findings.push(Finding::odd("spool", found, "their owners, or root, may remove them"));
        }
    }
    if let Some(newest) = spool.quarantine.first() {
        let (count, reason) = (spool.quarantined, &newest.reason);
        findings.push(Finding::odd(
            "spool",
            format!("{count} spooled requests can never be imported; the newest: {reason}"),
            "inspect the copies in the folder quarantine of the state folder, then remove them",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good("spool", "it is empty"));
    }
    findings
}

/// Folders with requests of this user that the running daemon does not read.
///
/// `read`: the folders that it reads; an older daemon reports none. `store`: its state folder.
fn unread(read: &[String], store: &str, spools: impl Iterator<Item = Spool>) -> Vec<Finding> {
    if read.is_empty() {
        return Vec::new();
    }
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut checked: Vec<PathBuf> = read.iter().map(|path| real(Path::new(path))).collect();
    let mut findings = Vec::new();
    for (place, spool) in spools.enumerate() {
        let path = real(spool.dir());
        if checked.contains(&path) {
            continue;
        }
        checked.push(path);
        let shown = spool.dir().display();
        match spool.names() {
            Ok(names) if names.is_empty() => {}
            Ok(names) => {
                let found =
                    format!("pending requests in {shown}, which the running daemon does not read: {}", names.len());
                findings.push(Finding::wrong("spool", found, start_reader(&spool, store)));
            }
            // Only the first one receives new requests of this user.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && place == 0 => {
                let found = format!("{shown} is not read by the running daemon, and this user may not list it");
                findings.push(Finding::odd("spool", found, "run `sudo sessiond doctor`"));
            }
            Err(_) => {}
        }
    }
    findings
}

/// The advice for requests in a folder that no daemon reads.
fn start_reader(spool: &Spool, store: &str) -> String {
    match spool.dir().parent().filter(|_| !spool.is_shared()) {
        Some(state_dir) => format!(
            "start the daemon that reads it: `{STATE_DIR_VAR}={} sessiond run`; set {STATE_DIR_VAR}={store} for \
             clients of the running one",
            state_dir.display()
        ),
        None => format!(
            "start the system's service, which reads it: `sudo sessiond install`; set {STATE_DIR_VAR}={store} for \
             clients of the running one"
        ),
    }
}

/// `None` for a folder that is missing, empty or cannot be listed.
fn of_folder(spool: &Spool) -> Option<Finding> {
    let names = spool.names().ok()?;
    let oldest = names.first()?;
    let written = fs::symlink_metadata(spool.dir().join(oldest)).ok()?.mtime();
    let now = crate::clock::system()();
    let waited = age(now.since(Timestamp::from_micros(written.saturating_mul(1_000_000))));
    let found = format!("pending requests in {}: {}, the oldest for {waited}", spool.dir().display(), names.len());
    Some(Finding::odd("spool", found, "they are imported when the daemon starts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_a_folder_that_is_not_read_are_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let spool = |name: &str| Spool::in_folder(&dir.path().join(name));
        for name in ["read", "empty", "unread"] {
            fs::create_dir_all(spool(name).dir()).unwrap();
        }
        for name in ["read", "unread"] {
            fs::write(spool(name).dir().join("1.json"), "{}").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("read"), dir.path().join("link")).unwrap();
        let read = [spool("read").dir().display().to_string()];
        let check = |read: &[String], names: &[&str]| unread(read, "/store", names.iter().map(|name| spool(name)));
        assert_eq!(check(&read, &["read", "link", "empty", "missing"]), []);
        let found = check(&read, &["read", "unread", "unread"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, Verdict::Wrong);
        let state_dir = dir.path().join("unread");
        let advice = format!("{:?}", found[0]);
        assert!(advice.contains(&format!("SESSIOND_STATE_DIR={} sessiond run", state_dir.display())), "{advice}");
        assert_eq!(check(&[], &["unread"]), [], "an older daemon does not report what it reads");
    }
}
