//! History in the store, against real files.

use std::time::Instant;

use serde_json::Map;

use super::*;
use crate::domain::history::CommandDetails;
use crate::domain::{HistoryRecord, TableState};

fn event(event_type: &str, n: u64) -> NewRecord {
    NewRecord::event(event_type, Map::from_iter([("n".to_owned(), n.into())]), None).unwrap()
}

fn command(action: &str) -> NewRecord {
    NewRecord::command(None, action, CommandDetails::default()).unwrap()
}

async fn append(store: &Store, id: &InstanceId, what: NewRecord, number: u64) -> StoredRecord {
    store
        .append(
            Append { id: id.to_string(), what, record_id: Uuid::from_u64_pair(0, number) },
            by(OWNER, at(number as i64)),
        )
        .await
        .unwrap()
}

fn all(kind: RecordKind) -> HistoryQuery {
    HistoryQuery {
        kind,
        record_type: None,
        since: None,
        until: None,
        contains: None,
        limit: 1000,
        offset: 0,
        after: None,
    }
}

async fn numbers(store: &Store, id: &InstanceId, query: HistoryQuery) -> Vec<u64> {
    let found = store.history(id.clone(), query).await.unwrap().records;
    found.iter().map(|kept| kept.record.record_id.as_u64_pair().1).collect()
}

fn settled(records: &[HistoryRecord], rejected: Option<&str>) -> BatchResult {
    let rejected = rejected.map(str::to_owned);
    let records = records.iter().map(|r| RecordResult { record_id: r.record_id, rejected: rejected.clone() });
    BatchResult { records: records.collect(), acked_batch: 1, next_batches: [2, 3], ..BatchResult::default() }
}

/// Central has every session as it is now.
async fn sessions_reach_central(store: &Store) {
    let sessions = store.pending(rows(10_000), Skip::default()).await.unwrap().sessions.into_iter();
    let taken = |r: Record| SessionResult {
        heartbeat: None,
        instance_id: r.session.instance_id,
        version: r.version,
        work_version: None,
        how: SessionOutcome::Taken,
    };
    store
        .acknowledge(
            BatchResult { sessions: sessions.map(taken).collect(), ..BatchResult::default() },
            by(OWNER, at(0)),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn history_is_found_by_type_time_and_text() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    let other = register(&store, 2, 0).await.session.instance_id;
    for (number, what) in [(1, event("a", 1)), (2, event("b", 2)), (3, event("a", 3)), (4, command("Build \"it\""))] {
        append(&store, &id, what, number).await;
    }
    append(&store, &other, event("a", 5), 5).await;

    let events = || all(RecordKind::Event);
    assert_eq!(numbers(&store, &id, events()).await, [3, 2, 1]);
    assert_eq!(numbers(&store, &id, HistoryQuery { record_type: Some("a".into()), ..events() }).await, [3, 1]);
    assert_eq!(numbers(&store, &id, HistoryQuery { since: Some(at(2)), ..events() }).await, [3, 2]);
    assert_eq!(numbers(&store, &id, HistoryQuery { until: Some(at(2)), ..events() }).await, [1]);
    let page = store.history(id.clone(), HistoryQuery { limit: 1, offset: 1, ..events() }).await.unwrap();
    assert_eq!((page.records[0].record.at, page.more), (at(2), true));
    let containing = |text: &str| HistoryQuery { contains: Some(text.into()), ..all(RecordKind::Command) };
    assert_eq!(numbers(&store, &id, containing("build \"IT\"")).await, [4]);
    assert_eq!(numbers(&store, &id, containing("explicit")).await, [4]);
    assert_eq!(numbers(&store, &id, containing("%")).await, [0; 0]);

    // A closed session takes more records; another user's and an unknown one do not.
    store.close(id.to_string(), by(OWNER, at(9))).await.unwrap();
    append(&store, &id, event("late", 6), 6).await;
    let stranger = store
        .append(
            Append { id: id.to_string(), what: event("a", 7), record_id: Uuid::nil() },
            by(Caller { uid: 1001 }, at(7)),
        )
        .await;
    assert!(matches!(stranger, Err(StoreError::Forbidden { .. })));
    let unknown = store
        .append(Append { id: "odin-PS-zzzzzz".into(), what: event("a", 7), record_id: Uuid::nil() }, by(OWNER, at(7)))
        .await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
    shut((store, writer));
}

#[tokio::test]
async fn an_answer_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    for number in 0..100 {
        let data = Map::from_iter([("long".to_owned(), "x".repeat(60_000).into())]);
        append(&store, &id, NewRecord::event("a", data, None).unwrap(), number).await;
    }
    let answer = store.history(id.clone(), all(RecordKind::Event)).await.unwrap();
    assert!(answer.more && answer.records.len() < 75, "{}", answer.records.len());
    sessions_reach_central(&store).await;
    let batch = store.pending(rows(1000), Skip::default()).await.unwrap();
    assert!(batch.more && batch.records.len() < 20, "{}", batch.records.len());
    shut((store, writer));
}

