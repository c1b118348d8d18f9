//! Agents beside Claude Code: a day of each, by its recorded JSON.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::program::{copy_program, write_script};
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);

/// An agent whose process runs hooks: a script has the name of its file as the name of its process.
struct Running {
    process: Child,
    events: ChildStdin,
    ends: BufReader<ChildStdout>,
    folder: PathBuf,
    runs: usize,
}

impl Running {
    fn start(host: &Host, program: &str, words: &str) -> Self {
        let folder = host.dir().join(format!("{program}-{words}").replace(' ', "_"));
        fs::create_dir_all(&folder).unwrap();
        let script = folder.join(program);
        let own = host.sessiond();
        let sessiond = own.get_program().to_str().unwrap();
        let run = format!("'{sessiond}' {words} $event <\"$file\" >\"$file.out\" 2>\"$file.err\"");
        write_script(&script, &format!("#!/bin/sh\nwhile read -r file event; do\n{run}\necho $?\ndone\n"));
        let mut command = Command::new(&script);
        command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", "/usr/bin:/bin");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (events, ends) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, events, ends, folder, runs: 0 }
    }

    /// Runs a hook, which must not fail; returns what it prints.
    fn hook(&mut self, event: &str, input: &str) -> String {
        self.runs += 1;
        let file = self.folder.join(format!("{}.json", self.runs));
        fs::write(&file, input).unwrap();
        writeln!(self.events, "{} {event}", file.display()).unwrap();
        let mut code = String::new();
        self.ends.read_line(&mut code).unwrap();
        let printed = |ending: &str| fs::read_to_string(format!("{}{ending}", file.display())).unwrap();
        assert_eq!((code.trim(), printed(".err").as_str()), ("0", ""), "{event} {input}");
        printed(".out")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A recorded line, as one of the conversation `id`.
fn recorded(path: &str, line: usize, id: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents").join(path);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let line = text.lines().nth(line).unwrap();
    let json: Value = serde_json::from_str(line).unwrap();
    let places = ["/session_id", "/sessionId", "/input/sessionID", "/event/properties/sessionID"];
    let known = places.into_iter().find_map(|place| json.pointer(place)).unwrap().as_str().unwrap();
    line.replace(known, id)
}

/// The sessions of a conversation: status and activity, the oldest first.
fn states(host: &Host, id: &str) -> Vec<String> {
    let list = host.ask("GET", "/v1/sessions", None).1;
    let mut found: Vec<_> =
        list["instances"].as_array().unwrap().iter().filter(|s| s["agent_session_id"] == id).collect();
    found.sort_by_key(|session| session["created_at"].to_string());
    let names = ["status", "activity", "waiting_for", "activity_detail"];
    let state = |s: &Value| names.into_iter().filter_map(|name| s[name].as_str()).collect::<Vec<_>>().join(" ");
    found.into_iter().map(state).collect()
}

fn session(host: &Host, id: &str) -> Value {
    let list = host.ask("GET", "/v1/sessions", None).1;
    list["instances"].as_array().unwrap().iter().find(|s| s["agent_session_id"] == id).unwrap().clone()
}

fn expect(host: &Host, id: &str, expected: &[&str], after: &str) {
    let mut last = Vec::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the sessions are as expected", SOON, || {
            last = states(host, id);
            (last == expected).then_some(())
        });
    }));
    assert!(reached.is_ok(), "after {after}: {last:?}, not {expected:?}");
}

