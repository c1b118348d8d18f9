//! Reading what can still be read of a damaged database.

use rusqlite::{Connection, Row, params_from_iter, types::Value};

use super::OpenError;
use crate::domain::Timestamp;

/// What a salvage brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub sessions: usize,
    /// Whether some of a table could not be read, so that rows may be missing.
    pub unreadable: bool,
}

/// The tables worth carrying over; what central told of other machines it will tell again.
const TABLES: [&str; 3] = ["sessions", "aliases", "facts"];

/// Copies every readable row of `damaged` into `copy`. All sessions count as unsynced afterwards:
/// what central has of them is for central to say.
pub(super) fn carry_over(damaged: Result<Connection, OpenError>, copy: &Connection, now: Timestamp) -> Carried {
    let mut carried = Carried::default();
    let Ok(source) = damaged else {
        return Carried { unreadable: true, ..carried };
    };
    for table in TABLES {
        let rows = copy_table(&source, copy, table);
        carried.unreadable |= rows.is_none_or(|(_, complete)| !complete);
        if table == "sessions" {
            carried.sessions = rows.map_or(0, |(count, _)| count);
        }
    }
    let mended =
        copy.execute("UPDATE sessions SET unsynced_since = ?1 WHERE unsynced_since IS NULL", [now.micros()]).and_then(
            |_| copy.execute("DELETE FROM aliases WHERE instance_id NOT IN (SELECT instance_id FROM sessions)", []),
        );
    if let Err(error) = mended {
        tracing::warn!(%error, "the salvaged sessions could not be marked for central");
    }
    carried
}

/// Copies one table from both ends towards the damage between them; says how many rows came, and
/// whether the damage was never met. `None`: not even the columns could be read.
fn copy_table(source: &Connection, copy: &Connection, table: &str) -> Option<(usize, bool)> {
    let columns = shared_columns(source, copy, table)?;
    let list = columns.join(", ");
    let marks = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks})");
    let mut count = 0;
    let mut complete = true;
    // The primary key's order is the table's own (aliases, facts) or its index's (sessions); a scan
    // by rowid reads the table itself, whatever became of its indexes.
    let orders: &[&str] = if table == "sessions" {
        &["NOT INDEXED ORDER BY rowid", "NOT INDEXED ORDER BY rowid DESC"]
    } else {
        &["", "ORDER BY 1 DESC"]
    };
    for order in orders {
        match copy_rows(source, copy, &format!("SELECT {list} FROM {table} {order}"), &insert) {
            (rows, true) => return Some((count + rows, complete)),
            (rows, false) => {
                count += rows;
                complete = false;
            }
        }
    }
    Some((count, complete))
}

/// Copies rows until the first that cannot be read; says how many were new, and whether it reached the end.
fn copy_rows(source: &Connection, copy: &Connection, select: &str, insert: &str) -> (usize, bool) {
    let Ok(mut statement) = source.prepare(select) else { return (0, false) };
    let width = statement.column_count();
    let Ok(mut rows) = statement.query([]) else { return (0, false) };
    let mut count = 0;
    loop {
        match rows.next() {
            Ok(None) => return (count, true),
            Err(_) => return (count, false),
            Ok(Some(row)) => match values(row, width) {
                // A row that breaks a constraint of its own is damage too, and is left behind.
                Ok(values) => count += copy.execute(insert, params_from_iter(values)).unwrap_or(0),
                Err(_) => return (count, false),
            },
        }
    }
}

fn values(row: &Row<'_>, width: usize) -> rusqlite::Result<Vec<Value>> {
    (0..width).map(|column| row.get(column)).collect()
}

fn shared_columns(source: &Connection, copy: &Connection, table: &str) -> Option<Vec<String>> {
    let columns = |connection: &Connection| -> rusqlite::Result<Vec<String>> {
        connection
            .prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?
            .query_map([table], |row| row.get(0))?
            .collect()
    };
    let theirs = columns(source).ok()?;
    let shared: Vec<_> = columns(copy).ok()?.into_iter().filter(|name| theirs.contains(name)).collect();
    (!shared.is_empty()).then_some(shared)
}
