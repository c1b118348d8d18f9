//! Where the work stood: records in order, each of which changes what is known.

use serde_json::{Map, Value};

use super::WorkState;
use super::describe::{self, EPIC, ERROR};
use super::value::{field, list, said, text};
use crate::domain::{HistoryRecord, Kind, Session, Timestamp};

/// How many planned steps of a checkpoint are told.
const PLANNED: usize = 5;
/// How many troubles are remembered; the newest count.
const TROUBLES: usize = 32;

/// What a session's records tell when they are read in order.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub work: WorkState,
    /// What the newest checkpoint says is to be done next, and when it said so.
    pub planned: Vec<String>,
    pub planned_at: Option<Timestamp>,
    /// Begun and not known to have ended: `test`, `deployment`.
    pub under_way: Vec<&'static str>,
    /// Pull requests that were opened and not merged.
    pub open_requests: Vec<String>,
    /// What the user said last.
    pub user_message: Option<String>,
    /// What went wrong and was not made good since: what could do so, and the words.
    troubles: Vec<(String, String)>,
    /// Tests that passed one by one, without anybody counting them.
    passed: u64,
}

impl Story {
    /// `records`: oldest first.
    pub fn of(session: &Session, records: &[&HistoryRecord]) -> Self {
        let mut story = Self::default();
        for record in records {
            match record.kind {
                Kind::Checkpoint => story.checkpoint(record),
                Kind::Event => story.event(record),
                Kind::Command => story.command(record),
            }
        }
        // The row is what the session itself says all along.
        if let Some(epic) = session.current_epic.as_deref().and_then(|epic| said(&epic.into())) {
            story.work.current_epic = Some(epic);
        }
        story.work.last_error = story.troubles.last().map(|(_, words)| words.clone());
        if story.work.tests_passed.is_none() && story.passed > 0 {
            story.work.tests_passed = Some(story.passed.into());
        }
        story
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
        // A checkpoint that names the error names the one that is left, or that there is none.
        if let Some(error) = state.get("last_error").or_else(|| state.get("lastError")) {
            self.troubles.clear();
            self.trouble("checkpoint", said(error));
        }
        let planned = list(state, &["next_steps", "todo", "remaining", "pending", "next"], PLANNED);
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
                self.made_good("epic");
            }
            "epic_failed" => {
                let epic = text(data, &EPIC).map_or("the epic".to_owned(), |epic| format!("epic {epic}"));
                let why = text(data, &["error", "error_message", "reason", "message"]);
                self.trouble("epic", Some(why.map_or(format!("{epic} failed"), |why| format!("{epic} failed: {why}"))));
            }
            "test_passed" => {
                self.count_tests(data);
                self.made_good("test");
                self.ended("test");
            }
            "pr_created" => self.open_requests.extend(describe::pull_request(record)),
            "pr_merged" => {
                let merged = describe::pull_request(record);
                self.open_requests.retain(|open| merged.as_ref().is_some_and(|merged| merged != open));
            }
            "user_message" => self.user_message = text(data, &["message", "text", "content", "prompt"]),
            "error" => self.trouble("error", text(data, &ERROR).or_else(|| Some("an error without words".into()))),
            "tool_result" if failed(data) => self.trouble("tool", text(data, &ERROR)),
            other => self.run(other, data),
        }
    }

    /// Tests, validations and deployments begin, and end well or badly.
    fn run(&mut self, record_type: &str, data: &Map<String, Value>) {
        let Some((what, how)) = record_type.rsplit_once('_') else { return };
        let Some(what) = ["test", "validation", "deployment"].into_iter().find(|known| *known == what) else { return };
        self.ended(what);
        match how {
            "started" => self.under_way.push(what),
            "failed" => {
                let why = text(data, &ERROR).map_or(String::new(), |why| format!(": {why}"));
                self.trouble(what, Some(format!("{what} failed{why}")));
            }
            _ => self.made_good(what),
        }
    }

    fn command(&mut self, record: &HistoryRecord) {
        let name = describe::command_name(record);
        let by = format!("command {name}");
        match describe::failure(record) {
            Some(why) => self.trouble(&by, Some(format!("{name} failed: {why}"))),
            None => self.made_good(&by),
        }
    }

    fn count_tests(&mut self, data: &Map<String, Value>) {
        let counted = ["tests_passed", "passed", "count", "total_passed"];
        match counted.iter().find_map(|name| field(data, name).filter(|value| value.is_u64())) {
            Some(number) => self.work.tests_passed = Some(number.clone()),
            None => self.passed += 1,
        }
    }

    fn trouble(&mut self, what: &str, words: Option<String>) {
        let Some(words) = words else { return };
        self.made_good(what);
        if self.troubles.len() == TROUBLES {
            self.troubles.remove(0);
        }
        self.troubles.push((what.to_owned(), words));
    }

    fn made_good(&mut self, what: &str) {
        self.troubles.retain(|(broken, _)| broken != what);
    }

    fn ended(&mut self, what: &str) {
        self.under_way.retain(|begun| *begun != what);
    }
}

fn failed(data: &Map<String, Value>) -> bool {
    let is = |name, value: bool| field(data, name).is_some_and(|found| *found == value);
    is("is_error", true) || is("success", false)
}

/// A number, a yes or no, or text; nothing that could be of any size.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.clone()),
        other => said(other).map(Value::String),
    }
}
