//! The mirror: what is imported, merged, renamed and deleted.

use super::*;
use crate::domain::RecordKind;
use crate::domain::mirror::{PullPart, PullPosition};
use crate::domain::refresh::RefreshRule;
use crate::domain::{
    ColumnTimes, Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration, SharedColumn, Timestamp,
};
use crate::store::ops::lifecycle;
use crate::store::ops::lifecycle::register;
use crate::store::sync_state::refresh;
use crate::store::{BatchResult, Caller, IdSource, OpContext, SessionOutcome, SessionResult};

const STALE_AFTER: Duration = Duration::from_secs(120);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_769_774_400_000_000 + seconds * 1_000_000)
}

fn store() -> Connection {
    crate::store::testing::with_schema(Connection::open_in_memory().unwrap())
}

fn odin(machine: &str) -> Registration {
    Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::parse(machine).unwrap(),
        context_percent: 3,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}

fn odin4(id: &str, created: i64) -> Session {
    Session::register(InstanceId::parse(id).unwrap(), odin("odin4"), at(created))
}

/// An operation of the user who registers the sessions.
fn op(db: &Connection, seed: u64, second: i64) -> Op<'_> {
    let context =
        OpContext { now: at(second), caller: Caller { uid: 1 }, stale_after: STALE_AFTER, ids: IdSource::Seeded(seed) };
    Op::new(db, context)
}

fn own(db: &Connection, draw: u64, created: i64) -> Session {
    register(&op(db, draw, created), odin("odin3"), None).unwrap().session
}

fn all(sessions: Vec<Session>) -> ChangePage {
    let sessions = sessions.into_iter().map(TimedSession::untimed).collect();
    ChangePage { sessions, rest: Continuation::Complete { next_since: 9 }, ..ChangePage::default() }
}

fn read(db: &Connection, since: u64, changes: &ChangePage) -> Vec<Renamed> {
    import_page(db, &PullQuery::since(since), changes, 60).renamed
}

fn import_page(db: &Connection, reading: &PullQuery, changes: &ChangePage, seconds: i64) -> PageResult {
    let mut imported = PageResult::default();
    for turn in Turn::of(reading, changes.clone()) {
        let mut place = turn.finishes_whole().then_some(i64::MIN);
        while let Some(from) = place {
            place = drop_unseen(db, from).unwrap();
        }
        imported.add(import(&op(db, 101, seconds), &turn).unwrap());
    }
    imported
}

fn kept(db: &Connection, id: &str) -> Option<Record> {
    sessions::exactly(db, id).unwrap()
}

#[test]
fn a_whole_reading_replaces_the_mirror_and_leaves_this_hosts_sessions() {
    let db = store();
    let here = own(&db, 7, 0);
    read(&db, 0, &all(vec![odin4("odin-PS-00000a", 0), odin4("odin-PS-00000b", 0)]));
    assert_eq!((mirror_cursor::since(&db, at(61)).unwrap(), mirror_cursor::as_of(&db).unwrap()), (9, Some(at(60))));

    let page = PullQuery::since(0);
    let position = PullPosition::start(PullPart::Sessions, 1, 12);
    let first = ChangePage { rest: Continuation::More(position.clone()), ..all(vec![odin4("odin-PS-00000b", 0)]) };
    import_page(&db, &page, &first, 70);
    assert!(kept(&db, "odin-PS-00000a").is_some(), "in the middle nothing is gone");
    let second = PullQuery { after: Some(position), ..page };
    import_page(&db, &second, &all(vec![]), 70);
    assert!(kept(&db, "odin-PS-00000a").is_none() && kept(&db, "odin-PS-00000b").is_some());
    assert!(!kept(&db, here.instance_id.as_str()).unwrap().mirrored);
}

