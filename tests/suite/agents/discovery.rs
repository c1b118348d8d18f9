//! Agents that run, and of whom no hook tells.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::{Agent, repository};
use crate::support::daemon::Host;
use crate::support::eventually;

const SOON: Duration = Duration::from_secs(20);

fn sessions(host: &Host) -> Vec<Value> {
    host.ask("GET", "/v1/sessions", None).1["instances"].as_array().unwrap().clone()
}

/// When a process started: field 22 of its stat.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned())
}

/// Writes the file in which a running agent tells of itself.
fn tell(host: &Host, pid: u32, session_id: &str, started: &Value, cwd: &Value) {
    let folder = host.dir().join(".claude/sessions");
    fs::create_dir_all(&folder).unwrap();
    let text =
        json!({"pid": pid, "sessionId": session_id, "procStart": started, "status": "busy", "cwd": cwd}).to_string();
    fs::write(folder.join(format!("{pid}.json")), text).unwrap();
}

#[test]
fn an_agent_is_found_once_whoever_comes_first() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let (first, second) = (Agent::new(&folder, "u-1"), Agent::new(&folder, "u-2"));
    let Some(start) = started(first.pid()) else {
        return println!("skipped: an_agent_is_found_once_whoever_comes_first needs /proc");
    };

    // Found first, then announced.
    tell(&host, first.pid(), "u-1", &json!(start), &json!(folder));
    let found = eventually("it is found", SOON, || sessions(&host).into_iter().next());
    assert_eq!(
        (&found["project"], &found["claude_session_uuid"], &found["status"]),
        (&json!("odin"), &json!("u-1"), &json!("active"))
    );
    assert!(found["claude_session_path"].as_str().unwrap().ends_with("/u-1.jsonl"), "{found}");
    first.start(&host, "startup");

    // Announced first, then found.
    second.start(&host, "startup");
    tell(&host, second.pid(), "u-2", &json!(started(second.pid()).unwrap().parse::<i64>().unwrap()), &json!(folder));
    // A third shows that the second was looked at.
    let mut third = Agent::new(&repository(&host, "tyr"), "u-3");
    tell(&host, third.pid(), "u-3", &Value::Null, &json!(repository(&host, "tyr")));
    let id = eventually("the third is found", SOON, || {
        sessions(&host).into_iter().find(|s| s["claude_session_uuid"] == "u-3")
    })["instance_id"]
        .clone();
    assert_eq!(sessions(&host).len(), 3, "{:#?}", sessions(&host));

    // A clear changes the file; what belongs to the process stays with it.
    tell(&host, third.pid(), "u-3b", &json!(started(third.pid()).unwrap()), &json!(repository(&host, "tyr")));
    eventually("its new session id is noted", SOON, || {
        sessions(&host).iter().any(|s| s["instance_id"] == id && s["claude_session_uuid"] == "u-3b").then_some(())
    });
    third.kill();
    eventually("it is stale", SOON, || {
        sessions(&host).iter().any(|s| s["instance_id"] == id && s["status"] == "stale").then_some(())
    });
    assert_eq!(sessions(&host).len(), 3);

    // Its end is not undone by a file that lies there for a moment longer.
    first.hook(&host, "SessionEnd", json!({"reason": "other"}));
    tell(&host, first.pid(), "u-1", &json!(start), &json!(host.dir()));
    let fourth = Agent::new(&folder, "u-4");
    tell(&host, fourth.pid(), "u-4", &json!(started(fourth.pid()).unwrap()), &json!(folder));
    eventually("the fourth is found", SOON, || (sessions(&host).len() == 4).then_some(()));
    assert_eq!(sessions(&host).iter().filter(|s| s["status"] == "closed").count(), 1);
}

#[test]
fn files_left_by_dead_processes_and_broken_ones_are_no_sessions() {
    let host = Host::new("odin3");
    let folder = repository(&host, "odin");
    let mut dead = Agent::new(&folder, "u-dead");
    let lives = Agent::new(&folder, "u-lives");
    let reused = Agent::new(&folder, "u-reused");
    if started(dead.pid()).is_none() {
        return println!("skipped: files_left_by_dead_processes_and_broken_ones_are_no_sessions needs /proc");
    }
    tell(&host, dead.pid(), "u-dead", &json!(started(dead.pid()).unwrap()), &json!(folder));
    dead.kill();
    tell(&host, reused.pid(), "u-reused", &json!("1"), &json!(folder));
    fs::write(host.dir().join(".claude/sessions/7.json"), "{\"pid\": ").unwrap();
    tell(&host, lives.pid(), "u-lives", &json!(started(lives.pid()).unwrap()), &Value::Null);
    let host = host.started();
    eventually("the one that lives is found", SOON, || (!sessions(&host).is_empty()).then_some(()));
    let found = sessions(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["claude_session_uuid"], "u-lives");
}

#[test]
fn who_does_not_want_it_is_left_alone() {
    let host = Host::new("odin3");
    host.configure("[claude]\nwatch = false\n");
    let host = host.started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    tell(&host, agent.pid(), "u-1", &Value::Null, &Value::Null);
    host.ok(&["register", "--project", "other"]);
    assert_eq!(sessions(&host).len(), 1);
    host.configure("[claude]\nwatch = true\n");
    eventually("it is found once that is wanted", SOON, || (sessions(&host).len() == 2).then_some(()));
}
