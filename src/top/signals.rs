//! Signals become input of the view, in a thread of their own.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::{Input, terminal};

/// How long the view has to end by itself: it may hang in a write to a terminal that was stopped by ctrl-s.
const PATIENCE: Duration = Duration::from_secs(2);

/// A signal, by what has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// End by this signal.
    End(i32),
    Suspend,
    /// The process continues after it was stopped.
    Continued,
}

/// Reports signals from now on.
///
/// # Errors
/// They cannot be received.
pub(super) fn watch(input: SyncSender<Input>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])?;
    thread::spawn(move || {
        for number in signals.forever() {
            let signal = match number {
                SIGTSTP => Signal::Suspend,
                SIGCONT => Signal::Continued,
                number => Signal::End(number),
            };
            let is_received = input.try_send(Input::Signal(signal)).is_ok();
            if let Signal::End(number) = signal {
                if is_received {
                    thread::sleep(PATIENCE);
                }
                terminal::restore();
                end_by(number);
            }
        }
    });
    Ok(())
}

/// Ends the process as the signal does by default, so that the parent process sees why.
pub(super) fn end_by(number: i32) {
    let _ = emulate_default_handler(number);
}

/// Stops the process until it is continued.
pub(super) fn stop() {
    let _ = emulate_default_handler(SIGTSTP);
}
