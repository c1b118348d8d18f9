//! The tools: their arguments, and the API request that each sends. The names are those of earlier services.

use serde_json::{Map, Value, json};

use crate::client::encode;

/// A request of the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiRequest {
    pub method: &'static str,
    pub target: String,
    pub body: Option<Value>,
}

pub(super) struct Tool {
    pub name: &'static str,
    pub description: &'static str,
    /// The arguments.
    fields: &'static [Field],
    required: &'static [&'static str],
    request: RequestForm,
    /// Whether it changes nothing.
    pub read_only: bool,
}

impl Tool {
    /// Whether it registers a session.
    pub(super) fn registers(&self) -> bool {
        matches!(self.request, RequestForm::Post("/v1/sessions"))
    }

    /// The field in which a response that is a list is returned.
    pub(super) const fn list_name(&self) -> &'static str {
        match self.request {
            RequestForm::GetList(_, name) => name,
            _ => "result",
        }
    }

    /// Whether its response contains text that sessions recorded, rather than what the caller sent.
    pub(super) fn returns_recorded_text(&self) -> bool {
        self.read_only || matches!(self.request, RequestForm::Post("/v1/resume"))
    }
}

/// An argument of a tool: its name, and its description last.
#[derive(Clone, Copy)]
enum Field {
    Text(&'static str, &'static str),
    Choice(&'static str, &'static [&'static str], &'static str),
    /// An integer between the two numbers.
    Number(&'static str, i64, i64, &'static str),
    Flag(&'static str, &'static str),
    Object(&'static str, &'static str),
    List(&'static str, &'static str),
    Any(&'static str, &'static str),
}

/// How the arguments become a request. The first string is a path, or the part of it after the session's id.
#[derive(Clone, Copy)]
enum RequestForm {
    /// The arguments are the body.
    Post(&'static str),
    /// The session is in the path, the others are the body.
    PostToSession(&'static str),
    /// The arguments are the query, after this fixed one; the default of `limit` is [`PAGE_SIZE`].
    GetPage(&'static str, &'static str),
    /// The session is in the path, the others are the query, after this fixed one.
    GetFromSession(&'static str, &'static str),
    /// There are no arguments; the response is a list, which becomes the field of this name.
    GetList(&'static str, &'static str),
    /// More than one request, which the server makes.
    Composed(Composed),
}

/// The tools whose results are made of several responses, or of one that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Composed {
    Fleet,
    Handoff,
}

/// What a tool does with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ToolCall {
    Request(ApiRequest),
    /// The session's id, or a prefix of it.
    Handoff(String),
    Fleet {
        machine: Option<String>,
        project: Option<String>,
    },
}

const ID: Field = Field::Text("instance_id", "The session's id, such as odin-PS-8f4a2b");
const EPIC: Field = Field::Text("current_epic", "The epic it works on");
const PERCENT: Field = Field::Number("context_percent", 0, 100, "How much of the context window is used, in percent");
const PAGE: Field = Field::Number("limit", 1, 1000, "The most sessions to list. Default: 50");
const AFTER: Field = Field::Text("after", "The `next` of the previous page");
/// How many sessions a page has by default: an agent's context window is small.
pub(super) const PAGE_SIZE: u32 = 50;
const TYPE: Field = Field::Text("type", "Only records of this type");
const SINCE: Field = Field::Text("since", "Only records from this time on, in RFC 3339");
const UNTIL: Field = Field::Text("until", "Only records before this time, in RFC 3339");
const CONTAINS: Field = Field::Text("contains", "Only records that contain this text, ignoring case");
const LIMIT: Field = Field::Number("limit", 1, 1000, "The most records to list");
const OFFSET: Field = Field::Number("offset", 0, i32::MAX as i64, "How many of the newest records to skip");

pub(super) const TOOLS: [Tool; 15] = [
    Tool {
        name: "mcp_meta_register_instance",
        description: "Register a session on this machine; returns its instance_id",
        fields: &[
            Field::Text("project", "Lower-case letters, digits and dashes, at most 22 characters"),
            Field::Choice("instance_type", &["PS", "MS"], "PS, a project supervisor, or MS, a meta supervisor"),
            Field::Text("host_machine", "The machine it runs on; default: this one"),
            EPIC,
            PERCENT,
            Field::Number("pid", 1, i32::MAX as i64, "Its process; when that ends, the session becomes stale at once"),
            Field::Text("claude_session_uuid", "Claude Code's own id of the session"),
            Field::Text("claude_session_path", "Claude Code's transcript of the session"),
            Field::Text("working_dir", "Its working directory"),
        ],
        required: &["project"],
        request: RequestForm::Post("/v1/sessions"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_heartbeat",
        description: "Record a heartbeat of a session; fields that are left out stay unchanged",
        fields: &[ID, PERCENT, Field::Any("current_epic", "The epic it works on now; null clears it")],
        required: &["instance_id"],
        request: RequestForm::PostToSession("/heartbeat"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_list_instances",
        description: "List the sessions on all machines",
        fields: &[
            Field::Text("project", "Only sessions of this project"),
            Field::Text("machine", "Only sessions on this machine"),
            Field::Choice("status", &["active", "stale", "closed"], "Only sessions with this status"),
            Field::Flag("active_only", "Only active sessions"),
            Field::Choice(
                "activity",
                &["working", "waiting", "idle", "failed"],
                "Only active sessions with this activity",
            ),
            Field::Flag("local", "Only sessions of this host"),
            PAGE,
            AFTER,
        ],
        required: &[],
        request: RequestForm::GetPage("/v1/sessions", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_get_instance_details",
        description: "Show all fields of one session, by its id or a prefix of it",
        fields: &[ID],
        required: &["instance_id"],
        request: RequestForm::GetFromSession("", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_resume_instance",
        description: "Resume a session that is not active any more; returns its reconstructed context",
        fields: &[
            Field::Text(
                "hint",
                "An id, its last 4 to 6 characters, an epic or a project; default: the session with the newest heartbeat",
            ),
            Field::Number("choice", 1, 10, "Which of several candidates, counted from 1"),
            Field::Flag("closed", "Continue also a closed session, which the hint must name by its whole id"),
        ],
        required: &[],
        request: RequestForm::Post("/v1/resume"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_emit_event",
        description: "Record an event of a session",
        fields: &[
            ID,
            Field::Text("event_type", "Such as epic_started, test_passed, commit_created"),
            Field::Object("event_data", "Data of the event, of any structure"),
            Field::Text("parent_uuid", "The event that caused this one"),
        ],
        required: &["instance_id", "event_type"],
        request: RequestForm::PostToSession("/events"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_query_events",
        description: "List the events of a session, newest first",
        fields: &[ID, TYPE, SINCE, UNTIL, CONTAINS, LIMIT, OFFSET],
        required: &["instance_id"],
        request: RequestForm::GetFromSession("/events", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_log_command",
        description: "Record a command that was run in a session",
        fields: &[
            ID,
            Field::Text("action", "What was done"),
            Field::Choice("command_type", &["mcp_tool", "explicit"], "Default: mcp_tool if there is a tool_name"),
            Field::Text("tool_name", "The tool that was used"),
            Field::Object("parameters", "The tool's parameters"),
            Field::Any("result", "The tool's result"),
            Field::Text("error_message", "Why it failed"),
            Field::Flag("success", "Default: true if there is no error_message"),
            Field::Number("execution_time_ms", 0, i32::MAX as i64, "How long it took, in milliseconds"),
            Field::List("tags", "Labels for searching"),
        ],
        required: &["instance_id", "action"],
        request: RequestForm::PostToSession("/commands"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_search_commands",
        description: "Search the commands of a session, newest first",
        fields: &[ID, TYPE, SINCE, UNTIL, CONTAINS, LIMIT, OFFSET],
        required: &["instance_id"],
        request: RequestForm::GetFromSession("/commands", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_create_checkpoint",
        description: "Record a checkpoint: the state of a session's work, from which it can be continued",
        fields: &[
            ID,
            Field::Choice(
                "checkpoint_type",
                &["context_window", "epic_completion", "manual"],
                "Why the checkpoint is made",
            ),
            Field::Object("work_state", "The state of the work"),
            Field::Number("context_window_percent", 0, 100, "Default: the context_percent of the last heartbeat"),
        ],
        required: &["instance_id", "checkpoint_type", "work_state"],
        request: RequestForm::PostToSession("/checkpoints"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_get_checkpoint",
        description: "Get the newest checkpoint of a session",
        fields: &[ID, TYPE],
        required: &["instance_id"],
        request: RequestForm::GetFromSession("/checkpoints", "limit=1"),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_list_stale_instances",
        description: "List stale sessions: those without recent heartbeats, which can be resumed",
        fields: &[
            Field::Text("project", "Only sessions of this project"),
            Field::Text("machine", "Only sessions on this machine"),
            PAGE,
            AFTER,
        ],
        required: &[],
        request: RequestForm::GetPage("/v1/sessions", "status=stale"),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_fleet",
        description: "Give an overview of all machines: the active sessions, those that wait for a user first, and the rate \
                      limits",
        fields: &[Field::Text("machine", "Only this machine"), Field::Text("project", "Only sessions of this project")],
        required: &[],
        request: RequestForm::Composed(Composed::Fleet),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_handoff",
        description: "Get the handoff of a session, in Markdown: its goal, what was done last, what is open and how to \
                      continue; does not resume it",
        fields: &[ID],
        required: &["instance_id"],
        request: RequestForm::Composed(Composed::Handoff),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_conflicts",
        description: "List active sessions that share a working tree, a branch or an epic, on any machines",
        fields: &[],
        required: &[],
        request: RequestForm::GetList("/v1/conflicts", "conflicts"),
        read_only: true,
    },
];

impl Tool {
    /// The tool with this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TOOLS.iter().find(|tool| tool.name == name)
    }

    /// The arguments as a JSON schema.
    pub(super) fn schema(&self) -> Map<String, Value> {
        let properties: Map<_, _> = self.fields.iter().map(|field| field.schema()).collect();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("properties".into(), properties.into());
        schema.insert("required".into(), self.required.into());
        schema.insert("additionalProperties".into(), false.into());
        schema
    }

    /// What these arguments ask for.
    ///
    /// # Errors
    /// Names the argument that is missing, unknown or not allowed in a query.
    pub(super) fn call(&self, mut arguments: Map<String, Value>) -> Result<ToolCall, String> {
        let known = |name: &str| self.fields.iter().any(|field| field.name() == name);
        if let Some(unknown) = arguments.keys().find(|name| !known(name)) {
            return Err(format!("{unknown}: {} has no such argument", self.name));
        }
        if let Some(missing) = self.required.iter().find(|name| arguments.get(**name).is_none_or(Value::is_null)) {
            return Err(format!("{missing}: {} requires it", self.name));
        }
        let mut id = || match arguments.remove("instance_id") {
            Some(Value::String(id)) if !id.is_empty() => Ok(id),
            _ => Err("instance_id: it must be text".to_owned()),
        };
        if self.returns_handoff() {
            return id().map(ToolCall::Handoff);
        }
        let mut session = || id().map(|id| format!("/v1/sessions/{}", encode(&id)));
        Ok(ToolCall::Request(match self.request {
            RequestForm::Post(path) => {
                ApiRequest { method: "POST", target: path.to_owned(), body: Some(arguments.into()) }
            }
            RequestForm::PostToSession(rest) => {
                ApiRequest { target: session()? + rest, method: "POST", body: Some(arguments.into()) }
            }
            RequestForm::GetPage(path, fixed) => {
                arguments.entry("limit").or_insert_with(|| PAGE_SIZE.into());
                ApiRequest { method: "GET", target: query(path, fixed, &arguments)?, body: None }
            }
            RequestForm::GetFromSession(rest, fixed) => {
                let path = session()? + rest;
                ApiRequest { method: "GET", target: query(&path, fixed, &arguments)?, body: None }
            }
            RequestForm::GetList(path, _) => ApiRequest { method: "GET", target: path.to_owned(), body: None },
            RequestForm::Composed(_) => {
                let (machine, project) = (text(&arguments, "machine")?, text(&arguments, "project")?);
                return Ok(ToolCall::Fleet { machine, project });
            }
        }))
    }

    /// Whether its response is a handoff.
    pub(super) fn returns_handoff(&self) -> bool {
        matches!(self.request, RequestForm::Composed(Composed::Handoff))
    }
}

/// An argument that must be text, if it is given.
fn text(arguments: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name}: it must be text")),
    }
}

pub(super) fn query(path: &str, fixed: &str, arguments: &Map<String, Value>) -> Result<String, String> {
    let mut pairs: Vec<String> = Some(fixed).filter(|fixed| !fixed.is_empty()).map(str::to_owned).into_iter().collect();
    for (name, value) in arguments {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return Err(format!("{name}: it must be a single value")),
        };
        pairs.push(format!("{name}={}", encode(&text)));
    }
    Ok(if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) })
}

impl Field {
    const fn name(&self) -> &'static str {
        match self {
            Self::Text(name, _)
            | Self::Choice(name, ..)
            | Self::Number(name, ..)
            | Self::Flag(name, _)
            | Self::Object(name, _)
            | Self::List(name, _)
            | Self::Any(name, _) => name,
        }
    }

    fn schema(&self) -> (String, Value) {
        let schema = match *self {
            Self::Text(_, what) => json!({"type": "string", "description": what}),
            Self::Choice(_, choices, what) => json!({"type": "string", "enum": choices, "description": what}),
            Self::Number(_, least, most, what) => {
                json!({"type": "integer", "minimum": least, "maximum": most, "description": what})
            }
            Self::Flag(_, what) => json!({"type": "boolean", "description": what}),
            Self::Object(_, what) => json!({"type": "object", "description": what}),
            Self::List(_, what) => json!({"type": "array", "items": {"type": "string"}, "description": what}),
            Self::Any(_, what) => json!({"description": what}),
        };
        (self.name().to_owned(), schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: Value) -> Result<ToolCall, String> {
        Tool::named(name).unwrap().call(arguments.as_object().unwrap().clone())
    }

    fn request(name: &str, arguments: Value) -> Result<ApiRequest, String> {
        call(name, arguments).map(|call| match call {
            ToolCall::Request(request) => request,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn composed_tools_check_their_arguments() {
        let handoff = call("mcp_meta_handoff", json!({"instance_id": "odin"}));
        assert_eq!(handoff, Ok(ToolCall::Handoff("odin".to_owned())));
        let fleet = call("mcp_meta_fleet", json!({"machine": "a", "project": null}));
        assert_eq!(fleet, Ok(ToolCall::Fleet { machine: Some("a".to_owned()), project: None }));
        assert_eq!(request("mcp_meta_conflicts", json!({})).unwrap().target, "/v1/conflicts");
        for (name, arguments) in [
            ("mcp_meta_handoff", json!({})),
            ("mcp_meta_handoff", json!({"instance_id": ""})),
            ("mcp_meta_fleet", json!({"machine": 7})),
            ("mcp_meta_fleet", json!({"colour": "red"})),
            ("mcp_meta_conflicts", json!({"machine": "a"})),
        ] {
            assert!(call(name, arguments.clone()).is_err(), "{name}: {arguments}");
        }
    }

    #[test]
    fn builds_requests_from_arguments() {
        let beat = request("mcp_meta_heartbeat", json!({"instance_id": "a/b", "current_epic": null})).unwrap();
        assert_eq!((beat.method, beat.target.as_str()), ("POST", "/v1/sessions/a%2Fb/heartbeat"));
        assert_eq!(beat.body, Some(json!({"current_epic": null})));
        let list = request("mcp_meta_list_stale_instances", json!({"project": "a&b"})).unwrap();
        assert_eq!(list.target, "/v1/sessions?status=stale&limit=50&project=a%26b");
        let more = request("mcp_meta_list_instances", json!({"limit": 7, "after": "x~y"})).unwrap();
        assert_eq!(more.target, "/v1/sessions?after=x~y&limit=7");
        let events = request("mcp_meta_query_events", json!({"instance_id": "x", "limit": 5, "type": null})).unwrap();
        assert_eq!(events.target, "/v1/sessions/x/events?limit=5");
        assert_eq!(
            request("mcp_meta_get_instance_details", json!({"instance_id": "x"})).unwrap().target,
            "/v1/sessions/x"
        );
    }

    #[test]
    fn errors_name_the_wrong_argument() {
        for (name, arguments, field) in [
            ("mcp_meta_heartbeat", json!({}), "instance_id"),
            ("mcp_meta_heartbeat", json!({"instance_id": 7}), "instance_id"),
            ("mcp_meta_heartbeat", json!({"instance_id": "x", "epic": "y"}), "epic"),
            ("mcp_meta_register_instance", json!({"project": null}), "project"),
            ("mcp_meta_list_instances", json!({"project": ["a"]}), "project"),
        ] {
            let error = request(name, arguments).unwrap_err();
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
    }

    #[test]
    fn required_arguments_are_in_the_schema() {
        for tool in &TOOLS {
            let schema = tool.schema();
            for name in tool.required {
                assert!(schema["properties"].get(*name).is_some(), "{}: {name}", tool.name);
            }
        }
    }
}
