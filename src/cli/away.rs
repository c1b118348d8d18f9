//! What is done with a write when no daemon answers: it waits in the spool.

use std::path::PathBuf;

use super::args::{IdentityOptions, IdentityVerb};
use super::{CliError, Local};
use crate::client::Endpoint;
use crate::clock::Clock;
use crate::domain::{InstanceId, InstanceType, MachineName, Project, Timestamp};
use crate::platform::default_paths::{DefaultPaths, Env, Os, STATE_DIR_VAR, path_in};
use crate::spool::{ClientWrite, Spool, SpooledRequest};
use crate::wire::{ErrorCode, ErrorDetail};

/// Where a client keeps what it cannot tell anybody now.
pub struct Away<'a> {
    pub env: Env<'a>,
    pub local: &'a dyn Local,
    sockets: Vec<PathBuf>,
    spool: Option<Spool>,
    /// The user's state folder.
    pub state_dir: Option<PathBuf>,
    clock: Clock,
    pub random: fn() -> u64,
}

impl<'a> Away<'a> {
    pub fn new(env: Env<'a>, local: &'a dyn Local, endpoint: &Endpoint, clock: Clock, random: fn() -> u64) -> Self {
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

    /// Leaves a write that met nobody; `error` says how it was found that nobody is there.
    ///
    /// # Errors
    /// `error` itself, where there is no place for it either.
    pub fn leave(&self, write: ClientWrite, at: Timestamp, error: ErrorDetail) -> Result<(), CliError> {
        let Some(spool) = &self.spool else { return Err(error.into()) };
        spool.write(&SpooledRequest::new(write, &self.sockets, at), (self.random)()).map_err(|failed| CliError {
            message: format!("{}, and the spool {} takes nothing: {failed}", error.message, spool.dir().display()),
            ..error.into()
        })
    }

    /// The time now; what is printed is all of one moment, but a program may run for days.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// An id for a session that no daemon can give one now.
    pub fn draw(&self, project: &Project, kind: InstanceType) -> InstanceId {
        InstanceId::generate(project, kind, (self.random)())
    }

    /// The name of this machine, as far as it can be known without a daemon.
    pub fn machine(&self) -> String {
        let named = (self.env)("HOST_MACHINE").and_then(|name| MachineName::parse(name.to_str()?).ok());
        let pinned = || self.local.identity(&IdentityVerb::Show(IdentityOptions::default())).ok();
        let known = named.map(|name| name.to_string()).or_else(|| pinned().map(|pinned| pinned.name));
        known.unwrap_or_else(|| MachineName::guess().to_string())
    }
}

/// Nobody was asked.
pub fn nobody() -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Unreachable,
        message: "no daemon answers".to_owned(),
        hint: "start it with `sessiond run`".to_owned(),
    }
}

/// Did a request certainly not reach anybody?
pub fn met_nobody(error: &ErrorDetail) -> bool {
    error.code == ErrorCode::Unreachable
}
