//! Writes of clients while no daemon answers: they are left in the spool, and the daemon imports them when it starts.
//!
//! A write is spooled only if it certainly did not reach a daemon ([`is_unreachable`]); otherwise it could be applied
//! twice. Ids of new sessions are drawn here and kept by the daemon.

use std::path::PathBuf;

use super::verbs::identity::{IdentityOptions, IdentityVerb};
use super::{CliError, LocalOperations};
use crate::client::Endpoint;
use crate::clock::Clock;
use crate::domain::{InstanceId, InstanceType, MachineName, Project, Timestamp};
use crate::platform::default_paths::{DefaultPaths, Env, Os, STATE_DIR_VAR, path_in};
use crate::spool::{ClientWrite, Spool, SpooledRequest};
use crate::wire::{ErrorCode, ErrorDetail};

/// Writes requests to the spool, and provides what a daemon would otherwise provide: ids and the machine's name.
pub(super) struct OfflineWriter<'a> {
    pub env: Env<'a>,
    pub local: &'a dyn LocalOperations,
    sockets: Vec<PathBuf>,
    spool: Option<Spool>,
    /// The user's state folder.
    pub state_dir: Option<PathBuf>,
    clock: Clock,
    pub random: fn() -> u64,
}

impl<'a> OfflineWriter<'a> {
    pub(super) fn new(
        env: Env<'a>,
        local: &'a dyn LocalOperations,
        endpoint: &Endpoint,
        clock: Clock,
        random: fn() -> u64,
    ) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self {
            env,
            local,
            sockets: endpoint.candidates().to_vec(),
            spool: Spool::of_client(env, is_root),
            state_dir: path_in(env, STATE_DIR_VAR).or_else(|| DefaultPaths::of(Os::here(), is_root, env).state_dir),
            clock,
            random,
        }
    }

    /// Leaves a write in the spool. `error` is the failure to reach a daemon.
    ///
    /// # Errors
    /// `error`, if there is no spool or it cannot be written.
    pub(super) fn write_to_spool(&self, write: ClientWrite, at: Timestamp, error: ErrorDetail) -> Result<(), CliError> {
        let Some(spool) = &self.spool else { return Err(error.into()) };
        spool.write(&SpooledRequest::new(write, &self.sockets, at), (self.random)()).map_err(|failed| CliError {
            message: format!("{}, and the spool {} cannot be written: {failed}", error.message, spool.dir().display()),
            ..error.into()
        })
    }

    /// The current time. Unlike `OutputStyle::now`, it advances while `exec` runs a program.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Draws the id of a session that is registered in the spool.
    pub(super) fn draw_id(&self, project: &Project, kind: InstanceType) -> InstanceId {
        InstanceId::generate(project, kind, (self.random)())
    }

    /// The name of this machine: HOST_MACHINE, else the pinned identity, else the host's name.
    pub(super) fn machine_name(&self) -> String {
        let named = (self.env)("HOST_MACHINE").and_then(|name| MachineName::parse(name.to_str()?).ok());
        let pinned = || self.local.identity(&IdentityVerb::Show(IdentityOptions::default())).ok();
        let known = named.map(|name| name.to_string()).or_else(|| pinned().map(|pinned| pinned.name));
        known.unwrap_or_else(|| MachineName::guess().to_string())
    }
}

/// The error of a request that was not sent.
pub(super) fn no_daemon() -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Unreachable,
        message: "no daemon answers".to_owned(),
        hint: "start it with `sessiond run`".to_owned(),
    }
}

/// Whether a request certainly did not reach a daemon.
pub(super) fn is_unreachable(error: &ErrorDetail) -> bool {
    error.code == ErrorCode::Unreachable
}
