//! The store against real files: what is acknowledged survives all that happens to them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod activity_history;
mod agents;
mod conflicts;
mod damage;
mod golden;
mod history;
mod promised_ids;
mod rate_limits;
mod session_work;
mod turns;
mod turns_scale;
mod user_limits;

use rusqlite::Connection;
use uuid::Uuid;

use super::*;
use crate::domain::refresh::RefreshRule;
use crate::domain::{
    Heartbeat, HistoryTables, InstanceId, InstanceType, MachineName, NewRecord, Process, Project, RecordKind,
    Registration, Status, Timestamp,
};

const OPTIONS: Options = Options { durability: Durability::Full, max_size: 1 << 30 };
pub(super) const STALE_AFTER: Duration = Duration::from_secs(120);
pub(super) const OWNER: Caller = Caller { uid: 1000 };

/// So many rows, whatever their bytes.
pub(super) fn rows(rows: usize) -> BatchLimit {
    BatchLimit { rows, bytes: 1 << 20 }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_769_774_400_000_000 + seconds * 1_000_000)
}

/// For an operation of this caller at this time.
pub(super) fn by(caller: Caller, now: Timestamp) -> OpContext {
    OpContext { caller, ..OpContext::of_daemon(now, STALE_AFTER) }
}

/// The same, which makes ids of these numbers.
pub(super) fn seeded(seed: u64, caller: Caller, now: Timestamp) -> OpContext {
    OpContext { ids: IdSource::Seeded(seed), ..by(caller, now) }
}

pub(super) fn open(dir: &Path) -> (Store, WriterThread) {
    try_open(dir, OPTIONS).unwrap()
}

fn try_open(dir: &Path, options: Options) -> Result<(Store, WriterThread), OpenError> {
    Store::open(dir, options, Arc::new(|| at(1_000_000)))
}

pub(super) fn shut((store, writer): (Store, WriterThread)) {
    drop(store);
    writer.join();
}

fn odin(epic: Option<&str>) -> Registration {
    Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::guess(),
        context_percent: 0,
        current_epic: epic.map(str::to_owned),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}

fn unregistered(epic: Option<&str>) -> NewSession {
    NewSession { what: odin(epic), agent: None, process: None }
}

pub(super) async fn register(store: &Store, seed: u64, second: i64) -> Record {
    store.register(unregistered(None), seeded(seed * 8, OWNER, at(second))).await.unwrap()
}

pub(super) async fn only(store: &Store, id: &InstanceId) -> Record {
    match store.find(id.to_string()).await.unwrap() {
        Lookup::One(record) => *record,
        other => panic!("{other:?}"),
    }
}

fn settling(sessions: Vec<SessionResult>, acked_batch: i64) -> BatchResult {
    BatchResult { sessions, acked_batch, next_batches: [acked_batch + 1, acked_batch + 2], records: Vec::new() }
}

fn taken(record: &Record) -> SessionResult {
    SessionResult {
        heartbeat: Some(record.session.last_heartbeat),
        instance_id: record.session.instance_id.clone(),
        version: record.version,
        work_version: None,
        how: SessionOutcome::Taken,
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let beat = Heartbeat { context_percent: Some(42), current_epic: Some(Some("003".into())), ..Heartbeat::default() };
    let id = record.session.instance_id.clone();
    let beaten = store.heartbeat(id.to_string(), beat, by(OWNER, at(9))).await.unwrap();
    shut((store, writer));

    let (store, writer) = open(dir.path());
    assert_eq!(only(&store, &id).await, beaten);
    assert_eq!((beaten.version, beaten.unsynced_since), (2, Some(at(0))));
    shut((store, writer));
}

#[tokio::test]
async fn an_id_that_is_taken_is_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let first = store.register(unregistered(None), seeded(7, OWNER, at(0))).await.unwrap();
    let second = store.register(unregistered(None), seeded(7, OWNER, at(0))).await.unwrap();
    assert_ne!(first.session.instance_id, second.session.instance_id);
    let always_taken = OpContext { ids: IdSource::Random(|| 7), ..by(OWNER, at(0)) };
    assert!(matches!(store.register(unregistered(None), always_taken).await, Err(StoreError::Bug(_))));
}

