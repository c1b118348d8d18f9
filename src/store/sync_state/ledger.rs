//! What this store knows of its row in central's ledger, and offering everything again when central was restored.

use rusqlite::{Connection, params};

use crate::domain::Timestamp;
use crate::store::error::StoreError;
use crate::store::sqlite::turns;
use crate::store::sqlite::turns::ROWS;
use crate::store::sync_state::batch_result::NEXT_BATCHES;
use crate::store::sync_state::mirror_cursor;
use crate::store::tables::columns::OURS;
use crate::store::tables::metadata;

/// Central lost what it once had of these records: they wait again.
pub(in crate::store) fn forget_synced_between(
    db: &Connection,
    after_seq: i64,
    last_seq: i64,
) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached("UPDATE records SET unsynced = 1 WHERE unsynced = 0 AND seq > ?1 AND seq <= ?2")?
        .execute([after_seq, last_seq])?)
}

/// Central lost what it once had from here: that waits again.
pub(in crate::store) fn forget_synced_records(db: &Connection) -> Result<usize, StoreError> {
    Ok(db.execute("UPDATE records SET unsynced = 1 WHERE unsynced = 0", [])?)
}

/// What is marked next as lacking in central: rows of sessions, then of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum ForgetPlace {
    Sessions { after_row: i64 },
    Records { after_seq: i64 },
}

impl ForgetPlace {
    pub(in crate::store) const FIRST: Self = Self::Sessions { after_row: i64::MIN };
}

/// What one turn marked, and where the next one continues.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct ForgetTurn {
    pub sessions: usize,
    pub records: usize,
    pub next: Option<ForgetPlace>,
}

/// Central lost what it once had (it was restored from a backup): everything here waits again. The ledger's new
/// position is written by the last turn, so that after a crash the next handshake starts over.
pub(in crate::store) fn forget_synced(
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
    turn.records = forget_synced_between(db, after_seq, part.last)?;
    if part.is_end {
        mirror_cursor::read_everything(db)?;
        metadata::set(db, "acked_batch", &acked_batch)?;
    } else {
        turn.next = Some(ForgetPlace::Records { after_seq: part.last });
    }
    Ok(turn)
}

fn forget_sessions(db: &Connection, after_row: i64, last_row: i64, at: Timestamp) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(&format!(
            "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?1), synced_version = 0 \
                 WHERE rowid > ?2 AND rowid <= ?3 AND {OURS} \
                 AND (unsynced_since IS NULL OR synced_version > 0)"
        ))?
        .execute(params![at.micros(), after_row, last_row])?)
}

/// Where this store knows central's ledger to stand: at the newest batch known to be applied, 0 before the first,
/// or at one that was to follow.
pub(in crate::store) fn ledger(db: &Connection) -> Result<Ledger, StoreError> {
    let next = NEXT_BATCHES
        .into_iter()
        .filter_map(|name| metadata::get_integer(db, name).transpose())
        .collect::<Result<_, _>>()?;
    Ok(Ledger { acked: metadata::get_integer(db, "acked_batch")?.unwrap_or(0), next })
}

/// What a store knows of central's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(crate) acked: i64,
    pub(crate) next: Vec<i64>,
}
