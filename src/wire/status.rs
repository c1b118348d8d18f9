//! The output of `sessiond status`, and the requests that administer the daemon.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Invalid;

/// What `sessiond status --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusBody {
    /// The process that answers.
    pub daemon: DaemonBody,
    /// The identity that is pinned in the state folder.
    pub machine: MachineIdentity,
    /// The link to central.
    pub(crate) central: CentralBody,
    /// What central lacks.
    pub(crate) backlog: BacklogBody,
    /// How many sessions and records central refused permanently; `sessiond parked list` lists them.
    pub parked: u64,
    /// This host's sessions.
    pub(crate) sessions: SessionCounts,
    /// The database on this host.
    pub store: StoreBody,
    /// The configuration file.
    pub config: ConfigBody,
    /// Requests that clients spooled while the daemon did not respond.
    #[serde(default)]
    pub spool: SpoolBody,
    /// The socket that clients connect to.
    #[serde(default)]
    pub socket: SocketBody,
}

/// The process that answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DaemonBody {
    /// The version of sessiond.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
    /// For how long it has run, in seconds.
    pub(crate) uptime_seconds: u64,
}

/// The identity that is pinned in a state folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineIdentity {
    /// The machine's name.
    pub name: String,
    /// The random id of this state folder.
    pub host_id: String,
    /// When this name was pinned.
    pub pinned_at: String,
    /// The other host that is registered with this name in central, if there is one.
    pub conflict: Option<ConflictBody>,
}

/// Another host that is registered with this host's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictBody {
    /// The other host's id.
    pub host_id: String,
    /// The name that both have.
    pub machine_name: String,
    /// When the other host last reported to central.
    pub last_seen: Option<String>,
    /// What is wrong and what to do, in one line.
    pub(crate) message: String,
}

/// The link to central.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CentralBody {
    /// Whether there is a central.url.
    pub(crate) configured: bool,
    /// `connected`, `connecting`, `unreachable`, `refused`, `schema_missing`, `identity_conflict` or `off`.
    pub state: String,
    /// When it changed to that state.
    pub since: String,
    /// What is wrong and what to do, in one line; null if nothing is.
    pub last_error: Option<String>,
    /// When central last accepted a push; null if it has not since the daemon's start.
    pub(crate) last_sync_at: Option<String>,
    /// How long the last push took, in milliseconds; null before the first one, and without a link.
    pub(crate) round_trip_ms: Option<f64>,
    /// Whether central announces changes at once; else they are pulled every `central.pull_interval`.
    #[serde(default)]
    pub listening: bool,
    /// How far this machine's clock is ahead of central's, in seconds, negative if it is behind; null if they agree.
    #[serde(default)]
    pub clock_ahead_seconds: Option<f64>,
    /// Rows of other clients that could not be read and were skipped, since the daemon started.
    #[serde(default)]
    pub unreadable_rows: u64,
    /// What central lacks that this version uses, and what to do; sessions are shared without it. Null if nothing.
    #[serde(default)]
    pub outdated: Option<String>,
    /// One line about a transaction in central that has been open for long, and what to do. Null if there is none.
    #[serde(default)]
    pub long_transaction: Option<String>,
}

/// Changes that are not synced to central yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BacklogBody {
    /// How many sessions have changes that central lacks.
    pub(crate) sessions: u64,
    /// How many records central lacks.
    pub(crate) records: u64,
    /// When the oldest of these changes was made.
    pub oldest_at: Option<String>,
    /// Kinds of records that central cannot store at present.
    #[serde(default)]
    pub blocked: Vec<BlockedBody>,
}

/// A kind of records that central cannot store until an operator changes central.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BlockedBody {
    /// `event`, `command` or `checkpoint`.
    pub kind: String,
    /// Central's table for them.
    pub table: String,
    /// How many records of this kind are not synced.
    pub records: u64,
    /// What central lacks, and what to do, in one line.
    pub reason: String,
}

/// This host's sessions by status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionCounts {
    /// How many are active.
    pub(crate) active: u64,
    /// How many are stale.
    pub(crate) stale: u64,
    /// How many are closed and kept.
    pub(crate) closed: u64,
}

/// The database on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreBody {
    /// The database's file.
    pub path: String,
    /// Its size and that of its log, in bytes.
    pub(crate) bytes: u64,
    /// `full` or `normal`, as `store.durability` is set.
    pub durability: String,
    /// The damaged files that were quarantined, and what to do; null once they are removed.
    #[serde(default)]
    pub damage: Option<String>,
    /// Why sync cannot use the store, and since what time; null while it can.
    #[serde(default)]
    pub sync_error: Option<String>,
}