#[test]
fn an_outdated_mirror_or_one_of_another_central_is_read_again() {
    let db = store();
    mirror_cursor::set_timeline(&db, "a").unwrap();
    read(&db, 0, &all(vec![]));
    mirror_cursor::set_timeline(&db, "a").unwrap();
    assert_eq!(mirror_cursor::since(&db, at(61)).unwrap(), 9);
    assert_eq!(mirror_cursor::since(&db, at(30 * 86_400)).unwrap(), 0);
    mirror_cursor::set_timeline(&db, "b").unwrap();
    assert_eq!(mirror_cursor::since(&db, at(61)).unwrap(), 0);
}

#[test]
fn another_hosts_session_of_the_same_id_renames_the_own_one() {
    let db = store();
    let here = own(&db, 7, 0);
    let theirs = odin4(here.instance_id.as_str(), 5);
    let renamed = read(&db, 1, &all(vec![theirs.clone()]));
    assert_eq!(renamed.len(), 1);
    assert_eq!(kept(&db, theirs.instance_id.as_str()).unwrap().session, theirs);
    let mine = sessions::get(&db, here.instance_id.as_str()).unwrap().unwrap();
    assert_eq!((mine.session.instance_id, mine.session.created_at), (renamed[0].to.clone(), here.created_at));
}

fn timed(session: &Session, changed: &[(SharedColumn, i64)]) -> ChangePage {
    let mut times = ColumnTimes::all(at(0));
    changed.iter().for_each(|(column, second)| times.set(*column, at(*second)));
    ChangePage { sessions: vec![TimedSession { times, ..TimedSession::untimed(session.clone()) }], ..all(vec![]) }
}

fn say(db: &Connection, id: &str, second: i64, context_percent: Option<u8>, epic: Option<&str>) -> Record {
    let beat =
        Heartbeat { context_percent, current_epic: epic.map(|epic| Some(epic.to_owned())), ..Heartbeat::default() };
    lifecycle::heartbeat(&op(db, 0, second), id, &beat).unwrap().0
}

fn acknowledge(db: &Connection, record: &Record) {
    let how = SessionOutcome::Taken;
    let of = SessionResult {
        heartbeat: Some(record.session.last_heartbeat),
        instance_id: record.session.instance_id.clone(),
        version: record.version,
        work_version: None,
        how,
    };
    batch_result::acknowledge(&op(db, 0, 60), &BatchResult { sessions: vec![of], ..Default::default() }).unwrap();
}

#[test]
fn changes_of_others_are_adopted_while_a_heartbeat_waits() {
    let db = store();
    let here = own(&db, 7, 0);
    let id = here.instance_id.as_str();
    acknowledge(&db, &kept(&db, id).unwrap());
    say(&db, id, 50, None, None);
    let theirs = Session {
        current_epic: Some("E2".into()),
        claude_session_uuid: Some("c-9".into()),
        claude_session_path: Some("/c-9".into()),
        ..here.clone()
    };
    let changed =
        [(SharedColumn::CurrentEpic, 40), (SharedColumn::ClaudeSessionUuid, 40), (SharedColumn::ClaudeSessionPath, 40)];
    read(&db, 1, &timed(&theirs, &changed));
    let adopted = kept(&db, id).unwrap();
    assert_eq!(adopted.session, Session { last_heartbeat: at(50), ..theirs });
    assert_eq!(adopted.offered_columns(), ColumnTimes::default(), "nothing of it is offered");
    assert_eq!(adopted.unsynced_since, None);
    assert_eq!(refresh::due(&db, &RefreshRule::EVERYTHING, at(60)).unwrap().len(), 1, "the heartbeat still waits");
}

#[test]
fn the_later_of_two_changes_of_a_column_is_kept() {
    let db = store();
    let here = own(&db, 7, 0);
    let id = here.instance_id.as_str();
    acknowledge(&db, &kept(&db, id).unwrap());
    say(&db, id, 50, Some(9), Some("mine"));
    let theirs = Session { context_percent: 77, current_epic: Some("theirs".into()), ..here.clone() };
    read(&db, 1, &timed(&theirs, &[(SharedColumn::ContextPercent, 55), (SharedColumn::CurrentEpic, 45)]));
    let merged = kept(&db, id).unwrap();
    assert_eq!((merged.session.context_percent, merged.session.current_epic.as_deref()), (77, Some("mine")));
    let offered: Vec<_> = merged.offered_columns().iter().map(|(column, _)| column).collect();
    assert_eq!(offered, [SharedColumn::CurrentEpic]);
}

