//! Golden stores: what an earlier schema wrote is read by this one, with everything in it.
//!
//! `data/store-NNNN.sql` is a store of schema NNNN as SQL text, and `data/store-NNNN.json` what was answered of it when
//! it was made. Both are written by [`make_golden_store`], at a commit whose newest migration is NNNN, and never change
//! afterwards. How to add one: docs/testing.md.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::user_limits::received;
use super::*;
use crate::domain::agent::{AgentKind, AgentSignal, StartSource};
use crate::domain::history::CommandDetails;
use crate::domain::mirror::{ChangePage, Continuation, HostSeen, PullQuery};
use crate::domain::{HistoryRecord, Session, TableState, TimedSession};
use crate::store::recovery::open::MIGRATIONS;
use crate::store::recovery::salvage;
use crate::store::tables::columns::MIRRORED;

const STRANGER: Caller = Caller { uid: 1001 };

const ROWS: BatchLimit = BatchLimit { rows: 100, bytes: 1 << 20 };

/// When the stores are read.
fn now() -> OpContext {
    by(OWNER, at(10_000))
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store/tests/data").join(name)
}

fn process(pid: i32) -> Process {
    Process { pid, started: 77 }
}

fn machine(name: &str) -> MachineName {
    MachineName::parse(name).unwrap()
}

fn registration(epic: Option<&str>) -> Registration {
    Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: machine("odin3"),
        context_percent: 12,
        current_epic: epic.map(str::to_owned),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: Some("/home/o'dìn".to_owned()),
    }
}

/// Session `number`, registered at that second, without a process unless `pid` is given.
async fn begin(store: &Store, number: u64, pid: Option<i32>, caller: Caller) -> InstanceId {
    let what = registration(Some("epic-17").filter(|_| number.is_multiple_of(2)));
    let session = NewSession { what, agent: None, process: pid.map(process) };
    store.register(session, seeded(number, caller, at(number as i64))).await.unwrap().session.instance_id
}

fn object(key: &str, value: impl Into<Value>) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value.into())])
}

fn event(event_type: &str) -> NewRecord {
    NewRecord::event(event_type, object("text", "it's \u{fc}nic\u{f6}de\n"), None).unwrap()
}

async fn append(store: &Store, id: &InstanceId, what: NewRecord, number: u128) {
    let new = Append { id: id.to_string(), what, record_id: Uuid::from_u128(number) };
    store.append(new, by(OWNER, at(200 + number as i64))).await.unwrap();
}

async fn heartbeat(store: &Store, id: &InstanceId, percent: u8, second: i64) {
    let beat = Heartbeat { context_percent: Some(percent), ..Heartbeat::default() };
    store.heartbeat(id.to_string(), beat, by(OWNER, at(second))).await.unwrap();
}

fn key(name: &str) -> RequestKey {
    RequestKey::new(name.to_owned(), "POST /golden", b"{}")
}

fn spooled(name: &str, write: SpooledWrite) -> Import {
    Import { name: name.to_owned(), key: None, deferred: write, context: seeded(900, OWNER, at(300)) }
}

fn spooled_registration() -> Import {
    let id = InstanceId::parse("odin-PS-spool1").unwrap();
    spooled(
        "1.json",
        SpooledWrite::Register {
            id,
            session: Box::new(NewSession { what: registration(None), agent: None, process: None }),
        },
    )
}

/// Central acknowledges what is pending of these sessions and all records; `rejected`: it refuses these.
async fn push(store: &Store, rejected: &[&InstanceId], collided: &[&InstanceId], second: i64) {
    let pending = store.pending(ROWS, Skip::default()).await.unwrap();
    let sessions = pending.sessions.iter().map(|record| {
        let id = &record.session.instance_id;
        let how = if rejected.contains(&id) {
            SessionOutcome::Rejected { error: "value \"x\" is too long".into() }
        } else if collided.contains(&id) {
            SessionOutcome::Collided
        } else {
            SessionOutcome::Taken
        };
        SessionResult { how, ..taken(record) }
    });
    let records = pending.records.iter().map(|record| RecordResult {
        record_id: record.record_id,
        rejected: (record.record_type == "error").then(|| "central refuses errors".to_owned()),
    });
    let result = BatchResult {
        sessions: sessions.collect(),
        records: records.collect(),
        acked_batch: 70 + second,
        next_batches: [80 + second, 90 + second],
    };
    store.acknowledge(result, seeded(500, OWNER, at(second))).await.unwrap();
}

