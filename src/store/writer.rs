//! The one thread that writes: it gathers the jobs that wait, runs each in a savepoint of one
//! transaction, commits once, and only then answers.

use std::ops::ControlFlow;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// How many jobs may wait before callers are told to come back.
const QUEUE: usize = 1024;
/// How many jobs one transaction takes, so that the first of them does not wait for ever.
const GROUP: usize = 256;

/// Tells a job's caller how it ended: given the commit's error, or none.
type Answer = Box<dyn FnOnce(Option<&StoreError>) + Send>;
/// Does a job's work inside the open transaction, if there is one, and hands back the answer for later.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Outcome + Send>;

/// What running one job gave.
pub(super) struct Outcome {
    failure: Option<StoreError>,
    answer: Answer,
}

/// What the thread does beside running jobs.
pub(super) trait Keeper: Send + 'static {
    /// Replaces a damaged database by what can be read of it.
    fn recover(&mut self, damaged: Connection) -> Result<Connection, StoreError>;
    /// Something was committed.
    fn committed(&mut self);
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread; it ends when the last `Writer` is gone and everything accepted is committed.
    pub fn start(connection: Connection, keeper: impl Keeper) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || run(connection, queue, keeper))?;
        Ok((Self { jobs }, thread))
    }

    /// Returns when the thread has ended.
    pub async fn stopped(&self) {
        self.jobs.closed().await;
    }

    /// Runs `work` in the next transaction and waits until it is committed and synced.
    ///
    /// # Errors
    /// `Busy` at once when the queue is full; `work`'s own error; else what kept the commit from happening.
    pub async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(job(work, reply)).map_err(|_| StoreError::Busy)?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Io("the writer has stopped".into())))
    }
}

/// Wraps `work` so that its result travels only once the commit is known.
fn job<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    reply: oneshot::Sender<Result<T, StoreError>>,
) -> Job {
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

fn run(mut connection: Connection, mut queue: mpsc::Receiver<Job>, mut keeper: impl Keeper) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        match commit(&connection, group.drain(..)) {
            ControlFlow::Continue(()) => keeper.committed(),
            ControlFlow::Break(damage) => {
                tracing::error!(%damage, "the store is damaged; it is set aside and rebuilt");
                connection = match keeper.recover(connection) {
                    Ok(rebuilt) => rebuilt,
                    Err(error) => {
                        tracing::error!(%error, "the store could not be rebuilt; sessiond stops writing");
                        return;
                    }
                };
            }
        }
    }
    // Folds the log into the database, so that the files left behind are complete by themselves.
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the write-ahead log could not be folded in; it is kept, nothing is lost");
    }
}

/// Runs `jobs` in one transaction and answers each of them. Breaks when the database is damaged.
pub(super) fn commit(connection: &Connection, jobs: impl Iterator<Item = Job>) -> ControlFlow<StoreError> {
    let mut answers = Vec::new();
    let committed = run_group(connection, jobs, &mut answers);
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
) -> Result<(), StoreError> {
    let mut transaction = statement(connection, "BEGIN IMMEDIATE");
    for job in jobs {
        let savepoint = transaction.and_then(|()| statement(connection, "SAVEPOINT job"));
        let Outcome { failure, answer } = job(savepoint.clone().map(|()| connection));
        answers.push(answer);
        transaction = savepoint.and_then(|()| match failure {
            None => statement(connection, "RELEASE job"),
            Some(error) if connection.is_autocommit() => Err(error),
            Some(damage @ StoreError::Damaged(_)) => Err(damage),
            Some(_) => statement(connection, "ROLLBACK TO job").and_then(|()| statement(connection, "RELEASE job")),
        });
    }
    transaction?;
    statement(connection, "COMMIT")
}

fn statement(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