#[test]
fn a_whole_reading_replaces_columns_by_later_ones_only_and_offers_what_central_lost() {
    let db = store();
    let here = own(&db, 7, 0);
    let id = here.instance_id.as_str();
    let said = say(&db, id, 30, None, Some("mine"));
    acknowledge(&db, &said);
    let past = Session { context_percent: 44, current_epic: Some("past".into()), ..here.clone() };
    read(&db, 0, &timed(&past, &[(SharedColumn::CurrentEpic, 20), (SharedColumn::ContextPercent, 40)]));
    let merged = kept(&db, id).unwrap();
    assert_eq!((merged.session.context_percent, merged.session.current_epic.as_deref()), (44, Some("mine")));
    let times = merged.offered_columns();
    assert_eq!(
        (times.get(SharedColumn::CurrentEpic), times.get(SharedColumn::ContextPercent)),
        (Some(at(30)), Some(at(40)))
    );
}

#[test]
fn an_acknowledgement_leaves_what_was_changed_during_the_push() {
    let db = store();
    let here = own(&db, 7, 0);
    let id = here.instance_id.as_str();
    let pushed = say(&db, id, 10, None, Some("pushed"));
    let during = say(&db, id, 11, Some(5), None);
    let last = say(&db, id, 12, None, None);
    acknowledge(&db, &pushed);
    let record = kept(&db, id).unwrap();
    let offered: Vec<_> = record.offered_columns().iter().collect();
    assert_eq!(offered, [(SharedColumn::ContextPercent, at(11))]);
    acknowledge(&db, &during);
    assert_eq!(kept(&db, id).unwrap().offered_columns(), ColumnTimes::default());
    assert_eq!(kept(&db, id).unwrap().unsynced_since, None, "a heartbeat alone is refreshed when it is due");
    assert_eq!(refresh::due(&db, &RefreshRule::EVERYTHING, at(60)).unwrap().len(), 1);
    acknowledge(&db, &last);
    assert_eq!(refresh::due(&db, &RefreshRule::EVERYTHING, at(60)).unwrap().len(), 0);
}

#[test]
fn a_later_heartbeat_of_others_is_adopted_and_none_moves_back() {
    let db = store();
    let here = own(&db, 7, 0);
    let id = here.instance_id.as_str();
    let heartbeat = |second| timed(&Session { last_heartbeat: at(second), ..here.clone() }, &[]);
    read(&db, 1, &heartbeat(50));
    assert_eq!(kept(&db, id).unwrap().session.last_heartbeat, at(50), "even while something waits");
    read(&db, 1, &heartbeat(20));
    assert_eq!(kept(&db, id).unwrap().session.last_heartbeat, at(50));
    read(&db, 0, &heartbeat(55));
    assert_eq!(kept(&db, id).unwrap().session.last_heartbeat, at(50), "a whole reading brings the past");
}

#[test]
fn a_store_of_an_older_version_offers_all_columns_of_pending_sessions_only() {
    let db = Connection::open_in_memory().unwrap();
    let (before, after) = crate::store::recovery::open::MIGRATIONS.split_at(8);
    before.iter().for_each(|migration| db.execute_batch(migration).unwrap());
    let insert = "INSERT INTO sessions (instance_id, project, instance_type, status, context_percent, last_heartbeat, \
         created_at, host_machine, owner_uid, version, unsynced_since) \
         VALUES (?1, 'odin', 'PS', 'active', 3, ?2, 0, 'odin3', 1, 4, ?3)";
    db.execute(insert, params!["odin-PS-00000a", at(5).micros(), Some(1)]).unwrap();
    db.execute(insert, params!["odin-PS-00000b", at(5).micros(), None::<i64>]).unwrap();
    after.iter().for_each(|migration| db.execute_batch(migration).unwrap());
    assert_eq!(kept(&db, "odin-PS-00000a").unwrap().offered_columns(), ColumnTimes::all(at(5)));
    assert_eq!(kept(&db, "odin-PS-00000b").unwrap().offered_columns(), ColumnTimes::default());
    // The next heartbeat writes down since when the columns are as they are, which it does not change.
    say(&db, "odin-PS-00000a", 9, Some(8), None);
    let offered = kept(&db, "odin-PS-00000a").unwrap().offered_columns();
    assert_eq!(
        (offered.get(SharedColumn::CurrentEpic), offered.get(SharedColumn::ContextPercent)),
        (Some(at(5)), Some(at(9)))
    );
}

