//! Users who share a store: what each may have in it.

use serde_json::Map;

use super::*;
use crate::domain::agent::{AgentSignal, StartSource, ValidReport};
use crate::domain::mirror::{ChangePage as Page, Continuation, PullQuery};
use crate::domain::{HistoryRecord, InstanceType, Project, Session, TimedSession};

pub(super) const ALICE: Caller = OWNER;
pub(super) const MALLORY: Caller = Caller { uid: 1001 };
pub(super) const DAEMON: Caller = Caller { uid: 900 };
pub(super) const ROOT: Caller = Caller { uid: 0 };

pub(super) const SHARE: u64 = 100 << 10;
pub(super) const LIMITS: UserLimits = UserLimits { own_uid: DAEMON.uid, bytes: SHARE, open_sessions: 8 };

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) writer: WriterThread,
    pub(super) dir: tempfile::TempDir,
    pub(super) number: std::cell::Cell<u64>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = open(dir.path());
        Self { store: store.limiting_users(LIMITS), writer, dir, number: std::cell::Cell::new(1) }
    }

    pub(super) fn next(&self) -> u64 {
        self.number.replace(self.number.get() + 1)
    }

    /// The same numbers in each run make the same ids, and so the same sizes.
    pub(super) fn by(&self, caller: Caller, now: Timestamp) -> OpContext {
        seeded(self.number.replace(self.number.get() + 8), caller, now)
    }

    pub(super) async fn register(&self, caller: Caller) -> Result<Record, StoreError> {
        self.store.register(NewSession { what: odin(), agent: None, process: None }, self.by(caller, at(0))).await
    }

    pub(super) async fn append(
        &self,
        id: &InstanceId,
        bytes: usize,
        caller: Caller,
    ) -> Result<StoredRecord, StoreError> {
        let what = text(bytes);
        self.store
            .append(
                Append { id: id.to_string(), what, record_id: Uuid::from_u128(self.next().into()) },
                by(caller, at(1)),
            )
            .await
    }

    /// Appends until that is refused.
    pub(super) async fn fill(&self, id: &InstanceId, caller: Caller) -> StoreError {
        for _ in 0..1_000 {
            if let Err(error) = self.append(id, 5_000, caller).await {
                return error;
            }
        }
        panic!("nothing was refused");
    }

    pub(super) async fn report_agent(
        &self,
        received: ReceivedReport,
        caller: Caller,
    ) -> Result<ReportResult, StoreError> {
        self.store.report_agent(received, self.by(caller, at(2))).await
    }

    pub(super) async fn promise(&self, promised: &InstanceId, uuid: &str, caller: Caller) -> ReportResult {
        self.report_agent(received(START, uuid, Some(promised)), caller).await.unwrap()
    }

    pub(super) async fn import(&self, deferred: SpooledWrite, caller: Caller) -> Imported {
        let name = self.next().to_string();
        let import = Import { name, key: None, deferred, context: self.by(caller, at(3)) };
        self.store.import(vec![import]).await.unwrap().remove(0)
    }

    pub(super) async fn mirror(&self, session: Session) {
        let page = Page {
            sessions: vec![TimedSession::untimed(session.clone())],
            history: vec![HistoryRecord {
                record_id: Uuid::from_u128(u128::from(self.next()) << 64),
                instance_id: session.instance_id,
                kind: RecordKind::Event,
                record_type: "error".into(),
                at: at(1),
                body: Map::new(),
            }],
            rest: Continuation::Complete { next_since: 9 },
            ..Page::default()
        };
        self.store.import_page(PullQuery::since(1), page, self.by(DAEMON, at(4))).await.unwrap();
    }

    /// Central acknowledges all there is.
    pub(super) async fn reach_central(&self) {
        loop {
            let limit = BatchLimit { rows: 999, bytes: 1 << 30 };
            let Pending { sessions, records, .. } = self.store.pending(limit, Skip::default()).await.unwrap();
            if sessions.is_empty() && records.is_empty() {
                return;
            }
            let taken = |record: Record| SessionResult {
                heartbeat: None,
                instance_id: record.session.instance_id,
                version: record.version,
                work_version: None,
                how: SessionOutcome::Taken,
            };
            let settling = BatchResult {
                sessions: sessions.into_iter().map(taken).collect(),
                records: records.iter().map(|r| RecordResult { record_id: r.record_id, rejected: None }).collect(),
                ..BatchResult::default()
            };
            self.store.acknowledge(settling, by(OWNER, at(7))).await.unwrap();
        }
    }

    /// Bytes and open sessions of a user, as the triggers keep them and as they are counted from all rows.
    pub(super) async fn usage(&self, caller: Caller) -> [Option<(i64, i64)>; 2] {
        let read = |view: &'static str| {
            let of_user = format!("SELECT sum(bytes), sum(open_sessions) FROM {view} WHERE uid = {}", caller.uid);
            self.store.read(move |db| {
                Ok(db.query_row(&of_user, [], |row| {
                    Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?).filter(|usage| *usage != (0, 0)))
                })?)
            })
        };
        [read("user_usage").await.unwrap(), read("counted_usage").await.unwrap()]
    }

    pub(super) async fn check_usage(&self) {
        for caller in [ALICE, MALLORY, DAEMON, ROOT] {
            let [kept, counted] = self.usage(caller).await;
            assert_eq!(kept, counted, "{caller:?}");
        }
    }

    pub(super) async fn promised_by(&self, caller: Caller) -> i64 {
        let count = format!("SELECT count(*) FROM aliases WHERE promised_by = {}", caller.uid);
        self.store.read(move |db| Ok(db.query_row(&count, [], |row| row.get(0))?)).await.unwrap()
    }

    pub(super) fn end(self) {
        shut((self.store, self.writer));
    }
}

