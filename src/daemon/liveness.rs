//! Which sessions live: watches their processes, speaks for those that run, and notices silence.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::Clock;
use crate::domain::{InstanceId, Timestamp};
use crate::platform::process;
use crate::platform::wake::WakeDetector;
use crate::shutdown::Shutdown;
use crate::store::{Process, ProcessChanges, Store, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessSettings {
    /// How often the daemon gives a sign of life for the processes that run.
    pub heartbeat_interval: Duration,
    pub stale_after: Duration,
    /// How long closed sessions are kept once central has them.
    pub keep_closed: Duration,
}

/// Lets others ask for a look at the processes, and tells when the last one was.
#[derive(Clone)]
pub struct Lookout {
    last_look: watch::Receiver<Timestamp>,
    ask: Arc<Notify>,
    settings: watch::Receiver<LivenessSettings>,
    clock: Clock,
}

/// How long an answer waits for a look that is overdue.
const PATIENCE: Duration = Duration::from_secs(2);

impl Lookout {
    /// After a sleep of the machine nobody has looked at the processes for long, and nothing is to be reported dead
    /// before somebody did.
    pub async fn look_if_overdue(&self) {
        let overdue = self.settings.borrow().heartbeat_interval * 3 / 2;
        // A look that began before the sleep may end after it: only one that began lately counts.
        let recent = |last: &Timestamp| (self.clock)().since(*last) <= overdue;
        if !recent(&self.last_look.borrow()) {
            self.ask.notify_one();
            let _ = tokio::time::timeout(PATIENCE, self.last_look.clone().wait_for(recent)).await;
        }
    }
}

pub struct Liveness {
    store: Store,
    clock: Clock,
    settings: watch::Receiver<LivenessSettings>,
    looked: watch::Sender<Timestamp>,
    ask: Arc<Notify>,
    /// Told when the machine woke: the world may have changed.
    woke: Arc<Notify>,
    watched: HashMap<(InstanceId, Process), AbortHandle>,
    exits: JoinSet<(InstanceId, Process)>,
}

impl Liveness {
    pub fn new(store: Store, clock: Clock, settings: watch::Receiver<LivenessSettings>, woke: Arc<Notify>) -> Self {
        let looked = watch::Sender::new(clock());
        let ask = Arc::default();
        Self { store, clock, settings, looked, ask, woke, watched: HashMap::new(), exits: JoinSet::new() }
    }

    pub fn lookout(&self) -> Lookout {
        Lookout {
            last_look: self.looked.subscribe(),
            ask: self.ask.clone(),
            settings: self.settings.clone(),
            clock: self.clock.clone(),
        }
    }

    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut wakes = WakeDetector::new(self.clock.clone());
        let registered = self.store.new_processes();
        let mut settings = self.settings.clone();
        loop {
            let interval = settings.borrow_and_update().heartbeat_interval;
            self.look().await;
            let next_look = tokio::time::sleep(interval);
            tokio::pin!(next_look);
            loop {
                tokio::select! {
                    () = &mut next_look => break,
                    _ = settings.changed() => break,
                    () = self.ask.notified() => break,
                    () = wakes.next() => {
                        self.woke.notify_one();
                        break;
                    }
                    Some(exited) = self.exits.join_next(), if !self.exits.is_empty() => {
                        if let Ok((id, process)) = exited {
                            self.bury(id, process).await;
                        }
                    }
                    news = registered.next() => self.follow_new(news).await,
                    () = shutdown.requested() => return,
                }
            }
        }
    }

    /// Speaks for the processes that run, then judges the silent, in this order: after a sleep those
    /// that live must not be taken for dead.
    async fn look(&mut self) {
        let LivenessSettings { stale_after, keep_closed, .. } = *self.settings.borrow();
        let now = (self.clock)();
        self.follow().await;
        let watched: Vec<_> = self.watched.keys().cloned().collect();
        let alive = living(watched).await;
        // What could not be noted of the living is no reason to judge them.
        if alive.is_empty() || note(self.store.seen_alive(alive, now, stale_after).await) {
            note(self.store.sweep(now, stale_after).await);
        }
        note(self.store.close_headless(now.minus(keep_closed), now).await);
        self.looked.send_replace(now);
    }

    /// Watches the processes of all sessions that have one, and no others.
    async fn follow(&mut self) {
        let wanted = match self.store.watched().await {
            Ok(wanted) => wanted,
            Err(error) => {
                note::<()>(Err(error));
                return;
            }
        };
        let wanted: HashSet<_> = wanted.into_iter().collect();
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

    /// Watches what came since: one process for a registration, however many others are watched. A process that a
    /// session had before is dropped by the next look; until then its end changes nothing.
    async fn follow_new(&mut self, news: ProcessChanges) {
        if news.others {
            return self.follow().await;
        }
        for (id, process) in news.added {
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

    /// Should the store not take it now, the next look finds the process gone once more.
    async fn bury(&mut self, id: InstanceId, process: Process) {
        let news = self.store.process_died(id.clone(), process, (self.clock)()).await;
        if matches!(news, Ok(true)) {
            tracing::info!(session = %id, pid = process.pid, "the process ended; its session is stale");
        }
        note(news);
        self.watched.remove(&(id, process));
    }
}

/// Those whose processes run. With thousands of them it takes a while, so a thread of its own asks.
async fn living(watched: Vec<(InstanceId, Process)>) -> Vec<InstanceId> {
    let runs = |process: &Process| process::start_time(process.pid) == Some(process.started);
    let asked = tokio::task::spawn_blocking(move || {
        watched.into_iter().filter(|(_, process)| runs(process)).map(|(id, _)| id).collect()
    });
    asked.await.unwrap_or_default()
}

/// Says whether the store took the note.
fn note<T>(result: Result<T, StoreError>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(%error, "the store did not take a note of which sessions live; trying again later");
    }
    result.is_ok()
}
