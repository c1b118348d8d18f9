//! `sessiond discover`: agents are reported by their user to a daemon that cannot read the user's home.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::discovery::{sessions, started, write_agent_file};
use testkit::agent::{Agent, repository};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(30);

/// A daemon that reads no home, as the system's service.
fn without_home() -> Host {
    let host = Host::new("odin3");
    host.configure("[claude]\nwatch = false\n");
    host.started()
}

/// `discover --watch`, which ends with the test.
struct Watching(Child);

impl Watching {
    fn start(host: &Host) -> Self {
        let mut command = host.sessiond();
        command.args(["discover", "--watch"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn await_status(host: &Host, status: &str) -> Value {
    eventually(status, SOON, || sessions(host).into_iter().find(|session| session["status"] == status))
}

#[test]
fn discover_reports_each_running_agent_once() {
    let host = without_home();
    let mut agent = Agent::new(&repository(&host, "odin"), "u-1");
    let Some(start) = started(agent.pid()) else {
        return skip("discover_reports_each_running_agent_once", "/proc");
    };
    assert_eq!(host.ok(&["discover"]).lines().count(), 1, "it prints that none runs");
    assert_eq!(sessions(&host).len(), 0);

    write_agent_file(&host, agent.pid(), "u-1", &json!(start), &json!(repository(&host, "odin")));
    let dead = host.dir().join(".claude/sessions/7.json");
    fs::write(&dead, json!({"pid": 2_147_483_647, "sessionId": "u-7", "status": "busy"}).to_string()).unwrap();
    let printed = host.ok(&["discover"]);
    assert!(printed.starts_with("odin-PS-") && printed.ends_with(" registered"), "{printed}");
    assert!(host.ok(&["discover"]).ends_with(" known"));
    let found = sessions(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (&found[0]["project"], &found[0]["claude_session_uuid"], &found[0]["status"]),
        (&json!("odin"), &json!("u-1"), &json!("active"))
    );
    agent.kill();
    await_status(&host, "stale");
}

#[test]
fn discover_watch_reports_agents_as_they_start_and_end() {
    let mut host = without_home();
    let mut agent = Agent::new(&repository(&host, "odin"), "u-1");
    let Some(start) = started(agent.pid()) else {
        return skip("discover_watch_reports_agents_as_they_start_and_end", "/proc");
    };
    host.stop();
    let watching = Watching::start(&host);
    write_agent_file(&host, agent.pid(), "u-1", &json!(start), &json!(repository(&host, "odin")));
    // The daemon starts after the helper, which reports until it is answered.
    host.start();
    await_status(&host, "active");
    fs::remove_file(host.dir().join(format!(".claude/sessions/{}.json", agent.pid()))).unwrap();
    agent.kill();
    eventually("an agent that ended in order is closed", SOON, || {
        let all = host.ask("GET", "/v1/sessions?all=true", None).1;
        (all["instances"][0]["status"] == "closed").then_some(())
    });
    drop(watching);
}

#[test]
fn found_and_exited_are_believed_only_as_far_as_the_process_shows_it() {
    let host = without_home();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let Some(start) = started(agent.pid()).and_then(|start| start.parse::<i64>().ok()) else {
        return skip("found_and_exited_are_believed_only_as_far_as_the_process_shows_it", "/proc");
    };
    let report = |sign: &str, more: Value| {
        let mut body = json!({"sign": sign, "claude_session_uuid": "u-1", "project": "odin"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        host.ask("POST", "/v1/agents", Some(&body)).0
    };
    assert_eq!(report("found", json!({})), 400, "no process");
    assert_eq!(report("found", json!({"pid": 2_147_483_647})), 400, "a process that does not run");
    assert_eq!(report("found", json!({"pid": agent.pid(), "pid_started": start + 1})), 400, "another process");
    assert_eq!(sessions(&host).len(), 0);
    assert_eq!(report("found", json!({"pid": agent.pid(), "pid_started": start})), 201);
    assert_eq!(report("exited", json!({"pid": agent.pid()})), 400, "which process is not said");
    assert_eq!(report("exited", json!({"pid": agent.pid(), "pid_started": start})), 400, "it runs");
    assert_eq!(report("exited", json!({"pid": agent.pid(), "pid_started": start + 1})), 200);
    assert_eq!(sessions(&host)[0]["status"], "active", "another process of that pid ended, not the session's");
}
