//! The client of the daemon's API. It blocks and needs no async runtime; each request has a connection of its own.
//!
//! A request whose connection breaks is repeated once if repeating it is harmless: if it only reads, is idempotent, or
//! has an Idempotency-Key.

mod endpoint;
#[cfg(test)]
pub(crate) mod fake_daemon;
pub mod http;
mod machine;
mod response;
mod target;
mod watch;

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::footer::FooterForm;
use crate::wire::{
    ActivityHistoryBody, ActivityHoursBody, ActivityParams, AgentBody, AgentReport, ChannelTestBody, CheckpointBody,
    CheckpointRequest, CommandBody, CommandRequest, ContextBody, ErrorCode, ErrorDetail, EventBody, EventRequest,
    HeartbeatRequest, HistoryParams, IdentityRename, LimitBody, ListQuery, MachineBody, MachineIdentity, Matches,
    OverlapBody, ParkedBody, ParkedCount, ParkedIds, RegisterRequest, ResumeBody, ResumeRequest, SessionBody,
    SessionList, StatusBody, SyncBody, SyncRequest, WorkBody,
};
pub use endpoint::Endpoint;
use http::{HttpRequest, HttpResponse};
pub use machine::{is_machine_refused, machine_from_env, register_with_env};
use response::{daemon_error, from_json, invalid_response, is_success, resolved, success, text};
pub use target::encode;
pub use watch::{WatchEvent, WatchStream};

/// The error is the daemon's, or describes why there is no response.
pub type Result<T> = std::result::Result<T, ErrorDetail>;

/// The longest accepted response, in bytes.
const MAX_BODY: u64 = 64 << 20;

/// The result for an id, a prefix of one, or a hint.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved<T = SessionBody> {
    /// The one that matches.
    One(Box<T>),
    /// There are several, of which the user has to choose one.
    Several(Matches),
}

