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

/// The next rows of a table that a turn takes: those with a key up to `last`.
pub(super) struct Rows {
    pub last: i64,
    pub count: usize,
    /// Whether the table ends with them.
    pub is_end: bool,
}

/// The next rows behind the key `after`, at most `limit` of them, in a table with an integer key.
pub(super) fn next_rows(
    db: &Connection,
    (table, key): (&str, &str),
    after: i64,
    limit: usize,
) -> Result<Rows, StoreError> {
    let next = format!(
        "SELECT coalesce(max(k), ?1), count(*) \
         FROM (SELECT {key} AS k FROM {table} WHERE {key} > ?1 ORDER BY {key} LIMIT ?2)"
    );
    let (last, count) = db
        .prepare_cached(&next)?
        .query_row(params![after, limit as i64], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    let count = usize::try_from(count).unwrap_or(limit);
    Ok(Rows { last, count, is_end: count < limit })
}
