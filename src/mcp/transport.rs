//! MCP messages over stdin and stdout: one JSON document per line.
//!
//! rmcp's own transport skips a line that it cannot parse, so that the client waits for a response forever. This one
//! responds to every invalid line: with -32700 if it is not JSON (half a surrogate pair, invalid UTF-8, nested too deep,
//! too long), with -32602 if a request's parameters do not fit its method, and with -32600 if it is JSON but no message.
//! The response has the request's id if that can be parsed, also from a line that is not valid JSON as a whole.
//!
//! Invariants: a cancelled `receive` loses no byte (the line read so far stays in `line`, an error response that is due
//! in `refusal`); one task writes messages, whole and in order; no written line contains a character that is unsafe to
//! print on a terminal.

use std::io;

use rmcp::model::{ClientRequest, ErrorCode, ErrorData, JsonRpcMessage, RequestId};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::domain::text::{one_line, safe_document};

/// The longest line that is read, in bytes.
const MAX_LINE: usize = 16 << 20;
/// How many messages are queued for a client that does not read.
const MAX_QUEUED: usize = 64;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The methods that MCP defines. rmcp parses a request of one of them whose parameters do not fit as a custom request.
const METHODS: [&str; 13] = [
    "initialize",
    "ping",
    "prompts/get",
    "prompts/list",
    "server/discover",
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "resources/templates/list",
    "subscriptions/listen",
];

/// The transport over a client's two streams.
pub(super) struct LineTransport<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The line is too long, and the rest of it is discarded.
    too_long: bool,
    /// The error response to an invalid line, until it can be queued.
    refusal: Option<String>,
    writer: Option<(mpsc::Sender<String>, JoinHandle<io::Result<()>>)>,
}

impl<R: AsyncRead + Unpin + Send> LineTransport<R> {
    /// Reads messages from `reader` and writes responses to `writer`. Must be called within a tokio runtime.
    pub(super) fn new(reader: R, mut writer: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, mut answers) = mpsc::channel::<String>(MAX_QUEUED);
        let task = tokio::spawn(async move {
            while let Some(line) = answers.recv().await {
                writer.write_all(line.as_bytes()).await?;
                writer.flush().await?;
            }
            Ok(())
        });
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            too_long: false,
            refusal: None,
            writer: Some((sender, task)),
        }
    }

    /// Reads up to the end of a line into `line`. False if the stream has ended and nothing is left.
    async fn read_line(&mut self) -> io::Result<bool> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok(!self.line.is_empty() || self.too_long);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(available.len(), |end| end + 1);
            self.too_long |= self.line.len() + length > MAX_LINE;
            if !self.too_long {
                self.line.extend_from_slice(&available[..length]);
            }
            self.reader.consume(length);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// The message in the line that was read. For an invalid line, sets `refusal` instead.
    fn take_message(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let parsed = parse(&self.line, std::mem::take(&mut self.too_long));
        self.line.clear();
        parsed.unwrap_or_else(|refusal| {
            self.refusal = Some(refusal.line());
            None
        })
    }
}

impl<R: AsyncRead + Unpin + Send> Transport<RoleServer> for LineTransport<R> {
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let sender = self.writer.as_ref().map(|(sender, _)| sender.clone());
        async move {
            let line = safe_document(serde_json::to_string(&message)?) + "\n";
            let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
            sender.ok_or_else(closed)?.send(line).await.map_err(|_| closed())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if self.refusal.is_some() {
                let permit = self.writer.as_ref()?.0.reserve().await.ok()?;
                permit.send(self.refusal.take()?);
            }
            match self.read_line().await {
                Ok(true) => {}
                Ok(false) | Err(_) => return None,
            }
            if let Some(message) = self.take_message() {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        let Some((sender, task)) = self.writer.take() else { return Ok(()) };
        drop(sender);
        task.await.map_err(io::Error::other)?
    }
}

/// The JSON-RPC error for an invalid line.
#[derive(Debug, PartialEq)]
struct Refusal {
    id: Value,
    code: ErrorCode,
    message: String,
}

impl Refusal {
    fn line(&self) -> String {
        let error = ErrorData::new(self.code, one_line(&self.message), None);
        safe_document(json!({"jsonrpc": "2.0", "id": self.id, "error": error}).to_string()) + "\n"
    }
}

/// The message in a line; `None` for an empty line, and for an invalid notification, to which there is no response.
fn parse(line: &[u8], too_long: bool) -> Result<Option<RxJsonRpcMessage<RoleServer>>, Refusal> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let parse_error = |why: String| Refusal { id: id_in(line), code: ErrorCode::PARSE_ERROR, message: why };
    if too_long {
        return Err(parse_error(format!("Parse error: the line is longer than {MAX_LINE} bytes")));
    }
    if line.is_empty() {
        return Ok(None);
    }
    let document: Value = match serde_json::from_slice(line) {
        Ok(document) => document,
        Err(error) => return Err(parse_error(format!("Parse error: the line is not JSON: {error}"))),
    };
    match serde_json::from_slice::<RxJsonRpcMessage<RoleServer>>(line) {
        Ok(JsonRpcMessage::Request(request)) if is_malformed(&request.request) => Err(invalid_params(&document)),
        Ok(message) => Ok(Some(message)),
        Err(_) => not_a_message(&document),
    }
}

/// Whether a request has a method of MCP but parameters that do not fit it.
fn is_malformed(request: &ClientRequest) -> bool {
    matches!(request, ClientRequest::CustomRequest(custom) if METHODS.contains(&custom.method.as_str()))
}

