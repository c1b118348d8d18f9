//! Centrals from which something was taken away: each is noticed at the handshake, reported, and worked around or refused.

use std::time::Duration;

use serde_json::Value;
use sessiond::sync::central::{Central, CentralError};
use sessiond::sync::postgres::migrate;

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
