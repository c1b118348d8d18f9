//! The activity and the work of an agent's day, as the daemon shows them.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::discovery::started;
use testkit::agent::{Agent, id_in, repository, resolved};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);

fn session(host: &Host, id: &str) -> Value {
    let (status, body) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    assert_eq!(status, 200, "{id}: {body}");
    body
}

/// Activity, what it waits for, detail and source.
fn shown(session: &Value) -> String {
    let names = ["activity", "waiting_for", "activity_detail", "activity_source"];
    let parts = names.iter().filter_map(|name| session[*name].as_str());
    parts.collect::<Vec<_>>().join(" ")
}

fn expect(host: &Host, id: &str, expected: &str) {
    let mut last = Value::Null;
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(expected, SOON, || {
            last = session(host, id);
            (shown(&last) == expected).then_some(())
        });
    }));
    assert!(reached.is_ok(), "{}, not {expected}", shown(&last));
}

#[test]
fn activity_follows_each_step_of_a_day() {
    let host = Host::new("odin3").started();
    let mut agent = Agent::new(&repository(&host, "odin"), "u-1");
    let id = resolved(&host, &id_in(&agent.start(&host, "startup")));
    let running = json!([{"id": "t", "status": "running"}, {"id": "u", "status": "running"}]);
    for (event, more, expected) in [
        ("UserPromptSubmit", json!({"prompt": "Fix the login\nplease"}), "working hook"),
        ("PermissionRequest", json!({"tool_name": "Bash"}), "waiting permission Bash hook"),
        ("Notification", json!({"notification_type": "permission_prompt"}), "waiting permission Bash hook"),
        ("PostToolUse", json!({"tool_name": "Edit", "tool_input": {"file_path": "/w/a.rs"}}), "working hook"),
        ("Notification", json!({"notification_type": "permission_prompt"}), "working hook"),
        ("PreToolUse", json!({"tool_name": "AskUserQuestion"}), "waiting question hook"),
        ("PostToolUse", json!({"tool_name": "AskUserQuestion"}), "working hook"),
        ("PermissionRequest", json!({"tool_name": "ExitPlanMode"}), "waiting plan hook"),
        ("PostToolUse", json!({"tool_name": "ExitPlanMode"}), "working hook"),
        ("SubagentStart", json!({"agent_id": "sub"}), "working hook"),
        (
            "Stop",
            json!({"last_assistant_message": "Half.", "background_tasks": running}),
            "working 2 background tasks hook",
        ),
        ("SubagentStop", json!({"agent_id": "sub"}), "working 2 background tasks hook"),
        ("Stop", json!({"last_assistant_message": "Done.", "background_tasks": []}), "idle hook"),
        ("PostToolUse", json!({"tool_name": "Bash", "agent_id": "sub"}), "idle hook"),
        ("UserPromptSubmit", json!({"prompt": "Next"}), "working hook"),
        ("StopFailure", json!({"error": "rate_limit", "last_assistant_message": "429"}), "failed rate_limit hook"),
        ("PreCompact", json!({"trigger": "manual"}), "working hook"),
        ("PostCompact", json!({"trigger": "manual", "compact_summary": "what was done"}), "idle hook"),
        ("OfALaterVersion", json!({}), "idle hook"),
    ] {
        agent.hook(&host, event, more.clone());
        expect(&host, &id, expected);
    }
    let (_, work) = host.ask("GET", &format!("/v1/sessions/{id}/work"), None);
    let text = work.to_string();
    for known in ["Fix the login", "Next", "Done.", "what was done", "/w/a.rs", "rate_limit"] {
        assert!(text.contains(known), "{known}: {work:#}");
    }
    agent.kill();
    eventually("it is stale", SOON, || (session(&host, &id)["status"] == "stale").then_some(()));
    assert_eq!(shown(&session(&host, &id)), "", "nothing is claimed of a dead process");
}

#[test]
fn interrupt_is_settled_by_the_status_file() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let Some(start) = started(agent.pid()) else { return skip("interrupt_is_settled_by_the_status_file", "/proc") };
    let id = resolved(&host, &id_in(&agent.start(&host, "startup")));
    let folder = host.dir().join(".claude/sessions");
    fs::create_dir_all(&folder).unwrap();
    let write = |status: &str| {
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let file = json!({"pid": agent.pid(), "sessionId": "u-1", "procStart": start, "cwd": host.dir(),
            "kind": "interactive", "entrypoint": "cli", "status": status, "statusUpdatedAt": at});
        fs::write(folder.join(format!("{}.json", agent.pid())), file.to_string()).unwrap();
    };
    write("idle");
    agent.hook(&host, "UserPromptSubmit", json!({"prompt": "p"}));
    expect(&host, &id, "working hook");
    write("busy");
    agent.hook(&host, "PermissionRequest", json!({"tool_name": "Bash"}));
    expect(&host, &id, "waiting permission Bash hook");
    // The user refuses with Esc.
    std::thread::sleep(Duration::from_millis(5));
    write("idle");
    expect(&host, &id, "idle status_file");
}
