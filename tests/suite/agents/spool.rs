//! Writes that are made while no daemon answers.

use std::fs;
use std::time::Duration;

use crate::support::daemon::Host;
use crate::support::eventually;

const SOON: Duration = Duration::from_secs(20);

fn waiting(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.state_dir().join("spool")).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".json"));
    names.sort();
    names
}

#[test]
fn what_is_registered_with_no_daemon_has_the_id_it_was_told() {
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
fn times_are_those_of_the_writing() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    // What is tested is that time passes.
    std::thread::sleep(Duration::from_millis(1200));
    host.start();
    let age = host.ask("GET", &format!("/v1/sessions/{id}"), None).1["age_seconds"].as_u64().unwrap();
    assert!(age >= 1, "it was registered {age} s ago");
}

#[test]
fn what_is_refused_with_a_daemon_is_refused_without() {
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
fn a_letter_is_applied_once_though_the_daemon_dies_in_between() {
    let mut host = Host::new("odin4");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let spool = host.state_dir().join("spool");
    let name = waiting(&host).remove(0);
    let letter = fs::read(spool.join(&name)).unwrap();
    host.start();
    let first = host.ask("GET", &format!("/v1/sessions/{id}"), None).1;
    host.kill();
    // As if it had died after the commit and before the file was gone.
    let store = host.state_dir().join("sessiond.db");
    let db = rusqlite::Connection::open(&store).unwrap();
    db.execute("INSERT OR IGNORE INTO taken_in (name) VALUES (?1)", [&name]).unwrap();
    drop(db);
    fs::write(spool.join(&name), letter).unwrap();
    host.start();
    let list = host.ask("GET", "/v1/sessions", None).1;
    assert_eq!(waiting(&host), Vec::<String>::new());
    assert_eq!(list["total_count"], 1, "{list}");
    assert_eq!(list["instances"][0]["created_at"], first["created_at"]);
}

#[test]
fn letters_are_taken_in_as_they_appear_and_damaged_ones_set_aside() {
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
    fs::write(spool.join("2.json"), &ours[..ours.len() - 20]).unwrap();
    fs::write(spool.join(".draft"), &ours).unwrap();
    fs::rename(spool.join(".draft"), spool.join(&name)).unwrap();
    eventually("it is taken in", SOON, || {
        (host.ask("GET", &format!("/v1/sessions/{id}"), None).0 == 200).then_some(())
    });
    eventually("the damaged one is set aside", SOON, || spool.join("damaged/2.json").exists().then_some(()));
    assert!(spool.join("1.json").exists(), "a letter to another daemon's socket is not touched");
    assert!(host.log().contains("set aside"), "{}", host.log());
}

#[test]
fn what_was_written_last_comes_last_whatever_the_clock_said() {
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
