//! The port through which sync reads and writes the local store.
//!
//! Sync never calls [`Store`] directly: it goes through a [`Replica`], which knows the store and the identity of this
//! host. Every method that concerns only the store has a default body that calls it, so the daemon's [`LocalReplica`]
//! consists of its two fields, and the simulation overrides only the methods in which it plants its bugs.

use std::sync::Arc;

use uuid::Uuid;

use crate::domain::limits::AccountLimit;
use crate::domain::mirror::{ChangePage, HistoryReading, HostSeen, PullQuery};
use crate::domain::on_demand::{Found, Question};
use crate::domain::refresh::RefreshRule;
use crate::domain::{HistoryTables, InstanceId, MachineName, RecordKind, Timestamp};
use crate::store::{
    BatchLimit, BatchResult, Identity, Ledger, OpContext, OutboxPosition, PageResult, Pending, PinnedIdentity, Renamed,
    Skip, Store, StoreError,
};

/// The local side of sync: this host's identity and its store.
///
/// # Errors
/// All methods that return a result pass on the error of the store.
pub trait Replica: Send + Sync {
    /// The store that the defaults use.
    fn store(&self) -> &Store;

    /// This host's identity now.
    fn identity(&self) -> Identity;

    /// Records that central accepted this claim, and with it a requested replacement of another host.
    fn claim_accepted(&self, claim: Uuid);

    /// Sets the machine name of all sessions of this host. Returns how many had another one.
    fn set_machine_name(
        &self,
        name: MachineName,
        at: Timestamp,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.store().set_machine_name(name, at)
    }

    /// Whether anything that `skip` does not exclude has to be pushed.
    fn has_pending(&self, skip: Skip) -> impl Future<Output = Result<bool, StoreError>> + Send {
        self.store().has_pending(skip)
    }

    /// Makes those live sessions of this host pending whose heartbeats in central are due by this rule. Returns how many.
    fn refresh(&self, rule: RefreshRule, now: Timestamp) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.store().refresh(rule, now)
    }

    /// Makes parked rows whose retry time has come pending again. Returns how many.
    fn release_parked(&self, at: Timestamp) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.store().release_parked(at)
    }

    /// The unsynced sessions, oldest first, and the unsynced records whose sessions central has.
    fn pending(&self, limit: BatchLimit, skip: Skip) -> impl Future<Output = Result<Pending, StoreError>> + Send {
        self.store().pending(limit, skip)
    }

    /// The unsynced sessions behind this place in the order of [`Self::pending`]; no records.
    fn pending_behind(
        &self,
        place: OutboxPosition,
        limit: BatchLimit,
        skip: Skip,
    ) -> impl Future<Output = Result<Pending, StoreError>> + Send {
        self.store().pending_behind(place, limit, skip)
    }

    /// Up to `count` unsynced rows, newest first: records of a kind, or sessions if `kind` is `None`.
    fn newest_pending(
        &self,
        kind: Option<RecordKind>,
        count: usize,
        skip: Skip,
    ) -> impl Future<Output = Result<Pending, StoreError>> + Send {
        self.store().newest_pending(kind, count, skip)
    }

    /// The batch numbers that the store knows.
    fn ledger(&self) -> impl Future<Output = Result<Ledger, StoreError>> + Send {
        self.store().ledger()
    }

    /// Applies what central did with a batch. Returns the sessions that got a new id.
    fn acknowledge(
        &self,
        result: BatchResult,
        context: OpContext,
    ) -> impl Future<Output = Result<Vec<Renamed>, StoreError>> + Send {
        self.store().acknowledge(result, context)
    }

    /// Marks everything as unsynced, because central lost it. Returns how many sessions and records.
    fn forget_synced(
        &self,
        acked_batch: i64,
        at: Timestamp,
    ) -> impl Future<Output = Result<(usize, usize), StoreError>> + Send {
        self.store().forget_synced(acked_batch, at)
    }

    /// Records which tables central has for records, and which types of events it accepts.
    fn record_tables(
        &self,
        tables: HistoryTables,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().record_tables(tables, at)
    }

    /// Sets the timeline of central that the mirror follows. Another one than before resets the mirror's position.
    fn set_mirror_timeline(&self, timeline: String) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().set_mirror_timeline(timeline)
    }

    /// Sets what the mirror holds, as a text that is the same for the same scope. Another one than before resets the mirror's
    /// position: what left the scope is dropped once everything in it is read.
    fn set_mirror_scope(&self, scope: String) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().set_mirror_scope(scope)
    }

    /// Whether the mirror has the history of the sessions in it.
    fn history_reading(&self) -> impl Future<Output = Result<HistoryReading, StoreError>> + Send {
        self.store().history_reading()
    }

    /// Sets whether it has.
    fn set_history_reading(&self, reading: HistoryReading) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().set_history_reading(reading)
    }

    /// Imports what central answered to a question. `context.now`: when it was asked.
    fn import_found(
        &self,
        question: Question,
        found: Found,
        context: OpContext,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().import_found(question, found, context)
    }

    /// The transaction number from which the next pull reads; 0 reads everything.
    fn mirror_position(&self, now: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store().mirror_position(now)
    }

    /// Makes the next pull read everything.
    fn reset_mirror_position(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().reset_mirror_position()
    }

    /// Imports one page of changes from central. `context.now`: when the page was requested.
    fn import_page(
        &self,
        reading: PullQuery,
        changes: ChangePage,
        context: OpContext,
    ) -> impl Future<Output = Result<PageResult, StoreError>> + Send {
        self.store().import_page(reading, changes, context)
    }

    /// The rate limits that this host shares.
    fn own_limits(&self, now: Timestamp) -> impl Future<Output = Result<Vec<AccountLimit>, StoreError>> + Send {
        self.store().own_limits(now)
    }

    /// Those of these sessions that are not this host's own.
    fn not_own(&self, ids: Vec<InstanceId>) -> impl Future<Output = Result<Vec<InstanceId>, StoreError>> + Send {
        self.store().not_own(ids)
    }

    /// Adds hosts to the list of those that central knows.
    fn add_hosts(&self, hosts: Vec<HostSeen>) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().add_hosts(hosts)
    }

    /// Replaces the list of hosts that central knows.
    fn replace_hosts(&self, hosts: Vec<HostSeen>) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store().replace_hosts(hosts)
    }
}

/// The replica of the host that the daemon runs on.
pub struct LocalReplica {
    pub(crate) store: Store,
    pub(crate) identity: Arc<PinnedIdentity>,
}

impl Replica for LocalReplica {
    fn store(&self) -> &Store {
        &self.store
    }

    fn identity(&self) -> Identity {
        self.identity.current()
    }

    fn claim_accepted(&self, claim: Uuid) {
        self.identity.accepted(claim);
    }
}
