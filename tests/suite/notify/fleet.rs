//! Several daemons and a central: one of them sends.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

use super::receiver::Receiver;

/// A host with a rule, on which vanished machines are noticed soon.
fn host(machine: &str, url: &str, receiver: &Receiver) -> Host {
    let host = Host::new(machine);
    host.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\nconnect_timeout = \"2s\"\n\
         statement_timeout = \"2s\"\n[sessions]\nstale_after = \"20s\"\n\
         [[notify.rules]]\non = [\"waiting\", \"failed\", \"stale\"]\ndelay = \"0s\"\nwebhook = \"{}\"\n",
        receiver.url("/hook")
    ));
    host
}

/// A process that ends with the test: its session stays active without heartbeats.
struct Process(Child);

impl Process {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn waiting_session(host: &Host, process: &Process) -> String {
    let pid = process.0.id().to_string();
    let id = host.ok(&["register", "--project", "odin", "--pid", &pid, "--id-only"]).trim().to_owned();
    set(host, &id, "waiting");
    id
}

fn set(host: &Host, id: &str, activity: &str) {
    let (status, answer) =
        host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&json!({"activity": activity})));
    assert_eq!(status, 200, "{answer}");
}

fn sent(receiver: &Receiver) -> Vec<String> {
    let line = |body: &serde_json::Value| {
        format!("{} {}", body["occasion"].as_str().unwrap(), body["instance_id"].as_str().unwrap())
    };
    let mut told: Vec<_> = receiver.posted().iter().map(|posted| line(&posted.body)).collect();
    told.sort();
    told
}

fn await_sent(receiver: &Receiver, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort();
    let as_many = || (sent(receiver).len() >= expected.len()).then_some(());
    eventually(&format!("{expected:?}"), Duration::from_secs(90), as_many);
    assert_eq!(sent(receiver), expected);
}

#[test]
fn each_transition_is_sent_once_though_hosts_come_and_go() {
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
    let processes = [Process::start(), Process::start(), Process::start()];
    let (first, second) = (waiting_session(&odin3, &processes[0]), waiting_session(&odin4, &processes[1]));
    let mut expected = vec![format!("waiting {first}"), format!("waiting {second}")];
    await_sent(&receiver, &expected);

    // Their machine vanishes: another host sends, once.
    odin3.await_synced();
    odin3.kill();
    expected.push(format!("stale {first}"));
    await_sent(&receiver, &expected);

    // Without central each host sends what is about its own sessions, and no other host sends it again afterwards.
    server.stop(Stop::Fast);
    odin4.await_central("unreachable");
    laptop.await_central("unreachable");
    set(&odin4, &second, "failed");
    expected.push(format!("failed {second}"));
    await_sent(&receiver, &expected);
    server.resume();
    odin4.await_central("connected");
    laptop.await_central("connected");
    odin4.await_synced();

    // Whichever of the two that are left had the lease of the fleet, the other takes over.
    let third = waiting_session(&laptop, &processes[2]);
    expected.push(format!("waiting {third}"));
    await_sent(&receiver, &expected);
    odin4.await_synced();
    // A host that is killed before it shares what it sent is not known to have sent it.
    let shared = "SELECT count(*) FROM sessiond_leases \
        WHERE name LIKE 'notify:failed:%' AND expires_at > now() + interval '1 day'";
    eventually("what was sent without central is shared", Duration::from_secs(60), || {
        (server.psql("central", shared) == "1").then_some(())
    });
    odin4.kill();
    expected.push(format!("stale {second}"));
    await_sent(&receiver, &expected);
    odin3.start();
    odin3.await_central("connected");
    set(&laptop, &third, "failed");
    expected.push(format!("failed {third}"));
    await_sent(&receiver, &expected);
    assert_eq!(receiver.posted().len(), expected.len(), "{:?}", sent(&receiver));
}
