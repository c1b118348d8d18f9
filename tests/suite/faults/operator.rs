//! What the operator sees of a fault: state, time, reason and advice in the status; one log line; metrics.

use super::{LIMIT, await_state, central, limited, metric, nudged};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;
use testkit::proxy::{Direction, Mode, Proxy};

/// A machine that is busy with other tests must not look like a central that is slow.
const UNHURRIED: &str = "1500ms";

/// One way in which central fails, and how it is reported.
struct Fault {
    name: &'static str,
    /// What is done to central: SQL in its database, or a mode of the network before it.
    how: How,
    state: &'static str,
    /// What the error names, and its advice.
    words: &'static [&'static str],
}

enum How {
    Network(Mode),
    /// SQL that breaks it, and SQL that mends it.
    Sql(&'static str, &'static str),
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "nobody listens",
        how: How::Network(Mode::Refuse),
        state: "unreachable",
        words: &["cannot be reached", "refused", "tried again by itself", "host and port"],
    },
    Fault {
        name: "it accepts and says nothing",
        how: How::Network(Mode::Hang),
        state: "unreachable",
        words: &["within 1s 500ms", "tried again by itself"],
    },
    Fault {
        name: "connections break",
        how: How::Network(Mode::CutAfter(Direction::FromCentral, 100)),
        state: "unreachable",
        words: &["the connection broke", "tried again by itself"],
    },
    Fault {
        name: "it takes no changes",
        how: How::Sql(
            "ALTER DATABASE central SET default_transaction_read_only = on",
            "\\c postgres\nALTER DATABASE central RESET default_transaction_read_only",
        ),
        state: "refused",
        words: &["default_transaction_read_only is on", "ALTER DATABASE central RESET default_transaction_read_only"],
    },
    Fault {
        name: "it has too many clients",
        how: How::Sql("ALTER ROLE agent CONNECTION LIMIT 0", "ALTER ROLE agent CONNECTION LIMIT -1"),
        state: "unreachable",
        words: &["too many connections", "53300", "max_connections"],
    },
    Fault {
        name: "the user may not log in",
        how: How::Sql("ALTER ROLE agent NOLOGIN", "ALTER ROLE agent LOGIN"),
        state: "refused",
        words: &["agent", "28000", "check the user"],
    },
    Fault {
        name: "the user lacks rights",
        how: How::Sql("REVOKE ALL ON sessiond_hosts FROM agent", "GRANT ALL ON sessiond_hosts TO agent"),
        state: "refused",
        words: &["permission denied", "sessiond_hosts", "grant this user"],
    },
    Fault {
        name: "the database is gone",
        how: How::Sql(
            "\\c postgres\nALTER DATABASE central RENAME TO elsewhere",
            "\\c postgres\nALTER DATABASE elsewhere RENAME TO central",
        ),
        state: "refused",
        words: &["does not exist", "3D000", "create the database"],
    },
    Fault {
        name: "the tables are gone",
        how: How::Sql(
            "ALTER TABLE sessiond_hosts RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO sessiond_hosts",
        ),
        state: "schema_missing",
        words: &["sessiond migrate"],
    },
    Fault {
        name: "another host goes by the name",
        how: How::Sql(
            "UPDATE sessiond_hosts SET host_id = '00000000-0000-0000-0000-000000000007'",
            "DELETE FROM sessiond_hosts",
        ),
        state: "identity_conflict",
        words: &["another host", "identity rename", "identity replace"],
    },
];

impl How {
    fn strike(&self, server: &Server, proxy: &Proxy) {
        match self {
            Self::Network(mode) => proxy.set(*mode),
            Self::Sql(sql, _) => self.while_disconnected(server, proxy, sql),
        }
    }

    fn repair(&self, server: &Server, proxy: &Proxy) {
        match self {
            Self::Network(_) => proxy.set(Mode::Pass),
            Self::Sql(_, sql) => self.while_disconnected(server, proxy, sql),
        }
    }

    /// A connection that is open would not notice, or be in the way.
    fn while_disconnected(&self, server: &Server, proxy: &Proxy, sql: &str) {
        proxy.set(Mode::Refuse);
        let (database, sql) = sql.strip_prefix("\\c postgres\n").map_or(("central", sql), |sql| ("postgres", sql));
        eventually("nobody is connected any more", LIMIT, || {
            let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sessiond'";
            (server.psql("postgres", others) == "0").then_some(())
        });
        server.psql(database, sql);
        proxy.set(Mode::Pass);
    }
}

