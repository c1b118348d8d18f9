//! Reading what changed in central: sessions, then what happened in them.

use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::link::{Link, column};
use super::{Me, micros};
use crate::domain::mirror::{Changes, Gone, HostSeen, Part, Position, Reading, Rest};
use crate::domain::text::{safe_fields, safe_line};
use crate::domain::{
    ColumnTimes, HistoryRecord, InstanceId, InstanceType, Invalid, Kind, MachineName, Project, Session, Status,
    TimedSession, Timestamp,
};
use crate::sync::central::CentralError;

/// Rows of one page of sessions.
const SESSIONS: i64 = 1000;
/// Sessions of one page of history, each of which may bring seventy records.
const HISTORIES: i64 = 50;

/// Any transaction that is not yet seen here is at least as new as this.
const OLDEST_RUNNING: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";

macro_rules! page {
    ($of:literal) => {
        concat!(
            "SELECT instance_id, project, instance_type, status, context_percent, current_epic, ",
            micros!("last_heartbeat"),
            ", ",
            micros!("created_at"),
            ", ",
            micros!("closed_at"),
            ", host_machine, claude_session_uuid, claude_session_path, resumed_from, working_dir, \
             changed_xid::text::bigint, CASE WHEN host_machine = ANY($5) THEN coalesce(column_times::text, \
                 json_build_object('other', ",
            micros!("last_heartbeat"),
            ")::text) END FROM supervisor_sessions \
             WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) ",
            $of,
            " ORDER BY changed_xid, instance_id LIMIT $3"
        )
    };
}

/// All there is, also what a restored backup brought of another server's transactions.
const ALL: &str = page!("AND ($4::uuid, $5::text[], $6::text) IS NOT NULL");

/// What changed, but for what this host alone changed of its own sessions.
const CHANGED: &str = page!(
    "AND changed_xid < pg_snapshot_xmax(pg_current_snapshot()) \
     AND (changed_by IS DISTINCT FROM $4 OR host_machine <> ALL($5) OR others_xid >= $6::text::xid8)"
);

const GONE: &str = concat!(
    "SELECT instance_id, ",
    micros!("created_at"),
    " FROM sessiond_tombstones WHERE changed_xid >= $1::text::xid8 ORDER BY changed_xid"
);

/// Sessions in which something new happened, for others than this host alone.
const WITH_NEWS: &str = "\
    SELECT instance_id, changed_xid::text::bigint FROM sessiond_history \
    WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_by IS DISTINCT FROM $4 \
    ORDER BY changed_xid, instance_id LIMIT $3";

/// Sessions that somebody may want to go on with.
const WORTH_KNOWING: &str = "\
    SELECT instance_id, 0::bigint FROM supervisor_sessions \
    WHERE instance_id > $2 AND (status <> 'closed' OR closed_at > now() - interval '7 days') \
        AND ($1::text, $4::uuid) IS NOT NULL \
    ORDER BY instance_id LIMIT $3";

const TABLES: &str = "\
    SELECT to_regclass('event_store') IS NOT NULL, to_regclass('command_log') IS NOT NULL, \
        to_regclass('checkpoints') IS NOT NULL";

/// The longest type of a record, in characters.
const RECORD_TYPE: usize = 64;

/// What is too large to be of use in a summary is left out.
macro_rules! bounded {
    ($column:literal) => {
        concat!("CASE WHEN octet_length(", $column, "::text) <= 65536 THEN ", $column, "::text END")
    };
}

macro_rules! latest {
    ($columns:expr, $table:literal, $order:literal, $limit:literal) => {
        concat!(
            "SELECT wanted.id, r.* FROM unnest($1::text[]) AS wanted (id) CROSS JOIN LATERAL (SELECT ",
            $columns,
            " FROM ",
            $table,
            " WHERE instance_id = wanted.id ORDER BY ",
            $order,
            " DESC LIMIT ",
            $limit,
            ") r"
        )
    };
}

const EVENTS: &str = latest!(
    concat!(
        "event_id, event_type::text, ",
        micros!("timestamp"),
        ", jsonb_build_object('data', (",
        bounded!("event_data"),
        ")::jsonb)::text"
    ),
    "event_store",
    "sequence_num",
    50
);

