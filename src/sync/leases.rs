//! Lets other parts of the daemon take leases in central, over sync's one connection.
//!
//! A request waits until the worker has nothing else to do. While central is unreachable there is no
//! answer, and the requester decides what to do without a lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many requests may wait.
const MAX_WAITING: usize = 16;

/// A request for leases.
pub(super) struct LeaseRequest {
    pub(super) names: Vec<String>,
    pub(super) length: Duration,
    /// Dropped if central could not be asked.
    pub(super) reply: oneshot::Sender<Vec<String>>,
}

/// Asks for leases. Clones share it.
#[derive(Clone)]
pub struct Leases(mpsc::Sender<LeaseRequest>);

/// The worker's end; after a restart the next worker uses it.
#[derive(Clone)]
pub struct LeaseRequests(Arc<Mutex<mpsc::Receiver<LeaseRequest>>>);

/// A way to ask, and the worker's end of it.
pub fn channel() -> (Leases, LeaseRequests) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (Leases(sender), LeaseRequests(Arc::new(Mutex::new(receiver))))
}

impl Leases {
    /// Takes these leases for `length`, and returns those that this host has now; `None` if central could not be asked.
    pub async fn take(&self, names: Vec<String>, length: Duration) -> Option<Vec<String>> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(LeaseRequest { names, length, reply }).ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

impl LeaseRequests {
    /// The next request whose answer is still awaited. Never returns if there can be none any more. Cancel safe.
    pub(super) async fn next(&self) -> LeaseRequest {
        loop {
            match self.0.lock().await.recv().await {
                Some(request) if request.reply.is_closed() => {}
                Some(request) => return request,
                None => return std::future::pending().await,
            }
        }
    }
}
