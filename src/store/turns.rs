//! Work on many rows, cut into turns.
//!
//! Everyone who writes waits while the writer runs a job, so no job may take longer than some 20 ms. Whatever grows
//! with the number of sessions or records is therefore several jobs, each with at most [`ROWS`] rows and [`BYTES`]
//! of their bodies, between which other writes get their turn. Each turn leaves a store that is valid by itself: a
//! crash between two of them loses nothing, and the work is done again from the start or goes on where it was.

use rusqlite::{Connection, params};

use super::StoreError;

/// How many rows one turn writes.
pub(super) const ROWS: usize = 200;
/// How many bytes of text one turn deletes, unless one row alone has more: a long text lies on many pages.
pub(super) const BYTES: usize = 1 << 20;

/// Splits `items` into parts of at most [`ROWS`].
pub(super) fn parts<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let part: Vec<T> = items.by_ref().take(ROWS).collect();
        (!part.is_empty()).then_some(part)
    })
}

/// The key of the last row that a turn takes from behind `after`, in a table with an integer key; none if no row is
/// left.
pub(super) fn last_key(db: &Connection, table: &str, key: &str, after: i64) -> Result<Option<i64>, StoreError> {
    let last = format!("SELECT max(k) FROM (SELECT {key} AS k FROM {table} WHERE {key} > ?1 ORDER BY {key} LIMIT ?2)");
    Ok(db.prepare_cached(&last)?.query_row(params![after, ROWS as i64], |row| row.get(0))?)
}
