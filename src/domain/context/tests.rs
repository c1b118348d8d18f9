use super::*;
use crate::domain::work::{WorkSnapshot, WorkUpdate};
use crate::domain::{InstanceId, InstanceType, MachineName, Project, RecordKind, Registration};
use serde_json::json;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_micros(1_769_774_400_000_000);
const MINUTE: u64 = 60;

fn ago(seconds: u64) -> Timestamp {
    NOW.minus(Duration::from_secs(seconds))
}

fn session() -> Session {
    let what = Registration {
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        host_machine: MachineName::guess(),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    Session::register(InstanceId::parse("odin-PS-8f4a2b").unwrap(), what, ago(7200))
}

fn record(kind: RecordKind, record_type: &str, seconds: u64, body: Value) -> HistoryRecord {
    HistoryRecord {
        record_id: Uuid::nil(),
        instance_id: session().instance_id,
        kind,
        record_type: record_type.into(),
        at: ago(seconds),
        body: body.as_object().unwrap().clone(),
    }
}

fn event(record_type: &str, seconds: u64, data: Value) -> HistoryRecord {
    record(RecordKind::Event, record_type, seconds, json!({"data": data}))
}

fn command(seconds: u64, body: Value) -> HistoryRecord {
    record(RecordKind::Command, "explicit", seconds, body)
}

fn checkpoint(seconds: u64, work_state: Value) -> HistoryRecord {
    record(RecordKind::Checkpoint, "manual", seconds, json!({"work_state": work_state}))
}

/// Of events given oldest first.
fn of(events: Vec<HistoryRecord>) -> Context {
    let events = events.into_iter().rev().collect();
    reconstruct(&session(), &SessionHistory { events, ..SessionHistory::default() }, NOW)
}

#[test]
fn confidence_depends_on_source_and_age() {
    let minutes = |m: u64| m * MINUTE;
    let micro_over = |m: u64| NOW.minus(Duration::from_secs(m * MINUTE) + Duration::from_micros(1));
    let mut cases = Vec::new();
    for (source, at, over) in [
        (ContextSource::Checkpoint, &[(0, 100), (5, 100), (30, 90)][..], &[(5, 90), (30, 80), (59, 80)][..]),
        (ContextSource::Events, &[(0, 85), (30, 85), (60, 75)], &[(30, 75), (60, 65), (60 * 24 * 365, 65)]),
        (ContextSource::Commands, &[(0, 70), (30, 70), (60, 60)], &[(30, 60), (60, 50), (60 * 24 * 365, 50)]),
    ] {
        cases.extend(at.iter().map(|(m, confidence)| (source, ago(minutes(*m)), *confidence)));
        cases.extend(over.iter().map(|(m, confidence)| (source, micro_over(*m), *confidence)));
        let best = if source == ContextSource::Checkpoint {
            100
        } else if source == ContextSource::Events {
            85
        } else {
            70
        };
        cases.push((source, NOW.plus(Duration::from_secs(9)), best));
    }
    for (source, at, confidence) in cases {
        let newest = |kind, name| HistoryRecord { at, ..record(kind, name, 0, json!({})) };
        let mut left =
            SessionHistory { commands: vec![newest(RecordKind::Command, "explicit")], ..SessionHistory::default() };
        if source != ContextSource::Commands {
            left.events = vec![newest(RecordKind::Event, "commit_created"), event("epic_started", 3 * 3600, json!({}))];
        }
        if source == ContextSource::Checkpoint {
            let known = checkpoint(0, json!({"note": "half done"}));
            left.checkpoint = Some(HistoryRecord { at, ..known });
        }
        let session = Session { current_epic: Some("003".into()), ..session() };
        let context = reconstruct(&session, &left, NOW);
        assert_eq!((context.source, context.confidence), (source, confidence), "{at}: {}", context.reason);
    }
}

#[test]
fn old_checkpoint_is_not_the_source_but_still_used() {
    let old = checkpoint(60 * MINUTE, json!({"current_epic": "003", "next_steps": ["write the parser"]}));
    let mut left = SessionHistory { checkpoint: Some(old), ..SessionHistory::default() };
    let context = reconstruct(&session(), &left, NOW);
    assert_eq!((context.source, context.confidence), (ContextSource::Session, 40));
    assert_eq!(
        context.reason,
        "the newest checkpoint is 1h old, and neither events nor commands since: only the session itself is known"
    );
    assert_eq!(context.work_state.current_epic.as_deref(), Some("003"));
    assert_eq!(context.next_steps[0], "Planned 1h ago: write the parser");
    left.events = vec![event("commit_created", 40 * MINUTE, json!({}))];
    assert_eq!(
        reconstruct(&session(), &left, NOW).reason,
        "the newest checkpoint is 1h old; the last of 1 events is 40m old"
    );
}

#[test]
fn session_without_history_is_described_by_its_row() {
    let context = reconstruct(&session(), &SessionHistory::default(), NOW);
    assert_eq!((context.source, context.confidence), (ContextSource::Session, 40));
    assert_eq!(context.work_state, WorkState::default());
    assert_eq!(
        context.next_steps,
        [
            "Ask what to work on: neither an epic nor a prompt is recorded",
            "Ask its user on odin3: nothing of its work is recorded"
        ]
    );
}

#[test]
fn events_after_a_checkpoint_update_its_state() {
    let left = SessionHistory {
        checkpoint: Some(checkpoint(
            600,
            json!({"currentEpic": "003", "testsPassed": 41, "lastError": "E1", "nextSteps": ["write the parser"]}),
        )),
        events: vec![
            event("epic_started", 60, json!({"epic": "004"})),
            event("test_passed", 120, json!({"count": 42})),
            event("epic_completed", 180, json!({"epic_id": "003"})),
            event("error", 900, json!({"message": "E0"})),
        ],
        commands: vec![command(30, json!({"action": "lint", "success": false, "error_message": "E2\nmore"}))],
        work: None,
    };
    let context = reconstruct(&session(), &left, NOW);
    assert_eq!((context.source, context.confidence), (ContextSource::Checkpoint, 90));
    assert_eq!(context.reason, "the newest checkpoint (manual) is 10m old");
    assert_eq!(
        context.work_state,
        WorkState {
            current_epic: Some("004".into()),
            last_completed_epic: Some("003".into()),
            tests_passed: Some(json!(42)),
            last_error: Some("lint failed: E2 more".into()),
        }
    );
    let actions: Vec<_> = context.recent_actions.iter().map(|action| action.what.as_str()).collect();
    assert_eq!(
        actions,
        [
            "Ran lint, which failed: E2 more",
            "Started epic 004",
            "Tests passed: 42",
            "Completed epic 003",
            "Checkpoint (manual)",
            "Error: E0"
        ]
    );
    assert_eq!(
        context.next_steps,
        ["Resolve the last error: lint failed: E2 more", "write the parser", "Continue epic 004"]
    );
}

#[test]
fn resolved_errors_are_not_reported() {
    let error = |events| of(events).work_state.last_error;
    let failed = || event("test_failed", 90, json!({"error": "3 of 40"}));
    assert_eq!(error(vec![failed()]).as_deref(), Some("test failed: 3 of 40"));
    assert_eq!(error(vec![failed(), event("test_passed", 80, json!({}))]), None);
    assert_eq!(
        error(vec![failed(), event("deployment_completed", 80, json!({}))]).as_deref(),
        Some("test failed: 3 of 40")
    );
    let earlier = event("error", 100, json!({"message": "E"}));
    assert_eq!(error(vec![earlier, failed(), event("test_passed", 80, json!({}))]).as_deref(), Some("E"));
    assert_eq!(
        error(vec![event("epic_failed", 9, json!({"epic": "003", "reason": "R"}))]).as_deref(),
        Some("epic 003 failed: R")
    );
    let commands = |bodies: &[Value]| {
        let commands = bodies.iter().rev().map(|body| command(9, body.clone())).collect();
        reconstruct(&session(), &SessionHistory { commands, ..SessionHistory::default() }, NOW).work_state.last_error
    };
    let broken = json!({"action": "build", "success": false});
    assert_eq!(commands(std::slice::from_ref(&broken)).as_deref(), Some("build failed: no reason recorded"));
    assert_eq!(
        commands(&[broken.clone(), json!({"action": "lint", "success": true})]).as_deref(),
        Some("build failed: no reason recorded")
    );
    assert_eq!(commands(&[broken, json!({"action": "build", "success": true})]), None);
}

#[test]
fn next_steps_list_open_work() {
    let context = of(vec![
        event("test_started", 500, json!({})),
        event("deployment_started", 400, json!({"environment": "staging"})),
        event("deployment_completed", 390, json!({})),
        event("pr_created", 300, json!({"number": 12, "title": "Login"})),
        event("pr_created", 200, json!({"number": 13})),
        event("pr_merged", 100, json!({"number": 12})),
        event("user_message", 50, json!({"text": "and the logout?"})),
        event("epic_completed", 10, json!({"epic": "003"})),
    ]);
    assert_eq!(
        context.next_steps,
        [
            "Run the tests again: the result of the last run is not recorded",
            "Check pull request 13: it is not recorded as merged",
            "Check that the user's last message is answered: \"and the logout?\"",
            "Start the next epic: 003 is completed",
        ]
    );
    let full = Session { context_percent: 80, current_epic: Some("003".into()), ..session() };
    let steps = reconstruct(&full, &SessionHistory::default(), NOW).next_steps;
    assert_eq!(steps[0], "Continue epic 003");
    assert!(steps[1].starts_with("Start a new conversation with this context"), "{steps:?}");
}

#[test]
fn heartbeats_are_not_actions_and_ten_actions_are_listed() {
    let beats = (0..40).map(|i| event("instance_heartbeat", 1000 - i, json!({})));
    let commits = (0..12).map(|i| event("commit_created", 500 - i, json!({"sha": format!("c{i}"), "message": "m"})));
    let context = of(beats.chain(commits).collect());
    assert_eq!(context.recent_actions.len(), 10);
    assert_eq!(context.recent_actions[0].what, "Committed c11: m");
}

#[test]
fn describes_records_of_any_shape() {
    let wild = [
        json!({}),
        json!({"data": null}),
        json!({"data": [1, 2]}),
        json!({"data": {"epic": {"a": {"b": {"c": {}}}}, "message": "x".repeat(1 << 20), "error": "\u{1b}[2J\n"}}),
        json!({"work_state": "none", "action": 7, "success": "no", "error_message": ["a"]}),
        json!({"work_state": {"tests_passed": {"deep": []}, "next_steps": {"a": 1}, "last_error": null}}),
    ];
    let types =
        ["epic_started", "epic_completed", "epic_failed", "test_passed", "test_failed", "pr_merged", "error", "x", ""];
    for body in &wild {
        for kind in RecordKind::ALL {
            for record_type in types {
                let one = record(kind, record_type, 60, body.clone());
                let left = SessionHistory {
                    checkpoint: Some(one.clone()),
                    events: vec![one.clone()],
                    commands: vec![one],
                    work: None,
                };
                let context = reconstruct(&session(), &left, NOW);
                let told = context.next_steps.iter().chain(context.recent_actions.iter().map(|action| &action.what));
                for text in told.chain(&context.work_state.last_error) {
                    assert!(text.len() < 400 && !text.contains(char::is_control), "{text:?}");
                }
            }
        }
    }
}

fn work(update: WorkUpdate, seconds: u64) -> SessionWork {
    let mut snapshot = WorkSnapshot::default();
    snapshot.apply(update, ago(seconds));
    let instance_id = session().instance_id;
    SessionWork {
        instance_id,
        activity: None,
        activity_ended: false,
        kind: None,
        agent: None,
        snapshot,
        recorded_at: ago(seconds),
        changes: Vec::new(),
    }
}

#[test]
fn confidence_measures_content() {
    let empty = checkpoint(60, json!({"reason": "compact", "trigger": "auto"}));
    let left = SessionHistory { checkpoint: Some(empty.clone()), ..SessionHistory::default() };
    let context = reconstruct(&session(), &left, NOW);
    assert_eq!((context.source, context.confidence), (ContextSource::Session, 40), "{}", context.reason);

    let prompt = WorkUpdate { prompt: Some("Build the flux capacitor".into()), ..WorkUpdate::default() };
    let left = SessionHistory { work: Some(work(prompt.clone(), 60)), checkpoint: Some(empty), ..left };
    let context = reconstruct(&session(), &left, NOW);
    assert_eq!((context.source, context.confidence), (ContextSource::Work, 100), "{}", context.reason);
    assert_eq!(
        context.next_steps[0],
        "Do what the last prompt asks, which has no answer yet: Build the flux capacitor"
    );
    let answered = WorkUpdate { answer: Some("It is built.".into()), ..prompt };
    let left = SessionHistory { work: Some(work(answered, 60)), ..SessionHistory::default() };
    let context = reconstruct(&session(), &left, NOW);
    assert_eq!(context.confidence, 80, "{}", context.reason);
    assert!(context.reason.ends_with("not known: the next step"), "{}", context.reason);
    assert_eq!(context.next_steps[0], "Continue: Build the flux capacitor");
}

#[test]
fn every_field_of_a_checkpoint_is_kept() {
    let state = json!({"note": "half done", "nested": {"a": [1, 2]}, "list": ["x"], "nothing": null, "n": 7});
    let left = SessionHistory { checkpoint: Some(checkpoint(60, state)), ..SessionHistory::default() };
    let notes = reconstruct(&session(), &left, NOW).details.notes;
    let expected = [("list", "[\"x\"]"), ("n", "7"), ("nested", "{\"a\":[1,2]}"), ("note", "half done")];
    assert_eq!(notes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn repeated_actions_are_folded() {
    let mut events: Vec<_> = (0..9).map(|n| event("test_passed", 100 - n, json!({}))).collect();
    events.push(event("build_done", 10, json!({"target": "release", "ok": true})));
    let actions = of(events).recent_actions;
    let actions: Vec<_> = actions.iter().map(|action| (action.what.as_str(), action.times)).collect();
    assert_eq!(actions, [("Build done: ok true, target release", 1), ("Tests passed", 9)]);
}
