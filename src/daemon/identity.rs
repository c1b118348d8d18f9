//! Pinning the machine's name, and changing it while no daemon runs.

use std::path::Path;

use uuid::Uuid;

use crate::clock;
use crate::config::{self, Environment, Overrides};
use crate::domain::{MachineName, Timestamp};
use crate::store::{FolderLock, Identity, IdentityFile, OpenError};
use crate::wire::{ErrorCode, ErrorDetail};

use super::failure;

/// The pinned identity, or a new one under the `explicit` name, or under the guess where nobody named any.
///
/// # Errors
/// `Configuration` when the explicit name and the pinned one disagree.
pub fn pin(
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
                "nobody named this machine, so it is GUESSED and pinned; if that is wrong, run `sessiond identity rename NAME`"
            );
            Ok(Identity::new(name, host_id, now))
        }
    }
}

fn mismatch(pinned: &MachineName, asked: &MachineName) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Configuration,
        message: format!("this host is pinned as \"{pinned}\", but it is now told to be \"{asked}\""),
        hint: format!("run `sessiond identity rename {asked}` to rename it, or go on naming it {pinned}"),
    }
}

/// What a person may do to the identity of a host whose daemon does not run.
pub enum Change {
    Rename(MachineName),
    Replace,
}

/// Shows or changes the identity of a host whose daemon does not run.
pub fn offline(
    overrides: &Overrides,
    environment: &Environment<'_>,
    change: Option<Change>,
) -> Result<Identity, ErrorDetail> {
    let loaded = config::load(overrides, environment).map_err(|error| failure::of_config(&error))?;
    let state_dir = &loaded.settings.state_dir;
    match change {
        None => show(state_dir),
        Some(change) => make(state_dir, change, Uuid::new_v4(), clock::system()()),
    }
}

fn show(state_dir: &Path) -> Result<Identity, ErrorDetail> {
    let pinned = IdentityFile::in_folder(state_dir).load().map_err(failure::of_store)?;
    pinned.ok_or_else(|| ErrorDetail {
        code: ErrorCode::NotFound,
        message: format!("no identity is pinned in {} yet", state_dir.display()),
        hint: "the first `sessiond run` pins one".into(),
    })
}

/// Changes the pin; the sessions in the store move along when the daemon starts.
fn make(state_dir: &Path, change: Change, host_id: Uuid, now: Timestamp) -> Result<Identity, ErrorDetail> {
    let change = |_lock: FolderLock| -> Result<Identity, OpenError> {
        let file = IdentityFile::in_folder(state_dir);
        let pinned = file.load()?;
        let identity = match (pinned, change) {
            (Some(mut pinned), Change::Rename(name)) if pinned.name != name => {
                pinned.rename(name, host_id, now);
                pinned
            }
            (Some(pinned), Change::Rename(_)) => pinned,
            (Some(mut pinned), Change::Replace) => {
                pinned.replace = true;
                pinned
            }
            (None, Change::Rename(name)) => Identity::new(name, host_id, now),
            (None, Change::Replace) => {
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
