//! Checking the database for damage.
//!
//! A check reads everything in one transaction, during which SQLite cannot restart its log. So it is given up when
//! the log becomes too long meanwhile, and run again later.

use std::path::PathBuf;

use rusqlite::Connection;

use crate::store::error::StoreError;

/// A check that finds the log longer than this gives up.
const LONGEST_LOG: u64 = 64 << 20;

/// How many steps of SQLite lie between two looks at the log's length.
const STEPS: std::ffi::c_int = 2000;

/// What of a database is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Check {
    /// Nothing: the database is too large to be read before the daemon serves.
    Nothing,
    /// Every page. What is sound so far takes writes without losing any.
    Structure,
    /// Every page, and whether each index has an entry for each row of its table: a row without one is not found. Takes
    /// several times as long.
    Everything,
    /// A table and its indexes.
    Table(String),
}

impl Check {
    /// # Errors
    /// `Damaged` if the database is.
    pub(in crate::store) fn run(&self, connection: &Connection) -> Result<(), StoreError> {
        match self.findings(connection, 1)?.pop() {
            None => Ok(()),
            Some(damage) => Err(StoreError::Damaged(damage.into())),
        }
    }

    /// As [`Check::run`], beside others who write to the database.
    ///
    /// # Errors
    /// `CheckGivenUp` if the log becomes too long meanwhile.
    pub(in crate::store) fn run_beside(&self, connection: &Connection, log: PathBuf) -> Result<(), StoreError> {
        giving_up(connection, log, || self.run(connection))
    }

    /// What is wrong, at most `limit` lines.
    fn findings(&self, connection: &Connection, limit: usize) -> Result<Vec<String>, StoreError> {
        let check = match self {
            Self::Nothing => return Ok(Vec::new()),
            Self::Structure => format!("PRAGMA quick_check({limit})"),
            Self::Everything => format!("PRAGMA integrity_check({limit})"),
            Self::Table(name) => format!("PRAGMA integrity_check(\"{}\")", name.replace('"', "\"\"")),
        };
        let mut statement = connection.prepare(&check)?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").take(limit).collect())
    }
}

/// All that is wrong with the database, in at most ten lines.
pub(in crate::store) fn findings_beside(connection: &Connection, log: PathBuf) -> Result<Vec<String>, StoreError> {
    giving_up(connection, log, || Check::Everything.findings(connection, 10))
}

/// Everything, in pieces that are each as short as SQLite allows.
pub(in crate::store) fn pieces(connection: &Connection) -> Result<Vec<Check>, StoreError> {
    let tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?
        .query_map([], |row| row.get(0).map(Check::Table))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok([Check::Structure].into_iter().chain(tables).collect())
}

/// Runs `check` until the log is too long.
fn giving_up<T>(
    connection: &Connection,
    log: PathBuf,
    check: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let too_long = move || std::fs::metadata(&log).is_ok_and(|log| log.len() > LONGEST_LOG);
    connection.progress_handler(STEPS, Some(too_long))?;
    let result = check();
    connection.progress_handler(0, None::<fn() -> bool>)?;
    result
}
