//! Centrals from which something was taken away: each is noticed at the handshake, reported, and worked around or refused.

use std::time::Duration;

use serde_json::Value;
use sessiond::clock;
use sessiond::sync::central::{Central, CentralError};
use sessiond::sync::postgres::{checkup, migrate};

use super::conformance::{World, host, session};
use super::postgres::{Database, options};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

const SOON: Duration = Duration::from_secs(60);

const MARK: &str = "trg_supervisor_sessions_sessiond_mark";
const GONE: &str = "trg_supervisor_sessions_sessiond_gone";

async fn missing(db: &Database<'_>) -> Vec<String> {
    db.link().handshake(&host("odin3", 1)).await.unwrap().missing_triggers
}

#[tokio::test]
async fn missing_triggers_are_named_and_migrate_restores_them() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    assert_eq!(missing(&db).await, Vec::<String>::new());
    assert_eq!(migrate(&options(&server.url("x")), None).await.unwrap().steps, []);
    for name in [MARK, GONE, "trg_supervisor_sessions_sessiond_truncated"] {
        db.psql(&format!("DROP TRIGGER {name} ON supervisor_sessions"));
        assert_eq!(missing(&db).await, [format!("{name} on supervisor_sessions")]);
        migrate(&options(&server.url("x")), None).await.unwrap();
        assert_eq!(missing(&db).await, Vec::<String>::new(), "{name}");
    }
    db.psql("DROP TRIGGER trg_session_work_sessiond_mark ON session_work");
    migrate(&options(&server.url("x")), None).await.unwrap();
    assert_eq!(missing(&db).await, Vec::<String>::new());
    // An operator who disables a trigger means it.
    db.psql(&format!("ALTER TABLE supervisor_sessions DISABLE TRIGGER {MARK}"));
    assert_eq!(migrate(&options(&server.url("x")), None).await.unwrap().steps, []);
    assert_eq!(missing(&db).await, [format!("{MARK} on supervisor_sessions (disabled)")]);
    db.psql(&format!("ALTER TABLE supervisor_sessions ENABLE ALWAYS TRIGGER {MARK}"));
    assert_eq!(missing(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn changes_that_no_trigger_marks_are_read_with_everything() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "central").await;
    db.put(&session("odin-PS-000001", "odin9", db.now()));
    db.put(&session("odin-PS-000002", "odin9", db.now()));
    let mut laptop = Host::with_central("laptop", &server.url("central")).started();
    let known = |laptop: &Host, id: &str| {
        let (status, session) = laptop.ask("GET", &format!("/v1/sessions/{id}"), None);
        (status == 200).then_some(session)
    };
    eventually("the laptop knows both", SOON, || known(&laptop, "odin-PS-000002"));
    db.psql("ALTER TABLE supervisor_sessions DISABLE TRIGGER ALL");
    db.psql("UPDATE supervisor_sessions SET current_epic = '007' WHERE instance_id = 'odin-PS-000001'");
    db.psql("DELETE FROM supervisor_sessions WHERE instance_id = 'odin-PS-000002'");
    // At the next handshake it is noticed, and everything read.
    laptop.kill();
    laptop.start();
    eventually("the change is known", SOON, || {
        known(&laptop, "odin-PS-000001").filter(|session| session["current_epic"] == "007")
    });
    eventually("the deletion is known", SOON, || known(&laptop, "odin-PS-000002").is_none().then_some(()));
    let line = eventually("status names the triggers", SOON, || {
        laptop.status()["central"]["outdated"].as_str().map(str::to_owned)
    });
    assert!(line.contains(MARK) && line.contains("(disabled)") && !line.contains('\n'), "{line}");
    let doctor: Value = serde_json::from_slice(&laptop.verb(&["doctor", "--json"]).stdout).unwrap();
    assert!(
        doctor.to_string().contains(&format!("for lack of {}", "trg_supervisor_sessions_sessiond_changed")),
        "{doctor}"
    );
}

#[tokio::test]
async fn server_without_transaction_numbers_is_refused() {
    let server = Server::start(&["allow_system_table_mods=on"]);
    server.create("x");
    server.psql("x", "ALTER FUNCTION pg_catalog.pg_current_xact_id() RENAME TO taken_away");
    let refused = migrate(&options(&server.url("x")), None).await.unwrap_err().to_string();
    assert!(refused.contains("PostgreSQL") && refused.contains("13 or later"), "{refused}");
    assert_eq!(server.psql("x", "SELECT to_regclass('supervisor_sessions') IS NULL"), "t");
    let db = Database { server: &server, name: "x".into() };
    let refused = db.link().handshake(&host("odin3", 1)).await.unwrap_err();
    assert!(matches!(&refused, CentralError::Refused(why) if why.contains("pg_current_xact_id")), "{refused:?}");
}