#[test]
fn the_mirror_keeps_as_much_history_as_a_context_shows() {
    let db = store();
    read(&db, 1, &all(vec![odin4("odin-PS-00000a", 0)]));
    let record = |n: u128, kind, id: &str| HistoryRecord {
        record_id: uuid::Uuid::from_u128(n),
        instance_id: InstanceId::parse(id).unwrap(),
        kind,
        record_type: "error".into(),
        at: at(i64::try_from(n).unwrap()),
        body: serde_json::Map::new(),
    };
    let mut history: Vec<_> = (0..60).map(|n| record(n, RecordKind::Event, "odin-PS-00000a")).collect();
    history.extend((60..63).map(|n| record(n, RecordKind::Checkpoint, "odin-PS-00000a")));
    history.push(record(99, RecordKind::Event, "odin-PS-0nobod"));
    let changes = ChangePage { history, ..all(vec![]) };
    read(&db, 1, &changes);
    read(&db, 1, &changes);
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM records WHERE kind = 'event'"), 50);
    assert_eq!(count("SELECT at FROM records WHERE kind = 'event' ORDER BY at LIMIT 1"), at(10).micros());
    assert_eq!(count("SELECT count(*) FROM records WHERE kind = 'checkpoint'"), 1);
}

#[test]
fn rows_that_did_not_change_are_not_written() {
    let db = store();
    let record = |n: u128, seconds| HistoryRecord {
        record_id: uuid::Uuid::from_u128(n),
        instance_id: InstanceId::parse("odin-PS-00000a").unwrap(),
        kind: RecordKind::Event,
        record_type: "error".into(),
        at: at(seconds),
        body: serde_json::Map::new(),
    };
    // The newest of them bears the oldest time, as another client may write it.
    let history = (0..50).map(|n| record(n, 100 + n as i64)).chain([record(99, 1)]).collect();
    let changes = ChangePage { history, ..all(vec![odin4("odin-PS-00000a", 0), odin4("odin-PS-00000b", 0)]) };
    assert!(import_page(&db, &PullQuery::since(1), &changes, 60).written > 0);
    assert_eq!(import_page(&db, &PullQuery::since(1), &changes, 61).written, 0, "no row, no position, no time");
    assert_eq!(import_page(&db, &PullQuery::since(1), &changes, 120).written, 1, "the time, once a minute");
}

#[test]
fn a_whole_reading_writes_no_session_that_did_not_change() {
    let db = store();
    let watched = crate::store::ChangeFeed::new();
    watched.follow(&db).unwrap();
    let many: Vec<_> = (0..TURN + 10).map(|n| odin4(&format!("odin-PS-{n:06}"), 0)).collect();
    import_page(&db, &PullQuery::since(0), &all(many.clone()), 60);
    watched.committed();
    assert_eq!(*watched.newest().borrow(), many.len() as u64);
    import_page(&db, &PullQuery::since(0), &all(many[..TURN].to_vec()), 70);
    watched.committed();
    assert_eq!(*watched.newest().borrow(), many.len() as u64, "nothing to announce");
    assert!(kept(&db, "odin-PS-000255").is_none() && kept(&db, "odin-PS-000249").is_some());
}
