//! The shutdown signal.

use tokio::sync::watch;

/// Requests the shutdown, also when it is dropped.
pub struct Stop(watch::Sender<bool>);

/// Receives the request. Clones receive it too.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A new signal.
pub fn channel() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Shutdown(receiver))
}

impl Stop {
    /// Requests the shutdown.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the shutdown has been requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the shutdown is requested.
    pub async fn requested(&mut self) {
        // An error means that the sender was dropped, which requests the shutdown too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