fn check(fault: &Fault, host: &Host, server: &Server, proxy: &Proxy) {
    let name = fault.name;
    let before = host.log().len();
    fault.how.strike(server, proxy);
    let has_words = |status: &serde_json::Value| {
        let said = status["central"]["last_error"].as_str().unwrap_or_default();
        fault.words.iter().all(|word| said.contains(word)) && status["central"]["state"] == fault.state
    };
    let mut last = String::new();
    let status = nudged_or_say(host, &mut last, name, has_words);
    let said = status["central"]["last_error"].as_str().unwrap();
    assert!(!said.contains('\n'), "{name}: {said}");
    host.ok(&["register", "--project", "odin"]);
    let shown = host.ok(&["status"]);
    assert!(shown.contains(&fault.state.replace('_', " ")), "{name}: {shown}");

    // Attempts go on; what they say is said already.
    let (attempts, waits) = (proxy.connections(), metric(host, "sessiond_backlog_age_seconds"));
    for _ in 0..20 {
        host.ask("POST", "/v1/sync", None);
    }
    nudged(host, "it tries again", || {
        let tried = proxy.connections() > attempts + 3 || matches!(fault.how, How::Network(Mode::Refuse));
        (tried && metric(host, "sessiond_backlog_age_seconds") > waits).then_some(())
    });
    let again = host.status();
    assert_eq!(
        (&again["central"]["state"], &again["central"]["since"]),
        (&fault.state.into(), &status["central"]["since"]),
        "{name}"
    );
    assert!(again["backlog"]["sessions"].as_u64() > Some(0) && again["backlog"]["oldest_at"].is_string(), "{again}");
    assert_eq!(metric(host, &format!("sessiond_central_state{{state=\"{}\"}}", fault.state)), 1.0, "{name}");
    assert!(
        metric(host, "sessiond_backlog_sessions") > 0.0 && metric(host, "sessiond_central_state_age_seconds") > 0.0
    );
    let log = host.log()[before..].to_owned();
    let lines = log.lines().filter(|line| line.contains("no link to central") && line.contains(fault.state)).count();
    assert_eq!(lines, 1, "{name}: one line for the fault, not for each attempt: {log}");
    assert!(log.lines().count() < 8, "{name}: {log}");

    fault.how.repair(server, proxy);
    let status = await_state(host, "connected");
    assert!(status["central"]["last_error"].is_null(), "{name}: {status}");
    host.await_synced();
}

fn nudged_or_say(
    host: &Host,
    last: &mut String,
    name: &str,
    fits: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let deadline = std::time::Instant::now() + LIMIT / 4;
    loop {
        host.ask("POST", "/v1/sync", None);
        let status = host.status();
        if fits(&status) {
            return status;
        }
        *last = status["central"].to_string();
        assert!(std::time::Instant::now() < deadline, "{name}: {last}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn every_fault_of_central_is_named_in_status_log_and_metrics() {
    let server = central(&[]);
    server.psql("central", "CREATE ROLE agent LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO agent");
    let proxy = Proxy::to_socket(&server.socket());
    let host = limited("odin3", &proxy.url("agent", "central"), UNHURRIED).started();
    await_state(&host, "connected");
    for fault in FAULTS {
        check(fault, &host, &server, &proxy);
    }
}

#[test]
fn missing_right_of_a_later_step_is_reported_while_changes_are_pushed() {
    let server = central(&[]);
    server.psql("central", "CREATE ROLE agent LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO agent");
    server.psql("central", "REVOKE ALL ON sessiond_tombstones FROM agent");
    let host = limited("odin3", &server.url_as("agent", "central"), UNHURRIED).started();
    let since = await_state(&host, "refused")["central"]["since"].clone();
    for sessions in 1..=5 {
        host.ok(&["register", "--project", "odin"]);
        nudged(&host, "it gets to central all the same", || {
            (server.psql("central", "SELECT count(*) FROM supervisor_sessions") == sessions.to_string()).then_some(())
        });
    }
    nudged(&host, "the state stays", || {
        let status = host.status();
        (status["central"]["state"] == "refused" && status["central"]["since"] == since).then_some(())
    });
    assert_eq!(host.log().matches("no link to central").count(), 1, "{}", host.log());
    server.psql("central", "GRANT ALL ON sessiond_tombstones TO agent");
    await_state(&host, "connected");
}

#[test]
fn failing_sweep_is_reported_while_connected() {
    let server = central(&[]);
    server.psql("central", "CREATE ROLE agent LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO agent");
    server.psql("central", "REVOKE ALL ON sessiond_sweep FROM agent");
    let host = limited("odin3", &server.url_as("agent", "central"), UNHURRIED).started();
    let shown = |host: &Host, words: &str| {
        nudged(host, "the sweep's error is shown or gone", || {
            let status = host.status();
            let error = status["central"]["last_error"].as_str().unwrap_or("none").to_owned();
            (status["central"]["state"] == "connected" && error.contains(words)).then_some(())
        });
    };
    shown(&host, "cannot turn silent sessions stale");
    host.ok(&["register", "--project", "odin"]);
    host.await_synced();
    shown(&host, "permission denied for table sessiond_sweep");
    assert_eq!(host.log().matches("cannot turn silent sessions stale").count(), 1, "{}", host.log());
    assert_eq!(host.log().matches("no link to central").count(), 0, "{}", host.log());
}
