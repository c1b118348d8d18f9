//! Faults of the network, the servers and the disk, on the real programs.

mod files;
mod network;
mod sync;

use serde_json::Value;

use crate::support::daemon::Host;
use crate::support::postgres::Server;

/// A central with our schema that counts how often each row was inserted.
fn central(settings: &[&str]) -> Server {
    let server = Server::start(settings);
    server.create("central");
    Host::new("migrator").ok(&["migrate", "--central-url", &server.url("central")]);
    server.psql(
        "central",
        "CREATE TABLE inserted (instance_id TEXT NOT NULL); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO inserted VALUES (NEW.instance_id); RETURN NEW; END $$; \
         CREATE TRIGGER note AFTER INSERT ON supervisor_sessions FOR EACH ROW EXECUTE FUNCTION note()",
    );
    server
}

/// No session was inserted twice, and central's ledger stands where the store knows it to stand.
fn check_ledger(host: &Host, server: &Server) {
    let twice = server.psql("central", "SELECT count(*) - count(DISTINCT instance_id) FROM inserted");
    assert_eq!(twice, "0", "sessions were inserted more than once");
    let store = rusqlite::Connection::open_with_flags(
        host.state_dir().join("sessiond.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let host_id = host.status()["machine"]["host_id"].as_str().unwrap().to_owned();
    // The daemon goes on saying that it lives, so both are read until they agree.
    crate::support::eventually("both ledgers agree", std::time::Duration::from_secs(20), || {
        let known: i64 =
            store.query_row("SELECT value FROM facts WHERE name = 'acked_batch'", [], |r| r.get(0)).ok()?;
        let ledger = server.psql("central", &format!("SELECT batch FROM sessiond_hosts WHERE host_id = '{host_id}'"));
        (ledger == known.to_string()).then_some(())
    });
}

/// One sample of /metrics.
fn metric(host: &Host, name: &str) -> f64 {
    let (_, text) = host.ask("GET", "/metrics", None);
    let Value::String(text) = text else { panic!("metrics are text: {text}") };
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}
