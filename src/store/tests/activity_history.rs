//! The activity history, in a real store.

use super::*;
use crate::domain::activity::{ActivityEvent, ActivitySource, ActivityState, Actor};
use crate::domain::activity_history::{ActivityChange, KEPT, MAX_CHANGES};

const ALWAYS: Timestamp = Timestamp::from_micros(i64::MIN);

fn doing(state: ActivityState, second: i64) -> Heartbeat {
    let event = ActivityEvent {
        state,
        waiting_for: None,
        detail: None,
        at: at(second),
        source: ActivitySource::Hook,
        actor: Actor::Session,
        in_background: false,
        permission: None,
    };
    Heartbeat { activity: Some(event), ..Heartbeat::default() }
}

fn context(percent: u8) -> Heartbeat {
    Heartbeat { context_percent: Some(percent), ..Heartbeat::default() }
}

async fn beat(store: &Store, id: &InstanceId, beat: Heartbeat, second: i64) {
    store.heartbeat(id.to_string(), beat, by(OWNER, at(second))).await.unwrap();
}

async fn changes(store: &Store, id: &InstanceId) -> Vec<ActivityChange> {
    store.activity_history(id.clone(), ALWAYS, MAX_CHANGES).await.unwrap().changes
}

/// When, what and how full the context was.
async fn history(store: &Store, id: &InstanceId) -> Vec<(i64, Option<ActivityState>, u8)> {
    let changes = changes(store, id).await;
    changes.iter().map(|change| (change.at.micros() / 1_000_000, change.activity, change.context_percent)).collect()
}

#[tokio::test]
async fn changes_of_activity_and_context_are_recorded_and_heartbeats_are_not() {
    use ActivityState::{Idle, Working};
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    let start = at(0).micros() / 1_000_000;
    beat(&store, &id, Heartbeat::default(), 1).await;
    beat(&store, &id, doing(Working, 10), 10).await;
    beat(&store, &id, doing(Working, 11), 11).await;
    beat(&store, &id, Heartbeat::default(), 12).await;
    beat(&store, &id, context(5), 20).await;
    beat(&store, &id, context(6), 75).await;
    beat(&store, &id, context(6), 140).await;
    beat(&store, &id, doing(Idle, 150), 150).await;
    store.close(id.to_string(), by(OWNER, at(160))).await.unwrap();
    store.close(id.to_string(), by(OWNER, at(170))).await.unwrap();
    let expected = [(10, Some(Working), 0), (75, Some(Working), 6), (150, Some(Idle), 6), (160, None, 6)];
    assert_eq!(history(&store, &id).await, expected.map(|(second, what, percent)| (start + second, what, percent)));

    let page = store.activity_history(id.clone(), at(20), 2).await.unwrap();
    assert_eq!((page.changes.len(), page.next), (2, Some(at(160))));
    let last = store.activity_history(id.clone(), page.next.unwrap(), 2).await.unwrap();
    assert_eq!((last.changes.len(), last.next), (1, None));
}

#[tokio::test]
async fn the_end_of_a_process_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let process = Process { pid: 7, started: 1 };
    let session = NewSession { process: Some(process), ..unregistered(None) };
    let id = store.register(session, seeded(8, OWNER, at(0))).await.unwrap().session.instance_id;
    beat(&store, &id, doing(ActivityState::Working, 1), 1).await;
    store.process_died(id.clone(), process, by(OWNER, at(2))).await.unwrap();
    let changes = changes(&store, &id).await;
    assert_eq!(changes.iter().map(|c| c.activity).collect::<Vec<_>>(), [Some(ActivityState::Working), None]);
    assert_eq!(changes[1].at, at(2));
}

#[tokio::test]
async fn the_history_is_bounded_in_number_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _writer) = open(dir.path());
    let id = register(&store, 1, 0).await.session.instance_id;
    let states = [ActivityState::Working, ActivityState::Idle];
    for second in 1..=MAX_CHANGES as i64 + 10 {
        beat(&store, &id, doing(states[second as usize % 2], second), second).await;
    }
    let kept = changes(&store, &id).await;
    assert_eq!((kept.len(), kept[0].at), (MAX_CHANGES, at(11)));
    store.expire_activity(at(1011).plus(KEPT)).await.unwrap();
    let kept = changes(&store, &id).await;
    assert_eq!((kept.len(), kept[0].at), (MAX_CHANGES - 1_000, at(1011)));
    store.expire_activity(at(1 << 20).plus(KEPT)).await.unwrap();
    assert_eq!(changes(&store, &id).await, []);
}
