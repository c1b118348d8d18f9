//! The change feed: which sessions changed, commit by commit, for watchers.
//!
//! It is SQLite's update hook, so that no way of changing a session is missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::Action;
use tokio::sync::watch;

use crate::store::error::StoreError;

/// How many changes are remembered for those who come back after their connection broke.
const REMEMBERED: usize = 16_384;

/// The changes since the daemon started. Clones share them.
#[derive(Clone)]
pub struct ChangeFeed {
    log: Arc<Mutex<Log>>,
    newest: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Log {
    /// Rows written in the transaction that is open.
    written: Vec<i64>,
    /// The rows of the newest changes; the last of them is change number `newest`.
    committed: VecDeque<i64>,
    newest: u64,
}

impl ChangeFeed {
    pub(in crate::store) fn new() -> Self {
        Self { log: Arc::default(), newest: Arc::new(watch::Sender::new(0)) }
    }

    /// Follows what this connection writes.
    pub(in crate::store) fn follow(&self, connection: &Connection) -> Result<(), StoreError> {
        let changes = self.clone();
        connection.update_hook(Some(move |action, _: &str, table: &str, row| {
            if table == "sessions" && action != Action::SQLITE_DELETE {
                changes.lock().written.push(row);
            }
        }))?;
        Ok(())
    }

    /// What was written is committed. A row of a transaction that failed before is reported too: its reader
    /// finds it as it is.
    pub(in crate::store) fn committed(&self) {
        let mut log = self.lock();
        let mut written = std::mem::take(&mut log.written);
        written.dedup();
        if written.is_empty() {
            return;
        }
        log.newest += written.len() as u64;
        log.committed.extend(written);
        let excess = log.committed.len().saturating_sub(REMEMBERED);
        log.committed.drain(..excess);
        let newest = log.newest;
        drop(log);
        self.newest.send_replace(newest);
    }

    /// The number of the newest change, and a way to wait for more.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The rows that changed after change number `seen`, at most `limit` of them; none if that is no longer known.
    pub(in crate::store) fn after(&self, seen: u64, limit: usize) -> Option<Vec<i64>> {
        let log = self.lock();
        let behind = usize::try_from(log.newest.checked_sub(seen)?).ok()?;
        let start = log.committed.len().checked_sub(behind)?;
        Some(log.committed.range(start..).take(limit).copied().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(rows: impl IntoIterator<Item = i64>) -> ChangeFeed {
        let changes = ChangeFeed::new();
        for row in rows {
            changes.lock().written.push(row);
            changes.committed();
        }
        changes
    }

    #[test]
    fn resumes_after_a_given_number() {
        let changes = log([7, 8, 7]);
        assert_eq!(*changes.newest().borrow(), 3);
        assert_eq!(changes.after(0, 10), Some(vec![7, 8, 7]));
        assert_eq!(changes.after(2, 10), Some(vec![7]));
        assert_eq!(changes.after(0, 2), Some(vec![7, 8]));
        assert_eq!(changes.after(3, 10), Some(vec![]));
        assert_eq!(changes.after(4, 10), None, "a number of another daemon's life");
    }

    #[test]
    fn changes_before_the_oldest_kept_number_are_unknown() {
        let changes = log(0..REMEMBERED as i64 + 2);
        assert_eq!(changes.after(1, 10), None);
        assert_eq!(changes.after(2, 1), Some(vec![2]));
    }

    #[test]
    fn follows_the_table_of_sessions() {
        let changes = ChangeFeed::new();
        let db = Connection::open_in_memory().unwrap();
        changes.follow(&db).unwrap();
        db.execute_batch(
            "CREATE TABLE sessions (x); CREATE TABLE other (x); INSERT INTO sessions VALUES (1), (2); \
             INSERT INTO other VALUES (1); UPDATE sessions SET x = 3 WHERE x = 2; DELETE FROM sessions",
        )
        .unwrap();
        changes.committed();
        assert_eq!(changes.after(0, 10), Some(vec![1, 2]));
    }
}
