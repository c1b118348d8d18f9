//! Pushing what is pending, and finding out what of it central does not take, and why.
//!
//! A batch that central does not take is divided: sessions from each kind of records, then into halves, until the rows
//! at fault stand alone. What becomes of these depends on who is at fault:
//!
//! - A row that is locked by another transaction is held back and tried again within seconds; the rest goes.
//! - Rows that central rejects beside others that it takes are parked, each with its error.
//! - If most rows of a table are rejected for one reason, the table is at fault (a new column, a trigger that raises, a
//!   missing right): nothing is parked, its rows wait, and the other tables get theirs. Once a few rows failed and none
//!   was taken, the newest are tried, lest old rows at fault pass for a faulty table; then the rest is not tried.
//!
//! Sessions go before the records that belong to them, and the batch's ledger goes with each part.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::store::Skip;
use crate::sync::central::Rejection;
use crate::sync::parts::Subject;

/// So many rows that fail in the same way, while none is taken, make the table suspect.
const SUSPECT: usize = 8;

/// The same for a table that was at fault when it was tried last.
const SUSPECT_AGAIN: usize = 2;

/// So many of the newest rows are tried then.
const NEWEST: usize = 3;

/// So many sessions in a row whose records are locked make the table's lock likely.
const LOCKED_SESSIONS: usize = 3;

/// What came of one table's rows while a batch was divided.
#[derive(Default)]
struct Tally {
    taken: usize,
    failed: Vec<(Part, Rejection)>,
    locked: usize,
    /// Nothing more of it is tried.
    over: Option<String>,
}

impl Tally {
    /// How often the commonest error came, and one of its kind.
    fn commonest(&self) -> Option<(usize, &Rejection)> {
        let mut counts: HashMap<&str, (usize, &Rejection)> = HashMap::new();
        for (_, rejection) in &self.failed {
            counts.entry(&rejection.code).or_insert((0, rejection)).0 += 1;
        }
        counts.into_values().max_by_key(|(count, rejection)| (*count, rejection.code.clone()))
    }

    /// `known`: the table was at fault before.
    fn is_suspect(&self, known: bool) -> bool {
        let enough = if known { SUSPECT_AGAIN } else { SUSPECT };
        self.taken == 0 && self.commonest().is_some_and(|(count, _)| count >= enough)
    }

    /// Why the table is at fault rather than the rows, if it is.
    fn fault(&self) -> Option<String> {
        if self.over.is_some() {
            return self.over.clone();
        }
        let (count, rejection) = self.commonest()?;
        let most = count > self.taken;
        let is_fault = match count {
            _ if rejection.is_about_values() => self.taken == 0 && count >= SUSPECT,
            1 => most && !rejection.is_by_constraint(),
            _ => most,
        };
        is_fault.then(|| rejection.message.clone())
    }
}

/// The division of one batch.
#[derive(Default)]
struct Division {
    tallies: HashMap<Subject, Tally>,
    /// Sessions of the batch that central has not taken, at least not yet: their records wait.
    missing: HashSet<InstanceId>,
}

impl Division {
    fn tally(&mut self, subject: Subject) -> &mut Tally {
        self.tallies.entry(subject).or_default()
    }

    /// What of a part may still be sent.
    fn remaining(&self, part: Part) -> Part {
        let (_, mut rest) =
            if part.sessions.is_empty() { part.split_by_session(&self.missing) } else { (Part::default(), part) };
        let is_over = |subject| self.tallies.get(&subject).is_some_and(|tally| tally.over.is_some());
        rest.records.retain(|record| !is_over(Subject::Records(record.kind)));
        if is_over(Subject::Sessions) && !rest.sessions.is_empty() { Part::default() } else { rest }
    }
}

/// Whether dividing the batch may help.
fn is_divisible(error: &CentralError) -> bool {
    matches!(
        error,
        CentralError::Reject(_) | CentralError::Locked(_) | CentralError::Refused(_) | CentralError::SchemaMissing(_)
    )
}

impl<R: Replica, C: Central> Exchange<R, C> {
    /// Pushes what is pending, longest waiting first, batch after batch. Returns how many rows went to central.
    pub(super) async fn push(&mut self, limit: BatchLimit, engine: &mut Engine) -> Result<usize, Trouble> {
        let outcome = self.push_batches(limit, engine).await;
        engine.retry(self.held.next_retry());
        outcome
    }

