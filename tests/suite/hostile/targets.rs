//! The guarantees of each parser for arbitrary bytes; a violation panics.
//!
//! Two drivers use them: `hostile::fuzz` mutates seeds for a few seconds of each test run, and `fuzz/` lets
//! libFuzzer look for new paths through the code for as long as it runs.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sessiond::api::{Api, ApiSettings, DaemonInfo, Metrics, Peer, RequestHandler};
use sessiond::claude::hook::{self, HookEvent};
use sessiond::claude::input::Input;
use sessiond::claude::{settings, statusline, work};
use sessiond::client::http::HttpResponse;
use sessiond::config::{self, Environment, Overrides, Settings};
use sessiond::domain::context::reconstruct;
use sessiond::domain::handoff::Handoff;
use sessiond::domain::text::safe_line;
use sessiond::domain::work::Recording;
use sessiond::domain::{
    Hint, HistoryRecord, InstanceId, InstanceType, Invalid, LinkState, LinkStatus, MachineName, Project, RecordKind,
    Registration, Session, SessionHistory, SessionLocation, Status, Timestamp,
};
use sessiond::platform::default_paths::Os;
use sessiond::spool::SpooledRequest;
use sessiond::store::{Durability, Identity, IdentityFile, Options, PinnedIdentity, Store};
use sessiond::sync::postgres::PostgresOptions;
use sessiond::wire::{
    AgentReport, ErrorBody, HeartbeatRequest, IdentityRename, ParkedIds, RegisterRequest, ResumeRequest, SyncRequest,
};

pub type Target = fn(&[u8]);

/// Each target, by the name of its folder of seeds.
pub const TARGETS: [(&str, Target); 8] = [
    ("bodies", bodies),
    ("names", names),
    ("answers", answers),
    ("config", config),
    ("identity", identity),
    ("central_url", central_url),
    ("api", api),
    ("agents", agents),
];

/// The password that the seeds carry: it never shows.
const SECRET: &str = "s3cr3t";

/// Every error is one line of bounded length.
pub fn assert_tidy(message: &str) {
    assert!(!message.is_empty(), "an error without words");
    assert!(message.len() <= 1024, "{} bytes of error: {message:.200}...", message.len());
    assert!(!message.contains(char::is_control), "control characters in {message:?}");
}

/// What Claude Code hands over, and its settings.
pub fn agents(data: &[u8]) {
    let reports = HookEvent::ALL.map(|event| {
        let input = Input::read(data, &hook::wanted());
        event.record(&input, Recording::Full);
        let work = work::of(event, &input, Recording::Full);
        AgentReport { work, ..event.report(&input, &|_| None) }
    });
    let input = Input::read(data, &statusline::wanted());
    let work = work::of_status_line(&input, Recording::Full);
    let line = AgentReport { work, ..statusline::report(&input, &|_| None) };
    for report in reports.into_iter().chain([line]) {
        // Whatever comes in, what goes on to the daemon is something that it takes.
        let taken =
            report.validate(&[], Timestamp::from_micros(0)).unwrap_or_else(|invalid| panic!("{report:?}: {invalid}"));
        assert!(Project::parse(taken.project.as_str()).is_ok());
        let json = serde_json::to_vec(&report).expect("a report is JSON");
        assert_eq!(serde_json::from_slice::<AgentReport>(&json).ok(), Some(report));
    }
    let _ = serde_json::from_slice::<SpooledRequest>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match settings::install(text, "/usr/bin/sessiond", &HookEvent::INSTALLED) {
        Ok(merged) => {
            let again = settings::install(&merged.text, "/usr/bin/sessiond", &HookEvent::INSTALLED)
                .expect("what we wrote can be read");
            assert_eq!(again.text, merged.text, "once is enough");
            let without = settings::uninstall(&merged.text).expect("what we wrote can be read");
            assert!(!without.contains("/usr/bin/sessiond hook Stop\""), "nothing of ours is left: {without}");
        }
        Err(error) => assert_tidy(&error.to_string()),
    }
}

