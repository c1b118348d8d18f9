//! Determines the session that an agent's report belongs to.
//!
//! An agent is identified by three things: its name with its own id of the conversation, which /clear and a fork change;
//! its process, which a resume changes; and the folder it works in. Hooks, the status line and discovery each report some of
//! them; the first report creates the session, and [`resolve`] finds the session of each later one.
//!
//! Three rules keep the sessions of two agents apart:
//! - The current id of a session is the one that its process reports heartbeats under. A process may start under a
//!   throw-away id, so a second `startup` alone does not change the current id.
//! - An end counts only for the session whose current id it names, and only if no other process runs that session.
//! - An id that a process has left (/clear, /resume) leads to its session, but late reports under it change nothing.

mod name;

use serde::{Deserialize, Serialize};

pub use name::{AgentName, conversation_key};

use super::activity::ActivityEvent;
use super::hash::fnv1a;
use super::limits::ObservedLimits;
use super::work::WorkUpdate;
use super::{InstanceId, InstanceType, Project, Timestamp};

/// What an agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentSignal {
    /// It starts, or continues a conversation.
    Start(StartSource),
    /// Its process was found running.
    Found,
    /// A heartbeat.
    Heartbeat,
    /// Its process leaves this conversation for another.
    Leave,
    /// It ends, and its work is complete.
    End,
    /// Its process ends before its work is complete.
    Interrupted,
    /// Its process ended and removed its own file before, which a killed process does not.
    Exited,
}

/// How an agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// In a terminal, by a user.
    Interactive,
    /// One prompt by `claude -p` or an SDK.
    Headless,
    /// A job of the agent's own background service.
    Background,
}

impl AgentKind {
    pub(crate) fn parse(kind: &str) -> Option<Self> {
        Some(match kind {
            "interactive" => Self::Interactive,
            "headless" => Self::Headless,
            "background" => Self::Background,
            _ => return None,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Headless => "headless",
            Self::Background => "background",
        }
    }
}

/// What made an agent start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartSource {
    /// It was started.
    Startup,
    /// It continues an earlier conversation.
    Resume,
    /// The conversation was cleared.
    Clear,
    /// The context was compacted.
    Compact,
    /// It continues a copy of a conversation.
    Fork,
}

impl StartSource {
    pub(crate) fn parse(source: &str) -> Option<Self> {
        Some(match source {
            "startup" => Self::Startup,
            "resume" => Self::Resume,
            "clear" => Self::Clear,
            "compact" => Self::Compact,
            "fork" => Self::Fork,
            _ => return None,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Resume => "resume",
            Self::Clear => "clear",
            Self::Compact => "compact",
            Self::Fork => "fork",
        }
    }
}

/// An agent's report; all fields are valid.
#[derive(Clone, Debug)]
pub struct ValidReport {
    pub(crate) sign: AgentSignal,
    /// `None`: nothing says which agent it is, as for the program that `sessiond exec` runs.
    pub agent: Option<AgentName>,
    /// The agent's own id of its conversation, whichever agent it is.
    pub(crate) claude_session_uuid: Option<String>,
    pub(crate) claude_session_path: Option<String>,
    pub(crate) working_dir: Option<String>,
    /// The project, or the one derived from the folder.
    pub project: Project,
    pub(crate) instance_type: InstanceType,
    pub(crate) kind: Option<AgentKind>,
    /// 0 to 100.
    pub context_percent: Option<u8>,
    /// The id that the agent was given while no daemon answered: it must lead to the session.
    pub promised_id: Option<InstanceId>,
    /// The session of the program that runs the agent, by INSTANCE_ID in its environment.
    pub outer_id: Option<InstanceId>,
    /// When it happened; not later than it arrived.
    pub at: Timestamp,
    pub(crate) activity: Option<ActivityEvent>,
    pub(crate) work: Option<WorkUpdate>,
    /// What it observed of its account's rate limits.
    pub limits: Option<ObservedLimits>,
}

impl ValidReport {
    /// The key of the conversation that it names.
    pub fn conversation(&self) -> Option<String> {
        let id = self.claude_session_uuid.as_deref()?;
        Some(conversation_key(self.agent.unwrap_or(AgentName::ClaudeCode), id))
    }

