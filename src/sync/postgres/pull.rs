//! Reading what changed in central: deletions, then sessions, then what happened in sessions.
//!
//! A reading goes page by page, each a transaction of its own; a page ends where one part is not yet read to its end,
//! so that a reading that finds nothing is one page. What changed is asked for by the transaction that changed it, from
//! the position of the reading up to the newest transaction that has begun. The upper bound matters where a database was
//! restored into a cluster that numbers its transactions lower: rows from before bear numbers of the other cluster, all
//! above it. A reading of everything goes by id instead, which no change moves.
//!
//! Rows of other clients that cannot be read are counted and passed over.

use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Type};

use super::link::{Link, column};
use super::{Me, micros};
use crate::domain::mirror::{Changes, Gone, HostSeen, Part, Position, Reading, Rest};
use crate::domain::{
    ColumnTimes, InstanceId, InstanceType, MachineName, Project, Session, Status, TimedSession, Timestamp,
};
use crate::sync::central::CentralError;

/// Any transaction that is not yet seen here is at least as new as this.
const OLDEST_RUNNING: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";

/// No transaction of this cluster that has begun is newer.
macro_rules! begun {
    () => {
        "changed_xid < pg_snapshot_xmax(pg_current_snapshot())"
    };
}

mod history;

/// A path that is longer than any file system's is left out.
macro_rules! path {
    ($column:literal) => {
        concat!("CASE WHEN octet_length(", $column, ") <= 8192 THEN ", $column, " END")
    };
}

macro_rules! page {
    ($of:expr) => {
        concat!(
            // As text: somebody may have made an enum of a column, and a type that is not built in takes sqlx statements
            // of its own, which replace the unnamed one.
            "SELECT instance_id::text, project::text, instance_type::text, status::text, context_percent, \
                 current_epic::text, ",
            micros!("last_heartbeat"),
            ", ",
            micros!("created_at"),
            ", ",
            micros!("closed_at"),
            ", host_machine::text, claude_session_uuid::text, ",
            path!("claude_session_path"),
            ", resumed_from::text, ",
            path!("working_dir"),
            ", changed_xid::text::bigint, CASE WHEN host_machine = ANY($5) THEN coalesce(column_times::text, \
                 json_build_object('other', ",
            micros!("last_heartbeat"),
            ")::text) END FROM supervisor_sessions ",
            $of
        )
    };
}

macro_rules! all {
    () => {
        "WHERE instance_id > $2 AND ($1::text, $4::uuid, $5::text[], $6::text) IS NOT NULL ORDER BY instance_id LIMIT $3"
    };
}

/// What changed, but for what this host alone changed of its own sessions.
macro_rules! changed {
    () => {
        concat!(
            "WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND ",
            begun!(),
            " AND (changed_by IS DISTINCT FROM $4 OR host_machine <> ALL($5) OR (others_xid >= $6::text::xid8 \
                 AND others_xid < pg_snapshot_xmax(pg_current_snapshot()))) \
             ORDER BY changed_xid, instance_id LIMIT $3"
        )
    };
}

const ALL: &str = page!(all!());
const CHANGED: &str = page!(changed!());
/// Only where the rows stand, for a page that the server cannot send.
const ALL_KEYS: &str = concat!("SELECT instance_id, changed_xid::text::bigint FROM supervisor_sessions ", all!());
const CHANGED_KEYS: &str =
    concat!("SELECT instance_id, changed_xid::text::bigint FROM supervisor_sessions ", changed!());

/// A session that is there was brought back, whatever number its deletion bears.
const GONE: &str = concat!(
    "SELECT instance_id, ",
    micros!("created_at"),
    ", changed_xid::text::bigint FROM sessiond_tombstones t WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND ",
    begun!(),
    " AND NOT EXISTS (SELECT FROM supervisor_sessions s \
         WHERE s.instance_id = t.instance_id AND s.created_at = t.created_at) \
     ORDER BY changed_xid, instance_id LIMIT $3"
);

const HOSTS: &str =
    concat!("SELECT machine_name::text, ", micros!("last_seen"), " FROM sessiond_hosts WHERE retired_at IS NULL");

