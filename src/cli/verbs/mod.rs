//! The client's verbs, by group: each asks the daemon and prints its answer.

pub mod doctor;
pub mod identity;
pub mod list;
pub mod machines;
pub mod parked;
pub mod service;
pub mod session;
pub mod status;
pub mod sync;
