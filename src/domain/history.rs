//! The history of a session: events, commands and checkpoints.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::session::valid_percent;
use super::text::{safe_fields, safe_line};
use super::{InstanceId, Invalid, Timestamp, redact};

/// The kind of a record, and so its table in central.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// `event_store`. Body: `data` (an object), `parent_uuid`.
    Event,
    /// `command_log`. Body: `action`, `tool_name`, `parameters`, `result`, `error_message`, `success`,
    /// `execution_time_ms`, `tags`.
    Command,
    /// `checkpoints`. Body: `context_window_percent`, `work_state` (an object).
    Checkpoint,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Event, Self::Command, Self::Checkpoint];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Its table in central.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Event => "event_store",
            Self::Command => "command_log",
            Self::Checkpoint => "checkpoints",
        }
    }

    /// The kind with that name: `event`, `command` or `checkpoint`.
    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

/// A record of a session's history. Records are immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRecord {
    /// Random; central's event_id or checkpoint_id.
    pub record_id: Uuid,
    /// The session that it belongs to.
    pub instance_id: InstanceId,
    /// Its kind, which decides its table.
    pub kind: RecordKind,
    /// The event's, command's or checkpoint's type.
    pub record_type: String,
    /// When it happened.
    pub at: Timestamp,
    /// The other fields of its kind, by the names of central's columns.
    pub body: Map<String, Value>,
}

impl HistoryRecord {
    /// The length of its body as JSON, in bytes.
    pub fn size(&self) -> usize {
        serde_json::to_string(&self.body).map_or(0, |json| json.len())
    }
}

/// A record that a client reports: valid and redacted.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    kind: RecordKind,
    record_type: String,
    body: Map<String, Value>,
}

/// The fields of a command beside its type and action.
#[derive(Clone, Debug, Default)]
pub struct CommandDetails {
    pub(crate) tool_name: Option<String>,
    pub(crate) parameters: Option<Map<String, Value>>,
    pub(crate) result: Option<Value>,
    pub(crate) error_message: Option<String>,
    pub(crate) success: Option<bool>,
    pub(crate) execution_time_ms: Option<i64>,
    pub(crate) tags: Vec<String>,
}

/// Whether central accepts records of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TableState {
    /// Records are pushed.
    Usable,
    /// There is no such table, so no record of this kind is pushed.
    #[default]
    Absent,
    /// The login lacks these rights, such as `INSERT on event_store`. Records are pushed once they are granted.
    Forbidden(Vec<String>),
    /// The table's timestamps have no time zone, so that they are ambiguous. Records are pushed after `sessiond migrate`.
    WithoutZone,
}

/// Central's tables for records: their states, and the event types that central accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryTables {
    /// The table `event_store`.
    pub(crate) events: TableState,
    /// The table `command_log`.
    pub commands: TableState,
    /// The table `checkpoints`.
    pub(crate) checkpoints: TableState,
    /// The table `session_work`.
    pub work: TableState,
    /// Whether that table has columns for the agent, which `sessiond migrate` adds.
    pub work_has_agent: bool,
    /// The table `sessiond_limits`.
    pub limits: TableState,
    /// The table `sessiond_activity`.
    pub activity: TableState,
    /// The table `sessiond_leases`.
    pub leases: TableState,
    /// None if central accepts any type.
    pub event_types: Option<Vec<String>>,
}

impl HistoryTables {
    /// All tables are usable and all event types accepted.
    pub const ALL: Self = Self {
        events: TableState::Usable,
        commands: TableState::Usable,
        checkpoints: TableState::Usable,
        work: TableState::Usable,
        work_has_agent: true,
        limits: TableState::Usable,
        activity: TableState::Usable,
        leases: TableState::Usable,
        event_types: None,
    };

    /// The state of the table for this kind.
    pub const fn state(&self, kind: RecordKind) -> &TableState {
        match kind {
            RecordKind::Event => &self.events,
            RecordKind::Command => &self.commands,
            RecordKind::Checkpoint => &self.checkpoints,
        }
    }

    /// The state of the table for this kind.
    pub const fn state_mut(&mut self, kind: RecordKind) -> &mut TableState {
        match kind {
            RecordKind::Event => &mut self.events,
            RecordKind::Command => &mut self.commands,
            RecordKind::Checkpoint => &mut self.checkpoints,
        }
    }

    /// Whether records of this kind are pushed.
    pub fn is_usable(&self, kind: RecordKind) -> bool {
        *self.state(kind) == TableState::Usable
    }

