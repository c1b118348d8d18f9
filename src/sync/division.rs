//! Divides a batch that central does not accept, and decides what becomes of the rows at fault.
//!
//! A batch is divided into its sessions and each kind of records, then into halves, until the rows at fault are
//! alone. Each part is a batch of its own with its own number in the ledger; sessions go before the records that belong
//! to them. What becomes of the rest depends on what is at fault:
//!
//! - A row that another transaction has locked is held back and retried within seconds.
//! - Rows that central rejects while it accepts others of the table are parked, each with its error.
//! - If most rows of a table are rejected for one reason, the table is at fault (a new column, a trigger that raises, a
//!   missing right): nothing is parked, its rows wait, and the other tables receive theirs.
//!
//! Once a few rows of a table failed and none was accepted, the newest ones are tried, so that a few old rows at fault
//! are not taken for a table at fault. If these fail too, the remaining rows are not tried.

use std::collections::{HashMap, HashSet};

use super::batch::{BatchPart, TargetTable};
use super::central::{Central, CentralError, Rejection};
use super::driver::{Driver, SyncError};
use super::replica::Replica;
use crate::domain::InstanceId;

/// So many rows that fail with one code, while none is accepted, make the table suspect.
const SUSPECT_FAILURES: usize = 8;

/// The same for a table that was at fault when it was tried last.
const SUSPECT_FAILURES_AGAIN: usize = 2;

/// How many of the newest rows of a suspect table are tried.
const NEWEST_ROWS: usize = 3;

/// After so many sessions in a row whose records are locked, the table is taken to be locked.
const LOCKED_SESSIONS: usize = 3;

/// What came of one table's rows while a batch was divided.
#[derive(Default)]
struct Tally {
    accepted: usize,
    rejected: Vec<(BatchPart, Rejection)>,
    locked: usize,
    /// Why no more rows of the table are tried.
    given_up: Option<String>,
}

impl Tally {
    /// How many rows failed with the commonest code, and one of these rejections.
    fn commonest(&self) -> Option<(usize, &Rejection)> {
        let mut counts: HashMap<&str, (usize, &Rejection)> = HashMap::new();
        for (_, rejection) in &self.rejected {
            counts.entry(&rejection.code).or_insert((0, rejection)).0 += 1;
        }
        counts.into_values().max_by_key(|(count, rejection)| (*count, rejection.code.clone()))
    }

    /// `was_at_fault`: the table was at fault before.
    fn is_suspect(&self, was_at_fault: bool) -> bool {
        let enough = if was_at_fault { SUSPECT_FAILURES_AGAIN } else { SUSPECT_FAILURES };
        self.accepted == 0 && self.commonest().is_some_and(|(count, _)| count >= enough)
    }

    /// Why the table is at fault, if it is and not the rows.
    fn fault(&self) -> Option<String> {
        if self.given_up.is_some() {
            return self.given_up.clone();
        }
        let (count, rejection) = self.commonest()?;
        let most = count > self.accepted;
        let is_fault = match count {
            _ if rejection.is_about_values() => self.accepted == 0 && count >= SUSPECT_FAILURES,
            1 => most && !rejection.is_by_constraint(),
            _ => most,
        };
        is_fault.then(|| rejection.message.clone())
    }
}

/// The division of one batch.
#[derive(Default)]
pub(super) struct Division {
    tallies: HashMap<TargetTable, Tally>,
    /// Sessions of the batch that central has not accepted yet: their records wait.
    missing: HashSet<InstanceId>,
}

impl Division {
    fn tally(&mut self, table: TargetTable) -> &mut Tally {
        self.tallies.entry(table).or_default()
    }

