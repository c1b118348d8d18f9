//! A network namespace of a test, with an address that is not loopback.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::skip::skip;

/// An address of that network; from the range that RFC 5737 keeps for examples.
pub const ADDRESS: &str = "192.0.2.1";

/// Runs `work`, and all processes that it starts, in a network that ends with them. Where the machine
/// does not allow that, `test` is skipped.
pub fn alone(test: &str, work: impl FnOnce() + Send) {
    let run = || {
        if let Err(why) = set_up() {
            return skip(test, format_args!("a network namespace: {why}"));
        }
        work();
    };
    // Only this thread is moved; processes are started from it.
    let outcome = thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn set_up() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"])
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    let said = || format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}
