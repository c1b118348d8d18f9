//! Processes of other users on the socket: who gets in, and whose sessions they may change.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::daemon::Host;

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
        println!("skipped: {test} needs root, to become other users");
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
fn mode_and_group_decide_who_gets_in() {
    if !is_root("mode_and_group_decide_who_gets_in") {
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
    // Linux tells of a peer only its first group: the kernel lets this one open the socket by its other group,
    // and unless the user database names it as a member, the daemon cannot know of it.
    println!("a supplementary group alone: {}", status(&grouped, BESIDE));
}

#[test]
fn sessions_belong_to_whoever_registered_them() {
    if !is_root("sessions_belong_to_whoever_registered_them") {
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
fn a_crowd_of_another_user_keeps_nobody_out() {
    if !is_root("a_crowd_of_another_user_keeps_nobody_out") {
        return;
    }
    if !Path::new(PYTHON).exists() {
        return println!("skipped: a_crowd_of_another_user_keeps_nobody_out needs {PYTHON}");
    }
    let host = host(&format!("mode = \"0666\"\ngroup = \"{GROUP}\""));
    let _ = sessiond::platform::limits::raise_open_files();
    let half = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{";
    // Whoever may come in, and whoever may not: silent, or in the middle of a request.
    for (user, first) in [(MEMBER, ""), (MEMBER, half), (ONE, ""), (ONE, half)] {
        let _crowd = Crowd::start(&host, user, 3000, first);
        for _ in 0..20 {
            let began = std::time::Instant::now();
            assert_eq!(host.ask("GET", "/v1/status", None).0, 200);
            assert!(began.elapsed().as_secs() < 6, "{:?}", began.elapsed());
        }
    }
}
