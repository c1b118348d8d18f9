//! One spooled request: what a client asked for while no daemon answered.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{Timestamp, redact};
use crate::wire::{AgentReport, CheckpointRequest, EventRequest, HeartbeatRequest, RegisterRequest};

/// A request that waits for the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpooledRequest {
    /// When it was made: microseconds since 1970 in UTC.
    pub at: i64,
    /// The sockets on which a daemon was looked for. Only the daemon that listens on one of them imports it.
    pub sockets: Vec<PathBuf>,
    pub write: Write,
}

impl SpooledRequest {
    /// A request made at `at`, for the daemon that was looked for on these sockets.
    pub fn new(write: Write, sockets: &[PathBuf], at: Timestamp) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self { at: at.micros(), sockets: sockets.iter().map(absolute).collect(), write }
    }

    /// Blanks the secrets in what the daemon would blank before it stores it: a file is storage, too.
    pub fn redact(&mut self) {
        match &mut self.write {
            Write::Event { request, .. } => request.event_data.iter_mut().for_each(redact::object),
            Write::Checkpoint { request, .. } => redact::object(&mut request.work_state),
            Write::Register { .. } | Write::Heartbeat { .. } | Write::Close { .. } | Write::Agent { .. } => {}
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Write {
    /// `id` was drawn by the client, which has printed it.
    Register {
        id: String,
        request: RegisterRequest,
        pid_started: Option<i64>,
    },
    Heartbeat {
        id: String,
        request: HeartbeatRequest,
    },
    Close {
        id: String,
    },
    Agent {
        report: AgentReport,
    },
    Event {
        id: String,
        request: EventRequest,
    },
    Checkpoint {
        id: String,
        request: CheckpointRequest,
    },
}

impl Write {
    /// What tells the requests of one session from those of others: their order is kept.
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

    /// Which heartbeat it is, and of which session: a later one of the same replaces it.
    fn heartbeat_of(&self) -> Option<String> {
        match self {
            Self::Heartbeat { id, .. } => Some(format!("session {id}")),
            Self::Agent { report } if report.sign == "beat" => {
                Some(format!("agent {}", report.claude_session_uuid.as_deref()?))
            }
            _ => None,
        }
    }

    /// Whether this and `other` are heartbeats of one session.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.heartbeat_of().is_some_and(|mine| other.heartbeat_of() == Some(mine))
    }

    /// This later heartbeat, with the values of an earlier one that it leaves out.
    pub(super) fn merged_with(self, earlier: Self) -> Self {
        match (self, earlier) {
            (Self::Heartbeat { id, request }, Self::Heartbeat { request: before, .. }) => {
                let request = HeartbeatRequest {
                    context_percent: request.context_percent.or(before.context_percent),
                    current_epic: request.current_epic.or(before.current_epic),
                };
                Self::Heartbeat { id, request }
            }
            (Self::Agent { mut report }, Self::Agent { report: before }) => {
                report.context_percent = report.context_percent.or(before.context_percent);
                report.claude_session_path = report.claude_session_path.or(before.claude_session_path);
                report.promised_id = report.promised_id.or(before.promised_id);
                Self::Agent { report }
            }
            (later, _) => later,
        }
    }

    /// The part of a heartbeat's file name by which an earlier one of the same session is found. Empty for other requests.
    pub(super) fn mark(&self) -> String {
        let hash = |who: String| {
            let hash = who
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            format!("-beat{hash:016x}")
        };
        self.heartbeat_of().map(hash).unwrap_or_default()
    }
}