pub(super) async fn pull(link: &mut Link, me: &Me, reading: &Reading) -> Result<Changes, CentralError> {
    link.begin().await?;
    let changes = match page(link, me, reading).await {
        // The server cannot send this one row, whatever is in it.
        Err(CentralError::Reject(_)) if reading.page.rows == 1 => {
            link.rollback().await?;
            link.begin().await?;
            pass_over(link, me, reading).await?
        }
        changes => changes?,
    };
    link.commit().await?;
    Ok(changes)
}

/// One part after the other, up to the first that brings something or is not read to its end.
async fn page(link: &mut Link, me: &Me, reading: &Reading) -> Result<Changes, CentralError> {
    let mut changes = Changes { rest: Rest::Everything, ..Changes::default() };
    let mut position = match begin(link, reading).await? {
        Some(position) => position,
        None => return Ok(changes),
    };
    loop {
        let found = changes.sessions.len() + changes.gone.len() > 0;
        let next = match position.part {
            Part::Deletions => deletions(link, reading, &position, &mut changes).await?,
            Part::Sessions => sessions(link, me, reading, &position, &mut changes).await?,
            // What this page already holds is not put at risk by a long look-up.
            Part::History => history::read(link, me, reading, &position, found, &mut changes).await?,
        };
        match next {
            Next::Part(part) => position = Position::start(part, reading.since, position.next_since),
            Next::Page(position) => return Ok(Changes { rest: Rest::More(position), ..changes }),
            Next::End => return Ok(Changes { rest: Rest::Nothing { next_since: position.next_since }, ..changes }),
        }
    }
}

/// What follows a part of a page.
enum Next {
    /// It is read to its end.
    Part(Part),
    /// The page is full.
    Page(Position),
    /// So is everything.
    End,
}

/// Where a page begins; none if what was read before is no measure for this central.
async fn begin(link: &mut Link, reading: &Reading) -> Result<Option<Position>, CentralError> {
    if let Some(after) = &reading.after {
        return Ok(Some(after.clone()));
    }
    let next_since = oldest_running(link).await?;
    let part = reading.position().0;
    Ok((reading.since <= next_since).then(|| Position::start(part, reading.since, next_since)))
}

async fn oldest_running(link: &mut Link) -> Result<u64, CentralError> {
    match link.rows(sqlx::query(OLDEST_RUNNING)).await?.first() {
        Some(row) => Ok(column::<i64>(row, 0)?.unsigned_abs()),
        None => Err(CentralError::Retry("central does not tell which transactions run".into())),
    }
}

async fn deletions(
    link: &mut Link,
    reading: &Reading,
    position: &Position,
    changes: &mut Changes,
) -> Result<Next, CentralError> {
    let query = sqlx::query(GONE).bind(position.transaction.to_string()).bind(&position.instance_id);
    let rows = link.rows(query.bind(i64::from(reading.page.rows))).await?;
    for row in &rows {
        match gone(row) {
            Ok(gone) => changes.gone.push(gone),
            Err(why) => passed_over("a deletion", &why, changes),
        }
    }
    Ok(match last(&rows, reading.page.rows, 0, 2)? {
        Some((instance_id, transaction)) => Next::Page(Position { transaction, instance_id, ..position.clone() }),
        None => Next::Part(Part::Sessions),
    })
}

async fn sessions(
    link: &mut Link,
    me: &Me,
    reading: &Reading,
    position: &Position,
    changes: &mut Changes,
) -> Result<Next, CentralError> {
    let rows = rows_of_sessions(link, me, reading, position, if reading.is_whole() { ALL } else { CHANGED }).await?;
    for row in &rows {
        match session(row) {
            Ok(session) => changes.sessions.push(session),
            // Other clients may hold to other rules.
            Err(why) => passed_over("a session", &why, changes),
        }
    }
    Ok(match last(&rows, reading.page.rows, 0, 14)? {
        Some((instance_id, transaction)) => Next::Page(Position { transaction, instance_id, ..position.clone() }),
        None => Next::Part(Part::History),
    })
}

