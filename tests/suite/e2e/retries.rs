//! Requests that are sent twice, and lists that are read in pages.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use testkit::daemon::{Host, raw};

/// A POST with these headers: status, and body.
fn post(host: &Host, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, text) = raw(&mut host.connect().unwrap(), &request).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

fn total(host: &Host, path: &str, list: &str) -> usize {
    host.ask("GET", path, None).1[list].as_array().unwrap().len()
}

#[test]
fn repeated_request_is_applied_once_with_the_same_answer() {
    let mut host = Host::new("odin3").started();
    let key = "Idempotency-Key: 5b1c0e9e-6a5e\r\n";
    let what = json!({"project": "odin", "current_epic": "003"});
    let (status, first) = post(&host, "/v1/sessions", key, &what);
    assert_eq!(status, 201, "{first}");
    let id = first["instance_id"].as_str().unwrap().to_owned();
    // What happens to the session meanwhile does not change the answer; nor does a crash of the daemon.
    host.ok(&["heartbeat", &id, "--epic", "004"]);
    host.kill();
    host.start();
    assert_eq!(post(&host, "/v1/sessions", key, &what), (201, first.clone()));
    // The same, spelt in another way.
    let spelt = json!({"current_epic": "003", "project": "odin", "pid": null});
    assert_eq!(post(&host, "/v1/sessions", key, &spelt), (201, first));
    assert_eq!(total(&host, "/v1/sessions", "instances"), 1);

    let (status, other) = post(&host, "/v1/sessions", key, &json!({"project": "odin"}));
    assert_eq!((status, other["error"]["code"].as_str()), (409, Some("conflict")), "{other}");
    let (status, second) = post(&host, "/v1/sessions", "Idempotency-Key: another\r\n", &what);
    assert_eq!(status, 201, "{second}");
    assert_eq!(total(&host, "/v1/sessions", "instances"), 2);

    let records = [
        ("events", json!({"event_type": "epic_started", "event_data": {"n": 1}})),
        ("commands", json!({"action": "build", "parameters": {"n": 1}})),
        ("checkpoints", json!({"checkpoint_type": "manual", "work_state": {"n": 1}})),
    ];
    for (kind, record) in records {
        let path = format!("/v1/sessions/{id}/{kind}");
        let (status, first) = post(&host, &path, key, &record);
        assert_eq!(status, 409, "the key has been used for another request: {first}");
        let key = format!("Idempotency-Key: {kind}-1\r\n");
        let (status, first) = post(&host, &path, &key, &record);
        assert_eq!(status, 201, "{first}");
        assert_eq!(post(&host, &path, &key, &record), (201, first));
        assert_eq!(total(&host, &path, kind), 1, "{kind}");
        assert_eq!(post(&host, &path, "", &record).0, 201);
        assert_eq!(total(&host, &path, kind), 2, "without a key it is another one");
    }
}

#[test]
fn rejects_an_invalid_idempotency_key() {
    let host = Host::new("odin3").started();
    let what = json!({"project": "odin"});
    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(256));
    for headers in
        ["Idempotency-Key: \r\n", "Idempotency-Key: a b\r\n", "Idempotency-Key: a\r\nIdempotency-Key: a\r\n", &long]
    {
        let (status, answer) = post(&host, "/v1/sessions", headers, &what);
        assert_eq!(status, 400, "{headers}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().starts_with("Idempotency-Key: "), "{answer}");
    }
    assert_eq!(total(&host, "/v1/sessions", "instances"), 0);
}

#[test]
fn agent_of_one_process_is_registered_once() {
    let host = Host::new("odin3").started();
    let what = json!({"project": "odin", "pid": std::process::id(), "claude_session_uuid": "u-1"});
    let (_, first) = post(&host, "/v1/sessions", "", &what);
    let (status, again) = post(&host, "/v1/sessions", "", &what);
    assert_eq!((status, &again["instance_id"]), (201, &first["instance_id"]));
    let other = json!({"project": "odin", "pid": std::process::id(), "claude_session_uuid": "u-2"});
    assert_ne!(post(&host, "/v1/sessions", "", &other).1["instance_id"], first["instance_id"]);
    host.ok(&["close", first["instance_id"].as_str().unwrap()]);
    let (_, second) = post(&host, "/v1/sessions", "", &what);
    assert_ne!(second["instance_id"], first["instance_id"], "closed is closed");
}

