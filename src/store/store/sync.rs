//! What sync needs: the backlog, results of batches, the ledger, and the mirror.

use std::sync::Arc;

use rusqlite::Connection;

use crate::domain::limits::AccountLimit;
use crate::domain::mirror::{self as reading, HistoryReading, HostSeen, PullQuery};
use crate::domain::refresh::RefreshRule;
use crate::domain::{InstanceId, RecordKind, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::{Op, OpContext};
use crate::store::ops::rate_limits;
use crate::store::sqlite::turns;
use crate::store::store::Store;
use crate::store::sync_state::batch_result::{BatchResult, Renamed};
use crate::store::sync_state::ledger::{ForgetPlace, Ledger};
use crate::store::sync_state::mirror::{PageResult, Turn};
use crate::store::sync_state::mirror_share::Limit;
use crate::store::sync_state::outbox::{Backlog, OutboxPosition, Pending};
use crate::store::sync_state::parked::{Parked, ParkedRow, Unpark};
use crate::store::sync_state::selection::{BatchLimit, Skip};
use crate::store::sync_state::{batch_result, ledger, mirror, mirror_cursor, mirror_share, outbox, parked, refresh};
use crate::store::tables::columns::ours;
use crate::store::tables::hosts;

impl Store {
    pub(crate) async fn replace_hosts(&self, hosts: Vec<HostSeen>) -> Result<(), StoreError> {
        let machines: Vec<_> = hosts.iter().map(|host| host.machine.clone()).collect();
        self.add_hosts(hosts).await?;
        self.writer.submit(move |db| hosts::keep_only(db, &machines)).await
    }

    pub(crate) async fn add_hosts(&self, mut hosts: Vec<HostSeen>) -> Result<(), StoreError> {
        // In the order of the table, so that each turn writes pages of its own: in central's order each would write nearly all.
        hosts.sort_by(|a, b| a.machine.cmp(&b.machine));
        for part in turns::parts(hosts) {
            self.writer.submit(move |db| hosts::upsert(db, &part)).await?;
        }
        Ok(())
    }

    /// Those of these sessions that are not this host's own.
    pub async fn not_own(&self, ids: Vec<InstanceId>) -> Result<Vec<InstanceId>, StoreError> {
        self.read(move |db| {
            let mut is_own =
                db.prepare_cached(concat!("SELECT 1 FROM sessions WHERE instance_id = ?1 AND ", ours!()))?;
            let mut missing = Vec::new();
            for id in &ids {
                if !is_own.exists([id.as_str()])? {
                    missing.push(id.clone());
                }
            }
            Ok(missing)
        })
        .await
    }

    /// The rate limits of this host, as it shares them.
    pub async fn own_limits(&self, now: Timestamp) -> Result<Vec<AccountLimit>, StoreError> {
        self.read(move |db| rate_limits::own(db, now)).await
    }

    /// The mirror is one of this timeline of central from now on: if it was of another, everything is read again.
    pub async fn set_mirror_timeline(&self, timeline: String) -> Result<(), StoreError> {
        self.writer.submit(move |db| mirror_cursor::set_timeline(db, &timeline)).await
    }

    /// The mirror has this scope from now on: if it had another, everything in it is read again.
    pub async fn set_mirror_scope(&self, scope: String) -> Result<(), StoreError> {
        self.writer.submit(move |db| mirror_cursor::set_scope(db, &scope)).await
    }

    /// Whether the mirror has the history of the sessions in it.
    pub async fn history_reading(&self) -> Result<HistoryReading, StoreError> {
        self.read(mirror_cursor::history_reading).await
    }

    /// Sets whether it has.
    pub async fn set_history_reading(&self, reading: HistoryReading) -> Result<(), StoreError> {
        self.writer.submit(move |db| mirror_cursor::set_history_reading(db, reading)).await
    }

    /// Where the next reading of central begins.
    pub async fn mirror_position(&self, now: Timestamp) -> Result<u64, StoreError> {
        let stored = self.read(move |db| mirror_cursor::since(db, now)).await?;
        Ok(self.mirror_position.since(stored))
    }

    /// Has the next reading read everything.
    pub async fn reset_mirror_position(&self) -> Result<(), StoreError> {
        self.writer.submit(mirror_cursor::read_everything).await
    }

    /// Imports a page of what changed in central, in turns that are each short.
    pub async fn import_page(
        &self,
        reading: PullQuery,
        mut changes: reading::ChangePage,
        context: OpContext,
    ) -> Result<PageResult, StoreError> {
        let mut imported = PageResult::default();
        if !reading.scope.is_all() && !changes.gone.is_empty() {
            // Most of what changes out of scope was never in it.
            let gone = std::mem::take(&mut changes.gone);
            changes.gone = self.read(move |db| mirror::only_mirrored(db, gone.clone())).await?;
        }
        if self.mirror_position.advances_in_memory(&reading, &changes, context.now) {
            return Ok(imported);
        }
        if reading.is_whole() || !changes.is_empty() {
            self.mirror_position.page_written();
        }
        for turn in Turn::of(&reading, changes) {
            let turn = Arc::new(turn);
            let delete_history = || {
                let turn = turn.clone();
                self.writer.submit(move |db| mirror::delete_history(db, &turn))
            };
            while turn.deletes() && delete_history().await? {}
            if turn.finishes_whole() {
                self.drop_unseen().await?;
            }
            let import = || {
                let turn = turn.clone();
                self.writer.submit(move |db| mirror::import(&Op::new(db, context), &turn))
            };
            let part = self.with_room(import).await?;
            if turn.finishes() {
                self.mirror_position.written(context.now, part.written > 0);
            }
            imported.add(part);
        }
        self.mirror_position.page_imported(&reading, context.now);
        while self.writer.submit(|db| mirror_share::make_room(db, Limit::Share)).await? {}
        Ok(imported)
    }

    /// Deletes what a reading of everything did not meet, in turns.
    async fn drop_unseen(&self) -> Result<(), StoreError> {
        let mut place = Some(i64::MIN);
        while let Some(from) = place {
            place = self.writer.submit(move |db| mirror::drop_unseen(db, from)).await?;
        }
        Ok(())
    }

    /// When what is mirrored of other hosts was last known to be true; never, before the first time.
    pub fn mirror_as_of(&self) -> Option<Timestamp> {
        self.mirror_position.as_of()
    }

    /// What of this host central lacks, sessions longest waiting first.
    pub async fn pending(&self, limit: BatchLimit, skip: Skip) -> Result<Pending, StoreError> {
        self.read(move |db| outbox::pending(db, limit, &skip)).await
    }

    /// The sessions that central lacks and that stand behind this place among those that wait; no records.
    pub async fn pending_behind(
        &self,
        place: OutboxPosition,
        limit: BatchLimit,
        skip: Skip,
    ) -> Result<Pending, StoreError> {
        self.read(move |db| outbox::pending_behind(db, place, limit, &skip)).await
    }

    /// Some of what central lacks, what was added last: sessions, or records of one kind.
    pub async fn newest_pending(
        &self,
        kind: Option<RecordKind>,
        count: usize,
        skip: Skip,
    ) -> Result<Pending, StoreError> {
        self.read(move |db| outbox::newest_pending(db, kind, count, &skip)).await
    }

    /// Does anything wait that could travel now?
    pub async fn has_pending(&self, skip: Skip) -> Result<bool, StoreError> {
        self.read(move |db| outbox::has_pending(db, &skip)).await
    }

    /// Lets what is parked and due be pushed again.
    pub async fn release_parked(&self, at: Timestamp) -> Result<usize, StoreError> {
        if !self.read(move |db| parked::is_parked_due(db, at)).await? {
            return Ok(0);
        }
        self.release_due(at).await
    }

    /// The writes of [`Store::release_parked`], in turns.
    pub(in crate::store) async fn release_due(&self, at: Timestamp) -> Result<usize, StoreError> {
        let mut released = 0;
        loop {
            let turn = self.writer.submit(move |db| parked::release_parked(db, at)).await?;
            released += turn;
            if turn < turns::ROWS {
                return Ok(released);
            }
        }
    }

    /// Makes those live sessions of this host pending whose heartbeats in central are due by this rule. Returns how many.
    pub async fn refresh(&self, rule: RefreshRule, now: Timestamp) -> Result<usize, StoreError> {
        let mut marked = 0;
        let due = self.read(move |db| refresh::due(db, &rule, now)).await?;
        for part in turns::parts(due) {
            marked += self.writer.submit(move |db| refresh::mark(db, &part, now)).await?;
        }
        Ok(marked)
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.read(outbox::backlog).await
    }

    /// Applies what central did with a batch, one part after the other. Returns the sessions that got a new id.
    pub async fn acknowledge(&self, settling: BatchResult, context: OpContext) -> Result<Vec<Renamed>, StoreError> {
        let mut renamed = Vec::new();
        for part in settling.in_parts() {
            let part = Arc::new(part);
            let settled = part.clone();
            let work = move |db: &Connection| {
                Ok((
                    batch_result::acknowledge(&Op::new(db, context), &settled)?,
                    batch_result::free_returned(db, &settled)?,
                ))
            };
            let (new, mut more) = self.writer.submit(work).await?;
            renamed.extend(new);
            while more {
                let settled = part.clone();
                more = self.writer.submit(move |db| batch_result::free_returned(db, &settled)).await?;
            }
        }
        Ok(renamed)
    }

    pub(crate) async fn ledger(&self) -> Result<Ledger, StoreError> {
        self.read(ledger::ledger).await
    }

    /// Central lost what it once had: everything waits again. Returns how many sessions, and records.
    pub async fn forget_synced(&self, acked_batch: i64, at: Timestamp) -> Result<(usize, usize), StoreError> {
        let mut forgotten = (0, 0);
        let mut place = Some(ForgetPlace::FIRST);
        while let Some(from) = place {
            let turn = self.write(move |db| ledger::forget_synced(db, from, acked_batch, at)).await?;
            forgotten = (forgotten.0 + turn.sessions, forgotten.1 + turn.records);
            place = turn.next;
        }
        Ok(forgotten)
    }

    pub(crate) async fn parked(&self) -> Result<Vec<Parked>, StoreError> {
        self.read(parked::list_parked).await
    }

    /// Lets what is parked be pushed again; all of it if `ids` is empty.
    pub async fn retry_parked(&self, ids: Vec<String>) -> Result<usize, StoreError> {
        self.unpark(ids, Unpark::Retry).await
    }

    /// Gives up pushing what is parked as it is; a later change of a session is pushed again.
    pub async fn drop_parked(&self, ids: Vec<String>) -> Result<usize, StoreError> {
        self.unpark(ids, Unpark::Drop).await
    }

    /// Nothing happens unless all the ids are parked. What is parked by the time of the call is changed in turns.
    async fn unpark(&self, ids: Vec<String>, how: Unpark) -> Result<usize, StoreError> {
        let rows = self.read(move |db| parked::parked_rows(db, &ids)).await?;
        self.unpark_rows(rows, how).await
    }

    pub(in crate::store) async fn unpark_rows(&self, rows: Vec<ParkedRow>, how: Unpark) -> Result<usize, StoreError> {
        let mut count = 0;
        for part in turns::parts(rows) {
            count += self.write(move |db| parked::unpark(db, &part, how)).await?;
        }
        Ok(count)
    }
}
