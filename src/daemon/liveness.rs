//! Checks which sessions are alive: watches their processes, records heartbeats for those that run, and marks silent
//! sessions stale.
//!
//! A check runs at each heartbeat interval, after the machine wakes from sleep, and when a request finds the last one
//! overdue. It records heartbeats first and only then marks sessions stale: after a sleep every session is overdue, and
//! those whose processes run must not become stale. If the heartbeats cannot be recorded, no session is marked. Between
//! checks the end of a watched process makes its session stale at once; an end that the store cannot record is found by
//! the next check.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::Clock;
use crate::domain::Process;
use crate::domain::{InstanceId, Timestamp};
use crate::platform::process;
use crate::platform::wake::WakeDetector;
use crate::shutdown::Shutdown;
use crate::store::{OpContext, ProcessChanges, Store, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LivenessSettings {
    /// How often the daemon records a heartbeat for the processes that run.
    pub heartbeat_interval: Duration,
    pub stale_after: Duration,
    /// How long closed sessions are kept once central has them.
    pub keep_closed: Duration,
}

/// Triggers a check of the processes before a request is answered, if the last one is too old.
#[derive(Clone)]
pub(super) struct CheckTrigger {
    last_check: watch::Receiver<Timestamp>,
    request: Arc<Notify>,
    settings: watch::Receiver<LivenessSettings>,
    clock: Clock,
}

/// How long an answer waits for a check that is overdue.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

impl CheckTrigger {
    /// Waits for a check if the last one is overdue, as after a sleep of the machine: until then sessions of running
    /// processes would be reported as stale.
    pub(super) async fn check_if_overdue(&self) {
        let overdue = self.settings.borrow().heartbeat_interval * 3 / 2;
        // The time at which a check began counts: one that began before a sleep may end after it.
        let recent = |last: &Timestamp| (self.clock)().since(*last) <= overdue;
        if !recent(&self.last_check.borrow()) {
            self.request.notify_one();
            let _ = tokio::time::timeout(CHECK_TIMEOUT, self.last_check.clone().wait_for(recent)).await;
        }
    }
}

pub(super) struct Liveness {
    store: Store,
    clock: Clock,
    settings: watch::Receiver<LivenessSettings>,
    /// When the last complete check began.
    last_check: watch::Sender<Timestamp>,
    check_requested: Arc<Notify>,
    /// Is notified when the machine wakes, so that sync reconnects and pushes.
    woke: Arc<Notify>,
    watched: HashMap<(InstanceId, Process), AbortHandle>,
    exits: JoinSet<(InstanceId, Process)>,
}

impl Liveness {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        settings: watch::Receiver<LivenessSettings>,
        woke: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            settings,
            last_check: watch::Sender::new(clock()),
            check_requested: Arc::default(),
            woke,
            watched: HashMap::new(),
            exits: JoinSet::new(),
            clock,
        }
    }

    pub(super) fn trigger(&self) -> CheckTrigger {
        CheckTrigger {
            last_check: self.last_check.subscribe(),
            request: self.check_requested.clone(),
            settings: self.settings.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self, mut shutdown: Shutdown) {
        let mut wakes = WakeDetector::new(self.clock.clone());
        let registered = self.store.new_processes();
        let mut settings = self.settings.clone();
        loop {
            let interval = settings.borrow_and_update().heartbeat_interval;
            self.check().await;
            let next_check = tokio::time::sleep(interval);
            tokio::pin!(next_check);
            loop {
                tokio::select! {
                    () = &mut next_check => break,
                    _ = settings.changed() => break,
                    () = self.check_requested.notified() => break,
                    () = wakes.next() => {
                        self.woke.notify_one();
                        break;
                    }
                    Some(exited) = self.exits.join_next(), if !self.exits.is_empty() => {
                        if let Ok((id, process)) = exited {
                            self.record_exit(id, process).await;
                        }
                    }
                    new = registered.next() => self.watch_new(new).await,
                    () = shutdown.requested() => return,
                }
            }
        }
    }

    /// Records heartbeats for the processes that run, then marks the silent sessions stale.
    async fn check(&mut self) {
        let LivenessSettings { stale_after, keep_closed, .. } = *self.settings.borrow();
        let context = OpContext::of_daemon((self.clock)(), stale_after);
        let now = context.now;
        self.watch_all().await;
        let watched: Vec<_> = self.watched.keys().cloned().collect();
        let alive = running(watched).await;
        // Without their heartbeats, sessions that are alive would be marked stale.
        if alive.is_empty() || is_recorded(self.store.seen_alive(alive, context).await) {
            is_recorded(self.store.sweep(context).await);
        }
        is_recorded(self.store.close_headless(now.minus(keep_closed), context).await);
        self.last_check.send_replace(now);
    }

    /// Watches the processes of all sessions that have one, and no others.
    async fn watch_all(&mut self) {
        let wanted: HashSet<_> = match self.store.watched().await {
            Ok(wanted) => wanted.into_iter().collect(),
            Err(error) => {
                is_recorded::<()>(Err(error));
                return;
            }
        };
        self.watched.retain(|key, watch| {
            let keep = wanted.contains(key) && !watch.is_finished();
            if !keep {
                watch.abort();
            }
            keep
        });
        for (id, process) in wanted {
            self.watch(id, process);
        }
    }

    /// Watches the processes of new registrations, without listing all others. A process that a session had before is
    /// dropped by the next check; until then its end changes nothing.
    async fn watch_new(&mut self, new: ProcessChanges) {
        if new.others {
            return self.watch_all().await;
        }
        for (id, process) in new.added {
            self.watch(id, process);
        }
    }

    fn watch(&mut self, id: InstanceId, process: Process) {
        self.watched.entry((id.clone(), process)).or_insert_with(|| {
            self.exits.spawn(async move {
                process::wait_for_exit(process).await;
                (id, process)
            })
        });
    }

    /// Marks the session of an ended process stale. If the store cannot record it now, the next check does.
    async fn record_exit(&mut self, id: InstanceId, process: Process) {
        let stale_after = self.settings.borrow().stale_after;
        let context = OpContext::of_daemon((self.clock)(), stale_after);
        let changed = self.store.process_died(id.clone(), process, context).await;
        if matches!(changed, Ok(true)) {
            tracing::info!(session = %id, pid = process.pid, "the process ended; its session is stale");
        }
        is_recorded(changed);
        self.watched.remove(&(id, process));
    }
}

/// The sessions whose processes run. Checked on a thread for blocking work: thousands of them take a while.
async fn running(watched: Vec<(InstanceId, Process)>) -> Vec<InstanceId> {
    let runs = |process: &Process| process::start_time(process.pid) == Some(process.started);
    let checked = tokio::task::spawn_blocking(move || {
        watched.into_iter().filter(|(_, process)| runs(process)).map(|(id, _)| id).collect()
    });
    checked.await.unwrap_or_default()
}

/// Whether the store recorded it; logs the error if not.
fn is_recorded<T>(result: Result<T, StoreError>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(%error, "the store did not record which sessions are alive; trying again later");
    }
    result.is_ok()
}
