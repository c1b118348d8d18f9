//! Writes rows of the past or of the mirror directly into the database of a daemon.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use serde_json::Value;

use testkit::daemon::Host;
use testkit::eventually;

/// The database of a host whose daemon has been started once.
pub struct Rows(Connection);

impl Rows {
    pub fn of(host: &Host) -> Self {
        let db = Connection::open(host.state_dir().join("sessiond.db")).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        Self(db)
    }

    /// The session fell silent so many seconds ago.
    pub fn silence(&self, id: &str, seconds: i64) {
        let silenced = self.0.execute(
            "UPDATE sessions SET status = 'stale', last_heartbeat = ?2 WHERE instance_id = ?1",
            params![id, ago(seconds)],
        );
        assert_eq!(silenced, Ok(1));
    }

    /// An event, command or checkpoint of so many seconds ago.
    pub fn record(&self, id: &str, kind: &str, record_type: &str, seconds: i64, body: &Value) {
        self.0
            .execute(
                "INSERT INTO records (record_id, instance_id, kind, type, at, body) VALUES (randomblob(16), ?, ?, ?, ?, ?)",
                params![id, kind, record_type, ago(seconds), body.to_string()],
            )
            .unwrap();
    }

    /// A session of another machine, silent for so many seconds.
    pub fn mirror(&self, id: &str, machine: &str, epic: &str, seconds: i64) {
        let project = id.rsplitn(3, '-').last().unwrap();
        self.0
            .execute(
                "INSERT INTO sessions (instance_id, project, instance_type, status, context_percent, current_epic, \
                     last_heartbeat, created_at, host_machine, claude_session_uuid, working_dir, owner_uid, version, \
                     mirror_generation) \
                 VALUES (?, ?, 'PS', 'stale', 42, ?, ?5, ?5, ?4, 'c0ffee', '/srv/my dir', 0, 0, 1)",
                params![id, project, epic, machine, ago(seconds)],
            )
            .unwrap();
    }

    /// When central last reported a machine's daemon, and what.
    pub fn host_seen(&self, machine: &str, seconds: i64, mirrored: i64) {
        self.0
            .execute(
                "INSERT OR REPLACE INTO hosts (host_machine, last_seen) VALUES (?, ?)",
                params![machine, ago(seconds)],
            )
            .unwrap();
        self.0
            .execute("INSERT OR REPLACE INTO metadata (name, value) VALUES ('mirror_as_of', ?)", [ago(mirrored)])
            .unwrap();
    }
}

fn ago(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64 - seconds * 1_000_000
}

/// A session whose process has died, so that it can be resumed at once.
pub fn abandoned(host: &Host, project: &str, epic: &str) -> String {
    abandoned_with(host, &["--project", project, "--epic", epic])
}

/// The same, registered with these words.
pub fn abandoned_with(host: &Host, words: &[&str]) -> String {
    let mut process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = process.id().to_string();
    let id = host.ok(&[&["register", "--pid", &pid, "--id-only"], words].concat());
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("the session is stale", std::time::Duration::from_secs(30), || {
        (host.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"] == "stale").then_some(())
    });
    id
}
