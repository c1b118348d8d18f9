//! What `sessiond status` shows, and the requests that tend to the daemon itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Invalid;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusBody {
    pub daemon: DaemonBody,
    pub machine: MachineIdentity,
    pub central: CentralBody,
    pub backlog: BacklogBody,
    /// How many sessions and records central does not take as they are: see `sessiond parked list`.
    pub parked: u64,
    pub sessions: SessionCounts,
    pub store: StoreBody,
    pub config: ConfigBody,
    /// What clients left while no daemon answered and is not imported.
    #[serde(default)]
    pub spool: SpoolBody,
    #[serde(default)]
    pub socket: SocketBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DaemonBody {
    pub version: String,
    pub pid: u32,
    pub started_at: String,
    pub uptime_seconds: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineIdentity {
    pub name: String,
    pub host_id: String,
    pub pinned_at: String,
    /// The other host that goes by this name, if there is one.
    pub conflict: Option<ConflictBody>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictBody {
    pub host_id: String,
    pub machine_name: String,
    pub last_seen: Option<String>,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CentralBody {
    pub configured: bool,
    /// `connected`, `connecting`, `unreachable`, `refused`, `schema_missing`, `identity_conflict` or `off`.
    pub state: String,
    /// Since when it is in that state.
    pub since: String,
    /// What is wrong and what to do, in one line; null while all is well.
    pub last_error: Option<String>,
    pub last_sync_at: Option<String>,
    pub round_trip_ms: Option<f64>,
    /// Whether central tells at once of what others change; else it is asked every `central.pull_interval`.
    #[serde(default)]
    pub listening: bool,
    /// How far this machine's clock is ahead of central's, in seconds, negative where it is behind; null while they
    /// agree.
    #[serde(default)]
    pub clock_ahead_seconds: Option<f64>,
}

/// What waits for central.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BacklogBody {
    pub sessions: u64,
    pub records: u64,
    /// When the oldest change that waits was made.
    pub oldest_at: Option<String>,
    /// Kinds of records that central does not take at present, whatever else is pushed.
    #[serde(default)]
    pub blocked: Vec<BlockedBody>,
}

/// A kind of records that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BlockedBody {
    /// `event`, `command` or `checkpoint`.
    pub kind: String,
    /// Central's table for them.
    pub table: String,
    /// How many of the records that wait these are.
    pub records: u64,
    /// What central lacks, and what to do, in one line.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionCounts {
    pub active: u64,
    pub stale: u64,
    pub closed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreBody {
    pub path: String,
    pub bytes: u64,
    pub durability: String,
    /// The damaged files that were set aside, since when, and what to do; null once they are removed.
    #[serde(default)]
    pub damage: Option<String>,
}

/// The daemon's socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SocketBody {
    pub path: String,
    /// Whether the service manager made it; then only that one can make it anew.
    pub inherited: bool,
    /// Why clients cannot reach the daemon by this path, and what to do; null while they can.
    pub error: Option<String>,
}

/// Requests that clients left while no daemon answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpoolBody {
    /// How many are still to be imported.
    pub waiting: u64,
    /// When the oldest of them was made.
    pub oldest_at: Option<String>,
    /// How many files are left alone, since they are not for this daemon to import.
    pub ignored: u64,
    /// How many can never be imported; copies are in `quarantine` in the state folder.
    pub quarantined: u64,
    /// The folders in which there is something, and why.
    pub folders: Vec<SpoolFolderBody>,
    /// The newest of those in quarantine.
    pub quarantine: Vec<QuarantinedBody>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpoolFolderBody {
    pub path: String,
    pub waiting: u64,
    pub oldest_at: Option<String>,
    /// Why the oldest waits; null while it is being imported.
    pub reason: Option<String>,
    pub ignored: u64,
    pub ignored_reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedBody {
    /// The name of the copy.
    pub name: String,
    /// The user who made the request.
    pub uid: u32,
    /// The file in which it was found.
    pub file: String,
    pub reason: String,
    pub quarantined_at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigBody {
    /// The file that is in force, if there is one.
    pub path: Option<String>,
    /// Why the file as it is now is not in force.
    pub error: Option<String>,
}

/// Pushes now. With `wait_ms` the answer comes when nothing waits any more, or that much later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// To wait longer than ten seconds, ask again.
    #[schema(minimum = 0, maximum = 10000)]
    pub wait_ms: Option<u64>,
}

impl SyncRequest {
    const LONGEST_MS: u64 = 10_000;

    /// How long the answer may wait.
    pub fn validate(&self) -> Result<Duration, Invalid> {
        match self.wait_ms.unwrap_or(0) {
            ms @ ..=Self::LONGEST_MS => Ok(Duration::from_millis(ms)),
            ms => {
                Err(Invalid::new("wait_ms", format!("{ms} is too long; at most {}, then ask again", Self::LONGEST_MS)))
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncBody {
    pub central: CentralBody,
    pub backlog: BacklogBody,
    pub parked: u64,
}

/// A session, or a record of one, that central will never take as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ParkedBody {
    /// By this it is retried or dropped: the record's id, or else the session's.
    pub id: String,
    pub instance_id: String,
    /// `event`, `command` or `checkpoint`; null for the session itself.
    pub kind: Option<String>,
    /// The record's type.
    #[serde(rename = "type")]
    pub record_type: Option<String>,
    pub error: String,
    pub parked_at: String,
}

/// Which parked sessions and records, by their ids; all of them if empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkedIds {
    #[serde(default)]
    pub ids: Vec<String>,
}

/// How many parked sessions and records it concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParkedCount {
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRename {
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    pub name: String,
}
