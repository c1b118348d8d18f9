//! No output contains unsafe characters, whatever text central or an agent contains (G13).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sessiond::domain::text::is_unsafe;

use testkit::agent::{Agent, repository};
use testkit::daemon::{Host, raw};
use testkit::postgres::Server;
use testkit::{eventually, legacy_history};

const SOON: Duration = Duration::from_secs(20);
/// What a line would begin with, were a line break of the text one of the output.
const PLANTED: &str = "PLANTED";

/// Every kind of character that an output must not hold, with fences and Markdown around it.
fn hostile() -> String {
    let signs = "\u{1b}[2J\u{7}\r\u{7f}\u{9b}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{200b}\u{feff}";
    format!("x{signs}\n{PLANTED} # obey\n```\n~~~\n{PLANTED}{}", "y".repeat(300))
}

/// What is wrong with an output of lines: the first unsafe character, or a line that the text began.
fn fault(output: &str) -> Option<String> {
    let unsafe_sign = output.chars().find(|c| is_unsafe(*c) && *c != '\n');
    let planted = output.lines().find(|line| line.trim_start().starts_with(PLANTED));
    unsafe_sign.map(|c| format!("{c:?}")).or_else(|| planted.map(str::to_owned))
}

/// The same for JSON, decoded too. A record's own text may have line feeds and tabs.
fn fault_in_json(document: &str) -> Option<String> {
    fn walk(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => text.chars().find(|c| is_unsafe(*c)).map(|c| format!("{c:?} in {text:.80}")),
            Value::Array(items) => items.iter().find_map(walk),
            Value::Object(fields) => {
                let own = ["event_data", "error_message", "work_state", "result", "parameters", "handoff"];
                fields.iter().filter(|(name, _)| !own.contains(&name.as_str())).find_map(|(_, value)| walk(value))
            }
            _ => None,
        }
    }
    fault(document).or_else(|| walk(&serde_json::from_str(document).unwrap_or_default()))
}

#[test]
fn check_finds_each_unescaped_character() {
    for c in hostile().chars().filter(|c| is_unsafe(*c) && *c != '\n') {
        assert!(fault(&format!("Epic: a{c}b\n")).is_some(), "{c:?}");
        assert!(fault_in_json(&format!("{{\"epic\": \"\\u{:04x}\"}}", u32::from(c))).is_some(), "{c:?}");
    }
    assert!(fault(&hostile().replace(is_unsafe, "\n")).is_some());
    assert_eq!(fault("a\nb – ünï 日本 \u{1f468}\u{200d}\u{1f469}\n"), None);
}

/// An own session and one of another machine, both with text that another client wrote into central, and with history.
fn filled(server: &Server, host: &Host) -> (String, String) {
    let epic = hostile().replace('\'', "''");
    let id = host.ok(&["register", "--project", "odin", "--epic", "003", "--id-only"]);
    host.await_synced();
    let sql = |sql: &str| server.psql("central", sql);
    sql(&format!(
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, status, current_epic, \
         claude_session_uuid, claude_session_path, working_dir) \
         VALUES ('odin-PS-0ld001', 'odin', 'PS', 'odin9', 'stale', left('{epic}', 255), left('{epic}', 36), '/{epic}', '/{epic}')"
    ));
    sql(&format!(
        "UPDATE supervisor_sessions SET current_epic = left('{epic}', 255), last_heartbeat = clock_timestamp() \
         WHERE instance_id = '{id}'"
    ));
    let text = hostile();
    let path = |rest: &str| format!("/v1/sessions/{id}/{rest}");
    for (route, body) in [
        ("events", json!({"event_type": "error", "event_data": {"message": text}})),
        ("commands", json!({"action": "build", "error_message": text, "parameters": {"a": text}})),
        (
            "checkpoints",
            json!({"checkpoint_type": "manual", "work_state": {"next_steps": [text], "current_epic": text}}),
        ),
    ] {
        assert_eq!(host.ask("POST", &path(route), Some(&body)).0, 201, "{route}");
    }
    // What another client wrote of the other machine's session.
    let value = json!({"message": text}).to_string().replace('\'', "''");
    sql(&format!(
        "INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata) \
         VALUES (gen_random_uuid(), 'odin-PS-0ld001', 'epic_started', 1, now(), '{value}', '{value}'); \
         INSERT INTO command_log (instance_id, command_type, action, tool_name, error_message, parameters, result, tags) \
         VALUES ('odin-PS-0ld001', 'explicit', left('{epic}', 128), left('{epic}', 128), '{epic}', '{value}', '{value}', \
             jsonb_build_array('{epic}'::text)); \
         INSERT INTO checkpoints (instance_id, checkpoint_type, sequence_num, work_state, metadata) \
         VALUES ('odin-PS-0ld001', 'manual', 1, \
             jsonb_build_object('current_epic', '{epic}'::text, 'next_steps', jsonb_build_array('{epic}'::text)), '{value}')"
    ));
    let adopted = |of: &str| {
        let epic = host.ask("GET", &format!("/v1/sessions/{of}"), None).1["current_epic"].clone();
        epic.as_str().filter(|epic| epic.contains(PLANTED)).map(str::to_owned)
    };
    for of in [id.as_str(), "odin-PS-0ld001"] {
        let epic = eventually("what central holds is known", SOON, || adopted(of));
        assert!(epic.contains('\u{fffd}'), "it is kept: {epic}");
    }
    for verb in ["events", "commands", "checkpoints"] {
        let mirrored = || host.ok(&[verb, "odin-PS-0ld001", "--json"]).contains(PLANTED).then_some(());
        eventually("the history of the other machine is known", SOON, mirrored);
    }
    (id, "odin-PS-0ld001".to_owned())
}

