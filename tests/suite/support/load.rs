//! Clients that register, send heartbeats and close as fast as possible, and record the acknowledgements.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::Host;

const CLIENTS: usize = 4;
/// How many sessions each client keeps open.
const OPEN: usize = 5;
/// How many heartbeats a client sends before it closes a session.
const HEARTBEATS: u64 = 40;

/// The clients of one host, with their requests and acknowledgements.
#[derive(Default)]
pub struct Load {
    sessions: Mutex<HashMap<String, SessionRecord>>,
    /// The sessions that each client keeps open, from one round to the next.
    open: [Mutex<Vec<String>>; CLIENTS],
    registrations: AtomicU64,
    pub acknowledged: AtomicU64,
    disk: Mutex<Disk>,
    /// How many requests were acknowledged although the disk was dead when they were sent.
    impossible: AtomicU64,
}

/// The state of the disk. While its power fails a kernel may report a sync that is lost; a real machine would not have
/// sent the acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Disk {
    #[default]
    Works,
    Fails,
    Dead,
}

/// A session as its client knows it. Its heartbeats are numbered; the epic contains the number, from which the context
/// percentage is derived.
#[derive(Default)]
struct SessionRecord {
    acknowledged: u64,
    sent: u64,
    closing: bool,
    closed: bool,
}

impl Load {
    /// The disk fails while `failure` runs, and is dead afterwards: later acknowledgements do not count.
    pub fn fails(&self, failure: impl FnOnce()) {
        *self.disk.lock().unwrap() = Disk::Fails;
        failure();
        *self.disk.lock().unwrap() = Disk::Dead;
    }

    /// Runs all clients until `work` returns.
    pub fn during<T>(&self, host: &Host, work: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let stop = &stop;
                scope.spawn(move || {
                    let mut beat = 0;
                    while !stop.load(Ordering::Relaxed) {
                        beat += 1;
                        if !self.ask(host, client, beat) {
                            // The daemon does not run or cannot write.
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                });
            }
            let result = work();
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// The answer to a successful request. A request without success may have been applied or not; a client error panics.
    fn acknowledged(&self, host: &Host, path: &str, body: &Value) -> Option<Value> {
        let sent_to = *self.disk.lock().unwrap();
        let (status, answer) = host.try_ask("POST", path, Some(body))?;
        assert!(!(400..500).contains(&status), "{path} {body}: {status} {answer}");
        let worked = status < 400;
        self.impossible.fetch_add(u64::from(worked && sent_to == Disk::Dead), Ordering::Relaxed);
        let counts = worked && *self.disk.lock().unwrap() == Disk::Works;
        self.acknowledged.fetch_add(u64::from(counts), Ordering::Relaxed);
        counts.then_some(answer)
    }

    /// Sends one request; returns whether it was acknowledged.
    fn ask(&self, host: &Host, client: usize, beat: u64) -> bool {
        let mut open = self.open[client].lock().unwrap();
        if open.len() < OPEN {
            let id = self.register(host);
            open.extend(id.clone());
            id.is_some()
        } else if beat.is_multiple_of(HEARTBEATS) {
            let id = open.remove(0);
            self.close(host, &id)
        } else {
            self.heartbeat(host, &open[beat as usize % OPEN])
        }
    }

    fn register(&self, host: &Host) -> Option<String> {
        self.registrations.fetch_add(1, Ordering::Relaxed);
        let session = self.acknowledged(host, "/v1/sessions", &json!({"project": "load"}))?;
        let id = session["instance_id"].as_str()?.to_owned();
        self.sessions.lock().unwrap().insert(id.clone(), SessionRecord::default());
        Some(id)
    }

    fn heartbeat(&self, host: &Host, id: &str) -> bool {
        // Each session has only one client, so its heartbeats are sent in order.
        let number = self.update(id, |session| {
            session.sent += 1;
            session.sent
        });
        let body = json!({"context_percent": number % 101, "current_epic": number.to_string()});
        let done = self.acknowledged(host, &format!("/v1/sessions/{id}/heartbeat"), &body).is_some();
        if done {
            self.update(id, |session| session.acknowledged = number);
        }
        done
    }

    fn close(&self, host: &Host, id: &str) -> bool {
        self.update(id, |session| session.closing = true);
        let done = self.acknowledged(host, &format!("/v1/sessions/{id}/close"), &json!({})).is_some();
        self.update(id, |session| session.closed |= done);
        done
    }

    fn update<T>(&self, id: &str, change: impl FnOnce(&mut SessionRecord) -> T) -> T {
        change(self.sessions.lock().unwrap().get_mut(id).expect("a session that was acknowledged"))
    }

    /// Compares the host with the acknowledgements and returns the differences. What the host has counts as acknowledged
    /// from now on.
    pub fn violations(&self, host: &Host) -> Vec<String> {
        let (_, list) = host.ask("GET", "/v1/sessions", None);
        let list = list["instances"].as_array().expect("a list of sessions");
        let found: HashMap<&str, &Value> = list.iter().map(|s| (s["instance_id"].as_str().unwrap(), s)).collect();
        let mut violations = Vec::new();
        *self.disk.lock().unwrap() = Disk::Works;
        let impossible = self.impossible.swap(0, Ordering::Relaxed);
        if impossible > 0 {
            violations.push(format!("{impossible} writes were acknowledged on a dead disk"));
        }
        let sent = self.registrations.load(Ordering::Relaxed);
        if list.len() as u64 > sent {
            violations.push(format!("{} sessions exist after {sent} registrations", list.len()));
        }
        for (id, expected) in self.sessions.lock().unwrap().iter_mut() {
            match found.get(id.as_str()) {
                Some(session) => violations.extend(expected.compare(session).map(|what| format!("{id}: {what}"))),
                None => violations.push(format!("{id} was acknowledged and is missing")),
            }
        }
        violations
    }
}

impl SessionRecord {
    fn compare(&mut self, session: &Value) -> Option<String> {
        let number = session["current_epic"].as_str().map_or(0, |epic| epic.parse().expect("a number"));
        let closed = session["status"] == "closed";
        if !(self.acknowledged..=self.sent).contains(&number) {
            return Some(format!("heartbeat {number} is not in {}..={}", self.acknowledged, self.sent));
        }
        if session["context_percent"] != number % 101 {
            return Some(format!("heartbeat {number} came without its context: {session}"));
        }
        if (self.closed && !closed) || (closed && !self.closing) {
            return Some(format!("closed: {closed}, but asked: {}, acknowledged: {}", self.closing, self.closed));
        }
        (self.acknowledged, self.closed) = (number, closed);
        None
    }
}
