//! Pins this machine's identity at the first start, and changes it while no daemon runs.

use std::path::Path;

use uuid::Uuid;

use crate::clock;
use crate::config::{self, Environment, Overrides};
use crate::domain::{MachineName, Timestamp};
use crate::store::{FolderLock, Identity, IdentityFile, OpenError};
use crate::wire::{ErrorCode, ErrorDetail};

use super::failure;

/// Returns the pinned identity, or a new one with the `explicit` name, or else with a guessed one.
///
/// # Errors
/// `Configuration` when the explicit name and the pinned one disagree.
pub(super) fn pin(
    file: &IdentityFile,
    explicit: Option<&MachineName>,
    host_id: Uuid,
    now: Timestamp,
) -> Result<Identity, ErrorDetail> {
    match (file.load().map_err(failure::of_store)?, explicit) {
        (Some(pinned), Some(name)) if pinned.name != *name => Err(mismatch(&pinned.name, name)),
        (Some(pinned), _) => Ok(pinned),
        (None, Some(name)) => Ok(Identity::new(name.clone(), host_id, now)),
        (None, None) => {
            let name = MachineName::guess();
            tracing::warn!(
                %name,
                "machine.name is not set, so the name was GUESSED and is pinned now; if it is wrong, run `sessiond identity rename NAME`"
            );
            Ok(Identity::new(name, host_id, now))
        }
    }
}

fn mismatch(pinned: &MachineName, asked: &MachineName) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Configuration,
        message: format!("this host's pinned name is \"{pinned}\", but machine.name is \"{asked}\""),
        hint: format!("run `sessiond identity rename {asked}` to rename it, or set machine.name to {pinned}"),
    }
}

/// A change of the identity of a host whose daemon does not run.
pub enum IdentityChange {
    /// Pin this name instead.
    Rename(MachineName),
    /// Draw a new host id, as for a copy of a state folder.
    Replace,
}

/// Returns the identity of a host whose daemon does not run, after changing it if `change` is given.
///
/// # Errors
/// A daemon runs, no identity is pinned to be shown, or its file cannot be read or written.
pub fn offline(
    overrides: &Overrides,
    environment: &Environment<'_>,
    change: Option<IdentityChange>,
) -> Result<Identity, ErrorDetail> {
    let loaded = config::load(overrides, environment).map_err(|error| failure::of_config(&error))?;
    let state_dir = &loaded.settings.state_dir;
    match change {
        None => load(state_dir),
        Some(change) => apply(state_dir, change, Uuid::new_v4(), clock::system()()),
    }
}

fn load(state_dir: &Path) -> Result<Identity, ErrorDetail> {
    let pinned = IdentityFile::in_folder(state_dir).load().map_err(failure::of_store)?;
    pinned.ok_or_else(|| ErrorDetail {
        code: ErrorCode::NotFound,
        message: format!("no identity is pinned in {} yet", state_dir.display()),
        hint: "the first `sessiond run` pins one".into(),
    })
}

/// Changes the pinned identity; the sessions in the store are changed when the daemon starts.
fn apply(state_dir: &Path, change: IdentityChange, host_id: Uuid, now: Timestamp) -> Result<Identity, ErrorDetail> {
    let change = |_lock: FolderLock| -> Result<Identity, OpenError> {
        let file = IdentityFile::in_folder(state_dir);
        let pinned = file.load()?;
        let identity = match (pinned, change) {
            (Some(mut pinned), IdentityChange::Rename(name)) if pinned.name != name => {
                pinned.rename(name, host_id, now);
                pinned
            }
            (Some(pinned), IdentityChange::Rename(_)) => pinned,
            (Some(mut pinned), IdentityChange::Replace) => {
                pinned.replace = true;
                pinned
            }
            (None, IdentityChange::Rename(name)) => Identity::new(name, host_id, now),
            (None, IdentityChange::Replace) => {
                let mut guessed = Identity::new(MachineName::guess(), host_id, now);
                guessed.replace = true;
                guessed
            }
        };
        file.save(&identity)?;
        Ok(identity)
    };
    FolderLock::take(state_dir).and_then(change).map_err(failure::of_store)
}