    /// Whether its process runs one session only, and so identifies it.
    pub fn owns_process(&self) -> bool {
        !self.agent.is_some_and(AgentName::shares_process)
    }
}

/// A session that a report may belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCandidate {
    pub(crate) id: InstanceId,
    pub(crate) closed: bool,
    /// Whether the process that reports is the one that used the session last; `None`: one of the two is unknown.
    pub same_process: Option<bool>,
    /// The report's id is the session's current one, or one of the two has none.
    pub is_current: bool,
    /// The process has left the agent's own id that led here: of the report for `by_conversation`, else the session's current one.
    pub is_left: bool,
    /// Another process than the one that reports runs the session.
    pub runs_elsewhere: bool,
    /// The report names the session's project, or the session has no conversation yet.
    pub same_project: bool,
}

/// The sessions of the reporting user that a report may belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionCandidates {
    /// Has, or had, the agent's own id.
    pub by_conversation: Option<SessionCandidate>,
    /// Is open, and its process is the one that reports.
    pub by_process: Option<SessionCandidate>,
    /// Is open, belongs to the program that runs the agent, and no conversation in it runs.
    pub outer: Option<SessionCandidate>,
    /// The agent's newest in the same folder that no process runs; only for a report without a process.
    pub by_folder: Option<SessionCandidate>,
}

/// What a report means for the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It is a heartbeat of this session.
    Adopt(InstanceId),
    /// It ends this session.
    Close(InstanceId),
    /// Its process does not run this session any more, and the session can be resumed.
    Abandon(InstanceId),
    /// It belongs to this session and changes nothing.
    Ignore(InstanceId),
    /// A new session begins, which may continue another.
    Begin {
        /// The session that it continues.
        resumed_from: Option<InstanceId>,
    },
    /// It belongs to no known session.
    Unknown,
}

/// Finds the session that a report belongs to. The agent's own id takes precedence over the process, which stays the same
/// over a /clear. A closed session is never reopened: a report that continues it begins a new one.
///
/// `identifies` is false for a report without an id and a process, which begins no session.
pub fn resolve(sign: AgentSignal, identifies: bool, known: SessionCandidates) -> Resolution {
    let SessionCandidates { by_conversation, by_process, outer, by_folder } = known;
    let continue_or_begin =
        |found: Option<SessionCandidate>| found.map_or(Resolution::Begin { resumed_from: None }, resume);
    match sign {
        AgentSignal::End | AgentSignal::Interrupted | AgentSignal::Exited => end(sign, by_conversation),
        AgentSignal::Found | AgentSignal::Heartbeat | AgentSignal::Leave => match by_conversation {
            // Late reports of a process that has ended its session, or has left it for another.
            Some(session) if session.closed && session.same_process != Some(false) => Resolution::Ignore(session.id),
            Some(session) if session.is_left && by_process.as_ref().is_some_and(|running| running.id != session.id) => {
                Resolution::Ignore(session.id)
            }
            Some(session) => resume(session),
            None => match by_process.or(outer) {
                Some(session) => resume(session),
                None if identifies && sign != AgentSignal::Leave => Resolution::Begin { resumed_from: None },
                None => Resolution::Unknown,
            },
        },
        AgentSignal::Start(StartSource::Fork) => match by_conversation {
            Some(session) => resume(session),
            None => Resolution::Begin { resumed_from: by_process.map(|original| original.id) },
        },
        // One process that starts under two ids starts one session, if the project is the same.
        AgentSignal::Start(StartSource::Startup) => {
            continue_or_begin(by_conversation.or(by_process.filter(|session| session.same_project)).or(outer))
        }
        // The process left one conversation to resume another, which may be unknown here.
        AgentSignal::Start(StartSource::Resume) => {
            continue_or_begin(by_conversation.or(by_process.filter(|s| !s.is_left)).or(outer))
        }
        AgentSignal::Start(StartSource::Compact)
            if by_conversation.as_ref().is_some_and(|s| s.closed && s.same_process == Some(true)) =>
        {
            by_conversation.map_or(Resolution::Unknown, |session| Resolution::Ignore(session.id))
        }
        AgentSignal::Start(StartSource::Clear | StartSource::Compact) => {
            continue_or_begin(by_conversation.or(by_process).or(outer).or(by_folder))
        }
    }
}

