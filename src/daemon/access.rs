//! Who may use the socket: its owner, root, and the members of the configured group.

use std::sync::Arc;

use tokio::net::UnixStream;

use crate::api::{AccessPolicy, ApiError, Peer};
use crate::platform::peer::{self, Group, PeerCredentials};
use crate::wire::{ErrorCode, ErrorDetail};

use super::spool_scan::AllowedUsers;

/// Which users may use this daemon.
#[derive(Clone)]
pub(super) struct SocketAccess {
    owner: u32,
    group: Option<Group>,
}

impl SocketAccess {
    /// Access to a daemon of this process's user. `group`: name or number of the group whose members are allowed.
    ///
    /// # Errors
    /// `Configuration`: the group cannot be resolved.
    pub(super) fn new(group: Option<&str>) -> Result<Self, ErrorDetail> {
        let group = group.map(Group::resolve).transpose().map_err(|error| ErrorDetail {
            code: ErrorCode::Configuration,
            message: format!("socket.group: {error}"),
            hint: "create the group, or name another".into(),
        })?;
        Ok(Self { owner: rustix::process::geteuid().as_raw(), group })
    }

    pub(super) fn group_id(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.gid)
    }

    /// Decides by user id alone, from the user database: for the owners of spooled requests, who hold no connection.
    pub(super) fn allowed_users(&self) -> AllowedUsers {
        let access = self.clone();
        Arc::new(move |uid| {
            let gid = peer::main_group(uid).unwrap_or(u32::MAX);
            peer::is_allowed(&PeerCredentials { uid, gid, pid: None }, access.owner, access.group.as_ref())
        })
    }

    /// Decides by the connection, whose peer's groups the kernel reports.
    pub(super) fn policy(self) -> AccessPolicy {
        Arc::new(move |stream| self.admit(stream))
    }

    fn admit(&self, stream: &UnixStream) -> Result<Peer, ApiError> {
        let forbidden = |message: String, hint| ApiError::new(ErrorCode::Forbidden, message, hint);
        let peer = PeerCredentials::of(stream)
            .map_err(|error| forbidden(format!("the peer cannot be identified: {error}"), "connect again"))?;
        let in_group = || self.group_id().is_some_and(|gid| peer::has_group(stream, gid));
        if !peer::is_allowed(&peer, self.owner, self.group.as_ref()) && !in_group() {
            let hint = "ask its owner to add you to the group that socket.group names";
            return Err(forbidden(format!("user {} may not use this daemon", peer.uid), hint));
        }
        Peer::new(peer).ok_or_else(|| {
            let message = "the calling process has ended, so its rights cannot be determined";
            forbidden(message.to_owned(), "keep the process that connects until it is answered")
        })
    }
}
