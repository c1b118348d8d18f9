//! A host's replica, with the bugs that are planted in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::bugs::Bug;
use super::setup::STALE_AFTER;
use crate::domain::mirror::{ChangePage, HostSeen, PullQuery};
use crate::domain::refresh::RefreshRule;
use crate::domain::{HistoryTables, RecordKind, Status, TableState, Timestamp};
use crate::store::testing::manual_store::ManualStore;
use crate::store::{
    BatchResult, Identity, OpContext, PageResult, Renamed, SessionOutcome, SessionResult, Store, StoreError,
};
use crate::sync::replica::Replica;

/// The replica that the driver uses, with the bugs that are planted in it.
#[derive(Clone)]
pub(super) struct SimReplica {
    pub store: Store,
    pub hand: Arc<Mutex<ManualStore>>,
    pub identity: Arc<Mutex<Identity>>,
    /// Rows that pulls have written.
    pub written: Arc<AtomicU64>,
    pub bug: Option<Bug>,
}

impl SimReplica {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn version(&self, settled: &SessionResult) -> i64 {
        self.hand.lock().unwrap().get(settled.instance_id.as_str()).map_or(0, |record| record.version)
    }
}

impl Replica for SimReplica {
    fn store(&self) -> &Store {
        &self.store
    }

    fn identity(&self) -> Identity {
        self.identity.lock().unwrap().clone()
    }

    fn claim_accepted(&self, claim: Uuid) {
        let mut identity = self.identity.lock().unwrap();
        identity.accepted_claim = Some(claim);
        identity.replace = false;
    }

    async fn record_tables(&self, mut tables: HistoryTables, at: Timestamp) -> Result<(), StoreError> {
        if self.has(Bug::MissingRightCountsAsAbsent) && !tables.is_usable(RecordKind::Event) {
            tables.events = TableState::Absent;
        }
        self.store.record_tables(tables, at).await
    }

    async fn acknowledge(&self, mut result: BatchResult, context: OpContext) -> Result<Vec<Renamed>, StoreError> {
        if self.has(Bug::AckIgnoresVersion) {
            result.sessions.iter_mut().for_each(|s| s.version = self.version(s));
        }
        if self.has(Bug::RetryRejected) {
            result.sessions.retain(|s| !matches!(s.how, SessionOutcome::Rejected { .. }));
        }
        if self.has(Bug::RejectedTakesOthersAlong) && result.records.iter().any(|r| r.rejected.is_some()) {
            ManualStore::execute(&self.store, "UPDATE records SET unsynced = 0 WHERE parked_at IS NULL").await?;
        }
        let renamed = self.store.acknowledge(result, context).await?;
        if self.has(Bug::AckClearsLaterColumns) {
            ManualStore::execute(&self.store, "UPDATE sessions SET synced_version = version WHERE synced_version > 0")
                .await?;
        }
        if self.has(Bug::AckClearsLaterWork) {
            ManualStore::execute(
                &self.store,
                "UPDATE session_work SET synced_version = version WHERE synced_version > 0",
            )
            .await?;
        }
        if self.has(Bug::CollisionNotAliased) {
            renamed.iter().for_each(|renamed| self.hand.lock().unwrap().forget_alias(&renamed.from));
        }
        Ok(renamed)
    }

    async fn forget_synced(&self, acked_batch: i64, at: Timestamp) -> Result<(usize, usize), StoreError> {
        let nothing = BatchResult { acked_batch, next_batches: [acked_batch; 2], ..BatchResult::default() };
        if self.has(Bug::NoResync) {
            return self.store.acknowledge(nothing, OpContext::of_daemon(at, STALE_AFTER)).await.map(|_| (0, 0));
        }
        if self.has(Bug::HistoryNotReoffered) {
            self.store.acknowledge(nothing, OpContext::of_daemon(at, STALE_AFTER)).await?;
            let all = "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, 0), synced_version = 0 \
                WHERE mirror_generation IS NULL";
            return ManualStore::execute(&self.store, all).await.map(|()| (0, 0));
        }
        self.store.forget_synced(acked_batch, at).await
    }

    async fn replace_hosts(&self, mut hosts: Vec<HostSeen>) -> Result<(), StoreError> {
        if self.has(Bug::VouchesForOthers)
            && let Some(newest) = hosts.iter().map(|host| host.last_seen).max()
        {
            hosts.iter_mut().for_each(|host| host.last_seen = newest);
        }
        self.store.replace_hosts(hosts).await?;
        if self.has(Bug::VouchesByName) {
            let by_name = "UPDATE sessions SET vouched_by = \
                (SELECT host_id FROM hosts WHERE hosts.host_machine = sessions.host_machine) \
                WHERE mirror_generation IS NOT NULL";
            ManualStore::execute(&self.store, by_name).await?;
        }
        Ok(())
    }

    async fn refresh(&self, rule: RefreshRule, now: Timestamp) -> Result<usize, StoreError> {
        match self.bug {
            Some(Bug::NeverRefreshed) => Ok(0),
            Some(Bug::NotPushedAgain) if rule.rewrites => Ok(0),
            Some(Bug::RefreshedTooLate) => {
                self.store.refresh(RefreshRule { refresh_after: 2 * STALE_AFTER, ..rule }, now).await
            }
            _ => self.store.refresh(rule, now).await,
        }
    }

    async fn mirror_position(&self, now: Timestamp) -> Result<u64, StoreError> {
        let position = self.store.mirror_position(now).await?;
        Ok(if self.has(Bug::PositionNeverAdvances) { position.min(1) } else { position })
    }

    async fn import_page(
        &self,
        reading: PullQuery,
        mut changes: ChangePage,
        context: OpContext,
    ) -> Result<PageResult, StoreError> {
        if self.has(Bug::NoAdoptionWhileWaiting) {
            let hand = self.hand.lock().unwrap();
            let is_pending = |id: &str| hand.get(id).is_some_and(|r| !r.mirrored && r.unsynced_since.is_some());
            changes.sessions.retain(|session| !is_pending(session.instance_id.as_str()));
        }
        if self.has(Bug::VouchesForClosed) {
            changes.sessions.retain(|session| session.vouched_by.is_none() || session.status != Status::Closed);
        }
        if self.has(Bug::LeftScopeStays) && !reading.scope.is_all() {
            changes.gone.clear();
        }
        let rows = changes.sessions.len();
        let imported = self.store.import_page(reading, changes, context).await?;
        self.written.fetch_add(imported.written, Ordering::Relaxed);
        if self.has(Bug::UnchangedRowsWritten) && rows > 0 {
            let rewrite = "UPDATE sessions SET project = project WHERE mirror_generation IS NOT NULL";
            ManualStore::execute(&self.store, rewrite).await?;
        }
        Ok(imported)
    }
}
