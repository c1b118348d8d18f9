//! Performs the scheduler's actions over one link to one central, and reports their outcomes.
//!
//! The driver owns what is known of the link: central's ledger, its tables, the position of the pull, and the rows
//! that are held back. `handshake`, `push`, `division`, `hosts`, `pull` and `full_reading` each implement one action for it.
//!
//! An action fails by the link or by the local store. If the link fails, the connection is given up and the
//! next action is a handshake, which finds out what central has applied. If the store fails, what central
//! applied and the store could not record is pushed again; central's merge rules make that harmless.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::central::{Central, CentralError, Notification, SweepResult};
use super::held_rows::HeldRows;
use super::leases::LeaseRequest;
use super::ledger::LedgerPosition;
use super::link_reporter::LinkReporter;
use super::pull_state::PullState;
use super::replica::Replica;
use super::scheduler::{
    FailureKind, HEARTBEAT_PUSHES, Remaining, Scheduler, SyncAction, SyncIntervals, Tick, UsableTables,
};
use crate::clock::Clock;
use crate::domain::mirror::HistoryReading;
use crate::domain::refresh::RefreshRule;
use crate::domain::{HistoryTables, LinkStatus, MirrorScope, Timestamp};
use crate::requests::Request;
use crate::store::{IdSource, OpContext, Skip, StoreError};

/// The driver's sources of time and randomness. A run with the same ones can be repeated.
pub struct DriverContext {
    pub(crate) clock: Clock,
    /// Reads a monotonic clock.
    pub ticks: Box<dyn Fn() -> Tick + Send + Sync>,
    /// Returns numbers that are uniform over all of `u64`.
    pub random: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The version of sessiond.
    pub version: &'static str,
}

/// When a page of everything that found no room in the store is read again.
const FULL_STORE_RETRY: Duration = Duration::from_secs(15);

/// Why an action failed.
pub(super) enum SyncError {
    Central(CentralError),
    Store(StoreError),
}

impl From<CentralError> for SyncError {
    fn from(error: CentralError) -> Self {
        Self::Central(error)
    }
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One central, and what is known of it.
pub struct Driver<R, C> {
    pub(super) replica: R,
    pub(super) central: C,
    pub(super) context: DriverContext,
    pub(super) reporter: LinkReporter,
    pub(super) ledger: LedgerPosition,
    /// The host id under which the handshake was accepted.
    pub(super) host_id: Uuid,
    /// Central leaves the mark of a row where only its heartbeat changes.
    pub(super) marks_changes_only: bool,
    /// The action other than a push that failed last: until it succeeds, the link is reported as down.
    failing: Option<SyncAction>,
    pub(super) held: HeldRows,
    /// Central's tables for records, as of the last check.
    pub(super) tables: HistoryTables,
    /// The parked rows that were logged.
    pub(super) logged_parked: HashSet<String>,
    pub(super) pulling: PullState,
    /// Which sessions of other hosts are read ahead.
    pub(super) scope: MirrorScope,
    /// Whether their history is.
    pub(super) history: HistoryReading,
    /// The setting of this host, as of the last action.
    pub(super) stale_after: Duration,
}

impl<R: Replica, C: Central> Driver<R, C> {
    /// A driver that is not connected. `link`: where it reports the state of the link.
    pub fn new(replica: R, central: C, context: DriverContext, link: watch::Sender<LinkStatus>) -> Self {
        let reporter = LinkReporter::new(link, context.clock.clone());
        Self {
            replica,
            central,
            context,
            reporter,
            ledger: LedgerPosition::default(),
            host_id: Uuid::nil(),
            marks_changes_only: false,
            failing: None,
            held: HeldRows::default(),
            tables: HistoryTables::ALL,
            logged_parked: HashSet::new(),
            pulling: PullState::default(),
            scope: MirrorScope::All,
            history: HistoryReading::Ahead,
            stale_after: Duration::ZERO,
        }
    }

    /// The same, with another scope than everything.
    pub fn with_scope(self, scope: MirrorScope) -> Self {
        Self { scope, ..self }
    }

    /// The current reading of the monotonic clock.
    pub fn tick(&self) -> Tick {
        (self.context.ticks)()
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.context.clock)()
    }

    pub(super) fn random(&self) -> u64 {
        (self.context.random)()
    }

