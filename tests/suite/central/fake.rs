//! The fake central passes the conformance suite, and fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sessiond::domain::history::EVENT_TYPES;
use sessiond::domain::mirror::PullQuery;
use sessiond::domain::{HistoryRecord, InstanceId, Project, RecordKind, Session, SharedColumn, TableState, Timestamp};
use sessiond::sync::central::{Batch, Central, CentralError, Rejection};
use uuid::Uuid;

use super::conformance::{self, Lock, World, host, session, whole};
use super::conformance_leases;
use super::conformance_limits;
use super::conformance_records::{self, HistoryWorld};
use super::conformance_scope;
use super::conformance_work;
use sessiond::sync::fake_central::{FakeCentral, FakeLink, Fault};

const NOW: Timestamp = Timestamp::from_micros(1_769_774_400_000_000);

impl World for FakeCentral {
    type Central = FakeLink;

    fn link(&self) -> FakeLink {
        self.connect()
    }

    fn now(&self) -> Timestamp {
        self.now()
    }

    fn rows(&self) -> Vec<Session> {
        self.rows()
    }

    fn put(&self, session: &Session) {
        self.put(session);
    }

    fn edit(&self, id: &str, column: SharedColumn, value: &str) {
        let now = self.now();
        self.edit(id, |session| {
            conformance::columns::set(session, column, value);
            if matches!(column, SharedColumn::ContextPercent | SharedColumn::CurrentEpic) {
                session.last_heartbeat = now;
            }
        });
    }

    fn move_to(&self, id: &str, project: &str) {
        Self::edit(self, id, |session| session.project = Project::parse(project).unwrap());
    }

    fn delete(&self, id: &str) {
        self.delete(id);
    }

    fn silence(&self, by: Duration) {
        self.silence(by);
    }

    fn last_seen(&self, host: Uuid) -> Timestamp {
        self.last_seen(host).unwrap()
    }

    fn reject(&self, id: &str) {
        self.reject(id);
    }

    fn lock_row<'a>(&'a self, id: &str) -> Box<dyn Lock + 'a> {
        self.lock_row(id);
        Box::new(Unlock(self))
    }
}

struct Unlock<'a>(&'a FakeCentral);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.unlock_rows();
    }
}

impl HistoryWorld for FakeCentral {
    fn history(&self, id: &str) -> Vec<(Option<i64>, HistoryRecord)> {
        let rows = self.history(id).into_iter();
        rows.map(|row| ((row.record.kind != RecordKind::Command).then_some(row.sequence), row.record)).collect()
    }

    fn other_event(&self, id: &str, event_type: &str) {
        let event = conformance_records::event(u128::from(self.pushes() as u64) << 64, NOW);
        let instance_id = InstanceId::parse(id).unwrap();
        let event = HistoryRecord { instance_id, record_type: event_type.into(), ..event };
        self.with_history(|history| history.add(event));
    }

    fn set_zone(&self, zone: bool) {
        let state = if zone { TableState::Usable } else { TableState::WithoutZone };
        self.with_history(|history| history.tables.commands = state);
    }

    fn drop_table(&self, kind: RecordKind) {
        self.with_history(|history| *history.tables.state_mut(kind) = TableState::Absent);
    }
}

fn fake_of_old() -> FakeCentral {
    let central = fake();
    let types = EVENT_TYPES.iter().map(ToString::to_string).collect();
    central.with_history(|history| history.tables.event_types = Some(types));
    central
}

#[tokio::test]
async fn the_fake_conforms_with_history() {
    conformance_records::all(fake_of_old).await;
    conformance_scope::with_history(fake_of_old()).await;
}

/// Its clock moves on each time it is read, so that what happens later has a later time.
fn fake() -> FakeCentral {
    let clock = AtomicI64::new(NOW.micros());
    FakeCentral::new(Arc::new(move || Timestamp::from_micros(clock.fetch_add(1, Ordering::Relaxed))))
}

