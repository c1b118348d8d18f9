//! Carries the store's sessions to central.

pub mod central;
pub mod postgres;
