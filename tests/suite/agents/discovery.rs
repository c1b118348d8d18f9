//! Discovery of running agents that report by no hook.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::agent::{Agent, feed, repository};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);

pub fn sessions(host: &Host) -> Vec<Value> {
    host.ask("GET", "/v1/sessions", None).1["instances"].as_array().unwrap().clone()
}

/// When a process started: field 22 of its stat.
pub fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned())
}

/// Writes the file in which a running agent describes itself.
pub fn write_agent_file(host: &Host, pid: u32, session_id: &str, started: &Value, cwd: &Value) {
    let folder = host.dir().join(".claude/sessions");
    fs::create_dir_all(&folder).unwrap();
    let text =
        json!({"pid": pid, "sessionId": session_id, "procStart": started, "status": "busy", "cwd": cwd}).to_string();
    fs::write(folder.join(format!("{pid}.json")), text).unwrap();
}

#[test]
fn agent_is_recorded_once_by_hook_and_discovery() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let (first, second) = (Agent::new(&folder, "u-1"), Agent::new(&folder, "u-2"));
    let Some(start) = started(first.pid()) else {
        return skip("agent_is_recorded_once_by_hook_and_discovery", "/proc");
    };

    // Found first, then announced.
    write_agent_file(&host, first.pid(), "u-1", &json!(start), &json!(folder));
    let found = eventually("it is found", SOON, || sessions(&host).into_iter().next());
    assert_eq!(
        (&found["project"], &found["claude_session_uuid"], &found["status"]),
        (&json!("odin"), &json!("u-1"), &json!("active"))
    );
    assert!(found["claude_session_path"].as_str().unwrap().ends_with("/u-1.jsonl"), "{found}");
    first.start(&host, "startup");

    // Announced first, then found.
    second.start(&host, "startup");
    write_agent_file(
        &host,
        second.pid(),
        "u-2",
        &json!(started(second.pid()).unwrap().parse::<i64>().unwrap()),
        &json!(folder),
    );
    // A third shows that the second was looked at.
    let mut third = Agent::new(&repository(&host, "tyr"), "u-3");
    write_agent_file(&host, third.pid(), "u-3", &Value::Null, &json!(repository(&host, "tyr")));
    let id = eventually("the third is found", SOON, || {
        sessions(&host).into_iter().find(|s| s["claude_session_uuid"] == "u-3")
    })["instance_id"]
        .clone();
    assert_eq!(sessions(&host).len(), 3, "{:#?}", sessions(&host));

    // A clear changes the file; what belongs to the process stays with it.
    write_agent_file(
        &host,
        third.pid(),
        "u-3b",
        &json!(started(third.pid()).unwrap()),
        &json!(repository(&host, "tyr")),
    );
    eventually("its new session id is noted", SOON, || {
        sessions(&host).iter().any(|s| s["instance_id"] == id && s["claude_session_uuid"] == "u-3b").then_some(())
    });
    third.kill();
    eventually("it is stale", SOON, || {
        sessions(&host).iter().any(|s| s["instance_id"] == id && s["status"] == "stale").then_some(())
    });
    assert_eq!(sessions(&host).len(), 3);

    // A file that stays a little longer does not undo its end.
    first.hook(&host, "SessionEnd", json!({"reason": "other"}));
    write_agent_file(&host, first.pid(), "u-1", &json!(start), &json!(host.dir()));
    let fourth = Agent::new(&folder, "u-4");
    write_agent_file(&host, fourth.pid(), "u-4", &json!(started(fourth.pid()).unwrap()), &json!(folder));
    eventually("the fourth is found", SOON, || (sessions(&host).len() == 4).then_some(()));
    assert_eq!(sessions(&host).iter().filter(|s| s["status"] == "closed").count(), 1);
}

#[test]
fn stale_and_invalid_files_create_no_sessions() {
    let host = Host::new("odin3");
    let folder = repository(&host, "odin");
    let mut dead = Agent::new(&folder, "u-dead");
    let lives = Agent::new(&folder, "u-lives");
    let reused = Agent::new(&folder, "u-reused");
    if started(dead.pid()).is_none() {
        return skip("stale_and_invalid_files_create_no_sessions", "/proc");
    }
    write_agent_file(&host, dead.pid(), "u-dead", &json!(started(dead.pid()).unwrap()), &json!(folder));
    dead.kill();
    write_agent_file(&host, reused.pid(), "u-reused", &json!("1"), &json!(folder));
    fs::write(host.dir().join(".claude/sessions/7.json"), "{\"pid\": ").unwrap();
    write_agent_file(&host, lives.pid(), "u-lives", &json!(started(lives.pid()).unwrap()), &Value::Null);
    let host = host.started();
    eventually("the one that lives is found", SOON, || (!sessions(&host).is_empty()).then_some(()));
    let found = sessions(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["claude_session_uuid"], "u-lives");
}

