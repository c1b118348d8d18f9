//! `sessiond web`: who gets in, what it answers, and the page in a real browser.

mod browser;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;

const SOON: Duration = Duration::from_secs(20);
const PATHS: [&str; 10] = [
    "/",
    "/style.css",
    "/app.js",
    "/dom.js",
    "/icon.svg",
    "/api/view",
    "/api/hours",
    "/events",
    "/api/sessions/odin",
    "/none/../such",
];

/// A page that is served until it is dropped.
struct Page {
    process: Child,
    /// As printed.
    url: String,
    port: u16,
    token: String,
}

/// An answer: status, head in lower case, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Page {
    fn serve(host: &Host, options: &[&str]) -> Self {
        let mut command = host.sessiond();
        command.arg("web").args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect(&line).to_owned();
        let (authority, token) = url["http://".len()..].split_once("/?token=").unwrap();
        let port = authority.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, port, token: token.to_owned(), url: url.clone() }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends a request with these headers, `Host` included.
    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = self.connect();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "{method} {target} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n").unwrap();
        stream
    }

    fn raw(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let headers = [headers, &[("Connection", "close")]].concat();
        answer(self.send(method, target, &headers))
    }

    /// Exchanges the token for a cookie.
    fn log_in(&self) -> String {
        let answer = self.raw("GET", &format!("/?token={}", self.token), &[("Host", &self.host())]);
        assert_eq!(answer.status, 303, "{}", answer.head);
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    fn get(&self, cookie: &str, target: &str) -> Answer {
        self.raw("GET", target, &[("Host", &self.host()), ("Cookie", cookie)])
    }

    fn view(&self, cookie: &str, query: &str) -> Value {
        let answer = self.get(cookie, &format!("/api/view{query}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    fn ends(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        let ended = || self.process.try_wait().unwrap();
        eventually("the page's server ends", SOON, ended).code()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| Some(&line[line.to_lowercase().starts_with(&prefix).then_some(prefix.len())?..]))
    }
}

fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The status line of an answer whose body does not end.
fn status_of(stream: TcpStream) -> u16 {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap_or(0);
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn every_path_is_refused_without_the_cookie_and_to_foreign_hosts_and_origins() {
    let host = Host::new("odin3").started();
    let page = Page::serve(&host, &[]);
    let cookie = page.log_in();
    let here = page.host();
    for path in PATHS {
        let answer = page.raw("GET", path, &[("Host", &here)]);
        assert_eq!(answer.status, 401, "{path}: {}", answer.head);
        for method in ["POST", "PUT", "OPTIONS", "HEAD"] {
            assert_eq!(page.raw(method, path, &[("Host", &here)]).status, 401, "{method} {path}");
        }
        for foreign in ["evil.example", &format!("evil.example:{}", page.port), "127.0.0.1", ""] {
            assert_eq!(
                page.raw("GET", path, &[("Host", foreign), ("Cookie", &cookie)]).status,
                403,
                "{foreign} {path}"
            );
        }
        for origin in ["http://evil.example", "null", "https://localhost"] {
            let headers = [("Host", here.as_str()), ("Cookie", &cookie), ("Origin", origin)];
            assert_eq!(page.raw("GET", path, &headers).status, 403, "{origin} {path}");
            assert_eq!(page.raw("GET", path, &[("Host", &here), ("Origin", origin)]).status, 403, "{origin} {path}");
        }
    }
    for path in
        ["/", "/style.css", "/app.js", "/dom.js", "/plots.js", "/session.js", "/icon.svg", "/api/view", "/api/hours"]
    {
        assert_eq!(page.get(&cookie, path).status, 200, "{path}");
    }
    assert_eq!(page.get(&cookie, "/none").status, 404);
}

#[test]
fn the_token_becomes_a_cookie_once_and_leaves_the_url() {
    let host = Host::new("odin3").started();
    let page = Page::serve(&host, &[]);
    let target = format!("/?token={}", page.token);
    assert_eq!(page.token.len(), 64);
    assert_eq!(page.raw("GET", &target, &[("Host", "evil.example")]).status, 403);
    let answer = page.raw("GET", &target, &[("Host", &page.host())]);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", answer.head);
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.split("; ").any(|found| found == part), "{cookie}");
    }
    assert_eq!(page.raw("GET", &target, &[("Host", &page.host())]).status, 401);
    assert_eq!(page.get(cookie.split(';').next().unwrap(), "/").status, 200);
    let arguments = fs::read(format!("/proc/{}/cmdline", page.process.id())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&arguments).contains(&page.token));
    assert!(!host.log().contains(&page.token));
}

