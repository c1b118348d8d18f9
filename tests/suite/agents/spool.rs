//! Writes that are made while no daemon answers.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, SystemTime};

use serde_json::json;

use testkit::daemon::Host;
use testkit::eventually;

const SOON: Duration = Duration::from_secs(20);

fn waiting(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.state_dir().join("spool")).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".json"));
    names.sort();
    names
}

#[test]
fn spooled_registration_keeps_its_printed_id() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--epic", "003", "--id-only"]);
    let other = host.ok(&["register", "--project", "odin", "--type", "MS", "--id-only"]);
    for context in ["10", "20", "30"] {
        host.ok(&["heartbeat", &id, "--context", context]);
    }
    host.ok(&["heartbeat", &id, "--epic", "004"]);
    host.ok(&["close", &other]);
    assert_eq!(waiting(&host).len(), 4, "of signs of life only the last waits: {:?}", waiting(&host));
    let said = String::from_utf8(host.verb(&["heartbeat", &id]).stderr).unwrap();
    assert!(said.contains("spool") && said.lines().count() == 1, "{said}");

    host.start();
    let session = host.ask("GET", &format!("/v1/sessions/{id}"), None).1;
    assert_eq!((&session["context_percent"], &session["current_epic"]), (&30.into(), &"004".into()), "{session}");
    assert_eq!(session["host_machine"], "odin4");
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{other}"), None).1["status"], "closed");
    assert_eq!(waiting(&host), Vec::<String>::new());
}

#[test]
fn imported_requests_keep_their_timestamps() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    // What is tested is that time passes.
    std::thread::sleep(Duration::from_millis(1200));
    host.start();
    let age = host.ask("GET", &format!("/v1/sessions/{id}"), None).1["age_seconds"].as_u64().unwrap();
    assert!(age >= 1, "it was registered {age} s ago");
}

#[test]
fn invalid_requests_are_rejected_without_a_daemon_too() {
    let host = Host::new("odin4");
    for (words, code) in [
        (&["register", "--project", "Odin"][..], 2),
        (&["register", "--project", "odin", "--pid", "2147483647"], 2),
        (&["heartbeat", "nobody"], 2),
        (&["close", "nobody"], 2),
        (&["list"], 69),
    ] {
        let (found, said) = host.refused(words);
        assert_eq!(found, code, "{words:?}: {said}");
    }
    assert_eq!(waiting(&host), Vec::<String>::new());
}

#[test]
fn spooled_request_is_applied_once_over_a_crash() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let spool = host.state_dir().join("spool");
    let name = waiting(&host).remove(0);
    let request = fs::read(spool.join(&name)).unwrap();
    host.start();
    let first = host.ask("GET", &format!("/v1/sessions/{id}"), None).1;
    host.kill();
    // As if the daemon had crashed after the commit and before it removed the file.
    let store = host.state_dir().join("sessiond.db");
    let db = rusqlite::Connection::open(&store).unwrap();
    db.execute("INSERT OR IGNORE INTO imported_requests (name) VALUES (?1)", [&name]).unwrap();
    drop(db);
    fs::write(spool.join(&name), request).unwrap();
    host.start();
    let list = host.ask("GET", "/v1/sessions", None).1;
    assert_eq!(waiting(&host), Vec::<String>::new());
    assert_eq!(list["total_count"], 1, "{list}");
    assert_eq!(list["instances"][0]["created_at"], first["created_at"]);
}

