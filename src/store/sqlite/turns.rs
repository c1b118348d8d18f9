//! Work on many rows, cut into turns.
//!
//! All writes wait while the writer runs a job, so no job may take longer than some 20 ms. Work that grows
//! with the number of sessions or records is therefore several jobs, each with at most [`ROWS`] rows and [`BYTES`]
//! of their bodies, between which other writes get their turn. Each turn leaves a store that is valid by itself: a
//! crash between two of them loses nothing, and the work is done again from the start or continued.

use rusqlite::{Connection, params};

use crate::store::error::StoreError;

/// How many rows one turn writes.
pub(in crate::store) const ROWS: usize = 200;

/// How many bytes of text one turn deletes, unless one row alone has more: a long text lies on many pages.
pub(in crate::store) const BYTES: usize = 1 << 20;

/// What one turn may still delete.
pub(in crate::store) struct Budget {
    rows: usize,
    bytes: usize,
}

impl Budget {
    pub(in crate::store) const fn new() -> Self {
        Self { rows: ROWS, bytes: BYTES }
    }

    /// Takes a row of that size, or says that the next turn has to. A turn takes at least one row.
    fn take(&mut self, size: usize) -> bool {
        let is_whole = self.rows == ROWS && self.bytes == BYTES;
        let fits = self.rows > 0 && (size <= self.bytes || is_whole);
        if fits {
            self.rows -= 1;
            self.bytes = self.bytes.saturating_sub(size);
        }
        fits
    }

    /// Takes a row of next to no size.
    pub(in crate::store) fn take_row(&mut self) -> bool {
        self.take(0)
    }

    /// Deletes the records of a session as far as the budget allows. Says whether none is left.
    pub(in crate::store) fn delete_records(&mut self, db: &Connection, id: &str) -> Result<bool, StoreError> {
        let found: Vec<(i64, i64)> = db
            .prepare_cached("SELECT seq, octet_length(body) FROM records WHERE instance_id = ?1 LIMIT ?2")?
            .query_map(params![id, self.rows as i64 + 1], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut delete = db.prepare_cached("DELETE FROM records WHERE seq = ?1")?;
        for (seq, size) in found {
            if !self.take(usize::try_from(size).unwrap_or(0)) {
                return Ok(false);
            }
            delete.execute([seq])?;
        }
        Ok(true)
    }
}

/// Splits `items` into parts of at most [`ROWS`].
pub(in crate::store) fn parts<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let part: Vec<T> = items.by_ref().take(ROWS).collect();
        (!part.is_empty()).then_some(part)
    })
}

/// The next rows of a table that a turn takes: those with a key up to `last`.
pub(in crate::store) struct Rows {
    pub last: i64,
    pub count: usize,
    /// Whether the table ends with them.
    pub is_end: bool,
}

/// The next rows behind the key `after`, at most `limit` of them, in a table with an integer key.
pub(in crate::store) fn next_rows(
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
