//! Pushes what is unsynced, batch after batch.
//!
//! Each batch is one transaction in central that also advances this host's ledger. While central works on a batch, the
//! store records the result of the one before and reads the next one, so the two never wait for each other.
//!
//! **Invariant**: no row is on its way twice. A session that was sent keeps its place in the order of pending sessions
//! until its result is recorded, so the next batch is what stands behind that place. Records go only after their
//! session, so they are read again after at most [`BATCHES_PER_PUSH`] batches.
//!
//! A batch that central does not accept is divided (see `division`). What was read ahead of it is discarded; none of
//! that was sent. A failure to record a result pushes the batch again, which central's merge rules make harmless.

use super::batch::{BatchPart, TargetTable};
use super::central::{Batch, Central, CentralError, RowOutcome};
use super::division::is_divisible;
use super::driver::{Driver, SyncError};
use super::pull::log_renamed;
use super::replica::Replica;
use super::scheduler::{Remaining, Scheduler, Tick};
use crate::domain::Timestamp;
use crate::store::{BatchLimit, BatchResult, OpContext, OutboxPosition, Pending, SessionOutcome, Skip, StoreError};
use std::collections::HashSet;

/// So many batches follow one another before the store is asked again what has waited longest, and for records.
const BATCHES_PER_PUSH: usize = 16;

/// What a batch came to, and what was done while central worked on it.
struct Sent {
    answer: Result<Vec<RowOutcome>, CentralError>,
    /// Whether the store recorded the result of the batch before.
    recorded: Result<(), StoreError>,
    /// The batch after it.
    next: Result<Pending, StoreError>,
}

/// What to read while central works on a batch: what stands behind a place.
struct ReadAhead<'a> {
    behind: Option<OutboxPosition>,
    limit: BatchLimit,
    skip: &'a Skip,
}

impl<R: Replica, C: Central> Driver<R, C> {
    /// Pushes what is pending, oldest first. Returns how many rows went to central.
    pub(super) async fn push(&mut self, limit: BatchLimit, scheduler: &mut Scheduler) -> Result<usize, SyncError> {
        let outcome = self.push_batches(limit, scheduler).await;
        scheduler.retry_held_at(self.held.next_retry());
        outcome
    }

    async fn push_batches(&mut self, limit: BatchLimit, scheduler: &mut Scheduler) -> Result<usize, SyncError> {
        self.replica.release_parked(self.now()).await?;
        self.check_locks().await?;
        let skip = self.skip();
        let mut pending = self.replica.pending(limit, skip.clone()).await?;
        let mut unrecorded = None;
        let mut rows = 0;
        for left in (0..BATCHES_PER_PUSH).rev() {
            self.check_identity(&mut unrecorded).await?;
            let (began, asked) = (self.tick(), self.now());
            let (more, behind) = (pending.more, pending.last.filter(|_| left > 0));
            let part = BatchPart::of(pending);
            rows += part.len();
            let ahead = ReadAhead { behind, limit: scheduler.batch_limit(), skip: &skip };
            let Sent { answer, recorded, next } = self.send(&part, unrecorded.take(), ahead).await;
            match (answer, recorded) {
                (Ok(outcomes), Ok(())) => unrecorded = Some(self.batch_accepted(part, outcomes)),
                (Err(error), Ok(())) if is_divisible(&error) && part.len() > 0 => {
                    self.push_in_parts(part, error).await?;
                    // What was read ahead may be held back by now.
                    self.report_push(began, asked, Remaining::More, scheduler);
                    return Ok(rows);
                }
                (Err(error), _) => return Err(error.into()),
                (_, Err(error)) => return Err(error.into()),
            }
            // After a batch that was read ahead, records and sessions before its place may be pending.
            let remaining = Remaining::of(more || left + 1 < BATCHES_PER_PUSH);
            self.report_push(began, asked, remaining, scheduler);
            pending = next?;
            if pending.sessions.is_empty() {
                break;
            }
        }
        if let Some(result) = unrecorded {
            self.record(result).await?;
        }
        Ok(rows)
    }

    /// Fails if this host was renamed since the handshake. Checked after the sessions were read: a rename changes the
    /// identity first, and a session with the new name must not be pushed under the old host id.
    async fn check_identity(&mut self, unrecorded: &mut Option<BatchResult>) -> Result<(), SyncError> {
        if self.replica.identity().host_id == self.host_id {
            return Ok(());
        }
        if let Some(result) = unrecorded.take() {
            log_renamed(&self.replica.acknowledge(result, self.op_context(self.now())).await?);
        }
        Err(CentralError::OutOfStep.into())
    }

