//! Clients that register, beat and close as fast as they can, and remember what they were told.

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
/// How many beats a client sends before it closes a session.
const BEATS: u64 = 40;

/// What the clients of one host sent and were told.
#[derive(Default)]
pub struct Load {
    sessions: Mutex<HashMap<String, Told>>,
    /// The sessions that each client keeps open, from one round to the next.
    open: [Mutex<Vec<String>>; CLIENTS],
    registrations: AtomicU64,
    pub acknowledged: AtomicU64,
    disk: Mutex<Disk>,
    /// How many requests were acknowledged that were sent when nothing could be written any more.
    impossible: AtomicU64,
}

/// What the disk can do. While its power fails a kernel may take a sync that it then forgets; in truth nobody
/// would have been told, since everything would have gone out at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Disk {
    #[default]
    Works,
    Fails,
    Dead,
}

/// A session as a client knows it. Its beats are numbered; the epic says the number, the context follows from it.
#[derive(Default)]
struct Told {
    acknowledged: u64,
    sent: u64,
    closing: bool,
    closed: bool,
}

impl Load {
    /// The disk fails while `failure` runs, and is dead then: what is acknowledged from here on does not count.
    pub fn fails(&self, failure: impl FnOnce()) {
        *self.disk.lock().unwrap() = Disk::Fails;
        failure();
        *self.disk.lock().unwrap() = Disk::Dead;
    }

    /// Keeps all clients busy until `moment` returns.
    pub fn during<T>(&self, host: &Host, moment: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let stop = &stop;
                scope.spawn(move || {
                    let mut beat = 0;
                    while !stop.load(Ordering::Relaxed) {
                        beat += 1;
                        if !self.ask(host, client, beat) {
                            // No daemon, or one that cannot write any more: it is for others to change that.
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                });
            }
            let result = moment();
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// The answer to a request that worked. One that failed may have been taken or not, unless it is the client's fault.
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

    /// One request; says whether it was acknowledged.
    fn ask(&self, host: &Host, client: usize, beat: u64) -> bool {
        let mut open = self.open[client].lock().unwrap();
        if open.len() < OPEN {
            let id = self.register(host);
            open.extend(id.clone());
            id.is_some()
        } else if beat.is_multiple_of(BEATS) {
            let id = open.remove(0);
            self.close(host, &id)
        } else {
            self.beat(host, &open[beat as usize % OPEN])
        }
    }

    fn register(&self, host: &Host) -> Option<String> {
        self.registrations.fetch_add(1, Ordering::Relaxed);
        let session = self.acknowledged(host, "/v1/sessions", &json!({"project": "load"}))?;
        let id = session["instance_id"].as_str()?.to_owned();
        self.sessions.lock().unwrap().insert(id.clone(), Told::default());
        Some(id)
    }

    fn beat(&self, host: &Host, id: &str) -> bool {
        // Each session has one client only, so its beats come in order.
        let number = self.told(id, |told| {
            told.sent += 1;
            told.sent
        });
        let body = json!({"context_percent": number % 101, "current_epic": number.to_string()});
        let done = self.acknowledged(host, &format!("/v1/sessions/{id}/heartbeat"), &body).is_some();
        if done {
            self.told(id, |told| told.acknowledged = number);
        }
        done
    }

    fn close(&self, host: &Host, id: &str) -> bool {
        self.told(id, |told| told.closing = true);
        let done = self.acknowledged(host, &format!("/v1/sessions/{id}/close"), &json!({})).is_some();
        self.told(id, |told| told.closed |= done);
        done
    }

    fn told<T>(&self, id: &str, change: impl FnOnce(&mut Told) -> T) -> T {
        change(self.sessions.lock().unwrap().get_mut(id).expect("a session that was acknowledged"))
    }

    /// What of it the host does not have as it must. What it has counts as told from now on.
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
            violations.push(format!("{} sessions came of {sent} registrations", list.len()));
        }
        for (id, told) in self.sessions.lock().unwrap().iter_mut() {
            match found.get(id.as_str()) {
                Some(session) => violations.extend(told.compare(session).map(|what| format!("{id}: {what}"))),
                None => violations.push(format!("{id} was acknowledged and is gone")),
            }
        }
        violations
    }
}

impl Told {
    fn compare(&mut self, session: &Value) -> Option<String> {
        let number = session["current_epic"].as_str().map_or(0, |epic| epic.parse().expect("a number"));
        let closed = session["status"] == "closed";
        if !(self.acknowledged..=self.sent).contains(&number) {
            return Some(format!("beat {number} is not in {}..={}", self.acknowledged, self.sent));
        }
        if session["context_percent"] != number % 101 {
            return Some(format!("beat {number} came without its context: {session}"));
        }
        if (self.closed && !closed) || (closed && !self.closing) {
            return Some(format!("closed: {closed}, but asked: {}, acknowledged: {}", self.closing, self.closed));
        }
        (self.acknowledged, self.closed) = (number, closed);
        None
    }
}
