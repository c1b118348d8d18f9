//! The verbs, by group, each with its arguments: send a request to the daemon and print the answer.

pub mod agent;
pub mod claude_settings;
pub mod daemon;
pub mod discover;
pub mod doctor;
pub mod exec;
pub mod history;
pub mod identity;
pub mod list;
mod list_columns;
pub mod machines;
pub mod parked;
pub mod resume;
pub mod service;
pub mod session;
mod show_work;
pub mod status;
pub mod sync;
pub mod watch;