/// The daemon's socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SocketBody {
    /// The socket's file.
    pub path: String,
    /// Whether the service manager created the socket; then only the service manager can create it again.
    pub inherited: bool,
    /// Why clients cannot connect by this path, and what to do; null while they can.
    pub error: Option<String>,
}

/// Requests that clients spooled while the daemon did not respond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpoolBody {
    /// How many are not imported yet.
    pub waiting: u64,
    /// When the oldest of them was made.
    pub oldest_at: Option<String>,
    /// How many files are ignored, because this daemon may not import them.
    pub ignored: u64,
    /// How many cannot be imported, permanently; copies are in `quarantine` in the state folder.
    pub quarantined: u64,
    /// The folders with requests that are not imported, and why.
    pub folders: Vec<SpoolFolderBody>,
    /// The newest quarantined requests.
    pub quarantine: Vec<QuarantinedBody>,
    /// All folders that the daemon reads, also empty ones.
    #[serde(default)]
    pub read: Vec<String>,
}

/// A folder with requests that are not imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpoolFolderBody {
    /// The folder.
    pub path: String,
    /// How many requests in it are not imported yet.
    pub(crate) waiting: u64,
    /// When the oldest of them was made.
    pub(crate) oldest_at: Option<String>,
    /// Why the oldest is not imported yet; null while it is being imported.
    pub reason: Option<String>,
    /// How many of its files are ignored.
    pub(crate) ignored: u64,
    /// Why; null if none is.
    pub(crate) ignored_reason: Option<String>,
}

/// A request that cannot be imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedBody {
    /// The file name of the copy.
    pub name: String,
    /// The user who made the request.
    pub uid: u32,
    /// The file in the spool from which it was copied.
    pub file: String,
    /// Why it cannot be imported.
    pub(crate) reason: String,
    /// When it was quarantined.
    pub(crate) quarantined_at: String,
}

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigBody {
    /// The configuration file in use, if there is one.
    pub path: Option<String>,
    /// Why the present content of the file could not be loaded; the previous settings stay in use.
    pub error: Option<String>,
}

/// Pushes to central now. With `wait_ms` the response is sent when the backlog is empty, or after that time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// To wait longer than ten seconds, repeat the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10000)]
    pub wait_ms: Option<u64>,
}

impl SyncRequest {
    const MAX_WAIT_MS: u64 = 10_000;

    /// How long to wait.
    ///
    /// # Errors
    /// It is more than ten seconds.
    pub fn validate(&self) -> Result<Duration, Invalid> {
        match self.wait_ms.unwrap_or(0) {
            ms @ ..=Self::MAX_WAIT_MS => Ok(Duration::from_millis(ms)),
            ms => {
                let rule = format!("{ms} is too long; wait at most {} and repeat the request", Self::MAX_WAIT_MS);
                Err(Invalid::new("wait_ms", rule))
            }
        }
    }
}

/// What a push to central left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncBody {
    /// The link to central after the push.
    pub(crate) central: CentralBody,
    /// What central still lacks.
    pub(crate) backlog: BacklogBody,
    /// How many sessions and records central refused permanently.
    pub(crate) parked: u64,
}

/// A session, or a record of one, that central refused permanently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ParkedBody {
    /// The id by which it is retried or dropped: the record's, or else the session's.
    pub id: String,
    /// The session, or the record's session.
    pub instance_id: String,
    /// `event`, `command` or `checkpoint`; null for the session itself.
    pub kind: Option<String>,
    /// The record's type.
    #[serde(rename = "type")]
    pub record_type: Option<String>,
    /// Why central refused it, in one line.
    pub error: String,
    /// When it was parked.
    pub(crate) parked_at: String,
}

/// The ids of parked sessions and records; all of them if empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkedIds {
    /// The ids of parked sessions and records; all of them if it is empty.
    #[serde(default)]
    pub(crate) ids: Vec<String>,
}

/// How many parked sessions and records were retried or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParkedCount {
    /// How many were parked.
    pub(crate) count: u64,
}

/// The new name of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRename {
    /// The new name: `^[a-z0-9][a-z0-9_-]*$`, at most 64 characters.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    pub name: String,
}
