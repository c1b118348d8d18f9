//! The roles of migrations/central/rights on a real Postgres: exactly the rights that a daemon needs.

use std::path::{Path, PathBuf};

use serde_json::json;

use testkit::daemon::Host;
use testkit::old_central;
use testkit::postgres::Server;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central/rights").join(name)
}

/// A central with its schema, the recording tables of the earlier services among it.
fn central() -> Server {
    let server = old_central(&[]);
    Host::new("owner").ok(&["migrate", "--central-url", &server.url("central")]);
    server
}

fn grant(server: &Server, role: &str) {
    // A second time changes nothing and fails at nothing.
    for _ in 0..2 {
        server.psql_file_with("central", &file("daemon.sql"), &[&format!("role={role}")]);
    }
}

fn bind(server: &Server, role: &str, machine: &str) {
    grant(server, role);
    for _ in 0..2 {
        server.psql_file_with(
            "central",
            &file("row_security.sql"),
            &[&format!("role={role}"), &format!("machine={machine}")],
        );
    }
}

fn host(server: &Server, machine: &str, role: &str) -> Host {
    Host::with_central(machine, &server.url_as(role, "central")).started()
}

#[test]
fn role_has_exactly_the_rights_of_a_daemon() {
    let server = central();
    grant(&server, "narrow");
    let narrow = host(&server, "odin3", "narrow");
    let id = narrow.ok(&["register", "--project", "odin", "--id-only"]);
    narrow.ok(&["heartbeat", &id, "--context", "42", "--epic", "003"]);
    narrow.ok(&["event", &id, "epic_started"]);
    narrow.ok(&["command", &id, "build"]);
    narrow.ok(&["checkpoint", &id, "--type", "manual", "--work-state", "{}"]);
    narrow.ok(&["sync", "--wait"]);
    let records = "SELECT (SELECT count(*) FROM event_store), (SELECT count(*) FROM command_log), (SELECT count(*) FROM \
         checkpoints), (SELECT count(DISTINCT instance_id) FROM sessiond_history)";
    assert_eq!(server.psql("central", records), "1|1|1|1");
    narrow.ok(&["close", &id]);
    narrow.ok(&["sync", "--wait"]);
    narrow.ok(&["identity", "rename", "odin5"]);
    narrow.await_synced();
    assert_eq!(
        server.psql(
            "central",
            &format!("SELECT status, host_machine FROM supervisor_sessions WHERE instance_id = '{id}'")
        ),
        "closed|odin5"
    );

    let doctor = narrow.verb(&["doctor", "--json", "--central-url", &server.url_as("narrow", "central")]);
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let central: Vec<_> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["check"].as_str().unwrap().starts_with("central."))
        .collect();
    assert!(central.len() >= 8 && central.iter().all(|f| f["verdict"] == "good"), "{central:#?}");

    for sql in [
        "DELETE FROM supervisor_sessions",
        "TRUNCATE supervisor_sessions",
        "ALTER TABLE supervisor_sessions ADD COLUMN x int",
        "DROP TABLE sessiond_hosts",
        "CREATE TABLE mine (x int)",
        "UPDATE event_store SET instance_id = 'x'",
        "DELETE FROM command_log",
        "UPDATE sessiond_migrations SET description = 'x'",
        "SELECT pg_read_file('postgresql.conf')",
        "CREATE ROLE friend",
    ] {
        let why = server.psql_as("narrow", "central", sql).unwrap_err();
        assert!(why.contains("permission denied") || why.contains("must be owner"), "{sql}: {why}");
    }
}

