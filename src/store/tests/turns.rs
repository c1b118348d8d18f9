//! No job of the writer grows with the store: each is counted in rows, as durations depend on the machine.

use super::*;
use crate::domain::MachineName;

/// Rows that a job writes beside those it was given: facts, aliases.
pub(super) const BESIDE: u64 = 10;
const SESSIONS: i64 = 1_000;

/// A store of that many sessions, active since second 0, and `records` records of the first of them, written without
/// the writer.
fn filled(dir: &Path, records: i64) -> (Store, WriterThread) {
    fill(dir, SESSIONS, records, 1);
    open(dir)
}

/// Writes so many sessions, and records of the first `spread` of them, without the writer.
pub(super) fn fill(dir: &Path, sessions: i64, records: i64, spread: i64) {
    shut(open(dir));
    let db = Connection::open(dir.join("sessiond.db")).unwrap();
    db.execute_batch(&format!(
        "INSERT INTO metadata VALUES ('machine_name', 'odin3');
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {sessions})
         INSERT INTO sessions (instance_id, project, instance_type, status, context_percent, last_heartbeat, created_at,
             host_machine, owner_uid, pid, pid_started, version)
         SELECT printf('odin-PS-%06x', n), 'odin', 'PS', 'active', 1, {0}, {0}, 'odin3', 1000, n + 1, 7, 1 FROM n;
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {records})
         INSERT INTO records (record_id, instance_id, kind, type, at, body, unsynced)
         SELECT CAST(printf('%016d', n) AS BLOB), printf('odin-PS-%06x', n % {spread}), 'event', 'error', n, '{{}}', 0 FROM n WHERE n < {records};",
        at(0).micros(),
    ))
    .unwrap();
}

fn check_jobs(store: &Store) {
    check_jobs_of(store, 1);
}

/// `writes`: how many rows are written for each row of a turn. One that is deleted is also subtracted from its user's
/// usage, which is one row for all of them.
fn check_jobs_of(store: &Store, writes: u64) {
    let largest = store.writer.largest_job();
    assert!(largest <= sqlite::turns::ROWS as u64 * writes + BESIDE, "a job wrote {largest} rows");
    assert!(largest > 1, "nothing was counted");
}

#[tokio::test]
async fn pruning_is_cut_into_turns() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = filled(dir.path(), 5_000);
    let db = Connection::open(dir.path().join("sessiond.db")).unwrap();
    // One in three is not in central yet; it stays, and is passed over.
    db.execute(
        "UPDATE sessions SET status = 'closed', closed_at = ?1 + rowid / 300, pid = NULL, \
             unsynced_since = iif(rowid % 3 = 0, 5, NULL)",
        [at(5).micros()],
    )
    .unwrap();
    let kept: i64 = db.query_row("SELECT count(*) FROM sessions WHERE rowid % 3 = 0", [], |row| row.get(0)).unwrap();
    assert_eq!(store.prune(at(5)).await, Ok(0), "not before their time");
    assert_eq!(store.prune(at(60)).await, Ok(usize::try_from(SESSIONS - kept).unwrap()));
    assert_eq!(store.prune(at(60)).await, Ok(0));
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM records"), 0);
    assert_eq!(count("SELECT count(*) FROM sessions WHERE mirror_generation IS NULL"), kept);
    check_jobs_of(&store, 2);
    shut((store, writer));
}

#[tokio::test]
async fn long_texts_are_pruned_in_turns_of_bounded_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = filled(dir.path(), 100);
    let db = Connection::open(dir.path().join("sessiond.db")).unwrap();
    db.execute_batch("UPDATE records SET body = printf('\"%.*c\"', 60000, 'x'); UPDATE sessions SET status = 'closed', closed_at = 5")
        .unwrap();
    store.prune(at(60)).await.unwrap();
    assert_eq!(db.query_row("SELECT count(*) FROM records", [], |row| row.get::<_, i64>(0)), Ok(0));
    // Without the records that fill the first turns, the rest of the sessions are up to a whole turn.
    check_jobs_of(&store, 2);
    shut((store, writer));
}

#[tokio::test]
async fn liveness_of_many_processes_is_cut_into_turns() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = filled(dir.path(), 0);
    let ids = store.watched().await.unwrap().into_iter().map(|(id, _)| id).collect();
    store.seen_alive(ids, by(OWNER, at(100))).await.unwrap();
    assert_eq!(store.sweep(by(OWNER, at(130))).await, Ok(0), "all were seen");
    assert_eq!(store.sweep(by(OWNER, at(300))).await, Ok(1_000));
    check_jobs(&store);
    shut((store, writer));
}

#[tokio::test]
async fn acknowledgements_and_restores_are_cut_into_turns() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = filled(dir.path(), 3_000);
    assert_eq!(store.forget_synced(7, at(50)).await, Ok((1_000, 3_000)));
    assert_eq!(store.ledger().await.unwrap().acked, 7);
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.sessions, backlog.records), (1_000, 3_000));

    let Pending { sessions, records, .. } =
        store.pending(BatchLimit { rows: 10_000, bytes: usize::MAX }, Skip::default()).await.unwrap();
    let settling = BatchResult {
        sessions: sessions
            .iter()
            .map(|record| SessionResult {
                heartbeat: None,
                instance_id: record.session.instance_id.clone(),
                version: record.version,
                work_version: None,
                how: SessionOutcome::Taken,
            })
            .collect(),
        records: records.iter().map(|r| RecordResult { record_id: r.record_id, rejected: None }).collect(),
        acked_batch: 8,
        next_batches: [9, 10],
    };
    assert_eq!((settling.sessions.len(), settling.records.len()), (1_000, 3_000));
    store.acknowledge(settling, by(OWNER, at(51))).await.unwrap();
    assert!(store.backlog().await.unwrap().is_empty());
    assert_eq!(store.set_machine_name(MachineName::parse("odin4").unwrap(), at(52)).await, Ok(1_000));
    assert_eq!(store.set_machine_name(MachineName::parse("odin4").unwrap(), at(52)).await, Ok(0));
    check_jobs(&store);
    shut((store, writer));
}

#[tokio::test]
async fn readers_that_overlap_do_not_let_the_log_grow() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = filled(dir.path(), 0);
    // Each begins before the one before it ends, so that there is always a read under way.
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let read = |db: &Connection| {
                        let count: i64 = db.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))?;
                        std::thread::sleep(Duration::from_millis(20));
                        Ok(count)
                    };
                    store.read(read).await.unwrap();
                }
            })
        })
        .collect();
    let write = |n: i64| {
        let body = format!("\"{}\"", "x".repeat(200_000));
        store.writer.submit(move |db| {
            let insert = "INSERT INTO records (record_id, instance_id, kind, type, at, body) \
                VALUES (CAST(printf('%016d', ?1) AS BLOB), 'odin-PS-000000', 'event', 'error', 0, ?2)";
            Ok(db.execute(insert, rusqlite::params![n, body])?)
        })
    };
    let mut n = 0;
    while !store.files.log_is_long() {
        write(n).await.unwrap();
        n += 1;
        assert!(n < 1_000, "the log was restarted by itself, so the reads did not overlap");
    }
    tokio::time::timeout(Duration::from_secs(30), store.shorten_log()).await.unwrap().unwrap();
    assert!(store.files.size("-wal") < 5_000_000, "{} bytes", store.files.size("-wal"));
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    for reader in readers {
        let _ = reader.await;
    }
    shut((store, writer));
}
