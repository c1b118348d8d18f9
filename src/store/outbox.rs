//! What central lacks of this host's sessions and their history, and what central says of it.
//!
//! There is no queue: a session whose newest version central does not have is the message, so the
//! backlog grows with the number of sessions and appended records, not of heartbeats.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::history::{self, SettledRecord};
use super::sessions::{self, Record};
use super::turns::{self, ROWS};
use super::{StoreError, mirror};
use crate::domain::{HistoryRecord, InstanceId, Kind, Timestamp};

/// How much waits for central.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub sessions: u64,
    pub records: u64,
    /// The records by kind, in the order of [`Kind::ALL`].
    pub records_of: [u64; 3],
    /// When the oldest change that waits was made.
    pub oldest_at: Option<Timestamp>,
    pub parked: u64,
}

impl Backlog {
    pub const fn is_empty(&self) -> bool {
        self.sessions == 0 && self.records == 0
    }
}

/// A session, or a record of one, that central will never take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub instance_id: InstanceId,
    pub record: Option<ParkedRecord>,
    pub error: String,
    pub parked_at: Timestamp,
}

/// Which record is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRecord {
    pub record_id: Uuid,
    pub kind: Kind,
    pub record_type: String,
}

/// The key of a parked row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ParkedRow {
    Session(InstanceId),
    Record(Uuid),
}

impl Parked {
    /// By what it is retried or dropped: the record's id, or else the session's.
    pub fn id(&self) -> String {
        self.record.as_ref().map_or_else(|| self.instance_id.to_string(), |record| record.record_id.to_string())
    }
}

/// What may go into one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    pub sessions: Vec<Record>,
    /// Of these sessions, or of such as central has, in the order in which they were appended.
    pub records: Vec<HistoryRecord>,
    /// Whether more waits.
    pub more: bool,
    /// Where the last of the sessions stands among those that wait, if others may stand behind it.
    pub last: Option<Place>,
}

/// A place among the sessions that wait. One whose version is on its way keeps its place until that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    since: i64,
    row: i64,
}

impl Place {
    const FIRST: Self = Self { since: i64::MIN, row: i64::MIN };
}

/// How much a batch carries at most; one row always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit {
    pub rows: usize,
    pub bytes: usize,
}

/// What stays out of the next batches, because central does not take it at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// No session travels. Records do, of sessions that central has.
    pub all_sessions: bool,
    /// These sessions and their records.
    pub sessions: Vec<InstanceId>,
    /// The records of these sessions.
    pub records_of: Vec<InstanceId>,
    pub kinds: Vec<Kind>,
}

/// Ids as SQL takes them, for `json_each`.
pub(super) fn json_ids<'a>(ids: impl IntoIterator<Item = &'a InstanceId>) -> String {
    serde_json::Value::from(ids.into_iter().map(InstanceId::as_str).collect::<Vec<_>>()).to_string()
}

/// Beside sessions travels no more than this of records, in bytes of their bodies: on a slow line sessions do not
/// wait for records.
const BESIDE_SESSIONS: usize = 16 << 10;

/// Parked rows are tried again after this long, and after twice as long each time that they are parked again.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// When what was parked so often in a row is tried again.
pub(super) fn retry_at(parkings: i64, at: Timestamp) -> Timestamp {
    let doublings = u32::try_from(parkings.clamp(0, 16)).unwrap_or(0);
    at.plus(FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY))
}

/// Condition on a parked row that it is due at ?1. One that is due later than can be was parked by a clock that was
/// wrong.
pub(super) const IS_DUE: &str = "parked_at IS NOT NULL AND (retry_at <= ?1 OR retry_at > ?2)";

/// The parameters of [`IS_DUE`].
pub(super) fn due(at: Timestamp) -> [i64; 2] {
    [at.micros(), at.plus(LONGEST_RETRY).micros()]
}

/// What came of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    pub sessions: Vec<Settled>,
    pub records: Vec<SettledRecord>,
    /// Where central's ledger stands.
    pub acked_batch: i64,
    /// The numbers that the next batches will bear: a ledger that stands there is no surprise, whoever asks. Two,
    /// because a batch is on its way by the time that the one before it is noted.
    pub next_batches: [i64; 2],
}

