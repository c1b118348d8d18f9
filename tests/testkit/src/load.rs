//! Clients that register, send heartbeats and close, and record the acknowledgements, with which a host or central is
//! compared afterwards.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::run_beside;
use crate::daemon::Host;
use crate::history::{Time, now};
use crate::postgres::Server;

/// How fast the clients work, and on how many sessions.
struct Pace {
    clients: usize,
    /// How many sessions each client works on.
    sessions: usize,
    /// How many heartbeats a client sends before it closes a session; `None`: it closes none, and begins new ones each time
    /// that the load runs.
    heartbeats_before_close: Option<usize>,
    pause: Option<Duration>,
}

const FAST: Pace = Pace { clients: 4, sessions: 5, heartbeats_before_close: Some(40), pause: None };
/// With a pause, so that tests that run in parallel are not slowed down.
const PACED: Pace =
    Pace { clients: 2, sessions: 6, heartbeats_before_close: None, pause: Some(Duration::from_millis(2)) };

/// The clients of one host and one project, with their requests and acknowledgements.
pub struct Load {
    project: &'static str,
    pace: Pace,
    sessions: Mutex<HashMap<String, SessionRecord>>,
    clients: Mutex<Vec<Client>>,
    registrations: AtomicU64,
    acknowledged: AtomicU64,
    disk: Mutex<Disk>,
    /// How many requests were acknowledged although the disk was dead when they were sent.
    impossible: AtomicU64,
}

#[derive(Default)]
struct Client {
    open: Vec<String>,
    turns: usize,
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
/// percentage is derived. The registration has the number 0.
struct SessionRecord {
    /// When each was sent and answered.
    times: Vec<(Time, Time)>,
    acknowledged: usize,
    closing: bool,
    closed: bool,
}

fn heartbeat_body(number: usize) -> Value {
    json!({"context_percent": number % 101, "current_epic": number.to_string()})
}

impl Load {
    /// Clients that send as fast as they can, and close sessions.
    pub fn fast() -> Self {
        Self::new("load", FAST)
    }

    /// Clients that send a request each 2 ms, and close nothing.
    pub fn paced(project: &'static str) -> Self {
        Self::new(project, PACED)
    }

    fn new(project: &'static str, pace: Pace) -> Self {
        Self {
            project,
            pace,
            sessions: Mutex::default(),
            clients: Mutex::default(),
            registrations: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            disk: Mutex::default(),
            impossible: AtomicU64::new(0),
        }
    }

    /// The number of changes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The disk fails while `failure` runs, and is dead afterwards: later acknowledgements do not count.
    pub fn disk_fails(&self, failure: impl FnOnce()) {
        *self.disk.lock().unwrap() = Disk::Fails;
        failure();
        *self.disk.lock().unwrap() = Disk::Dead;
    }

    /// Runs the clients until `work` returns.
    pub fn during<T>(&self, host: &Host, work: impl FnOnce() -> T) -> T {
        let mut clients = std::mem::take(&mut *self.clients.lock().unwrap());
        clients.resize_with(self.pace.clients, Client::default);
        if self.pace.heartbeats_before_close.is_none() {
            clients.iter_mut().for_each(|client| client.open.clear());
        }
        let step = |client: &mut Client| {
            let answered = self.request(host, client);
            // Without an answer the daemon does not run or cannot write.
            if let Some(pause) = self.pause(answered) {
                thread::sleep(pause);
            }
        };
        let (result, clients) = run_beside(clients, step, work);
        *self.clients.lock().unwrap() = clients;
        result
    }

    fn pause(&self, answered: bool) -> Option<Duration> {
        self.pace.pause.or((!answered).then_some(Duration::from_millis(1)))
    }

    /// Sends one request; returns whether it was acknowledged.
    fn request(&self, host: &Host, client: &mut Client) -> bool {
        client.turns += 1;
        let closes = self.pace.heartbeats_before_close.is_some_and(|beats| client.turns.is_multiple_of(beats));
        if client.open.len() < self.pace.sessions {
            let id = self.register(host);
            client.open.extend(id.clone());
            id.is_some()
        } else if closes {
            self.close(host, &client.open.remove(0))
        } else {
            self.heartbeat(host, &client.open[client.turns % client.open.len()])
        }
    }