    /// The rows of a part that may still be sent.
    fn remaining(&self, part: BatchPart) -> BatchPart {
        let mut rest = if part.sessions.is_empty() { part.split_by_session(&self.missing).1 } else { part };
        let is_given_up = |table| self.tallies.get(&table).is_some_and(|tally| tally.given_up.is_some());
        rest.records.retain(|record| !is_given_up(TargetTable::Records(record.kind)));
        if is_given_up(TargetTable::Sessions) && !rest.sessions.is_empty() { BatchPart::default() } else { rest }
    }
}

/// Whether dividing the batch may help.
pub(super) fn is_divisible(error: &CentralError) -> bool {
    matches!(
        error,
        CentralError::Reject(_) | CentralError::Locked(_) | CentralError::Refused(_) | CentralError::SchemaMissing(_)
    )
}

impl<R: Replica, C: Central> Driver<R, C> {
    /// Divides a batch that central did not accept, pushes what it accepts, and decides about the rest.
    pub(super) async fn push_in_parts(&mut self, whole: BatchPart, error: CentralError) -> Result<(), SyncError> {
        let missing = whole.sessions.iter().map(|session| session.instance_id.clone()).collect();
        let mut division = Division { missing, ..Division::default() };
        if !matches!(error, CentralError::Reject(_)) {
            // If not even the ledger can be written, no part can.
            self.push_nothing().await?;
        }
        let mut parts = self.divide(whole, error, &mut division).await?;
        while let Some(part) = parts.pop() {
            // Shows the watchdog that sync makes progress.
            self.tick();
            let part = division.remaining(part);
            if part.len() > 0 {
                parts.extend(self.push_part(part, &mut division).await?);
            }
        }
        if division.tallies.values().all(|tally| tally.accepted == 0) {
            // No part has reported to central that this host is alive.
            self.push_nothing().await?;
        }
        self.conclude(division).await
    }

    async fn push_nothing(&mut self) -> Result<(), CentralError> {
        self.send_alone(&BatchPart::default()).await?;
        self.ledger.advance((self.context.random)());
        Ok(())
    }

    /// Pushes a part. Returns the parts of it that remain to be pushed, the first one last.
    async fn push_part(&mut self, part: BatchPart, division: &mut Division) -> Result<Vec<BatchPart>, SyncError> {
        let outcomes = match self.send_alone(&part).await {
            Ok(outcomes) => outcomes,
            Err(error) if is_divisible(&error) => return self.divide(part, error, division).await,
            Err(error) => return Err(error.into()),
        };
        for table in part.tables() {
            division.tally(table).accepted += part.len();
        }
        for (session, outcome) in part.sessions.iter().zip(&outcomes) {
            self.held.accepted(&session.instance_id, TargetTable::Sessions);
            if !outcome.is_without_session() {
                division.missing.remove(&session.instance_id);
            }
        }
        let result = self.applied(part, outcomes);
        self.record(result).await?;
        Ok(Vec::new())
    }

    /// Divides a part that central did not accept. Returns the parts to be tried, the first one last.
    async fn divide(
        &mut self,
        part: BatchPart,
        error: CentralError,
        division: &mut Division,
    ) -> Result<Vec<BatchPart>, SyncError> {
        let Some(table) = part.table() else {
            return Ok(part.by_table().into_iter().rev().collect());
        };
        match error {
            CentralError::Locked(why) => self.divide_locked(part, table, &why, division).await,
            CentralError::SchemaMissing(why) if table == TargetTable::Sessions => {
                Err(CentralError::SchemaMissing(why).into())
            }
            CentralError::Refused(why) | CentralError::SchemaMissing(why) => {
                division.tally(table).given_up = Some(why.to_string());
                Ok(Vec::new())
            }
            CentralError::Reject(rejection) if part.len() == 1 => {
                let was_at_fault = self.held.fault(table).is_some();
                let tally = division.tally(table);
                tally.rejected.push((part, rejection));
                if tally.is_suspect(was_at_fault) {
                    self.try_newest(table, division).await?;
                }
                Ok(Vec::new())
            }
            CentralError::Reject(_) => {
                let (first, rest) = part.halves();
                Ok(vec![rest, first])
            }
            other => Err(other.into()),
        }
    }