#[tokio::test]
async fn only_the_owner_and_root_change_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id.to_string();
    let stranger = store.heartbeat(id.clone(), Heartbeat::default(), by(Caller { uid: 7 }, at(1))).await;
    assert_eq!(stranger, Err(StoreError::Forbidden { id: id.clone(), owner: 1000 }));
    assert_eq!(store.close(id.clone(), by(Caller { uid: 7 }, at(1))).await.unwrap_err(), stranger.unwrap_err());
    store.close(id, by(Caller { uid: 0 }, at(2))).await.unwrap();
}

#[tokio::test]
async fn a_job_that_fails_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let half_done = store.writer.submit(|db| {
        db.execute("INSERT INTO metadata VALUES ('half', 1)", [])?;
        Err::<(), _>(StoreError::NotFound("half".into()))
    });
    let (failed, fine) = tokio::join!(
        half_done,
        store.writer.submit(|db| { Ok(db.execute("INSERT INTO metadata VALUES ('whole', 1)", [])?) })
    );
    assert_eq!((failed, fine), (Err(StoreError::NotFound("half".into())), Ok(1)));
    let facts = store
        .readers
        .read(|db| Ok(db.query_row("SELECT group_concat(name) FROM metadata", [], |row| row.get::<_, String>(0))?));
    assert_eq!(facts.await.unwrap(), "whole");
}

#[tokio::test]
async fn a_full_store_is_reported_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = try_open(dir.path(), Options { max_size: 128 << 10, ..OPTIONS }).unwrap();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let context = seeded(acknowledged.len() as u64, OWNER, at(0));
        match store.register(unregistered(Some(&"e".repeat(256))), context).await {
            Ok(record) => acknowledged.push(record),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 10_000, "128 KiB are never full");
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    shut((store, writer));
    let (store, writer) = open(dir.path());
    for record in &acknowledged {
        assert_eq!(&only(&store, &record.session.instance_id).await, record);
    }
    let more = store.register(unregistered(None), seeded(u64::MAX, OWNER, at(1))).await;
    assert!(more.is_ok(), "with room again it goes on: {more:?}");
    shut((store, writer));
}

#[tokio::test]
async fn a_heartbeat_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = open(dir.path());
    let (first, second) = (register(&store, 1, 0).await, register(&store, 2, 0).await);
    let drop_table = |db: &Connection| Ok(db.execute_batch("DROP TABLE checkpoints_due")?);
    store.writer.submit(drop_table).await.unwrap();
    let beat = |record: &Record, percent| {
        let beat = Heartbeat { context_percent: Some(percent), ..Heartbeat::default() };
        store.heartbeat(record.session.instance_id.to_string(), beat, by(OWNER, at(9)))
    };
    let (failed, done) = tokio::join!(beat(&first, 90), beat(&second, 10));
    assert!(failed.is_err(), "what it has to note cannot be noted: {failed:?}");
    assert_eq!(only(&store, &first.session.instance_id).await, first);
    assert_eq!(only(&store, &second.session.instance_id).await, done.unwrap());
    shut((store, writer));
}

#[tokio::test]
async fn rows_in_flight_are_not_read_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    // Some begin to wait at the same time.
    for (seed, second) in (1..).zip([0, 0, 0, 1]) {
        register(&store, seed, second).await;
    }
    let of = |pending: &Pending| pending.sessions.iter().map(|r| r.session.instance_id.clone()).collect::<Vec<_>>();
    let all = of(&store.pending(rows(10), Skip::default()).await.unwrap());
    let pushed = store.pending(rows(2), Skip::default()).await.unwrap();
    assert_eq!(of(&pushed), all[..2]);
    let beat = Heartbeat { context_percent: Some(5), ..Heartbeat::default() };
    store.heartbeat(all[0].to_string(), beat.clone(), by(OWNER, at(5))).await.unwrap();
    let ahead = store.pending_behind(pushed.last.unwrap(), rows(2), Skip::default()).await.unwrap();
    assert_eq!(of(&ahead), all[2..]);
    store.acknowledge(settling(pushed.sessions.iter().map(taken).collect(), 1), by(OWNER, at(6))).await.unwrap();
    store.heartbeat(all[1].to_string(), beat, by(OWNER, at(7))).await.unwrap();
    let behind = store.pending_behind(ahead.last.unwrap(), rows(2), Skip::default()).await.unwrap();
    assert_eq!((of(&behind), behind.last), (vec![all[1].clone()], None), "it had been noted by then");
    store.acknowledge(settling(ahead.sessions.iter().map(taken).collect(), 2), by(OWNER, at(8))).await.unwrap();
    assert_eq!(
        of(&store.pending(rows(10), Skip::default()).await.unwrap()),
        [all[0].clone(), all[1].clone()],
        "changed on its way"
    );
    let ledger = Ledger { acked: 2, next: vec![3, 4] };
    assert_eq!(store.ledger().await.unwrap(), ledger);
}

