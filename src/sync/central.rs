//! The port to a central database: what sync requires of one.
//!
//! [`super::postgres::Postgres`] is the real adapter. The tests have a fake one; both pass the same conformance suite.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::limits::AccountLimit;
use crate::domain::link::Conflict;
use crate::domain::mirror::{ChangePage, HostSeen, PullQuery};
use crate::domain::on_demand::{Found, Question};
use crate::domain::{HistoryRecord, HistoryTables, InstanceId, MachineName, Reason, TimedSession, Timestamp};

/// This host, as it registers itself in central.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRegistration {
    /// The id of its state folder.
    pub host_id: Uuid,
    /// Its name.
    pub machine: MachineName,
    /// The claim of this start of the daemon.
    pub claim: Uuid,
    /// All claims that this host knows to be its own, including `claim`.
    pub own_claims: Vec<Uuid>,
    /// The newest batch that this host knows to be applied. A ledger before it belongs to a restored backup, whose claim
    /// may be one that this host no longer keeps.
    pub acked_batch: i64,
    /// The host ids that this host had before it was renamed.
    pub former_host_ids: Vec<Uuid>,
    /// Take the machine name over from another host that has it.
    pub replace: bool,
    /// The version of sessiond.
    pub version: &'static str,
    /// After how long without a heartbeat this host's sessions are stale. Other hosts apply it too.
    pub stale_after: Duration,
}

/// Central accepted the handshake and lets this host write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The newest batch of this host in central's ledger; the next push follows it.
    pub batch: i64,
    /// The names that this host had before; rows with them are its own.
    pub former_names: Vec<MachineName>,
    /// Central's tables for records.
    pub tables: HistoryTables,
    /// Names the numbering of central's transactions. It differs after a failover and after a restored backup; transaction
    /// numbers of different timelines cannot be compared.
    pub timeline: String,
    /// Central can leave the mark of a row where only its heartbeat changes, so that other hosts do not read it again. A
    /// central that an older sessiond migrated cannot.
    pub marks_changes_only: bool,
    /// The triggers that mark and announce changes, as far as central lacks them or has them disabled. What changes
    /// meanwhile is found only by reading everything.
    pub missing_triggers: Vec<String>,
}

/// The state of some sessions, and records of these or of others that central has. Applied whole or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Where the ledger must stand before.
    pub after: i64,
    /// Where it stands afterwards.
    pub number: i64,
    /// Columns with a time are offered: central writes those that no other client has changed since.
    pub sessions: &'a [TimedSession],
    /// In the order in which they happened. Only of kinds that central has a table for.
    pub records: &'a [HistoryRecord],
}

/// The result of one sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepResult {
    /// How many sessions turned stale.
    pub sessions: u64,
    /// The sweep ended at its limit: the next one is due soon.
    pub more: bool,
}

/// What became of one session or record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowOutcome {
    /// Central has this state or a newer one; or it has the record, perhaps since an earlier batch.
    Stored,
    /// Central has this state of the session, and does not accept its work.
    StoredWithoutWork,
    /// A record whose session is not in central, or is another one there. Nothing was written.
    SessionMissing,
    /// Another client had closed the session; it stays closed.
    ClosedElsewhere {
        /// When it was closed.
        closed_at: Timestamp,
    },
    /// The id belongs to another session (one with another `created_at`). Nothing was written.
    IdCollision,
    /// The row is this session, but of a machine that this host never was: this store is a copy of that machine's.
    /// Nothing was written.
    ForeignMachine {
        /// The machine of central's row.
        machine: String,
    },
}

impl RowOutcome {
    /// Whether central does not have this session, although it may have another one with its id.
    pub const fn is_without_session(&self) -> bool {
        matches!(self, Self::IdCollision | Self::ForeignMachine { .. } | Self::SessionMissing)
    }

    /// Whether central has the work that was sent with this session.
    pub const fn has_work(&self) -> bool {
        matches!(self, Self::Stored | Self::ClosedElsewhere { .. })
    }
}

/// Why central does not accept a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The SQLSTATE; empty if there is none.
    pub code: String,
    /// One line, with the code and the constraint.
    pub message: String,
}

impl Rejection {
    /// A rejection that has no SQLSTATE.
    pub fn without_code(message: impl Into<String>) -> Self {
        Self { code: String::new(), message: message.into() }
    }

    /// Whether errors with this code come from a value of the row itself, with any schema: data exceptions, a key
    /// that exists or is missing, and row level security.
    pub fn is_about_values(&self) -> bool {
        self.code.starts_with("22") || matches!(self.code.as_str(), "23503" | "23505" | "42501")
    }

    /// Whether a rule on the row's values rejected it: a CHECK or an exclusion constraint. The rule may be new.
    pub fn is_by_constraint(&self) -> bool {
        matches!(self.code.as_str(), "23514" | "23P01" | "44000")
    }
}

/// The kinds of errors that sync handles differently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CentralError {
    /// A new attempt may succeed: connection, shutdown, serialisation, read-only after a failover.
    #[error(transparent)]
    Retry(Reason),
    /// Central does not accept this batch as it is: data, constraint, trigger or type.
    #[error("{}", .0.message)]
    Reject(Rejection),
    /// Another transaction has locked a row that the batch writes, or one that it refers to.
    #[error(transparent)]
    Locked(Reason),
    /// Central refuses this login, its rights or its settings.
    #[error(transparent)]
    Refused(Reason),
    /// Central lacks sessiond's tables, or has old ones.
    #[error(transparent)]
    SchemaMissing(Reason),
    /// Another host has this host's name, or a copy of its state folder runs elsewhere.
    #[error("{}", .0.message)]
    Conflict(Conflict),
    /// The ledger is not where this connection left it: a batch of an earlier connection arrived after all, or central
    /// was restored. A new handshake finds out which.
    #[error("central's ledger has moved on")]
    OutOfStep,
}

