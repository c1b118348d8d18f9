//! Applying a batch: the ledger first, then all sessions in one statement, then their records; all or nothing.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::link::{Link, column};
use super::{RegisteredHost, handshake, micros, moment, records};
use crate::domain::link::Conflict;
use crate::domain::{Column, InstanceId, MachineName, Session, Status, TimedSession, Timestamp};
use crate::sync::central::{Batch, CentralError, RowOutcome};

const WHO_AM_I: &str = concat!(
    "SELECT machine_name, claim, retired_at IS NOT NULL, replaced_by, ",
    micros!("last_seen"),
    ", batch FROM sessiond_hosts WHERE host_id = $1"
);

/// Is what is pushed at least as new as what is there? A heartbeat from the future is none.
macro_rules! newer {
    () => {
        "(excluded.last_heartbeat >= s.last_heartbeat OR s.last_heartbeat > now())"
    };
}

/// Since when a column of central's row may not be replaced by an earlier change. Where that is not known it is the last
/// heartbeat, as it was before columns were merged.
const CHANGED: &str = concat!(
    "coalesce((s.column_times->>'{column}')::bigint, (s.column_times->>'other')::bigint, \
         CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= now() THEN ",
    micros!("s.last_heartbeat"),
    " END, 0)"
);

/// Inserts sessions, or merges them into central's rows: a column by its own time, if it is offered; status and heartbeat
/// by the time of the heartbeat; closed is permanent.
///
/// Times from central's future are cut to its present, but for created_at: together with the id it
/// says which session this is, and so may never change. Rows come in one order from every host, so
/// that no two hosts wait for each other. What is computed of each row that comes back is paid for each: next to
/// nothing, where nothing is out of the ordinary.
static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let columns = Column::ALL.iter().map(|column| {
        let (name, changed) = (column.name(), CHANGED.replace("{column}", column.name()));
        format!(
            "{name} = CASE WHEN excluded.column_times->>'{name}' IS NULL THEN s.{name} \
                 WHEN (excluded.column_times->>'{name}')::bigint > {changed} THEN excluded.{name} ELSE s.{name} END"
        )
    });
    [INSERT, &columns.collect::<Vec<_>>().join(", "), MERGED].concat()
});

const INSERT: &str = concat!(
    "INSERT INTO supervisor_sessions AS s (instance_id, project, instance_type, status, context_percent, \
         current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, \
         resumed_from, working_dir, column_times) \
     SELECT instance_id, project, instance_type, status, context_percent, current_epic, least(",
    moment!("last_heartbeat"),
    ", now()), ",
    moment!("created_at"),
    ", CASE WHEN closed_at IS NOT NULL THEN least(",
    moment!("closed_at"),
    ", now()) END, host_machine, claude_session_uuid, claude_session_path, resumed_from, working_dir, \
         CASE WHEN newest_change <= ",
    micros!("now()"),
    " THEN column_times::jsonb ELSE (SELECT jsonb_object_agg(key, least(value::bigint, ",
    micros!("now()"),
    ")) FROM jsonb_each_text(column_times::jsonb)) END \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::bigint[], $8::bigint[], \
         $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $16::text[], $17::bigint[]) \
         AS pushed (instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, \
         created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, resumed_from, working_dir, \
         column_times, newest_change) \
     ORDER BY instance_id \
     ON CONFLICT (instance_id) DO UPDATE SET \
         status = CASE WHEN 'closed' IN (s.status, excluded.status) THEN 'closed' WHEN ",
    newer!(),
    " THEN excluded.status ELSE s.status END, \
         closed_at = CASE WHEN s.status = 'closed' THEN s.closed_at ELSE excluded.closed_at END, \
         last_heartbeat = CASE WHEN ",
    newer!(),
    " THEN excluded.last_heartbeat ELSE s.last_heartbeat END, \
         host_machine = excluded.host_machine, \
         column_times = CASE WHEN excluded.column_times = '{}' THEN s.column_times ELSE \
             (SELECT known || jsonb_object_agg(key, greatest(value::bigint, (known->>key)::bigint, \
                     (known->>'other')::bigint)) \
                 FROM (SELECT coalesce(s.column_times, jsonb_build_object('other', ",
    micros!("least(s.last_heartbeat, now())"),
    "))) AS k (known), jsonb_each_text(excluded.column_times) GROUP BY known) END, "
);