#[tokio::test]
async fn a_heartbeat_during_a_push_survives_its_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    register(&store, 1, 0).await;
    let pushed = store.pending(rows(10), Skip::default()).await.unwrap().sessions.remove(0);
    let id = pushed.session.instance_id.to_string();
    store.heartbeat(id.clone(), Heartbeat::default(), by(OWNER, at(5))).await.unwrap();
    store.acknowledge(settling(vec![taken(&pushed)], 1), by(OWNER, at(6))).await.unwrap();
    // It is pushed once central's heartbeat is too old.
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    let rule = RefreshRule { refresh_after: Duration::from_secs(60), step: Duration::ZERO, rewrites: false };
    assert_eq!(store.refresh(rule, at(59)).await.unwrap(), 0);
    assert_eq!(store.refresh(rule, at(60)).await.unwrap(), 1);
    let waiting = store.pending(rows(10), Skip::default()).await.unwrap().sessions.remove(0);
    assert_eq!(waiting.session.last_heartbeat, at(5));
    store.acknowledge(settling(vec![taken(&waiting)], 2), by(OWNER, at(61))).await.unwrap();
    assert_eq!(store.refresh(RefreshRule::EVERYTHING, at(999)).await.unwrap(), 0, "central has the newest");
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    assert_eq!(store.ledger().await.unwrap().acked, 2);
    assert_eq!(store.forget_synced(0, at(8)).await.unwrap(), (1, 0));
    assert_eq!(store.backlog().await.unwrap().sessions, 1);
}

#[tokio::test]
async fn a_heartbeat_during_a_push_survives_a_close_in_central() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    register(&store, 1, 0).await;
    let pushed = store.pending(rows(10), Skip::default()).await.unwrap().sessions.remove(0);
    let id = pushed.session.instance_id.to_string();
    store.heartbeat(id, Heartbeat::default(), by(OWNER, at(5))).await.unwrap();
    let closed = SessionResult {
        work_version: None,
        how: SessionOutcome::ClosedElsewhere { closed_at: at(3) },
        ..taken(&pushed)
    };
    store.acknowledge(settling(vec![closed], 1), by(OWNER, at(6))).await.unwrap();
    let waiting = store.pending(rows(10), Skip::default()).await.unwrap().sessions.remove(0).session;
    assert_eq!((waiting.status, waiting.closed_at, waiting.last_heartbeat), (Status::Closed, Some(at(3)), at(5)));
}

#[tokio::test]
async fn id_collision_gives_a_new_id_and_the_old_one_still_resolves() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let old = record.session.instance_id.clone();
    let collided = SessionResult { work_version: None, how: SessionOutcome::Collided, ..taken(&record) };
    let renamed = store.acknowledge(settling(vec![collided], 1), by(OWNER, at(1))).await.unwrap();
    let new = &renamed[0].to;
    assert_eq!((renamed.len(), &renamed[0].from), (1, &old));
    let beaten = store.heartbeat(old.to_string(), Heartbeat::default(), by(OWNER, at(2))).await.unwrap();
    assert_eq!((&beaten.session.instance_id, beaten.former_id.as_deref()), (new, Some(old.as_str())));
    assert_eq!(only(&store, &old).await, beaten);
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().sessions, [beaten]);
    // The id that was given up is not given again.
    let next = store.register(unregistered(None), seeded(8, OWNER, at(3))).await.unwrap();
    assert_ne!((&next.session.instance_id, &next.session.instance_id), (&old, new));
}

