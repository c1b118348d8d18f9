//! Readings of everything against the fake central, whose pages have two rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use testkit::random::Random;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::domain::mirror::HistoryReading;
use crate::domain::{
    InstanceId, InstanceType, LinkState, LinkStatus, MachineName, Project, Reason, Registration, Session,
};
use crate::store::{
    Durability, Identity, IdentityFile, Lookup, OpenError, Options, PinnedIdentity, Store, WriterThread,
};
use crate::sync::central::HostRegistration;
use crate::sync::driver::DriverContext;
use crate::sync::fake_central::{FakeCentral, FakeLink, Fault};
use crate::sync::replica::LocalReplica;
use crate::sync::scheduler::{BATCH_ROWS, SyncAction, SyncIntervals, Tick, Unsynced};

const STALE_AFTER: Duration = Duration::from_secs(120);
const INTERVALS: SyncIntervals = SyncIntervals {
    heartbeat_interval: Duration::from_secs(30),
    refresh_after: Duration::from_secs(60),
    pull_interval: Duration::from_secs(15),
    sweep_interval: Duration::from_secs(60),
    longest_wait: Duration::from_secs(30),
};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_769_774_400_000_000).plus(Duration::from_secs(seconds))
}

fn central() -> FakeCentral {
    let micros = Arc::new(AtomicU64::new(0));
    let central =
        FakeCentral::new(Arc::new(move || at(0).plus(Duration::from_micros(micros.fetch_add(1, Ordering::Relaxed)))));
    (1..=9).for_each(|number| central.put(&session(number)));
    central
}

fn id(number: u32) -> InstanceId {
    InstanceId::parse(&format!("odin-PS-{number:06}")).unwrap()
}

/// A session of a client without a daemon.
fn session(number: u32) -> Session {
    let registration = Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::parse("odin9").unwrap(),
        context_percent: 3,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    Session::register(id(number), registration, at(number.into()))
}

/// A daemon's sync, which performs one action at a time.
struct Host {
    driver: Driver<LocalReplica, FakeLink>,
    scheduler: Scheduler,
    store: Store,
    ticks: Arc<AtomicU64>,
    _writer: WriterThread,
    _folder: tempfile::TempDir,
}

impl Host {
    fn new(central: &FakeCentral) -> Result<Self, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { durability: Durability::Normal, max_size: 64 << 20 };
        let (store, writer) = Store::open(folder.path(), options, Arc::new(|| at(0)))?;
        let mut identity = Identity::new(MachineName::parse("odin3").unwrap(), Uuid::from_u128(3), at(0));
        identity.claim(Uuid::from_u128(4));
        let identity = Arc::new(PinnedIdentity::new(IdentityFile::in_folder(folder.path()), identity));
        let ticks = Arc::new(AtomicU64::new(0));
        let (now, random) = (ticks.clone(), std::sync::Mutex::new(Random::new(7)));
        let context = DriverContext {
            clock: Arc::new(|| at(0)),
            ticks: Box::new(move || Tick::from_micros(now.load(Ordering::Relaxed))),
            random: Box::new(move || random.lock().unwrap().next()),
            version: "test",
        };
        let link = watch::channel(LinkStatus::new(LinkState::Connecting, at(0))).0;
        let driver = Driver::new(LocalReplica { store: store.clone(), identity }, central.connect(), context, link);
        let scheduler = Scheduler::new(INTERVALS, BATCH_ROWS);
        Ok(Self { driver, scheduler, store, ticks, _writer: writer, _folder: folder })
    }

    /// Performs the action that is due. Returns it.
    async fn step(&mut self) -> SyncAction {
        let action = self.scheduler.next_action(self.driver.tick(), Unsynced::Nothing);
        self.driver.perform(action, INTERVALS, STALE_AFTER, &mut self.scheduler).await;
        action
    }

    /// Performs what is due up to this action, and with it.
    async fn run_to(&mut self, last: SyncAction) {
        for _ in 0..200 {
            if self.step().await == last {
                return;
            }
        }
        panic!("{last:?} is never due");
    }

    /// Performs all that is due.
    async fn run(&mut self) {
        for _ in 0..200 {
            if let SyncAction::Wait { .. } = self.step().await {
                return;
            }
        }
        panic!("it never waits");
    }

    fn pass(&self, time: Duration) {
        self.ticks.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// A notification that others changed something.
    fn notify(&mut self) {
        let now = self.driver.tick();
        self.scheduler.change_notified(now, 0);
    }

    async fn session(&self, number: u32) -> Option<Session> {
        match self.store.find(id(number).to_string()).await.unwrap() {
            Lookup::One(record) => Some(record.session),
            _ => None,
        }
    }

    /// The numbers of the sessions that are here.
    async fn here(&self) -> Vec<u32> {
        let mut here = Vec::new();
        for number in 0..=10 {
            if self.session(number).await.is_some() {
                here.push(number);
            }
        }
        here
    }

    async fn has_read_everything(&self) -> bool {
        self.store.mirror_position(at(0)).await.unwrap() > 0
    }
}

