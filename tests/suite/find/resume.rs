//! Resuming a session: which one is chosen, and how it is changed.

use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::rows::{Rows, abandoned};
use testkit::daemon::Host;
use testkit::skip::skip;

fn resume(host: &Host, body: Value) -> (u16, Value) {
    host.ask("POST", "/v1/resume", Some(&body))
}

/// Resumes what can be resumed.
fn resumed(host: &Host, body: Value) -> Value {
    let (status, answer) = resume(host, body);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn hash(id: &str) -> &str {
    &id[id.len() - 6..]
}

#[test]
fn session_is_resumed_in_place_on_its_own_machine() {
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "the login page");
    host.ok(&["heartbeat", &id, "--context", "42"]);
    Rows::of(&host).silence(&id, 300);
    for hint in [id.as_str(), &id.to_uppercase(), hash(&id), &hash(&id)[1..5].to_uppercase(), "the login page", "odin"]
    {
        let answer = resumed(&host, json!({"hint": hint}));
        assert_eq!((&answer["resumed"], &answer["session"]["instance_id"]), (&json!("taken_up"), &json!(id)), "{hint}");
        assert_eq!((&answer["session"]["status"], &answer["from"]["status"]), (&json!("active"), &json!("stale")));
        assert_eq!((&answer["session"]["context_percent"], &answer["session"]["synced"]), (&json!(42), &json!(false)));
        Rows::of(&host).silence(&id, 300);
    }
    let answer =
        resumed(&host, json!({"claude_session_uuid": "c0ffee", "working_dir": "/srv/odin", "pid": std::process::id()}));
    assert_eq!(answer["found_by"], "newest");
    let (_, session) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    assert_eq!((&session["claude_session_uuid"], &session["working_dir"]), (&json!("c0ffee"), &json!("/srv/odin")));
    assert_eq!(host.ask("GET", "/v1/sessions", None).1["total_count"], 1);
}

#[test]
fn process_of_a_resume_is_watched_over_a_restart() {
    let mut host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "003");
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();
    resumed(&host, json!({"hint": id, "pid": process.id(), "claude_session_uuid": "c0ffee"}));
    host.kill();
    host.start();
    let (_, session) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    assert_eq!((&session["status"], &session["claude_session_uuid"]), (&json!("active"), &json!("c0ffee")));
    process.kill().unwrap();
    process.wait().unwrap();
    testkit::eventually("its death is noticed", std::time::Duration::from_secs(30), || {
        (host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"] == "stale").then_some(())
    });
}

#[test]
fn active_session_is_rejected_with_its_age() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    for hint in [Some(id.as_str()), Some("odin"), None] {
        let (status, answer) = resume(&host, json!({"hint": hint}));
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("session_active")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(&id) && message.ends_with("s ago"), "{message}");
    }
    let (code, said) = host.refused(&["resume", &id]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    // Beside others it is no candidate.
    let other = abandoned(&host, "odin", "003");
    assert_eq!(resumed(&host, json!({"hint": "odin"}))["session"]["instance_id"], json!(other));
}

#[test]
fn several_matches_are_numbered_and_one_is_chosen() {
    let host = Host::new("odin3").started();
    let rows = Rows::of(&host);
    let ids: Vec<_> = (0..12).map(|_| host.ok(&["register", "--project", "odin", "--id-only"])).collect();
    for (number, id) in ids.iter().enumerate() {
        rows.silence(id, 200 + number as i64);
    }
    rows.mirror("odin-PS-zzzzzz", "laptop", "003", 150);
    let (status, answer) = resume(&host, json!({"hint": "odin"}));
    let candidates: Vec<_> = answer["matches"].as_array().unwrap().iter().map(|m| m["instance_id"].clone()).collect();
    assert_eq!((status, candidates.len(), &candidates[0]), (300, 10, &json!("odin-PS-zzzzzz")), "{answer}");
    assert_eq!(candidates[1..], ids[..9].iter().map(|id| json!(id)).collect::<Vec<_>>(), "most recent first");

    let (code, said) = host.refused(&["resume", "odin"]);
    assert_eq!(code, 3);
    assert!(
        said.starts_with("sessiond: ") && said.contains("--choose N") && said.contains(&format!("3  {}", ids[1])),
        "{said}"
    );
    let document: Value = serde_json::from_slice(&host.verb(&["resume", "odin", "--json"]).stdout).unwrap();
    assert_eq!((&document["error"]["code"], document["matches"].as_array().unwrap().len()), (&json!("ambiguous"), 10));

    let chosen: Value = serde_json::from_str(&host.ok(&["resume", "odin", "--choose", "3", "--json"])).unwrap();
    assert_eq!(chosen["session"]["instance_id"], json!(ids[1]));
    rows.silence(&ids[1], 201);
    let (status, answer) = resume(&host, json!({"hint": ids[1], "choice": 2}));
    assert_eq!((status, &answer["error"]["message"]), (400, &json!("choice: there is only one candidate")));
    // Who names none in particular gets the one that was alive last.
    assert_eq!(resumed(&host, json!({}))["from"]["instance_id"], "odin-PS-zzzzzz");
}