#[tokio::test]
async fn parked_sessions_are_kept_with_their_error_until_retried_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let id = record.session.instance_id.to_string();
    let rejected = SessionResult {
        work_version: None,
        how: SessionOutcome::Rejected { error: "too odd".into() },
        ..taken(&record)
    };
    store.acknowledge(settling(vec![rejected.clone()], 0), by(OWNER, at(1))).await.unwrap();
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().sessions, []);
    assert_eq!(store.backlog().await.unwrap().parked, 1);
    assert_eq!(store.parked().await.unwrap()[0].error, "too odd");
    let unknown = store.retry_parked(vec![id.clone(), "nobody".into()]).await;
    assert_eq!(unknown, Err(StoreError::NotParked("nobody".into())));
    assert_eq!(store.retry_parked(vec![]).await, Ok(1));
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().sessions.len(), 1);
    store.acknowledge(settling(vec![rejected], 0), by(OWNER, at(3))).await.unwrap();
    assert_eq!(store.drop_parked(vec![id]).await, Ok(1));
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
}

#[tokio::test]
async fn a_change_of_a_parked_session_frees_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let id = record.session.instance_id.to_string();
    let rejected = SessionResult {
        work_version: None,
        how: SessionOutcome::Rejected { error: "too odd".into() },
        ..taken(&record)
    };
    store.acknowledge(settling(vec![rejected.clone()], 0), by(OWNER, at(1))).await.unwrap();
    store.heartbeat(id.clone(), Heartbeat::default(), by(OWNER, at(2))).await.unwrap();
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().sessions.len(), 1);
    assert_eq!(store.backlog().await.unwrap().parked, 0);
    // What was rejected is not what there is by now.
    store.acknowledge(settling(vec![rejected], 0), by(OWNER, at(3))).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().parked, 0);
}

#[tokio::test]
async fn parked_rows_are_tried_again_after_twice_as_long_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let rejected = SessionResult {
        work_version: None,
        how: SessionOutcome::Rejected { error: "too odd".into() },
        ..taken(&record)
    };
    let mut now = 0;
    for wait in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        store.acknowledge(settling(vec![rejected.clone()], 0), by(OWNER, at(now))).await.unwrap();
        assert_eq!(store.release_parked(at(now + wait - 1)).await, Ok(0), "after {wait} s");
        now += wait;
        assert_eq!(store.release_parked(at(now)).await, Ok(1), "after {wait} s");
    }
    // Parked by a clock that was a day ahead.
    store.acknowledge(settling(vec![rejected], 0), by(OWNER, at(now + 86_400))).await.unwrap();
    assert_eq!(store.release_parked(at(now)).await, Ok(1));
}

#[tokio::test]
async fn held_rows_are_left_out_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let first = register(&store, 1, 0).await.session.instance_id;
    let second = register(&store, 2, 1).await.session.instance_id;
    let ids = |pending: Pending| pending.sessions.into_iter().map(|r| r.session.instance_id).collect::<Vec<_>>();
    let skip = Skip { sessions: vec![first.clone()], ..Skip::default() };
    assert_eq!(ids(store.pending(rows(1), skip.clone()).await.unwrap()), std::slice::from_ref(&second));
    assert!(store.has_pending(skip).await.unwrap());
    let both = Skip { sessions: vec![first.clone(), second.clone()], ..Skip::default() };
    assert!(!store.has_pending(both).await.unwrap());
    let all = Skip { all_sessions: true, ..Skip::default() };
    assert!(!store.has_pending(all).await.unwrap());
    assert_eq!(ids(store.newest_pending(None, 1, Skip::default()).await.unwrap()), [second]);
    // By bytes as well as by rows, and always one.
    let few = store.pending(BatchLimit { rows: 10, bytes: 1 }, Skip::default()).await.unwrap();
    assert_eq!((few.more, ids(few)), (true, vec![first]));
}

