//! A central for the benchmark, with the durability of a real one.

use std::path::Path;

use testkit::postgres::Server;

/// A Postgres server with the schema of `sessiond migrate` in each of the databases.
pub fn central(databases: &[&str], settings: &[&str]) -> Server {
    // The tests' server runs without fsync.
    let durable = ["fsync=on", "synchronous_commit=on", "shared_buffers=256MB", "max_wal_size=4GB"];
    let server = Server::start(&[&durable, settings].concat());
    for database in databases {
        server.create(database);
        for migration in MIGRATIONS {
            server
                .psql_file(database, &Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/central").join(migration));
        }
    }
    server
}

const MIGRATIONS: [&str; 4] = [
    "1769700000000_session_registry.sql",
    "1769950000000_add_host_machine.sql",
    "1770000000000_sessiond.sql",
    "1780000000000_mirror_and_history.sql",
];

/// The result of an SQL statement that returns one number.
pub fn number(server: &Server, database: &str, sql: &str) -> f64 {
    server.psql(database, sql).parse().unwrap_or_else(|_| panic!("{sql} is no number"))
}
