//! The tools, under the names that agents know: what each takes, and which request of the API it is.

use serde_json::{Map, Value, json};

use crate::client::http::encode;

/// A request of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: &'static str,
    pub target: String,
    pub body: Option<Value>,
}

pub struct Tool {
    pub name: &'static str,
    pub description: &'static str,
    /// Names, types and descriptions of the arguments.
    fields: &'static [Field],
    required: &'static [&'static str],
    request: Request,
    pub read_only: bool,
}

impl Tool {
    pub fn registers(&self) -> bool {
        matches!(self.request, Request::Post("/v1/sessions"))
    }

    /// Whether its answer holds text that sessions recorded, rather than what the caller gave.
    pub fn tells_of_sessions(&self) -> bool {
        self.read_only || matches!(self.request, Request::Post("/v1/resume"))
    }
}

#[derive(Clone, Copy)]
enum Field {
    Text(&'static str, &'static str),
    Choice(&'static str, &'static [&'static str], &'static str),
    /// From the first number to the second.
    Number(&'static str, i64, i64, &'static str),
    Flag(&'static str, &'static str),
    Object(&'static str, &'static str),
    List(&'static str, &'static str),
    Anything(&'static str, &'static str),
}

/// How arguments become a request.
#[derive(Clone, Copy)]
enum Request {
    /// All of them are the body.
    Post(&'static str),
    /// The session is in the path, the others are the body.
    PostOf(&'static str),
    /// They are the query, besides this one; an agent gets [`PAGE_SIZE`] sessions at once unless it asks for more.
    Pages(&'static str, &'static str),
    /// The session is in the path, the others are the query, besides this one.
    GetOf(&'static str, &'static str),
}

const ID: Field = Field::Text("instance_id", "The session's id, such as odin-PS-8f4a2b");
const EPIC: Field = Field::Text("current_epic", "What it works on");
const PERCENT: Field = Field::Number("context_percent", 0, 100, "How much of the context window is used, in percent");
const PAGE: Field = Field::Number("limit", 1, 1000, "At most so many. Default: 50");
const AFTER: Field = Field::Text("after", "The `next` of the page before");
/// An agent's context is small; longer lists come in pages.
pub const PAGE_SIZE: u32 = 50;
const TYPE: Field = Field::Text("type", "Only those of this type");
const SINCE: Field = Field::Text("since", "Only from this moment on, in RFC 3339");
const UNTIL: Field = Field::Text("until", "Only before this moment, in RFC 3339");
const CONTAINS: Field = Field::Text("contains", "Only those in which this text stands");
const LIMIT: Field = Field::Number("limit", 1, 1000, "At most so many");
const OFFSET: Field = Field::Number("offset", 0, i32::MAX as i64, "Leave out so many of the newest");

pub const TOOLS: [Tool; 12] = [
    Tool {
        name: "mcp_meta_register_instance",
        description: "Register a session on this machine; answers with its instance_id",
        fields: &[
            Field::Text("project", "Lower-case letters, digits and dashes, at most 22"),
            Field::Choice("instance_type", &["PS", "MS"], "PS, a project supervisor, or MS, a meta supervisor"),
            Field::Text("host_machine", "The machine it runs on; default: this one"),
            EPIC,
            PERCENT,
            Field::Number("pid", 1, i32::MAX as i64, "Its process: when that ends, the session turns stale at once"),
            Field::Text("claude_session_uuid", "Claude Code's own id of the session"),
            Field::Text("claude_session_path", "Claude Code's transcript of the session"),
            Field::Text("working_dir", "The folder in which it runs"),
        ],
        required: &["project"],
        request: Request::Post("/v1/sessions"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_heartbeat",
        description: "Give a sign of life for a session; an epic that is left out stays, null clears it",
        fields: &[ID, PERCENT, Field::Anything("current_epic", "What it works on now; null: nothing any more")],
        required: &["instance_id"],
        request: Request::PostOf("/heartbeat"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_list_instances",
        description: "List the sessions on all machines",
        fields: &[
            Field::Text("project", "Only those of this project"),
            Field::Text("machine", "Only those on this machine"),
            Field::Choice("status", &["active", "stale", "closed"], "Only those in this state"),
            Field::Flag("active_only", "Only active ones"),
            Field::Flag("local", "Only those of this host"),
            PAGE,
            AFTER,
        ],
        required: &[],
        request: Request::Pages("/v1/sessions", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_get_instance_details",
        description: "Show one session in full, by its id or the beginning of it",
        fields: &[ID],
        required: &["instance_id"],
        request: Request::GetOf("", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_resume_instance",
        description: "Go on from a session that is not active any more; answers with its context",
        fields: &[
            Field::Text("hint", "An id, 4 to 6 characters of its end, an epic or a project; default: the newest"),
            Field::Number("choice", 1, 10, "Which of several candidates"),
            Field::Flag("closed", "Go on from a closed session, too, if the hint is its whole id"),
        ],
        required: &[],
        request: Request::Post("/v1/resume"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_emit_event",
        description: "Take down an event of a session",
        fields: &[
            ID,
            Field::Text("event_type", "Such as epic_started, test_passed, commit_created"),
            Field::Object("event_data", "Whatever there is to say of it"),
            Field::Text("parent_uuid", "The event that it came of"),
        ],
        required: &["instance_id", "event_type"],
        request: Request::PostOf("/events"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_query_events",
        description: "Ask for events of a session, newest first",
        fields: &[ID, TYPE, SINCE, UNTIL, CONTAINS, LIMIT, OFFSET],
        required: &["instance_id"],
        request: Request::GetOf("/events", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_log_command",
        description: "Take down a command that was run in a session",
        fields: &[
            ID,
            Field::Text("action", "What was done"),
            Field::Choice("command_type", &["mcp_tool", "explicit"], "Default: mcp_tool if a tool is named"),
            Field::Text("tool_name", "The tool that was used"),
            Field::Object("parameters", "What it was given"),
            Field::Anything("result", "What it gave"),
            Field::Text("error_message", "Why it failed"),
            Field::Flag("success", "Default: whether there is no error_message"),
            Field::Number("execution_time_ms", 0, i32::MAX as i64, "How long it took, in milliseconds"),
            Field::List("tags", "By which it is found again"),
        ],
        required: &["instance_id", "action"],
        request: Request::PostOf("/commands"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_search_commands",
        description: "Search the commands of a session, newest first",
        fields: &[ID, TYPE, SINCE, UNTIL, CONTAINS, LIMIT, OFFSET],
        required: &["instance_id"],
        request: Request::GetOf("/commands", ""),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_create_checkpoint",
        description: "Take down where a session stands, to go on from",
        fields: &[
            ID,
            Field::Choice("checkpoint_type", &["context_window", "epic_completion", "manual"], "What it is made for"),
            Field::Object("work_state", "The state of the work"),
            Field::Number("context_window_percent", 0, 100, "Default: what the last heartbeat said"),
        ],
        required: &["instance_id", "checkpoint_type", "work_state"],
        request: Request::PostOf("/checkpoints"),
        read_only: false,
    },
    Tool {
        name: "mcp_meta_get_checkpoint",
        description: "Get the newest checkpoint of a session",
        fields: &[ID, TYPE],
        required: &["instance_id"],
        request: Request::GetOf("/checkpoints", "limit=1"),
        read_only: true,
    },
    Tool {
        name: "mcp_meta_list_stale_instances",
        description: "List the sessions that gave no sign of life for too long and can be resumed",
        fields: &[
            Field::Text("project", "Only those of this project"),
            Field::Text("machine", "Only those on this machine"),
            PAGE,
            AFTER,
        ],
        required: &[],
        request: Request::Pages("/v1/sessions", "status=stale"),
        read_only: true,
    },
];

impl Tool {
    pub fn named(name: &str) -> Option<&'static Self> {
        TOOLS.iter().find(|tool| tool.name == name)
    }

    /// The arguments as a JSON schema.
    pub fn schema(&self) -> Map<String, Value> {
        let properties: Map<_, _> = self.fields.iter().map(|field| field.schema()).collect();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("properties".into(), properties.into());
        schema.insert("required".into(), self.required.into());
        schema.insert("additionalProperties".into(), false.into());
        schema
    }

    /// The request that does it.
    ///
    /// # Errors
    /// Names the argument that is missing, unknown or cannot stand in a query.
    pub fn call(&self, mut arguments: Map<String, Value>) -> Result<Call, String> {
        let known = |name: &str| self.fields.iter().any(|field| field.name() == name);
        if let Some(unknown) = arguments.keys().find(|name| !known(name)) {
            return Err(format!("{unknown}: {} takes no such argument", self.name));
        }
        if let Some(missing) = self.required.iter().find(|name| arguments.get(**name).is_none_or(Value::is_null)) {
            return Err(format!("{missing}: {} needs it", self.name));
        }
        let mut session = || match arguments.remove("instance_id") {
            Some(Value::String(id)) if !id.is_empty() => Ok(format!("/v1/sessions/{}", encode(&id))),
            _ => Err("instance_id: it must be text".to_owned()),
        };
        Ok(match self.request {
            Request::Post(path) => Call { method: "POST", target: path.to_owned(), body: Some(arguments.into()) },
            Request::PostOf(rest) => Call { target: session()? + rest, method: "POST", body: Some(arguments.into()) },
            Request::Pages(path, fixed) => {
                arguments.entry("limit").or_insert_with(|| PAGE_SIZE.into());
                Call { method: "GET", target: query(path, fixed, &arguments)?, body: None }
            }
            Request::GetOf(rest, fixed) => {
                let path = session()? + rest;
                Call { method: "GET", target: query(&path, fixed, &arguments)?, body: None }
            }
        })
    }
}

fn query(path: &str, fixed: &str, arguments: &Map<String, Value>) -> Result<String, String> {
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
            | Self::Anything(name, _) => name,
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
            Self::Anything(_, what) => json!({"description": what}),
        };
        (self.name().to_owned(), schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: Value) -> Result<Call, String> {
        Tool::named(name).unwrap().call(arguments.as_object().unwrap().clone())
    }

    #[test]
    fn arguments_become_requests() {
        let beat = call("mcp_meta_heartbeat", json!({"instance_id": "a/b", "current_epic": null})).unwrap();
        assert_eq!((beat.method, beat.target.as_str()), ("POST", "/v1/sessions/a%2Fb/heartbeat"));
        assert_eq!(beat.body, Some(json!({"current_epic": null})));
        let list = call("mcp_meta_list_stale_instances", json!({"project": "a&b"})).unwrap();
        assert_eq!(list.target, "/v1/sessions?status=stale&limit=50&project=a%26b");
        let more = call("mcp_meta_list_instances", json!({"limit": 7, "after": "x~y"})).unwrap();
        assert_eq!(more.target, "/v1/sessions?after=x~y&limit=7");
        let events = call("mcp_meta_query_events", json!({"instance_id": "x", "limit": 5, "type": null})).unwrap();
        assert_eq!(events.target, "/v1/sessions/x/events?limit=5");
        assert_eq!(
            call("mcp_meta_get_instance_details", json!({"instance_id": "x"})).unwrap().target,
            "/v1/sessions/x"
        );
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (name, arguments, told) in [
            ("mcp_meta_heartbeat", json!({}), "instance_id"),
            ("mcp_meta_heartbeat", json!({"instance_id": 7}), "instance_id"),
            ("mcp_meta_heartbeat", json!({"instance_id": "x", "epic": "y"}), "epic"),
            ("mcp_meta_register_instance", json!({"project": null}), "project"),
            ("mcp_meta_list_instances", json!({"project": ["a"]}), "project"),
        ] {
            let error = call(name, arguments).unwrap_err();
            assert!(error.starts_with(&format!("{told}: ")), "{error}");
        }
    }

    #[test]
    fn what_a_tool_needs_it_also_takes() {
        for tool in &TOOLS {
            let schema = tool.schema();
            for name in tool.required {
                assert!(schema["properties"].get(*name).is_some(), "{}: {name}", tool.name);
            }
        }
    }
}
