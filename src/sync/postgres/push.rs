//! Applies a batch in one transaction: the ledger, then all sessions in one statement, then their work, then the records.
//!
//! **Invariant**: the ledger advances only from the number at which this connection left it, in the transaction that
//! writes the rows. A batch that arrives twice or late changes nothing.
//!
//! A session that the upsert did not write is looked up: another `created_at` means an id collision, another machine that
//! this store is a copy. The trigger of an earlier installation may replace heartbeats by the current time although
//! a setting of the transaction forbids it; that is detected in the returned rows, and repaired in the same transaction.

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::errors::own_row_locked;
use super::link::{Access, Link, column, quoted, with_literals};
use super::parameters::ServerTime;
use super::registered_host::RegisteredHost;
use super::{conflict, records, sql, work};
use crate::domain::link::Conflict;
use crate::domain::{InstanceId, MachineName, Session, Status, TimedSession, Timestamp};
use crate::sync::central::{Batch, CentralError, RowOutcome};

/// Those of the sessions whose rows another transaction has locked.
pub(super) async fn locked_rows(link: &mut Link, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
    let texts = ids.iter().map(InstanceId::as_str).collect::<Vec<_>>();
    link.begin().await?;
    let existing = link.rows(sqlx::query(sql::EXISTING_SESSIONS).bind(&texts)).await?;
    let unlocked = link.rows(sqlx::query(sql::UNLOCKED_SESSIONS).bind(&texts)).await?;
    link.rollback().await?;
    let ids_of = |rows: &[PgRow]| rows.iter().map(|row| column(row, 0)).collect::<Result<HashSet<String>, _>>();
    let (existing, unlocked) = (ids_of(&existing)?, ids_of(&unlocked)?);
    let is_locked = |id: &&InstanceId| existing.contains(id.as_str()) && !unlocked.contains(id.as_str());
    Ok(ids.iter().filter(is_locked).cloned().collect())
}

/// Turns sessions stale that this host wrote last and does not have.
pub(super) async fn disown(link: &mut Link, host: &RegisteredHost, ids: &[InstanceId]) -> Result<(), CentralError> {
    let ids = ids.iter().map(InstanceId::as_str).collect::<Vec<_>>();
    link.begin().await?;
    link.rows(sqlx::query(sql::DISOWN_SESSIONS).bind(host.host_id).bind(ids)).await?;
    link.commit().await
}

pub(super) async fn push(
    link: &mut Link,
    host: &RegisteredHost,
    batch: Batch<'_>,
) -> Result<Vec<RowOutcome>, CentralError> {
    advance(link, host, batch).await?;
    let mut applied = if batch.sessions.is_empty() { Vec::new() } else { apply(link, host, batch.sessions).await? };
    work::push(link, host, batch.sessions, &mut applied).await?;
    if !batch.records.is_empty() {
        let absent =
            batch.sessions.iter().zip(&applied).filter(|(_, applied)| applied.is_without_session()).map(|(s, _)| id(s));
        let records = records::apply(link, &host.shapes, batch.records, &absent.collect()).await?;
        applied.extend(records);
    }
    link.commit().await?;
    Ok(applied)
}

/// Begins the transaction by advancing the ledger.
async fn advance(link: &mut Link, host: &RegisteredHost, batch: Batch<'_>) -> Result<(), CentralError> {
    let Batch { after, number, .. } = batch;
    let values = [number.to_string(), quoted(host.host_id), quoted(host.claim), after.to_string()];
    let advance = with_literals(sql::ADVANCE_LEDGER, &values);
    let advanced = link.begin_with(Access::Write, advance).await.map_err(own_row_locked)?;
    let Some(row) = advanced.first() else { return Err(why_not(link, host, after).await?) };
    link.last_clock = Some(Timestamp::from_micros(column(row, 0)?));
    link.batch_began = Timestamp::from_micros(column(row, 1)?);
    Ok(())
}

/// Finds out why the ledger did not advance.
async fn why_not(link: &mut Link, host: &RegisteredHost, after: i64) -> Result<CentralError, CentralError> {
    let rows = link.rows(sqlx::query(sql::LEDGER_ROW).bind(host.host_id)).await?;
    let Some(row) = rows.first() else { return Ok(CentralError::OutOfStep) };
    let machine_name: String = column(row, 0)?;
    let claim: Uuid = column(row, 1)?;
    let retired: bool = column(row, 2)?;
    let by = column::<Option<Uuid>>(row, 3)?.filter(|_| retired).unwrap_or(host.host_id);
    let last_seen = Timestamp::from_micros(column(row, 4)?);
    let message = if retired {
        conflict::replaced(&machine_name, by)
    } else if host.own_claims.contains(&claim) || column::<i64>(row, 5)? < after {
        return Ok(CentralError::OutOfStep);
    } else {
        conflict::copied(host.host_id, &machine_name, last_seen)
    };
    Ok(CentralError::Conflict(Conflict { host_id: by.to_string(), machine_name, last_seen: Some(last_seen), message }))
}

