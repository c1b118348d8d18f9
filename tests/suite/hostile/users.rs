//! Other users on the socket: who may connect, and whose sessions they may change.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use testkit::daemon::Host;
use testkit::skip::skip;

/// A user, the group it has at login, and the groups it has beside.
#[derive(Clone, Copy)]
struct User(u32, u32, &'static [u32]);

const ROOT: User = User(0, 0, &[]);
const ONE: User = User(54_321, 54_321, &[]);
const OTHER: User = User(54_322, 54_322, &[]);

const GROUP: u32 = 54_300;
const MEMBER: User = User(54_323, GROUP, &[]);
const BESIDE: User = User(54_324, 54_324, &[GROUP]);

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "root, to become other users");
    }
    root
}

/// A daemon whose socket anybody may open, as far as its mode goes.
fn host(socket: &str) -> Host {
    let mut host = Host::new("odin3");
    fs::set_permissions(host.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    host.configure(&format!("[socket]\n{socket}\n"));
    host.start();
    host
}

/// setpriv becomes the user with exactly these groups, before it becomes the program.
fn becoming(user: User, program: &str) -> Command {
    let User(uid, gid, beside) = user;
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
    match beside {
        [] => command.arg("--clear-groups"),
        groups => command.arg(format!("--groups={}", groups.iter().map(u32::to_string).collect::<Vec<_>>().join(","))),
    };
    command.arg(program);
    command
}

/// Asks the daemon as that user; answers the status, 000 where the socket could not even be opened, and the body.
fn ask(host: &Host, user: User, method: &str, path: &str, body: &str) -> (String, Value) {
    let output = becoming(user, "curl")
        .args(["-s", "-X", method, "-d", body, "-w", "\n%{http_code}", "--unix-socket"])
        .arg(host.socket())
        .arg(format!("http://localhost{path}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (answer, status) = said.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(answer).unwrap_or(Value::Null))
}

fn status(host: &Host, user: User) -> String {
    ask(host, user, "GET", "/v1/status", "").0
}

#[test]
fn mode_and_group_decide_access() {
    if !is_root("mode_and_group_decide_access") {
        return;
    }
    // The kernel keeps out whom the mode keeps out; the daemon everybody else whom it should.
    let closed = host("mode = \"0600\"");
    assert_eq!([ONE, MEMBER].map(|user| status(&closed, user)), ["000", "000"]);
    assert_eq!(status(&closed, ROOT), "200");

    let open = host("mode = \"0666\"");
    assert_eq!([ONE, MEMBER, BESIDE].map(|user| status(&open, user)), ["403", "403", "403"]);
    assert_eq!(ask(&open, ONE, "GET", "/v1/status", "").1["error"]["code"], "forbidden");

    let grouped = host(&format!("mode = \"0660\"\ngroup = \"{GROUP}\""));
    assert_eq!([ROOT, MEMBER].map(|user| status(&grouped, user)), ["200", "200"]);
    assert_eq!(status(&grouped, ONE), "000");
    // Linux reports only the first group of a peer: the kernel lets this one open the socket by its other group,
    // and unless the user database names it as a member, the daemon cannot know of it.
    println!("a supplementary group alone: {}", status(&grouped, BESIDE));
}

#[test]
fn sessions_belong_to_their_registering_user() {
    if !is_root("sessions_belong_to_their_registering_user") {
        return;
    }
    let host = host(&format!("mode = \"0666\"\ngroup = \"{GROUP}\""));
    let [one, other] = [ONE, OTHER].map(|user| User(user.0, GROUP, &[]));
    let (registered, session) = ask(&host, one, "POST", "/v1/sessions", r#"{"project": "odin"}"#);
    assert_eq!(registered, "201");
    let path = format!("/v1/sessions/{}", session["instance_id"].as_str().unwrap());
    let beat = |user, body| ask(&host, user, "POST", &format!("{path}/heartbeat"), body).0;

    assert_eq!(ask(&host, other, "GET", &path, "").0, "200", "to read is for all who get in");
    assert_eq!(beat(other, r#"{"context_percent": 99}"#), "403");
    assert_eq!(ask(&host, other, "POST", &format!("{path}/close"), "").0, "403");
    let seen = ask(&host, one, "GET", &path, "").1;
    assert_eq!((&seen["status"], seen["context_percent"].as_u64()), (&Value::from("active"), Some(0)));
    assert_eq!([beat(one, "{}"), beat(ROOT, "{}")], ["200", "200"]);
    for (tending, body) in [("identity/rename", r#"{"name": "x"}"#), ("parked/retry", "{}"), ("parked/drop", "{}")] {
        assert_eq!(ask(&host, one, "POST", &format!("/v1/{tending}"), body).0, "403", "{tending}");
    }
    assert_eq!(ask(&host, ROOT, "POST", &format!("{path}/close"), "").0, "200");
}

/// One that any user may run, wherever else there is another.
const PYTHON: &str = "/usr/bin/python3";

/// Another user's process that opens so many connections and leaves them, until it is ended.
struct Crowd(Child);

impl Crowd {
    fn start(host: &Host, user: User, connections: usize, first: &str) -> Self {
        let script = "import socket, sys, time\n\
                      held = []\n\
                      for _ in range(int(sys.argv[2])):\n\
                      \x20   held.append(socket.socket(socket.AF_UNIX))\n\
                      \x20   held[-1].connect(sys.argv[1])\n\
                      \x20   try: held[-1].send(sys.argv[3].encode())\n\
                      \x20   except OSError: pass\n\
                      print('here', flush=True)\n\
                      time.sleep(600)\n";
        let mut command = becoming(user, PYTHON);
        command.args(["-c", script]).arg(host.socket()).arg(connections.to_string()).arg(first);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        Self(child)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn connections_of_one_user_do_not_exclude_others() {
    if !is_root("connections_of_one_user_do_not_exclude_others") {
        return;
    }
    if !Path::new(PYTHON).exists() {
        return skip("connections_of_one_user_do_not_exclude_others", PYTHON);
    }
    let host = host(&format!("mode = \"0666\"\ngroup = \"{GROUP}\""));
    let _ = sessiond::platform::limits::raise_open_files();
    let half = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{";
    // Users with and without access, either silent or in the middle of a request.
    for (user, first) in [(MEMBER, ""), (MEMBER, half), (ONE, ""), (ONE, half)] {
        let _crowd = Crowd::start(&host, user, 3000, first);
        for _ in 0..20 {
            let began = std::time::Instant::now();
            assert_eq!(host.ask("GET", "/v1/status", None).0, 200);
            assert!(began.elapsed().as_secs() < 6, "{:?}", began.elapsed());
        }
    }
}

/// The program as that user, and what it prints on stderr.
fn verb(host: &Host, user: User, words: &[&str]) -> (Option<i32>, String) {
    let output = becoming(user, env!("CARGO_BIN_EXE_sessiond"))
        .args(["--socket".as_ref(), host.socket().as_os_str()])
        .args(words)
        .env("HOME", "/nonexistent")
        .env_remove("XDG_STATE_HOME")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn registered(host: &Host, user: User, body: &str) -> String {
    let (status, session) = ask(host, user, "POST", "/v1/sessions", body);
    assert_eq!(status, "201", "{session}");
    session["instance_id"].as_str().unwrap().to_owned()
}

#[test]
fn user_at_the_store_limit_does_not_exclude_others() {
    if !is_root("user_at_the_store_limit_does_not_exclude_others") {
        return;
    }
    let host = host(&format!("mode = \"0666\"\ngroup = \"{GROUP}\"\n[store]\nmax_size = \"2MiB\""));
    let [one, other] = [ONE, OTHER].map(|user| User(user.0, GROUP, &[]));
    let [of_one, of_other] = [one, other].map(|user| registered(&host, user, r#"{"project": "odin"}"#));
    let append = |user, id: &str, bytes: usize| {
        let body = format!(r#"{{"event_type": "error", "event_data": {{"text": "{}"}}}}"#, "x".repeat(bytes));
        ask(&host, user, "POST", &format!("/v1/sessions/{id}/events"), &body)
    };
    let mut kept = 0;
    let error = loop {
        match append(one, &of_one, 50_000) {
            (status, _) if status == "201" => kept += 50_000,
            (status, answer) => {
                assert_eq!(status, "507", "{answer}");
                break answer["error"].clone();
            }
        }
        assert!(kept <= 512 << 10, "{kept} bytes are more than a quarter of the store");
    };
    assert!(kept >= 400_000, "{kept} bytes are less than a quarter of the store");
    assert_eq!(error["code"], "disk_full");
    let said = error["message"].as_str().unwrap();
    assert!(said.contains(&format!("user {}", one.0)), "{said}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("close") && !hint.contains('\n')), "{error}");
    while append(one, &of_one, 100).0 == "201" {}
    let (code, said) = verb(&host, one, &["register", "--project", "odin"]);
    assert_eq!((code, said.lines().count()), (Some(75), 1), "{said}");

    assert_eq!(append(other, &of_other, 50_000).0, "201");
    assert_eq!(verb(&host, other, &["register", "--project", "odin"]).0, Some(0));
    assert_eq!(append(ROOT, &of_other, 50_000).0, "201");
    // What adds nothing is possible all the same.
    assert_eq!(ask(&host, one, "POST", &format!("/v1/sessions/{of_one}/heartbeat"), "{}").0, "200");
    assert_eq!(ask(&host, one, "POST", &format!("/v1/sessions/{of_one}/close"), "").0, "200");
}

#[test]
fn promised_id_of_another_user_is_ignored() {
    if !is_root("promised_id_of_another_user_is_ignored") {
        return;
    }
    let host = host(&format!("mode = \"0666\"\ngroup = \"{GROUP}\""));
    let [one, other] = [ONE, OTHER].map(|user| User(user.0, GROUP, &[]));
    let report = |user, uuid: &str, promised: &str| {
        let body = format!(
            r#"{{"sign": "start", "claude_session_uuid": "{uuid}", "working_dir": "/tmp/odin", "project": "odin",
                "promised_id": "{promised}"}}"#
        );
        let (status, answer) = ask(&host, user, "POST", "/v1/agents", &body);
        assert!(status == "200" || status == "201", "{status} {answer}");
        answer["session"]["instance_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let of = |id: &str| ask(&host, ROOT, "GET", &format!("/v1/sessions/{id}"), "").1["instance_id"].clone();
    let first = report(one, "u-1", "odin-PS-aaaaa1");
    assert_eq!(report(one, "u-1", "odin-PS-aaaaa2"), first);
    assert_eq!(of("odin-PS-aaaaa2"), first.as_str());
    // The other's agent was given the same id: it begins a session of that id.
    assert_eq!(report(other, "u-2", "odin-PS-aaaaa2"), "odin-PS-aaaaa2");
    assert_eq!(of("odin-PS-aaaaa2"), "odin-PS-aaaaa2");
    // And an id in use cannot be promised.
    assert_ne!(report(one, "u-1", "odin-PS-aaaaa2"), "odin-PS-aaaaa2");
    assert_eq!(of("odin-PS-aaaaa2"), "odin-PS-aaaaa2");
    assert_eq!(ask(&host, one, "POST", "/v1/sessions/odin-PS-aaaaa2/close", "").0, "403");
}

#[test]
fn a_resume_prefers_the_callers_own_session() {
    if !is_root("a_resume_prefers_the_callers_own_session") {
        return;
    }
    let stale_soon = "[central]\nheartbeat_interval = \"1s\"\n[sessions]\nstale_after = \"5s\"";
    let host = host(&format!("mode = \"0666\"\ngroup = \"{GROUP}\"\n{stale_soon}"));
    let users = [ONE, OTHER].map(|user| User(user.0, GROUP, &[]));
    let ids = users.map(|user| registered(&host, user, r#"{"project": "odin", "current_epic": "003"}"#));
    let is_stale = |id: &String| ask(&host, ROOT, "GET", &format!("/v1/sessions/{id}"), "").1["status"] == "stale";
    let await_stale = || {
        testkit::eventually("both are stale", std::time::Duration::from_secs(60), || {
            ids.iter().all(is_stale).then_some(())
        })
    };
    for body in ["{}", r#"{"hint": "003"}"#, r#"{"hint": "odin"}"#] {
        await_stale();
        // A member without sessions of their own has to choose, and changes nothing by asking.
        assert_eq!(ask(&host, MEMBER, "POST", "/v1/resume", body).0, "300", "{body}");
        for (user, id) in users.iter().zip(&ids) {
            let (status, resumed) = ask(&host, *user, "POST", "/v1/resume", body);
            assert_eq!(
                (status.as_str(), &resumed["session"]["instance_id"]),
                ("200", &Value::from(id.as_str())),
                "{body} {resumed}"
            );
        }
    }
}