#[test]
fn disabled_discovery_records_no_agent() {
    let host = Host::new("odin3");
    host.configure("[claude]\nwatch = false\n");
    let host = host.started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    write_agent_file(&host, agent.pid(), "u-1", &Value::Null, &Value::Null);
    host.ok(&["register", "--project", "other"]);
    assert_eq!(sessions(&host).len(), 1);
    host.configure("[claude]\nwatch = true\n");
    eventually("it is found once that is wanted", SOON, || (sessions(&host).len() == 2).then_some(()));
}

/// The file of a running agent, with what else it says.
fn describe(host: &Host, agent: &Agent, more: &Value) {
    let folder = host.dir().join(".claude/sessions");
    fs::create_dir_all(&folder).unwrap();
    let mut file = json!({"pid": agent.pid(), "sessionId": agent.uuid, "procStart": started(agent.pid()),
        "status": "idle", "cwd": host.dir()});
    file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fs::write(folder.join(format!("{}.json", agent.pid())), file.to_string()).unwrap();
}

fn status(host: &Host, uuid: &str) -> Value {
    sessions(host).iter().find(|s| s["claude_session_uuid"] == uuid).map_or(Value::Null, |s| s["status"].clone())
}

fn await_status(host: &Host, uuid: &str, expected: &str) {
    eventually(&format!("{uuid} is {expected}"), SOON, || (status(host, uuid) == expected).then_some(()));
}

#[test]
fn agent_without_hooks_that_removes_its_file_is_closed_and_a_killed_one_stale() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let [mut quits, mut killed, mut told, mut marker, mut last] =
        ["u-quits", "u-killed", "u-told", "u-marker", "u-last"].map(|uuid| Agent::new(&folder, uuid));
    if started(quits.pid()).is_none() {
        return skip("agent_without_hooks_that_removes_its_file_is_closed", "/proc");
    }
    for agent in [&quits, &killed, &told, &marker, &last] {
        describe(&host, agent, &json!({"kind": "interactive", "entrypoint": "cli"}));
        await_status(&host, &agent.uuid, "active");
    }
    let remove = |agent: &Agent| fs::remove_file(host.dir().join(format!(".claude/sessions/{}.json", agent.pid())));
    remove(&quits).unwrap();
    quits.kill();
    await_status(&host, "u-quits", "closed");
    // What a hook said about the end counts.
    let mut hook = host.sessiond();
    hook.args(["hook", "SessionEnd"]).env("CLAUDE_PID", told.pid().to_string()).env("CLAUDE_CODE_ENTRYPOINT", "cli");
    feed(hook, told.json("SessionEnd", &json!({"reason": "other"})).to_string().as_bytes());
    await_status(&host, "u-told", "stale");
    remove(&told).unwrap();
    told.kill();
    killed.kill();
    await_status(&host, "u-killed", "stale");
    // What comes after shows that the end was seen. Then the next start of an agent removes files of dead processes.
    for agent in [&mut marker, &mut last] {
        remove(agent).unwrap();
        agent.kill();
        await_status(&host, &agent.uuid, "closed");
        let _ = remove(&killed);
    }
    assert_eq!((status(&host, "u-told"), status(&host, "u-killed")), (json!("stale"), json!("stale")));
}

#[test]
fn background_session_ends_with_its_job() {
    let host = Host::new("odin3").started();
    let mut agent = Agent::new(&repository(&host, "odin"), "u-job");
    if started(agent.pid()).is_none() {
        return skip("background_session_ends_with_its_job", "/proc");
    }
    let job = host.dir().join(".claude/jobs/fddf4009");
    fs::create_dir_all(&job).unwrap();
    let state = |state: &str| fs::write(job.join("state.json"), json!({"state": state}).to_string()).unwrap();
    let more = json!({"kind": "bg", "entrypoint": "cli", "jobId": "fddf4009"});
    state("working");
    describe(&host, &agent, &more);
    await_status(&host, "u-job", "active");
    state("crashed");
    agent.kill();
    await_status(&host, "u-job", "stale");
    let mut again = agent.again("u-job");
    state("running");
    describe(&host, &again, &more);
    await_status(&host, "u-job", "active");
    fs::remove_file(host.dir().join(format!(".claude/sessions/{}.json", again.pid()))).unwrap();
    again.kill();
    await_status(&host, "u-job", "stale");
    state("stopped");
    await_status(&host, "u-job", "closed");
    assert_eq!(sessions(&host).len(), 1);
}

#[test]
fn fifo_among_the_files_hangs_nothing() {
    let host = Host::new("odin3");
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let folder = host.dir().join(".claude/sessions");
    fs::create_dir_all(&folder).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("1.json"), mode).unwrap();
    let host = host.started();
    describe(&host, &agent, &json!({}));
    await_status(&host, "u-1", "active");
}
