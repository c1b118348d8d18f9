//! What sessions do and work on, in a real store.

use super::*;
use crate::domain::activity::{ActivityEvent, ActivitySource, ActivityState, Actor, WaitingFor};
use crate::domain::agent::AgentName;
use crate::domain::work::WorkUpdate;
use crate::domain::{HistoryTables, TableState};

fn waiting(second: i64) -> Heartbeat {
    let event = ActivityEvent {
        state: ActivityState::Waiting,
        waiting_for: Some(WaitingFor::Permission),
        detail: Some("Bash".into()),
        at: at(second),
        source: ActivitySource::Hook,
        actor: Actor::Main,
        in_background: false,
        permission: None,
    };
    Heartbeat { activity: Some(event), ..Heartbeat::default() }
}

async fn beat(store: &Store, id: &InstanceId, beat: Heartbeat, second: i64) -> Record {
    store.heartbeat(id.to_string(), beat, by(OWNER, at(second))).await.unwrap()
}

/// The session's current activity.
async fn current(store: &Store, id: &InstanceId, second: i64) -> Option<ActivityState> {
    let record = only(store, id).await;
    let status = record.session.status_at(at(second), STALE_AFTER);
    record.work?.current_activity(status).map(|activity| activity.state)
}

async fn last(store: &Store, id: &InstanceId) -> Option<ActivityState> {
    store.work(id.clone()).await.unwrap()?.activity.map(|activity| activity.state)
}

#[tokio::test]
async fn activity_of_a_dead_process_does_not_come_back_with_the_next_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let process = Process { pid: 7, started: 1 };
    let session = NewSession { process: Some(process), ..unregistered(None) };
    let id = store.register(session, seeded(8, OWNER, at(0))).await.unwrap().session.instance_id;
    beat(&store, &id, waiting(1), 1).await;
    assert_eq!(current(&store, &id, 1).await, Some(ActivityState::Waiting));
    store.process_died(id.clone(), process, by(OWNER, at(2))).await.unwrap();
    assert_eq!((current(&store, &id, 2).await, last(&store, &id).await), (None, Some(ActivityState::Waiting)));
    beat(&store, &id, Heartbeat::default(), 3).await;
    assert_eq!((current(&store, &id, 3).await, last(&store, &id).await), (None, Some(ActivityState::Waiting)));
    beat(&store, &id, waiting(4), 4).await;
    assert_eq!(current(&store, &id, 4).await, Some(ActivityState::Waiting), "it waits again");
}

#[tokio::test]
async fn activity_of_a_silent_session_ends_and_that_of_a_live_process_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let silent = register(&store, 1, 0).await.session.instance_id;
    let process = Some(Process { pid: 7, started: 1 });
    let asleep = store.register(NewSession { process, ..unregistered(None) }, seeded(80, OWNER, at(0))).await.unwrap();
    let asleep = asleep.session.instance_id;
    for id in [&silent, &asleep] {
        beat(&store, id, waiting(1), 1).await;
    }
    store.sweep(by(OWNER, at(1000))).await.unwrap();
    for id in [&silent, &asleep] {
        assert_eq!(current(&store, id, 1000).await, None);
        beat(&store, id, Heartbeat::default(), 1001).await;
    }
    assert_eq!(current(&store, &silent, 1001).await, None);
    assert_eq!(current(&store, &asleep, 1001).await, Some(ActivityState::Waiting), "the machine slept");
}

#[tokio::test]
async fn work_waits_for_a_table_in_central_and_is_acknowledged_by_version() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let record = register(&store, 1, 0).await;
    let id = record.session.instance_id.clone();
    let prompt = |text: &str| WorkUpdate { prompt: Some(text.to_owned()), ..WorkUpdate::default() };
    store.record_work(id.to_string(), prompt("first"), by(OWNER, at(1))).await.unwrap();
    let absent = HistoryTables { work: TableState::Absent, ..HistoryTables::ALL };
    store.record_tables(absent, at(2)).await.unwrap();
    let pushed = store.pending(rows(10), Skip::default()).await.unwrap();
    assert_eq!((pushed.sessions.len(), pushed.work.len()), (1, 0));
    store.acknowledge(settling(vec![taken(&pushed.sessions[0])], 1), by(OWNER, at(3))).await.unwrap();
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().sessions, []);

    store.record_tables(HistoryTables::ALL, at(4)).await.unwrap();
    let pushed = store.pending(rows(10), Skip::default()).await.unwrap();
    assert_eq!(pushed.work[0].work.snapshot.last_prompt.as_ref().unwrap().value, "first");
    // A change during the push stays pending.
    store.record_work(id.to_string(), prompt("second"), by(OWNER, at(5))).await.unwrap();
    let result = SessionResult { work_version: Some(pushed.work[0].version), ..taken(&pushed.sessions[0]) };
    store.acknowledge(settling(vec![result], 2), by(OWNER, at(6))).await.unwrap();
    let pushed = store.pending(rows(10), Skip::default()).await.unwrap();
    assert_eq!(pushed.work[0].work.snapshot.last_prompt.as_ref().unwrap().value, "second");
}

