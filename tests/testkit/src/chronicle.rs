//! A client that records the acknowledged history of one session and compares central with it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::run_beside;
use crate::daemon::Host;
use crate::eventually;
use crate::postgres::{Behind, Server};

/// The load is to be there, not to keep the machine from the tests beside it.
const PAUSE: Duration = Duration::from_millis(2);

/// What was sent, numbered, and which of it was acknowledged.
#[derive(Default)]
struct Told {
    sent: u64,
    acknowledged: BTreeSet<u64>,
}

pub struct Chronicle {
    pub session: String,
    told: Mutex<Told>,
}

impl Chronicle {
    pub fn of_a_new_session(host: &Host) -> Self {
        let session = host.ok(&["register", "--project", "saga", "--id-only"]);
        Self { session, told: Mutex::default() }
    }

    /// Has things happen for as long as `fault` takes.
    pub fn during<T>(&self, host: &Host, fault: impl FnOnce() -> T) -> T {
        let step = |(): &mut ()| {
            self.append(host);
            thread::sleep(PAUSE);
        };
        run_beside(vec![()], step, fault).0
    }

    /// One thing happens: mostly an event, now and then a command or a checkpoint.
    pub fn append(&self, host: &Host) {
        let mut told = self.told.lock().unwrap();
        told.sent += 1;
        let number = told.sent;
        let (route, body) = match number % 10 {
            3 | 7 => ("commands", json!({"action": number.to_string(), "parameters": {"token": "hunter2"}})),
            9 => ("checkpoints", json!({"checkpoint_type": "manual", "work_state": {"n": number}})),
            _ => ("events", json!({"event_type": "epic_started", "event_data": {"n": number, "password": "hunter2"}})),
        };
        if let Some((status, answer)) =
            host.try_ask("POST", &format!("/v1/sessions/{}/{route}", self.session), Some(&body))
        {
            assert!(status == 201 || status >= 500, "{status} {answer}");
            if status == 201 {
                told.acknowledged.insert(number);
            }
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.told.lock().unwrap().acknowledged.len()
    }

    /// Central has all that was acknowledged, each once and in order, and no secret.
    pub fn check(&self, server: &Server) {
        let told = self.told.lock().unwrap();
        let mut found = BTreeSet::new();
        for (table, number, order) in [
            ("event_store", "(event_data->>'n')::bigint", "sequence_num"),
            ("command_log", "action::bigint", "id"),
            ("checkpoints", "(work_state->>'n')::bigint", "sequence_num"),
        ] {
            let ours = format!("FROM {table} WHERE instance_id = '{}' AND {number} IS NOT NULL", self.session);
            let rows = server.psql("central", &format!("SELECT {number} {ours} ORDER BY {order}"));
            let numbers: Vec<u64> = rows.lines().map(|line| line.parse().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{table} is not in order, or has something twice: {numbers:?}");
            found.extend(numbers);
            assert_eq!(
                server.psql("central", &format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%hunter2%'")),
                "0"
            );
        }
        let missing: Vec<_> = told.acknowledged.difference(&found).collect();
        assert!(missing.is_empty(), "acknowledged, and not in central: {missing:?}");
        assert!(found.last().is_none_or(|last| *last <= told.sent));
        let numbers =
            "SELECT count(*) = count(DISTINCT sequence_num) AND count(*) = max(sequence_num) FROM event_store";
        assert_eq!(server.psql("central", &format!("{numbers} WHERE instance_id = '{}'", self.session)), "t");
    }
}

/// A client of the earlier services that adds events to a session all the time, until the table `stopped` exists.
pub fn busy_client(server: &Server, session: &str) -> Behind {
    server.psql_behind(
        "central",
        &format!(
            "DO $$ BEGIN LOOP \
                 BEGIN INSERT INTO event_store (event_id, instance_id, event_type, sequence_num) \
                     SELECT gen_random_uuid(), instance_id, 'test_passed', \
                         (SELECT coalesce(max(sequence_num), 0) + 1 FROM event_store WHERE instance_id = '{session}') \
                     FROM supervisor_sessions WHERE instance_id = '{session}'; \
                 EXCEPTION WHEN unique_violation THEN NULL; END; \
                 COMMIT; \
                 PERFORM pg_sleep(0.001); \
                 EXIT WHEN to_regclass('stopped') IS NOT NULL; \
             END LOOP; END $$"
        ),
    )
}

/// Has the restless clients come to an end.
pub fn stop_clients(server: &Server) {
    server.psql("central", "CREATE TABLE stopped ()");
    eventually("the other clients have stopped", Duration::from_secs(30), || {
        let restless = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO $$ BEGIN LOOP%' AND state <> 'idle'";
        (server.psql("central", restless) == "0").then_some(())
    });
    assert_ne!(server.psql("central", "SELECT count(*) FROM event_store WHERE event_type = 'test_passed'"), "0");
}

/// One answer of a list of history.
pub fn listed(host: &Host, session: &str, route: &str) -> Vec<Value> {
    let (status, answer) = host.ask("GET", &format!("/v1/sessions/{session}/{route}"), None);
    assert_eq!(status, 200, "{answer}");
    let kind = route.split('?').next().unwrap();
    answer[kind].as_array().unwrap().clone()
}
