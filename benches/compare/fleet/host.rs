//! A host of the fleet: the real store, engine, exchange and central; only the mirror is not kept, of which a
//! thousand on one machine would be fifty million rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sessiond::clock;
use sessiond::domain::mirror::{Changes, HostSeen, Reading, Rest};
use sessiond::domain::{Heartbeat, InstanceType, LinkState, LinkStatus, MachineName, Project, Registration, Timestamp};
use sessiond::store::{
    Backlog, Caller, Draws, Durability, Identity, IdentityFile, Options, PinnedIdentity, Record, Renamed, Settled,
    Store, StoreError,
};
use sessiond::sync::engine::{Engine, Pace, Step};
use sessiond::sync::exchange::{Daemon, Exchange, Local, Outside};
use sessiond::sync::postgres::{Postgres, PostgresOptions};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

const STALE_AFTER: Duration = Duration::from_secs(120);

/// What is counted of a host while it lives.
#[derive(Default)]
struct Counts {
    read: AtomicU64,
    greetings: AtomicU64,
    since: AtomicU64,
    /// Microseconds that the longest step took.
    longest_step: AtomicU64,
}

pub struct Member {
    store: Store,
    identity: Arc<PinnedIdentity>,
    ids: Vec<String>,
    counts: Arc<Counts>,
    _dir: TempDir,
}

impl Member {
    pub async fn new(number: usize, sessions: u64) -> Self {
        // In memory, where there is some: a thousand hosts do not share one disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let options = Options { durability: Durability::Full, max_size: 1 << 30 };
        let (store, _writer) = Store::open(dir.path(), options, clock::system()).expect("a store");
        let name = MachineName::parse(&format!("host{number}")).expect("a name");
        let mut identity = Identity::new(name.clone(), Uuid::new_v4(), clock::system()());
        identity.claim(Uuid::new_v4());
        let identity = Arc::new(PinnedIdentity::new(IdentityFile::in_folder(dir.path()), identity));
        let mut ids = Vec::new();
        for session in 0..sessions {
            let draws = std::array::from_fn(|_| random());
            let what = registration(&name, session);
            let record = store.register(what, None, Caller { uid: 0 }, draws, clock::system()()).await;
            ids.push(record.expect("it is registered").session.instance_id.to_string());
        }
        Self { store, identity, ids, counts: Arc::default(), _dir: dir }
    }

    pub fn rows_read(&self) -> u64 {
        self.counts.read.load(Relaxed)
    }

    pub fn greetings(&self) -> u64 {
        self.counts.greetings.load(Relaxed)
    }

    /// Since it was asked last.
    pub fn longest_step(&self) -> Duration {
        Duration::from_micros(self.counts.longest_step.swap(0, Relaxed))
    }

    /// Each session gives a sign of life once in an interval, each at a moment of its own.
    pub fn beat(&self, interval: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (store, ids) = (self.store.clone(), self.ids.clone());
        async move {
            sleep(interval.mul_f64(random() as f64 / u64::MAX as f64)).await;
            loop {
                for id in &ids {
                    let now = clock::system()();
                    let beat = Heartbeat::default();
                    _ = store.heartbeat(id.clone(), beat, Caller { uid: 0 }, now, STALE_AFTER).await;
                    sleep(interval / ids.len() as u32).await;
                }
            }
        }
    }

    /// What `sync/worker.rs` does all day.
    pub fn live(&self, url: &str, heartbeat_interval: Duration) -> impl Future<Output = ()> + Send + use<> {
        let options = PostgresOptions::parse(url, None).expect("a URL");
        let started = Instant::now();
        let outside = Outside {
            clock: clock::system(),
            ticks: Box::new(move || started.elapsed()),
            random: Box::new(random),
            version: "bench",
        };
        let (link, _) = watch::channel(LinkStatus::new(LinkState::Connecting, clock::system()()));
        let mut commits = self.store.commits();
        let daemon = Daemon { store: self.store.clone(), identity: self.identity.clone() };
        let counts = self.counts.clone();
        let local = Mirrorless { daemon, counts: counts.clone() };
        let mut exchange = Exchange::new(local, Postgres::new(options), outside, link);
        let pace = Pace { heartbeat_interval, pull_interval: heartbeat_interval / 2, sweep_interval: STALE_AFTER / 2 };
        let mut engine = Engine::new(pace);
        async move {
            loop {
                commits.borrow_and_update();
                let pending = exchange.has_pending().await;
                let step = engine.next(exchange.tick(), pending);
                let Step::Wait { until } = step else {
                    let began = Instant::now();
                    exchange.perform(step, pace, STALE_AFTER, &mut engine).await;
                    counts.longest_step.fetch_max(began.elapsed().as_micros() as u64, Relaxed);
                    counts.greetings.fetch_add(u64::from(step == Step::Hello && engine.is_up()), Relaxed);
                    continue;
                };
                tokio::select! {
                    () = sleep_until(started + until) => {}
                    Ok(()) = commits.changed(), if engine.is_up() => {}
                    () = exchange.changed(), if engine.is_up() => engine.noticed(exchange.tick()),
                }
            }
        }
    }
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1
}

fn registration(machine: &MachineName, number: u64) -> Registration {
    Registration {
        project: Project::parse(&format!("project{number}")).expect("a project"),
        instance_type: InstanceType::parse("PS").expect("a type"),
        host_machine: machine.clone(),
        context_percent: 42,
        current_epic: Some("003".into()),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: Some("/home/somebody/src".into()),
    }
}

/// The daemon's own side of sync, but for what is read of other hosts: that is counted and let go.
struct Mirrorless {
    daemon: Daemon,
    counts: Arc<Counts>,
}

impl Local for Mirrorless {
    fn identity(&self) -> Identity {
        self.daemon.identity()
    }

    fn replaced(&self) {
        self.daemon.replaced();
    }

    async fn file_under(&self, name: MachineName, at: Timestamp) -> Result<usize, StoreError> {
        self.daemon.file_under(name, at).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.daemon.backlog().await
    }

    async fn pending(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.daemon.pending(limit).await
    }

    async fn acked_batch(&self) -> Result<i64, StoreError> {
        self.daemon.acked_batch().await
    }

    async fn settle(&self, settled: Vec<Settled>, acked_batch: i64, at: Timestamp) -> Result<Vec<Renamed>, StoreError> {
        self.daemon.settle(settled, acked_batch, at).await
    }

    async fn forget_synced(&self, acked_batch: i64, at: Timestamp) -> Result<usize, StoreError> {
        self.daemon.forget_synced(acked_batch, at).await
    }

    async fn mirror_of(&self, timeline: String) -> Result<(), StoreError> {
        self.daemon.mirror_of(timeline).await
    }

    async fn mirror_since(&self) -> Result<u64, StoreError> {
        Ok(self.counts.since.load(Relaxed))
    }

    async fn take_in(
        &self,
        _reading: Reading,
        changes: Changes,
        _draws: Box<Draws>,
        _at: Timestamp,
        _stale_after: Duration,
    ) -> Result<Vec<Renamed>, StoreError> {
        self.counts.read.fetch_add(changes.sessions.len() as u64, Relaxed);
        if let Rest::Nothing { next_since } = changes.rest {
            self.counts.since.store(next_since, Relaxed);
        }
        Ok(Vec::new())
    }

    async fn replace_hosts(&self, _hosts: Vec<HostSeen>) -> Result<(), StoreError> {
        Ok(())
    }
}
