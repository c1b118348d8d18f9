//! The one integration test binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod architecture;
mod central;
mod e2e;
mod faults;
mod find;
mod hostile;
mod power;
mod service;
