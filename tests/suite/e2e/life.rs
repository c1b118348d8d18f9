//! The daemon's start, its watches of processes, configuration and schema, and its end.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

const SOON: Duration = Duration::from_secs(20);

fn session_status(host: &Host, id: &str) -> String {
    host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"].as_str().unwrap().to_owned()
}

/// A process that a session belongs to; it goes with the test.
struct Process(Child);

impl Process {
    fn start() -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn session_is_stale_at_once_when_its_process_ends() {
    let host = Host::new("odin3").started();
    let mut process = Process::start();
    let id = host.ok(&["register", "--project", "odin", "--pid", &process.pid(), "--id-only"]);
    assert_eq!(session_status(&host, &id), "active");
    process.end();
    eventually("the session is stale", SOON, || (session_status(&host, &id) == "stale").then_some(()));
    host.ok(&["heartbeat", &id]);
    assert_eq!(session_status(&host, &id), "active", "a heartbeat makes it active again");
}

#[test]
fn process_end_is_noticed_at_the_next_start() {
    let mut host = Host::new("odin3").started();
    let (mut dies, lives) = (Process::start(), Process::start());
    let register = |pid: &str| host.ok(&["register", "--project", "odin", "--pid", pid, "--id-only"]);
    let (dead, alive) = (register(&dies.pid()), register(&lives.pid()));
    host.kill();
    dies.end();
    host.start();
    eventually("the dead one is stale", SOON, || (session_status(&host, &dead) == "stale").then_some(()));
    assert_eq!(session_status(&host, &alive), "active");
}

#[test]
fn daemon_records_heartbeats_for_running_processes() {
    let server = Server::start(&["timezone=America/New_York"]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("odin3", &url);
    host.ok(&["migrate", "--central-url", &url]);
    let host = host.started();
    let mut process = Process::start();
    host.ok(&["register", "--project", "odin", "--pid", &process.pid()]);
    host.await_synced();
    let heartbeat = || server.psql("central", "SELECT last_heartbeat FROM supervisor_sessions");
    let first = heartbeat();
    eventually("central hears of it again", SOON, || (heartbeat() != first).then_some(()));
    process.end();
    eventually("central hears of its end", SOON, || {
        (server.psql("central", "SELECT status FROM supervisor_sessions") == "stale").then_some(())
    });
}

#[test]
fn sessions_of_a_vanished_host_are_marked_stale_by_another() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let in_a_hurry =
        format!("[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\n[sessions]\nstale_after = \"5s\"\n");
    let (mut vanishes, stays) = (Host::new("odin4"), Host::new("odin3"));
    vanishes.configure(&in_a_hurry);
    stays.configure(&in_a_hurry);
    stays.ok(&["migrate", "--central-url", &url]);
    vanishes.start();
    let process = Process::start();
    vanishes.ok(&["register", "--project", "odin", "--pid", &process.pid()]);
    vanishes.await_synced();
    vanishes.kill();
    let stays = stays.started();
    let status = || server.psql("central", "SELECT status FROM supervisor_sessions");
    assert_eq!(status(), "active");
    eventually("it is stale in central", SOON, || (status() == "stale").then_some(()));
    let machines = stays.ask("GET", "/v1/machines", None).1;
    let machine = machines.as_array().unwrap().iter().find(|m| m["host_machine"] == "odin4").unwrap().clone();
    assert_eq!((&machine["reachable"], &machine["projects"]), (&false.into(), &"odin".into()), "{machine}");
    vanishes.start();
    eventually("its host is back", SOON, || (status() == "active").then_some(()));
}

#[test]
fn processes_are_checked_after_a_sleep_before_sessions_are_reported_stale() {
    let host = Host::new("laptop");
    host.configure("[central]\nheartbeat_interval = \"1s\"\n[sessions]\nstale_after = \"5s\"\n");
    let host = host.started();
    let process = Process::start();
    let id = host.ok(&["register", "--project", "odin", "--pid", &process.pid(), "--id-only"]);
    host.signal(Signal::STOP);
    // What is tested is that time passes: longer than stale_after.
    std::thread::sleep(Duration::from_secs(6));
    host.signal(Signal::CONT);
    assert_eq!(session_status(&host, &id), "active");
}

#[test]
fn sigterm_pushes_pending_rows_and_closes_everything() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("odin3", &url);
    host.ok(&["migrate", "--central-url", &url]);
    let mut host = host.started();
    host.await_central("connected");
    for _ in 0..50 {
        host.ok(&["register", "--project", "odin"]);
    }
    assert_eq!(host.stop(), Some(0));
    assert_eq!(server.psql("central", "SELECT count(*) FROM supervisor_sessions"), "50");
    assert!(!host.socket().exists());
    let log = host.state_dir().join("sessiond.db-wal");
    assert!(fs::metadata(log).map_or(0, |m| m.len()) == 0, "the log is folded into the database");
}

