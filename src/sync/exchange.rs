//! One link to one central: carries out the engine's steps over it and reports how they ended.

mod push;

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::central::{Announcement, Applied, Batch, Central, CentralError, Host, Swept};
use super::engine::{Engine, Failure, Pace, Step, Tick};
use super::held::Held;
use super::parts::{Part, Subject};
use super::replica::Replica;
use crate::clock::Clock;
use crate::domain::mirror::{Changes, PageSize, Position, Reading, Rest};
use crate::domain::{BlockedKind, HistoryTables, InstanceId, Kind, LinkState, LinkStatus, TableState, Timestamp};
use crate::store::{BatchLimit, Identity, Ledger, Pending, Place, Renamed, Settlement, Settling, StoreError};

/// What is handed in, so that any run can be replayed: both clocks, and chance.
pub struct Outside {
    pub clock: Clock,
    /// Reads the clock that only moves forward.
    pub ticks: Box<dyn Fn() -> Tick + Send + Sync>,
    pub random: Box<dyn Fn() -> u64 + Send + Sync>,
    pub version: &'static str,
}

/// So many batches follow one another, each on its way while the next is read and the one before is noted; then
/// the store is asked anew what waits longest, and for records.
const ON_END: usize = 16;

/// However many daemons greet central, the hosts are read no more often.
const HOSTS_GAP: Duration = Duration::from_secs(1);

/// A page that took less is followed by larger ones; one that failed after more, by smaller ones.
const PAGE_SHORT: Duration = Duration::from_millis(250);
const PAGE_LONG: Duration = Duration::from_secs(1);

/// What a failed step means: the link is down, or the store did not answer.
enum Trouble {
    Central(CentralError),
    Store(StoreError),
}