fn remote(id: &str, host: &str, second: i64) -> Session {
    let what = Registration { host_machine: machine(host), ..registration(Some("epic-9")) };
    Session::register(InstanceId::parse(id).unwrap(), what, at(second))
}

fn remote_event(number: u128, id: &str) -> HistoryRecord {
    HistoryRecord {
        record_id: Uuid::from_u128(number),
        instance_id: InstanceId::parse(id).unwrap(),
        kind: RecordKind::Event,
        record_type: "tool_use".into(),
        at: at(60),
        body: object("data", object("tool", "rg")),
    }
}

/// Something of everything that a store can hold, by the operations that the daemon does.
async fn fill(store: &Store) {
    store.set_machine_name(machine("odin3"), at(0)).await.unwrap();
    let event_types = Some(["error", "tool_use"].map(str::to_owned).to_vec());
    let tables = HistoryTables { event_types, checkpoints: TableState::WithoutZone, ..HistoryTables::ALL };
    store.record_tables(tables, at(0)).await.unwrap();

    // Synced, parked, collided, closed, pruned.
    let synced = begin(store, 1, Some(101), OWNER).await;
    let parked = begin(store, 2, None, OWNER).await;
    let collided = begin(store, 3, None, STRANGER).await;
    let closed = begin(store, 4, None, OWNER).await;
    let pruned = begin(store, 5, None, OWNER).await;
    store.close(pruned.to_string(), by(OWNER, at(6))).await.unwrap();
    store.close(closed.to_string(), by(OWNER, at(5_000))).await.unwrap();
    append(store, &synced, event("tool_use"), 1).await;
    append(store, &synced, event("error"), 2).await;
    append(store, &pruned, event("tool_use"), 3).await;
    push(store, &[&parked], &[&collided], 100).await;
    push(store, &[], &[], 101).await;
    assert_eq!(store.prune(at(50)).await.unwrap(), 1);

    // Unsynced: new, changed since it was synced, stale, with a full context; and records.
    let active = begin(store, 11, Some(111), OWNER).await;
    begin(store, 12, None, STRANGER).await;
    let stale = begin(store, 13, Some(113), OWNER).await;
    store.process_died(stale, process(113), by(OWNER, at(160))).await.unwrap();
    heartbeat(store, &synced, 40, 9_990).await;
    heartbeat(store, &active, 91, 9_995).await;
    append(store, &active, event("tool_use"), 11).await;
    append(store, &active, event("of_no_known_type"), 12).await;
    append(store, &active, NewRecord::command(None, "Build \"it\"", CommandDetails::default()).unwrap(), 13).await;
    let work = object("todo", json!(["one", "two"]));
    append(store, &synced, NewRecord::checkpoint("manual", Some(55), work).unwrap(), 14).await;

    // Agents: two processes in one conversation, a promised id, a headless one.
    let mut first = received(AgentSignal::Start(StartSource::Startup), "uuid-1", None);
    first.host_machine = machine("odin3");
    first.process = Some(process(121));
    store.report_agent(first.clone(), seeded(21, OWNER, at(9_980))).await.unwrap();
    let mut second = first.clone();
    second.process = Some(process(122));
    second.report.promised_id = Some(InstanceId::parse("odin-PS-promis").unwrap());
    store.report_agent(second, seeded(22, OWNER, at(9_981))).await.unwrap();
    let mut headless = first;
    headless.report.claude_session_uuid = Some("uuid-2".to_owned());
    headless.report.kind = Some(AgentKind::Headless);
    headless.process = Some(process(123));
    store.report_agent(headless, seeded(23, OWNER, at(9_000))).await.unwrap();

    // Requests under a key, and from the spool.
    let session = NewSession { what: registration(None), agent: None, process: None };
    let answer = |record: &Record| json!({ "id": record.session.instance_id.as_str() }).to_string();
    store.register_once(key("register"), session, seeded(31, OWNER, at(9_800)), answer).await.unwrap();
    let new = Append { id: active.to_string(), what: event("tool_use"), record_id: Uuid::from_u128(15) };
    store.append_once(key("append"), new, by(OWNER, at(9_801))).await.unwrap();
    let close = SpooledWrite::Close { id: "odin-PS-spool1".to_owned() };
    let imported = store.import(vec![spooled_registration(), spooled("2.json", close)]).await.unwrap();
    assert!(imported.iter().all(|result| *result == Some(Ok(()))), "{imported:?}");

    // The mirror.
    let last_seen = at(9_900);
    store.set_mirror_timeline("timeline 7".to_owned()).await.unwrap();
    store
        .replace_hosts(vec![HostSeen {
            host_id: Uuid::from_u128(4),
            machine: machine("odin4"),
            last_seen,
            limits: Vec::new(),
        }])
        .await
        .unwrap();
    let mut gone = remote("odin-PS-remot2", "odin5", 20);
    gone.close(at(90));
    let page = ChangePage {
        sessions: vec![TimedSession::untimed(remote("odin-PS-remot1", "odin4", 9_950)), TimedSession::untimed(gone)],
        history: vec![remote_event(101, "odin-PS-remot1"), remote_event(102, "odin-PS-remot2")],
        rest: Continuation::Complete { next_since: 4_711 },
        ..ChangePage::default()
    };
    store.import_page(PullQuery::since(4_000), page, by(OWNER, at(9_970))).await.unwrap();
}

