//! What may go into a batch: its limits, and what stays out because central does not take it at present.

use crate::domain::{InstanceId, RecordKind};

/// How much a batch carries at most; one row always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// What stays out of the next batches, because central does not take it at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// No session travels. Records do, of sessions that central has.
    pub all_sessions: bool,
    /// These sessions and their records.
    pub sessions: Vec<InstanceId>,
    /// The records of these sessions.
    pub records_of: Vec<InstanceId>,
    pub(crate) kinds: Vec<RecordKind>,
}

/// Ids as SQL takes them, for `json_each`.
pub(in crate::store) fn json_ids<'a>(ids: impl IntoIterator<Item = &'a InstanceId>) -> String {
    serde_json::Value::from(ids.into_iter().map(InstanceId::as_str).collect::<Vec<_>>()).to_string()
}
