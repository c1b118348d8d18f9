//! Runs the real daemon in a temporary folder, and the real client.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::eventually;

const LIMIT: Duration = Duration::from_secs(30);

/// A host: its state folder, its configuration, and its daemon while that runs.
pub struct Host {
    dir: TempDir,
    state: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Child>,
}

impl Host {
    /// A host that knows no central.
    pub fn new(machine: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder for a host");
        fs::write(dir.path().join("config.toml"), "").expect("a configuration");
        let arguments = vec!["--machine".into(), machine.into()];
        Self { state: dir.path().join("state"), dir, arguments, environment: Vec::new(), process: None }
    }

    /// A host whose machine has no configured name.
    pub fn nameless() -> Self {
        let mut host = Self::new("x");
        host.arguments.clear();
        host
    }

    /// A host that carries its sessions to `url`, in a hurry.
    pub fn with_central(machine: &str, url: &str) -> Self {
        let host = Self::new(machine);
        host.configure(&format!(
            "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\n\
             connect_timeout = \"2s\"\nstatement_timeout = \"2s\"\n"
        ));
        host
    }

    pub fn configure(&self, toml: &str) {
        fs::write(self.dir.path().join("config.toml"), toml).expect("the configuration can be written");
    }

    /// Keeps the state elsewhere than in the host's own folder.
    pub fn keeping_state_in(mut self, state: PathBuf) -> Self {
        self.state = state;
        self
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&mut self) {
        self.launch();
        eventually("the daemon serves", LIMIT, || {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            self.connect()
        });
    }

    /// Starts the daemon and does not wait.
    pub fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = self.sessiond();
        command.arg("run").args(&self.arguments).arg("--state-dir").arg(self.state_dir());
        self.process =
            Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it can be run"));
    }

    /// Runs the daemon when it is expected to refuse; answers its exit code and what it said last.
    pub fn refuses(&self) -> (i32, String) {
        let mut command = self.sessiond();
        command.arg("run").args(&self.arguments).arg("--state-dir").arg(self.state_dir());
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it can be run");
        let deadline = Instant::now() + LIMIT;
        while process.try_wait().expect("it can be waited for").is_none() {
            if Instant::now() > deadline {
                let _ = process.kill();
                panic!("the daemon was to refuse, and runs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = process.wait_with_output().expect("it can be waited for");
        let said = String::from_utf8_lossy(&output.stderr).trim_end().lines().last().unwrap_or_default().to_owned();
        (output.status.code().unwrap_or(-1), said)
    }

    /// The program with nothing in its environment but what this host says.
    pub fn sessiond(&self) -> Command {
        let mut command = Command::new(crate::program());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("SESSIOND_SOCKET", self.socket())
            .env("SESSIOND_STATE_DIR", self.state_dir())
            .env("SESSIOND_CONFIG", self.dir.path().join("config.toml"))
            // The machine that runs the tests is busy with them.
            .env("SESSIOND_HOOK_TIMEOUT", "10s")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a verb of the client.
    pub fn verb(&self, words: &[&str]) -> Output {
        self.sessiond().args(words).stdin(Stdio::null()).output().expect("the client can be run")
    }

    /// Runs a verb that is expected to work; answers what it printed, without the last newline.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.verb(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sessiond {words:?}: {} {stderr}\n{}", output.status, self.log());
        String::from_utf8(output.stdout).expect("the client prints UTF-8").trim_end_matches('\n').to_owned()
    }

    /// Runs a verb that is expected to be refused; answers the exit code and what stands on stderr.
    pub fn refused(&self, words: &[&str]) -> (i32, String) {
        let output = self.verb(words);
        assert!(!output.status.success(), "sessiond {words:?} worked: {}", String::from_utf8_lossy(&output.stdout));
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }

    /// Asks the API, over a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_ask(method, path, body).expect("the daemon answers")
    }

    /// The same, where the daemon may be killed meanwhile: no answer is `None`.
    pub fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        ask_over(&mut self.connect()?, method, path, body)
    }

    pub fn status(&self) -> Value {
        self.ask("GET", "/v1/status", None).1
    }

    /// Waits until the link to central is in this state.
    pub fn await_central(&self, state: &str) -> Value {
        eventually(&format!("central is {state}"), LIMIT, || {
            let status = self.status();
            (status["central"]["state"] == state).then_some(status)
        })
    }

    /// Waits until central has everything.
    pub fn await_synced(&self) {
        eventually("central has everything", Duration::from_secs(60), || {
            let (_, body) = self.ask("POST", "/v1/sync", Some(&serde_json::json!({"wait_ms": 1000})));
            let backlog = &body["backlog"];
            let is_empty = backlog["sessions"] == 0 && backlog["records"] == 0;
            (is_empty && body["central"]["state"] == "connected").then_some(())
        });
    }

    pub fn connect(&self) -> Option<UnixStream> {
        connect(&self.socket())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sessiond.sock")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.state.clone()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("the daemon runs"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the daemon can be signalled");
    }

    /// Ends the daemon as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Waits until the daemon ends by itself, and answers its exit code.
    pub fn ends(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("the daemon runs");
        eventually("the daemon ends", LIMIT, || process.try_wait().ok().flatten()).code()
    }

    /// Asks the daemon to end, and answers its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ends()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {:?}\n{}", self.arguments, self.log());
        }
    }
}

pub fn connect(socket: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    Some(stream)
}

/// Asks the API over a connection that is used up by it.
pub fn ask_over(stream: &mut UnixStream, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let (status, text) = raw(
        stream,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )?;
    Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// Sends a request as it is and reads the answer to its end.
pub fn raw(stream: &mut UnixStream, request: &str) -> Option<(u16, String)> {
    // A server that refuses may hang up before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
