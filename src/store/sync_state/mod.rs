//! The state of synchronization: what central lacks, what it answered, and the mirror of other machines.

pub(in crate::store) mod activity_history;
pub(in crate::store) mod batch_result;
pub(in crate::store) mod event_types;
pub(in crate::store) mod ledger;
pub(in crate::store) mod mirror;
pub(in crate::store) mod mirror_cursor;
pub(in crate::store) mod mirror_history;
pub(in crate::store) mod mirror_position;
pub(in crate::store) mod mirror_share;
pub(in crate::store) mod on_demand;
pub(in crate::store) mod outbox;
pub(in crate::store) mod parked;
pub(in crate::store) mod record_outbox;
pub(in crate::store) mod refresh;
pub(in crate::store) mod selection;
