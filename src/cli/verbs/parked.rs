//! parked: sessions and records that central rejects.

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, TableColumn, TextTable};
use crate::cli::text::{age_since, count};
use crate::client::Client;
use crate::wire::ParkedCount;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ParkedVerb {
    /// List parked rows, each with central's error
    #[command(after_help = "Example: sessiond parked list --json")]
    List {
        /// Print the rows as JSON
        #[arg(long)]
        json: bool,
    },
    /// Push parked rows again
    #[command(after_help = "Example: sessiond parked retry odin-PS-8f4a2b")]
    Retry {
        /// The rows to retry [default: all]
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        ids: Vec<String>,
        /// Print the number of rows as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give up on parked rows: central never receives them as they are
    #[command(after_help = "Example: sessiond parked drop odin-PS-8f4a2b")]
    Drop {
        /// The rows to drop
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        ids: Vec<String>,
        /// Drop all parked rows
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Print the number of rows as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn parked(client: &Client, verb: ParkedVerb, out: &mut Output<'_>) -> Result<(), CliError> {
    match verb {
        ParkedVerb::List { json } => list(client, json, out),
        ParkedVerb::Retry { ids, json } => print_count(&client.parked_retry(&ids)?, "retried", json, out),
        ParkedVerb::Drop { ids, all: false, .. } if ids.is_empty() => Err(CliError::usage(
            "parked drop needs ids or --all",
            "give the ids that `sessiond parked list` shows, or --all",
        )),
        ParkedVerb::Drop { ids, json, .. } => print_count(&client.parked_drop(&ids)?, "dropped", json, out),
    }
}

fn list(client: &Client, json: bool, out: &mut Output<'_>) -> Result<(), CliError> {
    let parked = client.parked()?;
    if json {
        return out.print_json(&parked);
    }
    if parked.is_empty() {
        out.print_note("nothing is parked");
        return Ok(());
    }
    let mut table = TextTable::new([
        TableColumn::new("ID").cut_middle().shrink_rank(1),
        TableColumn::new("WHAT").shrink_rank(3),
        TableColumn::new("PARKED").right(),
        TableColumn::new("ERROR").shrink_rank(2),
    ]);
    for one in &parked {
        let age = age_since(&one.parked_at, out.style.now);
        let what = match (&one.kind, &one.record_type) {
            (Some(kind), Some(of)) => format!("{kind} {of} of {}", one.instance_id),
            _ => "session".to_owned(),
        };
        table.row([
            Cell::new(&one.id),
            Cell::new(what),
            Cell::new(age.as_deref().unwrap_or("—")),
            Cell::new(&one.error),
        ]);
    }
    out.print_rendered(&table.render(&out.style))
}

fn print_count(concerned: &ParkedCount, done: &str, json: bool, out: &mut Output<'_>) -> Result<(), CliError> {
    if json { out.print_json(concerned) } else { out.print_line(&format!("{} {done}", count(concerned.count, "row"))) }
}
