//! The network between the hosts and central: calls take time, fail, lose their answers, or arrive late.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use uuid::Uuid;

use super::bugs::Bug;
use super::setup::{HOSTS, Violation, now};
use crate::domain::limits::AccountLimit;
use crate::domain::mirror::{ChangePage, HostSeen, PullQuery};
use crate::domain::on_demand::{Found, Question};
use crate::domain::{ColumnTimes, HistoryRecord, HistoryTables, InstanceId, Session, Status, TimedSession, Timestamp};
use crate::sync::central::{
    Accepted, Batch, Central, CentralError, HostRegistration, Notification, RowOutcome, SweepResult,
};
use crate::sync::fake_central::{FakeCentral, FakeLink};
use testkit::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkQuality {
    Reliable,
    /// Two of three calls fail in some way.
    Flaky,
    /// No call arrives.
    Down,
}

/// The outcome of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallOutcome {
    Arrives,
    Fails,
    AnswerLost,
    /// The sender abandons it, and it arrives later.
    Late,
}

/// A batch whose sender has abandoned its connection.
pub(super) struct LateBatch {
    host: usize,
    link: FakeLink,
    host_id: Uuid,
    after: i64,
    number: i64,
    sessions: Vec<TimedSession>,
    records: Vec<HistoryRecord>,
}

pub(super) struct Net {
    pub quality: [LinkQuality; HOSTS],
    pub late_batches: VecDeque<LateBatch>,
    /// The host ids that took over a machine name.
    pub rivals: BTreeMap<String, Uuid>,
    /// Calls of each host so far, other than those that bisect a rejected batch.
    pub calls: [u32; HOSTS],
    /// The pages that each host pulled, and their rows.
    pub pulls: [u64; HOSTS],
    pub read: [u64; HOSTS],
    pub violations: Vec<Violation>,
    pub random: Random,
    /// When each host was last in contact with central, by central's clock.
    pub contacts: [Timestamp; HOSTS],
    /// All events, in order.
    pub log: Vec<String>,
}

#[derive(Clone)]
pub(super) struct Network {
    net: Arc<Mutex<Net>>,
    pub central: FakeCentral,
    pub bug: Option<Bug>,
}

impl Network {
    pub(super) fn new(central: FakeCentral, random: Random, bug: Option<Bug>) -> Self {
        let net = Net {
            quality: [LinkQuality::Reliable; HOSTS],
            late_batches: VecDeque::new(),
            rivals: BTreeMap::new(),
            calls: [0; HOSTS],
            pulls: [0; HOSTS],
            read: [0; HOSTS],
            violations: Vec::new(),
            random,
            contacts: [Timestamp::from_micros(0); HOSTS],
            log: Vec::new(),
        };
        Self { net: Arc::new(Mutex::new(net)), central, bug }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap()
    }

    pub(super) fn log_event(&self, what: String) {
        self.lock().log.push(what);
    }

    pub(super) fn link(&self, host: usize) -> SimLink {
        SimLink { host, network: self.clone(), link: self.central.connect(), me: None, rejected: false }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Central has just heard of a host.
    pub(super) fn note_contact(&self, host: usize) {
        let now = self.central.now();
        self.lock().contacts[host] = now;
    }

    /// Delivers the oldest late batch.
    pub(super) fn deliver_late_batch(&self) {
        let Some(mut late) = self.lock().late_batches.pop_front() else { return };
        if self.has(Bug::LateBatchApplied) {
            late.sessions.iter().filter(|s| !self.is_of_another_session(s)).for_each(|s| self.central.put(s));
        } else {
            let LateBatch { after, number, ref sessions, ref records, .. } = late;
            let after = self.after(after, late.host_id);
            let applied = now(late.link.push(Batch { after, number, sessions, records }));
            if applied.is_ok() {
                self.note_contact(late.host);
            }
            self.log_event(format!("batch {number} arrives late: {}", shown(&applied)));
        }
    }

    /// The expected position of the ledger; with [`Bug::NoLedger`] its actual one.
    fn after(&self, after: i64, host_id: Uuid) -> i64 {
        if self.has(Bug::NoLedger) { self.central.batch_of(host_id).unwrap_or(0) } else { after }
    }

    /// Whether central's row with this id is another session.
    fn is_of_another_session(&self, session: &Session) -> bool {
        let rows = self.central.rows();
        rows.iter().any(|row| row.instance_id == session.instance_id && row.created_at != session.created_at)
    }
}

/// A host's connection to central.
pub(super) struct SimLink {
    host: usize,
    network: Network,
    link: FakeLink,
    me: Option<HostRegistration>,
    /// The last push was rejected, so the next one is a part of it.
    rejected: bool,
}

/// Lets others run first.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn shown<T: std::fmt::Debug>(answer: &Result<T, CentralError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => error.to_string(),
    }
}

