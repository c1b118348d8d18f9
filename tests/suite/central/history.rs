//! History in a real central: the conformance suite, and behaviour of a real server.

use std::time::Duration;

use serde_json::{Value, json};
use sessiond::domain::{HistoryRecord, InstanceId, RecordKind, TableState, Timestamp};
use sessiond::sync::central::{Batch, Central, CentralError, RowOutcome};
use sessiond::sync::postgres::{Postgres, migrate};
use uuid::Uuid;

use super::conformance::{World, host, session, whole};
use super::conformance_records::{self, HistoryWorld, command, event, record, without_nulls};
use super::conformance_scope;
use super::migrations::file;
use super::postgres::{Database, copies, dry_run, options};
use testkit::postgres::{NULL, Server};
use testkit::{eventually, legacy_history, newer_legacy_history};

const ID: &str = "odin-PS-000001";

/// A database as a full installation of the earlier services left it.
fn full(server: &Server, name: &str) {
    server.create(name);
    server.psql_file(name, &file(0));
    server.psql_file(name, &file(1));
    server.psql_file(name, &legacy_history());
}

pub async fn migrated<'a>(server: &'a Server, name: &str) -> Database<'a> {
    full(server, name);
    migrate(&options(&server.url(name)), None).await.unwrap();
    Database { server, name: name.to_owned() }
}

const HISTORY: &str = "\
    SELECT json_build_array(sequence_num, event_id, 'event', event_type, (extract(epoch FROM timestamp) * 1000000)::bigint, \
        json_build_object('data', event_data)) FROM event_store WHERE instance_id = '{}' ORDER BY sequence_num; \
    SELECT json_build_array(NULL, context_data->>'record_id', 'command', command_type, \
        (extract(epoch FROM created_at) * 1000000)::bigint, json_build_object('action', action, 'tool_name', tool_name, \
        'parameters', parameters, 'result', result, 'error_message', error_message, 'success', success, \
        'execution_time_ms', execution_time_ms, 'tags', tags)) FROM command_log WHERE instance_id = '{}' ORDER BY id; \
    SELECT json_build_array(sequence_num, checkpoint_id, 'checkpoint', checkpoint_type, \
        (extract(epoch FROM timestamp) * 1000000)::bigint, json_build_object('context_window_percent', \
        context_window_percent, 'work_state', work_state)) FROM checkpoints WHERE instance_id = '{}' ORDER BY sequence_num";

const OTHER_EVENT: &str = "\
    INSERT INTO event_store (event_id, instance_id, event_type, sequence_num) \
    SELECT gen_random_uuid(), '{}', '{type}', coalesce(max(sequence_num), 0) + 1 FROM event_store WHERE instance_id = '{}'";

impl HistoryWorld for Database<'_> {
    fn history(&self, id: &str) -> Vec<(Option<i64>, HistoryRecord)> {
        let there =
            |kind: &RecordKind| self.psql(&format!("SELECT to_regclass('{}') IS NOT NULL", kind.table())) == "t";
        let of_kind = RecordKind::ALL.iter().zip(HISTORY.split(';')).filter(|(kind, _)| there(kind));
        of_kind.flat_map(|(_, sql)| read(id, &self.psql(&sql.replace("{}", id)))).collect()
    }

    fn other_event(&self, id: &str, event_type: &str) {
        self.psql(&OTHER_EVENT.replace("{}", id).replace("{type}", event_type));
    }

    fn set_zone(&self, zone: bool) {
        let of_type = if zone { "timestamptz" } else { "timestamp" };
        self.psql(&format!("ALTER TABLE command_log ALTER COLUMN created_at TYPE {of_type}"));
    }

    fn drop_table(&self, kind: RecordKind) {
        self.psql(&format!("DROP TABLE {}", kind.table()));
    }
}

fn read(id: &str, rows: &str) -> Vec<(Option<i64>, HistoryRecord)> {
    let rows = rows.lines().map(|line| serde_json::from_str::<[Value; 6]>(line).unwrap());
    rows.map(|[number, record_id, kind, record_type, at, body]| {
        let record = HistoryRecord {
            record_id: Uuid::parse_str(record_id.as_str().unwrap()).unwrap(),
            instance_id: InstanceId::parse(id).unwrap(),
            kind: RecordKind::parse(kind.as_str().unwrap()).unwrap(),
            record_type: record_type.as_str().unwrap().into(),
            at: Timestamp::from_micros(at.as_i64().unwrap()),
            body: without_nulls(body),
        };
        (number.as_i64(), record)
    })
    .collect()
}

async fn conforms_under(zone: &str) {
    let server = Server::start(&[&format!("timezone={zone}")]);
    migrated(&server, "template").await;
    let fresh = copies(&server);
    conformance_records::all(&fresh).await;
    conformance_scope::with_history(fresh()).await;
}

#[tokio::test]
async fn postgres_conforms_with_history_half_an_hour_off_utc() {
    conforms_under("Asia/Kolkata").await;
}

#[tokio::test]
async fn postgres_conforms_with_history_in_a_zone_with_summer_time() {
    conforms_under("America/New_York").await;
}