    /// Whether central has no table for this kind.
    pub fn is_absent(&self, kind: RecordKind) -> bool {
        *self.state(kind) == TableState::Absent
    }

    /// Why records of this kind are not pushed, and what to do; none if they are pushed, or if they have no table.
    pub fn blocked(&self, kind: RecordKind) -> Option<String> {
        match self.state(kind) {
            TableState::Usable | TableState::Absent => None,
            TableState::Forbidden(missing) => Some(format!(
                "central's login lacks {}; grant it, or run migrations/central/rights/daemon.sql for this role",
                missing.join(", ")
            )),
            TableState::WithoutZone => {
                Some(format!("central's {} has timestamps without a time zone; run `sessiond migrate`", kind.table()))
            }
        }
    }

    /// What this version would share that central cannot take, and what to do; none if central takes all of it.
    pub(crate) fn outdated(&self) -> Option<String> {
        let what = [
            ("what sessions do is", "session_work", &self.work),
            ("rate limits are", "sessiond_limits", &self.limits),
            ("the history of activities is", "sessiond_activity", &self.activity),
            ("which host sends a notification is", "sessiond_leases", &self.leases),
        ];
        let reasons = what.into_iter().filter_map(|(what, table, state)| not_shared(what, table, state));
        let has_no_agent = self.work == TableState::Usable && !self.work_has_agent;
        let agent = has_no_agent.then(|| {
            "which agents run is not shared: central's session_work has no column agent; run `sessiond migrate`"
                .to_owned()
        });
        let reasons: Vec<_> = reasons.chain(agent).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Whether a table for records is there and cannot be used.
    pub fn is_any_blocked(&self) -> bool {
        RecordKind::ALL.into_iter().any(|kind| self.blocked(kind).is_some())
    }

    pub(crate) fn accepts(&self, event_type: &str) -> bool {
        self.event_types.as_ref().is_none_or(|types| types.iter().any(|known| known == event_type))
    }
}

/// Why something is not shared by way of a table, and what to do; none if it is shared.
fn not_shared(what: &str, table: &str, state: &TableState) -> Option<String> {
    match state {
        TableState::Usable => None,
        TableState::Forbidden(missing) => Some(format!(
            "{what} not shared: central's login lacks {}; grant it, or run migrations/central/rights/daemon.sql for this \
             role",
            missing.join(", ")
        )),
        TableState::Absent | TableState::WithoutZone => {
            Some(format!("{what} not shared: central has no table {table}; run `sessiond migrate`"))
        }
    }
}

/// Above this share of the context window, in percent, a checkpoint is suggested.
pub const CHECKPOINT_ABOVE: u8 = 80;

/// The event types that every installation of the earlier services accepts.
pub const EVENT_TYPES: [&str; 23] = [
    "instance_registered",
    "instance_heartbeat",
    "instance_stale",
    "epic_started",
    "epic_completed",
    "epic_failed",
    "test_started",
    "test_passed",
    "test_failed",
    "validation_passed",
    "validation_failed",
    "commit_created",
    "pr_created",
    "pr_merged",
    "deployment_started",
    "deployment_completed",
    "deployment_failed",
    "context_window_updated",
    "checkpoint_created",
    "checkpoint_loaded",
    "epic_planned",
    "feature_requested",
    "task_spawned",
];

/// The event types that newer installations accept, too.
pub const NEWER_EVENT_TYPES: [&str; 6] =
    ["user_message", "assistant_start", "spawn_decision", "tool_use", "tool_result", "error"];

const ACTION: usize = 128;
const TOOL_NAME: usize = 128;
const ERROR_MESSAGE: usize = 8192;
const TAGS: usize = 32;
const TAG: usize = 128;

impl NewRecord {
    /// An event with its data.
    pub fn event(event_type: &str, data: Map<String, Value>, parent: Option<Uuid>) -> Result<Self, Invalid> {
        let mut body = Map::from_iter([("data".into(), Value::Object(data))]);
        if let Some(parent) = parent {
            body.insert("parent_uuid".into(), Value::String(parent.to_string()));
        }
        Ok(Self::new(RecordKind::Event, valid_event_type(event_type)?, body))
    }