#[test]
fn pages_hold_every_session_however_heartbeats_reorder_them() {
    let host = Host::new("odin3").started();
    let mut ids = BTreeSet::new();
    for n in 0..23 {
        let project = ["alpha", "beta", "gamma"][n % 3];
        ids.insert(host.ok(&["register", "--project", project, "--id-only"]));
    }
    let page = |limit: usize, after: Option<&str>| {
        let after = after.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let (status, page) = host.ask("GET", &format!("/v1/sessions?limit={limit}{after}"), None);
        assert_eq!(status, 200, "{page}");
        assert_eq!(
            (&page["total_count"], &page["active_count"]),
            (&json!(23), &json!(23)),
            "the counts are of all pages"
        );
        page
    };
    let ids_of = |page: &Value| -> Vec<String> {
        page["instances"].as_array().unwrap().iter().map(|s| s["instance_id"].as_str().unwrap().to_owned()).collect()
    };
    // While nothing happens, the pages together are the list.
    let whole = ids_of(&host.ask("GET", "/v1/sessions", None).1);
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let next = page(5, after.as_deref());
        listed.extend(ids_of(&next));
        after = next["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, whole);

    // Sessions that are not read yet move to the front of their project.
    let first = page(5, None);
    let mut seen: Vec<_> = ids_of(&first);
    for id in whole.iter().rev().take(12).chain(&whole[..3]) {
        host.ok(&["heartbeat", id]);
    }
    let mut after = first["next"].as_str().map(str::to_owned);
    while let Some(cursor) = after {
        let next = page(5, Some(&cursor));
        seen.extend(ids_of(&next));
        host.ok(&["heartbeat", seen.last().unwrap()]);
        assert!(seen.len() < 100, "the reading ends");
        after = next["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids);

    for wrong in ["limit=0", "limit=1001", "limit=5&after=x", "after=~~~~"] {
        let (status, answer) = host.ask("GET", &format!("/v1/sessions?{wrong}"), None);
        let named = if wrong.contains("after") { "after" } else { "limit" };
        assert_eq!(status, 400, "{wrong}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{answer}");
    }
}

#[test]
fn records_are_paged_by_the_last_one_seen() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let add = |n: usize| host.ok(&["event", &id, "test_passed", "--data", &json!({"n": n}).to_string()]);
    (0..7).for_each(|n| drop(add(n)));
    let path = format!("/v1/sessions/{id}/events?limit=3");
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = host.ask("GET", &format!("{path}{after}"), None);
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap();
        seen.extend(events.iter().map(|event| event["event_data"]["n"].as_u64().unwrap()));
        let Some(last) = events.last().filter(|_| page["more"] == true) else { break };
        after = format!("&after={}", last["event_id"].as_str().unwrap());
        // What comes meanwhile is newer, and moves nothing.
        add(100);
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
    for wrong in ["x", "00000000-0000-4000-8000-000000000000"] {
        let (status, answer) = host.ask("GET", &format!("{path}&after={wrong}"), None);
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("after"), "{answer}");
    }
}

#[test]
fn registration_may_name_another_machine_if_configured() {
    let mut host = Host::new("odin3").started();
    let machine = |host: &Host, variable: &str, words: &[&str]| {
        let mut command = host.sessiond();
        let output = command.env("HOST_MACHINE", variable).args(words).output().unwrap();
        let session: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (
            output.status.code(),
            session["host_machine"].as_str().map(str::to_owned),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let register = ["register", "--project", "odin", "--json"];
    assert_eq!(machine(&host, "laptop", &register).1.as_deref(), Some("laptop"));
    assert_eq!(machine(&host, "", &register).1.as_deref(), Some("odin3"));
    let named = [&register[..], &["--machine", "odin4"]].concat();
    assert_eq!(machine(&host, "laptop", &named).1.as_deref(), Some("odin4"), "a flag counts more");
    let (code, _, said) = machine(&host, "Not A Name", &register);
    assert!(code == Some(2) && said.contains("HOST_MACHINE"), "{code:?} {said}");

    host.configure("[machine]\nallow_other = false\n");
    host.kill();
    host.start();
    assert_eq!(machine(&host, "laptop", &register).1.as_deref(), Some("odin3"));
    assert_eq!(machine(&host, "laptop", &named).0, Some(2), "what is named is refused, not replaced");
}

#[test]
fn foreign_database_url_is_ignored() {
    for url in ["mysql://me:hunter2@db/x", "sqlite:///tmp/x.db", "mongodb+srv://db/x", "not a url"] {
        let host = Host::new("odin3").environment("DATABASE_URL", url).started();
        assert_eq!(host.status()["central"]["configured"], false, "{url}");
        assert!(host.log().contains("DATABASE_URL is not used") && !host.log().contains("hunter2"), "{}", host.log());
    }
    let named = Host::new("odin3").environment("SESSIOND_CENTRAL_URL", "mysql://db/x");
    assert_eq!(named.refuses().0, 78, "what is ours alone is wrong if it is another's");
}
