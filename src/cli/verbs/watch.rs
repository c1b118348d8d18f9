//! list --watch: the list, then a line for each change, until interrupted.

use std::thread::sleep;
use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::client::{Client, WatchEvent};
use crate::domain::text::escaped_line;
use crate::wire::{SessionBody, WatchQuery};

/// The pause between attempts to reconnect.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints what `list` prints, then changes. A broken connection is opened again and continues after the last change;
/// only a daemon that does not answer at the start is an error.
pub(crate) fn watch(
    client: &Client,
    mut query: WatchQuery,
    json: bool,
    out: &mut Output<'_>,
    list: impl Fn(&mut Output<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    // Watching begins before the list is read, so that no change is missed between them.
    let mut changes = client.watch(&query)?;
    list(out)?;
    loop {
        match changes.next_change() {
            Ok(WatchEvent::Session(session)) if json => out.print_json_line(&session)?,
            Ok(WatchEvent::Session(session)) => out.print_line(&line(&session))?,
            Ok(WatchEvent::Reset) => list(out)?,
            Err(_) => {
                query.after.clone_from(&changes.last_id);
                changes = connect_again(client, &query, out);
            }
        }
    }
}

fn connect_again(client: &Client, query: &WatchQuery, out: &mut Output<'_>) -> crate::client::WatchStream {
    let mut is_noted = false;
    loop {
        match client.watch(query) {
            Ok(changes) => return changes,
            Err(error) if !is_noted => {
                out.print_note(&format!("{}; waiting for it", error.message));
                is_noted = true;
            }
            Err(_) => {}
        }
        sleep(PAUSE);
    }
}

/// `12:03:04 odin-PS-8f4a2b on odin3: active, context 42%, epic 003`
fn line(session: &SessionBody) -> String {
    let at = session.as_of.get(11..19).unwrap_or_default();
    let epic = session.current_epic.as_deref().map(|epic| format!(", epic {epic}")).unwrap_or_default();
    escaped_line(&format!(
        "{at} {} on {}: {}, context {}%{epic}",
        session.instance_id, session.host_machine, session.status, session.context_percent
    ))
}
