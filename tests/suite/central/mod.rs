//! The fake central and a real one pass the same conformance suite.

mod capabilities;
mod conformance;
mod conformance_leases;
mod conformance_limits;
mod conformance_records;
mod conformance_scope;
mod conformance_work;
mod explain;
mod fake;
mod history;
mod long_transactions;
mod migrating;
mod migrations;
mod mirror;
mod partitions;
mod postgres;
mod silence;
mod versions;
mod vouching;
