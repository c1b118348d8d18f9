//! The longest job of the writer in the work that grows with the store. Rows are asserted, durations are printed: those
//! depend on the machine. SESSIOND_TEST_LONG makes the stores as large as a busy host's after a year.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::turns::{BESIDE, fill};
use super::*;
use crate::domain::mirror::{ChangePage as Page, Continuation, DeletedSession};
use crate::domain::{InstanceType, Project};
use crate::store::ops::retention::{self, PrunePlace};

/// How many spooled requests the daemon imports in one job.
const SPOOLED: usize = 32;
/// A session that is deleted takes a few rows of other tables along.
const DELETED_SESSIONS: u64 = 60;

fn scaled(short: i64, long: i64) -> i64 {
    if std::env::var_os("SESSIOND_TEST_LONG").is_some() { long } else { short }
}

fn change(dir: &Path, sql: &str) {
    Connection::open(dir.join("sessiond.db")).unwrap().execute_batch(sql).unwrap();
}

fn count(dir: &Path, what: &str) -> i64 {
    let db = Connection::open(dir.join("sessiond.db")).unwrap();
    db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

/// Checks how many rows the jobs since the last call wrote, and prints how long the longest took.
fn check_jobs(store: &Store, what: &str, began: Instant) {
    check_jobs_of(store, 1, what, began);
}

/// `writes`: how many rows are written for each row of a turn. One that is deleted or closed is also subtracted from its
/// user's usage, which is one row for all of them.
fn check_jobs_of(store: &Store, writes: u64, what: &str, began: Instant) {
    let (longest, largest) = store.writer.take_longest_job();
    println!("{what}: longest job {longest:?}, largest {largest} rows, all of it {:?}", began.elapsed());
    let most = writes * sqlite::turns::ROWS as u64 + BESIDE + DELETED_SESSIONS;
    assert!(largest > 1, "{what}: nothing was counted");
    assert!(largest <= most, "{what}: a job wrote {largest} rows");
}

fn odin() -> NewSession {
    let what = Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::guess(),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    NewSession { what, agent: None, process: None }
}

/// For an operation on session `number`.
fn of(number: u64) -> OpContext {
    seeded(0x00ff_0000 + number * 8, OWNER, at(0))
}

#[tokio::test]
async fn pruning_many_records_has_no_long_job() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 1_000, scaled(6_000, 600_000), 1_000);
    change(
        dir.path(),
        "UPDATE records SET body = printf('{\"x\":\"%.*c\"}', 300, 'x');
         UPDATE sessions SET status = 'closed', closed_at = 5, pid = NULL",
    );
    let began = Instant::now();
    let (store, writer) = open(dir.path());
    println!("reopening: {:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(store.prune(at(60)).await, Ok(1_000));
    check_jobs_of(&store, 2, "pruning", began);
    shut((store, writer));
    assert_eq!(count(dir.path(), "records"), 0);
}

#[tokio::test]
async fn pruning_one_long_history_has_no_long_job() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2, scaled(6_000, 200_000), 1);
    change(dir.path(), "UPDATE sessions SET status = 'closed', closed_at = 5, pid = NULL");
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    assert_eq!(store.prune(at(60)).await, Ok(2));
    check_jobs_of(&store, 2, "pruning one session", began);
    shut((store, writer));
    assert_eq!(count(dir.path(), "records"), 0);
}

/// How many thousand instructions SQLite runs for the first turn of pruning a store of that size.
fn instructions_of_a_turn(sessions: i64, records: i64) -> usize {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), sessions, records, sessions);
    change(dir.path(), "UPDATE sessions SET status = 'closed', closed_at = 5, pid = NULL");
    let db = Connection::open(dir.path().join("sessiond.db")).unwrap();
    let thousands = Arc::new(AtomicUsize::new(0));
    let counter = thousands.clone();
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    db.progress_handler(1_000, Some(count)).unwrap();
    let turn = retention::turn(&db, at(60), PrunePlace::FIRST).unwrap();
    assert_eq!(turn.pruned, 0, "the first session has more records than a turn deletes");
    thousands.load(Ordering::Relaxed)
}

#[test]
fn a_turn_of_pruning_reads_no_more_than_it_deletes() {
    let few = instructions_of_a_turn(1, 300);
    let (many_sessions, long_history) = (instructions_of_a_turn(100, 30_000), instructions_of_a_turn(1, 30_000));
    println!("thousand instructions: {few} of few records, {many_sessions} of many sessions, {long_history} of one");
    assert!(few > 0);
    assert!(many_sessions <= 2 * few && long_history <= 2 * few, "{few}, {many_sessions}, {long_history}");
}

