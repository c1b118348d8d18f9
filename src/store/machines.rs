//! Machines: those that central last told of, and this host's own sessions by machine.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StoreError, sessions};
use crate::domain::{MachineName, MachineSummary, Timestamp};

/// A machine and when this host last knew that to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMachine {
    pub summary: MachineSummary,
    pub as_of: Timestamp,
}

/// Replaces what is known of all machines by what central says now.
pub(super) fn replace(db: &Connection, machines: &[MachineSummary], as_of: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM machines")?.execute([])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO machines (host_machine, total_sessions, active_sessions, stale_sessions, closed_sessions, \
             last_activity, projects, last_seen, as_of) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for m in machines {
        insert.execute(params![
            m.host_machine.as_str(),
            m.total_sessions,
            m.active_sessions,
            m.stale_sessions,
            m.closed_sessions,
            m.last_activity.map(Timestamp::micros),
            m.projects,
            m.last_seen.map(Timestamp::micros),
            as_of.micros(),
        ])?;
    }
    Ok(())
}

/// All machines, most recent activity first. Of the machines that only this host's own sessions
/// name, and of this host itself, the local store knows best.
pub(super) fn list(
    db: &Connection,
    this: &MachineName,
    now: Timestamp,
    stale_after: Duration,
) -> Result<Vec<KnownMachine>, StoreError> {
    let mut machines = db
        .prepare_cached(
            "SELECT host_machine, total_sessions, active_sessions, stale_sessions, closed_sessions, last_activity, \
                 projects, last_seen, as_of FROM machines",
        )?
        .query_map([], |row| Ok(KnownMachine { summary: summary(row)?, as_of: Timestamp::from_micros(row.get(8)?) }))?
        .collect::<Result<Vec<_>, _>>()?;
    for local in local(db, now, stale_after)? {
        match machines.iter_mut().find(|m| m.summary.host_machine == local.host_machine) {
            None => machines.push(KnownMachine { summary: local, as_of: now }),
            Some(known) if local.host_machine == *this && local.total_sessions >= known.summary.total_sessions => {
                *known = KnownMachine { summary: local, as_of: now };
            }
            Some(_) => {}
        }
    }
    machines.sort_by(|a, b| {
        let key = |m: &KnownMachine| (std::cmp::Reverse(m.summary.last_activity), m.summary.host_machine.clone());
        key(a).cmp(&key(b))
    });
    Ok(machines)
}

fn local(db: &Connection, now: Timestamp, stale_after: Duration) -> Result<Vec<MachineSummary>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT host_machine, count(*), \
                 count(*) FILTER (WHERE status = 'active' AND last_heartbeat > ?1 AND last_heartbeat < ?2), \
                 count(*) FILTER (WHERE status <> 'closed' \
                     AND NOT (status = 'active' AND last_heartbeat > ?1 AND last_heartbeat < ?2)), \
                 count(*) FILTER (WHERE status = 'closed'), max(last_heartbeat), \
                 (SELECT group_concat(project, ', ') FROM (SELECT DISTINCT project FROM sessions p \
                     WHERE p.host_machine = s.host_machine ORDER BY project)), NULL \
             FROM sessions s GROUP BY host_machine",
        )?
        .query_map([now.minus(stale_after).micros(), now.plus(stale_after).micros()], summary)?
        .collect::<Result<Vec<_>, _>>()?)
}

fn summary(row: &Row<'_>) -> rusqlite::Result<MachineSummary> {
    Ok(MachineSummary {
        host_machine: sessions::parsed(row, 0, MachineName::parse)?,
        total_sessions: row.get(1)?,
        active_sessions: row.get(2)?,
        stale_sessions: row.get(3)?,
        closed_sessions: row.get(4)?,
        last_activity: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
        projects: row.get(6)?,
        last_seen: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_micros),
    })
}

/// The name under which this store's own sessions are filed, once there is one.
pub(super) fn filed_under(db: &Connection) -> Result<Option<String>, StoreError> {
    Ok(db
        .prepare_cached("SELECT value FROM facts WHERE name = 'machine_name'")?
        .query_row([], |row| row.get(0))
        .optional()?)
}

/// Files this host's sessions under its name: those of a former name move along.
pub(super) fn file_under(db: &Connection, name: &MachineName, at: Timestamp) -> Result<usize, StoreError> {
    let moved = match filed_under(db)? {
        // Nothing is written, so that it works on a full disk.
        Some(former) if former == name.as_str() => return Ok(0),
        Some(former) => sessions::rename_machine(db, &former, name, at)?,
        None => 0,
    };
    db.execute(
        "INSERT INTO facts (name, value) VALUES ('machine_name', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
        [name.as_str()],
    )?;
    Ok(moved)
}
