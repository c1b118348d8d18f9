//! What to do next: sentences that a person, or an agent, can act on.

use super::Source;
use super::state::Story;
use super::value::said;
use crate::domain::time::age;
use crate::domain::{Session, Timestamp};

/// From this share of the context window on, a conversation had better not be continued.
const FULL: u8 = 80;

pub fn next_steps(session: &Session, story: &Story, source: Source, now: Timestamp) -> Vec<String> {
    let mut steps = Vec::new();
    if let Some(error) = &story.work.last_error {
        steps.push(format!("See to the last error, which nothing later made good: {error}"));
    }
    steps.extend(planned(story, source, now));
    for what in &story.under_way {
        steps.push(match *what {
            "test" => "Run the tests again: a run had begun, and how it ended is not recorded".to_owned(),
            what => format!("See how the {what} ended: it had begun, and that is not recorded"),
        });
    }
    for request in story.open_requests.iter().rev().take(3) {
        steps.push(format!("See to pull request {request}: it is not recorded as merged"));
    }
    if let Some(message) = &story.user_message {
        steps.push(format!("See that the user's last message is answered: \"{message}\""));
    }
    steps.push(epic(story));
    if session.context_percent >= FULL {
        steps.push(format!(
            "Begin a new conversation with this context: the old one's context window was {} % full",
            session.context_percent
        ));
    }
    if source == Source::Session {
        steps.push(look(session));
    }
    steps
}

/// The plan of a checkpoint that no longer vouches for the whole is told with its age.
fn planned(story: &Story, source: Source, now: Timestamp) -> impl Iterator<Item = String> {
    let since = story.planned_at.filter(|_| source != Source::Checkpoint);
    let told = since.map_or(String::new(), |at| format!("Planned {} ago: ", age(now.since(at))));
    story.planned.iter().map(move |step| format!("{told}{step}"))
}

fn epic(story: &Story) -> String {
    match (&story.work.current_epic, &story.work.last_completed_epic) {
        (Some(current), Some(completed)) if current == completed => {
            format!("Take up the next epic: {completed} is completed")
        }
        (Some(current), _) => format!("Go on with epic {current}"),
        (None, Some(completed)) => format!("Take up the next epic: {completed} is completed"),
        (None, None) => "Ask what to work on: no epic is recorded".to_owned(),
    }
}

fn look(session: &Session) -> String {
    let known = |text: &Option<String>| text.as_deref().and_then(|text| said(&text.into()));
    match (&session.resumed_from, known(&session.claude_session_path), known(&session.working_dir)) {
        (Some(from), ..) => format!("Look at what it goes on from: sessiond context {from}"),
        (_, Some(path), _) => format!("Read the end of its transcript on {}: {path}", session.host_machine),
        (_, _, Some(dir)) => format!("Look at the newest changes in {dir} on {}", session.host_machine),
        _ => format!("Ask whoever ran it on {}: it recorded nothing of its work", session.host_machine),
    }
}
