//! A simulated host: its disk, its two clocks, its processes, and its daemon, if that runs.

use crate::domain::Process;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use tokio::sync::watch;
use uuid::Uuid;

use super::bugs::Bug;
use super::command::{Answer, Answered, Command};
use super::network::{Network, SimLink};
use super::replica::SimReplica;
use super::setup::{BATCH_ROWS, INTERVALS, STALE_AFTER, now};
use crate::clock::Clock;
use crate::domain::liveness::status_at;
use crate::domain::{LinkState, LinkStatus, MachineName, Status, Timestamp};
use crate::store::testing::manual_store::{Disk, ManualStore};
use crate::store::{Identity, Record};
use crate::sync::central::Notification;
use crate::sync::driver::{Driver, DriverContext};
use crate::sync::scheduler::{Scheduler, SyncAction, Tick, Unsynced};

mod scope;

type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Polls a future once.
pub(super) fn poll<T>(future: &mut Job<T>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

/// A command that waits for the writer.
struct PendingCommand {
    command: Command,
    /// By the host's clock, which may be wrong.
    at: Timestamp,
    answer: Job<Answer>,
}

type SimDriver = Driver<SimReplica, SimLink>;

/// The sync worker, between two actions or within one.
enum WorkerState {
    Idle(Box<(SimDriver, Scheduler)>),
    Busy(Job<(SimDriver, Scheduler)>),
}

/// The cost of a host's pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MirrorCost {
    pub pulls: u64,
    /// Rows that central sent.
    pub read: u64,
    /// Rows written into the store.
    pub written: u64,
    /// Changes of sessions announced to watchers, whatever their cause.
    pub announced: u64,
}

pub(super) struct SimDaemon {
    pub replica: SimReplica,
    worker: Option<WorkerState>,
    /// Until then the worker does nothing, unless something happens.
    waits_until: Option<Tick>,
    waiting: Vec<PendingCommand>,
    /// Heartbeats that [`Bug::HeartbeatsInMemory`] keeps.
    pub unwritten: Vec<(Command, Timestamp)>,
}

pub(super) struct SimHost {
    pub index: usize,
    pub disk: Disk,
    pub identity: Arc<Mutex<Identity>>,
    pub daemon: Option<SimDaemon>,
    pub processes: BTreeSet<i32>,
    /// How far its clock is ahead of the true time, in microseconds.
    pub offset: Arc<AtomicI64>,
    /// Its monotonic clock, in microseconds; stands still while it sleeps.
    pub uptime: Arc<AtomicU64>,
    pub full: bool,
    /// Its scope changes with each start.
    pub scoped: bool,
    true_time: Arc<AtomicI64>,
    network: Network,
    starts: u128,
}

