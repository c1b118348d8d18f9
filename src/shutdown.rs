//! The signal to stop, handed down like the clock.

use tokio::sync::watch;

/// Tells everybody to stop; dropping it does so too.
pub struct Stop(watch::Sender<bool>);

/// Is told to stop.
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

    /// Returns once it is time to stop.
    pub async fn requested(&mut self) {
        // An error means that whoever could say stop is gone, which says it too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