/// Resolves the end of the session that the report names. An end of an unknown conversation, such as a `--resume` of one
/// that does not exist, ends no session.
fn end(sign: AgentSignal, named: Option<SessionCandidate>) -> Resolution {
    let Some(session) = named else { return Resolution::Unknown };
    let ends = session.is_current && !session.runs_elsewhere && !(sign == AgentSignal::Exited && session.is_left);
    match sign {
        _ if session.closed || !ends => Resolution::Ignore(session.id),
        AgentSignal::Interrupted => Resolution::Abandon(session.id),
        _ => Resolution::Close(session.id),
    }
}

fn resume(session: SessionCandidate) -> Resolution {
    match session.closed {
        true => Resolution::Begin { resumed_from: Some(session.id) },
        false => Resolution::Adopt(session.id),
    }
}

/// A rule for the type of a session; the first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRule {
    /// The project's name; `None`: any.
    pub project: Option<String>,
    /// This folder and its subfolders; `None`: any.
    pub folder: Option<String>,
    pub(crate) instance_type: InstanceType,
}

impl TypeRule {
    fn matches(&self, project: &Project, folder: Option<&str>) -> bool {
        let below = |top: &String| {
            let top = top.trim_end_matches('/');
            folder
                .and_then(|folder| folder.strip_prefix(top))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.project.as_ref().is_none_or(|name| name == project.as_str()) && self.folder.as_ref().is_none_or(below)
    }
}

/// The type of a session by the rules; a project supervisor if none matches.
pub fn type_by(rules: &[TypeRule], project: &Project, folder: Option<&str>) -> InstanceType {
    rules.iter().find(|rule| rule.matches(project, folder)).map_or(InstanceType::Ps, |rule| rule.instance_type)
}

/// Converts the name of a repository or folder to a project's name, which is the same on every machine. If characters are
/// lost, a hash of the whole name is appended to keep it unique.
pub fn project_named(name: &str) -> Project {
    let mut kept = String::new();
    let mut lost = false;
    for letter in name.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' | '0'..='9' => kept.push(letter),
            _ => match plain(letter) {
                Some(letters) => kept.push_str(letters),
                None => {
                    lost |= letter.is_alphanumeric();
                    if !kept.is_empty() && !kept.ends_with('-') {
                        kept.push('-');
                    }
                }
            },
        }
    }
    let kept = kept.trim_end_matches('-');
    let hashed = lost || kept.is_empty();
    let hash = if hashed { format!("{:08x}", short_hash(name)) } else { String::new() };
    let room = Project::MAX - if hashed { hash.len() + 1 } else { 0 };
    let kept = kept[..kept.len().min(room)].trim_end_matches('-');
    let name = match (kept, hashed) {
        (kept, false) => kept.to_owned(),
        ("", true) => format!("p-{hash}"),
        (kept, true) => format!("{kept}-{hash}"),
    };
    Project::parse(&name).unwrap_or_else(|_| Project::unnamed())
}

/// The common ASCII spelling of a letter with a diacritic.
fn plain(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ä' | 'æ' => "ae",
        'ö' | 'œ' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'å' => "aa",
        'ø' => "o",
        'à' | 'á' | 'â' | 'ã' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ı' => "i",
        'ł' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ő' => "o",
        'ř' => "r",
        'ś' | 'š' | 'ş' => "s",
        'ť' => "t",
        'ù' | 'ú' | 'û' | 'ū' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

/// A hash of 32 bits that never changes: names of projects depend on it.
fn short_hash(text: &str) -> u32 {
    let hash = fnv1a(text);
    ((hash >> 32) ^ hash) as u32
}

#[cfg(test)]
mod tests;
