//! The state folder: SQLite for sessions, a small file for the identity, a lock for both.
//!
//! A write is a job for the one writer thread and is answered after its commit; a read runs on a
//! connection of its own. Only this module knows SQLite.

mod agents;
#[cfg(test)]
mod agents_tests;
#[cfg(test)]
pub(crate) mod by_hand;
mod changes;
mod check;
mod columns;
mod copies;
mod error;
mod event_types;
mod examine;
mod history;
#[cfg(test)]
mod history_tests;
mod idempotency;
mod identity;
mod machines;
mod mirror;
mod mirror_position;
mod mirror_share;
mod news;
mod open;
mod outbox;
mod processes;
mod promises;
mod prune;
mod readers;
mod recall;
mod resume;
mod salvage;
mod session_page;
mod sessions;
mod spool;
#[cfg(test)]
mod tests;
mod turns;
#[cfg(test)]
mod turns_scale_tests;
#[cfg(test)]
mod turns_tests;
mod user_limits;
#[cfg(test)]
mod user_limits_tests;
mod wal;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub use agents::{Sighted, Sighting};
pub use changes::Changes;
pub use columns::ColumnChanges;
pub use error::{OpenError, StoreError};
pub use examine::examine;
pub use history::WITHOUT_SESSION;
pub use history::{History, HistoryQuery, KeptRecord, SettledRecord};
pub use idempotency::{Once, RequestKey};
pub use identity::{Identity, IdentityFile, PinnedIdentity};
pub use machines::KnownMachine;
pub use mirror::{Draws, PageResult};
pub use open::FolderLock;
pub use outbox::{
    Backlog, BatchLimit, Ledger, Parked, ParkedRecord, Pending, Place, Renamed, Settled, Settlement, Settling, Skip,
};
pub use processes::{NewProcesses, ProcessNews};
pub use resume::{Heir, Resumed, Resumption, Wanted};
pub use session_page::{Cursor, SessionPage};
pub use sessions::{CANDIDATES, Caller, Filter, Lookup, Process, Record};
pub use spool::{Deferred, Import, Imported};
pub use user_limits::UserLimits;

use crate::clock::Clock;
use crate::domain::mirror::{self as reading, HostSeen, Reading};
use crate::domain::{
    Happening, Heartbeat, HistoryTables, InstanceId, Kind, MachineName, Recollection, Registration, Status, Timestamp,
};
use check::Check;
use event_types::LearnPlace;
use mirror::{Importing, Turn};
use mirror_position::MirrorPosition;
use mirror_share::Limit;
use news::News;
use open::Files;
use outbox::{ForgetPlace, ParkedRow};
use prune::PrunePlace;
use readers::Readers;
use writer::{Keeper, Writer};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power cut.
    #[default]
    Full,
    /// A crash of the daemon.
    Normal,
}

impl Durability {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub durability: Durability,
    /// The database may not grow beyond this many bytes.
    pub max_size: u64,
}

/// How many sessions are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: u64,
    pub stale: u64,
    pub closed: u64,
}

impl Counts {
    fn add(&mut self, status: Status) {
        *match status {
            Status::Active => &mut self.active,
            Status::Stale => &mut self.stale,
            Status::Closed => &mut self.closed,
        } += 1;
    }
}

/// A handle on the store; clones share the one writer.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    /// Counts commits; whoever waits for news waits for it to change.
    commits: watch::Receiver<u64>,
    news: News,
    processes: NewProcesses,
    long_log: Arc<Notify>,
    changes: Changes,
    mirror_position: Arc<MirrorPosition>,
    files: Arc<Files>,
    user_limits: Option<UserLimits>,
}

/// How long a pause of the reads waits for those under way.
const READS_END: Duration = Duration::from_secs(1);

/// A session to be registered.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub what: Registration,
    pub process: Option<Process>,
    pub caller: Caller,
    /// Random numbers for the id, more than one in case an id is taken.
    pub draws: [u64; 8],
    pub at: Timestamp,
}

