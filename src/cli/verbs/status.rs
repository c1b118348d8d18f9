//! status: the state of the daemon, central, backlog and spool.

use std::time::Duration;

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, FieldList};
use crate::cli::text::{age, age_since, count};
use crate::client::Client;
use crate::domain::link::clock_advice;
use crate::wire::{BacklogBody, CentralBody, ConfigBody, MachineIdentity, SpoolBody, StatusBody};

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond status --json")]
pub(crate) struct StatusArgs {
    /// Print the status as JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn status(client: &Client, args: &StatusArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let status = client.status()?;
    if args.json { out.print_json(&status) } else { out.print_rendered(&sheet(&status, &out.style).render(&out.style)) }
}

fn sheet(status: &StatusBody, style: &OutputStyle) -> FieldList {
    let mut sheet = FieldList::default();
    let daemon = &status.daemon;
    let uptime = age(Duration::from_secs(daemon.uptime_seconds));
    sheet.row("daemon", format!("sessiond {}, pid {}, up {uptime}", daemon.version, daemon.pid));
    if let Some(error) = &status.socket.error {
        sheet.row("socket", Cell::new(format!("{}: {error}", status.socket.path)).tone(Tone::Bad));
    }
    machine(&mut sheet, &status.machine);
    central(&mut sheet, &status.central, style);
    sheet.row("backlog", backlog(&status.backlog, &status.central, style));
    for warning in [&status.central.outdated, &status.central.long_transaction].into_iter().flatten() {
        sheet.row("", Cell::new(warning).tone(Tone::Warn));
    }
    for blocked in &status.backlog.blocked {
        let pending = count(blocked.records, "record");
        sheet.row("", Cell::new(format!("{} ({pending}): {}", blocked.table, blocked.reason)).tone(Tone::Bad));
    }
    sheet.row("parked", parked(status.parked));
    spool(&mut sheet, &status.spool, style);
    let sessions = &status.sessions;
    sheet.row("sessions", format!("{} active, {} stale, {} closed", sessions.active, sessions.stale, sessions.closed));
    let (store, size) = (&status.store, bytesize::ByteSize(status.store.bytes));
    sheet.row("store", format!("{}, {size}, durability {}", store.path, store.durability));
    if let Some(error) = &status.store.sync_error {
        sheet.row("", Cell::new(error).tone(Tone::Bad));
    }
    if let Some(damage) = &status.store.damage {
        sheet.row("", Cell::new(damage).tone(Tone::Warn));
    }
    config(&mut sheet, &status.config);
    sheet
}

fn machine(sheet: &mut FieldList, machine: &MachineIdentity) {
    sheet.row("machine", format!("{}, host id {}", machine.name, machine.host_id));
    if let Some(conflict) = &machine.conflict {
        sheet.row("", Cell::new(&conflict.message).tone(Tone::Bad));
    }
}

fn central(sheet: &mut FieldList, central: &CentralBody, style: &OutputStyle) {
    if !central.configured {
        sheet.row("central", "off: none is configured");
        return;
    }
    let mut facts = String::new();
    if let Some(since) = age_since(&central.since, style.now) {
        facts.push_str(&format!(" for {since}"));
    }
    if let Some(synced) = central.last_sync_at.as_deref().and_then(|at| age_since(at, style.now)) {
        facts.push_str(&format!(", last sync {synced} ago"));
    }
    if let Some(round_trip) = central.round_trip_ms {
        facts.push_str(&format!(", round trip {round_trip:.1} ms"));
    }
    if central.state == "connected" && !central.listening {
        facts.push_str(", no notifications: changes are read every pull_interval");
    }
    sheet.parts("central", [state(&central.state), Cell::new(facts)]);
    if let Some(ahead) = central.clock_ahead_seconds {
        sheet.row("", Cell::new(clock_advice((ahead * 1_000_000.0) as i64)).tone(Tone::Bad));
    }
    if let Some(error) = &central.last_error {
        sheet.row("", Cell::new(error).tone(Tone::Bad));
    }
}

fn state(state: &str) -> Cell {
    let tone = match state {
        "connected" => Tone::Good,
        "connecting" | "unreachable" => Tone::Warn,
        _ => Tone::Bad,
    };
    Cell::new(state.replace('_', " ")).tone(tone)
}

fn backlog(backlog: &BacklogBody, central: &CentralBody, style: &OutputStyle) -> Cell {
    if !central.configured {
        return Cell::new("none: sessions stay on this host");
    }
    if (backlog.sessions, backlog.records) == (0, 0) {
        return Cell::new("empty");
    }
    let oldest = backlog.oldest_at.as_deref().and_then(|at| age_since(at, style.now));
    let oldest = oldest.map_or(String::new(), |age| format!(", the oldest for {age}"));
    let (sessions, records) = (count(backlog.sessions, "session"), count(backlog.records, "record"));
    Cell::new(format!("{sessions} and {records} are pending{oldest}"))
}

fn parked(parked: u64) -> Cell {
    match parked {
        0 => Cell::new("none"),
        n => Cell::new(format!("{n}; see `sessiond parked list`")).tone(Tone::Warn),
    }
}

/// Adds rows for the spool and the quarantine, unless both are empty.
fn spool(sheet: &mut FieldList, spool: &SpoolBody, style: &OutputStyle) {
    for folder in &spool.folders {
        let since = folder.oldest_at.as_deref().and_then(|at| age_since(at, style.now));
        let since = since.map_or(String::new(), |age| format!(", the oldest for {age}"));
        let ignored = if folder.ignored > 0 { format!(", {} ignored", folder.ignored) } else { String::new() };
        let waiting = count(folder.waiting, "request");
        sheet.row("spool", Cell::new(format!("{waiting} in {}{since}{ignored}", folder.path)).tone(Tone::Warn));
        for reason in [&folder.reason, &folder.ignored_reason].into_iter().flatten() {
            sheet.row("", Cell::new(reason).tone(Tone::Warn));
        }
    }
    if let Some(newest) = spool.quarantine.first() {
        let quarantined = format!("{} quarantined: {}", count(spool.quarantined, "spooled request"), newest.reason);
        sheet.row("quarantine", Cell::new(quarantined).tone(Tone::Warn));
    }
}

fn config(sheet: &mut FieldList, config: &ConfigBody) {
    sheet.row("config", config.path.as_deref().unwrap_or("no file, all defaults"));
    if let Some(error) = &config.error {
        sheet.row("", Cell::new(format!("not in force: {error}")).tone(Tone::Bad));
    }
}