/// The bodies of requests: from JSON through wire into domain, and back to JSON.
pub fn bodies(data: &[u8]) {
    if let Some(request) = body::<RegisterRequest>(data)
        && let Some(registration) = tidy(request.validate(&MachineName::guess()))
    {
        assert_registration(&registration);
    }
    if let Some(request) = body::<HeartbeatRequest>(data)
        && let Some(beat) = tidy(request.validate(Timestamp::from_micros(0)))
    {
        assert!(beat.context_percent.is_none_or(|percent| percent <= 100));
        assert_text(beat.current_epic.flatten().as_deref(), 256);
    }
    if let Some(wait) = body::<SyncRequest>(data).and_then(|request| tidy(request.validate())) {
        assert!(wait <= Duration::from_secs(10));
    }
    body::<ParkedIds>(data);
    if let Some(request) = body::<ResumeRequest>(data) {
        tidy(request.meanings());
        assert!(tidy(request.choice()).flatten().is_none_or(|choice| (1..=10).contains(&choice)));
        tidy(request.successor(MachineName::guess(), 0));
    }
    if let Ok(body) = serde_json::from_slice(data) {
        assert_told(body);
    }
    if let Some(request) = body::<IdentityRename>(data)
        && let Some(name) = tidy(MachineName::parse(&request.name))
    {
        assert_machine(name.as_str());
    }
}

/// Any record is shown in lines of bounded length that keep the structure of the handoff.
fn assert_told(body: serde_json::Map<String, serde_json::Value>) {
    let project = Project::parse("odin").expect("it is a project");
    let id = InstanceId::generate(&project, InstanceType::Ps, 7);
    let at = Timestamp::from_micros(0);
    let types = ["epic_started", "epic_completed", "epic_failed", "test_passed", "pr_created", "error", "other"];
    let records = |kind| {
        let (id, body) = (id.clone(), body.clone());
        types.map(|name| HistoryRecord {
            record_id: uuid::Uuid::nil(),
            instance_id: id.clone(),
            kind,
            record_type: name.to_owned(),
            at,
            body: body.clone(),
        })
    };
    let left = SessionHistory {
        work: None,
        checkpoint: records(RecordKind::Checkpoint).into_iter().next(),
        events: records(RecordKind::Event).into(),
        commands: records(RecordKind::Command).into(),
    };
    let what = Registration {
        project,
        instance_type: InstanceType::Ps,
        host_machine: MachineName::guess(),
        context_percent: 0,
        current_epic: None,
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    };
    let session = &Session::register(id, what, at);
    let context = &reconstruct(session, &left, at);
    let place = &SessionLocation { here: true, local: true, last_seen: None, alive_as_of: None, as_of: None };
    let handoff = Handoff { session, context, place, command: None, now: at, stale_after: Duration::from_secs(120) };
    let text = handoff.markdown();
    assert!(text.len() < 64 << 10 && !text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
    // The fields of a checkpoint have a heading of their own.
    let headings = 6 + usize::from(!context.details.notes.is_empty());
    assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), headings, "{text}");
}

/// A body that is accepted survives its own serialisation; one that is not is refused in a line.
fn body<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    match sessiond::api::parse_body::<T>(data) {
        Err(error) => {
            assert_tidy(&error.detail().message);
            None
        }
        Ok(value) => {
            assert!(data.trim_ascii_start().starts_with(b"{"), "only objects are bodies");
            let again = serde_json::to_vec(&value).expect("what was parsed can be written");
            assert_eq!(sessiond::api::parse_body::<T>(&again).ok().as_ref(), Some(&value));
            Some(value)
        }
    }
}

fn tidy<T>(validated: Result<T, Invalid>) -> Option<T> {
    validated.map_err(|invalid| assert_tidy(&invalid.to_string())).ok()
}

