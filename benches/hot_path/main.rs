//! Counts the instructions of the hot paths under callgrind, and fails if one grew by more than a tenth.
//!
//!     cargo test --bench hot_path                 compares with benches/hot_path/baseline.txt
//!     cargo test --bench hot_path -- --update     rewrites that file; give the reason for growth in the commit
//!
//! The tests' profile is counted, because it is built anyway: its counts are larger than those of a release, but grow
//! with them. Each path is counted with no runs and with many; the difference is the cost of the runs. Clock and random
//! numbers are fixed, and threads do not run concurrently, so that the counts are reproducible.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing of a program can be reached from outside")]

mod baseline;
mod paths;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use baseline::Baseline;

/// The growth that is accepted.
const TOLERANCE: f64 = 1.1;
const RUNS: u64 = 200;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--count", path, runs] => {
            paths::run(path, runs.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        _ if words.contains(&"--bench") => {
            println!("hot_path: counted in the tests' profile: cargo test --bench hot_path");
            ExitCode::SUCCESS
        }
        // A test filter that does not match this benchmark.
        _ if words.iter().any(|word| !word.starts_with('-') && !"hot_path".contains(word)) => ExitCode::SUCCESS,
        _ => check(words.contains(&"--update")),
    }
}

fn check(update: bool) -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/hot_path/baseline.txt");
    let here = Baseline::current_platform();
    let known = Baseline::read(&file);
    if let Err(why) = can_run(&known, &here, update) {
        testkit::skip::skip("hot_path", why);
        return ExitCode::SUCCESS;
    }
    let mut found = Baseline::new(here);
    let mut grown = 0;
    for path in paths::ALL {
        let count = instructions(path, RUNS).saturating_sub(instructions(path, 0)) / RUNS;
        let before = known.count(path);
        let growth = before.map_or(1.0, |before| count as f64 / before as f64);
        let verdict = if growth > TOLERANCE { "GREW" } else { "ok" };
        println!("test hot_path::{path} ... {count} instructions, {:+.1} % ... {verdict}", (growth - 1.0) * 100.0);
        grown += usize::from(growth > TOLERANCE);
        found.add(path, count);
    }
    if update {
        found.write(&file).expect("the baseline can be written");
        return ExitCode::SUCCESS;
    }
    if grown > 0 {
        println!(
            "hot_path: find the cause with callgrind_annotate {}; if the growth is justified, run with --update",
            profile("PATH").display()
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn can_run(known: &Baseline, here: &str, update: bool) -> Result<(), String> {
    if !update && !known.is_of_platform(here) {
        return Err(format!("a baseline of {here} (the one here is of {}); write one with --update", known.platform()));
    }
    match Command::new("valgrind").arg("--version").stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err("valgrind".into()),
    }
}

/// The instructions of a process with this many runs.
fn instructions(path: &str, runs: u64) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--error-exitcode=1"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile(path).display()));
    valgrind.arg(std::env::current_exe().expect("this program")).args(["--count", path, &runs.to_string()]);
    let output = valgrind.stdin(Stdio::null()).output().expect("valgrind can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path}: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or_else(|| panic!("no count: {said}"))
}

/// Callgrind's output file for a path.
fn profile(path: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{path}"))
}
