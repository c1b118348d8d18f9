//! What central does not take: missing rights, locked rows, tables at fault, slow lines. The rest is pushed, what is
//! held back is kept and named, and goes once central takes it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{LIMIT, hurried, limited, nudged};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;
use testkit::proxy::{Mode, Proxy};
use testkit::{legacy_history, old_central};

/// A central with the recording tables, and a login that may do what a daemon needs.
fn central() -> Server {
    let server = old_central(&[]);
    Host::new("owner").ok(&["migrate", "--central-url", &server.url("central")]);
    let rights = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central/rights/daemon.sql");
    server.psql_file_with("central", &rights, &["role=narrow"]);
    server
}

/// A host that logs in with no more rights than it needs.
fn host(server: &Server) -> Host {
    limited("odin3", &server.url_as("narrow", "central"), "2s").started()
}

fn register(host: &Host) -> String {
    host.ok(&["register", "--project", "odin", "--id-only"])
}

/// One of each kind of record, of a session.
fn record_all(host: &Host, id: &str) {
    host.ok(&["event", id, "epic_started"]);
    host.ok(&["command", id, "build"]);
    host.ok(&["checkpoint", id, "--type", "manual", "--work-state", "{}"]);
}

const COUNTS: &str = "SELECT (SELECT count(*) FROM event_store), (SELECT count(*) FROM command_log), \
    (SELECT count(*) FROM checkpoints)";

/// Waits until central has so many events, commands and checkpoints.
fn await_counts(host: &Host, server: &Server, counts: &str) {
    nudged(host, counts, || (server.psql("central", COUNTS) == counts).then_some(()));
}

/// What is said while records of one table wait, and nothing else does.
fn check_blocked(host: &Host, table: &str, why: &str) {
    let status = nudged(host, "the table is named", || {
        let status = host.status();
        let named = status["backlog"]["blocked"][0]["table"] == table;
        (named && status["backlog"]["records"] == 1 && status["backlog"]["sessions"] == 0).then_some(status)
    });
    let blocked = &status["backlog"]["blocked"][0];
    assert_eq!((&blocked["records"], &status["parked"]), (&json!(1), &json!(0)), "{status:#}");
    assert!(blocked["reason"].as_str().unwrap().contains(why), "{blocked}");
    assert_eq!(status["central"]["state"], "connected");
    assert!(host.ok(&["status"]).contains(table));
    let (code, said) = host.refused(&["sync", "--wait", "--timeout", "1"]);
    assert!(code == 1 && said.contains("1 record is pending") && said.contains(why), "{code} {said}");
}

