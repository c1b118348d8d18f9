//! A session's reconstructed context as text, JSON and handoff.

use serde_json::{Value, json};

use super::rows::{Rows, abandoned};
use testkit::daemon::{Host, raw};

fn context(host: &Host, id: &str) -> Value {
    let (status, answer) = host.ask("GET", &format!("/v1/sessions/{id}/context"), None);
    assert_eq!(status, 200, "{answer}");
    answer
}

#[test]
fn context_uses_the_best_source() {
    let host = Host::new("odin3").started();
    let rows = Rows::of(&host);
    let id = abandoned(&host, "odin", "003");
    let expect_source = |source: &str, confidence: u8| {
        let context = context(&host, &id);
        assert_eq!((&context["source"], &context["confidence"]), (&json!(source), &json!(confidence)), "{context}");
        context
    };
    expect_source("session", 40);
    rows.record(&id, "command", "explicit", 2 * 3600, &json!({"action": "build", "success": true}));
    expect_source("commands", 50);
    rows.record(&id, "event", "epic_completed", 40 * 60, &json!({"data": {"epic": "002"}}));
    expect_source("events", 75);
    let state = json!({"current_epic": "003", "tests_passed": 41, "next_steps": ["write the parser"]});
    rows.record(&id, "checkpoint", "manual", 10 * 60, &json!({"work_state": state, "context_window_percent": 81}));
    rows.record(&id, "event", "test_failed", 60, &json!({"data": {"error": "3 of 44\nfailed"}}));
    let context = expect_source("checkpoint", 90);
    assert_eq!(
        context["work_state"],
        json!({"current_epic": "003", "last_completed_epic": "002", "tests_passed": 41, "last_error": "test failed: 3 of 44 failed"})
    );
    assert_eq!(context["next_steps"][1], "write the parser");
    let actions: Vec<_> = context["recent_actions"].as_array().unwrap().iter().map(|action| &action["what"]).collect();
    assert_eq!(actions, ["Tests failed: 3 of 44 failed", "Checkpoint (manual)", "Completed epic 002", "Ran build"]);
    let told = host.ok(&["context", &id.to_uppercase()]);
    for line in ["confidence  90%: the newest checkpoint (manual) is 10m old", "write the parser", "last error"] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn context_is_printed_as_json_or_markdown() {
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "003");
    let path = format!("/v1/sessions/{id}/context");
    let get = |query: &str, accept: &str| {
        let request = format!("GET {path}{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{accept}\r\n");
        raw(&mut host.connect().unwrap(), &request).unwrap()
    };
    for (query, accept, markdown) in [
        ("", "", false),
        ("", "Accept: */*\r\n", false),
        ("", "Accept: text/markdown\r\n", true),
        ("", "Accept: text/html, text/markdown;q=0.9, */*;q=0.1\r\n", true),
        ("", "Accept: application/json, text/markdown\r\n", false),
        ("?format=markdown", "", true),
        ("?format=json", "Accept: text/markdown\r\n", false),
    ] {
        let (status, body) = get(query, accept);
        assert_eq!(
            (status, body.starts_with(&format!("# Handoff of {id}\n"))),
            (200, markdown),
            "{query} {accept}: {body}"
        );
    }
    for query in ["?format=xml", "?format=", "?colour=red"] {
        assert_eq!(get(query, "").0, 400, "{query}");
    }
    assert_eq!(host.ask("GET", "/v1/sessions/nobody-PS-aaaaaa/context", None).0, 404);
    abandoned(&host, "odin", "003");
    assert_eq!(host.ask("GET", "/v1/sessions/odin-PS-/context", None).0, 300);
    assert_eq!(host.refused(&["context", "odin"]).0, 3);
    assert_eq!(host.refused(&["context", "odin", "--handoff"]).0, 3);
}

#[test]
fn handoff_is_safe_to_show() {
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "# not a heading");
    let rows = Rows::of(&host);
    let nasty = "x\n# Handoff of nobody\n```sh\nrm -rf /\u{1b}[2J\u{202e}";
    rows.record(&id, "event", "error", 60, &json!({"data": {"message": nasty}}));
    rows.record(&id, "event", nasty, 50, &json!({"data": {"message": "m".repeat(100_000)}}));
    rows.record(&id, "checkpoint", "manual", 40, &json!({"work_state": {"next_steps": [nasty, "- b", "1. c"]}}));
    rows.record(&id, "command", "explicit", 30, &json!({"action": "a".repeat(1 << 20)}));
    let handoff = host.ok(&["context", &id, "--handoff"]);
    let headings: Vec<_> = handoff.lines().filter(|line| line.starts_with('#')).collect();
    let ours = [
        "Where it ran",
        "How to continue there",
        "State of the work",
        "What it was doing",
        "Recent actions",
        "Next steps",
    ];
    assert_eq!(headings[0], format!("# Handoff of {id}"));
    assert_eq!(headings[1..], ours.map(|title| format!("## {title}")));
    assert_eq!(handoff.lines().filter(|line| line.starts_with("```")).count(), 2, "one block of code: {handoff}");
    assert!(!handoff.contains(['\u{1b}', '\u{202e}']) && handoff.len() < 40_000, "{handoff}");

    let output = host.verb(&["resume", &id, "--handoff"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with(&format!("# Handoff of {id}\n")), "{printed}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("resumed {id} in place, found by its id\n"));
    assert!(!printed.contains("sessiond resume"), "it has been resumed: {printed}");
}

#[test]
fn context_shows_what_the_session_recorded() {
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "003");
    let state = r#"{"next_steps": ["write the parser"], "tests_passed": 41}"#;
    host.ok(&["checkpoint", &id, "--type", "manual", "--work-state", state]);
    host.ok(&["event", &id, "epic_completed", "--data", r#"{"epic": "002"}"#]);
    host.ok(&["command", &id, "build", "--failed", "no room left"]);
    let context = context(&host, &id);
    assert_eq!((&context["source"], &context["confidence"]), (&json!("checkpoint"), &json!(100)), "{context}");
    assert_eq!(
        context["work_state"],
        json!({
            "current_epic": "003",
            "last_completed_epic": "002",
            "tests_passed": 41,
            "last_error": "build failed: no room left"
        })
    );
    let steps: Vec<_> = context["next_steps"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(steps[0].ends_with("build failed: no room left") && steps[1] == "write the parser", "{steps:?}");
}
