//! What the parts of a page share: where the next page begins, and how values of other clients are read.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Decode, Postgres, Type};

use crate::domain::Timestamp;
use crate::domain::mirror::{ChangePage, PullPosition};
use crate::sync::central::CentralError;
use crate::sync::postgres::link::{Link, column};

/// Counts a row that cannot be read.
pub(in crate::sync::postgres) fn skip(what: &str, why: &str, unreadable: &mut u64) {
    tracing::debug!(why, "{what} in central cannot be read and is skipped");
    *unreadable += 1;
}

/// The key of the last row, if the page is full. `id`, `transaction`: the columns of the key.
pub(in crate::sync::postgres) fn last_key(
    rows: &[PgRow],
    full: u32,
    id: usize,
    transaction: usize,
) -> Result<Option<(String, u64)>, CentralError> {
    match rows.last() {
        Some(row) if rows.len() >= full as usize => {
            Ok(Some((column(row, id)?, column::<i64>(row, transaction)?.unsigned_abs())))
        }
        _ => Ok(None),
    }
}

/// Skips the one row of a page, of which only the key is read: its session and its transaction.
pub(in crate::sync::postgres) async fn skip_row(
    link: &mut Link,
    keys: Query<'_, Postgres, PgArguments>,
    position: &PullPosition,
    what: &str,
    changes: &mut ChangePage,
) -> Result<Option<PullPosition>, CentralError> {
    let key = last_key(&link.rows(keys).await?, 1, 0, 1)?;
    Ok(key.map(|(instance_id, transaction)| {
        skip(what, &instance_id, &mut changes.unreadable);
        position.behind((instance_id, transaction))
    }))
}

/// A column of a row that another client may have written. An error concerns this row alone.
pub(in crate::sync::postgres) fn value<'r, T>(row: &'r PgRow, index: usize) -> Result<T, String>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    column(row, index).map_err(|error| error.to_string())
}

/// A time in microseconds since 1970.
pub(in crate::sync::postgres) fn timestamp(row: &PgRow, index: usize) -> Result<Timestamp, String> {
    value(row, index).map(Timestamp::from_micros)
}
