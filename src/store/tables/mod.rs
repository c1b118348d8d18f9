//! SQL of single tables, without any decision.

pub(in crate::store) mod activity_changes;
pub(in crate::store) mod agent_ids;
pub(in crate::store) mod checkpoints_due;
pub(in crate::store) mod columns;
pub(in crate::store) mod hosts;
pub(in crate::store) mod metadata;
pub(in crate::store) mod rate_limits;
pub(in crate::store) mod records;
pub(in crate::store) mod session_columns;
pub(in crate::store) mod session_processes;
pub(in crate::store) mod session_record;
pub(in crate::store) mod session_row;
pub(in crate::store) mod session_work;
pub(in crate::store) mod sessions;
