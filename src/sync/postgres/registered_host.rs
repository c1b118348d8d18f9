//! This host as central registered it, for the calls that follow the handshake.

use uuid::Uuid;

use super::hosts::KnownLimits;
use super::records::Shapes;
use crate::domain::MachineName;

/// What this host was registered as in the handshake.
#[derive(Debug)]
pub(super) struct RegisteredHost {
    pub host_id: Uuid,
    pub claim: Uuid,
    pub own_claims: Vec<Uuid>,
    pub name: MachineName,
    pub former_names: Vec<MachineName>,
    pub shapes: Shapes,
    /// Hosts state their stale_after in central.
    pub has_stale_after: bool,
    /// Central has the columns of hosts that vouch for their sessions.
    pub marks_changes_only: bool,
    /// The rate limits that hosts share, as read last.
    pub known_limits: KnownLimits,
}

impl RegisteredHost {
    /// All machine names that this host's sessions may have.
    pub(super) fn names(&self) -> Vec<&str> {
        self.former_names.iter().chain([&self.name]).map(MachineName::as_str).collect()
    }
}
