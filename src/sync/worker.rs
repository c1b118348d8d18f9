//! Carries out what the engine decides: reads the store, speaks to central, reports both ways.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::central::{Applied, Batch, Central, CentralError, Host};
use super::engine::{Engine, Failure, Pace, Step, Tick};
use crate::clock::Clock;
use crate::domain::{LinkState, LinkStatus, Session};
use crate::shutdown::Shutdown;
use crate::store::{Identity, PinnedIdentity, Record, Settled, Settlement, Store, StoreError};

/// How long the last push before the end may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long to leave the store alone after it failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What sync is told from outside; each change takes effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSettings<S> {
    /// How to reach central; `None`: there is none.
    pub central: Option<S>,
    pub pace: Pace,
    pub stale_after: Duration,
}

/// What the worker works with.
#[derive(Clone)]
pub struct Worker<S, F> {
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub settings: watch::Receiver<SyncSettings<S>>,
    /// Makes a central, not yet connected, from the settings.
    pub central_of: F,
    pub link: watch::Sender<LinkStatus>,
    /// Somebody asks to push now, or the world changed.
    pub nudge: Arc<Notify>,
    pub clock: Clock,
    pub random: fn() -> u64,
    pub shutdown: Shutdown,
    pub version: &'static str,
    /// It ended by a bug: what people were told of that stands until it works again.
    pub begins_anew: bool,
}

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

impl<S: Clone, F> Worker<S, F> {
    /// Works until told to shut down; then pushes what it can within a limit.
    pub async fn run<C: Central>(mut self)
    where
        F: Fn(&S) -> C,
    {
        while !self.shutdown.is_requested() {
            let settings = self.settings.borrow_and_update().clone();
            match &settings.central {
                None => self.wait_for_a_central().await,
                Some(central) => {
                    let central = (self.central_of)(central);
                    self.serve(central, &settings).await;
                }
            }
        }
    }

    async fn wait_for_a_central(&mut self) {
        self.link.send_replace(LinkStatus::new(LinkState::Off, (self.clock)()));
        tokio::select! {
            _ = self.settings.changed() => {}
            () = self.shutdown.requested() => {}
        }
    }

    /// Works with one central until the settings name another, or the end.
    async fn serve<C: Central>(&mut self, central: C, settings: &SyncSettings<S>) {
        if !std::mem::take(&mut self.begins_anew) {
            self.link.send_replace(LinkStatus::new(LinkState::Connecting, (self.clock)()));
        }
        let mut shutdown = self.shutdown.clone();
        let mut changes = self.settings.clone();
        let mut commits = self.store.commits();
        let mut identities = self.identity.watch();
        let mut session =
            Exchange { worker: self, central, batch: 0, host_id: Uuid::nil(), failing: None, started: Instant::now() };
        let mut engine = Engine::new(settings.pace);
        loop {
            let now = session.tick();
            commits.borrow_and_update();
            let pending = session.worker.store.backlog().await.is_ok_and(|backlog| backlog.sessions > 0);
            let step = engine.next(now, pending);
            let Step::Wait { until } = step else {
                let outcome = tokio::select! {
                    outcome = session.carry_out(step, settings, &mut engine) => outcome,
                    () = shutdown.requested() => return session.farewell(&engine).await,
                };
                session.report(step, outcome, &mut engine).await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(session.started + until) => {}
                _ = commits.changed(), if engine.is_up() => {}
                () = session.worker.nudge.notified() => engine.hurry(session.tick()),
                _ = identities.changed() => engine.reconnect(settings.pace, session.tick()),
                _ = changes.changed() => return,
                () = shutdown.requested() => return session.farewell(&engine).await,
            }
        }
    }
}

/// One central, and where its ledger stands for this host.
struct Exchange<'a, S, C, F> {
    worker: &'a Worker<S, F>,
    central: C,
    /// The newest batch in central's ledger.
    batch: i64,
    /// As which host this one was welcomed.
    host_id: Uuid,
    /// The step other than a push that failed last: until it works, people are told that it does not.
    failing: Option<Step>,
    started: Instant,
}

