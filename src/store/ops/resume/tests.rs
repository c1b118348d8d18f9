//! Finding sessions by hints against a naive model, the indexes that do it, and going on from what was found.

use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::domain::agent::AgentKind;
use crate::domain::work::WorkSnapshot;
use crate::domain::{InstanceType, MachineName, Registration, Session, SessionWork, Timestamp};
use crate::store::testing::with_schema;
use crate::store::{Caller, ColumnChanges, IdSource, OpContext};

const NOW: Timestamp = Timestamp::from_micros(1_769_774_400_000_000);
const STALE_AFTER: Duration = Duration::from_secs(120);
const ME: u32 = 1000;

fn database() -> Connection {
    with_schema(Connection::open_in_memory().unwrap())
}

/// A session as the model sees it.
#[derive(Clone, Debug)]
struct Row {
    project: &'static str,
    hash: String,
    epic: Option<&'static str>,
    status: Status,
    /// Negative: in the future.
    silent_for: i64,
    machine: &'static str,
    mirrored: bool,
    owner: u32,
}

impl Row {
    fn id(&self) -> String {
        format!("{}-PS-{}", self.project, self.hash)
    }

    fn heartbeat(&self) -> Timestamp {
        Timestamp::from_micros(NOW.micros() - self.silent_for * 1_000_000)
    }

    fn is_active(&self) -> bool {
        self.status == Status::Active && self.silent_for.abs() < 120
    }

    fn insert(&self, db: &Connection) {
        let what = Registration {
            project: crate::domain::Project::parse(self.project).unwrap(),
            instance_type: InstanceType::Ps,
            host_machine: MachineName::parse(self.machine).unwrap(),
            context_percent: 77,
            current_epic: self.epic.map(str::to_owned),
            claude_session_uuid: Some("old".into()),
            claude_session_path: Some("/old.jsonl".into()),
            resumed_from: None,
            working_dir: Some("/srv/old".into()),
        };
        let session = Session::register(InstanceId::parse(&self.id()).unwrap(), what, self.heartbeat());
        let closed_at = (self.status == Status::Closed).then_some(NOW);
        let record = Record {
            work: None,
            session: Session { status: self.status, closed_at, ..session },
            owner_uid: self.owner,
            process: None,
            version: 1,
            synced_version: 1,
            columns: ColumnChanges::begun(NOW),
            unsynced_since: None,
            checkpoint_due: false,
            conflicts: Vec::new(),
            mirrored: self.mirrored,
            machine_seen: None,
            vouched_by: None,
            alive_as_of: None,
            read_at: None,
            former_id: None,
        };
        sessions::insert(db, &record).unwrap();
        if self.mirrored {
            db.execute("UPDATE sessions SET mirror_generation = 1 WHERE instance_id = ?1", [self.id()]).unwrap();
        }
    }
}

/// What comes of a hint, in few words.
#[derive(Debug, PartialEq)]
enum Outcome {
    TakenUp(String),
    New(String),
    Several(Vec<String>),
    Active(String),
    Closed(String),
    Beyond(usize),
    None,
}

fn model(rows: &[Row], hint: Option<&str>, choice: Option<usize>, closed: bool) -> Outcome {
    let lower = hint.map(str::to_lowercase).unwrap_or_default();
    let kinds: [&dyn Fn(&Row) -> bool; 4] = [
        &|row| row.id().to_lowercase() == lower,
        &|row| row.epic.is_some() && row.epic == hint,
        &|row| row.project == lower,
        &|row| (4..=6).contains(&lower.len()) && row.hash.contains(&lower),
    ];
    let going_on =
        |row: &Row| match row.machine == "here" && !row.mirrored && row.owner == ME && row.status != Status::Closed {
            true => Outcome::TakenUp(row.id()),
            false => Outcome::New(row.id()),
        };
    let any: [&dyn Fn(&Row) -> bool; 1] = [&|_| true];
    let kinds = if hint.is_some() { &kinds[..] } else { &any };
    for (number, fits) in kinds.iter().enumerate() {
        let mut named: Vec<&Row> = rows.iter().filter(|row| fits(row)).collect();
        if let (Some(_), 0, [row]) = (hint, number, &named[..])
            && row.status == Status::Closed
        {
            return if closed { going_on(row) } else { Outcome::Closed(row.id()) };
        }
        named.retain(|row| row.status != Status::Closed);
        named.sort_by_key(|row| (row.silent_for, row.id()));
        let by_name = hint.is_some() && matches!(number, 0 | 3);
        let (own, others): (Vec<&Row>, Vec<&Row>) =
            named.into_iter().partition(|row| by_name || row.mirrored || row.owner == ME);
        let of_others = own.is_empty();
        let named = if of_others { others } else { own };
        let (active, mut rest): (Vec<&Row>, Vec<&Row>) = named.into_iter().partition(|row| row.is_active());
        rest.truncate(if hint.is_some() || of_others { 10 } else { 1 });
        match (&rest[..], choice) {
            ([], _) if active.is_empty() => {}
            ([], _) => return Outcome::Active(active[0].id()),
            (_, Some(n)) => return rest.get(n - 1).map_or(Outcome::Beyond(rest.len()), |row| going_on(row)),
            ([one], None) if !of_others => return going_on(one),
            (several, None) => return Outcome::Several(several.iter().map(|row| row.id()).collect()),
        }
    }
    Outcome::None
}

