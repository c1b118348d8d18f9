//! The table `facts`: single values by name.

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;

pub(in crate::store) fn get_integer(db: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(db.prepare_cached("SELECT value FROM facts WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?)
}

pub(in crate::store) fn set_integer(db: &Connection, name: &str, value: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES (?1, ?2) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE facts.value <> excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}

pub(in crate::store) fn set(db: &Connection, name: &str, value: &dyn rusqlite::ToSql) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}
