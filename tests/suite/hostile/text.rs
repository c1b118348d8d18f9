//! No output holds a character that its format does not define, whatever central or an agent holds (G13).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sessiond::domain::text::is_unsafe;

use crate::support::agent::{Agent, repository};
use crate::support::daemon::{Host, raw};
use crate::support::eventually;
use crate::support::postgres::Server;

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
fn the_check_finds_each_character_that_is_left_raw() {
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
    let adopted = |of: &str| {
        let epic = host.ask("GET", &format!("/v1/sessions/{of}"), None).1["current_epic"].clone();
        epic.as_str().filter(|epic| epic.contains(PLANTED)).map(str::to_owned)
    };
    for of in [id.as_str(), "odin-PS-0ld001"] {
        let epic = eventually("what central holds is known", SOON, || adopted(of));
        assert!(epic.contains('\u{fffd}'), "it is kept: {epic}");
    }
    (id, "odin-PS-0ld001".to_owned())
}

#[test]
fn no_output_holds_a_raw_character() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let host = Host::new("odin3");
    host.configure(&format!("[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\n"));
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
    for words in [
        &["list", "--all"][..],
        &["machines"],
        &["status"],
        &["parked", "list"],
        &["doctor"],
        &["bugreport"],
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
    for verb in ["list", "machines", "status", "doctor"] {
        let output = host.verb(&[verb, "--json"]);
        check(verb, fault_in_json(&String::from_utf8(output.stdout).unwrap()));
    }

    for path in [
        "/v1/sessions?all=true",
        "/v1/machines",
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
