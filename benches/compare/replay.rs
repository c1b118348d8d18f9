//! Target 4: the rate of pushing a backlog to central, compared with COPY into the same table with the same indexes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::central::{central, number};
use crate::client::{HttpConnection, heartbeat};
use crate::report::{Goal, Report, Unit};
use crate::stats::median;
use crate::{Scale, fixtures};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop, binary};
use testkit::proxy::{Mode, Proxy};

/// The delay each way; the round trip is twice that.
const DELAY: Duration = Duration::from_millis(10);

pub fn measure(scale: &Scale, report: &mut Report) {
    let rows = scale.of(50_000, 2_000);
    let (mut new, mut changed, mut distant, mut copies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let server = central(&["central", "copied"], &[]);
    let proxy = Proxy::to_socket(&server.socket());
    for _ in 0..3 {
        server.psql("central", "TRUNCATE supervisor_sessions, sessiond_hosts CASCADE; CHECKPOINT");
        let mut host = Host::new("replaying");
        let ids = fixtures::register(&host.state_dir(), "replaying", rows);
        new.push(rows as f64 / pushed(&mut host, &server.url("central")));
        copies.push(rows as f64 / copy(&server));
        fixtures::heartbeat(&host.state_dir(), &ids);
        changed.push(rows as f64 / pushed(&mut host, &server.url("central")));
        fixtures::heartbeat(&host.state_dir(), &ids);
        proxy.set(Mode::Delay(DELAY));
        distant.push(rows as f64 / pushed(&mut host, &proxy.url("postgres", "central")));
        proxy.set(Mode::Pass);
    }
    let copied = ("COPY", median(copies));
    report.ratio(4, "replay of new sessions, rows", Unit::Rate, median(new), copied, Goal::AtLeast(0.5));
    report.ratio(4, "replay of changed sessions, rows", Unit::Rate, median(changed), copied, Goal::AtLeast(0.4));
    let far = median(distant);
    report.ratio(4, "the same over 20 ms of round trip, rows", Unit::Rate, far, copied, Goal::AtLeast(0.3));
    drop(proxy);
    buffered_heartbeats(scale, report);
}

/// Starts the daemon with a backlog, and stops it when everything is synced. Returns the seconds since central was
/// configured.
pub fn pushed(host: &mut Host, url: &str) -> f64 {
    host.configure("");
    host.start();
    assert_eq!(host.status()["central"]["configured"], false);
    host.configure(&format!("[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"60s\"\n"));
    let began = Instant::now();
    host.signal(rustix::process::Signal::HUP);
    central_has_all(host, Duration::from_secs(300));
    let took = began.elapsed().as_secs_f64();
    host.await_central("connected");
    assert_eq!(host.status()["backlog"]["sessions"], 0);
    assert_eq!(host.stop(), Some(0), "{}", host.log());
    took
}

/// Reads the store directly: `status` counts all sessions, which for tens of thousands costs the daemon more than the
/// push that is measured.
fn central_has_all(host: &Host, within: Duration) {
    let store = rusqlite::Connection::open_with_flags(
        host.state_dir().join("sessiond.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .expect("a store");
    let mut waits = store
        .prepare("SELECT EXISTS (SELECT 1 FROM sessions WHERE unsynced_since IS NOT NULL)")
        .expect("a question to the store");
    eventually("central has everything", within, || {
        let waits: bool = waits.query_row([], |row| row.get(0)).expect("an answer of the store");
        (!waits).then_some(())
    });
}

/// Seconds that psql takes to COPY central's rows into an empty table of the same schema.
fn copy(server: &Server) -> f64 {
    const COLUMNS: &str = "instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, \
        created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, resumed_from, working_dir";
    let file = tempfile::NamedTempFile::new().expect("a file");
    let rows = server.psql("central", &format!("COPY (SELECT {COLUMNS} FROM supervisor_sessions) TO STDOUT"));
    std::fs::write(&file, rows + "\n").expect("it can be written");
    server.psql("copied", "TRUNCATE supervisor_sessions CASCADE; CHECKPOINT");
    let mut psql = Command::new(binary("psql"));
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "copied", "-h"]).arg(server.folder());
    psql.args(["-p", &server.port().to_string(), "-c", &format!("COPY supervisor_sessions ({COLUMNS}) FROM STDIN")]);
    psql.stdin(std::fs::File::open(&file).expect("it is there")).stdout(Stdio::null());
    let began = Instant::now();
    assert!(psql.status().expect("psql can be run").success());
    began.elapsed().as_secs_f64()
}

/// Many heartbeats of few sessions are buffered as few rows.
fn buffered_heartbeats(scale: &Scale, report: &mut Report) {
    const SESSIONS: u64 = 1000;
    const CLIENTS: u64 = 50;
    let beats = scale.of(1_000_000, 20_000);
    let mut server = central(&["central"], &[]);
    let host = Host::with_central("buffering", &server.url("central"));
    let ids = fixtures::register(&host.state_dir(), "buffering", SESSIONS);
    let host = host.started();
    central_has_all(&host, Duration::from_secs(60));
    server.stop(Stop::Fast);
    host.await_central("unreachable");
    std::thread::scope(|scope| {
        for own in ids.chunks((SESSIONS / CLIENTS) as usize) {
            let mut connection = HttpConnection::open(&host.socket());
            scope.spawn(move || {
                for number in 0..beats / CLIENTS {
                    connection.send(&heartbeat(&own[(number % own.len() as u64) as usize], number));
                }
            });
        }
    });
    server.resume();
    let began = Instant::now();
    host.ask("POST", "/v1/sync", Some(&json!({})));
    central_has_all(&host, Duration::from_secs(60));
    let took = began.elapsed().as_secs_f64();
    let (_, list) = host.ask("GET", "/v1/sessions", None);
    let expected: u64 =
        list["instances"].as_array().expect("a list").iter().map(|s| s["context_percent"].as_u64().unwrap_or(0)).sum();
    let sum = number(&server, "central", "SELECT sum(context_percent) FROM supervisor_sessions");
    assert_eq!(sum, expected as f64, "central is right");
    let what = format!("{beats} heartbeats over {SESSIONS} sessions, buffered: central is right after");
    report.number(4, &what, took, Unit::Time, Goal::AtMost(1.0));
}
