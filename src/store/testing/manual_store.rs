//! The store without its threads: the test decides when the writer commits, and when it crashes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tokio::sync::{mpsc, watch};

use crate::domain::{InstanceId, Session, SessionWork};
use crate::store::error::StoreError;
use crate::store::ops::machines;
use crate::store::recovery::integrity::Check;
use crate::store::sqlite::change_feed::ChangeFeed;
use crate::store::sqlite::connection::{DatabaseFiles, Durability, Options, prepare_once};
use crate::store::sqlite::readers::Readers;
use crate::store::sqlite::writer;
use crate::store::sqlite::writer::{Job, Writer};
use crate::store::store::Store;
use crate::store::sync_state::outbox::Backlog;
use crate::store::sync_state::parked::{Parked, Unpark};
use crate::store::sync_state::{outbox, parked};
use crate::store::tables::columns::OURS;
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions::COLUMNS;
use crate::store::tables::{session_work, sessions};

/// A database in memory that outlives its connections, as a file would.
pub(crate) struct Disk {
    url: String,
    _keeps_it: Connection,
}

impl Disk {
    /// `name` must be unique in this process.
    pub(crate) fn new(name: &str) -> Self {
        let url = format!("file:/{name}?vfs=memdb");
        Self { _keeps_it: connect(&url), url }
    }
}

fn connect(url: &str) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(url, flags).unwrap();
    prepare_once(&connection, 64).unwrap();
    connection
}

/// The writer's end of a store: its one connection and the jobs that wait.
pub(crate) struct ManualStore {
    connection: Connection,
    queue: mpsc::Receiver<Job>,
    changes: ChangeFeed,
}

impl ManualStore {
    /// Opens what is on the disk, as a start of the daemon does.
    pub(crate) fn open(disk: &Disk) -> (Store, Self) {
        let files = DatabaseFiles::new(Path::new(""), Options { durability: Durability::Normal, max_size: 1 << 30 });
        let connection = files.prepare(connect(&disk.url), &Check::Everything).unwrap();
        let (writer, queue) = Writer::new();
        let changes = ChangeFeed::new();
        changes.follow(&connection).unwrap();
        let store = Store {
            writer,
            readers: Readers::inline(files.clone(), connect(&disk.url)),
            commits: watch::channel(0).1,
            urgent: crate::store::urgent::UrgentChanges::default(),
            processes: crate::store::NewProcesses::default(),
            long_log: Arc::default(),
            changes: changes.clone(),
            mirror_position: Arc::default(),
            files: Arc::new(files),
            user_limits: None,
        };
        (store, Self { connection, queue, changes })
    }

    /// Commits all jobs that wait as one group, and answers them. Returns how many they were.
    pub(crate) fn commit(&mut self) -> usize {
        let waiting = self.queue.len();
        if waiting > 0 {
            let jobs = std::iter::from_fn(|| self.queue.try_recv().ok());
            assert!(
                matches!(writer::commit(&self.connection, jobs, |error| error), ControlFlow::Continue(())),
                "nothing damages it"
            );
            assert!(self.connection.is_autocommit(), "a group left its transaction open");
            self.changes.committed();
        }
        waiting
    }

    /// How many changes of sessions were announced to watchers.
    pub(crate) fn announced(&self) -> u64 {
        *self.changes.newest().borrow()
    }

    /// The disk is full, or it has room again.
    pub(crate) fn set_full(&self, full: bool) {
        let pages: i64 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        self.connection.pragma_update(None, "max_page_count", if full { pages } else { 1 << 20 }).unwrap();
    }

    /// As [`Store::retry_parked`] of everything, but a job reads the rows, when it is committed.
    pub(crate) async fn retry_all_parked(store: &Store) -> Result<usize, StoreError> {
        Self::unpark_all(store, Unpark::Retry).await
    }

    /// As [`Store::drop_parked`] of everything, but a job reads the rows, when it is committed.
    pub(crate) async fn drop_all_parked(store: &Store) -> Result<usize, StoreError> {
        Self::unpark_all(store, Unpark::Drop).await
    }

    async fn unpark_all(store: &Store, how: Unpark) -> Result<usize, StoreError> {
        let rows = store.writer.submit(|db| parked::parked_rows(db, &[])).await?;
        store.unpark_rows(rows, how).await
    }

    pub(crate) fn backlog(&self) -> Result<Backlog, StoreError> {
        outbox::backlog(&self.connection)
    }

    /// How many events are unsynced, regardless of what the store knows of central's tables.
    pub(crate) fn unsynced_events(&self) -> u64 {
        let sql = "SELECT count(*) FROM records WHERE kind = 'event' AND unsynced = 1 AND parked_at IS NULL \
             AND instance_id NOT IN (SELECT instance_id FROM sessions WHERE parked_at IS NOT NULL)";
        self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    }

    /// What is mirrored under exactly this id.
    pub(crate) fn mirrored(&self, id: &str) -> Option<Session> {
        let record = sessions::exactly(&self.connection, id).unwrap();
        record.filter(|record| record.mirrored).map(|record| record.session)
    }

    /// What any session does and works on.
    pub(crate) fn work(&self, id: &InstanceId) -> Option<SessionWork> {
        session_work::shared(&self.connection, id).unwrap().map(|(work, _)| work)
    }

    /// A user whose usage is not what their rows are counted to.
    pub(crate) fn miscounted_usage(&self) -> Option<String> {
        let differs = "SELECT format('user %d: %d bytes and %d open sessions are kept, %d and %d counted', k.uid, \
                k.bytes, k.open_sessions, ifnull(c.bytes, 0), ifnull(c.open_sessions, 0)) \
            FROM user_usage k FULL JOIN counted_usage c USING (uid) \
            WHERE ifnull(k.bytes, 0) <> ifnull(c.bytes, 0) OR ifnull(k.open_sessions, 0) <> ifnull(c.open_sessions, 0)";
        self.connection.prepare_cached(differs).unwrap().query_row([], |row| row.get(0)).optional().unwrap()
    }

    pub(crate) fn filed_under(&self) -> Option<String> {
        machines::filed_under(&self.connection).unwrap()
    }

    pub(crate) fn parked(&self) -> Vec<Parked> {
        parked::list_parked(&self.connection).unwrap()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Record> {
        sessions::get(&self.connection, id).unwrap()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let sql = format!("SELECT {COLUMNS} FROM sessions s WHERE {OURS} ORDER BY instance_id");
        let mut statement = self.connection.prepare_cached(&sql).unwrap();
        statement.query_map([], sessions::read_record).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// What is recorded as active, of this host and of others.
    pub(crate) fn active_records(&self) -> Vec<Record> {
        let sql = format!("SELECT {COLUMNS} FROM sessions s WHERE status = 'active' ORDER BY instance_id");
        let mut statement = self.connection.prepare_cached(&sql).unwrap();
        statement.query_map([], sessions::read_record).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Does in the next group what no statement of the store does.
    pub(crate) fn execute(store: &Store, sql: &'static str) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let writer = store.writer.clone();
        async move { writer.submit(move |db| Ok(db.execute_batch(sql)?)).await }
    }

    /// A new id without the way back from the old one.
    pub(crate) fn forget_alias(&self, old: &InstanceId) {
        self.connection.execute("DELETE FROM aliases WHERE old_id = ?1", [old.as_str()]).unwrap();
    }
}
