//! What happened in sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::activity_history::HourOfActivity;
use crate::domain::{HistoryTables, InstanceId, SessionHistory, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::OpContext;
use crate::store::ops::activity_figures::ActivityFigures;
use crate::store::ops::history::{Append, History, HistoryQuery};
use crate::store::ops::idempotency::RequestKey;
use crate::store::ops::{activity_figures, context_query, history, idempotency};
use crate::store::store::Store;
use crate::store::sync_state::activity_history::ActivityHistory;
use crate::store::sync_state::event_types::LearnPlace;
use crate::store::sync_state::{activity_history, event_types};
use crate::store::tables::records::StoredRecord;

impl Store {
    /// What is left of a session.
    pub async fn session_history(&self, session: InstanceId) -> Result<SessionHistory, StoreError> {
        self.read(move |db| context_query::query(db, &session)).await
    }

    /// Appends a record to the history of a session.
    pub async fn append(&self, new: Append, context: OpContext) -> Result<StoredRecord, StoreError> {
        let attempt = || {
            let new = new.clone();
            self.write_limited(context, move |op| history::append(op, new))
        };
        self.with_room(attempt).await
    }

    /// The same, unless that was done under the same key before.
    pub async fn append_once(
        &self,
        key: RequestKey,
        new: Append,
        context: OpContext,
    ) -> Result<StoredRecord, StoreError> {
        let attempt = || {
            let (key, new) = (key.clone(), new.clone());
            self.write_limited(context, move |op| idempotency::append(op, &key, |op| history::append(op, new)))
        };
        self.with_room(attempt).await
    }

    /// Records of a session, newest first.
    pub async fn history(&self, id: InstanceId, query: HistoryQuery) -> Result<History, StoreError> {
        self.read(move |db| history::query(db, &id, &query)).await
    }

    /// The changes of a session's activity from `since` on, at most `limit`, in order of time.
    pub async fn activity_history(
        &self,
        id: InstanceId,
        since: Timestamp,
        limit: usize,
    ) -> Result<ActivityHistory, StoreError> {
        self.read(move |db| activity_history::list(db, &id, since, limit)).await
    }

    /// What the sessions of each machine did in each of `count` hours that begin at `from`.
    pub async fn activity_hours(
        &self,
        from: Timestamp,
        count: usize,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Vec<HourOfActivity>>, StoreError> {
        self.read(move |db| activity_history::hours(db, from, count, now)).await
    }

    /// What this host's sessions do now, and which waits ended after `after`; with `None`, since `since`.
    pub async fn activity_figures(
        &self,
        after: Option<i64>,
        since: Timestamp,
        context: OpContext,
    ) -> Result<ActivityFigures, StoreError> {
        self.read_op(context, move |op| activity_figures::read(op, after, since)).await
    }

    /// Deletes the changes of activities that are too old to be kept, in turns.
    pub async fn expire_activity(&self, now: Timestamp) -> Result<(), StoreError> {
        if !self.read(move |db| activity_history::any_expired(db, now)).await? {
            return Ok(());
        }
        while self.writer.submit(move |db| activity_history::delete_expired(db, now)).await? {}
        Ok(())
    }

    /// Records which tables central has for records and which types of events it takes, and parks or frees the
    /// events that this concerns, in turns.
    pub async fn record_tables(&self, tables: HistoryTables, at: Timestamp) -> Result<(), StoreError> {
        let tables = Arc::new(tables);
        let mut place = Some(LearnPlace::FIRST);
        while let Some(from) = place {
            let tables = tables.clone();
            place = self.writer.submit(move |db| event_types::turn(db, &tables, from, at)).await?;
        }
        Ok(())
    }
}
