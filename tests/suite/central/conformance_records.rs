//! The conformance suite for events, commands and checkpoints.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sessiond::domain::TableState::{Absent, Usable, WithoutZone};
use sessiond::domain::history::EVENT_TYPES;
use sessiond::domain::{HistoryRecord, InstanceId, RecordKind, Session, Timestamp};
use sessiond::sync::central::{Batch, Central, CentralError, RowOutcome};
use uuid::Uuid;

use super::conformance::{World, host, session, whole};

const ID: &str = "odin-PS-000001";
const HOUR: Duration = Duration::from_secs(3600);

/// A central with the three tables, as old as can be, and the world around it.
pub trait HistoryWorld: World {
    /// What there is of a session, by kind and in order: numbers and records. Commands have no number.
    fn history(&self, id: &str) -> Vec<(Option<i64>, HistoryRecord)>;
    /// Another client takes down an event, numbered as it does that: one more than the highest.
    fn other_event(&self, id: &str, event_type: &str);
    fn drop_table(&self, kind: RecordKind);
    /// The times of commands lose their zone, or get it back.
    fn set_zone(&self, zone: bool);
}

/// Runs every case, each in a world of its own.
pub async fn all<W: HistoryWorld>(fresh: impl Fn() -> W) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            eprintln!("case {}", stringify!($case));
            $case(fresh()).await;
        )*};
    }
    cases!(
        a_greeting_tells_what_there_is,
        what_happened_is_all_there,
        a_table_that_cannot_be_used_is_noticed_without_a_greeting,
        it_takes_effect_once,
        numbers_follow_those_of_others,
        a_time_in_the_future_is_cut,
        without_its_session_nothing_is_written,
        an_unknown_type_rolls_the_batch_back,
        with_a_ledger_that_moved_on_nothing_is_written,
    );
}

pub fn record(number: u128, kind: RecordKind, record_type: &str, at: Timestamp, body: Value) -> HistoryRecord {
    let Value::Object(body) = body else { panic!("an object") };
    let (record_id, instance_id) = (Uuid::from_u128(number), InstanceId::parse(ID).unwrap());
    HistoryRecord { record_id, instance_id, kind, record_type: record_type.into(), at, body }
}

pub fn event(number: u128, at: Timestamp) -> HistoryRecord {
    record(number, RecordKind::Event, "epic_started", at, json!({"data": {"n": number as u64, "ä\"'": [null, 1.5]}}))
}

pub fn command(number: u128, at: Timestamp) -> HistoryRecord {
    let body = json!({
        "action": "build", "tool_name": "Bash", "parameters": {"a": 1}, "result": ["b"], "error_message": "it's\nbad",
        "success": false, "execution_time_ms": 12, "tags": ["x", "y"],
    });
    record(number, RecordKind::Command, "mcp_tool", at, body)
}

fn checkpoint(number: u128, at: Timestamp) -> HistoryRecord {
    let body = json!({"context_window_percent": 81, "work_state": {"next": "tests"}});
    record(number, RecordKind::Checkpoint, "manual", at, body)
}

struct Member<C> {
    link: C,
    batch: i64,
}

impl<C: Central> Member<C> {
    async fn try_push(
        &mut self,
        sessions: &[Session],
        records: &[HistoryRecord],
    ) -> Result<Vec<RowOutcome>, CentralError> {
        let sessions: Vec<_> = sessions.iter().map(whole).collect();
        let batch = Batch { after: self.batch, number: self.batch + 1, sessions: &sessions, records };
        let applied = self.link.push(batch).await?;
        self.batch += 1;
        Ok(applied)
    }

    async fn push(&mut self, records: &[HistoryRecord]) {
        let applied = self.try_push(&[], records).await.unwrap();
        assert_eq!(applied, vec![RowOutcome::Stored; records.len()]);
    }
}

/// A member that pushed a session an hour ago.
async fn begun<W: HistoryWorld>(world: &W) -> (Member<W::Central>, Timestamp) {
    let mut link = world.link();
    let batch = link.handshake(&host("odin3", 1)).await.unwrap().batch;
    let mut member = Member { link, batch };
    let began = world.now().minus(HOUR);
    assert_eq!(member.try_push(&[session(ID, "odin3", began)], &[]).await.unwrap(), [RowOutcome::Stored]);
    (member, began)
}

fn numbers<W: HistoryWorld>(world: &W) -> Vec<(Option<i64>, u128)> {
    world.history(ID).into_iter().map(|(number, record)| (number, record.record_id.as_u128())).collect()
}

async fn a_greeting_tells_what_there_is<W: HistoryWorld>(world: W) {
    let tables = world.link().handshake(&host("odin3", 1)).await.unwrap().tables;
    assert!(RecordKind::ALL.into_iter().all(|kind| tables.is_usable(kind)));
    let mut types = tables.event_types.unwrap();
    types.sort();
    let mut known = EVENT_TYPES.to_vec();
    known.sort_unstable();
    assert_eq!(types, known);

    world.drop_table(RecordKind::Command);
    world.drop_table(RecordKind::Checkpoint);
    let tables = world.link().handshake(&host("odin3", 1)).await.unwrap().tables;
    assert_eq!(RecordKind::ALL.map(|kind| tables.state(kind).clone()), [Usable, Absent, Absent]);
    let (mut member, began) = begun(&world).await;
    member.push(&[event(1, began)]).await;
    assert_eq!(numbers(&world), [(Some(1), 1)]);
}