/// A step of a day: the event on the command line, the recorded file and line, and the state afterwards.
type Step = (&'static str, &'static str, usize, &'static str);

/// Replays a day; the end of the last step is a resume, which begins a successor of the closed session.
fn replay(host: &Host, agent: &mut Running, folder: &str, id: &str, steps: &[Step]) {
    for (event, file, line, expected) in steps {
        agent.hook(event, &recorded(&format!("{folder}/{file}.jsonl"), *line, id));
        expect(host, id, &[expected], &format!("{folder} {file} {line}"));
    }
}

#[test]
fn day_of_codex() {
    let host = Host::new("odin3").started();
    let mut codex = Running::start(&host, "codex", "hook --agent codex");
    let (folder, id) = ("codex/0.169.0", "01a2139c-day");
    let printed = codex.hook("", &recorded(&format!("{folder}/SessionStart.jsonl"), 0, id));
    let context: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(context["hookSpecificOutput"]["hookEventName"], "SessionStart");
    replay(
        &host,
        &mut codex,
        folder,
        id,
        &[
            ("UserPromptSubmit", "UserPromptSubmit", 0, "active working"),
            ("", "PreToolUse", 0, "active working"),
            ("PermissionRequest", "PreToolUse", 0, "active waiting permission Bash"),
            ("", "PostToolUse", 0, "active working"),
            ("", "PreCompact", 0, "active working"),
            ("", "PostCompact", 0, "active idle"),
            ("", "UserPromptSubmit", 1, "active working"),
            ("", "Interrupt", 0, "active idle"),
            ("OfALaterVersion", "Stop", 0, "active idle"),
            ("", "UserPromptSubmit", 0, "active working"),
            ("", "Stop", 0, "active idle"),
            ("", "SessionEnd", 0, "closed"),
            ("", "SessionEnd", 0, "closed"),
        ],
    );
    let closed = session(&host, id);
    assert_eq!((&closed["agent"], &closed["model"]), (&json!("codex"), &json!("gpt-5")), "{closed}");
    assert_eq!((&closed["title"], &closed["project"]), (&json!("RUNTOOL please"), &json!("app")));
    let work = host.ok(&["show", closed["instance_id"].as_str().unwrap()]);
    assert!(work.contains("The tool has run. All done.") && work.contains("codex"), "{work}");
    let command = host.ok(&["context", closed["instance_id"].as_str().unwrap()]);
    assert!(command.contains("cd /home/dev/src/app && codex resume 01a2139c-day"), "{command}");
    let resumed = recorded(&format!("{folder}/SessionStart.jsonl"), 0, id).replace("startup", "resume");
    let printed = codex.hook("SessionStart", &resumed);
    assert!(printed.contains("Handoff of"), "{printed}");
    expect(&host, id, &["closed", "active idle"], "resume");
}

#[test]
fn sessions_of_the_shared_app_server_of_codex_are_not_matched_by_process() {
    let host = Host::new("odin3").started();
    // The server's command line says what it is.
    let mut server = Running::start(&host, "codex", "hook --agent codex");
    let folder = host.dir().join("server");
    fs::create_dir_all(&folder).unwrap();
    copy_program(&server.folder.join("codex"), &folder.join("codex"));
    let mut command = Command::new(folder.join("codex"));
    let own = host.sessiond();
    command.arg("app-server").env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", "/usr/bin:/bin");
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    server.events = process.stdin.take().unwrap();
    server.ends = BufReader::new(process.stdout.take().unwrap());
    drop(std::mem::replace(&mut server.process, process).kill());
    for id in ["one", "two"] {
        server.hook("", &recorded("codex/0.169.0/SessionStart.jsonl", 0, id));
        expect(&host, id, &["active idle"], "start");
    }
    // Nothing names the conversation before; the newest in the folder is meant.
    server.hook("", &recorded("codex/0.169.0/SessionStart.jsonl", 2, "three"));
    expect(&host, "three", &["active idle"], "clear");
    assert_eq!(states(&host, "two"), Vec::<String>::new(), "the clear kept the instance id");
}

#[test]
fn day_of_gemini() {
    let host = Host::new("odin3").started();
    let mut gemini = Running::start(&host, "node", "hook --agent gemini");
    let (folder, id) = ("gemini-cli/0.61.0", "day");
    let start = gemini.hook("", &recorded(&format!("{folder}/SessionStart.jsonl"), 0, id));
    assert!(start.contains("\"hookSpecificOutput\""), "{start}");
    replay(
        &host,
        &mut gemini,
        folder,
        id,
        &[
            ("", "BeforeAgent", 0, "active working"),
            ("", "PreCompress", 0, "active working"),
            ("", "BeforeTool", 0, "active working"),
            ("", "Notification", 0, "active waiting permission exec"),
            ("", "AfterTool", 0, "active working"),
            ("", "AfterAgent", 0, "active idle"),
            ("", "PreCompress", 1, "active idle"),
            ("", "SessionEnd", 0, "closed"),
            ("", "SessionEnd", 0, "closed"),
        ],
    );
    assert_eq!(gemini.hook("Notification", "not JSON").trim(), "{}", "its stdout is JSON");
    let checkpoints = host.ok(&["checkpoints", session(&host, id)["instance_id"].as_str().unwrap(), "--json"]);
    assert!(checkpoints.contains("manual") && !checkpoints.contains("auto"), "{checkpoints}");
    // /clear: the id changes, the session stays.
    gemini.hook("", &recorded(&format!("{folder}/SessionStart.jsonl"), 0, "before"));
    gemini.hook("", &recorded(&format!("{folder}/SessionEnd.jsonl"), 1, "before"));
    gemini.hook("", &recorded(&format!("{folder}/SessionStart.jsonl"), 1, "cleared"));
    expect(&host, "cleared", &["active idle"], "clear");
    assert_eq!(states(&host, "before"), Vec::<String>::new());
}

#[test]
fn day_of_copilot_in_both_spellings() {
    let host = Host::new("odin3").started();
    let mut copilot = Running::start(&host, "MainThread", "hook --agent copilot");
    let start = copilot.hook("sessionStart", &recorded("copilot/1.0.102/sessionStart.jsonl", 0, "day"));
    assert!(start.starts_with("{\"additionalContext\":"), "{start}");
    replay(
        &host,
        &mut copilot,
        "copilot/1.0.102",
        "day",
        &[
            ("userPromptSubmitted", "userPromptSubmitted", 0, "active working"),
            ("preToolUse", "preToolUse", 0, "active working"),
            ("permissionRequest", "permissionRequest", 0, "active waiting permission bash"),
            ("notification", "notification", 0, "active waiting permission bash"),
            ("postToolUse", "postToolUse", 0, "active working"),
            ("errorOccurred", "errorOccurred", 0, "active failed model_call"),
            ("userPromptSubmitted", "userPromptSubmitted", 0, "active working"),
            ("agentStop", "agentStop", 0, "active idle"),
            ("sessionEnd", "sessionEnd", 2, "stale"),
            ("sessionStart", "sessionStart", 1, "active idle"),
            ("sessionEnd", "sessionEnd", 1, "closed"),
        ],
    );
    let error = host.ok(&["show", session(&host, "day")["instance_id"].as_str().unwrap()]);
    assert!(error.contains("model_call: fake error"), "{error}");
    let mut copilot = Running::start(&host, "MainThread", "hook --agent copilot ");
    replay(
        &host,
        &mut copilot,
        "copilot/1.0.102/pascal-case",
        "pascal",
        &[
            ("", "SessionStart", 0, "active idle"),
            ("", "UserPromptSubmit", 0, "active working"),
            ("", "PreToolUse", 0, "active working"),
            ("", "PermissionRequest", 0, "active waiting permission bash"),
            ("", "Notification", 0, "active waiting permission bash"),
            ("", "PostToolUse", 0, "active working"),
            ("", "ErrorOccurred", 0, "active failed model_call"),
            ("", "Stop", 0, "active idle"),
            ("", "SessionEnd", 0, "closed"),
        ],
    );
}

#[test]
fn day_of_opencode() {
    let host = Host::new("odin3").started();
    let mut opencode = Running::start(&host, "opencode", "hook --agent opencode");
    let (folder, id) = ("opencode/1.18.33", "ses_day");
    let start = opencode.hook("", &recorded(&format!("{folder}/event.session.created.jsonl"), 0, id));
    assert!(start.starts_with("{\"additionalContext\":"), "{start}");
    replay(
        &host,
        &mut opencode,
        folder,
        id,
        &[
            ("", "event.session.updated", 0, "active idle"),
            ("", "chat.message", 1, "active working"),
            ("", "event.session.status", 0, "active working"),
            ("", "tool.execute.before", 0, "active working"),
            ("", "event.permission.asked", 0, "active waiting permission bash"),
            ("", "event.permission.replied", 0, "active working"),
            ("", "tool.execute.after", 0, "active working"),
            ("", "event.session.status", 1, "active idle"),
            ("", "event.session.idle", 0, "active idle"),
            ("", "experimental.session.compacting", 0, "active working"),
            ("", "event.session.error", 0, "active idle"),
            ("", "event.session.diff", 0, "active idle"),
        ],
    );
    let known = session(&host, id);
    assert_eq!((&known["title"], &known["agent_version"]), (&json!("TOUCHFILE please"), &json!("1.18.33")), "{known}");
    // A second session of the same process is another session, and both end with it.
    opencode.hook("", &recorded(&format!("{folder}/event.session.created.jsonl"), 0, "ses_other"));
    let failed = json!({"hook_event_name": "event.session.error", "event": {"properties": {"sessionID": "ses_other",
        "error": {"name": "APIError", "data": {"message": "Rate limited", "statusCode": 429}}}}});
    opencode.hook("", &failed.to_string());
    expect(&host, "ses_other", &["active failed rate_limit"], "error");
    expect(&host, id, &["active idle"], "the other's error");
    drop(opencode);
    expect(&host, id, &["stale"], "the end of the process");
    expect(&host, "ses_other", &["stale"], "the end of the process");
    // The plugin says that an earlier session goes on.
    let mut opencode = Running::start(&host, "opencode", "hook --agent opencode ");
    let resumed = json!({"hook_event_name": "session.resumed", "event": {"properties": {"sessionID": id}}});
    let printed = opencode.hook("", &resumed.to_string());
    assert!(printed.contains("Handoff of"), "{printed}");
    expect(&host, id, &["active idle"], "resume");
}

#[test]
fn plugin_reports_the_sessions_of_opencode() {
    let host = Host::new("odin3").started();
    if !Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("plugin_reports_the_sessions_of_opencode", "node");
    }
    host.ok(&["install", "--agent", "opencode"]);
    let mut node = Command::new("node");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/agents/opencode_plugin.mjs");
    node.arg(script).arg(host.dir().join(".config/opencode/plugin/sessiond.js")).env_clear();
    let own = host.sessiond();
    node.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    node.env("PATH", std::env::var_os("PATH").unwrap());
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut printed).unwrap();
    assert!(printed.starts_with("sessiond keeps the record of this session"), "{printed}");
    expect(&host, "ses_1", &["active failed overloaded"], "the idle state behind an error");
    drop(node.stdin.take());
    assert!(node.wait().unwrap().success(), "no fault of the plugin fails opencode");
    expect(&host, "ses_1", &["stale"], "the end of node");
    let known = session(&host, "ses_1");
    assert_eq!((&known["title"], &known["agent_version"]), (&json!("Fix the login"), &json!("1.18")), "{known}");
    assert_eq!(states(&host, "ses_2"), Vec::<String>::new(), "a sub-agent's session is its parent's");
}

