//! What waits in the spool, for how long and why.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::config::{Environment, Settings};
use crate::domain::{Finding, Timestamp, time::age};
use crate::spool::Spool;
use crate::wire::{ErrorDetail, SpoolBody, StatusBody};

/// As the daemon reports it, or as the folders show it where no daemon answers.
pub(super) fn check(
    status: &Result<StatusBody, ErrorDetail>,
    settings: &Settings,
    environment: &Environment<'_>,
) -> Vec<Finding> {
    match status {
        Ok(status) => of_daemon(&status.spool),
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
            let found = format!("{} requests wait in {}{since}{reason}", folder.waiting, folder.path);
            findings.push(Finding::odd("spool", found, "they are tried again; see the reason and the daemon's log"));
        }
        if folder.ignored > 0 {
            let reason = folder.ignored_reason.as_deref().unwrap_or("they are not for this daemon");
            let found = format!("{} files in {} are left alone: {reason}", folder.ignored, folder.path);
            findings.push(Finding::odd("spool", found, "their owners, or root, may remove them"));
        }
    }
    if let Some(newest) = spool.quarantine.first() {
        let (count, reason) = (spool.quarantined, &newest.reason);
        findings.push(Finding::odd(
            "spool",
            format!("{count} spooled requests can never be imported; the newest: {reason}"),
            "look at the copies in the folder quarantine of the state folder, then remove them",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good("spool", "nothing waits in it"));
    }
    findings
}

/// Nothing for a folder that cannot be listed, or is not there.
fn of_folder(spool: &Spool) -> Option<Finding> {
    let names = spool.names().ok()?;
    let oldest = names.first()?;
    let written = fs::symlink_metadata(spool.dir().join(oldest)).ok()?.mtime();
    let now = crate::clock::system()();
    let waited = age(now.since(Timestamp::from_micros(written.saturating_mul(1_000_000))));
    let found = format!("{} requests wait in {}, the oldest for {waited}", names.len(), spool.dir().display());
    Some(Finding::odd("spool", found, "they are imported when the daemon starts"))
}
