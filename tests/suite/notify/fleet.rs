//! Several daemons and a central: one of them tells.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

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
    let as_many = || (told(receiver).len() >= expected.len()).then_some(());
    eventually(&format!("{expected:?}"), Duration::from_secs(90), as_many);
    assert_eq!(told(receiver), expected);
}

#[test]
fn each_transition_is_told_once_though_hosts_come_and_go() {
    let server = Server::start(&[]);
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
    await_told(&receiver, &expected);

    // Their machine vanishes: another host tells, once.
    odin3.await_synced();
    odin3.kill();
    expected.push(format!("stale {first}"));
    await_told(&receiver, &expected);

    // Whichever of the two that are left had the lease of the fleet, the other takes over.
    let third = waiting_session(&laptop, &processes[2]);
    expected.push(format!("waiting {third}"));
    await_told(&receiver, &expected);
    odin4.await_synced();
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
