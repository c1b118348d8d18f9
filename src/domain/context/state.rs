//! Derives the state of the work by applying a session's records in order.

use serde_json::{Map, Value};

use super::WorkState;
use super::describe::{self, EPIC, ERROR};
use super::value::{as_text, field, list, text};
use crate::domain::{HistoryRecord, RecordKind, Session, Timestamp};

/// How many planned steps of a checkpoint are kept.
const MAX_PLANNED: usize = 5;
/// How many unresolved errors are kept, the newest.
const MAX_ERRORS: usize = 32;

/// What a session's records say when they are applied in order.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkHistory {
    pub work: WorkState,
    /// The next steps of the newest checkpoint, and its time.
    pub planned: Vec<String>,
    pub planned_at: Option<Timestamp>,
    /// Started, with no recorded end: `test`, `deployment`.
    pub in_progress: Vec<&'static str>,
    /// Pull requests that were opened and not merged.
    pub open_requests: Vec<String>,
    /// The user's last message.
    pub user_message: Option<String>,
    /// The errors that no later record resolves: what would resolve each, and its message.
    open_errors: Vec<(String, String)>,
    /// The number of events of passed tests that do not contain a count.
    passed: u64,
}

impl WorkHistory {
    /// `records`: oldest first.
    pub(super) fn of(session: &Session, records: &[&HistoryRecord]) -> Self {
        let mut history = Self::default();
        for record in records {
            match record.kind {
                RecordKind::Checkpoint => history.checkpoint(record),
                RecordKind::Event => history.event(record),
                RecordKind::Command => history.command(record),
            }
        }
        // The row has the epic of the session's last heartbeat.
        if let Some(epic) = session.current_epic.as_deref().and_then(|epic| as_text(&epic.into())) {
            history.work.current_epic = Some(epic);
        }
        history.work.last_error = history.open_errors.last().map(|(_, message)| message.clone());
        if history.work.tests_passed.is_none() && history.passed > 0 {
            history.work.tests_passed = Some(history.passed.into());
        }
        history
    }

    /// Whether a next step follows from the records.
    pub(super) fn has_step(&self) -> bool {
        !self.planned.is_empty()
            || !self.in_progress.is_empty()
            || !self.open_requests.is_empty()
            || !self.open_errors.is_empty()
            || self.user_message.is_some()
            || self.work.current_epic.is_some()
            || self.work.last_completed_epic.is_some()
    }

    fn checkpoint(&mut self, record: &HistoryRecord) {
        let Some(state) = field(&record.body, "work_state").and_then(Value::as_object) else { return };
        let replace = |known: &mut Option<String>, names: &[&str]| {
            if let Some(text) = text(state, names) {
                *known = Some(text);
            }
        };
        replace(&mut self.work.current_epic, &["current_epic", "epic"]);
        replace(&mut self.work.last_completed_epic, &["last_completed_epic", "completed_epic"]);
        if let Some(tests) = field(state, "tests_passed").and_then(plain) {
            self.work.tests_passed = Some(tests);
        }
        // A checkpoint with this field names the only error that is left, or none.
        if let Some(error) = state.get("last_error").or_else(|| state.get("lastError")) {
            self.open_errors.clear();
            self.record_error("checkpoint", as_text(error));
        }
        let planned = list(state, &["next_steps", "todo", "remaining", "pending", "next"], MAX_PLANNED);
        self.planned_at = (!planned.is_empty()).then_some(record.at);
        self.planned = planned;
    }

    fn event(&mut self, record: &HistoryRecord) {
        let none = Map::new();
        let data = field(&record.body, "data").and_then(Value::as_object).unwrap_or(&none);
        match record.record_type.as_str() {
            "epic_started" => self.work.current_epic = text(data, &EPIC).or(self.work.current_epic.take()),
            "epic_completed" => {
                let completed = text(data, &EPIC).or_else(|| self.work.current_epic.clone());
                if completed == self.work.current_epic {
                    self.work.current_epic = None;
                }
                self.work.last_completed_epic = completed.or(self.work.last_completed_epic.take());
                self.resolve("epic");
            }
            "epic_failed" => {
                let epic = text(data, &EPIC).map_or("the epic".to_owned(), |epic| format!("epic {epic}"));
                let why = text(data, &["error", "error_message", "reason", "message"]);
                self.record_error(
                    "epic",
                    Some(why.map_or(format!("{epic} failed"), |why| format!("{epic} failed: {why}"))),
                );
            }
            "test_passed" => {
                self.count_tests(data);
                self.resolve("test");
                self.end_run("test");
            }
            "pr_created" => self.open_requests.extend(describe::pull_request(record)),
            "pr_merged" => {
                let merged = describe::pull_request(record);
                self.open_requests.retain(|open| merged.as_ref().is_some_and(|merged| merged != open));
            }
            "user_message" => self.user_message = text(data, &["message", "text", "content", "prompt"]),
            "error" => {
                self.record_error("error", text(data, &ERROR).or_else(|| Some("an error without a message".into())))
            }
            "tool_result" if failed(data) => self.record_error("tool", text(data, &ERROR)),
            other => self.run(other, data),
        }
    }

    /// Applies the start or the end of tests, of a validation or of a deployment.
    fn run(&mut self, record_type: &str, data: &Map<String, Value>) {
        let Some((what, how)) = record_type.rsplit_once('_') else { return };
        let Some(what) = ["test", "validation", "deployment"].into_iter().find(|known| *known == what) else { return };
        self.end_run(what);
        match how {
            "started" => self.in_progress.push(what),
            "failed" => {
                let why = text(data, &ERROR).map_or(String::new(), |why| format!(": {why}"));
                self.record_error(what, Some(format!("{what} failed{why}")));
            }
            _ => self.resolve(what),
        }
    }

    fn command(&mut self, record: &HistoryRecord) {
        let name = describe::command_name(record);
        let by = format!("command {name}");
        match describe::failure(record) {
            Some(why) => self.record_error(&by, Some(format!("{name} failed: {why}"))),
            None => self.resolve(&by),
        }
    }

    fn count_tests(&mut self, data: &Map<String, Value>) {
        let counted = ["tests_passed", "passed", "count", "total_passed"];
        match counted.iter().find_map(|name| field(data, name).filter(|value| value.is_u64())) {
            Some(number) => self.work.tests_passed = Some(number.clone()),
            None => self.passed += 1,
        }
    }

    fn record_error(&mut self, what: &str, message: Option<String>) {
        let Some(message) = message else { return };
        self.resolve(what);
        if self.open_errors.len() == MAX_ERRORS {
            self.open_errors.remove(0);
        }
        self.open_errors.push((what.to_owned(), message));
    }

    fn resolve(&mut self, what: &str) {
        self.open_errors.retain(|(failed, _)| failed != what);
    }

    fn end_run(&mut self, what: &str) {
        self.in_progress.retain(|started| *started != what);
    }
}

fn failed(data: &Map<String, Value>) -> bool {
    let is = |name, value: bool| field(data, name).is_some_and(|found| *found == value);
    is("is_error", true) || is("success", false)
}

/// A number, a boolean or text of bounded length; none for other values.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.clone()),
        other => as_text(other).map(Value::String),
    }
}
