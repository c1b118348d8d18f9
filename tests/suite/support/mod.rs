//! Shared support of the tests.

pub mod agent;
pub mod chronicle;
pub mod daemon;
pub mod fake_central;
pub mod fake_history;
pub mod history;
pub mod load;
pub mod machine;
pub mod network;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;
pub mod random;
pub mod volume;
pub mod work;

use std::time::{Duration, Instant};

/// The SQL file that creates the tables of the earlier services, or the additions of a newer installation.
pub fn legacy_history(newer: bool) -> std::path::PathBuf {
    let name = if newer { "legacy_history_newer.sql" } else { "legacy_history.sql" };
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/support").join(name)
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
    let migrations = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central");
    server.psql_file("central", &migrations.join("1769700000000_session_registry.sql"));
    server.psql_file("central", &migrations.join("1769950000000_add_host_machine.sql"));
    server.psql_file("central", &legacy_history(false));
    server
}
