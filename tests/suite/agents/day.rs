//! A recorded day of an agent, played through its hooks and its status line.

use std::time::Duration;

use serde_json::{Value, json};

use testkit::agent::{Agent, id_in, repository, resolved};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

const SOON: Duration = Duration::from_secs(20);

fn session(host: &Host, id: &str) -> Value {
    let (status, body) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    assert_eq!(status, 200, "{id}: {body}");
    body
}

fn await_status(host: &Host, id: &str, status: &str) {
    eventually(&format!("{id} is {status}"), SOON, || (session(host, id)["status"] == status).then_some(()));
}

/// The sessions that the host lists: id, project, status, context, claude_session_uuid.
fn listed(host: &Host) -> Vec<[String; 5]> {
    let list = host.ask("GET", "/v1/sessions", None).1;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut found: Vec<_> = list["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            ["instance_id", "project", "status", "context_percent", "claude_session_uuid"].map(|name| text(&s[name]))
        })
        .collect();
    found.sort();
    found
}

/// The first half of a day; the daemon may not run. Returns the three ids and the agents that still run.
fn morning(host: &Host) -> ([String; 3], Agent, Agent) {
    let (odin, tyr) = (repository(host, "odin"), repository(host, "Tyr App"));

    // A session in the first project, cleared, compacted, quit.
    let mut first = Agent::new(&odin, "u-first-1");
    let id_in = |text: &str| resolved(host, &id_in(text));
    let one = id_in(&first.start(host, "startup"));
    assert!(one.starts_with("odin-PS-"), "{one}");
    first.hook(host, "UserPromptSubmit", json!({"prompt": "begin"}));
    let footer = |agent: &Agent, used: Value, expected: &str| {
        eventually(expected, SOON, || agent.statusline(host, used.clone()).starts_with(expected).then_some(()));
    };
    footer(&first, json!(12.4), &format!("Instance: {one}@odin3 | Epic: — | Context: 12% | Active: 0h"));
    assert_eq!(id_in(&first.clear(host, "u-first-2")), one, "a clear keeps the instance id");
    first.hook(host, "PreCompact", json!({"trigger": "auto", "custom_instructions": ""}));
    assert_eq!(id_in(&first.start(host, "compact")), one, "a compact keeps the instance id");
    first.hook(host, "PostCompact", json!({"trigger": "auto", "compact_summary": "what was done"}));
    // A conversation that was cleared is empty, and null leaves that as it is.
    footer(&first, Value::Null, &format!("Instance: {one}@odin3 | Epic: — | Context: 0%"));
    first.quit(host);

    // One in the second project, which keeps running.
    let second = Agent::new(&tyr, "u-second-1");
    let two = id_in(&second.start(host, "startup"));
    assert!(two.starts_with("tyr-app-PS-"), "{two}");
    second.hook(host, "Stop", json!({"stop_hook_active": false, "last_assistant_message": "done"}));
    second.statusline(host, json!(55.5));

    // Another one in the first project at the same time, whose hooks were not there when it began.
    let third = Agent::new(&odin, "u-third-1");
    let line = third.statusline(host, json!(3));
    let three = id_in(line.split('@').next().unwrap());
    assert_ne!(three, one);
    third.hook(host, "Notification", json!({"message": "m", "notification_type": "idle_prompt"}));
    ([one, two, three], second, third)
}

#[test]
fn agent_day_yields_exactly_its_sessions() {
    a_day(true);
}

#[test]
fn agent_day_is_recorded_though_the_daemon_starts_at_noon() {
    a_day(false);
}