impl Settling {
    /// The same in parts, each true by itself: what is not noted any more is pushed again.
    pub(super) fn in_parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while self.sessions.len() + self.records.len() > ROWS {
            let rest = self.sessions.split_off(ROWS.min(self.sessions.len()));
            let sessions = std::mem::replace(&mut self.sessions, rest);
            let rest = self.records.split_off((ROWS - sessions.len()).min(self.records.len()));
            let records = std::mem::replace(&mut self.records, rest);
            parts.push(Self { sessions, records, ..self });
        }
        parts.push(self);
        parts
    }
}

/// What central did with one version of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub instance_id: InstanceId,
    pub version: i64,
    pub how: Settlement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Central has this version, or something newer.
    Taken,
    /// Somebody else closed the session there.
    ClosedElsewhere { closed_at: Timestamp },
    /// Another session goes by this id there; this one needs a new id, from one of these draws.
    Collided { draws: [u64; 8] },
    /// Central will never take it as it is.
    Rejected { error: String },
}

impl Settlement {
    /// Is the session not in central under its id, at least not yet?
    pub const fn leaves_none(&self) -> bool {
        matches!(self, Self::Collided { .. } | Self::Rejected { .. })
    }
}

/// The session that had to give up its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    pub from: InstanceId,
    pub to: InstanceId,
}

/// The sessions that central lacks, longest waiting first, and the records that may travel beside them.
pub(super) fn pending(db: &Connection, limit: BatchLimit, skip: &Skip) -> Result<Pending, StoreError> {
    let Pending { sessions, more: full, last, .. } = pending_behind(db, Place::FIRST, limit, skip)?;
    let bytes = if sessions.is_empty() { limit.bytes } else { limit.bytes.min(BESIDE_SESSIONS) };
    let beside = BatchLimit { bytes, ..limit };
    let history::Waiting { records, more } = history::pending(db, &sessions, !full, beside, skip)?;
    Ok(Pending { sessions, records, more: full || more, last })
}

/// The sessions that central lacks and that have not waited as long as the one at that place; no records.
pub(super) fn pending_behind(
    db: &Connection,
    place: Place,
    limit: BatchLimit,
    skip: &Skip,
) -> Result<Pending, StoreError> {
    let mut found = Pending::default();
    if skip.all_sessions {
        return Ok(found);
    }
    let mut statement = db.prepare_cached(&format!(
        "SELECT {}, s.rowid FROM sessions s WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
             AND (unsynced_since, s.rowid) > (?1, ?2) \
             AND instance_id NOT IN (SELECT value FROM json_each(?3)) ORDER BY unsynced_since, s.rowid LIMIT ?4",
        sessions::COLUMNS
    ))?;
    let rows = i64::try_from(limit.rows).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![place.since, place.row, json_ids(&skip.sessions), rows])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let record = sessions::record(row)?;
        bytes += record.session.size();
        if bytes > limit.bytes && !found.sessions.is_empty() {
            found.more = true;
            break;
        }
        found.last = Some(Place { since: row.get(18)?, row: row.get("rowid")? });
        found.sessions.push(record);
    }
    found.more |= found.sessions.len() >= limit.rows;
    found.last = found.last.filter(|_| found.more);
    Ok(found)
}

/// Some of what central lacks, what was added last: sessions, or records of one kind of sessions that central has.
pub(super) fn newest_pending(
    db: &Connection,
    kind: Option<Kind>,
    count: usize,
    skip: &Skip,
) -> Result<Pending, StoreError> {
    if let Some(kind) = kind {
        let records = history::newest_pending(db, kind, count, skip)?;
        return Ok(Pending { records, ..Pending::default() });
    }
    let sessions = db
        .prepare_cached(&format!(
            "SELECT {} FROM sessions s WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
                 AND instance_id NOT IN (SELECT value FROM json_each(?1)) \
             ORDER BY unsynced_since DESC, s.rowid DESC LIMIT ?2",
            sessions::COLUMNS
        ))?
        .query_map(params![json_ids(&skip.sessions), i64::try_from(count).unwrap_or(i64::MAX)], sessions::record)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Pending { sessions, ..Pending::default() })
}