/// By Cursor's documentation; it was not recorded.
#[test]
fn cursor_is_reported_also_by_the_hooks_of_claude_code() {
    let host = Host::new("odin3").started();
    let mut cursor = Running::start(&host, "cursor-agent", "hook");
    let common = |event: &str, more: Value| {
        let mut input = json!({"conversation_id": "day", "generation_id": "g", "session_id": "day", "cursor_version":
            "2.1", "hook_event_name": event, "workspace_roots": ["/home/dev/src/app"], "transcript_path": null});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input.to_string()
    };
    let start = cursor.hook("SessionStart", &common("SessionStart", json!({})));
    assert!(start.contains("\"additional_context\""), "{start}");
    expect(&host, "day", &["active idle"], "start");
    cursor.hook("UserPromptSubmit", &common("UserPromptSubmit", json!({"prompt": "Fix it"})));
    expect(&host, "day", &["active working"], "prompt");
    drop(cursor);
    let mut cursor = Running::start(&host, "cursor-agent", "hook --agent cursor");
    for (event, more, expected) in [
        ("sessionStart", json!({}), "active idle"),
        ("beforeSubmitPrompt", json!({"prompt": "Fix it"}), "active working"),
        ("afterFileEdit", json!({"file_path": "/home/dev/src/app/a.rs", "edits": []}), "active working"),
        ("stop", json!({"status": "error", "error_message": "529 overloaded"}), "active failed 529 overloaded"),
        ("stop", json!({"status": "completed"}), "active idle"),
        ("of a later version", json!({}), "active idle"),
        ("sessionEnd", json!({"reason": "user_close"}), "closed"),
    ] {
        assert!(!cursor.hook(event, &common(event, more)).is_empty(), "Cursor reads JSON");
        expect(&host, "day", &[expected], event);
    }
    let known = session(&host, "day");
    assert_eq!((&known["agent"], &known["agent_version"]), (&json!("cursor"), &json!("2.1")));
    assert!(host.ok(&["show", known["instance_id"].as_str().unwrap()]).contains("/home/dev/src/app/a.rs"));
}

#[test]
fn no_input_fails_an_agent() {
    let host = Host::new("odin3").started();
    for words in
        ["hook --agent", "hook --agent none-such", "hook --agent gemini", "hook --agent codex", "hook --agent --x"]
    {
        let mut agent = Running::start(&host, "agent", words);
        for input in
            ["", "{", "[]", "\u{0}", "{\"session_id\": 7, \"event\": \"x\"}", "{\"session_id\": \"s\", \"new\": {}}"]
        {
            for event in ["", "SessionStart", "Of Tomorrow", "--help"] {
                agent.hook(event, input);
            }
        }
    }
}
