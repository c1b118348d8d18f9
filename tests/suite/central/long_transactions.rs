//! A transaction in central that stays open: `status` and `doctor` name it while it lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sessiond::clock;
use sessiond::domain::{LinkState, LinkStatus, MachineName, Timestamp};
use sessiond::shutdown;
use sessiond::store::{Durability, Identity, IdentityFile, Options, PinnedIdentity, Store};
use sessiond::sync::leases;
use sessiond::sync::postgres::{Postgres, PostgresOptions, checkup};
use sessiond::sync::scheduler::SyncIntervals;
use sessiond::sync::supervise::supervise;
use sessiond::sync::worker::{SyncSettings, Worker};
use tokio::sync::watch;
use uuid::Uuid;

use super::postgres::{Database, options};
use testkit::postgres::Server;

const SOON: Duration = Duration::from_secs(120);
const MINUTE: Duration = Duration::from_secs(60);
/// Autovacuum has transactions too.
const NO_OTHER_TRANSACTIONS: [&str; 1] = ["autovacuum=off"];
const BEGUN: &str = "SELECT pg_current_xact_id()";

/// What `doctor` says of transactions.
async fn found(options: &PostgresOptions) -> String {
    let findings = checkup(options, &clock::system()).await;
    let of_transactions = |found: &&str| found.contains(" has been open for ");
    let found = findings.iter().map(|finding| finding.found.as_str()).find(of_transactions);
    found.unwrap_or_else(|| panic!("doctor does not check transactions: {findings:?}")).to_owned()
}

#[tokio::test]
async fn doctor_names_a_transaction_that_stays_open() {
    let server = Server::start(&NO_OTHER_TRANSACTIONS);
    let db = Database::migrated(&server, "x").await;
    let mut options = options(&server.url("x"));
    let none = "none has been open for longer than 5m";
    assert!(found(&options).await.starts_with(none));
    options.long_transaction = Duration::ZERO;
    assert!(found(&options).await.starts_with("none has been open for longer than 0s"));
    let open = server.open_transaction("x", BEGUN);
    let pid = db.psql("SELECT pid FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()");
    let long = found(&options).await;
    assert!(long.starts_with("one has been open for ") && long.contains(&format!("process {pid} of ")), "{long}");
    assert!(long.contains("psql") && !long.contains('\n'), "{long}");
    options.long_transaction = MINUTE * 60;
    assert!(found(&options).await.starts_with("none has been open for longer than 1h"));
    drop(open);
    options.long_transaction = Duration::ZERO;
    assert!(found(&options).await.starts_with("none "));
}

/// The worker's clock is set forward, so that nobody waits for five minutes.
#[tokio::test]
async fn status_names_a_transaction_that_stays_open_until_it_ends() {
    let server = Server::start(&NO_OTHER_TRANSACTIONS);
    Database::migrated(&server, "x").await;
    let dir = tempfile::tempdir().unwrap();
    let (ahead, system) = (Arc::new(AtomicI64::new(0)), clock::system());
    let clock: clock::Clock = {
        let (ahead, system) = (ahead.clone(), system.clone());
        Arc::new(move || Timestamp::from_micros(system().micros() + ahead.load(Ordering::SeqCst)))
    };
    let kept = Options { durability: Durability::Normal, max_size: 1 << 20 };
    let (store, _writer) = Store::open(dir.path(), kept, clock.clone()).unwrap();
    let mut identity = Identity::new(MachineName::guess(), Uuid::from_u128(1), clock());
    identity.claim(Uuid::from_u128(2));
    let interval = Duration::from_millis(50);
    let intervals = SyncIntervals {
        heartbeat_interval: interval,
        refresh_after: interval,
        pull_interval: interval,
        sweep_interval: MINUTE,
        longest_wait: interval,
    };
    let (link, mut status) = watch::channel(LinkStatus::new(LinkState::Connecting, clock()));
    let settings = watch::Sender::new(SyncSettings {
        central: Some(options(&server.url("x"))),
        intervals,
        stale_after: MINUTE * 2,
        call_limit: MINUTE,
        scope: sessiond::domain::MirrorScope::All,
    });
    let open = server.open_transaction("x", BEGUN);
    let xid = server.psql("x", "SELECT pg_snapshot_xmin(pg_current_snapshot())");
    let (stop, shutdown) = shutdown::channel();
    let supervised = tokio::spawn(supervise(Worker {
        store,
        identity: Arc::new(PinnedIdentity::new(IdentityFile::in_folder(dir.path()), identity)),
        settings: settings.subscribe(),
        make_central: |options: &PostgresOptions| Postgres::new(options.clone()),
        link,
        nudge: Arc::default(),
        clock,
        random: || u64::MAX / 8,
        shutdown,
        version: "test",
        leases: leases::channel().1,
        questions: sessiond::sync::on_demand::channel().1,
        watchdog: sessiond::sync::watchdog::Watchdog::default(),
        is_restarted: false,
    }));
    let named = async {
        while status.borrow_and_update().long_transaction.is_none() {
            ahead.fetch_add(MINUTE.as_micros() as i64, Ordering::SeqCst);
            _ = tokio::time::timeout(interval * 4, status.changed()).await;
        }
    };
    tokio::time::timeout(SOON, named).await.expect("it is named");
    let text = status.borrow().long_transaction.clone().unwrap();
    assert!(text.starts_with(&format!("transaction {xid} in central has been open since ")), "{text}");
    assert!(ahead.load(Ordering::SeqCst) >= (MINUTE * 5).as_micros() as i64, "not before it lasts");
    drop(open);
    let ended = status.wait_for(|link| link.long_transaction.is_none());
    _ = tokio::time::timeout(SOON, ended).await.expect("it is forgotten").unwrap();
    stop.stop();
    tokio::time::timeout(SOON, supervised).await.expect("the worker ends").unwrap();
}
