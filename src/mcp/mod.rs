//! An MCP server on stdin and stdout: each tool sends requests to the daemon's API, each session is a resource that can be
//! subscribed to.
//!
//! Text that sessions recorded may have been written by any client of central. Responses with such text carry a label
//! that it is data, and unsafe characters are replaced.

mod fleet;
mod handler;
mod resources;
mod subscriptions;
mod tools;
mod transport;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rmcp::ServiceExt;
use rmcp::model::{Resource, ResourceUpdatedNotificationParam};
use rmcp::service::{Peer, RoleServer};
use serde_json::{Map, Value};

use crate::client::{Client, Resolved, encode, is_machine_refused};
use crate::domain::text::{safe_json, safe_lines};
use crate::wire::{ErrorCode, ErrorDetail};
use fleet::Parts;
use subscriptions::{ChangeReceiver, ChangeWatcher};
use tools::{ApiRequest, PAGE_SIZE, Tool, ToolCall, query};
use transport::LineTransport;

const MACHINE: &str = "host_machine";
/// The most sessions of which an overview is made.
const MAX_FLEET: u32 = 1000;

/// Serves until stdin ends. `machine`: the default machine of registrations.
///
/// # Errors
/// The client does not use MCP, or the streams fail.
pub fn serve(client: Client, machine: Option<String>) -> Result<(), ErrorDetail> {
    let failed = |what: String| ErrorDetail {
        code: ErrorCode::Internal,
        message: format!("the MCP server ended: {what}"),
        hint: "`sessiond mcp` is started by an MCP client, which connects to its stdin and stdout".into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let ended = runtime.block_on(async {
        let (stdin, stdout) = rmcp::transport::stdio();
        let service = match McpServer::new(client, machine).serve(LineTransport::new(stdin, stdout)).await {
            // The client closed stdin without sending a message, which is no error.
            Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
            served => served.map_err(|error| failed(error.to_string()))?,
        };
        service.waiting().await.map(drop).map_err(|error| failed(error.to_string()))
    });
    // Does not wait for a pending read of stdin.
    runtime.shutdown_background();
    ended
}

struct McpServer {
    client: Client,
    machine: Option<String>,
    watcher: ChangeWatcher,
    subscribed: Subscribed,
    /// Whether the task runs that announces changes to a client of before 2026-07-28.
    announces: OnceLock<()>,
}

/// The URIs that a client of before 2026-07-28 has subscribed to, and the session of each.
type Subscribed = Arc<Mutex<BTreeMap<String, String>>>;

fn lock(subscribed: &Subscribed) -> MutexGuard<'_, BTreeMap<String, String>> {
    subscribed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl McpServer {
    fn new(client: Client, machine: Option<String>) -> Self {
        let watcher = ChangeWatcher::new(client.clone());
        Self { client, machine, watcher, subscribed: Subscribed::default(), announces: OnceLock::new() }
    }

    /// Runs a request on another thread, because the client blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Client) -> Result<T, ErrorDetail> + Send + 'static,
    ) -> Result<T, ErrorDetail> {
        let client = self.client.clone();
        let sending = tokio::task::spawn_blocking(move || request(&client));
        sending.await.unwrap_or_else(|error| {
            Err(ErrorDetail {
                code: ErrorCode::Internal,
                message: format!("the request could not be sent: {error}"),
                hint: "try again".into(),
            })
        })
    }

    async fn send(&self, request: ApiRequest) -> Result<Value, ErrorDetail> {
        let ApiRequest { method, target, body } = request;
        self.blocking(move |client| client.request_json(method, target, body.as_ref())).await.map(safe_json)
    }

    async fn get(&self, target: String) -> Result<Value, ErrorDetail> {
        self.send(ApiRequest { method: "GET", target, body: None }).await
    }

    /// The handoff of a session by its id or a prefix of it, in Markdown: data within a fence, with a label.
    async fn handoff(&self, id: String) -> Result<String, ErrorDetail> {
        match self.blocking(move |client| client.handoff(&id)).await? {
            Resolved::One(markdown) => Ok(safe_lines(*markdown)),
            Resolved::Several(matches) => {
                let ids: Vec<_> = matches.matches.iter().map(|session| session.instance_id.as_str()).collect();
                Err(ErrorDetail {
                    code: ErrorCode::Ambiguous,
                    message: format!("several sessions match: {}", ids.join(", ")),
                    hint: "name one of them".into(),
                })
            }
        }
    }

    async fn fleet(&self, machine: Option<&str>, project: Option<&str>) -> Result<Map<String, Value>, ErrorDetail> {
        let filter: Map<String, Value> = [("machine", machine), ("project", project)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect();
        let active = query("/v1/sessions", &format!("active_only=true&limit={MAX_FLEET}"), &filter);
        let active = active.map_err(|message| ErrorDetail { code: ErrorCode::Usage, message, hint: String::new() })?;
        let parts = Parts {
            machines: self.get("/v1/machines".to_owned()).await?,
            active: self.get(active).await?,
            limits: self.get("/v1/limits".to_owned()).await?,
        };
        Ok(fleet::overview(&parts, machine))
    }

    /// Runs a tool. A registration without a machine is first sent with the default machine.
    async fn run(&self, tool: &Tool, arguments: Map<String, Value>) -> Result<Value, ErrorDetail> {
        if let Some(machine) = self.machine.as_ref().filter(|_| tool.registers() && !arguments.contains_key(MACHINE)) {
            let mut on_machine = arguments.clone();
            on_machine.insert(MACHINE.to_owned(), machine.as_str().into());
            match self.run_with(tool, on_machine).await {
                Err(error) if is_machine_refused(&error) => {}
                answer => return answer,
            }
        }
        self.run_with(tool, arguments).await
    }

    /// Runs a tool with exactly these arguments; the result is an object with a host_machine.
    async fn run_with(&self, tool: &Tool, arguments: Map<String, Value>) -> Result<Value, ErrorDetail> {
        let session = arguments.get("instance_id").and_then(Value::as_str).map(str::to_owned);
        let call = tool.call(arguments).map_err(|message| ErrorDetail {
            code: ErrorCode::Usage,
            message,
            hint: "see the tool's input schema".into(),
        })?;
        let mut answer = match call {
            ToolCall::Request(request) => match self.send(request).await? {
                Value::Object(answer) => answer,
                other => Map::from_iter([(tool.list_name().to_owned(), other)]),
            },
            ToolCall::Handoff(id) => Map::from_iter([("handoff".to_owned(), self.handoff(id).await?.into())]),
            ToolCall::Fleet { machine, project } => self.fleet(machine.as_deref(), project.as_deref()).await?,
        };
        if !answer.contains_key(MACHINE) {
            let machine = match (answer.get("session"), session) {
                (Some(session), _) => session.get(MACHINE).cloned(),
                (None, Some(id)) => {
                    let path = format!("/v1/sessions/{}", encode(&id));
                    self.get(path).await?.get(MACHINE).cloned()
                }
                (None, None) => self.get("/v1/identity".to_owned()).await?.get("name").cloned(),
            };
            answer.insert(MACHINE.to_owned(), machine.unwrap_or(Value::Null));
        }
        Ok(answer.into())
    }

    /// A page of sessions, and the cursor of the next page.
    async fn sessions(&self, after: Option<String>) -> Result<(Vec<Resource>, Option<String>), ErrorDetail> {
        let after = after.map(|cursor| format!("&after={}", encode(&cursor))).unwrap_or_default();
        let list = self.get(format!("/v1/sessions?limit={PAGE_SIZE}{after}")).await?;
        let sessions = list["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok((sessions.iter().filter_map(resources::resource).collect(), list["next"].as_str().map(str::to_owned)))
    }

    /// The session with this id or prefix of one; `None` if there is no such session.
    async fn session(&self, id: &str) -> Result<Option<Value>, ErrorDetail> {
        match self.get(format!("/v1/sessions/{}", encode(id))).await {
            Ok(session) if session.get("instance_id").is_some() => Ok(Some(session)),
            Ok(_) => Ok(None),
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The id of the stale session that had the newest heartbeat.
    async fn newest_stale(&self) -> Result<Option<String>, ErrorDetail> {
        let list = self.get("/v1/sessions?status=stale&limit=1".to_owned()).await?;
        Ok(list["instances"][0]["instance_id"].as_str().map(str::to_owned))
    }

    /// Begins to announce changes of what is subscribed to, once.
    fn announce_to(&self, peer: Peer<RoleServer>) {
        self.announces.get_or_init(|| {
            let (changes, subscribed) = (self.watcher.subscribe(), self.subscribed.clone());
            tokio::spawn(announce(changes, subscribed, peer));
        });
    }
}

async fn announce(mut changes: ChangeReceiver, subscribed: Subscribed, peer: Peer<RoleServer>) {
    loop {
        let changed = changes.next().await;
        let is_changed = |(_, id): &(&String, &String)| changed.contains(id);
        let uris: Vec<String> = lock(&subscribed).iter().filter(is_changed).map(|(uri, _)| uri.clone()).collect();
        for uri in uris {
            if peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.is_err() {
                return;
            }
        }
    }
}
