//! Writes events, commands and checkpoints into the tables of the earlier services, whose clients write there too.
//!
//! **Invariant**: a record is written once, however often it is pushed: events and checkpoints keep their id as the primary
//! key, commands carry it in `context_data`. The ledger's row is locked meanwhile, so no other connection pushes
//! this host's records.
//!
//! Events and checkpoints are numbered per session. Earlier clients take max + 1 at any time and hold no lock, and so
//! does the push. If another client took a number first, all are drawn again; after [`ATTEMPTS`] failures the table is
//! locked against writers until the commit. A lock on the session would not help: earlier clients take the number before
//! they read the session, so each would wait for the other.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::errors::BY_ITSELF;
use super::link::{Link, column};
use super::sql;
use crate::domain::{HistoryRecord, HistoryTables, RecordKind, TableState};
use crate::sync::central::{CentralError, RowOutcome};

/// Central's tables for records, and how they are built.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    pub tables: HistoryTables,
    /// Events have columns for their parent, root and depth.
    lineage: bool,
    /// The type of checkpoints.checkpoint_type, an enum or text.
    checkpoint_type: Option<String>,
    /// This login may write `sessiond_history`. The triggers need no right for it.
    may_mark: bool,
}

/// The table of what sessions do and work on.
const WORK: &str = "session_work";

/// The table of the rate limits that hosts share.
const LIMITS: &str = "sessiond_limits";

/// The table of the activity history.
const ACTIVITY: &str = "sessiond_activity";

/// The table of leases.
const LEASES: &str = "sessiond_leases";

/// Reads the state of the tables.
pub(super) async fn shapes(link: &mut Link) -> Result<Shapes, CentralError> {
    let mut shapes = Shapes::default();
    for row in &link.rows(sqlx::query(sql::HISTORY_TABLES)).await? {
        let name: String = column(row, 0)?;
        let beside = match name.as_str() {
            WORK => Some(&mut shapes.tables.work),
            LIMITS => Some(&mut shapes.tables.limits),
            ACTIVITY => Some(&mut shapes.tables.activity),
            LEASES => Some(&mut shapes.tables.leases),
            _ => None,
        };
        if let Some(beside) = beside {
            *beside = state(column(row, 1)?, column(row, 2)?, false);
            if name == WORK {
                shapes.tables.work_has_agent = column(row, 4)?;
            }
            continue;
        }
        let Some(kind) = RecordKind::ALL.into_iter().find(|kind| kind.table() == name) else { continue };
        *shapes.tables.state_mut(kind) = state(column(row, 1)?, column(row, 2)?, column(row, 3)?);
        match kind {
            RecordKind::Event => {
                shapes.lineage = column(row, 4)?;
                shapes.tables.event_types = event_types(&column::<Vec<String>>(row, 6)?);
            }
            RecordKind::Checkpoint => shapes.checkpoint_type = column(row, 5)?,
            RecordKind::Command => {}
        }
        shapes.may_mark = column(row, 7)?;
    }
    Ok(shapes)
}

/// Reads the state of the three tables, in a transaction of its own.
pub(super) async fn shapes_now(link: &mut Link) -> Result<Shapes, CentralError> {
    link.begin().await?;
    let shapes = shapes(link).await?;
    link.commit().await?;
    Ok(shapes)
}

fn state(exists: bool, missing: Vec<String>, without_zone: bool) -> TableState {
    match (exists, missing.is_empty(), without_zone) {
        (false, ..) => TableState::Absent,
        (true, false, _) => TableState::Forbidden(missing),
        (true, true, true) => TableState::WithoutZone,
        (true, true, false) => TableState::Usable,
    }
}

/// The types that a CHECK lists; `None` if it is not a plain list.
fn event_types(checks: &[String]) -> Option<Vec<String>> {
    let [check] = checks else { return None };
    let plain = check.contains("= ANY") || check.contains(" IN (");
    if !plain || ["<>", "NOT ", "~", " OR ", " AND "].iter().any(|odd| check.contains(odd)) {
        return None;
    }
    let types: Vec<String> = check.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
    (!types.is_empty()).then_some(types)
}

