//! The one thread that writes: it gathers the jobs that wait, runs them in one transaction, in which a job
//! that fails is undone alone, commits once, and only then answers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::store::error::StoreError;

/// How many jobs may wait before callers get `Busy`.
const QUEUE: usize = 1024;

/// How many jobs one transaction takes, so that the first of them does not wait for ever.
const GROUP: usize = 256;

/// Reports a job's result to its caller, given the commit's error, or none.
type Answer = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// Does a job's work inside the open transaction, if there is one, and hands back the answer for later.
type Work = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Outcome + Send>;

/// What one caller wants done.
pub(in crate::store) struct Job {
    work: Work,
    on_failure: OnFailure,
}

/// What is done about a job's writes when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// They are undone, by a savepoint.
    Undo,
    /// Nothing: it leaves none behind.
    NothingToUndo,
}

/// What running one job gave.
pub(in crate::store) struct Outcome {
    failure: Option<StoreError>,
    answer: Answer,
}

/// What the thread does beside running jobs.
pub(in crate::store) trait Keeper: Send + 'static {
    /// Opens the database again after damage was met; a damaged one is replaced by what can be read of it.
    fn recover(&mut self) -> Result<Connection, StoreError>;
    /// Something was committed.
    fn committed(&mut self);
    /// What kept a transaction from being begun, in as much detail as can be found out.
    fn explain(&self, error: StoreError) -> StoreError {
        error
    }
}

#[derive(Clone)]
pub(in crate::store) struct Writer {
    jobs: mpsc::Sender<Job>,
    /// The most rows that one job has written so far.
    largest_job: Arc<AtomicU64>,
    /// Microseconds of a processor that the longest job took.
    #[cfg(test)]
    longest_job: Arc<AtomicU64>,
}

impl Writer {
    /// A writer and the queue of its jobs, for the thread that runs them.
    pub(in crate::store) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Self {
            jobs,
            largest_job: Arc::default(),
            #[cfg(test)]
            longest_job: Arc::default(),
        };
        (writer, queue)
    }

    /// Starts the thread; it ends when the last `Writer` is gone and everything accepted is committed.
    pub(in crate::store) fn start(
        connection: Connection,
        keeper: impl Keeper,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (writer, queue) = Self::new();
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || run(connection, queue, keeper))?;
        Ok((writer, thread))
    }

    /// The most rows that one job has written: everyone else who writes waits for as long as that takes.
    #[cfg(test)]
    pub(in crate::store) fn largest_job(&self) -> u64 {
        self.largest_job.load(Ordering::Relaxed)
    }

    /// How long the longest job took since this was last called, and how many rows the largest one wrote. Only the
    /// processor's time counts: other tests run beside this one.
    #[cfg(test)]
    pub(in crate::store) fn take_longest_job(&self) -> (std::time::Duration, u64) {
        let micros = self.longest_job.swap(0, Ordering::Relaxed);
        (std::time::Duration::from_micros(micros), self.largest_job.swap(0, Ordering::Relaxed))
    }

    /// Returns when the thread has ended.
    pub(in crate::store) async fn stopped(&self) {
        self.jobs.closed().await;
    }

    /// Runs `work` in the next transaction and waits until it is committed and synced.
    ///
    /// # Errors
    /// `Busy` at once when the queue is full; `work`'s own error; else what kept the commit from happening.
    pub(in crate::store) async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.enqueue(work, OnFailure::Undo).await
    }

    /// As [`Writer::submit`], for work that leaves nothing behind when it fails, as one that writes by a single statement
    /// at its end: that costs no savepoint.
    pub(in crate::store) async fn submit_atomic<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.enqueue(work, OnFailure::NothingToUndo).await
    }

    async fn enqueue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        on_failure: OnFailure,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let largest_job = self.largest_job.clone();
        #[cfg(test)]
        let longest_job = self.longest_job.clone();
        let work = move |db: &Connection| {
            let before = db.total_changes();
            #[cfg(test)]
            let began = processor_time();
            let result = work(db);
            #[cfg(test)]
            longest_job.fetch_max((processor_time() - began).as_micros() as u64, Ordering::Relaxed);
            largest_job.fetch_max(db.total_changes().saturating_sub(before), Ordering::Relaxed);
            result
        };
        self.jobs.try_send(Job { work: answering(work, reply), on_failure }).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

#[cfg(test)]
fn processor_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::try_from(time).unwrap()
}

fn stopped() -> StoreError {
    StoreError::Io("the writer has stopped".into())
}

