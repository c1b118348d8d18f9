//! A session of another machine is found and resumed here while central is down.

use std::time::Duration;

use serde_json::{Value, json};

use super::rows::{Rows, abandoned};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn remote_session_is_resumed_while_central_is_down() {
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let mut odin4 = Host::with_central("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    odin4.start();
    let mut laptop = Host::new("laptop");
    laptop.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\n[sessions]\nstale_after = \"5s\"\n"
    ));
    laptop.start();
    let id = abandoned(&odin4, "odin", "the login page");
    odin4.await_synced();
    eventually("the laptop knows how it ended", SOON, || {
        (laptop.ask("GET", &format!("/v1/sessions/{id}"), None).1["status"] == "stale").then_some(())
    });
    eventually("the mirror is true", SOON, || {
        let (_, context) = laptop.ask("GET", &format!("/v1/sessions/{id}/context"), None);
        (context["reachable"] == true && context["machine_synced"] == true).then_some(())
    });

    server.stop(Stop::Fast);
    laptop.await_central("unreachable");
    laptop.kill();
    laptop.start();
    let handoff = eventually("it is known to be old", SOON, || {
        let handoff = laptop.ok(&["context", &id[..id.len() - 1], "--handoff"]);
        handoff.contains("later work may be recorded only on odin4").then_some(handoff)
    });
    assert!(handoff.contains(&format!("ssh odin4 -t 'cd {}", folder())), "{handoff}");
    let resumed: Value = serde_json::from_str(&laptop.ok(&["resume", &id[id.len() - 6..], "--json"])).unwrap();
    let new = resumed["session"]["instance_id"].as_str().unwrap();
    assert_eq!((&resumed["resumed"], &resumed["session"]["resumed_from"]), (&json!("new_session"), &json!(id)));
    assert_eq!(resumed["session"]["host_machine"], "laptop");

    server.resume();
    laptop.await_synced();
    let lineage =
        "SELECT instance_id, resumed_from, host_machine FROM supervisor_sessions WHERE resumed_from IS NOT NULL";
    assert_eq!(server.psql("central", lineage), format!("{new}|{id}|laptop"));
    // The machine it came from has it still, as it was, and may take it up itself.
    Rows::of(&odin4).silence(&id, 300);
    let own: Value = serde_json::from_str(&odin4.ok(&["resume", &id, "--json"])).unwrap();
    assert_eq!((&own["resumed"], &own["session"]["instance_id"]), (&json!("taken_up"), &json!(id)));
    odin4.await_synced();
    let status = format!("SELECT status FROM supervisor_sessions WHERE instance_id = '{id}'");
    assert_eq!(server.psql("central", &status), "active");
}

/// Where the client was when it registered the session.
fn folder() -> String {
    std::env::current_dir().unwrap().display().to_string()
}
