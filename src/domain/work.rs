//! What a session works on: the newest state, not a log.
//!
//! A snapshot is made of the updates of hooks, of the status line and of the API. Each part has the time of the update it
//! came with, so that updates give the same snapshot in any order of arrival. What is said is said by agents and users:
//! every text is made safe to show and cut, and the whole fits into [`MAX_BYTES`].

mod update;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use super::text::{safe_line, safe_lines};
pub use update::{Recording, WorkUpdate};

/// The largest snapshot as JSON, in bytes.
pub const MAX_BYTES: usize = 16 << 10;
/// How many files are kept, the newest.
pub const MAX_FILES: usize = 20;
/// How many to-dos are kept, the first.
pub const MAX_TODOS: usize = 40;

/// The longest texts, in characters.
const MAX_TITLE: usize = 200;
const MAX_PROMPT: usize = 2000;
const MAX_ANSWER: usize = 3000;
const MAX_SUMMARY: usize = 4000;
const MAX_MESSAGE: usize = 500;
const MAX_TODO: usize = 200;
const MAX_PATH: usize = 300;
const MAX_NAME: usize = 100;

/// A part of a snapshot, and when it was so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dated<T> {
    /// The part.
    pub value: T,
    /// RFC 3339 in UTC with microseconds.
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// The newest known state of a session's work. A part that is left out is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
// Open: a later version may know more parts, and answers add fields beside them.
#[serde(default)]
pub struct WorkSnapshot {
    /// What the session is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<Dated<Title>>,
    /// What the user asked for first in this conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_prompt: Option<Dated<String>>,
    /// What the user asked for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_prompt: Option<Dated<String>>,
    /// The agent's last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_answer: Option<Dated<String>>,
    /// The agent's summary of the conversation, when its context was last compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_summary: Option<Dated<String>>,
    /// The last error that the agent met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<Dated<WorkError>>,
    /// The agent's to-dos, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) todos: Option<Dated<Vec<Todo>>>,
    /// The files that the agent changed, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Dated<String>>,
    /// The state of the working tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repository: Option<Dated<Repository>>,
    /// The model's name, as the agent reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<Dated<String>>,
    /// What the session has cost so far, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Dated<f64>>,
    /// The version of the agent's program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_version: Option<Dated<String>>,
    /// When the conversation was cleared; nothing of it is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cleared_at: Option<Timestamp>,
}

/// What a session is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Title {
    /// The title, one line.
    pub(crate) text: String,
    /// Where it comes from: the agent's own replaces the other.
    pub(crate) source: TitleSource,
}

/// Where a title comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TitleSource {
    /// The first line of the first prompt.
    Prompt,
    /// The agent's own, or its user's.
    Agent,
}

/// An error that the agent met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkError {
    /// Such as `rate_limit`, `overloaded`, `authentication_failed`; `tool`: a tool failed.
    pub kind: String,
    /// The error's text; empty if it is not known or not recorded.
    #[serde(default)]
    pub(crate) message: String,
}

/// A to-do of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Todo {
    /// What is to be done, one line.
    pub(crate) text: String,
    /// How far it is.
    pub(crate) status: TodoStatus,
}

/// How far a to-do is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TodoStatus {
    /// Not begun.
    Pending,
    /// Begun.
    InProgress,
    /// Done.
    Completed,
}

/// The state of the working tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Repository {
    /// The remote's host and path, without credentials: `github.com/team/app`. Without a remote, the folder's name.
    pub name: String,
    /// `None`: HEAD is detached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The working tree's top folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worktree: Option<String>,
    /// The commit, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Whether tracked files differ from HEAD; `None`: git did not answer in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
    /// Commits that the upstream branch lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295_i64)]
    pub ahead: Option<u32>,
    /// Commits of the upstream branch that this one lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295_i64)]
    pub behind: Option<u32>,
}

impl WorkError {
    fn sanitized(self) -> Self {
        Self { kind: line(&self.kind, MAX_NAME), message: excerpt(&self.message, MAX_MESSAGE) }
    }
}

impl Repository {
    fn sanitized(self) -> Self {
        let bounded = |text: Option<String>, longest| text.map(|text| line(&text, longest));
        Self {
            name: line(&self.name, MAX_PATH),
            branch: bounded(self.branch, MAX_PATH),
            worktree: bounded(self.worktree, MAX_PATH),
            head: bounded(self.head, MAX_NAME),
            ..self
        }
    }
}

/// The files that are kept.
fn newest(files: &[String]) -> &[String] {
    &files[files.len().saturating_sub(MAX_FILES)..]
}

