//! The HTTP API on the Unix socket.
//!
//! A request takes this path: [`serve`] accepts the connection and identifies the user ([`Peer`]); [`RequestHandler`]
//! applies the limits; a route parses the request into a type of `wire`, validates it into a type of `domain`, calls the
//! store, and returns a type of `wire`. The API keeps no state of its own: everything it uses is passed in as [`Api`].

mod connections;
mod error;
mod extract;
mod handler;
mod json;
mod metrics;
mod on_demand;
mod openapi;
mod response_budget;
mod router;
#[allow(unused_qualifications, reason = "utoipa's macros write full paths")]
mod routes;
mod server;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

pub use error::ApiError;
pub use extract::{Peer, parse_body};
pub use handler::RequestHandler;
pub use metrics::Metrics;
pub use openapi::describe;
pub use response_budget::ResponseBudget;
pub use server::{AccessPolicy, serve};

use crate::clock::Clock;
use crate::domain::Process;
use crate::domain::agent::TypeRule;
use crate::domain::on_demand::{Question, Reply};
use crate::domain::{LinkStatus, MirrorScope, Timestamp};
use crate::platform;
use crate::platform::caller::PidError;
use crate::requests::Requester;
use crate::shutdown::Shutdown;
use crate::spool::SpoolMonitor;
use crate::store::{Caller, IdSource, OpContext, PinnedIdentity, Store};
use crate::wire::{ChannelTestBody, NotificationBody};

/// The largest body of a request, in bytes; a multiple of what the contract's fields need.
const MAX_BODY: usize = 64 * 1024;

/// Settings of the API that a reload may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// A session without a heartbeat for this long is stale.
    pub stale_after: Duration,
    /// How long closed sessions are listed by default.
    pub keep_closed: Duration,
    /// Whether a session may be registered for another machine.
    pub allow_other: bool,
    /// Determine the type of a session that an agent's report creates.
    pub type_rules: Vec<TypeRule>,
    /// The configuration file in use, if there is one.
    pub config_path: Option<String>,
    /// Why the present configuration file could not be loaded.
    pub config_error: Option<String>,
    /// Which sessions of other hosts are read ahead; central is asked for the others.
    pub scope: MirrorScope,
}

/// Properties of the daemon that do not change while it runs.
#[derive(Clone, Debug)]
pub struct DaemonInfo {
    /// The version of sessiond.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// The user who runs the daemon, and may therefore administer it.
    pub uid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// The database's file.
    pub store_path: String,
    /// `full` or `normal`.
    pub durability: &'static str,
}

/// The state of the socket, as the status reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The socket's file.
    pub(crate) path: String,
    /// The service manager created the socket.
    pub inherited: bool,
    /// Why clients cannot connect by the path, and what to do.
    pub error: Option<String>,
}

/// The notifier, as the routes use it.
#[derive(Clone, Debug)]
pub struct NotificationPort {
    /// What desktops are to show.
    pub desktop: broadcast::Sender<NotificationBody>,
    /// Requests to send a test to all channels.
    pub tests: mpsc::Sender<TestRequest>,
}

/// A request to send a test to all channels; the answer has the result of each.
pub type TestRequest = oneshot::Sender<Vec<ChannelTestBody>>;

/// How many notifications a desktop may be behind.
const DESKTOP_BACKLOG: usize = 64;
/// How many tests may wait.
const WAITING_TESTS: usize = 4;

impl NotificationPort {
    /// A port, and the notifier's end of the requests for tests.
    pub fn new() -> (Self, mpsc::Receiver<TestRequest>) {
        let (tests, requests) = mpsc::channel(WAITING_TESTS);
        (Self { desktop: broadcast::Sender::new(DESKTOP_BACKLOG), tests }, requests)
    }
}

/// Everything the routes use.
pub struct Api {
    /// Sessions, history and what central lacks.
    pub store: Store,
    /// This host's name and id, as they are pinned.
    pub identity: Arc<PinnedIdentity>,
    /// The settings, as the last reload left them.
    pub settings: watch::Receiver<ApiSettings>,
    /// The state of the link to central.
    pub link: watch::Receiver<LinkStatus>,
    /// Asks central for sessions that are not read ahead.
    pub questions: Requester<Question, Reply>,
    /// Makes sync push at once.
    pub push_now: Arc<Notify>,
    /// The time of each operation.
    pub clock: Clock,
    /// Random numbers, for ids and claims.
    pub random: fn() -> u64,
    /// The process with a pid in the peer's pid namespace. Blocks.
    pub resolve_pid: fn(&platform::peer::PeerCredentials, i32) -> Result<Process, PidError>,
    /// Whether a process still runs.
    pub is_running: fn(Process) -> bool,
    /// What `/metrics` exports.
    pub metrics: Metrics,
    /// The memory that unread responses may take.
    pub response_budget: ResponseBudget,
    /// The state of the spool folders.
    pub spool: SpoolMonitor,
    /// Whether the requests that were spooled before the start are imported.
    pub imported: watch::Receiver<bool>,
    /// The state of the socket that clients connect to.
    pub socket: watch::Receiver<SocketState>,
    /// Notifications for desktops, and their test.
    pub notifications: NotificationPort,
    /// Ends the responses that have no end of their own.
    pub shutdown: Shutdown,
    /// What `status` says about the daemon.
    pub daemon: DaemonInfo,
}

impl Api {
    /// For an operation of this caller, now.
    fn context(&self, caller: Caller) -> OpContext {
        let stale_after = self.settings.borrow().stale_after;
        OpContext { now: (self.clock)(), caller, stale_after, ids: IdSource::Random(self.random) }
    }
}
