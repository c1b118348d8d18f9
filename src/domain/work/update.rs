//! What one report says about the work.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::redact;
use super::{
    MAX_ANSWER, MAX_NAME, MAX_PATH, MAX_PROMPT, MAX_SUMMARY, MAX_TITLE, Repository, Todo, WorkError, excerpt, line,
    newest, sanitized_todos, title_of,
};

/// What one report says about the work. A part that is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkUpdate {
    /// A new conversation begins: what was said before does not count any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cleared: bool,
    /// The agent's own title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the user asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The first prompt, if the update stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_prompt: Option<String>,
    /// The agent's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The agent's summary of the conversation, when its context was compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_summary: Option<String>,
    /// An error that the agent met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkError>,
    /// All to-dos of the agent, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todos: Option<Vec<Todo>>,
    /// To-dos that were added or done, beside those that are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed_todos: Vec<Todo>,
    /// Files that the agent changed, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The state of the working tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The model's name, as the agent reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// In US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The version of the agent's program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
}

/// How much of a session's work is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recording {
    /// Everything, without secrets.
    #[default]
    Full,
    /// Titles, repository, model and cost; no text of prompts, answers, to-dos and files.
    Titles,
    /// Nothing of the work.
    None,
}

impl Recording {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "full" => Self::Full,
            "titles" => Self::Titles,
            "none" => Self::None,
            _ => return None,
        })
    }
}

impl WorkUpdate {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What may be recorded of it. A title that is a prompt's first line is a title.
    pub fn limited_to(self, recording: Recording) -> Self {
        match recording {
            Recording::Full => self,
            Recording::None => Self::default(),
            Recording::Titles => Self {
                prompt: self.prompt.as_deref().map(|prompt| title_of(prompt).to_owned()),
                first_prompt: self.first_prompt.as_deref().map(|prompt| title_of(prompt).to_owned()),
                answer: None,
                compact_summary: None,
                error: self.error.map(|error| WorkError { message: String::new(), ..error }),
                todos: None,
                changed_todos: Vec::new(),
                files: Vec::new(),
                ..self
            },
        }
    }

    /// The same without secrets. Text that is cut first may hide one.
    pub fn without_secrets(self) -> Self {
        self.map_text(|text| redact::text(&text).unwrap_or(text))
    }

    /// The same with each text changed by `change`.
    pub fn map_text(self, change: impl Fn(String) -> String) -> Self {
        let all = |texts: Vec<String>| texts.into_iter().map(&change).collect();
        Self {
            title: self.title.map(&change),
            prompt: self.prompt.map(&change),
            first_prompt: self.first_prompt.map(&change),
            answer: self.answer.map(&change),
            compact_summary: self.compact_summary.map(&change),
            error: self.error.map(|error| WorkError { message: change(error.message), ..error }),
            todos: self
                .todos
                .map(|todos| todos.into_iter().map(|todo| Todo { text: change(todo.text), ..todo }).collect()),
            changed_todos: self
                .changed_todos
                .into_iter()
                .map(|todo| Todo { text: change(todo.text), ..todo })
                .collect(),
            files: all(self.files),
            repository: self.repository.map(|repository| Repository { name: change(repository.name), ..repository }),
            ..self
        }
    }

    /// One update that stands for an earlier one and this.
    pub fn merged_with(self, earlier: Self) -> Self {
        let mut files = earlier.files;
        files.extend(self.files);
        let merged = Self {
            files,
            repository: self.repository.or(earlier.repository),
            model: self.model.or(earlier.model),
            cost_usd: self.cost_usd.or(earlier.cost_usd),
            agent_version: self.agent_version.or(earlier.agent_version),
            ..self
        };
        if merged.cleared {
            return merged;
        }
        let first = earlier.first_prompt.or(earlier.prompt.clone()).filter(|_| merged.prompt.is_some());
        Self {
            cleared: earlier.cleared,
            title: merged.title.or(earlier.title),
            first_prompt: first.or(merged.first_prompt),
            prompt: merged.prompt.or(earlier.prompt),
            answer: merged.answer.or(earlier.answer),
            compact_summary: merged.compact_summary.or(earlier.compact_summary),
            error: merged.error.or(earlier.error),
            // A whole list replaces what changed before it.
            changed_todos: match merged.todos {
                Some(_) => merged.changed_todos,
                None => earlier.changed_todos.into_iter().chain(merged.changed_todos).collect(),
            },
            todos: merged.todos.or(earlier.todos),
            ..merged
        }
    }

    /// The same with every text safe to show and bounded.
    pub fn sanitized(self) -> Self {
        Self {
            cleared: self.cleared,
            title: self.title.map(|title| line(&title, MAX_TITLE)).filter(|title| !title.is_empty()),
            prompt: self.prompt.map(|prompt| excerpt(&prompt, MAX_PROMPT)).filter(|prompt| !prompt.is_empty()),
            first_prompt: self.first_prompt.map(|prompt| excerpt(&prompt, MAX_PROMPT)),
            answer: self.answer.map(|answer| excerpt(&answer, MAX_ANSWER)).filter(|answer| !answer.is_empty()),
            compact_summary: self.compact_summary.map(|summary| excerpt(&summary, MAX_SUMMARY)),
            error: self.error.map(WorkError::sanitized),
            todos: self.todos.map(sanitized_todos),
            changed_todos: sanitized_todos(self.changed_todos),
            files: newest(&self.files).iter().map(|path| line(path, MAX_PATH)).collect(),
            repository: self.repository.map(Repository::sanitized),
            model: self.model.map(|model| line(&model, MAX_NAME)),
            cost_usd: self.cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0),
            agent_version: self.agent_version.map(|version| line(&version, MAX_NAME)),
        }
    }
}
