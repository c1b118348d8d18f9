//! Lets other parts of the daemon take leases in central, over sync's one connection.
//!
//! A request waits until the worker has nothing else to do. While central is unreachable there is no
//! answer, and the requester decides what to do without a lease.

use std::time::Duration;

use crate::requests::{self, RequestQueue, Requester};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many requests may wait.
const MAX_WAITING: usize = 16;

/// A request for leases.
#[derive(Debug)]
pub struct LeaseRequest {
    pub(super) names: Vec<String>,
    pub(super) length: Duration,
}

/// Asks for leases. Clones share it.
#[derive(Clone)]
pub struct Leases(Requester<LeaseRequest, Vec<String>>);

/// The worker's end; after a restart the next worker uses it.
pub type LeaseRequests = RequestQueue<LeaseRequest, Vec<String>>;

/// A way to ask, and the worker's end of it.
pub fn channel() -> (Leases, LeaseRequests) {
    let (requester, queue) = requests::channel(MAX_WAITING, PATIENCE);
    (Leases(requester), queue)
}

impl Leases {
    /// Takes these leases for `length`, and returns those that this host has now; `None` if central could not be asked.
    pub async fn take(&self, names: Vec<String>, length: Duration) -> Option<Vec<String>> {
        self.0.ask(LeaseRequest { names, length }).await.ok()
    }
}
