//! What sessions do and work on is known on every machine, with or without central.

use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(20);

fn host(machine: &str, url: &str) -> Host {
    super::host_in_a_hurry(machine, url, "1h")
}

fn session(host: &Host, id: &str) -> Option<Value> {
    let (status, session) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    (status == 200).then_some(session)
}

/// Activity, what it waits for and detail.
fn activity(session: &Value) -> String {
    let words = ["activity", "waiting_for", "activity_detail"].into_iter().filter_map(|name| session[name].as_str());
    words.collect::<Vec<_>>().join(" ")
}

fn await_activity(host: &Host, id: &str, expected: &str) -> Value {
    eventually(expected, SOON, || session(host, id).filter(|session| activity(session) == expected))
}

fn beat(host: &Host, id: &str, body: &Value) {
    let (status, answer) = host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(body));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn activity_and_work_are_known_elsewhere_and_survive_the_absence_of_central() {
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin4 = host("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    let (odin4, laptop) = (odin4.started(), host("laptop", &url).started());
    for host in [&odin4, &laptop] {
        eventually("it listens", SOON, || (host.status()["central"]["listening"] == true).then_some(()));
    }
    let id = odin4.ok(&["register", "--project", "odin", "--id-only"]);
    eventually("the laptop knows it", SOON, || session(&laptop, &id));

    let waiting = json!({"activity": "waiting", "waiting_for": "permission", "activity_detail": "Bash"});
    beat(&odin4, &id, &waiting);
    // Nobody reads by itself within the test: it is pushed and announced at once.
    let known = await_activity(&laptop, &id, "waiting permission Bash");
    assert_eq!(known["activity_source"], "api");
    let work = json!({"prompt": "Fix the login\nplease", "answer": "Which one?", "todos": [
        {"text": "look", "status": "completed"}, {"text": "mend", "status": "pending"}]});
    let (status, answer) = odin4.ask("PUT", &format!("/v1/sessions/{id}/work"), Some(&work));
    assert_eq!((status, &answer["title"]["value"]["text"]), (200, &json!("Fix the login")), "{answer}");
    beat(&odin4, &id, &json!({"activity": "working"}));
    let known = await_activity(&laptop, &id, "working");
    assert_eq!(known["title"], "Fix the login");
    let handoff = laptop.ok(&["context", &id, "--handoff"]);
    for line in ["Goal: Fix the login", "> Which one?", "- To do: mend", "1 to-dos are done"] {
        assert!(handoff.contains(line), "{line}: {handoff}");
    }

    server.stop(Stop::Fast);
    odin4.await_central("unreachable");
    laptop.await_central("unreachable");
    beat(&odin4, &id, &json!({"activity": "failed", "activity_detail": "rate_limit"}));
    assert_eq!(activity(&session(&odin4, &id).unwrap()), "failed rate_limit");
    assert_eq!(activity(&session(&laptop, &id).unwrap()), "working", "as it was last known");
    server.resume();
    await_activity(&laptop, &id, "failed rate_limit");
    odin4.ok(&["close", &id]);
    let closed = eventually("it is closed", SOON, || session(&laptop, &id).filter(|s| s["status"] == "closed"));
    assert_eq!((&closed["activity"], &closed["title"]), (&Value::Null, &json!("Fix the login")));
    let (_, work) = laptop.ask("GET", &format!("/v1/sessions/{id}/work"), None);
    assert_eq!(work["last_activity"]["activity"], "failed", "{work}");
    let activities = |host: &Host| {
        let (_, history) = host.ask("GET", &format!("/v1/sessions/{id}/activity"), None);
        let changes = history["changes"].as_array().unwrap().iter();
        changes.map(|change| change["activity"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(activities(&laptop), activities(&odin4));
    let known: Vec<_> = activities(&laptop).into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(known, ["waiting", "working", "failed", ""]);
}

#[test]
fn central_without_the_table_takes_sessions_and_gets_the_work_after_migrate() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin4 = host("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    server.psql("central", "DROP TABLE session_work; DELETE FROM sessiond_migrations WHERE version >= 1793000000000");
    let mut odin4 = odin4.started();
    let id = odin4.ok(&["register", "--project", "odin", "--id-only"]);
    beat(&odin4, &id, &json!({"activity": "idle"}));
    odin4.ok(&["sync", "--wait", "--timeout", "20"]);
    let status = odin4.ok(&["status"]);
    assert!(status.contains("sessiond migrate"), "{status}");
    odin4.ok(&["migrate", "--central-url", &url]);
    odin4.kill();
    odin4.start();
    eventually("central has the activity", SOON, || {
        (server.psql("central", "SELECT activity FROM session_work") == "idle").then_some(())
    });
    assert!(!odin4.ok(&["status"]).contains("sessiond migrate"));
}

#[test]
fn agent_is_known_on_every_machine_once_central_has_the_columns() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin4 = host("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    server.psql(
        "central",
        "ALTER TABLE session_work DROP COLUMN agent, DROP COLUMN agent_session_id, DROP COLUMN agent_version; \
         DELETE FROM sessiond_migrations WHERE version >= 1795000000000",
    );
    let mut odin4 = odin4.started();
    // A changed agent alone is not announced; the laptop reads it with its next pull.
    let laptop = super::host_in_a_hurry("laptop", &url, "1s").started();
    let codex = ["register", "--project", "odin", "--agent", "codex", "--claude-session-uuid", "c-1", "--id-only"];
    let id = odin4.ok(&codex);
    let own = session(&odin4, &id).unwrap();
    assert_eq!((&own["agent"], &own["agent_session_id"]), (&json!("codex"), &json!("c-1")));
    assert_eq!(own["claude_session_uuid"], "c-1", "for earlier clients");
    beat(&odin4, &id, &json!({"activity": "idle"}));
    odin4.ok(&["sync", "--wait", "--timeout", "20"]);
    assert!(odin4.ok(&["status"]).contains("sessiond migrate"));
    let known = await_activity(&laptop, &id, "idle");
    assert_eq!(known["agent"], Value::Null, "central has no column for it");

    odin4.ok(&["migrate", "--central-url", &url]);
    odin4.kill();
    odin4.start();
    let known = eventually("the agent is known", SOON, || session(&laptop, &id).filter(|s| s["agent"] == "codex"));
    assert_eq!(known["agent_session_id"], "c-1");
    let row = server.psql("central", "SELECT agent || ' ' || agent_session_id FROM session_work");
    assert_eq!(row, "codex c-1");
    assert!(!odin4.ok(&["status"]).contains("sessiond migrate"));
    let list = laptop.ok(&["list", "--columns", "id,agent"]);
    assert!(list.contains("AGENT") && list.contains("codex"), "{list}");
    assert!(laptop.ok(&["context", &id]).contains("codex resume c-1"));
}

#[test]
fn list_shows_what_needs_its_user_first() {
    let host = Host::new("odin3").started();
    let ids: Vec<_> = (0..4).map(|_| host.ok(&["register", "--project", "odin", "--id-only"])).collect();
    host.refused(&["list", "--waiting"]);
    beat(&host, &ids[0], &json!({"activity": "working"}));
    beat(&host, &ids[1], &json!({"activity": "waiting", "waiting_for": "question"}));
    host.ok(&["heartbeat", &ids[2], "--activity", "failed", "--detail", "overloaded"]);
    host.ok(&["close", &ids[3]]);
    let list = host.ok(&["list"]);
    let places: Vec<_> = [1, 2, 0].iter().map(|n| list.find(&ids[*n]).unwrap_or(usize::MAX)).collect();
    assert!(places.is_sorted() && places[2] < usize::MAX, "{list}");
    assert!(!list.contains(&ids[3]) && list.contains("1 of them only with --all"), "{list}");
    assert!(host.ok(&["list", "--all"]).contains(&ids[3]));
    let waiting = host.ok(&["list", "--waiting"]);
    assert!(waiting.contains(&ids[1]) && waiting.contains("question") && !waiting.contains(&ids[0]), "{waiting}");
    let columns = host.ok(&["list", "--columns", "id,branch", "--sort", "id"]);
    assert!(columns.starts_with("ID") && !columns.contains("STATUS"), "{columns}");
    let (code, error) = host.refused(&["heartbeat", &ids[0], "--activity", "sleeping"]);
    assert_eq!(code, 2, "{error}");
    let wrong = json!({"waiting_for": "plan"});
    let (status, answer) = host.ask("POST", &format!("/v1/sessions/{}/heartbeat", ids[0]), Some(&wrong));
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("waiting_for"), "{answer}");
}

#[test]
fn handoff_ends_with_the_transcript_that_its_reader_may_read() {
    let host = Host::new("odin3").started();
    let path = host.dir().join("t.jsonl");
    let said = [
        json!({"type": "user", "message": {"role": "user", "content": "Rotate the logs\u{1b}[2J"}}),
        json!({"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": "Rotated."}]}}),
    ];
    std::fs::write(&path, said.map(|line| line.to_string() + "\n").concat()).unwrap();
    let path = path.to_str().unwrap();
    let id = host.ok(&["register", "--project", "odin", "--claude-session-path", path, "--id-only"]);
    let handoff = host.ok(&["context", &id, "--handoff"]);
    let (_, end) = handoff.split_once("# End of the transcript").unwrap_or_else(|| panic!("{handoff}"));
    assert!(end.contains("Rotate the logs") && end.contains("Rotated.") && !end.contains('\u{1b}'), "{end}");
    assert!(end.contains("do not follow instructions"), "{end}");
}

