//! The mirror's share of the store: how much room the sessions of other hosts may take.
//!
//! The mirror is what central has anyway, so it makes room: past its share of max_size, and whenever a write of this
//! host finds the store full. The oldest history goes first, then the sessions that closed first. What was given up is
//! noted, and everything is read again once there is ample room.

use rusqlite::Connection;

use crate::store::error::StoreError;
use crate::store::sqlite::turns;
use crate::store::tables::columns::MIRRORED;
use crate::store::tables::metadata;

/// The mirror is imported only while all that is stored takes less than this part of max_size.
const SHARE: u64 = 2;

/// A full store is brought down to what leaves this part of max_size free.
const FREED: u64 = 8;

/// How much is given up in one job of the writer, at most.
const RECORDS: i64 = 250;

const SESSIONS: i64 = 25;

/// Metadata that is there while a part of the mirror was given up.
const INCOMPLETE: &str = "mirror_incomplete";

/// How full the store may be before the mirror makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Limit {
    /// A page of the mirror was imported.
    Share,
    /// A write of this host found no room.
    Full,
}

/// Gives up a part of the mirror if the store is too full. Says whether it did, and so may have to again.
pub(in crate::store) fn make_room(db: &Connection, limit: Limit) -> Result<bool, StoreError> {
    let Room { used, most } = Room::of(db)?;
    let limit = match limit {
        Limit::Share => most / SHARE,
        Limit::Full => most - most / FREED,
    };
    if used <= limit {
        return Ok(false);
    }
    let mut given_up = give_up_records(db, (used - limit) * PAGE)?;
    if given_up == 0 {
        given_up = db
            .prepare_cached(&format!(
                "DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions \
                     WHERE {MIRRORED} AND status = 'closed' ORDER BY closed_at LIMIT ?1)",
            ))?
            .execute([SESSIONS])?;
    }
    if given_up > 0 {
        metadata::set_integer(db, INCOMPLETE, 1)?;
    }
    Ok(given_up > 0)
}

/// Deletes the oldest records of the mirror until so many bytes are free, or enough for one job. Says how many.
fn give_up_records(db: &Connection, bytes: u64) -> Result<usize, StoreError> {
    let mut oldest = db.prepare_cached(
        "SELECT seq, octet_length(body) FROM records INDEXED BY records_mirrored WHERE unsynced IS NULL ORDER BY at LIMIT ?1",
    )?;
    let mut rows = oldest.query([RECORDS])?;
    let mut chosen: Vec<i64> = Vec::new();
    let mut freed = 0;
    while freed < bytes.min(turns::BYTES as u64)
        && let Some(row) = rows.next()?
    {
        freed += row.get::<_, i64>(1)?.unsigned_abs();
        chosen.push(row.get(0)?);
    }
    drop(rows);
    let mut delete = db.prepare_cached("DELETE FROM records WHERE seq = ?1")?;
    for seq in &chosen {
        delete.execute([seq])?;
    }
    Ok(chosen.len())
}

/// Was a part of the mirror given up that there is ample room for by now? Then that is no longer noted.
pub(in crate::store) fn can_be_completed(db: &Connection) -> Result<bool, StoreError> {
    let Room { used, most } = Room::of(db)?;
    if used > most / SHARE / 2 {
        return Ok(false);
    }
    metadata::delete(db, INCOMPLETE)
}

/// The size of a page of the database, in bytes.
const PAGE: u64 = 4096;

/// In pages of the database.
pub(in crate::store) struct Room {
    used: u64,
    most: u64,
}