const MERGED: &str = concat!(
    " WHERE s.created_at = excluded.created_at AND \
         (s.host_machine = excluded.host_machine OR s.host_machine = ANY($15)) \
     RETURNING s.instance_id, CASE WHEN s.status = 'closed' THEN ",
    micros!("coalesce(s.closed_at, s.last_heartbeat)"),
    " END, CASE WHEN s.last_heartbeat = now() THEN ",
    micros!("now()"),
    " END",
);

/// Puts back the times that an old trigger has stamped over. It stays still when nothing but the
/// time changes.
const UNSTAMP: &str = concat!(
    "UPDATE supervisor_sessions s SET last_heartbeat = ",
    moment!("pushed.last_heartbeat"),
    " FROM unnest($1::text[], $2::bigint[]) AS pushed (instance_id, last_heartbeat) \
     WHERE s.instance_id = pushed.instance_id AND s.last_heartbeat = now() AND ",
    moment!("pushed.last_heartbeat"),
    " < now()"
);

const WHOSE: &str = concat!(
    "SELECT instance_id, host_machine, ",
    micros!("created_at"),
    " FROM supervisor_sessions WHERE instance_id = ANY($1)"
);

/// Waits for no lock. A row that is being inserted by a transaction under way is not seen.
const UNLOCKED: &str = "SELECT instance_id FROM supervisor_sessions WHERE instance_id = ANY($1) ORDER BY instance_id FOR UPDATE SKIP LOCKED";
const EXISTING: &str = "SELECT instance_id FROM supervisor_sessions WHERE instance_id = ANY($1)";

/// Those of the sessions whose rows another transaction has locked.
pub(super) async fn locked(link: &mut Link, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
    let texts = ids.iter().map(InstanceId::as_str).collect::<Vec<_>>();
    link.begin().await?;
    let existing = link.rows(sqlx::query(EXISTING).bind(&texts)).await?;
    let unlocked = link.rows(sqlx::query(UNLOCKED).bind(&texts)).await?;
    link.rollback().await?;
    let ids_of = |rows: &[PgRow]| rows.iter().map(|row| column(row, 0)).collect::<Result<HashSet<String>, _>>();
    let (existing, unlocked) = (ids_of(&existing)?, ids_of(&unlocked)?);
    let is_locked = |id: &&InstanceId| existing.contains(id.as_str()) && !unlocked.contains(id.as_str());
    Ok(ids.iter().filter(is_locked).cloned().collect())
}

/// Without its own row in sessiond_hosts a host can push nothing.
pub(super) fn own_row_locked(error: CentralError) -> CentralError {
    match error {
        CentralError::Locked(why) => CentralError::Retry(format!(
            "another transaction in central holds a lock on this host's row in sessiond_hosts, without which nothing \
             can be pushed: end that transaction (pg_locks, pg_stat_activity); {why}"
        )),
        other => other,
    }
}

pub(super) async fn push(
    link: &mut Link,
    me: &RegisteredHost,
    batch: Batch<'_>,
) -> Result<Vec<RowOutcome>, CentralError> {
    advance(link, me, batch).await?;
    let mut applied = if batch.sessions.is_empty() { Vec::new() } else { apply(link, me, batch.sessions).await? };
    if !batch.records.is_empty() {
        let absent =
            batch.sessions.iter().zip(&applied).filter(|(_, applied)| applied.is_without_session()).map(|(s, _)| id(s));
        let records = records::apply(link, &me.shapes, batch.records, &absent.collect()).await?;
        applied.extend(records);
    }
    link.commit().await?;
    Ok(applied)
}

/// Begins the transaction with the ledger.
async fn advance(link: &mut Link, me: &RegisteredHost, batch: Batch<'_>) -> Result<(), CentralError> {
    let advance = format!(
        "UPDATE sessiond_hosts SET batch = {}, last_seen = clock_timestamp() \
         WHERE host_id = '{}' AND claim = '{}' AND batch = {} AND retired_at IS NULL RETURNING {}",
        batch.number,
        me.host_id,
        me.claim,
        batch.after,
        micros!("last_seen")
    );
    let advanced = link.begin_with(advance).await.map_err(own_row_locked)?;
    let Some(row) = advanced.first() else { return Err(why_not(link, me, batch.after).await?) };
    link.clock = Some(Timestamp::from_micros(column(row, 0)?));
    Ok(())
}

