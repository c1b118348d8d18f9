//! A central for the benchmark, with the durability of a real one.

use std::process::Command;

use testkit::postgres::Server;

/// A Postgres server with the schema of `sessiond migrate` in each of the databases.
pub fn central(databases: &[&str], settings: &[&str]) -> Server {
    // The tests' server runs without fsync.
    let durable = ["fsync=on", "synchronous_commit=on", "shared_buffers=256MB", "max_wal_size=4GB"];
    let server = Server::start(&[&durable, settings].concat());
    for database in databases {
        server.create(database);
        migrate(&server.url(database));
    }
    server
}

/// By the program itself, so that the measured schema is the one that this version makes.
fn migrate(url: &str) {
    let migrate = Command::new(env!("CARGO_BIN_EXE_sessiond")).args(["migrate", "--central-url", url]).output();
    let migrated = migrate.expect("sessiond runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
}

/// The result of an SQL statement that returns one number.
pub fn number(server: &Server, database: &str, sql: &str) -> f64 {
    server.psql(database, sql).parse().unwrap_or_else(|_| panic!("{sql} is no number"))
}
