//! The blocking client: one connection, one question, one answer, and no runtime to start.

#[cfg(test)]
pub mod canned;
mod endpoint;
pub mod http;
mod machine;
mod watch;

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::wire::{
    AgentBody, AgentReport, CheckpointBody, CheckpointRequest, CommandBody, CommandRequest, ContextBody, ErrorBody,
    ErrorCode, ErrorDetail, EventBody, EventRequest, HeartbeatRequest, HistoryParams, IdentityRename, ListQuery,
    MachineBody, MachineIdentity, Matches, ParkedBody, ParkedCount, ParkedIds, RegisterRequest, ResumeBody,
    ResumeRequest, SessionBody, SessionList, StatusBody, SyncBody, SyncRequest,
};
pub use endpoint::Endpoint;
use http::{Request, Response, encode};
pub use machine::{is_about_machine, machine_in, register_from};
pub use watch::{Change, Changes};

/// What went wrong, whether the daemon says so or it could not be asked.
pub type Result<T> = std::result::Result<T, ErrorDetail>;

/// No answer is longer: a daemon that sends more is not one.
const MAX_BODY: u64 = 64 << 20;

/// What an id, the beginning of one, or a hint leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown<T = SessionBody> {
    One(Box<T>),
    Several(Matches),
}

/// A list of records, if the id led to one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded<T> {
    Of(T),
    Several(Matches),
}

