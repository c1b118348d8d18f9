//! Two sessions, one id: neither overwrites the other.

use std::time::Duration;
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

#[test]
fn later_session_gets_a_new_id_and_keeps_the_old_as_an_alias() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("laptop", &url).started();
    host.await_central("schema_missing");
    let id = host.ok(&["register", "--project", "odin", "--epic", "mine", "--id-only"]);
    // While this host waits, an old client draws the same id.
    host.ok(&["migrate", "--central-url", &url]);
    server.psql(
        "central",
        &format!(
            "INSERT INTO supervisor_sessions (instance_id, project, instance_type, current_epic) \
             VALUES ('{id}', 'odin', 'PS', 'theirs')"
        ),
    );
    host.await_synced();
    let (_, session) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    let new = session["instance_id"].as_str().unwrap();
    assert_ne!(new, id);
    assert_eq!(session["former_id"], id.as_str());
    host.ok(&["heartbeat", &id, "--context", "5"]);
    assert!(host.ok(&["footer", &id]).contains(new));
    assert!(host.log().contains(&id) && host.log().contains(new), "both are logged");
    host.await_synced();
    let mut want = [format!("{id}|theirs|0"), format!("{new}|mine|5")];
    want.sort();
    let rows = server.psql(
        "central",
        "SELECT instance_id, current_epic, context_percent FROM supervisor_sessions ORDER BY instance_id COLLATE \"C\"",
    );
    assert_eq!(rows, want.join("\n"));
}

#[test]
fn rejected_row_is_parked_and_others_are_pushed() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("odin3", &url);
    host.ok(&["migrate", "--central-url", &url]);
    server.psql(
        "central",
        "ALTER TABLE supervisor_sessions ADD CONSTRAINT no_thirteen CHECK (current_epic IS DISTINCT FROM '13')",
    );
    let host = host.started();
    let poison = host.ok(&["register", "--project", "odin", "--epic", "13", "--id-only"]);
    for _ in 0..20 {
        host.ok(&["register", "--project", "odin", "--epic", "14", "--id-only"]);
    }
    host.await_synced();
    assert_eq!(server.psql("central", "SELECT count(*), max(current_epic) FROM supervisor_sessions"), "20|14");
    let status = host.status();
    assert_eq!((&status["parked"], &status["central"]["state"]), (&1.into(), &"connected".into()));
    let listed = host.ok(&["parked", "list"]);
    assert!(listed.contains(&poison) && listed.contains("no_thirteen"), "{listed}");

    // A change frees it at once.
    host.ok(&["heartbeat", &poison, "--epic", "15"]);
    host.await_synced();
    let row =
        server.psql("central", &format!("SELECT current_epic FROM supervisor_sessions WHERE instance_id = '{poison}'"));
    assert_eq!(row, "15");
}

#[test]
fn session_closed_in_central_is_closed_locally() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("odin3", &url);
    host.ok(&["migrate", "--central-url", &url]);
    let host = host.started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.await_synced();
    server.psql("central", "UPDATE supervisor_sessions SET status = 'closed', closed_at = now()");
    // Refused if the host has heard of it by now.
    host.verb(&["heartbeat", &id]);
    eventually("it is closed here too", Duration::from_secs(20), || {
        (host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"] == "closed").then_some(())
    });
    assert_eq!(host.refused(&["heartbeat", &id]).0, 1);
    assert_eq!(server.psql("central", "SELECT status FROM supervisor_sessions"), "closed");
}
