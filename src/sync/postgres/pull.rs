//! Reads what changed in central: deletions, then sessions, then those that left the scope, then the work and the history of
//! sessions.
//!
//! A pull goes page by page, each in a transaction of its own. A page ends with the first part that returned rows, or
//! that is not read to its end, so that a pull that finds nothing is one page.
//!
//! **Position**: each row has the number of the transaction that changed it last. A pull reads from its position up to the
//! newest transaction that has begun, and the next pull starts at the oldest transaction that was still running: what
//! commits late is read then. The upper bound matters where a database was restored into a cluster that numbers its
//! transactions lower: rows from before the restore have numbers above it. A pull of everything goes by id instead, which
//! no change moves.
//!
//! A transaction that runs for long keeps the position where it is. What was read since is not read again: the snapshot in
//! which a pull began names the transactions that had ended by then, and the next pull leaves out what they changed.
//!
//! **Scope**: only sessions of some projects may be wanted. A row leaves or enters the scope when another client changes its
//! project, of which the row keeps a mark for ever (`column_times`): such rows are read as deleted when they change out of
//! scope, and with all their work and history when they change in scope.
//!
//! **Failure**: rows of other clients that cannot be read are counted and skipped. A row that the server itself cannot
//! send fails the page; the driver halves the page until the row is alone, and then only its key is read.

pub(super) mod history;
pub(super) mod page;

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use self::page::{Next, last_key, skip, timestamp, value};
use super::link::{Link, column};
use super::registered_host::RegisteredHost;
use super::{sql, work};
use crate::domain::mirror::{
    ChangePage, Continuation, DeletedSession, HistoryReading, PullPart, PullPosition, PullQuery, Transactions,
};
use crate::domain::{
    ColumnTimes, InstanceId, InstanceType, MachineName, MirrorScope, Project, Session, Status, TimedSession, Timestamp,
};
use crate::sync::central::CentralError;

pub(super) async fn pull(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
) -> Result<ChangePage, CentralError> {
    link.begin().await?;
    let changes = match page(link, host, reading).await {
        // The server cannot send this one row.
        Err(CentralError::Reject(_)) if reading.page.rows == 1 => {
            link.rollback().await?;
            link.begin().await?;
            skip_row(link, host, reading).await?
        }
        changes => changes?,
    };
    link.commit().await?;
    Ok(changes)
}

/// Reads one part after the other, up to the first that returns rows or is not read to its end.
async fn page(link: &mut Link, host: &RegisteredHost, reading: &PullQuery) -> Result<ChangePage, CentralError> {
    let mut changes = ChangePage { rest: Continuation::Restart, ..ChangePage::default() };
    let mut position = match begin(link, reading, &mut changes).await? {
        Some(position) => position,
        None => return Ok(changes),
    };
    let mut entered = Vec::new();
    let rest = loop {
        let found = !changes.is_empty();
        let next = match position.part {
            PullPart::Deletions => deletions(link, host, reading, &position, &mut changes).await?,
            PullPart::Sessions => sessions(link, host, reading, &position, &mut entered, &mut changes).await?,
            PullPart::OutOfScope => out_of_scope(link, host, reading, &position, &mut changes).await?,
            // If the page already has rows, a slow query for history is left to the next page.
            PullPart::Work => work::pull(link, host, reading, &position, &mut changes).await?,
            PullPart::History if reading.history == HistoryReading::OnDemand => Next::End,
            PullPart::History => history::read(link, host, reading, &position, found, &mut changes).await?,
        };
        match next {
            Next::Part(part) => position = PullPosition::start(part, reading.since, position.next_since),
            Next::Page(position) => break Continuation::More(position),
            Next::End => break Continuation::Complete { next_since: position.next_since },
        }
    };
    if !entered.is_empty() {
        changes.work.extend(work::of_sessions(link, host, &entered, &mut changes.unreadable).await?);
    }
    Ok(ChangePage { rest, ..changes })
}

/// Where a page begins; `None` if the position belongs to higher transaction numbers than central has.
async fn begin(
    link: &mut Link,
    reading: &PullQuery,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    if let Some(after) = &reading.after {
        return Ok(Some(after.clone()));
    }
    let (next_since, snapshot) = oldest_transaction(link).await?;
    if reading.since > next_since {
        return Ok(None);
    }
    changes.snapshot = snapshot;
    Ok(Some(PullPosition::start(reading.position().0, reading.since, next_since)))
}

async fn oldest_transaction(link: &mut Link) -> Result<(u64, Option<Transactions>), CentralError> {
    match link.rows(sqlx::query(sql::OLDEST_TRANSACTION)).await?.first() {
        Some(row) => Ok((column::<i64>(row, 0)?.unsigned_abs(), Transactions::parse(&column::<String>(row, 1)?))),
        None => Err(CentralError::Retry("central did not return its oldest transaction".into())),
    }
}

