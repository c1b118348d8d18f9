//! Changes by other clients of central survive the owner's pushes and are shown by the owner.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

const SOON: Duration = Duration::from_secs(40);

fn migrated() -> (Server, String) {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    server.create("central");
    let url = server.url("central");
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    (server, url)
}

/// A host whose bare heartbeats wait for fifteen seconds, and that reads central once a second.
fn patient(url: &str) -> Host {
    let host = Host::new("odin3");
    host.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"30s\"\npull_interval = \"1s\"\nconnect_timeout = \"2s\"\n"
    ));
    host.started()
}

/// The changes of a client without a daemon: column, value in SQL, value in JSON.
fn edits() -> [(&'static str, &'static str, Value); 4] {
    [
        ("current_epic", "'E2'", json!("E2")),
        ("context_percent", "77", json!(77)),
        ("claude_session_uuid", "'c-9'", json!("c-9")),
        ("claude_session_path", "'/other.jsonl'", json!("/other.jsonl")),
    ]
}

fn register(host: &Host) -> String {
    host.ok(&["register", "--project", "odin", "--epic", "E1", "--context", "5", "--id-only"])
}

fn edit(server: &Server, id: &str, column: &str, value: &str) {
    let sql = format!("UPDATE supervisor_sessions SET {column} = {value} WHERE instance_id = '{id}'");
    server.psql("central", &sql);
}

fn shown(host: &Host, id: &str) -> Value {
    serde_json::from_str(&host.ok(&["show", id, "--json"])).unwrap()
}

fn in_central(server: &Server, id: &str) -> Value {
    let sql = format!("SELECT to_jsonb(s) FROM supervisor_sessions s WHERE instance_id = '{id}'");
    serde_json::from_str(&server.psql("central", &sql)).unwrap()
}

/// Waits until the owner shows these values, pushes all, and checks that central still has them.
fn survives(server: &Server, host: &Host, id: &str, expected: &[(&str, Value)]) {
    eventually(&format!("the owner shows {expected:?}"), SOON, || {
        let session = shown(host, id);
        expected.iter().all(|(column, value)| session[column] == *value).then_some(())
    });
    host.ok(&["sync", "--wait"]);
    let row = in_central(server, id);
    expected.iter().for_each(|(column, value)| assert_eq!(row[column], *value, "{column} in {row}"));
}

#[test]
fn remote_changes_survive_a_pending_heartbeat() {
    let (server, url) = migrated();
    let host = patient(&url);
    let ids: Vec<_> = (0..12).map(|_| register(&host)).collect();
    host.await_synced();
    for (n, id) in ids.iter().enumerate() {
        host.ok(&["heartbeat", id]);
        let (column, value, _) = &edits()[n % 4];
        edit(&server, id, column, value);
        // A heartbeat after the change carries the old values too.
        host.ok(&["heartbeat", id]);
    }
    for (n, id) in ids.iter().enumerate() {
        let (column, _, value) = &edits()[n % 4];
        survives(&server, &host, id, &[(column, value.clone())]);
    }
}

#[test]
fn remote_changes_survive_a_push_before_the_pull() {
    let (server, url) = migrated();
    let host = patient(&url);
    let id = register(&host);
    host.await_synced();
    for (column, value, expected) in edits() {
        edit(&server, &id, column, value);
        host.ok(&["heartbeat", &id]);
        host.ok(&["sync", "--wait"]);
        survives(&server, &host, &id, &[(column, expected)]);
    }
}

#[test]
fn local_change_keeps_remote_changes_of_other_columns() {
    let (server, url) = migrated();
    let host = patient(&url);
    let id = register(&host);
    host.await_synced();
    edit(&server, &id, "claude_session_uuid", "'c-9'");
    edit(&server, &id, "current_epic", "'E2'");
    host.ok(&["heartbeat", &id, "--context", "33"]);
    let expected =
        [("claude_session_uuid", json!("c-9")), ("current_epic", json!("E2")), ("context_percent", json!(33))];
    survives(&server, &host, &id, &expected);
}

#[test]
fn later_change_of_a_column_wins_in_both_orders() {
    let (server, url) = migrated();
    let host = patient(&url);
    let (ours_last, theirs_last) = (register(&host), register(&host));
    host.await_synced();
    edit(&server, &ours_last, "current_epic", "'theirs'");
    host.ok(&["heartbeat", &ours_last, "--epic", "ours"]);
    survives(&server, &host, &ours_last, &[("current_epic", json!("ours"))]);

    // Their change commits after ours, which waits because the row is locked until then.
    let lock = format!(
        "BEGIN; SELECT 1 FROM supervisor_sessions WHERE instance_id = '{theirs_last}' FOR UPDATE; \
         SELECT pg_sleep(2); UPDATE supervisor_sessions SET current_epic = 'theirs' WHERE instance_id = '{theirs_last}'; COMMIT"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| server.psql("central", &lock));
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FOR UPDATE; %pg_sleep%' AND pid <> pg_backend_pid()";
        eventually("the row is locked", SOON, || (server.psql("central", locked) != "0").then_some(()));
        host.ok(&["heartbeat", &theirs_last, "--epic", "ours"]);
    });
    survives(&server, &host, &theirs_last, &[("current_epic", json!("theirs"))]);
}

#[test]
fn failed_starts_cause_no_identity_conflict() {
    let (_server, url) = migrated();
    let mut host = Host::with_central("odin3", &url).started();
    host.await_central("connected");
    host.stop();
    let identity = host.state_dir().join("identity.json");
    let before = std::fs::read_to_string(&identity).unwrap();
    // Another program holds the socket's place, as a folder that cannot be replaced.
    std::fs::create_dir_all(host.socket().join("held")).unwrap();
    for _ in 0..70 {
        host.refuses();
    }
    assert_eq!(std::fs::read_to_string(&identity).unwrap(), before, "a start that fails leaves no claim");
    std::fs::remove_dir_all(host.socket()).unwrap();
    host.start();
    host.await_central("connected");
}

#[test]
fn restored_backup_causes_no_conflict_but_a_copy_does() {
    let (server, url) = migrated();
    let mut host = Host::with_central("odin3", &url).started();
    let id = register(&host);
    host.await_synced();
    let old = server.psql("central", "SELECT claim FROM sessiond_hosts");
    host.ok(&["heartbeat", &id, "--context", "9"]);
    host.await_synced();
    host.stop();
    // As after many starts: the claim of the backup is none that the host still keeps.
    let text = std::fs::read_to_string(host.state_dir().join("identity.json")).unwrap();
    assert!(text.contains(&old), "the claim that central accepted is kept: {text}");
    server.psql("central", "UPDATE sessiond_hosts SET claim = gen_random_uuid(), batch = 1");
    host.start();
    host.await_central("connected");
    host.await_synced();
    host.stop();

    let copy = Host::with_central("odin3", &url);
    let copied = Command::new("cp").arg("-a").arg(host.state_dir()).arg(copy.state_dir()).status().unwrap();
    assert!(copied.success());
    host.start();
    host.await_central("connected");
    let copy = copy.started();
    copy.await_central("identity_conflict");
    host.await_central("connected");
}