#[tokio::test]
async fn changes_of_others_are_read_between_two_pages_of_everything() {
    let central = central();
    let mut host = Host::new(&central).unwrap();
    host.run_to(SyncAction::ReadAll).await;
    assert_eq!(host.here().await, [1, 2]);
    central.edit(id(1).as_str(), |session| session.current_epic = Some("changed".into()));
    central.edit(id(8).as_str(), |session| session.current_epic = Some("changed".into()));
    central.put(&session(0));
    central.delete(id(2).as_str());
    host.pass(Duration::from_secs(1));
    host.notify();
    host.run_to(SyncAction::Pull).await;
    host.run_to(SyncAction::Pull).await;
    let epic = |session: Option<Session>| session.and_then(|session| session.current_epic);
    assert_eq!(host.here().await, [0, 1, 8], "what the pages have passed, and what they have not come to");
    assert_eq!(epic(host.session(1).await).as_deref(), Some("changed"));
    assert!(!host.has_read_everything().await);
    assert_eq!(host.store.mirror_as_of(), Some(at(0)), "what is here is true");

    host.run().await;
    assert_eq!(host.here().await, [0, 1, 3, 4, 5, 6, 7, 8, 9]);
    assert!(host.has_read_everything().await);
    assert_eq!(host.store.mirror_as_of(), Some(at(0)));
    let before = central.pages().len();
    host.pass(INTERVALS.pull_interval);
    host.run().await;
    let after = central.pages();
    assert!(after.len() > before && after[before..].iter().all(|page| !page.is_whole()));
}