#[test]
fn missing_right_is_named() {
    let server = central();
    grant(&server, "poor");
    server.psql("central", "REVOKE UPDATE ON sessiond_sweep FROM poor");
    let output = Host::new("odin3").verb(&["doctor", "--json", "--central-url", &server.url_as("poor", "central")]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rights = found["findings"].as_array().unwrap().iter().find(|f| f["check"] == "central.rights").unwrap();
    assert_eq!(
        (&rights["verdict"], &rights["found"]),
        (&json!("wrong"), &json!("this role lacks UPDATE on sessiond_sweep"))
    );
}

#[test]
fn row_security_limits_a_role_to_its_machines_rows() {
    let server = central();
    bind(&server, "of_odin3", "odin3");
    bind(&server, "of_laptop", "laptop");
    let odin3 = host(&server, "odin3", "of_odin3");
    let laptop = host(&server, "laptop", "of_laptop");
    let [theirs, ours] = [&odin3, &laptop].map(|host| host.ok(&["register", "--project", "odin", "--id-only"]));
    odin3.await_synced();
    laptop.await_synced();

    // One row that may not be written is parked, and keeps no other back.
    laptop.ok(&["register", "--project", "odin", "--machine", "odin3"]);
    let next = laptop.ok(&["register", "--project", "odin", "--id-only"]);
    laptop.await_synced();
    assert_eq!(laptop.status()["parked"], 1);
    let rows = server.psql(
        "central",
        "SELECT instance_id FROM supervisor_sessions WHERE host_machine = 'laptop' ORDER BY created_at",
    );
    assert_eq!(rows.lines().collect::<Vec<_>>(), [ours.as_str(), next.as_str()]);

    let may = |sql: &str| server.psql_as("of_laptop", "central", sql);
    let row = |id: &str| format!("WHERE instance_id = '{id}'");
    for change in
        ["status = 'closed'", "current_epic = 'x'", "host_machine = 'laptop'", "status = 'stale', current_epic = 'x'"]
    {
        let why = may(&format!("UPDATE supervisor_sessions SET {change} {}", row(&theirs))).unwrap_err();
        assert!(why.contains("may not write sessions of machine odin3"), "{change}: {why}");
    }
    for sql in [
        format!("UPDATE supervisor_sessions SET host_machine = 'odin3' {}", row(&ours)),
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine) VALUES ('a-PS-aaaaaa', 'a', 'PS', 'odin3')".into(),
        event_of(&theirs),
        "INSERT INTO sessiond_machine_roles VALUES ('of_laptop', 'odin3')".into(),
        "INSERT INTO sessiond_hosts (host_id, machine_name, claim, version) VALUES (gen_random_uuid(), 'odin4', gen_random_uuid(), '')".into(),
    ] {
        let why = may(&sql).unwrap_err();
        let denied = ["row-level security", "permission denied", "may not write sessions of machine odin3"];
        assert!(denied.iter().any(|words| why.contains(words)), "{sql}: {why}");
    }
    assert_eq!(
        may("UPDATE sessiond_hosts SET retired_at = now() WHERE machine_name = 'odin3' RETURNING 1").unwrap(),
        ""
    );
    may(&event_of(&ours)).unwrap();
    // No status lets a row change its machine, nor a command that inserts or updates.
    for status in ["active", "stale", "closed"] {
        for sql in [
            format!("UPDATE supervisor_sessions SET host_machine = 'odin3', status = '{status}' {}", row(&ours)),
            format!("UPDATE supervisor_sessions SET host_machine = 'laptop', status = '{status}' {}", row(&theirs)),
            format!(
                "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, status) \
                 VALUES ('a-PS-bbbbbb', 'a', 'PS', 'odin3', '{status}')"
            ),
            format!(
                "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, status) \
                 VALUES ('{ours}', 'a', 'PS', 'laptop', '{status}') ON CONFLICT (instance_id) DO UPDATE SET \
                 host_machine = 'odin3', status = excluded.status"
            ),
            format!(
                "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, status) \
                 VALUES ('{theirs}', 'a', 'PS', 'laptop', '{status}') ON CONFLICT (instance_id) DO UPDATE SET \
                 working_dir = '/hostile', status = excluded.status"
            ),
        ] {
            let why = may(&sql).unwrap_err();
            let denied = why.contains("row-level security") || why.contains("may not write sessions of machine odin3");
            assert!(denied, "{sql}: {why}");
        }
    }
    let rows = "SELECT count(*) FROM supervisor_sessions WHERE host_machine = 'odin3'";
    assert_eq!(server.psql("central", rows), "1");
    // Registrations, deletions and what happened in another machine's session.
    server.psql("central", "GRANT DELETE, UPDATE ON ALL TABLES IN SCHEMA public TO of_laptop");
    server.psql("central", &event_of(&theirs).replace("1, now()", "2, now()"));
    for (sql, rows) in [
        (format!("DELETE FROM supervisor_sessions {} RETURNING 1", row(&theirs)), ""),
        ("DELETE FROM sessiond_hosts WHERE machine_name = 'odin3' RETURNING 1".into(), ""),
        ("DELETE FROM sessiond_history RETURNING 1".into(), ""),
        ("DELETE FROM sessiond_tombstones RETURNING 1".into(), ""),
        (format!("DELETE FROM event_store {} RETURNING 1", row(&theirs)), ""),
        (format!("UPDATE event_store SET event_data = '{{}}' {} RETURNING 1", row(&theirs)), ""),
    ] {
        assert_eq!(may(&sql).unwrap(), rows, "{sql}");
    }
    may("UPDATE sessiond_hosts SET machine_name = 'odin9' WHERE machine_name = 'laptop'").unwrap_err();
    // A role that it may become is bound as well.
    server.psql(
        "central",
        "CREATE ROLE writers; GRANT ALL ON ALL TABLES IN SCHEMA public TO writers; GRANT writers TO of_laptop",
    );
    let escaped = format!("SET ROLE writers; UPDATE supervisor_sessions SET current_epic = 'x' {}", row(&theirs));
    may(&escaped).unwrap_err();
    server.psql("central", "REVOKE writers FROM of_laptop");
    // What every host does for the others: turn their silent sessions stale.
    may(&format!("UPDATE supervisor_sessions SET status = 'stale' {}", row(&theirs))).unwrap();
    // Whoever is not listed goes on as before.
    grant(&server, "another_client");
    let another = format!("UPDATE supervisor_sessions SET current_epic = 'y' {} RETURNING current_epic", row(&theirs));
    assert_eq!(server.psql_as("another_client", "central", &another).unwrap(), "y");
}