/// Speaks to the daemon. Each call makes a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Client {
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeout: Self::TIMEOUT, deadline: None }
    }

    /// Waits at most so long for the daemon to take or give anything.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Gives up at this moment, whatever the daemon has taken or given by then.
    #[must_use]
    pub const fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The sockets it looks at.
    pub fn sockets(&self) -> &[std::path::PathBuf] {
        self.endpoint.candidates()
    }

    pub fn register(&self, request: &RegisterRequest) -> Result<SessionBody> {
        self.post("/v1/sessions".to_owned(), request)
    }

    /// Reports a sign of life of an agent.
    pub fn report(&self, report: &AgentReport) -> Result<AgentBody> {
        self.post("/v1/agents".to_owned(), report)
    }

    pub fn heartbeat(&self, id: &str, request: &HeartbeatRequest) -> Result<SessionBody> {
        self.post(session(id, "/heartbeat"), request)
    }

    pub fn close(&self, id: &str) -> Result<SessionBody> {
        self.ask("POST", session(id, "/close"), None)
    }

    pub fn list(&self, query: &ListQuery) -> Result<SessionList> {
        self.get(list_target(query))
    }

    /// The session of that id, or those whose ids begin with it.
    pub fn show(&self, id: &str) -> Result<Shown> {
        let (status, body) = self.exchange("GET", session(id, ""), None)?;
        one_or_several(status, &body)
    }

    /// Goes on from the session that the request means, unless several fit.
    pub fn resume(&self, request: &ResumeRequest) -> Result<Shown<ResumeBody>> {
        let (status, body) = self.exchange("POST", "/v1/resume".to_owned(), Some(encoded(request)?))?;
        one_or_several(status, &body)
    }

    /// What the session of that id was at, or those whose ids begin with it.
    pub fn context(&self, id: &str) -> Result<Shown<ContextBody>> {
        let (status, body) = self.exchange("GET", session(id, "/context"), None)?;
        one_or_several(status, &body)
    }

    /// The same as Markdown.
    pub fn handoff(&self, id: &str) -> Result<Shown<String>> {
        let (status, body) = self.exchange("GET", session(id, "/context?format=markdown"), None)?;
        match status {
            200..=299 => text(body).map(|text| Shown::One(Box::new(text))),
            300 => decode(&body).map(Shown::Several),
            _ => Err(refusal(status, &body)),
        }
    }

    /// The footer as it stands; no newline at its end.
    pub fn footer(&self, id: &str, separator: bool) -> Result<String> {
        let rest = if separator { "/footer?separator=true" } else { "/footer" };
        let (status, body) = self.exchange("GET", session(id, rest), None)?;
        if !is_success(status) {
            return Err(refusal(status, &body));
        }
        text(body)
    }

    pub fn add_event(&self, id: &str, request: &EventRequest) -> Result<EventBody> {
        self.post(session(id, "/events"), request)
    }

    pub fn add_command(&self, id: &str, request: &CommandRequest) -> Result<CommandBody> {
        self.post(session(id, "/commands"), request)
    }

    pub fn add_checkpoint(&self, id: &str, request: &CheckpointRequest) -> Result<CheckpointBody> {
        self.post(session(id, "/checkpoints"), request)
    }

    /// The `events`, `commands` or `checkpoints` of a session.
    pub fn history<T: DeserializeOwned>(&self, id: &str, kind: &str, params: &HistoryParams) -> Result<Recorded<T>> {
        let (status, body) = self.exchange("GET", history_target(id, kind, params), None)?;
        match status {
            300 => decode(&body).map(Recorded::Several),
            _ => success(status, &body).map(Recorded::Of),
        }
    }

    pub fn machines(&self) -> Result<Vec<MachineBody>> {
        self.get("/v1/machines".to_owned())
    }

    pub fn status(&self) -> Result<StatusBody> {
        self.get("/v1/status".to_owned())
    }

    /// Asks for a push now; with `wait_ms` the answer comes when nothing waits any more, or that much later.
    pub fn sync(&self, wait_ms: Option<u64>) -> Result<SyncBody> {
        let patient = self.clone().timeout(self.timeout + Duration::from_millis(wait_ms.unwrap_or(0)));
        patient.post("/v1/sync".to_owned(), &SyncRequest { wait_ms })
    }

    pub fn parked(&self) -> Result<Vec<ParkedBody>> {
        self.get("/v1/parked".to_owned())
    }

    /// Offers these to central again; all of them if `ids` is empty.
    pub fn parked_retry(&self, ids: &[String]) -> Result<ParkedCount> {
        self.post("/v1/parked/retry".to_owned(), &ParkedIds { ids: ids.to_vec() })
    }

    /// Gives these up; all of them if `ids` is empty.
    pub fn parked_drop(&self, ids: &[String]) -> Result<ParkedCount> {
        self.post("/v1/parked/drop".to_owned(), &ParkedIds { ids: ids.to_vec() })
    }

    pub fn identity(&self) -> Result<MachineIdentity> {
        self.get("/v1/identity".to_owned())
    }

    pub fn identity_rename(&self, name: &str) -> Result<MachineIdentity> {
        self.post("/v1/identity/rename".to_owned(), &IdentityRename { name: name.to_owned() })
    }

    pub fn identity_replace(&self) -> Result<MachineIdentity> {
        self.ask("POST", "/v1/identity/replace".to_owned(), None)
    }

    /// Makes a request as it is, and gives the answer as it is; several matches are an answer.
    pub fn call(&self, method: &'static str, target: String, body: Option<&Value>) -> Result<Value> {
        let body = body.map(|body| body.to_string().into_bytes());
        match self.exchange(method, target, body)? {
            (200..=300, body) => decode(&body),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    fn get<T: DeserializeOwned>(&self, target: String) -> Result<T> {
        self.ask("GET", target, None)
    }

    fn post<T: DeserializeOwned>(&self, target: String, body: &impl Serialize) -> Result<T> {
        self.ask("POST", target, Some(encoded(body)?))
    }

    fn ask<T: DeserializeOwned>(&self, method: &'static str, target: String, body: Option<Vec<u8>>) -> Result<T> {
        let (status, body) = self.exchange(method, target, body)?;
        success(status, &body)
    }

    /// Sends a request and reads the whole answer.
    fn exchange(&self, method: &'static str, target: String, body: Option<Vec<u8>>) -> Result<(u16, Vec<u8>)> {
        let idempotency_key = takes_key(method, &target).then(Uuid::new_v4);
        let request = Request { method, target, body, idempotency_key };
        let mut response = match self.open(&request) {
            // The daemon was killed under it. The next one is asked, if asking twice does no harm.
            Err(error) if error.code == ErrorCode::Unavailable && is_repeatable(&request) => {
                self.open(&request).map_err(|again| if again.code == ErrorCode::Unreachable { error } else { again })?
            }
            opened => opened?,
        };
        let mut body = Vec::new();
        let read = (&mut response.body).take(MAX_BODY + 1).read_to_end(&mut body);
        match read {
            Err(error) => Err(self.broken(&error)),
            Ok(length) if length as u64 > MAX_BODY => Err(unreadable("it is longer than 64 MiB")),
            Ok(_) => Ok((response.status, body)),
        }
    }

    /// Sends a request and reads the head of the answer.
    fn open(&self, request: &Request) -> Result<Response<BufReader<Line>>> {
        let timeout = self.deadline.map_or(Ok(self.timeout), left).map_err(|error| self.broken(&error))?;
        let mut stream = self.endpoint.connect(timeout)?;
        request
            .send(&mut stream)
            .and_then(|()| Response::read(BufReader::new(Line { stream, deadline: self.deadline })))
            .map_err(|error| self.broken(&error))
    }

    /// Why an exchange that had begun came to nothing. Whether the daemon did what it was asked is then
    /// unknown, so none of these is `Unreachable`.
    fn broken(&self, error: &io::Error) -> ErrorDetail {
        if http::hung_up(error) {
            return ErrorDetail {
                code: ErrorCode::Unavailable,
                message: "the daemon hung up before its answer was complete".to_owned(),
                hint: "it may just have stopped; see `sessiond status`, then try again".to_owned(),
            };
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ErrorDetail {
                code: ErrorCode::Timeout,
                message: match self.deadline {
                    None => format!("the daemon did not answer within {:?}", self.timeout),
                    Some(_) => "the daemon did not answer in time".to_owned(),
                },
                hint: "it may be overloaded or stopped; see its log, then try again".to_owned(),
            },
            io::ErrorKind::InvalidData => unreadable(&error.to_string()),
            _ => ErrorDetail {
                code: ErrorCode::Unavailable,
                message: format!("the connection to the daemon failed: {error}"),
                hint: "see `sessiond status`, then try again".to_owned(),
            },
        }
    }
}

/// The connection of one exchange. The stream's own timeout begins anew with each read; a deadline does not.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    deadline: Option<Instant>,
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
        }
        self.stream.read(buffer)
    }
}

