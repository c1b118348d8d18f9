//! The recorded JSON of real agents, replayed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::agent::{Agent, feed};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The variables of the first hook that `environment.txt` has.
fn variables(folder: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(folder.join("environment.txt")).unwrap();
    let first = text.lines().skip(1).take_while(|line| !line.starts_with('#'));
    let pairs = first.filter_map(|line| line.split_once('=')).filter(|(name, _)| *name != "PWD");
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    found.sort();
    found
}

fn sessions(host: &Host) -> Vec<Value> {
    host.ask("GET", "/v1/sessions", None).1["instances"].as_array().unwrap().clone()
}

#[test]
fn reports_of_other_agents_are_not_claude_codes() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(host.dir(), "u-1");
    let folders = ["codex/0.169.0", "gemini-cli/0.61.0", "copilot/1.0.102", "copilot/1.0.102/pascal-case"];
    let mut inputs = Vec::new();
    for folder in folders.iter().chain(&["opencode/1.18.33"]).map(|folder| data().join(folder)) {
        let variables = variables(&folder);
        inputs.extend(files(&folder).iter().flat_map(|path| lines(path)).map(|line| (line, variables.clone())));
    }
    assert!(inputs.len() > 50, "{}", inputs.len());
    for (input, variables) in &inputs {
        for words in [&["hook", "SessionStart"][..], &["statusline"]] {
            let mut command = host.sessiond();
            command.args(words).envs(variables.iter().cloned()).env("CLAUDE_PID", agent.pid().to_string());
            let output = feed(command, input.to_string().as_bytes());
            assert!(output.status.success() && output.stdout.is_empty(), "{input}: {output:?}");
        }
    }
    assert_eq!(sessions(&host), Vec::<Value>::new());
    let cursor = json!({"session_id": "c", "conversation_id": "c", "cursor_version": "2026.11.20", "cwd": "/w",
        "hook_event_name": "SessionStart", "source": "startup"});
    for words in [&["hook", "SessionStart"][..], &["statusline"]] {
        let mut command = host.sessiond();
        command.args(words).env("CURSOR_VERSION", "2026.11.20").env("CLAUDE_PID", agent.pid().to_string());
        let output = feed(command, cursor.to_string().as_bytes());
        assert!(output.status.success() && (words.len() == 2 || output.stdout.is_empty()), "{output:?}");
    }
    eventually("Cursor's session is known", SOON, || {
        let known = sessions(&host);
        (known.len() == 1 && known[0]["agent"] == "cursor" && known[0]["agent_session_id"] == "c").then_some(())
    });
}

/// A Claude Code of a version, whose processes are stood in for.
struct Replay {
    host: Host,
    folder: PathBuf,
    variables: Vec<(&'static str, &'static str)>,
}

impl Replay {
    fn new(version: &str, entrypoint: &'static str) -> Self {
        let host = Host::new("odin3").started();
        let variables = vec![("CLAUDE_CODE_ENTRYPOINT", entrypoint)];
        Self { host, folder: data().join("claude-code").join(version), variables }
    }

    /// Runs the recorded hook of a conversation, whose id begins so, with this field.
    fn hook(&self, process: &Agent, event: &str, conversation: &str, (field, value): (&str, &str)) {
        let found = lines(&self.folder.join(format!("{event}.jsonl"))).into_iter().find(|line| {
            line["session_id"].as_str().unwrap().starts_with(conversation)
                && (field.is_empty() || line[field].as_str() == Some(value))
        });
        let input = found.unwrap_or_else(|| panic!("{event} of {conversation} with {field} {value} is not recorded"));
        self.run(process, &["hook", event], &input);
    }

    fn run(&self, process: &Agent, words: &[&str], input: &Value) {
        let mut command = self.host.sessiond();
        command.args(words).envs(self.variables.iter().copied()).env("CLAUDE_PID", process.pid().to_string());
        let output = feed(command, input.to_string().as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }

    /// Conversation (the beginning of its id), status and context of each session.
    fn sessions(&self) -> Vec<(String, String, i64)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |s: &Value| {
            let conversation = text(&s["claude_session_uuid"]).chars().take(5).collect();
            (conversation, text(&s["status"]), s["context_percent"].as_i64().unwrap())
        };
        let mut rows: Vec<_> = sessions(&self.host).iter().map(row).collect();
        rows.sort();
        rows
    }

    fn expect(&self, expected: &[(&str, &str, i64)]) {
        let expected: Vec<_> =
            expected.iter().map(|(id, status, context)| (id.to_string(), status.to_string(), *context)).collect();
        let mut last = Vec::new();
        let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the sessions are as expected", SOON, || {
                last = self.sessions();
                (last == expected).then_some(())
            });
        }));
        assert!(reached.is_ok(), "{last:?}, not {expected:?}");
    }
}