#[test]
fn new_requests_are_imported_and_invalid_ones_quarantined() {
    let host = Host::new("odin4").started();
    let away = Host::new("odin4");
    let id = away.ok(&["register", "--project", "odin", "--id-only"]);
    let spool = host.state_dir().join("spool");
    fs::create_dir_all(&spool).unwrap();
    let name = waiting(&away).remove(0);
    let text = fs::read_to_string(away.state_dir().join("spool").join(&name)).unwrap();
    let ours = text.replace(away.socket().to_str().unwrap(), host.socket().to_str().unwrap());
    assert_ne!(ours, text);
    fs::write(spool.join("1.json"), &text).unwrap();
    // Renamed, as the daemon may read a file while it is written.
    fs::write(spool.join(".damaged"), &ours[..ours.len() - 20]).unwrap();
    fs::rename(spool.join(".damaged"), spool.join("2.json")).unwrap();
    fs::write(spool.join(".draft"), &ours).unwrap();
    fs::rename(spool.join(".draft"), spool.join(&name)).unwrap();
    eventually("it is taken in", SOON, || {
        (host.ask("GET", &format!("/v1/sessions/{id}"), None).0 == 200).then_some(())
    });
    let status = eventually("the damaged one is quarantined", SOON, || {
        let status = host.status();
        (status["spool"]["quarantined"] == 1 && status["spool"]["ignored"] == 1).then_some(status)
    });
    assert!(!spool.join("2.json").exists());
    assert_eq!(status["spool"]["quarantine"][0]["file"], spool.join("2.json").to_str().unwrap());
    assert!(spool.join("1.json").exists(), "a request for another daemon is not touched");
    let reason = status["spool"]["folders"][0]["ignored_reason"].as_str().unwrap();
    assert!(reason.contains(away.socket().to_str().unwrap()), "{reason}");
    assert!(host.log().contains("quarantined"), "{}", host.log());
}

/// A request file as a client would leave it, of any content.
fn leave(host: &Host, name: &str, write: &serde_json::Value) {
    let spool = host.state_dir().join("spool");
    for dir in [host.state_dir(), spool.clone()] {
        let _ = fs::DirBuilder::new().mode(0o700).create(dir);
    }
    let request = serde_json::json!({"at": 1, "sockets": [host.socket()], "write": write});
    fs::write(spool.join(name), request.to_string()).unwrap();
}

#[test]
fn invalid_request_does_not_delay_others() {
    let mut host = Host::new("odin4").started();
    let foreign = host.ok(&["register", "--project", "odin", "--id-only"]);
    let closed = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.ok(&["close", &closed]);
    host.stop();
    // As a session of another machine that was mirrored here.
    let store = rusqlite::Connection::open(host.state_dir().join("sessiond.db")).unwrap();
    let mirrored = "UPDATE sessions SET mirror_generation = 1, host_machine = 'odin9', unsynced_since = NULL WHERE instance_id = ?1";
    assert_eq!(store.execute(mirrored, [&foreign]).unwrap(), 1);
    drop(store);

    let beat = |id: &str, percent: i64| json!({"heartbeat": {"id": id, "request": {"context_percent": percent}}});
    let register =
        |id: &str, request: serde_json::Value| json!({"register": {"id": id, "request": request, "pid_started": null}});
    for (name, write) in [
        ("01.json", beat(&foreign, 1)),
        ("02.json", beat("odin-PS-zzzzzz", 1)),
        ("03.json", beat(&closed, 1)),
        ("04.json", beat(&foreign, 101)),
        ("05.json", register("odin-PS-aaaaaa", json!({"project": "Odin"}))),
        ("06.json", register("other-PS-aaaaaa", json!({"project": "odin"}))),
        ("07.json", json!({"close": {"id": foreign}})),
        ("08.json", json!({"event": {"id": foreign, "request": {"event_type": "note"}}})),
        ("09.json", json!({"agent": {"report": {"sign": "end", "claude_session_uuid": "nobody"}}})),
        ("10.json", json!({"unknown": {}})),
    ] {
        leave(&host, name, &write);
    }
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.ok(&["heartbeat", &id, "--context", "42"]);
    host.start();
    let session = host.ask("GET", &format!("/v1/sessions/{id}"), None).1;
    assert_eq!(session["context_percent"], 42, "{session}\n{}", host.log());
    // 03 came too late and 09 reports nothing known: there is nothing to be kept of either.
    let status = eventually("each of the others is quarantined", SOON, || {
        let status = host.status();
        (status["spool"]["quarantined"] == 8 && status["spool"]["waiting"] == 0).then_some(status)
    });
    assert_eq!((&status["spool"]["waiting"], waiting(&host)), (&0.into(), Vec::new()), "{status}");
    let text = host.ok(&["status"]);
    assert!(text.contains("8 spooled requests quarantined"), "{text}");
    let doctor = String::from_utf8(host.verb(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("8 spooled requests can never be imported"), "{doctor}");
    host.stop();
    let copies = fs::read_dir(host.state_dir().join("quarantine")).unwrap().count();
    host.start();
    assert_eq!((copies, &host.status()["spool"]["quarantined"]), (8, &8.into()), "a restart keeps them");
}

#[test]
fn doctor_reports_pending_requests_without_a_daemon() {
    let host = Host::new("odin4");
    host.ok(&["register", "--project", "odin", "--id-only"]);
    let doctor = String::from_utf8(host.verb(&["doctor"]).stdout).unwrap();
    let pending = doctor.lines().find(|line| line.contains("pending requests in ")).unwrap_or_default();
    assert!(pending.contains(": 1, the oldest for "), "{doctor}");
}

#[test]
fn requests_stay_in_order_while_the_store_is_full() {
    let mut host = Host::new("odin4");
    host.configure("[store]\nmax_size = \"1MiB\"\n");
    host.start();
    let filled = host.ok(&["register", "--project", "odin", "--id-only"]);
    let text = "x ".repeat(25_000);
    while host
        .ask(
            "POST",
            &format!("/v1/sessions/{filled}/events"),
            Some(&json!({"event_type": "note", "event_data": {"text": text}})),
        )
        .0
        == 201
    {}
    host.stop();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    for (name, note) in [("17.json", "first"), ("18.json", "second")] {
        // After the registration, whose name begins with the present time.
        let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        let write =
            json!({"event": {"id": id, "request": {"event_type": "note", "event_data": {"note": note, "text": text}}}});
        leave(&host, &format!("{micros:020}-{name}"), &write);
    }
    host.start();
    let spool = eventually("the status says why they wait", SOON, || {
        let spool = host.status()["spool"].clone();
        (spool["waiting"] == 2).then_some(spool)
    });
    let reason = spool["folders"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("full"), "{reason}");
    assert!(spool["folders"][0]["oldest_at"].is_string() && spool["quarantined"] == 0, "{spool}");
    let said = host.ok(&["status"]);
    assert!(said.contains("2 requests in") && said.contains("full"), "{said}");
    host.stop();
    host.configure("");
    host.start();
    let events = host.ask("GET", &format!("/v1/sessions/{id}/events"), None).1;
    let notes: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["event_data"]["note"].clone()).collect();
    assert_eq!(notes, ["second", "first"], "newest first");
}

