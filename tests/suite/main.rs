//! The one integration test binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing of a program can be reached from outside")]

mod agents;
mod architecture;
mod central;
mod e2e;
mod faults;
mod find;
mod hostile;
mod power;
mod service;
mod top;
mod web;