fn session_json(record: &Record) -> Value {
    let s = &record.session;
    let columns: Vec<_> = record.columns.0.iter().map(|change| json!([change.version, change.at.micros()])).collect();
    json!({
        "instance_id": s.instance_id.as_str(),
        "project": s.project.as_str(),
        "instance_type": s.instance_type.as_str(),
        "status": s.status.as_str(),
        "context_percent": s.context_percent,
        "current_epic": s.current_epic,
        "last_heartbeat": s.last_heartbeat.to_string(),
        "created_at": s.created_at.to_string(),
        "closed_at": s.closed_at.map(|at| at.to_string()),
        "host_machine": s.host_machine.as_str(),
        "claude_session_uuid": s.claude_session_uuid,
        "claude_session_path": s.claude_session_path,
        "resumed_from": s.resumed_from.as_ref().map(InstanceId::as_str),
        "working_dir": s.working_dir,
        "owner_uid": record.owner_uid,
        "process": record.process.map(|process| [i64::from(process.pid), process.started]),
        "version": record.version,
        "synced_version": record.synced_version,
        "unsynced_since": record.unsynced_since.map(|at| at.to_string()),
        "mirrored": record.mirrored,
        "machine_seen": record.machine_seen.map(|at| at.to_string()),
        "former_id": record.former_id,
        "columns": columns,
    })
}

fn record_json(stored: &StoredRecord) -> Value {
    let record = &stored.record;
    json!({
        "record_id": record.record_id.to_string(),
        "kind": record.kind.as_str(),
        "type": record.record_type,
        "at": record.at.to_string(),
        "body": record.body,
        "synced": stored.synced,
        "parked": stored.parked,
    })
}

