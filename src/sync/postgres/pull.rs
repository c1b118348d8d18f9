//! Reads what changed in central: deletions, then sessions, then those that left the scope, then the work and the history of
//! sessions.
//!
//! A pull goes page by page, each in a transaction of its own. A page ends with the first part that is not read to its
//! end; if it has rows by then, the history is left to the next page. Which parts have rows at all, the first statement of
//! the pull says (`beginning`).
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
//! send fails the page; the driver halves the page until the row is alone. Then it is read once more, and only its key if
//! that fails again: in one snapshot, so that no other row has taken its place.

mod beginning;
pub(super) mod history;
pub(super) mod page;

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use self::beginning::{Beginning, begin};
use self::page::{last_key, skip, skip_row, timestamp, value};
use super::link::{Access, Link, column};
use super::registered_host::RegisteredHost;
use super::{sql, work};
use crate::domain::mirror::{
    ChangePage, Continuation, DeletedSession, HistoryReading, PullPart, PullPosition, PullQuery, Transactions,
};
use crate::domain::{
    ColumnTimes, InstanceId, InstanceType, MachineName, MirrorScope, Project, Session, Status, TimedSession, Timestamp,
};
use crate::sync::central::CentralError;

/// What becomes of a row that the server cannot send.
#[derive(Clone, Copy)]
enum Unsendable {
    /// The page fails.
    FailsPage,
    /// It is skipped: it is the one row of the page.
    IsSkipped,
}

pub(super) async fn pull(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
) -> Result<ChangePage, CentralError> {
    let changes = match page(link, host, reading, Unsendable::FailsPage).await {
        Err(CentralError::Reject(_)) if reading.page.rows == 1 => {
            link.rollback().await?;
            page(link, host, reading, Unsendable::IsSkipped).await?
        }
        changes => changes?,
    };
    link.commit().await?;
    Ok(changes)
}

/// Reads one part after the other, up to the first that is not read to its end.
async fn page(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    unsendable: Unsendable,
) -> Result<ChangePage, CentralError> {
    let mut changes = ChangePage { rest: Continuation::Restart, ..ChangePage::default() };
    let access = match unsendable {
        Unsendable::FailsPage => Access::Read,
        Unsendable::IsSkipped => Access::ReadSnapshot,
    };
    let Some(Beginning { mut position, parts, snapshot }) = begin(link, host, reading, access).await? else {
        return Ok(changes);
    };
    changes.snapshot = snapshot;
    let mut entered = Vec::new();
    changes.rest = loop {
        let next = match (parts.has(position.part), unsendable) {
            (false, _) => None,
            (true, Unsendable::FailsPage) => part(link, host, reading, &position, &mut entered, &mut changes).await?,
            (true, Unsendable::IsSkipped) => row(link, host, reading, &position, &mut entered, &mut changes).await?,
        };
        match (next, position.part.next()) {
            (Some(next), _) => break Continuation::More(next),
            (None, Some(part)) => position = PullPosition::start(part, reading.since, position.next_since),
            (None, None) => break Continuation::Complete { next_since: position.next_since },
        }
    };
    if !entered.is_empty() {
        work_of_entered(link, host, &entered, unsendable, &mut changes).await?;
    }
    Ok(changes)
}

/// Reads the work of sessions that may be new in the scope.
async fn work_of_entered(
    link: &mut Link,
    host: &RegisteredHost,
    ids: &[String],
    unsendable: Unsendable,
    changes: &mut ChangePage,
) -> Result<(), CentralError> {
    link.savepoint().await?;
    match (work::of_sessions(link, host, ids, &mut changes.unreadable).await, unsendable) {
        (Err(CentralError::Reject(why)), Unsendable::IsSkipped) => {
            skip("the work of a session", &why.message, &mut changes.unreadable);
            link.undo().await
        }
        (work, _) => {
            changes.work.extend(work?);
            Ok(())
        }
    }
}

/// Reads rows of a part. Returns where the next page begins, unless the part is read to its end.
async fn part(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    entered: &mut Vec<String>,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    match position.part {
        PullPart::Deletions => deletions(link, host, reading, position, changes).await,
        PullPart::Sessions => sessions(link, host, reading, position, entered, changes).await,
        PullPart::OutOfScope => out_of_scope(link, host, reading, position, changes).await,
        PullPart::Work => work::pull(link, host, reading, position, changes).await,
        PullPart::History if reading.history == HistoryReading::OnDemand => Ok(None),
        PullPart::History => history::read(link, host, reading, position, changes).await,
    }
}

/// The same for a page of one row, which is skipped if the server cannot send it.
async fn row(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    position: &PullPosition,
    entered: &mut Vec<String>,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    let records = changes.history.len();
    link.savepoint().await?;
    let why = match part(link, host, reading, position, entered, changes).await {
        Err(CentralError::Reject(why)) => why,
        next => return next,
    };
    link.undo().await?;
    changes.history.truncate(records);
    match position.part {
        PullPart::Sessions => {
            let keys = select(sql::ALL_SESSION_KEYS, sql::CHANGED_SESSION_KEYS, host, reading, position);
            skip_row(link, keys, position, "a session", changes).await
        }
        PullPart::Work => work::skip_one(link, host, reading, position, changes).await,
        PullPart::History => history::skip_one(link, host, reading, position, changes).await,
        PullPart::Deletions | PullPart::OutOfScope => Err(CentralError::Reject(why)),
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
) -> Result<Option<PullPosition>, CentralError> {
    let query = sqlx::query(sql::DELETED_SESSIONS).bind(position.transaction.to_string()).bind(&position.instance_id);
    let query = query.bind(i64::from(reading.page.rows)).bind(read_before(reading));
    let rows = link.rows(query.bind(reading.scope.projects()).bind(host.names())).await?;
    add_gone(&rows, changes);
    Ok(last_key(&rows, reading.page.rows, 0, 2)?.map(|key| position.behind(key)))
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
) -> Result<Option<PullPosition>, CentralError> {
    let query = select(sql::ALL_SESSIONS, sql::CHANGED_SESSIONS, host, reading, position);
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
    Ok(last_key(&rows, limit, 0, 14)?.map(|key| position.behind(key)))
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
) -> Result<Option<PullPosition>, CentralError> {
    if reading.is_whole() || !has_projects(reading) {
        return Ok(None);
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
    Ok(last_key(&rows, reading.page.rows, 0, 2)?.map(|key| position.behind(key)))
}

/// A statement that reads sessions, or their keys: all of them by id, or those that changed.
fn select<'q>(
    all: &'static str,
    changed: &'static str,
    host: &'q RegisteredHost,
    reading: &'q PullQuery,
    position: &'q PullPosition,
) -> Query<'q, Postgres, PgArguments> {
    if reading.is_whole() {
        let query = sqlx::query(all).bind(&position.instance_id).bind(i64::from(reading.page.rows));
        return query.bind(host.names()).bind(reading.scope.projects());
    }
    sqlx::query(changed)
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
