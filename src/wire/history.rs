//! Events, commands and checkpoints. Their fields have the names of central's columns.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::domain::history::{CommandDetails, valid_checkpoint_type, valid_command_type, valid_event_type};
use crate::domain::{HistoryRecord, Invalid, NewRecord, RecordKind, Timestamp};

/// An event of a session. Secrets in it are redacted before it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRequest {
    /// One of the known types, such as `epic_started`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z][a-z0-9_]{0,63}$")]
    pub(crate) event_type: String,
    /// Data of the event, of any structure. Default: {}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub event_data: Option<Map<String, Value>>,
    /// The event that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
    pub parent_uuid: Option<String>,
}

impl EventRequest {
    pub(crate) fn validate(self) -> Result<NewRecord, Invalid> {
        let parent = self.parent_uuid.as_deref().map(parse_uuid).transpose()?;
        NewRecord::event(&self.event_type, self.event_data.unwrap_or_default(), parent)
    }
}

fn parse_uuid(text: &str) -> Result<Uuid, Invalid> {
    // Only the form with dashes, which every other client writes.
    Uuid::try_parse(text)
        .ok()
        .filter(|_| text.len() == 36)
        .ok_or_else(|| Invalid::new("parent_uuid", "it must be a UUID"))
}

/// A command that was run in a session. Secrets in it are redacted before it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// `mcp_tool` or `explicit`. Default: `mcp_tool` if there is a tool_name, else `explicit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(mcp_tool|explicit)$")]
    pub command_type: Option<String>,
    /// What was done, such as `build`; at most 128 characters.
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub(crate) action: String,
    /// The tool that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub(crate) tool_name: Option<String>,
    /// Default: {}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Map<String, Value>>,
    /// Any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 8192)]
    pub(crate) error_message: Option<String>,
    /// Default: true if there is no error_message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2147483647)]
    pub(crate) execution_time_ms: Option<i64>,
    /// At most 32, each of 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub tags: Vec<String>,
}

impl CommandRequest {
    pub(crate) fn validate(self) -> Result<NewRecord, Invalid> {
        let details = CommandDetails {
            tool_name: self.tool_name,
            parameters: self.parameters,
            result: self.result,
            error_message: self.error_message,
            success: self.success,
            execution_time_ms: self.execution_time_ms,
            tags: self.tags,
        };
        NewRecord::command(self.command_type.as_deref(), &self.action, details)
    }
}

/// A checkpoint: the state of a session's work, from which it can be continued. Secrets in it are redacted before it
/// is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// `context_window`, `epic_completion` or `manual`.
    #[schema(pattern = "^(context_window|epic_completion|manual)$")]
    pub checkpoint_type: String,
    /// The state of the work, of any structure. A context shows all of it.
    #[schema(value_type = Object)]
    pub(crate) work_state: Map<String, Value>,
    /// Default: the context_percent of the session's last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub context_window_percent: Option<i64>,
}

impl CheckpointRequest {
    pub(crate) fn validate(self) -> Result<NewRecord, Invalid> {
        NewRecord::checkpoint(&self.checkpoint_type, self.context_window_percent, self.work_state)
    }
}

/// Whether central has a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordState {
    /// Whether central has it.
    pub synced: bool,
    /// Whether central refused the record permanently; it is kept on this host.
    pub parked: bool,
    /// Why the record is parked, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventBody {
    /// The id that central keeps too.
    pub(crate) event_id: String,
    /// The session.
    pub instance_id: String,
    /// The type that it was recorded with.
    pub(crate) event_type: String,
    /// When it happened.
    pub timestamp: String,
    /// Its data, as it was recorded but for secrets.
    #[schema(value_type = Object)]
    pub(crate) event_data: Value,
    /// The event that caused this one; null if none was named.
    pub(crate) parent_uuid: Option<String>,
    /// Whether central has it.
    #[serde(flatten)]
    pub state: RecordState,
}

