//! Repeated restarts under load reject no client.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use sessiond::client::{Client, Endpoint};
use sessiond::wire::{ErrorCode, ErrorDetail, HeartbeatRequest, ListQuery, RegisterRequest};
use tempfile::TempDir;

use testkit::clients::run_beside;
use testkit::{LIMIT, campaign, eventually};

/// A service manager in small: it keeps the socket, if there is one to keep, and starts the daemon.
struct Manager {
    dir: TempDir,
    kept: Option<UnixListener>,
}

impl Manager {
    fn new(keeps_the_socket: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sessiond")).unwrap();
        let mut manager = Self { dir, kept: None };
        manager.kept = keeps_the_socket.then(|| UnixListener::bind(manager.socket()).unwrap());
        manager
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sessiond/sessiond.sock")
    }

    fn start(&self) -> Child {
        let run = |prefix: &str| format!("{prefix} exec \"$0\" run --machine odin3 --state-dir \"$1\" --socket \"$2\"");
        // The number of a process is known only to itself.
        let activated = run("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http");
        let mut command = Command::new("sh");
        command.env_clear().env("HOME", self.dir.path()).stdout(Stdio::null());
        command.stderr(std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap());
        match &self.kept {
            Some(socket) => command.arg("-c").arg(activated).stdin(OwnedFd::from(socket.try_clone().unwrap())),
            None => command.arg("-c").arg(run("")).stdin(Stdio::null()),
        };
        let paths: [&Path; 2] = [&self.dir.path().join("state"), &self.socket()];
        command.arg(env!("CARGO_BIN_EXE_sessiond")).args(paths).spawn().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(Endpoint::at(self.socket()))
    }

    /// Starts and ends daemons while clients send requests; returns how many were answered.
    fn exchange(&self, times: u64, signal: Signal, mut failed: impl FnMut(&ErrorDetail)) -> u64 {
        let answered = AtomicU64::new(0);
        let clients = vec![Vec::new(); 4];
        let (mut daemon, failures) = run_beside(
            clients,
            |failures| self.ask(&answered, failures),
            || {
                for _ in 0..times {
                    let mut daemon = self.start();
                    let before = answered.load(Ordering::Relaxed);
                    eventually("clients are answered", LIMIT, || {
                        (answered.load(Ordering::Relaxed) > before + 40).then_some(())
                    });
                    kill_process(Pid::from_child(&daemon), signal).unwrap();
                    daemon.wait().unwrap();
                }
                // It answers the last requests.
                self.start()
            },
        );
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        failures.iter().flatten().for_each(&mut failed);
        answered.into_inner()
    }

    /// Registers, reports, closes and lists, and adds the errors to `failures`.
    fn ask(&self, answered: &AtomicU64, failures: &mut Vec<ErrorDetail>) {
        let client = self.client();
        let request = RegisterRequest { project: "odin".into(), ..RegisterRequest::default() };
        let mut id = None;
        let registered = client.register(&request).map(|session| id = Some(session.instance_id));
        let heartbeat = id.as_deref().map_or(Ok(()), |id| client.heartbeat(id, &HeartbeatRequest::default()).map(drop));
        let closed = id.take().map_or(Ok(()), |id| client.close(&id).map(drop));
        // Of those that are not closed, so that a long campaign does not end in ever longer lists.
        let active = ListQuery { active_only: Some(true), ..ListQuery::default() };
        let listed = client.list(&active).map(drop);
        for answer in [registered, heartbeat, closed, listed] {
            match answer {
                Ok(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                Err(error) => failures.push(error),
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

#[test]
fn restarts_with_an_inherited_socket_reject_no_client() {
    let manager = Manager::new(true);
    let answered = manager.exchange(campaign(20, 200), Signal::TERM, |error| panic!("{error:?}\n{}", manager.log()));
    println!("answered {answered} times");
    assert!(manager.socket().exists(), "the socket is the manager's to remove");
}

#[test]
fn killed_daemon_with_an_inherited_socket_rejects_no_client() {
    let manager = Manager::new(true);
    // It is unknown then whether a registration took effect: the error says so, and it is not repeated.
    let said = |error: &ErrorDetail| assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}\n{}", manager.log());
    manager.exchange(campaign(10, 200), Signal::KILL, said);
}

#[test]
fn clients_retry_during_a_restart_without_an_inherited_socket() {
    let manager = Manager::new(false);
    let answered = manager.exchange(campaign(10, 200), Signal::TERM, |error| panic!("{error:?}\n{}", manager.log()));
    println!("answered {answered} times");
}