/// A link that pushed a session.
async fn begun(db: &Database<'_>) -> (Postgres, Timestamp) {
    let mut link = db.link();
    link.handshake(&host("odin3", 1)).await.unwrap();
    let began = db.now().minus(Duration::from_secs(3600));
    let sessions = [session(ID, "odin3", began)];
    link.push(Batch { after: 0, number: 1, sessions: &sessions.each_ref().map(whole), records: &[] }).await.unwrap();
    (link, began)
}

#[tokio::test]
async fn events_know_where_they_descend_from() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    let (mut link, began) = begun(&db).await;
    let child = |number: u128, parent: u128| {
        let body = json!({"data": {}, "parent_uuid": Uuid::from_u128(parent).to_string()});
        record(number, RecordKind::Event, "task_spawned", began, body)
    };
    // The columns are not there yet: the parent is kept beside.
    let records = [event(1, began), child(2, 1)];
    link.push(Batch { after: 1, number: 2, sessions: &[], records: &records }).await.unwrap();
    let beside = "SELECT metadata->>'parent_uuid' FROM event_store ORDER BY sequence_num";
    assert_eq!(db.psql(beside), format!("{NULL}\n{}", Uuid::from_u128(1)));

    server.psql_file("x", &newer_legacy_history());
    let mut link = db.link();
    let tables = link.handshake(&host("odin3", 1)).await.unwrap().tables;
    assert_eq!(tables.event_types.unwrap().len(), 29);
    // Parents in central, in the same batch, and unknown ones.
    let records = [child(3, 2), child(4, 3), event(5, began), child(6, 99)];
    link.push(Batch { after: 2, number: 3, sessions: &[], records: &records }).await.unwrap();
    let tail = |id: &str| id.trim_start_matches(['0', '-']).to_owned();
    let lineage =
        db.psql("SELECT event_id, parent_uuid, root_uuid, depth FROM event_store WHERE sequence_num > 2 ORDER BY 1");
    let lineage: Vec<Vec<String>> = lineage.lines().map(|line| line.split('|').map(tail).collect()).collect();
    // Of the second, central does not know the first as its parent, since there was no column for it.
    assert_eq!(lineage, [["3", "2", "2", "1"], ["4", "3", "2", "2"], ["5", NULL, "5", ""], ["6", "63", "63", "1"]]);
}

#[tokio::test]
async fn commands_appear_when_they_were_run_whatever_the_zone() {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    full(&server, "x");
    server.psql(
        "x",
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type) VALUES ('old-PS-aaaaaa', 'old', 'PS'); \
         INSERT INTO command_log (instance_id, command_type, action, created_at) \
             VALUES ('old-PS-aaaaaa', 'explicit', 'a', '2026-07-01 12:00'); \
         CREATE VIEW recent AS SELECT action, created_at FROM command_log; \
         COMMENT ON VIEW recent IS 'mine'",
    );
    let report = migrate(&options(&server.url("x")), None).await.unwrap();
    assert_eq!(report.time_zone.as_deref(), Some("Asia/Kolkata"));
    assert_eq!(server.psql("x", "SELECT created_at AT TIME ZONE 'UTC' FROM recent"), "2026-07-01 06:30:00");
    assert_eq!(server.psql("x", "SELECT obj_description('recent'::regclass)"), "mine");
    // Earlier clients go on as ever.
    let old = "INSERT INTO command_log (instance_id, command_type, action) VALUES ('old-PS-aaaaaa', 'explicit', 'b') \
        RETURNING now() - created_at < interval '5 s'";
    assert!(server.psql("x", old).starts_with('t'));
}

#[tokio::test]
async fn tables_added_later_are_included_by_migrating_again() {
    let server = Server::start(&["timezone=America/New_York"]);
    let db = Database::migrated(&server, "x").await;
    let (mut link, began) = begun(&db).await;
    let tables = link.handshake(&host("odin3", 1)).await.unwrap().tables;
    assert!(RecordKind::ALL.into_iter().all(|kind| tables.is_absent(kind)));

    server.psql_file("x", &legacy_history());
    db.psql(
        "INSERT INTO command_log (instance_id, command_type, action, created_at) \
        SELECT instance_id, 'explicit', 'a', '2026-07-01 12:00' FROM supervisor_sessions",
    );
    // Times without a zone are not to be written to.
    assert_eq!(db.link().handshake(&host("odin3", 1)).await.unwrap().tables.commands, TableState::WithoutZone);
    let options = options(&server.url("x"));
    let dry = dry_run(&options).await.unwrap();
    assert_eq!(
        dry.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        [
            "1780000000000_mirror_and_history",
            "1790000000000_silent_sessions_and_views",
            "1791000000000_merge_by_column",
            "1792000000000_guard_of_column_times",
            "1793000000000_session_work",
            "1794000000000_rate_limits",
            "1795000000000_agents",
            "1796000000000_vouching",
            "1797000000000_activity_history",
            "1798000000000_leases",
            "1799000000000_partitions_and_postgres_13"
        ]
    );
    let report = migrate(&options, None).await.unwrap();
    assert_eq!((report.steps.len(), report.time_zone.as_deref()), (11, Some("America/New_York")));
    assert_eq!(migrate(&options, None).await.unwrap().steps, []);
    assert_eq!(db.psql("SELECT created_at AT TIME ZONE 'UTC' FROM command_log"), "2026-07-01 16:00:00");

    let mut link = db.link();
    assert_eq!(link.handshake(&host("odin3", 1)).await.unwrap().tables.commands, TableState::Usable);
    link.push(Batch { after: 1, number: 2, sessions: &[], records: &[command(1, began)] }).await.unwrap();
    assert_eq!(db.psql("SELECT action FROM command_log WHERE context_data ? 'record_id'"), "build");
}

