//! The handoff of a session to another agent or user, as Markdown.

mod command;
mod markdown;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use command::{ResumeProgress, resume_command};
use markdown::{block, code, escaped, quoted};

use super::activity::Activity;
use super::context::Context;
use super::liveness::status_at;
use super::text::{data_of, fenced};
use super::time::age;
use super::work::Repository;
use super::{Session, SessionLocation, Status, Timestamp};

/// The longest recorded text in one line, in bytes.
const MAX_LINE: usize = 300;
/// The longest value of a checkpoint's field, in bytes.
const MAX_NOTE: usize = 500;

/// The data of a handoff.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    /// The session that is handed over.
    pub session: &'a Session,
    /// Its reconstructed context.
    pub context: &'a Context,
    /// Where it ran, and how much of it is known here.
    pub place: &'a SessionLocation,
    /// The command that continues the session where it ran, if there is one.
    pub command: Option<&'a str>,
    /// The time of the handoff, from which ages are counted.
    pub now: Timestamp,
    /// A session without a heartbeat for this long is stale.
    pub stale_after: Duration,
}

impl Handoff<'_> {
    /// Renders it in at most about 64 KiB. It is put into an agent's context, so everything below the title is in a fence
    /// that is labelled as data.
    pub fn markdown(&self) -> String {
        let id = &self.session.instance_id;
        let parts = [
            self.head(),
            self.where_it_ran(),
            self.how_to_continue(),
            self.work(),
            self.doing(),
            self.actions(),
            self.steps(),
            // Last, because an agent may get only the beginning.
            self.conversation(),
        ];
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
        format!("# Handoff of {id}\n\n{}", fenced(&data_of(id), &parts))
    }

    fn head(&self) -> String {
        let s = self.session;
        let mut text = format!("- Project: {}\n", s.project);
        if let Some(goal) = self.context.details.goal() {
            text += &format!("- Goal: {}\n", escaped(&goal, MAX_LINE));
        }
        text +=
            &format!("- Epic: {}\n", s.current_epic.as_deref().map_or("none".into(), |epic| escaped(epic, MAX_LINE)));
        text += &format!("- Context window: {} % used\n", s.context_percent);
        text += &format!("- State: {}\n", self.state());
        if let Some(from) = &s.resumed_from {
            text += &format!("- Resumed from: {from}\n");
        }
        let context = self.context;
        text + &format!("- Confidence: {} %: {}\n", context.confidence, escaped(&context.reason, MAX_LINE))
    }

    fn state(&self) -> String {
        let s = self.session;
        let ago = |at: Timestamp| age(self.now.since(at));
        let alive_as_of = self.place.alive_as_of;
        let status = status_at(s.status, s.last_heartbeat, alive_as_of, self.now, self.stale_after);
        match (status, alive_as_of) {
            (Status::Active, Some(seen)) => format!("active, alive as of {} ago", ago(seen)),
            (Status::Closed, _) => format!("closed {} ago", ago(s.closed_at.unwrap_or(s.last_heartbeat))),
            (status, _) => format!("{}, last heartbeat {} ago", status.as_str(), ago(s.last_heartbeat)),
        }
    }

    fn where_it_ran(&self) -> String {
        let s = self.session;
        let mut text = format!("## Where it ran\n\n- Machine: {}, {}\n", s.host_machine, self.reach());
        text += &format!("- Folder: {}\n", s.working_dir.as_deref().map_or("not recorded".into(), code));
        if let Some(repository) = self.context.details.repository() {
            text += &format!("- Repository: {}\n", self.repository(repository));
        }
        text += &format!("- Transcript: {}\n", s.claude_session_path.as_deref().map_or("not recorded".into(), code));
        if !self.place.synced(self.now, self.stale_after) {
            let as_of = self.place.as_of.map_or("unknown".into(), |at| format!("{} old", age(self.now.since(at))));
            text += &format!(
                "- **Not synced: later work may be recorded only on {}.** The data here is {as_of}.\n",
                s.host_machine
            );
        }
        text
    }

    fn repository(&self, repository: &Repository) -> String {
        let mut text = code(&repository.name);
        let commit = repository.head.as_deref().map(|head| code(head.get(..12).unwrap_or(head)));
        match (&repository.branch, commit) {
            (Some(branch), Some(commit)) => text += &format!(", branch {}, commit {commit}", code(branch)),
            (Some(branch), None) => text += &format!(", branch {}", code(branch)),
            (None, Some(commit)) => text += &format!(", no branch, commit {commit}"),
            (None, None) => {}
        }
        for (count, what) in [(repository.ahead, "not pushed"), (repository.behind, "not pulled")] {
            if let Some(count) = count.filter(|count| *count > 0) {
                text += &format!(", {count} commits {what}");
            }
        }
        match repository.dirty {
            Some(true) => text + ", with uncommitted changes",
            Some(false) => text + ", without uncommitted changes",
            None => text,
        }
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
            _ => "another machine, without a known daemon".to_owned(),
        }
    }

    fn how_to_continue(&self) -> String {
        let how = match self.command {
            Some(command) => block(command),
            None => "Start an agent in that folder, and give it this handoff.\n".to_owned(),
        };
        format!("## How to continue there\n\n{how}")
    }

    fn work(&self) -> String {
        let work = &self.context.work_state;
        let shown =
            |text: &Option<String>| text.as_deref().map_or("none recorded".to_owned(), |text| escaped(text, MAX_LINE));
        let tests = work.tests_passed.as_ref().map_or("none recorded".to_owned(), |tests| match tests.as_str() {
            Some(text) => escaped(text, MAX_LINE),
            None => tests.to_string(),
        });
        format!(
            "## State of the work\n\n- Current epic: {}\n- Last completed epic: {}\n- Tests passed: {tests}\n- Last error: {}\n",
            shown(&work.current_epic),
            shown(&work.last_completed_epic),
            shown(&work.last_error),
        )
    }

    /// Its last activity and error, to-dos, files, and the fields of the checkpoint.
    fn doing(&self) -> String {
        let details = &self.context.details;
        let work = &details.snapshot;
        let mut text = String::new();
        if let Some(activity) = &details.last_activity {
            text += &format!("- Last activity: {}, {} ago\n", self.activity(activity), self.ago(activity.since));
        }
        if let Some(error) = &work.last_error {
            let what = [error.value.kind.as_str(), &error.value.message].join(": ");
            text += &format!("- Last error of its agent, {} ago: {}\n", self.ago(error.at), escaped(&what, MAX_LINE));
        }
        for (name, note) in &details.notes {
            text += &format!("- Checkpoint, {}: {}\n", escaped(name, MAX_LINE), escaped(note, MAX_NOTE));
        }
        let (open, done) = work.open_todos();
        for todo in open {
            text += &format!("- To do: {}\n", escaped(&todo.text, MAX_LINE));
        }
        if done > 0 {
            text += &format!("- {done} to-dos are done\n");
        }
        for file in &work.files {
            text += &format!("- Changed {} ago: {}\n", self.ago(file.at), code(&file.value));
        }
        if text.is_empty() { text } else { format!("## What it was doing\n\n{text}") }
    }

    /// The last prompt, answer and summary.
    fn conversation(&self) -> String {
        let work = &self.context.details.snapshot;
        let mut parts = Vec::new();
        let first =
            work.first_prompt.as_ref().filter(|first| work.last_prompt.as_ref().is_none_or(|last| last.at > first.at));
        let texts = [
            ("First prompt", first),
            ("Last prompt", work.last_prompt.as_ref()),
            ("Last answer", work.last_answer.as_ref()),
            ("Summary of the conversation", work.compact_summary.as_ref()),
        ];
        for (name, part) in texts {
            if let Some(part) = part {
                parts.push(format!("## {name}, {} ago\n\n{}", self.ago(part.at), quoted(&part.value)));
            }
        }
        parts.join("\n")
    }

    fn ago(&self, at: Timestamp) -> String {
        age(self.now.since(at))
    }

    fn activity(&self, activity: &Activity) -> String {
        let waiting = activity.waiting_for.map(|what| format!(" for {}", what.as_str())).unwrap_or_default();
        let detail = activity.detail.as_deref().map(|detail| format!(" ({})", escaped(detail, MAX_LINE)));
        format!("{}{waiting}{}", activity.state.as_str(), detail.unwrap_or_default())
    }

    fn actions(&self) -> String {
        let mut text = "## Recent actions\n\n".to_owned();
        for action in &self.context.recent_actions {
            let times = if action.times > 1 { format!(", {} times", action.times) } else { String::new() };
            text += &format!("- {} ago: {}{times}\n", self.ago(action.at), escaped(&action.what, MAX_LINE));
        }
        if self.context.recent_actions.is_empty() {
            text += "None recorded.\n";
        }
        text
    }

    fn steps(&self) -> String {
        let mut text = "## Next steps\n\n".to_owned();
        for (number, step) in self.context.next_steps.iter().enumerate() {
            text += &format!("{}. {}\n", number + 1, escaped(step, MAX_LINE));
        }
        text
    }
}