impl CentralError {
    pub(crate) fn retry(why: impl Into<Reason>) -> Self {
        Self::Retry(why.into())
    }

    pub(crate) fn locked(why: impl Into<Reason>) -> Self {
        Self::Locked(why.into())
    }

    pub(crate) fn refused(why: impl Into<Reason>) -> Self {
        Self::Refused(why.into())
    }

    pub(crate) fn schema_missing(why: impl Into<Reason>) -> Self {
        Self::SchemaMissing(why.into())
    }

    /// The same about this error, which becomes its source. What central rejects is data, and keeps none.
    pub(crate) fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        match self {
            Self::Retry(why) => Self::Retry(why.caused_by(source)),
            Self::Locked(why) => Self::Locked(why.caused_by(source)),
            Self::Refused(why) => Self::Refused(why.caused_by(source)),
            Self::SchemaMissing(why) => Self::SchemaMissing(why.caused_by(source)),
            other => other,
        }
    }
}

/// A central database, over at most one connection for statements. Every call has a limit of its own; after `Retry` and
/// `Conflict` the connection is gone, after another error it may be.
///
/// # Errors
/// Every method may fail with any [`CentralError`] that fits its description.
pub trait Central: Send {
    /// Opens a new connection, registers this host and claims its name.
    fn handshake(&mut self, host: &HostRegistration) -> impl Future<Output = Result<Accepted, CentralError>> + Send;

    /// Applies a batch and advances the ledger, both or neither. Returns the outcome of each session in order, then of each
    /// record. An empty batch only reports that this host lives.
    ///
    /// A record that central already has is not written again. Events of a session are numbered after all that
    /// central has of it, in order, while other clients may number some at the same time.
    fn push(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Vec<RowOutcome>, CentralError>> + Send;

    /// Those of these sessions whose rows another transaction has locked now. Waits for no lock.
    fn locked_rows(&mut self, ids: &[InstanceId])
    -> impl Future<Output = Result<Vec<InstanceId>, CentralError>> + Send;

    /// Checks which tables central has for records. Later pushes use the result.
    fn history_tables(&mut self) -> impl Future<Output = Result<HistoryTables, CentralError>> + Send;

    /// Central's clock as of the last successful push, if it was reported.
    fn last_clock(&self) -> Option<Timestamp>;

    /// The triggers that mark and announce changes and that central lacks or has disabled now.
    fn missing_triggers(&mut self) -> impl Future<Output = Result<Vec<String>, CentralError>> + Send;

    /// Whether a heartbeat alone is marked as a change: some host judges sessions by their heartbeats, as of the last reading
    /// of hosts, or central cannot leave the mark.
    fn marks_heartbeats(&self) -> bool;

    /// Turns sessions stale that no live host vouches for, by central's clock; at most once per `interval` over all hosts, and
    /// a bounded number per call. Each host's sessions are measured by the `stale_after` which that host stated; the one
    /// given here is for hosts that have stated none, and for rows of no host.
    ///
    /// # Errors
    /// `Reject` if the sweep failed and the connection did not.
    fn sweep(
        &mut self,
        stale_after: Duration,
        interval: Duration,
    ) -> impl Future<Output = Result<SweepResult, CentralError>> + Send;

    /// The next page of what others than this host changed in central, or of everything.
    fn pull(&mut self, reading: &PullQuery) -> impl Future<Output = Result<ChangePage, CentralError>> + Send;

    /// The sessions that a question is about, of any host.
    ///
    /// # Errors
    /// `Reject` if central cannot answer it and the connection is usable.
    fn find(&mut self, question: &Question) -> impl Future<Output = Result<Found, CentralError>> + Send;

    /// Shares this host's rate limits, in place of what it shared before. Does nothing if central has no table for them.
    ///
    /// # Errors
    /// `Reject` if central does not accept them and the connection is usable.
    fn share_limits(&mut self, limits: &[AccountLimit]) -> impl Future<Output = Result<(), CentralError>> + Send;

    /// Takes these leases, or takes them for longer, for `length` from now by central's clock. Returns those that this host has
    /// now: a lease that another host has can be taken once its time has passed.
    ///
    /// # Errors
    /// `SchemaMissing` if central has no table for them; the connection is usable.
    fn take_leases(
        &mut self,
        names: &[String],
        length: Duration,
    ) -> impl Future<Output = Result<Vec<String>, CentralError>> + Send;

    /// The daemons that central knows, without those that were replaced, and the rate limits that they share. `only`: those
    /// with these host ids.
    fn hosts(&mut self, only: Option<&[Uuid]>) -> impl Future<Output = Result<Vec<HostSeen>, CentralError>> + Send;

    /// Turns those of these sessions stale that central has as active and as written last by this host. The host does not
    /// have them: nothing else would ever end them.
    fn disown(&mut self, ids: &[InstanceId]) -> impl Future<Output = Result<(), CentralError>> + Send;

    /// Subscribes to notifications. Returns whether central can send them; behind a pooler it may not.
    fn listen(&mut self) -> impl Future<Output = bool> + Send;

    /// Returns the next notification; never, if central sends none. Cancel safe.
    fn next_notification(&mut self) -> impl Future<Output = Notification> + Send;
}

/// What central reports over the connection that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Others changed sessions or their history.
    SessionsChanged,
    /// The daemons of these hosts have completed a handshake. None is named if they are too many.
    HostsJoined(Vec<Uuid>),
    /// The connection is lost, and the notifications since then with it.
    ConnectionLost,
}
