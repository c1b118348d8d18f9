//! Target 5: what a heartbeat costs central, counted by Postgres itself.

use std::thread;
use std::time::{Duration, Instant};

use crate::central::{central, number};
use crate::client::{Kept, heartbeat};
use crate::report::{Report, Unit, Wanted};
use crate::support::daemon::Host;
use crate::support::postgres::Server;
use crate::{Scale, filling};

const SESSIONS: u64 = 50;

/// What Postgres has counted. Only transactions that write have a number of their own.
struct Counted {
    writing: f64,
    all: f64,
    updated: f64,
    in_place: f64,
    log: f64,
}

impl Counted {
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
    let ids = filling::register(&host.state_dir(), "beating", SESSIONS);
    let host = host.started();
    host.await_synced();
    let mut kept = Kept::to(&host.socket());
    // The first round brings everything into the step that it then keeps.
    signs_of_life(&mut kept, &ids, interval);
    let began = Counted::now(&server);
    signs_of_life(&mut kept, &ids, interval);
    signs_of_life(&mut kept, &ids, interval);
    let ended = Counted::now(&server);
    drop(host);
    tell(&began, &ended, 2.0, &server, report);

    let began = Counted::now(&server);
    for id in &ids {
        server.psql(
            "central",
            &format!("UPDATE supervisor_sessions SET last_heartbeat = now() WHERE instance_id = '{id}'"),
        );
    }
    let ended = Counted::now(&server);
    let log = (ended.log - began.log) / SESSIONS as f64;
    report.number(
        5,
        "  a client that writes each by itself: transactions",
        SESSIONS as f64,
        Unit::Count,
        Wanted::Nothing,
    );
    report.number(5, "  and log (WAL) of a heartbeat", log, Unit::Bytes, Wanted::Nothing);
}

/// One of each session, evenly over an interval, as agents at work give them.
fn signs_of_life(kept: &mut Kept, ids: &[String], interval: Duration) {
    let began = Instant::now();
    for (number, id) in (0u32..).zip(ids) {
        thread::sleep((interval * number / ids.len() as u32).saturating_sub(began.elapsed()));
        kept.ask(&heartbeat(id, 42));
    }
    thread::sleep(interval.saturating_sub(began.elapsed()));
}

fn tell(began: &Counted, ended: &Counted, intervals: f64, server: &Server, report: &mut Report) {
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'supervisor_sessions'::regclass";
    let indexes = number(server, "central", indexes);
    let per_interval = |of: fn(&Counted) -> f64| (of(ended) - of(began)) / intervals;
    let rows = per_interval(|c| c.updated);
    let moved = rows - per_interval(|c| c.in_place);
    let mut tell = |what: &str, value, unit| report.number(5, what, value, unit, Wanted::Nothing);
    tell("50 sessions, one interval: transactions that write", per_interval(|c| c.writing), Unit::Count);
    tell("  all transactions", per_interval(|c| c.all), Unit::Count);
    tell("  rows written", rows, Unit::Count);
    tell("  index entries written for a row", moved / rows * indexes, Unit::Count);
    tell("  log (WAL) of a heartbeat", per_interval(|c| c.log) / SESSIONS as f64, Unit::Bytes);
}
