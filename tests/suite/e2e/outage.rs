//! Three machines work through an outage of central, and every row is correct afterwards.

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use testkit::daemon::Host;
use testkit::postgres::{NULL, Server, Stop};

const MACHINES: [&str; 3] = ["odin3", "odin4", "laptop"];
const SESSIONS: usize = 100;
const HEARTBEATS: usize = 12;
const CLOSED: usize = 10;

/// What a row of central has to say, as the clients know it.
#[derive(Clone, Debug)]
struct Expected {
    machine: &'static str,
    context: u64,
    epic: Option<String>,
    closed: bool,
    /// When the last change was acknowledged: microseconds since 1970.
    before: i64,
    after: i64,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// A central as the earlier services left it, in a time zone of its own, with an old client's rows,
/// and then brought up to date by `sessiond migrate`.
fn old_central(zone: &str) -> Server {
    let server = Server::start(&[&format!("timezone={zone}")]);
    server.create("central");
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central");
    server.psql_file("central", &migrations.join("1769700000000_session_registry.sql"));
    server.psql_file("central", &migrations.join("1769950000000_add_host_machine.sql"));
    server.psql(
        "central",
        "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, last_heartbeat, created_at) \
         VALUES ('old-PS-aaaaaa', 'old', 'PS', 'odin3', now() - interval '10 minutes', now() - interval '1 hour')",
    );
    server
}

fn hosts(url: &str) -> Vec<Host> {
    MACHINES.iter().map(|machine| Host::with_central(machine, url).started()).collect()
}

/// Registers sessions, sends heartbeats, closes some; answers what central will have to say of them.
fn a_busy_hour(host: &Host, machine: &'static str) -> HashMap<String, Expected> {
    let mut expected = HashMap::new();
    for number in 0..SESSIONS {
        let before = now();
        let (status, session) = host.ask("POST", "/v1/sessions", Some(&json!({"project": format!("p{}", number % 7)})));
        assert_eq!(status, 201, "{session}");
        let id = session["instance_id"].as_str().unwrap().to_owned();
        expected.insert(id, Expected { machine, context: 0, epic: None, closed: false, before, after: now() });
    }
    for round in 1..=HEARTBEATS {
        for (number, (id, row)) in expected.iter_mut().enumerate() {
            let (context, epic) = ((number + round) as u64 % 101, format!("{round:03}"));
            let mut body = json!({"context_percent": context, "current_epic": epic});
            row.epic = Some(epic);
            if round == HEARTBEATS && number % 5 == 0 {
                body["current_epic"] = json!(null);
                row.epic = None;
            }
            row.before = now();
            let (status, answer) = host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&body));
            assert_eq!(status, 200, "{answer}");
            (row.context, row.after) = (context, now());
        }
    }
    for (id, row) in expected.iter_mut().take(CLOSED) {
        assert_eq!(host.ask("POST", &format!("/v1/sessions/{id}/close"), None).0, 200);
        row.closed = true;
    }
    expected
}

/// All three hosts at once; the laptop's daemon is killed in the middle of it all and started again.
fn everybody_works(hosts: &mut [Host]) -> HashMap<String, Expected> {
    let expected = thread::scope(|scope| {
        let work: Vec<_> =
            hosts.iter().zip(MACHINES).map(|(host, machine)| scope.spawn(move || a_busy_hour(host, machine))).collect();
        work.into_iter().flat_map(|work| work.join().unwrap()).collect::<HashMap<_, _>>()
    });
    hosts[2].kill();
    hosts[2].start();
    assert_eq!(expected.len(), MACHINES.len() * SESSIONS);
    expected
}

fn check(server: &Server, expected: &HashMap<String, Expected>, returned: i64) {
    let rows = server.psql(
        "central",
        "SELECT instance_id, host_machine, context_percent, current_epic, status, \
             (extract(epoch from last_heartbeat) * 1000000)::bigint, closed_at IS NOT NULL, \
             (extract(epoch from created_at) * 1000000)::bigint \
         FROM supervisor_sessions WHERE instance_id <> 'old-PS-aaaaaa'",
    );
    let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let want = &expected[row[0]];
        assert_eq!(row[1], want.machine, "{row:?}");
        assert_eq!(row[2], want.context.to_string(), "{row:?}");
        assert_eq!(row[3], want.epic.as_deref().unwrap_or(NULL), "{row:?}");
        assert_eq!((row[4] == "closed", row[6] == "t"), (want.closed, want.closed), "{row:?}");
        let heartbeat: i64 = row[5].parse().unwrap();
        assert!((want.before..=want.after).contains(&heartbeat), "{row:?} lies outside of {want:?}");
        assert!(heartbeat < returned, "{row:?} looks younger than central's return");
        assert!(row[7].parse::<i64>().unwrap() <= heartbeat, "{row:?}");
    }
}

