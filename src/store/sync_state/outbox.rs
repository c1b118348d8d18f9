//! What central lacks of this host's sessions and their history, and what central says of it.
//!
//! There is no queue: a session whose newest version central does not have is the message, so the
//! backlog grows with the number of sessions and appended records, not of heartbeats.

use rusqlite::{Connection, params};

use crate::domain::{HistoryRecord, HistoryTables, RecordKind, SessionWork, TableState, Timestamp};
use crate::store::error::StoreError;
use crate::store::sync_state::record_outbox::Waiting;
use crate::store::sync_state::selection::{BatchLimit, Skip};
use crate::store::sync_state::{record_outbox, selection};
use crate::store::tables::session_record::Record;
use crate::store::tables::{activity_changes, session_work, sessions};

/// How much waits for central.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub(crate) sessions: u64,
    pub(crate) records: u64,
    /// The records by kind, in the order of [`RecordKind::ALL`].
    pub records_of: [u64; 3],
    /// When the oldest change that waits was made.
    pub oldest_at: Option<Timestamp>,
    pub(crate) parked: u64,
}

impl Backlog {
    pub(crate) const fn is_empty(&self) -> bool {
        self.sessions == 0 && self.records == 0
    }
}

/// What may go into one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    pub(crate) sessions: Vec<Record>,
    /// What central lacks of the work of some of these sessions.
    pub work: Vec<UnsyncedWork>,
    /// Of these sessions, or of such as central has, in the order in which they were appended.
    pub records: Vec<HistoryRecord>,
    /// Whether more waits.
    pub more: bool,
    /// Where the last of the sessions stands among those that wait, if others may stand behind it.
    pub last: Option<OutboxPosition>,
}

/// What central lacks of the work of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsyncedWork {
    pub(crate) work: SessionWork,
    pub(crate) version: i64,
}

/// A place among the sessions that wait. One whose version is on its way keeps its place until that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxPosition {
    since: i64,
    row: i64,
}

impl OutboxPosition {
    const FIRST: Self = Self { since: i64::MIN, row: i64::MIN };
}

/// Beside sessions travels no more than this of records, in bytes of their bodies: on a slow line sessions do not
/// wait for records.
const BESIDE_SESSIONS: usize = 16 << 10;

/// The sessions that central lacks, longest waiting first, and the records that may travel beside them.
pub(in crate::store) fn pending(db: &Connection, limit: BatchLimit, skip: &Skip) -> Result<Pending, StoreError> {
    let Pending { sessions, work, more: full, last, .. } = pending_behind(db, OutboxPosition::FIRST, limit, skip)?;
    let bytes = if sessions.is_empty() { limit.bytes } else { limit.bytes.min(BESIDE_SESSIONS) };
    let beside = BatchLimit { bytes, ..limit };
    let Waiting { records, more } = record_outbox::pending(db, &sessions, !full, beside, skip)?;
    Ok(Pending { sessions, work, records, more: full || more, last })
}

/// The sessions that central lacks and that have not waited as long as the one at that place; no records.
pub(in crate::store) fn pending_behind(
    db: &Connection,
    place: OutboxPosition,
    limit: BatchLimit,
    skip: &Skip,
) -> Result<Pending, StoreError> {
    let mut found = Pending::default();
    if skip.all_sessions {
        return Ok(found);
    }
    let tables = work_tables(db)?;
    let mut statement = db.prepare_cached(&format!(
        "SELECT {}, s.rowid FROM sessions s WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
             AND (unsynced_since, s.rowid) > (?1, ?2) \
             AND instance_id NOT IN (SELECT value FROM json_each(?3)) ORDER BY unsynced_since, s.rowid LIMIT ?4",
        sessions::COLUMNS
    ))?;
    let rows = i64::try_from(limit.rows).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![place.since, place.row, selection::json_ids(&skip.sessions), rows])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let record = sessions::read_record(row)?;
        let work = if let Some(tables) = &tables { unsynced_work(db, &record, tables)? } else { None };
        bytes += record.session.size() + work.as_ref().map_or(0, |unsynced| unsynced.work.size());
        if bytes > limit.bytes && !found.sessions.is_empty() {
            found.more = true;
            break;
        }
        let since = record.unsynced_since.map_or(i64::MIN, Timestamp::micros);
        found.last = Some(OutboxPosition { since, row: row.get("rowid")? });
        found.sessions.push(record);
        found.work.extend(work);
    }
    found.more |= found.sessions.len() >= limit.rows;
    found.last = found.last.filter(|_| found.more);
    Ok(found)
}

