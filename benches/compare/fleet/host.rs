//! A host of the fleet: the daemon's own store and sync. Rows of other hosts are counted but not stored, because a
//! thousand mirrors on one machine would be fifty million rows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sessiond::clock;
use sessiond::domain::limits::AccountLimit;
use sessiond::domain::mirror::{ChangePage, Continuation, HostSeen, PullQuery};
use sessiond::domain::on_demand::{Found, Question};
use sessiond::domain::{
    Heartbeat, HistoryTables, InstanceId, LinkState, LinkStatus, MachineName, MirrorScope, SessionWork, Timestamp,
};
use sessiond::shutdown::{self, Stop};
use sessiond::store::{Durability, Identity, IdentityFile, NewSession, OpContext, Options, PinnedIdentity, Store};
use sessiond::sync::central::{
    Accepted, Batch, Central, CentralError, HostRegistration, Notification, RowOutcome, SweepResult,
};
use sessiond::sync::leases;
use sessiond::sync::on_demand;
use sessiond::sync::postgres::{Postgres, PostgresOptions};
use sessiond::sync::scheduler::SyncIntervals;
use sessiond::sync::watchdog::Watchdog;
use sessiond::sync::worker::{SyncSettings, Worker};
use sessiond::wire::ActivityReport;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use uuid::Uuid;

use crate::fixtures::registration;

pub const STALE_AFTER: Duration = Duration::from_secs(120);

/// Counters of a host.
#[derive(Default)]
struct HostCounts {
    /// Rows of other hosts that were read because they changed.
    changes: AtomicU64,
    /// Rows of other hosts that were read with everything.
    first: AtomicU64,
    handshakes: AtomicU64,
    /// Duration of the longest push, in microseconds.
    longest_push: AtomicU64,
    /// Complete readings of everything.
    full_readings: AtomicU64,
    /// The times of activity changes of other hosts, and when this host read them.
    activities: Mutex<Vec<(Timestamp, Instant)>>,
}

pub struct FleetHost {
    store: Store,
    identity: Arc<PinnedIdentity>,
    ids: Vec<String>,
    counts: Arc<HostCounts>,
    settings: watch::Sender<SyncSettings<PostgresOptions>>,
    _stop: Stop,
    shutdown: shutdown::Shutdown,
    _dir: TempDir,
}

impl FleetHost {
    pub async fn new(number: usize, sessions: u64, url: &str, heartbeat_interval: Duration) -> Self {
        // In memory if possible, because real hosts do not share one disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let options = Options { durability: Durability::Full, max_size: 1 << 30 };
        let (store, _writer) = Store::open(dir.path(), options, clock::system()).expect("a store");
        let name = MachineName::parse(&format!("host{number}")).expect("a name");
        let mut identity = Identity::new(name.clone(), Uuid::new_v4(), clock::system()());
        identity.claim(Uuid::new_v4());
        let identity = Arc::new(PinnedIdentity::new(IdentityFile::in_folder(dir.path()), identity));
        let mut ids = Vec::new();
        for session in 0..sessions {
            let session = NewSession { what: registration(session, &name), agent: None, process: None };
            let record = store.register(session, OpContext::of_daemon(clock::system()(), STALE_AFTER)).await;
            ids.push(record.expect("it is registered").session.instance_id.to_string());
        }
        let intervals = SyncIntervals {
            heartbeat_interval,
            refresh_after: heartbeat_interval * 2,
            pull_interval: heartbeat_interval / 2,
            sweep_interval: STALE_AFTER / 2,
            longest_wait: Duration::from_secs(30),
        };
        let central = PostgresOptions::parse(url, None).expect("a URL");
        let call_limit = Duration::from_secs(60);
        let settings = SyncSettings {
            central: Some(central),
            intervals,
            stale_after: STALE_AFTER,
            call_limit,
            scope: MirrorScope::All,
        };
        let (stop, shutdown) = shutdown::channel();
        Self {
            store,
            identity,
            ids,
            counts: Arc::default(),
            settings: watch::Sender::new(settings),
            _stop: stop,
            shutdown,
            _dir: dir,
        }
    }

    /// Rows of other hosts that were read: because they changed, and with everything.
    pub fn rows_read(&self) -> [u64; 2] {
        [self.counts.changes.load(Relaxed), self.counts.first.load(Relaxed)]
    }

    pub fn handshakes(&self) -> u64 {
        self.counts.handshakes.load(Relaxed)
    }

    /// Whether this host has read everything that central had.
    pub fn has_read_everything(&self) -> bool {
        self.counts.full_readings.load(Relaxed) > 0
    }

    /// When this host read the change of an activity that began at `since`, if it has.
    pub fn saw_activity(&self, since: Timestamp) -> Option<Instant> {
        let activities = self.counts.activities.lock().expect("no reader panicked");
        activities.iter().find(|(at, _)| *at == since).map(|(_, seen)| *seen)
    }