fn heir() -> NewOwner {
    let successor = Successor {
        machine: MachineName::parse("here").unwrap(),
        uid: ME,
        claude_session_uuid: Some("new".into()),
        claude_session_path: None,
        working_dir: None,
    };
    NewOwner { successor, process: None }
}

/// An operation of the caller at this time.
fn op(db: &Connection, now: Timestamp) -> Op<'_> {
    let caller = Caller { uid: ME };
    let ids = IdSource::Seeded(u64::MAX);
    Op::new(db, OpContext { now, caller, stale_after: STALE_AFTER, ids })
}

fn try_resume(db: &Connection, hint: Option<&str>, choice: Option<usize>, closed: bool) -> Resumption {
    let wanted = ResumeTarget { meanings: Hint::interpretations(hint).unwrap(), choice, closed };
    resume(&op(db, NOW), &wanted, heir()).unwrap()
}

fn id(record: &Record) -> String {
    record.session.instance_id.to_string()
}

fn outcome(resumption: &Resumption) -> Outcome {
    match resumption {
        Resumption::Done(resumed) if resumed.is_taken_up() => Outcome::TakenUp(id(&resumed.from)),
        Resumption::Done(resumed) => Outcome::New(id(&resumed.from)),
        Resumption::Several(records) => Outcome::Several(records.iter().map(id).collect()),
        Resumption::Active(record) => Outcome::Active(id(record)),
        Resumption::Closed(record) => Outcome::Closed(id(record)),
        Resumption::Beyond(of) => Outcome::Beyond(*of),
        Resumption::None => Outcome::None,
    }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let status = prop_oneof![2 => Just(Status::Active), 4 => Just(Status::Stale), 2 => Just(Status::Closed)];
    // Few letters, so that parts of hashes, epics and projects meet.
    let row = (
        prop::sample::select(vec!["aaaa", "abab", "odin", "a"]),
        "[ab]{6}",
        prop::option::of(prop::sample::select(vec!["aaaa", "baba", "003", "a"])),
        status,
        prop_oneof![-400..400_i64, 110..130_i64],
        prop::sample::select(vec![("here", false), ("here", true), ("there", false), ("there", true)]),
        prop::sample::select(vec![ME, 7]),
    );
    let row = row.prop_map(|(project, hash, epic, status, silent_for, (machine, mirrored), owner)| Row {
        project,
        hash,
        epic,
        status,
        silent_for,
        machine,
        mirrored,
        owner,
    });
    prop::collection::vec(row, 0..40).prop_map(|mut rows| {
        rows.sort_by_key(Row::id);
        rows.dedup_by_key(|row| row.id());
        rows
    })
}

fn hints() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        1 => Just(None),
        4 => "(aaaa|abab|odin|a)-(PS|ps|Ps)-[abAB]{6}".prop_map(Some),
        4 => "[abAB]{3,7}".prop_map(Some),
        2 => prop::sample::select(vec!["aaaa", "ABAB", "odin", "a", "003", "A", "nobody"]).prop_map(|h| Some(h.to_owned())),
    ]
}