/// Commands have no key of their own: those that a daemon brought carry one, for others their number serves.
const COMMANDS: &str = latest!(
    concat!(
        "coalesce(substring(context_data->>'record_id' FROM '^[0-9a-f-]{36}$'), \
             'c0ffee00-0000-4000-8000-' || lpad(to_hex(id), 12, '0'))::uuid, command_type::text, ",
        micros!("created_at"),
        ", jsonb_build_object('action', action, 'tool_name', tool_name, 'parameters', (",
        bounded!("parameters"),
        ")::jsonb, 'result', (",
        bounded!("result"),
        ")::jsonb, 'error_message', error_message, 'success', success, 'execution_time_ms', execution_time_ms, \
             'tags', tags)::text"
    ),
    "command_log",
    "id",
    20
);

const CHECKPOINTS: &str = latest!(
    concat!(
        "checkpoint_id, checkpoint_type::text, ",
        micros!("timestamp"),
        ", jsonb_build_object('context_window_percent', context_window_percent, 'work_state', (",
        bounded!("work_state"),
        ")::jsonb)::text"
    ),
    "checkpoints",
    "sequence_num",
    1
);

const HOSTS: &str =
    concat!("SELECT machine_name::text, ", micros!("last_seen"), " FROM sessiond_hosts WHERE retired_at IS NULL");

pub(super) async fn pull(link: &mut Link, me: &Me, reading: &Reading) -> Result<Changes, CentralError> {
    link.begin().await?;
    let changes = match reading.position().0 {
        Part::Sessions => sessions(link, me, reading).await?,
        Part::History => history(link, me, reading).await?,
    };
    link.commit().await?;
    Ok(changes)
}

async fn sessions(link: &mut Link, me: &Me, reading: &Reading) -> Result<Changes, CentralError> {
    let (_, transaction, after) = reading.position();
    let next_since = match &reading.after {
        Some(position) => position.next_since,
        None => oldest_running(link).await?,
    };
    let gone = if reading.after.is_none() && !reading.is_whole() { gone(link, reading.since).await? } else { vec![] };
    let query = sqlx::query(if reading.is_whole() { ALL } else { CHANGED })
        .bind(transaction.to_string())
        .bind(after)
        .bind(SESSIONS)
        .bind(me.host_id)
        .bind(me.names())
        .bind(reading.since.to_string());
    let rows = link.rows(query).await?;
    let mut sessions = Vec::with_capacity(rows.len());
    for row in &rows {
        match session(row)? {
            Ok(session) => sessions.push(session),
            // Other clients may hold to other rules; what cannot be told here is passed over.
            Err(invalid) => tracing::debug!(%invalid, "a session in central is not mirrored"),
        }
    }
    let rest = match last(&rows, SESSIONS, 0, 14)? {
        Some((instance_id, transaction)) => Position { next_since, part: Part::Sessions, transaction, instance_id },
        None => {
            let transaction = reading.since;
            Position { next_since, part: Part::History, transaction, instance_id: String::new() }
        }
    };
    Ok(Changes { sessions, gone, history: vec![], rest: Rest::More(rest) })
}

async fn history(link: &mut Link, me: &Me, reading: &Reading) -> Result<Changes, CentralError> {
    let (_, transaction, after) = reading.position();
    let next_since = reading.after.as_ref().map_or(reading.since, |position| position.next_since);
    let query = sqlx::query(if reading.is_whole() { WORTH_KNOWING } else { WITH_NEWS })
        .bind(transaction.to_string())
        .bind(after)
        .bind(HISTORIES)
        .bind(me.host_id);
    let rows = link.rows(query).await?;
    let wanted = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<String>, _>>()?;
    let history = if wanted.is_empty() { vec![] } else { latest(link, &wanted).await? };
    let rest = match last(&rows, HISTORIES, 0, 1)? {
        Some((instance_id, transaction)) => {
            Rest::More(Position { next_since, part: Part::History, transaction, instance_id })
        }
        None => Rest::Nothing { next_since },
    };
    Ok(Changes { sessions: vec![], gone: vec![], history, rest })
}

/// Where the next page begins, if this one is full.
fn last(rows: &[PgRow], full: i64, id: usize, transaction: usize) -> Result<Option<(String, u64)>, CentralError> {
    match rows.last() {
        Some(row) if rows.len() as i64 == full => {
            Ok(Some((column(row, id)?, column::<i64>(row, transaction)?.unsigned_abs())))
        }
        _ => Ok(None),
    }
}

async fn oldest_running(link: &mut Link) -> Result<u64, CentralError> {
    match link.rows(sqlx::query(OLDEST_RUNNING)).await?.first() {
        Some(row) => Ok(column::<i64>(row, 0)?.unsigned_abs()),
        None => Err(CentralError::Retry("central does not tell which transactions run".into())),
    }
}