#[test]
fn every_answer_has_a_strict_policy_and_is_not_stored() {
    let host = Host::new("odin3").started();
    let page = Page::serve(&host, &[]);
    let cookie = page.log_in();
    let here = page.host();
    for answer in [
        page.get(&cookie, "/"),
        page.get(&cookie, "/api/view"),
        page.raw("GET", "/", &[("Host", &here)]),
        page.raw("GET", "/", &[("Host", "evil.example")]),
    ] {
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.split("; ").any(|found| found == rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}: {}", answer.head);
        }
    }
    let document = page.get(&cookie, "/").body;
    for inline in ["<style", "style=", "onclick", "javascript:", "https://"] {
        assert!(!document.contains(inline), "{inline}");
    }
    assert_eq!(document.matches("<script").count(), 1);
}

#[test]
fn a_session_is_closed_only_where_that_is_allowed_and_by_the_page_itself() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let target = format!("/api/sessions/{id}/close");
    let shows = Page::serve(&host, &[]);
    let (cookie, origin) = (shows.log_in(), format!("http://{}", shows.host()));
    let own = [("Host", shows.host()), ("Cookie", cookie), ("Origin", origin)];
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let action = ("X-Sessiond-Action", "close");
    assert_eq!(shows.raw("POST", &target, &[&own[..], &[action]].concat()).status, 403, "it only shows");

    let acts = Page::serve(&host, &["--allow-actions"]);
    let (here, cookie) = (acts.host(), acts.log_in());
    let origin = format!("http://{here}");
    let [host_header, cookie] = [("Host", here.as_str()), ("Cookie", cookie.as_str())];
    let origin = ("Origin", origin.as_str());
    for headers in [
        vec![host_header, origin, action],
        vec![host_header, cookie, action],
        vec![host_header, cookie, origin],
        vec![host_header, cookie, ("Origin", "http://evil.example"), action],
        vec![("Host", "evil.example"), cookie, origin, action],
        vec![host_header, cookie, origin, ("Content-Type", "text/plain")],
    ] {
        let status = acts.raw("POST", &target, &headers).status;
        assert!(matches!(status, 401 | 403), "{status} {headers:?}");
    }
    let whole = [host_header, cookie, origin, action];
    assert_eq!(acts.raw("GET", &target, &whole).status, 405);
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "active");
    assert_eq!(acts.raw("POST", &target, &whole).status, 200);
    assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"], "closed");
    assert_eq!(acts.raw("POST", "/api/sessions/odin-PS-000000/close", &whole).status, 404);
    assert_eq!(acts.raw("POST", "/api/view", &whole).status, 405);
}