/// Writes the records in order. `absent`: the sessions of this batch that were not written.
pub(super) async fn apply(
    link: &mut Link,
    shapes: &Shapes,
    records: &[HistoryRecord],
    absent: &HashSet<&str>,
) -> Result<Vec<RowOutcome>, CentralError> {
    link.allow_for(records.iter().map(HistoryRecord::size).sum());
    let ids: BTreeSet<&str> =
        records.iter().map(|r| r.instance_id.as_str()).filter(|id| !absent.contains(id)).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let rows = link.rows(sqlx::query(sql::EXISTING_SESSIONS).bind(&ids)).await?;
    let present: HashSet<String> = rows.iter().map(|row| column(row, 0)).collect::<Result<_, _>>()?;
    let there = |record: &HistoryRecord| present.contains(record.instance_id.as_str());
    let of = |kind: RecordKind| records.iter().filter(|r| r.kind == kind && there(r)).collect::<Vec<_>>();
    events(link, shapes, &of(RecordKind::Event)).await?;
    commands(link, &of(RecordKind::Command)).await?;
    checkpoints(link, shapes, &of(RecordKind::Checkpoint)).await?;
    if !present.is_empty() && shapes.may_mark {
        link.rows(sqlx::query(sql::MARK_HISTORY_CHANGED).bind(present.iter().collect::<Vec<_>>())).await?;
    }
    Ok(records.iter().map(|r| if there(r) { RowOutcome::Stored } else { RowOutcome::SessionMissing }).collect())
}

/// After so many attempts the table is locked against other writers.
const ATTEMPTS: usize = 4;

