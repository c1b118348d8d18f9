//! Two hosts on a central whose tables are partitioned: nothing is lost, and each knows what the other does.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::chronicle::listed;
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(60);

/// Sessions of each host: enough that each partition has some of each.
const SESSIONS: usize = 12;

fn register(host: &Host) -> Vec<String> {
    (0..SESSIONS).map(|n| host.ok(&["register", "--project", &format!("p{n}"), "--epic", "001", "--id-only"])).collect()
}

fn known(host: &Host, id: &str) -> Option<Value> {
    let (status, session) = host.ask("GET", &format!("/v1/sessions/{id}"), None);
    (status == 200).then_some(session)
}

fn await_known(host: &Host, id: &str, name: &str, value: &Value) {
    let what = format!("{id} has {name} {value}");
    eventually(&what, SOON, || known(host, id).filter(|session| session[name] == *value));
}

/// An event, a command and a checkpoint for each session.
fn record(host: &Host, ids: &[String]) {
    for id in ids {
        host.ok(&["event", id, "epic_started", "--data", "{}"]);
        host.ok(&["command", id, "build", "--tool", "Bash"]);
        host.ok(&["checkpoint", id, "--type", "manual", "--work-state", "{}"]);
    }
}

#[test]
fn two_hosts_lose_nothing_in_partitions() {
    let mut server = Server::start(&["timezone=Asia/Kolkata"]);
    server.create("central");
    server.psql_file("central", &testkit::partitioned());
    let url = server.url("central");
    let odin4 = Host::with_central("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    let (odin4, laptop) = (odin4.started(), Host::with_central("laptop", &url).started());
    let (of_odin4, of_laptop) = (register(&odin4), register(&laptop));
    record(&odin4, &of_odin4);
    odin4.await_synced();

    // An outage is a longer backlog here, too.
    server.stop(Stop::Immediate);
    for id in &of_odin4 {
        odin4.ok(&["heartbeat", id, "--context", "42"]);
    }
    odin4.ok(&["close", &of_odin4[0]]);
    record(&odin4, &of_odin4[1..]);
    server.resume();
    odin4.await_synced();
    laptop.await_synced();
    await_known(&laptop, &of_odin4[0], "status", &json!("closed"));
    for id in &of_odin4[1..] {
        await_known(&laptop, id, "context_percent", &json!(42));
    }

    // The owner adopts what another client changed; what was deleted is gone from the mirrors.
    let (resumed, edited, deleted) = (&of_odin4[0], &of_odin4[1], &of_odin4[2]);
    server.psql(
        "central",
        &format!("UPDATE supervisor_sessions SET current_epic = '007' WHERE instance_id = '{edited}'"),
    );
    await_known(&odin4, edited, "current_epic", &json!("007"));
    odin4.ok(&["close", deleted]);
    odin4.await_synced();
    server.psql("central", &format!("DELETE FROM supervisor_sessions WHERE instance_id = '{deleted}'"));
    eventually("the deletion is known", SOON, || known(&laptop, deleted).is_none().then_some(()));

    let successor: Value = serde_json::from_str(&laptop.ok(&["resume", resumed, "--closed", "--json"])).unwrap();
    assert_eq!(successor["session"]["resumed_from"], json!(resumed), "{successor}");
    laptop.await_synced();

    let central: BTreeSet<String> =
        server.psql("central", "SELECT instance_id FROM supervisor_sessions").lines().map(str::to_owned).collect();
    let successor = successor["session"]["instance_id"].as_str().unwrap().to_owned();
    let expected = of_odin4.iter().chain(&of_laptop).filter(|id| *id != deleted).cloned().chain([successor]).collect();
    assert_eq!(central, expected);
    for table in ["event_store", "command_log", "checkpoints"] {
        let counted = format!("SELECT instance_id, count(*) FROM {table} GROUP BY 1 ORDER BY 1");
        let mut expected: Vec<_> = (0..SESSIONS)
            .filter(|n| *n != 2)
            .map(|n| format!("{}|{}", of_odin4[n], if n == 0 { 1 } else { 2 }))
            .collect();
        expected.sort();
        assert_eq!(server.psql("central", &counted), expected.join("\n"), "{table}");
    }
    eventually("the laptop has read the history", SOON, || {
        (listed(&laptop, edited, "events").len() == 2).then_some(())
    });
    for host in [&odin4, &laptop] {
        let status = host.status();
        assert_eq!((&status["parked"], &status["backlog"]["records"]), (&json!(0), &json!(0)), "{status}");
    }
}
