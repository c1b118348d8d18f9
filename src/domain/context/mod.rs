//! Reconstructs a session's context from its recorded history.
//!
//! The best available of five sources (checkpoint, snapshot of the work, events, commands, the session's row) and how much
//! of what a successor needs is known determine the confidence. The
//! records of all sources are applied in the order of their times.

mod describe;
mod details;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod value;

use std::time::Duration;

use serde_json::Value;

use super::time::age;
use super::{HistoryRecord, Session, SessionWork, Timestamp};
pub use details::WorkDetails;

/// The age from which a checkpoint is not used as the source any more.
const MAX_CHECKPOINT_AGE: Duration = Duration::from_secs(60 * 60);
/// How many recent actions a context lists.
const MAX_ACTIONS: usize = 10;

/// The recorded history of a session, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionHistory {
    /// The newest checkpoint.
    pub checkpoint: Option<HistoryRecord>,
    /// The newest events, newest first.
    pub events: Vec<HistoryRecord>,
    /// The newest commands, newest first.
    pub commands: Vec<HistoryRecord>,
    /// What is recorded of the work.
    pub work: Option<SessionWork>,
}

impl SessionHistory {
    /// How many events are used.
    pub const EVENTS: usize = 50;
    /// How many commands are used.
    pub const COMMANDS: usize = 20;

    /// All records, oldest first.
    fn in_order(&self) -> Vec<&HistoryRecord> {
        let newest_first = self.events.iter().chain(&self.commands).chain(&self.checkpoint);
        let mut records: Vec<_> = newest_first.collect();
        records.reverse();
        records.sort_by_key(|record| record.at);
        records
    }
}

/// The source that determines a context's confidence, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextSource {
    /// The newest checkpoint.
    Checkpoint,
    /// The snapshot of the work.
    Work,
    /// The newest events.
    Events,
    /// The newest commands.
    Commands,
    /// Only the session's row.
    Session,
}

impl ContextSource {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Work => "work",
            Self::Events => "events",
            Self::Commands => "commands",
            Self::Session => "session",
        }
    }
}

/// The state of the work. All text is one line of bounded length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkState {
    pub(crate) current_epic: Option<String>,
    pub(crate) last_completed_epic: Option<String>,
    /// A number, or what the session recorded instead.
    pub tests_passed: Option<Value>,
    /// The last error that no later record resolves.
    pub last_error: Option<String>,
}

/// An action of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub(crate) at: Timestamp,
    pub(crate) what: String,
    /// How often it was done in a row.
    pub times: usize,
}

/// A session's reconstructed context. All text is one line of bounded length.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    pub(crate) source: ContextSource,
    /// In percent.
    pub confidence: u8,
    /// Why that source and that confidence, in one sentence.
    pub reason: String,
    pub(crate) work_state: WorkState,
    /// What is recorded of the work.
    pub details: WorkDetails,
    /// Newest first.
    pub recent_actions: Vec<Action>,
    /// Suggestions, the most urgent first.
    pub next_steps: Vec<String>,
}

/// Reconstructs a session's context as of `now`.
pub fn reconstruct(session: &Session, left: &SessionHistory, now: Timestamp) -> Context {
    let records = left.in_order();
    let details = WorkDetails::of(left);
    let (source, by_age, mut reason) = choose_source(left, &details, now);
    let history = state::WorkHistory::of(session, &records);
    let has_epic = history.work.current_epic.is_some();
    let has_state = source != ContextSource::Session;
    let has_step = history.has_step() || !details.steps().is_empty();
    let (by_content, missing) = details::known(&details, has_epic, has_state, has_step);
    let confidence = by_age.min(by_content);
    if by_content < by_age {
        reason.push_str(&format!("; not known: {}", missing.join(", ")));
    }
    let next_steps = steps::next_steps(session, &history, &details, source, now);
    let actions = records.iter().rev().filter_map(|r| Some(Action { at: r.at, what: describe::action(r)?, times: 1 }));
    let actions = folded(actions);
    Context { source, confidence, reason, recent_actions: actions, details, work_state: history.work, next_steps }
}

/// Combines an action that is repeated with the one before, and keeps the newest ones.
fn folded(actions: impl Iterator<Item = Action>) -> Vec<Action> {
    let mut folded: Vec<Action> = Vec::new();
    for action in actions {
        let is_full = folded.len() == MAX_ACTIONS;
        match folded.last_mut() {
            Some(newer) if newer.what == action.what => newer.times += 1,
            _ if is_full => break,
            _ => folded.push(action),
        }
    }
    folded
}

/// The best source, the confidence by its age, and the reason in one sentence.
fn choose_source(left: &SessionHistory, details: &WorkDetails, now: Timestamp) -> (ContextSource, u8, String) {
    let checkpoint = left
        .checkpoint
        .as_ref()
        .filter(|_| details::has_content(left))
        .map(|c| (now.since(c.at), describe::phrase(&c.record_type)));
    let (none, since) = match &checkpoint {
        Some((old, kind)) if *old < MAX_CHECKPOINT_AGE => {
            let reason = format!("the newest checkpoint ({kind}) is {} old", age(*old));
            return (ContextSource::Checkpoint, by_age(*old, [5, 30], [100, 90, 80]), reason);
        }
        Some((old, _)) => (format!("the newest checkpoint is {} old", age(*old)), "since"),
        None if left.checkpoint.is_some() => ("the newest checkpoint says nothing of the work".to_owned(), "at all"),
        None => ("there is no checkpoint".to_owned(), "at all"),
    };
    if let Some((source, at)) = details::source(details) {
        let old = now.since(at);
        return (source, details::confidence(old), format!("{none}; the snapshot of the work is {} old", age(old)));
    }
    if let Some(old) = youngest_age(&left.events, now) {
        let reason = format!("{none}; the last of {} events is {} old", left.events.len(), age(old));
        return (ContextSource::Events, by_age(old, [30, 60], [85, 75, 65]), reason);
    }
    if let Some(old) = youngest_age(&left.commands, now) {
        let reason = format!("{none}, and no event; the last of {} commands is {} old", left.commands.len(), age(old));
        return (ContextSource::Commands, by_age(old, [30, 60], [70, 60, 50]), reason);
    }
    (
        ContextSource::Session,
        40,
        format!("{none}, and neither events nor commands {since}: only the session itself is known"),
    )
}

fn youngest_age(records: &[HistoryRecord], now: Timestamp) -> Option<Duration> {
    records.iter().map(|record| now.since(record.at)).min()
}

/// The confidence up to the first age in minutes, up to the second, and above.
fn by_age(old: Duration, minutes: [u64; 2], confidence: [u8; 3]) -> u8 {
    let over = |minutes: u64| old > Duration::from_secs(minutes * 60);
    confidence[usize::from(over(minutes[0])) + usize::from(over(minutes[1]))]
}
