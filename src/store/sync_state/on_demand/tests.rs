//! Sessions that were asked for: what they replace, how old they get, and what is dropped.

use std::time::Duration;

use super::*;
use crate::domain::mirror::{ChangePage, Continuation, HistoryReading, PullQuery};
use crate::domain::{HistoryRecord, InstanceId, InstanceType, MachineName, Project, RecordKind, Registration, Status};
use crate::store::sync_state::mirror::{Turn, import};
use crate::store::sync_state::mirror_cursor;
use crate::store::tables::session_record::Record;
use crate::store::{Caller, IdSource, OpContext};
use uuid::Uuid;

const STALE_AFTER: Duration = Duration::from_secs(120);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_769_774_400_000_000 + seconds * 1_000_000)
}

fn store() -> Connection {
    crate::store::testing::with_schema(Connection::open_in_memory().unwrap())
}

fn op(db: &Connection, second: i64) -> Op<'_> {
    let ids = IdSource::Seeded(1);
    Op::new(db, OpContext { now: at(second), caller: Caller { uid: 1 }, stale_after: STALE_AFTER, ids })
}

/// A session of odin4 that its host vouches for, with its last heartbeat at `beaten`.
fn session(id: &str, beaten: i64) -> TimedSession {
    let registration = Registration {
        project: Project::parse(id.split('-').next().unwrap()).unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::parse("odin4").unwrap(),
        context_percent: 3,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    let registered = Session::register(InstanceId::parse(id).unwrap(), registration, at(0));
    let session = Session { last_heartbeat: at(beaten), ..registered };
    TimedSession { vouched_by: Some(Uuid::from_u128(4)), ..TimedSession::untimed(session) }
}

fn page(sessions: &[TimedSession]) -> ChangePage {
    ChangePage { sessions: sessions.to_vec(), ..ChangePage::default() }
}

fn find(db: &Connection, second: i64, sessions: &[TimedSession]) {
    for turn in Turn::of_found(page(sessions)) {
        import(&op(db, second), &turn).unwrap();
    }
}

fn pull(db: &Connection, sessions: &[TimedSession]) {
    let changes = ChangePage { rest: Continuation::Complete { next_since: 9 }, ..page(sessions) };
    for turn in Turn::of(&PullQuery::since(5), changes) {
        import(&op(db, 60), &turn).unwrap();
    }
}

fn kept(db: &Connection, id: &str) -> Option<Record> {
    sessions::exactly(db, id).unwrap()
}

fn forget_all(db: &Connection, which: &Dropped, second: i64) -> usize {
    let mut turns = 1;
    while forget(db, which, at(second)).unwrap() {
        turns += 1;
    }
    turns
}

#[test]
fn found_session_has_its_time_and_no_host_that_vouches_for_it() {
    let db = store();
    find(&db, 100, &[session("web-PS-00000a", 40), session("web-PS-00000b", 900)]);
    let record = kept(&db, "web-PS-00000a").unwrap();
    assert_eq!((record.read_at, record.vouched_by, record.mirrored), (Some(at(100)), None, true));
    assert_eq!(record.status_now(&op(&db, 150)), Status::Active);
    assert_eq!(record.status_now(&op(&db, 161)), Status::Stale);
    let ahead = kept(&db, "web-PS-00000b").unwrap();
    assert_eq!(ahead.session.last_heartbeat, at(100), "no heartbeat is later than the time of reading");
    assert_eq!(ahead.status_now(&op(&db, 221)), Status::Stale);
    find(&db, 200, &[session("web-PS-00000a", 40)]);
    assert_eq!(kept(&db, "web-PS-00000a").unwrap().read_at, Some(at(200)), "it is as new as the last answer");
}

#[test]
fn found_session_replaces_none_that_is_read_ahead_or_own() {
    let db = store();
    pull(&db, &[session("odin-PS-00000a", 40)]);
    find(&db, 100, &[session("odin-PS-00000a", 99)]);
    let record = kept(&db, "odin-PS-00000a").unwrap();
    assert_eq!((record.read_at, record.session.last_heartbeat), (None, at(40)));
    db.execute("UPDATE sessions SET mirror_generation = NULL", []).unwrap();
    find(&db, 100, &[session("odin-PS-00000a", 99)]);
    assert!(!kept(&db, "odin-PS-00000a").unwrap().mirrored);
}

#[test]
fn session_that_enters_the_scope_is_read_ahead_from_then_on() {
    let db = store();
    // A client without a daemon wrote it: nothing else of the row differs.
    let row = TimedSession { vouched_by: None, ..session("web-PS-00000a", 40) };
    find(&db, 100, std::slice::from_ref(&row));
    pull(&db, &[row]);
    let record = kept(&db, "web-PS-00000a").unwrap();
    assert_eq!(record.read_at, None);
    forget_all(&db, &Dropped::Expired, 10_000);
    assert!(kept(&db, "web-PS-00000a").is_some());
}

#[test]
fn found_sessions_expire_in_turns() {
    let db = store();
    let many: Vec<_> = (0..60).map(|n| session(&format!("web-PS-0000{n:02}"), 40)).collect();
    find(&db, 100, &many);
    find(&db, 650, &many[..5]);
    assert_eq!(forget_all(&db, &Dropped::Expired, 699), 1);
    assert!(kept(&db, "web-PS-000059").is_some());
    assert_eq!(forget_all(&db, &Dropped::Expired, 701), 3);
    let left: i64 = db.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 5);
    assert_eq!(forget_all(&db, &Dropped::Expired, 0), 1, "the clock was set back");
    assert!(kept(&db, "web-PS-000000").is_none());
}

