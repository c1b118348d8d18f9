//! Clients that work slowly and record the acknowledgements, with which central is compared at the end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::daemon::Host;
use super::postgres::Server;

/// Each client's sessions; more only make the check longer.
const SESSIONS: usize = 6;
const CLIENTS: usize = 2;

/// The pause between requests, so that tests that run in parallel are not slowed down.
const PAUSE: Duration = Duration::from_millis(2);

/// The heartbeats of a session: the number of each is its epic.
#[derive(Debug, Default)]
struct Heartbeats {
    /// When each was sent and answered: microseconds since 1970. The first is the registration.
    times: Vec<(i64, i64)>,
    acknowledged: usize,
}

/// Clients of one host and one project, with their acknowledgements.
pub struct Work {
    project: &'static str,
    sessions: Mutex<HashMap<String, Heartbeats>>,
    /// The number of registrations without an answer: the daemon may have applied them or not.
    unanswered: AtomicU64,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

impl Work {
    pub fn new(project: &'static str) -> Self {
        Self { project, sessions: Mutex::default(), unanswered: AtomicU64::new(0) }
    }

    /// Runs clients until `fault` returns.
    pub fn during<T>(&self, host: &Host, fault: impl FnOnce() -> T) -> T {
        struct Done<'a>(&'a AtomicBool);
        // The clients stop also if `fault` panics; otherwise the scope would never end.
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _done = Done(&stop);
            for _ in 0..CLIENTS {
                scope.spawn(|| self.client(host, &stop));
            }
            fault()
        })
    }

    /// The number of changes acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.sessions.lock().unwrap().values().map(|beats| beats.acknowledged + 1).sum()
    }

    fn client(&self, host: &Host, stop: &AtomicBool) {
        let mut own = Vec::new();
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if own.len() < SESSIONS {
                own.extend(self.register(host));
            }
            if let Some(id) = own.get(turn % own.len().max(1)) {
                self.heartbeat(host, id);
            }
            thread::sleep(PAUSE);
        }
    }

    fn register(&self, host: &Host) -> Option<String> {
        let before = now();
        let body = json!({"project": self.project, "current_epic": "0"});
        let Some((201, session)) = host.try_ask("POST", "/v1/sessions", Some(&body)) else {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let id = session["instance_id"].as_str().unwrap().to_owned();
        let beats = Heartbeats { times: vec![(before, now())], acknowledged: 0 };
        self.sessions.lock().unwrap().insert(id.clone(), beats);
        Some(id)
    }

    fn heartbeat(&self, host: &Host, id: &str) {
        let number = self.sessions.lock().unwrap()[id].times.len();
        let body = json!({"current_epic": number.to_string(), "context_percent": number % 101});
        let before = now();
        let answer = host.try_ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&body));
        let mut sessions = self.sessions.lock().unwrap();
        let beats = sessions.get_mut(id).unwrap();
        beats.times.push((before, now()));
        if matches!(answer, Some((200, _))) {
            beats.acknowledged = number;
        }
    }

    /// Asserts that central has the newest state of every session once, with its time.
    pub fn check(&self, server: &Server) {
        let rows = server.psql(
            "central",
            &format!(
                "SELECT instance_id, current_epic, context_percent, status, \
                     (extract(epoch from last_heartbeat) * 1000000)::bigint, \
                     (extract(epoch from created_at) * 1000000)::bigint \
                 FROM supervisor_sessions WHERE project = '{}'",
                self.project
            ),
        );
        let sessions = self.sessions.lock().unwrap();
        let mut unknown = 0;
        let mut found = 0;
        for row in rows.lines().map(|line| line.split('|').collect::<Vec<_>>()) {
            let Some(beats) = sessions.get(row[0]) else {
                unknown += 1;
                continue;
            };
            found += 1;
            let number: usize = row[1].parse().unwrap();
            assert!(number >= beats.acknowledged, "{row:?} lacks what was acknowledged: {}", beats.acknowledged);
            assert_eq!(row[2], (number % 101).to_string(), "{row:?}");
            assert_ne!(row[3], "closed", "{row:?}");
            let within = |at: &str, (before, after): (i64, i64)| (before..=after).contains(&at.parse().unwrap());
            assert!(within(row[4], beats.times[number]), "{row:?}: {:?}", beats.times[number]);
            assert!(within(row[5], beats.times[0]), "{row:?}: {:?}", beats.times[0]);
        }
        assert_eq!(found, sessions.len(), "sessions are missing in central");
        assert!(unknown <= self.unanswered.load(Ordering::Relaxed), "{unknown} sessions without a registration");
    }
}