/// The transactions whose changes were read by the pull before, as a `pg_snapshot`. None: one in which no transaction is.
fn read_before(reading: &PullQuery) -> String {
    reading.read.as_ref().map_or_else(|| "1:1:".to_owned(), Transactions::to_snapshot)
}

async fn deletions(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    changes: &mut ChangePage,
) -> Result<Next, CentralError> {
    let query = sqlx::query(sql::DELETED_SESSIONS).bind(position.transaction.to_string()).bind(&position.instance_id);
    let query = query.bind(i64::from(reading.page.rows)).bind(read_before(reading));
    let rows = link.rows(query.bind(reading.scope.projects()).bind(host.names())).await?;
    add_gone(&rows, changes);
    Ok(match last_key(&rows, reading.page.rows, 0, 2)? {
        Some((instance_id, transaction)) => Next::Page(PullPosition { transaction, instance_id, ..position.clone() }),
        None => Next::Part(PullPart::Sessions),
    })
}

/// Adds what deletions and sessions that left the scope have in common.
fn add_gone(rows: &[PgRow], changes: &mut ChangePage) {
    for row in rows {
        match gone(row) {
            Ok(gone) => changes.gone.push(gone),
            Err(why) => skip("a deletion", &why, &mut changes.unreadable),
        }
    }
}

/// Reads sessions. `entered`: gets those that may be new in the scope.
async fn sessions(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    entered: &mut Vec<String>,
    changes: &mut ChangePage,
) -> Result<Next, CentralError> {
    let query = if reading.is_whole() {
        all(sql::ALL_SESSIONS, host, reading, position)
    } else {
        changed(sql::CHANGED_SESSIONS, host, reading, position)
    };
    let mut rows = link.rows(query).await?;
    let mut limit = reading.page.rows;
    if !reading.is_whole() && has_projects(reading) {
        let is_moved = |row: &PgRow| column::<bool>(row, MOVED).unwrap_or(false);
        let of_work = work::rows(reading) as usize;
        if let Some((last, _)) = rows.iter().enumerate().filter(|(_, row)| is_moved(row)).nth(of_work - 1) {
            rows.truncate(last + 1);
            limit = limit.min(rows.len() as u32);
        }
        entered.extend(rows.iter().filter(|row| is_moved(row)).filter_map(|row| column::<String>(row, 0).ok()));
    }
    for row in &rows {
        match session(row) {
            Ok(session) => changes.sessions.push(session),
            // Other clients may write values that sessiond does not allow.
            Err(why) => skip("a session", &why, &mut changes.unreadable),
        }
    }
    Ok(match last_key(&rows, limit, 0, 14)? {
        Some((instance_id, transaction)) => Next::Page(PullPosition { transaction, instance_id, ..position.clone() }),
        None => Next::Part(PullPart::OutOfScope),
    })
}

/// The column of a changed session that says whether its project was ever changed.
const MOVED: usize = 17;

/// Whether sessions of some projects are mirrored, so that some may leave or enter the scope.
fn has_projects(reading: &PullQuery) -> bool {
    matches!(reading.scope, MirrorScope::Projects(_))
}

/// Reads the keys of sessions that may have left the scope. Pages of everything leave out what is not in scope.
async fn out_of_scope(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    changes: &mut ChangePage,
) -> Result<Next, CentralError> {
    if reading.is_whole() || !has_projects(reading) {
        return Ok(Next::Part(PullPart::Work));
    }
    let query = sqlx::query(sql::OUT_OF_SCOPE_SESSIONS)
        .bind(position.transaction.to_string())
        .bind(&position.instance_id)
        .bind(i64::from(reading.page.rows))
        .bind(read_before(reading))
        .bind(reading.scope.projects())
        .bind(host.names());
    let rows = link.rows(query).await?;
    add_gone(&rows, changes);
    Ok(match last_key(&rows, reading.page.rows, 0, 2)? {
        Some((instance_id, transaction)) => Next::Page(PullPosition { transaction, instance_id, ..position.clone() }),
        None => Next::Part(PullPart::Work),
    })
}

/// A statement that reads all sessions by id, or their keys.
fn all<'q>(
    sql: &'static str,
    host: &'q RegisteredHost,
    reading: &'q PullQuery,
    position: &'q PullPosition,
) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(&position.instance_id)
        .bind(i64::from(reading.page.rows))
        .bind(host.names())
        .bind(reading.scope.projects())
}

