//! Begins a page: its transaction, the position, and at the first page of a pull which parts have rows.
//!
//! Most pulls find one row, or none. To ask for each part costs central more than the row does, so the statement that reads
//! which transactions are running also says which parts have changes at all, in the round trip that begins the transaction.
//!
//! **Invariant**: a part without changes has none that this pull has to read. The statement has one snapshot, and the next
//! pull reads what is not visible in it. The reverse does not hold: the changes of a part may be this host's own, out of
//! scope, or read before.

use super::has_projects;
use crate::domain::TableState;
use crate::domain::mirror::{PullPart, PullPosition, PullQuery, Transactions};
use crate::sync::central::CentralError;
use crate::sync::postgres::link::{Access, Link, column, quoted, with_literals};
use crate::sync::postgres::registered_host::RegisteredHost;
use crate::sync::postgres::sql;

/// Where a page begins.
pub(super) struct Beginning {
    pub(super) position: PullPosition,
    pub(super) parts: PartsWithRows,
    /// The transactions that had ended, if this is the first page of a pull.
    pub(super) snapshot: Option<Transactions>,
}

/// Which parts of a pull may have rows.
pub(super) struct PartsWithRows {
    deletions: bool,
    sessions: bool,
    work: bool,
    history: bool,
}

impl PartsWithRows {
    /// All parts that this central has.
    fn all(host: &RegisteredHost) -> Self {
        // An older central may have no table of work.
        let work = host.shapes.tables.work == TableState::Usable;
        Self { deletions: true, sessions: true, work, history: true }
    }

    pub(super) fn has(&self, part: PullPart) -> bool {
        match part {
            PullPart::Deletions => self.deletions,
            PullPart::Sessions | PullPart::OutOfScope => self.sessions,
            PullPart::Work => self.work,
            PullPart::History => self.history,
        }
    }
}

/// Begins the transaction of a page. `None` if the pull begins at a transaction with a higher number than central has.
pub(super) async fn begin(
    link: &mut Link,
    host: &RegisteredHost,
    reading: &PullQuery,
    access: Access,
) -> Result<Option<Beginning>, CentralError> {
    if let Some(after) = &reading.after {
        link.begin_reading(access).await?;
        return Ok(Some(Beginning { position: after.clone(), parts: PartsWithRows::all(host), snapshot: None }));
    }
    let asks_for_parts = !reading.is_whole() && host.shapes.tables.work == TableState::Usable;
    let statement = match asks_for_parts {
        true => with_literals(sql::CHANGED_PARTS, &[quoted(reading.since)]),
        false => sql::OLDEST_TRANSACTION.to_owned(),
    };
    let rows = link.begin_with(access, statement).await?;
    let Some(row) = rows.first() else {
        return Err(CentralError::Retry("central did not return its oldest transaction".into()));
    };
    let next_since = column::<i64>(row, 0)?.unsigned_abs();
    if reading.since > next_since {
        return Ok(None);
    }
    let parts = match asks_for_parts {
        true => {
            let (deletions, sessions) = (column(row, 2)?, column(row, 3)?);
            // A session that entered the scope brings its history.
            let history = column(row, 5)? || sessions && has_projects(reading);
            PartsWithRows { deletions, sessions, work: column(row, 4)?, history }
        }
        false => PartsWithRows::all(host),
    };
    let position = PullPosition::start(reading.position().0, reading.since, next_since);
    Ok(Some(Beginning { position, parts, snapshot: Transactions::parse(&column::<String>(row, 1)?) }))
}
