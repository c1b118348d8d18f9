//! top: the live view in the terminal.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;

use super::{list, resume, show_work};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::OutputStyle;
use crate::client::{self, Client, Resolved};
use crate::clock;
use crate::domain::text::escaped_lines;
use crate::top::{self, TopOptions};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond top --bell\n\nPress ? in it for its keys.")]
pub(crate) struct TopArgs {
    /// Print one frame as text and exit
    #[arg(long)]
    pub once: bool,
    /// Ring the terminal's bell when a session begins to wait or fails
    #[arg(long, conflicts_with = "once")]
    pub bell: bool,
}

/// The width of a frame that goes to no terminal.
const PLAIN_WIDTH: usize = 80;

pub(crate) fn top(
    client: &Client,
    args: &TopArgs,
    env: &dyn Fn(&str) -> Option<OsString>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    let style = out.style;
    let options = TopOptions {
        has_colour: if args.once { style.colour } else { !is_set("NO_COLOR") },
        bell: args.bell,
        in_tmux: is_set("TMUX"),
        term: env("TERM").map(|term| term.to_string_lossy().into_owned()),
        clock: clock::system(),
        session_text: Arc::new(move |client, id| session_text(client, id, style)),
    };
    if args.once {
        let frame = top::once(client, &options, style.width.unwrap_or(PLAIN_WIDTH), style.colour)?;
        return out.print_rendered(&frame);
    }
    match top::run(client, &options)? {
        Some(command) => out.print_line(&command),
        None => Ok(()),
    }
}

/// What `show` and `context --handoff` print.
fn session_text(client: &Client, id: &str, style: OutputStyle) -> client::Result<String> {
    let style = OutputStyle { width: None, colour: false, now: clock::system()(), ..style };
    let Resolved::One(session) = client.show(id)? else { return Ok(String::new()) };
    let work = client.work(&session.instance_id)?;
    let mut text = list::sheet(&session, &style).render(&style);
    text.push_str(&show_work::render(&work, &style));
    if let Resolved::One(handoff) = client.handoff(&session.instance_id)? {
        text.push_str("\nhandoff\n");
        text.push_str(&escaped_lines(&(*handoff + &resume::end_of_transcript(&session))));
    }
    Ok(text)
}