/// The sessions that were written, and when each was closed if it is.
type Written = HashMap<String, Option<Timestamp>>;

async fn apply(
    link: &mut Link,
    host: &RegisteredHost,
    sessions: &[TimedSession],
) -> Result<Vec<RowOutcome>, CentralError> {
    let written = upsert(link, host, sessions).await?;
    let missing = sessions.iter().map(|s| id(s)).filter(|id| !written.contains_key(*id)).collect::<Vec<_>>();
    let refused = if missing.is_empty() { HashMap::new() } else { owners(link, &missing).await? };
    sessions
        .iter()
        .map(|session| match (written.get(id(session)), refused.get(id(session))) {
            (Some(&Some(closed_at)), _) if session.status != Status::Closed => {
                Ok(RowOutcome::ClosedElsewhere { closed_at })
            }
            (Some(_), _) => Ok(RowOutcome::Stored),
            (None, Some((_, created_at))) if *created_at != session.created_at => Ok(RowOutcome::IdCollision),
            (None, Some((machine, _))) => Ok(RowOutcome::ForeignMachine { machine: machine.clone() }),
            // Deleted by another transaction meanwhile.
            (None, None) => Err(CentralError::OutOfStep),
        })
        .collect()
}

async fn upsert(link: &mut Link, host: &RegisteredHost, sessions: &[TimedSession]) -> Result<Written, CentralError> {
    let texts = |of: fn(&Session) -> &str| sessions.iter().map(|s| of(s)).collect::<Vec<_>>();
    let options = |of: fn(&Session) -> Option<&str>| sessions.iter().map(|s| of(s)).collect::<Vec<_>>();
    let moments = |of: fn(&Session) -> Timestamp| sessions.iter().map(|s| of(s).micros()).collect::<Vec<_>>();
    let heartbeats = moments(|s| s.last_heartbeat);
    link.allow_for(sessions.iter().map(|s| s.size()).sum());
    let query = sqlx::query(sql::UPSERT_SESSIONS)
        .bind(texts(id))
        .bind(texts(|s| s.project.as_str()))
        .bind(texts(|s| s.instance_type.as_str()))
        .bind(texts(|s| s.status.as_str()))
        .bind(sessions.iter().map(|s| i32::from(s.context_percent)).collect::<Vec<_>>())
        .bind(options(|s| s.current_epic.as_deref()))
        .bind(heartbeats.clone())
        .bind(moments(|s| s.created_at))
        .bind(sessions.iter().map(|s| s.closed_at.map(Timestamp::micros)).collect::<Vec<_>>())
        .bind(texts(|s| s.host_machine.as_str()))
        .bind(options(|s| s.claude_session_uuid.as_deref()))
        .bind(options(|s| s.claude_session_path.as_deref()))
        .bind(options(|s| s.resumed_from.as_ref().map(InstanceId::as_str)))
        .bind(options(|s| s.working_dir.as_deref()))
        .bind(host.former_names.iter().map(MachineName::as_str).collect::<Vec<_>>())
        .bind(sessions.iter().map(|s| s.times.to_json()).collect::<Vec<_>>())
        .bind(sessions.iter().map(|s| s.times.newest().map_or(0, Timestamp::micros)).collect::<Vec<_>>())
        .bind(ServerTime(link.batch_began))
        .bind(link.batch_began.micros());
    let rows = link.rows(query).await?;

    let pushed = sessions.iter().map(|s| (id(s), s.last_heartbeat)).collect::<HashMap<_, _>>();
    let mut written = HashMap::with_capacity(rows.len());
    let mut stamped = false;
    for row in &rows {
        let id: String = column(row, 0)?;
        stamped |= was_stamped(row, pushed.get(id.as_str()).copied())?;
        written.insert(id, column::<Option<i64>>(row, 1)?.map(Timestamp::from_micros));
    }
    if stamped {
        link.rows(sqlx::query(sql::RESTORE_HEARTBEATS).bind(texts(id)).bind(heartbeats)).await?;
    }
    Ok(written)
}

/// Whether the trigger of an earlier installation replaced the pushed heartbeat by the current time.
fn was_stamped(row: &PgRow, pushed: Option<Timestamp>) -> Result<bool, CentralError> {
    let now: Option<i64> = column(row, 2)?;
    Ok(now.is_some_and(|now| pushed.is_some_and(|at| at.micros() < now)))
}

/// The machine and `created_at` of the sessions that were not written.
async fn owners(link: &mut Link, ids: &[&str]) -> Result<HashMap<String, (String, Timestamp)>, CentralError> {
    let rows = link.rows(sqlx::query(sql::SESSION_OWNERS).bind(ids)).await?;
    rows.iter().map(|row| Ok((column(row, 0)?, (column(row, 1)?, Timestamp::from_micros(column(row, 2)?))))).collect()
}

fn id(session: &Session) -> &str {
    session.instance_id.as_str()
}
