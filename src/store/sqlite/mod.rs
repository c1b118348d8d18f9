//! SQLite itself: connections, the writer thread, readers and the change feed. Knows no operation.

pub(in crate::store) mod change_feed;
pub(in crate::store) mod connection;
pub(in crate::store) mod readers;
pub(in crate::store) mod turns;
pub(in crate::store) mod writer;
