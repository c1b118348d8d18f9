//! Several daemons and a central: one of them tells.

use serde_json::json;
use std::time::Duration;
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

use super::receiver::Receiver;

/// A host with a rule, on which vanished machines are noticed soon.
fn host(machine: &str, url: &str, receiver: &Receiver) -> Host {
    let host = Host::new(machine);
    host.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\nconnect_timeout = \"2s\"\n\
         statement_timeout = \"2s\"\n[sessions]\nstale_after = \"8s\"\n\
         [[notify.rules]]\non = [\"waiting\", \"failed\", \"stale\"]\ndelay = \"0s\"\nwebhook = \"{}\"\n",
        receiver.url("/hook")
    ));
    host
}

fn waiting_session(host: &Host) -> String {
    let id = host.ok(&["register", "--project", "odin", "--id-only"]).trim().to_owned();
    set(host, &id, "waiting");
    id
}

fn set(host: &Host, id: &str, activity: &str) {
    let (status, answer) =
        host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&json!({"activity": activity})));
    assert_eq!(status, 200, "{answer}");
}

fn told(receiver: &Receiver) -> Vec<String> {
    let line = |body: &serde_json::Value| {
        format!("{} {}", body["occasion"].as_str().unwrap(), body["instance_id"].as_str().unwrap())
    };
    let mut told: Vec<_> = receiver.posted().iter().map(|posted| line(&posted.body)).collect();
    told.sort();
    told
}

fn await_told(receiver: &Receiver, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort();
    eventually(&format!("{expected:?}"), Duration::from_secs(90), || (told(receiver) == expected).then_some(()));
}

#[test]
fn each_transition_is_told_once_though_hosts_come_and_go() {
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let receiver = Receiver::start(&[]);
    let odin3 = host("odin3", &url, &receiver);
    odin3.ok(&["migrate", "--central-url", &url]);
    let (mut odin3, mut odin4, laptop) =
        (odin3.started(), host("odin4", &url, &receiver).started(), host("laptop", &url, &receiver).started());
    for host in [&odin3, &odin4, &laptop] {
        host.await_central("connected");
    }
    let (first, second) = (waiting_session(&odin3), waiting_session(&odin4));
    let mut expected = vec![format!("waiting {first}"), format!("waiting {second}")];
    await_told(&receiver, &expected);

    // Their machine vanishes: another host tells, once.
    odin3.kill();
    expected.push(format!("stale {first}"));
    await_told(&receiver, &expected);

    // Without central each host tells of its own sessions, and nobody tells again afterwards.
    server.stop(Stop::Fast);
    odin4.await_central("unreachable");
    laptop.await_central("unreachable");
    set(&odin4, &second, "failed");
    expected.push(format!("failed {second}"));
    await_told(&receiver, &expected);
    server.resume();
    odin4.await_central("connected");
    laptop.await_central("connected");
    odin4.await_synced();

    // Whichever of the two that are left had the lease of the fleet, the other takes over.
    let third = waiting_session(&laptop);
    expected.push(format!("waiting {third}"));
    await_told(&receiver, &expected);
    odin4.kill();
    expected.push(format!("stale {second}"));
    await_told(&receiver, &expected);
    odin3.start();
    odin3.await_central("connected");
    set(&laptop, &third, "failed");
    expected.push(format!("failed {third}"));
    await_told(&receiver, &expected);
    assert_eq!(receiver.posted().len(), expected.len(), "{:?}", told(&receiver));
}
