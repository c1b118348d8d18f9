//! What the work snapshot and the newest checkpoint say of the work, and how much of what a successor needs is known.

use std::time::Duration;

use serde_json::Value;

use super::{ContextSource, SessionHistory};
use crate::domain::Timestamp;
use crate::domain::activity::{Activity, ActivityState, WaitingFor};
use crate::domain::text::inline;
use crate::domain::work::{Dated, Repository, TodoStatus, WorkSnapshot};

/// How many fields of a checkpoint are listed.
const MAX_NOTES: usize = 20;
/// The longest value of a checkpoint's field, in bytes.
const MAX_NOTE: usize = 500;

/// The fields of a checkpoint that say how it was made, not what the work is.
const CIRCUMSTANCES: [&str; 5] = ["reason", "trigger", "transcript", "working_dir", "timestamp"];

/// What is recorded of the work, as text. Prompts, answers and summaries may have several lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkDetails {
    /// The newest one; the session need not be active any more.
    pub last_activity: Option<Activity>,
    pub(crate) snapshot: WorkSnapshot,
    /// The fields of the newest checkpoint, by name.
    pub notes: Vec<(String, String)>,
}

impl WorkDetails {
    pub(crate) fn of(left: &SessionHistory) -> Self {
        let work = left.work.as_ref();
        Self {
            last_activity: work.and_then(|work| work.activity.clone()),
            snapshot: work.map(|work| work.snapshot.clone()).unwrap_or_default(),
            notes: notes(left),
        }
    }

    /// What the session is about: its title, or else its first prompt.
    pub fn goal(&self) -> Option<String> {
        let title = self.snapshot.title.as_ref().map(|title| title.value.text.as_str());
        let goal = title.or(self.snapshot.first_prompt.as_ref().map(|prompt| prompt.value.as_str()))?;
        Some(inline(goal, 240)).filter(|goal| !goal.is_empty())
    }

    /// When the newest part of the conversation was recorded.
    pub fn newest(&self) -> Option<Timestamp> {
        let WorkSnapshot { last_prompt, last_answer, compact_summary, .. } = &self.snapshot;
        let texts = [last_prompt, last_answer, compact_summary].into_iter().flatten().map(|part| part.at);
        texts.chain(self.snapshot.todos.as_ref().map(|todos| todos.at)).max()
    }

    /// The steps that follow from what the session was doing, the most urgent first.
    pub fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if let Some(activity) = self.last_activity.as_ref().filter(|a| a.state == ActivityState::Waiting) {
            steps.push(wait(activity));
        }
        let todos = self.snapshot.todos.as_ref().map_or(&[][..], |todos| &todos.value);
        for status in [TodoStatus::InProgress, TodoStatus::Pending] {
            let open = todos.iter().filter(|todo| todo.status == status).take(5);
            steps.extend(open.map(|todo| match status {
                TodoStatus::InProgress => format!("Finish what was begun: {}", todo.text),
                _ => format!("Do what is left: {}", todo.text),
            }));
        }
        let prompt = self.snapshot.last_prompt.as_ref();
        let is_answered =
            |prompt: &Dated<String>| self.snapshot.last_answer.as_ref().is_some_and(|a| a.at >= prompt.at);
        if let Some(prompt) = prompt.filter(|prompt| !is_answered(prompt)) {
            steps
                .push(format!("Do what the last prompt asks, which has no answer yet: {}", inline(&prompt.value, 240)));
        }
        steps
    }

    pub(crate) fn repository(&self) -> Option<&Repository> {
        self.snapshot.repository.as_ref().map(|repository| &repository.value)
    }
}

fn wait(activity: &Activity) -> String {
    let detail = activity.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    match activity.waiting_for {
        Some(WaitingFor::Permission) => format!("Allow or refuse the tool that it waits to use{detail}"),
        Some(WaitingFor::Question) => format!("Answer its question{detail}"),
        Some(WaitingFor::Plan) => format!("Approve its plan, or say what to change{detail}"),
        Some(WaitingFor::Input) | None => format!("Give the input that it waits for{detail}"),
    }
}

fn notes(left: &SessionHistory) -> Vec<(String, String)> {
    let state = left.checkpoint.as_ref().and_then(|checkpoint| checkpoint.body.get("work_state"));
    let Some(Value::Object(state)) = state else { return Vec::new() };
    let note = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((inline(name, 64), inline(&text, MAX_NOTE))).filter(|(_, text)| !text.is_empty())
    };
    state.iter().filter(|(name, _)| !CIRCUMSTANCES.contains(&name.as_str())).filter_map(note).take(MAX_NOTES).collect()
}

/// Whether the newest checkpoint says anything of the work.
pub(super) fn has_content(left: &SessionHistory) -> bool {
    !notes(left).is_empty()
}

/// How much of what a successor needs is known: at most so much confidence, in percent, and what is not known.
pub(super) fn known(details: &WorkDetails, has_epic: bool, has_state: bool, has_step: bool) -> (u8, Vec<&'static str>) {
    let has_goal = details.goal().is_some() || has_epic;
    let has_state = has_state || details.snapshot.last_answer.is_some() || details.snapshot.compact_summary.is_some();
    let parts = [(has_goal, "its goal"), (has_state, "what was done last"), (has_step, "the next step")];
    let missing: Vec<_> = parts.iter().filter(|(known, _)| !known).map(|(_, what)| *what).collect();
    (40 + 20 * (parts.len() - missing.len()) as u8, missing)
}

/// The confidence that a snapshot of this age gives, in percent.
pub(super) fn confidence(old: Duration) -> u8 {
    match old.as_secs() / 60 {
        0..60 => 100,
        60..1440 => 90,
        _ => 80,
    }
}

/// The newest part of a snapshot, if it can be the source.
pub(super) fn source(details: &WorkDetails) -> Option<(ContextSource, Timestamp)> {
    details.newest().map(|at| (ContextSource::Work, at))
}