    /// A command. The default type is `mcp_tool` if a tool is named, else `explicit`; the default of `success` is whether
    /// there is no error message.
    pub fn command(command_type: Option<&str>, action: &str, details: CommandDetails) -> Result<Self, Invalid> {
        let default = if details.tool_name.is_some() { "mcp_tool" } else { "explicit" };
        let command_type = valid_command_type(command_type.unwrap_or(default))?;
        let mut body = Map::new();
        body.insert("action".into(), line("action", action, ACTION)?.into());
        if let Some(tool) = &details.tool_name {
            body.insert("tool_name".into(), line("tool_name", tool, TOOL_NAME)?.into());
        }
        body.insert("parameters".into(), Value::Object(details.parameters.unwrap_or_default()));
        if let Some(result) = details.result.filter(|result| !result.is_null()) {
            body.insert("result".into(), result);
        }
        let failed = details.error_message.is_some();
        if let Some(message) = details.error_message {
            body.insert("error_message".into(), bounded("error_message", &message, ERROR_MESSAGE)?.into());
        }
        body.insert("success".into(), details.success.unwrap_or(!failed).into());
        if let Some(took) = details.execution_time_ms {
            body.insert("execution_time_ms".into(), valid_took(took)?.into());
        }
        body.insert("tags".into(), valid_tags(&details.tags)?);
        Ok(Self::new(RecordKind::Command, command_type, body))
    }

    /// A checkpoint. The default of `percent` is the session's own percentage.
    pub fn checkpoint(kind: &str, percent: Option<i64>, work_state: Map<String, Value>) -> Result<Self, Invalid> {
        let mut body = Map::from_iter([("work_state".into(), Value::Object(work_state))]);
        if let Some(percent) = percent {
            let percent = valid_percent(percent).map_err(|e| Invalid { field: "context_window_percent", ..e })?;
            body.insert("context_window_percent".into(), percent.into());
        }
        Ok(Self::new(RecordKind::Checkpoint, valid_checkpoint_type(kind)?, body))
    }

    fn new(kind: RecordKind, record_type: String, mut body: Map<String, Value>) -> Self {
        redact::object(&mut body);
        // A redaction mark may be longer than the secret that it replaces.
        for (field, most) in [("action", ACTION), ("tool_name", TOOL_NAME), ("error_message", ERROR_MESSAGE)] {
            if let Some(Value::String(text)) = body.get_mut(field)
                && let Some((end, _)) = text.char_indices().nth(most)
            {
                text.truncate(end);
            }
        }
        Self { kind, record_type, body }
    }

    pub(crate) fn kind(&self) -> RecordKind {
        self.kind
    }

    pub(crate) fn record_type(&self) -> &str {
        &self.record_type
    }

    /// Makes it a record of the session `instance_id`, of whose context window `percent` is used.
    pub fn into_record(self, record_id: Uuid, instance_id: InstanceId, percent: u8, at: Timestamp) -> HistoryRecord {
        let Self { kind, record_type, mut body } = self;
        if kind == RecordKind::Checkpoint && !body.contains_key("context_window_percent") {
            body.insert("context_window_percent".into(), percent.into());
        }
        HistoryRecord { record_id, instance_id, kind, record_type, at, body }
    }
}

/// The body of a record from another host, safe to show: fields of one line become one line.
pub fn safe_body(body: Map<String, Value>) -> Map<String, Value> {
    let mut body = safe_fields(body);
    let in_one_line = |value: &mut Value, most: usize| {
        if let Value::String(text) = value {
            *text = safe_line(std::mem::take(text), most);
        }
    };
    for (field, most) in [("action", ACTION), ("tool_name", TOOL_NAME)] {
        body.get_mut(field).into_iter().for_each(|value| in_one_line(value, most));
    }
    if let Some(Value::Array(tags)) = body.get_mut("tags") {
        tags.iter_mut().for_each(|tag| in_one_line(tag, TAG));
    }
    body
}

/// Checks an event's type: `^[a-z][a-z0-9_]{0,63}$`.
pub fn valid_event_type(event_type: &str) -> Result<String, Invalid> {
    let valid = event_type.len() <= 64
        && event_type.starts_with(|c: char| c.is_ascii_lowercase())
        && event_type.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let rule = "it must be 1 to 64 lower-case letters, digits and underscores, and begin with a letter";
    if valid { Ok(event_type.to_owned()) } else { Err(Invalid::new("event_type", rule)) }
}

/// Checks a command's type.
pub fn valid_command_type(command_type: &str) -> Result<String, Invalid> {
    one_of("command_type", command_type, &["mcp_tool", "explicit"], "it must be mcp_tool or explicit")
}

/// Checks a checkpoint's type.
pub fn valid_checkpoint_type(checkpoint_type: &str) -> Result<String, Invalid> {
    const RULE: &str = "it must be context_window, epic_completion or manual";
    one_of("checkpoint_type", checkpoint_type, &["context_window", "epic_completion", "manual"], RULE)
}

fn one_of(field: &'static str, value: &str, known: &[&str], rule: &str) -> Result<String, Invalid> {
    if known.contains(&value) { Ok(value.to_owned()) } else { Err(Invalid::new(field, rule)) }
}

/// Checks an execution time in milliseconds; central's column has 32 bits.
fn valid_took(took: i64) -> Result<i32, Invalid> {
    let took = i32::try_from(took).ok().filter(|took| *took >= 0);
    took.ok_or_else(|| Invalid::new("execution_time_ms", format!("it must be 0 to {} milliseconds", i32::MAX)))
}

fn valid_tags(tags: &[String]) -> Result<Value, Invalid> {
    if tags.len() > TAGS {
        return Err(Invalid::new("tags", format!("{} are too many; at most {TAGS}", tags.len())));
    }
    tags.iter().map(|tag| line("tags", tag, TAG).map(Value::from)).collect()
}

/// Text of one line, 1 to `most` characters.
fn line(field: &'static str, text: &str, most: usize) -> Result<String, Invalid> {
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "it must not contain control characters"));
    }
    bounded(field, text, most)
}

