//! Carrying the store to central, whenever central can be reached.
//!
//! `engine` decides, `exchange` does, `worker` waits, `supervise` keeps it at it, `progress` shows that it is,
//! `central` says what is asked of a database, `postgres` is one.

pub mod central;
pub mod engine;
pub mod exchange;
mod held;
mod parts;
pub mod postgres;
pub mod progress;
pub mod replica;
pub mod supervise;
pub mod worker;
