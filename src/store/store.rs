//! The handle on the store: a write is a job for the one writer thread, a read runs on a connection of its own.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::domain::Reason;
use crate::store::error::{OpenError, StoreError};
use crate::store::new_processes::NewProcesses;
use crate::store::op::{Op, OpContext};
use crate::store::ops::user_limits;
use crate::store::ops::user_limits::UserLimits;
use crate::store::recovery::integrity;
use crate::store::recovery::integrity::Check;
use crate::store::sqlite::change_feed::ChangeFeed;
use crate::store::sqlite::connection::{DatabaseFiles, Options};
use crate::store::sqlite::readers::Readers;
use crate::store::sqlite::writer::{Keeper, Writer};
use crate::store::sync_state::mirror_position::MirrorPosition;
use crate::store::sync_state::mirror_share::Limit;
use crate::store::sync_state::{mirror_cursor, mirror_share};
use crate::store::urgent::UrgentChanges;

mod history;
mod notifications;
mod on_demand;
mod sessions;
mod sync;

/// A handle on the store; clones share the one writer.
#[derive(Clone)]
pub struct Store {
    pub(in crate::store) writer: Writer,
    pub(in crate::store) readers: Readers,
    /// Counts commits; waiters wait for it to change.
    pub(in crate::store) commits: watch::Receiver<u64>,
    pub(in crate::store) urgent: UrgentChanges,
    pub(in crate::store) processes: NewProcesses,
    pub(in crate::store) long_log: Arc<Notify>,
    pub(in crate::store) changes: ChangeFeed,
    pub(in crate::store) mirror_position: Arc<MirrorPosition>,
    pub(in crate::store) files: Arc<DatabaseFiles>,
    pub(in crate::store) user_limits: Option<UserLimits>,
}

/// How long a pause of the reads waits for those under way.
const READS_END: Duration = Duration::from_secs(1);

/// Ends when every handle on the store is gone and everything accepted is committed.
pub struct WriterThread(JoinHandle<()>);

impl WriterThread {
    /// Waits for the last commit and the closing of the database.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the writer ended by a panic; what it had acknowledged is on disk");
        }
    }
}

impl Store {
    /// Opens or makes the database in a folder that the caller holds the lock of.
    ///
    /// # Errors
    /// A store newer than this binary, a folder that cannot be used. A damaged store is no error.
    pub fn open(dir: &Path, options: Options, clock: Clock) -> Result<(Self, WriterThread), OpenError> {
        let files = DatabaseFiles::new(dir, options);
        let connection = files.open(clock(), &files.check_at_start())?;
        let readers = Readers::new(files.clone());
        let (committed, commits) = watch::channel(0);
        let changes = ChangeFeed::new();
        changes.follow(&connection)?;
        let urgent = UrgentChanges::default();
        let mirror_position = Arc::new(MirrorPosition::new(mirror_cursor::as_of(&connection)?));
        let long_log = Arc::new(Notify::new());
        let keeper = StoreKeeper {
            files: files.clone(),
            readers: readers.clone(),
            committed,
            urgent: urgent.clone(),
            changes: changes.clone(),
            long_log: long_log.clone(),
            clock,
        };
        let (writer, thread) = Writer::start(connection, keeper)
            .map_err(|source| OpenError::Folder { dir: dir.display().to_string(), source })?;
        let processes = NewProcesses::default();
        let files = Arc::new(files);
        Ok((
            Self {
                writer,
                readers,
                commits,
                urgent,
                processes,
                long_log,
                changes,
                mirror_position,
                files,
                user_limits: None,
            },
            WriterThread(thread),
        ))
    }

    /// The same store, in which users who share it are limited.
    pub fn limiting_users(self, limits: UserLimits) -> Self {
        Self { user_limits: Some(limits), ..self }
    }

    /// Changes after each group of commits.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// How many urgent changes were committed since the start.
    pub fn urgent_changes(&self) -> u64 {
        self.urgent.count()
    }