#[tokio::test]
async fn deletions_from_central_have_no_long_job() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = scaled(2_000, 100_000);
    // Some sessions have a long history, others one of long texts.
    fill(dir.path(), sessions, sessions * 2, sessions);
    change(
        dir.path(),
        "UPDATE sessions SET mirror_generation = 0, pid = NULL; UPDATE records SET unsynced = NULL;
         UPDATE records SET instance_id = 'odin-PS-000000' WHERE seq <= 1500;
         UPDATE records SET body = printf('\"%.*c\"', 60000, 'x') WHERE seq > 1500 AND seq < 1700",
    );
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    let all: Vec<i64> = (0..sessions).collect();
    for page in all.chunks(1_000) {
        let gone = page
            .iter()
            .map(|n| DeletedSession { instance_id: format!("odin-PS-{n:06x}"), created_at: at(0) })
            .collect();
        let changes = Page { gone, rest: Continuation::Complete { next_since: 9 }, ..Page::default() };
        store.import_page(crate::domain::mirror::PullQuery::since(1), changes, by(OWNER, at(1))).await.unwrap();
    }
    check_jobs(&store, "deletions", began);
    shut((store, writer));
    assert_eq!((count(dir.path(), "sessions"), count(dir.path(), "records")), (0, 0));
}

#[tokio::test]
async fn sessions_that_a_whole_reading_did_not_meet_are_deleted_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = scaled(2_000, 100_000);
    fill(dir.path(), sessions, sessions, sessions / 2);
    change(dir.path(), "UPDATE sessions SET mirror_generation = 0, pid = NULL; UPDATE records SET unsynced = NULL");
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    let changes = Page { rest: Continuation::Complete { next_since: 9 }, ..Page::default() };
    store.import_page(crate::domain::mirror::PullQuery::since(0), changes, by(OWNER, at(1))).await.unwrap();
    check_jobs(&store, "a whole reading", began);
    shut((store, writer));
    assert_eq!((count(dir.path(), "sessions"), count(dir.path(), "records")), (0, 0));
}

#[tokio::test]
async fn spooled_requests_have_no_long_job() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 1_000, 0, 1);
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    let requests = u64::try_from(scaled(640, 9_000)).unwrap();
    let import = |n: u64| {
        let what = odin().what;
        let id = InstanceId::parse(&format!("odin-PS-{:06x}", 0x00f0_0000 + n)).unwrap();
        let deferred = match n % 3 {
            0 => SpooledWrite::Register { id, session: Box::new(NewSession { what, agent: None, process: None }) },
            1 => SpooledWrite::Heartbeat { id: format!("odin-PS-{:06x}", n % 1_000), beat: Heartbeat::default() },
            _ => SpooledWrite::Close { id: format!("odin-PS-{:06x}", n % 1_000) },
        };
        Import { name: format!("{n}.json"), key: None, deferred, context: of(n) }
    };
    let all: Vec<u64> = (0..requests).collect();
    for job in all.chunks(SPOOLED) {
        store.import(job.iter().copied().map(import).collect()).await.unwrap();
    }
    store.forget_imported(all.iter().map(|n| format!("{n}.json")).collect()).await.unwrap();
    check_jobs(&store, "spooled requests", began);
    shut((store, writer));
}

#[tokio::test]
async fn parked_rows_are_retried_dropped_and_released_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let records = scaled(2_000, 50_000);
    fill(dir.path(), 1_000, records, 1_000);
    let park = "UPDATE sessions SET parked_at = 1, parked_error = 'no', retry_at = 2, unsynced_since = 1;
        UPDATE records SET parked_at = 1, parked_error = 'no', retry_at = 2, unsynced = 1";
    let parked = usize::try_from(records + 1_000).unwrap();
    change(dir.path(), park);
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    let unknown = vec!["odin-PS-000000".to_owned(), "odin-PS-0000".to_owned()];
    assert_eq!(store.retry_parked(unknown).await, Err(StoreError::NotParked("odin-PS-0000".into())));
    assert_eq!(store.backlog().await.unwrap().parked, parked as u64, "nothing happened");
    assert_eq!(store.retry_parked(vec![]).await, Ok(parked));
    check_jobs(&store, "parked retry", began);
    change(dir.path(), park);
    let began = Instant::now();
    assert_eq!(store.release_parked(at(0)).await, Ok(parked));
    check_jobs(&store, "parked rows that are due", began);
    change(dir.path(), park);
    let began = Instant::now();
    assert_eq!(store.drop_parked(vec![]).await, Ok(parked));
    assert!(store.backlog().await.unwrap().is_empty());
    check_jobs(&store, "parked drop", began);
    shut((store, writer));
}