/// Locks a table against other writers until the commit.
async fn lock_table(link: &mut Link, table: &str) -> Result<(), CentralError> {
    let may = link.rows(sqlx::query(sql::MAY_LOCK_TABLE).bind(table)).await?;
    if !may.first().map_or(Ok(false), |row| column(row, 0))? {
        return Err(CentralError::retry(format!("others add to central's {table} all the time; {BY_ITSELF}")));
    }
    link.rows(sqlx::query(AssertSqlSafe(format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")))).await.map(|_| ())
}

/// Runs a statement that numbers its rows after those that are there. Another client may take one of the numbers first;
/// then the statement is repeated, which draws all numbers again and keeps the order.
macro_rules! numbered {
    ($link:expr, $kind:expr, $query:expr) => {{
        let mut attempts = 0;
        while !$link.try_rows($query).await? {
            attempts += 1;
            if attempts == ATTEMPTS {
                lock_table($link, $kind.table()).await?;
            } else if attempts > ATTEMPTS {
                // No other client can write, so these rows violate another constraint.
                $link.rows($query).await?;
                break;
            }
        }
    }};
}

async fn events(link: &mut Link, shapes: &Shapes, events: &[&HistoryRecord]) -> Result<(), CentralError> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|r| r.record_id).collect();
    let lineages = if shapes.lineage { lineages(link, events).await? } else { Vec::new() };
    // If there is no column for the parent, the metadata has it.
    let metadata: Vec<String> = events
        .iter()
        .map(|r| match parent(r).filter(|_| !shapes.lineage) {
            Some(parent) => serde_json::json!({ "parent_uuid": parent }).to_string(),
            None => "{}".to_owned(),
        })
        .collect();
    let query = || {
        let query = sqlx::query(if shapes.lineage { sql::INSERT_EVENTS_WITH_LINEAGE } else { sql::INSERT_EVENTS })
            .bind(ids.clone())
            .bind(texts(events, |r| r.instance_id.as_str()))
            .bind(texts(events, |r| &r.record_type))
            .bind(moments(events))
            .bind(events.iter().map(|r| json_of(&r.body, "data", "{}")).collect::<Vec<_>>())
            .bind(metadata.clone());
        if !shapes.lineage {
            return query;
        }
        query
            .bind(events.iter().map(|r| parent(r)).collect::<Vec<_>>())
            .bind(lineages.iter().map(|lineage| lineage.root).collect::<Vec<_>>())
            .bind(lineages.iter().map(|lineage| lineage.depth).collect::<Vec<_>>())
    };
    numbered!(link, RecordKind::Event, query());
    Ok(())
}

/// The first ancestor of an event, and how many events lie between.
#[derive(Clone, Copy)]
struct Lineage {
    root: Uuid,
    depth: i32,
}

/// The lineage of each event. Its parent may be in central, or earlier in this batch; a parent that is in neither counts
/// as a root.
async fn lineages(link: &mut Link, events: &[&HistoryRecord]) -> Result<Vec<Lineage>, CentralError> {
    let parents: Vec<Uuid> = events.iter().filter_map(|event| parent(event)).collect();
    let mut known: HashMap<Uuid, Lineage> = HashMap::new();
    if !parents.is_empty() {
        for row in &link.rows(sqlx::query(sql::EVENT_LINEAGES).bind(parents)).await? {
            known.insert(column(row, 0)?, Lineage { root: column(row, 1)?, depth: column(row, 2)? });
        }
    }
    Ok(events
        .iter()
        .map(|event| {
            let lineage = match parent(event) {
                None => Lineage { root: event.record_id, depth: 0 },
                Some(parent) => {
                    let of_parent = known.get(&parent).copied().unwrap_or(Lineage { root: parent, depth: 0 });
                    Lineage { depth: of_parent.depth.saturating_add(1), ..of_parent }
                }
            };
            known.insert(event.record_id, lineage);
            lineage
        })
        .collect())
}

async fn commands(link: &mut Link, commands: &[&HistoryRecord]) -> Result<(), CentralError> {
    if commands.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = commands.iter().map(|r| r.record_id.to_string()).collect();
    let known = link.rows(sqlx::query(sql::KNOWN_COMMANDS).bind(ids)).await?;
    let known: HashSet<String> = known.iter().map(|row: &PgRow| column(row, 0)).collect::<Result<_, _>>()?;
    let new: Vec<_> = commands.iter().copied().filter(|r| !known.contains(&r.record_id.to_string())).collect();
    if new.is_empty() {
        return Ok(());
    }
    let text = |name: &'static str| new.iter().map(|r| r.body.get(name).and_then(Value::as_str)).collect::<Vec<_>>();
    let query = sqlx::query(sql::INSERT_COMMANDS)
        .bind(new.iter().map(|r| r.record_id.to_string()).collect::<Vec<_>>())
        .bind(texts(&new, |r| r.instance_id.as_str()))
        .bind(texts(&new, |r| &r.record_type))
        .bind(text("action"))
        .bind(text("tool_name"))
        .bind(new.iter().map(|r| json_of(&r.body, "parameters", "{}")).collect::<Vec<_>>())
        .bind(new.iter().map(|r| r.body.get("result").map(Value::to_string)).collect::<Vec<_>>())
        .bind(text("error_message"))
        .bind(new.iter().map(|r| r.body.get("success").and_then(Value::as_bool).unwrap_or(true)).collect::<Vec<_>>())
        .bind(new.iter().map(|r| int(&r.body, "execution_time_ms")).collect::<Vec<_>>())
        .bind(new.iter().map(|r| json_of(&r.body, "tags", "[]")).collect::<Vec<_>>())
        .bind(moments(&new));
    link.rows(query).await.map(|_| ())
}

async fn checkpoints(link: &mut Link, shapes: &Shapes, checkpoints: &[&HistoryRecord]) -> Result<(), CentralError> {
    if checkpoints.is_empty() {
        return Ok(());
    }
    let sql = sql::INSERT_CHECKPOINTS.replace("CHECKPOINT_TYPE", shapes.checkpoint_type.as_deref().unwrap_or("text"));
    let query = || {
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(checkpoints.iter().map(|r| r.record_id).collect::<Vec<_>>())
            .bind(texts(checkpoints, |r| r.instance_id.as_str()))
            .bind(texts(checkpoints, |r| &r.record_type))
            .bind(moments(checkpoints))
            .bind(checkpoints.iter().map(|r| int(&r.body, "context_window_percent")).collect::<Vec<_>>())
            .bind(checkpoints.iter().map(|r| json_of(&r.body, "work_state", "{}")).collect::<Vec<_>>())
    };
    numbered!(link, RecordKind::Checkpoint, query());
    Ok(())
}

fn texts(records: &[&HistoryRecord], of: impl Fn(&HistoryRecord) -> &str) -> Vec<String> {
    records.iter().map(|record| of(record).to_owned()).collect()
}

fn moments(records: &[&HistoryRecord]) -> Vec<i64> {
    records.iter().map(|record| record.at.micros()).collect()
}

fn json_of(body: &Map<String, Value>, name: &str, default: &str) -> String {
    body.get(name).map_or_else(|| default.to_owned(), Value::to_string)
}

fn int(body: &Map<String, Value>, name: &str) -> Option<i32> {
    body.get(name).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok())
}

fn parent(event: &HistoryRecord) -> Option<Uuid> {
    event.body.get("parent_uuid").and_then(Value::as_str).and_then(|text| Uuid::parse_str(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_list_of_types_is_understood() {
        let known = |check: &str| event_types(&[check.to_owned()]);
        let list =
            "CHECK (((event_type)::text = ANY ((ARRAY['a_b'::character varying, 'c'::character varying])::text[])))";
        assert_eq!(known(list), Some(vec!["a_b".into(), "c".into()]));
        assert_eq!(known("CHECK ((event_type = ANY (ARRAY['x'::text])))"), Some(vec!["x".into()]));
        for odd in [
            "CHECK (((event_type)::text <> 'x'::text))",
            "CHECK (((event_type)::text <> ALL (ARRAY['x'::text])))",
            "CHECK (((event_type = ANY (ARRAY['x'::text])) OR (event_type ~ '^y'::text)))",
            "CHECK ((length(event_type) > 3))",
        ] {
            assert_eq!(known(odd), None, "{odd}");
        }
        assert_eq!(event_types(&[]), None);
        assert_eq!(event_types(&[list.into(), list.into()]), None);
    }
}
