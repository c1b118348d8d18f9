//! What all parts of the simulation share: the settings of its hosts, and what a violation is.

use std::ops::RangeInclusive;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sync::scheduler::SyncIntervals;

pub(super) const HOSTS: usize = 2;
pub(super) const STALE_AFTER: Duration = Duration::from_secs(120);
pub(super) const INTERVALS: SyncIntervals = SyncIntervals {
    heartbeat_interval: Duration::from_secs(30),
    refresh_after: Duration::from_secs(60),
    pull_interval: Duration::from_secs(15),
    sweep_interval: Duration::from_secs(60),
    longest_wait: Duration::from_secs(30),
};

/// So few rows that a push takes several batches.
pub(super) const BATCH_ROWS: RangeInclusive<usize> = 1..=4;

/// A guarantee that did not hold.
#[derive(Debug)]
pub(super) struct Violation {
    pub guarantee: &'static str,
    pub what: String,
}

/// The output of a future that never waits.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}