#[tokio::test]
async fn activity_ends_with_silence_exit_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let process = Process { pid: 42, started: 7 };
    let watched = store
        .register(NewSession { what: odin(None), agent: None, process: Some(process) }, seeded(1, OWNER, at(0)))
        .await
        .unwrap()
        .session
        .instance_id;
    let silent = register(&store, 2, 0).await.session.instance_id;
    store.seen_alive(vec![watched.clone()], by(OWNER, at(100))).await.unwrap();
    assert_eq!(store.sweep(by(OWNER, at(130))).await, Ok(1));
    assert_eq!(only(&store, &silent).await.session.status, Status::Stale);
    assert_eq!(only(&store, &watched).await.session.status, Status::Active);

    let other = Process { pid: 42, started: 8 };
    assert_eq!(
        store.process_died(watched.clone(), other, by(OWNER, at(131))).await,
        Ok(false),
        "a reused pid is another process"
    );
    assert_eq!(store.process_died(watched.clone(), process, by(OWNER, at(131))).await, Ok(true));
    let dead = only(&store, &watched).await;
    assert_eq!((dead.session.status, dead.session.last_heartbeat, dead.process), (Status::Stale, at(100), None));
    assert_eq!(store.watched().await.unwrap(), []);

    let closed = store.close(silent.to_string(), by(OWNER, at(140))).await.unwrap();
    assert_eq!(store.prune(at(9999)).await, Ok(0), "central does not have it yet");
    store.acknowledge(settling(vec![taken(&closed)], 1), by(OWNER, at(141))).await.unwrap();
    assert_eq!(store.prune(at(140)).await, Ok(0));
    assert_eq!(store.prune(at(9999)).await, Ok(1));
    let counts = store.counts(by(OWNER, at(141))).await.unwrap();
    assert_eq!(counts, Counts { active: 0, stale: 1, closed: 0 });
}

#[tokio::test]
async fn prefixes_show_up_to_ten_candidates_most_recent_first() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    for i in 0..12 {
        register(&store, i, i as i64).await;
    }
    let Lookup::Several(candidates) = store.find("odin-PS-".into()).await.unwrap() else { panic!("twelve match") };
    assert_eq!(candidates.len(), CANDIDATES);
    assert!(candidates.is_sorted_by_key(|r| std::cmp::Reverse(r.session.last_heartbeat)));
    assert_eq!(candidates[0].session.last_heartbeat, at(11));
    for nothing in ["odin-MS", "%", "odin-PS-_", "Odin", "odin-PS-zzzzzzz"] {
        assert_eq!(store.find(nothing.into()).await.unwrap(), Lookup::None, "{nothing}");
    }
}

#[tokio::test]
async fn every_beginning_of_an_id_finds_all_that_begin_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let mut ids = Vec::new();
    for (number, project) in ["odin", "odin2", "odin-core", "od", "o", "odin-core-a", "z"].into_iter().enumerate() {
        let what = Registration { project: Project::parse(project).unwrap(), ..odin(None) };
        let record = store
            .register(NewSession { what, agent: None, process: None }, seeded(number as u64, OWNER, at(number as i64)))
            .await
            .unwrap();
        ids.push(record.session.instance_id.to_string());
    }
    for beginning in ids.iter().flat_map(|id| (1..id.len()).map(|length| &id[..length])) {
        let mut found = match store.find(beginning.to_owned()).await.unwrap() {
            Lookup::One(record) => vec![*record],
            Lookup::Several(records) => records,
            Lookup::None => Vec::new(),
        };
        found.reverse();
        let found: Vec<_> = found.iter().map(|record| record.session.instance_id.as_str()).collect();
        let begin_so: Vec<_> = ids.iter().filter(|id| id.starts_with(beginning)).collect();
        assert_eq!(found, begin_so, "{beginning}");
    }
}

#[tokio::test]
async fn a_renamed_machine_keeps_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    store.set_machine_name(MachineName::guess(), at(0)).await.unwrap();
    let id = register(&store, 1, 0).await.session.instance_id;
    let laptop = MachineName::parse("laptop").unwrap();
    assert_eq!(store.set_machine_name(laptop.clone(), at(1)).await, Ok(1));
    assert_eq!(store.set_machine_name(laptop.clone(), at(1)).await, Ok(0));
    let moved = only(&store, &id).await;
    assert_eq!((&moved.session.host_machine, moved.version), (&laptop, 2));
}