/// A client of the daemon on an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Client {
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

    /// A client with the default timeout and no deadline.
    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeout: Self::TIMEOUT, deadline: None }
    }

    /// Limits how long each connect, write and read may take. Default: `Self::TIMEOUT`.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Limits each request as a whole: it fails at this time.
    #[must_use]
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The sockets on which the daemon may listen.
    pub fn socket_candidates(&self) -> &[std::path::PathBuf] {
        self.endpoint.candidates()
    }

    /// Registers a session.
    pub fn register(&self, request: &RegisterRequest) -> Result<SessionBody> {
        self.post("/v1/sessions".to_owned(), request)
    }

    /// Reports an agent's start, heartbeat or end. A daemon of an older version refuses the fields that it does not know:
    /// it gets the report without them.
    pub fn report_agent(&self, report: &AgentReport) -> Result<AgentBody> {
        let send = |report: &AgentReport| self.post("/v1/agents".to_owned(), report);
        match send(report) {
            Err(error) if matches!(error.code, ErrorCode::BadRequest | ErrorCode::TooLarge) => {
                match report.without_work() {
                    Some(report) => send(&report),
                    None => Err(error),
                }
            }
            sent => sent,
        }
    }

    /// Reports a heartbeat of the session with this id.
    pub fn heartbeat(&self, id: &str, request: &HeartbeatRequest) -> Result<SessionBody> {
        self.post(target::session(id, "/heartbeat"), request)
    }

    /// Closes the session with this id.
    pub fn close(&self, id: &str) -> Result<SessionBody> {
        self.request("POST", target::session(id, "/close"), None)
    }

    /// The sessions that match.
    pub fn list(&self, query: &ListQuery) -> Result<SessionList> {
        self.get(target::sessions(query))
    }

    /// The session with that id, or those whose ids begin with it.
    pub fn show(&self, id: &str) -> Result<Resolved> {
        let (status, body) = self.exchange("GET", target::session(id, ""), None)?;
        resolved(status, &body)
    }

    /// The activity history of the session with this id.
    pub fn activity(&self, id: &str, params: &ActivityParams) -> Result<ActivityHistoryBody> {
        self.get(target::activity(id, params))
    }

    /// What the sessions of all machines did in each of the last 24 hours.
    pub(crate) fn activity_hours(&self) -> Result<ActivityHoursBody> {
        self.get("/v1/activity/hours".to_owned())
    }

    /// What the session with that id works on; nothing, if the daemon is of a version that does not know.
    pub fn work(&self, id: &str) -> Result<WorkBody> {
        match self.exchange("GET", target::session(id, "/work"), None) {
            Ok((200, body)) => from_json(&body),
            Ok((404, _)) => Ok(WorkBody::new(id, None)),
            Ok((status, body)) => Err(daemon_error(status, &body)),
            Err(error) => Err(error),
        }
    }

    /// Resumes the session that the request names, unless several match.
    pub fn resume(&self, request: &ResumeRequest) -> Result<Resolved<ResumeBody>> {
        let (status, body) = self.exchange("POST", "/v1/resume".to_owned(), Some(to_json(request)?))?;
        resolved(status, &body)
    }

    /// The reconstructed context of the session with that id, or the sessions whose ids begin with it.
    pub fn context(&self, id: &str) -> Result<Resolved<ContextBody>> {
        let (status, body) = self.exchange("GET", target::session(id, "/context"), None)?;
        resolved(status, &body)
    }

    /// The context as Markdown.
    pub fn handoff(&self, id: &str) -> Result<Resolved<String>> {
        let (status, body) = self.exchange("GET", target::session(id, "/context?format=markdown"), None)?;
        match status {
            200..=299 => text(body).map(|text| Resolved::One(Box::new(text))),
            300 => from_json(&body).map(Resolved::Several),
            _ => Err(daemon_error(status, &body)),
        }
    }

    /// The session's footer, without a final newline.
    pub fn footer(&self, id: &str, form: FooterForm) -> Result<String> {
        let rest = match form {
            FooterForm::Plain => "/footer",
            FooterForm::Separated => "/footer?separator=true",
        };
        let (status, body) = self.exchange("GET", target::session(id, rest), None)?;
        if !is_success(status) {
            return Err(daemon_error(status, &body));
        }
        text(body)
    }

    pub(crate) fn add_event(&self, id: &str, request: &EventRequest) -> Result<EventBody> {
        self.post(target::session(id, "/events"), request)
    }

    pub(crate) fn add_command(&self, id: &str, request: &CommandRequest) -> Result<CommandBody> {
        self.post(target::session(id, "/commands"), request)
    }

    pub(crate) fn add_checkpoint(&self, id: &str, request: &CheckpointRequest) -> Result<CheckpointBody> {
        self.post(target::session(id, "/checkpoints"), request)
    }

    /// The `events`, `commands` or `checkpoints` of a session.
    pub fn history<T: DeserializeOwned>(&self, id: &str, kind: &str, params: &HistoryParams) -> Result<Resolved<T>> {
        let (status, body) = self.exchange("GET", target::history(id, kind, params), None)?;
        resolved(status, &body)
    }

    pub(crate) fn conflicts(&self) -> Result<Vec<OverlapBody>> {
        self.get("/v1/conflicts".to_owned())
    }

    pub(crate) fn limits(&self) -> Result<Vec<LimitBody>> {
        self.get("/v1/limits".to_owned())
    }

    pub(crate) fn machines(&self) -> Result<Vec<MachineBody>> {
        self.get("/v1/machines".to_owned())
    }

    pub(crate) fn status(&self) -> Result<StatusBody> {
        self.get("/v1/status".to_owned())
    }

    /// Makes the daemon push to central now; with `wait_ms` it returns when the backlog is empty, or after that time.
    pub fn sync(&self, wait_ms: Option<u64>) -> Result<SyncBody> {
        let client = self.clone().timeout(self.timeout + Duration::from_millis(wait_ms.unwrap_or(0)));
        client.post("/v1/sync".to_owned(), &SyncRequest { wait_ms })
    }

    pub(crate) fn parked(&self) -> Result<Vec<ParkedBody>> {
        self.get("/v1/parked".to_owned())
    }

    /// Pushes these parked sessions and records again; all of them if `ids` is empty.
    pub fn parked_retry(&self, ids: &[String]) -> Result<ParkedCount> {
        self.post("/v1/parked/retry".to_owned(), &ParkedIds { ids: ids.to_vec() })
    }

    /// Drops these parked sessions and records; all of them if `ids` is empty.
    pub fn parked_drop(&self, ids: &[String]) -> Result<ParkedCount> {
        self.post("/v1/parked/drop".to_owned(), &ParkedIds { ids: ids.to_vec() })
    }

    pub(crate) fn test_notifications(&self) -> Result<Vec<ChannelTestBody>> {
        self.post("/v1/notifications/test".to_owned(), &serde_json::json!({}))
    }

    pub(crate) fn identity(&self) -> Result<MachineIdentity> {
        self.get("/v1/identity".to_owned())
    }

    pub(crate) fn identity_rename(&self, name: &str) -> Result<MachineIdentity> {
        self.post("/v1/identity/rename".to_owned(), &IdentityRename { name: name.to_owned() })
    }

    pub(crate) fn identity_replace(&self) -> Result<MachineIdentity> {
        self.request("POST", "/v1/identity/replace".to_owned(), None)
    }

    /// Sends any request and returns the response's JSON, also that of a response with several matches.
    pub fn request_json(&self, method: &'static str, target: String, body: Option<&Value>) -> Result<Value> {
        let body = body.map(|body| body.to_string().into_bytes());
        match self.exchange(method, target, body)? {
            (200..=300, body) => from_json(&body),
            (status, body) => Err(daemon_error(status, &body)),
        }
    }

    fn get<T: DeserializeOwned>(&self, target: String) -> Result<T> {
        self.request("GET", target, None)
    }

    fn post<T: DeserializeOwned>(&self, target: String, body: &impl Serialize) -> Result<T> {
        self.request("POST", target, Some(to_json(body)?))
    }

    fn request<T: DeserializeOwned>(&self, method: &'static str, target: String, body: Option<Vec<u8>>) -> Result<T> {
        let (status, body) = self.exchange(method, target, body)?;
        success(status, &body)
    }

    /// Sends a request and reads the whole response.
    fn exchange(&self, method: &'static str, target: String, body: Option<Vec<u8>>) -> Result<(u16, Vec<u8>)> {
        let idempotency_key = needs_key(method, &target).then(Uuid::new_v4);
        let request = HttpRequest { method, target, body, idempotency_key };
        let mut response = match self.open(&request) {
            // The daemon ended during the request; it may have been restarted.
            Err(error) if error.code == ErrorCode::Unavailable && is_repeatable(&request) => {
                self.open(&request).map_err(|again| if again.code == ErrorCode::Unreachable { error } else { again })?
            }
            opened => opened?,
        };
        let mut body = Vec::new();
        let read = (&mut response.body).take(MAX_BODY + 1).read_to_end(&mut body);
        match read {
            Err(error) => Err(self.connection_error(&error)),
            Ok(length) if length as u64 > MAX_BODY => Err(invalid_response("it is longer than 64 MiB")),
            Ok(_) => Ok((response.status, body)),
        }
    }

    /// Sends a request and reads the head of the response.
    fn open(&self, request: &HttpRequest) -> Result<HttpResponse<BufReader<DeadlineStream>>> {
        let timeout =
            self.deadline.map_or(Ok(self.timeout), remaining).map_err(|error| self.connection_error(&error))?;
        let mut stream = self.endpoint.connect(timeout)?;
        request
            .send(&mut stream)
            .and_then(|()| HttpResponse::read(BufReader::new(DeadlineStream { stream, deadline: self.deadline })))
            .map_err(|error| self.connection_error(&error))
    }

    /// The error of a request that was sent without a complete response. None is `Unreachable`, because the daemon may
    /// have carried out the request.
    fn connection_error(&self, error: &io::Error) -> ErrorDetail {
        if http::is_disconnect(error) {
            return ErrorDetail {
                code: ErrorCode::Unavailable,
                message: "the daemon closed the connection before its response was complete".to_owned(),
                hint: "it may have stopped; check `sessiond status`, then try again".to_owned(),
            };
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ErrorDetail {
                code: ErrorCode::Timeout,
                message: match self.deadline {
                    None => format!("the daemon did not respond within {:?}", self.timeout),
                    Some(_) => "the daemon did not respond in time".to_owned(),
                },
                hint: "it may be overloaded or stopped; check its log, then try again".to_owned(),
            },
            io::ErrorKind::InvalidData => invalid_response(&error.to_string()),
            _ => ErrorDetail {
                code: ErrorCode::Unavailable,
                message: format!("the connection to the daemon failed: {error}"),
                hint: "check `sessiond status`, then try again".to_owned(),
            },
        }
    }
}