async fn a_table_that_cannot_be_used_is_noticed_without_a_greeting<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    world.set_zone(false);
    let tables = member.link.history_tables().await.unwrap();
    assert_eq!(RecordKind::ALL.map(|kind| tables.state(kind).clone()), [Usable, WithoutZone, Usable]);
    assert!(tables.blocked(RecordKind::Command).unwrap().contains("sessiond migrate"));
    member.push(&[event(1, began)]).await;
    world.set_zone(true);
    assert!(!member.link.history_tables().await.unwrap().is_any_blocked());
    member.push(&[command(2, began)]).await;
}

async fn what_happened_is_all_there<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    let at = |minutes: u64| began.plus(Duration::from_secs(60 * minutes));
    let plain = record(
        4,
        RecordKind::Command,
        "explicit",
        at(2),
        json!({"action": "a", "parameters": {}, "success": true, "tags": []}),
    );
    let happened = [command(3, at(1)), event(1, at(2)), checkpoint(5, at(3)), event(2, at(0)), plain];
    member.push(&happened).await;
    let [command, first, checkpoint, second, plain] = happened;
    let expected = [(Some(1), first), (Some(2), second), (None, command), (None, plain), (Some(1), checkpoint)];
    assert_eq!(world.history(ID), expected);
}

async fn it_takes_effect_once<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    let first = [event(1, began), command(2, began), checkpoint(3, began)];
    member.push(&first).await;
    let [event_1, command_2, checkpoint_3] = first;
    member.push(&[event_1, event(4, began), command_2, command(5, began), checkpoint_3, checkpoint(6, began)]).await;
    assert_eq!(numbers(&world), [(Some(1), 1), (Some(2), 4), (None, 2), (None, 5), (Some(1), 3), (Some(2), 6)]);
}

async fn numbers_follow_those_of_others<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    world.other_event(ID, "test_passed");
    member.push(&[event(1, began), event(2, began)]).await;
    world.other_event(ID, "test_passed");
    member.push(&[event(3, began)]).await;
    let found = world.history(ID).into_iter().map(|(number, record)| (number.unwrap(), record.record_type));
    let found = found.map(|(number, of)| (number, of == "test_passed")).collect::<Vec<_>>();
    assert_eq!(found, [(1, true), (2, false), (3, false), (4, true), (5, false)]);
}

async fn a_time_in_the_future_is_cut<W: HistoryWorld>(world: W) {
    let (mut member, _) = begun(&world).await;
    let before = world.now();
    member.push(&[event(1, before.plus(HOUR)), command(2, before.plus(HOUR)), checkpoint(3, before.plus(HOUR))]).await;
    for (_, record) in world.history(ID) {
        assert!(record.at >= before && record.at <= world.now(), "{record:?}");
    }
}

async fn without_its_session_nothing_is_written<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    world.delete(ID);
    let applied = member.try_push(&[], &[event(1, began), command(2, began)]).await.unwrap();
    assert_eq!(applied, [RowOutcome::SessionMissing, RowOutcome::SessionMissing]);
    assert_eq!(world.history(ID), []);

    // Nor if another session has the id by now, which the same batch reports.
    world.put(&session(ID, "odin4", began.plus(HOUR / 2)));
    let applied = member.try_push(&[session(ID, "odin3", began)], &[event(1, began)]).await.unwrap();
    assert_eq!(applied, [RowOutcome::IdCollision, RowOutcome::SessionMissing]);
    assert_eq!(world.history(ID), []);
}

async fn an_unknown_type_rolls_the_batch_back<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    let odd = record(2, RecordKind::Event, "unheard_of", began, json!({"data": {}}));
    let rejected = member.try_push(&[], &[event(1, began), odd, command(3, began)]).await;
    assert!(matches!(rejected, Err(CentralError::Reject(_))), "{rejected:?}");
    assert_eq!(world.history(ID), []);
    // The ledger did not move, and the connection is still good.
    member.push(&[event(1, began), command(3, began)]).await;
}

async fn with_a_ledger_that_moved_on_nothing_is_written<W: HistoryWorld>(world: W) {
    let (mut member, began) = begun(&world).await;
    member.batch = 0;
    assert_eq!(member.try_push(&[], &[event(1, began)]).await, Err(CentralError::OutOfStep));
    assert_eq!(world.history(ID), []);
}

/// A body without what is null, as the store has it.
pub fn without_nulls(body: Value) -> Map<String, Value> {
    let Value::Object(body) = body else { panic!("an object") };
    body.into_iter().filter(|(_, value)| !value.is_null()).collect()
}
