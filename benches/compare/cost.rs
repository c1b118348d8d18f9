//! Target 5: the cost of a heartbeat for central, from Postgres's own counters.

use std::thread;
use std::time::{Duration, Instant};

use crate::central::{central, number};
use crate::client::{HttpConnection, heartbeat};
use crate::report::{Goal, Report, Unit};
use crate::{Scale, fixtures};
use testkit::daemon::Host;
use testkit::postgres::Server;

const SESSIONS: u64 = 50;

/// Postgres's counters. Only transactions that write are assigned an id, which counts them.
struct PostgresCounters {
    writing: f64,
    all: f64,
    updated: f64,
    in_place: f64,
    log: f64,
}

impl PostgresCounters {
    fn now(server: &Server) -> Self {
        let ask = |sql: &str| number(server, "central", sql);
        let table = |column: &str| {
            ask(&format!("SELECT {column} FROM pg_stat_user_tables WHERE relname = 'supervisor_sessions'"))
        };
        Self {
            writing: ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"),
            all: ask("SELECT xact_commit FROM pg_stat_database WHERE datname = 'central'"),
            updated: table("n_tup_upd"),
            in_place: table("n_tup_hot_upd"),
            log: ask("SELECT pg_current_wal_lsn() - '0/0'"),
        }
    }
}

pub fn measure(scale: &Scale, report: &mut Report) {
    let interval = scale.time(Duration::from_secs(30), Duration::from_secs(3));
    let server = central(&["central"], &["autovacuum=off", "full_page_writes=off"]);
    let host = Host::new("beating");
    host.configure(&format!(
        "[central]\nurl = \"{}\"\nheartbeat_interval = \"{}s\"\n",
        server.url("central"),
        interval.as_secs()
    ));
    let ids = fixtures::register(&host.state_dir(), "beating", SESSIONS);
    let host = host.started();
    host.await_synced();
    let mut connection = HttpConnection::open(&host.socket());
    // The first interval brings sync into a steady state.
    send_heartbeats(&mut connection, &ids, interval);
    let began = PostgresCounters::now(&server);
    send_heartbeats(&mut connection, &ids, interval);
    send_heartbeats(&mut connection, &ids, interval);
    let ended = PostgresCounters::now(&server);
    drop(host);
    report_costs(&began, &ended, 2.0, &server, report);

    let began = PostgresCounters::now(&server);
    for id in &ids {
        server.psql(
            "central",
            &format!("UPDATE supervisor_sessions SET last_heartbeat = now() WHERE instance_id = '{id}'"),
        );
    }
    let ended = PostgresCounters::now(&server);
    let log = (ended.log - began.log) / SESSIONS as f64;
    report.number(5, "  a client that writes each by itself: transactions", SESSIONS as f64, Unit::Count, Goal::None);
    report.number(5, "  and log (WAL) of a heartbeat", log, Unit::Bytes, Goal::None);
}

/// Sends one heartbeat of each session, evenly over an interval.
fn send_heartbeats(connection: &mut HttpConnection, ids: &[String], interval: Duration) {
    let began = Instant::now();
    for (number, id) in (0u32..).zip(ids) {
        thread::sleep((interval * number / ids.len() as u32).saturating_sub(began.elapsed()));
        connection.send(&heartbeat(id, 42));
    }
    thread::sleep(interval.saturating_sub(began.elapsed()));
}

fn report_costs(
    began: &PostgresCounters,
    ended: &PostgresCounters,
    intervals: f64,
    server: &Server,
    report: &mut Report,
) {
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'supervisor_sessions'::regclass";
    let indexes = number(server, "central", indexes);
    let per_interval = |of: fn(&PostgresCounters) -> f64| (of(ended) - of(began)) / intervals;
    let rows = per_interval(|c| c.updated);
    let moved = rows - per_interval(|c| c.in_place);
    let mut add = |what: &str, value, unit| report.number(5, what, value, unit, Goal::None);
    add("50 sessions, one interval: transactions that write", per_interval(|c| c.writing), Unit::Count);
    add("  all transactions", per_interval(|c| c.all), Unit::Count);
    add("  rows written", rows, Unit::Count);
    add("  index entries written for a row", moved / rows * indexes, Unit::Count);
    add("  log (WAL) of a heartbeat", per_interval(|c| c.log) / SESSIONS as f64, Unit::Bytes);
}
