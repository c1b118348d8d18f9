//! Invalid input is rejected with its status or exit code and one line of advice.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::{Host, raw};
use testkit::eventually;
use testkit::postgres::Server;
use testkit::skip::skip;

/// An error body as the contract has it; answers its message.
fn message(answer: &Value) -> String {
    let error = &answer["error"];
    assert!(error["code"].is_string() && error["hint"].is_string(), "{answer}");
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.contains('\n'), "{answer}");
    message.to_owned()
}

#[test]
fn invalid_requests_are_rejected_with_the_field() {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let heartbeat = format!("/v1/sessions/{id}/heartbeat");
    let long = |n: usize| "x".repeat(n);
    let cases = [
        ("/v1/sessions", json!({"project": "odin", "colour": "red"}), "colour"),
        ("/v1/sessions", json!({}), "project"),
        ("/v1/sessions", json!({"project": 7}), "project"),
        ("/v1/sessions", json!({"project": "Odin"}), "project"),
        ("/v1/sessions", json!({"project": long(70)}), "at most 22"),
        ("/v1/sessions", json!({"project": "odin", "instance_type": "XS"}), "instance_type"),
        ("/v1/sessions", json!({"project": "odin", "host_machine": "@x"}), "host_machine"),
        ("/v1/sessions", json!({"project": "odin", "context_percent": 101}), "context_percent"),
        ("/v1/sessions", json!({"project": "odin", "pid": 0}), "pid"),
        ("/v1/sessions", json!({"project": "odin", "pid": 2_000_000_000}), "pid"),
        ("/v1/sessions", json!({"project": "odin", "claude_session_uuid": long(65)}), "claude_session_uuid"),
        ("/v1/sessions", json!([]), "invalid"),
        (&heartbeat, json!({"context_percent": 101}), "context_percent"),
        (&heartbeat, json!({"context_percent": -1}), "context_percent"),
        (&heartbeat, json!({"context_percent": 4.5}), "context_percent"),
        (&heartbeat, json!({"context_percent": "4"}), "context_percent"),
        (&heartbeat, json!({"current_epic": long(300)}), "at most 256"),
        (&heartbeat, json!({"current_epic": "a\u{0}b"}), "current_epic"),
        (&heartbeat, json!({"epic": "003"}), "epic"),
    ];
    for (path, body, named) in cases {
        let (status, answer) = host.ask("POST", path, Some(&body));
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(message(&answer).contains(named), "{body}: {answer}");
    }
    let (_, list) = host.ask("GET", "/v1/sessions", None);
    assert_eq!(list["total_count"], 1, "nothing was half done");
    assert_eq!(list["instances"][0]["context_percent"], 0);

    for (method, path, status) in [
        ("GET", "/v1/sessions/nobody-PS-aaaaaa", 404),
        ("POST", "/v1/sessions/nobody-PS-aaaaaa/heartbeat", 404),
        ("GET", "/v1/sessions/%ff%fe", 400),
        ("GET", "/v1/sessions?machine=My-Machine", 400),
        ("GET", "/v1/sessions?colour=red", 400),
        ("GET", "/v1/sessions?status=asleep", 400),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/sessions", 405),
    ] {
        let (found, answer) = host.ask(method, path, None);
        assert_eq!(found, status, "{method} {path}: {answer}");
        message(&answer);
    }
    host.ok(&["close", &id]);
    let (status, answer) = host.ask("POST", &heartbeat, Some(&json!({})));
    assert_eq!((status, answer["error"]["code"].as_str()), (409, Some("session_closed")));
}

/// Posts a body of any bytes; the status of the answer, which is a line that says what is wrong.
fn refused_body(host: &Host, path: &str, body: &[u8]) -> u16 {
    let mut stream = host.connect().unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let (status, answer) = raw(&mut stream, "").unwrap();
    message(&serde_json::from_str(&answer).unwrap());
    status
}