#[test]
fn closed_session_is_resumed_only_by_its_id_and_in_a_new_session() {
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "003");
    host.ok(&["close", &id]);
    let (_, before) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    for (body, status, code) in [
        (json!({"hint": id}), 409, "session_closed"),
        (json!({"hint": hash(&id), "closed": true}), 404, "not_found"),
        (json!({"hint": "odin", "closed": true}), 404, "not_found"),
        (json!({"closed": true}), 404, "not_found"),
    ] {
        let (found, answer) = resume(&host, body);
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
        let said = format!("{} {}", answer["error"]["message"], answer["error"]["hint"]);
        assert!(said.contains("--closed"), "{said}");
    }
    let answer = resumed(&host, json!({"hint": id.to_uppercase(), "closed": true}));
    let new = &answer["session"];
    assert_eq!((&answer["resumed"], &new["resumed_from"]), (&json!("new_session"), &json!(id)));
    assert_eq!(
        (&new["project"], &new["current_epic"], &new["context_percent"]),
        (&json!("odin"), &json!("003"), &json!(0))
    );
    let (_, after) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    for field in ["status", "closed_at", "last_heartbeat", "current_epic"] {
        assert_eq!(before[field], after[field], "closed stays closed");
    }
    let (code, said) = host.refused(&["resume", &id]);
    assert!(code == 1 && said.contains("--closed"), "{said}");
}

#[test]
fn remote_session_gets_a_local_successor() {
    let mut host = Host::new("odin3").started();
    let rows = Rows::of(&host);
    rows.mirror("freya-PS-8f4a2b", "laptop", "007", 300);
    rows.host_seen("laptop", 400, 10);
    // What a mirror is worth is read at the start.
    host.kill();
    host.start();
    let (_, before) = host.ask("GET", "/v1/sessions/freya-PS-8f4a2b", None);
    let answer = resumed(&host, json!({"hint": "F4A2"}));
    let new = &answer["session"];
    assert_eq!((&answer["resumed"], &answer["found_by"]), (&json!("new_session"), &json!("hash")));
    assert_eq!(
        (&new["project"], &new["current_epic"], &new["host_machine"]),
        (&json!("freya"), &json!("007"), &json!("odin3"))
    );
    assert_eq!((&new["resumed_from"], &new["context_percent"]), (&json!("freya-PS-8f4a2b"), &json!(0)));
    assert_eq!(
        (&new["working_dir"], &new["claude_session_uuid"]),
        (&Value::Null, &Value::Null),
        "those are on the laptop"
    );
    let context = &answer["context"];
    assert_eq!((&context["machine_synced"], &context["reachable"]), (&json!(false), &json!(false)));
    assert!(context["last_seen"].is_string());
    assert_eq!(context["command"], r#"ssh laptop -t "cd '/srv/my dir' && claude --resume c0ffee""#);
    assert!(answer["handoff"].as_str().unwrap().contains("later work may be recorded only on laptop"), "{answer}");
    let (_, after) = host.ask("GET", "/v1/sessions/freya-PS-8f4a2b", None);
    for field in ["status", "last_heartbeat", "current_epic", "host_machine", "context_percent"] {
        assert_eq!(before[field], after[field]);
    }
    rows.host_seen("laptop", 5, 10);
    let (_, context) = host.ask("GET", "/v1/sessions/freya-PS-8f4a2b/context", None);
    assert_eq!((&context["machine_synced"], &context["reachable"]), (&json!(true), &json!(true)));
    rows.host_seen("laptop", 5, 500);
    host.kill();
    host.start();
    let (_, context) = host.ask("GET", "/v1/sessions/freya-PS-8f4a2b/context", None);
    assert_eq!(context["machine_synced"], false, "a mirror from before may lack what is known there");
}

#[test]
fn concurrent_resumes_yield_one_winner() {
    let host = Host::new("odin3").started();
    let rows = Rows::of(&host);
    let id = host.ok(&["register", "--project", "odin", "--epic", "003", "--id-only"]);
    for round in 0..20 {
        rows.silence(&id, 300);
        let hints = [id.as_str(), hash(&id), "003", "odin"];
        let answers: Vec<(u16, Value)> = thread::scope(|scope| {
            let ask = |n: usize| resume(&host, json!({"hint": hints[n % 4]}));
            let asked: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let taken = answers.iter().filter(|(status, _)| *status == 200).count();
        assert_eq!(taken, 1, "round {round}: {answers:?}");
        assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 409)), "{answers:?}");
    }
    assert_eq!(host.ask("GET", "/v1/sessions", None).1["total_count"], 1);
}