fn a_day(daemon_is_up_in_the_morning: bool) {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let mut host = Host::with_central("odin3", &url).environment("HOST_MACHINE", "odin3");
    host.ok(&["migrate", "--central-url", &url]);
    if daemon_is_up_in_the_morning {
        host.start();
    }
    let ([one, two, three], mut second, mut third) = morning(&host);
    if !daemon_is_up_in_the_morning {
        host.start();
        host.status();
        let left: Vec<_> = std::fs::read_dir(host.state_dir().join("spool")).unwrap().flatten().collect();
        assert!(left.is_empty(), "all of it is taken in before anybody is served: {left:?}\n{}", host.log());
    }
    await_status(&host, &one, "closed");
    await_status(&host, &two, "active");
    await_status(&host, &three, "active");
    assert_eq!(session(&host, &one)["claude_session_uuid"], "u-first-2");
    assert_eq!(session(&host, &two)["context_percent"], 56);
    assert_eq!(listed(&host).len(), 3, "{:?}", listed(&host));

    // Each compact left its checkpoint and its event, once.
    let history = |route: &str| host.ask("GET", &format!("/v1/sessions/{one}/{route}"), None).1;
    eventually("compacting is in the history", SOON, || {
        let (checkpoints, events) = (history("checkpoints"), history("events?type=context_window_updated"));
        let state = &checkpoints["checkpoints"][0]["work_state"];
        let data = &events["events"][0]["event_data"];
        (state["trigger"] == "auto" && data["compact_summary"] == "what was done").then(|| {
            assert_eq!(checkpoints["checkpoints"].as_array().unwrap().len(), 1, "{checkpoints}");
            assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");
        })
    });

    // kill -9: the session is stale at once, and is resumed by a new process.
    second.kill();
    await_status(&host, &two, "stale");
    let mut second = second.again("u-second-1");
    let id_in = |text: &str| resolved(&host, &id_in(text));
    let mut told = String::new();
    // If the daemon was too busy to answer in time, the next resume reports it.
    eventually("the context comes with a resume", SOON, || {
        told = second.start(&host, "resume");
        told.contains("# Handoff of").then_some(())
    });
    assert_eq!(id_in(&told), two, "a resume keeps the instance id");
    await_status(&host, &two, "active");

    // What was closed stays closed: a resume of it is another session, that knows where it comes from.
    let odin = repository(&host, "odin");
    let first = Agent::new(&odin, "u-first-2");
    let four = id_in(&first.start(&host, "resume"));
    assert_ne!(four, one);
    assert_eq!(session(&host, &four)["resumed_from"], one.as_str());

    let id_in = testkit::agent::id_in;
    // The machine goes down with everything on it, and comes up again.
    host.kill();
    second.kill();
    third.kill();
    drop(first);
    host.start();
    for id in [&two, &three, &four] {
        await_status(&host, id, "stale");
    }
    let third = third.again("u-third-1");
    assert_eq!(resolved(&host, &id_in(&third.start(&host, "resume"))), three);
    third.statusline(&host, json!(9.6));
    third.hook(&host, "SessionEnd", json!({"reason": "logout"}));
    // Late words of a process that is about to end.
    third.hook(&host, "Stop", json!({}));
    third.statusline(&host, json!(11));

    let row = |id: &String, project: &str, status: &str, percent: &str, uuid: &str| {
        [id.clone(), project.into(), status.into(), percent.into(), uuid.into()]
    };
    let mut expected = vec![
        row(&one, "odin", "closed", "0", "u-first-2"),
        row(&two, "tyr-app", "stale", "56", "u-second-1"),
        row(&three, "odin", "closed", "10", "u-third-1"),
        row(&four, "odin", "stale", "0", "u-first-2"),
    ];
    expected.sort();
    assert_eq!(listed(&host), expected);
    host.await_synced();
    let rows = server.psql(
        "central",
        "SELECT instance_id || ' ' || project || ' ' || status || ' ' || context_percent || ' ' || claude_session_uuid \
         FROM supervisor_sessions ORDER BY instance_id COLLATE \"C\"",
    );
    let central: Vec<_> = rows.lines().map(str::to_owned).collect();
    assert_eq!(central, expected.iter().map(|row| row.join(" ")).collect::<Vec<_>>());
}
