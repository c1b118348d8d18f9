//! Runs sync: asks the scheduler what is due, has the driver perform it, and waits for the next event.
//!
//! While nothing is due, the worker waits for the first of: the scheduler's timer, a commit of the store, a notification
//! of central, a request to sync now, a change of the identity or of the settings, and shutdown. Other settings of
//! central end the loop, which then starts with a new connection. On shutdown what is pending is pushed, within
//! `FINAL_PUSH_LIMIT`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::central::Central;
use super::driver::{Driver, DriverContext};
use super::leases::LeaseRequests;
use super::on_demand::QuestionQueue;
use super::replica::LocalReplica;
use super::scheduler::{BATCH_ROWS, Scheduler, SyncAction, SyncIntervals, Unsynced};
use super::watchdog::Watchdog;
use crate::clock::Clock;
use crate::domain::{LinkState, LinkStatus, MirrorScope};
use crate::shutdown::Shutdown;
use crate::store::{Identity, PinnedIdentity, Store};

/// The limit of the last push before the end.
const FINAL_PUSH_LIMIT: Duration = Duration::from_secs(3);

/// The longest wait of the loop; after it the watchdog is given a new deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The settings of sync. A change takes effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSettings<S> {
    /// How to reach central; `None` if there is none.
    pub central: Option<S>,
    /// How often actions are due.
    pub intervals: SyncIntervals,
    /// A session without a heartbeat for this long is stale.
    pub stale_after: Duration,
    /// The longest that one call of central may take, with all its statements.
    pub call_limit: Duration,
    /// Which sessions of other hosts are read ahead.
    pub scope: MirrorScope,
}

/// What the worker needs to run.
#[derive(Clone)]
pub struct Worker<S, F> {
    /// The store that is synced.
    pub store: Store,
    /// This host's identity.
    pub identity: Arc<PinnedIdentity>,
    /// The settings, as the last reload left them.
    pub settings: watch::Receiver<SyncSettings<S>>,
    /// Makes a central from the settings, not yet connected.
    pub make_central: F,
    /// Where the state of the link is reported.
    pub link: watch::Sender<LinkStatus>,
    /// Notified to sync now: an operator asked for it, or the network changed.
    pub nudge: Arc<Notify>,
    /// What other parts ask of central.
    pub leases: LeaseRequests,
    /// Questions about sessions that are not read ahead.
    pub questions: QuestionQueue,
    /// Where deadlines are set.
    pub watchdog: Watchdog,
    /// The time.
    pub clock: Clock,
    /// Random numbers, for jitter and the ledger.
    pub random: fn() -> u64,
    /// Ends the worker.
    pub shutdown: Shutdown,
    /// The version of sessiond.
    pub version: &'static str,
    /// A bug ended the worker before: the reported error stands until a handshake succeeds.
    pub is_restarted: bool,
}

impl<S: Clone, F> Worker<S, F> {
    /// Runs until shutdown; then pushes what it can within a limit.
    pub async fn run<C: Central>(mut self)
    where
        F: Fn(&S) -> C,
    {
        while !self.shutdown.is_requested() {
            let settings = self.settings.borrow_and_update().clone();
            match &settings.central {
                None => self.wait_for_settings().await,
                Some(central) => {
                    let central = (self.make_central)(central);
                    self.serve(central, &settings).await;
                }
            }
        }
    }

    async fn wait_for_settings(&mut self) {
        self.link.send_replace(LinkStatus::new(LinkState::Off, (self.clock)()));
        self.watchdog.suspend();
        tokio::select! {
            _ = self.settings.changed() => {}
            () = self.shutdown.requested() => {}
        }
    }

    /// Syncs with one central until the settings change, or shutdown.
    async fn serve<C: Central>(&mut self, central: C, settings: &SyncSettings<S>) {
        if !std::mem::take(&mut self.is_restarted) {
            self.link.send_replace(LinkStatus::new(LinkState::Connecting, (self.clock)()));
        }
        let started = Instant::now();
        let mut driver = self.driver(central, started, settings.call_limit).with_scope(settings.scope.clone());
        let mut scheduler = Scheduler::new(settings.intervals, BATCH_ROWS);
        match self.run_actions(settings, started, &mut driver, &mut scheduler).await {
            LoopEnd::SettingsChanged => {}
            LoopEnd::Shutdown => final_push(driver, scheduler).await,
        }
    }