fn broke<T>() -> Result<T, CentralError> {
    Err(CentralError::Retry("the connection broke".into()))
}

impl SimLink {
    fn outcome(&self) -> CallOutcome {
        let mut net = self.network.lock();
        let quality = net.quality[self.host];
        match (quality, net.random.below(6)) {
            (LinkQuality::Down, _) | (LinkQuality::Flaky, 0) => CallOutcome::Fails,
            (LinkQuality::Flaky, 1) => CallOutcome::AnswerLost,
            (LinkQuality::Flaky, 2 | 3) => CallOutcome::Late,
            _ => CallOutcome::Arrives,
        }
    }

    fn cut(&mut self) -> FakeLink {
        self.me = None;
        std::mem::replace(&mut self.link, self.network.central.connect())
    }

    fn violated(&self, guarantee: &'static str, what: String) {
        self.network.lock().violations.push(Violation { guarantee, what });
    }

    /// G8: a host that lost its name does nothing under it without an operator's request.
    fn check_name(&self, host: &HostRegistration) {
        if self.network.lock().rivals.contains_key(host.machine.as_str()) {
            self.violated("G8", format!("host {} acts as {}, which another has", self.host, host.machine));
        }
    }

    /// G8: nor does it push rows with that name.
    fn check_filing(&self, batch: &Batch<'_>) {
        let filed = |s: &&TimedSession| self.network.lock().rivals.contains_key(s.host_machine.as_str());
        if let Some(session) = batch.sessions.iter().find(filed) {
            self.violated("G8", format!("host {} pushes {session:?} with a name that another host has", self.host));
        }
    }

    async fn apply(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        let mut sessions = batch.sessions.to_vec();
        if self.network.has(Bug::StampNow) {
            sessions.iter_mut().for_each(|s| s.session.last_heartbeat = self.network.central.now());
        }
        if self.network.has(Bug::PushWholeRows) {
            sessions.iter_mut().for_each(|s| s.times = ColumnTimes::all(s.last_heartbeat));
        }
        let after = self.network.after(batch.after, self.me.as_ref().map_or(Uuid::nil(), |me| me.host_id));
        let mut records = batch.records.to_vec();
        if self.network.has(Bug::ReplayTwice) {
            records
                .iter_mut()
                .for_each(|record| record.record_id = Uuid::from_u128(u128::from(self.network.lock().random.next())));
        }
        if self.network.has(Bug::ReplayBackwards) {
            records.reverse();
        }
        let mut applied = self.link.push(Batch { after, sessions: &sessions, records: &records, ..batch }).await?;
        for (session, how) in sessions.iter().zip(&mut applied) {
            let wrong = match how {
                RowOutcome::Stored => self.network.has(Bug::LastWriteWins),
                RowOutcome::ClosedElsewhere { .. } => self.network.has(Bug::ReopenClosed),
                RowOutcome::IdCollision => self.network.has(Bug::OverwriteCollision),
                RowOutcome::StoredWithoutWork | RowOutcome::ForeignMachine { .. } | RowOutcome::SessionMissing => false,
            };
            if wrong {
                self.network.central.put(session);
                *how = RowOutcome::Stored;
            }
        }
        Ok(applied)
    }

    fn count(&mut self) {
        if !std::mem::take(&mut self.rejected) {
            self.network.lock().calls[self.host] += 1;
        }
    }
}

