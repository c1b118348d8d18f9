//! Benchmarks of whole processes: the released daemon and its verbs, compared with lower bounds (floors) and with other
//! programs in the same run.
//!
//!     cargo bench --bench compare                     all parts; about twenty minutes
//!     cargo bench --bench compare -- latency size     only these parts
//!     cargo bench --bench compare -- fleet --hosts=1000   a fleet of this size, without growing by way of smaller ones
//!     cargo bench --bench compare -- --quick          a short run that tests the benchmark; its numbers mean nothing
//!     cargo bench --bench compare -- --write          writes table and plot to BENCHMARKS.md and benches/growth.svg
//!
//! It needs Postgres's programs, psql and curl, and no network. Durability is "full" on both sides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing of a program can be reached from outside")]

mod central;
mod client;
mod cost;
mod fixtures;
mod fleet;
mod floors;
mod growth;
mod latency;
mod processes;
mod replay;
mod report;
mod size;
mod stats;
mod svg;
mod throughput;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use report::Report;

/// A full run, or a quick one that only tests the benchmark.
pub struct Scale {
    quick: bool,
    /// The only size of a fleet that is measured; none: all of them.
    hosts: Option<usize>,
}

impl Scale {
    /// `full`, or `quick` in a quick run.
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Like `choose`, for counts.
    pub fn of(&self, full: u64, quick: u64) -> u64 {
        self.choose(full, quick)
    }

    /// Like `choose`, for durations.
    pub fn time(&self, full: Duration, quick: Duration) -> Duration {
        self.choose(full, quick)
    }
}

const PARTS: [&str; 8] = ["latency", "throughput", "processes", "replay", "cost", "size", "growth", "fleet"];

fn main() -> ExitCode {
    // Cargo adds --bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (options, parts): (Vec<_>, Vec<_>) = words.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    let hosts = options.iter().find_map(|option| option.strip_prefix("--hosts=")?.parse().ok());
    let is_known =
        |option: &str| ["--quick", "--write"].contains(&option) || option.starts_with("--hosts=") && hosts.is_some();
    let unknown = options.iter().find(|option| !is_known(option));
    if let Some(word) = unknown.or_else(|| parts.iter().find(|part| !PARTS.contains(part))) {
        eprintln!(
            "compare: there is no {word}; the parts are {}, the options --quick, --write and --hosts=N",
            PARTS.join(", ")
        );
        return ExitCode::from(2);
    }
    let scale = Scale { quick: options.contains(&"--quick"), hosts };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = options.contains(&"--write");
    let plot =
        if write { root.join("benches/growth.svg") } else { Path::new(env!("CARGO_TARGET_TMPDIR")).join("growth.svg") };
    let mut report = Report::default();
    for part in PARTS.into_iter().filter(|part| parts.is_empty() || parts.contains(part)) {
        match part {
            "latency" => latency::measure(&scale, &mut report),
            "throughput" => throughput::measure(&scale, &mut report),
            "processes" => processes::measure(&scale, &mut report),
            "replay" => replay::measure(&scale, &mut report),
            "cost" => cost::measure(&scale, &mut report),
            "size" => size::measure(&scale, &mut report),
            "growth" => growth::measure(&scale, &mut report, &plot),
            _ => fleet::measure(&scale, &mut report),
        }
    }
    if write && let Err(error) = report.write_into(&root.join("BENCHMARKS.md")) {
        eprintln!("compare: the table could not be written: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