/// The time until then; there has to be some.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Is it all the same whether this is done once or twice?
fn is_repeatable(request: &Request) -> bool {
    request.method == "GET"
        || request.idempotency_key.is_some()
        || ["/heartbeat", "/close"].iter().any(|verb| request.target.ends_with(verb))
}

/// Is it a request that would do something twice, if it were not for a key?
fn takes_key(method: &str, target: &str) -> bool {
    let appends = |target: &str| ["/events", "/commands", "/checkpoints"].iter().any(|list| target.ends_with(list));
    method == "POST" && (target == "/v1/sessions" || appends(target))
}

fn session(id: &str, rest: &str) -> String {
    format!("/v1/sessions/{}{rest}", encode(id))
}

fn list_target(query: &ListQuery) -> String {
    let ListQuery { project, machine, status, active_only, local, all, limit, after } = query;
    let flag = |on: &Option<bool>| on.map(|on| on.to_string());
    let pairs = [
        ("project", project.clone()),
        ("machine", machine.clone()),
        ("status", status.clone()),
        ("active_only", flag(active_only)),
        ("local", flag(local)),
        ("all", flag(all)),
        ("limit", limit.map(|n| n.to_string())),
        ("after", after.clone()),
    ];
    with_query("/v1/sessions".to_owned(), pairs)
}

fn history_target(id: &str, kind: &str, params: &HistoryParams) -> String {
    let HistoryParams { record_type, since, until, contains, limit, offset, after } = params.clone();
    let pairs = [
        ("type", record_type),
        ("since", since),
        ("until", until),
        ("contains", contains),
        ("limit", limit.map(|n| n.to_string())),
        ("offset", offset.map(|n| n.to_string())),
        ("after", after),
    ];
    with_query(session(id, &format!("/{kind}")), pairs)
}

fn with_query(target: String, pairs: impl IntoIterator<Item = (&'static str, Option<String>)>) -> String {
    let pairs: Vec<_> =
        pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?)))).collect();
    if pairs.is_empty() { target } else { format!("{target}?{}", pairs.join("&")) }
}

fn encoded(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| ErrorDetail {
        code: ErrorCode::Internal,
        message: format!("cannot put the request into JSON: {error}"),
        hint: "please report this".to_owned(),
    })
}

const fn is_success(status: u16) -> bool {
    matches!(status, 200..=299)
}

fn success<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T> {
    if is_success(status) { decode(body) } else { Err(refusal(status, body)) }
}

fn one_or_several<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<Shown<T>> {
    match status {
        300 => decode(body).map(Shown::Several),
        _ => success(status, body).map(|one| Shown::One(Box::new(one))),
    }
}

fn text(body: Vec<u8>) -> Result<String> {
    String::from_utf8(body).map_err(|_| unreadable("it is not UTF-8"))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))
}

/// The daemon's own words, if these are they.
fn refusal(status: u16, body: &[u8]) -> ErrorDetail {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => ErrorDetail {
            code: ErrorCode::Internal,
            message: format!("the daemon answered with status {status} and no explanation"),
            hint: "see its log; client and daemon may be of different versions".to_owned(),
        },
    }
}