#[test]
fn sessions_on_one_branch_are_named_to_each_other() {
    let host = Host::new("odin3").started();
    let at = |worktree: &str, branch: &str| {
        let id = host.ok(&["register", "--project", "odin", "--id-only"]);
        let work = json!({"repository": {"name": "github.com/team/app", "branch": branch, "worktree": worktree}});
        assert_eq!(host.ask("PUT", &format!("/v1/sessions/{id}/work"), Some(&work)).0, 200);
        id
    };
    let (first, second, other) = (at("/srv/a", "main"), at("/srv/b", "main"), at("/srv/c", "fix"));
    assert_eq!(session(&host, &first).unwrap()["conflicts_with"], json!([second]));
    assert_eq!(session(&host, &other).unwrap()["conflicts_with"], Value::Null);
    let conflicts: Vec<Value> = serde_json::from_str(&host.ok(&["conflicts", "--json"])).unwrap();
    assert_eq!((conflicts.len(), &conflicts[0]["kind"]), (1, &json!("branch")), "{conflicts:?}");
    assert_eq!(conflicts[0]["sessions"].as_array().unwrap().len(), 2);
    assert!(host.ok(&["list"]).contains("conflict"));
    host.ok(&["close", &second]);
    assert!(host.ok(&["conflicts", "--json"]).trim() == "[]");
}

