//! Target 6: the size of the program, its memory and its store, and its cost while idle.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::central::central;
use crate::client::{HttpConnection, get};
use crate::report::{Goal, Report, Unit};
use crate::stats::median;
use crate::{Scale, fixtures};
use testkit::daemon::Host;

const MIB: f64 = 1_048_576.0;

pub fn measure(scale: &Scale, report: &mut Report) {
    let binary = fs::metadata(env!("CARGO_BIN_EXE_sessiond")).expect("the program").len() as f64;
    report.number(6, "the program, stripped", binary, Unit::Bytes, Goal::AtMost(10.0 * MIB));
    idle(scale, report);
    full(scale, report);
}

/// A hundred sessions whose processes are watched, central connected, and no requests.
fn idle(scale: &Scale, report: &mut Report) {
    let server = central(&["central"], &[]);
    let host = Host::new("idle");
    host.configure(&format!("[central]\nurl = \"{}\"\n", server.url("central")));
    let host = host.started();
    let pid = std::process::id().to_string();
    for number in 0..100 {
        let project = format!("project{number}");
        host.ok(&["register", "--project", &project, "--pid", &pid, "--id-only"]);
    }
    host.await_synced();
    let process = ProcessStats::of(&host);
    report.number(6, "memory (RSS) with 100 live sessions", process.memory(), Unit::Bytes, Goal::AtMost(12.0 * MIB));
    let lasts = scale.time(Duration::from_secs(60), Duration::from_secs(3));
    let (cpu, wakes, began) = (process.cpu(), process.wakes(), Instant::now());
    thread::sleep(lasts);
    let seconds = began.elapsed().as_secs_f64();
    let share = (process.cpu() - cpu) / seconds;
    report.number(6, "CPU, idle, 100 sessions watched, central connected", share, Unit::Share, Goal::AtMost(1e-3));
    report.number(6, "  wake-ups a second", increase(&wakes, &process.wakes()) / seconds, Unit::Count, Goal::None);
}

fn full(scale: &Scale, report: &mut Report) {
    let mut host = Host::new("full");
    let own = scale.of(10_000, 1_000);
    fixtures::register(&host.state_dir(), "full", own);
    let bytes = above_payload(&host.state_dir().join("sessiond.db"), own);
    report.number(6, "the store, for a session, above its payload", bytes, Unit::Bytes, Goal::AtMost(400.0));

    let what = format!("ready to answer with {own} sessions");
    report.number(6, &what, ready(&mut host), Unit::Time, Goal::AtMost(20e-3));
    host.stop();
    fixtures::mirror(&host.state_dir(), scale.of(100_000, 5_000));
    host.start();
    let process = ProcessStats::of(&host);
    HttpConnection::open(&host.socket()).send(&get("/v1/status"));
    let memory = process.memory();
    report.number(
        6,
        "memory (RSS) with 10,000 sessions, 100,000 mirrored",
        memory,
        Unit::Bytes,
        Goal::AtMost(24.0 * MIB),
    );
    let mut connection = HttpConnection::open(&host.socket());
    connection.send(&get("/v1/sessions"));
    // Its response comes only after the list's memory is freed.
    connection.send(&get("/v1/identity"));
    report.number(6, "  and after a list of all of them", process.memory(), Unit::Bytes, Goal::None);
}

/// Seconds from the start of the process to its first response; the median of five starts.
pub fn ready(host: &mut Host) -> f64 {
    let starts = (0..5).map(|_| {
        let began = Instant::now();
        host.launch();
        while UnixStream::connect(host.socket()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", host.log());
            thread::sleep(Duration::from_micros(200));
        }
        HttpConnection::open(&host.socket()).send(&get("/v1/identity"));
        let took = began.elapsed().as_secs_f64();
        host.stop();
        took
    });
    let ready = median(starts.collect());
    host.start();
    ready
}

/// Bytes of the database for each session, without the session's own values.
fn above_payload(database: &Path, sessions: u64) -> f64 {
    let size = fs::metadata(database).expect("a store").len();
    let payload = "SELECT sum(length(instance_id) + length(project) + length(instance_type) + length(status) + 1 \
        + coalesce(length(current_epic), 0) + 24 + length(host_machine) + coalesce(length(claude_session_uuid), 0) \
        + coalesce(length(claude_session_path), 0) + coalesce(length(working_dir), 0)) FROM sessions";
    let store = Connection::open(database).expect("a store");
    let payload: i64 = store.query_row(payload, [], |row| row.get(0)).expect("a sum");
    (size as f64 - payload as f64) / sessions as f64
}

/// The kernel's statistics of a process.
struct ProcessStats(String);

impl ProcessStats {
    fn of(host: &Host) -> Self {
        Self(format!("/proc/{}", host.pid().as_raw_nonzero()))
    }

    /// Resident memory in bytes.
    fn memory(&self) -> f64 {
        field(&format!("{}/status", self.0), "VmRSS:") * 1024.0
    }

    /// CPU seconds of all threads, including ended ones.
    fn cpu(&self) -> f64 {
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("{}/stat", self.0)).unwrap_or_default();
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
    }

    /// The number of wake-ups of each present thread.
    fn wakes(&self) -> HashMap<String, f64> {
        let threads = fs::read_dir(format!("{}/task", self.0)).expect("threads").flatten();
        let paths = threads.map(|thread| thread.path().to_string_lossy().into_owned());
        paths.map(|thread| (thread.clone(), field(&format!("{thread}/status"), "voluntary_ctxt_switches:"))).collect()
    }
}

/// The increase from `before` to `after`. Threads that have ended in between are not counted.
fn increase(before: &HashMap<String, f64>, after: &HashMap<String, f64>) -> f64 {
    after.iter().map(|(thread, wakes)| wakes - before.get(thread).unwrap_or(&0.0)).filter(|more| !more.is_nan()).sum()
}

fn field(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}