#[test]
fn invalid_hints_and_choices_are_rejected() {
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "003");
    for (body, named) in [
        (json!({"hint": ""}), "hint"),
        (json!({"hint": "a\nb"}), "hint"),
        (json!({"hint": "\u{0}"}), "hint"),
        (json!({"hint": "x".repeat(257)}), "hint"),
        (json!({"hint": 7}), "hint"),
        (json!({"hint": "odin", "choice": 0}), "choice"),
        (json!({"hint": "odin", "choice": -1}), "choice"),
        (json!({"hint": "odin", "choice": 11}), "choice"),
        (json!({"hint": "odin", "choice": 2}), "choice"),
        (json!({"hint": "odin", "choice": 1.5}), "choice"),
        (json!({"hint": "odin", "choice": i64::MAX}), "choice"),
        (json!({"hint": "odin", "closed": "yes"}), "closed"),
        (json!({"hint": "odin", "pid": 0}), "pid"),
        (json!({"hint": "odin", "working_dir": "here"}), "working_dir"),
        (json!({"hint": "odin", "claude_session_uuid": "x".repeat(65)}), "claude_session_uuid"),
        (json!({"hints": "odin"}), "hints"),
    ] {
        let (status, answer) = resume(&host, body.clone());
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{body}: {answer}");
    }
    assert_eq!(resume(&host, json!({"hint": "x".repeat(5 << 20)})).0, 413);
    for nobody in ["nobody", "%", "_", "' OR 1=1 --", "odin-PS-", &id[..id.len() - 1], "ünbekannt"] {
        let (status, answer) = resume(&host, json!({"hint": nobody}));
        assert_eq!(status, 404, "{nobody}: {answer}");
    }
    for words in [&["resume", ""][..], &["resume", "odin", "--choose", "0"], &["resume", "odin", "--choose", "2"]] {
        let (code, said) = host.refused(words);
        assert_eq!((code, said.lines().count()), (2, 1), "{words:?}: {said}");
    }
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "stale", "nobody got it");
}

/// Another user's session is not taken from its owner, but a successor can continue it.
#[test]
fn session_of_another_user_gets_a_successor() {
    if !rustix::process::geteuid().is_root() {
        return skip("session_of_another_user_gets_a_successor", "root");
    }
    let host = Host::new("odin3").started();
    let id = abandoned(&host, "odin", "003");
    let database = rusqlite::Connection::open(host.state_dir().join("sessiond.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    database.execute("UPDATE sessions SET owner_uid = 4711 WHERE instance_id = ?1", [&id]).unwrap();
    let answer = resumed(&host, json!({"hint": id}));
    assert_eq!((&answer["resumed"], &answer["session"]["resumed_from"]), (&json!("new_session"), &json!(id)));
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "stale");
}
