//! Faults of the network, the servers and the disk, with the real programs.

mod blocked;
mod files;
mod history;
mod network;
mod operator;
mod patroni;
mod refusals;
mod servers;
mod sync;
mod tls;

use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

const LIMIT: Duration = Duration::from_secs(60);

/// A host that gives central little time.
fn hurried(machine: &str, url: &str) -> Host {
    limited(machine, url, "300ms")
}

/// A host that gives central so much time for an answer.
fn limited(machine: &str, url: &str, limit: &str) -> Host {
    let host = Host::new(machine);
    host.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\n\
         connect_timeout = \"{limit}\"\nstatement_timeout = \"{limit}\"\n"
    ));
    host
}

/// Asks for pushes until something is true; a daemon left alone would wait longer and longer.
fn nudged<T>(host: &Host, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually(what, LIMIT, || {
        host.ask("POST", "/v1/sync", Some(&json!({})));
        look()
    })
}

fn await_state(host: &Host, state: &str) -> Value {
    nudged(host, state, || Some(host.status()).filter(|status| status["central"]["state"] == state))
}

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
    // The daemon keeps refreshing sessions, so both are read until they agree.
    eventually("both ledgers agree", LIMIT, || {
        let known: i64 =
            store.query_row("SELECT value FROM metadata WHERE name = 'acked_batch'", [], |r| r.get(0)).ok()?;
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