#[test]
fn claude_code_2_1_332_yields_the_expected_sessions() {
    let replay = Replay::new("2.1.332", "cli");
    let home = replay.host.dir().to_owned();
    let mut first = Agent::new(&home, "");
    replay.hook(&first, "SessionStart", "b6e48", ("source", "startup"));
    replay.hook(&first, "UserPromptSubmit", "b6e48", ("", ""));
    let drawn: Vec<_> = lines(&replay.folder.join("statusline.jsonl"));
    let with = |conversation: &str, used: i64| {
        let found = drawn.iter().find(|line| {
            line["session_id"].as_str().unwrap().starts_with(conversation)
                && line["context_window"]["used_percentage"] == used
        });
        found.unwrap_or_else(|| panic!("{conversation} at {used} is not recorded")).clone()
    };
    replay.run(&first, &["statusline"], &with("b6e48", 40));
    replay.hook(&first, "Stop", "b6e48", ("", ""));
    replay.hook(&first, "PreCompact", "b6e48", ("", ""));
    replay.hook(&first, "SessionStart", "b6e48", ("source", "compact"));
    replay.hook(&first, "PostCompact", "b6e48", ("", ""));
    replay.expect(&[("b6e48", "active", 40)]);

    // /clear, another prompt, /resume to the conversation before, /branch from that.
    replay.hook(&first, "SessionEnd", "b6e48", ("reason", "clear"));
    replay.hook(&first, "SessionStart", "3484a", ("source", "clear"));
    replay.expect(&[("3484a", "active", 0)]);
    replay.run(&first, &["statusline"], &with("3484a", 70));
    replay.hook(&first, "SessionEnd", "3484a", ("reason", "resume"));
    replay.hook(&first, "SessionStart", "b6e48", ("source", "resume"));
    replay.expect(&[("b6e48", "active", 70)]);
    replay.hook(&first, "SessionStart", "dbbab", ("source", "fork"));
    replay.run(&first, &["statusline"], &with("dbbab", 12));
    replay.expect(&[("b6e48", "stale", 70), ("dbbab", "active", 12)]);

    // The terminal is closed, and the conversation resumed in another process and quit there.
    first.kill();
    replay.expect(&[("b6e48", "stale", 70), ("dbbab", "stale", 12)]);
    let second = Agent::new(&home, "");
    replay.hook(&second, "SessionStart", "b6e48", ("source", "resume"));
    replay.hook(&second, "SessionEnd", "b6e48", ("reason", "prompt_input_exit"));
    replay.expect(&[("b6e48", "closed", 70), ("dbbab", "stale", 12)]);
    // `--resume` of a conversation that does not exist.
    replay.hook(&Agent::new(&home, ""), "SessionEnd", "62ebe", ("reason", "other"));
    replay.expect(&[("b6e48", "closed", 70), ("dbbab", "stale", 12)]);
}

#[test]
fn headless_session_of_claude_code_2_0_76_closes() {
    let replay = Replay::new("2.0.76", "sdk-cli");
    let process = Agent::new(replay.host.dir(), "");
    for event in ["SessionStart", "UserPromptSubmit", "Stop", "SessionEnd"] {
        replay.hook(&process, event, "07d31", ("", ""));
    }
    replay.expect(&[("07d31", "closed", 0)]);
}

#[test]
fn context_of_claude_code_2_0_76_is_computed() {
    let replay = Replay::new("2.0.76", "cli");
    let process = Agent::new(replay.host.dir(), "");
    for line in &lines(&replay.folder.join("statusline.jsonl")) {
        replay.run(&process, &["statusline"], line);
    }
    replay.expect(&[("a2558", "active", 30)]);
}

#[test]
fn files_under_a_throw_away_id_create_no_sessions() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(host.dir(), "");
    let folder = host.dir().join(".claude/sessions");
    fs::create_dir_all(&folder).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap_or_default();
    let Some(started) = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)) else {
        return skip("files_under_a_throw_away_id_create_no_sessions", "/proc");
    };
    // An agent that stays shows that the files before were read.
    let marker = Agent::new(host.dir(), "");
    let recorded = lines(&data().join("claude-code/2.1.332/sessions-PID.of-continue.jsonl"));
    for (index, line) in recorded.iter().filter(|line| line["file"].is_object()).enumerate() {
        let mut file = line["file"].clone();
        (file["pid"], file["procStart"]) = (agent.pid().into(), started.into());
        fs::write(folder.join(format!("{}.json", agent.pid())), file.to_string()).unwrap();
        let other = json!({"pid": marker.pid(), "sessionId": format!("marker-{index}"), "cwd": "/w", "status": "idle"});
        fs::write(folder.join(format!("{}.json", marker.pid())), other.to_string()).unwrap();
        let has = |uuid: &str| sessions(&host).iter().any(|session| session["claude_session_uuid"] == uuid);
        eventually("the marker is found", SOON, || has(&format!("marker-{index}")).then_some(()));
        assert!(!has(recorded[0]["file"]["sessionId"].as_str().unwrap()));
    }
    eventually("the conversation is found", SOON, || {
        let found = sessions(&host);
        (found.len() == 2
            && found.iter().any(|session| session["claude_session_uuid"].as_str().unwrap().starts_with("b6e48")))
        .then_some(())
    });
}