    async fn push_batches(&mut self, limit: BatchLimit, engine: &mut Engine) -> Result<usize, Trouble> {
        self.replica.release_parked((self.outside.clock)()).await?;
        self.check_locks().await?;
        let skip = self.skip();
        let mut pending = self.replica.pending(limit, skip.clone()).await?;
        let mut to_note = None;
        let mut rows = 0;
        for left in (0..ON_END).rev() {
            // Checked after the sessions were read: a rename changes the identity before it changes them,
            // and what bears the new name must not travel under the old id.
            if self.replica.identity().host_id != self.host_id {
                note(&self.replica, to_note, (self.outside.clock)()).await?;
                return Err(CentralError::OutOfStep.into());
            }
            let began = self.tick();
            let (more, behind) = (pending.more, pending.last.filter(|_| left > 0));
            let part = Part::of(pending);
            rows += part.len();
            let asked = (self.outside.clock)();
            let (answer, noted, ahead) = self.send(&part, to_note.take(), behind, engine.batch(), &skip).await;
            match (answer, noted) {
                (Ok(applied), Ok(())) => to_note = Some(self.taken_whole(part, applied)),
                (Err(error), Ok(())) if is_divisible(&error) && part.len() > 0 => {
                    self.push_in_parts(part, error).await?;
                    self.synced(self.tick().saturating_sub(began), asked);
                    self.show_link();
                    // What was read ahead may be held back by now.
                    engine.pushed(true, began, self.tick());
                    return Ok(rows);
                }
                (Err(error), _) => return Err(error.into()),
                (_, Err(error)) => return Err(error.into()),
            }
            self.synced(self.tick().saturating_sub(began), asked);
            self.show_link();
            // What was read ahead is not all that may wait by now.
            engine.pushed(more || left + 1 < ON_END, began, self.tick());
            pending = ahead?;
            if pending.sessions.is_empty() {
                break;
            }
        }
        if let Some(settling) = to_note {
            self.settle(settling).await?;
        }
        Ok(rows)
    }

    /// What stays out of a push now.
    pub fn skip(&self) -> Skip {
        self.held.skip(self.tick())
    }

    /// Finds out which of the locked rows are free. Without asking, each would be waited for.
    async fn check_locks(&mut self) -> Result<(), Trouble> {
        let due = self.held.due_locks(self.tick());
        if !due.is_empty() {
            let locked: HashSet<_> = self.central.locked(&due).await?.into_iter().collect();
            for id in due {
                self.held.lock_checked(&id, locked.contains(&id), self.tick());
            }
        }
        Ok(())
    }

    /// Sends a batch, and uses the time until central answers: records the result of the one before, and reads the
    /// next.
    async fn send(
        &mut self,
        part: &Part,
        to_note: Option<Settling>,
        behind: Option<Place>,
        limit: BatchLimit,
        skip: &Skip,
    ) -> (Result<Vec<Applied>, CentralError>, Result<(), StoreError>, Result<Pending, StoreError>) {
        let [number, _] = self.next;
        self.sent.push(number);
        let batch = Batch { after: self.batch, number, sessions: &part.sessions, records: &part.records };
        let noting = to_note.as_ref().map(|settling| settling.acked_batch);
        let (answer, noted, ahead) = tokio::join!(
            self.central.push(batch),
            note(&self.replica, to_note, (self.outside.clock)()),
            read_ahead(&self.replica, behind, limit, skip),
        );
        if let (Ok(()), Some(acked)) = (&noted, noting) {
            self.forget_sent(acked);
        }
        (answer, noted, ahead)
    }

    /// Central has applied a part. What the store is to make of it.
    fn taken_whole(&mut self, part: Part, applied: Vec<Applied>) -> Settling {
        for subject in part.subjects() {
            if self.held.clear(subject) {
                tracing::info!(table = subject.table(), "central takes what waited for this table");
            }
        }
        part.sessions.iter().for_each(|session| self.held.taken(&session.instance_id, Subject::Sessions));
        for record in &part.records {
            self.held.taken(&record.instance_id, Subject::Records(record.kind));
        }
        self.applied(part, applied)
    }