/// A stream whose reads together end at the deadline; the stream's own timeout limits each read.
#[derive(Debug)]
struct DeadlineStream {
    stream: UnixStream,
    deadline: Option<Instant>,
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            self.stream.set_read_timeout(Some(remaining(deadline)?))?;
        }
        self.stream.read(buffer)
    }
}

/// The time until the deadline.
///
/// # Errors
/// The deadline has passed.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether the request has the same effect when it is sent twice.
fn is_repeatable(request: &HttpRequest) -> bool {
    request.method == "GET"
        || request.idempotency_key.is_some()
        || ["/heartbeat", "/close"].iter().any(|verb| request.target.ends_with(verb))
}

/// Whether the request needs an Idempotency-Key to be repeatable.
fn needs_key(method: &str, target: &str) -> bool {
    let appends = |target: &str| ["/events", "/commands", "/checkpoints"].iter().any(|list| target.ends_with(list));
    method == "POST" && (target == "/v1/sessions" || appends(target))
}

fn to_json(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| ErrorDetail {
        code: ErrorCode::Internal,
        message: format!("the request cannot be written as JSON: {error}"),
        hint: "report this; it is a bug in sessiond".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::fake_daemon::FakeDaemon;
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sends_a_well_formed_request() {
        let daemon = FakeDaemon::one(200, r#"{"count": 2}"#);
        assert_eq!(daemon.client().parked_retry(&["a".into()]).unwrap().count, 2);
        let request = daemon.requests().remove(0);
        assert!(request.starts_with("POST /v1/parked/retry HTTP/1.1\r\nHost: localhost\r\n"), "{request}");
        assert!(request.contains("Connection: close\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"));
        assert!(request.ends_with("\r\n\r\n{\"ids\":[\"a\"]}"), "{request}");
    }

    #[test]
    fn older_daemon_gets_a_report_without_the_fields_that_it_does_not_know() {
        let unknown = r#"{"error": {"code": "bad_request", "message": "unknown field `at`", "hint": "h"}}"#;
        let report = AgentReport {
            sign: "beat".to_owned(),
            context_percent: Some(7),
            at: Some("2026-11-25T12:00:00Z".to_owned()),
            ..AgentReport::default()
        };
        let daemon = FakeDaemon::json(&[(400, unknown), (404, "")]);
        assert!(daemon.client().report_agent(&report).is_err());
        let requests = daemon.requests();
        assert!(requests[0].contains("\"at\":"), "{requests:?}");
        assert!(requests[1].ends_with("\r\n\r\n{\"sign\":\"beat\",\"context_percent\":7}"), "{requests:?}");
        let daemon = FakeDaemon::one(400, unknown);
        let error = daemon.client().report_agent(&AgentReport { at: None, ..report }).unwrap_err();
        assert_eq!((error.code, daemon.requests().len()), (ErrorCode::BadRequest, 1));
    }

    #[test]
    fn escapes_ids_in_paths() {
        let daemon = FakeDaemon::one(404, "");
        let _ = daemon.client().show("a/b c");
        assert!(daemon.requests()[0].starts_with("GET /v1/sessions/a%2Fb%20c HTTP/1.1\r\n"));
    }

    #[test]
    fn reads_a_response_that_arrives_in_pieces() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"co\r\n8\r\nunt\": 7}\r\n0\r\n\r\n";
        let daemon = FakeDaemon::new(vec![text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect()]);
        assert_eq!(daemon.client().parked_drop(&[]).unwrap().count, 7);
    }

    #[test]
    fn returns_the_error_of_the_response() {
        let daemon =
            FakeDaemon::one(404, r#"{"error": {"code": "not_found", "message": "no session \"x\"", "hint": "h"}}"#);
        let error = daemon.client().close("x").unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "no session \"x\""));

        let error = FakeDaemon::one(502, "<html>").client().close("x").unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains("502"), "{}", error.message);
    }

    #[test]
    fn returns_several_matches_as_a_result() {
        let daemon = FakeDaemon::one(300, r#"{"matches": []}"#);
        assert_eq!(daemon.client().show("odin").unwrap(), Resolved::Several(Matches { matches: vec![] }));
    }

    #[test]
    fn returns_the_footer_as_text() {
        let daemon = FakeDaemon::one(200, "Instance: x");
        assert_eq!(daemon.client().footer("x", FooterForm::Separated).unwrap(), "Instance: x");
        assert!(daemon.requests()[0].starts_with("GET /v1/sessions/x/footer?separator=true HTTP/1.1\r\n"));
    }

    #[test]
    fn distinguishes_incomplete_from_invalid_responses() {
        let code = |text: &str| FakeDaemon::new(vec![vec![text.into()]]).client().status().unwrap_err().code;
        assert_eq!(code(""), ErrorCode::Unavailable);
        assert_eq!(code("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), ErrorCode::Unavailable);
        assert_eq!(code("SSH-2.0-OpenSSH_9\r\n\r\n"), ErrorCode::Internal);
        assert_eq!(code("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), ErrorCode::Internal);
        let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        assert_eq!(code(&huge), ErrorCode::Internal);
    }

    #[test]
    fn rejects_a_response_longer_than_the_limit() {
        let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        let parts = [vec![head], vec![vec![b' '; 1 << 20]; 65]].concat();
        let error = FakeDaemon::new(vec![parts]).client().status().unwrap_err();
        assert!(error.message.contains("64 MiB"), "{}", error.message);
    }

    #[test]
    fn times_out_without_a_response() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let client = Client::new(Endpoint::at(path)).timeout(Duration::from_millis(50));
        let error = client.status().unwrap_err();
        assert_eq!((error.code, error.code.exit_code()), (ErrorCode::Timeout, 75));
        assert_eq!(error.message, "the daemon did not respond within 50ms");
    }

    #[test]
    fn the_deadline_limits_a_response_that_arrives_slowly() {
        let drops = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec()].into_iter().chain(vec![b" ".to_vec(); 5_000]).collect();
        let daemon = FakeDaemon::new(vec![drops]);
        let client = daemon.client();
        let start = Instant::now();
        let error = client.clone().deadline(start + Duration::from_millis(50)).status().unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Timeout, "the daemon did not respond in time"));
        // All of it takes the daemon more than ten seconds.
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(client.deadline(start).status().unwrap_err().code, ErrorCode::Timeout, "it has passed");
    }
}