#[tokio::test]
async fn agents_are_pushed_again_once_central_has_a_column_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let codex = NewSession { agent: Some(AgentName::Codex), ..unregistered(None) };
    let codex = store.register(codex, seeded(8, OWNER, at(0))).await.unwrap().session.instance_id;
    let unnamed = register(&store, 2, 0).await.session.instance_id;
    let prompt = WorkUpdate { prompt: Some("p".to_owned()), ..WorkUpdate::default() };
    store.record_work(unnamed.to_string(), prompt, by(OWNER, at(1))).await.unwrap();
    let without = HistoryTables { work_has_agent: false, ..HistoryTables::ALL };
    store.record_tables(without.clone(), at(1)).await.unwrap();
    let pushed = store.pending(rows(10), Skip::default()).await.unwrap();
    assert_eq!((pushed.sessions.len(), pushed.work.len()), (2, 2));
    let result = |n: usize| {
        let sent = pushed.work.iter().find(|work| work.work.instance_id == pushed.sessions[n].session.instance_id);
        SessionResult { work_version: sent.map(|work| work.version), ..taken(&pushed.sessions[n]) }
    };
    store.acknowledge(settling(vec![result(0), result(1)], 1), by(OWNER, at(2))).await.unwrap();
    store.record_tables(without, at(3)).await.unwrap();
    assert_eq!(store.pending(rows(10), Skip::default()).await.unwrap().work, []);
    store.record_tables(HistoryTables::ALL, at(4)).await.unwrap();
    let again = store.pending(rows(10), Skip::default()).await.unwrap();
    let again: Vec<_> = again.work.iter().map(|work| (&work.work.instance_id, work.work.agent)).collect();
    assert_eq!(again, [(&codex, Some(AgentName::Codex))]);
}

#[tokio::test]
async fn a_wait_is_counted_once_and_from_its_first_question_to_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let answered = register(&store, 1, 0).await.session.instance_id;
    let closed = register(&store, 40, 0).await.session.instance_id;
    let working = |second| {
        let mut beat = waiting(second);
        let event = beat.activity.as_mut().unwrap();
        (event.state, event.waiting_for) = (ActivityState::Working, None);
        beat
    };
    let question = |second| {
        let mut beat = waiting(second);
        beat.activity.as_mut().unwrap().waiting_for = Some(WaitingFor::Question);
        beat
    };
    beat(&store, &answered, waiting(10), 10).await;
    beat(&store, &closed, waiting(10), 10).await;
    let figures = |after, second| store.activity_figures(after, at(0), by(OWNER, at(second)));
    let first = figures(None, 20).await.unwrap();
    assert!(first.waits.is_empty());
    assert!(first.active.contains(&(Some(ActivityState::Waiting), 2)), "{first:?}");
    beat(&store, &answered, question(20), 20).await;
    beat(&store, &answered, working(40), 40).await;
    store.close(closed.to_string(), by(OWNER, at(41))).await.unwrap();
    let second = figures(Some(first.read_to), 50).await.unwrap();
    assert_eq!(second.waits, [Duration::from_secs(30)]);
    assert!(second.active.contains(&(Some(ActivityState::Working), 1)), "{second:?}");
    assert!(figures(Some(second.read_to), 50).await.unwrap().waits.is_empty());
    // A first reading counts what was answered since the time that is given, and not what was before.
    assert_eq!(figures(None, 50).await.unwrap().waits, [Duration::from_secs(30)]);
    assert!(store.activity_figures(None, at(41), by(OWNER, at(50))).await.unwrap().waits.is_empty());
}