#[tokio::test]
async fn records_travel_with_or_after_their_session() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let first = register(&store, 1, 0).await.session.instance_id;
    let second = register(&store, 2, 1).await.session.instance_id;
    for (number, id) in [(1, &second), (2, &first), (3, &second)] {
        append(&store, id, event("a", number), number).await;
    }
    let of = |pending: &Pending| pending.records.iter().map(|r| r.record_id.as_u64_pair().1).collect::<Vec<_>>();
    assert_eq!(of(&store.pending(rows(10), Skip::default()).await.unwrap()), [1, 2, 3]);
    // A full batch leaves the second session behind, and with it what happened there.
    let full = store.pending(rows(1), Skip::default()).await.unwrap();
    assert_eq!((full.sessions.len(), of(&full), full.more), (1, vec![], true));

    // What happened in a parked session waits, and is no backlog.
    let rejected = |r: &Record| SessionResult {
        heartbeat: None,
        instance_id: r.session.instance_id.clone(),
        version: r.version,
        work_version: None,
        how: SessionOutcome::Rejected { error: "no".into() },
    };
    let sessions = vec![rejected(&full.sessions[0])];
    store.acknowledge(BatchResult { sessions, ..BatchResult::default() }, by(OWNER, at(2))).await.unwrap();
    sessions_reach_central(&store).await;
    let pending = store.pending(rows(10), Skip::default()).await.unwrap();
    assert_eq!((pending.sessions.len(), of(&pending)), (0, vec![1, 3]));
    assert_eq!(store.backlog().await.unwrap().records, 2);

    // One is taken, one is rejected, alone.
    store.acknowledge(settled(&pending.records[..1], None), by(OWNER, at(3))).await.unwrap();
    store.acknowledge(settled(&pending.records[1..], Some("odd")), by(OWNER, at(4))).await.unwrap();
    assert!(!store.has_pending(Skip::default()).await.unwrap());
    let kept = store.history(second.clone(), all(RecordKind::Event)).await.unwrap().records;
    assert_eq!((kept[0].parked.as_deref(), kept[1].synced), (Some("odd"), true));
    let parked = store.parked().await.unwrap();
    assert_eq!((parked.len(), store.backlog().await.unwrap().parked), (2, 2));
    let record = parked.iter().find(|p| p.record.is_some()).unwrap().id();
    assert_eq!(store.retry_parked(vec![record]).await, Ok(1));
    assert_eq!(of(&store.pending(rows(10), Skip::default()).await.unwrap()), [3]);

    // A central that was restored gets everything again, in order.
    assert_eq!(store.forget_synced(0, at(5)).await, Ok((1, 1)));
    assert_eq!(of(&store.pending(rows(10), Skip::default()).await.unwrap()), [1, 3]);
    shut((store, writer));
}

#[tokio::test]
async fn a_session_is_pruned_once_central_has_its_history_or_no_table_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    append(&store, &id, event("a", 1), 1).await;
    append(&store, &id, command("c"), 2).await;
    store.close(id.to_string(), by(OWNER, at(3))).await.unwrap();
    sessions_reach_central(&store).await;
    assert_eq!(store.prune(at(10)).await, Ok(0));
    let events_only = HistoryTables { commands: TableState::Absent, ..HistoryTables::ALL };
    store.record_tables(events_only, at(4)).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().records, 1);
    assert_eq!(store.prune(at(10)).await, Ok(0));
    let event = store.pending(rows(10), Skip::default()).await.unwrap().records;
    store.acknowledge(settled(&event, None), by(OWNER, at(5))).await.unwrap();
    assert_eq!(store.prune(at(10)).await, Ok(1));
    assert_eq!(numbers(&store, &id, all(RecordKind::Command)).await, [0; 0]);
    shut((store, writer));
}

