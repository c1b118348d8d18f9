//! Finding and listing sessions, by id, prefix or filter.

use rusqlite::{Connection, params};

use crate::domain::activity::ActivityState;
use crate::domain::{InstanceId, MachineName, Project, Status, Timestamp, WorkSummary};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::columns::{OURS, mirrored, ours};
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions;
use crate::store::tables::sessions::COLUMNS;

/// What an id, or the beginning of one, leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The session with this id, or the only one whose id begins with it.
    One(Box<Record>),
    /// Up to [`CANDIDATES`], most recent heartbeat first.
    Several(Vec<Record>),
    /// No session's id begins so.
    None,
}

/// How many candidates an ambiguous prefix shows.
pub const CANDIDATES: usize = 10;

/// Which sessions a list shows; everything that is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub(crate) project: Option<Project>,
    pub(crate) machine: Option<MachineName>,
    pub(crate) status: Option<Status>,
    /// Only sessions of this host.
    pub local: bool,
    /// Only sessions with this activity, which an active session alone has.
    pub activity: Option<ActivityState>,
    /// Closed sessions are listed only if they ended after this moment.
    pub closed_since: Option<Timestamp>,
}

impl Filter {
    /// Whether the session passes the filter, apart from its status.
    pub fn fits(&self, record: &Record) -> bool {
        self.project.as_ref().is_none_or(|project| *project == record.session.project)
            && self.machine.as_ref().is_none_or(|machine| *machine == record.session.host_machine)
            && !(self.local && record.mirrored)
            && (self.project.is_some() || record.read_at.is_none())
    }

    /// Whether a session with this status and this work is one with the status and the activity that are asked for.
    pub(in crate::store) fn fits_state(&self, status: Status, work: Option<&WorkSummary>) -> bool {
        let activity = || Some(work?.current_activity(status)?.state);
        self.status.is_none_or(|wanted| status == wanted)
            && self.activity.is_none_or(|wanted| activity() == Some(wanted))
    }
}

/// The newest rows whose ids begin so. The indexes tell, so that only of those that are shown all is read.
///
/// An id of this host begins with its project, which is therefore the text's first part, or begins with it.
pub(in crate::store) const BEGINNING_SO: &str = concat!(
    "SELECT rowid FROM ( \
     SELECT rowid, last_heartbeat, instance_id FROM sessions INDEXED BY sessions_settled \
         WHERE (",
    mirrored!(),
    " OR status <> 'active') \
             AND instance_id >= ?1 AND instance_id < ?1 || char(1114111) \
     UNION ALL SELECT rowid, last_heartbeat, instance_id FROM sessions INDEXED BY sessions_running \
         WHERE ",
    ours!(),
    " AND status = 'active' \
             AND project >= ?3 AND project < ?1 || char(1114111) \
             AND instance_id >= ?1 AND instance_id < ?1 || char(1114111)) \
     ORDER BY last_heartbeat DESC, instance_id LIMIT ?2"
);

/// Exact id in any letter case first, then a former id (after a collision) or a promised one, then a prefix.
pub(in crate::store) fn find(db: &Connection, text: &str) -> Result<Lookup, StoreError> {
    let exact = InstanceId::parse_ignoring_case(text);
    if let Some(record) = sessions::get(db, exact.as_ref().map_or(text, InstanceId::as_str))? {
        return Ok(Lookup::One(Box::new(record)));
    }
    let mut matches = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE rowid IN ({BEGINNING_SO}) ORDER BY last_heartbeat DESC, instance_id"
        ))?
        .query_map(params![text, CANDIDATES as i64, text.split('-').next()], sessions::read_record)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match matches.len() {
        0 => Lookup::None,
        1 => Lookup::One(Box::new(matches.remove(0))),
        _ => Lookup::Several(matches),
    })
}

/// Some of the sessions that a list shows, and the row behind which the next piece begins.
pub(in crate::store) struct ListPiece {
    pub records: Vec<Record>,
    pub next: Option<i64>,
}

/// How many rows one piece of a list reads.
const LIST_PIECE: usize = 1000;

/// Sessions behind row `after`, whose status now is as asked for. A session keeps its row, so that each that
/// there is all the while is in exactly one piece.
pub(in crate::store) fn list_piece(op: &Op<'_>, filter: &Filter, after: i64) -> Result<ListPiece, StoreError> {
    let mut last = None;
    let mut records = op
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, s.rowid FROM sessions s WHERE {} AND s.rowid > ?5 AND (?2 IS NULL OR host_machine = ?2) \
                 AND (NOT ?3 OR {OURS}) AND (closed_at IS NULL OR ?4 IS NULL OR closed_at >= ?4) \
             ORDER BY s.rowid LIMIT ?6",
            // Two conditions instead of one with OR, so that SQLite uses the index.
            // What somebody asked for is listed with its project only: of the others not all may be here.
            if filter.project.is_some() { "project = ?1" } else { "?1 IS NULL AND read_at IS NULL" }
        ))?
        .query_map(
            params![
                filter.project.as_ref().map(Project::as_str),
                filter.machine.as_ref().map(MachineName::as_str),
                filter.local,
                filter.closed_since.map(Timestamp::micros),
                after,
                LIST_PIECE as i64,
            ],
            |row| {
                last = Some(row.get("rowid")?);
                sessions::read_record(row)
            },
        )?
        .collect::<Result<Vec<_>, _>>()?;
    let next = last.filter(|_| records.len() == LIST_PIECE);
    records.retain(|record| filter.fits_state(record.status_now(op), record.work.as_deref()));
    Ok(ListPiece { records, next })
}

/// By project, most recent heartbeat first.
pub(in crate::store) fn in_order(records: &mut [Record]) {
    records.sort_by(|a, b| {
        let key = |r: &Record| (std::cmp::Reverse(r.session.last_heartbeat), r.session.instance_id.clone());
        a.session.project.as_str().cmp(b.session.project.as_str()).then_with(|| key(a).cmp(&key(b)))
    });
}

pub(in crate::store) const COUNTS: &str = concat!(
    "SELECT status, count(*) FROM sessions INDEXED BY sessions_ended \
         WHERE ",
    ours!(),
    " AND status <> 'active' GROUP BY status \
     UNION ALL SELECT iif(last_heartbeat > ?1 AND last_heartbeat < ?2, 'active', 'stale') AS now, count(*) \
         FROM sessions INDEXED BY sessions_running WHERE ",
    ours!(),
    " AND status = 'active' GROUP BY now"
);

/// How many sessions are in which state now.
pub(in crate::store) fn counts(op: &Op<'_>) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    let mut statement = op.db.prepare_cached(COUNTS)?;
    let mut rows = statement.query(op.active_between())?;
    while let Some(row) = rows.next()? {
        let count = row.get::<_, i64>(1)?.unsigned_abs();
        match sessions::parsed(row, 0, Status::parse)? {
            Status::Active => counts.active += count,
            Status::Stale => counts.stale += count,
            Status::Closed => counts.closed += count,
        }
    }
    Ok(counts)
}

/// How many sessions are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub(crate) active: u64,
    pub(crate) stale: u64,
    pub(crate) closed: u64,
}

impl Counts {
    pub(in crate::store) fn add(&mut self, status: Status) {
        *match status {
            Status::Active => &mut self.active,
            Status::Stale => &mut self.stale,
            Status::Closed => &mut self.closed,
        } += 1;
    }
}