#[test]
fn what_a_complete_answer_lacks_is_dropped() {
    let db = store();
    find(&db, 100, &[session("web-PS-00000a", 40), session("web-PS-00000b", 40), session("api-PS-00000c", 40)]);
    pull(&db, &[session("web-PS-00000d", 40)]);
    find(&db, 110, &[session("web-PS-00000a", 40)]);
    let question = Question::Project { project: Project::parse("web").unwrap(), closed_since: None };
    forget_all(&db, &Dropped::Unmet(question), 110);
    let is_kept = |id| kept(&db, id).is_some();
    assert!(is_kept("web-PS-00000a") && is_kept("api-PS-00000c") && is_kept("web-PS-00000d"));
    assert!(!is_kept("web-PS-00000b"));
    forget_all(&db, &Dropped::Unmet(Question::Id("api-PS-00000c".into())), 120);
    assert!(!is_kept("api-PS-00000c"));
    forget_all(&db, &Dropped::Unmet(Question::Id("web-PS-00000d".into())), 120);
    assert!(is_kept("web-PS-00000d"), "it is read ahead");
}

#[test]
fn another_scope_has_everything_read_again() {
    let db = store();
    let since = || mirror_cursor::since(&db, at(61)).unwrap();
    pull(&db, &[]);
    mirror_cursor::set_scope(&db, "all").unwrap();
    assert_eq!(since(), 9, "a store of before there were scopes has everything");
    mirror_cursor::set_scope(&db, "none").unwrap();
    assert_eq!(since(), 0);
    pull(&db, &[]);
    mirror_cursor::set_scope(&db, "none").unwrap();
    assert_eq!(since(), 9);
    mirror_cursor::set_scope(&db, "all").unwrap();
    assert_eq!(since(), 0);
}

#[test]
fn history_is_imported_also_for_a_session_that_is_read_ahead() {
    let db = store();
    assert_eq!(mirror_cursor::history_reading(&db).unwrap(), HistoryReading::Ahead, "a store of before has it");
    mirror_cursor::set_history_reading(&db, HistoryReading::OnDemand).unwrap();
    assert_eq!(mirror_cursor::history_reading(&db).unwrap(), HistoryReading::OnDemand);
    let ahead = session("odin-PS-00000a", 40);
    pull(&db, std::slice::from_ref(&ahead));
    let record = HistoryRecord {
        record_id: Uuid::from_u128(1),
        instance_id: ahead.instance_id.clone(),
        kind: RecordKind::Event,
        record_type: "test_passed".into(),
        at: at(50),
        body: serde_json::Map::new(),
    };
    let found = ChangePage { history: vec![record], ..page(&[ahead]) };
    for turn in Turn::of_found(found) {
        import(&op(&db, 100), &turn).unwrap();
    }
    let records: i64 = db.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).unwrap();
    assert_eq!((records, kept(&db, "odin-PS-00000a").unwrap().read_at), (1, None));
}

#[test]
fn found_session_is_dropped_by_a_reading_of_everything_that_does_not_have_it() {
    let db = store();
    mirror_cursor::read_everything(&db).unwrap();
    find(&db, 100, &[session("web-PS-00000a", 40)]);
    let seen: i64 = db.query_row("SELECT count(*) FROM mirror_seen", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 0);
}
