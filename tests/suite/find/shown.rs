//! A session that was registered without a network is known on all machines soon after the network is back, and
//! another machine can continue it when the network is down again.

use std::time::Duration;

use serde_json::{Value, json};

use super::rows::abandoned_with;
use testkit::daemon::Host;
use testkit::postgres::Stop;
use testkit::{eventually, old_central};

const SOON: Duration = Duration::from_secs(20);

/// What a client without a daemon writes: a session, an event of it and a command.
const OLD_CLIENT: &str = "\
    INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, status, last_heartbeat) \
        VALUES ('freya-PS-0ld001', 'freya', 'PS', 'odin9', 'stale', now() - interval '10 minutes'); \
    INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata) \
        VALUES (gen_random_uuid(), 'freya-PS-0ld001', 'epic_started', 1, now() - interval '10 minutes', \
        '{\"epic\": \"the old client''s epic\"}', '{}')";

fn context(host: &Host, id: &str) -> Value {
    host.ask("GET", &format!("/v1/sessions/{id}/context"), None).1
}

#[test]
fn session_registered_offline_is_resumed_elsewhere_offline() {
    let mut server = old_central(&["timezone=America/New_York"]);
    let url = server.url("central");
    let odin4 = Host::with_central("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    let (odin4, laptop) = (odin4.started(), Host::with_central("laptop", &url).started());
    for host in [&odin4, &laptop] {
        host.await_central("connected");
    }

    server.stop(Stop::Fast);
    odin4.await_central("unreachable");
    let words =
        ["--project", "odin", "--epic", "003", "--working-dir", "/srv/my app", "--claude-session-uuid", "c0ffee"];
    let id = abandoned_with(&odin4, &words);
    odin4.ok(&["event", &id, "epic_started", "--data", r#"{"epic": "003"}"#]);
    odin4.ok(&["event", &id, "test_passed", "--data", r#"{"name": "login"}"#]);
    odin4.ok(&["command", &id, "deploy", "--tool", "Bash", "--failed", "no route to host"]);
    odin4.ok(&["checkpoint", &id, "--type", "manual", "--work-state", r#"{"next_steps": ["mend the deployment"]}"#]);
    laptop.await_central("unreachable");

    server.resume();
    server.psql("central", OLD_CLIENT);
    for host in [&odin4, &laptop] {
        eventually("it goes there by itself, or when told to", SOON, || {
            host.ok(&["sync"]);
            (host.status()["central"]["state"] == "connected").then_some(())
        });
    }
    let rows = format!("SELECT count(*) FROM supervisor_sessions WHERE instance_id = '{id}'");
    eventually("central has it", SOON, || (server.psql("central", &rows) == "1").then_some(()));
    eventually("the laptop lists it", SOON, || laptop.ok(&["list", "--json"]).contains(&id).then_some(()));
    eventually("and knows what it was at", SOON, || (context(&laptop, &id)["source"] == "checkpoint").then_some(()));
    eventually("and of what the old client did", SOON, || {
        (context(&laptop, "freya-PS-0ld001")["source"] == "events").then_some(())
    });

    server.stop(Stop::Fast);
    laptop.await_central("unreachable");
    let prefix = &id[..id.len() - 2];
    let shown: Value = serde_json::from_str(&laptop.ok(&["show", prefix, "--json"])).unwrap();
    assert_eq!((&shown["instance_id"], &shown["local"]), (&json!(id), &json!(false)));
    let handoff = laptop.ok(&["resume", &id, "--handoff"]);
    for said in [
        id.as_str(),
        "odin4",
        "mend the deployment",
        "003",
        "ssh odin4 -t \"cd",
        "/srv/my app",
        "claude --resume c0ffee",
    ] {
        assert!(handoff.contains(said), "{said} is missing:\n{handoff}");
    }
    let list: Value = serde_json::from_str(&laptop.ok(&["list", "--local", "--json"])).unwrap();
    let new = &list["instances"][0];
    assert_eq!(
        (&new["resumed_from"], &new["project"], &new["current_epic"]),
        (&json!(id), &json!("odin"), &json!("003"))
    );

    server.resume();
    laptop.await_synced();
    let numbers = "SELECT string_agg(event_type, ',' ORDER BY sequence_num) FROM event_store WHERE instance_id = '{}'";
    assert_eq!(server.psql("central", &numbers.replace("{}", &id)), "epic_started,test_passed");
    let records = "SELECT (SELECT count(*) FROM command_log), (SELECT count(*) FROM checkpoints)";
    assert_eq!(server.psql("central", records), "1|1");
}
