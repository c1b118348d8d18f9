//! Support shared by the tests and benchmarks: daemons, servers, faults and load. It runs the program and does not link the
//! library, so that one build of it serves the library's own tests, the suite and the benchmarks.

pub mod agent;
pub mod chronicle;
pub mod clients;
pub mod daemon;
pub mod history;
pub mod load;
pub mod machine;
pub mod network;
pub mod patroni;
pub mod pgbouncer;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod python;
pub mod random;
pub mod skip;
pub mod tmux;
pub mod volume;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for what has to happen soon, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The repository's root folder.
pub fn repository_root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder of the running test's build, as `target/debug`.
fn build_folder() -> PathBuf {
    let program = std::env::current_exe().expect("the path of the test program");
    program.ancestors().nth(2).expect("a program in target/PROFILE/deps").to_owned()
}

/// The folder that cargo keeps for files of tests, `target/tmp`.
pub fn target_tmp() -> PathBuf {
    let tmp = build_folder().with_file_name("tmp");
    std::fs::create_dir_all(&tmp).expect("the target folder is writable");
    tmp
}

/// The program that is tested. Cargo builds it into the same folder as the tests.
pub fn program() -> PathBuf {
    build_folder().join("sessiond")
}

/// The SQL file that creates the tables of the earlier services.
pub fn legacy_history() -> PathBuf {
    data("legacy_history.sql")
}

/// The SQL file that adds to them what a newer installation has.
pub fn newer_legacy_history() -> PathBuf {
    data("legacy_history_newer.sql")
}

/// The SQL file that creates the tables of the earlier services in partitions of another schema.
pub fn partitioned() -> PathBuf {
    data("partitioned.sql")
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Waits until `check` returns a value, and panics after `within`. `what` describes the condition.
pub fn eventually<T>(what: &str, within: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "within {within:?} this never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How often a campaign repeats: `short`, or `long` under `tests/run --long`.
pub fn campaign(short: u64, long: u64) -> u64 {
    if std::env::var_os("SESSIOND_TEST_LONG").is_some() { long } else { short }
}

/// A database named `central` with the schema of the earlier services only.
pub fn old_central(settings: &[&str]) -> postgres::Server {
    let server = postgres::Server::start(settings);
    server.create("central");
    let migrations = repository_root().join("migrations/central");
    server.psql_file("central", &migrations.join("1769700000000_session_registry.sql"));
    server.psql_file("central", &migrations.join("1769950000000_add_host_machine.sql"));
    server.psql_file("central", &legacy_history());
    server
}