#[tokio::test]
async fn interrupted_reading_of_everything_continues_behind_its_last_page() {
    let central = central();
    let mut host = Host::new(&central).unwrap();
    host.run_to(SyncAction::ReadAll).await;
    host.run_to(SyncAction::ReadAll).await;
    central.fail_next(Fault::Fail(CentralError::Retry(Reason::from("the connection broke"))));
    host.run_to(SyncAction::ReadAll).await;
    central.edit(id(1).as_str(), |session| session.current_epic = Some("meanwhile".into()));
    host.pass(Duration::from_secs(1));
    host.run().await;
    assert_eq!(host.here().await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(host.has_read_everything().await);
    assert_eq!(host.session(1).await.unwrap().current_epic.as_deref(), Some("meanwhile"));
    let pages = central.pages();
    let whole: Vec<_> = pages.iter().filter(|page| page.is_whole()).map(|page| page.position().2.to_owned()).collect();
    assert_eq!(whole.iter().filter(|after| after.is_empty()).count(), 1, "it began once: {whole:?}");
    assert_eq!(whole[2], id(4).to_string());
}

#[tokio::test]
async fn session_that_comes_back_behind_the_pages_is_kept() {
    let central = central();
    let mut host = Host::new(&central).unwrap();
    host.run().await;
    central.delete(id(1).as_str());
    host.store.reset_mirror_position().await.unwrap();
    host.pass(INTERVALS.pull_interval);
    host.run_to(SyncAction::ReadAll).await;
    central.put(&session(1));
    host.pass(Duration::from_secs(1));
    host.notify();
    host.run().await;
    assert!(host.has_read_everything().await);
    assert_eq!(host.here().await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn restored_central_has_everything_read_from_the_beginning() {
    let central = central();
    let backup = central.snapshot();
    let mut host = Host::new(&central).unwrap();
    host.run_to(SyncAction::ReadAll).await;
    central.delete(id(2).as_str());
    central.put(&session(10));
    central.restore(backup);
    for _ in 0..5 {
        host.pass(Duration::from_secs(30));
        host.run().await;
    }
    assert!(host.has_read_everything().await);
    assert_eq!(host.here().await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// Registers so many hosts.
async fn register_hosts(central: &FakeCentral, hosts: u32) -> FakeLink {
    let mut link = central.connect();
    for number in 0..hosts {
        let claim = Uuid::from_u128(u128::from(number) + 100);
        let host = HostRegistration {
            host_id: claim,
            machine: MachineName::parse(&format!("host{number}")).unwrap(),
            claim,
            own_claims: vec![claim],
            acked_batch: 0,
            former_host_ids: Vec::new(),
            replace: false,
            version: "test",
            stale_after: STALE_AFTER,
        };
        link.handshake(&host).await.unwrap();
    }
    link
}

#[tokio::test]
async fn host_of_a_large_fleet_reads_everything_while_it_has_a_slot() {
    let central = central();
    let mut other = register_hosts(&central, 30).await;
    let slots: Vec<_> = (0..SLOTS).map(lease).collect();
    assert_eq!(other.take_leases(&slots, Duration::from_secs(60)).await.unwrap(), slots);
    let mut host = Host::new(&central).unwrap();
    host.run().await;
    assert_eq!(host.here().await, [1, 2], "the first page needs no slot, and all slots are taken");
    central.edit(id(9).as_str(), |session| session.current_epic = Some("changed".into()));
    host.pass(Duration::from_secs(10));
    host.notify();
    host.run().await;
    assert_eq!(host.here().await, [1, 2, 9], "changes of others wait for no slot");

    other.take_leases(&slots, Duration::ZERO).await.unwrap();
    host.pass(Duration::from_secs(10));
    host.run_to(SyncAction::ReadAll).await;
    let taken = other.take_leases(&slots, Duration::from_micros(1)).await.unwrap();
    assert_eq!(taken.len(), 1, "the other one has its slot: {taken:?}");
    host.run().await;
    assert!(host.has_read_everything().await);
    assert_eq!(other.take_leases(&slots, Duration::from_secs(60)).await.unwrap(), slots, "its slot is free again");
}

#[tokio::test]
async fn large_fleet_of_a_central_without_leases_reads_with_longer_pauses() {
    let central = central();
    central.with_history(|history| history.tables.leases = TableState::Absent);
    register_hosts(&central, 30).await;
    let mut host = Host::new(&central).unwrap();
    host.run().await;
    assert!(host.has_read_everything().await, "central answers in no time");
}

#[tokio::test]
async fn history_is_not_read_ahead_in_a_fleet_of_more_than_a_thousand_hosts() {
    let central = central();
    register_hosts(&central, 1000).await;
    let mut host = Host::new(&central).unwrap();
    host.run().await;
    host.pass(Duration::from_secs(10));
    host.notify();
    host.run().await;
    assert_eq!(host.store.history_reading().await.unwrap(), HistoryReading::OnDemand);
    let pages = central.pages();
    assert!(pages.iter().any(PullQuery::is_whole) && pages.iter().any(|page| !page.is_whole()), "{pages:?}");
    assert!(pages.iter().all(|page| page.history == HistoryReading::OnDemand), "hosts are read before sessions");
}

#[tokio::test]
async fn everything_is_read_with_its_history_in_a_fleet_that_is_no_longer_large() {
    let central = central();
    let mut host = Host::new(&central).unwrap();
    host.store.set_history_reading(HistoryReading::OnDemand).await.unwrap();
    host.run().await;
    assert!(host.has_read_everything().await);
    assert_eq!(host.store.history_reading().await.unwrap(), HistoryReading::Ahead);
    let whole = |pages: &[PullQuery]| pages.iter().filter(|page| page.is_whole()).count();
    let before = central.pages();
    assert!(before.iter().all(|page| page.history == HistoryReading::Ahead), "{before:?}");
    // A restart reads nothing again.
    host.scheduler.reconnect(INTERVALS, host.driver.tick());
    host.run().await;
    assert_eq!(whole(&central.pages()), whole(&before));

    // The store had been read in the large fleet.
    host.store.set_history_reading(HistoryReading::OnDemand).await.unwrap();
    host.scheduler.reconnect(INTERVALS, host.driver.tick());
    host.run().await;
    assert!(whole(&central.pages()) > whole(&before) && host.has_read_everything().await);
}
