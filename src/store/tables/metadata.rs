//! The table `metadata`: single values by name.

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;

/// How often everything was read from central: the newest `sessions.mirror_generation`.
pub(in crate::store) const MIRROR_GENERATION: &str = "mirror_generation";

pub(in crate::store) fn get<T: FromSql>(db: &Connection, name: &str) -> Result<Option<T>, StoreError> {
    let mut statement = db.prepare_cached("SELECT value FROM metadata WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

pub(in crate::store) fn get_integer(db: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    get(db, name)
}

/// Writes nothing if this is the value already.
pub(in crate::store) fn set_integer(db: &Connection, name: &str, value: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO metadata (name, value) VALUES (?1, ?2) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE metadata.value <> excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}

pub(in crate::store) fn set(db: &Connection, name: &str, value: &dyn rusqlite::ToSql) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO metadata (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}

/// Says whether there was a value.
pub(in crate::store) fn delete(db: &Connection, name: &str) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("DELETE FROM metadata WHERE name = ?1")?.execute([name])? > 0)
}
