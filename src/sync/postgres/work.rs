//! Writes and reads `session_work`: what sessions do and work on.
//!
//! It is written in the transaction that writes the sessions. An error that only this table raises, such as that of a
//! trigger, must not keep sessions back: the statement has a savepoint of its own, and its rows are offered again with
//! the next change of their sessions. Where the table does not exist or this login may not use it, nothing is sent.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};

use super::activity;
use super::link::Link;
use super::parameters::OptionalColumn;
use super::pull::bind_position;
use super::pull::page::{last_key, skip, skip_row, timestamp, value};
use super::registered_host::RegisteredHost;
use super::sql;
use crate::domain::activity::{Activity, ActivitySource, ActivityState, WaitingFor};
use crate::domain::agent::{AgentKind, AgentName};
use crate::domain::mirror::{ChangePage, PullPosition, PullQuery};
use crate::domain::work::WorkSnapshot;
use crate::domain::{InstanceId, SessionWork, TableState, TimedSession, Timestamp};
use crate::sync::central::{CentralError, RowOutcome};

/// Writes the work of the sessions that were stored, and corrects their outcomes if central does not accept it.
pub(super) async fn push(
    link: &mut Link,
    host: &RegisteredHost,
    sessions: &[TimedSession],
    outcomes: &mut [RowOutcome],
) -> Result<(), CentralError> {
    let sent = sessions.iter().zip(outcomes.iter()).filter(|(_, outcome)| outcome.has_work());
    let work: Vec<_> = sent.filter_map(|(session, _)| Some((session.work.as_deref()?, session))).collect();
    if work.is_empty() {
        return Ok(());
    }
    let mut stored = match host.shapes.tables.work {
        TableState::Usable => upsert(link, &work, host.shapes.tables.work_has_agent).await?,
        _ => false,
    };
    if stored && host.shapes.tables.activity == TableState::Usable {
        let work: Vec<_> = work.iter().map(|(work, _)| *work).collect();
        stored = activity::push(link, &work).await?;
    }
    if !stored {
        for (session, outcome) in sessions.iter().zip(outcomes) {
            if session.work.is_some() && *outcome == RowOutcome::Stored {
                *outcome = RowOutcome::StoredWithoutWork;
            }
        }
    }
    Ok(())
}

