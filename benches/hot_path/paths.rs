//! The paths that are counted: a durable heartbeat and a footer through API and store, and a verb from its arguments to
//! its output.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use sessiond::api::{Api, ApiSettings, DaemonInfo, Metrics, NotificationPort, Peer, RequestHandler, ResponseBudget};
use sessiond::cli::{
    self, CliError, DaemonOptions, IdentityVerb, InstallArgs, LocalOperations, MigrateArgs, RunArgs, UninstallArgs,
};
use sessiond::client::Client;
use sessiond::domain::{Finding, InstanceType, LinkState, LinkStatus, MachineName, Project, Registration, Timestamp};
use sessiond::shutdown;
use sessiond::store::{
    Durability, FolderLock, IdSource, Identity, IdentityFile, NewSession, OpContext, Options, PinnedIdentity, Store,
};
use sessiond::wire::{ErrorCode, MachineIdentity};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub const ALL: [&str; 3] = ["heartbeat", "footer", "verb"];

const NOW: Timestamp = Timestamp::from_micros(1_770_000_000_000_000);

/// Runs a path `runs` times.
pub fn run(path: &str, runs: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    match path {
        "heartbeat" => repeat_request(dir.path(), runs, |id| {
            let body = Body::from(r#"{"context_percent":42,"current_epic":"003"}"#);
            Request::post(format!("/v1/sessions/{id}/heartbeat")).body(body)
        }),
        "footer" => {
            repeat_request(dir.path(), runs, |id| Request::get(format!("/v1/sessions/{id}/footer")).body(Body::empty()))
        }
        "verb" => repeat_verb(dir.path(), runs),
        _ => panic!("there is no path {path}"),
    }
}

/// Sends a request to the API with a real store, `runs` times.
fn repeat_request(dir: &Path, runs: u64, question: impl Fn(&str) -> axum::http::Result<Request<Body>>) {
    let _lock = FolderLock::take(dir).expect("the folder is ours");
    let options = Options { durability: Durability::Full, max_size: 1 << 30 };
    let (store, writer) = Store::open(dir, options, Arc::new(|| NOW)).expect("a store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        let session = NewSession { what: registration(), agent: None, process: None };
        let context = OpContext { ids: IdSource::Seeded(1), ..OpContext::of_daemon(NOW, Duration::from_secs(120)) };
        let record = store.register(session, context).await.expect("it is registered");
        let id = record.session.instance_id.to_string();
        let (stop, handler) = handler(dir, store);
        for _ in 0..runs {
            let mut request = question(&id).expect("a request");
            request.extensions_mut().insert(Peer::of_user(0));
            let answer = handler.clone().handle(request).await;
            assert_eq!(answer.status(), 200);
            to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        }
        drop(stop);
    });
    writer.join();
}

fn registration() -> Registration {
    Registration {
        project: Project::parse("odin").expect("a project"),
        instance_type: InstanceType::parse("PS").expect("a type"),
        host_machine: MachineName::parse("odin3").expect("a name"),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}

fn handler(dir: &Path, store: Store) -> (shutdown::Stop, RequestHandler) {
    let identity = Identity::new(MachineName::parse("odin3").expect("a name"), Uuid::nil(), NOW);
    let (stop, shutdown) = shutdown::channel();
    let settings = ApiSettings {
        scope: sessiond::domain::MirrorScope::All,
        stale_after: Duration::from_secs(120),
        keep_closed: Duration::from_secs(600),
        allow_other: true,
        config_path: None,
        config_error: None,
        type_rules: Default::default(),
    };
    let api = Api {
        questions: sessiond::sync::on_demand::channel().0,
        store,
        identity: Arc::new(PinnedIdentity::new(IdentityFile::in_folder(dir), identity)),
        settings: watch::channel(settings).1,
        link: watch::channel(LinkStatus::new(LinkState::Off, NOW)).1,
        push_now: Arc::new(Notify::new()),
        clock: Arc::new(|| NOW),
        random: || 1,
        resolve_pid: |_, pid| Err(sessiond::platform::caller::PidError::NotRunning(pid)),
        is_running: |_| false,
        metrics: Metrics::new("0"),
        response_budget: ResponseBudget::new(|| {}),
        spool: sessiond::spool::SpoolMonitor::default(),
        socket: watch::channel(sessiond::api::SocketState::default()).1,
        imported: watch::channel(true).1,
        notifications: NotificationPort::new().0,
        shutdown,
        daemon: DaemonInfo {
            version: "0",
            pid: 1,
            uid: 0,
            started_at: NOW,
            store_path: String::new(),
            durability: "full",
        },
    };
    (stop, RequestHandler::new(Arc::new(api)))
}

/// Runs a verb, without loading the program, with a fake daemon that has one response.
fn repeat_verb(dir: &Path, runs: u64) {
    const ANSWER: &str = "Instance: odin-PS-8f4a2b@odin3 | Epic: 003 | Context: 42% | Active: 1.2h";
    let socket = dir.join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let daemon = thread::spawn(move || {
        for _ in 0..runs {
            let (mut stream, _) = listener.accept().expect("a client");
            _ = stream.read(&mut [0; 4096]).expect("a request");
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len()).expect("an answer");
        }
    });
    for _ in 0..runs {
        let words = ["sessiond", "footer", "odin-PS-8f4a2b", "--socket"].map(OsString::from);
        let words = words.into_iter().chain([socket.clone().into()]);
        cli::main(words, &NoLocalVerbs);
    }
    daemon.join().expect("every client came");
}

/// There are no verbs that this process carries out itself.
struct NoLocalVerbs;

impl LocalOperations for NoLocalVerbs {
    fn recording(&self) -> Result<sessiond::domain::work::Recording, CliError> {
        Ok(sessiond::domain::work::Recording::Full)
    }

    fn run(&self, _: &RunArgs) -> Result<(), CliError> {
        Err(not_available())
    }

    fn migrate(&self, _: &MigrateArgs) -> Result<String, CliError> {
        Err(not_available())
    }

    fn identity(&self, _: &IdentityVerb) -> Result<MachineIdentity, CliError> {
        Err(not_available())
    }

    fn install(&self, _: &InstallArgs) -> Result<Vec<String>, CliError> {
        Err(not_available())
    }

    fn uninstall(&self, _: &UninstallArgs) -> Result<Vec<String>, CliError> {
        Err(not_available())
    }

    fn doctor(&self, _: &DaemonOptions, _: &Client) -> Result<Vec<Finding>, CliError> {
        Err(not_available())
    }

    fn bugreport(&self, _: &DaemonOptions, _: &Client) -> Result<String, CliError> {
        Err(not_available())
    }
}

fn not_available() -> CliError {
    CliError::new(ErrorCode::Usage, "it is not available in the benchmark", "use the daemon")
}