/// A recorded command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandBody {
    /// Central's command_log keeps this id in context_data, since the table has no column for it.
    pub record_id: String,
    /// The session.
    pub instance_id: String,
    /// `mcp_tool` or `explicit`.
    pub(crate) command_type: String,
    /// What was done.
    pub(crate) action: String,
    /// The tool that did it; null if none was named.
    pub(crate) tool_name: Option<String>,
    /// An object.
    #[schema(value_type = Object)]
    pub(crate) parameters: Value,
    /// Any JSON.
    pub result: Value,
    /// Why it failed; null if that was not recorded.
    pub(crate) error_message: Option<String>,
    /// Whether it succeeded.
    pub(crate) success: bool,
    /// How long it took, in milliseconds; null if that was not recorded.
    pub(crate) execution_time_ms: Option<i64>,
    /// The tags that it was recorded with.
    pub(crate) tags: Vec<String>,
    /// When the command was run.
    pub created_at: String,
    /// Whether central has it.
    #[serde(flatten)]
    pub state: RecordState,
}

/// A recorded checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointBody {
    /// The id that central keeps too.
    pub(crate) checkpoint_id: String,
    /// The session.
    pub instance_id: String,
    /// `context_window`, `epic_completion` or `manual`.
    pub(crate) checkpoint_type: String,
    /// How much of the context window was used, in percent; null if that is not known.
    pub(crate) context_window_percent: Option<i64>,
    /// When the checkpoint was made.
    pub timestamp: String,
    /// The state of the work, as it was recorded but for secrets.
    #[schema(value_type = Object)]
    pub(crate) work_state: Value,
    /// Whether central has it.
    #[serde(flatten)]
    pub state: RecordState,
}

/// The JSON form of a kind of record.
pub trait RecordBody {
    /// The JSON form of this record.
    fn new(record: HistoryRecord, state: RecordState) -> Self;
}

impl RecordBody for EventBody {
    fn new(mut record: HistoryRecord, state: RecordState) -> Self {
        Self {
            event_id: record.record_id.to_string(),
            instance_id: record.instance_id.to_string(),
            timestamp: record.at.to_string(),
            event_data: object(&mut record, "data"),
            parent_uuid: text(&mut record, "parent_uuid"),
            event_type: record.record_type,
            state,
        }
    }
}

impl RecordBody for CommandBody {
    fn new(mut record: HistoryRecord, state: RecordState) -> Self {
        let tags = record.body.remove("tags").and_then(|tags| serde_json::from_value(tags).ok());
        Self {
            record_id: record.record_id.to_string(),
            instance_id: record.instance_id.to_string(),
            action: text(&mut record, "action").unwrap_or_default(),
            tool_name: text(&mut record, "tool_name"),
            parameters: object(&mut record, "parameters"),
            result: record.body.remove("result").unwrap_or_default(),
            error_message: text(&mut record, "error_message"),
            success: record.body.get("success").and_then(Value::as_bool).unwrap_or(true),
            execution_time_ms: record.body.get("execution_time_ms").and_then(Value::as_i64),
            tags: tags.unwrap_or_default(),
            created_at: record.at.to_string(),
            command_type: record.record_type,
            state,
        }
    }
}

impl RecordBody for CheckpointBody {
    fn new(mut record: HistoryRecord, state: RecordState) -> Self {
        Self {
            checkpoint_id: record.record_id.to_string(),
            instance_id: record.instance_id.to_string(),
            context_window_percent: record.body.get("context_window_percent").and_then(Value::as_i64),
            timestamp: record.at.to_string(),
            work_state: object(&mut record, "work_state"),
            checkpoint_type: record.record_type,
            state,
        }
    }
}

fn text(record: &mut HistoryRecord, field: &str) -> Option<String> {
    match record.body.remove(field) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The field as an object. Where another client of central wrote another type, it is wrapped as `{"value": ...}`.
fn object(record: &mut HistoryRecord, field: &str) -> Value {
    match record.body.remove(field) {
        Some(object @ Value::Object(_)) => object,
        Some(Value::Null) | None => Value::Object(Map::new()),
        Some(other) => Value::Object(Map::from_iter([("value".into(), other)])),
    }
}

/// Which records to list. A filter that is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryParams {
    /// Only records of this type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 64, pattern = "^[a-z][a-z0-9_]{0,63}$")]
    pub record_type: Option<String>,
    /// Only records from this time on, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub since: Option<String>,
    /// Only records before this time, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub until: Option<String>,
    /// Only records that contain this text, ignoring case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 256)]
    pub contains: Option<String>,
    /// The most records to list. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// How many of the newest records to skip. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 1000000000)]
    pub offset: Option<u32>,
    /// Only records older than the record with this id, which is the last of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    pub after: Option<String>,
}

