//! A minimal HTTP client that keeps its connection open.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// A connection on which each request is sent after the response to the previous one.
pub struct HttpConnection {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl HttpConnection {
    pub fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        Self { stream, answer: Vec::new() }
    }

    /// Sends a request, and returns the body of its response.
    pub fn send(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).expect("the request is sent");
        self.answer.clear();
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(whole) = body_range(&self.answer) {
                assert!(self.answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&self.answer));
                return &self.answer[whole];
            }
            let read = self.stream.read(&mut chunk).expect("an answer comes");
            assert!(read > 0, "the server hung up");
            self.answer.extend_from_slice(&chunk[..read]);
        }
    }
}

/// The range of the body in a response; `None` while the response is incomplete.
pub fn body_range(answer: &[u8]) -> Option<std::ops::Range<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let at = answer[..head].windows(LENGTH.len()).position(|bytes| bytes.eq_ignore_ascii_case(LENGTH))? + LENGTH.len();
    let digits = answer[at..head].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    (answer.len() >= head + length).then_some(head..head + length)
}

pub fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub fn heartbeat(id: &str, context: u64) -> Vec<u8> {
    post(&format!("/v1/sessions/{id}/heartbeat"), &serde_json::json!({"context_percent": context % 101}))
}
