//! Central: the fake and the real one, held to the same suite.

mod conformance;
mod conformance_records;
mod explain;
mod fake;
mod history;
mod migrating;
mod migrations;
mod mirror;
mod postgres;
mod silence;