/// Central's tables, if it has one for work that this host may use.
fn work_tables(db: &Connection) -> Result<Option<HistoryTables>, StoreError> {
    Ok(record_outbox::tables(db)?.filter(|tables| tables.work == TableState::Usable))
}

fn unsynced_work(db: &Connection, record: &Record, tables: &HistoryTables) -> Result<Option<UnsyncedWork>, StoreError> {
    if record.work.is_none() {
        return Ok(None);
    }
    let (id, has_session) = (&record.session.instance_id, record.synced_version > 0);
    let Some((mut work, version)) = session_work::unsynced(db, id, has_session)? else { return Ok(None) };
    if tables.activity == TableState::Usable {
        work.changes = activity_changes::to_push(db, id, !has_session, CHANGES_AT_ONCE)?;
    }
    Ok(Some(UnsyncedWork { work, version }))
}

/// So many changes of a session's activity are pushed with its work, the newest.
const CHANGES_AT_ONCE: usize = 500;

/// Some of what central lacks, what was added last: sessions, or records of one kind of sessions that central has.
pub(in crate::store) fn newest_pending(
    db: &Connection,
    kind: Option<RecordKind>,
    count: usize,
    skip: &Skip,
) -> Result<Pending, StoreError> {
    if let Some(kind) = kind {
        let records = record_outbox::newest_pending(db, kind, count, skip)?;
        return Ok(Pending { records, ..Pending::default() });
    }
    let sessions = db
        .prepare_cached(&format!(
            "SELECT {} FROM sessions s WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
                 AND instance_id NOT IN (SELECT value FROM json_each(?1)) \
             ORDER BY unsynced_since DESC, s.rowid DESC LIMIT ?2",
            sessions::COLUMNS
        ))?
        .query_map(
            params![selection::json_ids(&skip.sessions), i64::try_from(count).unwrap_or(i64::MAX)],
            sessions::read_record,
        )?
        .collect::<Result<Vec<_>, _>>()?;
    let mut work = Vec::new();
    if let Some(tables) = work_tables(db)? {
        for record in &sessions {
            work.extend(unsynced_work(db, record, &tables)?);
        }
    }
    Ok(Pending { sessions, work, ..Pending::default() })
}

/// Does anything wait that could travel now?
pub(in crate::store) fn has_pending(db: &Connection, skip: &Skip) -> Result<bool, StoreError> {
    let one = BatchLimit { rows: 1, bytes: 1 };
    Ok(!pending_behind(db, OutboxPosition::FIRST, one, skip)?.sessions.is_empty()
        || !record_outbox::pending(db, &[], !skip.all_sessions, one, skip)?.records.is_empty())
}

pub(in crate::store) fn backlog(db: &Connection) -> Result<Backlog, StoreError> {
    let (records_of, oldest_record) = record_outbox::backlog(db)?;
    Ok(db
        .prepare_cached(
            // Each part reads one index and no row: this is asked while tens of thousands wait.
            "SELECT (SELECT count(*) FROM sessions WHERE unsynced_since IS NOT NULL) AS unsynced, \
                 (SELECT count(*) FROM sessions WHERE parked_at IS NOT NULL AND +unsynced_since IS NOT NULL) AS parked, \
                 (SELECT unsynced_since FROM sessions WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
                     ORDER BY unsynced_since LIMIT 1) AS oldest, \
                 (SELECT count(*) FROM records WHERE parked_at IS NOT NULL) AS parked_records",
        )?
        .query_row([], |row| {
            let (unsynced, parked): (i64, i64) = (row.get("unsynced")?, row.get("parked")?);
            let oldest_session = row.get::<_, Option<i64>>("oldest")?.map(Timestamp::from_micros);
            Ok(Backlog {
                sessions: (unsynced - parked).unsigned_abs(),
                records: records_of.iter().sum(),
                records_of,
                oldest_at: [oldest_session, oldest_record].into_iter().flatten().min(),
                parked: (parked + row.get::<_, i64>("parked_records")?).unsigned_abs(),
            })
        })?)
}
