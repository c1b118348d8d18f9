use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::Timestamp;
use crate::domain::activity::ActivityTracker;

fn activity(name: &str, input: &Value) -> Option<ActivityReport> {
    of(HookEvent::parse(name)?, &Input::read(input.to_string().as_bytes(), &WANTED))
}

/// Activity, what it waits for, detail and actor.
fn shown(report: Option<ActivityReport>) -> String {
    let Some(report) = report else { return "unchanged".to_owned() };
    let parts = [Some(report.activity), report.waiting_for, report.detail, report.actor];
    parts.into_iter().flatten().collect::<Vec<_>>().join("|")
}

/// The recorded lines of an event.
fn recorded(version: &str, event: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents/claude-code").join(version);
    let text = fs::read_to_string(folder.join(format!("{event}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn recorded_events_have_their_activity() {
    for (version, event, expected) in [
        ("2.0.76", "SessionStart", &["idle", "idle"][..]),
        ("2.0.76", "UserPromptSubmit", &["working", "working"]),
        ("2.0.76", "PreCompact", &["working"]),
        ("2.0.76", "Stop", &["idle", "idle"]),
        ("2.0.76", "SessionEnd", &["unchanged"]),
        ("2.1.101", "StopFailure", &["failed|overloaded"]),
        ("2.1.101", "PostCompact", &["idle"]),
        ("2.1.101", "SubagentStop", &["working|aaceaa81cba379766"]),
        ("2.1.101", "InstructionsLoaded", &["unchanged", "unchanged"]),
        ("2.1.332", "UserPromptSubmit", &["working"; 5]),
        (
            "2.1.332",
            "PreToolUse",
            &[
                "working|main",
                "working|main",
                "working|ac74258b64fb88bd3",
                "waiting|question|main",
                "working|main",
                "working|main",
                "working|main",
            ],
        ),
        ("2.1.332", "PermissionRequest", &["waiting|permission|Bash|main", "waiting|question|main"]),
        ("2.1.332", "Notification", &["waiting|permission", "idle"]),
        (
            "2.1.332",
            "PostToolUse",
            &[
                "working|main",
                "working|main",
                "working|ac74258b64fb88bd3",
                "working|main",
                "working|main",
                "working|main",
                "working|main",
            ],
        ),
        ("2.1.332", "PostToolUseFailure", &["working|main"]),
        ("2.1.332", "Stop", &["idle", "idle", "working|1 background task", "idle"]),
        ("2.1.332", "StopFailure", &["failed|rate_limit", "failed|overloaded", "failed|authentication_failed"]),
        ("2.1.332", "SubagentStart", &["unchanged"]),
        (
            "2.1.332",
            "SubagentStop",
            &["working|ac74258b64fb88bd3", "working|adb1f1e9c41f05f8e", "working|a55379f60f99d600a"],
        ),
        ("2.1.332", "CwdChanged", &["unchanged"]),
        ("2.1.332", "PreCompact", &["working"; 2]),
        ("2.1.332", "PostCompact", &["idle", "working"]),
        ("2.1.332", "MessageDisplay", &["unchanged"]),
        ("2.1.332", "PostToolBatch", &["unchanged"; 3]),
    ] {
        let found: Vec<_> = recorded(version, event).iter().map(|line| shown(activity(event, line))).collect();
        assert_eq!(found, expected, "{version} {event}");
    }
}

#[test]
fn dialogs_of_older_versions_are_known_by_the_tool() {
    let used = |event: &str, tool: &str| shown(activity(event, &json!({"tool_name": tool})));
    for event in ["PreToolUse", "PermissionRequest"] {
        assert_eq!(used(event, "AskUserQuestion"), "waiting|question|main");
        assert_eq!(used(event, "ExitPlanMode"), "waiting|plan|main");
    }
    assert_eq!(shown(activity("Elicitation", &json!({"mcp_server_name": "m"}))), "waiting|question|main");
    assert_eq!(shown(activity("ElicitationResult", &json!({"action": "accept"}))), "working|main");
    assert_eq!(shown(activity("PermissionRequest", &json!({}))), "waiting|permission|main", "the tool is not known");
}

#[test]
fn notifications_without_a_type_are_known_by_their_message() {
    let notified = |input: Value| shown(activity("Notification", &input));
    assert_eq!(notified(json!({"message": "Claude needs your permission to use Bash"})), "waiting|permission|Bash");
    assert_eq!(notified(json!({"message": "Claude is waiting for your input"})), "idle");
    assert_eq!(notified(json!({"message": "Claude Code login successful"})), "unchanged");
    assert_eq!(notified(json!({"notification_type": "elicitation_dialog", "message": "m"})), "waiting|question");
    assert_eq!(notified(json!({"notification_type": "auth_success", "message": "needs permission"})), "unchanged");
    assert_eq!(notified(json!({"notification_type": 7})), "unchanged");
}

#[test]
fn turn_with_running_background_tasks_is_working() {
    let stopped = |tasks: Value, crons: Value| {
        shown(activity("Stop", &json!({"background_tasks": tasks, "session_crons": crons})))
    };
    let task = |status: &str| json!({"id": "a", "status": status});
    assert_eq!(stopped(json!([task("running"), task("running")]), json!([])), "working|2 background tasks");
    assert_eq!(stopped(json!([task("completed"), task("failed"), task("killed")]), json!([])), "idle");
    assert_eq!(stopped(json!([task("pending")]), json!([{}])), "working|1 background task, 1 scheduled task");
    assert_eq!(stopped(json!([]), json!([{}, {}])), "working|2 scheduled tasks");
    assert_eq!(stopped(json!("x"), Value::Null), "idle");
    let report = activity("Stop", &json!({"background_tasks": [task("running")]})).unwrap();
    assert!(report.in_background);
}

#[test]
fn kinds_of_errors_are_named_alike_for_all_versions() {
    let kind = |error: Value, message: &str| {
        activity("StopFailure", &json!({"error": error, "last_assistant_message": message})).unwrap().detail.unwrap()
    };
    assert_eq!(kind(json!("server_error"), "API Error: 500 Internal server error"), "server_error");
    assert_eq!(kind(json!("server_error"), "API Error: Repeated 529 errors"), "overloaded");
    assert_eq!(kind(json!("unknown"), "API Error: Request rejected (429)"), "rate_limit");
    assert_eq!(kind(json!("unknown"), "API Error: 401 invalid x-api-key"), "authentication_failed");
    assert_eq!(kind(json!("unknown"), "it has 15290 bytes"), "unknown");
    assert_eq!(kind(json!({"type": "overloaded_error"}), ""), "overloaded");
    assert_eq!(kind(json!("billing_error"), ""), "billing_error");
    assert_eq!(kind(Value::Null, ""), "unknown");
    assert_eq!(kind(json!("x".repeat(100_000)), "").len(), MAX_ID);
}

#[test]
fn interrupted_tool_ends_the_turn() {
    let failed = |input: Value| shown(activity("PostToolUseFailure", &input));
    assert_eq!(failed(json!({"is_interrupt": true})), "idle|main");
    assert_eq!(failed(json!({"is_interrupt": false})), "working|main");
}

/// The activity after recorded steps, as the daemon determines it.
#[test]
fn recorded_turns_leave_the_expected_activity() {
    let mut before: Option<ActivityTracker> = None;
    let mut now = 1_000_000;
    let mut step = |event: &str, index: usize, seconds: i64, expected: &str| {
        now += seconds * 1_000_000;
        let at = Timestamp::from_micros(now);
        if let Some(report) = activity(event, &recorded("2.1.332", event)[index]) {
            before =
                ActivityTracker::after(before.as_ref(), report.validate(at).unwrap(), at).or_else(|| before.clone());
        }
        let is = &before.as_ref().unwrap().activity;
        let parts = [Some(is.state.as_str()), is.waiting_for.map(WaitingFor::as_str), is.detail.as_deref()].into_iter();
        assert_eq!(parts.flatten().collect::<Vec<_>>().join(" "), expected, "after {event} {index}");
        (now - is.since.micros()) / 1_000_000
    };
    step("SessionStart", 0, 0, "idle");
    step("UserPromptSubmit", 1, 5, "working");
    step("PreToolUse", 0, 1, "working");
    step("PermissionRequest", 0, 0, "waiting permission Bash");
    let waited = step("Notification", 0, 6, "waiting permission Bash");
    assert_eq!(waited, 6, "the notification is of the same wait");
    step("PostToolUse", 0, 3, "working");
    step("Notification", 0, 0, "working");
    step("Stop", 1, 1, "idle");
    // A sub-agent in the background: its tools and its end do not change the parent.
    step("UserPromptSubmit", 0, 60, "working");
    step("SubagentStart", 0, 1, "working");
    step("Stop", 2, 1, "working 1 background task");
    step("PostToolUse", 2, 1, "working 1 background task");
    step("SubagentStop", 0, 1, "working 1 background task");
    step("UserPromptSubmit", 2, 1, "working");
    step("Stop", 1, 1, "idle");
    // A question, and its answer.
    step("PreToolUse", 3, 9, "waiting question");
    let waited = step("PermissionRequest", 1, 0, "waiting question");
    assert_eq!(waited, 0);
    step("PostToolUse", 3, 2, "working");
    step("StopFailure", 1, 1, "failed overloaded");
    step("Notification", 1, 60, "idle");
    step("PreCompact", 0, 9, "working");
    step("SubagentStop", 1, 1, "working");
    step("SessionStart", 1, 0, "idle");
    step("PostCompact", 0, 0, "idle");
}

proptest! {
    #[test]
    fn reports_are_always_valid(
        event in 0..HookEvent::ALL.len(),
        fields in prop::collection::vec((0..WANTED.len(), prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            "[\u{0}-\u{ff}\u{202e}]{0,400}".prop_map(Value::from),
            prop::collection::vec(any::<String>(), 0..3).prop_map(Value::from),
            Just(json!("AskUserQuestion")),
            Just(json!("permission_prompt")),
        ]), 0..8),
    ) {
        let object = fields.into_iter().map(|(name, value)| (WANTED[name].to_owned(), value)).collect();
        let input = Input::read(Value::Object(object).to_string().as_bytes(), &WANTED);
        if let Some(report) = of(HookEvent::ALL[event], &input) {
            prop_assert!(report.validate(Timestamp::from_micros(7)).is_ok(), "{:?}", report);
        }
    }
}
