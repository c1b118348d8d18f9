//! A spooled request: the content of one file in the spool.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::hash::fnv1a;
use crate::domain::{Timestamp, redact};
use crate::wire::{AgentReport, CheckpointRequest, EventRequest, HeartbeatRequest, RegisterRequest};

/// A request that is not imported yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpooledRequest {
    /// When the client made it: microseconds since 1970 in UTC.
    pub at: i64,
    /// The sockets that the client tried. Only the daemon that listens on one of them imports the request.
    pub sockets: Vec<PathBuf>,
    /// What it requests.
    pub(crate) write: ClientWrite,
}

impl SpooledRequest {
    /// A request made at `at`, for the daemon that listens on one of these sockets.
    pub fn new(write: ClientWrite, sockets: &[PathBuf], at: Timestamp) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self { at: at.micros(), sockets: sockets.iter().map(absolute).collect(), write }
    }

    /// Redacts what the daemon redacts before it stores a request: the file is stored, too.
    pub fn redact(&mut self) {
        match &mut self.write {
            ClientWrite::Event { request, .. } => request.event_data.iter_mut().for_each(redact::object),
            ClientWrite::Checkpoint { request, .. } => redact::object(&mut request.work_state),
            ClientWrite::Register { .. }
            | ClientWrite::Heartbeat { .. }
            | ClientWrite::Close { .. }
            | ClientWrite::Agent { .. } => {}
        }
    }
}

/// What the client requests, as the body of the API's request would say it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientWrite {
    /// The client generated `id`, and has printed it.
    Register {
        /// The id that was printed.
        id: String,
        /// The body of the API's request.
        request: RegisterRequest,
        /// When the process `request.pid` started, in the platform's own unit.
        pid_started: Option<i64>,
    },
    /// A heartbeat.
    Heartbeat {
        /// The session.
        id: String,
        /// The body of the API's request.
        request: HeartbeatRequest,
    },
    /// The close of a session.
    Close {
        /// The session.
        id: String,
    },
    /// An agent's report.
    Agent {
        /// The body of the API's request.
        report: Box<AgentReport>,
    },
    /// An event.
    Event {
        /// The session.
        id: String,
        /// The body of the API's request.
        request: EventRequest,
    },
    /// A checkpoint.
    Checkpoint {
        /// The session.
        id: String,
        /// The body of the API's request.
        request: CheckpointRequest,
    },
}

impl ClientWrite {
    /// Identifies the session, so that the order of its requests is kept: an instance id or Claude's session UUID.
    pub fn session_key(&self) -> Option<&str> {
        match self {
            Self::Register { id, .. }
            | Self::Heartbeat { id, .. }
            | Self::Close { id }
            | Self::Event { id, .. }
            | Self::Checkpoint { id, .. } => Some(id),
            Self::Agent { report } => report.promised_id.as_deref().or(report.claude_session_uuid.as_deref()),
        }
    }

    /// Identifies the session of a heartbeat; none for other requests.
    ///
    /// Of the uses of tools, which are many, the last one counts for each agent of a session. Other changes of the
    /// activity are no heartbeats: when each began and what it said is kept.
    fn heartbeat_session(&self) -> Option<String> {
        match self {
            Self::Heartbeat { id, .. } => Some(format!("session {id}")),
            Self::Agent { report } if report.sign == "beat" => {
                let agent = format!("agent {}", report.claude_session_uuid.as_deref()?);
                match &report.activity {
                    None => Some(agent),
                    Some(activity) if activity.activity == "working" => {
                        Some(format!("{agent} {}", activity.actor.as_deref()?))
                    }
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }

    /// Whether both are equal except for their times.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let timeless = |write: &Self| match write.clone() {
            Self::Agent { report } => Self::Agent { report: Box::new(AgentReport { at: None, ..*report }) },
            write => write,
        };
        timeless(self) == timeless(other)
    }

    /// Whether this and `other` are heartbeats of the same session.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.heartbeat_session().is_some_and(|session| other.heartbeat_session() == Some(session))
    }

    /// This heartbeat, with the values of an earlier one for fields that it omits.
    pub(super) fn merged_with(self, earlier: Self) -> Self {
        match (self, earlier) {
            (Self::Heartbeat { id, request }, Self::Heartbeat { request: before, .. }) => {
                let about = if request.activity.is_some() { &request } else { &before };
                let request = HeartbeatRequest {
                    activity: about.activity.clone(),
                    waiting_for: about.waiting_for.clone(),
                    activity_detail: about.activity_detail.clone(),
                    context_percent: request.context_percent.or(before.context_percent),
                    current_epic: request.current_epic.or(before.current_epic),
                };
                Self::Heartbeat { id, request }
            }
            (Self::Agent { mut report }, Self::Agent { report: before }) => {
                report.context_percent = report.context_percent.or(before.context_percent);
                report.claude_session_path = report.claude_session_path.or(before.claude_session_path);
                report.promised_id = report.promised_id.or(before.promised_id);
                report.activity = report.activity.or(before.activity);
                report.work = match (report.work, before.work) {
                    (Some(work), Some(before)) => Some(work.merged_with(before)),
                    (work, before) => work.or(before),
                };
                Self::Agent { report }
            }
            (later, _) => later,
        }
    }

    /// The part of a heartbeat's file name by which an earlier one of the same session is found; empty for other requests.
    pub(super) fn heartbeat_tag(&self) -> String {
        self.heartbeat_session().map(|session| format!("-beat{:016x}", fnv1a(&session))).unwrap_or_default()
    }
}