fn unreadable(why: &str) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Internal,
        message: format!("the daemon's answer cannot be read: {why}"),
        hint: "check that the socket is sessiond's and that client and daemon are of the same version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::canned::Canned;
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_request_is_well_formed() {
        let daemon = Canned::one(200, r#"{"count": 2}"#);
        assert_eq!(daemon.client().parked_retry(&["a".into()]).unwrap().count, 2);
        let request = daemon.requests().remove(0);
        assert!(request.starts_with("POST /v1/parked/retry HTTP/1.1\r\nHost: localhost\r\n"), "{request}");
        assert!(request.contains("Connection: close\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"));
        assert!(request.ends_with("\r\n\r\n{\"ids\":[\"a\"]}"), "{request}");
    }

    #[test]
    fn paths_and_queries_are_escaped() {
        let daemon = Canned::one(404, "");
        let _ = daemon.client().show("a/b c");
        assert!(daemon.requests()[0].starts_with("GET /v1/sessions/a%2Fb%20c HTTP/1.1\r\n"));
        let query = ListQuery { project: Some("a&b".into()), active_only: Some(true), ..ListQuery::default() };
        assert_eq!(list_target(&query), "/v1/sessions?project=a%26b&active_only=true");
        assert_eq!(list_target(&ListQuery::default()), "/v1/sessions");
    }

    #[test]
    fn an_answer_may_come_in_pieces() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"co\r\n8\r\nunt\": 7}\r\n0\r\n\r\n";
        let daemon = Canned::new(vec![text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect()]);
        assert_eq!(daemon.client().parked_drop(&[]).unwrap().count, 7);
    }

    #[test]
    fn errors_are_the_daemons_own() {
        let daemon =
            Canned::one(404, r#"{"error": {"code": "not_found", "message": "no session \"x\"", "hint": "h"}}"#);
        let error = daemon.client().close("x").unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "no session \"x\""));

        let error = Canned::one(502, "<html>").client().close("x").unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains("502"), "{}", error.message);
    }

    #[test]
    fn several_matches_are_not_an_error() {
        let daemon = Canned::one(300, r#"{"matches": []}"#);
        assert_eq!(daemon.client().show("odin").unwrap(), Shown::Several(Matches { matches: vec![] }));
    }

    #[test]
    fn a_footer_is_text() {
        let daemon = Canned::one(200, "Instance: x");
        assert_eq!(daemon.client().footer("x", true).unwrap(), "Instance: x");
        assert!(daemon.requests()[0].starts_with("GET /v1/sessions/x/footer?separator=true HTTP/1.1\r\n"));
    }

    #[test]
    fn broken_answers_are_told_apart() {
        let code = |text: &str| Canned::new(vec![vec![text.into()]]).client().status().unwrap_err().code;
        assert_eq!(code(""), ErrorCode::Unavailable);
        assert_eq!(code("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), ErrorCode::Unavailable);
        assert_eq!(code("SSH-2.0-OpenSSH_9\r\n\r\n"), ErrorCode::Internal);
        assert_eq!(code("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), ErrorCode::Internal);
        let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        assert_eq!(code(&huge), ErrorCode::Internal);
    }

    #[test]
    fn an_answer_without_end_is_cut() {
        let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        let parts = [vec![head], vec![vec![b' '; 1 << 20]; 65]].concat();
        let error = Canned::new(vec![parts]).client().status().unwrap_err();
        assert!(error.message.contains("64 MiB"), "{}", error.message);
    }

    #[test]
    fn silence_ends_in_a_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let client = Client::new(Endpoint::at(path)).timeout(Duration::from_millis(50));
        let error = client.status().unwrap_err();
        assert_eq!((error.code, error.code.exit_code()), (ErrorCode::Timeout, 75));
        assert_eq!(error.message, "the daemon did not answer within 50ms");
    }

    #[test]
    fn an_answer_in_drops_does_not_outlast_a_deadline() {
        let drops = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec()].into_iter().chain(vec![b" ".to_vec(); 500]).collect();
        let daemon = Canned::new(vec![drops]);
        let client = daemon.client();
        let start = Instant::now();
        let error = client.clone().until(start + Duration::from_millis(50)).status().unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Timeout, "the daemon did not answer in time"));
        assert!(start.elapsed() < Duration::from_millis(500));
        assert_eq!(client.until(start).status().unwrap_err().code, ErrorCode::Timeout, "it has passed");
    }
}