#[tokio::test]
async fn a_session_is_kept_while_its_records_wait_for_a_right() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    append(&store, &id, event("a", 1), 1).await;
    append(&store, &id, command("c"), 2).await;
    store.close(id.to_string(), by(OWNER, at(3))).await.unwrap();
    sessions_reach_central(&store).await;
    let missing = TableState::Forbidden(vec!["INSERT on event_store".into()]);
    for state in [missing, TableState::WithoutZone] {
        let tables = HistoryTables { events: state, commands: TableState::Absent, ..HistoryTables::ALL };
        store.record_tables(tables, at(4)).await.unwrap();
        assert_eq!(store.backlog().await.unwrap().records_of, [1, 0, 0]);
        assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().records, []);
        assert!(!store.has_pending(Skip::default()).await.unwrap());
        assert_eq!(store.prune(at(10)).await, Ok(0));
    }
    store.record_tables(HistoryTables::ALL, at(5)).await.unwrap();
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().records.len(), 2);
    shut((store, writer));
}

#[tokio::test]
async fn types_that_central_does_not_take_are_parked_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    assert_eq!(append(&store, &id, event("odd", 1), 1).await.parked, None);
    let takes = |types: &[&str]| HistoryTables {
        event_types: Some(types.iter().map(ToString::to_string).collect()),
        ..HistoryTables::ALL
    };
    store.record_tables(takes(&["a"]), at(2)).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().parked, 1);
    assert!(append(&store, &id, event("odd", 2), 2).await.parked.is_some());
    assert!(append(&store, &id, event("a", 3), 3).await.parked.is_none());
    store.record_tables(takes(&["a", "odd"]), at(4)).await.unwrap();
    assert_eq!((store.backlog().await.unwrap().parked, store.backlog().await.unwrap().records), (0, 3));
    // Without the table nothing is refused for its type.
    store.record_tables(HistoryTables { events: TableState::Absent, ..takes(&["a"]) }, at(5)).await.unwrap();
    assert!(append(&store, &id, event("odd", 6), 6).await.parked.is_none());
    shut((store, writer));
}

#[tokio::test]
async fn history_survives_a_new_id_and_a_damaged_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let id = record.session.instance_id.clone();
    for number in 1..=5 {
        append(&store, &id, event("a", number), number).await;
    }
    store
        .heartbeat(id.to_string(), Heartbeat { context_percent: Some(90), ..Heartbeat::default() }, by(OWNER, at(6)))
        .await
        .unwrap();
    let how = SessionOutcome::Collided;
    let sessions = vec![SessionResult {
        heartbeat: None,
        instance_id: id.clone(),
        version: record.version,
        work_version: None,
        how,
    }];
    store.acknowledge(BatchResult { sessions, ..BatchResult::default() }, by(OWNER, at(7))).await.unwrap();
    let new = only(&store, &id).await.session.instance_id;
    assert_ne!(new, id);
    assert_eq!(numbers(&store, &new, all(RecordKind::Event)).await, [5, 4, 3, 2, 1]);
    sessions_reach_central(&store).await;
    let pending = store.pending(rows(10), Skip::default()).await.unwrap().records;
    store.acknowledge(settled(&pending, None), by(OWNER, at(8))).await.unwrap();
    shut((store, writer));

    // An index that disagrees with its table.
    let path = dir.path().join("sessiond.db");
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch(
        "PRAGMA writable_schema = ON; \
         UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'sessions_parked') \
             WHERE name = 'records_of_session'; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    drop(raw);
    let (store, writer) = open(dir.path());
    assert!(store.damage().is_some());
    assert_eq!(numbers(&store, &new, all(RecordKind::Event)).await, [5, 4, 3, 2, 1]);
    let beat = Heartbeat::default();
    assert!(store.heartbeat(new.to_string(), beat, by(OWNER, at(9))).await.unwrap().checkpoint_due);
    assert_eq!(
        store.pending(rows(10), Skip::default()).await.unwrap().records.len(),
        5,
        "all of it is offered to central again"
    );
    shut((store, writer));
}