    /// Divides what central did not take, pushes what it does, and decides about the rest.
    async fn push_in_parts(&mut self, whole: Part, error: CentralError) -> Result<(), Trouble> {
        let mut division = Division {
            missing: whole.sessions.iter().map(|session| session.instance_id.clone()).collect(),
            ..Division::default()
        };
        if !matches!(error, CentralError::Reject(_)) {
            // If not even the ledger can be written, no part can.
            self.send_part(Part::default()).await.map_err(Trouble::from)?;
        }
        let mut parts = self.divide(whole, error, &mut division).await?;
        while let Some(part) = parts.pop() {
            self.tick();
            let part = division.remaining(part);
            if part.len() > 0 {
                parts.extend(self.push_part(part, &mut division).await?);
            }
        }
        if division.tallies.values().all(|tally| tally.taken == 0) {
            // Nothing of it told central that this host lives.
            self.send_part(Part::default()).await.map_err(Trouble::from)?;
        }
        self.conclude(division).await
    }

    async fn send_part(&mut self, part: Part) -> Result<(Part, Vec<Applied>), CentralError> {
        let nothing = BatchLimit { rows: 0, bytes: 0 };
        match self.send(&part, None, None, nothing, &Skip::default()).await.0 {
            Ok(applied) if part.len() == 0 => {
                self.advance();
                Ok((part, applied))
            }
            answer => answer.map(|applied| (part, applied)),
        }
    }

