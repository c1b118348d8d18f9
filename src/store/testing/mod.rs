//! The store as tests drive it.

pub(crate) mod manual_store;
