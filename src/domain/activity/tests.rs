//! What each event does to an activity, in any order of arrival.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_769_774_400_000_000 + seconds * SECOND)
}

fn event(state: ActivityState, seconds: i64) -> ActivityEvent {
    ActivityEvent {
        state,
        waiting_for: None,
        detail: None,
        at: at(seconds),
        source: ActivitySource::Hook,
        actor: Actor::Session,
        in_background: false,
        permission: None,
    }
}

fn request(tool: &str, seconds: i64) -> ActivityEvent {
    let permission = Some(PermissionEvent { is_notification: false, prompt_id: Some("p".into()) });
    ActivityEvent {
        waiting_for: Some(WaitingFor::Permission),
        detail: Some(tool.to_owned()),
        actor: Actor::Main,
        permission,
        ..event(ActivityState::Waiting, seconds)
    }
}

fn notification(seconds: i64) -> ActivityEvent {
    let permission = Some(PermissionEvent { is_notification: true, prompt_id: Some("p".into()) });
    ActivityEvent { detail: None, actor: Actor::Session, permission, ..request("", seconds) }
}

fn used_tool(seconds: i64) -> ActivityEvent {
    ActivityEvent { actor: Actor::Main, ..event(ActivityState::Working, seconds) }
}

fn by_subagent(event: ActivityEvent) -> ActivityEvent {
    ActivityEvent { actor: Actor::Subagent("a1".into()), ..event }
}

fn from_file(state: ActivityState, seconds: i64) -> ActivityEvent {
    let waiting_for = (state == ActivityState::Waiting).then_some(WaitingFor::Input);
    ActivityEvent { source: ActivitySource::StatusFile, waiting_for, ..event(state, seconds) }
}

/// The activity after these events, which arrive in this order long after the last of them.
fn track(events: impl IntoIterator<Item = ActivityEvent>) -> ActivityTracker {
    let apply =
        |before: Option<ActivityTracker>, event| ActivityTracker::after(before.as_ref(), event, at(100_000)).or(before);
    events.into_iter().fold(None, apply).unwrap()
}

fn after(events: impl IntoIterator<Item = ActivityEvent>) -> Activity {
    track(events).activity
}

fn state(events: impl IntoIterator<Item = ActivityEvent>) -> (ActivityState, Option<WaitingFor>) {
    let activity = after(events);
    (activity.state, activity.waiting_for)
}

const WORKING: (ActivityState, Option<WaitingFor>) = (ActivityState::Working, None);
const IDLE: (ActivityState, Option<WaitingFor>) = (ActivityState::Idle, None);
const PERMISSION: (ActivityState, Option<WaitingFor>) = (ActivityState::Waiting, Some(WaitingFor::Permission));

#[test]
fn newest_event_counts_in_any_order_of_arrival() {
    assert_eq!(state([event(ActivityState::Working, 1), event(ActivityState::Idle, 2)]), IDLE);
    assert_eq!(state([event(ActivityState::Idle, 2), event(ActivityState::Working, 1)]), IDLE);
    assert_eq!(state([event(ActivityState::Idle, 2), event(ActivityState::Working, 2)]), WORKING, "at the same time");
}

#[test]
fn repeated_events_keep_when_it_began() {
    let tracker = track([used_tool(1), used_tool(2), used_tool(3)]);
    assert_eq!((tracker.activity.since, tracker.reported_at), (at(1), at(3)));
    let activity = after([request("Bash", 1), request("Edit", 2)]);
    assert_eq!((activity.since, activity.detail.as_deref()), (at(2), Some("Edit")), "another wait");
}

#[test]
fn notification_confirms_a_request_and_does_not_repeat_it() {
    let waiting = after([request("Bash", 0), notification(6)]);
    assert_eq!((waiting.state, waiting.since, waiting.detail.as_deref()), (PERMISSION.0, at(0), Some("Bash")));
    assert_eq!(state([request("Bash", 0), used_tool(5), notification(6)]), WORKING, "its request was answered");
    assert_eq!(state([request("Bash", 0), used_tool(8), notification(6)]), WORKING, "late");
    assert_eq!(state([used_tool(0), notification(6)]), PERMISSION, "versions without requests");
    assert_eq!(state([request("Bash", 0), used_tool(5), notification(60)]), PERMISSION, "of another wait");
}

#[test]
fn subagents_change_only_their_own_waits() {
    let tool = |seconds| by_subagent(used_tool(seconds));
    assert_eq!(state([event(ActivityState::Idle, 0), tool(1)]), IDLE);
    assert_eq!(state([event(ActivityState::Working, 0), by_subagent(event(ActivityState::Idle, 1))]), WORKING);
    let asked = [event(ActivityState::Working, 0), by_subagent(request("Bash", 1))];
    assert_eq!(state(asked.clone()), PERMISSION);
    assert_eq!(state(asked.clone().into_iter().chain([used_tool(2)])), PERMISSION, "the main agent works on");
    assert_eq!(state(asked.clone().into_iter().chain([tool(2)])), WORKING);
    assert_eq!(state(asked.into_iter().chain([event(ActivityState::Idle, 2)])), IDLE, "the turn ended");
    assert_eq!(state([request("Bash", 0), tool(1)]), PERMISSION, "the main agent waits");
}

#[test]
fn status_file_settles_only_what_no_hook_reports() {
    use ActivityState::{Failed, Idle, Waiting, Working};
    assert_eq!(state([event(Working, 0), from_file(Idle, 1)]), IDLE, "interrupted");
    assert_eq!(state([request("Bash", 0), from_file(Working, 1)]), WORKING, "allowed, and the tool runs");
    assert_eq!(state([request("Bash", 0), from_file(Idle, 1)]), IDLE, "refused");
    assert_eq!(state([event(Failed, 0), from_file(Idle, 1)]), (Failed, None));
    let background = ActivityEvent { in_background: true, ..event(Working, 0) };
    assert_eq!(state([background.clone(), from_file(Idle, 1)]), WORKING);
    assert_eq!(state([background, event(Idle, 1)]), IDLE);
    let waiting = after([request("Bash", 0), from_file(Waiting, 1)]);
    assert_eq!(waiting.waiting_for, Some(WaitingFor::Permission));
    assert_eq!(after([event(Idle, 1), from_file(Working, 0)]).state, Idle, "older");
}

#[test]
fn clock_set_back_blocks_no_event() {
    let before = track([event(ActivityState::Working, 3600)]);
    let now = at(10);
    let idle = ActivityTracker::after(Some(&before), event(ActivityState::Idle, 9), now).unwrap().activity;
    assert_eq!((idle.state, idle.since), (ActivityState::Idle, at(9)));
    let from_future = ActivityTracker::after(None, event(ActivityState::Idle, 3600), now).unwrap();
    assert_eq!(from_future.activity.since, now);
}

proptest! {
    #[test]
    fn order_of_arrival_does_not_matter(
        events in prop::collection::vec((0..4_usize, 0..1000_i64), 1..8).prop_shuffle(),
    ) {
        let mut events: Vec<_> = events.into_iter().map(|(state, at)| event(ActivityState::ALL[state], at)).collect();
        let mut times: Vec<_> = events.iter().map(|event| event.at).collect();
        times.sort_unstable();
        times.dedup();
        prop_assume!(times.len() == events.len());
        let shuffled = track(events.clone());
        events.sort_by_key(|event| event.at);
        let newest = events.last().unwrap();
        prop_assert_eq!((shuffled.activity.state, shuffled.reported_at), (newest.state, newest.at));
    }
}