    /// For an operation of the daemon on the store.
    pub(super) fn op_context(&self, now: Timestamp) -> OpContext {
        OpContext { ids: IdSource::Seeded(self.random()), ..OpContext::of_daemon(now, self.stale_after) }
    }

    /// Whether anything can be pushed now.
    pub async fn has_pending(&self) -> bool {
        self.replica.has_pending(self.skip()).await.unwrap_or(false)
    }

    /// What stays out of a push now.
    pub(super) fn skip(&self) -> Skip {
        self.held.skip(self.tick())
    }

    /// Makes the next push include what central did not accept before.
    pub fn retry_held(&mut self) {
        self.held.retry_now();
    }

    /// Performs one action, and reports its outcome to the scheduler and to `status`.
    pub async fn perform(
        &mut self,
        action: SyncAction,
        intervals: SyncIntervals,
        stale_after: Duration,
        scheduler: &mut Scheduler,
    ) {
        self.stale_after = stale_after;
        let outcome = self.attempt(action, intervals, scheduler).await;
        self.report(action, outcome, scheduler);
    }

    async fn attempt(
        &mut self,
        action: SyncAction,
        intervals: SyncIntervals,
        scheduler: &mut Scheduler,
    ) -> Result<(), SyncError> {
        match action {
            SyncAction::Handshake => {
                self.handshake().await?;
                scheduler.handshake_accepted(self.tick(), self.random());
                scheduler.tables_checked(self.usable_tables(), self.tick());
            }
            SyncAction::CheckTables => {
                let freed = self.check_tables().await?;
                scheduler.tables_checked(self.usable_tables(), self.tick());
                if freed {
                    scheduler.table_freed(self.tick());
                }
            }
            SyncAction::Refresh => {
                let marked = self.refresh(intervals).await?;
                scheduler.refreshed(marked > 0, self.tick());
            }
            SyncAction::Push { limit } => {
                self.push(limit, scheduler).await?;
            }
            SyncAction::ReadHosts => self.read_hosts(intervals, scheduler).await?,
            SyncAction::Pull => {
                let more = self.pull(scheduler).await?;
                self.report_pull(Remaining::of(more), scheduler);
            }
            SyncAction::ReadAll => self.read_all(scheduler).await?,
            SyncAction::Listen => {
                let is_listening = self.central.listen().await;
                self.reporter.set_listening(is_listening);
                if is_listening {
                    scheduler.listen_succeeded(self.tick());
                } else {
                    scheduler.listen_failed(self.tick());
                }
            }
            SyncAction::Sweep => self.sweep(intervals, scheduler).await?,
            SyncAction::Wait { .. } => {}
        }
        Ok(())
    }

    /// Makes those live sessions pending whose heartbeats in central are too old. Returns how many.
    async fn refresh(&self, intervals: SyncIntervals) -> Result<usize, SyncError> {
        let rule = RefreshRule {
            // Other hosts read the heartbeats themselves from a central that marks each as a change.
            refresh_after: if self.marks_changes_only { intervals.refresh_after } else { Duration::ZERO },
            step: intervals.heartbeat_interval / HEARTBEAT_PUSHES,
            rewrites: false,
        };
        Ok(self.replica.refresh(rule, self.now()).await?)
    }

    fn report_pull(&self, remaining: Remaining, scheduler: &mut Scheduler) {
        scheduler.pulled(remaining, (self.pulling.began, self.tick()), self.pulling.answers.slowness());
    }

    fn usable_tables(&self) -> UsableTables {
        if self.tables.is_any_blocked() { UsableTables::Some } else { UsableTables::All }
    }

    /// Returns the next notification of central. Never returns if central sends none.
    pub async fn next_notification(&mut self) -> Notification {
        self.central.next_notification().await
    }

    /// Takes leases for another part of the daemon. A failure is not answered; the next action finds out what it means.
    pub(super) async fn take_leases(&mut self, request: Request<LeaseRequest, Vec<String>>) {
        match self.central.take_leases(&request.what.names, request.what.length).await {
            Ok(taken) => drop(request.reply.send(taken)),
            Err(error) => tracing::debug!(%error, "leases could not be taken"),
        }
    }

