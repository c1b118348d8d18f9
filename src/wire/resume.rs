//! Going on from a session, and what is known of it, on the wire.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::SessionBody;
use crate::domain::context::Action;
use crate::domain::handoff::Handoff;
use crate::domain::resume::Successor;
use crate::domain::session::{valid_claude_path, valid_claude_uuid, valid_working_dir};
use crate::domain::{Hint, Invalid, MachineName};

/// Goes on from the session that the hint means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// A whole id in any letter case, an epic, a project, or 4 to 6 characters of an id's hash: the first of these
    /// that any session has. Left out: the session that was alive last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub hint: Option<String>,
    /// Which of several candidates, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10)]
    pub choice: Option<i64>,
    /// Go on from a closed session, too, if the hint is its whole id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// A running process on this host; when it ends, the session turns stale at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub pid: Option<i32>,
    /// Of the conversation that goes on; what is left out stays as it was if the session is taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub claude_session_path: Option<String>,
    /// The folder in which it runs from now on, on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub working_dir: Option<String>,
}

impl ResumeRequest {
    const MOST_CANDIDATES: i64 = 10;

    pub fn meanings(&self) -> Result<Vec<Hint>, Invalid> {
        Hint::meanings(self.hint.as_deref())
    }

    pub fn choice(&self) -> Result<Option<usize>, Invalid> {
        let valid = |choice: i64| {
            let counted = usize::try_from(choice).ok().filter(|_| (1..=Self::MOST_CANDIDATES).contains(&choice));
            counted.ok_or_else(|| Invalid::new("choice", format!("{choice} is not a number from 1 to 10")))
        };
        self.choice.map(valid).transpose()
    }

    /// Who goes on: the user `uid` on `machine`.
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

/// The session that goes on, and what it goes on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResumeBody {
    pub session: SessionBody,
    /// `taken_up`: it is the same session; `new_session`: one of this host that inherits from it.
    pub resumed: String,
    /// As what the hint was taken: `id`, `hash`, `epic`, `project` or `newest`.
    pub found_by: String,
    /// The session that was found, as it was.
    pub from: SessionBody,
    /// What that one was at.
    pub context: ContextBody,
    /// The same as Markdown, for whoever goes on.
    pub handoff: String,
}

/// What a session was at, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContextBody {
    pub instance_id: String,
    pub host_machine: String,
    /// The folder in which it ran, on its machine.
    pub working_dir: Option<String>,
    /// Its transcript, on its machine.
    pub claude_session_path: Option<String>,
    /// Whether its machine's daemon speaks to central, as far as this host can know; null for a machine without one.
    pub reachable: Option<bool>,
    /// False: later work of it may be known only on its machine.
    pub machine_synced: bool,
    /// When its machine's daemon last spoke to central.
    pub last_seen: Option<String>,
    /// What to type here to go on there.
    pub command: Option<String>,
    /// `checkpoint`, `events`, `commands` or `session`: the best source that there is.
    pub source: String,
    /// In percent, by the source and its age.
    pub confidence: u8,
    pub reason: String,
    pub work_state: WorkStateBody,
    /// Newest first.
    pub recent_actions: Vec<ActionBody>,
    /// The most urgent first.
    pub next_steps: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkStateBody {
    pub current_epic: Option<String>,
    pub last_completed_epic: Option<String>,
    /// How many, or what the session itself said of it.
    pub tests_passed: Option<Value>,
    /// The last error that nothing later made good.
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActionBody {
    pub at: String,
    pub what: String,
}

impl ContextBody {
    pub fn new(told: &Handoff<'_>) -> Self {
        let Handoff { session, context, place, command, now, stale_after } = *told;
        let work = context.work_state.clone();
        let action = |action: &Action| ActionBody { at: action.at.to_string(), what: action.what.clone() };
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
            recent_actions: context.recent_actions.iter().map(action).collect(),
            next_steps: context.next_steps.clone(),
        }
    }
}