pub(super) fn odin() -> Registration {
    Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::guess(),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}

pub(super) fn id(number: u64) -> InstanceId {
    InstanceId::parse(&format!("odin-PS-{number:06x}")).unwrap()
}

pub(super) fn text(bytes: usize) -> NewRecord {
    let data = Map::from_iter([("text".to_owned(), "x".repeat(bytes).into())]);
    NewRecord::event("error", data, None).unwrap()
}

pub(super) const START: AgentSignal = AgentSignal::Start(StartSource::Startup);

pub(super) fn received(sign: AgentSignal, uuid: &str, promised: Option<&InstanceId>) -> ReceivedReport {
    let report = ValidReport {
        agent: None,
        sign,
        claude_session_uuid: Some(uuid.to_owned()),
        claude_session_path: None,
        working_dir: None,
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        kind: None,
        context_percent: None,
        promised_id: promised.cloned(),
        outer_id: None,
        at: at(1),
        activity: None,
        work: None,
        limits: None,
    };
    ReceivedReport { report, process: None, host_machine: MachineName::guess(), lives: |_| true, now: at(2) }
}

pub(super) fn drawn(id: &InstanceId) -> SpooledWrite {
    SpooledWrite::Register {
        id: id.clone(),
        session: Box::new(NewSession { what: odin(), agent: None, process: None }),
    }
}

pub(super) const FULL: StoreError = StoreError::UserFull { uid: MALLORY.uid, share: SHARE };

#[tokio::test]
async fn a_user_at_their_share_is_refused_and_others_are_not() {
    let shared = Shared::new();
    let of_mallory = shared.register(MALLORY).await.unwrap().session.instance_id;
    let of_alice = shared.register(ALICE).await.unwrap().session.instance_id;
    assert_eq!(shared.fill(&of_mallory, MALLORY).await, FULL);
    let [Some((kept, _)), _] = shared.usage(MALLORY).await else { panic!("nothing is kept") };
    assert!((SHARE as i64 - 6_000..=SHARE as i64).contains(&kept), "{kept}");
    // What would go beyond the share is refused whole, by each way into the store.
    let append = SpooledWrite::Append(Box::new(Append {
        id: of_mallory.to_string(),
        what: text(6_000),
        record_id: Uuid::from_u128(1 << 90),
    }));
    assert_eq!(shared.import(append, MALLORY).await, Some(Err(FULL)));
    let key = RequestKey::new("k".into(), "append", b"");
    let again = shared.store.append_once(
        key,
        Append { id: of_mallory.to_string(), what: text(6_000), record_id: Uuid::from_u128(1 << 91) },
        by(MALLORY, at(1)),
    );
    assert_eq!(again.await, Err(FULL));
    shared.check_usage().await;

    shared.append(&of_alice, 5_000, ALICE).await.unwrap();
    shared.register(ALICE).await.unwrap();
    shared.end();
}

