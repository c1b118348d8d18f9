//! The verbs of the client against a daemon: what they print, and how they exit.

use std::process::Stdio;

use serde_json::{Value, json};

use testkit::daemon::Host;

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn session_lifecycle_on_the_command_line() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--type", "PS", "--epic", "003", "--id-only"]);
    assert!(id.starts_with("odin-PS-"));
    let beaten = document(&host.ok(&["heartbeat", &id, "--context", "42", "--json"]));
    assert_eq!((&beaten["context_percent"], &beaten["current_epic"]), (&json!(42), &json!("003")));
    for column in [
        "instance_id",
        "project",
        "instance_type",
        "status",
        "context_percent",
        "current_epic",
        "last_heartbeat",
        "created_at",
        "closed_at",
        "host_machine",
        "claude_session_uuid",
        "claude_session_path",
        "resumed_from",
        "working_dir",
        "age_seconds",
        "local",
        "as_of",
        "synced",
    ] {
        assert!(beaten.get(column).is_some(), "{column} is missing: {beaten}");
    }
    let shape = "....-..-..T..:..:..\\.......Z".replace("\\.", ".");
    let time = beaten["last_heartbeat"].as_str().unwrap();
    assert_eq!((time.len(), &time[19..20], &time[26..]), (shape.len(), ".", "Z"), "{time}");

    let footer = host.ok(&["footer", &id, "--separator"]);
    assert_eq!(
        footer,
        format!(
            "---\nInstance: {id}@odin3 | Epic: 003 | Context: 42% | Active: 0h\n\
             [Use \"resume {id}\" to restore this session]"
        )
    );
    assert!(host.ok(&["show", &id[..9]]).contains(&id));
    host.ok(&["heartbeat", &id, "--clear-epic"]);
    assert!(host.ok(&["footer", &id]).contains("| Epic: — |"));

    let list = document(&host.ok(&["list", "--json"]));
    assert_eq!((&list["total_count"], &list["active_count"], &list["stale_count"]), (&json!(1), &json!(1), &json!(0)));
    let table = host.ok(&["list"]);
    assert!(table.contains(&id) && table.contains("odin3") && table.contains("42%"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours where no terminal is");

    host.ok(&["close", &id]);
    let (code, said) = host.refused(&["heartbeat", &id]);
    assert_eq!(code, 1);
    assert!(said.starts_with("sessiond: ") && said.lines().count() == 1, "{said}");
    assert_eq!(document(&host.ok(&["list", "--active", "--json"]))["total_count"], 0);
}

#[test]
fn several_matches_are_numbered_and_exit_with_3() {
    let host = Host::new("odin3").started();
    let ids = [(); 12].map(|()| host.ok(&["register", "--project", "odin", "--id-only"]));
    let (code, said) = host.refused(&["show", "odin"]);
    assert_eq!(code, 3);
    assert_eq!(ids.iter().filter(|id| said.contains(*id)).count(), 10, "{said}");
    let output = host.verb(&["show", "odin", "--json"]);
    assert_eq!(document(&String::from_utf8(output.stdout).unwrap())["matches"].as_array().unwrap().len(), 10);
}

#[test]
fn errors_have_the_documented_exit_codes() {
    let host = Host::new("odin3").started();
    for (words, code) in [
        (&["show", "nobody"][..], 1),
        (&["register"], 2),
        (&["register", "--project", "Odin"], 2),
        (&["register", "--project", &"x".repeat(70)], 2),
        (&["heartbeat", "odin-PS-aaaaaa", "--context", "101"], 2),
        (&["dance"], 2),
        (&["sync"], 1),
        (&["parked", "retry", "nobody"], 1),
    ] {
        let (found, said) = host.refused(words);
        assert_eq!(found, code, "{words:?}: {said}");
        assert!(said.starts_with("sessiond: ") && said.lines().count() == 1, "{words:?}: {said}");
    }
    let error = document(&String::from_utf8(host.verb(&["show", "nobody", "--json"]).stdout).unwrap());
    assert_eq!(error["error"]["code"], "not_found");

    let away = Host::new("odin4");
    let (code, said) = away.refused(&["list"]);
    assert_eq!(code, 69, "{said}");
    let error = document(&String::from_utf8(away.verb(&["list", "--json"]).stdout).unwrap());
    assert_eq!(error["error"]["code"], "unreachable");
}

#[test]
fn closed_output_pipe_is_no_error() {
    let host = Host::new("odin3").started();
    host.ok(&["register", "--project", "odin"]);
    let mut list = host.sessiond().arg("list").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(list.stdout.take());
    let output = list.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn status_prints_text_and_json() {
    let host = Host::new("odin3").started();
    let status = document(&host.ok(&["status", "--json"]));
    for path in [
        "/daemon/version",
        "/daemon/pid",
        "/daemon/started_at",
        "/daemon/uptime_seconds",
        "/machine/name",
        "/machine/host_id",
        "/machine/pinned_at",
        "/machine/conflict",
        "/central/configured",
        "/central/state",
        "/central/since",
        "/central/last_error",
        "/central/last_sync_at",
        "/central/round_trip_ms",
        "/backlog/sessions",
        "/backlog/records",
        "/backlog/oldest_at",
        "/parked",
        "/sessions/active",
        "/sessions/stale",
        "/sessions/closed",
        "/store/path",
        "/store/bytes",
        "/store/durability",
    ] {
        assert!(status.pointer(path).is_some(), "{path} is missing: {status}");
    }
    assert_eq!((&status["central"]["state"], &status["store"]["durability"]), (&json!("off"), &json!("full")));
    assert!(host.ok(&["status"]).contains("odin3"));
}

#[test]
fn the_api_describes_itself_and_its_metrics() {
    let host = Host::new("odin3").started();
    let (_, document) = host.ask("GET", "/v1/openapi.json", None);
    for path in ["/v1/sessions", "/v1/sessions/{id}/heartbeat", "/v1/machines", "/v1/status", "/v1/sync", "/metrics"] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
    let request = &document["components"]["schemas"]["RegisterRequest"]["properties"];
    assert_eq!(request["context_percent"]["maximum"], 100, "{request}");
    let (status, metrics) = host.ask("GET", "/metrics", None);
    let metrics = metrics.as_str().unwrap();
    assert_eq!(status, 200);
    for metric in ["sessiond_sessions{status=\"active\"} 0", "sessiond_central_state{state=\"off\"} 1", "# EOF"] {
        assert!(metrics.contains(metric), "{metric} is missing:\n{metrics}");
    }
}
