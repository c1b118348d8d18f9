//! Receives signals as messages.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Stop,
    Reload,
}

/// Dropping it ends the signal thread.
pub(super) struct SignalGuard(Handle);

impl Drop for SignalGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Handles SIGTERM, SIGINT and SIGHUP from now on: each arrives as a message, in order.
///
/// # Errors
/// The handlers or the thread cannot be installed.
pub(super) fn listen() -> std::io::Result<(mpsc::UnboundedReceiver<Signal>, SignalGuard)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = signals.handle();
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let message = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
            if sender.send(message).is_err() {
                return;
            }
        }
    })?;
    Ok((receiver, SignalGuard(handle)))
}