    fn report_push(&self, began: Tick, asked: Timestamp, remaining: Remaining, scheduler: &mut Scheduler) {
        self.reporter.pushed(self.tick().saturating_sub(began), asked, self.central.last_clock());
        self.report_answer();
        scheduler.pushed(remaining, began, self.tick());
    }

    /// Checks which locked rows have been freed. Pushing a row that is still locked would wait for the lock.
    async fn check_locks(&mut self) -> Result<(), SyncError> {
        let due = self.held.due_locks(self.tick());
        if !due.is_empty() {
            let locked: HashSet<_> = self.central.locked_rows(&due).await?.into_iter().collect();
            for id in due {
                if locked.contains(&id) {
                    self.held.still_locked(&id, self.tick());
                }
            }
        }
        Ok(())
    }

    /// Sends a batch, and meanwhile records the result of the one before and reads the next one.
    async fn send(&mut self, part: &BatchPart, unrecorded: Option<BatchResult>, ahead: ReadAhead<'_>) -> Sent {
        let after = self.ledger.applied();
        let batch = Batch { after, number: self.ledger.send_next(), sessions: &part.sessions, records: &part.records };
        let acked = unrecorded.as_ref().map(|result| result.acked_batch);
        let context = self.op_context(self.now());
        let (answer, recorded, next) = tokio::join!(
            self.central.push(batch),
            acknowledge(&self.replica, unrecorded, context),
            read_ahead(&self.replica, ahead),
        );
        if let (Ok(()), Some(acked)) = (&recorded, acked) {
            self.ledger.recorded(acked);
        }
        Sent { answer, recorded, next }
    }

    /// Sends a part of a batch, with nothing else meanwhile.
    pub(super) async fn send_alone(&mut self, part: &BatchPart) -> Result<Vec<RowOutcome>, CentralError> {
        let nothing = ReadAhead { behind: None, limit: BatchLimit { rows: 0, bytes: 0 }, skip: &Skip::default() };
        self.send(part, None, nothing).await.answer
    }

    /// Central has applied an undivided batch. Returns the result to record.
    fn batch_accepted(&mut self, part: BatchPart, outcomes: Vec<RowOutcome>) -> BatchResult {
        for table in part.tables() {
            if self.held.clear(table) {
                tracing::info!(table = table.name(), "central accepts the rows that waited for this table");
            }
        }
        for session in &part.sessions {
            self.held.accepted(&session.instance_id, TargetTable::Sessions);
        }
        for record in &part.records {
            self.held.accepted(&record.instance_id, TargetTable::Records(record.kind));
        }
        self.applied(part, outcomes)
    }

    /// Central has applied the next batch of the ledger. Returns the result to record.
    pub(super) fn applied(&mut self, part: BatchPart, outcomes: Vec<RowOutcome>) -> BatchResult {
        self.ledger.advance((self.context.random)());
        self.ledger.stamp(part.result(outcomes, settlement))
    }

    /// Has the store record the result of a batch.
    pub(super) async fn record(&mut self, result: BatchResult) -> Result<(), StoreError> {
        let acked = result.acked_batch;
        acknowledge(&self.replica, Some(result), self.op_context(self.now())).await?;
        self.ledger.recorded(acked);
        Ok(())
    }
}

fn settlement(outcome: RowOutcome) -> SessionOutcome {
    match outcome {
        // `SessionMissing` is an outcome of records only.
        RowOutcome::Stored | RowOutcome::StoredWithoutWork | RowOutcome::SessionMissing => SessionOutcome::Taken,
        RowOutcome::ClosedElsewhere { closed_at } => SessionOutcome::ClosedElsewhere { closed_at },
        RowOutcome::IdCollision => SessionOutcome::Collided,
        RowOutcome::ForeignMachine { machine } => SessionOutcome::Rejected {
            error: format!("it belongs to machine {machine}; this state folder seems to be a copy of that machine's"),
        },
    }
}

async fn acknowledge(
    replica: &impl Replica,
    result: Option<BatchResult>,
    context: OpContext,
) -> Result<(), StoreError> {
    if let Some(result) = result {
        log_renamed(&replica.acknowledge(result, context).await?);
    }
    Ok(())
}

async fn read_ahead(replica: &impl Replica, ahead: ReadAhead<'_>) -> Result<Pending, StoreError> {
    match ahead.behind {
        Some(place) => replica.pending_behind(place, ahead.limit, ahead.skip.clone()).await,
        None => Ok(Pending::default()),
    }
}
