//! Resuming a session, and its reconstructed context.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use std::collections::BTreeMap;

use super::{SessionBody, WorkBody};
use crate::domain::context::Action;
use crate::domain::handoff::Handoff;
use crate::domain::resume::Successor;
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_working_dir};
use crate::domain::{Hint, Invalid, MachineName};

/// Resumes the session that the hint names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// An id in any letter case, an epic, a project, or 4 to 6 characters of an id's hash: the first of these
    /// that matches any session. Default: the session with the most recent heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub hint: Option<String>,
    /// Which of several candidates, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10)]
    pub choice: Option<i64>,
    /// Whether to continue also a closed session, which the hint must name by its whole id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// A running process on this host; when it ends, the session becomes stale at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub pid: Option<i32>,
    /// Claude Code's id of the conversation that continues. If this and the next two fields are left out, a session that
    /// is resumed in place keeps its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_uuid: Option<String>,
    /// The file of that conversation's transcript, on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_path: Option<String>,
    /// The session's working directory from now on, on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub working_dir: Option<String>,
}

impl ResumeRequest {
    const MAX_CANDIDATES: i64 = 10;

    /// The possible meanings of the hint, in the order in which they are tried.
    ///
    /// # Errors
    /// The hint is empty or too long.
    pub fn meanings(&self) -> Result<Vec<Hint>, Invalid> {
        Hint::interpretations(self.hint.as_deref())
    }

    /// # Errors
    /// The choice is not a number from 1 to 10.
    pub fn choice(&self) -> Result<Option<usize>, Invalid> {
        let valid = |choice: i64| {
            let counted = usize::try_from(choice).ok().filter(|_| (1..=Self::MAX_CANDIDATES).contains(&choice));
            counted.ok_or_else(|| Invalid::new("choice", format!("{choice} is not a number from 1 to 10")))
        };
        self.choice.map(valid).transpose()
    }

    /// The session that continues, of the user `uid` on `machine`.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn successor(&self, machine: MachineName, uid: u32) -> Result<Successor, Invalid> {
        Ok(Successor {
            machine,
            uid,
            claude_session_uuid: self.claude_session_uuid.as_deref().map(valid_claude_uuid).transpose()?,
            claude_session_path: self.claude_session_path.as_deref().map(valid_claude_path).transpose()?,
            working_dir: self.working_dir.as_deref().map(valid_working_dir).transpose()?,
        })
    }
}

/// The resumed session, and the one that it continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResumeBody {
    /// The session that continues.
    pub session: SessionBody,
    /// `taken_up`: the same session was resumed in place; `new_session`: a successor was registered on this host.
    pub resumed: String,
    /// The meaning of the hint that matched: `id`, `hash`, `epic`, `project` or `newest`.
    pub found_by: String,
    /// The session that was found, as it was before.
    pub from: SessionBody,
    /// The reconstructed context of that session.
    pub context: ContextBody,
    /// The context as Markdown, for the agent that continues.
    pub handoff: String,
}

/// The reconstructed context of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContextBody {
    /// The session.
    pub instance_id: String,
    /// The machine that it runs on.
    pub host_machine: String,
    /// The session's working directory, on its machine.
    pub working_dir: Option<String>,
    /// The file of the session's transcript, on its machine.
    pub claude_session_path: Option<String>,
    /// Whether its machine's daemon is connected to central, as far as this host knows; null for a machine without a
    /// daemon.
    pub reachable: Option<bool>,
    /// False if its machine may have later work that this host does not know.
    pub machine_synced: bool,
    /// When its machine's daemon last reported to central.
    pub last_seen: Option<String>,
    /// The command to run here to continue the session on its machine.
    pub command: Option<String>,
    /// What the context is reconstructed from: `checkpoint`, `work`, `events`, `commands` or `session`.
    pub source: String,
    /// In percent; depends on the source and its age.
    pub confidence: u8,
    /// Why the confidence is what it is.
    pub reason: String,
    /// The state of its work, by the source and by what was recorded after it.
    pub work_state: WorkStateBody,
    /// What is recorded of its work.
    #[serde(default = "nothing")]
    pub work: WorkBody,
    /// The fields of the newest checkpoint.
    #[serde(default)]
    pub checkpoint: BTreeMap<String, String>,
    /// Newest first.
    pub recent_actions: Vec<ActionBody>,
    /// Most urgent first.
    pub next_steps: Vec<String>,
}

/// The default for responses of earlier versions.
fn nothing() -> WorkBody {
    WorkBody::new("", None)
}

/// The state of the work. A field is null where nothing was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkStateBody {
    /// The epic that it works on.
    pub current_epic: Option<String>,
    /// The epic that it completed last.
    pub(crate) last_completed_epic: Option<String>,
    /// A number, or the value that the session recorded.
    pub tests_passed: Option<Value>,
    /// The last error after which no success was recorded.
    pub last_error: Option<String>,
}

/// An event or a command, or several alike in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActionBody {
    /// When it was done last.
    pub at: String,
    /// The event, or the command and its outcome, in one line.
    pub what: String,
    /// How often it was done in a row.
    #[serde(default = "once")]
    pub times: usize,
}

const fn once() -> usize {
    1
}

impl ContextBody {
    /// The JSON form of a handoff's data.
    pub fn new(handoff: &Handoff<'_>) -> Self {
        let Handoff { session, context, place, command, now, stale_after } = *handoff;
        let work = context.work_state.clone();
        let action =
            |action: &Action| ActionBody { at: action.at.to_string(), what: action.what.clone(), times: action.times };
        Self {
            instance_id: session.instance_id.to_string(),
            host_machine: session.host_machine.to_string(),
            working_dir: session.working_dir.clone(),
            claude_session_path: session.claude_session_path.clone(),
            reachable: place.reachable(now, stale_after),
            machine_synced: place.synced(now, stale_after),
            last_seen: place.last_seen.map(|at| at.to_string()),
            command: command.map(str::to_owned),
            source: context.source.as_str().to_owned(),
            confidence: context.confidence,
            reason: context.reason.clone(),
            work_state: WorkStateBody {
                current_epic: work.current_epic,
                last_completed_epic: work.last_completed_epic,
                tests_passed: work.tests_passed,
                last_error: work.last_error,
            },
            work: WorkBody::of_context(session.instance_id.as_str(), &context.details),
            checkpoint: context.details.notes.iter().cloned().collect(),
            recent_actions: context.recent_actions.iter().map(action).collect(),
            next_steps: context.next_steps.clone(),
        }
    }
}