    /// The answer to a successful request. A request without success may have been applied or not; a client error panics.
    fn send(&self, host: &Host, path: &str, body: &Value) -> Option<Value> {
        let disk_before = *self.disk.lock().unwrap();
        let (status, answer) = host.try_ask("POST", path, Some(body))?;
        assert!(!(400..500).contains(&status), "{path} {body}: {status} {answer}");
        let worked = status < 400;
        self.impossible.fetch_add(u64::from(worked && disk_before == Disk::Dead), Ordering::Relaxed);
        let counts = worked && *self.disk.lock().unwrap() == Disk::Works;
        self.acknowledged.fetch_add(u64::from(counts), Ordering::Relaxed);
        counts.then_some(answer)
    }

    fn register(&self, host: &Host) -> Option<String> {
        self.registrations.fetch_add(1, Ordering::Relaxed);
        let body = json!({"project": self.project, "current_epic": "0"});
        let sent = now();
        let session = self.send(host, "/v1/sessions", &body)?;
        let id = session["instance_id"].as_str()?.to_owned();
        let record = SessionRecord { times: vec![(sent, now())], acknowledged: 0, closing: false, closed: false };
        self.sessions.lock().unwrap().insert(id.clone(), record);
        Some(id)
    }

    fn heartbeat(&self, host: &Host, id: &str) -> bool {
        // Each session has only one client, so its heartbeats are sent in order. One that is on its way may be applied, so
        // its number counts as sent before.
        let number = self.update(id, |session| {
            session.times.push((now(), Time::MAX));
            session.times.len() - 1
        });
        let acknowledged = self.send(host, &format!("/v1/sessions/{id}/heartbeat"), &heartbeat_body(number)).is_some();
        self.update(id, |session| {
            session.times[number].1 = now();
            if acknowledged {
                session.acknowledged = number;
            }
        });
        acknowledged
    }

    fn close(&self, host: &Host, id: &str) -> bool {
        self.update(id, |session| session.closing = true);
        let closed = self.send(host, &format!("/v1/sessions/{id}/close"), &json!({})).is_some();
        self.update(id, |session| session.closed |= closed);
        closed
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

    /// Asserts that central has the newest state of every session once, with its time.
    pub fn check_central(&self, server: &Server) {
        self.check_rows(|sql| server.psql("central", sql));
    }

    /// The same of a central that `psql` queries.
    pub fn check_rows(&self, psql: impl FnOnce(&str) -> String) {
        let rows = psql(&format!(
            "SELECT instance_id, current_epic, context_percent, status, \
                 (extract(epoch from last_heartbeat) * 1000000)::bigint, \
                 (extract(epoch from created_at) * 1000000)::bigint \
             FROM supervisor_sessions WHERE project = '{}'",
            self.project
        ));
        let sessions = self.sessions.lock().unwrap();
        let mut known = 0;
        let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split('|').collect()).collect();
        for row in &rows {
            let Some(session) = sessions.get(row[0]) else { continue };
            known += 1;
            let number: usize = row[1].parse().unwrap();
            assert!(number >= session.acknowledged, "{row:?} lacks what was acknowledged: {}", session.acknowledged);
            assert_eq!(row[2], (number % 101).to_string(), "{row:?}");
            assert!(row[3] != "closed" || session.closing, "{row:?}");
            let within = |at: &str, (before, after): (Time, Time)| (before..=after).contains(&at.parse().unwrap());
            assert!(within(row[4], session.times[number]), "{row:?}: {:?}", session.times[number]);
            assert!(within(row[5], session.times[0]), "{row:?}: {:?}", session.times[0]);
        }
        assert_eq!(known, sessions.len(), "sessions are missing in central");
        let registrations = self.registrations.load(Ordering::Relaxed);
        assert!(rows.len() as u64 <= registrations, "{} sessions after {registrations} registrations", rows.len());
    }
}

impl SessionRecord {
    fn compare(&mut self, session: &Value) -> Option<String> {
        let number: usize = session["current_epic"].as_str().map_or(0, |epic| epic.parse().expect("a number"));
        let closed = session["status"] == "closed";
        let newest = self.times.len() - 1;
        if !(self.acknowledged..=newest).contains(&number) {
            return Some(format!("heartbeat {number} is not in {}..={newest}", self.acknowledged));
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