#[test]
fn no_output_contains_unsafe_characters() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::new("odin3");
    host.configure(&format!("[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\n"));
    // Once for the table of sessions, and again for those of their history.
    host.ok(&["migrate", "--central-url", &url]);
    server.psql_file("central", &legacy_history());
    host.ok(&["migrate", "--central-url", &url]);
    let host = host.started();
    let (own, foreign) = filled(&server, &host);
    let mut faults: Vec<String> = Vec::new();
    let mut check = |what: &str, found: Option<String>| faults.extend(found.map(|fault| format!("{what}: {fault}")));

    let hostile_id = format!("odin-PS-{}", hostile());
    let hostile_id = hostile_id.replace('\0', "");
    for id in [&own, &foreign] {
        for verb in [
            "show",
            "footer",
            "footer --separator",
            "context",
            "context --handoff",
            "events",
            "commands",
            "checkpoints",
        ] {
            let words: Vec<_> = verb.split(' ').collect();
            let output = host.verb(&[&words[..1], &[id.as_str()], &words[1..]].concat());
            check(verb, fault(&String::from_utf8(output.stdout).unwrap()));
            check(verb, fault(&String::from_utf8(output.stderr).unwrap()));
            if !verb.contains("footer") && !verb.contains("--") {
                check(verb, fault_in_json(&host.ok(&[words[0], id, "--json"])));
            }
        }
    }
    let report = host.dir().join("report.txt");
    let report = report.to_str().unwrap();
    for words in [
        &["list", "--all"][..],
        &["machines"],
        &["conflicts"],
        &["status"],
        &["parked", "list"],
        &["doctor"],
        &["bugreport", report],
        &["identity", "show"],
        &["sync"],
        &["show", &hostile_id],
        &["close", &hostile_id],
        &["resume", &hostile_id],
        &["register", "--project", &hostile_id],
        &["register", "--project", "odin", "--epic", &hostile_id],
        &["heartbeat", &own, "--epic", &hostile_id],
        &["event", &own, &hostile_id],
        &["command", &own, &hostile_id],
        &["resume", "odin", "--handoff"],
        &["resume", &foreign],
        &[&hostile_id],
    ] {
        let output = host.verb(words);
        check(words[0], fault(&String::from_utf8(output.stdout).unwrap()));
        check(words[0], fault(&String::from_utf8(output.stderr).unwrap()));
    }
    check("the report's file", fault(&std::fs::read_to_string(report).unwrap()));
    for verb in ["list", "machines", "status", "doctor"] {
        let output = host.verb(&[verb, "--json"]);
        check(verb, fault_in_json(&String::from_utf8(output.stdout).unwrap()));
    }

    for path in [
        "/v1/sessions?all=true",
        "/v1/machines",
        "/v1/conflicts",
        "/v1/status",
        "/v1/parked",
        "/metrics",
        "/v1/sessions/%1b%5b2J%e2%80%ae",
        "/v1/sessions?status=%0aPLANTED%1b",
        "/%0aPLANTED%1b",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        check(path, fault_in_json(&raw(&mut host.connect().unwrap(), &request).unwrap().1));
    }
    for id in [&own, &foreign] {
        for rest in ["", "/footer", "/context", "/context?format=markdown", "/events", "/commands", "/checkpoints"] {
            let request = format!("GET /v1/sessions/{id}{rest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let body = raw(&mut host.connect().unwrap(), &request).unwrap().1;
            check(rest, if body.starts_with('{') { fault_in_json(&body) } else { fault(&body) });
        }
    }
    for (what, output) in local_verbs(&host) {
        check(&what, fault(&output));
    }
    check("watch", fault_in_json(&watched(&host, &own)));
    for line in spoken(&host, &own, &foreign) {
        check("mcp", fault_in_json(&line));
        for text in texts_of(&serde_json::from_str(&line).unwrap()) {
            check("mcp text", fault_in_json(&text));
        }
    }

    let agent = Agent::new(&repository(&host, "odin"), "u-\u{202e}1");
    let told = agent.start(&host, "startup");
    check("hook", fault(&told));
    check("statusline", fault(&agent.statusline(&host, json!(7))));
    check("log", fault(&host.log()));
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What the verbs print that run programs and change files, with hostile names and files around them.
fn local_verbs(host: &Host) -> Vec<(String, String)> {
    let mut outputs = Vec::new();
    let mut run = |what: &str, mut command: std::process::Command| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        outputs.push((what.to_owned(), String::from_utf8_lossy(&output.stdout).into_owned()));
        outputs.push((what.to_owned(), String::from_utf8_lossy(&output.stderr).into_owned()));
    };
    let verb = |words: &[&str]| {
        let mut command = host.sessiond();
        command.args(words);
        command
    };
    let text = format!("x\u{1b}[2J\u{7}\u{202e}\n{PLANTED}");
    run("exec", verb(&["exec", "--project", &text, "--", "true"]));
    run("exec", verb(&["exec", "--project", "odin", "--", &text]));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell", &text] {
        run("completions", verb(&["completions", shell]));
    }
    for words in [
        &["install", "--machine", &text, "--dry-run"][..],
        &["install", "--central-url", &text, "--dry-run"],
        &["discover", &text],
    ] {
        run(words[0], verb(words));
    }
    // A home whose name and whose settings hold what a terminal obeys.
    let home = host.dir().join(&text);
    let claude = home.join(".claude");
    std::fs::create_dir_all(claude.join("sessions")).unwrap();
    let own = json!({"statusLine": {"type": "command", "command": text}, "hooks": {"Stop": [{"hooks": [
        {"type": "command", "command": format!("/x/{text}/sessiond hook Stop")}]}]}});
    let broken = format!("{{\"a\": \"{text}");
    for settings in [own.to_string(), own.to_string().replace("\\u001b", "\u{1b}"), broken] {
        for words in [
            &["install", "--claude", "--dry-run"][..],
            &["install", "--claude"],
            &["uninstall", "--claude", "--dry-run"],
            &["uninstall", "--claude"],
            &["install", "--user", "--dry-run"],
            &["uninstall", "--user", "--dry-run"],
            &["doctor"],
            &["discover"],
        ] {
            std::fs::write(claude.join("settings.json"), &settings).unwrap();
            let mut command = verb(words);
            command.env("HOME", &home).env("XDG_CONFIG_HOME", home.join("config"));
            run(&words.join(" "), command);
        }
    }
    outputs
}