fn assert_registration(what: &Registration) {
    assert_project(what.project.as_str());
    assert_machine(what.host_machine.as_str());
    assert!(what.context_percent <= 100);
    assert_text(what.current_epic.as_deref(), 256);
    assert_text(what.claude_session_uuid.as_deref(), 64);
    assert_text(what.claude_session_path.as_deref(), 4096);
    assert_text(what.working_dir.as_deref(), 4096);
}

fn assert_text(text: Option<&str>, longest: usize) {
    let Some(text) = text else { return };
    assert!((1..=longest).contains(&text.chars().count()) && !text.contains(char::is_control), "{text:?}");
}

const fn lower(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9')
}

fn assert_project(name: &str) {
    assert!((1..=22).contains(&name.len()) && name.chars().all(|c| lower(c) || c == '-'), "{name:?}");
}

fn assert_machine(name: &str) {
    assert!((1..=64).contains(&name.len()) && name.starts_with(lower), "{name:?}");
    assert!(name.chars().all(|c| lower(c) || c == '-' || c == '_'), "{name:?}");
}

/// The names that other programs hold on to.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(name) = tidy(MachineName::parse(&text)) {
        assert_machine(name.as_str());
        assert_eq!(name.as_str(), text);
    }
    if let Some(project) = tidy(Project::parse(&text)) {
        assert_project(project.as_str());
        let random = data.iter().fold(0_u64, |hash, &byte| hash.rotate_left(9) ^ u64::from(byte));
        let drawn = InstanceId::generate(&project, InstanceType::Ms, random);
        assert_eq!(InstanceId::parse(drawn.as_str()).as_ref(), Ok(&drawn));
    }
    if let Some(id) = tidy(InstanceId::parse(&text)) {
        assert!(id.as_str() == text && text.len() <= 32 && text.is_ascii(), "{text:?}");
    }
    if let Some(meanings) = tidy(Hint::interpretations(Some(&text))) {
        assert_text(Some(&text), 256);
        let epic = Hint::Epic(safe_line(text.clone().into_owned(), 256));
        assert!(meanings.contains(&epic), "anything can be an epic");
    }
    if let Some(id) = InstanceId::parse_ignoring_case(&text) {
        assert!(id.as_str().eq_ignore_ascii_case(&text) && InstanceId::parse(id.as_str()).is_ok(), "{text:?}");
    }
    if let Some(kind) = tidy(InstanceType::parse(&text)) {
        assert_eq!(kind.as_str(), text);
    }
    if let Some(status) = tidy(Status::parse(&text)) {
        assert_eq!(status.as_str(), text);
    }
}

/// The daemon's answers, as the client reads them: the same in one piece and byte by byte.
pub fn answers(data: &[u8]) {
    let whole = answer(Cursor::new(data));
    let dripped = answer(BufReader::with_capacity(1, data));
    match (&whole, &dripped) {
        (Ok(whole), Ok(dripped)) => assert_eq!(whole, dripped),
        (Err(whole), Err(dripped)) => assert_eq!(whole.kind(), dripped.kind()),
        _ => panic!("{whole:?}, but byte by byte {dripped:?}"),
    }
    match whole {
        Ok((status, body)) => assert!((100..1000).contains(&status) && body.len() <= data.len()),
        Err(error) => assert_tidy(&error.to_string()),
    }
}

fn answer(reader: impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let mut response = HttpResponse::read(reader)?;
    let mut body = Vec::new();
    response.body.read_to_end(&mut body)?;
    Ok((response.status, body))
}

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// A file in a folder of this thread, with these bytes in it.
fn file(name: &str, data: &[u8]) -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join(name);
        fs::write(&path, data).expect("the folder can be written");
        path
    })
}

