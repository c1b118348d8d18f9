//! A central whose tables are partitioned, and one whose history lies in another schema than its sessions.

use sessiond::domain::Timestamp;
use sessiond::sync::central::{Batch, Central, RowOutcome};
use sessiond::sync::postgres::migrate;

use super::conformance::{STALE_AFTER, World, host, session, whole};
use super::conformance_records::{self, event};
use super::migrations::file;
use super::postgres::{Database, conforms, copies, options};
use super::silence::gone;
use testkit::legacy_history;
use testkit::postgres::Server;

const ID: &str = "odin-PS-000001";

/// A migrated database whose tables are in partitions of another schema.
async fn partitioned<'a>(server: &'a Server, name: &str) -> Database<'a> {
    server.create(name);
    server.psql_file(name, &testkit::partitioned());
    migrate(&options(&server.url(name)), Some("UTC".into())).await.unwrap();
    Database { server, name: name.into() }
}

#[tokio::test]
async fn partitioned_tables_conform() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    partitioned(&server, "template").await;
    let fresh = copies(&server);
    conforms(&fresh).await;
    conformance_records::all(&fresh).await;
}

#[tokio::test]
async fn naive_times_in_partitions_are_converted() {
    let server = Server::start(&["timezone=America/New_York"]);
    server.create("x");
    server.psql_file("x", &testkit::partitioned());
    server.psql(
        "x",
        "CREATE INDEX ON \"Parts\".sessions_0 (created_at); \
         INSERT INTO supervisor_sessions (instance_id, project, instance_type, last_heartbeat, created_at) \
         SELECT 'odin-PS-' || lpad(n::text, 6, '0'), 'odin', 'PS', '2026-07-01 12:00', '2026-01-01 12:00' \
         FROM generate_series(1, 20) AS n; \
         INSERT INTO command_log (instance_id, command_type, action, created_at) \
         SELECT instance_id, 'explicit', 'a', '2026-07-01 12:00' FROM supervisor_sessions",
    );
    let report = migrate(&options(&server.url("x")), None).await.unwrap();
    assert_eq!(report.time_zone.as_deref(), Some("America/New_York"));
    let times = "SELECT DISTINCT s.last_heartbeat AT TIME ZONE 'UTC', s.created_at AT TIME ZONE 'UTC', \
        c.created_at AT TIME ZONE 'UTC' FROM supervisor_sessions s JOIN command_log c USING (instance_id)";
    assert_eq!(server.psql("x", times), "2026-07-01 16:00:00|2026-01-01 17:00:00|2026-07-01 16:00:00");
}

