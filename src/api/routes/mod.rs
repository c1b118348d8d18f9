//! The routes, one file for each resource.

pub mod agents;
pub mod daemon;
pub mod history;
pub mod identity;
pub mod machines;
pub mod parked;
pub mod resume;
pub mod sessions;
pub mod watch;
pub mod work;
