//! Messages of identity conflicts: what happened, and what an operator can do.

use uuid::Uuid;

use crate::domain::{MachineName, Timestamp};

/// What an operator can do.
const REMEDIES: &str = "run `sessiond identity rename NAME` to give this host another name, or `sessiond identity \
     replace` to take it over";

/// Another host has the machine name.
pub(super) fn taken(name: &MachineName, by: Uuid, last_seen: Timestamp) -> String {
    format!("another host ({by}, last seen {last_seen}) goes by the name {name} in central; {REMEDIES}")
}

/// A copy of the state folder runs as this host.
pub(super) fn copied(host_id: Uuid, name: &str, last_seen: Timestamp) -> String {
    format!(
        "a copy of this state folder (host {host_id}, {name}, last seen {last_seen}) runs elsewhere; run `sessiond \
         identity rename NAME` on the copy, or `sessiond identity replace` on the one that shall keep the name"
    )
}

/// An operator had another host replace this one.
pub(super) fn replaced(name: &str, by: Uuid) -> String {
    format!("host {by} has replaced this one as {name} in central; {REMEDIES}")
}
