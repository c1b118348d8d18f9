//! What keeps the store small and sound while the daemon serves: pruning, a short log, and the check that a start leaves
//! out.

use std::time::Duration;

use tokio::sync::watch;

use super::liveness::LivenessSettings;
use crate::clock::Clock;
use crate::platform;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// After a failure, which may be another program's read or a full disk, it is tried again this much later.
const LOG_AGAIN: Duration = Duration::from_millis(500);
/// A check that was given up since too much was written is run again this much later.
const CHECK_AGAIN: Duration = Duration::from_secs(600);

/// Runs until shutdown.
pub async fn run(store: Store, clock: Clock, settings: watch::Receiver<LivenessSettings>, mut shutdown: Shutdown) {
    tokio::select! {
        () = prune(&store, &clock, settings) => {}
        () = keep_log_short(&store) => {}
        () = finish_start(&store) => {}
        () = shutdown.requested() => {}
    }
}

/// Each time in turns; the last of them may be cut off by the shutdown, which leaves the rest for the next start.
async fn prune(store: &Store, clock: &Clock, settings: watch::Receiver<LivenessSettings>) {
    loop {
        let LivenessSettings { keep_closed, heartbeat_interval, .. } = *settings.borrow();
        if let Err(error) = store.prune(clock().minus(keep_closed)).await {
            tracing::warn!(%error, "closed sessions could not be pruned; trying again later");
        }
        if let Err(error) = store.expire_promises(clock()).await {
            tracing::warn!(%error, "expired promises of ids could not be deleted; trying again later");
        }
        tokio::time::sleep(heartbeat_interval).await;
    }
}

async fn keep_log_short(store: &Store) {
    loop {
        if let Err(error) = store.shorten_log().await {
            tracing::debug!(%error, "the store's log stays long");
            tokio::time::sleep(LOG_AGAIN).await;
        }
    }
}

/// What a start of the store leaves for when it serves already. Never returns.
async fn finish_start(store: &Store) {
    if let Err(error) = store.make_room().await {
        tracing::debug!(%error, "the store's log grows as it is written");
    }
    loop {
        match store.verify().await {
            Err(error @ StoreError::CheckGivenUp) => {
                tracing::warn!(%error, "it is run again in {} minutes", CHECK_AGAIN.as_secs() / 60);
                tokio::time::sleep(CHECK_AGAIN).await;
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be checked");
                break;
            }
            Ok(()) => break,
        }
    }
    // Starting takes more memory than running.
    platform::memory::trim();
    std::future::pending().await
}