/// Does anything wait that could travel now?
pub(super) fn any_waits(db: &Connection, skip: &Skip) -> Result<bool, StoreError> {
    let one = BatchLimit { rows: 1, bytes: 1 };
    Ok(!pending_behind(db, Place::FIRST, one, skip)?.sessions.is_empty()
        || !history::pending(db, &[], !skip.all_sessions, one, skip)?.records.is_empty())
}

/// Is anything parked that is due to be tried again?
pub(super) fn is_parked_due(db: &Connection, at: Timestamp) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM sessions WHERE {IS_DUE}) OR EXISTS (SELECT 1 FROM records WHERE {IS_DUE})"
        ))?
        .query_row(due(at), |row| row.get(0))?)
}

/// Lets what is parked and due be pushed again, at most [`ROWS`] rows a turn. Returns how many; fewer than that: no
/// more are due.
pub(super) fn release_parked(db: &Connection, at: Timestamp) -> Result<usize, StoreError> {
    let [now, latest] = due(at);
    let mut count = 0;
    for table in ["sessions", "records"] {
        let free = format!(
            "UPDATE {table} SET parked_at = NULL, parked_error = NULL, retry_at = NULL \
                 WHERE rowid IN (SELECT rowid FROM {table} WHERE {IS_DUE} LIMIT ?3)"
        );
        count += db.prepare_cached(&free)?.execute([now, latest, (ROWS - count) as i64])?;
    }
    Ok(count)
}

pub(super) fn backlog(db: &Connection) -> Result<Backlog, StoreError> {
    let (records_of, oldest_record) = history::backlog(db)?;
    Ok(db
        .prepare_cached(
            // Each part reads one index and no row: this is asked while tens of thousands wait.
            "SELECT (SELECT count(*) FROM sessions WHERE unsynced_since IS NOT NULL), \
                 (SELECT count(*) FROM sessions WHERE parked_at IS NOT NULL AND +unsynced_since IS NOT NULL), \
                 (SELECT unsynced_since FROM sessions WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
                     ORDER BY unsynced_since LIMIT 1), \
                 (SELECT count(*) FROM records WHERE parked_at IS NOT NULL)",
        )?
        .query_row([], |row| {
            let (unsynced, parked): (i64, i64) = (row.get(0)?, row.get(1)?);
            let oldest_session = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros);
            Ok(Backlog {
                sessions: (unsynced - parked).unsigned_abs(),
                records: records_of.iter().sum(),
                records_of,
                oldest_at: [oldest_session, oldest_record].into_iter().flatten().min(),
                parked: (parked + row.get::<_, i64>(3)?).unsigned_abs(),
            })
        })?)
}

/// The facts that hold the numbers of the next batches.
const NEXT_BATCHES: [&str; 2] = ["next_batch", "next_batch_but_one"];

/// Takes in what central did with a batch. Returns the sessions that got a new id.
pub(super) fn settle(db: &Connection, settling: &Settling, at: Timestamp) -> Result<Vec<Renamed>, StoreError> {
    let mut renamed = Vec::new();
    for Settled { instance_id, version, how } in &settling.sessions {
        match how {
            Settlement::Taken => taken(db, instance_id, *version)?,
            Settlement::ClosedElsewhere { closed_at } => {
                taken(db, instance_id, *version)?;
                closed_elsewhere(db, instance_id, *closed_at)?;
            }
            Settlement::Collided { draws } => renamed.extend(give_up_id(db, instance_id, draws, at)?),
            Settlement::Rejected { error } => rejected(db, instance_id, *version, error, at)?,
        }
    }
    history::settle(db, &settling.records, at)?;
    set_fact(db, "acked_batch", &settling.acked_batch)?;
    for (name, number) in NEXT_BATCHES.into_iter().zip(settling.next_batches) {
        set_fact(db, name, &number)?;
    }
    Ok(renamed)
}

/// Frees the records that were parked because a session was not in central, if the batch shows that it is there
/// again; one turn of it. Says whether there may be more.
pub(super) fn free_returned(db: &Connection, settling: &Settling) -> Result<bool, StoreError> {
    let there = settling.sessions.iter().filter(|s| !s.how.leaves_none()).map(|s| &s.instance_id);
    Ok(history::sessions_are_back(db, there)? == ROWS)
}

