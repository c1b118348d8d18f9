//! The model of `sessiond_activity`: changes are only added, each once.

use std::collections::BTreeMap;

use crate::domain::activity_history::ActivityChange;
use crate::domain::{HistoryTables, InstanceId, SessionWork, TableState, Timestamp};

/// By session and time, with the transaction that wrote them.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeActivity(BTreeMap<(String, Timestamp), (u64, ActivityChange)>);

impl FakeActivity {
    pub(super) fn add(&mut self, work: &SessionWork, tables: &HistoryTables, transaction: u64, now: Timestamp) {
        for change in work.changes.iter().filter(|_| tables.activity == TableState::Usable) {
            let change = ActivityChange { at: change.at.min(now), ..change.clone() };
            self.0.entry((work.instance_id.to_string(), change.at)).or_insert((transaction, change));
        }
    }

    /// What transactions since `since` wrote of a session.
    pub(super) fn since(&self, id: &InstanceId, since: u64) -> Vec<ActivityChange> {
        let of_session = self.0.iter().filter(|((session, _), (at, _))| session == id.as_str() && *at >= since);
        of_session.map(|(_, (_, change))| change.clone()).collect()
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.0.retain(|(session, _), _| session != id);
    }
}
