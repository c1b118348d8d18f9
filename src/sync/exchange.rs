//! One link to one central: carries out the engine's steps over it and reports how they ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::central::{Applied, Batch, Central, CentralError, Host, Swept};
use super::engine::{Engine, Failure, Pace, Step, Tick};
use super::parts::Part;
use crate::clock::Clock;
use crate::domain::mirror::{Changes, HostSeen, Position, Reading, Rest};
use crate::domain::{HistoryTables, InstanceId, LinkState, LinkStatus, MachineName, Timestamp};
use crate::store::{
    Draws, Identity, Ledger, Pending, PinnedIdentity, Place, Renamed, Settlement, Settling, Store, StoreError,
};

/// This host, as sync sees it: who it is, and what of its store central lacks.
pub trait Local: Send + Sync {
    fn identity(&self) -> Identity;
    /// Central accepted this claim, and with it a replacement that was asked for.
    fn accepted(&self, claim: Uuid);
    /// Files the sessions under the host's name, if they are not yet.
    fn file_under(&self, name: MachineName, at: Timestamp) -> impl Future<Output = Result<usize, StoreError>> + Send;
    fn any_waits(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;
    fn pending(&self, limit: usize) -> impl Future<Output = Result<Pending, StoreError>> + Send;
    /// The sessions that stand behind this place among those that wait, and no records.
    fn pending_behind(&self, place: Place, limit: usize) -> impl Future<Output = Result<Pending, StoreError>> + Send;
    fn ledger(&self) -> impl Future<Output = Result<Ledger, StoreError>> + Send;
    fn settle(
        &self,
        settling: Settling,
        at: Timestamp,
    ) -> impl Future<Output = Result<Vec<Renamed>, StoreError>> + Send;
    fn forget_synced(
        &self,
        acked_batch: i64,
        at: Timestamp,
    ) -> impl Future<Output = Result<(usize, usize), StoreError>> + Send;
    fn learn_tables(&self, tables: HistoryTables, at: Timestamp)
    -> impl Future<Output = Result<(), StoreError>> + Send;
    /// The mirror is one of this timeline of central from now on.
    fn mirror_of(&self, timeline: String) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn mirror_since(&self, now: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send;
    fn take_in(
        &self,
        reading: Reading,
        changes: Changes,
        draws: Box<Draws>,
        at: Timestamp,
        stale_after: Duration,
    ) -> impl Future<Output = Result<Vec<Renamed>, StoreError>> + Send;
    fn replace_hosts(&self, hosts: Vec<HostSeen>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The host that the daemon runs on.
pub struct Daemon {
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
}

impl Local for Daemon {
    fn identity(&self) -> Identity {
        self.identity.current()
    }

    fn accepted(&self, claim: Uuid) {
        self.identity.accepted(claim);
    }

    async fn file_under(&self, name: MachineName, at: Timestamp) -> Result<usize, StoreError> {
        self.store.file_under(name, at).await
    }

    async fn any_waits(&self) -> Result<bool, StoreError> {
        self.store.any_waits().await
    }

    async fn pending(&self, limit: usize) -> Result<Pending, StoreError> {
        self.store.pending(limit).await
    }

    async fn pending_behind(&self, place: Place, limit: usize) -> Result<Pending, StoreError> {
        self.store.pending_behind(place, limit).await
    }

    async fn ledger(&self) -> Result<Ledger, StoreError> {
        self.store.ledger().await
    }

    async fn settle(&self, settling: Settling, at: Timestamp) -> Result<Vec<Renamed>, StoreError> {
        self.store.settle(settling, at).await
    }

    async fn forget_synced(&self, acked_batch: i64, at: Timestamp) -> Result<(usize, usize), StoreError> {
        self.store.forget_synced(acked_batch, at).await
    }

    async fn learn_tables(&self, tables: HistoryTables, at: Timestamp) -> Result<(), StoreError> {
        self.store.learn_tables(tables, at).await
    }

    async fn mirror_of(&self, timeline: String) -> Result<(), StoreError> {
        self.store.mirror_of(timeline).await
    }

    async fn mirror_since(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.store.mirror_since(now).await
    }

    async fn take_in(
        &self,
        reading: Reading,
        changes: Changes,
        draws: Box<Draws>,
        at: Timestamp,
        stale_after: Duration,
    ) -> Result<Vec<Renamed>, StoreError> {
        self.store.take_in(reading, changes, draws, at, stale_after).await
    }

    async fn replace_hosts(&self, hosts: Vec<HostSeen>) -> Result<(), StoreError> {
        self.store.replace_hosts(hosts).await
    }
}

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
pub struct Exchange<L, C> {
    local: L,
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
    /// Between two pages of what changed in central.
    reading: Option<Position>,
    /// When the reading under way, or the last one, began.
    read_since: Tick,
    /// When the hosts are read next.
    hosts_at: Tick,
    /// What this host calls stale, as of the last step.
    stale_after: Duration,
    /// Why the last sweep failed, as it is shown while the link is up.
    sweep_error: Option<String>,
}

impl<L: Local, C: Central> Exchange<L, C> {
    pub fn new(local: L, central: C, outside: Outside, link: watch::Sender<LinkStatus>) -> Self {
        Self {
            local,
            central,
            outside,
            link,
            batch: 0,
            sent: Vec::new(),
            next: [0; 2],
            host_id: Uuid::nil(),
            failing: None,
            reading: None,
            read_since: Tick::ZERO,
            hosts_at: Tick::ZERO,
            stale_after: Duration::ZERO,
            sweep_error: None,
        }
    }

    pub fn tick(&self) -> Tick {
        (self.outside.ticks)()
    }

    /// Whether anything waits for central.
    pub async fn has_pending(&self) -> bool {
        self.local.any_waits().await.unwrap_or(false)
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
        let identity = self.local.identity();
        // A rename changes the identity before it changes the sessions, and they do not travel under the
        // old name, which may be another's by now.
        self.local.file_under(identity.name.clone(), (self.outside.clock)()).await?;
        let Ledger { acked, next } = self.local.ledger().await?;
        let welcome = self.central.hello(&host(&identity, acked, self.outside.version, self.stale_after)).await?;
        self.local.accepted(identity.claims.last().copied().unwrap_or_default());
        self.local.learn_tables(welcome.tables, (self.outside.clock)()).await?;
        if welcome.batch != acked && !next.contains(&welcome.batch) && !self.sent.contains(&welcome.batch) {
            let (sessions, records) = self.local.forget_synced(welcome.batch, (self.outside.clock)()).await?;
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
        self.local.mirror_of(welcome.timeline).await?;
        self.reading = None;
        self.hosts_at = self.tick();
        Ok(())
    }

    /// Turns silent sessions in central stale. No change waits for that: a sweep that fails is shown and tried again
    /// later, and the link is down only if the connection is.
    async fn sweep(&mut self, pace: Pace, engine: &mut Engine) -> Result<(), Trouble> {
        let (swept, error) = match self.central.sweep(self.stale_after, pace.sweep_interval).await {
            Ok(swept) => (swept, None),
            Err(CentralError::Reject(why)) => {
                (Swept::default(), Some(format!("cannot turn silent sessions stale: {why}")))
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
        let before = std::mem::replace(&mut self.sweep_error, error);
        self.link.send_modify(|link| {
            if self.sweep_error.is_some() || link.last_error == before {
                link.last_error.clone_from(&self.sweep_error);
            }
        });
    }

    /// Returns when others changed something in central, if it can tell.
    pub async fn changed(&mut self) {
        self.central.changed().await;
    }

    /// Reads a page of what changed in central. Says whether there is more.
    async fn pull(&mut self, pace: Pace, stale_after: Duration) -> Result<bool, Trouble> {
        if self.reading.is_none() {
            self.read_since = self.tick();
        }
        if self.reading.is_none() && self.hosts_at <= self.tick() {
            let hosts = self.central.hosts().await?;
            self.local.replace_hosts(hosts).await?;
            self.hosts_at = self.tick() + pace.heartbeat_interval;
        }
        // What is read from here on was true at this moment, or became so later.
        let asked = (self.outside.clock)();
        let reading = Reading { since: self.local.mirror_since(asked).await?, after: self.reading.take() };
        let changes = self.central.pull(&reading).await?;
        let rest = changes.rest.clone();
        let draws = Box::new(std::array::from_fn(|_| (self.outside.random)()));
        let renamed = self.local.take_in(reading, changes, draws, asked, stale_after).await?;
        tell_renamed(&renamed);
        match rest {
            Rest::More(position) => self.reading = Some(position),
            Rest::Nothing { .. } => {}
        }
        Ok(self.reading.is_some())
    }

    /// Pushes what is pending, longest waiting first, batch after batch. Returns how many rows went to central.
    async fn push(&mut self, limit: usize, engine: &mut Engine) -> Result<usize, Trouble> {
        let mut pending = self.local.pending(limit).await?;
        let mut to_note = None;
        let mut rows = 0;
        for left in (0..ON_END).rev() {
            // Looked at after the sessions were read: a rename changes the identity before it changes them,
            // and what bears the new name must not travel under the old id.
            if self.local.identity().host_id != self.host_id {
                note(&self.local, to_note, (self.outside.clock)()).await?;
                return Err(CentralError::OutOfStep.into());
            }
            let began = self.tick();
            let (more, behind) = (pending.more, pending.last.filter(|_| left > 0));
            let part = Part::of(pending);
            rows += part.len();
            let (answer, noted, ahead) = self.send(&part, to_note.take(), behind, engine.batch()).await;
            match (answer, noted) {
                (Ok(applied), Ok(())) => to_note = Some(self.applied(part, applied)),
                (Err(CentralError::Reject(error)), Ok(())) => self.push_in_parts(part, error).await?,
                (Err(error), _) => return Err(error.into()),
                (_, Err(error)) => return Err(error.into()),
            }
            self.synced(self.tick().saturating_sub(began));
            if self.failing.is_none() {
                self.connected();
            }
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

    /// Sends a batch, and uses the time until central answers: takes note of what came of the one before, and
    /// reads the next.
    async fn send(
        &mut self,
        part: &Part,
        to_note: Option<Settling>,
        behind: Option<Place>,
        limit: usize,
    ) -> (Result<Vec<Applied>, CentralError>, Result<(), StoreError>, Result<Pending, StoreError>) {
        let [number, _] = self.next;
        self.sent.push(number);
        let batch = Batch { after: self.batch, number, sessions: &part.sessions, records: &part.records };
        let noting = to_note.as_ref().map(|settling| settling.acked_batch);
        let (answer, noted, ahead) = tokio::join!(
            self.central.push(batch),
            note(&self.local, to_note, (self.outside.clock)()),
            read_ahead(&self.local, behind, limit),
        );
        if let (Ok(()), Some(acked)) = (&noted, noting) {
            self.forget_sent(acked);
        }
        (answer, noted, ahead)
    }

    /// A batch that central rejected is halved until the one row that it will not take stands alone.
    async fn push_in_parts(&mut self, whole: Part, error: String) -> Result<(), Trouble> {
        // Sessions that turned out not to be in central, so that their records wait.
        let mut absent = HashSet::new();
        let mut parts = self.halve(whole, error, &mut absent).await?;
        while let Some(mut part) = parts.pop() {
            self.tick();
            part.records.retain(|record| !absent.contains(&record.instance_id));
            match self.send(&part, None, None, 0).await.0 {
                Ok(applied) => {
                    let settling = self.applied(part, applied);
                    absent.extend(
                        settling.sessions.iter().filter(|s| s.how.leaves_none()).map(|s| s.instance_id.clone()),
                    );
                    self.settle(settling).await?;
                }
                Err(CentralError::Reject(error)) => parts.extend(self.halve(part, error, &mut absent).await?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The halves of what central rejected, the last to go first; one row alone is parked.
    async fn halve(
        &mut self,
        part: Part,
        error: String,
        absent: &mut HashSet<InstanceId>,
    ) -> Result<Vec<Part>, Trouble> {
        match part.len() {
            0 => Err(CentralError::Refused(error).into()),
            1 => {
                tracing::error!(what = part.name(), error, "central will not take this; parked");
                absent.extend(part.sessions.iter().map(|session| session.instance_id.clone()));
                let settling = self.dated(part.rejected(error));
                self.settle(settling).await?;
                Ok(Vec::new())
            }
            _ => {
                let (first, rest) = part.halves();
                Ok(vec![rest, first])
            }
        }
    }

    /// A number that no other batch has had, be it of a time that a restore has undone.
    fn draw_batch(&self, after: i64) -> i64 {
        after + 1 + i64::from((self.outside.random)() as u32)
    }

    /// Central has applied the next batch. What the store is to make of it.
    fn applied(&mut self, part: Part, applied: Vec<Applied>) -> Settling {
        let [number, next] = self.next;
        self.batch = number;
        self.next = [next, self.draw_batch(next)];
        self.dated(part.settling(applied, |applied| self.settlement(applied)))
    }

    fn dated(&self, settling: Settling) -> Settling {
        Settling { acked_batch: self.batch, next_batches: self.next, ..settling }
    }

    async fn settle(&mut self, settling: Settling) -> Result<(), StoreError> {
        let acked = settling.acked_batch;
        note(&self.local, Some(settling), (self.outside.clock)()).await?;
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

    fn synced(&self, took: Duration) {
        let now = (self.outside.clock)();
        self.link.send_modify(|link| {
            link.last_sync_at = Some(now);
            link.round_trip = Some(took);
        });
    }

    fn report(&mut self, step: Step, outcome: Result<(), Trouble>, engine: &mut Engine) {
        let pushes = matches!(step, Step::Push { .. });
        match outcome {
            Ok(()) if self.failing == Some(step) || pushes && self.failing.is_none() => {
                self.failing = None;
                self.connected();
            }
            Ok(()) => {}
            Err(Trouble::Central(error)) => {
                if !pushes && step != Step::Hello {
                    self.failing = Some(step);
                }
                engine.failed(failure(&error), self.tick(), (self.outside.random)());
                self.lost(&error);
            }
            Err(Trouble::Store(error)) => {
                // What central applied and the store could not note is pushed again; central's rules make that harmless.
                tracing::error!(%error, "sync cannot use the store; trying again in a second");
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
            CentralError::Retry(_) => LinkState::Unreachable,
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
async fn note(local: &impl Local, settling: Option<Settling>, at: Timestamp) -> Result<(), StoreError> {
    if let Some(settling) = settling {
        tell_renamed(&local.settle(settling, at).await?);
    }
    Ok(())
}

/// Reads what waits behind a place, if there is one.
async fn read_ahead(local: &impl Local, place: Option<Place>, limit: usize) -> Result<Pending, StoreError> {
    match place {
        Some(place) => local.pending_behind(place, limit).await,
        None => Ok(Pending::default()),
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
        CentralError::Retry(_) => Failure::Retry,
        CentralError::OutOfStep => Failure::OutOfStep,
        CentralError::Reject(_)
        | CentralError::Refused(_)
        | CentralError::SchemaMissing(_)
        | CentralError::Conflict(_) => Failure::NeedsAPerson,
    }
}