fn not_a_message(document: &Value) -> Result<Option<RxJsonRpcMessage<RoleServer>>, Refusal> {
    let fields = document.as_object();
    let has = |name: &str| fields.is_some_and(|fields| fields.contains_key(name));
    match fields.and_then(|fields| fields.get("method")) {
        Some(Value::String(_)) if !has("id") => Ok(None),
        Some(Value::String(_)) => Err(invalid_params(document)),
        _ => Err(Refusal {
            id: fields.map_or(Value::Null, id_of),
            code: ErrorCode::INVALID_REQUEST,
            message: "Invalid request: the line is not a JSON-RPC message with a method".into(),
        }),
    }
}

fn invalid_params(document: &Value) -> Refusal {
    let method = document["method"].as_str().unwrap_or_default();
    Refusal {
        id: document.as_object().map_or(Value::Null, id_of),
        code: ErrorCode::INVALID_PARAMS,
        message: format!("Invalid params: they do not fit {method}"),
    }
}

/// The id of a message; null if it is not valid in JSON-RPC.
fn id_of(fields: &Map<String, Value>) -> Value {
    let id = fields.get("id").cloned().unwrap_or_default();
    if serde_json::from_value::<RequestId>(id.clone()).is_ok() { id } else { Value::Null }
}

/// The id in a line that is not valid JSON: the value of `id` in the outermost object, if that much can be parsed.
fn id_in(line: &[u8]) -> Value {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_string(line, at);
                if depth == 1 && line[at..end] == *b"\"id\"" {
                    let rest = line[end..].trim_ascii_start();
                    if let Some(value) = rest.strip_prefix(b":") {
                        return leading_id(value);
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Value::Null
}

/// The index after the string that begins at `start`.
fn end_of_string(line: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < line.len() {
        match line[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    line.len()
}

fn leading_id(text: &[u8]) -> Value {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<RequestId>();
    values.next().and_then(Result::ok).and_then(|id| serde_json::to_value(id).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: impl AsRef<[u8]>) -> (i32, Value) {
        let refusal = parse(line.as_ref(), false).unwrap_err();
        let line = refusal.line();
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        (refusal.code.0, refusal.id)
    }

    fn call(id: &str, text: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","params":{{"name":"x","arguments":{{"id":9,"a":"{text}"}}}},"id":{id},"method":"tools/call"}}"#
        )
    }

    #[test]
    fn responds_to_invalid_json_with_a_parse_error_and_the_id() {
        for half in ["half \\ud83d", "\\ude00", "\\ud83d\\ud83d", "\\ud83dx", "\\uZZZZ", "\\x", "raw \u{1} control"] {
            assert_eq!(refused(call("5", half)), (-32700, json!(5)), "{half}");
            assert_eq!(refused(call("\"a-b\"", half)), (-32700, json!("a-b")), "{half}");
        }
        let mut bytes = call("5", "x").into_bytes();
        let place = bytes.len() - 40;
        bytes.splice(place..place, [0xff, 0xfe]);
        assert_eq!(refused(&bytes).0, -32700);
        let deep = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}"#, "[".repeat(100_000));
        assert_eq!(refused(&deep), (-32700, json!(7)));
        let closed = format!("{deep}{}}}", "]".repeat(100_000));
        assert_eq!(refused(closed), (-32700, json!(7)));
        for (line, id) in [
            ("not json", Value::Null),
            ("{", Value::Null),
            (r#"{"id": 3"#, json!(3)),
            (r#"{"id": {"#, Value::Null),
            (r#"{"a": {"id": 3}, "id": "#, Value::Null),
            ("\u{feff}\u{feff}{}", Value::Null),
        ] {
            assert_eq!(refused(line), (-32700, id), "{line}");
        }
        assert_eq!(parse(b"{\"id\": 3, ", true).unwrap_err().id, json!(3));
    }

    #[test]
    fn distinguishes_invalid_params_from_invalid_requests() {
        for (line, code, id) in [
            (r#"{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"arguments":{}}}"#, -32602, json!(6)),
            (r#"{"jsonrpc":"2.0","id":6,"method":"tools/call","params":[]}"#, -32602, json!(6)),
            (r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":7}}"#, -32602, json!("x")),
            (r#"{"jsonrpc":"2.0","id":6,"method":"resources/read","params":{}}"#, -32602, json!(6)),
            ("[]", -32600, Value::Null),
            ("7", -32600, Value::Null),
            (r#"{"jsonrpc":"2.0","id":6}"#, -32600, json!(6)),
            (r#"{"jsonrpc":"2.0","id":6,"method":7}"#, -32600, json!(6)),
        ] {
            assert_eq!(refused(line), (code, id), "{line}");
        }
    }

    #[test]
    fn accepts_blank_lines_and_a_byte_order_mark() {
        for line in ["\u{feff}", "", " \r"] {
            assert!(parse(line.as_bytes(), false).unwrap().is_none(), "{line:?}");
        }
        let fine = call("5", "whole \\ud83d\\ude00 \\\\ud83d");
        for line in [fine.clone(), format!("\u{feff}{fine}"), format!("{fine}\r\n")] {
            assert!(parse(line.as_bytes(), false).unwrap().is_some(), "{line}");
        }
        assert!(parse(br#"{"jsonrpc":"2.0","method":"$/unknown"}"#, false).is_ok());
    }
}