impl SimDaemon {
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl SimHost {
    pub(super) fn new(index: usize, disk: Disk, network: Network, true_time: Arc<AtomicI64>) -> Self {
        let name = MachineName::parse(["odin3", "odin4", "laptop"][index]).unwrap();
        let identity = Identity::new(name, Uuid::from_u128(index as u128 + 1), Timestamp::from_micros(0));
        Self {
            index,
            disk,
            identity: Arc::new(Mutex::new(identity)),
            daemon: None,
            processes: BTreeSet::new(),
            offset: Arc::default(),
            uptime: Arc::default(),
            full: false,
            scoped: false,
            true_time,
            network,
            starts: 0,
        }
    }

    fn clock(&self) -> Clock {
        let (true_time, offset) = (self.true_time.clone(), self.offset.clone());
        Arc::new(move || Timestamp::from_micros(true_time.load(Ordering::Relaxed) + offset.load(Ordering::Relaxed)))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock()()
    }

    pub(super) fn name(&self) -> MachineName {
        self.identity.lock().unwrap().name.clone()
    }

    /// Starts the daemon, as `daemon::run` does. That fails if the store cannot be written.
    pub(super) fn start(&mut self) {
        self.starts += 1;
        let claim = Uuid::from_u128((self.index as u128 + 1) << 64 | self.starts);
        let (store, hand) = ManualStore::open(&self.disk);
        hand.set_full(self.full);
        if self.network.has(Bug::ClaimAtEachStart) {
            self.claim_and_forget(claim);
        }
        let hand = Arc::new(Mutex::new(hand));
        let replica =
            SimReplica { store, hand, identity: self.identity.clone(), written: Arc::default(), bug: self.network.bug };
        let mut daemon =
            SimDaemon { replica, worker: None, waits_until: None, waiting: Vec::new(), unwritten: Vec::new() };
        let (store, name, at) = (daemon.replica.store.clone(), self.name(), self.now());
        let mut filed: Job<_> = Box::pin(async move { store.set_machine_name(name, at).await });
        assert!(poll(&mut filed).is_none());
        daemon.replica.hand.lock().unwrap().commit();
        if poll(&mut filed).unwrap().is_ok() {
            match self.network.bug {
                Some(Bug::ClaimAtEachStart) => {}
                Some(Bug::ClaimsAgedOut) => self.claim_and_forget(claim),
                _ => self.identity.lock().unwrap().claim(claim),
            }
            daemon.worker = Some(WorkerState::Idle(Box::new((
                self.driver(&daemon.replica),
                Scheduler::new(INTERVALS, BATCH_ROWS),
            ))));
            self.daemon = Some(daemon);
        }
    }

    /// Keeps the two newest claims, whichever central accepted.
    fn claim_and_forget(&self, claim: Uuid) {
        let claims = &mut self.identity.lock().unwrap().claims;
        claims.push(claim);
        let surplus = claims.len().saturating_sub(2);
        claims.drain(..surplus);
    }

    fn driver(&self, replica: &SimReplica) -> SimDriver {
        let (uptime, network) = (self.uptime.clone(), self.network.clone());
        let context = DriverContext {
            clock: self.clock(),
            ticks: Box::new(move || Tick::from_micros(uptime.load(Ordering::Relaxed))),
            random: Box::new(move || network.lock().random.next()),
            version: "simulated",
        };
        let (link, _) = watch::channel(LinkStatus::new(LinkState::Connecting, self.now()));
        Driver::new(replica.clone(), self.network.link(self.index), context, link).with_scope(self.scope())
    }

    /// SIGTERM: the last push, then the store is closed.
    pub(super) fn stop(&mut self) -> Answered {
        let mut answered = self.commit().map(|(_, answered)| answered).unwrap_or_default();
        let Some(mut daemon) = self.daemon.take() else { return answered };
        if let Some(WorkerState::Idle(idle)) = daemon.worker.take()
            && idle.1.is_up()
        {
            let (mut driver, mut scheduler) = *idle;
            let mut pushing: Job<_> = Box::pin(async move { driver.final_push(&mut scheduler).await });
            for _ in 0..40 {
                if poll(&mut pushing).is_some() {
                    break;
                }
                daemon.replica.hand.lock().unwrap().commit();
            }
        }
        self.daemon = Some(daemon);
        answered.extend(self.commit().map(|(_, answered)| answered).unwrap_or_default());
        if self.network.has(Bug::DropBacklogOnStop)
            && let Some(daemon) = &self.daemon
        {
            let forget = "UPDATE sessions SET unsynced_since = NULL";
            let mut dropped: Job<_> = Box::pin(ManualStore::execute(&daemon.replica.store, forget));
            let _ = poll(&mut dropped);
            daemon.replica.hand.lock().unwrap().commit();
        }
        self.daemon = None;
        answered
    }

    /// Passes a command to the writer.
    pub(super) fn submit(&mut self, command: Command) {
        let at = self.now();
        self.submit_at(command, at);
    }

    fn submit_at(&mut self, command: Command, at: Timestamp) {
        let Some(daemon) = &mut self.daemon else { return };
        let mut answer = command.clone().carry_out(daemon.replica.store.clone(), at);
        assert!(poll(&mut answer).is_none(), "no commit happens meanwhile");
        daemon.waiting.push(PendingCommand { command, at, answer });
    }

    /// Writes the heartbeats that [`Bug::HeartbeatsInMemory`] kept.
    pub(super) fn flush(&mut self) {
        let kept = self.daemon.as_mut().map(|daemon| std::mem::take(&mut daemon.unwritten)).unwrap_or_default();
        kept.into_iter().for_each(|(command, at)| self.submit_at(command, at));
    }

    /// Lets the writer commit. Returns the number of jobs, including those of sync, and the answers.
    pub(super) fn commit(&mut self) -> Option<(usize, Answered)> {
        let daemon = self.daemon.as_mut()?;
        let jobs = daemon.replica.hand.lock().unwrap().commit();
        daemon.waits_until = daemon.waits_until.filter(|_| jobs == 0);
        let waiting = std::mem::take(&mut daemon.waiting);
        let hand = daemon.replica.hand.clone();
        let answered = waiting.into_iter().map(|mut w| {
            // If the store is full the mirror makes room first, which takes further commits.
            let mut answer = poll(&mut w.answer);
            let at_once = answer.is_some();
            for _ in 0..100 {
                if answer.is_none() {
                    hand.lock().unwrap().commit();
                    answer = poll(&mut w.answer);
                }
            }
            (at_once, (w.command, w.at, answer.expect("an answer")))
        });
        let (first, later): (Vec<_>, Vec<_>) = answered.partition(|(at_once, _)| *at_once);
        let answered = first.into_iter().chain(later).map(|(_, answered)| answered);
        Some((jobs, answered.collect()))
    }

    /// Runs the worker until it has to wait. Returns whether it did anything.
    pub(super) fn sync(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else { return false };
        match daemon.worker.take() {
            Some(WorkerState::Idle(mut idle)) => {
                let tick = idle.0.tick();
                let pending = now(idle.0.has_pending());
                let unsynced = if pending { Unsynced::Urgent } else { Unsynced::Nothing };
                if self.network.has(Bug::NoBackoff) {
                    idle.1.run_now(tick);
                }
                let action = idle.1.next_action(tick, unsynced);
                daemon.waits_until = match action {
                    SyncAction::Wait { until } => Some(until),
                    _ => None,
                };
                let waits = daemon.waits_until.is_some();
                daemon.worker =
                    Some(if waits { WorkerState::Idle(idle) } else { WorkerState::Busy(perform(*idle, action)) });
                !waits
            }
            Some(WorkerState::Busy(mut busy)) => {
                let done = poll(&mut busy);
                daemon.worker = Some(done.map_or(WorkerState::Busy(busy), |idle| WorkerState::Idle(Box::new(idle))));
                true
            }
            None => false,
        }
    }

    /// Whether nothing is due, as of the last call of [`Self::sync`].
    pub(super) fn waits(&self) -> bool {
        let uptime = Tick::from_micros(self.uptime.load(Ordering::Relaxed));
        let until = self.daemon.as_ref().and_then(|daemon| daemon.waits_until);
        until.is_some_and(|until| uptime < until)
    }

    /// Ends the worker's wait, if it waits, as `sessiond sync` does.
    pub(super) fn sync_now(&mut self) {
        if let Some(WorkerState::Idle(idle)) = self.daemon.as_mut().and_then(|daemon| daemon.worker.as_mut()) {
            let now = idle.0.tick();
            idle.0.retry_held();
            idle.1.run_now(now);
        }
    }

    /// Delivers a notification of central to the worker, if it waits.
    pub(super) fn notify(&mut self, notification: Notification) {
        self.daemon.iter_mut().for_each(|daemon| daemon.waits_until = None);
        if let Some(WorkerState::Idle(idle)) = self.daemon.as_mut().and_then(|daemon| daemon.worker.as_mut()) {
            let (driver, scheduler) = &mut **idle;
            driver.handle_notification(notification, scheduler);
        }
    }

    /// Makes the worker connect again, if it waits, as a changed identity does.
    pub(super) fn reconnect(&mut self) {
        if let Some(WorkerState::Idle(idle)) = self.daemon.as_mut().and_then(|daemon| daemon.worker.as_mut()) {
            let now = idle.0.tick();
            idle.1.reconnect(INTERVALS, now);
        }
    }

    /// Whether the store's sessions have this host's name.
    pub(super) fn is_filed(&self) -> bool {
        let name = self.name();
        let filed = |daemon: &SimDaemon| daemon.replica.hand.lock().unwrap().filed_under();
        self.daemon.as_ref().and_then(filed).is_some_and(|filed| filed == name.as_str())
    }

    /// The cost of this daemon's pulls since its start, if it runs.
    pub(super) fn mirror_cost(&self) -> Option<MirrorCost> {
        let replica = &self.daemon.as_ref()?.replica;
        let network = self.network.lock();
        Some(MirrorCost {
            pulls: network.pulls[self.index],
            read: network.read[self.index],
            written: replica.written.load(Ordering::Relaxed),
            announced: replica.hand.lock().unwrap().announced(),
        })
    }

    /// Makes the next pull read everything.
    pub(super) fn reset_mirror_position(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let reset = "UPDATE metadata SET value = 0 WHERE name = 'mirror_since'";
        let mut done: Job<_> = Box::pin(ManualStore::execute(&daemon.replica.store, reset));
        assert!(poll(&mut done).is_none());
        daemon.replica.hand.lock().unwrap().commit();
    }

    /// What is shown as active here now.
    pub(super) fn shown_active(&self) -> Vec<Record> {
        let now = self.now();
        let records = self.daemon.as_ref().map(|daemon| daemon.replica.hand.lock().unwrap().active_records());
        let is_active = |record: &Record| {
            let s = &record.session;
            status_at(s.status, s.last_heartbeat, record.alive_as_of, now, STALE_AFTER) == Status::Active
        };
        records.unwrap_or_default().into_iter().filter(is_active).collect()
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.daemon.as_ref().map(|daemon| daemon.replica.hand.lock().unwrap().records()).unwrap_or_default()
    }

    pub(super) fn runs(&self, process: Process) -> bool {
        self.processes.contains(&process.pid)
    }
}

fn perform((mut driver, mut scheduler): (SimDriver, Scheduler), action: SyncAction) -> Job<(SimDriver, Scheduler)> {
    Box::pin(async move {
        driver.perform(action, INTERVALS, STALE_AFTER, &mut scheduler).await;
        (driver, scheduler)
    })
}