    /// Pushes a part; returns the parts of it that are left to push.
    async fn push_part(&mut self, part: Part, division: &mut Division) -> Result<Vec<Part>, Trouble> {
        let nothing = BatchLimit { rows: 0, bytes: 0 };
        match self.send(&part, None, None, nothing, &Skip::default()).await.0 {
            Ok(applied) => {
                for subject in part.subjects() {
                    division.tally(subject).taken += part.len();
                }
                for (session, how) in part.sessions.iter().zip(&applied) {
                    self.held.taken(&session.instance_id, Subject::Sessions);
                    if !how.leaves_none() {
                        division.missing.remove(&session.instance_id);
                    }
                }
                let settling = self.applied(part, applied);
                self.settle(settling).await?;
                Ok(Vec::new())
            }
            Err(error) if is_divisible(&error) => self.divide(part, error, division).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The parts of what central did not take that are to be tried, the first to go last.
    async fn divide(&mut self, part: Part, error: CentralError, division: &mut Division) -> Result<Vec<Part>, Trouble> {
        let Some(subject) = part.subject() else {
            return Ok(part.by_subject().into_iter().rev().collect());
        };
        match error {
            CentralError::Locked(why) => self.divide_locked(part, subject, &why, division).await,
            CentralError::SchemaMissing(why) if subject == Subject::Sessions => {
                Err(CentralError::SchemaMissing(why).into())
            }
            CentralError::Refused(why) | CentralError::SchemaMissing(why) => {
                division.tally(subject).over = Some(why);
                Ok(Vec::new())
            }
            CentralError::Reject(rejection) if part.len() == 1 => {
                let known = self.held.fault(subject).is_some();
                let tally = division.tally(subject);
                tally.failed.push((part, rejection));
                if tally.is_suspect(known) {
                    return self.try_newest(subject, division).await;
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

    /// Tries the newest rows of a table that has taken none so far. If it takes none of these, it is at fault.
    async fn try_newest(&mut self, subject: Subject, division: &mut Division) -> Result<Vec<Part>, Trouble> {
        let newest = self.replica.newest_pending(subject.kind(), NEWEST, self.skip()).await?;
        let (mut rest, mut why) = (Part::of(newest), String::new());
        while rest.len() > 0 {
            let one = rest.take_one();
            match self.send_part(one).await {
                Ok((part, applied)) => {
                    division.tally(subject).taken += 1;
                    let settling = self.applied(part, applied);
                    self.settle(settling).await?;
                    return Ok(Vec::new());
                }
                Err(CentralError::Reject(rejection)) => why = rejection.message,
                Err(error) => return Err(error.into()),
            }
        }
        let tally = division.tally(subject);
        tally.over = tally.commonest().map(|(_, rejection)| rejection.message.clone()).or(Some(why));
        Ok(Vec::new())
    }

    /// Holds back what is locked; returns the rest.
    async fn divide_locked(
        &mut self,
        part: Part,
        subject: Subject,
        why: &str,
        division: &mut Division,
    ) -> Result<Vec<Part>, Trouble> {
        let mut ids = part.session_ids();
        ids.sort();
        let mut locked: HashSet<_> = match self.central.locked(&ids).await {
            Ok(locked) => locked.into_iter().collect(),
            // The table itself is locked.
            Err(CentralError::Locked(why)) => return Err(CentralError::Retry(why).into()),
            Err(error) => return Err(error.into()),
        };
        if locked.is_empty() && ids.len() > 1 {
            // A row that is not there yet, or one of another table: found by halves, which keep a session's records
            // together.
            let first = ids[..ids.len() / 2].iter().cloned().collect();
            let (first, rest) = part.split_by_session(&first);
            return Ok(vec![rest, first]);
        }
        if locked.is_empty() {
            locked.extend(ids);
            let tally = division.tally(subject);
            tally.locked += 1;
            if subject != Subject::Sessions && tally.taken == 0 && tally.locked >= LOCKED_SESSIONS {
                tally.over = Some(why.to_owned());
            }
        }
        for id in &locked {
            tracing::info!(session = %id, table = subject.table(), "waits: a row in central is locked ({why})");
            self.held.lock(id.clone(), subject, self.tick());
        }
        Ok(vec![part.split_by_session(&locked).1])
    }

    /// Decides, for each table, whether it is at fault or the rows that it did not take.
    async fn conclude(&mut self, division: Division) -> Result<(), Trouble> {
        for (subject, tally) in division.tallies {
            if let Some(reason) = tally.fault() {
                if self.held.fault(subject) != Some(&reason) {
                    let table = subject.table();
                    tracing::warn!(table, "central's table takes nothing at present, what is for it waits: {reason}");
                }
                self.held.fail(subject, reason, self.tick());
                continue;
            }
            if tally.taken > 0 {
                self.held.clear(subject);
            }
            for (part, Rejection { message, .. }) in tally.failed {
                self.say_parked(part.name(), &message);
                let settling = self.dated(part.rejected(&message));
                self.settle(settling).await?;
            }
        }
        Ok(())
    }

    /// Logs what is parked, once for each row: it is tried again, and may be parked again.
    fn say_parked(&mut self, what: String, error: &str) {
        const REMEMBERED: usize = 10_000;
        if self.said_parked.len() >= REMEMBERED {
            self.said_parked.clear();
        }
        if self.said_parked.insert(what.clone()) {
            tracing::error!(what, error, "central does not take this; parked, and tried again from time to time");
        }
    }

    fn dated(&self, settling: Settling) -> Settling {
        Settling { acked_batch: self.batch, next_batches: self.next, ..settling }
    }

    /// A number that no other batch has had, even at a time that a restore has undone.
    pub(super) fn draw_batch(&self, after: i64) -> i64 {
        after + 1 + i64::from((self.outside.random)() as u32)
    }

    /// Central has applied the next batch.
    fn advance(&mut self) {
        let [number, next] = self.next;
        self.batch = number;
        self.next = [next, self.draw_batch(next)];
    }

    /// Central has applied the next batch. What the store is to make of it.
    fn applied(&mut self, part: Part, applied: Vec<Applied>) -> Settling {
        self.advance();
        self.dated(part.settling(applied, |applied| self.settlement(applied)))
    }

    async fn settle(&mut self, settling: Settling) -> Result<(), StoreError> {
        let acked = settling.acked_batch;
        note(&self.replica, Some(settling), (self.outside.clock)()).await?;
        self.forget_sent(acked);
        Ok(())
    }

    /// The store knows of all batches up to this one.
    fn forget_sent(&mut self, acked: i64) {
        self.sent.retain(|number| *number > acked);
    }

    fn settlement(&self, applied: Applied) -> Settlement {
        match applied {
            // Only a record can be without its session.
            Applied::Taken | Applied::WithoutSession => Settlement::Taken,
            Applied::ClosedElsewhere { closed_at } => Settlement::ClosedElsewhere { closed_at },
            Applied::Collided => Settlement::Collided { draws: std::array::from_fn(|_| (self.outside.random)()) },
            Applied::Foreign { machine } => Settlement::Rejected {
                error: format!(
                    "it belongs to machine {machine}; this state folder seems to be a copy of that machine's"
                ),
            },
        }
    }
}

/// Reads what waits behind a place, if there is one.
async fn read_ahead(
    replica: &impl Replica,
    place: Option<Place>,
    limit: BatchLimit,
    skip: &Skip,
) -> Result<Pending, StoreError> {
    match place {
        Some(place) => replica.pending_behind(place, limit, skip.clone()).await,
        None => Ok(Pending::default()),
    }
}
