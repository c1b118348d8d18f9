//! A simulated Claude Code that runs hooks and the status line: a process, a folder, and a changing session id.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Host;
use crate::eventually;

/// A hook may take 100 ms; the machine that runs the tests has more to do than that.
pub const AT_MOST: Duration = Duration::from_secs(3);

pub struct Agent {
    process: Child,
    pub uuid: String,
    folder: PathBuf,
}

fn sleeper() -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Agent {
    /// An agent that works in a folder and has not reported yet.
    pub fn new(folder: &Path, uuid: &str) -> Self {
        Self { process: sleeper(), uuid: uuid.to_owned(), folder: folder.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A hook's input: the common fields, and those of the event.
    pub fn json(&self, event: &str, more: &Value) -> Value {
        let mut input = json!({
            "session_id": self.uuid,
            "transcript_path": format!("/home/me/.claude/projects/x/{}.jsonl", self.uuid),
            "cwd": self.folder,
            "permission_mode": "default",
            "hook_event_name": event,
        });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    }

    /// Runs a hook, which must not fail; returns its output.
    pub fn hook(&self, host: &Host, event: &str, more: Value) -> String {
        let output = self.run(host, &["hook", event], self.json(event, &more).to_string().as_bytes());
        assert!(output.status.success(), "{event}: {output:?}");
        assert!(output.stderr.is_empty(), "{event}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the hook of a start; returns its output.
    pub fn start(&self, host: &Host, source: &str) -> String {
        let printed = self.hook(host, "SessionStart", json!({"source": source, "model": "m"}));
        let answer: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}"));
        assert_eq!(answer["hookSpecificOutput"]["hookEventName"], "SessionStart");
        answer["hookSpecificOutput"]["additionalContext"].as_str().unwrap().to_owned()
    }

    /// Draws the status line.
    pub fn statusline(&self, host: &Host, used: Value) -> String {
        let input = json!({
            "session_id": self.uuid,
            "transcript_path": format!("/home/me/.claude/projects/x/{}.jsonl", self.uuid),
            "cwd": self.folder.join("src"),
            "model": {"id": "m", "display_name": "M"},
            "workspace": {"current_dir": self.folder.join("src"), "project_dir": self.folder, "added_dirs": []},
            "version": "2.1.0",
            "cost": {"total_cost_usd": 0.1, "total_duration_ms": 45000},
            "context_window": {"total_input_tokens": 15234, "context_window_size": 200_000, "used_percentage": used},
        });
        let output = self.run(host, &["statusline"], input.to_string().as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs what Claude Code runs, with any input.
    pub fn run(&self, host: &Host, words: &[&str], input: &[u8]) -> Output {
        let mut command = host.sessiond();
        command.args(words).env("CLAUDE_PID", self.pid().to_string());
        feed(command, input)
    }

    /// `/clear`: the process continues with another session id.
    pub fn clear(&mut self, host: &Host, uuid: &str) -> String {
        self.hook(host, "SessionEnd", json!({"reason": "clear"}));
        self.uuid = uuid.to_owned();
        self.start(host, "clear")
    }

    /// The same session in a new process.
    pub fn again(&self, uuid: &str) -> Self {
        Self::new(&self.folder, uuid)
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn quit(mut self, host: &Host) {
        self.hook(host, "SessionEnd", json!({"reason": "prompt_input_exit"}));
        self.kill();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command with this on its stdin, and sees that it takes no longer than it may.
pub fn feed(mut command: Command, input: &[u8]) -> Output {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).expect("whoever writes is not cut off");
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < AT_MOST, "it took {:?}", began.elapsed());
    output
}

/// A folder with a git repository in it.
pub fn repository(host: &Host, name: &str) -> PathBuf {
    let folder = host.dir().join("work").join(name);
    fs::create_dir_all(folder.join(".git")).unwrap();
    fs::create_dir_all(folder.join("src")).unwrap();
    folder
}

/// The id of the session that the hook's output names, once the daemon has the session: if the daemon did not answer in
/// time, the session is imported later.
pub fn resolved(host: &Host, told: &str) -> String {
    if host.connect().is_none() {
        return told.to_owned();
    }
    eventually(&format!("{told} is known"), Duration::from_secs(20), || {
        let (status, session) = host.ask("GET", &format!("/v1/sessions/{told}"), None);
        (status == 200).then(|| session["instance_id"].as_str().unwrap().to_owned())
    })
}

/// The id in the output of the start hook.
pub fn id_in(text: &str) -> String {
    text.split_whitespace()
        .find(|word| word.contains("-PS-") || word.contains("-MS-"))
        .unwrap_or_else(|| panic!("no id in {text}"))
        .to_owned()
}