/// The configuration file, through everything between it and settings that are valid.
pub fn config(data: &[u8]) {
    let overrides = Overrides { config: Some(file("config.toml", data)), ..Overrides::default() };
    let variable = |name: &str| (name == "HOME").then(|| OsString::from("/home/me"));
    let environment = Environment { os: Os::Linux, is_root: false, variable: &variable };
    let text = String::from_utf8_lossy(data);
    match config::load(&overrides, &environment) {
        Ok(loaded) => {
            assert_settings(&loaded.settings);
            assert!(!is_password(&text) || !format!("{loaded:?}").contains(SECRET));
        }
        Err(error) => {
            let error = error.to_string();
            assert_tidy(&error);
            assert!(!is_password(&text) || !error.contains(SECRET), "the password shows: {error}");
        }
    }
}

/// Does the secret stand where a password stands in a URL, and nowhere else?
fn is_password(text: &str) -> bool {
    text.matches(SECRET).count() == 1
        && (text.contains(&format!("postgres://me:{SECRET}@")) || text.contains(&format!("?password={SECRET}\"")))
}

fn assert_settings(settings: &Settings) {
    assert!(settings.stale_after > settings.heartbeat_interval);
    assert!(settings.heartbeat_interval.as_secs() >= 1 && settings.stale_after.as_secs() <= 86_400);
    assert!(settings.max_size >= 1 << 20);
    assert!(settings.state_dir.is_absolute() && settings.socket.path.is_absolute());
    assert!(settings.socket.path.as_os_str().len() <= 103);
    assert_eq!(settings.socket.mode & !0o177, 0o600);
    if let Some(name) = &settings.machine.name {
        assert_machine(name.as_str());
    }
}

/// The file that pins the identity: what is read from it can be written and read again.
pub fn identity(data: &[u8]) {
    let path = file("identity.json", data);
    let pin = IdentityFile::in_folder(path.parent().expect("it lies in a folder"));
    match pin.load() {
        Ok(identity) => {
            let identity = identity.expect("the file is there");
            assert_machine(identity.name.as_str());
            pin.save(&identity).expect("the folder can be written");
            assert_eq!(pin.load().ok().flatten(), Some(identity));
        }
        Err(error) => assert_tidy(&error.to_string()),
    }
}

/// The URL of central: whatever becomes of it, its password does not show.
pub fn central_url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = match PostgresOptions::parse(&text, None) {
        Ok(options) => {
            assert_tidy(options.display());
            format!("{options:?}")
        }
        Err(error) => error.to_string(),
    };
    assert_tidy(&shown);
    // Escapes, and line breaks that a URL may have anywhere, could spell the word a second time.
    let plain = !text.contains(|c: char| c == '%' || c.is_control()) && text.matches(SECRET).count() == 1;
    let password = plain
        && [format!("postgres://me:{SECRET}@"), format!("postgresql://me:{SECRET}@")]
            .iter()
            .any(|start| text.starts_with(start));
    assert!(!password || !shown.contains(SECRET), "the password shows: {shown}");
}

/// The API without its socket, over a store of its own.
struct Served {
    runtime: tokio::runtime::Runtime,
    handler: RequestHandler,
    requests: u32,
    // What its receivers listen to, and the folder it works in.
    _senders: (tokio::sync::watch::Sender<ApiSettings>, tokio::sync::watch::Sender<LinkStatus>),
    _folder: tempfile::TempDir,
}

