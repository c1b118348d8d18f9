//! Machines: their sessions, and when their daemons last reported to central.

use rusqlite::{Connection, Row};

use crate::domain::mirror::HostSeen;
use crate::domain::{MachineName, MachineSummary, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::sqlite::turns;
use crate::store::sync_state::mirror_cursor;
use crate::store::tables::columns::{MIRRORED, is_active};
use crate::store::tables::{hosts, metadata, sessions};

/// A machine and when this host last knew that to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMachine {
    pub(crate) summary: MachineSummary,
    pub(crate) as_of: Timestamp,
}

/// All machines, most recent activity first.
pub(in crate::store) fn list(op: &Op<'_>, this: &MachineName) -> Result<Vec<KnownMachine>, StoreError> {
    let mirror_as_of = mirror_cursor::as_of(op.db)?.unwrap_or(op.now);
    let mut machines = by_sessions(op, mirror_as_of)?;
    for host in hosts::all(op.db)? {
        match machines.iter_mut().find(|known| known.summary.host_machine == host.machine) {
            Some(known) => known.summary.last_seen = Some(host.last_seen),
            None => machines.push(KnownMachine { summary: without_sessions(host), as_of: mirror_as_of }),
        }
    }
    if let Some(known) = machines.iter_mut().find(|known| known.summary.host_machine == *this) {
        known.as_of = op.now;
    }
    machines.sort_by(|a, b| {
        let key = |m: &KnownMachine| (std::cmp::Reverse(m.summary.last_activity), m.summary.host_machine.clone());
        key(a).cmp(&key(b))
    });
    Ok(machines)
}

const ACTIVE: &str = is_active!("?1", "?2");

fn by_sessions(op: &Op<'_>, mirror_as_of: Timestamp) -> Result<Vec<KnownMachine>, StoreError> {
    let known = |row: &Row<'_>| {
        let as_of = if row.get("is_mirrored")? { mirror_as_of } else { op.now };
        Ok(KnownMachine { summary: summary(row)?, as_of })
    };
    Ok(op
        .db
        .prepare_cached(&format!(
            "SELECT host_machine, count(*) AS total, \
                 count(*) FILTER (WHERE {ACTIVE}) AS active, \
                 count(*) FILTER (WHERE status <> 'closed' AND NOT {ACTIVE}) AS stale, \
                 count(*) FILTER (WHERE status = 'closed') AS closed, max(last_heartbeat) AS last_activity, \
                 group_concat(DISTINCT project) AS projects, \
                 max({MIRRORED}) AS is_mirrored \
             FROM sessions GROUP BY host_machine"
        ))?
        .query_map(op.active_between(), known)?
        .collect::<Result<Vec<_>, _>>()?)
}

fn summary(row: &Row<'_>) -> rusqlite::Result<MachineSummary> {
    let projects: String = row.get("projects")?;
    let mut projects: Vec<_> = projects.split(',').collect();
    projects.sort_unstable();
    Ok(MachineSummary {
        host_machine: sessions::parsed(row, 0, MachineName::parse)?,
        total_sessions: row.get("total")?,
        active_sessions: row.get("active")?,
        stale_sessions: row.get("stale")?,
        closed_sessions: row.get("closed")?,
        last_activity: row.get::<_, Option<i64>>("last_activity")?.map(Timestamp::from_micros),
        projects: projects.join(", "),
        last_seen: None,
    })
}

fn without_sessions(host: HostSeen) -> MachineSummary {
    MachineSummary {
        host_machine: host.machine,
        total_sessions: 0,
        active_sessions: 0,
        stale_sessions: 0,
        closed_sessions: 0,
        last_activity: None,
        projects: String::new(),
        last_seen: Some(host.last_seen),
    }
}

/// The name under which this store's own sessions are filed, once there is one.
pub(in crate::store) fn filed_under(db: &Connection) -> Result<Option<String>, StoreError> {
    metadata::get(db, "machine_name")
}

/// What one turn filed under the new name, and the row behind which the next one continues.
pub(in crate::store) struct FileTurn {
    pub moved: usize,
    pub next: Option<i64>,
}

/// Files this host's sessions under its name: those of a former name move along, from behind `after_row` on. The last
/// turn writes the name down, so that after a crash the next start begins again.
pub(in crate::store) fn set_machine_name(
    db: &Connection,
    name: &MachineName,
    after_row: i64,
    at: Timestamp,
) -> Result<FileTurn, StoreError> {
    let mut moved = 0;
    match filed_under(db)? {
        // Nothing is written, so that it works on a full disk.
        Some(former) if former == name.as_str() => return Ok(FileTurn { moved, next: None }),
        Some(former) => {
            let part = turns::next_rows(db, ("sessions", "rowid"), after_row, turns::ROWS)?;
            moved = sessions::rename_machine(db, &former, name, (after_row, part.last), at)?;
            if !part.is_end {
                return Ok(FileTurn { moved, next: Some(part.last) });
            }
        }
        None => {}
    }
    metadata::set(db, "machine_name", &name.as_str())?;
    Ok(FileTurn { moved, next: None })
}
