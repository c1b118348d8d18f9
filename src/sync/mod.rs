//! Carries the local store's changes to central, and central's changes to the store.
//!
//! | module | purpose |
//! |---|---|
//! | `supervise` | restarts the worker after a panic |
//! | `worker` | runs the loop: asks the scheduler, runs the driver, waits for events |
//! | `handshake`, `push`, `division`, `hosts`, `pull`, `full_reading` | the driver's actions, each in a module of its own |
//! | `driver` | performs one action at a time and reports its outcome |
//! | `ledger`, `link_reporter`, `held_rows`, `pull_state`, `batch` | the driver's state |
//! | `scheduler` | decides which action is due; pure |
//! | `pacing` | how the hosts of a fleet share central's time; pure |
//! | `leases`, `on_demand` | other parts' requests: leases in central, and sessions that are not read ahead |
//! | `watchdog` | distinguishes a slow or unreachable central from a worker that hangs |
//! | `replica` | the port to the local store |
//! | `central` | the port to a central database; `postgres` is its one adapter, `fake_central` a model of it for tests |
//!
//! Modules import only from modules below them in this table.

mod batch;
pub mod central;
mod division;
pub mod driver;
#[cfg(any(test, feature = "fake-central"))]
pub mod fake_central;
mod full_reading;
mod handshake;
mod held_rows;
mod hosts;
pub mod leases;
mod ledger;
mod link_reporter;
pub mod on_demand;
pub mod pacing;
pub mod postgres;
mod pull;
mod pull_state;
mod push;
pub mod replica;
pub mod scheduler;
pub mod supervise;
pub mod watchdog;
pub mod worker;