#[tokio::test]
async fn history_is_marked_changed_with_and_without_the_trigger() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    let (mut link, began) = begun(&db).await;
    let noted = "SELECT count(*) FROM sessiond_history WHERE instance_id = 'odin-PS-000001'";
    db.other_event(ID, "test_passed");
    assert_eq!(db.psql(noted), "1");
    db.psql("DROP TRIGGER trg_sessiond_note_history ON event_store");
    link.push(Batch { after: 1, number: 2, sessions: &[], records: &[event(1, began)] }).await.unwrap();
    assert_eq!(db.psql(noted), "2");
}

/// Takes the next sequence number again and again, until the table `stopped` exists.
const RESTLESS: &str = "DO $$ BEGIN LOOP \
        EXIT WHEN EXISTS (SELECT FROM stopped); \
        BEGIN {insert}; EXCEPTION WHEN unique_violation THEN NULL; END; \
        COMMIT; \
    END LOOP; END $$";

/// None of their numbers or ours is lost, twice, or out of order.
#[tokio::test]
async fn sequence_numbers_are_shared_with_busy_clients() {
    const BATCHES: u128 = 40;
    const EACH: u128 = 10;
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    let (mut link, began) = begun(&db).await;
    db.psql("CREATE TABLE stopped ()");
    let insert = OTHER_EVENT.replace("{}", ID).replace("{type}", "test_passed");
    let others: Vec<_> = (0..2).map(|_| server.psql_behind("x", &RESTLESS.replace("{insert}", &insert))).collect();
    eventually("the others are at it", Duration::from_secs(10), || {
        (db.psql("SELECT count(*) > 20 FROM event_store") == "t").then_some(())
    });
    for batch in 0..BATCHES {
        let records: Vec<_> = (0..EACH).map(|n| event(1 + batch * EACH + n, began)).collect();
        let after = 1 + batch as i64;
        let applied = link.push(Batch { after, number: after + 1, sessions: &[], records: &records }).await;
        assert_eq!(applied, Ok(vec![RowOutcome::Stored; records.len()]));
    }
    db.psql("INSERT INTO stopped DEFAULT VALUES");
    eventually("the others stopped", Duration::from_secs(10), || {
        (db.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'") == "0").then_some(())
    });
    drop(others);
    let history = db.history(ID);
    let ours = history.iter().filter(|(_, r)| r.record_type == "epic_started").map(|(_, r)| r.record_id.as_u128());
    assert_eq!(ours.collect::<Vec<_>>(), (1..=BATCHES * EACH).collect::<Vec<_>>());
    let numbers: Vec<i64> = history.iter().map(|(number, _)| number.unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn another_rule_that_a_row_breaks_is_not_taken_for_a_race() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    db.psql("CREATE UNIQUE INDEX one_of_a_type ON event_store (instance_id, event_type)");
    let (mut link, began) = begun(&db).await;
    let twice = [event(1, began), event(2, began)];
    let rejected = link.push(Batch { after: 1, number: 2, sessions: &[], records: &twice }).await;
    assert!(
        matches!(&rejected, Err(CentralError::Reject(why)) if why.message.contains("one_of_a_type")),
        "{rejected:?}"
    );
    link.push(Batch { after: 1, number: 2, sessions: &[], records: &twice[..1] }).await.unwrap();
}

/// Whoever is in the middle of adding an event is waited for, within the limit.
#[tokio::test]
async fn a_sequence_number_of_an_open_transaction_is_waited_for() {
    let server = Server::start(&[]);
    let db = migrated(&server, "x").await;
    let (mut link, began) = begun(&db).await;
    let insert = OTHER_EVENT.replace("{}", ID).replace("{type}", "test_passed");
    let _other = server.psql_behind("x", &format!("BEGIN; {insert}; SELECT pg_sleep(0.5); COMMIT"));
    eventually("the other one is at it", Duration::from_secs(10), || {
        (db.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1").then_some(())
    });
    link.push(Batch { after: 1, number: 2, sessions: &[], records: &[event(1, began)] }).await.unwrap();
    let numbers: Vec<_> = db.history(ID).into_iter().map(|(number, r)| (number.unwrap(), r.record_type)).collect();
    assert_eq!(numbers, [(1, "test_passed".to_owned()), (2, "epic_started".to_owned())]);
}