/// Wraps `work` so that its result travels only once the commit is known.
fn answering<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    reply: oneshot::Sender<Result<T, StoreError>>,
) -> Work {
    Box::new(move |transaction| {
        let result = transaction.and_then(work);
        let failure = result.as_ref().err().cloned();
        let answer: Answer = Box::new(move |commit_failed| {
            let result = match (result, commit_failed) {
                (Ok(_), Some(error)) => Err(error.clone()),
                (result, _) => result,
            };
            // The caller may have hung up; what it asked for is done all the same.
            let _ = reply.send(result);
        });
        Outcome { failure, answer }
    })
}

fn run(connection: Connection, mut queue: mpsc::Receiver<Job>, mut keeper: impl Keeper) {
    let mut connection = Ok(connection);
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        // Where the last attempt failed the disk may have come back since.
        connection = connection.or_else(|_| recover(&mut keeper));
        match &connection {
            Err(error) => refuse(error, group.drain(..)),
            Ok(open) => match commit(open, group.drain(..), |error| keeper.explain(error)) {
                ControlFlow::Continue(()) => keeper.committed(),
                ControlFlow::Break(damage) => {
                    tracing::error!(%damage, "damage was met; the store is opened again");
                    drop(connection);
                    connection = recover(&mut keeper);
                }
            },
        }
    }
    let Ok(connection) = connection else { return };
    // Folds the log into the database, so that the files left behind are complete by themselves.
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the write-ahead log could not be folded in; it is kept, nothing is lost");
    }
}

fn recover(keeper: &mut impl Keeper) -> Result<Connection, StoreError> {
    keeper.recover().inspect_err(|error| tracing::error!(%error, "the store cannot be opened; nothing is recorded"))
}

/// Answers each of `jobs` with an error, none of them done.
fn refuse(error: &StoreError, jobs: impl Iterator<Item = Job>) {
    for job in jobs {
        let Outcome { answer, .. } = (job.work)(Err(error.clone()));
        answer(None);
    }
}

/// Runs `jobs` in one transaction and answers each of them. Breaks when the database is damaged.
pub(in crate::store) fn commit(
    connection: &Connection,
    jobs: impl Iterator<Item = Job>,
    explain: impl FnOnce(StoreError) -> StoreError,
) -> ControlFlow<StoreError> {
    let mut answers = Vec::new();
    let committed = run_group(connection, jobs, &mut answers, explain);
    if committed.is_err() && !connection.is_autocommit() {
        // Nothing of a group that failed may stay behind; SQLite has often rolled back by itself.
        let _ = connection.execute_batch("ROLLBACK");
    }
    let error = committed.err();
    for answer in answers {
        answer(error.as_ref());
    }
    match error {
        Some(damage @ StoreError::Damaged(_)) => ControlFlow::Break(damage),
        _ => ControlFlow::Continue(()),
    }
}

/// A job that fails is undone alone; an error that takes the transaction with it fails them all.
fn run_group(
    connection: &Connection,
    jobs: impl Iterator<Item = Job>,
    answers: &mut Vec<Answer>,
    explain: impl FnOnce(StoreError) -> StoreError,
) -> Result<(), StoreError> {
    let mut transaction = statement(connection, "BEGIN IMMEDIATE").map_err(explain);
    for job in jobs {
        let sets_savepoint = job.on_failure == OnFailure::Undo;
        if sets_savepoint {
            transaction = transaction.and_then(|()| statement(connection, "SAVEPOINT job"));
        }
        let Outcome { failure, answer } = (job.work)(transaction.clone().map(|()| connection));
        answers.push(answer);
        transaction = transaction.and_then(|()| match failure {
            Some(error) if connection.is_autocommit() => Err(error),
            Some(damage @ StoreError::Damaged(_)) => Err(damage),
            Some(_) if sets_savepoint => statement(connection, "ROLLBACK TO job"),
            _ => Ok(()),
        });
        if sets_savepoint {
            transaction = transaction.and_then(|()| statement(connection, "RELEASE job"));
        }
    }
    transaction?;
    statement(connection, "COMMIT")
}

/// Does all of `work` or, if it fails, nothing.
pub(in crate::store) fn all_or_nothing<T>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    statement(connection, "SAVEPOINT part")?;
    let done = work();
    // An error that took the transaction with it took the savepoint too.
    if !connection.is_autocommit() {
        if done.is_err() {
            statement(connection, "ROLLBACK TO part")?;
        }
        statement(connection, "RELEASE part")?;
    }
    done
}

fn statement(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