/// What the store answers.
async fn answers(store: &Store) -> Value {
    let mut sessions = Map::new();
    for record in store.list(Filter::default(), now()).await.unwrap() {
        let mut history = Vec::new();
        for kind in RecordKind::ALL {
            let query = HistoryQuery {
                kind,
                record_type: None,
                since: None,
                until: None,
                contains: None,
                limit: 100,
                offset: 0,
                after: None,
            };
            let found = store.history(record.session.instance_id.clone(), query).await.unwrap();
            history.extend(found.records.iter().map(record_json));
        }
        let mut session = session_json(&record);
        session["history"] = history.into();
        sessions.insert(record.session.instance_id.to_string(), session);
    }
    let mut leads_to = Map::new();
    for id in ["odin-PS-promis", "odin-PS-daaaaa", "odin-PS-spool1"] {
        let found = match store.find(id.to_owned()).await.unwrap() {
            Lookup::One(record) => Some(record.session.instance_id.to_string()),
            _ => None,
        };
        leads_to.insert(id.to_owned(), found.into());
    }
    let backlog = store.backlog().await.unwrap();
    let parked = store.parked().await.unwrap();
    let parked = parked.iter().map(|p| json!([p.id(), p.instance_id.as_str(), p.error, p.parked_at.to_string()]));
    let mut watched: Vec<_> =
        store.watched().await.unwrap().iter().map(|(id, process)| json!([id.as_str(), process.pid])).collect();
    watched.sort_by_key(Value::to_string);
    let ledger = store.ledger().await.unwrap();
    let counts = store.counts(now()).await.unwrap();
    let machines = store.machines(machine("odin3"), now()).await.unwrap();
    let usage = store.read(|db| {
        let mut statement = db.prepare("SELECT uid, bytes, open_sessions FROM user_usage ORDER BY uid")?;
        let rows = statement.query_map([], |row| {
            Ok(json!([row.get::<_, i64>("uid")?, row.get::<_, i64>("bytes")?, row.get::<_, i64>("open_sessions")?]))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    json!({
        "sessions": sessions,
        "leads_to": leads_to,
        "backlog": {
            "sessions": backlog.sessions,
            "records": backlog.records_of,
            "oldest_at": backlog.oldest_at.map(|at| at.to_string()),
            "parked": backlog.parked,
        },
        "parked": parked.collect::<Vec<_>>(),
        "watched": watched,
        "ledger": { "acked": ledger.acked, "next": ledger.next },
        "counts": [counts.active, counts.stale, counts.closed],
        "machines": machines.iter().map(|m| json!([
            m.summary.host_machine.as_str(), m.summary.total_sessions, m.summary.active_sessions,
            m.summary.stale_sessions, m.summary.closed_sessions, m.summary.projects,
            m.summary.last_seen.map(|at| at.to_string()), m.as_of.to_string(),
        ])).collect::<Vec<_>>(),
        "mirror": { "since": store.mirror_position(at(10_000)).await.unwrap(),
            "as_of": store.mirror_as_of().map(|at| at.to_string()) },
        "usage": usage.await.unwrap(),
    })
}

/// The database as SQL text: the tables and their rows, then what depends on them.
fn dump(path: &Path) -> String {
    let db = Connection::open(path).unwrap();
    let text = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut dump = format!(
        "-- A store of schema {0} with something of everything in it. Made by `make_golden_store` (src/store/tests/golden.rs)\n\
         -- with the operations of the program whose newest migration was {0}. It never changes: later programs must open it.\n\
         PRAGMA foreign_keys = OFF;\nBEGIN;\n",
        MIGRATIONS.len()
    );
    for sql in text("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name") {
        dump += &format!("{sql};\n");
    }
    for table in text("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
    {
        let mut columns = text(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
        // Sessions that began to wait at one time are in the order of their rows.
        if table == "sessions" {
            columns.insert(0, "rowid".to_owned());
        }
        let quoted: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
        let values = quoted.join(" || ', ' || ");
        for row in text(&format!("SELECT {values} FROM {table}")) {
            dump += &format!("INSERT INTO {table} ({}) VALUES ({row});\n", columns.join(", "));
        }
    }
    for sql in text("SELECT sql FROM sqlite_schema WHERE type <> 'table' AND sql IS NOT NULL ORDER BY type, name") {
        dump += &format!("{sql};\n");
    }
    dump + &format!("PRAGMA user_version = {};\nCOMMIT;\n", MIGRATIONS.len())
}

#[tokio::test]
#[ignore = "writes the golden store of the newest schema; see docs/testing.md"]
async fn make_golden_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    fill(&store).await;
    shut((store, writer));
    let (store, writer) = open(dir.path());
    let expected = serde_json::to_string_pretty(&answers(&store).await).unwrap();
    shut((store, writer));
    let name = format!("store-{:04}", MIGRATIONS.len());
    fs::create_dir_all(data("")).unwrap();
    fs::write(data(&format!("{name}.sql")), dump(&dir.path().join("sessiond.db"))).unwrap();
    fs::write(data(&format!("{name}.json")), expected + "\n").unwrap();
}

/// The golden stores, by their schema, and what was answered of them.
fn golden_stores() -> Vec<(usize, String, Value)> {
    let mut stores = Vec::new();
    for entry in fs::read_dir(data("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(schema) = name.strip_prefix("store-").and_then(|rest| rest.strip_suffix(".sql")) {
            let expected = fs::read_to_string(path.with_extension("json")).unwrap();
            let sql = fs::read_to_string(&path).unwrap();
            stores.push((schema.parse().unwrap(), sql, serde_json::from_str(&expected).unwrap()));
        }
    }
    assert!(!stores.is_empty(), "there is a golden store");
    stores
}

fn load(sql: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join("sessiond.db")).unwrap().execute_batch(sql).unwrap();
    dir
}

#[tokio::test]
async fn golden_stores_open_with_everything_in_them() {
    for (schema, sql, mut expected) in golden_stores() {
        let dir = load(&sql);
        let (store, writer) = open(dir.path());
        if schema < 17 {
            // Everything is read again: who vouches for the sessions was not read before.
            expected["mirror"]["since"] = json!(0);
        }
        let found = answers(&store).await;
        for (part, value) in expected.as_object().unwrap() {
            assert_eq!(found[part], *value, "{part} of the store of schema {schema}");
        }
        assert_eq!(store.damage(), None);
        store.verify().await.unwrap();
        shut((store, writer));
    }
}

#[tokio::test]
async fn what_was_acknowledged_in_a_golden_store_is_still_pushed() {
    for (schema, sql, expected) in golden_stores() {
        let dir = load(&sql);
        let (store, writer) = open(dir.path());
        let pending = store.pending(ROWS, Skip::default()).await.unwrap();
        assert_eq!(json!(pending.sessions.len()), expected["backlog"]["sessions"], "schema {schema}");
        assert!(!pending.records.is_empty());
        // A retry gets the first answer, and a spooled request is not applied again.
        let session = NewSession { what: registration(None), agent: None, process: None };
        let again = store.register_once(key("register"), session, by(OWNER, at(9_802)), |_| "no".into()).await.unwrap();
        let Once::Again(answer) = again else { panic!("registered twice: {again:?}") };
        assert!(
            expected["sessions"].get(serde_json::from_str::<Value>(&answer).unwrap()["id"].as_str().unwrap()).is_some()
        );
        let id = pending.sessions[0].session.instance_id.to_string();
        let new = Append { id, what: event("error"), record_id: Uuid::from_u128(99) };
        let kept = store.append_once(key("append"), new, by(OWNER, at(9_802))).await.unwrap();
        assert_eq!(kept.record.record_id, Uuid::from_u128(15));
        assert_eq!(store.import(vec![spooled_registration()]).await.unwrap(), [Some(Ok(()))]);
        assert_eq!(store.pending(ROWS, Skip::default()).await.unwrap(), pending);
        // After central has it, only what is new waits.
        while store.pending(ROWS, Skip::default()).await.unwrap() != Pending::default() {
            push(&store, &[], &[], 200).await;
        }
        heartbeat(&store, &pending.sessions[0].session.instance_id, 50, 9_999).await;
        assert_eq!(store.pending(ROWS, Skip::default()).await.unwrap().sessions.len(), 1);
        let usage = "SELECT count(*) FROM user_usage k FULL JOIN counted_usage c USING (uid) \
            WHERE ifnull(k.bytes, 0) <> ifnull(c.bytes, 0) OR ifnull(k.open_sessions, 0) <> ifnull(c.open_sessions, 0)";
        let differs: i64 = store.read(move |db| Ok(db.query_row(usage, [], |row| row.get(0))?)).await.unwrap();
        assert_eq!(differs, 0, "usage");
        shut((store, writer));
    }
}

#[test]
fn a_damaged_store_of_an_earlier_schema_is_carried_over_under_the_present_names() {
    for (schema, sql, expected) in golden_stores() {
        let damaged = Connection::open_in_memory().unwrap();
        damaged.execute_batch(&sql).unwrap();
        let mut copy = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|migration| copy.execute_batch(migration).unwrap());
        let carried = salvage::carry_over(&damaged, &mut copy, at(10_000)).unwrap();
        assert_eq!((carried.sessions, carried.unreadable), (expected["sessions"].as_object().unwrap().len(), false));
        let count = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let mirrored = expected["sessions"].as_object().unwrap().values().filter(|session| session["mirrored"] == true);
        assert_eq!(
            count(&format!("SELECT count(*) FROM sessions WHERE {MIRRORED}")),
            mirrored.count() as i64,
            "schema {schema}"
        );
        assert_eq!(count("SELECT count(*) FROM sessions WHERE park_count > 0"), 1, "schema {schema}");
        assert_eq!(count("SELECT count(*) FROM imported_requests"), 2, "schema {schema}");
        assert_eq!(count("SELECT value FROM metadata WHERE name = 'acked_batch'"), 171, "schema {schema}");
        assert_eq!(count("SELECT count(*) FROM metadata WHERE name = 'mirror_round'"), 0, "schema {schema}");
    }
}