/// Citus cannot be had here; its catalog names the tables that it distributes.
#[tokio::test]
async fn distributed_sessions_are_refused_and_local_ones_are_not() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    db.psql(
        "CREATE TABLE pg_dist_partition (logicalrelid REGCLASS, partmethod \"char\"); \
         INSERT INTO pg_dist_partition VALUES ('supervisor_sessions', 'n')",
    );
    db.link().handshake(&host("odin3", 1)).await.unwrap();
    db.psql("UPDATE pg_dist_partition SET partmethod = 'h'");
    let refused = db.link().handshake(&host("odin3", 1)).await.unwrap_err();
    assert!(matches!(&refused, CentralError::Refused(why) if why.contains("undistribute_table")), "{refused:?}");
}

/// A push finds the row of a session by a unique index on its id.
#[tokio::test]
async fn sessions_without_a_key_of_their_own_are_refused_with_what_to_do() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "x").await;
    let refused = async || match db.link().handshake(&host("odin3", 1)).await.unwrap_err() {
        CentralError::Refused(why) => why.to_string(),
        other => panic!("{other:?}"),
    };
    db.psql("ALTER TABLE supervisor_sessions DROP CONSTRAINT supervisor_sessions_pkey CASCADE");
    let why = refused().await;
    assert!(why.contains("ALTER TABLE supervisor_sessions ADD PRIMARY KEY (instance_id)"), "{why}");
    // None of these is one that a push can use.
    for index in ["(instance_id, project)", "(lower(instance_id))", "(instance_id) WHERE status <> 'closed'"] {
        db.psql(&format!("CREATE UNIQUE INDEX other ON supervisor_sessions {index}"));
        refused().await;
        db.psql("DROP INDEX other");
    }
    db.psql("CREATE UNIQUE INDEX other ON supervisor_sessions (instance_id)");
    db.link().handshake(&host("odin3", 1)).await.unwrap();

    db.psql(
        "ALTER TABLE supervisor_sessions RENAME TO whole; \
         CREATE TABLE supervisor_sessions (LIKE whole INCLUDING DEFAULTS) PARTITION BY HASH (project); \
         CREATE TABLE part PARTITION OF supervisor_sessions FOR VALUES WITH (MODULUS 1, REMAINDER 0); \
         ALTER TABLE supervisor_sessions ADD PRIMARY KEY (instance_id, project)",
    );
    let why = refused().await;
    assert!(why.contains("partitioned by another column") && why.contains("PARTITION BY HASH (instance_id)"), "{why}");
    assert!(!why.contains('\n'), "{why}");
    let findings = checkup(&options(&server.url("x")), &clock::system()).await;
    assert!(findings.iter().any(|finding| finding.found == why), "{findings:?}");
    let refused = migrate(&options(&server.url("x")), None).await.unwrap_err().to_string();
    assert!(refused.contains(&why), "{refused}");
}

#[tokio::test]
async fn triggers_that_go_missing_while_connected_are_noticed() {
    let server = Server::start(&[]);
    let db = Database::migrated(&server, "central").await;
    db.put(&session("odin-PS-000001", "odin9", db.now()));
    let laptop = Host::with_central("laptop", &server.url("central")).started();
    let epic = |wanted: &str| {
        let (_, session) = laptop.ask("GET", "/v1/sessions/odin-PS-000001", None);
        (session["current_epic"] == wanted).then_some(())
    };
    let outdated = || laptop.status()["central"]["outdated"].as_str().map(str::to_owned);
    db.psql("UPDATE supervisor_sessions SET current_epic = '006'");
    eventually("the laptop knows the session", SOON, || epic("006"));
    assert_eq!(outdated(), None);
    db.psql("ALTER TABLE supervisor_sessions DISABLE TRIGGER ALL; UPDATE supervisor_sessions SET current_epic = '007'");
    eventually("status names the triggers", SOON, || outdated().filter(|line| line.contains(MARK)));
    eventually("everything is read", SOON, || epic("007"));
    // What was changed before they were enabled again is read too.
    db.psql("UPDATE supervisor_sessions SET current_epic = '008'; ALTER TABLE supervisor_sessions ENABLE TRIGGER ALL");
    eventually("status names none", SOON, || outdated().is_none().then_some(()));
    eventually("everything is read for the last time", SOON, || epic("008"));
}
