//! The verbs, by group, each with its arguments: send a request to the daemon and print the answer.

mod agent_reporter;
pub(super) mod agent_settings;
pub(super) mod conflicts;
pub(super) mod daemon;
pub(super) mod discover;
pub(super) mod doctor;
pub(super) mod exec;
pub(super) mod history;
pub(super) mod hook;
pub(super) mod identity;
pub(super) mod limits;
pub(super) mod list;
mod list_columns;
pub(super) mod machines;
pub(super) mod parked;
pub(super) mod resume;
pub(super) mod service;
pub(super) mod session;
mod show_work;
pub(super) mod status;
pub(super) mod statusline;
mod stderr_tail;
pub(super) mod sync;
pub(super) mod top;
pub(super) mod watch;
pub(super) mod web;
