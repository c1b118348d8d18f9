//! The table `rate_limits`: what this machine's agents observed of their accounts' limits.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::Timestamp;
use crate::domain::limits::{AccountLimit, LimitWindow};
use crate::store::error::StoreError;

const COLUMNS: &str = "uid, account, window_name, used_percent, resets_at, observed_at";

fn read(row: &Row<'_>) -> rusqlite::Result<AccountLimit> {
    let account: String = row.get(1)?;
    let window = LimitWindow {
        name: row.get(2)?,
        used_percent: row.get(3)?,
        resets_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
    };
    Ok(AccountLimit {
        uid: row.get(0)?,
        account: (!account.is_empty()).then_some(account),
        window,
        observed_at: Timestamp::from_micros(row.get(5)?),
    })
}

/// The name of an account as the table has it.
fn key(account: Option<&str>) -> &str {
    account.unwrap_or_default()
}

/// What is known of this window.
pub(in crate::store) fn get(db: &Connection, limit: &AccountLimit) -> Result<Option<AccountLimit>, StoreError> {
    let key = params![limit.uid, key(limit.account.as_deref()), limit.window.name];
    Ok(db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM rate_limits WHERE uid = ?1 AND account = ?2 AND window_name = ?3"
        ))?
        .query_row(key, read)
        .optional()?)
}

pub(in crate::store) fn upsert(db: &Connection, limit: &AccountLimit) -> Result<(), StoreError> {
    db.prepare_cached(&format!(
        "INSERT INTO rate_limits ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (uid, account, window_name) DO UPDATE SET used_percent = excluded.used_percent, \
             resets_at = excluded.resets_at, observed_at = excluded.observed_at"
    ))?
    .execute(params![
        limit.uid,
        key(limit.account.as_deref()),
        limit.window.name,
        limit.window.used_percent,
        limit.window.resets_at.map(Timestamp::micros),
        limit.observed_at.micros(),
    ])?;
    Ok(())
}

/// All limits, in the order of their keys.
pub(in crate::store) fn all(db: &Connection) -> Result<Vec<AccountLimit>, StoreError> {
    Ok(db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM rate_limits ORDER BY uid, account, window_name"))?
        .query_map([], read)?
        .collect::<Result<_, _>>()?)
}

/// Deletes all but the newest `kept` windows of an account.
pub(in crate::store) fn keep_windows(
    db: &Connection,
    uid: u32,
    account: Option<&str>,
    kept: usize,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM rate_limits WHERE uid = ?1 AND account = ?2 AND window_name IN (SELECT window_name FROM rate_limits \
             WHERE uid = ?1 AND account = ?2 ORDER BY observed_at DESC, window_name LIMIT -1 OFFSET ?3)",
    )?
    .execute(params![uid, key(account), kept as i64])?;
    Ok(())
}

/// Deletes all but the newest `kept` accounts, of one user or of all.
pub(in crate::store) fn keep_accounts(db: &Connection, uid: Option<u32>, kept: usize) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM rate_limits WHERE (uid, account) IN (SELECT uid, account FROM rate_limits \
             WHERE ?1 IS NULL OR uid = ?1 GROUP BY uid, account ORDER BY max(observed_at) DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![uid, kept as i64])?;
    Ok(())
}

/// Whether any limit was observed last at this time or before.
pub(in crate::store) fn any_until(db: &Connection, at: Timestamp) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM rate_limits WHERE observed_at <= ?1)")?
        .query_row([at.micros()], |row| row.get(0))?)
}

/// Deletes what was observed last at this time or before.
pub(in crate::store) fn delete_until(db: &Connection, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM rate_limits WHERE observed_at <= ?1")?.execute([at.micros()])?;
    Ok(())
}
