//! Events, commands and checkpoints: from the socket and the verbs, with and without a central.

use serde_json::{Value, json};

use testkit::chronicle::listed;
use testkit::daemon::Host;
use testkit::postgres::Server;
use testkit::{newer_legacy_history, old_central};

fn add(host: &Host, session: &str, route: &str, body: &Value) -> Value {
    let (status, answer) = host.ask("POST", &format!("/v1/sessions/{session}/{route}"), Some(body));
    assert_eq!(status, 201, "{answer}");
    answer
}

#[test]
fn records_are_stored_and_redacted_without_central() {
    let mut host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--context", "12", "--id-only"]);
    let event = host.ok(&[
        "event",
        &id,
        "anything_goes",
        "--data",
        r#"{"Text": "Ä \"quote\"", "password": "hunter2"}"#,
        "--json",
    ]);
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["event_data"], json!({"Text": "Ä \"quote\"", "password": "[redacted]"}));
    assert_eq!((&event["synced"], &event["parked"]), (&json!(false), &json!(false)));
    let parent = event["event_id"].as_str().unwrap();
    host.ok(&["event", &id, "error", "--parent", parent]);
    host.ok(&[
        "command",
        &id,
        "push",
        "--tool",
        "Bash",
        "--parameters",
        r#"{"command": "curl -H 'Authorization: Bearer abcdef1234'"}"#,
        "--failed",
        "postgres://me:hunter2@db refused",
        "--took",
        "12",
        "--tag",
        "a",
        "--tag",
        "b",
    ]);
    host.ok(&["checkpoint", &id, "--type", "manual", "--work-state", r#"{"next": "tests"}"#]);
    // Be it closed, what is said of it is kept.
    host.ok(&["close", &id]);
    host.ok(&["event", &id, "epic_completed"]);
    assert_eq!(host.stop(), Some(0));
    host.start();

    let types = |route: &str| -> Vec<String> {
        listed(&host, &id, route).iter().map(|e| e["event_type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types("events"), ["epic_completed", "error", "anything_goes"]);
    assert_eq!(types("events?type=error"), ["error"]);
    assert_eq!(types("events?contains=%22QUOTE"), ["anything_goes"]);
    assert_eq!(types("events?contains=anything_g"), ["anything_goes"]);
    assert_eq!(types("events?limit=1&offset=1"), ["error"]);
    assert_eq!(types("events?until=2020-01-01T00:00:00Z"), [""; 0]);
    let since = event["timestamp"].as_str().unwrap();
    assert_eq!(types(&format!("events?since={since}")).len(), 3);
    assert_eq!(types(&format!("events?until={since}")).len(), 0);
    assert_eq!(listed(&host, &id, "events?type=error")[0]["parent_uuid"], parent);
    let command = &listed(&host, &id, "commands")[0];
    assert_eq!(command["error_message"], "postgres://[redacted]@db refused");
    assert_eq!(command["parameters"], json!({"command": "curl -H 'Authorization: [redacted]'"}));
    assert_eq!((&command["success"], &command["tags"]), (&json!(false), &json!(["a", "b"])));
    assert_eq!(listed(&host, &id, "checkpoints")[0]["context_window_percent"], 12);
    let table = host.ok(&["events", &id[..id.len() - 2], "--limit", "2"]);
    assert!(table.contains("epic_completed") && table.contains("pending") && !table.contains("anything"), "{table}");
    // Nowhere on the disk, in no form.
    for file in ["sessiond.db", "sessiond.db-wal"] {
        let bytes = std::fs::read(host.state_dir().join(file)).unwrap_or_default();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{file}");
    }
}

#[test]
fn invalid_records_are_rejected_with_the_field() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let long = "x".repeat(70_000);
    for (route, body, status, named) in [
        ("events", json!({}), 400, "event_type"),
        ("events", json!({"event_type": "Odd"}), 400, "event_type"),
        ("events", json!({"event_type": "a", "event_data": [1]}), 400, "event_data"),
        ("events", json!({"event_type": "a", "parent_uuid": "x"}), 400, "parent_uuid"),
        ("events", json!({"event_type": "a", "typ": 1}), 400, "typ"),
        ("events", json!({"event_type": "a", "event_data": {"long": long}}), 413, "65536"),
        ("commands", json!({"action": ""}), 400, "action"),
        ("commands", json!({"action": "a", "command_type": "auto"}), 400, "command_type"),
        ("commands", json!({"action": "a", "execution_time_ms": -1}), 400, "execution_time_ms"),
        ("checkpoints", json!({"checkpoint_type": "manual"}), 400, "work_state"),
        ("checkpoints", json!({"checkpoint_type": "odd", "work_state": {}}), 400, "checkpoint_type"),
    ] {
        let (got, answer) = host.ask("POST", &format!("/v1/sessions/{id}/{route}"), Some(&body));
        assert_eq!(got, status, "{route}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{route}: {answer}");
    }
    for (query, named) in [
        ("events?limit=0", "limit"),
        ("events?limit=1001", "limit"),
        ("events?since=yesterday", "since"),
        ("commands?type=error", "type"),
        ("events?contains=", "contains"),
        ("events?kind=x", "kind"),
    ] {
        let (status, answer) = host.ask("GET", &format!("/v1/sessions/{id}/{query}"), None);
        assert_eq!(status, 400, "{query}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{query}: {answer}");
    }
    assert_eq!(host.ask("POST", "/v1/sessions/odin-PS-zzzzzz/events", Some(&json!({"event_type": "a"}))).0, 404);
    assert_eq!(host.ask("GET", "/v1/sessions/freya/events", None).0, 404);
    let (code, said) = host.refused(&["event", &id, "error", "--data", "{password: hunter2}"]);
    assert!(code == 2 && said.contains("--data") && !said.contains("hunter2"), "{code} {said}");
    assert_eq!(host.refused(&["event", "odin-PS-zzzzzz", "error"]).0, 1);
}

#[test]
fn suggests_a_checkpoint_for_a_nearly_full_context() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let beat = |context: u64| {
        let (_, answer) =
            host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&json!({"context_percent": context})));
        answer.get("checkpoint_suggested").cloned()
    };
    let checkpoint =
        || drop(add(&host, &id, "checkpoints", &json!({"checkpoint_type": "context_window", "work_state": {}})));
    assert_eq!((beat(79), beat(80)), (None, None));
    assert_eq!((beat(81), beat(95)), (Some(json!(true)), Some(json!(true))));
    checkpoint();
    assert_eq!((beat(96), beat(20), beat(90)), (None, None, Some(json!(true))));
    assert_eq!(beat(10), None);
    checkpoint();
    assert_eq!(beat(85), Some(json!(true)), "that checkpoint came before it passed the mark");
    let full = host.ok(&["register", "--project", "odin", "--context", "90", "--id-only"]);
    let (_, answer) = host.ask("POST", &format!("/v1/sessions/{full}/heartbeat"), Some(&json!({})));
    assert_eq!(answer["checkpoint_suggested"], true);
}