/// Why the ledger did not advance.
async fn why_not(link: &mut Link, me: &RegisteredHost, after: i64) -> Result<CentralError, CentralError> {
    let rows = link.rows(sqlx::query(WHO_AM_I).bind(me.host_id)).await?;
    let Some(row) = rows.first() else { return Ok(CentralError::OutOfStep) };
    let machine_name: String = column(row, 0)?;
    let claim: Uuid = column(row, 1)?;
    let retired: bool = column(row, 2)?;
    let by = column::<Option<Uuid>>(row, 3)?.filter(|_| retired).unwrap_or(me.host_id);
    let last_seen = Timestamp::from_micros(column(row, 4)?);
    let message = if retired {
        handshake::replaced(&machine_name, by)
    } else if me.own_claims.contains(&claim) || column::<i64>(row, 5)? < after {
        return Ok(CentralError::OutOfStep);
    } else {
        handshake::copied(me.host_id, &machine_name, last_seen)
    };
    Ok(CentralError::Conflict(Conflict { host_id: by.to_string(), machine_name, last_seen: Some(last_seen), message }))
}

/// The sessions that central has written, and since when those are closed that are.
type Written = HashMap<String, Option<Timestamp>>;

async fn apply(
    link: &mut Link,
    me: &RegisteredHost,
    sessions: &[TimedSession],
) -> Result<Vec<RowOutcome>, CentralError> {
    let written = upsert(link, me, sessions).await?;
    let missing = sessions.iter().map(|s| id(s)).filter(|id| !written.contains_key(*id)).collect::<Vec<_>>();
    let refused = if missing.is_empty() { HashMap::new() } else { whose(link, &missing).await? };
    sessions
        .iter()
        .map(|session| match (written.get(id(session)), refused.get(id(session))) {
            (Some(&Some(closed_at)), _) if session.status != Status::Closed => {
                Ok(RowOutcome::ClosedElsewhere { closed_at })
            }
            (Some(_), _) => Ok(RowOutcome::Stored),
            (None, Some((_, created_at))) if *created_at != session.created_at => Ok(RowOutcome::IdCollision),
            (None, Some((machine, _))) => Ok(RowOutcome::ForeignMachine { machine: machine.clone() }),
            // Deleted while this looked on.
            (None, None) => Err(CentralError::OutOfStep),
        })
        .collect()
}

async fn upsert(link: &mut Link, me: &RegisteredHost, sessions: &[TimedSession]) -> Result<Written, CentralError> {
    let texts = |of: fn(&Session) -> &str| sessions.iter().map(|s| of(s)).collect::<Vec<_>>();
    let options = |of: fn(&Session) -> Option<&str>| sessions.iter().map(|s| of(s)).collect::<Vec<_>>();
    let moments = |of: fn(&Session) -> Timestamp| sessions.iter().map(|s| of(s).micros()).collect::<Vec<_>>();
    let heartbeats = moments(|s| s.last_heartbeat);
    link.allow_for(sessions.iter().map(|s| s.size()).sum());
    let query = sqlx::query(UPSERT.as_str())
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
        .bind(me.former_names.iter().map(MachineName::as_str).collect::<Vec<_>>())
        .bind(sessions.iter().map(|s| s.times.to_json()).collect::<Vec<_>>())
        .bind(sessions.iter().map(|s| s.times.newest().map_or(0, Timestamp::micros)).collect::<Vec<_>>());
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
        link.rows(sqlx::query(UNSTAMP).bind(texts(id)).bind(heartbeats)).await?;
    }
    Ok(written)
}

/// Was the heartbeat stamped "now" although it was pushed with an earlier time?
fn was_stamped(row: &PgRow, pushed: Option<Timestamp>) -> Result<bool, CentralError> {
    let now: Option<i64> = column(row, 2)?;
    Ok(now.is_some_and(|now| pushed.is_some_and(|at| at.micros() < now)))
}

/// Under which machine, and as of when, central has the sessions that it did not let be written.
async fn whose(link: &mut Link, ids: &[&str]) -> Result<HashMap<String, (String, Timestamp)>, CentralError> {
    let rows = link.rows(sqlx::query(WHOSE).bind(ids)).await?;
    rows.iter().map(|row| Ok((column(row, 0)?, (column(row, 1)?, Timestamp::from_micros(column(row, 2)?))))).collect()
}

fn id(session: &Session) -> &str {
    session.instance_id.as_str()
}