#[tokio::test]
async fn a_store_from_before_history_is_upgraded_with_all_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessiond.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../../migrations/local/0001_sessions.sql")).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1; \
         INSERT INTO sessions VALUES ('odin-PS-aaaaaa', 'odin', 'PS', 'active', 90, 'e', 5, 3, NULL, 'odin3', 'u', \
             '/p', 1000, 7, 8, 9, 3, NULL, NULL), \
             ('odin-PS-bbbbbb', 'odin', 'PS', 'closed', 0, NULL, 5, 4, 6, 'odin3', NULL, NULL, 1000, NULL, NULL, 2, \
             NULL, 'no', 9); \
         INSERT INTO aliases VALUES ('odin-PS-cccccc', 'odin-PS-aaaaaa', 5); \
         INSERT INTO facts VALUES ('acked_batch', 17)",
    )
    .unwrap();
    drop(old);
    let (store, writer) = open(dir.path());
    let kept = only(&store, &InstanceId::parse("odin-PS-cccccc").unwrap()).await;
    assert_eq!(kept.session.instance_id.as_str(), "odin-PS-aaaaaa");
    assert_eq!((kept.session.context_percent, kept.version, kept.mirrored), (90, 9, false));
    assert_eq!(kept.process, Some(Process { pid: 7, started: 8 }));
    assert_eq!(store.parked().await.unwrap()[0].error, "no");
    assert_eq!(store.ledger().await.unwrap(), Ledger { acked: 17, next: Vec::new() });
    append(&store, &kept.session.instance_id, event("a", 1), 1).await;
    shut((store, writer));
}

/// A million records: a question takes milliseconds, and a record little more than what it says.
#[tokio::test]
async fn a_million_records_are_asked_in_milliseconds() {
    const SESSIONS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    for number in 0..SESSIONS {
        register(&store, number, 0).await;
    }
    let id = store.list(Filter::default(), by(OWNER, at(0))).await.unwrap()[500].session.instance_id.clone();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
        INSERT INTO records (record_id, instance_id, kind, type, at, body, unsynced) \
        SELECT randomblob(16), instance_id, iif(i % 2, 'event', 'command'), 'tool_use', 1769774400000000 + i * 1000, \
            '{\"data\":{\"n\":' || i || '}}', iif(i > 900, 1, 0) FROM n, sessions";
    store.writer.submit(move |db| Ok(db.execute_batch(fill)?)).await.unwrap();
    sessions_reach_central(&store).await;
    let pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = store.read(move |db| Ok(db.query_row(pages, [], |row| row.get(0))?)).await.unwrap();
    println!("{} bytes a record, with its body of some 17", bytes / 1_000_000);
    assert!(bytes < 317_000_000, "{bytes}");

    // Once to warm up, then the best of some: other tests run beside.
    let quick = async |what: &str, most: u128, store: &Store, query: HistoryQuery| {
        let mut best = u128::MAX;
        for _ in 0..8 {
            let began = Instant::now();
            assert!(!store.history(id.clone(), query.clone()).await.unwrap().records.is_empty());
            best = best.min(began.elapsed().as_micros());
        }
        println!("{what}: {best} us");
        assert!(best < most, "{what} took {best} us");
    };
    let newest = HistoryQuery { limit: 50, ..all(RecordKind::Event) };
    quick("the newest 50", 9_000, &store, newest.clone()).await;
    quick("from a moment on", 9_000, &store, HistoryQuery { since: Some(at(0)), ..newest.clone() }).await;
    quick("with a text", 9_000, &store, HistoryQuery { contains: Some(":77}".into()), ..newest }).await;
    let began = Instant::now();
    assert_eq!(store.pending(rows(1000), Skip::default()).await.unwrap().records.len(), 1000);
    assert!(store.has_pending(Skip::default()).await.unwrap());
    println!("a batch of 1,000 of 100,000: {:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(store.backlog().await.unwrap().records, 100_000);
    println!("counting 100,000: {:?}", began.elapsed());
    shut((store, writer));
}