#[test]
fn records_are_pushed_once_a_missing_right_is_granted() {
    let server = central();
    for (machine, (revoke, grant, table, why, counts)) in ["odin3", "odin4", "odin5"].into_iter().zip([
        (
            "REVOKE INSERT ON event_store FROM narrow",
            "GRANT INSERT ON event_store TO narrow",
            "event_store",
            "INSERT on event_store",
            ("0|1|1", "1|1|1"),
        ),
        (
            "REVOKE USAGE ON SEQUENCE command_log_id_seq FROM narrow",
            "GRANT USAGE ON SEQUENCE command_log_id_seq TO narrow",
            "command_log",
            "USAGE on sequence command_log_id_seq",
            ("2|1|2", "2|2|2"),
        ),
        (
            "REVOKE SELECT ON checkpoints FROM narrow",
            "GRANT SELECT ON checkpoints TO narrow",
            "checkpoints",
            "SELECT on checkpoints",
            ("3|3|2", "3|3|3"),
        ),
    ]) {
        server.psql("central", revoke);
        let host = limited(machine, &server.url_as("narrow", "central"), "2s").started();
        let id = register(&host);
        record_all(&host, &id);
        await_counts(&host, &server, counts.0);
        check_blocked(&host, table, why);
        let doctor = host.verb(&["doctor"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains(why), "{doctor:?}");
        server.psql("central", grant);
        await_counts(&host, &server, counts.1);
        host.ok(&["sync", "--wait"]);
        assert_eq!(host.status()["backlog"]["blocked"], json!([]));
    }
}

#[test]
fn right_missing_in_a_trigger_blocks_one_table_only() {
    let server = central();
    server.psql(
        "central",
        "CREATE TABLE audit (id uuid); \
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO audit VALUES (NEW.event_id); RETURN NEW; END $$; \
         CREATE TRIGGER audit BEFORE INSERT ON event_store FOR EACH ROW EXECUTE FUNCTION audit()",
    );
    let host = host(&server);
    let id = register(&host);
    record_all(&host, &id);
    await_counts(&host, &server, "0|1|1");
    check_blocked(&host, "event_store", "permission denied for table audit");
    server.psql("central", "GRANT INSERT ON audit TO narrow");
    await_counts(&host, &server, "1|1|1");
}

#[test]
fn table_without_time_zones_blocks_its_records_until_migrate() {
    let server = Server::start(&["timezone=America/New_York"]);
    server.create("central");
    let url = server.url("central");
    Host::new("owner").ok(&["migrate", "--central-url", &url]);
    server.psql_file("central", &legacy_history());
    let host = limited("odin3", &url, "2s").started();
    let id = register(&host);
    record_all(&host, &id);
    await_counts(&host, &server, "1|0|1");
    check_blocked(&host, "command_log", "run `sessiond migrate`");
    host.ok(&["migrate", "--central-url", &url]);
    await_counts(&host, &server, "1|1|1");
}

#[test]
fn locked_row_does_not_block_others() {
    let server = central();
    let host = host(&server);
    let [locked, free] = [register(&host), register(&host)];
    host.await_synced();
    let lock = format!("SELECT 1 FROM supervisor_sessions WHERE instance_id = '{locked}' FOR UPDATE");
    let idle = server.open_transaction("central", &lock);
    record_all(&host, &locked);
    host.ok(&["heartbeat", &locked, "--epic", "7"]);
    host.ok(&["heartbeat", &free, "--epic", "8"]);
    let later = register(&host);
    record_all(&host, &later);
    let epics = "SELECT string_agg(coalesce(current_epic, '-'), ',' ORDER BY created_at) FROM supervisor_sessions";
    nudged(&host, "the others are there", || (server.psql("central", epics) == "-,8,-").then_some(()));
    nudged(&host, "their records, too", || {
        let added = format!("SELECT count(*) FROM event_store WHERE instance_id = '{later}'");
        (server.psql("central", &added) == "1").then_some(())
    });
    let status = nudged(&host, "the row is named", || {
        let status = host.status();
        status["central"]["last_error"].as_str().is_some_and(|why| why.contains(&locked)).then_some(status)
    });
    assert_eq!((&status["central"]["state"], &status["parked"]), (&json!("connected"), &json!(0)), "{status:#}");
    // It keeps going, lock or not.
    host.ok(&["heartbeat", &free, "--epic", "9"]);
    nudged(&host, "the next change", || (server.psql("central", epics) == "-,9,-").then_some(()));
    drop(idle);
    nudged(&host, "the row itself", || (server.psql("central", epics) == "7,9,-").then_some(()));
    await_counts(&host, &server, "2|2|2");
    host.ok(&["sync", "--wait"]);
    assert_eq!(host.status()["central"]["last_error"], Value::Null);
}

#[test]
fn locked_record_table_does_not_block_sessions() {
    let server = central();
    let host = host(&server);
    let id = register(&host);
    host.await_synced();
    let idle = server.open_transaction("central", "LOCK TABLE event_store IN SHARE MODE");
    record_all(&host, &id);
    await_counts(&host, &server, "0|1|1");
    host.ok(&["heartbeat", &id, "--epic", "5"]);
    nudged(&host, "the session", || {
        (server.psql("central", "SELECT current_epic FROM supervisor_sessions") == "5").then_some(())
    });
    drop(idle);
    await_counts(&host, &server, "1|1|1");
}

#[test]
fn lock_on_the_host_row_is_reported() {
    let server = central();
    let host = host(&server);
    register(&host);
    host.await_synced();
    let idle = server.open_transaction("central", "SELECT 1 FROM sessiond_hosts FOR UPDATE");
    nudged(&host, "the lock is named", || {
        let why = host.status()["central"]["last_error"].as_str().map(str::to_owned)?;
        why.contains("holds a lock on this host's row in sessiond_hosts").then_some(())
    });
    drop(idle);
    host.await_central("connected");
}

/// Changes the type of `status`, which triggers depend on.
fn retype_status(to: &str) -> String {
    format!(
        "DO $$ DECLARE made record; BEGIN \
             CREATE TEMP TABLE triggers AS SELECT tgname, pg_get_triggerdef(oid) AS definition FROM pg_trigger \
                 WHERE tgrelid = 'supervisor_sessions'::regclass AND NOT tgisinternal; \
             FOR made IN SELECT * FROM triggers LOOP \
                 EXECUTE format('DROP TRIGGER %I ON supervisor_sessions', made.tgname); END LOOP; \
             ALTER TABLE supervisor_sessions ALTER status TYPE {to} USING status::text::{to}; \
             FOR made IN SELECT * FROM triggers LOOP EXECUTE made.definition; END LOOP; END $$"
    )
}

#[test]
fn broken_session_table_parks_nothing() {
    let to_enum = "DROP VIEW active_sessions_by_machine, sessions_with_machine; \
         ALTER TABLE supervisor_sessions DROP CONSTRAINT supervisor_sessions_status_check, ALTER status DROP DEFAULT; \
         CREATE TYPE session_status AS ENUM ('active', 'stale', 'closed'); "
        .to_owned()
        + &retype_status("session_status");
    let to_text = retype_status("varchar(16)");
    let faults = [
        (
            "ALTER TABLE supervisor_sessions ADD COLUMN team text NOT NULL DEFAULT ''; \
          ALTER TABLE supervisor_sessions ALTER COLUMN team DROP DEFAULT",
            "ALTER TABLE supervisor_sessions DROP COLUMN team",
            "23502",
        ),
        (
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'maintenance'; END $$; \
          CREATE TRIGGER stop BEFORE INSERT OR UPDATE ON supervisor_sessions FOR EACH ROW EXECUTE FUNCTION stop()",
            "DROP TRIGGER stop ON supervisor_sessions",
            "maintenance",
        ),
        (
            "ALTER TABLE supervisor_sessions ADD CONSTRAINT none CHECK (context_percent < 0) NOT VALID",
            "ALTER TABLE supervisor_sessions DROP CONSTRAINT none",
            "none",
        ),
        (&to_enum, &to_text, "42804"),
    ];
    let server = central();
    let host = host(&server);
    let mut sessions: Vec<_> = (0..12).map(|_| register(&host)).collect();
    host.await_synced();
    for (round, (break_it, repair, why)) in faults.into_iter().enumerate() {
        server.psql("central", break_it);
        for id in &sessions {
            host.ok(&["heartbeat", id, "--epic", &round.to_string()]);
        }
        sessions.extend((0..12).map(|_| register(&host)));
        let status = nudged(&host, "it is refused", || {
            Some(host.status()).filter(|status| status["central"]["state"] == "refused")
        });
        assert!(status["central"]["last_error"].as_str().unwrap().contains(why), "{status:#}");
        let (code, said) = host.refused(&["sync", "--wait", "--timeout", "2"]);
        assert!(code == 1 && said.contains("refused") && said.contains(why), "{code} {said}");
        let status = host.status();
        assert_eq!(status["parked"], 0, "{status:#}");
        assert_eq!(status["backlog"]["sessions"], sessions.len(), "{status:#}");
        // The host is reported as reachable all the same.
        let seen = "SELECT last_seen > now() - interval '10 s' FROM sessiond_hosts";
        eventually("it lives", LIMIT, || (server.psql("central", seen) == "t").then_some(()));
        server.psql("central", repair);
        nudged(&host, "all is there", || {
            let count = server.psql("central", "SELECT count(*) FROM supervisor_sessions");
            (count == sessions.len().to_string() && host.status()["central"]["state"] == "connected").then_some(())
        });
        host.ok(&["sync", "--wait"]);
    }
}

#[test]
fn broken_record_table_blocks_its_records_only() {
    let server = central();
    server.psql("central", "ALTER TABLE event_store ADD COLUMN team text NOT NULL");
    let host = host(&server);
    let id = register(&host);
    (0..3).for_each(|_| record_all(&host, &id));
    await_counts(&host, &server, "0|3|3");
    let status = nudged(&host, "it is named", || {
        Some(host.status()).filter(|status| status["backlog"]["blocked"][0]["table"] == "event_store")
    });
    assert_eq!((&status["parked"], &status["backlog"]["records"]), (&json!(0), &json!(3)), "{status:#}");
    assert_eq!(host.refused(&["sync", "--wait", "--timeout", "1"]).0, 1);
    server.psql("central", "ALTER TABLE event_store DROP COLUMN team");
    await_counts(&host, &server, "3|3|3");
}

#[test]
fn sync_fails_while_a_row_is_parked_and_a_change_unparks_it() {
    let server = central();
    server.psql(
        "central",
        "ALTER TABLE supervisor_sessions ADD CONSTRAINT no_thirteen CHECK (current_epic IS DISTINCT FROM '13')",
    );
    let host = host(&server);
    let bad = host.ok(&["register", "--project", "odin", "--epic", "13", "--id-only"]);
    (0..5).for_each(|_| _ = register(&host));
    nudged(&host, "one is parked", || (host.status()["parked"] == 1).then_some(()));
    let (code, said) = host.refused(&["sync", "--wait"]);
    assert!(code == 1 && said.contains("1 parked row"), "{code} {said}");
    host.ok(&["heartbeat", &bad, "--epic", "14"]);
    host.ok(&["sync", "--wait"]);
    assert_eq!(host.status()["parked"], 0);
}

#[test]
fn events_of_a_deleted_session_are_pushed_once_it_is_back() {
    let server = central();
    let host = host(&server);
    let id = register(&host);
    host.await_synced();
    // No trigger notifies of it: the host does not know it before it pushes.
    server.psql("central", "SET session_replication_role = replica; DELETE FROM supervisor_sessions");
    host.ok(&["event", &id, "epic_started"]);
    nudged(&host, "the event is parked", || (host.status()["parked"] == 1).then_some(()));
    host.ok(&["heartbeat", &id, "--epic", "3"]);
    nudged(&host, "both are there", || {
        (server.psql("central", COUNTS) == "1|0|0" && host.status()["parked"] == 0).then_some(())
    });
}

#[test]
fn slow_link_pushes_sessions_first() {
    const BYTES_A_SECOND: u64 = 64 << 10;
    let server = central();
    let proxy = Proxy::to_socket(&server.socket());
    let host = limited("odin3", &proxy.url("postgres", "central"), "2s").started();
    let id = register(&host);
    host.await_synced();
    proxy.set(Mode::Hang);
    let state = json!({ "notes": "x".repeat(30_000) }).to_string();
    for _ in 0..20 {
        host.ok(&["checkpoint", &id, "--type", "manual", "--work-state", &state]);
    }
    let later = register(&host);
    proxy.set(Mode::Rate(BYTES_A_SECOND));
    let began = Instant::now();
    nudged(&host, "the session is there", || {
        let there = format!("SELECT count(*) FROM supervisor_sessions WHERE instance_id = '{later}'");
        (server.psql("central", &there) == "1").then_some(())
    });
    assert_ne!(server.psql("central", "SELECT count(*) FROM checkpoints"), "20", "the session goes first");
    eventually("the checkpoints are there", Duration::from_secs(120), || {
        (server.psql("central", "SELECT count(*) FROM checkpoints") == "20").then_some(())
    });
    assert!(began.elapsed() > Duration::from_secs(5), "the line was not slow");
}

#[test]
fn rejected_old_rows_do_not_block_later_ones() {
    let server = central();
    server.psql(
        "central",
        "ALTER TABLE supervisor_sessions ADD CONSTRAINT no_thirteen CHECK (current_epic IS DISTINCT FROM '13')",
    );
    let host = hurried("odin3", &server.url("central")).started();
    host.await_central("connected");
    server.psql("central", "ALTER TABLE sessiond_hosts RENAME TO away");
    super::await_state(&host, "schema_missing");
    for _ in 0..40 {
        host.ok(&["register", "--project", "odin", "--epic", "13"]);
    }
    for _ in 0..3 {
        register(&host);
    }
    server.psql("central", "ALTER TABLE away RENAME TO sessiond_hosts");
    nudged(&host, "the good ones are there", || {
        (server.psql("central", "SELECT count(*) FROM supervisor_sessions") == "3").then_some(())
    });
}