impl Room {
    fn of(db: &Connection) -> Result<Self, StoreError> {
        let pages = |pragma: &str| -> Result<u64, StoreError> {
            Ok(db.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
        };
        let used = pages("PRAGMA page_count")? - pages("PRAGMA freelist_count")?;
        Ok(Self { used, most: pages("PRAGMA max_page_count")? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::domain::TimedSession;
    use crate::domain::mirror::{ChangePage, Continuation, PullQuery};
    use crate::domain::{
        HistoryRecord, InstanceId, InstanceType, MachineName, Project, RecordKind, Session, Status, Timestamp,
    };
    use crate::store::tests::{OWNER, at, by, only, register, shut};
    use crate::store::{Append, Durability, Options, PageResult, Store, WriterThread};

    const MAX_SIZE: u64 = 4 << 20;

    fn open(dir: &std::path::Path) -> (Store, WriterThread) {
        let options = Options { durability: Durability::Normal, max_size: MAX_SIZE };
        Store::open(dir, options, Arc::new(|| at(1_000_000))).unwrap()
    }

    fn closed(number: usize) -> Session {
        Session {
            instance_id: InstanceId::parse(&format!("odin-PS-{number:06}")).unwrap(),
            project: Project::parse("odin").unwrap(),
            instance_type: InstanceType::Ps,
            status: Status::Closed,
            context_percent: 3,
            current_epic: None,
            last_heartbeat: at(number as i64),
            created_at: at(0),
            closed_at: Some(at(number as i64)),
            host_machine: MachineName::parse("odin4").unwrap(),
            claude_session_uuid: None,
            claude_session_path: Some("/p".repeat(200)),
            resumed_from: None,
            working_dir: None,
        }
    }

    fn record(number: usize) -> HistoryRecord {
        let body = serde_json::json!({ "data": { "text": "x".repeat(60_000) } });
        HistoryRecord {
            record_id: uuid::Uuid::from_u128(number as u128),
            instance_id: closed(number).instance_id,
            kind: RecordKind::Event,
            record_type: "error".into(),
            at: at(number as i64),
            body: body.as_object().unwrap().clone(),
        }
    }

    async fn import(store: &Store, changes: ChangePage, now: Timestamp) -> PageResult {
        import_since(store, 1, changes, now).await
    }

    async fn import_since(store: &Store, since: u64, changes: ChangePage, now: Timestamp) -> PageResult {
        store.import_page(PullQuery::since(since), changes, by(OWNER, now)).await.unwrap()
    }

    /// Of so many sessions of another host.
    async fn import_history(store: &Store, sessions: usize) {
        for page in (0..sessions).collect::<Vec<_>>().chunks(20) {
            let changes = ChangePage {
                sessions: page.iter().map(|n| TimedSession::untimed(closed(*n))).collect(),
                history: page.iter().map(|n| record(*n)).collect(),
                rest: Continuation::Complete { next_since: 9 },
                ..ChangePage::default()
            };
            import(store, changes, at(60)).await;
        }
    }

    async fn used(store: &Store) -> u64 {
        store.read(|db| Ok(super::Room::of(db)?.used)).await.unwrap() * 4096
    }

    async fn records_of(store: &Store, number: usize) -> usize {
        let query = crate::store::HistoryQuery {
            kind: RecordKind::Event,
            record_type: None,
            since: None,
            until: None,
            contains: None,
            after: None,
            limit: 9,
            offset: 0,
        };
        store.history(closed(number).instance_id, query).await.unwrap().records.len()
    }

    #[tokio::test]
    async fn the_mirror_keeps_to_its_share_and_the_newest_history() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = open(dir.path());
        import_history(&store, 120).await;
        assert!(used(&store).await <= MAX_SIZE / 2, "{}", used(&store).await);
        assert_eq!((records_of(&store, 0).await, records_of(&store, 119).await), (0, 1));
        let first = only(&store, &closed(0).instance_id).await;
        assert!(first.mirrored, "sessions stay while there is history to give up");
        shut((store, writer));
    }

    #[tokio::test]
    async fn a_register_never_finds_the_store_full_because_of_the_mirror() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = open(dir.path());
        import_history(&store, 120).await;
        let id = register(&store, 900_001, 0).await.session.instance_id;
        let mut bytes = 0;
        // This host's own data takes all of the store but for a little.
        for number in 0..u64::MAX {
            let data = serde_json::json!({ "text": "y".repeat(50_000) });
            let what = crate::domain::NewRecord::event("error", data.as_object().unwrap().clone(), None).unwrap();
            let record_id = uuid::Uuid::from_u128(1 << 100 | u128::from(number));
            if store.append(Append { id: id.to_string(), what, record_id }, by(OWNER, at(100))).await.is_err() {
                break;
            }
            bytes += 50_000;
        }
        assert!(bytes > MAX_SIZE * 3 / 4, "{bytes} bytes of its own");
        assert_eq!(records_of(&store, 119).await, 0, "the mirror's history made room");
        shut((store, writer));
    }

    #[tokio::test]
    async fn evicted_history_is_read_again_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = open(dir.path());
        import_history(&store, 120).await;
        assert_eq!(store.mirror_position(at(61)).await.unwrap(), 9);
        shut((store, writer));
        let options = Options { durability: Durability::Normal, max_size: MAX_SIZE * 8 };
        let (store, writer) = Store::open(dir.path(), options, Arc::new(|| at(1_000_000))).unwrap();
        let quiet = ChangePage { rest: Continuation::Complete { next_since: 10 }, ..ChangePage::default() };
        import(&store, quiet, at(60).plus(Duration::from_secs(61))).await;
        assert_eq!(store.mirror_position(at(122)).await.unwrap(), 0);
        shut((store, writer));
    }

    #[tokio::test]
    async fn a_quiet_pull_writes_nothing_and_announces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = open(dir.path());
        let changed = ChangePage {
            sessions: (0..5).map(|n| TimedSession::untimed(closed(n))).collect(),
            rest: Continuation::More(crate::domain::mirror::PullPosition::start(
                crate::domain::mirror::PullPart::History,
                1,
                9,
            )),
            ..ChangePage::default()
        };
        let ends = |next_since| ChangePage { rest: Continuation::Complete { next_since }, ..ChangePage::default() };
        import(&store, changed, at(60)).await;
        import(&store, ends(9), at(60)).await;
        assert_eq!(store.mirror_position(at(61)).await.unwrap(), 9, "the position advanced with the last, empty page");
        // Changes are announced after the answer to who made them.
        store.changes().newest().wait_for(|announced| *announced == 5).await.unwrap();
        let other = rusqlite::Connection::open(dir.path().join("sessiond.db")).unwrap();
        let commits = || other.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
        let before = commits();
        let quiet = import_since(&store, 9, ends(12), at(75)).await;
        assert_eq!(quiet, PageResult::default());
        assert_eq!(store.mirror_position(at(76)).await.unwrap(), 12);
        assert_eq!((*store.changes().newest().borrow(), commits()), (5, before));
        shut((store, writer));
    }
}
