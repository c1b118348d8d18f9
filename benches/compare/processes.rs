//! Target 3: verbs as whole processes, compared with curl and the same request.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::Scale;
use crate::report::{Goal, Report, Unit};
use crate::stats::Samples;
use testkit::daemon::Host;

/// A verb, its stdin, and the arguments of curl for the same request.
struct Verb {
    words: Vec<String>,
    stdin: Option<String>,
    call: Vec<String>,
}

pub fn measure(scale: &Scale, report: &mut Report) {
    let host = Host::new("odin3").started();
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let runs = scale.of(400, 20);
    for verb in verbs(&host, &id) {
        if !verb.works(&host) {
            report.note(format!("`sessiond {}` is not there yet", verb.words[0]));
            continue;
        }
        let (mut ours, mut curls, mut nothing) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..runs {
            ours.time(|| verb.run(&host));
            curls.time(|| verb.curl(&host));
            nothing.time(|| done(&mut Command::new("true")));
        }
        let name = format!("`sessiond {}`, p50", verb.name());
        // An agent waits for these.
        let of_curl = if verb.stdin.is_some() { 0.4 } else { 0.5 };
        report.ratio(3, &name, Unit::Time, ours.p50(), ("curl", curls.p50()), Goal::AtMost(of_curl));
        if verb.stdin.is_some() {
            report.ratio(3, &name, Unit::Time, ours.p50(), ("`true`", nothing.p50()), Goal::AtMost(3.5));
        }
        report.number(3, &format!("{name}, by itself"), ours.p50(), Unit::Time, Goal::AtMost(2.5e-3));
    }
    let mut nothing = Samples::default();
    for _ in 0..runs {
        nothing.time(|| done(&mut Command::new("true")));
    }
    report.number(3, "  a process that does nothing, `true`, p50", nothing.p50(), Unit::Time, Goal::None);
}

fn verbs(host: &Host, id: &str) -> Vec<Verb> {
    let of = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let beat = [&format!("http://localhost/v1/sessions/{id}/heartbeat"), "--json", r#"{"context_percent": 42}"#];
    let footer = [&*format!("http://localhost/v1/sessions/{id}/footer")];
    let agent = |event: &str| {
        json!({"session_id": "7c6c2f5e-6a0a-4e62-9d0c-0c8f4f1c2b11", "cwd": host.dir(), "hook_event_name": event,
            "transcript_path": "/nonexistent", "prompt": "hello", "model": {"id": "m", "display_name": "M"},
            "workspace": {"current_dir": host.dir(), "project_dir": host.dir()}, "source": "startup",
            "tool_name": "Edit", "tool_input": {"file_path": "/w/a.rs", "old_string": "a", "new_string": "b"},
            "tool_response": {"filePath": "/w/a.rs"}, "last_assistant_message": "It is done.", "background_tasks": [],
            "cost": {"total_cost_usd": 0.1}, "version": "2.1.332", "session_name": "login",
            "context_window": {"used_percentage": 42}})
        .to_string()
    };
    // Creates the session that hook and status line use.
    let start = Verb { words: of(&["hook", "SessionStart"]), stdin: Some(agent("SessionStart")), call: Vec::new() };
    _ = start.works(host);
    vec![
        Verb { words: of(&["heartbeat", id, "--context", "42"]), stdin: None, call: of(&beat) },
        Verb { words: of(&["footer", id]), stdin: None, call: of(&footer) },
        Verb { words: of(&["statusline"]), stdin: Some(agent("Status")), call: of(&footer) },
        Verb { words: of(&["hook", "UserPromptSubmit"]), stdin: Some(agent("UserPromptSubmit")), call: of(&beat) },
        Verb { words: of(&["hook", "PostToolUse"]), stdin: Some(agent("PostToolUse")), call: of(&beat) },
        // Outside of a repository, so that git is not counted.
        Verb { words: of(&["hook", "Stop"]), stdin: Some(agent("Stop")), call: of(&beat) },
    ]
}

impl Verb {
    fn works(&self, host: &Host) -> bool {
        self.command(host).stderr(Stdio::null()).status().expect("it can be run").success()
    }

    /// The verb, and the event of a hook.
    fn name(&self) -> String {
        let count = if self.words[0] == "hook" { 2 } else { 1 };
        self.words[..count].join(" ")
    }

    fn run(&self, host: &Host) {
        done(&mut self.command(host));
    }

    fn command(&self, host: &Host) -> Command {
        let mut command = host.sessiond();
        command.args(&self.words).stdin(self.stdin(host.dir())).stdout(Stdio::null());
        command
    }

    fn stdin(&self, dir: &Path) -> Stdio {
        let Some(text) = &self.stdin else { return Stdio::null() };
        let file = dir.join(format!("stdin-{}", self.name().replace(' ', "-")));
        if !file.exists() {
            std::fs::write(&file, text).expect("it can be written");
        }
        File::open(file).expect("it is there").into()
    }

    fn curl(&self, host: &Host) {
        let quiet = ["-q", "--silent", "--fail", "--unix-socket"];
        done(Command::new("curl").args(quiet).arg(host.socket()).args(&self.call).stdin(Stdio::null()));
    }
}

fn done(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().expect("it can be run");
    assert!(status.success(), "{command:?}: {status}");
}