/// A change made during the push has a newer version, so that its columns go on waiting.
fn taken(db: &Connection, id: &InstanceId, version: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET synced_version = max(synced_version, ?2), \
             unsynced_since = iif(version = ?2, NULL, unsynced_since), \
             parkings = iif(version = ?2, 0, parkings) WHERE instance_id = ?1",
    )?
    .execute(params![id.as_str(), version])?;
    Ok(())
}

/// A heartbeat that arrived during the push goes on waiting, and travels with the closed session.
pub(super) fn closed_elsewhere(db: &Connection, id: &InstanceId, closed_at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET status = 'closed', closed_at = ?2, pid = NULL, pid_started = NULL, version = version + 1 \
             WHERE instance_id = ?1 AND status <> 'closed'",
    )?
    .execute(params![id.as_str(), closed_at.micros()])?;
    Ok(())
}

/// Central lacks what it once had of this session.
pub(super) fn offer_again(db: &Connection, id: &InstanceId, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?2), synced_version = 0 \
             WHERE instance_id = ?1 AND (unsynced_since IS NULL OR synced_version > 0)",
    )?
    .execute(params![id.as_str(), at.micros()])?;
    Ok(())
}

/// Another session has this id in central: the one of this host that has it too gets a new one.
pub(super) fn give_up_id(
    db: &Connection,
    id: &InstanceId,
    draws: &[u64],
    at: Timestamp,
) -> Result<Option<Renamed>, StoreError> {
    let Some(record) = sessions::exactly(db, id.as_str())?.filter(|record| !record.mirrored) else {
        return Ok(None);
    };
    let new_id = sessions::free_id(db, &record.session.project, record.session.instance_type, draws)?;
    db.execute(
        "UPDATE sessions SET instance_id = ?2, version = version + 1, unsynced_since = coalesce(unsynced_since, ?3), \
             synced_version = 0, parked_at = NULL, parked_error = NULL, retry_at = NULL WHERE instance_id = ?1",
        params![id.as_str(), new_id.as_str(), at.micros()],
    )?;
    db.execute(
        "INSERT INTO aliases (old_id, instance_id, made_at) VALUES (?1, ?2, ?3)",
        params![id.as_str(), new_id.as_str(), at.micros()],
    )?;
    Ok(Some(Renamed { from: id.clone(), to: new_id }))
}

/// A change made since then may be one that central takes.
fn rejected(db: &Connection, id: &InstanceId, version: i64, error: &str, at: Timestamp) -> Result<(), StoreError> {
    let parkings = db
        .prepare_cached("SELECT parkings FROM sessions WHERE instance_id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    db.prepare_cached(
        "UPDATE sessions SET parked_at = ?3, parked_error = ?4, retry_at = ?5, parkings = ?6 \
             WHERE instance_id = ?1 AND version = ?2",
    )?
    .execute(params![id.as_str(), version, at.micros(), error, retry_at(parkings, at).micros(), parkings + 1])?;
    Ok(())
}

/// What is marked next as lacking in central: rows of sessions, then of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForgetPlace {
    Sessions { after_row: i64 },
    Records { after_seq: i64 },
}

impl ForgetPlace {
    pub const FIRST: Self = Self::Sessions { after_row: i64::MIN };
}

/// What one turn marked, and where the next one continues.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForgetTurn {
    pub sessions: usize,
    pub records: usize,
    pub next: Option<ForgetPlace>,
}

/// Central lost what it once had (it was restored from a backup): everything here waits again. The ledger's new
/// position is written by the last turn, so that after a crash the next handshake starts over.
pub(super) fn forget_synced(
    db: &Connection,
    place: ForgetPlace,
    acked_batch: i64,
    at: Timestamp,
) -> Result<ForgetTurn, StoreError> {
    let mut turn = ForgetTurn { sessions: 0, records: 0, next: None };
    let (mut rows, mut after_seq) = (ROWS, i64::MIN);
    match place {
        ForgetPlace::Sessions { after_row } => {
            let part = turns::next_rows(db, ("sessions", "rowid"), after_row, rows)?;
            turn.sessions = forget_sessions(db, after_row, part.last, at)?;
            if !part.is_end {
                turn.next = Some(ForgetPlace::Sessions { after_row: part.last });
                return Ok(turn);
            }
            rows -= part.count;
        }
        ForgetPlace::Records { after_seq: after } => after_seq = after,
    }
    let part = turns::next_rows(db, ("records", "seq"), after_seq, rows)?;
    turn.records = history::forget_synced_between(db, after_seq, part.last)?;
    if part.is_end {
        mirror::read_anew(db)?;
        set_fact(db, "acked_batch", &acked_batch)?;
    } else {
        turn.next = Some(ForgetPlace::Records { after_seq: part.last });
    }
    Ok(turn)
}