    async fn run_actions<C: Central>(
        &self,
        settings: &SyncSettings<S>,
        started: Instant,
        driver: &mut Driver<LocalReplica, C>,
        scheduler: &mut Scheduler,
    ) -> LoopEnd {
        let mut events = self.events();
        // The store's count of urgent changes before the last successful push.
        let mut pushed = None;
        loop {
            let now = driver.tick();
            events.commits.borrow_and_update();
            let urgent = Some(self.store.urgent_changes());
            let unsynced = match driver.has_pending().await {
                false => Unsynced::Nothing,
                true if pushed == urgent => Unsynced::HeartbeatsOnly,
                true => Unsynced::Urgent,
            };
            let action = scheduler.next_action(now, unsynced);
            if let SyncAction::Wait { until } = action {
                self.watchdog.expect_within(LONGEST_WAIT);
                let until = started + until.min(now + LONGEST_WAIT);
                match events.wait(until, settings.intervals, driver, scheduler).await {
                    Some(end) => return end,
                    None => continue,
                }
            }
            self.watchdog.expect_within(settings.call_limit);
            tokio::select! {
                () = driver.perform(action, settings.intervals, settings.stale_after, scheduler) => {}
                () = events.shutdown.requested() => return LoopEnd::Shutdown,
            }
            if matches!(action, SyncAction::Push { .. }) && scheduler.is_up() {
                pushed = urgent;
            }
        }
    }

    fn events(&self) -> Events<S> {
        Events {
            shutdown: self.shutdown.clone(),
            settings: self.settings.clone(),
            commits: self.store.commits(),
            identities: self.identity.watch(),
            nudge: self.nudge.clone(),
            leases: self.leases.clone(),
            questions: self.questions.clone(),
        }
    }

    fn driver<C: Central>(&self, central: C, started: Instant, call_limit: Duration) -> Driver<LocalReplica, C> {
        let replica = LocalReplica { store: self.store.clone(), identity: self.identity.clone() };
        let watchdog = self.watchdog.clone();
        // The driver reads the ticks before and after each call of central, which shows that it makes progress.
        let ticks = move || {
            watchdog.expect_within(call_limit);
            started.elapsed()
        };
        let context = DriverContext {
            clock: self.clock.clone(),
            ticks: Box::new(ticks),
            random: Box::new(self.random),
            version: self.version,
        };
        Driver::new(replica, central, context, self.link.clone())
    }
}

/// Why the loop with one central ended.
enum LoopEnd {
    SettingsChanged,
    Shutdown,
}

/// What ends a wait of the loop, besides its timer and central's notifications.
struct Events<S> {
    shutdown: Shutdown,
    settings: watch::Receiver<SyncSettings<S>>,
    commits: watch::Receiver<u64>,
    identities: watch::Receiver<Identity>,
    nudge: Arc<Notify>,
    leases: LeaseRequests,
    questions: QuestionQueue,
}

impl<S> Events<S> {
    /// Waits for the first event, and reports it to the scheduler. Returns why the loop has to end, if it has to.
    async fn wait<C: Central>(
        &mut self,
        until: Instant,
        intervals: SyncIntervals,
        driver: &mut Driver<LocalReplica, C>,
        scheduler: &mut Scheduler,
    ) -> Option<LoopEnd> {
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            Ok(()) = self.commits.changed(), if scheduler.is_up() => {}
            notification = driver.next_notification(), if scheduler.is_up() => {
                driver.handle_notification(notification, scheduler);
            }
            request = self.leases.next(), if scheduler.is_up() => driver.take_leases(request).await,
            question = self.questions.next(), if scheduler.is_up() => driver.answer(question).await,
            () = self.nudge.notified() => {
                driver.retry_held();
                scheduler.run_now(driver.tick());
            }
            _ = self.identities.changed() => scheduler.reconnect(intervals, driver.tick()),
            _ = self.settings.changed() => return Some(LoopEnd::SettingsChanged),
            () = self.shutdown.requested() => return Some(LoopEnd::Shutdown),
        }
        None
    }
}

/// The last push before the end, if the link is up.
async fn final_push<C: Central>(mut driver: Driver<LocalReplica, C>, mut scheduler: Scheduler) {
    if !scheduler.is_up() {
        return;
    }
    match tokio::time::timeout(FINAL_PUSH_LIMIT, driver.final_push(&mut scheduler)).await {
        Ok(true) => tracing::info!("central has everything"),
        _ => tracing::info!("unsynced changes are kept for the next start"),
    }
}