async fn gone(link: &mut Link, since: u64) -> Result<Vec<Gone>, CentralError> {
    let rows = link.rows(sqlx::query(GONE).bind(since.to_string())).await?;
    let gone = |row| Ok(Gone { instance_id: column(row, 0)?, created_at: Timestamp::from_micros(column(row, 1)?) });
    rows.iter().map(gone).collect()
}

async fn latest(link: &mut Link, wanted: &[String]) -> Result<Vec<HistoryRecord>, CentralError> {
    let tables = link.rows(sqlx::query(TABLES)).await?;
    let mut records = Vec::new();
    for (index, (kind, sql)) in
        [(Kind::Event, EVENTS), (Kind::Command, COMMANDS), (Kind::Checkpoint, CHECKPOINTS)].into_iter().enumerate()
    {
        let there = tables.first().map_or(Ok(false), |row| column(row, index))?;
        if there {
            let rows = link.rows(sqlx::query(sql).bind(wanted)).await?;
            for row in rows.iter().rev() {
                records.extend(record(row, kind)?);
            }
        }
    }
    records.sort_by(|a, b| (&a.instance_id, a.at).cmp(&(&b.instance_id, b.at)));
    Ok(records)
}

/// A record as central has it; none where that is not to be understood here.
fn record(row: &PgRow, kind: Kind) -> Result<Option<HistoryRecord>, CentralError> {
    let Ok(instance_id) = InstanceId::parse(&column::<String>(row, 0)?) else { return Ok(None) };
    let record_id: Uuid = column(row, 1)?;
    let body = serde_json::from_str(&column::<String>(row, 4)?);
    Ok(Some(HistoryRecord {
        record_id,
        instance_id,
        kind,
        record_type: safe_line(column(row, 2)?, RECORD_TYPE),
        at: Timestamp::from_micros(column(row, 3)?),
        body: match body {
            Ok(Value::Object(body)) => safe_fields(body),
            _ => Map::new(),
        },
    }))
}

fn session(row: &PgRow) -> Result<Result<TimedSession, Invalid>, CentralError> {
    let text = |index| column::<String>(row, index);
    let option = |index| column::<Option<String>>(row, index);
    let (id, project, kind, status, machine) = (text(0)?, text(1)?, text(2)?, text(3)?, text(9)?);
    let percent: Option<i32> = column(row, 4)?;
    let (epic, uuid, path, resumed_from, working_dir) =
        (option(5)?, option(10)?, option(11)?, option(12)?, option(13)?);
    let moment = |index| Ok::<_, CentralError>(Timestamp::from_micros(column(row, index)?));
    let (last_heartbeat, created_at) = (moment(6)?, moment(7)?);
    let closed_at = column::<Option<i64>>(row, 8)?.map(Timestamp::from_micros);
    let times = option(15)?.map_or_else(ColumnTimes::default, |times| ColumnTimes::from_json(&times));
    let understood = || {
        let session = Session {
            instance_id: InstanceId::parse(&id)?,
            project: Project::parse(&project)?,
            instance_type: InstanceType::parse(&kind)?,
            status: Status::parse(&status)?,
            context_percent: u8::try_from(percent.unwrap_or(0)).unwrap_or(0),
            current_epic: epic,
            last_heartbeat,
            created_at,
            closed_at,
            host_machine: MachineName::parse(&machine)?,
            claude_session_uuid: uuid,
            claude_session_path: path,
            resumed_from: resumed_from.as_deref().and_then(|id| InstanceId::parse(id).ok()),
            working_dir,
        };
        Ok(TimedSession { session: session.with_safe_text(), times })
    };
    Ok(understood())
}

pub(super) async fn hosts(link: &mut Link) -> Result<Vec<HostSeen>, CentralError> {
    link.begin().await?;
    let rows = link.rows(sqlx::query(HOSTS)).await?;
    link.commit().await?;
    rows.iter().filter_map(|row| host(row).transpose()).collect()
}

/// None for a name that is no machine's: another client wrote it, and no session here can have it.
fn host(row: &PgRow) -> Result<Option<HostSeen>, CentralError> {
    let last_seen = Timestamp::from_micros(column(row, 1)?);
    match MachineName::parse(&column::<String>(row, 0)?) {
        Ok(machine) => Ok(Some(HostSeen { machine, last_seen })),
        Err(invalid) => {
            tracing::warn!(%invalid, "a host in central is left out");
            Ok(None)
        }
    }
}
