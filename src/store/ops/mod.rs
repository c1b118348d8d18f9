//! Operations: each is one use case in one transaction, which the writer commits.

pub(in crate::store) mod activity_figures;
pub(in crate::store) mod agent_candidates;
pub(in crate::store) mod agent_reports;
pub(in crate::store) mod conflicts;
pub(in crate::store) mod context_query;
pub(in crate::store) mod history;
pub(in crate::store) mod idempotency;
pub(in crate::store) mod lifecycle;
pub(in crate::store) mod lookup;
pub(in crate::store) mod machines;
pub(in crate::store) mod promised_ids;
pub(in crate::store) mod rate_limits;
pub(in crate::store) mod resume;
pub(in crate::store) mod retention;
pub(in crate::store) mod session_page;
pub(in crate::store) mod session_work;
pub(in crate::store) mod spooled_writes;
pub(in crate::store) mod user_limits;