async fn rows_of_sessions(
    link: &mut Link,
    me: &Me,
    reading: &Reading,
    position: &Position,
    sql: &'static str,
) -> Result<Vec<PgRow>, CentralError> {
    let query = sqlx::query(sql)
        .bind(position.transaction.to_string())
        .bind(&position.instance_id)
        .bind(i64::from(reading.page.rows))
        .bind(me.host_id)
        .bind(me.names())
        .bind(reading.since.to_string());
    link.rows(query).await
}

/// Goes past the one row of a page, without reading what is in it.
async fn pass_over(link: &mut Link, me: &Me, reading: &Reading) -> Result<Changes, CentralError> {
    let mut changes = Changes { rest: Rest::Everything, ..Changes::default() };
    let Some(mut position) = begin(link, reading).await? else { return Ok(changes) };
    if position.part == Part::Deletions {
        if let Next::Page(next) = deletions(link, reading, &position, &mut changes).await? {
            return Ok(Changes { rest: Rest::More(next), ..changes });
        }
        position = Position::start(Part::Sessions, reading.since, position.next_since);
    }
    if position.part == Part::Sessions {
        let keys = if reading.is_whole() { ALL_KEYS } else { CHANGED_KEYS };
        let rows = rows_of_sessions(link, me, reading, &position, keys).await?;
        if let Some((instance_id, transaction)) = last(&rows, 1, 0, 1)? {
            passed_over("a session", &instance_id, &mut changes);
            let rest = Rest::More(Position { transaction, instance_id, ..position });
            return Ok(Changes { rest, ..changes });
        }
        position = Position::start(Part::History, reading.since, position.next_since);
    }
    let next = history::pass_over(link, me, reading, &position, &mut changes).await?;
    let rest = match next {
        Next::Page(position) => Rest::More(position),
        _ => Rest::Nothing { next_since: position.next_since },
    };
    Ok(Changes { rest, ..changes })
}

fn passed_over(what: &str, why: &str, changes: &mut Changes) {
    tracing::debug!(why, "{what} in central cannot be read and is passed over");
    changes.unreadable += 1;
}

/// Where the next page begins, if this one is full.
fn last(rows: &[PgRow], full: u32, id: usize, transaction: usize) -> Result<Option<(String, u64)>, CentralError> {
    match rows.last() {
        Some(row) if rows.len() >= full as usize => {
            Ok(Some((column(row, id)?, column::<i64>(row, transaction)?.unsigned_abs())))
        }
        _ => Ok(None),
    }
}

/// A column of a row that anybody may have written; what is wrong with it concerns this row alone.
fn value<'r, T>(row: &'r PgRow, index: usize) -> Result<T, String>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    column(row, index).map_err(|error| error.to_string())
}

fn moment(row: &PgRow, index: usize) -> Result<Timestamp, String> {
    value(row, index).map(Timestamp::from_micros)
}

fn gone(row: &PgRow) -> Result<Gone, String> {
    Ok(Gone { instance_id: value(row, 0)?, created_at: moment(row, 1)? })
}

fn session(row: &PgRow) -> Result<TimedSession, String> {
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
        last_heartbeat: moment(row, 6)?,
        created_at: moment(row, 7)?,
        closed_at: value::<Option<i64>>(row, 8)?.map(Timestamp::from_micros),
        host_machine: MachineName::parse(&text(9)?).map_err(invalid)?,
        claude_session_uuid: option(10)?,
        claude_session_path: option(11)?,
        resumed_from: option(12)?.as_deref().and_then(|id| InstanceId::parse(id).ok()),
        working_dir: option(13)?,
    };
    Ok(TimedSession { session: session.with_safe_text(), times })
}

/// The daemons that central knows of. A name that none of ours may have is passed over.
pub(super) async fn hosts(link: &mut Link) -> Result<Vec<HostSeen>, CentralError> {
    link.begin().await?;
    let rows = link.rows(sqlx::query(HOSTS)).await?;
    link.commit().await?;
    Ok(rows
        .iter()
        .filter_map(|row| host(row).inspect_err(|why| tracing::debug!(why, "a host is passed over")).ok())
        .collect())
}

fn host(row: &PgRow) -> Result<HostSeen, String> {
    let machine = MachineName::parse(&value::<String>(row, 0)?).map_err(|error| error.to_string())?;
    Ok(HostSeen { machine, last_seen: moment(row, 1)? })
}