#[test]
fn rejects_invalid_json_and_http() {
    let host = Host::new("odin3").started();
    let deep = format!("{{\"project\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let half = r#"{"project": "odin", "current_epic": "half \ud83d"}"#;
    for body in ["{", "nonsense", "{\"project\": \"odin\"} {}", "\u{1}", "\u{feff}{\"project\": \"odin\"}", half, &deep]
    {
        assert_eq!(refused_body(&host, "/v1/sessions", body.as_bytes()), 400, "{body:.80}");
    }
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    for route in ["heartbeat", "events", "commands", "checkpoints"] {
        let path = format!("/v1/sessions/{}/{route}", id.trim());
        for body in
            [&br#"{"event_data": {"a": "\ude00"}}"#[..], b"{\"action\": \"\xff\"}", b"\xef\xbb\xbf{}", deep.as_bytes()]
        {
            assert_eq!(refused_body(&host, &path, body), 400, "{path}: {}", String::from_utf8_lossy(&body[..9]));
        }
    }
    for path in ["/v1/sessions/%ff", "/v1/sessions?project=%ff%fe", "/v1/sessions/%ed%a0%bd/context"] {
        let status = host.ask("GET", path, None).0;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    for garbage in ["\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}"] {
        let mut stream = host.connect().unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{garbage:?}: {answer}");
    }
    assert_eq!(host.ask("GET", "/v1/status", None).0, 200);
}

#[test]
fn rejects_a_large_body_and_an_endless_head() {
    let host = Host::new("odin3").started();
    let body = json!({"project": "x".repeat(10 << 20)}).to_string();
    let request = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, answer) = raw(&mut host.connect().unwrap(), &request).unwrap();
    assert_eq!(status, 413, "{answer}");
    message(&serde_json::from_str(&answer).unwrap());

    let mut endless = host.connect().unwrap();
    let line = format!("X-More: {}\r\n", "y".repeat(1000));
    endless.write_all(b"GET /v1/status HTTP/1.1\r\n").unwrap();
    let cut_off = (0..1000).any(|_| endless.write_all(line.as_bytes()).is_err());
    assert!(cut_off, "a megabyte of head was taken in");
    assert_eq!(host.ask("GET", "/v1/status", None).0, 200);
}

#[test]
fn idle_connections_are_closed_for_new_clients() {
    let host = Host::new("odin3").started();
    // Each end of a connection is a descriptor of this process too.
    let (_, hard) = raise_open_files();
    let wanted = 5000.min(hard.saturating_sub(200) as usize);
    let mut idle = Vec::new();
    for _ in 0..wanted {
        match host.connect() {
            Some(stream) => idle.push(stream),
            None => break,
        }
    }
    assert!(idle.len() > 1000, "only {} connections", idle.len());
    let (status, answer) = host.ask("GET", "/v1/status", None);
    assert!(status == 200 || status == 503, "{status} {answer}");
    if status == 503 {
        message(&answer);
    }
    eventually("others are served while the idle ones stay", Duration::from_secs(60), || {
        (host.try_ask("GET", "/v1/status", None)?.0 == 200).then_some(())
    });
    assert!(idle.len() > 1000);
}

fn raise_open_files() -> (u64, u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

#[test]
fn invalid_configuration_stops_the_start_with_one_line() {
    let host = Host::new("odin3");
    let cases = [
        ("[central\n", "line 1"),
        ("[central]\nurll = \"postgres://x\"\n", "url"),
        ("[sessions]\nstale_after = \"soon\"\n", "stale_after"),
        ("[sessions]\nstale_after = 5\n", "stale_after"),
        ("[log]\nlevel = \"loud\"\n", "level"),
        ("[central]\nurl = \"mysql://u:hunter2@x/y\"\n", "url"),
        ("[central]\nurl = \"postgres://u:hunter2@x:99999/y\"\n", "url"),
        ("[central]\nurl = \"postgres://x/y\"\npassword_file = \"/nonexistent\"\n", "password_file"),
        ("[socket]\nmode = \"rw\"\n", "mode"),
        ("[machine]\nname = \"My-Machine\"\n", "^[a-z0-9][a-z0-9_-]*$"),
    ];
    for (toml, named) in cases {
        host.configure(toml);
        let machine = Host::nameless();
        machine.configure(toml);
        let (code, said) = machine.refuses();
        assert_eq!(code, 78, "{toml}: {said}");
        assert!(said.contains(named), "{toml}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let host = Host::new("odin3").environment("SESSIOND_CONFIG", "/nonexistent/config.toml");
    assert_eq!(host.refuses().0, 78);
}

#[test]
fn wrong_password_is_retried_until_corrected() {
    let server = Server::start(&[]);
    server.create("central");
    server.psql("central", "CREATE ROLE agent LOGIN PASSWORD 'right'");
    let host = Host::new("odin3");
    host.ok(&["migrate", "--central-url", &server.url("central")]);
    server.psql("central", "GRANT ALL ON ALL TABLES IN SCHEMA public TO agent");
    server.admit("local all postgres trust\nlocal all all scram-sha-256\n");
    let password = host.dir().join("password");
    fs::write(&password, "wrong\n").unwrap();
    let url = server.url_as("agent", "central");
    host.configure(&format!("[central]\nurl = \"{url}\"\npassword_file = \"{}\"\n", password.display()));
    let host = host.started();
    host.ok(&["register", "--project", "odin"]);
    let status = host.await_central("refused");
    assert_eq!(status["backlog"]["sessions"], 1);
    fs::write(&password, "right\n").unwrap();
    host.await_synced();
    assert_eq!(server.psql("central", "SELECT count(*) FROM supervisor_sessions"), "1");
    for secret in ["wrong", "right"] {
        assert!(!host.log().contains(secret), "{}", host.log());
    }
}

#[test]
fn password_appears_in_no_argument_log_or_status() {
    let host = Host::new("odin3").argument("--central-url").argument("postgres://agent:hunter2@127.0.0.1:1/central");
    let host = host.started();
    host.await_central("unreachable");
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", host.pid().as_raw_nonzero())).unwrap();
    for place in [arguments, host.log(), host.status().to_string(), host.ok(&["status"])] {
        assert!(!place.contains("hunter2"), "{place}");
    }
}

#[test]
fn unwritable_state_folder_stops_the_start() {
    let nobody = nix::unistd::User::from_name("nobody").unwrap();
    let (Some(nobody), true) = (nobody, rustix::process::geteuid().is_root()) else {
        return skip("unwritable_state_folder_stops_the_start", "root and the user nobody");
    };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // The build folder may be closed to others, and the program is run as another user.
    let program = dir.path().join("sessiond");
    testkit::program::copy_program(env!("CARGO_BIN_EXE_sessiond").as_ref(), &program);
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::uid(&mut command, nobody.uid.as_raw());
    let output = command
        .env_clear()
        .env("HOME", dir.path())
        .args(["run", "--machine", "odin3", "--state-dir"])
        .arg(dir.path().join("state"))
        .arg("--socket")
        .arg(dir.path().join("sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("sessiond: ") && said.contains("state"), "{said}");
}

#[test]
fn full_disk_is_reported_and_loses_nothing() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(mount.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("full_disk_is_reported_and_loses_nothing", "the right to mount");
    }
    struct Mounted<'a>(&'a std::path::Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _mounted = Mounted(mount.path());
    let mut host = Host::new("odin3");
    std::os::unix::fs::symlink(mount.path(), host.state_dir()).unwrap();
    host.start();
    let epic = "e".repeat(250);
    let mut acknowledged = Vec::new();
    let answer = loop {
        let (status, answer) =
            host.ask("POST", "/v1/sessions", Some(&json!({"project": "odin", "current_epic": epic})));
        match status {
            201 => acknowledged.push(answer["instance_id"].as_str().unwrap().to_owned()),
            507 => break answer,
            other => panic!("{other}: {answer}"),
        }
        assert!(acknowledged.len() < 20_000);
    };
    message(&answer);
    let words = ["register", "--project", "odin", "--epic", &epic];
    let (code, said) = host.refused(&words);
    assert_eq!(code, 75, "{said}");
    // With room again it goes on, and what was acknowledged is there.
    let remounted = Command::new("mount").args(["-o", "remount,size=8m"]).arg(mount.path()).status().unwrap();
    assert!(remounted.success());
    eventually("it takes sessions again", Duration::from_secs(20), || host.verb(&words).status.success().then_some(()));
    host.kill();
    host.start();
    for id in acknowledged {
        assert_eq!(host.ask("GET", &format!("/v1/sessions/{id}"), None).0, 200, "{id} is gone");
    }
    host.kill();
}

#[test]
fn other_users_need_the_group() {
    if !rustix::process::geteuid().is_root() {
        return skip("other_users_need_the_group", "root");
    }
    let open = |group: &str| {
        let mut host = Host::new("odin3");
        fs::set_permissions(host.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        host.configure(&format!("[socket]\nmode = \"0666\"\n{group}"));
        host.start();
        host
    };
    let as_nobody = |host: &Host, method: &str, path: &str| {
        let mut command = Command::new("curl");
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        std::os::unix::process::CommandExt::gid(&mut command, 65534);
        let output = command
            .args(["-s", "-X", method, "-o", "-", "-w", "%{http_code}", "--unix-socket"])
            .arg(host.socket())
            .arg(format!("http://localhost{path}"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let host = open("");
    assert!(as_nobody(&host, "GET", "/v1/status").ends_with("403"));
    let host = open("group = \"65534\"\n");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    assert!(as_nobody(&host, "GET", "/v1/status").ends_with("200"));
    let answer = as_nobody(&host, "POST", &format!("/v1/sessions/{id}/heartbeat"));
    assert!(answer.ends_with("403") && answer.contains("belongs to user 0"), "{answer}");
    assert!(as_nobody(&host, "POST", "/v1/identity/replace").ends_with("403"));
}
