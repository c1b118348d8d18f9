//! machines: the machines that have or had sessions.

use clap::Args;

use super::limits::headroom;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, TableColumn, TextTable};
use crate::cli::text::age_since;
use crate::client::Client;
use crate::wire::MachineBody;

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond machines --json")]
pub(crate) struct MachinesArgs {
    /// Print the machines as JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn machines(client: &Client, args: &MachinesArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let machines = client.machines()?;
    if args.json {
        return out.print_json(&machines);
    }
    if machines.is_empty() {
        out.print_note("no machine has had a session yet; `sessiond register` registers one");
        return Ok(());
    }
    out.print_rendered(&table(&machines, &out.style).render(&out.style))
}

fn table(machines: &[MachineBody], style: &OutputStyle) -> TextTable {
    let mut table = TextTable::new([
        TableColumn::new("MACHINE").shrink_rank(1),
        TableColumn::new("ACTIVE").right(),
        TableColumn::new("STALE").right(),
        TableColumn::new("CLOSED").right(),
        TableColumn::new("ACTIVITY").right(),
        TableColumn::new("DAEMON"),
        TableColumn::new("HEADROOM").right(),
        TableColumn::new("PROJECTS").shrink_rank(2),
    ]);
    for machine in machines {
        let activity = machine.last_activity.as_deref().and_then(|at| age_since(at, style.now));
        table.row([
            Cell::new(&machine.host_machine),
            number(machine.active_sessions),
            number(machine.stale_sessions),
            number(machine.closed_sessions),
            Cell::new(activity.as_deref().unwrap_or("—")),
            daemon(machine, style),
            headroom(machine.headroom_percent),
            Cell::new(machine.projects.as_deref().unwrap_or("—")),
        ]);
    }
    table
}

/// A number of sessions, which is not known of machines whose sessions are not all read ahead.
fn number(count: Option<i64>) -> Cell {
    Cell::new(count.map_or_else(|| "—".to_owned(), |count| count.to_string()))
}

/// Whether its daemon is reachable, else for how long it has been silent.
fn daemon(machine: &MachineBody, style: &OutputStyle) -> Cell {
    let seen = machine.last_seen.as_deref().and_then(|at| age_since(at, style.now));
    match (machine.reachable, seen) {
        (Some(true), _) => Cell::new("reachable").tone(Tone::Good),
        (Some(false), Some(seen)) => Cell::new(format!("silent {seen}")).tone(Tone::Warn),
        (Some(false), None) => Cell::new("silent").tone(Tone::Warn),
        (None, _) => Cell::new("none").tone(Tone::Dim),
    }
}