#[test]
fn unknown_event_type_is_parked_until_central_accepts_it() {
    let server = old_central(&[]);
    let url = server.url("central");
    let host = Host::with_central("odin4", &url).started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    // Before it ever met a central, all is taken.
    let early = add(&host, &id, "events", &json!({"event_type": "tool_use"}));
    assert_eq!(early["parked"], false);
    host.ok(&["migrate", "--central-url", &url]);
    host.await_synced();
    assert_eq!(host.status()["parked"], 1);

    let late = add(&host, &id, "events", &json!({"event_type": "tool_result"}));
    assert_eq!(late["parked"], true);
    assert!(late["note"].as_str().unwrap().contains("no event of this type"), "{late}");
    let known = add(&host, &id, "events", &json!({"event_type": "test_passed"}));
    assert_eq!(known["parked"], false);
    host.await_synced();
    assert_eq!(server.psql("central", "SELECT event_type FROM event_store"), "test_passed");
    let synced: Vec<bool> = listed(&host, &id, "events").iter().map(|e| e["synced"] == true).collect();
    assert_eq!(synced, [true, false, false]);
    assert!(host.ok(&["parked", "list"]).contains("event tool_use of"));

    // The newer schema has them, which the next handshake finds out.
    server.psql_file("central", &newer_legacy_history());
    server.psql(
        "central",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'central'",
    );
    testkit::eventually("they are freed", std::time::Duration::from_secs(60), || {
        host.ask("POST", "/v1/sync", Some(&json!({})));
        (host.status()["parked"] == 0).then_some(())
    });
    host.await_synced();
    let rows = server.psql("central", "SELECT event_type FROM event_store ORDER BY sequence_num");
    assert_eq!(rows, "test_passed\ntool_use\ntool_result");
}

#[test]
fn history_stays_local_if_central_lacks_the_tables() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("odin4", &url);
    host.ok(&["migrate", "--central-url", &url]);
    let host = host.started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.await_central("connected");
    add(&host, &id, "events", &json!({"event_type": "anything"}));
    add(&host, &id, "checkpoints", &json!({"checkpoint_type": "manual", "work_state": {}}));
    host.await_synced();
    assert_eq!(host.status()["backlog"]["records"], 0);
    assert_eq!((listed(&host, &id, "events").len(), listed(&host, &id, "checkpoints").len()), (1, 1));
}

#[test]
fn session_with_a_new_id_keeps_its_history() {
    let server = old_central(&[]);
    let url = server.url("central");
    let host = Host::with_central("laptop", &url).started();
    host.await_central("schema_missing");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    for number in 0..5 {
        add(&host, &id, "events", &json!({"event_type": "test_passed", "event_data": {"n": number}}));
    }
    // While this host waits, an old client draws the same id.
    server.psql(
        "central",
        &format!("INSERT INTO supervisor_sessions (instance_id, project, instance_type) VALUES ('{id}', 'odin', 'PS')"),
    );
    host.ok(&["migrate", "--central-url", &url]);
    host.await_synced();
    let (_, session) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    let new = session["instance_id"].as_str().unwrap();
    assert_ne!(new, id);
    let rows = server.psql("central", "SELECT instance_id, event_data->>'n' FROM event_store ORDER BY sequence_num");
    assert_eq!(rows, (0..5).map(|n| format!("{new}|{n}")).collect::<Vec<_>>().join("\n"));
    assert_eq!(listed(&host, &id, "events").len(), 5);
}