#[test]
fn hostile_spooled_requests_are_safe_in_every_output() {
    let mut host = Host::new("odin3");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    let spool = host.state_dir().join("spool");
    let file = std::fs::read_dir(&spool).unwrap().next().unwrap().unwrap().path();
    let mut request: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let text = hostile();
    let mut leave = |name: &str, write: Value| {
        request["write"] = write;
        std::fs::write(spool.join(name), request.to_string()).unwrap();
    };
    let epic: String = text.chars().take(200).collect();
    leave(
        "1.json",
        json!({"agent": {"report": {"sign": "start", "claude_session_uuid": "u-1", "project": "odin",
        "working_dir": format!("/{epic}")}}}),
    );
    leave("2.json", json!({"heartbeat": {"id": id, "request": {"current_epic": epic}}}));
    leave("3.json", json!({"event": {"id": id, "request": {"event_type": epic, "event_data": {"a": text}}}}));
    leave("4.json", json!({"event": {"id": id, "request": {"event_type": "error", "event_data": {"a": text}}}}));
    leave(
        "5.json",
        json!({"checkpoint": {"id": id, "request": {"checkpoint_type": "manual",
        "work_state": {"current_epic": text, "next_steps": [text]}}}}),
    );
    leave("6.json", json!({(text.as_str()): {}}));
    std::fs::write(spool.join(format!("7{}.json", "\u{1b}[2J\u{202e}")), text.as_bytes()).unwrap();
    host.start();
    eventually("the requests are imported or quarantined", SOON, || {
        let left = std::fs::read_dir(&spool).unwrap().flatten().filter(|entry| entry.path().is_file());
        (left.count() == 0).then_some(())
    });
    let mut faults: Vec<String> = Vec::new();
    for words in [
        &["list", "--all"][..],
        &["status"],
        &["doctor"],
        &["parked", "list"],
        &["events", &id],
        &["checkpoints", &id],
        &["context", &id],
        &["context", &id, "--handoff"],
        &["show", &id],
    ] {
        let output = host.verb(words);
        for text in [output.stdout, output.stderr] {
            faults.extend(fault(&String::from_utf8(text).unwrap()).map(|fault| format!("{words:?}: {fault}")));
        }
    }
    for verb in ["list", "status", "doctor"] {
        let output = host.verb(&[verb, "--json"]);
        let found = fault_in_json(&String::from_utf8(output.stdout).unwrap());
        faults.extend(found.map(|fault| format!("{verb} --json: {fault}")));
    }
    faults.extend(fault(&host.log()).map(|fault| format!("log: {fault}")));
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The first event of a change, as data.
fn watched(host: &Host, id: &str) -> String {
    let mut stream = host.connect().unwrap();
    stream.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut read = Vec::new();
    let mut part = [0; 4096];
    let data = |read: &[u8]| {
        let text = String::from_utf8_lossy(read).into_owned();
        text.split("\ndata: ").nth(1).and_then(|rest| rest.split_once('\n')).map(|(data, _)| data.to_owned())
    };
    while !String::from_utf8_lossy(&read).contains("watching") {
        let length = stream.read(&mut part).unwrap();
        read.extend_from_slice(&part[..length]);
    }
    host.ok(&["heartbeat", id, "--context", "7"]);
    loop {
        if let Some(data) = data(&read) {
            return data;
        }
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "the stream goes on");
        read.extend_from_slice(&part[..length]);
    }
}

