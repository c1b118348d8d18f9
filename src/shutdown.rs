//! The shutdown signal, which is passed to each part of the daemon.

use tokio::sync::watch;

/// Requests the shutdown of all parts that hold its [`Shutdown`]; dropping it does, too.
pub struct Stop(watch::Sender<bool>);

/// Receives the request to shut down.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

pub fn channel() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Shutdown(receiver))
}

impl Stop {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns once the shutdown is requested.
    pub async fn requested(&mut self) {
        // An error means that the sender was dropped.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
