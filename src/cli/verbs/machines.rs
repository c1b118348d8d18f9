//! machines: who is out there.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::look::{Look, Tone};
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Table};
use crate::cli::text::age_of;
use crate::client::Client;
use crate::wire::MachineBody;

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond machines --json")]
pub struct MachinesArgs {
    /// Print the machines as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn machines(client: &Client, args: &MachinesArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let machines = client.machines()?;
    if args.json {
        return out.json(&machines);
    }
    if machines.is_empty() {
        out.note("no machine has had a session yet; `sessiond register` begins one");
        return Ok(());
    }
    out.print(&table(&machines, &out.look).render(&out.look))
}

fn table(machines: &[MachineBody], look: &Look) -> Table {
    let mut table = Table::new([
        Column::new("MACHINE").yields(1),
        Column::new("ACTIVE").right(),
        Column::new("STALE").right(),
        Column::new("CLOSED").right(),
        Column::new("ACTIVITY").right(),
        Column::new("DAEMON"),
        Column::new("PROJECTS").yields(2),
    ]);
    for machine in machines {
        let activity = machine.last_activity.as_deref().and_then(|at| age_of(at, look.now));
        table.row([
            Cell::new(&machine.host_machine),
            Cell::new(machine.active_sessions.to_string()),
            Cell::new(machine.stale_sessions.to_string()),
            Cell::new(machine.closed_sessions.to_string()),
            Cell::new(activity.as_deref().unwrap_or("—")),
            daemon(machine, look),
            Cell::new(&machine.projects),
        ]);
    }
    table
}

/// How its daemon was last heard of.
fn daemon(machine: &MachineBody, look: &Look) -> Cell {
    let seen = machine.last_seen.as_deref().and_then(|at| age_of(at, look.now));
    match (machine.reachable, seen) {
        (Some(true), _) => Cell::new("reachable").tone(Tone::Good),
        (Some(false), Some(seen)) => Cell::new(format!("silent {seen}")).tone(Tone::Warn),
        (Some(false), None) => Cell::new("silent").tone(Tone::Warn),
        (None, _) => Cell::new("none").tone(Tone::Dim),
    }
}
