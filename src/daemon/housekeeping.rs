//! Maintains the store while the daemon serves: prunes closed sessions, truncates the write-ahead log, and runs the
//! integrity check, which a start omits because it takes long.

use std::time::Duration;

use tokio::sync::watch;

use super::liveness::LivenessSettings;
use crate::clock::Clock;
use crate::platform;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// When to try again to truncate the log: another program's read transaction or a full disk prevents it.
const LOG_RETRY_DELAY: Duration = Duration::from_millis(500);
/// When to run a check again that was abandoned because too much was written meanwhile.
const CHECK_RETRY_DELAY: Duration = Duration::from_secs(600);

/// Runs until shutdown.
pub(super) async fn run(
    store: Store,
    clock: Clock,
    settings: watch::Receiver<LivenessSettings>,
    mut shutdown: Shutdown,
) {
    tokio::select! {
        () = prune(&store, &clock, settings) => {}
        () = truncate_log(&store) => {}
        () = finish_start(&store) => {}
        () = shutdown.requested() => {}
    }
}

/// Prunes at each heartbeat interval. A shutdown may interrupt it; the next start prunes the rest.
async fn prune(store: &Store, clock: &Clock, settings: watch::Receiver<LivenessSettings>) {
    loop {
        let LivenessSettings { keep_closed, heartbeat_interval, .. } = *settings.borrow();
        if let Err(error) = store.prune(clock().minus(keep_closed)).await {
            tracing::warn!(%error, "closed sessions could not be pruned; trying again later");
        }
        if let Err(error) = store.expire_promises(clock()).await {
            tracing::warn!(%error, "expired promises of ids could not be deleted; trying again later");
        }
        if let Err(error) = store.expire_limits(clock()).await {
            tracing::warn!(%error, "old rate limits could not be deleted; trying again later");
        }
        if let Err(error) = store.expire_activity(clock()).await {
            tracing::warn!(%error, "old changes of activities could not be deleted; trying again later");
        }
        if let Err(error) = store.expire_on_demand(clock()).await {
            tracing::warn!(%error, "sessions that were read on demand could not be deleted; trying again later");
        }
        tokio::time::sleep(heartbeat_interval).await;
    }
}

async fn truncate_log(store: &Store) {
    loop {
        if let Err(error) = store.shorten_log().await {
            tracing::debug!(%error, "the store's log cannot be truncated; trying again");
            tokio::time::sleep(LOG_RETRY_DELAY).await;
        }
    }
}

/// Does the part of the store's start that can run while it serves. Never returns.
async fn finish_start(store: &Store) {
    if let Err(error) = store.make_room().await {
        tracing::debug!(%error, "no space could be reserved for the store's log");
    }
    loop {
        match store.verify().await {
            Err(error @ StoreError::CheckGivenUp) => {
                tracing::warn!(%error, "it runs again in {} minutes", CHECK_RETRY_DELAY.as_secs() / 60);
                tokio::time::sleep(CHECK_RETRY_DELAY).await;
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be checked");
                break;
            }
            Ok(()) => break,
        }
    }
    // The start has allocated memory that is not needed any more.
    platform::memory::trim();
    std::future::pending().await
}
