//! What happened in a session: events, commands and checkpoints.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{InstanceId, Timestamp};

/// Which of central's tables a record belongs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `event_store`. Body: `data` (an object), `parent_uuid`.
    Event,
    /// `command_log`. Body: `action`, `tool_name`, `parameters`, `result`, `error_message`, `success`,
    /// `execution_time_ms`, `tags`.
    Command,
    /// `checkpoints`. Body: `context_window_percent`, `work_state` (an object).
    Checkpoint,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Event, Self::Command, Self::Checkpoint];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
            Self::Checkpoint => "checkpoint",
        }
    }

    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

/// One thing that happened in a session. It never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRecord {
    /// Random; central's event_id or checkpoint_id.
    pub record_id: Uuid,
    pub instance_id: InstanceId,
    pub kind: Kind,
    /// The event's, command's or checkpoint's type.
    pub record_type: String,
    /// When it happened.
    pub at: Timestamp,
    /// The fields that its kind has besides, by central's names of their columns.
    pub body: Map<String, Value>,
}
