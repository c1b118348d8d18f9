//! A look at a store from outside, beside the daemon that may be at work on it. Changes nothing.

use std::path::Path;

use super::open::Files;
use super::{Durability, Options, StoreError};

/// What is wrong with the store in `dir`, one line each; none if there is no store.
///
/// # Errors
/// It cannot be read at all.
pub fn examine(dir: &Path) -> Result<Option<Vec<String>>, StoreError> {
    let files = Files::new(dir, Options { durability: Durability::Full, max_size: u64::MAX });
    // A folder that may not be looked into is no folder without a store.
    if !files.database().try_exists().map_err(|error| StoreError::Io(error.to_string()))? {
        return Ok(None);
    }
    check(&files).map(Some).map_err(|error| files.name_holder(error))
}

fn check(files: &Files) -> Result<Vec<String>, StoreError> {
    let connection = files.open_reader()?;
    let mut check = connection.prepare("PRAGMA integrity_check(10)")?;
    let lines = check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}