#[test]
fn requests_are_applied_in_order_despite_clock_changes() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.ok(&["close", &id]);
    let spool = host.state_dir().join("spool");
    let close = waiting(&host).remove(1);
    fs::rename(spool.join(&close), spool.join(format!("0{}", &close[1..].replacen("17", "16", 1)))).unwrap();
    host.start();
    let session = host.ask("GET", &format!("/v1/sessions/{id}"), None).1;
    assert_eq!(session["status"], "closed", "{session}\n{}", host.log());
}

#[test]
fn daemon_serves_during_a_large_import() {
    let mut host = Host::new("odin4");
    let first = host.ok(&["register", "--project", "odin", "--id-only"]);
    // As many as several passes take, made from the first by other ids and later times.
    let spool = host.state_dir().join("spool");
    let name = waiting(&host).pop().unwrap();
    let request = fs::read_to_string(spool.join(&name)).unwrap();
    let (at, rest) = name.split_once('-').unwrap();
    let ids: Vec<_> = (0..1500).map(|n| format!("odin-PS-x{n:05}")).collect();
    for (n, id) in ids.iter().enumerate() {
        let later = at.parse::<u64>().unwrap() + 1 + n as u64;
        let path = spool.join(format!("{later:020}-{rest}"));
        fs::write(&path, request.replace(&first, id)).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    host.start();
    // Most are still to be imported when it serves; an id that was printed resolves all the same.
    let at_start = waiting(&host).len();
    let last = ids.last().unwrap();
    let (status, session) = host.ask("GET", &format!("/v1/sessions/{last}"), None);
    assert_eq!((status, session["instance_id"].as_str()), (200, Some(last.as_str())), "{session}");
    assert!(at_start > 0, "all were imported before it served, so nothing was tested");
    eventually("all are imported", SOON, || waiting(&host).is_empty().then_some(()));
    let (status, unknown) = host.ask("GET", "/v1/sessions/odin-PS-zzzzzz", None);
    assert_eq!(status, 404, "{unknown}");
    assert_eq!(host.ask("GET", "/v1/sessions?limit=1", None).1["total_count"], 1501);
}