#[test]
fn two_daemons_cannot_share_a_state_folder_or_a_socket() {
    let host = Host::new("odin3").started();
    let (code, said) = host.refuses();
    assert_eq!(code, 75);
    assert!(said.contains(&host.pid().as_raw_nonzero().to_string()), "it names the pid: {said}");
    let mut other = Host::new("odin4").environment("SESSIOND_SOCKET", host.socket().to_str().unwrap());
    let (code, said) = other.refuses();
    assert_eq!(code, 75, "{said}");
    assert_eq!(host.ask("GET", "/v1/status", None).0, 200, "the one that lives goes on");
    other.kill();
}

#[test]
fn stale_socket_of_a_crash_is_replaced() {
    let mut host = Host::new("odin3");
    drop(UnixListener::bind(host.socket()).unwrap());
    host.start();
    host.kill();
    assert!(host.socket().exists());
    host.start();
}

#[test]
fn valid_configuration_change_is_applied_and_an_invalid_one_is_not() {
    let host = Host::new("odin3").started();
    assert_eq!(host.status()["central"]["state"], "off");
    host.configure("[sessions\n");
    let config = eventually("it says what is wrong", SOON, || {
        let config = host.status()["config"].clone();
        config["error"].is_string().then_some(config)
    });
    assert!(config["error"].as_str().unwrap().contains("config.toml"), "{config}");

    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    host.configure(&format!("[central]\nurl = \"{url}\"\n"));
    host.signal(Signal::HUP);
    let status = host.await_central("connected");
    assert_eq!(status["config"]["error"], json!(null));
}

#[test]
fn migration_is_noticed_while_waiting_for_it() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::with_central("odin3", &url).started();
    host.ok(&["register", "--project", "odin"]);
    let status = host.await_central("schema_missing");
    assert!(status["central"]["last_error"].as_str().unwrap().contains("sessiond migrate"), "{status}");
    let printed = host.ok(&["migrate", "--dry-run", "--central-url", &url]);
    assert!(printed.contains("CREATE TABLE IF NOT EXISTS sessiond_hosts"), "{printed}");
    assert_eq!(host.status()["central"]["state"], "schema_missing", "a dry run changes nothing");
    host.ok(&["migrate", "--central-url", &url]);
    host.await_synced();
    assert_eq!(server.psql("central", "SELECT count(*) FROM supervisor_sessions"), "1");
}

#[test]
fn systemd_is_notified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(SOON)).unwrap();
    let mut host =
        Host::new("odin3").environment("NOTIFY_SOCKET", path.to_str().unwrap()).environment("WATCHDOG_USEC", "1000000");
    let hears = |word: &str| {
        let mut message = [0; 4096];
        loop {
            let length = systemd.recv(&mut message).unwrap_or_else(|e| panic!("{word} was never said: {e}"));
            if String::from_utf8_lossy(&message[..length]).contains(word) {
                return;
            }
        }
    };
    host.launch();
    hears("READY=1");
    hears("STATUS=");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    host.signal(Signal::HUP);
    hears("RELOADING=1");
    hears("READY=1");
    kill_process(Pid::from_raw(host.pid().as_raw_nonzero().get()).unwrap(), Signal::TERM).unwrap();
    hears("STOPPING=1");
    host.kill();
}
