//! Reading what can still be read of a damaged database.

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, Row, params_from_iter};

use crate::domain::Timestamp;
use crate::store::error::StoreError;
use crate::store::sync_state::{ledger, mirror_cursor};
use crate::store::tables::columns::OURS;
use crate::store::tables::metadata;

/// What a salvage brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Carried {
    pub sessions: usize,
    /// Whether some of a table could not be read, so that rows may be missing.
    pub unreadable: bool,
}

/// The tables worth carrying over; other machines' sessions are read from central again.
const TABLES: [&str; 11] = [
    "sessions",
    "aliases",
    "metadata",
    "records",
    "checkpoints_due",
    "claude_ids",
    "imported_requests",
    "session_work",
    "work_snapshots",
    "rate_limits",
    "activity_changes",
];

/// The former names of tables and columns: a damaged store may be of an earlier schema.
const RENAMED: [(&str, &str); 4] = [
    ("metadata", "facts"),
    ("imported_requests", "taken_in"),
    ("mirror_generation", "mirror_round"),
    ("park_count", "parkings"),
];

/// Copies every readable row of `damaged` into `copy`. All sessions, and all their history, count as unsynced
/// afterwards: what central has of them is for central to say.
///
/// # Errors
/// What keeps the copy from being written, such as a full disk: a copy that lacks what can be read is none.
pub(in crate::store) fn carry_over(
    damaged: &Connection,
    copy: &mut Connection,
    now: Timestamp,
) -> Result<Carried, StoreError> {
    let copy = copy.transaction()?;
    let mut carried = Carried::default();
    for table in TABLES.into_iter().filter(|table| may_have_table(damaged, table)) {
        let rows = copy_table(damaged, &copy, table)?;
        carried.unreadable |= rows.is_none_or(|(_, complete)| !complete);
        if table == "sessions" {
            carried.sessions = rows.map_or(0, |(count, _)| count);
        }
    }
    copy.execute(
        &format!("UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?1), synced_version = 0 WHERE {OURS}"),
        [now.micros()],
    )?;
    copy.execute("UPDATE OR IGNORE metadata SET name = ?1 WHERE name = 'mirror_round'", [metadata::MIRROR_GENERATION])?;
    mirror_cursor::read_everything(&copy)?;
    for of_session in ["aliases", "records", "checkpoints_due", "claude_ids", "session_work", "work_snapshots"] {
        let orphans = format!("DELETE FROM {of_session} WHERE instance_id NOT IN (SELECT instance_id FROM sessions)");
        copy.execute(&orphans, [])?;
    }
    ledger::forget_synced_records(&copy)?;
    copy.commit()?;
    Ok(carried)
}

/// Whether a store has this table, or may have it: one of an earlier schema lacks what was added since.
fn may_have_table(source: &Connection, table: &str) -> bool {
    let former = RENAMED.iter().find(|(name, _)| *name == table).map_or(table, |(_, former)| former);
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name IN (?1, ?2))";
    source.query_row(exists, [table, former], |row| row.get(0)).unwrap_or(true)
}

/// Copies one table from both ends towards the damage between them; says how many rows came, and
/// whether the damage was never met. `None`: not even the columns could be read.
fn copy_table(source: &Connection, copy: &Connection, table: &str) -> Result<Option<(usize, bool)>, StoreError> {
    let Some(shared) = shared_columns(source, copy, table) else { return Ok(None) };
    let SharedColumns { source_table, theirs, ours } = shared;
    let list = theirs.join(", ");
    let marks = vec!["?"; ours.len()].join(", ");
    let insert = format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({marks})", ours.join(", "));
    let mut count = 0;
    let mut complete = true;
    // The primary key's order is the table's own (aliases, metadata) or its index's (sessions); a scan
    // by rowid reads the table itself, even if its indexes are damaged.
    let orders: &[&str] = if matches!(table, "sessions" | "records") {
        &["NOT INDEXED ORDER BY rowid", "NOT INDEXED ORDER BY rowid DESC"]
    } else {
        &["", "ORDER BY 1 DESC"]
    };
    for order in orders {
        let (rows, to_the_end) =
            copy_rows(source, copy, &format!("SELECT {list} FROM {source_table} {order}"), &insert)?;
        count += rows;
        if to_the_end {
            return Ok(Some((count, complete)));
        }
        complete = false;
    }
    Ok(Some((count, complete)))
}

/// Copies rows until the first that cannot be read; says how many were new, and whether it reached the end.
fn copy_rows(source: &Connection, copy: &Connection, select: &str, insert: &str) -> Result<(usize, bool), StoreError> {
    let Ok(mut statement) = source.prepare(select) else { return Ok((0, false)) };
    let width = statement.column_count();
    let Ok(mut rows) = statement.query([]) else { return Ok((0, false)) };
    let mut into = copy.prepare(insert)?;
    let mut count = 0;
    loop {
        match rows.next().map(|row| row.map(|row| values(row, width))) {
            Ok(None) => return Ok((count, true)),
            Ok(Some(Ok(values))) => match into.execute(params_from_iter(values)) {
                Ok(new) => count += new,
                // A row that breaks a constraint of its own is damage too, and is left behind.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {}
                Err(error) => return Err(error.into()),
            },
            Err(_) | Ok(Some(Err(_))) => return Ok((count, false)),
        }
    }
}

fn values(row: &Row<'_>, width: usize) -> rusqlite::Result<Vec<Value>> {
    (0..width).map(|column| row.get(column)).collect()
}

/// The columns that a table has in both stores, by their names in each.
struct SharedColumns {
    source_table: String,
    theirs: Vec<String>,
    ours: Vec<String>,
}

/// Of these names, the one that the damaged store has: the present or the former.
fn name_among(names: &[String], name: &str) -> Option<String> {
    let former = RENAMED.iter().find(|(now, _)| *now == name).map(|(_, former)| *former);
    [Some(name), former].into_iter().flatten().find(|name| names.iter().any(|other| other == name)).map(str::to_owned)
}

fn shared_columns(source: &Connection, copy: &Connection, table: &str) -> Option<SharedColumns> {
    let names = |connection: &Connection, list: &str, of: &[&str]| -> rusqlite::Result<Vec<String>> {
        connection.prepare(list)?.query_map(params_from_iter(of), |row| row.get(0))?.collect()
    };
    const COLUMNS: &str = "SELECT name FROM pragma_table_info(?1) ORDER BY cid";
    let tables = names(source, "SELECT name FROM sqlite_schema WHERE type = 'table'", &[]).ok()?;
    let source_table = name_among(&tables, table)?;
    let there = names(source, COLUMNS, &[&source_table]).ok()?;
    let here = names(copy, COLUMNS, &[table]).ok()?;
    let both = here.into_iter().filter_map(|ours| Some((name_among(&there, &ours)?, ours)));
    let (theirs, ours): (Vec<_>, Vec<_>) = both.unzip();
    (!ours.is_empty()).then_some(SharedColumns { source_table, theirs, ours })
}
