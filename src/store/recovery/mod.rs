//! Opening, upgrading, checking and repairing the files of the store.

pub(in crate::store) mod copies;
pub(in crate::store) mod examine;
pub(in crate::store) mod integrity;
pub(in crate::store) mod open;
pub(in crate::store) mod salvage;
pub(in crate::store) mod wal_repair;