    /// Writes what others may be waiting for.
    pub(in crate::store) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let urgent = self.urgent.clone();
        self.writer
            .submit(move |db| {
                urgent.write();
                work(db)
            })
            .await
    }

    /// Runs an operation that others may be waiting for.
    pub(in crate::store) async fn write_op<T: Send + 'static>(
        &self,
        context: OpContext,
        work: impl FnOnce(&Op<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write(move |db| work(&Op::new(db, context))).await
    }

    /// Runs an operation for its caller, who may not exceed the limits by it.
    pub(in crate::store) async fn write_limited<T: Send + 'static>(
        &self,
        context: OpContext,
        work: impl FnOnce(&Op<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let limits = self.user_limits;
        self.write_op(context, move |op| user_limits::limited(limits.as_ref(), op, work)).await
    }

    /// Runs an operation that only reads.
    pub(in crate::store) async fn read_op<T: Send + 'static>(
        &self,
        context: OpContext,
        work: impl Fn(&Op<'_>) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read(move |db| work(&Op::new(db, context))).await
    }

    /// The processes to watch that came with sessions.
    pub fn new_processes(&self) -> NewProcesses {
        self.processes.clone()
    }

    /// Returns when the writer has ended, by a bug or because a damaged store could not be rebuilt.
    pub async fn stopped(&self) {
        self.writer.stopped().await;
    }

    /// Reads, and has a database that turns out to be damaged rebuilt before it is read once more.
    pub(in crate::store) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let generation = self.readers.generation();
        match self.readers.read(work.clone()).await {
            Err(StoreError::Damaged(why)) => {
                // The next write would find it too, which may be long from now on a quiet day.
                let readers = self.readers.clone();
                let tell = move |_: &Connection| match readers.generation() == generation {
                    true => Err(StoreError::Damaged(why)),
                    // Another caller found it as well, and it has been rebuilt since.
                    false => Ok(()),
                };
                let _ = self.writer.submit(tell).await;
                self.ping().await?;
                self.readers.read(work).await
            }
            other => other,
        }
    }

    /// Checks all of the database, which a start does only in part, and has it rebuilt if it is damaged.
    ///
    /// # Errors
    /// `CheckGivenUp` if too much is written meanwhile; it has to be run again.
    pub async fn verify(&self) -> Result<(), StoreError> {
        for piece in self.read(integrity::pieces).await? {
            let log = self.files.log();
            self.read(move |db| piece.run_beside(db, log.clone())).await?;
        }
        Ok(())
    }

    /// Waits until the log is long, and has SQLite restart it: it does so by itself only when no read is under way,
    /// which may never be. To be called in a loop by one task.
    ///
    /// # Errors
    /// It could not be done now, and has to be tried again.
    pub async fn shorten_log(&self) -> Result<(), StoreError> {
        self.long_log.notified().await;
        // Most of the work is done beside reads and writes, so that the pause is short.
        self.fold_log("PASSIVE").await?;
        let paused = self.readers.pause(READS_END).await.ok_or(StoreError::Busy)?;
        self.fold_log("TRUNCATE").await?;
        drop(paused);
        self.make_room().await?;
        if self.files.log_is_long() { Err(StoreError::Busy) } else { Ok(()) }
    }

    /// Makes commits quick from the first on, rather than only once the log has had its usual length.
    pub async fn make_room(&self) -> Result<(), StoreError> {
        let files = self.files.clone();
        self.writer.submit_atomic(move |_| files.lengthen_log()).await
    }

    async fn fold_log(&self, mode: &'static str) -> Result<(), StoreError> {
        let files = self.files.clone();
        let folding = tokio::task::spawn_blocking(move || files.fold_log(mode));
        folding.await.unwrap_or_else(|error| {
            Err(StoreError::Bug(Reason::from(format!("the log was not folded in: {error}")).caused_by(error)))
        })
    }

    /// Goes once through the writer: it lives, and gets work done.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.writer.submit(|_| Ok(())).await
    }

    /// Tries a write of this host again where the store was full and the mirror could make room.
    pub(in crate::store) async fn with_room<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match attempt().await {
            Err(StoreError::Full(why)) => {
                let mut made = false;
                while let Ok(true) = self.writer.submit(|db| mirror_share::make_room(db, Limit::Full)).await {
                    made = true;
                }
                if made { attempt().await } else { Err(StoreError::Full(why)) }
            }
            outcome => outcome,
        }
    }

    /// Which sessions change.
    pub fn changes(&self) -> &ChangeFeed {
        &self.changes
    }

    /// The newest damaged file that was set aside and still lies there, by its name.
    pub fn damage(&self) -> Option<String> {
        self.files.quarantined()
    }

    /// The size of the database and its log on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.size("") + self.files.size("-wal")
    }
}

struct StoreKeeper {
    pub(in crate::store) files: DatabaseFiles,
    pub(in crate::store) readers: Readers,
    committed: watch::Sender<u64>,
    pub(in crate::store) urgent: UrgentChanges,
    pub(in crate::store) changes: ChangeFeed,
    pub(in crate::store) long_log: Arc<Notify>,
    clock: Clock,
}

impl Keeper for StoreKeeper {
    fn recover(&mut self) -> Result<Connection, StoreError> {
        self.readers.forget();
        let reopened = self.files.open((self.clock)(), &Check::Everything).and_then(|connection| {
            self.changes.follow(&connection)?;
            Ok(connection)
        });
        self.readers.forget();
        reopened.map_err(|error| match error {
            OpenError::Store(error) => error,
            other => StoreError::Io(Reason::from(other.to_string()).caused_by(other)),
        })
    }

    fn explain(&self, error: StoreError) -> StoreError {
        self.files.name_holder(error)
    }

    fn committed(&mut self) {
        self.changes.committed();
        self.urgent.committed();
        self.committed.send_modify(|count| *count += 1);
        if self.files.log_is_long() {
            self.long_log.notify_one();
        }
    }
}
