//! Shows a notification on this user's desktop, by the program that each system has for it: `busctl` calls the desktop's
//! notification service over D-Bus (`org.freedesktop.Notifications`), `osascript` the one of macOS.
//!
//! A program and not a library: a client of D-Bus would make the daemon's program an eighth larger. What is shown is in the
//! program's arguments; it is what every user of the socket may read anyway.

use std::process::{Command, Stdio};

/// Shows it. Blocks until the desktop has taken it.
///
/// # Errors
/// One line: there is no such program, or no desktop that takes it.
pub fn show(title: &str, text: &str, is_urgent: bool) -> Result<(), String> {
    let mut command = command(title, text, is_urgent);
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned();
    Err(format!("{program} failed: {}", if said.is_empty() { output.status.to_string() } else { said }))
}

#[cfg(not(target_os = "macos"))]
fn command(title: &str, text: &str, is_urgent: bool) -> Command {
    const SERVICE: &str = "org.freedesktop.Notifications";
    // The text may have markup, by the service's specification; the title may not.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let urgency = if is_urgent { "1" } else { "0" };
    let mut command = Command::new("busctl");
    command.args(["--user", "--timeout=5", "--", "call", SERVICE, "/org/freedesktop/Notifications", SERVICE, "Notify"]);
    command.args(["susssasa{sv}i", "sessiond", "0", "", title, &text, "0", "1", "urgency", "y", urgency, "-1"]);
    command
}

#[cfg(target_os = "macos")]
fn command(title: &str, text: &str, _is_urgent: bool) -> Command {
    // The words are arguments of the script, and never part of it.
    const SCRIPT: [&str; 3] =
        ["on run words", "display notification (item 2 of words) with title (item 1 of words)", "end run"];
    let mut command = Command::new("osascript");
    command.args(SCRIPT.iter().flat_map(|line| ["-e", line])).args(["--", title, text]);
    command
}
