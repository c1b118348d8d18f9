//! Hosts that read only some projects ahead, or none, and ask central for the others.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::old_central;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(60);

fn central() -> (Server, String) {
    let server = old_central(&[]);
    let url = server.url("central");
    Host::new("odin4").ok(&["migrate", "--central-url", &url]);
    (server, url)
}

/// The configuration of a host with this section `[mirror]`.
fn configuration(url: &str, mirror: &str) -> String {
    format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1s\"\n\
         connect_timeout = \"2s\"\nstatement_timeout = \"5s\"\n[mirror]\n{mirror}\n"
    )
}

fn scoped(machine: &str, url: &str, mirror: &str) -> Host {
    let host = Host::new(machine);
    host.configure(&configuration(url, mirror));
    host.started()
}

/// The ids of a list, in order.
fn ids(host: &Host, path: &str) -> Vec<String> {
    let list = host.ask("GET", path, None).1;
    let sessions = list["instances"].as_array().unwrap_or_else(|| panic!("{list}"));
    let mut ids: Vec<_> = sessions.iter().map(|s| s["instance_id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

fn await_ids(what: &str, host: &Host, path: &str, wanted: &[&str]) {
    let mut wanted: Vec<_> = wanted.iter().map(|id| (*id).to_owned()).collect();
    wanted.sort_unstable();
    eventually(what, SOON, || (ids(host, path) == wanted).then_some(()));
}

fn show(host: &Host, id: &str) -> (u16, Value) {
    host.ask("GET", &format!("/v1/sessions/{id}"), None)
}

/// A session of a client without a daemon, silent for a day.
fn insert(server: &Server, id: &str, project: &str, epic: &str) {
    server.psql(
        "central",
        &format!(
            "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine, status, current_epic, \
                 last_heartbeat, created_at) VALUES ('{id}', '{project}', 'PS', 'odin9', 'stale', '{epic}', \
                 now() - interval '1 day', now() - interval '2 days')"
        ),
    );
}

#[test]
fn only_projects_in_scope_are_mirrored_and_the_others_are_asked_for() {
    let (server, url) = central();
    let odin4 = Host::with_central("odin4", &url).started();
    let odin = odin4.ok(&["register", "--project", "odin", "--epic", "003", "--id-only"]);
    let web = odin4.ok(&["register", "--project", "web", "--id-only"]);
    odin4.ok(&["event", &web, "test_passed", "--data", "{\"n\": 1}"]);
    odin4.await_synced();
    insert(&server, "web-PS-0ld001", "web", "042");
    insert(&server, "odin-PS-0ld002", "odin", "043");
    let laptop = scoped("laptop", &url, "scope = \"projects\"\nprojects = [\"odin\"]");
    let own = laptop.ok(&["register", "--project", "own", "--id-only"]);
    await_ids("what is in scope is mirrored", &laptop, "/v1/sessions", &[&odin, "odin-PS-0ld002", &own]);

    // What is not in scope is asked for.
    let (code, session) = show(&laptop, &web);
    assert_eq!((code, &session["source"], &session["local"]), (200, &json!("central"), &json!(false)), "{session}");
    assert_eq!((&session["status"], &session["project"]), (&json!("active"), &json!("web")), "{session}");
    assert!(session["as_of"].as_str().unwrap() > session["created_at"].as_str().unwrap(), "{session}");
    assert!(session.get("note").is_none(), "{session}");
    assert_eq!(show(&laptop, &odin).1["source"], "mirror");
    assert!(show(&laptop, &own).1.get("source").is_none(), "it is this host's own");
    let printed = laptop.ok(&["show", &web[..web.len() - 1]]);
    assert!(printed.contains("central, asked because"), "{printed}");
    let events: Value = serde_json::from_str(&laptop.ok(&["events", &web, "--json"])).unwrap();
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");
    assert!(laptop.ok(&["context", &web, "--handoff"]).contains(&web));
    assert_eq!(laptop.ask("GET", &format!("/v1/sessions/{web}/work"), None).0, 200);
    let list = laptop.ask("GET", "/v1/sessions?project=web", None).1;
    assert_eq!((&list["source"], &list["total_count"]), (&json!("central"), &json!(2)), "{list}");
    assert_eq!(ids(&laptop, "/v1/sessions?project=web&active_only=true"), [web.as_str()]);
    assert_eq!(ids(&laptop, "/v1/sessions?project=web&limit=1").len(), 1);
    let all = laptop.ask("GET", "/v1/sessions", None).1;
    assert!(all["note"].as_str().unwrap().contains("mirror.scope"), "{all}");
    assert_eq!(all["total_count"], 3, "what was asked for is listed with its project only: {all}");

    // It can be resumed, by its id, its epic and its project.
    let (code, why) = laptop.refused(&["resume", &web]);
    assert!(code == 1 && why.contains("is active on odin4"), "{why}");
    let resumed: Value = serde_json::from_str(&laptop.ok(&["resume", "042", "--json"])).unwrap();
    assert_eq!(
        (&resumed["found_by"], &resumed["from"]["instance_id"], &resumed["from"]["source"]),
        (&json!("epic"), &json!("web-PS-0ld001"), &json!("central")),
        "{resumed}"
    );
    let successor = resumed["session"]["instance_id"].as_str().unwrap().to_owned();
    laptop.ok(&["close", &successor]);

    // The numbers of other machines are not known.
    let machines: Vec<Value> = serde_json::from_str(&laptop.ok(&["machines", "--json"])).unwrap();
    let machine = |name: &str| machines.iter().find(|machine| machine["host_machine"] == name).unwrap().clone();
    assert_eq!(machine("odin4")["total_sessions"], Value::Null);
    assert_eq!(machine("laptop")["active_sessions"], 1);
    assert!(laptop.ok(&["machines"]).contains("odin4"));

    // A row leaves and enters the scope with its project.
    server.psql("central", "UPDATE supervisor_sessions SET project = 'api' WHERE instance_id = 'odin-PS-0ld002'");
    await_ids("it left the scope", &laptop, "/v1/sessions", &[&odin, &own, &successor]);
    server.psql("central", "UPDATE supervisor_sessions SET project = 'odin' WHERE instance_id = 'web-PS-0ld001'");
    await_ids("it entered the scope", &laptop, "/v1/sessions", &[&odin, "web-PS-0ld001", &own, &successor]);
    assert_eq!(show(&laptop, "web-PS-0ld001").1["source"], "mirror");
    server.psql("central", &format!("DELETE FROM supervisor_sessions WHERE instance_id = '{odin}'"));
    odin4.ok(&["close", &web]);
    await_ids("it is deleted", &laptop, "/v1/sessions?project=odin", &["web-PS-0ld001"]);

    // Another scope, without a restart.
    laptop.configure(&configuration(&url, "scope = \"projects\"\nprojects = [\"web\"]"));
    laptop.signal(Signal::HUP);
    await_ids(
        "the new scope is read, the old one dropped",
        &laptop,
        "/v1/sessions?all=true",
        &[&web, &own, &successor],
    );
    assert_eq!(show(&laptop, "web-PS-0ld001").1["source"], "central");
    laptop.configure(&configuration(&url, "scope = \"all\""));
    laptop.signal(Signal::HUP);
    eventually("everything is read", SOON, || (ids(&laptop, "/v1/sessions?all=true").len() == 5).then_some(()));
    assert!(laptop.ask("GET", "/v1/sessions", None).1.get("note").is_none());
}

#[test]
fn scope_none_reads_nothing_ahead_and_answers_with_its_age_without_central() {
    let (mut server, url) = central();
    let odin4 = Host::with_central("odin4", &url).started();
    let odin = odin4.ok(&["register", "--project", "odin", "--id-only"]);
    odin4.await_synced();
    insert(&server, "odin-PS-0ld001", "odin", "042");
    insert(&server, "web-PS-0ld002", "web", "043");
    let laptop = scoped("laptop", &url, "scope = \"none\"");
    let own = laptop.ok(&["register", "--project", "odin", "--id-only"]);
    laptop.await_synced();
    assert_eq!(ids(&laptop, "/v1/sessions?all=true"), [own.as_str()]);
    await_ids("the project is asked for", &laptop, "/v1/sessions?project=odin", &[&odin, "odin-PS-0ld001", &own]);
    let (code, several) = show(&laptop, "odin-PS");
    assert_eq!((code, several["matches"].as_array().unwrap().len()), (300, 3), "{several}");
    let (code, unknown) = show(&laptop, "odin-PS-zzzzzz");
    assert_eq!((code, &unknown["error"]["code"]), (404, &json!("not_found")), "{unknown}");
    assert!(!unknown["error"]["message"].as_str().unwrap().contains("central"), "central was asked: {unknown}");

    // What is gone in central is gone here once it is asked for again.
    assert_eq!(show(&laptop, "web-PS-0ld002").0, 200);
    server.psql("central", "DELETE FROM supervisor_sessions WHERE instance_id = 'web-PS-0ld002'");
    eventually("it is asked for again", SOON, || (show(&laptop, "web-PS-0ld002").0 == 404).then_some(()));

    // A close by another client is read although nothing is read ahead.
    server.psql(
        "central",
        &format!("UPDATE supervisor_sessions SET status = 'closed', closed_at = now() WHERE instance_id = '{own}'"),
    );
    eventually("its own session is closed", SOON, || (show(&laptop, &own).1["status"] == "closed").then_some(()));

    server.stop(Stop::Fast);
    laptop.await_central("unreachable");
    let (code, session) = show(&laptop, &odin);
    assert_eq!((code, &session["source"]), (200, &json!("central")), "{session}");
    assert!(session["note"].as_str().unwrap().contains("central has not answered"), "{session}");
    assert!(laptop.ok(&["show", &odin]).contains("central has not answered"));
    let list = laptop.ask("GET", "/v1/sessions?project=odin&all=true", None).1;
    assert_eq!((&list["source"], &list["total_count"]), (&json!("mirror"), &json!(3)), "{list}");
    assert!(list["note"].as_str().unwrap().contains("its state is unreachable"), "{list}");
    let (code, unknown) = show(&laptop, "odin-PS-zzzzzz");
    assert_eq!(code, 404);
    assert!(unknown["error"]["message"].as_str().unwrap().contains("central has not answered"), "{unknown}");
    let (code, why) = laptop.refused(&["resume", "099"]);
    assert!(code == 1 && why.contains("central has not answered"), "{why}");
    assert_eq!(show(&laptop, &own).1.get("note"), None, "this host knows its own sessions");
    let resumed: Value = serde_json::from_str(&laptop.ok(&["resume", "042", "--json"])).unwrap();
    assert_eq!(resumed["from"]["instance_id"], "odin-PS-0ld001", "what is here is resumed: {resumed}");
}

/// The events of a session as a host lists them: how many, and the note.
fn events(host: &Host, id: &str) -> (usize, Option<String>) {
    let list = host.ask("GET", &format!("/v1/sessions/{id}/events"), None).1;
    let events = list["events"].as_array().unwrap_or_else(|| panic!("{list}"));
    (events.len(), list.get("note").map(|note| note.as_str().unwrap().to_owned()))
}

fn await_logged(host: &Host, text: &str, times: usize) {
    eventually(text, SOON, || (host.log().matches(text).count() == times).then_some(()));
}

#[test]
fn history_is_read_on_demand_in_a_fleet_of_more_than_a_thousand_hosts() {
    let (mut server, url) = central();
    let [odin4, laptop] = ["odin4", "laptop"].map(|machine| scoped(machine, &url, "scope = \"all\""));
    let grow = || {
        server.psql(
            "central",
            "INSERT INTO sessiond_hosts (host_id, machine_name, claim, version) \
             SELECT gen_random_uuid(), 'host' || n, gen_random_uuid(), '0' FROM generate_series(1, 1000) AS n",
        )
    };
    let registered = |project: &str| odin4.ok(&["register", "--project", project, "--id-only"]);
    let event = |id: &str| odin4.ok(&["event", id, "test_passed", "--data", "{\"n\": 1}"]);
    let await_mirrored =
        |id: &str| eventually("the session is read ahead", SOON, || (show(&laptop, id).0 == 200).then_some(()));
    let odin = registered("odin");
    event(&odin);
    await_mirrored(&odin);
    eventually("the event is read ahead", SOON, || (events(&laptop, &odin) == (1, None)).then_some(()));

    grow();
    [&odin4, &laptop].iter().for_each(|host| await_logged(host, "is read on demand", 1));
    let (web, later) = (registered("web"), registered("web"));
    [&odin, &web, &later].iter().for_each(|id| drop(event(id)));
    odin4.ok(&["checkpoint", &web, "--type", "manual", "--work-state", "{\"next_steps\": [\"deploy\"]}"]);
    odin4.await_synced();
    await_mirrored(&later);
    assert_eq!(show(&laptop, &web).1["source"], "mirror");
    assert_eq!(events(&laptop, &odin), (2, None), "central is asked");
    let context = laptop.ask("GET", &format!("/v1/sessions/{web}/context"), None).1;
    assert_eq!((&context["source"], &context["machine_synced"]), (&json!("checkpoint"), &json!(true)), "{context}");

    // In a fleet that became smaller, what was not read is.
    server.psql("central", "DELETE FROM sessiond_hosts WHERE machine_name LIKE 'host%'");
    await_logged(&laptop, "is read ahead again", 1);
    eventually("nobody has to ask", SOON, || (events(&laptop, &later) == (1, None)).then_some(()));

    // Without central: what was read before, and that it may not be all.
    grow();
    await_logged(&laptop, "is read on demand", 2);
    let last = registered("web");
    event(&last);
    odin4.await_synced();
    await_mirrored(&last);
    server.stop(Stop::Fast);
    laptop.await_central("unreachable");
    let (count, note) = events(&laptop, &odin);
    assert!(count == 2 && note.as_ref().is_some_and(|note| note.contains("central has not answered")), "{note:?}");
    assert_eq!(events(&laptop, &last).0, 0, "it was never asked for");
    let printed = laptop.verb(&["events", &last]);
    assert!(String::from_utf8_lossy(&printed.stderr).contains("central has not answered"), "{printed:?}");
    let context = laptop.ask("GET", &format!("/v1/sessions/{last}/context"), None).1;
    assert_eq!(context["machine_synced"], false, "{context}");
    assert!(laptop.ok(&["context", &last, "--handoff"]).contains("Not synced"));
    assert_eq!(events(&odin4, &last), (1, None), "a host has the history of its own sessions");
}
