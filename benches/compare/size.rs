//! Target 6: how large the program, its memory and its store are, and what it costs to be there.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::central::central;
use crate::client::{Kept, get};
use crate::report::{Report, Unit, Wanted};
use crate::stats::median;
use crate::support::daemon::Host;
use crate::{Scale, filling};

const MIB: f64 = 1_048_576.0;

pub fn measure(scale: &Scale, report: &mut Report) {
    let binary = fs::metadata(env!("CARGO_BIN_EXE_sessiond")).expect("the program").len() as f64;
    report.number(6, "the program, stripped", binary, Unit::Bytes, Wanted::AtMost(10.0 * MIB));
    idle(scale, report);
    full(scale, report);
}

/// A hundred sessions whose processes are watched, central connected, and nobody asks anything.
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
    let process = Process::of(&host);
    report.number(6, "memory (RSS) with 100 live sessions", process.memory(), Unit::Bytes, Wanted::AtMost(12.0 * MIB));
    let lasts = scale.time(Duration::from_secs(60), Duration::from_secs(3));
    let (cpu, wakes, began) = (process.cpu(), process.wakes(), Instant::now());
    thread::sleep(lasts);
    let seconds = began.elapsed().as_secs_f64();
    let share = (process.cpu() - cpu) / seconds;
    report.number(6, "CPU, idle, 100 sessions watched, central connected", share, Unit::Share, Wanted::AtMost(1e-3));
    report.number(6, "  wake-ups a second", more(&wakes, &process.wakes()) / seconds, Unit::Count, Wanted::Nothing);
}

fn full(scale: &Scale, report: &mut Report) {
    let mut host = Host::new("full");
    let own = scale.of(10_000, 1_000);
    filling::register(&host.state_dir(), "full", own);
    let bytes = above_payload(&host.state_dir().join("sessiond.db"), own);
    report.number(6, "the store, for a session, above its payload", bytes, Unit::Bytes, Wanted::AtMost(400.0));

    let what = format!("ready to answer with {own} sessions");
    report.number(6, &what, ready(&mut host), Unit::Time, Wanted::AtMost(20e-3));
    host.stop();
    filling::mirror(&host.state_dir(), scale.of(100_000, 5_000));
    host.start();
    let process = Process::of(&host);
    Kept::to(&host.socket()).ask(&get("/v1/status"));
    let memory = process.memory();
    report.number(
        6,
        "memory (RSS) with 10,000 sessions, 100,000 mirrored",
        memory,
        Unit::Bytes,
        Wanted::AtMost(24.0 * MIB),
    );
    let mut kept = Kept::to(&host.socket());
    kept.ask(&get("/v1/sessions"));
    // Answered only once the list has gone.
    kept.ask(&get("/v1/identity"));
    report.number(6, "  and after a list of all of them", process.memory(), Unit::Bytes, Wanted::Nothing);
}

/// Seconds from the start of the process to the first connection that is taken; the middle of some starts.
pub fn ready(host: &mut Host) -> f64 {
    let starts = (0..5).map(|_| {
        let began = Instant::now();
        host.launch();
        while UnixStream::connect(host.socket()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", host.log());
            thread::sleep(Duration::from_micros(200));
        }
        Kept::to(&host.socket()).ask(&get("/v1/identity"));
        let took = began.elapsed().as_secs_f64();
        host.stop();
        took
    });
    let ready = median(starts.collect());
    host.start();
    ready
}

/// Bytes of the database for each session, but for what the session itself says.
fn above_payload(database: &Path, sessions: u64) -> f64 {
    let size = fs::metadata(database).expect("a store").len();
    let payload = "SELECT sum(length(instance_id) + length(project) + length(instance_type) + length(status) + 1 \
        + coalesce(length(current_epic), 0) + 24 + length(host_machine) + coalesce(length(claude_session_uuid), 0) \
        + coalesce(length(claude_session_path), 0) + coalesce(length(working_dir), 0)) FROM sessions";
    let store = Connection::open(database).expect("a store");
    let payload: i64 = store.query_row(payload, [], |row| row.get(0)).expect("a sum");
    (size as f64 - payload as f64) / sessions as f64
}

/// A process, as the kernel counts it.
struct Process(String);

impl Process {
    fn of(host: &Host) -> Self {
        Self(format!("/proc/{}", host.pid().as_raw_nonzero()))
    }

    /// Bytes that lie in memory.
    fn memory(&self) -> f64 {
        field(&format!("{}/status", self.0), "VmRSS:") * 1024.0
    }

    /// Seconds on a processor, of all threads, those that have ended too.
    fn cpu(&self) -> f64 {
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("{}/stat", self.0)).unwrap_or_default();
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
    }

    /// How often each thread that runs now has woken up.
    fn wakes(&self) -> HashMap<String, f64> {
        let threads = fs::read_dir(format!("{}/task", self.0)).expect("threads").flatten();
        let paths = threads.map(|thread| thread.path().to_string_lossy().into_owned());
        paths.map(|thread| (thread.clone(), field(&format!("{thread}/status"), "voluntary_ctxt_switches:"))).collect()
    }
}

/// What is there in `after` that was not in `before`; of threads that have ended since nobody knows.
fn more(before: &HashMap<String, f64>, after: &HashMap<String, f64>) -> f64 {
    after.iter().map(|(thread, wakes)| wakes - before.get(thread).unwrap_or(&0.0)).filter(|more| !more.is_nan()).sum()
}

fn field(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}
