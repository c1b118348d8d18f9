//! The handoff: what somebody who goes on from a session has to know, as Markdown.

mod command;
mod markdown;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use command::{Going, go_on};
use markdown::{block, code, words};

use super::context::Context;
use super::text::{data_of, fenced};
use super::time::age;
use super::{Place, Session, Status, Timestamp};

/// No longer line of other people's words stands in a handoff, in bytes.
const LINE: usize = 300;

/// All that a handoff tells of.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    pub session: &'a Session,
    pub context: &'a Context,
    pub place: &'a Place,
    /// What goes on with the session there, if anything can.
    pub command: Option<&'a str>,
    pub now: Timestamp,
    pub stale_after: Duration,
}

impl Handoff<'_> {
    /// At most some 64 KiB, whatever the session recorded. It ends up in an agent's context, so everything below the
    /// title stands in a fence that is labelled as data.
    pub fn markdown(&self) -> String {
        let id = &self.session.instance_id;
        let parts = [self.head(), self.where_it_ran(), self.how_to_go_on(), self.work(), self.actions(), self.steps()];
        format!("# Handoff of {id}\n\n{}", fenced(&data_of(id), &parts.join("\n")))
    }

    fn head(&self) -> String {
        let s = self.session;
        let mut text = format!("- Project: {}\n", s.project);
        text += &format!("- Epic: {}\n", s.current_epic.as_deref().map_or("none".into(), |epic| words(epic, LINE)));
        text += &format!("- Context window: {} % used\n", s.context_percent);
        text += &format!("- State: {}\n", self.state());
        if let Some(from) = &s.resumed_from {
            text += &format!("- Goes on from: {from}\n");
        }
        let context = self.context;
        text + &format!("- Confidence: {} %: {}\n", context.confidence, words(&context.reason, LINE))
    }

    fn state(&self) -> String {
        let s = self.session;
        let ago = |at: Timestamp| age(self.now.since(at));
        match s.status_at(self.now, self.stale_after) {
            Status::Closed => format!("closed {} ago", ago(s.closed_at.unwrap_or(s.last_heartbeat))),
            status => format!("{}, last sign of life {} ago", status.as_str(), ago(s.last_heartbeat)),
        }
    }

    fn where_it_ran(&self) -> String {
        let s = self.session;
        let mut text = format!("## Where it ran\n\n- Machine: {}, {}\n", s.host_machine, self.reach());
        text += &format!("- Folder: {}\n", s.working_dir.as_deref().map_or("not recorded".into(), code));
        text += &format!("- Transcript: {}\n", s.claude_session_path.as_deref().map_or("not recorded".into(), code));
        if !self.place.synced(self.now, self.stale_after) {
            let as_of = self.place.as_of.map_or("unknown".into(), |at| format!("{} old", age(self.now.since(at))));
            text += &format!(
                "- **Not synced: later work may be known only on {}.** What is told here is {as_of}.\n",
                s.host_machine
            );
        }
        text
    }

    fn reach(&self) -> String {
        if self.place.here {
            return "this machine".to_owned();
        }
        match (self.place.reachable(self.now, self.stale_after), self.place.last_seen) {
            (Some(true), _) => "another machine, whose daemon can be reached".to_owned(),
            (_, Some(seen)) => {
                format!("another machine, whose daemon was last seen {} ago", age(self.now.since(seen)))
            }
            _ => "another machine, of which no daemon is known".to_owned(),
        }
    }

    fn how_to_go_on(&self) -> String {
        let how = match self.command {
            Some(command) => block(command),
            None => "Start an agent in that folder, and give it this handoff.\n".to_owned(),
        };
        format!("## How to go on there\n\n{how}")
    }

    fn work(&self) -> String {
        let work = &self.context.work_state;
        let said = |text: &Option<String>| text.as_deref().map_or("none recorded".to_owned(), |text| words(text, LINE));
        let tests = work.tests_passed.as_ref().map_or("none recorded".to_owned(), |tests| match tests.as_str() {
            Some(text) => words(text, LINE),
            None => tests.to_string(),
        });
        format!(
            "## Where the work stands\n\n- Current epic: {}\n- Last completed epic: {}\n- Tests passed: {tests}\n- Last error: {}\n",
            said(&work.current_epic),
            said(&work.last_completed_epic),
            said(&work.last_error),
        )
    }

    fn actions(&self) -> String {
        let mut text = "## Recent actions\n\n".to_owned();
        for action in &self.context.recent_actions {
            text += &format!("- {} ago: {}\n", age(self.now.since(action.at)), words(&action.what, LINE));
        }
        if self.context.recent_actions.is_empty() {
            text += "None recorded.\n";
        }
        text
    }

    fn steps(&self) -> String {
        let mut text = "## Next steps\n\n".to_owned();
        for (number, step) in self.context.next_steps.iter().enumerate() {
            text += &format!("{}. {}\n", number + 1, words(step, LINE));
        }
        text
    }
}