fn forget_sessions(db: &Connection, after_row: i64, last_row: i64, at: Timestamp) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?1), synced_version = 0 \
                 WHERE rowid > ?2 AND rowid <= ?3 AND mirror_round IS NULL \
                 AND (unsynced_since IS NULL OR synced_version > 0)",
        )?
        .execute(params![at.micros(), after_row, last_row])?)
}

pub(super) fn parked(db: &Connection) -> Result<Vec<Parked>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT instance_id, parked_error, parked_at, NULL, NULL, NULL FROM sessions WHERE parked_at IS NOT NULL \
             UNION ALL \
             SELECT instance_id, parked_error, parked_at, record_id, kind, type FROM records \
                 WHERE parked_at IS NOT NULL ORDER BY 3",
        )?
        .query_map([], |row| {
            let record_id = row.get::<_, Option<[u8; 16]>>(3)?.map(Uuid::from_bytes);
            let kind = row.get::<_, Option<String>>(4)?.and_then(|kind| Kind::parse(&kind));
            let record_type = row.get::<_, Option<String>>(5)?.unwrap_or_default();
            Ok(Parked {
                instance_id: sessions::parsed(row, 0, InstanceId::parse)?,
                record: record_id.zip(kind).map(|(record_id, kind)| ParkedRecord { record_id, kind, record_type }),
                error: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                parked_at: Timestamp::from_micros(row.get(2)?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?)
}

/// The parked rows of these ids, or all of them if there are no ids.
///
/// # Errors
/// `NotParked` if one of the ids is not parked.
pub(super) fn parked_rows(db: &Connection, ids: &[String]) -> Result<Vec<ParkedRow>, StoreError> {
    let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    for parked in parked(db)? {
        if ids.is_empty() || wanted.remove(parked.id().as_str()) {
            rows.push(match parked.record {
                Some(record) => ParkedRow::Record(record.record_id),
                None => ParkedRow::Session(parked.instance_id),
            });
        }
    }
    match ids.iter().find(|id| wanted.contains(id.as_str())) {
        Some(unknown) => Err(StoreError::NotParked(unknown.clone())),
        None => Ok(rows),
    }
}

/// Lets these rows be pushed again, or gives up pushing them as they are. Returns how many were still parked.
pub(super) fn unpark(db: &Connection, rows: &[ParkedRow], drop: bool) -> Result<usize, StoreError> {
    let unpark = |row: &ParkedRow| match row {
        ParkedRow::Record(record_id) => history::unpark(db, *record_id, drop),
        ParkedRow::Session(id) => unpark_session(db, id, drop),
    };
    rows.iter().map(unpark).sum()
}

fn unpark_session(db: &Connection, id: &InstanceId, drop: bool) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE sessions SET parked_at = NULL, parked_error = NULL, retry_at = NULL, parkings = 0, \
                 unsynced_since = CASE WHEN ?2 THEN NULL ELSE unsynced_since END \
             WHERE instance_id = ?1 AND parked_at IS NOT NULL",
        )?
        .execute(params![id.as_str(), drop])?)
}

/// Where this store knows central's ledger to stand: at the newest batch known to be applied, 0 before the first,
/// or at one that was to follow.
pub(super) fn ledger(db: &Connection) -> Result<Ledger, StoreError> {
    let fact = |name: &str| -> Result<Option<i64>, StoreError> {
        let mut statement = db.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    };
    let next = NEXT_BATCHES.into_iter().filter_map(|name| fact(name).transpose()).collect::<Result<_, _>>()?;
    Ok(Ledger { acked: fact("acked_batch")?.unwrap_or(0), next })
}

/// What a store knows of central's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub acked: i64,
    pub next: Vec<i64>,
}

pub(super) fn set_fact(db: &Connection, name: &str, value: &dyn rusqlite::ToSql) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}
