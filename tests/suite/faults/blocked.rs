//! Writes blocked by a file size limit or by another program's lock.

use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use testkit::daemon::Host;
use testkit::eventually;

const LIMIT: Duration = Duration::from_secs(30);

fn register(host: &Host) -> (u16, serde_json::Value) {
    host.ask("POST", "/v1/sessions", Some(&json!({"project": "odin"})))
}

/// Opens the daemon's database as any other program would.
fn other_program(host: &Host) -> Connection {
    Connection::open(host.state_dir().join("sessiond.db")).unwrap()
}

#[test]
fn file_size_limit_is_reported_as_a_full_disk() {
    let host = Host::new("odin3").started();
    let (status, session) = register(&host);
    assert_eq!(status, 201);
    let limit = |current| {
        let limit = Rlimit { current, maximum: None };
        prlimit(Some(host.pid()), Resource::Fsize, limit).unwrap()
    };
    // SIGXFSZ reaches the daemon with the first write beyond this.
    let before = limit(Some(4096));
    let (status, answer) = register(&host);
    assert_eq!((status, answer["error"]["code"].as_str()), (507, Some("disk_full")), "{answer}");
    let event = json!({"event_type": "error", "event_data": {"message": "m"}});
    let path = format!("/v1/sessions/{}/events", session["instance_id"].as_str().unwrap());
    assert_eq!(host.ask("POST", &path, Some(&event)).0, 507);
    assert_eq!(host.ask("GET", "/v1/sessions", None).1["total_count"], 1, "reads go on");
    limit(before.current);
    eventually("it takes sessions again", LIMIT, || (register(&host).0 == 201).then_some(()));
}

#[test]
fn start_under_file_size_limit_names_the_full_disk() {
    let mut host = Host::new("odin3").started();
    register(&host);
    host.kill();
    let mut limited = std::process::Command::new("sh");
    let sessiond = host.sessiond();
    limited.arg("-c").arg("ulimit -f 1; exec \"$0\" run").arg(sessiond.get_program());
    limited.envs(sessiond.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let refused = limited.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(75), "{said}");
    assert!(said.contains("full"), "{said}");
    host.start();
    assert_eq!(host.ask("GET", "/v1/sessions", None).1["total_count"], 1);
}

#[test]
fn database_locked_by_another_program_is_named() {
    let mut host = Host::new("odin3").started();
    assert_eq!(register(&host).0, 201);
    let other = other_program(&host);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, answer) = register(&host);
    let message = answer["error"]["message"].as_str().unwrap();
    let holder = format!("(pid {})", std::process::id());
    assert_eq!(status, 503, "{answer}");
    assert!(message.contains("another program holds the database locked"), "{message}");
    assert!(message.contains(&holder) || !cfg!(target_os = "linux"), "{message}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(register(&host).0, 201);
    drop(other);

    // A lock of the whole file, as a restore or a repair takes it, met by a start.
    assert_eq!(host.stop(), Some(0));
    let other = other_program(&host);
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let (code, said) = host.refuses();
    assert!(said.contains("another program holds the database locked"), "{said}");
    assert!(said.contains(&holder) || !cfg!(target_os = "linux"), "{said}");
    assert_eq!(code, 75);
    drop(other);
    host.start();
    assert_eq!(host.ask("GET", "/v1/sessions", None).1["total_count"], 2);
}
