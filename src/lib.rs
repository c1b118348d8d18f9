//! sessiond: a local-first daemon that keeps the record of AI coding sessions.
//!
//! The library is internal to the program: its API may change at any time.
//!
//! The path of a heartbeat: `client` -> socket -> `api` -> `store` (commit, then reply) -> `sync` -> Postgres.
//! ARCHITECTURE.md describes the modules.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod agents;
pub mod api;
pub mod claude;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod discovery;
pub mod doctor;
pub mod domain;
pub mod mcp;
pub mod notifications;
pub mod platform;
pub mod requests;
pub mod service;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod spool;
pub mod store;
pub mod sync;
pub mod top;
pub mod web;
pub mod wire;
