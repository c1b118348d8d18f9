//! A look at a store from outside, beside the daemon that may be at work on it. Changes nothing.

use std::path::Path;

use super::check;
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
    findings(&files).map(Some).map_err(|error| files.name_holder(error))
}

fn findings(files: &Files) -> Result<Vec<String>, StoreError> {
    let connection = files.open_reader()?;
    check::findings_beside(&connection, files.log())
}
