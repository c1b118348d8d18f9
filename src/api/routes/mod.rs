//! The routes, one file for each resource.

pub(super) mod activity;
pub(super) mod agents;
pub(super) mod conflicts;
pub(super) mod daemon;
pub(super) mod history;
pub(super) mod identity;
pub(super) mod limits;
pub(super) mod machines;
pub(super) mod parked;
pub(super) mod resume;
pub(super) mod sessions;
pub(super) mod watch;
pub(super) mod work;
