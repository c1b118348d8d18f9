//! Network faults under load, and recovery from them.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{LIMIT, await_state, central, check_ledger, hurried, nudged};
use testkit::daemon::Host;
use testkit::load::Load;
use testkit::postgres::Server;
use testkit::proxy::{Direction, Mode, Proxy};
use testkit::{campaign, eventually, random::Random};

/// A daemon whose central is behind a proxy, connected.
fn behind_a_proxy() -> (Server, Proxy, Host) {
    let server = central(&[]);
    let proxy = Proxy::to_socket(&server.socket());
    let host = hurried("odin3", &proxy.url("postgres", "central")).started();
    host.await_central("connected");
    (server, proxy, host)
}

#[test]
fn network_faults_under_load_lose_and_repeat_nothing() {
    let (server, proxy, host) = behind_a_proxy();
    let load = Load::paced("faults");
    let faults = [
        Mode::Refuse,
        Mode::Hang,
        Mode::HalfOpen,
        Mode::CutAfter(Direction::ToCentral, 3000),
        Mode::CutAfter(Direction::FromCentral, 1500),
        Mode::CutAtCommit { pass: 0 },
    ];
    load.during(&host, || {
        for fault in faults {
            let before = proxy.connections();
            proxy.set(fault);
            match fault {
                // The connection that hears nothing is given up, and the next one works.
                Mode::HalfOpen => nudged(&host, "it connects again", || (proxy.connections() > before).then_some(())),
                _ => {
                    let status = await_state(&host, "unreachable");
                    assert!(status["central"]["last_error"].is_string(), "{fault:?}: {status}");
                    let acknowledged = load.acknowledged();
                    eventually("clients go on", LIMIT, || (load.acknowledged() > acknowledged + 20).then_some(()));
                }
            }
            proxy.set(Mode::Pass);
            await_state(&host, "connected");
        }
    });
    host.await_synced();
    load.check_central(&server);
    check_ledger(&host, &server);
}

#[test]
fn slow_network_causes_no_error() {
    let (server, proxy, host) = behind_a_proxy();
    let load = Load::paced("slow");
    load.during(&host, || {
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        let slow = nudged(&host, "a push goes the slow way", || {
            host.status()["central"]["round_trip_ms"].as_f64().filter(|took| *took > 80.0)
        });
        assert!(slow < 10_000.0, "{slow}");
        assert_eq!(host.status()["central"]["state"], "connected");
        // So slow that no statement is answered in time.
        proxy.set(Mode::Delay(Duration::from_millis(700)));
        await_state(&host, "unreachable");
    });
    proxy.set(Mode::Pass);
    host.await_synced();
    load.check_central(&server);
    check_ledger(&host, &server);
}

#[test]
fn cut_after_commit_applies_the_batch_once() {
    let cuts = campaign(30, 600);
    let mut random = Random::from_clock("cuts at commit");
    let (server, proxy, host) = behind_a_proxy();
    let load = Load::paced("commits");
    load.during(&host, || {
        while proxy.commits_cut() < cuts {
            let before = proxy.commits_cut();
            // The first commit of a connection is the greeting's, the second the push's.
            proxy.set(Mode::CutAtCommit { pass: random.below(4) });
            nudged(&host, "a commit is cut off", || (proxy.commits_cut() > before).then_some(()));
            proxy.set(Mode::Pass);
            await_state(&host, "connected");
        }
    });
    host.await_synced();
    load.check_central(&server);
    check_ledger(&host, &server);
    println!("{} answers to a commit lost, {} changes acknowledged", proxy.commits_cut(), load.acknowledged());
}

#[test]
fn cut_at_any_byte_applies_the_batch_once() {
    let cuts = campaign(30, 600);
    let mut random = Random::from_clock("cuts at any byte");
    let (server, proxy, host) = behind_a_proxy();
    let load = Load::paced("bytes");
    load.during(&host, || {
        for _ in 0..cuts {
            let direction = if random.below(2) == 0 { Direction::ToCentral } else { Direction::FromCentral };
            let before = proxy.connections();
            proxy.set(Mode::CutAfter(direction, random.below(6000)));
            nudged(&host, "a connection breaks", || (proxy.connections() > before).then_some(()));
            proxy.set(Mode::Pass);
            await_state(&host, "connected");
        }
    });
    host.await_synced();
    load.check_central(&server);
    check_ledger(&host, &server);
}

/// The median of the time a heartbeat takes at the socket.
fn median_of_heartbeats(host: &Host, id: &str) -> Duration {
    let mut took: Vec<Duration> = (0..101)
        .map(|n| {
            let began = Instant::now();
            let answer =
                host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&json!({"context_percent": n % 100})));
            assert_eq!(answer.0, 200, "{}", answer.1);
            began.elapsed()
        })
        .collect();
    took.sort();
    took[took.len() / 2]
}

#[test]
fn socket_latency_is_independent_of_central() {
    let (_server, proxy, host) = behind_a_proxy();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    proxy.set(Mode::Refuse);
    await_state(&host, "unreachable");
    let refused = median_of_heartbeats(&host, &id);
    for mode in [Mode::Hang, Mode::HalfOpen, Mode::Delay(Duration::from_millis(50)), Mode::Pass] {
        proxy.set(mode);
        host.ask("POST", "/v1/sync", Some(&json!({})));
        let median = median_of_heartbeats(&host, &id);
        assert!(median <= refused * 3 + Duration::from_millis(10), "{mode:?}: {median:?}, refused: {refused:?}");
    }
}