#[tokio::test]
async fn the_fake_conforms() {
    conformance::all(fake).await;
    conformance_work::all(fake).await;
    conformance_limits::all(fake).await;
    conformance_leases::all(fake).await;
    conformance_scope::all(fake).await;
}

#[tokio::test]
async fn faults_come_when_scripted() {
    let central = fake();
    let mut link = central.connect();
    let me = host("odin3", 1);
    link.handshake(&me).await.unwrap();
    let sessions = [whole(&session("odin-PS-000001", "odin3", NOW))];
    let batch = Batch { after: 0, number: 1, sessions: &sessions, records: &[] };

    central.fail_next(Fault::Fail(CentralError::Retry("gone".into())));
    assert!(link.push(batch).await.is_err());
    assert_eq!(central.pushes(), 0);
    assert!(link.push(batch).await.is_err(), "the connection is gone");

    link.handshake(&me).await.unwrap();
    let empty = central.snapshot();
    central.fail_next(Fault::LoseAnswer);
    assert!(link.push(batch).await.is_err());
    assert_eq!((central.pushes(), central.rows().len()), (1, 1));
    assert_eq!(link.handshake(&me).await.unwrap().batch, 1);

    central.restore(empty);
    assert_eq!(
        link.push(Batch { after: 1, number: 2, sessions: &sessions, records: &[] }).await,
        Err(CentralError::OutOfStep)
    );
    assert_eq!(link.handshake(&me).await.unwrap().batch, 0);

    central.reject("odin-PS-000001");
    assert!(matches!(link.push(batch).await, Err(CentralError::Reject(_))));
    central.accept("odin-PS-000001");

    central.break_sessions(Some(Rejection::without_code("maintenance")));
    assert!(matches!(link.push(batch).await, Err(CentralError::Reject(why)) if why.message == "maintenance"));
    central.break_sessions(None);

    central.set_read_only(true);
    assert!(matches!(link.push(batch).await, Err(CentralError::Retry(_))));
    central.set_read_only(false);
    link.handshake(&me).await.unwrap();
    link.push(batch).await.unwrap();
    assert_eq!(central.batch_of(me.host_id), Some(1));
    central.close("odin-PS-000001");
    central.claim_name("freya", Uuid::from_u128(5));
    assert!(matches!(link.handshake(&host("freya", 6)).await, Err(CentralError::Conflict(_))));
    central.delete("odin-PS-000001");
    assert_eq!(central.rows(), []);
}

/// What only the fake can do at will: a transaction that runs for long, and another numbering.
#[tokio::test]
async fn a_held_position_and_another_numbering_are_modelled() {
    let central = FakeCentral::new(Arc::new(|| NOW));
    let mut link = central.connect();
    link.handshake(&host("laptop", 1)).await.unwrap();
    let row = session("odin-PS-000001", "odin4", central.now());
    central.put(&row);
    central.hold_a_transaction(true);
    let held = link.pull(&PullQuery::since(1)).await.unwrap().rest;
    assert_eq!(held, link.pull(&PullQuery::since(1)).await.unwrap().rest, "nothing is read past it");
    let first = link.pull(&PullQuery::since(1)).await.unwrap();
    assert_eq!(first.sessions.len(), 1);
    let again = link.pull(&PullQuery { read: first.snapshot, ..PullQuery::since(1) }).await.unwrap();
    assert!(again.is_empty(), "what was read is not read again: {again:?}");
    central.hold_a_transaction(false);
    central.delete("odin-PS-000001");
    central.put(&row);
    assert!(central.tombstones()[0].0 < central.transaction());
    let snapshot = central.snapshot();
    central.restore_elsewhere(snapshot, 1);
    link.handshake(&host("laptop", 1)).await.unwrap();
    let changes = link.pull(&PullQuery::since(1)).await.unwrap();
    assert!(changes.is_empty(), "all rows bear numbers of the other cluster: {changes:?}");
}
