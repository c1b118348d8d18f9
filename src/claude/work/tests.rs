use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::Timestamp;
use crate::domain::text::is_unsafe;
use crate::domain::work::{MAX_BYTES, WorkSnapshot};

const WANTED_HERE: &[&str] = &["agent_id", "source"];

fn update(event: HookEvent, input: &Value, recording: Recording) -> Option<WorkUpdate> {
    of(event, &Input::read(input.to_string().as_bytes(), &[&WANTED[..], WANTED_HERE].concat()), recording)
}

fn full(event: HookEvent, input: &Value) -> WorkUpdate {
    update(event, input, Recording::Full).unwrap_or_default()
}

fn recorded(version: &str, event: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents/claude-code").join(version);
    let text = fs::read_to_string(folder.join(format!("{event}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn recorded_events_yield_the_work() {
    let of = |event: HookEvent, index: usize| full(event, &recorded("2.1.332", event.name())[index]);
    assert_eq!(of(HookEvent::SessionStart, 0).model.as_deref(), Some("claude-opus-5-5"));
    assert!(of(HookEvent::SessionStart, 2).cleared);
    assert_eq!(of(HookEvent::SessionStart, 7).title.as_deref(), Some("mytask"));
    assert_eq!(of(HookEvent::UserPromptSubmit, 0).prompt.as_deref(), Some("Hello there, build the flux capacitor"));
    assert_eq!(of(HookEvent::UserPromptSubmit, 2), WorkUpdate::default(), "no user wrote a task's notification");
    assert_eq!(of(HookEvent::Stop, 1).answer.as_deref(), Some("The tool has run. All done."));
    let failure = of(HookEvent::StopFailure, 0).error.unwrap();
    assert_eq!(failure.kind, "rate_limit");
    assert!(failure.message.starts_with("API Error: Request rejected (429)"), "{failure:?}");
    let failure = of(HookEvent::PostToolUseFailure, 0).error.unwrap();
    assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("tool", "Bash (false): Exit code 1"));
    assert!(of(HookEvent::PostCompact, 0).compact_summary.unwrap().contains("build the flux capacitor"));
    for index in 0..recorded("2.1.332", "PostToolUse").len() {
        assert_eq!(of(HookEvent::PostToolUse, index), WorkUpdate::default());
    }
    assert_eq!(full(HookEvent::Stop, &recorded("2.0.76", "Stop")[0]), WorkUpdate::default());
}

#[test]
fn plan_and_questions_are_the_last_that_was_said() {
    let of = |event: HookEvent, tool: &str, input: Value| {
        full(event, &json!({"tool_name": tool, "tool_input": input})).answer
    };
    let plan = json!({"plan": "1. Measure.\n2. Mend."});
    assert_eq!(of(HookEvent::PermissionRequest, "ExitPlanMode", plan).as_deref(), Some("1. Measure.\n2. Mend."));
    let asked = json!({"questions": [{"question": "Which colour?"}, {"question": "How large?"}, 7]});
    assert_eq!(
        of(HookEvent::PreToolUse, "AskUserQuestion", asked.clone()).as_deref(),
        Some("Which colour?\nHow large?")
    );
    for (tool, input) in [("Bash", asked), ("ExitPlanMode", json!({"plan": 7})), ("AskUserQuestion", json!({}))] {
        assert_eq!(of(HookEvent::PermissionRequest, tool, input), None, "{tool}");
    }
    let titles = json!({"tool_name": "ExitPlanMode", "tool_input": {"plan": "p"}});
    assert_eq!(update(HookEvent::PermissionRequest, &titles, Recording::Titles), None);
}

#[test]
fn status_line_yields_title_model_and_cost() {
    let of = |version: &str, at: usize| {
        let line = recorded(version, "statusline")[at].to_string();
        of_status_line(&Input::read(line.as_bytes(), &WANTED_OF_STATUS_LINE), Recording::Titles).unwrap()
    };
    let old = of("2.0.76", 1);
    assert_eq!(
        (old.model.as_deref(), old.agent_version.as_deref()),
        (Some("claude-sonnet-4-5-20250929"), Some("2.0.76"))
    );
    assert_eq!(old.cost_usd, Some(0.210_146));
    let named = recorded("2.1.332", "statusline").iter().filter(|line| line["session_name"].is_string()).count();
    let titles = (0..recorded("2.1.332", "statusline").len()).filter(|at| of("2.1.332", *at).title.is_some()).count();
    assert_eq!(named, titles);
}

#[test]
fn tools_that_write_name_their_files() {
    let files =
        |tool: &str, input: Value| full(HookEvent::PostToolUse, &json!({"tool_name": tool, "tool_input": input})).files;
    assert_eq!(files("Edit", json!({"file_path": "/w/a.rs", "old_string": "x"})), ["/w/a.rs"]);
    assert_eq!(files("Write", json!({"content": "x", "file_path": "/w/b.rs"})), ["/w/b.rs"]);
    assert_eq!(files("NotebookEdit", json!({"notebook_path": "/w/c.ipynb"})), ["/w/c.ipynb"]);
    assert_eq!(files("create", json!({"path": "/w/d"})), ["/w/d"]);
    assert_eq!(files("Read", json!({"file_path": "/w/a.rs"})), [""; 0]);
    assert_eq!(files("Write", json!({"file_path": 7})), [""; 0]);
}

#[test]
fn todos_are_read() {
    let input = json!({"tool_name": "TodoWrite", "tool_input": {"todos": [
        {"content": "one", "status": "completed", "activeForm": "x"},
        {"content": "two", "status": "in_progress"},
        {"content": "three", "status": "of a later version"},
        {"status": "pending"},
        7,
    ]}});
    let todos = full(HookEvent::PostToolUse, &input).todos.unwrap();
    let found: Vec<_> = todos.iter().map(|todo| (todo.text.as_str(), todo.status)).collect();
    let expected = [("one", TodoStatus::Completed), ("two", TodoStatus::InProgress), ("three", TodoStatus::Pending)];
    assert_eq!(found, expected);
}

#[test]
fn only_what_may_be_recorded_leaves_the_process() {
    let prompt = json!({"prompt": "Fix the login\nit is broken", "session_title": "login"});
    let titles = update(HookEvent::UserPromptSubmit, &prompt, Recording::Titles).unwrap();
    assert_eq!((titles.prompt.as_deref(), titles.title.as_deref()), (Some("Fix the login"), Some("login")));
    assert_eq!(update(HookEvent::UserPromptSubmit, &prompt, Recording::None), None);
    let answer = json!({"last_assistant_message": "done"});
    assert_eq!(update(HookEvent::Stop, &answer, Recording::Titles), None);
    let failed = json!({"error": "rate_limit", "last_assistant_message": "text"});
    let error = update(HookEvent::StopFailure, &failed, Recording::Titles).unwrap().error.unwrap();
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("rate_limit", ""));
}

#[test]
fn sub_agents_and_interrupts_report_no_prompt() {
    let answer = json!({"agent_id": "a", "last_assistant_message": "done"});
    assert_eq!(full(HookEvent::Stop, &answer), WorkUpdate::default());
    let interrupted = json!({"tool_name": "Bash", "error": "x", "is_interrupt": true});
    assert_eq!(full(HookEvent::PostToolUseFailure, &interrupted), WorkUpdate::default());
}

#[test]
fn secrets_are_blanked_before_text_is_cut() {
    const SECRET: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
    let has_secret = |update: &WorkUpdate| {
        let json = serde_json::to_string(update).unwrap();
        (0..SECRET.len() - 12).any(|at| json.contains(&SECRET[at..at + 12]))
    };
    for before in [0, 1300, 1990, 2000, 32_700, 32_768, 65_500, 100_000] {
        for after in [0, 700, 2000, 32_740, 65_500] {
            let text = format!("{}{SECRET} {}", "word ".repeat(before / 5), "word ".repeat(after / 5));
            for (event, field) in [
                (HookEvent::UserPromptSubmit, "prompt"),
                (HookEvent::Stop, "last_assistant_message"),
                (HookEvent::PostCompact, "compact_summary"),
                (HookEvent::PostToolUseFailure, "error"),
            ] {
                let update = full(event, &json!({field: text}));
                assert!(!has_secret(&update), "{before} {after} {field}");
            }
        }
    }
    let todos = json!({"tool_name": "TodoWrite", "tool_input": {"todos": [
        {"content": format!("{}{SECRET}", "word ".repeat(39)), "status": "pending"}]}});
    assert!(!has_secret(&full(HookEvent::PostToolUse, &todos)));
    let failed = json!({"tool_name": "Bash", "error": "x",
        "tool_input": {"command": format!("curl -H 'Authorization: Bearer {SECRET}'")}});
    assert!(!has_secret(&full(HookEvent::PostToolUseFailure, &failed)));
}

#[test]
fn examined_text_does_not_grow_with_the_prompt() {
    let input = |bytes: usize| {
        let text = json!({"prompt": "password=Hunter2xyz \"and\" so on\n".repeat(bytes / 33)}).to_string();
        Input::read(text.as_bytes(), &WANTED)
    };
    let time = |input: &Input| {
        let runs = (0..5).map(|_| {
            let began = Instant::now();
            assert!(of(HookEvent::UserPromptSubmit, input, Recording::Full).is_some());
            began.elapsed()
        });
        runs.min().unwrap_or_default()
    };
    let (small, large) = (time(&input(2 * EXAMINED)), time(&input(5 << 20)));
    assert!(large < small * 10 + Duration::from_millis(5), "{large:?} for 5 MiB, {small:?} for 64 KiB");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn updates_are_bounded_and_safe(
        event in 0..HookEvent::ALL.len(),
        text in "[\u{0}-\u{1f}a-z\"\\\\ \u{80}-\u{9f}\u{202a}-\u{202e}\u{2066}-\u{2069}\u{1f600}\n]{0,300}",
        repeated in prop_oneof![Just(1_usize), Just(50), Just(500)],
        count in 0..100_usize,
    ) {
        let text = text.repeat(repeated);
        let todo = json!({"content": text.chars().take(3000).collect::<String>(), "status": "pending"});
        let input = json!({"prompt": text, "last_assistant_message": text, "compact_summary": text, "error": text,
            "session_title": text, "model": text, "tool_name": "TodoWrite",
            "tool_input": {"todos": vec![todo; count], "command": text, "file_path": text}});
        let update = full(HookEvent::ALL[event], &input);
        let bytes = serde_json::to_vec(&update).unwrap();
        prop_assert!(bytes.len() < 60 << 10, "{} bytes", bytes.len());
        let texts = [&update.title, &update.prompt, &update.answer, &update.compact_summary, &update.model];
        for text in texts.into_iter().flatten() {
            prop_assert!(!text.contains(|c: char| is_unsafe(c) && c != '\n' && c != '\t'), "{:?}", text);
        }
        let mut snapshot = WorkSnapshot::default();
        snapshot.apply(update, Timestamp::from_micros(7));
        prop_assert!(snapshot.to_json().len() <= MAX_BYTES);
    }
}
