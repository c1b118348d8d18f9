//! sessiond: a local-first daemon that keeps the record of AI coding sessions.
//!
//! How a heartbeat travels: `client` -> socket -> `api` -> `store` (commit, then reply) -> `sync` -> Postgres.
//! ARCHITECTURE.md draws the map.

pub mod clock;
pub mod config;
pub mod domain;
pub mod platform;
pub mod store;
