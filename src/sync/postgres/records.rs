//! Replaying events, commands and checkpoints into the earlier services' tables, beside their own clients.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::errors::BY_ITSELF;
use super::link::{Link, column};
use super::moment;
use crate::domain::{HistoryRecord, HistoryTables, Kind, TableState};
use crate::sync::central::{CentralError, RowOutcome};

/// The state of each table, and its shape where that differs between installations: whether it is there; which rights
/// this login lacks, among them those on sequences that number columns which are not `given`; whether its times have
/// no zone; whether events have a lineage; the type of checkpoints; the CHECKs of the types of events.
///
/// Rights on single columns may be enough: then the push shows.
pub(super) const TABLES: &str = "\
    WITH needed (name, given) AS (VALUES \
        ('event_store', '{event_id, sequence_num}'::text[]), ('command_log', '{}'), \
        ('checkpoints', '{checkpoint_id, sequence_num}')), \
    found AS (SELECT name, given, to_regclass(name) AS oid FROM needed) \
    SELECT name, oid IS NOT NULL, \
        ARRAY(SELECT format('%s on %s', r, name) FROM unnest(ARRAY['SELECT', 'INSERT']) AS r WHERE oid IS NOT NULL \
            AND NOT has_table_privilege(oid, r) AND NOT has_any_column_privilege(oid, r)) || \
        ARRAY(SELECT DISTINCT format('USAGE on sequence %s', s.oid::regclass) FROM pg_attrdef d \
            JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attname <> ALL (given) \
            JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid \
                AND p.refclassid = 'pg_class'::regclass \
            JOIN pg_class s ON s.oid = p.refobjid \
            WHERE d.adrelid = found.oid AND CASE WHEN s.relkind = 'S' \
                THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') ELSE false END), \
        EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.oid AND attname = 'created_at' \
            AND atttypid = 'timestamp'::regtype), \
        3 = (SELECT count(*) FROM pg_attribute WHERE attrelid = found.oid \
            AND attname IN ('parent_uuid', 'root_uuid', 'depth') AND NOT attisdropped), \
        (SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = found.oid \
            AND attname = 'checkpoint_type'), \
        ARRAY(SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = found.oid AND c.contype = 'c' \
            AND c.conkey = ARRAY(SELECT attnum FROM pg_attribute WHERE attrelid = found.oid \
                AND attname = 'event_type')), \
        coalesce(has_table_privilege(to_regclass('sessiond_history'), 'INSERT'), false) \
    FROM found";

/// What there is for records in this central.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    pub tables: HistoryTables,
    /// Events know their parent, root and depth.
    lineage: bool,
    /// The type of checkpoints.checkpoint_type, an enum or text.
    checkpoint_type: Option<String>,
    /// This login may add to sessiond_history itself; the triggers do without.
    may_note: bool,
}

/// Reads the state of the three tables.
pub(super) async fn shapes(link: &mut Link) -> Result<Shapes, CentralError> {
    let mut shapes = Shapes::default();
    for row in &link.rows(sqlx::query(TABLES)).await? {
        let name: String = column(row, 0)?;
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.table() == name) else { continue };
        *shapes.tables.state_mut(kind) = state(column(row, 1)?, column(row, 2)?, column(row, 3)?);
        match kind {
            Kind::Event => {
                shapes.lineage = column(row, 4)?;
                shapes.tables.event_types = event_types(&column::<Vec<String>>(row, 6)?);
            }
            Kind::Checkpoint => shapes.checkpoint_type = column(row, 5)?,
            Kind::Command => {}
        }
        shapes.may_note = column(row, 7)?;
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

/// The types that a CHECK lists. Of one that is no plain list nothing is known.
fn event_types(checks: &[String]) -> Option<Vec<String>> {
    let [check] = checks else { return None };
    let plain = check.contains("= ANY") || check.contains(" IN (");
    if !plain || ["<>", "NOT ", "~", " OR ", " AND "].iter().any(|odd| check.contains(odd)) {
        return None;
    }
    let types: Vec<String> = check.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
    (!types.is_empty()).then_some(types)
}

const PRESENT: &str = "SELECT instance_id::text FROM supervisor_sessions WHERE instance_id = ANY($1)";

/// Lets the mirrors of other hosts know, be the trigger there or not.
const NOTE: &str = "\
    INSERT INTO sessiond_history (instance_id, changed_xid) \
    SELECT DISTINCT id, pg_current_xact_id() FROM unnest($1::text[]) AS id ON CONFLICT DO NOTHING";

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
    let rows = link.rows(sqlx::query(PRESENT).bind(&ids)).await?;
    let present: HashSet<String> = rows.iter().map(|row| column(row, 0)).collect::<Result<_, _>>()?;
    let there = |record: &HistoryRecord| present.contains(record.instance_id.as_str());
    let of = |kind: Kind| records.iter().filter(|r| r.kind == kind && there(r)).collect::<Vec<_>>();
    events(link, shapes, &of(Kind::Event)).await?;
    commands(link, &of(Kind::Command)).await?;
    checkpoints(link, shapes, &of(Kind::Checkpoint)).await?;
    if !present.is_empty() && shapes.may_note {
        link.rows(sqlx::query(NOTE).bind(present.iter().collect::<Vec<_>>())).await?;
    }
    Ok(records.iter().map(|r| if there(r) { RowOutcome::Stored } else { RowOutcome::SessionMissing }).collect())
}