fn event_of(id: &str) -> String {
    format!(
        "INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata) \
         VALUES (gen_random_uuid(), '{id}', 'test_failed', 1, now(), '{{}}', '{{}}')"
    )
}

/// What turns a session stale: (settings of the transaction, what else is set, whether it is allowed).
const STALE: [(&str, &str, bool); 11] = [
    // A client, a daemon, and a daemon of before there were column times.
    ("", "", true),
    ("sessiond.columns = 'on'", "", true),
    ("sessiond.replay = 'on'", "", true),
    ("sessiond.columns = 'on'", ", column_times = column_times || '{\"status\": 1}'", true),
    ("sessiond.columns = 'on'", ", column_times = column_times || '{\"status\": 99999999999999999}'", false),
    ("sessiond.columns = 'on'", ", column_times = column_times || '{\"status\": \"x\"}'", false),
    ("sessiond.columns = 'on'", ", column_times = column_times || '{\"other\": 99999999999999999}'", false),
    ("sessiond.columns = 'on'", ", column_times = '[]'", false),
    ("sessiond.columns = 'on'", ", column_times = NULL", false),
    // The trigger sets it where another host changed the row before, and not here.
    ("sessiond.host = '00000000-0000-4000-8000-000000000001'", ", others_xid = '1'", false),
    ("sessiond.columns = 'on'", ", current_epic = 'x'", false),
];

