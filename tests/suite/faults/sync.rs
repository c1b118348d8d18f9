//! Sync that ends by a bug is reported and restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sessiond::clock;
use sessiond::domain::limits::AccountLimit;
use sessiond::domain::mirror::{ChangePage, HostSeen, PullQuery};
use sessiond::domain::on_demand::{Found, Question};
use sessiond::domain::{HistoryTables, InstanceId, LinkState, LinkStatus, MachineName, MirrorScope, Timestamp};
use sessiond::shutdown;
use sessiond::store::{Durability, Identity, IdentityFile, Options, PinnedIdentity, Store};
use sessiond::sync::central::{
    Accepted, Batch, Central, CentralError, HostRegistration, Notification, RowOutcome, SweepResult,
};
use sessiond::sync::leases;
use sessiond::sync::on_demand;
use sessiond::sync::scheduler::SyncIntervals;
use sessiond::sync::supervise::supervise;
use sessiond::sync::worker::{SyncSettings, Worker};
use tokio::sync::watch;
use uuid::Uuid;

use sessiond::sync::fake_central::{FakeCentral, FakeLink};

/// A central whose client has a bug, for as long as a test wants it.
struct Buggy {
    link: FakeLink,
    bug: Arc<AtomicBool>,
}

impl Central for Buggy {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        assert!(!self.bug.load(Ordering::SeqCst), "index out of\nbounds");
        self.link.handshake(host).await
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        assert!(!self.bug.load(Ordering::SeqCst), "index out of\nbounds");
        self.link.push(batch).await
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        self.link.locked_rows(ids).await
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        self.link.history_tables().await
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.link.last_clock()
    }

    async fn missing_triggers(&mut self) -> Result<Vec<String>, CentralError> {
        self.link.missing_triggers().await
    }

    fn marks_heartbeats(&self) -> bool {
        self.link.marks_heartbeats()
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        self.link.sweep(stale_after, interval).await
    }

    async fn pull(&mut self, reading: &PullQuery) -> Result<ChangePage, CentralError> {
        self.link.pull(reading).await
    }

    async fn find(&mut self, question: &Question) -> Result<Found, CentralError> {
        self.link.find(question).await
    }

    async fn share_limits(&mut self, limits: &[AccountLimit]) -> Result<(), CentralError> {
        self.link.share_limits(limits).await
    }

    async fn take_leases(&mut self, names: &[String], length: Duration) -> Result<Vec<String>, CentralError> {
        self.link.take_leases(names, length).await
    }

    async fn hosts(&mut self, only: Option<&[Uuid]>) -> Result<Vec<HostSeen>, CentralError> {
        self.link.hosts(only).await
    }

    async fn disown(&mut self, ids: &[InstanceId]) -> Result<(), CentralError> {
        self.link.disown(ids).await
    }

    async fn listen(&mut self) -> bool {
        self.link.listen().await
    }

    async fn next_notification(&mut self) -> Notification {
        self.link.next_notification().await
    }
}

async fn until(link: &mut watch::Receiver<LinkStatus>, state: LinkState) -> LinkStatus {
    let reached = link.wait_for(|link| link.state == state);
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the state is reached").unwrap().clone()
}

#[tokio::test]
async fn sync_that_panics_is_reported_and_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock::system();
    let options = Options { durability: Durability::Normal, max_size: 1 << 20 };
    let (store, _writer) = Store::open(dir.path(), options, clock.clone()).unwrap();
    let mut identity = Identity::new(MachineName::guess(), Uuid::from_u128(1), clock());
    identity.claim(Uuid::from_u128(2));
    let second = Duration::from_secs(1);
    let intervals = SyncIntervals {
        heartbeat_interval: second / 20,
        refresh_after: second / 20,
        pull_interval: second,
        sweep_interval: second,
        longest_wait: second,
    };
    let (link, mut status) = watch::channel(LinkStatus::new(LinkState::Connecting, clock()));
    let settings = watch::Sender::new(SyncSettings {
        central: Some(()),
        intervals,
        stale_after: second * 120,
        call_limit: second * 60,
        scope: MirrorScope::All,
    });
    let (stop, shutdown) = shutdown::channel();
    let bug = Arc::new(AtomicBool::new(false));
    let central = FakeCentral::new(clock.clone());
    let supervised = tokio::spawn(supervise(Worker {
        store,
        identity: Arc::new(PinnedIdentity::new(IdentityFile::in_folder(dir.path()), identity)),
        settings: settings.subscribe(),
        make_central: {
            let bug = bug.clone();
            move |(): &()| Buggy { link: central.connect(), bug: bug.clone() }
        },
        link,
        nudge: Arc::default(),
        clock,
        random: || u64::MAX / 8,
        shutdown,
        version: "test",
        leases: leases::channel().1,
        questions: on_demand::channel().1,
        watchdog: sessiond::sync::watchdog::Watchdog::default(),
        is_restarted: false,
    }));
    until(&mut status, LinkState::Connected).await;
    bug.store(true, Ordering::SeqCst);
    let told = until(&mut status, LinkState::Unreachable).await;
    let why = told.last_error.unwrap();
    assert!(why.contains("index out of bounds") && why.contains("please report"), "{why}");
    // It tries again, fails again, and does not pretend meanwhile.
    status.borrow_and_update();
    tokio::time::timeout(second * 20, status.changed()).await.expect("it begins again").unwrap();
    let again = status.borrow().clone();
    assert_eq!((again.state, again.since), (LinkState::Unreachable, told.since));
    bug.store(false, Ordering::SeqCst);
    assert_eq!(until(&mut status, LinkState::Connected).await.last_error, None);
    stop.stop();
    tokio::time::timeout(second * 20, supervised).await.expect("it ends when told to").unwrap();
}