/// Registers a session, unless the same agent has registered it from the same process before.
fn register(
    db: &Connection,
    what: Registration,
    process: Option<Process>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<Record, StoreError> {
    match idempotency::registered(db, &what, process, caller)? {
        Some(record) => Ok(record),
        None => sessions::register(db, what, process, caller, draws, at),
    }
}

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
        let files = Files::new(dir, options);
        let connection = files.open(clock(), &files.check_at_start())?;
        let readers = Readers::new(files.clone());
        let (committed, commits) = watch::channel(0);
        let changes = Changes::new();
        changes.follow(&connection)?;
        let news = News::default();
        let mirror_position = Arc::new(MirrorPosition::new(mirror::as_of(&connection)?));
        let long_log = Arc::new(Notify::new());
        let keeper = StoreKeeper {
            files: files.clone(),
            readers: readers.clone(),
            committed,
            news: news.clone(),
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
                news,
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

    /// Wakes whoever waits after each group of commits.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Counts what was committed that is more than a sign of life.
    pub fn news(&self) -> u64 {
        self.news.count()
    }

    /// Writes what others may be waiting for.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let news = self.news.clone();
        self.writer
            .submit(move |db| {
                news.write();
                work(db)
            })
            .await
    }

    /// Writes on behalf of a user, who may not exceed the limits by it.
    async fn write_for<T: Send + 'static>(
        &self,
        caller: Caller,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let limits = self.user_limits;
        self.write(move |db| user_limits::limited(limits.as_ref(), db, caller, work)).await
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
    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let generation = self.readers.generation();
        match self.readers.read(work.clone()).await {
            Err(StoreError::Damaged(why)) => {
                // Whoever writes next would meet it too; but on a quiet day that may be long from now.
                let readers = self.readers.clone();
                let tell = move |_: &Connection| match readers.generation() == generation {
                    true => Err(StoreError::Damaged(why)),
                    // Somebody else met it as well, and it has been rebuilt since.
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
        for piece in self.read(check::pieces).await? {
            let log = self.files.log();
            self.read(move |db| piece.run_beside(db, log.clone())).await?;
        }
        Ok(())
    }

    /// Waits until the log is long, and has SQLite begin it anew: it does so by itself only when no read is under way,
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
        folding.await.unwrap_or_else(|error| Err(StoreError::Bug(format!("the log was not folded in: {error}"))))
    }

    /// Goes once through the writer: it lives, and gets work done.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.writer.submit(|_| Ok(())).await
    }

    /// `draws`: random numbers for the id, more than one in case an id is taken.
    pub async fn register(
        &self,
        what: Registration,
        process: Option<Process>,
        caller: Caller,
        draws: [u64; 8],
        at: Timestamp,
    ) -> Result<Record, StoreError> {
        let attempt = || {
            let what = what.clone();
            self.write_for(caller, move |db| register(db, what, process, caller, &draws, at))
        };
        let record = self.with_room(attempt).await?;
        self.announce_process(&record);
        Ok(record)
    }

    /// Registers a session unless that was done under the same key before. `answer`: what the client is answered, as
    /// JSON, to be repeated.
    pub async fn register_once(
        &self,
        key: RequestKey,
        session: NewSession,
        answer: impl FnOnce(&Record) -> String + Clone + Send + 'static,
    ) -> Result<Once<Record, String>, StoreError> {
        let NewSession { what, process, caller, draws, at } = session;
        let attempt = || {
            let (key, what, answer) = (key.clone(), what.clone(), answer.clone());
            let work = move |db: &Connection| register(db, what, process, caller, &draws, at);
            self.write_for(caller, move |db| idempotency::register(db, &key, caller, at, work, answer))
        };
        let registered = self.with_room(attempt).await?;
        if let Once::First(record) = &registered {
            self.announce_process(record);
        }
        Ok(registered)
    }

    fn announce_process(&self, record: &Record) {
        if let Some(process) = record.process {
            self.processes.add(&record.session.instance_id, process);
        }
    }

    /// Goes on from the session that is wanted. Only one of two who resume a session at once gets it.
    pub async fn resume(
        &self,
        wanted: Wanted,
        heir: Heir,
        at: Timestamp,
        stale_after: Duration,
    ) -> Result<Resumption, StoreError> {
        let caller = Caller { uid: heir.successor.uid };
        let resumption = self.write_for(caller, move |db| resume::resume(db, &wanted, heir, at, stale_after)).await?;
        if let Resumption::Done(resumed) = &resumption {
            self.announce_process(&resumed.session);
        }
        Ok(resumption)
    }

    /// What is left of a session.
    pub async fn recall(&self, session: InstanceId) -> Result<Recollection, StoreError> {
        self.read(move |db| recall::recall(db, &session)).await
    }

    pub async fn heartbeat(
        &self,
        id: String,
        beat: Heartbeat,
        caller: Caller,
        at: Timestamp,
        stale_after: Duration,
    ) -> Result<Record, StoreError> {
        let news = self.news.clone();
        self.writer
            .submit_atomic(move |db| {
                let (record, is_news) = sessions::heartbeat(db, &id, &beat, caller, at, stale_after)?;
                if is_news {
                    news.write();
                }
                Ok(record)
            })
            .await
    }

    /// Takes an agent's report: begins a session, takes one up, or ends it, whichever it tells of.
    pub async fn sight(
        &self,
        sighting: Sighting,
        caller: Caller,
        draws: [u64; 8],
        at: Timestamp,
        stale_after: Duration,
    ) -> Result<Sighted, StoreError> {
        let attempt = || {
            let sighting = sighting.clone();
            self.write_for(caller, move |db| agents::sight(db, sighting, caller, &draws, at, stale_after))
        };
        let sighted = self.with_room(attempt).await?;
        if sighted.process_changed {
            self.announce_process(&sighted.record);
        }
        Ok(sighted)
    }

    /// Applies spooled requests, each once however often it is offered, in one transaction.
    ///
    /// # Errors
    /// The store can apply none of them now. What is wrong with a single request is in its own result.
    pub async fn import(&self, imports: Vec<Import>, stale_after: Duration) -> Result<Vec<Imported>, StoreError> {
        let brings_process = imports.iter().any(|import| import.deferred.brings_process());
        let limits = self.user_limits;
        let imported = self.write(move |db| spool::import(db, imports, stale_after, limits.as_ref())).await?;
        if brings_process {
            self.processes.add_others();
        }
        Ok(imported)
    }

    /// These spool files are gone for good.
    pub async fn forget_imported(&self, names: Vec<String>) -> Result<(), StoreError> {
        for part in turns::parts(names) {
            self.writer.submit(move |db| spool::forget(db, &part)).await?;
        }
        Ok(())
    }

    pub async fn close(&self, id: String, caller: Caller, at: Timestamp) -> Result<Record, StoreError> {
        self.write(move |db| sessions::close(db, &id, caller, at)).await
    }

    pub async fn seen_alive(
        &self,
        ids: Vec<InstanceId>,
        at: Timestamp,
        stale_after: Duration,
    ) -> Result<(), StoreError> {
        let mut parts = turns::parts(ids);
        let mut part = parts.next().unwrap_or_default();
        loop {
            self.write(move |db| sessions::seen_alive(db, &part, at, stale_after)).await?;
            match parts.next() {
                Some(next) => part = next,
                None => return Ok(()),
            }
        }
    }

    pub async fn process_died(&self, id: InstanceId, process: Process, at: Timestamp) -> Result<bool, StoreError> {
        let is_stale = self.write(move |db| sessions::process_died(db, &id, process, at)).await?;
        if !is_stale {
            // Another process may run the session.
            self.processes.add_others();
        }
        Ok(is_stale)
    }

    pub async fn sweep(&self, now: Timestamp, stale_after: Duration) -> Result<usize, StoreError> {
        let mut swept = 0;
        loop {
            let turn = self.write(move |db| sessions::sweep(db, now, stale_after, turns::ROWS)).await?;
            swept += turn;
            if turn < turns::ROWS {
                return Ok(swept);
            }
        }
    }

    /// Closes headless sessions that have been stale since then.
    pub async fn close_headless(&self, silent_since: Timestamp, at: Timestamp) -> Result<usize, StoreError> {
        let mut closed = 0;
        let mut place = Some(i64::MIN);
        while let Some(from) = place {
            let news = self.news.clone();
            let work = move |db: &Connection| {
                let turn = agents::close_headless(db, silent_since, from, at)?;
                if turn.closed > 0 {
                    news.write();
                }
                Ok(turn)
            };
            let turn = self.writer.submit(work).await?;
            closed += turn.closed;
            place = turn.next;
        }
        Ok(closed)
    }

    /// Lets go of sessions that were closed before then and that central has, a bounded turn after the other.
    /// Returns how many.
    pub async fn prune(&self, closed_before: Timestamp) -> Result<usize, StoreError> {
        let mut pruned = 0;
        let mut place = Some(PrunePlace::FIRST);
        while let Some(from) = place {
            let turn = self.writer.submit(move |db| prune::turn(db, closed_before, from)).await?;
            pruned += turn.pruned;
            place = turn.next;
        }
        Ok(pruned)
    }

    /// Deletes promised ids that have expired, a bounded turn after the other.
    pub async fn expire_promises(&self, at: Timestamp) -> Result<(), StoreError> {
        if self.read(move |db| promises::any_expired(db, at)).await? {
            while self.writer.submit(move |db| promises::delete_expired(db, at)).await? {}
        }
        Ok(())
    }

    pub async fn watched(&self) -> Result<Vec<(InstanceId, Process)>, StoreError> {
        self.read(sessions::watched).await
    }

    pub async fn find(&self, text: String) -> Result<Lookup, StoreError> {
        self.read(move |db| sessions::find(db, &text)).await
    }

    pub async fn list(&self, filter: Filter, now: Timestamp, stale_after: Duration) -> Result<Vec<Record>, StoreError> {
        // In pieces, so that no read keeps SQLite from beginning its log anew for long.
        let mut records = Vec::new();
        let mut after_row = Some(i64::MIN);
        while let Some(after) = after_row {
            let filter = filter.clone();
            let piece = self.read(move |db| sessions::list_piece(db, &filter, after, now, stale_after)).await?;
            records.extend(piece.records);
            after_row = piece.next;
        }
        sessions::in_order(&mut records);
        Ok(records)
    }

    /// A page of such a list; see [`session_page`].
    pub async fn page(
        &self,
        filter: Filter,
        limit: usize,
        after: Option<Cursor>,
        now: Timestamp,
        stale_after: Duration,
    ) -> Result<SessionPage, StoreError> {
        self.read(move |db| session_page::read(db, &filter, limit, after.clone(), now, stale_after)).await
    }

    pub async fn counts(&self, now: Timestamp, stale_after: Duration) -> Result<Counts, StoreError> {
        self.read(move |db| sessions::counts(db, now, stale_after)).await
    }

    pub async fn machines(
        &self,
        this: MachineName,
        now: Timestamp,
        stale_after: Duration,
    ) -> Result<Vec<KnownMachine>, StoreError> {
        self.read(move |db| machines::list(db, &this, now, stale_after)).await
    }

    pub async fn replace_hosts(&self, hosts: Vec<HostSeen>) -> Result<(), StoreError> {
        self.writer.submit(move |db| mirror::replace_hosts(db, &hosts)).await
    }

    /// The mirror is one of this timeline of central from now on: if it was of another, everything is read anew.
    pub async fn mirror_of(&self, timeline: String) -> Result<(), StoreError> {
        self.writer.submit(move |db| mirror::of(db, &timeline)).await
    }

    /// Where the next reading of central begins.
    pub async fn mirror_since(&self, now: Timestamp) -> Result<u64, StoreError> {
        let stored = self.read(move |db| mirror::since(db, now)).await?;
        Ok(self.mirror_position.since(stored))
    }

    /// Has the next reading read everything.
    pub async fn read_mirror_anew(&self) -> Result<(), StoreError> {
        self.writer.submit(mirror::read_anew).await
    }

    /// Imports a page of what changed in central, in turns that are each short.
    pub async fn take_in(
        &self,
        reading: Reading,
        changes: reading::Changes,
        draws: Box<Draws>,
        at: Timestamp,
        stale_after: Duration,
    ) -> Result<PageResult, StoreError> {
        let mut imported = PageResult::default();
        if self.mirror_position.advances_in_memory(&reading, &changes, at) {
            return Ok(imported);
        }
        if reading.is_whole() || !changes.is_empty() {
            self.mirror_position.page_written();
        }
        let how = Arc::new(Importing { whole: reading.is_whole(), draws, at, stale_after });
        for turn in Turn::of(&reading, changes) {
            let turn = Arc::new(turn);
            let delete_history = || {
                let turn = turn.clone();
                self.writer.submit(move |db| mirror::delete_history(db, &turn))
            };
            while turn.deletes() && delete_history().await? {}
            if turn.finishes() && how.whole {
                self.drop_unseen().await?;
            }
            let import = || {
                let (turn, how) = (turn.clone(), how.clone());
                self.writer.submit(move |db| mirror::import(db, &turn, &how))
            };
            let part = self.with_room(import).await?;
            if turn.finishes() {
                self.mirror_position.written(at, part.written > 0);
            }
            imported.add(part);
        }
        while self.writer.submit(|db| mirror_share::make_room(db, Limit::Share)).await? {}
        Ok(imported)
    }

    /// Deletes what a reading of everything did not meet, in turns.
    async fn drop_unseen(&self) -> Result<(), StoreError> {
        let mut place = Some(i64::MIN);
        while let Some(from) = place {
            place = self.writer.submit(move |db| mirror::drop_unseen(db, from)).await?;
        }
        Ok(())
    }

    /// Tries a write of this host again where the store was full and the mirror could make room.
    async fn with_room<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
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

    /// When what is mirrored of other hosts was last known to be true; never, before the first time.
    pub fn mirror_as_of(&self) -> Option<Timestamp> {
        self.mirror_position.as_of()
    }

    /// Which sessions change.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The sessions that changed after change number `seen`, as they are now, each with the number of its change,
    /// and how many changes that covers; none if it is too long ago.
    pub async fn changed_after(
        &self,
        seen: u64,
        limit: usize,
    ) -> Result<Option<(u64, Vec<(u64, Record)>)>, StoreError> {
        let Some(rows) = self.changes.after(seen, limit) else { return Ok(None) };
        let covered = rows.len() as u64;
        let numbered: Vec<_> = (seen + 1..).zip(rows).collect();
        let records = self.read(move |db| sessions::in_rows(db, &numbered)).await?;
        Ok(Some((covered, records)))
    }

    /// Files this host's sessions under its name; those of a former name move along. Returns how many moved.
    pub async fn file_under(&self, name: MachineName, at: Timestamp) -> Result<usize, StoreError> {
        let mut moved = 0;
        let mut place = Some(i64::MIN);
        while let Some(from) = place {
            let name = name.clone();
            let turn = self.write(move |db| machines::file_under(db, &name, from, at)).await?;
            moved += turn.moved;
            place = turn.next;
        }
        Ok(moved)
    }

    /// Takes down what happened in a session. `record_id`: random.
    pub async fn append(
        &self,
        id: String,
        what: Happening,
        record_id: Uuid,
        caller: Caller,
        at: Timestamp,
    ) -> Result<KeptRecord, StoreError> {
        let attempt = || {
            let (id, what) = (id.clone(), what.clone());
            self.write_for(caller, move |db| history::append(db, &id, what, record_id, caller, at))
        };
        self.with_room(attempt).await
    }

    /// The same, unless that was done under the same key before.
    pub async fn append_once(
        &self,
        key: RequestKey,
        id: String,
        what: Happening,
        record_id: Uuid,
        caller: Caller,
        at: Timestamp,
    ) -> Result<KeptRecord, StoreError> {
        let attempt = || {
            let (key, id, what) = (key.clone(), id.clone(), what.clone());
            let work = move |db: &Connection| history::append(db, &id, what, record_id, caller, at);
            self.write_for(caller, move |db| idempotency::append(db, &key, caller, at, work))
        };
        self.with_room(attempt).await
    }

    /// Records of a session, newest first.
    pub async fn history(&self, id: InstanceId, query: HistoryQuery) -> Result<History, StoreError> {
        self.read(move |db| history::query(db, &id, &query)).await
    }

    /// Records which tables central has for records and which types of events it takes, and parks or frees the
    /// events that this concerns, in turns.
    pub async fn learn_tables(&self, tables: HistoryTables, at: Timestamp) -> Result<(), StoreError> {
        let tables = Arc::new(tables);
        let mut place = Some(LearnPlace::FIRST);
        while let Some(from) = place {
            let tables = tables.clone();
            place = self.writer.submit(move |db| event_types::turn(db, &tables, from, at)).await?;
        }
        Ok(())
    }

    /// What of this host central lacks, sessions longest waiting first.
    pub async fn pending(&self, limit: BatchLimit, skip: Skip) -> Result<Pending, StoreError> {
        self.read(move |db| outbox::pending(db, limit, &skip)).await
    }

    /// The sessions that central lacks and that stand behind this place among those that wait; no records.
    pub async fn pending_behind(&self, place: Place, limit: BatchLimit, skip: Skip) -> Result<Pending, StoreError> {
        self.read(move |db| outbox::pending_behind(db, place, limit, &skip)).await
    }

    /// Some of what central lacks, what was added last: sessions, or records of one kind.
    pub async fn newest_pending(&self, kind: Option<Kind>, count: usize, skip: Skip) -> Result<Pending, StoreError> {
        self.read(move |db| outbox::newest_pending(db, kind, count, &skip)).await
    }

    /// Does anything wait that could travel now?
    pub async fn any_waits(&self, skip: Skip) -> Result<bool, StoreError> {
        self.read(move |db| outbox::any_waits(db, &skip)).await
    }

    /// Lets what is parked and due be pushed again.
    pub async fn release_parked(&self, at: Timestamp) -> Result<usize, StoreError> {
        if !self.read(move |db| outbox::is_parked_due(db, at)).await? {
            return Ok(0);
        }
        self.release_due(at).await
    }

    /// The writes of [`Store::release_parked`], in turns.
    async fn release_due(&self, at: Timestamp) -> Result<usize, StoreError> {
        let mut released = 0;
        loop {
            let turn = self.writer.submit(move |db| outbox::release_parked(db, at)).await?;
            released += turn;
            if turn < turns::ROWS {
                return Ok(released);
            }
        }
    }

    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.read(outbox::backlog).await
    }

    /// Takes in what central did with a batch, a part after the other. Returns the sessions that got a new id.
    pub async fn settle(&self, settling: Settling, at: Timestamp) -> Result<Vec<Renamed>, StoreError> {
        let mut renamed = Vec::new();
        for part in settling.in_parts() {
            let part = Arc::new(part);
            let settled = part.clone();
            let work =
                move |db: &Connection| Ok((outbox::settle(db, &settled, at)?, outbox::free_returned(db, &settled)?));
            let (new, mut more) = self.writer.submit(work).await?;
            renamed.extend(new);
            while more {
                let settled = part.clone();
                more = self.writer.submit(move |db| outbox::free_returned(db, &settled)).await?;
            }
        }
        Ok(renamed)
    }

    pub async fn ledger(&self) -> Result<Ledger, StoreError> {
        self.read(outbox::ledger).await
    }

    /// Central lost what it once had: everything waits again. Returns how many sessions, and records.
    pub async fn forget_synced(&self, acked_batch: i64, at: Timestamp) -> Result<(usize, usize), StoreError> {
        let mut forgotten = (0, 0);
        let mut place = Some(ForgetPlace::FIRST);
        while let Some(from) = place {
            let turn = self.write(move |db| outbox::forget_synced(db, from, acked_batch, at)).await?;
            forgotten = (forgotten.0 + turn.sessions, forgotten.1 + turn.records);
            place = turn.next;
        }
        Ok(forgotten)
    }

    pub async fn parked(&self) -> Result<Vec<Parked>, StoreError> {
        self.read(outbox::parked).await
    }

    /// Lets what is parked be pushed again; all of it if `ids` is empty.
    pub async fn retry_parked(&self, ids: Vec<String>) -> Result<usize, StoreError> {
        self.unpark(ids, false).await
    }

    /// Gives up pushing what is parked as it is; a later change of a session is pushed again.
    pub async fn drop_parked(&self, ids: Vec<String>) -> Result<usize, StoreError> {
        self.unpark(ids, true).await
    }

    /// Nothing happens unless all the ids are parked. What is parked by the time of the call is changed in turns.
    async fn unpark(&self, ids: Vec<String>, drop: bool) -> Result<usize, StoreError> {
        let rows = self.read(move |db| outbox::parked_rows(db, &ids)).await?;
        self.unpark_rows(rows, drop).await
    }

    async fn unpark_rows(&self, rows: Vec<ParkedRow>, drop: bool) -> Result<usize, StoreError> {
        let mut count = 0;
        for part in turns::parts(rows) {
            count += self.write(move |db| outbox::unpark(db, &part, drop)).await?;
        }
        Ok(count)
    }

    /// The newest damaged file that was set aside and still lies there, by its name.
    pub fn damage(&self) -> Option<String> {
        self.files.set_aside()
    }

    /// The size of the database and its log on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.size("") + self.files.size("-wal")
    }
}

struct StoreKeeper {
    files: Files,
    readers: Readers,
    committed: watch::Sender<u64>,
    news: News,
    changes: Changes,
    long_log: Arc<Notify>,
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
            other => StoreError::Io(other.to_string()),
        })
    }

    fn explain(&self, error: StoreError) -> StoreError {
        self.files.name_holder(error)
    }

    fn committed(&mut self) {
        self.changes.committed();
        self.news.committed();
        self.committed.send_modify(|count| *count += 1);
        if self.files.log_is_long() {
            self.long_log.notify_one();
        }
    }
}