impl Central for SimLink {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        self.cut();
        self.count();
        pause().await;
        let outcome = self.outcome();
        if matches!(outcome, CallOutcome::Fails | CallOutcome::Late) {
            return broke();
        }
        let mut announced = host.clone();
        announced.replace |= self.network.has(Bug::PushUnderConflict);
        let accepted = self.link.handshake(&announced).await;
        self.network.log_event(format!("host {} shakes hands ({outcome:?}): {}", self.host, shown(&accepted)));
        // A rename may choose a name that another host has meanwhile.
        let usurped = self.network.lock().rivals.contains_key(host.machine.as_str());
        if let (Err(CentralError::Conflict(conflict)), false) = (&accepted, usurped) {
            self.violated(
                "G8",
                format!("host {} is refused for a conflict that does not exist: {conflict:?}", self.host),
            );
        }
        let accepted = accepted?;
        self.network.note_contact(self.host);
        // In a restored backup a copy of the folder may have the name again.
        if host.replace || accepted.batch < host.acked_batch {
            self.network.lock().rivals.remove(host.machine.as_str());
        }
        self.check_name(host);
        if outcome == CallOutcome::AnswerLost {
            self.cut();
            return broke();
        }
        self.me = Some(host.clone());
        pause().await;
        Ok(accepted)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        self.count();
        pause().await;
        let outcome = self.outcome();
        match outcome {
            CallOutcome::Fails => {
                self.cut();
                return broke();
            }
            CallOutcome::Late => {
                let host_id = self.me.as_ref().map_or(Uuid::nil(), |me| me.host_id);
                let sessions = batch.sessions.to_vec();
                let (after, number, records) = (batch.after, batch.number, batch.records.to_vec());
                let late = LateBatch { host: self.host, link: self.cut(), host_id, after, number, sessions, records };
                self.network.lock().late_batches.push_back(late);
                return broke();
            }
            CallOutcome::Arrives | CallOutcome::AnswerLost => {}
        }
        let applied = self.apply(batch).await;
        if applied.is_ok() {
            self.network.note_contact(self.host);
        }
        let ids = batch.sessions.iter().map(|s| s.instance_id.as_str()).collect::<Vec<_>>();
        let Batch { number, .. } = batch;
        self.network.log_event(format!(
            "host {} pushes {number} {ids:?} and {} records ({outcome:?}): {}",
            self.host,
            batch.records.len(),
            shown(&applied)
        ));
        if let (Ok(_), Some(me)) = (&applied, &self.me) {
            self.check_name(me);
            self.check_filing(&batch);
        }
        self.rejected = matches!(applied, Err(CentralError::Reject(_) | CentralError::Locked(_)));
        let is_locked = matches!(applied, Err(CentralError::Locked(_)));
        if is_locked && self.network.has(Bug::LockedRowBlocks) {
            self.cut();
            return broke();
        }
        if matches!(applied, Err(CentralError::Reject(_))) && self.network.has(Bug::RejectedBlocks) {
            return broke();
        }
        if outcome == CallOutcome::AnswerLost {
            self.cut();
            return broke();
        }
        pause().await;
        applied
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        self.link.locked_rows(ids).await
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        self.link.history_tables().await
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.link.last_clock()
    }

    async fn missing_triggers(&mut self) -> Result<Vec<String>, CentralError> {
        self.link.missing_triggers().await
    }

    fn marks_heartbeats(&self) -> bool {
        self.link.marks_heartbeats()
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        pause().await;
        if self.outcome() != CallOutcome::Arrives {
            self.cut();
            return broke();
        }
        let before = self.network.central.rows();
        let swept = self.link.sweep(stale_after, interval).await;
        let central_now = self.network.central.now();
        for (was, is) in before.iter().zip(self.network.central.rows()) {
            if was.status != is.status
                && (is.status != Status::Stale || central_now.since(was.last_heartbeat) < stale_after)
            {
                self.violated("G9", format!("{was:?} was swept to {:?}", is.status));
            }
        }
        swept
    }

    async fn pull(&mut self, reading: &PullQuery) -> Result<ChangePage, CentralError> {
        pause().await;
        if self.outcome() != CallOutcome::Arrives {
            self.cut();
            return broke();
        }
        let mut changes = self.link.pull(reading).await;
        if self.network.has(Bug::DeletionIsPermanent)
            && let Ok(changes) = &mut changes
            && reading.after.is_none()
            && !reading.is_whole()
        {
            let deleted = self.network.central.tombstones().into_iter().filter(|(at, _)| *at >= reading.since);
            changes.gone = deleted.map(|(_, gone)| gone).collect();
        }
        if let Ok(changes) = &changes {
            let rows = changes.sessions.len() + changes.gone.len() + changes.history.len();
            let mut net = self.network.lock();
            net.pulls[self.host] += 1;
            net.read[self.host] += rows as u64;
        }
        pause().await;
        changes
    }

    async fn find(&mut self, question: &Question) -> Result<Found, CentralError> {
        pause().await;
        if self.outcome() != CallOutcome::Arrives {
            self.cut();
            return broke();
        }
        let found = self.link.find(question).await;
        pause().await;
        found
    }

    async fn share_limits(&mut self, limits: &[AccountLimit]) -> Result<(), CentralError> {
        self.link.share_limits(limits).await
    }

    async fn take_leases(&mut self, names: &[String], length: Duration) -> Result<Vec<String>, CentralError> {
        self.link.take_leases(names, length).await
    }

    async fn hosts(&mut self, only: Option<&[Uuid]>) -> Result<Vec<HostSeen>, CentralError> {
        pause().await;
        if self.outcome() != CallOutcome::Arrives {
            self.cut();
            return broke();
        }
        self.link.hosts(only).await
    }

    async fn disown(&mut self, ids: &[InstanceId]) -> Result<(), CentralError> {
        pause().await;
        self.network.log_event(format!("host {} disowns {ids:?}", self.host));
        self.link.disown(ids).await
    }

    async fn listen(&mut self) -> bool {
        self.link.listen().await
    }

    async fn next_notification(&mut self) -> Notification {
        self.link.next_notification().await
    }
}