#[test]
fn any_machine_s_role_turns_silent_sessions_stale_and_changes_nothing_else() {
    let server = central();
    bind(&server, "of_laptop", "laptop");
    let theirs = "WHERE host_machine = 'odin3'";
    for (number, times) in ["DEFAULT", "NULL", "'{\"other\": 5, \"status\": 7}'", "'[]'"].into_iter().enumerate() {
        server.psql(
            "central",
            &format!(
                "DELETE FROM supervisor_sessions; \
                 SET sessiond.host = '00000000-0000-4000-8000-000000000001'; INSERT INTO supervisor_sessions \
                 (instance_id, project, instance_type, host_machine, last_heartbeat, column_times) \
                 VALUES ('a-PS-00000{number}', 'a', 'PS', 'odin3', now() - interval '1 hour', {times})"
            ),
        );
        for (settings, set, allowed) in STALE {
            // Times that are no object, which only the owner can have written, must not be in a daemon's way. NULL
            // with a value appended stays NULL.
            if times == "'[]'" && (set.contains("column_times") || allowed && !settings.contains("columns"))
                || times == "NULL" && set.contains("column_times =")
            {
                continue;
            }
            let local = if settings.is_empty() { String::new() } else { format!("SET LOCAL {settings}; ") };
            let update = format!("UPDATE supervisor_sessions SET status = 'stale'{set} {theirs}");
            let result = server.psql_as(
                "of_laptop",
                "central",
                &format!(
                    "BEGIN; SET LOCAL sessiond.host = '00000000-0000-4000-8000-000000000002'; {local}{update}; ROLLBACK"
                ),
            );
            assert_eq!(result.is_ok(), allowed, "{times}: {settings} {set}: {result:?}");
        }
    }
}

#[test]
fn migrate_replaces_a_guard_that_refuses_column_times() {
    let server = central();
    bind(&server, "of_laptop", "laptop");
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central");
    server.psql_file("central", &migrations.join("1790000000000_silent_sessions_and_views.sql"));
    server.psql(
        "central",
        "DELETE FROM sessiond_migrations WHERE version = 1792000000000; \
         INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine) \
         VALUES ('a-PS-aaaaaa', 'a', 'PS', 'odin3')",
    );
    let stale = "UPDATE supervisor_sessions SET status = 'stale' RETURNING status";
    server.psql_as("of_laptop", "central", stale).unwrap_err();
    Host::new("owner").ok(&["migrate", "--central-url", &server.url("central")]);
    assert_eq!(server.psql_as("of_laptop", "central", stale).unwrap(), "stale");
}

#[test]
fn a_renamed_host_keeps_its_rows_under_row_security() {
    let server = central();
    bind(&server, "of_laptop", "laptop");
    bind(&server, "of_laptop", "travel");
    let laptop = host(&server, "laptop", "of_laptop");
    let id = laptop.ok(&["register", "--project", "odin", "--id-only"]);
    laptop.await_synced();
    laptop.ok(&["identity", "rename", "travel"]);
    laptop.await_synced();
    let machine = format!("SELECT host_machine FROM supervisor_sessions WHERE instance_id = '{id}'");
    assert_eq!(server.psql("central", &machine), "travel");
    assert_eq!(laptop.status()["parked"], 0);
}

#[test]
fn migrate_replaces_an_earlier_flawed_guard() {
    let server = central();
    bind(&server, "of_laptop", "laptop");
    // The guard of an earlier row_security.sql.
    server.psql(
        "central",
        "CREATE OR REPLACE FUNCTION sessiond_guard() RETURNS TRIGGER LANGUAGE plpgsql AS \
         $$BEGIN IF sessiond_may_write(OLD.host_machine, current_user) THEN RETURN NEW; END IF; \
         RAISE insufficient_privilege; END$$; \
         DELETE FROM sessiond_migrations WHERE version = 1790000000000; \
         INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine) \
         VALUES ('a-PS-aaaaaa', 'a', 'PS', 'laptop')",
    );
    Host::new("owner").ok(&["migrate", "--central-url", &server.url("central")]);
    let why = server
        .psql_as("of_laptop", "central", "UPDATE supervisor_sessions SET host_machine = 'odin3', status = 'stale'")
        .unwrap_err();
    assert!(why.contains("may not write sessions of machine odin3"), "{why}");
}