fn check_views(server: &Server) {
    let machines = server.psql(
        "central",
        "SELECT host_machine, total_sessions, active_sessions + stale_sessions, closed_sessions, projects \
         FROM active_sessions_by_machine ORDER BY 1",
    );
    let projects = "p0, p1, p2, p3, p4, p5, p6";
    assert_eq!(
        machines,
        format!("laptop|100|90|10|{projects}\nodin3|101|91|10|old, {projects}\nodin4|100|90|10|{projects}")
    );
    let ages = server.psql(
        "central",
        "SELECT count(*), bool_and(abs(age_seconds - extract(epoch from now() - last_heartbeat)) <= 1), \
             bool_and(age_seconds BETWEEN 0 AND 700) FROM sessions_with_machine",
    );
    assert_eq!(ages, "301|t|t");
    let old = server.psql("central", "SELECT age_seconds / 60 FROM sessions_with_machine WHERE project = 'old'");
    assert_eq!(old, "10", "a row from before keeps its age");
}

fn an_old_client_still_stamps_its_own_heartbeat(server: &Server) {
    server.psql("central", "UPDATE supervisor_sessions SET context_percent = 77 WHERE instance_id = 'old-PS-aaaaaa'");
    let age = server.psql(
        "central",
        "SELECT extract(epoch from now() - last_heartbeat) < 5, status FROM supervisor_sessions WHERE project = 'old'",
    );
    assert_eq!(age, "t|active");
}

#[test]
fn no_row_is_lost_while_central_is_stopped() {
    let mut server = old_central("America/New_York");
    let url = server.url("central");
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    server.stop(Stop::Fast);
    let mut hosts = hosts(&url);
    let expected = everybody_works(&mut hosts);
    let status = hosts[0].await_central("unreachable");
    assert_eq!(status["backlog"]["sessions"], SESSIONS);
    assert!(status["central"]["last_error"].is_string(), "{status}");

    let returned = now();
    server.resume();
    hosts.iter().for_each(Host::await_synced);
    check(&server, &expected, returned);
    check_views(&server);
    an_old_client_still_stamps_its_own_heartbeat(&server);
}

#[test]
fn no_row_is_lost_while_central_hangs() {
    let server = old_central("Asia/Kolkata");
    let url = server.url("central");
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    let mut hosts = hosts(&url);
    hosts.iter().for_each(|host| drop(host.await_central("connected")));
    server.freeze();
    let expected = everybody_works(&mut hosts);
    hosts[0].await_central("unreachable");

    let returned = now();
    server.thaw();
    hosts.iter().for_each(Host::await_synced);
    check(&server, &expected, returned);
    check_views(&server);
    an_old_client_still_stamps_its_own_heartbeat(&server);
}

#[test]
fn rows_missing_from_a_restored_dump_are_pushed_again() {
    let mut server = old_central("Europe/Berlin");
    let url = server.url("central");
    Host::new("odin3").ok(&["migrate", "--central-url", &url]);
    let mut hosts = hosts(&url);
    hosts.iter().for_each(|host| drop(host.await_central("connected")));
    let dump = server.dump("central");
    let expected = everybody_works(&mut hosts);
    hosts.iter().for_each(Host::await_synced);

    // The machine with the database dies, and the database comes back as it was before the hour.
    server.stop(Stop::Kill);
    server.resume();
    server.restore("central", &dump);
    let returned = now();
    hosts.iter().for_each(|host| {
        testkit::eventually("what central lost is noticed", Duration::from_secs(60), || {
            host.ask("POST", "/v1/sync", None);
            host.log().contains("central lost what it had").then_some(())
        });
        host.await_synced();
    });
    check(&server, &expected, returned);
    check_views(&server);
}