#[tokio::test]
async fn deletions_in_partitions_of_another_schema_are_noticed() {
    let server = Server::start(&[]);
    let db = partitioned(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    for id in [ID, "odin-PS-000002", "odin-PS-000003", "odin-PS-000004", "odin-PS-000005", "odin-PS-000006"] {
        db.put(&session(id, "gone", db.now()));
    }
    let (_, since) = gone(&mut link, 1).await;
    db.delete(ID);
    let (deleted, since) = gone(&mut link, since).await;
    assert_eq!(deleted, [ID]);
    // A client may delete in the partition itself.
    let id = db.psql("SELECT instance_id FROM \"Parts\".sessions_0 LIMIT 1");
    db.psql(&format!("DELETE FROM \"Parts\".sessions_0 WHERE instance_id = '{id}'"));
    let (deleted, since) = gone(&mut link, since).await;
    assert_eq!(deleted, [id]);
    // The foreign keys of history refer to the whole table; without them one partition can be truncated alone.
    db.psql("DROP TABLE event_store, command_log, checkpoints");
    let left = db.psql("SELECT string_agg(instance_id, ' ' ORDER BY instance_id) FROM \"Parts\".sessions_1");
    db.psql("TRUNCATE \"Parts\".sessions_1 CASCADE");
    let (mut truncated, _) = gone(&mut link, since).await;
    truncated.sort();
    assert_eq!(truncated.join(" "), left);
}

#[tokio::test]
async fn events_in_partitions_are_written_once() {
    let server = Server::start(&[]);
    let db = partitioned(&server, "x").await;
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    let row = session(ID, "odin3", Timestamp::from_micros(1_769_774_400_000_000));
    let events = [event(1, row.created_at), event(2, row.created_at)];
    let batch = Batch { after: 0, number: 1, sessions: &[whole(&row)], records: &events };
    assert_eq!(link.push(batch).await.unwrap(), [RowOutcome::Stored, RowOutcome::Stored, RowOutcome::Stored]);
    // Offered again, as after a restored backup.
    let again = Batch { after: 1, number: 2, sessions: &[], records: &events };
    assert_eq!(link.push(again).await.unwrap(), [RowOutcome::Stored, RowOutcome::Stored]);
    assert_eq!(db.psql("SELECT string_agg(sequence_num::text, ' ' ORDER BY sequence_num) FROM event_store"), "1 2");
}

#[tokio::test]
async fn old_marks_are_deleted_in_their_own_partition_only() {
    let server = Server::start(&[]);
    let db = partitioned(&server, "x").await;
    // Rows of both partitions have the same positions: those of the first are old, those of the second young.
    for (table, columns, values) in [
        ("sessiond_history", "instance_id, changed_xid, added_at", ""),
        ("sessiond_tombstones", "instance_id, changed_xid, deleted_at, created_at", ", now()"),
    ] {
        db.psql(&format!(
            "INSERT INTO {table} ({columns}) SELECT id, n::text::xid8, \
                 CASE WHEN satisfies_hash_partition('{table}'::regclass, 2, 0, id) \
                     THEN now() - interval '31 days' ELSE now() END {values} \
             FROM (SELECT n, ('a-' || n)::varchar AS id FROM generate_series(1, 400) AS n) AS t"
        ));
    }
    let count = |what: &str| {
        let of = |table: &str, time: &str| {
            format!("SELECT count(*) FROM {table} WHERE {time} {what} now() - interval '1 day'")
        };
        [of("sessiond_history", "added_at"), of("sessiond_tombstones", "deleted_at")].map(|sql| db.psql(&sql))
    };
    let young = count(">");
    assert!(young.iter().all(|count| count != "0") && count("<").iter().all(|count| count != "0"));
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    link.sweep(STALE_AFTER, STALE_AFTER).await.unwrap();
    assert_eq!(count(">"), young);
    assert_eq!(count("<"), ["0", "0"]);
}

#[tokio::test]
async fn history_in_another_schema_is_followed() {
    let server = Server::start(&[]);
    server.create("x");
    server.psql("x", "CREATE SCHEMA history; ALTER DATABASE x SET search_path = history, public");
    server.psql("x", &format!("SET search_path = public; {}", std::fs::read_to_string(file(0)).unwrap()));
    server.psql_file("x", &legacy_history());
    // With this path the files would create a second table of sessions, which hides the first.
    let refused = migrate(&options(&server.url("x")), None).await.unwrap_err().to_string();
    assert!(refused.contains("schema public") && refused.contains("search_path"), "{refused}");
    assert_eq!(server.psql("x", "SELECT to_regclass('history.supervisor_sessions') IS NULL"), "t");

    server.psql("x", "ALTER DATABASE x SET search_path = public, history");
    migrate(&options(&server.url("x")), Some("UTC".into())).await.unwrap();
    let db = Database { server: &server, name: "x".into() };
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    let row = session(ID, "odin3", db.now());
    let batch = Batch { after: 0, number: 1, sessions: &[whole(&row)], records: &[event(1, row.created_at)] };
    link.push(batch).await.unwrap();
    db.psql("DELETE FROM sessiond_history");
    db.psql(&format!(
        "INSERT INTO event_store (instance_id, event_type, sequence_num) VALUES ('{ID}', 'task_spawned', 2)"
    ));
    assert_eq!(db.psql("SELECT instance_id FROM sessiond_history"), ID);
    let (_, since) = gone(&mut link, 1).await;
    db.delete(ID);
    let (deleted, _) = gone(&mut link, since).await;
    assert_eq!(deleted, [ID]);
}
