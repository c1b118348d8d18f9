//! Notifications to systemd. Without systemd all of them do nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::domain::LinkStatus;
use crate::store::Store;
use crate::sync::watchdog::Watchdog;

pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Reports the state of the link to central, and feeds the watchdog while the store's writer answers and sync makes
/// progress. Never returns.
pub(super) async fn report_status(store: Store, mut link: watch::Receiver<LinkStatus>, sync: Watchdog) {
    const WITHOUT_WATCHDOG: Duration = Duration::from_secs(3600);
    let interval = watchdog_interval();
    loop {
        let state = link.borrow_and_update().state;
        notify(&[NotifyState::Status(&format!("central: {}", state.as_str()))]);
        if interval.is_some() {
            if sync.is_missed() {
                tracing::error!("sync makes no progress; the watchdog is not fed");
            } else if store.ping().await.is_ok() {
                notify(&[NotifyState::Watchdog]);
            }
        }
        let _ = tokio::time::timeout(interval.unwrap_or(WITHOUT_WATCHDOG), link.changed()).await;
    }
}

/// How often to feed the watchdog, if there is one: twice in its timeout.
fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
