//! Runs sync: waits for what the engine waits for, and has the exchange carry out what it decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::central::Central;
use super::engine::{BATCHES, Engine, Pace, Step, Waiting};
use super::exchange::{Exchange, Outside};
use super::progress::Progress;
use super::replica::LocalReplica;
use crate::clock::Clock;
use crate::domain::{LinkState, LinkStatus};
use crate::shutdown::Shutdown;
use crate::store::{PinnedIdentity, Store};

/// How long the last push before the end may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long it may rest without showing that it still moves.
const REST: Duration = Duration::from_secs(30);

/// What sync is told from outside; each change takes effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSettings<S> {
    /// How to reach central; `None`: there is none.
    pub central: Option<S>,
    pub pace: Pace,
    pub stale_after: Duration,
    /// The longest that one question to central may take, with all its statements.
    pub patience: Duration,
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
    /// Where it shows that it moves on.
    pub progress: Progress,
    pub clock: Clock,
    pub random: fn() -> u64,
    pub shutdown: Shutdown,
    pub version: &'static str,
    /// It ended by a bug: what people were told of that stands until it works again.
    pub begins_anew: bool,
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
        self.progress.nothing_to_do();
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
        let started = Instant::now();
        let mut exchange = self.exchange(central, started, settings.patience);
        let mut engine = Engine::new(settings.pace, BATCHES);
        // How much news there had been before the push that went through last.
        let mut told = None;
        loop {
            let now = exchange.tick();
            commits.borrow_and_update();
            let news = Some(self.store.news());
            let waiting = match exchange.has_pending().await {
                false => Waiting::Nothing,
                true if told == news => Waiting::Quiet,
                true => Waiting::News,
            };
            let step = engine.next(now, waiting);
            let Step::Wait { until } = step else {
                self.progress.at_work(settings.patience);
                tokio::select! {
                    () = exchange.perform(step, settings.pace, settings.stale_after, &mut engine) => {}
                    () = shutdown.requested() => return farewell(exchange, engine).await,
                }
                if matches!(step, Step::Push { .. }) && engine.is_up() {
                    told = news;
                }
                continue;
            };
            let until = until.min(now + REST);
            self.progress.at_rest(REST);
            tokio::select! {
                () = tokio::time::sleep_until(started + until) => {}
                Ok(()) = commits.changed(), if engine.is_up() => {}
                announced = exchange.announced(), if engine.is_up() => exchange.follow(announced, &mut engine),
                () = self.nudge.notified() => {
                    exchange.hurry();
                    engine.hurry(exchange.tick());
                }
                _ = identities.changed() => engine.reconnect(settings.pace, exchange.tick()),
                _ = changes.changed() => return,
                () = shutdown.requested() => return farewell(exchange, engine).await,
            }
        }
    }

    fn exchange<C: Central>(&self, central: C, started: Instant, patience: Duration) -> Exchange<LocalReplica, C> {
        let replica = LocalReplica { store: self.store.clone(), identity: self.identity.clone() };
        let progress = self.progress.clone();
        let ticks = move || {
            progress.at_work(patience);
            started.elapsed()
        };
        let outside = Outside {
            clock: self.clock.clone(),
            // It looks at the clock before and after whatever it asks of central.
            ticks: Box::new(ticks),
            random: Box::new(self.random),
            version: self.version,
        };
        Exchange::new(replica, central, outside, self.link.clone())
    }
}

/// The last push before the end, if there is a link to push over.
async fn farewell<C: Central>(mut exchange: Exchange<LocalReplica, C>, mut engine: Engine) {
    if !engine.is_up() {
        return;
    }
    match tokio::time::timeout(FAREWELL, exchange.farewell(&mut engine)).await {
        Ok(true) => tracing::info!("central has everything"),
        _ => tracing::info!("what central lacks is kept for the next start"),
    }
}
