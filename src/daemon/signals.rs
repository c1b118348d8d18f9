//! Signals, as messages.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Stop,
    Reload,
}

/// Stops listening when dropped.
pub struct Listening(Handle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// From here on SIGTERM, SIGINT and SIGHUP arrive as messages, in order.
pub fn listen() -> std::io::Result<(mpsc::UnboundedReceiver<Signal>, Listening)> {
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
    Ok((receiver, Listening(handle)))
}