#[tokio::test]
async fn records_of_sessions_that_return_are_freed_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let records = scaled(2_000, 50_000);
    fill(dir.path(), 1, records, 1);
    let park =
        format!("UPDATE records SET parked_at = 1, parked_error = '{WITHOUT_SESSION}', retry_at = 2, unsynced = 1");
    change(dir.path(), &park);
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    let id = InstanceId::parse("odin-PS-000000").unwrap();
    let settling = BatchResult {
        sessions: vec![SessionResult {
            heartbeat: None,
            instance_id: id,
            version: 1,
            work_version: None,
            how: SessionOutcome::Taken,
        }],
        ..BatchResult::default()
    };
    store.acknowledge(settling, by(OWNER, at(1))).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().parked, 0);
    check_jobs(&store, "records of a session that returned", began);
    shut((store, writer));
}

#[tokio::test]
async fn events_are_parked_and_freed_by_type_in_turns_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let records = scaled(2_000, 50_000);
    fill(dir.path(), 1_000, records, 1_000);
    change(dir.path(), "UPDATE records SET unsynced = 1; UPDATE records SET type = 'odd' WHERE seq % 2 = 0");
    let (store, writer) = open(dir.path());
    let takes = |types: &[&str]| HistoryTables {
        event_types: Some(types.iter().map(ToString::to_string).collect()),
        ..HistoryTables::ALL
    };
    let parked = async |store: &Store| i64::try_from(store.backlog().await.unwrap().parked).unwrap();
    let began = Instant::now();
    store.record_tables(takes(&["error"]), at(1)).await.unwrap();
    assert_eq!(parked(&store).await, records / 2);
    check_jobs(&store, "events of unknown types", began);
    // A daemon that ended after the first turns of learning that central takes them: the next one completes it.
    let tables = takes(&["error", "odd"]);
    let there = tables.clone();
    store
        .writer
        .submit(move |db| sync_state::event_types::turn(db, &there, sync_state::event_types::LearnPlace::FIRST, at(2)))
        .await
        .unwrap();
    shut((store, writer));
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    store.record_tables(tables.clone(), at(3)).await.unwrap();
    assert_eq!(parked(&store).await, 0);
    check_jobs(&store, "events of types that became known", began);
    store.record_tables(tables, at(4)).await.unwrap();
    assert_eq!(store.writer.take_longest_job().1, 0, "what is known already writes nothing");
    shut((store, writer));
}

#[tokio::test]
async fn silent_headless_sessions_are_closed_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = scaled(1_000, 20_000);
    fill(dir.path(), sessions, 0, 1);
    change(
        dir.path(),
        "UPDATE sessions SET status = 'stale', pid = NULL, kind = iif(rowid % 4 = 0, 'interactive', 'headless')",
    );
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    assert_eq!(
        store.close_headless(at(500), by(OWNER, at(1_000))).await,
        Ok(usize::try_from(sessions * 3 / 4).unwrap())
    );
    check_jobs_of(&store, 2, "headless sessions", began);
    let urgent = store.urgent_changes();
    assert_eq!(store.close_headless(at(500), by(OWNER, at(1_000))).await, Ok(0));
    assert_eq!(store.urgent_changes(), urgent, "nothing was closed, so nothing is pushed in haste");
    shut((store, writer));
}

#[tokio::test]
async fn registrations_beside_many_watched_processes_have_no_long_job() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = scaled(1_000, 5_000);
    fill(dir.path(), sessions, 0, 1);
    let (store, writer) = open(dir.path());
    let began = Instant::now();
    let watched: Vec<_> = store.watched().await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(watched.len() as i64, sessions);
    let alive = store.seen_alive(watched, by(OWNER, at(100)));
    let register = async {
        for number in 0..100 {
            let what = odin().what;
            let process = Some(Process { pid: 1_000_000 + number as i32, started: 7 });
            store.register(NewSession { what, agent: None, process }, of(number)).await.unwrap();
        }
    };
    let (alive, ()) = tokio::join!(alive, register);
    alive.unwrap();
    check_jobs(&store, "watched processes", began);
    shut((store, writer));
}
