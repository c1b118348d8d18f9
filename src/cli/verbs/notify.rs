//! notify: tests the channels of notifications. notify-agent: shows them on this user's desktop.

use std::io;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::{Client, WatchStream};
use crate::platform::desktop;

/// How long to wait before the daemon is asked again.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum NotifyVerb {
    /// Send a test notification to the channel of each rule
    #[command(after_help = "Example: sessiond notify test --json")]
    Test {
        /// Print the results as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond notify-agent")]
pub(crate) struct NotifyAgentArgs {}

/// Returns the exit code: 1 if a channel did not take the test.
pub(crate) fn notify(client: &Client, verb: &NotifyVerb, out: &mut Output<'_>) -> Result<u8, CliError> {
    let NotifyVerb::Test { json } = verb;
    let results = client.test_notifications()?;
    if *json {
        out.print_json(&results)?;
    } else if results.is_empty() {
        out.print_note("the configuration has no rule in [[notify.rules]], so no notification is sent");
    }
    for result in results.iter().filter(|_| !json) {
        let outcome = result.error.as_deref().unwrap_or("ok");
        out.print_line(&format!("rule {} ({}): {outcome}", result.rule, result.channel))?;
    }
    let failed = results.iter().filter(|result| result.error.is_some()).count();
    if failed > 0 {
        let of = results.len();
        out.print_note(&format!("{failed} of {of} channels failed; correct [[notify.rules]] or what it names"));
    }
    Ok(u8::from(failed > 0))
}

/// Runs until it is ended. A daemon that is away is waited for.
pub(crate) fn notify_agent(client: &Client, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut is_away = false;
    loop {
        match client.notifications() {
            Ok(stream) => {
                is_away = false;
                let Err(error) = show_all(stream, out);
                out.print_note(&format!("the daemon has gone ({error}); waiting for it"));
            }
            Err(error) if !is_away => {
                out.print_note(&format!("{}; waiting for it", CliError::from(error).line()));
                is_away = true;
            }
            Err(_) => {}
        }
        thread::sleep(RETRY);
    }
}

fn show_all(mut stream: WatchStream, out: &mut Output<'_>) -> Result<std::convert::Infallible, io::Error> {
    loop {
        let notification = stream.next_notification()?;
        let is_urgent = notification.occasion != "limit";
        if let Err(error) = desktop::show(&notification.title, &notification.text, is_urgent) {
            out.print_note(&format!("a notification cannot be shown: {error}"));
        }
    }
}