/// How often a number that somebody else took first is drawn anew before everybody else is held up.
const TRIES: usize = 4;

/// Waits for those who are just adding rows, and keeps others from it until the commit. A lock on the session would
/// not do: they take a number before they look at the session.
async fn hold(link: &mut Link, table: &str) -> Result<(), CentralError> {
    let may = link.rows(sqlx::query("SELECT has_table_privilege($1, 'UPDATE')").bind(table)).await?;
    if !may.first().map_or(Ok(false), |row| column(row, 0))? {
        return Err(CentralError::Retry(format!("others add to central's {table} all the time; {BY_ITSELF}")));
    }
    link.rows(sqlx::query(AssertSqlSafe(format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")))).await.map(|_| ())
}

/// Inserts rows that are numbered after those that are there. The statement itself leaves out rows that are there
/// already: an ON CONFLICT clause would need an index on the id alone, which a partitioned table cannot have. Earlier clients number theirs the same way at the
/// same time, so a number may be gone by the time it is used; then all are drawn again, which keeps the order.
macro_rules! numbered {
    ($link:expr, $kind:expr, $query:expr) => {{
        let mut tries = 0;
        while !$link.try_rows($query).await? {
            tries += 1;
            if tries == TRIES {
                hold($link, $kind.table()).await?;
            } else if tries > TRIES {
                // Nobody else adds any; so it is another rule that these rows break.
                $link.rows($query).await?;
                break;
            }
        }
    }};
}

/// Times from central's future are cut to its present, as those of sessions are.
macro_rules! happened {
    () => {
        concat!("least(", moment!("p.at"), ", now())")
    };
}

/// The next number of each session, before the first of its new rows is counted.
macro_rules! tops {
    ($table:literal) => {
        concat!(
            "(SELECT id, coalesce((SELECT max(sequence_num) FROM ",
            $table,
            " t WHERE t.instance_id = id), 0) AS top FROM (SELECT DISTINCT unnest($2::text[]) AS id) AS ids) AS tops"
        )
    };
}

const EVENTS: &str = concat!(
    "INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata, \
         created_at, updated_at) \
     SELECT p.event_id, p.id, p.event_type, top + row_number() OVER (PARTITION BY p.id ORDER BY place), ",
    happened!(),
    ", p.data::jsonb, p.metadata::jsonb, ",
    happened!(),
    ", ",
    happened!(),
    " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[]) WITH ORDINALITY \
         AS p (event_id, id, event_type, at, data, metadata, place) JOIN ",
    tops!("event_store"),
    " ON tops.id = p.id WHERE NOT EXISTS (SELECT FROM event_store e WHERE e.event_id = p.event_id) ORDER BY place"
);

const EVENTS_WITH_LINEAGE: &str = concat!(
    "INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata, \
         created_at, updated_at, parent_uuid, root_uuid, depth) \
     SELECT p.event_id, p.id, p.event_type, top + row_number() OVER (PARTITION BY p.id ORDER BY place), ",
    happened!(),
    ", p.data::jsonb, p.metadata::jsonb, ",
    happened!(),
    ", ",
    happened!(),
    ", p.parent, p.root, p.depth FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], \
         $6::text[], $7::uuid[], $8::uuid[], $9::int[]) WITH ORDINALITY \
         AS p (event_id, id, event_type, at, data, metadata, parent, root, depth, place) JOIN ",
    tops!("event_store"),
    " ON tops.id = p.id WHERE NOT EXISTS (SELECT FROM event_store e WHERE e.event_id = p.event_id) ORDER BY place"
);

async fn events(link: &mut Link, shapes: &Shapes, events: &[&HistoryRecord]) -> Result<(), CentralError> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|r| r.record_id).collect();
    let lineages = if shapes.lineage { lineages(link, events).await? } else { Vec::new() };
    // Where there is no column for it, the parent is kept beside.
    let metadata: Vec<String> = events
        .iter()
        .map(|r| match parent(r).filter(|_| !shapes.lineage) {
            Some(parent) => serde_json::json!({ "parent_uuid": parent }).to_string(),
            None => "{}".to_owned(),
        })
        .collect();
    let query = || {
        let query = sqlx::query(if shapes.lineage { EVENTS_WITH_LINEAGE } else { EVENTS })
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
    numbered!(link, Kind::Event, query());
    Ok(())
}

/// From which event an event descends, over how many.
#[derive(Clone, Copy)]
struct Lineage {
    root: Uuid,
    depth: i32,
}

const LINEAGES: &str = "SELECT event_id, coalesce(root_uuid, event_id), coalesce(depth, 0) FROM event_store \
    WHERE event_id = ANY($1)";

/// The lineage of each event. Its parent may be in central, or before it in this very batch; of one that is not
/// known nothing is known but that.
async fn lineages(link: &mut Link, events: &[&HistoryRecord]) -> Result<Vec<Lineage>, CentralError> {
    let parents: Vec<Uuid> = events.iter().filter_map(|event| parent(event)).collect();
    let mut known: HashMap<Uuid, Lineage> = HashMap::new();
    if !parents.is_empty() {
        for row in &link.rows(sqlx::query(LINEAGES).bind(parents)).await? {
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

/// Commands have no key of their own, so ours bear the record's id. The ledger's row is locked: nobody else
/// replays this host's records meanwhile.
const KNOWN_COMMANDS: &str = "SELECT context_data->>'record_id' FROM command_log \
    WHERE context_data ? 'record_id' AND context_data->>'record_id' = ANY($1)";

const COMMANDS: &str = concat!(
    "INSERT INTO command_log (instance_id, command_type, action, tool_name, parameters, result, error_message, \
         success, execution_time_ms, tags, context_data, created_at) \
     SELECT p.id, p.command_type, p.action, p.tool_name, p.parameters::jsonb, p.result::jsonb, p.error_message, \
         p.success, p.took, p.tags::jsonb, jsonb_build_object('record_id', p.record_id), ",
    happened!(),
    " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
         $9::bool[], $10::int[], $11::text[], $12::bigint[]) WITH ORDINALITY AS p (record_id, id, command_type, \
         action, tool_name, parameters, result, error_message, success, took, tags, at, place) ORDER BY place"
);

async fn commands(link: &mut Link, commands: &[&HistoryRecord]) -> Result<(), CentralError> {
    if commands.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = commands.iter().map(|r| r.record_id.to_string()).collect();
    let known = link.rows(sqlx::query(KNOWN_COMMANDS).bind(ids)).await?;
    let known: HashSet<String> = known.iter().map(|row: &PgRow| column(row, 0)).collect::<Result<_, _>>()?;
    let new: Vec<_> = commands.iter().copied().filter(|r| !known.contains(&r.record_id.to_string())).collect();
    if new.is_empty() {
        return Ok(());
    }
    let text = |name: &'static str| new.iter().map(|r| r.body.get(name).and_then(Value::as_str)).collect::<Vec<_>>();
    let query = sqlx::query(COMMANDS)
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

/// `{type}` is the type of the column, which no statement can name beforehand.
const CHECKPOINTS: &str = concat!(
    "INSERT INTO checkpoints (checkpoint_id, instance_id, checkpoint_type, sequence_num, context_window_percent, \
         timestamp, work_state, metadata, created_at, updated_at) \
     SELECT p.checkpoint_id, p.id, p.checkpoint_type::{type}, \
         top + row_number() OVER (PARTITION BY p.id ORDER BY place), p.percent, ",
    happened!(),
    ", p.work_state::jsonb, '{}'::jsonb, ",
    happened!(),
    ", ",
    happened!(),
    " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::int[], $6::text[]) WITH ORDINALITY \
         AS p (checkpoint_id, id, checkpoint_type, at, percent, work_state, place) JOIN ",
    tops!("checkpoints"),
    " ON tops.id = p.id WHERE NOT EXISTS (SELECT FROM checkpoints c WHERE c.checkpoint_id = p.checkpoint_id) ORDER BY place"
);

async fn checkpoints(link: &mut Link, shapes: &Shapes, checkpoints: &[&HistoryRecord]) -> Result<(), CentralError> {
    if checkpoints.is_empty() {
        return Ok(());
    }
    let sql = CHECKPOINTS.replace("{type}", shapes.checkpoint_type.as_deref().unwrap_or("text"));
    let query = || {
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(checkpoints.iter().map(|r| r.record_id).collect::<Vec<_>>())
            .bind(texts(checkpoints, |r| r.instance_id.as_str()))
            .bind(texts(checkpoints, |r| &r.record_type))
            .bind(moments(checkpoints))
            .bind(checkpoints.iter().map(|r| int(&r.body, "context_window_percent")).collect::<Vec<_>>())
            .bind(checkpoints.iter().map(|r| json_of(&r.body, "work_state", "{}")).collect::<Vec<_>>())
    };
    numbered!(link, Kind::Checkpoint, query());
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
    fn a_plain_list_of_types_is_understood_and_nothing_else() {
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