#[test]
fn sessions_are_in_the_order_of_attention_and_hostile_text_is_harmless() {
    let host = Host::new("odin3").started();
    let begin = |activity: &str| {
        let id = host.ok(&["register", "--project", "odin", "--id-only"]);
        let body = json!({"activity": activity, "activity_detail": "<img src=x onerror=alert(1)>\u{202e}"});
        assert_eq!(host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&body)).0, 200);
        id
    };
    let (idle, working, waiting) = (begin("idle"), begin("working"), begin("waiting"));
    let work = json!({"prompt": "<script>alert(1)</script>\u{202e}\u{1b}[31m"});
    assert_eq!(host.ask("PUT", &format!("/v1/sessions/{waiting}/work"), Some(&work)).0, 200);
    let page = Page::serve(&host, &[]);
    let cookie = page.log_in();
    let view = eventually("all are shown", SOON, || {
        Some(page.view(&cookie, "")).filter(|view| view["matching"] == 3 && view["link"]["online"] == true)
    });
    let ids: Vec<_> = view["sessions"].as_array().unwrap().iter().map(|s| s["instance_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&waiting, &idle, &working]);
    assert_eq!(view["counts"], json!({"waiting": 1, "idle": 1, "working": 1}));
    for bad in ['\u{202e}', '\u{1b}'] {
        assert!(
            !view.to_string().contains(bad)
                && !page.get(&cookie, &format!("/api/sessions/{waiting}")).body.contains(bad)
        );
    }
    assert_eq!(page.view(&cookie, "?need=idle")["sessions"][0]["instance_id"], json!(idle));
    assert_eq!(page.view(&cookie, "?q=ALERT+odin")["matching"], 3);
    assert_eq!(page.view(&cookie, "?q=%ff%00nothing")["matching"], 0);
    let second = page.view(&cookie, "?limit=1&offset=1");
    assert_eq!(
        (second["sessions"].as_array().unwrap().len(), &second["sessions"][0]["instance_id"]),
        (1, &json!(idle))
    );
    let session: Value = serde_json::from_str(&page.get(&cookie, &format!("/api/sessions/{waiting}")).body).unwrap();
    assert_eq!((&session["need"], &session["activity"][0]["activity"]), (&json!("waiting"), &json!("waiting")));
    assert!(session["command"].as_str().unwrap().contains(&waiting));
    let hours: Value = serde_json::from_str(&page.get(&cookie, "/api/hours").body).unwrap();
    assert_eq!(hours["machines"][0]["hours"].as_array().unwrap().len(), 24);
}

#[test]
fn the_page_shows_that_the_daemon_is_away_and_follows_it_again() {
    let mut host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let mut page = Page::serve(&host, &[]);
    let cookie = page.log_in();
    let shows = |what: &str, fits: &dyn Fn(&Value) -> bool| {
        eventually(what, SOON, || Some(page.view(&cookie, "")).filter(|view| fits(view)))
    };
    shows("it is online", &|view| view["link"]["online"] == true && view["matching"] == 1);
    host.stop();
    let away = shows("it is offline", &|view| view["link"]["online"] == false);
    assert_eq!((&away["sessions"][0]["instance_id"], away["link"]["error"].is_string()), (&json!(id), true), "{away}");
    assert!(away["link"]["as_of"].as_str() < away["now"].as_str());
    host.start();
    shows("it is online again", &|view| view["link"]["online"] == true);
    host.ok(&["close", &id]);
    shows("a closed session is not shown", &|view| view["matching"] == 0);
    assert_eq!(page.ends(Signal::TERM), Some(0));
}

#[test]
fn event_streams_and_slow_clients_are_bounded() {
    let host = Host::new("odin3").started();
    let mut page = Page::serve(&host, &[]);
    let cookie = page.log_in();
    let here = page.host();
    let headers = [("Host", here.as_str()), ("Cookie", cookie.as_str())];
    let streams: Vec<_> = (0..500).map(|_| page.send("GET", "/events", &headers)).collect();
    let statuses: Vec<_> = streams.iter().map(|stream| status_of(stream.try_clone().unwrap())).collect();
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((count(200), count(503)), (64, 436), "{statuses:?}");
    assert_eq!(page.get(&cookie, "/api/view").status, 200, "others are answered");
    drop(streams);
    eventually("a stream is free again", SOON, || {
        (status_of(page.send("GET", "/events", &headers)) == 200).then_some(())
    });

    let large = format!("/?{}", "a".repeat(20_000));
    assert!(matches!(page.get(&cookie, &large).status, 413 | 414 | 431 | 400));
    assert_eq!(
        page.raw("POST", "/api/view", &[&headers[..], &[("Content-Length", "9999999")]].concat()).status,
        400,
        "two lengths"
    );
    let many: Vec<_> = (0..100).map(|n| (["x-a", "x-b"][n % 2], "1")).collect();
    assert_eq!(page.raw("GET", "/", &[&headers[..], &many].concat()).status, 431);
    // A client that never ends its head.
    let mut slow = page.connect();
    let began = Instant::now();
    write!(slow, "GET / HTTP/1.1\r\nHost: {here}\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(began.elapsed() < SOON, "it is cut off");
    assert_eq!(page.ends(Signal::INT), Some(0), "streams do not keep it");
}

#[test]
fn an_address_that_others_reach_needs_a_private_token_file() {
    let host = Host::new("odin3").started();
    let refused = |options: &[&str]| host.refused(&[&["web"], options].concat());
    let (code, message) = refused(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(message.contains("--token-file"), "{message}");
    let file = host.dir().join("token");
    let path = file.to_str().unwrap();
    let token = "0123456789abcdef0123456789abcdef-x";
    fs::write(&file, token).unwrap();
    for (mode, content) in [(0o644, token), (0o660, token), (0o600, "short"), (0o600, "")] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(refused(&["--listen", "0.0.0.0:0", "--token-file", path]).0, 2, "{mode:o} {content}");
    }
    assert_eq!(refused(&["--token-file", "/none/such"]).0, 2);
    assert_eq!(refused(&["--listen", "nowhere"]).0, 2);
    fs::write(&file, token).unwrap();
    let page = Page::serve(&host, &["--listen", "0.0.0.0:0", "--token-file", path]);
    assert!(page.url.starts_with("http://127.0.0.1:") && !page.url.contains(token), "{}", page.url);
    for _ in 0..2 {
        assert_eq!(page.raw("GET", &format!("/?token={token}"), &[("Host", &page.host())]).status, 303);
    }
    assert_eq!(page.raw("GET", "/", &[("Host", &format!("evil.example:{}", page.port))]).status, 403);
    page.log_in();
}
