//! What systemd is told. Without systemd all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

pub fn ready() {
    tell(&[NotifyState::Ready]);
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

pub fn feed_watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to be fed, if there is one: half of what it tolerates.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