proptest! {
    #[test]
    fn hints_against_a_naive_model(
        rows in rows(),
        hint in hints(),
        named in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        choice in prop::option::weighted(0.3, 1..12_usize),
        closed: bool,
    ) {
        let db = database();
        rows.iter().for_each(|row| row.insert(&db));
        // Some hints name a session that there is.
        let hint = match named {
            Some(which) if !rows.is_empty() => Some(which.get(&rows).id().to_uppercase()),
            _ => hint,
        };
        let resumption = try_resume(&db, hint.as_deref(), choice, closed);
        prop_assert_eq!(outcome(&resumption), model(&rows, hint.as_deref(), choice, closed));
        if let Resumption::Done(resumed) = &resumption {
            let kept = sessions::get(&db, &id(&resumed.session)).unwrap().unwrap();
            prop_assert_eq!(&kept, &resumed.session, "what is answered is what is kept");
            prop_assert_eq!(kept.session.status_at(NOW, STALE_AFTER), Status::Active);
            // Of two who name it only one gets it.
            let again = try_resume(&db, Some(&id(&resumed.session)), None, true);
            prop_assert_eq!(outcome(&again), Outcome::Active(id(&resumed.session)));
            if !resumed.is_taken_up() {
                prop_assert_eq!(&sessions::get(&db, &id(&resumed.from)).unwrap().unwrap(), &resumed.from, "it stays as it was");
            }
        }
    }
}

fn row(hash: &str, silent_for: i64) -> Row {
    Row {
        project: "odin",
        hash: hash.into(),
        epic: Some("003"),
        status: Status::Stale,
        silent_for,
        machine: "here",
        mirrored: false,
        owner: ME,
    }
}

#[test]
fn adopting_a_session_offers_only_changed_columns() {
    let db = database();
    row("8f4a2b", 500).insert(&db);
    let Resumption::Done(resumed) = try_resume(&db, Some("8F4A"), None, false) else { panic!("it can be resumed") };
    let Resumed { session, from, found_by } = *resumed;
    assert_eq!((found_by, session.version), (Hint::Hash("8f4a".into()), from.version + 1));
    assert_eq!(session.unsynced_since, Some(NOW));
    let expected = Session {
        status: Status::Active,
        last_heartbeat: NOW,
        claude_session_uuid: Some("new".into()),
        ..from.session
    };
    assert_eq!(session.session, expected, "context, epic, folder and transcript stay");
}

#[test]
fn a_headless_session_elsewhere_is_no_candidate_of_a_bare_resume() {
    let db = database();
    let mirrored = |hash: &str, silent_for| Row { mirrored: true, machine: "there", ..row(hash, silent_for) };
    let rows = [mirrored("8f4a2b", 500), mirrored("8f4a2c", 900)];
    for row in &rows {
        row.insert(&db);
    }
    let headless = SessionWork {
        instance_id: InstanceId::parse(&rows[0].id()).unwrap(),
        activity: None,
        activity_ended: false,
        kind: Some(AgentKind::Headless),
        agent: None,
        snapshot: WorkSnapshot::default(),
        recorded_at: NOW,
        changes: Vec::new(),
    };
    crate::store::tables::session_work::upsert_mirrored(&db, &headless).unwrap();
    let Resumption::Done(resumed) = try_resume(&db, None, None, false) else { panic!("one can be resumed") };
    assert_eq!(resumed.from.session.instance_id.as_str(), rows[1].id());
    let Resumption::Done(resumed) = try_resume(&db, Some("8f4a2b"), None, false) else { panic!("by its name it can") };
    assert_eq!(resumed.from.session.instance_id.as_str(), rows[0].id());
}

#[test]
fn a_new_session_inherits_what_holds_here_too() {
    let db = database();
    Row { mirrored: true, machine: "there", ..row("8f4a2b", 500) }.insert(&db);
    let Resumption::Done(resumed) = try_resume(&db, Some("003"), None, false) else { panic!("it can be resumed") };
    let (from, new) = (resumed.from.session, resumed.session.session);
    assert_eq!(resumed.session.owner_uid, ME);
    assert_ne!(new.instance_id, from.instance_id);
    let expected = Session {
        instance_id: new.instance_id.clone(),
        status: Status::Active,
        context_percent: 0,
        last_heartbeat: NOW,
        created_at: NOW,
        host_machine: MachineName::parse("here").unwrap(),
        claude_session_uuid: Some("new".into()),
        claude_session_path: None,
        resumed_from: Some(from.instance_id.clone()),
        working_dir: None,
        ..from
    };
    assert_eq!(new, expected);
}

/// How SQLite goes about a statement.
fn plan(db: &Connection, sql: &str) -> Vec<String> {
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let parameters = vec![rusqlite::types::Value::Null; statement.parameter_count()];
    let steps = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3)).unwrap();
    steps
        .map(Result::unwrap)
        .filter(|step: &String| [" s ", " sessions ", " records "].iter().any(|table| step.contains(table)))
        .collect()
}