impl Served {
    /// A store that has grown makes each list longer; after so many requests there is a new one.
    const REQUESTS: u32 = 500;

    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now = || Timestamp::from_micros(1_770_000_000_000_000);
        let options = Options { durability: Durability::Normal, max_size: 1 << 20 };
        let (store, _) = Store::open(folder.path(), options, Arc::new(now)).expect("a store");
        let identity = Identity::new(MachineName::guess(), uuid::Uuid::from_u128(1), now());
        let settings = tokio::sync::watch::Sender::new(ApiSettings {
            keep_closed: Duration::from_secs(604_800),
            stale_after: Duration::from_secs(120),
            allow_other: true,
            type_rules: Vec::new(),
            config_path: None,
            config_error: None,
            scope: sessiond::domain::MirrorScope::All,
        });
        let link = tokio::sync::watch::Sender::new(LinkStatus::new(LinkState::Off, now()));
        let api = Api {
            store,
            identity: Arc::new(PinnedIdentity::new(IdentityFile::in_folder(folder.path()), identity)),
            settings: settings.subscribe(),
            link: link.subscribe(),
            questions: sessiond::sync::on_demand::channel().0,
            push_now: Arc::default(),
            clock: Arc::new(now),
            random: || uuid::Uuid::new_v4().as_u64_pair().0,
            resolve_pid: |_, pid| Ok(sessiond::domain::Process { pid, started: 1 }),
            is_running: |_| false,
            metrics: Metrics::new("test"),
            // Told to stop: what would go on for ever ends at once.
            notifications: sessiond::api::NotificationPort::new().0,
            imported: tokio::sync::watch::channel(true).1,
            shutdown: sessiond::shutdown::channel().1,
            response_budget: sessiond::api::ResponseBudget::new(|| {}),
            spool: sessiond::spool::SpoolMonitor::default(),
            socket: tokio::sync::watch::channel(sessiond::api::SocketState::default()).1,
            daemon: DaemonInfo {
                version: "test",
                pid: 1,
                uid: 0,
                started_at: now(),
                store_path: String::new(),
                durability: "normal",
            },
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self {
            runtime,
            handler: RequestHandler::new(Arc::new(api)),
            requests: 0,
            _senders: (settings, link),
            _folder: folder,
        }
    }

    fn ask(&mut self, mut request: Request<Body>) -> (u16, String, Vec<u8>) {
        self.requests += 1;
        request.extensions_mut().insert(Peer::of_user(0));
        self.runtime.block_on(async {
            let answer = self.handler.clone().handle(request).await;
            let kind = answer.headers().get("content-type").map_or("", |kind| kind.to_str().expect("it is text"));
            let (status, kind) = (answer.status().as_u16(), kind.to_owned());
            let body = to_bytes(answer.into_body(), usize::MAX).await.expect("the body is there");
            (status, kind, body.to_vec())
        })
    }
}

thread_local! {
    static SERVED: RefCell<Option<Served>> = const { RefCell::new(None) };
}

/// The whole API: a line with method and target, then the body. Each answer is one that the contract knows.
pub fn api(data: &[u8]) {
    let (head, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let head = String::from_utf8_lossy(head);
    let (method, target) = head.split_once(' ').unwrap_or((&head, "/v1/sessions"));
    // It may wait for ten seconds; `bodies` has its body.
    let body = if target.contains("/v1/sync") { b"{}" } else { body };
    let request = Request::builder().method(method).uri(target).body(Body::from(body.to_vec()));
    let Ok(request) = request else { return };
    let (status, kind, body) = SERVED.with_borrow_mut(|served| {
        served.take_if(|served| served.requests > Served::REQUESTS);
        served.get_or_insert_with(Served::new).ask(request)
    });
    match status {
        // The answer to HEAD has no body.
        _ if method == "HEAD" => assert!(body.is_empty() && status < 500),
        200 | 201 | 300 if kind == "application/json" => {
            serde_json::from_slice::<serde_json::Value>(&body).expect("an answer is JSON");
        }
        200 => assert!(
            kind.starts_with("text/plain")
                || kind.starts_with("text/markdown")
                || kind.starts_with("application/openmetrics-text"),
            "{kind}"
        ),
        400 | 403 | 404 | 405 | 409 | 413 | 503 | 507 => {
            assert_eq!(kind, "application/json");
            let answer: ErrorBody = serde_json::from_slice(&body).expect("an error says so in JSON");
            assert_tidy(&answer.error.message);
            assert_tidy(&answer.error.hint);
        }
        other => panic!("status {other}: {}", String::from_utf8_lossy(&body)),
    }
}