/// Returns false if central does not accept the rows.
async fn upsert(
    link: &mut Link,
    work: &[(&SessionWork, &TimedSession)],
    has_agent: bool,
) -> Result<bool, CentralError> {
    link.savepoint().await?;
    match write(link, work, has_agent).await {
        Ok(()) => {
            link.release().await?;
            Ok(true)
        }
        Err(error @ (CentralError::Reject(_) | CentralError::Refused(_))) => {
            tracing::warn!(%error, "central does not accept what sessions do and work on; the sessions are pushed without");
            link.undo().await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn write(
    link: &mut Link,
    sessions: &[(&SessionWork, &TimedSession)],
    has_agent: bool,
) -> Result<(), CentralError> {
    let work: Vec<_> = sessions.iter().map(|(work, _)| *work).collect();
    let summaries: Vec<_> = work.iter().map(|work| work.summary()).collect();
    let activities: Vec<_> = work.iter().map(|work| work.activity.as_ref()).collect();
    let snapshots: Vec<_> = work.iter().map(|work| work.snapshot.to_json()).collect();
    link.allow_for(work.iter().map(|work| work.size()).sum());
    let mut query = sqlx::query(if has_agent { sql::UPSERT_WORK_WITH_AGENT } else { sql::UPSERT_WORK })
        .bind(work.iter().map(|work| work.instance_id.as_str()).collect::<Vec<_>>())
        .bind(activities.iter().map(|a| a.map(|a| a.state.as_str())).collect::<Vec<_>>())
        .bind(activities.iter().map(|a| a.and_then(|a| a.waiting_for).map(WaitingFor::as_str)).collect::<Vec<_>>())
        .bind(activities.iter().map(|a| a.and_then(|a| a.detail.as_deref())).collect::<Vec<_>>())
        .bind(activities.iter().map(|a| a.map(|a| a.since.micros())).collect::<Vec<_>>())
        .bind(activities.iter().map(|a| a.map(|a| a.source.as_str())).collect::<Vec<_>>())
        .bind(work.iter().map(|work| work.kind.map(AgentKind::as_str)).collect::<Vec<_>>())
        .bind(summaries.iter().map(|summary| summary.title.as_deref()).collect::<Vec<_>>())
        .bind(summaries.iter().map(|summary| summary.repository.as_deref()).collect::<Vec<_>>())
        .bind(summaries.iter().map(|summary| summary.branch.as_deref()).collect::<Vec<_>>())
        .bind(summaries.iter().map(|summary| summary.worktree.as_deref()).collect::<Vec<_>>())
        .bind(summaries.iter().map(|summary| summary.model.as_deref()).collect::<Vec<_>>())
        .bind(summaries.iter().map(|summary| summary.cost_usd).collect::<Vec<_>>())
        .bind(snapshots)
        .bind(work.iter().map(|work| work.recorded_at.micros()).collect::<Vec<_>>())
        .bind(work.iter().map(|work| work.activity_ended).collect::<Vec<_>>());
    if has_agent {
        let id = |(work, session): &(&SessionWork, &TimedSession)| {
            session.session.claude_session_uuid.clone().filter(|_| work.agent.is_some())
        };
        query = query
            .bind(work.iter().map(|work| work.agent.map(AgentName::as_str)).collect::<Vec<_>>())
            .bind(sessions.iter().map(id).collect::<Vec<_>>())
            .bind(summaries.iter().map(|summary| summary.agent_version.as_deref()).collect::<Vec<_>>());
    }
    link.rows(query).await?;
    Ok(())
}

/// A snapshot may have 16 KiB, so that a page has fewer of them than of sessions.
const ROWS_PER_SNAPSHOT: u32 = 16;

/// How many rows of work a page has at most.
pub(super) fn rows(reading: &PullQuery) -> u32 {
    (reading.page.rows / ROWS_PER_SNAPSHOT).max(1)
}

/// Reads the work of these sessions, and all changes of their activities.
pub(super) async fn of_sessions(
    link: &mut Link,
    host: &RegisteredHost,
    ids: &[String],
    unreadable: &mut u64,
) -> Result<Vec<SessionWork>, CentralError> {
    if host.shapes.tables.work != TableState::Usable {
        return Ok(Vec::new());
    }
    let sql = with_columns(sql::WORK_BY_ID, host, 0);
    let rows = link.rows(sqlx::query(AssertSqlSafe(sql)).bind(ids)).await?;
    Ok(read_all(&rows, unreadable))
}

/// Reads the part of a page that has work.
pub(super) async fn pull(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    let limit = rows(reading);
    let sql = if reading.is_whole() { sql::ALL_WORK } else { sql::CHANGED_WORK };
    let query = sqlx::query(AssertSqlSafe(with_columns(sql, host, reading.since)));
    let rows = link.rows(bind(query, host, reading, position, limit)).await?;
    changes.work.extend(read_all(&rows, &mut changes.unreadable));
    Ok(last_key(&rows, limit, 0, 9)?.map(|key| position.behind(key)))
}

/// Skips the work of the one session of a page.
pub(super) async fn skip_one(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    let keys = sqlx::query(if reading.is_whole() { sql::ALL_WORK_KEYS } else { sql::CHANGED_WORK_KEYS });
    skip_row(link, bind(keys, host, reading, position, 1), position, "the work of a session", changes).await
}

fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    host: &'q RegisteredHost,
    reading: &'q PullQuery,
    position: &'q PullPosition,
    limit: u32,
) -> Query<'q, Postgres, PgArguments> {
    if !reading.is_whole() {
        return bind_position(query, host, reading, position, limit);
    }
    let query = query.bind(&position.instance_id).bind(i64::from(limit));
    query.bind(reading.scope.projects()).bind(host.names())
}

/// A statement that reads work, with the columns that central has, and the changes since a transaction.
fn with_columns(statement: &str, host: &RegisteredHost, since: u64) -> String {
    let tables = &host.shapes.tables;
    let changes = match tables.activity {
        TableState::Usable => activity::of_work(since),
        _ => "NULL::text".to_owned(),
    };
    OptionalColumn::AGENT.insert(statement, tables.work_has_agent).replace("CHANGES", &changes)
}

/// Rows that cannot be read are counted and left out.
fn read_all(rows: &[PgRow], unreadable: &mut u64) -> Vec<SessionWork> {
    let mut work = Vec::with_capacity(rows.len());
    for row in rows {
        match read(row, unreadable) {
            Ok(of_session) => work.push(of_session),
            Err(why) => skip("the work of a session", &why, unreadable),
        }
    }
    work
}

fn read(row: &PgRow, unreadable: &mut u64) -> Result<SessionWork, String> {
    let text = |index| value::<Option<String>>(row, index);
    let snapshot = text(7)?.and_then(|json| WorkSnapshot::from_foreign_json(&json)).unwrap_or_default();
    let work = SessionWork {
        instance_id: InstanceId::parse(&value::<String>(row, 0)?).map_err(|error| error.to_string())?,
        activity: activity(row)?,
        activity_ended: value(row, 10)?,
        kind: text(6)?.as_deref().and_then(AgentKind::parse),
        agent: text(11)?.as_deref().map(AgentName::from_foreign),
        snapshot,
        recorded_at: timestamp(row, 8)?,
        changes: text(12)?.map_or_else(Vec::new, |json| activity::changes(&json, unreadable)),
    };
    Ok(work.with_safe_text())
}

/// An activity of a later version, with words that are not known here, counts as none.
fn activity(row: &PgRow) -> Result<Option<Activity>, String> {
    let text = |index| value::<Option<String>>(row, index);
    let state = text(1)?.as_deref().and_then(|state| ActivityState::parse(state).ok());
    let source = text(5)?.as_deref().and_then(ActivitySource::parse);
    let since = value::<Option<i64>>(row, 4)?.map(Timestamp::from_micros);
    let (Some(state), Some(source), Some(since)) = (state, source, since) else { return Ok(None) };
    let waiting_for = text(2)?.as_deref().and_then(|what| WaitingFor::parse(what).ok());
    Ok(Some(Activity { state, waiting_for, detail: text(3)?, since, source }))
}