impl From<CentralError> for Trouble {
    fn from(error: CentralError) -> Self {
        Self::Central(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One central, and where its ledger stands for this host.
pub struct Exchange<R, C> {
    replica: R,
    central: C,
    outside: Outside,
    link: watch::Sender<LinkStatus>,
    /// The newest batch in central's ledger.
    batch: i64,
    /// The batches sent since the store last took note of one: central may or may not have them.
    sent: Vec<i64>,
    /// The numbers that the next batches bear.
    next: [i64; 2],
    /// As which host this one was welcomed.
    host_id: Uuid,
    /// The step other than a push that failed last: until it works, people are told that it does not.
    failing: Option<Step>,
    /// What stays out of the next pushes.
    held: Held,
    /// What central has for records, as it said last.
    tables: HistoryTables,
    /// Parked rows that were logged.
    said_parked: HashSet<String>,
    /// Between two pages of what changed in central: since when, and where the next page begins.
    reading: Option<(u64, Position)>,
    page: PageSize,
    /// Of which of central's timelines the reading is.
    timeline: String,
    /// When the reading under way, or the last one, began.
    read_since: Tick,
    /// When the hosts are read next, and when they were last.
    hosts_at: Tick,
    hosts_read: Tick,
    /// What this host calls stale, as of the last step.
    stale_after: Duration,
    /// Why the last sweep failed, as it is shown while the link is up.
    sweep_error: Option<String>,
}

impl<R: Replica, C: Central> Exchange<R, C> {
    pub fn new(replica: R, central: C, outside: Outside, link: watch::Sender<LinkStatus>) -> Self {
        Self {
            replica,
            central,
            outside,
            link,
            batch: 0,
            sent: Vec::new(),
            next: [0; 2],
            host_id: Uuid::nil(),
            failing: None,
            held: Held::default(),
            tables: HistoryTables::ALL,
            said_parked: HashSet::new(),
            reading: None,
            page: PageSize::LARGEST,
            timeline: String::new(),
            read_since: Tick::ZERO,
            hosts_at: Tick::ZERO,
            hosts_read: Tick::ZERO,
            stale_after: Duration::ZERO,
            sweep_error: None,
        }
    }

    pub fn tick(&self) -> Tick {
        (self.outside.ticks)()
    }

    /// Whether anything waits for central.
    pub async fn has_pending(&self) -> bool {
        self.replica.has_pending(self.skip()).await.unwrap_or(false)
    }

    /// Whatever central did not take is tried again at once.
    pub fn hurry(&mut self) {
        self.held.retry_now();
    }

    /// Carries out one step and tells the engine and the people how it ended.
    pub async fn perform(&mut self, step: Step, pace: Pace, stale_after: Duration, engine: &mut Engine) {
        self.stale_after = stale_after;
        let outcome = self.carry_out(step, pace, stale_after, engine).await;
        self.report(step, outcome, engine);
    }

    async fn carry_out(
        &mut self,
        step: Step,
        pace: Pace,
        stale_after: Duration,
        engine: &mut Engine,
    ) -> Result<(), Trouble> {
        match step {
            Step::Hello => {
                self.hello().await?;
                engine.welcomed(self.tick());
                engine.tables_known(self.tables.is_any_blocked(), false, self.tick());
            }
            Step::CheckTables => {
                let freed = self.check_tables().await?;
                engine.tables_known(self.tables.is_any_blocked(), freed, self.tick());
            }
            Step::Push { limit } => {
                self.push(limit, engine).await?;
            }
            Step::Pull => {
                let more = self.pull(pace, stale_after).await?;
                engine.pulled(more, self.read_since, self.tick());
            }
            Step::Listen => {
                let tells = self.central.listen().await;
                self.link.send_modify(|link| link.listening = tells);
                engine.listened(tells, self.tick());
            }
            Step::Sweep => self.sweep(pace, engine).await?,
            Step::Wait { .. } => {}
        }
        Ok(())
    }

    /// Announces this host. A ledger that stands neither where this store knows it to be nor at a batch
    /// whose answer was lost, be it by a crash of this host, means that central was restored from a backup:
    /// then everything is offered again.
    async fn hello(&mut self) -> Result<(), Trouble> {
        let identity = self.replica.identity();
        // A rename changes the identity before it changes the sessions, and they do not travel under the
        // old name, which may be another's by now.
        self.replica.set_machine_name(identity.name.clone(), (self.outside.clock)()).await?;
        let Ledger { acked, next } = self.replica.ledger().await?;
        let welcome = self.central.hello(&host(&identity, acked, self.outside.version, self.stale_after)).await?;
        self.replica.claim_accepted(identity.claims.last().copied().unwrap_or_default());
        self.held = Held::default();
        self.learn_tables(welcome.tables).await?;
        if welcome.batch != acked && !next.contains(&welcome.batch) && !self.sent.contains(&welcome.batch) {
            let (sessions, records) = self.replica.forget_synced(welcome.batch, (self.outside.clock)()).await?;
            tracing::warn!(
                sessions,
                records,
                ledger = welcome.batch,
                known = acked,
                "central has lost what it had (restored from a backup?); everything kept here is pushed again"
            );
        }
        self.batch = welcome.batch;
        let next = self.draw_batch(self.batch);
        self.next = [next, self.draw_batch(next)];
        self.host_id = identity.host_id;
        self.replica.set_mirror_timeline(welcome.timeline.clone()).await?;
        if std::mem::replace(&mut self.timeline, welcome.timeline) != self.timeline {
            self.reading = None;
        }
        self.hosts_at = self.tick();
        Ok(())
    }

    /// Returns when central announces something, if it can.
    pub async fn announced(&mut self) -> Announcement {
        self.central.changed().await
    }

    /// Has read what central announced.
    pub fn follow(&mut self, announced: Announcement, engine: &mut Engine) {
        let now = self.tick();
        match announced {
            Announcement::Changes => engine.noticed(now),
            Announcement::Host => {
                self.hosts_at = self.hosts_at.min(now.max(self.hosts_read + HOSTS_GAP));
                engine.noticed(self.hosts_at);
            }
            Announcement::Lost => {
                tracing::info!("the connection that listens for changes is gone; another one is opened");
                self.link.send_modify(|link| link.listening = false);
                engine.stopped_listening(now);
            }
        }
    }

    /// Asks what central has for records by now. Says whether a kind can be pushed that could not.
    async fn check_tables(&mut self) -> Result<bool, Trouble> {
        let tables = self.central.tables().await?;
        let freed = Kind::ALL.into_iter().any(|kind| !self.tables.is_usable(kind) && tables.is_usable(kind));
        self.learn_tables(tables).await?;
        self.show_link();
        Ok(freed)
    }

    async fn learn_tables(&mut self, tables: HistoryTables) -> Result<(), Trouble> {
        for kind in Kind::ALL {
            match (tables.blocked(kind), self.tables.blocked(kind)) {
                (Some(why), before) if before.as_ref() != Some(&why) => {
                    tracing::warn!(table = kind.table(), "records wait: {why}");
                }
                (None, Some(_)) if *tables.state(kind) == TableState::Usable => {
                    tracing::info!(table = kind.table(), "central takes records again");
                }
                _ => {}
            }
        }
        self.replica.record_tables(tables.clone(), (self.outside.clock)()).await?;
        self.tables = tables;
        Ok(())
    }

    /// Turns silent sessions in central stale. No change waits for that: a sweep that fails is shown and tried again
    /// later, and the link is down only if the connection is.
    async fn sweep(&mut self, pace: Pace, engine: &mut Engine) -> Result<(), Trouble> {
        let (swept, error) = match self.central.sweep(self.stale_after, pace.sweep_interval).await {
            Ok(swept) => (swept, None),
            Err(CentralError::Reject(why)) => {
                (Swept::default(), Some(format!("cannot turn silent sessions stale: {}", why.message)))
            }
            Err(error) => return Err(error.into()),
        };
        if swept.turned > 0 {
            tracing::info!(sessions = swept.turned, "turned the sessions of vanished hosts stale in central");
        }
        engine.swept(swept.more, self.tick());
        self.show_sweep_error(error);
        Ok(())
    }

    /// Shows or withdraws the error of a sweep, as `last_error` of a link that is up.
    fn show_sweep_error(&mut self, error: Option<String>) {
        if self.sweep_error == error {
            return;
        }
        if let Some(error) = &error {
            tracing::warn!("{error}; changes go to central all the same");
        }
        self.sweep_error = error;
        self.show_link();
    }

    /// Reads a page of what changed in central. Says whether there is more.
    async fn pull(&mut self, pace: Pace, stale_after: Duration) -> Result<bool, Trouble> {
        if self.reading.is_none() {
            self.read_since = self.tick();
            self.read_hosts(pace).await?;
        }
        // What is read from here on was true at this moment, or became so later.
        let asked = (self.outside.clock)();
        let since = self.replica.mirror_position(asked).await?;
        // A position within a reading means nothing to one that begins elsewhere.
        let after = self.reading.clone().filter(|(begun, _)| *begun == since).map(|(_, after)| after);
        let reading = Reading { since, after, page: self.page };
        let Some(changes) = self.page(&reading).await? else { return Ok(true) };
        let rest = changes.rest.clone();
        self.count_unreadable(changes.unreadable);
        let draws = Box::new(std::array::from_fn(|_| (self.outside.random)()));
        let imported = self.replica.import_page(reading, changes, draws, asked, stale_after).await?;
        tell_renamed(&imported.renamed);
        self.reading = match rest {
            Rest::More(position) => Some((since, position)),
            Rest::Nothing { .. } => None,
            Rest::Everything => {
                tracing::warn!("central numbers its transactions anew (a restored backup?); everything is read again");
                self.replica.reset_mirror_position().await?;
                return Ok(true);
            }
        };
        Ok(self.reading.is_some())
    }

    /// Asks central for a page, of a size that it can send in time; none if it is to be asked for less.
    async fn page(&mut self, reading: &Reading) -> Result<Option<Changes>, CentralError> {
        let began = self.tick();
        let answer = self.central.pull(reading).await;
        let took = self.tick().saturating_sub(began);
        match answer {
            Ok(changes) => {
                if took < PAGE_SHORT {
                    self.page = self.page.doubled();
                }
                Ok(Some(changes))
            }
            // One row among them is at fault.
            Err(CentralError::Reject(_)) if self.page != PageSize::SMALLEST => {
                self.page = self.page.halved();
                Ok(None)
            }
            Err(error) => {
                if took > PAGE_LONG {
                    self.page = self.page.halved();
                }
                Err(error)
            }
        }
    }

    fn count_unreadable(&self, rows: u64) {
        if rows > 0 {
            self.link.send_modify(|link| link.unreadable_rows += rows);
        }
    }

    async fn read_hosts(&mut self, pace: Pace) -> Result<(), Trouble> {
        let now = self.tick();
        if self.hosts_at <= now {
            let hosts = self.central.hosts().await?;
            self.replica.replace_hosts(hosts).await?;
            self.hosts_read = now;
            self.hosts_at = now + pace.heartbeat_interval;
        }
        Ok(())
    }

    /// A push went through that was sent at `asked`.
    fn synced(&self, took: Duration, asked: Timestamp) {
        let now = (self.outside.clock)();
        let ahead = self.central.clock().map(|there| clock_ahead(asked, there, now));
        self.link.send_modify(|link| {
            link.last_sync_at = Some(now);
            link.round_trip = Some(took);
            if let Some(ahead) = ahead {
                log_clock(link.clock_ahead, ahead);
                link.clock_ahead = ahead;
            }
        });
    }

    /// Reports the link as it stands after central answered: connected, or refused while it takes no sessions.
    fn show_link(&self) {
        if self.failing.is_some() {
            return;
        }
        let reason = |kind| {
            let fault =
                self.held.fault(Subject::Records(kind)).map(|why| format!("{} takes nothing: {why}", kind.table()));
            self.tables.blocked(kind).or(fault)
        };
        let blocked: Vec<_> =
            Kind::ALL.into_iter().filter_map(|kind| Some(BlockedKind { kind, reason: reason(kind)? })).collect();
        match self.held.fault(Subject::Sessions) {
            Some(why) => self.lost(&CentralError::Refused(format!(
                "central takes no sessions: {why}; nothing is parked, all of them wait and are tried again"
            ))),
            None => self.connected(),
        }
        let error = self.held.fault(Subject::Sessions).is_none().then(|| {
            let records = blocked.first().map(|first| format!("records wait: {}", first.reason));
            self.held.locks().or(records).or_else(|| self.sweep_error.clone())
        });
        self.link.send_if_modified(|link| {
            let before = (link.blocked.clone(), link.last_error.clone());
            link.blocked = blocked;
            if let Some(error) = error {
                link.last_error = error;
            }
            before != (link.blocked.clone(), link.last_error.clone())
        });
    }

    /// Says that this host's own store is in the way, once until it works again.
    fn store_failed(&self, error: &StoreError) {
        let now = (self.outside.clock)();
        self.link.send_modify(|link| {
            if link.store_error.is_none() {
                tracing::error!(%error, "sync cannot use the store of this host; it is tried again by itself");
            }
            let since = link.store_error.as_ref().map_or(now, |(since, _)| *since);
            link.store_error = Some((since, error.to_string()));
        });
    }

    /// A step that writes the store went through.
    fn store_works(&self) {
        self.link.send_if_modified(|link| link.store_error.take().is_some());
    }

    fn report(&mut self, step: Step, outcome: Result<(), Trouble>, engine: &mut Engine) {
        let pushes = matches!(step, Step::Push { .. });
        if outcome.is_ok() && step == Step::Pull {
            self.store_works();
        }
        match outcome {
            Ok(()) if self.failing == Some(step) || pushes && self.failing.is_none() => {
                self.failing = None;
                self.show_link();
            }
            Ok(()) => {}
            Err(Trouble::Central(error)) => {
                if !pushes && step != Step::Hello {
                    self.failing = Some(step);
                }
                engine.failed(failure(&error), self.tick(), (self.outside.random)());
                self.lost(&error);
            }
            // The mirror waits until there is room; the link is none the worse for it.
            Err(Trouble::Store(error @ StoreError::Full(_))) if step == Step::Pull => {
                self.store_failed(&error);
                engine.pulled(false, self.read_since, self.tick());
            }
            Err(Trouble::Store(error)) => {
                self.store_failed(&error);
                // What central applied and the store could not note is pushed again; central's rules make that harmless.
                engine.failed(Failure::Store, self.tick(), (self.outside.random)());
            }
        }
    }

    fn connected(&self) {
        let now = (self.outside.clock)();
        self.link.send_if_modified(|link| {
            let news = link.state != LinkState::Connected;
            if news {
                tracing::info!("connected to central");
                (link.state, link.since) = (LinkState::Connected, now);
                (link.last_error, link.conflict) = (self.sweep_error.clone(), None);
            }
            news
        });
    }

    /// Says that the link is down, and why: once for each new state, not for each attempt.
    fn lost(&self, error: &CentralError) {
        let state = match error {
            CentralError::Retry(_) | CentralError::Locked(_) => LinkState::Unreachable,
            CentralError::Refused(_) | CentralError::Reject(_) => LinkState::Refused,
            CentralError::SchemaMissing(_) => LinkState::SchemaMissing,
            CentralError::Conflict(_) => LinkState::IdentityConflict,
            CentralError::OutOfStep => return tracing::info!("{error}; announcing anew"),
        };
        let now = (self.outside.clock)();
        self.link.send_modify(|link| {
            if link.state != state {
                tracing::warn!(state = state.as_str(), "no link to central, changes wait in the store: {error}");
                link.state = state;
                link.since = now;
            }
            link.last_error = Some(error.to_string());
            link.round_trip = None;
            link.listening = false;
            link.conflict = match error {
                CentralError::Conflict(conflict) => Some(conflict.clone()),
                _ => None,
            };
        });
    }

    /// The last push before the end: what is left waits in the store for the next start.
    pub async fn farewell(&mut self, engine: &mut Engine) -> bool {
        let last = async {
            // A step may have been cut off in the middle: only a new greeting knows where the ledger stands.
            self.hello().await?;
            while self.push(engine.batch(), engine).await? > 0 {}
            Ok::<_, Trouble>(())
        };
        last.await.is_ok()
    }
}

/// Has the store take in what came of a batch, if of any.
async fn note(replica: &impl Replica, settling: Option<Settling>, at: Timestamp) -> Result<(), StoreError> {
    if let Some(settling) = settling {
        tell_renamed(&replica.acknowledge(settling, at).await?);
    }
    Ok(())
}

/// Clocks that differ by less are as right as clocks are.
const CLOCK_TOLERANCE: i64 = 2_000_000;

/// How far this clock is certainly ahead of central's, in microseconds, which was read between two readings of this
/// one; none if it is within the tolerance.
fn clock_ahead(before: Timestamp, there: Timestamp, after: Timestamp) -> Option<i64> {
    let (before, there, after) = (before.micros(), there.micros(), after.micros());
    let ahead = if there < before { before - there } else { (after - there).min(0) };
    (ahead.abs() > CLOCK_TOLERANCE).then_some(ahead)
}

/// Logs a clock that turns wrong or right.
fn log_clock(was: Option<i64>, ahead: Option<i64>) {
    match (was, ahead) {
        (None, Some(ahead)) => tracing::warn!("{}", crate::domain::link::clock_advice(ahead)),
        (Some(_), None) => tracing::info!("this machine's clock and central's agree"),
        _ => {}
    }
}

fn tell_renamed(renamed: &[Renamed]) {
    for session in renamed {
        tracing::warn!(
            from = %session.from,
            to = %session.to,
            "another session holds this id in central; this one got a new id, the old one goes on resolving here"
        );
    }
}

fn host(identity: &Identity, acked_batch: i64, version: &'static str, stale_after: Duration) -> Host {
    Host {
        host_id: identity.host_id,
        machine: identity.name.clone(),
        claim: identity.claims.last().copied().unwrap_or_default(),
        own_claims: identity.own_claims(),
        acked_batch,
        former_host_ids: identity.former_host_ids.clone(),
        replace: identity.replace,
        version,
        stale_after,
    }
}

fn failure(error: &CentralError) -> Failure {
    match error {
        CentralError::Retry(_) | CentralError::Locked(_) => Failure::Retry,
        CentralError::OutOfStep => Failure::OutOfStep,
        CentralError::Reject(_)
        | CentralError::Refused(_)
        | CentralError::SchemaMissing(_)
        | CentralError::Conflict(_) => Failure::NeedsAPerson,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_only_if_the_round_trip_does_not_explain_it() {
        let at = Timestamp::from_micros;
        let second = 1_000_000;
        assert_eq!(clock_ahead(at(0), at(5 * second), at(10 * second)), None);
        assert_eq!(clock_ahead(at(0), at(2 * second), at(second)), None, "within the tolerance");
        assert_eq!(clock_ahead(at(0), at(9 * second), at(second)), Some(-8 * second));
        assert_eq!(clock_ahead(at(9 * second), at(0), at(10 * second)), Some(9 * second));
        assert!(crate::domain::link::clock_advice(-8 * second).contains("8s behind central's"));
    }
}
