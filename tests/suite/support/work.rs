//! Clients at work, and a record of what they were told, to hold central to in the end.

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

/// A client that is not in a hurry: the load is to be there, not to keep the machine from the tests beside it.
const PAUSE: Duration = Duration::from_millis(2);

/// The heartbeats of a session: the number of each is its epic.
#[derive(Debug, Default)]
struct Beats {
    /// When each was sent and answered: microseconds since 1970. The first is the registration.
    moments: Vec<(i64, i64)>,
    acknowledged: usize,
}

/// Clients of one host, on one project, and what they know.
pub struct Work {
    project: &'static str,
    sessions: Mutex<HashMap<String, Beats>>,
    /// Registrations that nobody answered: the daemon may have taken them or not.
    unanswered: AtomicU64,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

impl Work {
    pub fn new(project: &'static str) -> Self {
        Self { project, sessions: Mutex::default(), unanswered: AtomicU64::new(0) }
    }

    /// Has clients at work for as long as `fault` takes.
    pub fn during<T>(&self, host: &Host, fault: impl FnOnce() -> T) -> T {
        struct Done<'a>(&'a AtomicBool);
        // They stop even when the test fails, which would else never end.
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

    /// How many changes were acknowledged so far.
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
                self.beat(host, id);
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
        let beats = Beats { moments: vec![(before, now())], acknowledged: 0 };
        self.sessions.lock().unwrap().insert(id.clone(), beats);
        Some(id)
    }

    fn beat(&self, host: &Host, id: &str) {
        let number = self.sessions.lock().unwrap()[id].moments.len();
        let body = json!({"current_epic": number.to_string(), "context_percent": number % 101});
        let before = now();
        let answer = host.try_ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&body));
        let mut sessions = self.sessions.lock().unwrap();
        let beats = sessions.get_mut(id).unwrap();
        beats.moments.push((before, now()));
        if matches!(answer, Some((200, _))) {
            beats.acknowledged = number;
        }
    }

    /// Central has the newest state of every session, once, with the time at which it came about.
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
            assert!(within(row[4], beats.moments[number]), "{row:?}: {:?}", beats.moments[number]);
            assert!(within(row[5], beats.moments[0]), "{row:?}: {:?}", beats.moments[0]);
        }
        assert_eq!(found, sessions.len(), "sessions are missing in central");
        assert!(unknown <= self.unanswered.load(Ordering::Relaxed), "{unknown} sessions nobody registered");
    }
}