/// A statement that reads changed sessions, or their keys.
fn changed<'q>(
    sql: &'static str,
    host: &'q RegisteredHost,
    reading: &'q PullQuery,
    position: &'q PullPosition,
) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(position.transaction.to_string())
        .bind(&position.instance_id)
        .bind(i64::from(reading.page.rows))
        .bind(host.host_id)
        .bind(host.names())
        .bind(reading.since.to_string())
        .bind(read_before(reading))
        .bind(reading.scope.projects())
}

/// Binds what a statement that reads changed histories or work is given, for at most `limit` rows behind the position.
pub(super) fn bind_position<'q>(
    query: Query<'q, Postgres, PgArguments>,
    host: &'q RegisteredHost,
    reading: &'q PullQuery,
    position: &'q PullPosition,
    limit: u32,
) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(position.transaction.to_string())
        .bind(&position.instance_id)
        .bind(i64::from(limit))
        .bind(host.host_id)
        .bind(read_before(reading))
        .bind(reading.scope.projects())
        .bind(host.names())
}

/// Skips the one row of a page, reading only its key.
async fn skip_row(link: &mut Link, host: &RegisteredHost, reading: &PullQuery) -> Result<ChangePage, CentralError> {
    let mut changes = ChangePage { rest: Continuation::Restart, ..ChangePage::default() };
    let Some(mut position) = begin(link, reading, &mut changes).await? else { return Ok(changes) };
    if position.part == PullPart::Deletions {
        if let Next::Page(next) = deletions(link, host, reading, &position, &mut changes).await? {
            return Ok(ChangePage { rest: Continuation::More(next), ..changes });
        }
        position = PullPosition::start(PullPart::Sessions, reading.since, position.next_since);
    }
    if position.part == PullPart::Sessions {
        let query = if reading.is_whole() {
            all(sql::ALL_SESSION_KEYS, host, reading, &position)
        } else {
            changed(sql::CHANGED_SESSION_KEYS, host, reading, &position)
        };
        let rows = link.rows(query).await?;
        if let Some((instance_id, transaction)) = last_key(&rows, 1, 0, 1)? {
            skip("a session", &instance_id, &mut changes.unreadable);
            let rest = Continuation::More(PullPosition { transaction, instance_id, ..position });
            return Ok(ChangePage { rest, ..changes });
        }
        position = PullPosition::start(PullPart::OutOfScope, reading.since, position.next_since);
    }
    if position.part == PullPart::OutOfScope {
        if let Next::Page(next) = out_of_scope(link, host, reading, &position, &mut changes).await? {
            return Ok(ChangePage { rest: Continuation::More(next), ..changes });
        }
        position = PullPosition::start(PullPart::History, reading.since, position.next_since);
    }
    let next = match reading.history {
        HistoryReading::OnDemand => Next::End,
        HistoryReading::Ahead => history::skip_one(link, host, reading, &position, &mut changes).await?,
    };
    let rest = match next {
        Next::Page(position) => Continuation::More(position),
        _ => Continuation::Complete { next_since: position.next_since },
    };
    Ok(ChangePage { rest, ..changes })
}

fn gone(row: &PgRow) -> Result<DeletedSession, String> {
    Ok(DeletedSession { instance_id: value(row, 0)?, created_at: timestamp(row, 1)? })
}

/// Reads a session by the columns that all statements of sessions have.
pub(super) fn session(row: &PgRow) -> Result<TimedSession, String> {
    let text = |index| value::<String>(row, index);
    let option = |index| value::<Option<String>>(row, index);
    let invalid = |error: crate::domain::Invalid| error.to_string();
    let percent: Option<i32> = value(row, 4)?;
    let times = option(15)?.map_or_else(ColumnTimes::default, |times| ColumnTimes::from_json(&times));
    let session = Session {
        instance_id: InstanceId::parse(&text(0)?).map_err(invalid)?,
        project: Project::parse(&text(1)?).map_err(invalid)?,
        instance_type: InstanceType::parse(&text(2)?).map_err(invalid)?,
        status: Status::parse(&text(3)?).map_err(invalid)?,
        context_percent: u8::try_from(percent.unwrap_or(0)).unwrap_or(0),
        current_epic: option(5)?,
        last_heartbeat: timestamp(row, 6)?,
        created_at: timestamp(row, 7)?,
        closed_at: value::<Option<i64>>(row, 8)?.map(Timestamp::from_micros),
        host_machine: MachineName::parse(&text(9)?).map_err(invalid)?,
        claude_session_uuid: option(10)?,
        claude_session_path: option(11)?,
        resumed_from: option(12)?.as_deref().and_then(|id| InstanceId::parse(id).ok()),
        working_dir: option(13)?,
    };
    Ok(TimedSession { times, vouched_by: value(row, 16)?, ..TimedSession::untimed(session.with_safe_text()) })
}
