//! What a session was at, put together again from what it left behind.
//!
//! The best of four sources vouches for the whole and gives the confidence; whatever the others add is told beside it,
//! in the order in which it happened.

mod describe;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod value;

use std::time::Duration;

use serde_json::Value;

use super::time::age;
use super::{HistoryRecord, Session, Timestamp};

/// A checkpoint as old as this no longer vouches for anything.
const CHECKPOINT_LASTS: Duration = Duration::from_secs(60 * 60);
/// How many recent actions are told.
const ACTIONS: usize = 10;

/// What is left of a session, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recollection {
    pub checkpoint: Option<HistoryRecord>,
    pub events: Vec<HistoryRecord>,
    pub commands: Vec<HistoryRecord>,
}

impl Recollection {
    /// How many events are looked at.
    pub const EVENTS: usize = 50;
    /// How many commands are looked at.
    pub const COMMANDS: usize = 20;

    /// Everything, oldest first.
    fn in_order(&self) -> Vec<&HistoryRecord> {
        let newest_first = self.events.iter().chain(&self.commands).chain(&self.checkpoint);
        let mut records: Vec<_> = newest_first.collect();
        records.reverse();
        records.sort_by_key(|record| record.at);
        records
    }
}

/// What vouches for a context, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Checkpoint,
    Events,
    Commands,
    /// Nothing but the session's row.
    Session,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Events => "events",
            Self::Commands => "commands",
            Self::Session => "session",
        }
    }
}

/// Where the work stood. All text is one line of bounded length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkState {
    pub current_epic: Option<String>,
    pub last_completed_epic: Option<String>,
    /// How many, or whatever else the session itself said of it.
    pub tests_passed: Option<Value>,
    /// The last error that nothing later made good.
    pub last_error: Option<String>,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub at: Timestamp,
    pub what: String,
}

/// What a session was at. All text is one line of bounded length.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    pub source: Source,
    /// In percent.
    pub confidence: u8,
    /// Why that source and that confidence, in one sentence.
    pub reason: String,
    pub work_state: WorkState,
    /// Newest first.
    pub recent_actions: Vec<Action>,
    /// What to do, the most urgent first.
    pub next_steps: Vec<String>,
}

/// Puts together what a session was at, as of `now`.
pub fn reconstruct(session: &Session, left: &Recollection, now: Timestamp) -> Context {
    let records = left.in_order();
    let (source, confidence, reason) = judge(left, now);
    let story = state::Story::of(session, &records);
    let next_steps = steps::next_steps(session, &story, source, now);
    let actions = records.iter().rev().filter_map(|r| Some(Action { at: r.at, what: describe::action(r)? }));
    Context {
        source,
        confidence,
        reason,
        recent_actions: actions.take(ACTIONS).collect(),
        work_state: story.work,
        next_steps,
    }
}

/// The best source, what it is worth by its age, and why.
fn judge(left: &Recollection, now: Timestamp) -> (Source, u8, String) {
    let checkpoint = left.checkpoint.as_ref().map(|c| (now.since(c.at), describe::phrase(&c.record_type)));
    let (none, since) = match &checkpoint {
        Some((old, kind)) if *old < CHECKPOINT_LASTS => {
            let reason = format!("the newest checkpoint ({kind}) is {} old", age(*old));
            return (Source::Checkpoint, by_age(*old, [5, 30], [100, 90, 80]), reason);
        }
        Some((old, _)) => (format!("the newest checkpoint is {} old", age(*old)), "since"),
        None => ("there is no checkpoint".to_owned(), "at all"),
    };
    if let Some(old) = youngest(&left.events, now) {
        let reason = format!("{none}; the last of {} events is {} old", left.events.len(), age(old));
        return (Source::Events, by_age(old, [30, 60], [85, 75, 65]), reason);
    }
    if let Some(old) = youngest(&left.commands, now) {
        let reason = format!("{none}, and no event; the last of {} commands is {} old", left.commands.len(), age(old));
        return (Source::Commands, by_age(old, [30, 60], [70, 60, 50]), reason);
    }
    (Source::Session, 40, format!("{none}, and neither events nor commands {since}: only the session itself is known"))
}

fn youngest(records: &[HistoryRecord], now: Timestamp) -> Option<Duration> {
    records.iter().map(|record| now.since(record.at)).min()
}

/// The confidence up to the first age, up to the second, and above; the ages in minutes.
fn by_age(old: Duration, minutes: [u64; 2], confidence: [u8; 3]) -> u8 {
    let over = |minutes: u64| old > Duration::from_secs(minutes * 60);
    confidence[usize::from(over(minutes[0])) + usize::from(over(minutes[1]))]
}
