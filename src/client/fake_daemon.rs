//! A fake daemon for tests: it sends prepared responses, one to each connection.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Client, Endpoint};

pub(crate) struct FakeDaemon {
    pub(crate) socket: PathBuf,
    requests: JoinHandle<Vec<String>>,
    _dir: tempfile::TempDir,
}

impl FakeDaemon {
    /// Writes each response part by part and then closes its connection.
    pub(crate) fn new(answers: Vec<Vec<Vec<u8>>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let serve = move |parts: Vec<Vec<u8>>| {
            let mut stream = listener.accept().unwrap().0;
            let request = read_request(&mut stream);
            for part in parts {
                // The client may have closed the connection.
                let _ = stream.write_all(&part);
                thread::sleep(Duration::from_millis(2));
            }
            request
        };
        let requests = thread::spawn(move || answers.into_iter().map(serve).collect());
        Self { socket, requests, _dir: dir }
    }

    pub(crate) fn json(answers: &[(u16, &str)]) -> Self {
        let answer = |(status, body): &(u16, &str)| {
            vec![format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()]
        };
        Self::new(answers.iter().map(answer).collect())
    }

    pub(crate) fn one(status: u16, body: &str) -> Self {
        Self::json(&[(status, body)])
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Endpoint::at(&self.socket))
    }

    /// The requests received; waits until every response has been sent.
    pub(crate) fn requests(self) -> Vec<String> {
        self.requests.join().unwrap()
    }
}

fn read_request(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the request breaks off: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() >= length.parse().unwrap() {
            return so_far;
        }
    }
}
