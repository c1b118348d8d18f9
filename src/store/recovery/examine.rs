//! A look at a store from outside, beside the daemon that may be at work on it. Changes nothing.

use std::path::Path;

use crate::store::error::StoreError;
use crate::store::recovery::integrity;
use crate::store::sqlite::connection::{DatabaseFiles, Durability, Options};

/// What is wrong with the store in `dir`, one line each; none if there is no store.
///
/// # Errors
/// It cannot be read at all.
pub fn examine(dir: &Path) -> Result<Option<Vec<String>>, StoreError> {
    let files = DatabaseFiles::new(dir, Options { durability: Durability::Full, max_size: u64::MAX });
    // A folder that may not be looked into is no folder without a store.
    if !files.database().try_exists().map_err(StoreError::of_file)? {
        return Ok(None);
    }
    findings(&files).map(Some).map_err(|error| files.name_holder(error))
}

fn findings(files: &DatabaseFiles) -> Result<Vec<String>, StoreError> {
    let connection = files.open_reader()?;
    integrity::findings_beside(&connection, files.log())
}
