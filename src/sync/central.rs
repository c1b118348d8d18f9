//! What sync asks of a central database, whatever it is made of.
//!
//! [`super::postgres::Postgres`] is the real one; `tests/` holds a fake to the same conformance suite.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::link::Conflict;
use crate::domain::mirror::{Changes, HostSeen, Reading};
use crate::domain::{HistoryRecord, HistoryTables, InstanceId, MachineName, TimedSession, Timestamp};

/// This host, as it announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub host_id: Uuid,
    pub machine: MachineName,
    /// The claim of this start of the daemon.
    pub claim: Uuid,
    /// All claims this host knows to be its own, this one among them.
    pub own_claims: Vec<Uuid>,
    /// The newest batch that it knows to be applied. A ledger before it is that of a restored backup, whose claim may be
    /// one that this host no longer keeps.
    pub acked_batch: i64,
    /// Host ids this host went by before it was renamed.
    pub former_host_ids: Vec<Uuid>,
    /// Take the name over from whoever has it.
    pub replace: bool,
    /// The version of sessiond.
    pub version: &'static str,
    /// After how long a silence this host calls its own sessions stale; other hosts go by it, too.
    pub stale_after: Duration,
}

/// Central knows this host and lets it write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The newest batch that central's ledger has of this host; the next push comes after it.
    pub batch: i64,
    /// The names this host went by before; rows under them are its own.
    pub former_names: Vec<MachineName>,
    /// What central has for records.
    pub tables: HistoryTables,
    /// Another word than before: central's transactions are not those of before, because another server took
    /// over, or a backup was restored. Numbers of transactions mean nothing across that.
    pub timeline: String,
}

/// The state of some sessions, and records of these or of others that central has, to be applied whole or not
/// at all.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Where the ledger must stand.
    pub after: i64,
    /// Where it stands then.
    pub number: i64,
    /// Columns with a time are offered: central writes those that no other client changed since.
    pub sessions: &'a [TimedSession],
    /// In the order in which they happened. Only of kinds that central has a table for.
    pub records: &'a [HistoryRecord],
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The sessions turned stale.
    pub turned: u64,
    /// The sweep ended at its limit: the next one is due soon.
    pub more: bool,
}

/// What became of one session or record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Central has this state, or a newer one; or the record, be it since an earlier batch.
    Taken,
    /// A record whose session is not in central, or is another's there. Nothing was written.
    WithoutSession,
    /// Somebody else had closed the session; it stays closed.
    ClosedElsewhere { closed_at: Timestamp },
    /// The id belongs to another session (one created at another moment): nothing was written.
    Collided,
    /// The row is this very session, but filed under another machine that this host never was:
    /// this store is a copy of that machine's. Nothing was written.
    Foreign { machine: String },
}

impl Applied {
    /// Is there no such session in central, although there may be another of its id?
    pub const fn leaves_none(&self) -> bool {
        matches!(self, Self::Collided | Self::Foreign { .. } | Self::WithoutSession)
    }
}

/// Why central does not accept a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The SQLSTATE.
    pub code: String,
    /// One line, with the code and the constraint.
    pub message: String,
}

impl Rejection {
    /// One that has no SQLSTATE.
    pub fn without_code(message: impl Into<String>) -> Self {
        Self { code: String::new(), message: message.into() }
    }

    /// Whether errors of this code come from a value of the row itself, whatever the schema: data exceptions, a key
    /// that exists or that is missing, and row level security.
    pub fn is_about_values(&self) -> bool {
        self.code.starts_with("22") || matches!(self.code.as_str(), "23503" | "23505" | "42501")
    }

    /// Whether a rule on the row's values rejected it: a CHECK or an exclusion constraint. The rule may be new.
    pub fn is_by_constraint(&self) -> bool {
        matches!(self.code.as_str(), "23514" | "23P01" | "44000")
    }
}

/// The kinds of error that sync tells apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CentralError {
    /// Trying again may help: connection, shutdown, serialisation, read-only after a failover.
    #[error("{0}")]
    Retry(String),
    /// Central does not take this batch as it is: data, constraint, trigger or type.
    #[error("{}", .0.message)]
    Reject(Rejection),
    /// Another transaction holds a lock on a row that the batch writes, or on one that it refers to.
    #[error("{0}")]
    Locked(String),
    /// Central refuses this login, its rights or its settings.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    SchemaMissing(String),
    #[error("{}", .0.message)]
    Conflict(Conflict),
    /// The ledger is not where this connection left it: a batch of an earlier connection came in
    /// after all, or central was restored. Announce anew.
    #[error("central's ledger has moved on")]
    OutOfStep,
}

/// A central database, over at most one connection at a time. Every call has a limit of its own;
/// after `Retry` and `Conflict` the connection is gone, after another error it may be.
pub trait Central: Send {
    /// Connects anew, announces this host and claims its name.
    fn hello(&mut self, host: &Host) -> impl Future<Output = Result<Welcome, CentralError>> + Send;

    /// Applies a batch and advances the ledger, both or neither. Says for each session, in order, what
    /// became of it, and then for each record. An empty batch only says that this host lives.
    ///
    /// A record that central has already is not written again. Events of a session are numbered after all that
    /// central has of it, in order, beside whoever else numbers some.
    fn push(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Vec<Applied>, CentralError>> + Send;

    /// Those of these sessions whose rows in central are locked by another transaction right now. Waits for none.
    fn locked(&mut self, ids: &[InstanceId]) -> impl Future<Output = Result<Vec<InstanceId>, CentralError>> + Send;

    /// What central has for records by now; later pushes go by it.
    fn tables(&mut self) -> impl Future<Output = Result<HistoryTables, CentralError>> + Send;

    /// Central's clock as of the push that succeeded last, if it told.
    fn clock(&self) -> Option<Timestamp>;

    /// Turns sessions stale that no live host reports, by central's clock; at most once per `interval` over all
    /// hosts, and a bounded number in one call. Each host's sessions are measured by that host's own `stale_after`;
    /// the one given here counts where a host has not stated its own, and for rows of no host.
    ///
    /// # Errors
    /// `Reject` if the sweep failed and the connection did not.
    fn sweep(
        &mut self,
        stale_after: Duration,
        interval: Duration,
    ) -> impl Future<Output = Result<Swept, CentralError>> + Send;

    /// The next page of what changed in central by others than this host, or of all there is.
    fn pull(&mut self, reading: &Reading) -> impl Future<Output = Result<Changes, CentralError>> + Send;

    /// The daemons that central knows of, but for those that were replaced.
    fn hosts(&mut self) -> impl Future<Output = Result<Vec<HostSeen>, CentralError>> + Send;

    /// Begins to listen for changes. Says whether central can tell of them; behind a pooler it may not.
    fn listen(&mut self) -> impl Future<Output = bool> + Send;

    /// Returns when central announces something, if it can. May be abandoned and asked again.
    fn changed(&mut self) -> impl Future<Output = Announcement> + Send;
}

/// What central announces over the connection that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Others changed sessions, or what happened in them.
    Changes,
    /// The daemon of another host has greeted central.
    Host,
    /// Nothing any more: that connection is gone, and what it would have announced was missed.
    Lost,
}
