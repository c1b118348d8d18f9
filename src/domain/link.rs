//! The status of the connection to central.

use std::time::Duration;

use super::durations::DurationHistogram;
use super::{RecordKind, Timestamp};

/// The states of the link to central.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// No central is configured: the local store is all there is.
    Off,
    /// The first attempt since the start, or since the settings changed, has not ended.
    Connecting,
    /// Pushes and pulls succeed.
    Connected,
    /// Central cannot be reached; retries continue automatically.
    Unreachable,
    /// Central refuses this login, or this host's settings are wrong: the operator has to act.
    Refused,
    /// Central lacks the tables: `sessiond migrate` creates them.
    SchemaMissing,
    /// Another host uses this host's name.
    IdentityConflict,
}

impl LinkState {
    pub(crate) const ALL: [Self; 7] = [
        Self::Off,
        Self::Connecting,
        Self::Connected,
        Self::Unreachable,
        Self::Refused,
        Self::SchemaMissing,
        Self::IdentityConflict,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::SchemaMissing => "schema_missing",
            Self::IdentityConflict => "identity_conflict",
        }
    }
}

/// The other host that uses this host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other host's id.
    pub host_id: String,
    /// The name that both have.
    pub machine_name: String,
    /// When the other host last contacted central, by central's clock.
    pub last_seen: Option<Timestamp>,
    /// One line: what conflicts and how to resolve it.
    pub message: String,
}

/// The link as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The state now.
    pub state: LinkState,
    /// When it entered this state.
    pub since: Timestamp,
    /// The last error, without secrets.
    pub last_error: Option<String>,
    pub(crate) last_sync_at: Option<Timestamp>,
    pub(crate) round_trip: Option<Duration>,
    /// How long the pushes of this daemon took.
    pub push_durations: DurationHistogram,
    /// Whether central notifies this host of changes at once.
    pub listening: bool,
    pub(crate) conflict: Option<Conflict>,
    /// Kinds of records that central does not accept at present.
    pub blocked: Vec<BlockedKind>,
    /// How far this machine's clock is ahead of central's, in microseconds; none while no difference is known.
    pub clock_ahead: Option<i64>,
    /// The number of other clients' rows that could not be read and were skipped since the daemon started.
    pub unreadable_rows: u64,
    /// What central lacks that newer versions of sessiond use, and what to do; sessions are shared without it.
    pub outdated: Option<String>,
    /// One line about a transaction in central that has been open for long; none if there is none.
    pub long_transaction: Option<String>,
    /// Since which time, and why, sync cannot use this host's store; none while it can.
    pub store_error: Option<(Timestamp, String)>,
}

/// A kind of records that is not pushed while others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedKind {
    pub(crate) kind: RecordKind,
    /// One line: what central lacks, and what to do.
    pub reason: String,
}

impl LinkStatus {
    /// A link that has been in this state since then, with nothing else known.
    pub fn new(state: LinkState, since: Timestamp) -> Self {
        Self {
            state,
            since,
            last_error: None,
            last_sync_at: None,
            round_trip: None,
            push_durations: DurationHistogram::default(),
            listening: false,
            conflict: None,
            blocked: Vec::new(),
            clock_ahead: None,
            unreadable_rows: 0,
            outdated: None,
            long_transaction: None,
            store_error: None,
        }
    }
}

/// Advice about a wrong clock, in one line. `ahead`: how far this machine's clock is ahead of central's, in microseconds.
pub fn clock_advice(ahead: i64) -> String {
    let by = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs() / 1_000_000));
    let direction = if ahead < 0 { "behind" } else { "ahead of" };
    format!(
        "this machine's clock is {by} {direction} central's: set both by NTP, a wrong clock makes live sessions look \
         stale"
    )
}