    /// Schedules what a notification asks for.
    pub fn handle_notification(&mut self, notification: Notification, scheduler: &mut Scheduler) {
        let (now, fleet) = (self.tick(), scheduler.fleet());
        match notification {
            Notification::SessionsChanged => scheduler.change_notified(now, self.random()),
            Notification::HostsJoined(hosts) => {
                let from = now + fleet.notified_wait(self.random());
                scheduler.hosts_joined(self.pulling.remember_joined(hosts, from, fleet.window()));
            }
            Notification::ConnectionLost => {
                tracing::info!("the connection that listens for changes is lost; another one is opened");
                self.reporter.set_listening(false);
                scheduler.listener_lost(now, self.random());
            }
        }
    }

    /// Turns silent sessions in central stale. A sweep that central rejects is reported and retried later; only a lost
    /// connection takes the link down.
    async fn sweep(&mut self, intervals: SyncIntervals, scheduler: &mut Scheduler) -> Result<(), SyncError> {
        let (swept, error) = match self.central.sweep(self.stale_after, intervals.sweep_interval).await {
            Ok(swept) => (swept, None),
            Err(CentralError::Reject(why)) => {
                (SweepResult::default(), Some(format!("cannot turn silent sessions stale: {}", why.message)))
            }
            Err(error) => return Err(error.into()),
        };
        if swept.sessions > 0 {
            tracing::info!(sessions = swept.sessions, "turned the sessions of vanished hosts stale in central");
        }
        scheduler.swept(Remaining::of(swept.more), self.tick());
        if self.reporter.set_sweep_error(error) {
            self.report_answer();
        }
        Ok(())
    }

    /// Reports that central answered, unless an action is failing at present.
    pub(super) fn report_answer(&self) {
        if self.failing.is_none() {
            self.reporter.answered(&self.held, &self.tables);
        }
    }

    fn report(&mut self, action: SyncAction, outcome: Result<(), SyncError>, scheduler: &mut Scheduler) {
        let is_push = matches!(action, SyncAction::Push { .. });
        let imports = matches!(action, SyncAction::Pull | SyncAction::ReadAll);
        if outcome.is_ok() && imports {
            self.reporter.store_works();
        }
        match outcome {
            Ok(()) if self.failing == Some(action) || is_push && self.failing.is_none() => {
                self.failing = None;
                self.report_answer();
            }
            Ok(()) => {}
            Err(SyncError::Central(error)) => {
                // A failed sweep holds nothing back: the next push or handshake that succeeds shows the link as up.
                if !is_push && !matches!(action, SyncAction::Handshake | SyncAction::Sweep) {
                    self.failing = Some(action);
                }
                scheduler.failed(failure_kind(&error), self.tick(), self.random());
                self.reporter.lost(&error);
            }
            // The mirror waits until there is room; the link stays up.
            Err(SyncError::Store(error @ StoreError::Full(_))) if imports => {
                self.reporter.store_failed(&error);
                match action {
                    SyncAction::ReadAll => scheduler.page_read(Some(self.tick() + FULL_STORE_RETRY)),
                    _ => self.report_pull(Remaining::Nothing, scheduler),
                }
            }
            Err(SyncError::Store(error)) => {
                self.reporter.store_failed(&error);
                scheduler.failed(FailureKind::LocalStore, self.tick(), self.random());
            }
        }
    }

    /// Pushes everything before the daemon stops. Returns whether that succeeded; if not, the rest stays in the store
    /// for the next start.
    pub async fn final_push(&mut self, scheduler: &mut Scheduler) -> bool {
        let pushing = async {
            // An action may have been interrupted: only a new handshake finds out where the ledger stands.
            self.handshake().await?;
            self.replica.refresh(RefreshRule::EVERYTHING, self.now()).await?;
            while self.push(scheduler.batch_limit(), scheduler).await? > 0 {}
            Ok::<_, SyncError>(())
        };
        pushing.await.is_ok()
    }
}

fn failure_kind(error: &CentralError) -> FailureKind {
    match error {
        CentralError::Retry(_) | CentralError::Locked(_) => FailureKind::Transient,
        CentralError::OutOfStep => FailureKind::OutOfStep,
        CentralError::Reject(_)
        | CentralError::Refused(_)
        | CentralError::SchemaMissing(_)
        | CentralError::Conflict(_) => FailureKind::NeedsOperator,
    }
}
