//! A cluster of three servers under Patroni and etcd that loses its primary under load.

use std::time::{Duration, Instant};

use testkit::daemon::Host;
use testkit::load::Load;
use testkit::patroni::{Cluster, is_installed};
use testkit::{campaign, eventually, skip};

/// A promotion takes Patroni up to its ttl of 20 seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Waits until central accepted a push after now, and returns how long that took.
fn await_push(host: &Host) -> Duration {
    let began = Instant::now();
    let last_sync = |host: &Host| host.status()["central"]["last_sync_at"].clone();
    let before = last_sync(host);
    eventually("central accepts a push", LIMIT, || {
        let is_connected = host.status()["central"]["state"] == "connected";
        (is_connected && last_sync(host) != before).then_some(())
    });
    began.elapsed()
}

/// Takes minutes, so it belongs to the long form.
#[test]
fn failovers_of_patroni_lose_nothing() {
    let rounds = campaign(0, 3);
    if rounds == 0 {
        return;
    }
    if !is_installed() {
        skip::skip("faults::patroni::failovers_of_patroni_lose_nothing", "Debian's patroni and etcd-server");
        return;
    }
    let mut cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE central");
    let url = cluster.url("central");
    Host::new("migrator").ok(&["migrate", "--central-url", &url]);
    let host = Host::with_central("odin3", &url).started();
    let load = Load::paced("patroni");
    load.during(&host, || {
        host.await_central("connected");
        for _ in 0..rounds {
            let killed = cluster.kill_primary();
            cluster.await_primary();
            println!("after a promotion a push took {:?}", await_push(&host));
            cluster.restart(killed);
            cluster.await_all();
            cluster.switch_over();
            println!("after a switchover a push took {:?}", await_push(&host));
            cluster.await_all();
        }
    });
    host.await_synced();
    load.check_rows(|sql| cluster.psql("central", sql));
    println!("{} changes acknowledged", load.acknowledged());
}