#[test]
fn no_search_scans_the_whole_table() {
    let db = database();
    let of = |words: &str, kind: &str| {
        let meanings = Hint::interpretations(Some(words)).unwrap();
        meanings.into_iter().find(|meaning| meaning.as_str() == kind).unwrap()
    };
    let ends = ["SEARCH s USING INDEX sessions_hash_"; 6];
    let running = "SEARCH s USING INDEX sessions_running (project=?)";
    for (meaning, steps) in [
        (of("8f4a", "hash"), &ends[..]),
        (of("8f4a2", "hash"), &ends[..4]),
        (of("8f4a2b", "hash"), &ends[..2]),
        (
            of("odin", "project"),
            &[
                "SEARCH s USING INDEX sessions_resting_project",
                "SEARCH s USING INDEX sessions_resting_project",
                running,
                running,
            ],
        ),
        (
            of("003", "epic"),
            &[
                "SEARCH s USING INDEX sessions_resting_epic",
                "SEARCH s USING INDEX sessions_resting_epic",
                "SCAN s USING INDEX sessions_running",
                "SCAN s USING INDEX sessions_running",
            ],
        ),
        (
            Hint::Newest,
            &[
                "SCAN s USING INDEX sessions_resting",
                "SCAN s USING INDEX sessions_resting",
                "SCAN s USING INDEX sessions_running",
                "SCAN s USING INDEX sessions_running",
            ],
        ),
    ] {
        let by_name = matches!(meaning, Hint::Hash(_));
        for owners in if by_name { vec![Owners::Any] } else { vec![Owners::Caller, Owners::Others] } {
            let found: Vec<String> = statements(&meaning, owners).iter().flat_map(|sql| plan(&db, sql)).collect();
            assert_eq!(found.len(), steps.len(), "{meaning:?}: {found:#?}");
            for (found, step) in found.iter().zip(steps) {
                assert!(found.starts_with(step), "{meaning:?}: {found} is not {step}");
            }
        }
    }
    let prefix = plan(&db, crate::store::ops::lookup::BEGINNING_SO);
    assert!(
        prefix[0].starts_with("SEARCH sessions USING COVERING INDEX sessions_settled (instance_id>?"),
        "{prefix:#?}"
    );
    assert_eq!(prefix[1], "SEARCH sessions USING INDEX sessions_running (project>? AND project<?)");
    assert_eq!(
        plan(&db, crate::store::ops::lookup::COUNTS),
        ["SCAN sessions USING COVERING INDEX sessions_ended", "SCAN sessions USING INDEX sessions_running"]
    );
    let get = plan(&db, &sessions::GET);
    assert!(!get.iter().any(|step| step.contains("TEMP B-TREE")), "{get:#?}");
    let recalled = plan(&db, crate::store::ops::context_query::NEWEST);
    assert_eq!(recalled, ["SEARCH records USING INDEX records_of_session (instance_id=? AND kind=?)"]);
}

/// How many pages go into the log for each heartbeat of one of many sessions.
fn pages_of_a_heartbeat(db: &Connection, log: &std::path::Path, after: i64) -> u64 {
    let length = || std::fs::metadata(log).unwrap().len();
    let before = length();
    for second in after + 1..=after + 10 {
        let at = Timestamp::from_micros(NOW.micros() + second * 1_000_000);
        lifecycle::heartbeat(&op(db, at), "odin-PS-aaaa05", &Heartbeat::default()).unwrap();
    }
    let frame = 4096 + 24;
    (length() - before) / frame / 10
}

#[test]
fn a_heartbeat_touches_no_index_by_which_sessions_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("db");
    let db = with_schema(Connection::open(&file).unwrap());
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    // A log that begins again would not become longer.
    db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    for number in 0..100 {
        Row { status: Status::Active, ..row(&format!("aaaa{number:02}"), 0) }.insert(&db);
    }
    let log = dir.path().join("db-wal");
    let with = pages_of_a_heartbeat(&db, &log, 0);
    let ours: Vec<String> = db
        .prepare(
            "SELECT name FROM sqlite_master WHERE name LIKE 'sessions_r%' OR name LIKE 'sessions_hash%' \
             OR name IN ('sessions_settled', 'sessions_ended')",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(ours.len(), 9, "{ours:?}");
    for index in ours {
        db.execute(&format!("DROP INDEX {index}"), []).unwrap();
    }
    assert_eq!(with, pages_of_a_heartbeat(&db, &log, 10));
    assert_eq!(with, 1, "nor, once the session waits for central, anything but its own row");
}