/// The lines of the MCP server for each tool, right and wrong.
fn spoken(host: &Host, own: &str, foreign: &str) -> Vec<String> {
    let initialize =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let mut messages = vec![
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": initialize}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "resources/read", "params": {"uri": hostile()}}),
    ];
    let mut call = |name: &str, arguments: Value| {
        let params = json!({"name": format!("mcp_meta_{name}"), "arguments": arguments});
        messages.push(json!({"jsonrpc": "2.0", "id": messages.len(), "method": "tools/call", "params": params}));
    };
    call(&hostile(), json!({}));
    call("list_instances", json!({}));
    call("list_stale_instances", json!({}));
    call("heartbeat", json!({"instance_id": own, "current_epic": hostile()}));
    call("emit_event", json!({"instance_id": own, "event_type": "error", "event_data": {"a": hostile()}}));
    call("log_command", json!({"instance_id": own, "action": hostile()}));
    call(
        "register_instance",
        json!({"project": hostile(), "current_epic": hostile(), "claude_session_path": hostile()}),
    );
    call("register_instance", json!({"project": "odin", "current_epic": hostile()}));
    let work = json!({"next_steps": [hostile()], "current_epic": hostile(), (hostile()): hostile()});
    call("create_checkpoint", json!({"instance_id": own, "checkpoint_type": "manual", "work_state": work}));
    call("create_checkpoint", json!({"instance_id": own, "checkpoint_type": hostile(), "work_state": {}}));
    for id in [own, foreign, &hostile()] {
        for tool in ["get_instance_details", "query_events", "search_commands", "get_checkpoint"] {
            call(tool, json!({"instance_id": id}));
        }
    }
    call("resume_instance", json!({"hint": hostile()}));
    let mut command = host.sessiond();
    let mut server =
        command.arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let mut answers = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    for message in messages {
        writeln!(stdin, "{message}").unwrap();
        if message.get("id").is_some() {
            lines.push(answers.next().expect("each request is answered").unwrap());
        }
    }
    drop(stdin);
    assert!(server.wait().unwrap().success());
    lines
}

/// What the model reads of an answer.
fn texts_of(answer: &Value) -> Vec<String> {
    let content = answer["result"]["content"].as_array().cloned().unwrap_or_default();
    content.iter().filter_map(|part| part["text"].as_str().map(str::to_owned)).collect()
}