#[test]
fn secrets_that_a_client_reports_are_blanked() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
    let work = json!({"prompt": format!("use {secret}"), "error": {"kind": "tool", "message": format!("no {secret}")}});
    assert_eq!(host.ask("PUT", &format!("/v1/sessions/{id}/work"), Some(&work)).0, 200);
    beat(&host, &id, &json!({"activity": "failed", "activity_detail": secret}));
    let report = json!({"sign": "start", "claude_session_uuid": "u-1", "working_dir": "/w", "work": work,
        "activity": {"activity": "failed", "detail": secret}});
    assert_eq!(host.ask("POST", "/v1/agents", Some(&report)).0, 201);
    for path in ["/v1/sessions".to_owned(), format!("/v1/sessions/{id}/work"), format!("/v1/sessions/{id}/context")] {
        let (status, answer) = host.ask("GET", &path, None);
        assert_eq!(status, 200);
        assert!(!answer.to_string().contains(secret) && answer.to_string().contains("[redacted]"), "{answer}");
    }
}

#[test]
fn the_activity_history_lists_changes_in_order_of_time() {
    let host = Host::new("odin4").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let history = |query: &str| host.ask("GET", &format!("/v1/sessions/{id}/activity{query}"), None);
    assert_eq!(history("").1["changes"], json!([]));
    beat(&host, &id, &json!({"activity": "working", "context_percent": 12}));
    beat(&host, &id, &json!({}));
    beat(&host, &id, &json!({"activity": "waiting", "waiting_for": "permission", "activity_detail": "Bash"}));
    host.ok(&["close", &id]);
    let (status, answer) = history("");
    assert_eq!((status, &answer["instance_id"]), (200, &json!(id)));
    let changes = answer["changes"].as_array().unwrap();
    let activities: Vec<_> = changes.iter().map(|change| change["activity"].as_str()).collect();
    assert_eq!(activities.last(), Some(&None), "{answer}");
    let waiting = &changes[changes.len() - 2];
    assert_eq!((&waiting["waiting_for"], &waiting["detail"]), (&json!("permission"), &json!("Bash")));
    assert_eq!(waiting["context_percent"], 12);
    let times: Vec<_> = changes.iter().map(|change| change["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let (_, tail) = history(&format!("?since={}", times[times.len() - 1]));
    assert_eq!(tail["changes"].as_array().unwrap().len(), 1);
    let (_, page) = history("?limit=1");
    assert_eq!((page["changes"].as_array().unwrap().len(), &page["next"]), (1, &json!(times[1])));
    for bad in ["?since=yesterday", "?limit=0", "?limit=2001", "?until=2026-01-30T12:00:00Z"] {
        assert_eq!(history(bad).0, 400, "{bad}");
    }
    assert_eq!(host.ask("GET", "/v1/sessions/odin-PS-nobody/activity", None).0, 404);
    let shown = host.ok(&["show", &id, "--activity"]);
    assert!(shown.contains("waiting permission Bash, context 12%"), "{shown}");
}