fn sanitized_todos(todos: Vec<Todo>) -> Vec<Todo> {
    let todos = todos.into_iter().take(MAX_TODOS);
    todos.map(|todo| Todo { text: line(&todo.text, MAX_TODO), ..todo }).collect()
}

impl WorkSnapshot {
    /// The snapshot that JSON from outside holds; every text is safe to show and bounded. `None` if it is none.
    pub fn from_foreign_json(json: &str) -> Option<Self> {
        serde_json::from_str::<Self>(json).ok().map(Self::sanitized)
    }

    /// Applies what a report says that was made at `at`. Parts that are known from later are kept.
    pub fn apply(&mut self, update: WorkUpdate, at: Timestamp) {
        let update = update.sanitized();
        if update.cleared && self.cleared_at.is_none_or(|cleared| cleared < at) {
            self.clear(at);
        }
        let is_current = self.cleared_at.is_none_or(|cleared| cleared <= at);
        if is_current {
            self.apply_conversation(&update, at);
        }
        for path in update.files {
            self.add_file(path, at);
        }
        newer(&mut self.repository, update.repository, at);
        newer(&mut self.model, update.model, at);
        newer(&mut self.cost_usd, update.cost_usd, at);
        newer(&mut self.agent_version, update.agent_version, at);
        self.fit();
    }

    fn apply_conversation(&mut self, update: &WorkUpdate, at: Timestamp) {
        if let Some(prompt) = update.first_prompt.as_ref().or(update.prompt.as_ref()) {
            let text = line(title_of(prompt), MAX_TITLE);
            self.entitle(Title { text, source: TitleSource::Prompt }, at);
            if self.first_prompt.as_ref().is_none_or(|first| at < first.at) {
                self.first_prompt = Some(Dated { value: prompt.clone(), at });
            }
        }
        if let Some(title) = &update.title {
            self.entitle(Title { text: title.clone(), source: TitleSource::Agent }, at);
        }
        newer(&mut self.last_prompt, update.prompt.clone(), at);
        newer(&mut self.last_answer, update.answer.clone(), at);
        newer(&mut self.compact_summary, update.compact_summary.clone(), at);
        newer(&mut self.last_error, update.error.clone(), at);
        newer(&mut self.todos, update.todos.clone(), at);
        for todo in &update.changed_todos {
            self.change_todo(todo, at);
        }
    }

    /// Adds a to-do, or marks it as done; one that is done stays so.
    fn change_todo(&mut self, changed: &Todo, at: Timestamp) {
        let todos = self.todos.get_or_insert_with(|| Dated { value: Vec::new(), at });
        todos.at = todos.at.max(at);
        if let Some(known) = todos.value.iter_mut().find(|todo| todo.text == changed.text) {
            if changed.status == TodoStatus::Completed {
                known.status = TodoStatus::Completed;
            }
            return;
        }
        if todos.value.len() >= MAX_TODOS {
            // What is done makes room for what is not.
            let done = todos.value.iter().position(|todo| todo.status == TodoStatus::Completed);
            done.map(|place| todos.value.remove(place));
        }
        if todos.value.len() < MAX_TODOS {
            todos.value.push(changed.clone());
        }
    }

    /// The agent's newest title counts, or else the first prompt.
    fn entitle(&mut self, title: Title, at: Timestamp) {
        let counts = self.title.as_ref().is_none_or(|known| match (known.value.source, title.source) {
            (TitleSource::Agent, TitleSource::Agent) => known.at <= at,
            (TitleSource::Prompt, TitleSource::Prompt) => at < known.at,
            (known, new) => known < new,
        });
        if counts && !title.text.is_empty() {
            self.title = Some(Dated { value: title, at });
        }
    }

    fn clear(&mut self, at: Timestamp) {
        fn since<T>(part: Option<Dated<T>>, at: Timestamp) -> Option<Dated<T>> {
            part.filter(|part| part.at >= at)
        }
        let kept = std::mem::take(self);
        *self = Self {
            title: since(kept.title, at),
            first_prompt: since(kept.first_prompt, at),
            last_prompt: since(kept.last_prompt, at),
            last_answer: since(kept.last_answer, at),
            compact_summary: since(kept.compact_summary, at),
            last_error: since(kept.last_error, at),
            todos: since(kept.todos, at),
            cleared_at: Some(at),
            ..kept
        };
        // Its title was not noted, if the former conversation had one.
        if let Some(Dated { value, at }) = self.last_prompt.clone() {
            let update = WorkUpdate { prompt: Some(value), ..WorkUpdate::default() };
            self.apply_conversation(&update, at);
        }
    }

