//! The MCP server, used by the official clients and by raw messages.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::skip::skip;

/// Sends lines of JSON, and answers what comes back for each that has an id.
fn speak(host: &Host, messages: &[Value]) -> Vec<Value> {
    let mut command = host.sessiond();
    let mut server =
        command.arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut answers = Vec::new();
    for message in messages {
        writeln!(stdin, "{message}").unwrap();
        if message.get("id").is_some() {
            let line = lines.next().expect("an answer").unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["id"], message["id"], "{answer}");
            answers.push(answer);
        }
    }
    drop(stdin);
    let output = server.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    answers
}

fn call(id: u32, name: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
}

#[test]
fn accepts_clients_of_every_protocol_revision() {
    let host = Host::new("odin3").started();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        let answers = speak(
            &host,
            &[
                initialize,
                json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
                json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
                call(3, "mcp_meta_register_instance", json!({"project": "odin"})),
            ],
        );
        assert_eq!(answers[0]["result"]["protocolVersion"], version, "{}", answers[0]);
        let tools = answers[1]["result"]["tools"].as_array().unwrap();
        assert_eq!(tools.len(), 12);
        assert!(tools.iter().all(|tool| tool["inputSchema"]["type"] == "object"), "{tools:?}");
        assert_eq!(answers[2]["result"]["structuredContent"]["host_machine"], "odin3", "{}", answers[2]);
    }
    assert_eq!(host.status()["sessions"]["active"], 4);
}

/// Sends lines of any bytes; answers what comes back until stdin's end is answered by the server's own.
fn speak_bytes(host: &Host, lines: &[&[u8]]) -> Vec<Value> {
    let mut command = host.sessiond();
    let mut server =
        command.arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let mut answers = BufReader::new(server.stdout.take().unwrap()).lines();
    let read = std::thread::spawn(move || {
        let parse = |line: std::io::Result<String>| serde_json::from_str::<Value>(&line.unwrap()).unwrap();
        answers.by_ref().map(parse).collect::<Vec<_>>()
    });
    for line in lines {
        stdin.write_all(line).unwrap();
        stdin.write_all(b"\n").unwrap();
    }
    drop(stdin);
    let answers = read.join().unwrap();
    assert!(server.wait().unwrap().success());
    answers
}

#[test]
fn every_line_is_answered_with_its_id() {
    let host = Host::new("odin3").started();
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let answers = speak_bytes(
        &host,
        &[
            b"\xef\xbb\xbfnot json",
            initialize.to_string().as_bytes(),
            br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            br#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"mcp_meta_emit_event","arguments":{"instance_id":"p-PS-aaaaaa","event_type":"error","event_data":{"text":"half \ud83d"}}}}"#,
            br#"{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"arguments":{}}}"#,
            b"{\"jsonrpc\":\"2.0\",\"id\":\"seven\",\"method\":\"tools/call\",\"params\":{\"name\":\"\xff\"}}",
            deep.as_bytes(),
            b"[1]",
            br#"{"jsonrpc":"2.0","id":9,"method":"dance"}"#,
            br#"{"jsonrpc":"2.0","id":10,"method":"tools/list"}"#,
        ],
    );
    let of = |id: Value| answers.iter().filter(|answer| answer["id"] == id).collect::<Vec<_>>();
    let codes = |id: Value| of(id).iter().map(|answer| answer["error"]["code"].clone()).collect::<Vec<_>>();
    assert_eq!(codes(json!(5)), [json!(-32700)], "{answers:#?}");
    assert_eq!(codes(json!(6)), [json!(-32602)]);
    assert_eq!(codes(json!("seven")), [json!(-32700)]);
    assert_eq!(codes(json!(8)), [json!(-32700)]);
    assert_eq!(codes(json!(9)), [json!(-32601)]);
    assert_eq!(codes(Value::Null), [json!(-32700), json!(-32600)]);
    assert!(of(json!(10))[0]["result"]["tools"].is_array());
    assert_eq!(answers.len(), 9, "{answers:#?}");
}

#[test]
fn reports_a_missing_daemon_with_advice() {
    let host = Host::new("odin3");
    let answers = speak(
        &host,
        &[
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18",
                "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}),
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            call(2, "mcp_meta_list_instances", json!({})),
        ],
    );
    let result = &answers[1]["result"];
    assert_eq!(result["isError"], true, "{result}");
    assert!(result["content"][0]["text"].as_str().unwrap().contains("sessiond run"), "{result}");
}

#[test]
fn official_clients_can_use_every_tool() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = here.join("target/mcp-clients");
    if !clients.join("node_modules/@modelcontextprotocol/client").is_dir() {
        return skip("official_clients_can_use_every_tool", "node and what tests/run installs by npm");
    }
    let host = Host::new("odin3").started();
    let mut node = Command::new("node");
    node.arg(here.join("tests/suite/agents/mcp_client.mjs")).arg(&clients).arg(env!("CARGO_BIN_EXE_sessiond"));
    node.env("SESSIOND_SOCKET", host.socket()).env("SESSIOND_STATE_DIR", host.state_dir());
    let output = node.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed, "ok initialize\nok 2026-07-28\n", "{}", String::from_utf8_lossy(&output.stderr));
}