#[tokio::test]
async fn each_way_to_begin_a_session_is_refused_at_the_share() {
    let shared = Shared::new();
    let of_mallory = shared.register(MALLORY).await.unwrap().session.instance_id;
    assert_eq!(shared.fill(&of_mallory, MALLORY).await, FULL);
    while shared.append(&of_mallory, 500, MALLORY).await.is_ok() {}
    assert_eq!(shared.register(MALLORY).await, Err(FULL));
    let key = RequestKey::new("k".into(), "register", b"");
    let session = NewSession { what: odin(), agent: None, process: None };
    assert_eq!(shared.store.register_once(key, session, shared.by(MALLORY, at(1)), |_| "{}".into()).await, Err(FULL));
    assert_eq!(shared.report_agent(received(START, "u-1", None), MALLORY).await, Err(FULL));
    assert_eq!(shared.import(drawn(&id(1)), MALLORY).await, Some(Err(FULL)));
    assert_eq!(
        shared.import(SpooledWrite::Report(Box::new(received(START, "u-2", None))), MALLORY).await,
        Some(Err(FULL))
    );
    shared.check_usage().await;
    assert_eq!(shared.import(drawn(&id(1)), ALICE).await, Some(Ok(())));
    shared.end();
}

#[tokio::test]
async fn writes_that_add_nothing_are_accepted_at_the_share() {
    let shared = Shared::new();
    let sighted = shared.report_agent(received(START, "u-1", None), MALLORY).await.unwrap().record.session.instance_id;
    let of_mallory = shared.register(MALLORY).await.unwrap().session.instance_id;
    assert_eq!(shared.fill(&of_mallory, MALLORY).await, FULL);
    while shared.append(&of_mallory, 1, MALLORY).await.is_ok() {}
    let beat = Heartbeat { context_percent: Some(95), current_epic: Some(Some("1".into())), ..Heartbeat::default() };
    shared.store.heartbeat(of_mallory.to_string(), beat, by(MALLORY, at(5))).await.unwrap();
    shared.report_agent(received(AgentSignal::Heartbeat, "u-1", None), MALLORY).await.unwrap();
    shared.report_agent(received(AgentSignal::End, "u-1", None), MALLORY).await.unwrap();
    assert_eq!(only(&shared.store, &sighted).await.session.status, Status::Closed);
    shared.store.close(of_mallory.to_string(), by(MALLORY, at(6))).await.unwrap();
    shared.check_usage().await;
    shared.end();
}

#[tokio::test]
async fn root_and_the_daemons_own_user_are_not_limited() {
    let shared = Shared::new();
    for caller in [ROOT, DAEMON] {
        for _ in 0..LIMITS.open_sessions + 1 {
            shared.register(caller).await.unwrap();
        }
        let id = shared.register(caller).await.unwrap().session.instance_id;
        shared.append(&id, 2 * SHARE as usize, caller).await.unwrap();
    }
    shared.check_usage().await;
    shared.end();
}

#[tokio::test]
async fn open_sessions_of_a_user_are_bounded() {
    let shared = Shared::new();
    let mut ids = Vec::new();
    for _ in 0..LIMITS.open_sessions {
        ids.push(shared.register(MALLORY).await.unwrap().session.instance_id);
    }
    // Silence does not make room: a stale session can become active again.
    shared.store.sweep(by(OWNER, at(10_000))).await.unwrap();
    let refused = shared.register(MALLORY).await;
    assert_eq!(refused, Err(StoreError::UserSessions { uid: MALLORY.uid, most: LIMITS.open_sessions }));
    shared.register(ALICE).await.unwrap();
    shared.store.close(ids[0].to_string(), by(MALLORY, at(1))).await.unwrap();
    shared.register(MALLORY).await.unwrap();
    shared.check_usage().await;
    shared.end();
}

