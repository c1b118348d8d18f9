//! HTTP on the Unix socket: turns wire into a domain command, hands it to the store, turns the answer into wire.
//!
//! It holds no state of its own; all it works with is handed in as [`Api`].

mod describe;
mod error;
mod extract;
mod front;
mod json;
mod metrics;
mod places;
#[allow(unused_qualifications, reason = "utoipa's macros write full paths")]
mod routes;
mod server;
mod unread;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::sync::{Notify, watch};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use error::ApiError;
pub use extract::{Peer, parse_body};
pub use front::Front;
pub use metrics::Metrics;
pub use server::{Admission, serve};
pub use unread::Unread;

use crate::clock::Clock;
use crate::domain::agent::TypeRule;
use crate::domain::{LinkStatus, Timestamp};
use crate::platform;
use crate::platform::caller::PidError;
use crate::shutdown::Shutdown;
use crate::spool::SpoolMonitor;
use crate::store::{PinnedIdentity, Process, Store};

/// The largest body of a request, in bytes; the contract's fields fit many times over.
const MAX_BODY: usize = 64 * 1024;

/// What may change while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    pub stale_after: Duration,
    /// How long closed sessions are listed without being asked for.
    pub keep_closed: Duration,
    /// May a register call name another machine?
    pub allow_other: bool,
    /// Of which type a session is that an agent begins.
    pub type_rules: Vec<TypeRule>,
    pub config_path: Option<String>,
    /// Why the configuration file as it is now is not in force.
    pub config_error: Option<String>,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct About {
    pub version: &'static str,
    pub pid: u32,
    /// Who runs the daemon, and may therefore tend it.
    pub uid: u32,
    pub started_at: Timestamp,
    pub store_path: String,
    pub durability: &'static str,
}

/// What the status reports of the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    pub path: String,
    /// It was handed over by the service manager.
    pub inherited: bool,
    /// Why clients cannot reach the daemon by the path, and what to do.
    pub error: Option<String>,
}

/// Everything the routes work with.
pub struct Api {
    pub store: Store,
    pub identity: Arc<PinnedIdentity>,
    pub settings: watch::Receiver<ApiSettings>,
    pub link: watch::Receiver<LinkStatus>,
    /// Tells sync to push now.
    pub nudge: Arc<Notify>,
    pub clock: Clock,
    pub random: fn() -> u64,
    /// The process that a peer means by a pid. Blocks.
    pub resolve_pid: fn(&platform::peer::Peer, i32) -> Result<Process, PidError>,
    /// Whether a process still runs.
    pub lives: fn(Process) -> bool,
    pub metrics: Metrics,
    pub unread: Unread,
    pub spool: SpoolMonitor,
    /// Whether the spooled requests that were there at the start are imported.
    pub imported: watch::Receiver<bool>,
    pub socket: watch::Receiver<SocketState>,
    /// Ends what would go on for ever.
    pub shutdown: Shutdown,
    pub about: About,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "sessiond",
    description = "The record of AI coding sessions on this machine. HTTP/1.1 and JSON over a Unix socket."
))]
struct Document;

/// The routes of docs/contract.md over `api`, and the document that describes them.
fn router(api: Arc<Api>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(routes::sessions::register, routes::sessions::list))
        .routes(routes!(routes::sessions::show))
        .routes(routes!(routes::sessions::heartbeat))
        .routes(routes!(routes::sessions::close))
        .routes(routes!(routes::sessions::footer))
        .routes(routes!(routes::agents::report))
        .routes(routes!(routes::resume::context))
        .routes(routes!(routes::resume::resume))
        .routes(routes!(routes::history::add_event, routes::history::events))
        .routes(routes!(routes::history::add_command, routes::history::commands))
        .routes(routes!(routes::history::add_checkpoint, routes::history::checkpoints))
        .routes(routes!(routes::watch::watch))
        .routes(routes!(routes::machines::list))
        .routes(routes!(routes::daemon::status))
        .routes(routes!(routes::daemon::sync))
        .routes(routes!(routes::parked::list))
        .routes(routes!(routes::parked::retry))
        .routes(routes!(routes::parked::drop))
        .routes(routes!(routes::identity::show))
        .routes(routes!(routes::identity::rename))
        .routes(routes!(routes::identity::replace))
        .routes(routes!(routes::daemon::metrics))
        .split_for_parts();
    let document: Arc<str> = describe::with_common_answers(document).to_json().unwrap_or_default().into();
    router
        .route("/v1/openapi.json", axum::routing::get(move || routes::daemon::openapi(document.clone())))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}