/// Validated [`HistoryParams`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFilter {
    pub(crate) record_type: Option<String>,
    /// Only records from this time on.
    pub since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) contains: Option<String>,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) after: Option<Uuid>,
}

impl HistoryParams {
    const DEFAULT_LIMIT: u32 = 50;
    const MAX_LIMIT: u32 = 1000;
    const MAX_OFFSET: u32 = 1_000_000_000;
    /// In characters.
    const MAX_CONTAINS: usize = 256;

    /// # Errors
    /// A parameter is invalid.
    pub fn validate(self, kind: RecordKind) -> Result<HistoryFilter, Invalid> {
        let valid_type = match kind {
            RecordKind::Event => valid_event_type,
            RecordKind::Command => valid_command_type,
            RecordKind::Checkpoint => valid_checkpoint_type,
        };
        let record_type = self.record_type.as_deref().map(valid_type).transpose();
        let contains = self.contains.map(|text| match text.chars().count() {
            1..=Self::MAX_CONTAINS => Ok(text),
            _ => Err(Invalid::new("contains", format!("it must have 1 to {} characters", Self::MAX_CONTAINS))),
        });
        Ok(HistoryFilter {
            record_type: record_type.map_err(|error| Invalid { field: "type", ..error })?,
            since: self.since.as_deref().map(|at| parse_time("since", at)).transpose()?,
            until: self.until.as_deref().map(|at| parse_time("until", at)).transpose()?,
            contains: contains.transpose()?,
            limit: in_range("limit", self.limit.unwrap_or(Self::DEFAULT_LIMIT), 1, Self::MAX_LIMIT)?,
            offset: in_range("offset", self.offset.unwrap_or(0), 0, Self::MAX_OFFSET)?,
            after: self.after.as_deref().map(parse_record_id).transpose()?,
        })
    }
}

fn parse_record_id(text: &str) -> Result<Uuid, Invalid> {
    Uuid::parse_str(text).map_err(|_| Invalid::new("after", "it must be the id of a record, as a list shows it"))
}

pub(super) fn in_range(field: &'static str, value: u32, min: u32, max: u32) -> Result<usize, Invalid> {
    let rule = || Invalid::new(field, format!("it must be {min} to {max}"));
    if (min..=max).contains(&value) { Ok(value as usize) } else { Err(rule()) }
}

pub(super) fn parse_time(field: &'static str, text: &str) -> Result<Timestamp, Invalid> {
    DateTime::parse_from_rfc3339(text)
        .map(|at| Timestamp::from_micros(at.timestamp_micros()))
        .map_err(|_| Invalid::new(field, "it must be a time in RFC 3339, such as 2026-01-30T12:00:00Z"))
}

/// Events of a session, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The session.
    pub instance_id: String,
    /// Newest first.
    pub events: Vec<EventBody>,
    /// Whether there are older ones, which `after` or `offset` lists.
    pub more: bool,
    /// One line, if central was asked for what this host does not read ahead and did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Commands of a session, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandList {
    /// The session.
    pub instance_id: String,
    /// Newest first.
    pub commands: Vec<CommandBody>,
    /// Whether there are older ones, which `after` or `offset` lists.
    pub more: bool,
    /// One line, if central was asked for what this host does not read ahead and did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Checkpoints of a session, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointList {
    /// The session.
    pub instance_id: String,
    /// Newest first.
    pub(crate) checkpoints: Vec<CheckpointBody>,
    /// Whether there are older ones, which `after` or `offset` lists.
    pub more: bool,
    /// One line, if central was asked for what this host does not read ahead and did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
