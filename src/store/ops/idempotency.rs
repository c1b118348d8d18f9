//! Idempotency keys: a request that is repeated under the same key is answered as it was the first time.
//!
//! The key is kept in the transaction that does the request's work, so it is exactly as durable as the work. Keys
//! belong to the user who sent them. They are kept for [`KEPT_FOR`], and at most [`MOST`] for a user: then the oldest go.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::Process;
use crate::domain::agent::AgentName;
use crate::domain::{Registration, Status};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::columns::OURS;
use crate::store::tables::records::StoredRecord;
use crate::store::tables::session_record::Record;
use crate::store::tables::{records, sessions};

/// How long a key is kept.
pub(in crate::store) const KEPT_FOR: Duration = Duration::from_secs(86_400);

/// How many keys are kept for a user.
const MOST: i64 = 10_000;

/// The number of keys of a user is checked once for so many new keys.
const CHECKED_EVERY: i64 = 64;

/// Keys that are too old are deleted with a new one, at most so many.
const DELETED_AT_ONCE: i64 = 100;

/// A key, and what it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    key: String,
    fingerprint: [u8; 32],
}

impl RequestKey {
    /// `target`: the method and path of the request; `body`: its body, in one form for all ways to write the same.
    pub fn new(key: String, target: &str, body: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(target).chain_update([0]).chain_update(body).finalize();
        Self { key, fingerprint: digest.into() }
    }
}

/// What a request under a key comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Once<T, A> {
    /// It was done now.
    First(T),
    /// It was done before, and answered so.
    Again(A),
}

struct Kept {
    answer: Option<String>,
    record_id: Option<Uuid>,
}

/// What is kept under the key.
///
/// # Errors
/// The key came with another request.
fn kept(op: &Op<'_>, key: &RequestKey) -> Result<Option<Kept>, StoreError> {
    let found = op
        .db
        .prepare_cached(
            "SELECT fingerprint, answer, record_id FROM idempotency_keys \
                 WHERE owner_uid = ?1 AND key = ?2 AND made_at > ?3",
        )?
        .query_row(params![op.caller.uid, key.key, op.now.minus(KEPT_FOR).micros()], |row| {
            let record_id = row.get::<_, Option<[u8; 16]>>(2)?.map(Uuid::from_bytes);
            Ok((row.get::<_, [u8; 32]>(0)?, Kept { answer: row.get(1)?, record_id }))
        })
        .optional()?;
    match found {
        Some((fingerprint, _)) if fingerprint != key.fingerprint => Err(StoreError::KeyReused(key.key.clone())),
        found => Ok(found.map(|(_, kept)| kept)),
    }
}

fn keep(op: &Op<'_>, key: &RequestKey, kept: &Kept) -> Result<(), StoreError> {
    let &Op { db, now, caller, .. } = op;
    db.prepare_cached(
        "DELETE FROM idempotency_keys WHERE seq IN \
             (SELECT seq FROM idempotency_keys WHERE made_at <= ?1 ORDER BY made_at LIMIT ?2)",
    )?
    .execute(params![now.minus(KEPT_FOR).micros(), DELETED_AT_ONCE])?;
    // One of the same name that is too old may still be there. Deleted by itself, as triggers follow only that.
    db.prepare_cached("DELETE FROM idempotency_keys WHERE owner_uid = ?1 AND key = ?2")?
        .execute(params![caller.uid, key.key])?;
    db.prepare_cached(
        "INSERT INTO idempotency_keys (owner_uid, key, fingerprint, made_at, answer, record_id) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        caller.uid,
        key.key,
        key.fingerprint,
        now.micros(),
        kept.answer,
        kept.record_id.map(Uuid::into_bytes)
    ])?;
    if db.last_insert_rowid() % CHECKED_EVERY == 0 {
        db.prepare_cached(
            "DELETE FROM idempotency_keys WHERE owner_uid = ?1 AND seq <= \
                 (SELECT seq FROM idempotency_keys WHERE owner_uid = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![caller.uid, MOST])?;
    }
    Ok(())
}

/// Registers a session, or returns the answer that is kept. `answer`: what is answered, as JSON.
pub(in crate::store) fn register(
    op: &Op<'_>,
    key: &RequestKey,
    work: impl FnOnce(&Op<'_>) -> Result<Record, StoreError>,
    answer: impl FnOnce(&Record) -> String,
) -> Result<Once<Record, String>, StoreError> {
    if let Some(answer) = kept(op, key)?.and_then(|kept| kept.answer) {
        return Ok(Once::Again(answer));
    }
    let record = work(op)?;
    keep(op, key, &Kept { answer: Some(answer(&record)), record_id: None })?;
    Ok(Once::First(record))
}

/// Appends a record, or returns the one that was appended under the key. Records do not change, so neither does the
/// answer, but for whether central has it.
pub(in crate::store) fn append(
    op: &Op<'_>,
    key: &RequestKey,
    work: impl FnOnce(&Op<'_>) -> Result<StoredRecord, StoreError>,
) -> Result<StoredRecord, StoreError> {
    if let Some(id) = kept(op, key)?.and_then(|kept| kept.record_id)
        && let Some(record) = records::by_id(op.db, id)?
    {
        return Ok(record);
    }
    let appended = work(op)?;
    keep(op, key, &Kept { answer: None, record_id: Some(appended.record.record_id) })?;
    Ok(appended)
}

/// The session that is registered already: the same agent's session in the same process, by the same user.
pub(in crate::store) fn registered(
    op: &Op<'_>,
    what: &Registration,
    agent: Option<AgentName>,
    process: Option<Process>,
) -> Result<Option<Record>, StoreError> {
    let Some((uuid, process)) = what.claude_session_uuid.as_ref().zip(process) else { return Ok(None) };
    let id: Option<String> = op
        .db
        .prepare_cached(&format!(
            "SELECT instance_id FROM sessions WHERE claude_session_uuid = ?1 AND pid = ?2 AND pid_started = ?3 \
                 AND owner_uid = ?4 AND project = ?5 AND {OURS} LIMIT 1"
        ))?
        .query_row(params![uuid, process.pid, process.started, op.caller.uid, what.project.as_str()], |row| row.get(0))
        .optional()?;
    let found = id.map(|id| sessions::get(op.db, &id)).transpose()?.flatten();
    let agent = agent.unwrap_or(AgentName::ClaudeCode);
    Ok(found.filter(|record| record.session.status != Status::Closed && record.agent() == Some(agent)))
}