    /// Begins an activity in a session that has none. Returns since when it has it.
    pub async fn begin_activity(&self, session: usize) -> Timestamp {
        let context = OpContext::of_daemon(clock::system()(), STALE_AFTER);
        let report = serde_json::json!({ "activity": "working" });
        let report: ActivityReport = serde_json::from_value(report).expect("a report");
        let event = report.validate(context.now).expect("a valid report");
        let beat = Heartbeat { activity: Some(event), ..Heartbeat::default() };
        self.store.heartbeat(self.ids[session].clone(), beat, context).await.expect("it is recorded");
        context.now
    }

    /// The longest push since the last call.
    pub fn longest_push(&self) -> Duration {
        Duration::from_micros(self.counts.longest_push.swap(0, Relaxed))
    }

    /// Sends a heartbeat of each session once in an interval, all at the same time: so the store commits them together, and
    /// a thousand stores leave the processors to what is measured. When central gets them, sync decides.
    pub fn send_heartbeats(&self, interval: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (store, ids) = (self.store.clone(), self.ids.clone());
        async move {
            sleep(interval.mul_f64(random() as f64 / u64::MAX as f64)).await;
            let mut beats = tokio::time::interval(interval);
            loop {
                beats.tick().await;
                let context = OpContext::of_daemon(clock::system()(), STALE_AFTER);
                let beat = |id: &String| store.heartbeat(id.clone(), Heartbeat::default(), context);
                join_all(ids.iter().map(beat)).await;
            }
        }
    }

    /// Runs the daemon's sync.
    pub fn sync(&self) -> impl Future<Output = ()> + Send + use<> {
        let counts = self.counts.clone();
        let worker = Worker {
            store: self.store.clone(),
            identity: self.identity.clone(),
            settings: self.settings.subscribe(),
            make_central: move |options: &PostgresOptions| CountingCentral {
                central: Postgres::new(options.clone()),
                counts: counts.clone(),
            },
            leases: leases::channel().1,
            questions: on_demand::channel().1,
            watchdog: Watchdog::default(),
            link: watch::channel(LinkStatus::new(LinkState::Connecting, clock::system()())).0,
            nudge: Arc::new(Notify::new()),
            clock: clock::system(),
            random,
            shutdown: self.shutdown.clone(),
            version: "bench",
            is_restarted: false,
        };
        worker.run()
    }
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1
}

/// The real central; counts its requests.
struct CountingCentral {
    central: Postgres,
    counts: Arc<HostCounts>,
}

impl Central for CountingCentral {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        let accepted = self.central.handshake(host).await?;
        self.counts.handshakes.fetch_add(1, Relaxed);
        Ok(accepted)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        let began = Instant::now();
        let applied = self.central.push(batch).await;
        self.counts.longest_push.fetch_max(began.elapsed().as_micros() as u64, Relaxed);
        applied
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        self.central.sweep(stale_after, interval).await
    }

    async fn pull(&mut self, reading: &PullQuery) -> Result<ChangePage, CentralError> {
        let changes = self.central.pull(reading).await?;
        let read = if reading.is_whole() { &self.counts.first } else { &self.counts.changes };
        read.fetch_add(changes.sessions.len() as u64, Relaxed);
        let since = |work: &SessionWork| work.activity.as_ref().map(|activity| (activity.since, Instant::now()));
        self.counts.activities.lock().expect("no reader panicked").extend(changes.work.iter().filter_map(since));
        if reading.is_whole() && matches!(changes.rest, Continuation::Complete { .. }) {
            self.counts.full_readings.fetch_add(1, Relaxed);
        }
        Ok(ChangePage { sessions: Vec::new(), history: Vec::new(), ..changes })
    }

    async fn find(&mut self, question: &Question) -> Result<Found, CentralError> {
        self.central.find(question).await
    }

    async fn share_limits(&mut self, limits: &[AccountLimit]) -> Result<(), CentralError> {
        self.central.share_limits(limits).await
    }

    async fn take_leases(&mut self, names: &[String], length: Duration) -> Result<Vec<String>, CentralError> {
        self.central.take_leases(names, length).await
    }

    async fn hosts(&mut self, only: Option<&[Uuid]>) -> Result<Vec<HostSeen>, CentralError> {
        self.central.hosts(only).await
    }

    async fn disown(&mut self, ids: &[InstanceId]) -> Result<(), CentralError> {
        self.central.disown(ids).await
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        self.central.locked_rows(ids).await
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        self.central.history_tables().await
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.central.last_clock()
    }

    async fn missing_triggers(&mut self) -> Result<Vec<String>, CentralError> {
        self.central.missing_triggers().await
    }

    fn marks_heartbeats(&self) -> bool {
        self.central.marks_heartbeats()
    }

    async fn listen(&mut self) -> bool {
        self.central.listen().await
    }

    async fn next_notification(&mut self) -> Notification {
        self.central.next_notification().await
    }
}