    /// Tries the newest rows of a table that has accepted none so far. If it accepts none of these, it is given up.
    async fn try_newest(&mut self, table: TargetTable, division: &mut Division) -> Result<(), SyncError> {
        let newest = self.replica.newest_pending(table.kind(), NEWEST_ROWS, self.skip()).await?;
        let (mut rest, mut why) = (BatchPart::of(newest), String::new());
        while rest.len() > 0 {
            let row = rest.take_one();
            match self.send_alone(&row).await {
                Ok(outcomes) => {
                    division.tally(table).accepted += 1;
                    let result = self.applied(row, outcomes);
                    return Ok(self.record(result).await?);
                }
                Err(CentralError::Reject(rejection)) => why = rejection.message,
                Err(error) => return Err(error.into()),
            }
        }
        let tally = division.tally(table);
        tally.given_up = tally.commonest().map(|(_, rejection)| rejection.message.clone()).or(Some(why));
        Ok(())
    }

    /// Holds back the locked rows of a part. Returns the rest.
    async fn divide_locked(
        &mut self,
        part: BatchPart,
        table: TargetTable,
        why: &str,
        division: &mut Division,
    ) -> Result<Vec<BatchPart>, SyncError> {
        let mut ids = part.session_ids();
        ids.sort();
        let mut locked: HashSet<_> = match self.central.locked_rows(&ids).await {
            Ok(locked) => locked.into_iter().collect(),
            // The table itself is locked.
            Err(CentralError::Locked(why)) => return Err(CentralError::Retry(why).into()),
            Err(error) => return Err(error.into()),
        };
        if locked.is_empty() && ids.len() > 1 {
            // The lock is on a row that is being inserted, or on one of another table. Halves find it; a session's
            // records stay together.
            let first = ids[..ids.len() / 2].iter().cloned().collect();
            let (first, rest) = part.split_by_session(&first);
            return Ok(vec![rest, first]);
        }
        if locked.is_empty() {
            locked.extend(ids);
            let tally = division.tally(table);
            tally.locked += 1;
            if table != TargetTable::Sessions && tally.accepted == 0 && tally.locked >= LOCKED_SESSIONS {
                tally.given_up = Some(why.to_owned());
            }
        }
        for id in &locked {
            tracing::info!(session = %id, table = table.name(), "waits: a row in central is locked ({why})");
            self.held.lock(id.clone(), table, self.tick());
        }
        Ok(vec![part.split_by_session(&locked).1])
    }

    /// Decides for each table whether the table is at fault or the rejected rows, and holds or parks these.
    async fn conclude(&mut self, division: Division) -> Result<(), SyncError> {
        for (table, tally) in division.tallies {
            if let Some(reason) = tally.fault() {
                self.hold_table(table, reason);
                continue;
            }
            if tally.accepted > 0 {
                self.held.clear(table);
            }
            for (part, Rejection { message, .. }) in tally.rejected {
                self.log_parked(part.name(), &message);
                let result = self.ledger.stamp(part.rejected(&message));
                self.record(result).await?;
            }
        }
        Ok(())
    }

    fn hold_table(&mut self, table: TargetTable, reason: String) {
        if self.held.fault(table) != Some(&reason) {
            tracing::warn!(table = table.name(), "central's table takes nothing at present, its rows wait: {reason}");
        }
        self.held.fail(table, reason, self.tick());
    }

    /// Logs that a row is parked, once for each row: it is retried, and may be parked again.
    fn log_parked(&mut self, row: String, error: &str) {
        const REMEMBERED: usize = 10_000;
        if self.logged_parked.len() >= REMEMBERED {
            self.logged_parked.clear();
        }
        if self.logged_parked.insert(row.clone()) {
            tracing::error!(row, error, "central does not accept this row; it is parked and retried from time to time");
        }
    }
}