#[tokio::test]
async fn pruning_gives_the_room_back() {
    let shared = Shared::new();
    let of_mallory =
        shared.report_agent(received(START, "u-1", None), MALLORY).await.unwrap().record.session.instance_id;
    assert_eq!(shared.fill(&of_mallory, MALLORY).await, FULL);
    shared.store.close(of_mallory.to_string(), by(MALLORY, at(6))).await.unwrap();
    shared.check_usage().await;
    shared.reach_central().await;
    assert_eq!(shared.store.prune(at(8)).await, Ok(1));
    assert_eq!(shared.usage(MALLORY).await, [None, None]);
    let ids =
        shared.store.read(|db| Ok(db.query_row("SELECT count(*) FROM claude_ids", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(ids.await, Ok(0), "a pruned session is not reported on any more");
    shared.register(MALLORY).await.unwrap();
    shared.end();
}

#[tokio::test]
async fn usage_is_what_is_counted_from_all_rows() {
    let shared = Shared::new();
    let first =
        shared.report_agent(received(START, "u-1", Some(&id(1))), ALICE).await.unwrap().record.session.instance_id;
    shared.check_usage().await;
    // Another folder, another conversation, further processes.
    for (number, folder) in [(2, "/home/alice/odin"), (3, "/a"), (4, "/home/alice/odin/b")] {
        let mut moved = received(AgentSignal::Start(StartSource::Resume), "u-1", None);
        moved.report.working_dir = Some(folder.into());
        moved.report.claude_session_path = Some(format!("{folder}/x.jsonl"));
        moved.process = Some(Process { pid: number, started: 1 });
        shared.report_agent(moved, ALICE).await.unwrap();
        shared.check_usage().await;
    }
    let mut cleared = received(AgentSignal::Start(StartSource::Clear), "u-2", None);
    cleared.process = Some(Process { pid: 2, started: 1 });
    shared.report_agent(cleared, ALICE).await.unwrap();
    shared.check_usage().await;
    // A key, and the same key once more when it is too old.
    for second in [0, 200_000] {
        let key = RequestKey::new("k".into(), "append", b"");
        let record_id = Uuid::from_u128(u128::from(shared.next()));
        shared
            .store
            .append_once(key, Append { id: first.to_string(), what: text(9), record_id }, by(ALICE, at(second)))
            .await
            .unwrap();
        shared.check_usage().await;
    }
    // Central has another session of this id: the own one is renamed, the other is mirrored.
    let now = only(&shared.store, &first).await.session;
    shared
        .mirror(Session { created_at: at(-9), host_machine: MachineName::parse("odin4").unwrap(), ..now.clone() })
        .await;
    assert_ne!(only(&shared.store, &first).await.session.instance_id, first);
    shared.check_usage().await;
    // Deleted by hand, with all that belongs to them.
    shared.store.writer.submit(|db| Ok(db.execute("DELETE FROM sessions", [])?)).await.unwrap();
    shared.check_usage().await;
    let [Some((keys, 0)), _] = shared.usage(ALICE).await else { panic!("the keys are counted") };
    assert!(keys < 1_000, "{keys}");
    shared.end();
}

#[tokio::test]
async fn sessions_of_other_machines_count_for_no_user() {
    let shared = Shared::new();
    let session =
        Session { host_machine: MachineName::parse("odin4").unwrap(), ..Session::register(id(7), odin(), at(0)) };
    shared.mirror(session.clone()).await;
    shared.mirror(Session { working_dir: Some("/w".into()), context_percent: 9, ..session }).await;
    shared.check_usage().await;
    assert_eq!(shared.usage(ROOT).await, [None, None]);
    shared.end();
}

#[tokio::test]
async fn a_bare_heartbeat_writes_one_row() {
    let shared = Shared::new();
    let id = shared.register(ALICE).await.unwrap().session.instance_id;
    let changes = || shared.store.writer.submit(|db| Ok(db.total_changes()));
    let before = changes().await.unwrap();
    shared.store.heartbeat(id.to_string(), Heartbeat::default(), by(ALICE, at(1))).await.unwrap();
    // The other is the look for a parked row, which is none.
    assert_eq!(changes().await.unwrap() - before, 1);
    shared.end();
}

#[tokio::test]
async fn the_usage_of_an_earlier_store_is_counted() {
    let shared = Shared::new();
    let first = shared.report_agent(received(START, "u-1", None), MALLORY).await.unwrap().record.session.instance_id;
    assert_eq!(shared.fill(&first, MALLORY).await, FULL);
    let closed = shared.register(MALLORY).await;
    assert_eq!(closed, Err(FULL));
    let path = shared.dir.path().join("sessiond.db");
    let Shared { store, writer, dir, .. } = shared;
    shut((store, writer));
    // As the version before made it.
    let old = Connection::open(path).unwrap();
    let triggers: Vec<String> = old
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for name in triggers {
        old.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    old.execute_batch(
        "DROP INDEX sessions_on_demand; ALTER TABLE sessions DROP COLUMN read_at; \
         DROP TABLE notified; DROP INDEX sessions_resting; DROP INDEX sessions_resting_project; DROP INDEX sessions_resting_epic; \
         CREATE INDEX sessions_resting ON sessions (last_heartbeat); \
         CREATE INDEX sessions_resting_project ON sessions (project); \
         CREATE INDEX sessions_resting_epic ON sessions (current_epic); \
         DROP INDEX hosts_by_id; DROP INDEX sessions_to_refresh; ALTER TABLE hosts DROP COLUMN host_id; \
         ALTER TABLE sessions DROP COLUMN vouched_by; ALTER TABLE sessions DROP COLUMN synced_heartbeat; \
         DROP TABLE activity_changes; DROP TABLE rate_limits; ALTER TABLE hosts DROP COLUMN limits; \
         DROP INDEX sessions_in_worktree; DROP INDEX sessions_on_branch; DROP INDEX sessions_on_epic; \
         ALTER TABLE sessions DROP COLUMN worktree; ALTER TABLE sessions DROP COLUMN repository; \
         ALTER TABLE sessions DROP COLUMN branch; \
         DROP TABLE work_snapshots; DROP TABLE session_work; DROP VIEW counted_usage; DROP VIEW session_usage; DROP TABLE user_usage; DROP INDEX aliases_promised; \
         ALTER TABLE metadata RENAME TO facts; ALTER TABLE imported_requests RENAME TO taken_in; \
         ALTER TABLE sessions RENAME COLUMN mirror_generation TO mirror_round; \
         ALTER TABLE sessions RENAME COLUMN park_count TO parkings; \
         ALTER TABLE records RENAME COLUMN park_count TO parkings; \
         ALTER TABLE aliases DROP COLUMN promised_by; PRAGMA user_version = 9",
    )
    .unwrap();
    drop(old);

    let (store, writer) = open(dir.path());
    let shared = Shared { store: store.limiting_users(LIMITS), writer, dir, number: std::cell::Cell::new(1 << 20) };
    shared.check_usage().await;
    assert_eq!(shared.usage(MALLORY).await[0].map(|(_, open)| open), Some(1));
    assert_eq!(shared.append(&first, 6_000, MALLORY).await, Err(FULL));
    shared.end();
}

#[tokio::test]
async fn limits_follow_the_size_of_the_store() {
    let of = |max_size| UserLimits::of_store(max_size, 1).bytes;
    assert_eq!([of(1 << 30), of(16 << 20), of(1 << 20), of(1)], [256 << 20, 4 << 20, 256 << 10, 256 << 10]);
}

#[tokio::test]
async fn a_conversation_of_another_user_is_not_taken() {
    let shared = Shared::new();
    let of_alice = shared.report_agent(received(START, "u-1", None), ALICE).await.unwrap().record.session.instance_id;
    let of_mallory =
        shared.report_agent(received(START, "u-1", None), MALLORY).await.unwrap().record.session.instance_id;
    assert_ne!(of_alice, of_mallory);
    let leads_to = "SELECT instance_id FROM claude_ids WHERE uuid = 'u-1'";
    let found = shared.store.read(move |db| Ok(db.query_row(leads_to, [], |row| row.get::<_, String>(0))?)).await;
    assert_eq!(found, Ok(of_alice.to_string()));
    for (caller, id) in [(ALICE, of_alice), (MALLORY, of_mallory)] {
        let beat = shared.report_agent(received(AgentSignal::Heartbeat, "u-1", None), caller).await.unwrap();
        assert_eq!((beat.created, beat.record.session.instance_id), (false, id));
    }
    shared.check_usage().await;
    shared.end();
}
