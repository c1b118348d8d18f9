//! The history of mirrored sessions: as much of it as reconstructing a context takes.

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::{HistoryRecord, RecordKind};
use crate::store::error::StoreError;
use crate::store::tables::columns::MIRRORED;

/// How much of a mirrored session's history is kept: as much as reconstructing its context takes.
const KEPT_EVENTS: u32 = 50;

const KEPT_COMMANDS: u32 = 20;

const KEPT_CHECKPOINTS: u32 = 1;

/// History of sessions that are not known here is left out: it comes again with them.
pub(in crate::store) fn keep_history(db: &Connection, history: &[HistoryRecord]) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO records (record_id, instance_id, kind, type, at, body) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM sessions WHERE instance_id = ?2) \
         ON CONFLICT (record_id) DO NOTHING",
    )?;
    for of_session in history.chunk_by(|a, b| a.instance_id == b.instance_id) {
        for record in of_session {
            if is_too_old(db, record)? {
                continue;
            }
            insert.execute(params![
                record.record_id.as_bytes().as_slice(),
                record.instance_id.as_str(),
                record.kind.as_str(),
                record.record_type,
                record.at.micros(),
                serde_json::Value::Object(record.body.clone()).to_string(),
            ])?;
        }
        of_session.first().map_or(Ok(()), |record| forget_old(db, record.instance_id.as_str()))?;
    }
    Ok(())
}

/// Are there as many later records of a mirrored session as are kept? Then this one would be forgotten at once.
fn is_too_old(db: &Connection, record: &HistoryRecord) -> Result<bool, StoreError> {
    let kept = match record.kind {
        RecordKind::Event => KEPT_EVENTS,
        RecordKind::Command => KEPT_COMMANDS,
        RecordKind::Checkpoint => KEPT_CHECKPOINTS,
    };
    let oldest_kept: Option<i64> = db
        .prepare_cached(&format!(
            "SELECT r.at FROM records r JOIN sessions s USING (instance_id) \
             WHERE r.instance_id = ?1 AND r.kind = ?2 AND s.{MIRRORED} \
             ORDER BY r.at DESC LIMIT 1 OFFSET ?3",
        ))?
        .query_row(params![record.instance_id.as_str(), record.kind.as_str(), kept - 1], |row| row.get(0))
        .optional()?;
    Ok(oldest_kept.is_some_and(|oldest| record.at.micros() < oldest))
}

fn forget_old(db: &Connection, mirrored: &str) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached(&format!(
        "DELETE FROM records WHERE seq IN (SELECT r.seq FROM records r JOIN sessions s USING (instance_id) \
             WHERE r.instance_id = ?1 AND r.kind = ?2 AND s.{MIRRORED} \
             ORDER BY r.at DESC, r.seq DESC LIMIT -1 OFFSET ?3)",
    ))?;
    for (kind, kept) in [("event", KEPT_EVENTS), ("command", KEPT_COMMANDS), ("checkpoint", KEPT_CHECKPOINTS)] {
        delete.execute(params![mirrored, kind, kept])?;
    }
    Ok(())
}
