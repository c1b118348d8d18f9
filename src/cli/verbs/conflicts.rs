//! conflicts: sessions that may get in each other's way.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, TableColumn, TextTable};
use crate::client::Client;

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond conflicts --json")]
pub(crate) struct ConflictsArgs {
    /// Print the conflicts as JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn conflicts(client: &Client, args: &ConflictsArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let conflicts = client.conflicts()?;
    if args.json {
        return out.print_json(&conflicts);
    }
    if conflicts.is_empty() {
        out.print_note("no two active sessions share a working tree, a branch or an epic");
        return Ok(());
    }
    let mut table = TextTable::new([
        TableColumn::new("SHARED"),
        TableColumn::new("PLACE").cut_middle().shrink_rank(2),
        TableColumn::new("ID").cut_middle().shrink_rank(1),
        TableColumn::new("MACHINE").shrink_rank(3),
    ]);
    for conflict in &conflicts {
        for session in &conflict.sessions {
            table.row([
                Cell::new(&conflict.kind),
                Cell::new(&conflict.place),
                Cell::new(&session.instance_id),
                Cell::new(&session.host_machine),
            ]);
        }
    }
    out.print_rendered(&table.render(&out.style))
}
