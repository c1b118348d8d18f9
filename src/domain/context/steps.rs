//! Suggests the next steps, as sentences for a user or an agent.

use super::state::WorkHistory;
use super::value::as_text;
use super::{ContextSource, WorkDetails};
use crate::domain::time::age;
use crate::domain::{Session, Timestamp};

/// The share of the context window, in percent, from which a new conversation is suggested.
const NEARLY_FULL: u8 = 80;

pub(super) fn next_steps(
    session: &Session,
    history: &WorkHistory,
    details: &WorkDetails,
    source: ContextSource,
    now: Timestamp,
) -> Vec<String> {
    let mut steps = details.steps();
    if let Some(error) = &history.work.last_error {
        steps.push(format!("Resolve the last error: {error}"));
    }
    steps.extend(planned(history, source, now));
    for what in &history.in_progress {
        steps.push(match *what {
            "test" => "Run the tests again: the result of the last run is not recorded".to_owned(),
            what => format!("Check the {what}: its result is not recorded"),
        });
    }
    for request in history.open_requests.iter().rev().take(3) {
        steps.push(format!("Check pull request {request}: it is not recorded as merged"));
    }
    if let Some(message) = &history.user_message {
        steps.push(format!("Check that the user's last message is answered: \"{message}\""));
    }
    steps.push(epic(history, details));
    if session.context_percent >= NEARLY_FULL {
        steps.push(format!(
            "Start a new conversation with this context: {} % of the old one's context window is used",
            session.context_percent
        ));
    }
    if source == ContextSource::Session {
        steps.push(other_source(session));
    }
    steps
}

/// The planned steps of the newest checkpoint, with their age unless that checkpoint is the source.
fn planned(history: &WorkHistory, source: ContextSource, now: Timestamp) -> impl Iterator<Item = String> {
    let since = history.planned_at.filter(|_| source != ContextSource::Checkpoint);
    let prefix = since.map_or(String::new(), |at| format!("Planned {} ago: ", age(now.since(at))));
    history.planned.iter().map(move |step| format!("{prefix}{step}"))
}

fn epic(history: &WorkHistory, details: &WorkDetails) -> String {
    match (&history.work.current_epic, &history.work.last_completed_epic) {
        (Some(current), Some(completed)) if current == completed => {
            format!("Start the next epic: {completed} is completed")
        }
        (Some(current), _) => format!("Continue epic {current}"),
        (None, Some(completed)) => format!("Start the next epic: {completed} is completed"),
        (None, None) => match details.goal() {
            Some(goal) => format!("Continue: {goal}"),
            None => "Ask what to work on: neither an epic nor a prompt is recorded".to_owned(),
        },
    }
}

fn other_source(session: &Session) -> String {
    let known = |text: &Option<String>| text.as_deref().and_then(|text| as_text(&text.into()));
    match (&session.resumed_from, known(&session.claude_session_path), known(&session.working_dir)) {
        (Some(from), ..) => format!("Read the context of the session that it continues: sessiond context {from}"),
        (_, Some(path), _) => format!("Read the end of its transcript on {}: {path}", session.host_machine),
        (_, _, Some(dir)) => format!("Check the newest changes in {dir} on {}", session.host_machine),
        _ => format!("Ask its user on {}: nothing of its work is recorded", session.host_machine),
    }
}