impl<S, C: Central, F> Exchange<'_, S, C, F> {
    fn tick(&self) -> Tick {
        self.started.elapsed()
    }

    async fn carry_out(&mut self, step: Step, settings: &SyncSettings<S>, engine: &mut Engine) -> Result<(), Trouble> {
        match step {
            Step::Hello => {
                self.hello().await?;
                engine.welcomed(self.tick());
            }
            Step::Push { limit } => {
                let rows = self.push(limit).await?;
                engine.pushed(rows, self.tick());
            }
            Step::Machines => {
                let machines = self.central.machines(settings.stale_after).await?;
                self.worker.store.replace_machines(machines, (self.worker.clock)()).await?;
                engine.pulled(self.tick());
            }
            Step::Sweep => {
                let turned = self.central.sweep(settings.stale_after, settings.pace.sweep_interval).await?;
                if turned > 0 {
                    tracing::info!(sessions = turned, "turned the sessions of vanished hosts stale in central");
                }
                engine.swept(self.tick());
            }
            Step::Wait { .. } => {}
        }
        Ok(())
    }

    /// Announces this host. A ledger behind what this store knows to be applied means that central
    /// was restored from a backup: then everything is offered again.
    async fn hello(&mut self) -> Result<(), Trouble> {
        let identity = self.worker.identity.current();
        let acked = self.worker.store.acked_batch().await?;
        let welcome = self.central.hello(&host(&identity, self.worker.version)).await?;
        if welcome.batch < acked {
            let sessions = self.worker.store.forget_synced(welcome.batch, (self.worker.clock)()).await?;
            tracing::warn!(
                sessions,
                ledger = welcome.batch,
                known = acked,
                "central has lost what it had (restored from a backup?); everything kept here is pushed again"
            );
        }
        self.batch = welcome.batch;
        self.host_id = identity.host_id;
        if identity.replace {
            self.worker.identity.replaced();
        }
        Ok(())
    }

    /// Pushes what is pending, longest waiting first. Returns how many rows that were.
    async fn push(&mut self, limit: usize) -> Result<usize, Trouble> {
        let pending = self.worker.store.pending(limit).await?;
        // Looked at after the sessions were read: a rename changes the identity before it changes them,
        // and what bears the new name must not travel under the old id.
        if self.worker.identity.current().host_id != self.host_id {
            return Err(CentralError::OutOfStep.into());
        }
        let rows = pending.len();
        let began = Instant::now();
        // A batch that central rejects is halved until the one row that it will not take stands alone.
        let mut parts = vec![pending];
        while let Some(mut part) = parts.pop() {
            let sessions: Vec<Session> = part.iter().map(|record| record.session.clone()).collect();
            match self.central.push(Batch { number: self.batch + 1, sessions: &sessions }).await {
                Ok(applied) => {
                    self.batch += 1;
                    self.settle(&part, applied.into_iter().map(|a| self.settlement(a)).collect()).await?;
                }
                Err(CentralError::Reject(error)) if part.len() == 1 => {
                    tracing::error!(session = %sessions[0].instance_id, error, "central will not take this session; parked");
                    self.settle(&part, vec![Settlement::Rejected { error }]).await?;
                }
                Err(CentralError::Reject(error)) if part.is_empty() => return Err(CentralError::Refused(error).into()),
                Err(CentralError::Reject(_)) => {
                    let rest = part.split_off(part.len() / 2);
                    parts.push(rest);
                    parts.push(part);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.synced(began.elapsed());
        Ok(rows)
    }

    async fn settle(&self, part: &[Record], how: Vec<Settlement>) -> Result<(), StoreError> {
        let settled = part
            .iter()
            .zip(how)
            .map(|(record, how)| Settled {
                instance_id: record.session.instance_id.clone(),
                version: record.version,
                how,
            })
            .collect();
        let renamed = self.worker.store.settle(settled, self.batch, (self.worker.clock)()).await?;
        for session in renamed {
            tracing::warn!(
                from = %session.from,
                to = %session.to,
                "another session holds this id in central; this one got a new id, the old one goes on resolving here"
            );
        }
        Ok(())
    }

    fn settlement(&self, applied: Applied) -> Settlement {
        match applied {
            Applied::Taken => Settlement::Taken,
            Applied::ClosedElsewhere { closed_at } => Settlement::ClosedElsewhere { closed_at },
            Applied::Collided => Settlement::Collided { draws: std::array::from_fn(|_| (self.worker.random)()) },
            Applied::Foreign { machine } => Settlement::Rejected {
                error: format!(
                    "it belongs to machine {machine}; this state folder seems to be a copy of that machine's"
                ),
            },
        }
    }

    fn synced(&self, took: Duration) {
        let now = (self.worker.clock)();
        self.worker.link.send_modify(|link| {
            link.last_sync_at = Some(now);
            link.round_trip = Some(took);
        });
    }

    /// Tells the engine and the people how a step ended.
    async fn report(&mut self, step: Step, outcome: Result<(), Trouble>, engine: &mut Engine) {
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
                engine.failed(failure(&error), self.tick(), (self.worker.random)());
                self.lost(&error);
            }
            Err(Trouble::Store(error)) => {
                // What central applied and the store could not note is pushed again; central's rules make that harmless.
                tracing::error!(%error, "sync cannot use the store; trying again in a second");
                tokio::time::sleep(STORE_PAUSE).await;
                engine.failed(Failure::OutOfStep, self.tick(), (self.worker.random)());
            }
        }
    }

    fn connected(&self) {
        let now = (self.worker.clock)();
        self.worker.link.send_if_modified(|link| {
            let news = link.state != LinkState::Connected;
            if news {
                tracing::info!("connected to central");
                (link.state, link.since) = (LinkState::Connected, now);
                (link.last_error, link.conflict) = (None, None);
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
        let now = (self.worker.clock)();
        self.worker.link.send_modify(|link| {
            if link.state != state {
                tracing::warn!(state = state.as_str(), "no link to central, changes wait in the store: {error}");
                link.state = state;
                link.since = now;
            }
            link.last_error = Some(error.to_string());
            link.round_trip = None;
            link.conflict = match error {
                CentralError::Conflict(conflict) => Some(conflict.clone()),
                _ => None,
            };
        });
    }

    /// The last push before the end: what is left waits in the store for the next start.
    async fn farewell(mut self, engine: &Engine) {
        if !engine.is_up() {
            return;
        }
        let last = async {
            // A step may have been cut off in the middle: only a new greeting knows where the ledger stands.
            self.hello().await?;
            while self.push(1000).await? > 0 {}
            Ok::<_, Trouble>(())
        };
        match tokio::time::timeout(FAREWELL, last).await {
            Ok(Ok(())) => tracing::info!("central has everything"),
            _ => tracing::info!("what central lacks is kept for the next start"),
        }
    }
}

fn host(identity: &Identity, version: &'static str) -> Host {
    Host {
        host_id: identity.host_id,
        machine: identity.name.clone(),
        claim: identity.claims.last().copied().unwrap_or_default(),
        own_claims: identity.claims.clone(),
        former_host_ids: identity.former_host_ids.clone(),
        replace: identity.replace,
        version,
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