/// Text of any number of lines, 1 to `most` characters.
fn bounded(field: &'static str, text: &str, most: usize) -> Result<String, Invalid> {
    match text.chars().count() {
        0 => Err(Invalid::new(field, "it must not be empty")),
        length if length > most => {
            Err(Invalid::new(field, format!("{length} characters are too long; at most {most}")))
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn types_are_checked() {
        for valid in EVENT_TYPES.iter().chain(&NEWER_EVENT_TYPES).chain(&["a", "x9_"]) {
            assert_eq!(valid_event_type(valid).as_deref(), Ok(*valid));
        }
        for invalid in ["", "_a", "9a", "A", "a-b", "ä", &"a".repeat(65)] {
            assert_eq!(valid_event_type(invalid).unwrap_err().field, "event_type", "{invalid}");
        }
        assert!(valid_command_type("mcp_tool").is_ok() && valid_command_type("auto").is_err());
        assert!(valid_checkpoint_type("manual").is_ok() && valid_checkpoint_type("").is_err());
    }

    #[test]
    fn command_defaults_to_explicit_and_success() {
        let command = NewRecord::command(None, "build", CommandDetails::default()).unwrap();
        assert_eq!(command.record_type, "explicit");
        assert_eq!(
            Value::Object(command.body),
            json!({"action": "build", "parameters": {}, "success": true, "tags": []})
        );
        let details = CommandDetails {
            tool_name: Some("Bash".into()),
            error_message: Some("two\nlines".into()),
            ..CommandDetails::default()
        };
        let failed = NewRecord::command(None, "test", details).unwrap();
        assert_eq!((failed.record_type.as_str(), &failed.body["success"]), ("mcp_tool", &json!(false)));
    }

    #[test]
    fn error_names_the_invalid_field() {
        let command = |details| NewRecord::command(None, "a", details).unwrap_err().field;
        assert_eq!(
            command(CommandDetails { execution_time_ms: Some(-1), ..CommandDetails::default() }),
            "execution_time_ms"
        );
        assert_eq!(command(CommandDetails { tags: vec![String::new()], ..CommandDetails::default() }), "tags");
        assert_eq!(command(CommandDetails { tags: vec!["t".into(); 33], ..CommandDetails::default() }), "tags");
        assert_eq!(
            command(CommandDetails { tool_name: Some("a\nb".into()), ..CommandDetails::default() }),
            "tool_name"
        );
        assert_eq!(NewRecord::command(None, "", CommandDetails::default()).unwrap_err().field, "action");
        let checkpoint = NewRecord::checkpoint("manual", Some(101), Map::new()).unwrap_err();
        assert_eq!(checkpoint.field, "context_window_percent");
    }

    #[test]
    fn redacted_text_fits_into_centrals_columns() {
        let event = NewRecord::event("error", object(json!({"why": {"password": "hunter2"}})), None).unwrap();
        assert_eq!(event.body["data"], json!({"why": {"password": redact::MARK}}));
        let action = format!("{} pwd=x", "a".repeat(122));
        let command = NewRecord::command(None, &action, CommandDetails::default()).unwrap();
        assert_eq!(command.body["action"].as_str().unwrap().chars().count(), ACTION);
    }
}