    fn add_file(&mut self, path: String, at: Timestamp) {
        if path.is_empty() || self.files.iter().any(|known| known.value == path && known.at > at) {
            return;
        }
        self.files.retain(|known| known.value != path);
        let place = self.files.partition_point(|known| known.at > at);
        self.files.insert(place, Dated { value: path, at });
        self.files.truncate(MAX_FILES);
    }

    /// The to-dos that are not done, and how many are.
    pub fn open_todos(&self) -> (Vec<&Todo>, usize) {
        let todos = self.todos.as_ref().map_or(&[][..], |todos| &todos.value);
        let open: Vec<_> = todos.iter().filter(|todo| todo.status != TodoStatus::Completed).collect();
        let done = todos.len() - open.len();
        (open, done)
    }

    /// The same with every text safe to show and bounded.
    fn sanitized(mut self) -> Self {
        let texts = [(&mut self.first_prompt, MAX_PROMPT), (&mut self.last_prompt, MAX_PROMPT)];
        let answers = [(&mut self.last_answer, MAX_ANSWER), (&mut self.compact_summary, MAX_SUMMARY)];
        for (part, longest) in texts.into_iter().chain(answers) {
            part.iter_mut().for_each(|part| part.value = excerpt(&part.value, longest));
        }
        for part in [&mut self.model, &mut self.agent_version].into_iter().flatten() {
            part.value = line(&part.value, MAX_NAME);
        }
        self.title.iter_mut().for_each(|title| title.value.text = line(&title.value.text, MAX_TITLE));
        self.last_error = map(self.last_error, WorkError::sanitized);
        self.todos = map(self.todos, sanitized_todos);
        self.repository = map(self.repository, Repository::sanitized);
        self.cost_usd = self.cost_usd.filter(|cost| cost.value.is_finite() && cost.value >= 0.0);
        self.files.truncate(MAX_FILES);
        self.files.iter_mut().for_each(|file| file.value = line(&file.value, MAX_PATH));
        self.fit();
        self
    }

    /// Shortens the longest texts until the whole fits into [`MAX_BYTES`]: escapes may make JSON six times as long.
    fn fit(&mut self) {
        while self.to_json().len() > MAX_BYTES {
            let texts =
                [&mut self.first_prompt, &mut self.last_prompt, &mut self.last_answer, &mut self.compact_summary];
            let longest = texts.into_iter().flatten().max_by_key(|part| part.value.len());
            match longest.filter(|part| part.value.len() > MAX_TITLE) {
                Some(part) => part.value = excerpt(&part.value, part.value.chars().count() / 2),
                None if self.files.len() + self.todos.as_ref().map_or(0, |todos| todos.value.len()) > 0 => {
                    self.files.truncate(self.files.len() / 2);
                    self.todos.iter_mut().for_each(|todos| todos.value.truncate(todos.value.len() / 2));
                }
                None => return,
            }
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn map<T>(part: Option<Dated<T>>, change: impl Fn(T) -> T) -> Option<Dated<T>> {
    part.map(|part| Dated { value: change(part.value), at: part.at })
}

/// Replaces a part by one that is not older.
fn newer<T>(part: &mut Option<Dated<T>>, value: Option<T>, at: Timestamp) {
    if let Some(value) = value
        && part.as_ref().is_none_or(|known| known.at <= at)
    {
        *part = Some(Dated { value, at });
    }
}

/// A prompt's first line that is not blank.
fn title_of(prompt: &str) -> &str {
    prompt.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// Foreign text as one line.
fn line(text: &str, longest: usize) -> String {
    let head: String = text.trim_start().chars().take(longest.saturating_mul(2)).collect();
    safe_line(head.split_whitespace().collect::<Vec<_>>().join(" "), longest)
}

/// The begin and the end of a foreign text: the one says what it is about, the other what came of it.
fn excerpt(text: &str, longest: usize) -> String {
    const CUT: &str = "\n[\u{2026}]\n";
    let text = text.trim();
    let length = text.chars().count();
    let text = if length <= longest {
        text.to_owned()
    } else {
        let room = longest.saturating_sub(CUT.chars().count());
        let head = room * 2 / 3;
        let begin = text.chars().take(head).collect::<String>();
        let end: String = text.chars().skip(length - (room - head)).collect();
        format!("{begin}{CUT}{end}")
    };
    safe_lines(text.replace("\r\n", "\n"))
}

#[cfg(test)]
mod tests;
