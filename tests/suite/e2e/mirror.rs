//! Every host mirrors every session, also without the network, and watch streams each change.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::daemon::Host;
use testkit::eventually;
use testkit::pgbouncer::Pooler;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(20);

fn central() -> Server {
    let server = Server::start(&["timezone=Asia/Kolkata"]);
    server.create("central");
    server
}

/// A host that reads central only every hour, unless it is notified of changes.
fn told(machine: &str, url: &str) -> Host {
    let host = Host::new(machine);
    host.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"1h\"\nconnect_timeout = \"2s\"\n\
         statement_timeout = \"2s\"\n"
    ));
    host
}

fn find(host: &Host, id: &str) -> Option<Value> {
    let list = host.ask("GET", "/v1/sessions?all=true", None).1;
    list["instances"].as_array().unwrap().iter().find(|session| session["instance_id"] == id).cloned()
}

fn await_listening(host: &Host) {
    eventually("central notifies of changes", SOON, || (host.status()["central"]["listening"] == true).then_some(()));
}

const OLD_CLIENT: &str = "INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine) \
     VALUES ('odin-PS-0ld001', 'odin', 'PS', 'odin9')";

#[test]
fn remote_sessions_are_mirrored_when_central_notifies() {
    let server = central();
    let url = server.url("central");
    let odin4 = Host::with_central("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    let (odin4, laptop) = (odin4.started(), told("laptop", &url).started());
    await_listening(&laptop);

    let id = odin4.ok(&["register", "--project", "odin", "--epic", "003", "--working-dir", "/srv/odin", "--id-only"]);
    eventually("central has it", SOON, || {
        (server.psql("central", "SELECT count(*) FROM supervisor_sessions") == "1").then_some(())
    });
    // It reads by itself once an hour only.
    let session = eventually("the laptop is told of it", SOON, || find(&laptop, &id));
    assert_eq!(
        (&session["local"], &session["host_machine"], &session["working_dir"], &session["machine_synced"]),
        (&false.into(), &"odin4".into(), &"/srv/odin".into(), &true.into()),
        "{session}"
    );
    let (code, error) = laptop.refused(&["heartbeat", &id]);
    assert_eq!(code, 1);
    assert!(error.contains("odin4") && error.contains("sessiond resume"), "{error}");

    server.psql("central", OLD_CLIENT);
    eventually("an old client's session", SOON, || find(&laptop, "odin-PS-0ld001"));
    server.psql("central", "DELETE FROM supervisor_sessions WHERE instance_id = 'odin-PS-0ld001'");
    eventually("it is gone again", SOON, || find(&laptop, "odin-PS-0ld001").is_none().then_some(()));
}

#[test]
fn mirror_answers_with_its_age_while_central_is_down() {
    let mut server = central();
    let url = server.url("central");
    let odin4 = Host::with_central("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    server.psql("central", OLD_CLIENT);
    let odin4 = odin4.started();
    let mut laptop = Host::new("laptop");
    laptop
        .configure(&format!("[central]\nurl = \"{url}\"\npull_interval = \"1s\"\n[sessions]\nstale_after = \"5s\"\n"));
    laptop.start();
    let id = odin4.ok(&["register", "--project", "odin", "--id-only"]);
    eventually("the laptop knows all", SOON, || find(&laptop, &id).filter(|session| session["machine_synced"] == true));

    server.stop(Stop::Fast);
    laptop.await_central("unreachable");
    laptop.kill();
    laptop.start();
    let session = eventually("it is known to be old", SOON, || {
        find(&laptop, &id).filter(|session| session["machine_synced"] == false)
    });
    assert!(session["as_of"].as_str().unwrap() > session["created_at"].as_str().unwrap(), "{session}");
    assert!(laptop.ok(&["show", &id[..id.len() - 1], "--json"]).contains(&id));
    let footer = laptop.ok(&["footer", &id]);
    assert!(footer.starts_with(&format!("Instance: {id}@odin4 |")), "{footer}");
    let machines: Vec<Value> = serde_json::from_str(&laptop.ok(&["machines", "--json"])).unwrap();
    assert!(machines.iter().any(|m| m["host_machine"] == "odin4" && m["total_sessions"] == 1), "{machines:?}");
    let local: Value = serde_json::from_str(&laptop.ok(&["list", "--local", "--json"])).unwrap();
    assert_eq!(local["total_count"], 0);

    // What changed meanwhile, and nothing else, is read when central is back.
    server.resume();
    server.psql("central", "UPDATE supervisor_sessions SET current_epic = '007' WHERE host_machine = 'odin9'");
    eventually("the change is known", SOON, || {
        find(&laptop, "odin-PS-0ld001").filter(|session| session["current_epic"] == "007")
    });
}

#[test]
fn new_host_of_a_large_fleet_has_changes_at_once_and_everything_once_it_has_a_slot() {
    let server = central();
    let url = server.url("central");
    let laptop = told("laptop", &url);
    laptop.ok(&["migrate", "--central-url", &url]);
    server.psql(
        "central",
        "INSERT INTO sessiond_hosts (host_id, machine_name, claim, version) \
             SELECT gen_random_uuid(), 'host' || n, gen_random_uuid(), '1' FROM generate_series(1, 30) n; \
         INSERT INTO supervisor_sessions (instance_id, project, instance_type, host_machine) \
             SELECT 'odin-PS-' || lpad(n::text, 6, '0'), 'odin', 'PS', 'odin9' FROM generate_series(1, 2500) n; \
         INSERT INTO sessiond_leases (name, host_id, expires_at) \
             SELECT 'sessiond/full_reading/' || n, (SELECT host_id FROM sessiond_hosts LIMIT 1), now() + interval '1 hour' \
             FROM generate_series(0, 1) n",
    );
    let laptop = laptop.started();
    await_listening(&laptop);
    let own = laptop.ok(&["register", "--project", "odin", "--id-only"]);
    laptop.await_synced();
    let epic = "UPDATE supervisor_sessions SET current_epic = '007' WHERE instance_id = 'odin-PS-002400'";
    eventually("a change is known", SOON, || {
        server.psql("central", epic);
        find(&laptop, "odin-PS-002400").filter(|session| session["current_epic"] == "007")
    });
    assert_eq!(find(&laptop, "odin-PS-001200"), None, "no slot is free");
    server.psql("central", "DELETE FROM sessiond_leases");
    eventually("everything is known", Duration::from_secs(60), || {
        let list = laptop.ask("GET", "/v1/sessions?all=true", None).1;
        (list["total_count"] == 2501).then_some(())
    });
    assert_eq!(find(&laptop, &own).unwrap()["local"], true);
    let leases = "SELECT count(*) || ' ' || count(*) FILTER (WHERE expires_at > now()) FROM sessiond_leases \
        WHERE name LIKE 'sessiond/full_reading/%'";
    eventually("its slot is free again", SOON, || (server.psql("central", leases) == "1 0").then_some(()));
}

#[test]
fn remote_changes_of_a_session_reach_its_host() {
    let server = central();
    let url = server.url("central");
    let odin3 = told("odin3", &url);
    odin3.ok(&["migrate", "--central-url", &url]);
    let odin3 = odin3.started();
    await_listening(&odin3);
    let register = |epic| odin3.ok(&["register", "--project", "odin", "--epic", epic, "--id-only"]);
    let (closed, beaten) = (register("001"), register("002"));
    odin3.await_synced();
    server.psql(
        "central",
        &format!(
            "UPDATE supervisor_sessions SET status = 'closed', closed_at = now() WHERE instance_id = '{closed}'; \
         UPDATE supervisor_sessions SET context_percent = 55, current_epic = '003' WHERE instance_id = '{beaten}'"
        ),
    );
    eventually("it is closed here", SOON, || {
        find(&odin3, &closed).filter(|session| session["status"] == "closed" && session["local"] == true)
    });
    eventually("another client's heartbeat is known", SOON, || {
        find(&odin3, &beaten).filter(|s| s["context_percent"] == 55 && s["current_epic"] == "003")
    });
    let (code, error) = odin3.refused(&["heartbeat", &closed]);
    assert!((code, error.contains("is closed")) == (1, true), "{error}");
}

#[test]
fn central_is_polled_behind_a_pooler() {
    let server = central();
    let direct = Host::with_central("odin4", &server.url("central"));
    direct.ok(&["migrate", "--central-url", &server.url("central")]);
    let pooler = Pooler::start(&server, "central", 3);
    let laptop = Host::with_central("laptop", &pooler.url("central")).started();
    laptop.await_central("connected");
    server.psql("central", OLD_CLIENT);
    eventually("the laptop asked", SOON, || find(&laptop, "odin-PS-0ld001"));
    assert_eq!(laptop.status()["central"]["listening"], false);
    assert_eq!(server.psql("central", "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'"), "0");
}

#[test]
fn pruned_sessions_stay_in_central() {
    let server = central();
    let url = server.url("central");
    let odin3 = Host::new("odin3");
    odin3.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\n[sessions]\nkeep_closed = \"1m\"\n"
    ));
    odin3.ok(&["migrate", "--central-url", &url]);
    let odin3 = odin3.started();
    let id = odin3.ok(&["register", "--project", "odin", "--id-only"]);
    odin3.await_synced();
    server.psql("central", "UPDATE supervisor_sessions SET status = 'closed', closed_at = now() - interval '1 hour'");
    let list = |words: &[&str]| {
        let list: Value = serde_json::from_str(&odin3.ok(words)).unwrap();
        list["instances"].as_array().unwrap().iter().any(|session| session["instance_id"] == id.as_str())
    };
    eventually("it left this host", SOON, || (!list(&["list", "--json"])).then_some(()));
    eventually("it is no longer kept here", SOON, || (find(&odin3, &id).unwrap()["local"] == false).then_some(()));
    assert!(list(&["list", "--all", "--json"]));
    assert_eq!(server.psql("central", "SELECT instance_id || status FROM supervisor_sessions"), format!("{id}closed"));
    assert!(odin3.ok(&["close", &id]).contains("closed"), "closing again changes nothing");
}

/// Server-sent events, from the head of the answer on.
struct Events(BufReader<std::os::unix::net::UnixStream>);

impl Events {
    fn of(host: &Host, query: &str, last: Option<&str>) -> Self {
        let mut stream = host.connect().unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET /v1/watch{query} HTTP/1.1\r\nHost: x\r\n{last}\r\n").unwrap();
        let mut events = Self(BufReader::new(stream));
        while !events.line().starts_with(": watching") {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream goes on");
        line.trim_end().to_owned()
    }

    /// The next event: its name, its id and its data.
    fn next(&mut self) -> (String, String, Value) {
        let (mut name, mut id) = (String::new(), String::new());
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("event", value)) => name = value.into(),
                Some(("id", value)) => id = value.into(),
                Some(("data", value)) => {
                    return (name, id, serde_json::from_str(value).unwrap());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn watch_streams_each_change_and_resumes() {
    let mut host = Host::new("odin3").started();
    let mut events = Events::of(&host, "?project=odin", None);
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    host.ok(&["register", "--project", "freya"]);
    let (name, first, session) = events.next();
    assert_eq!((name.as_str(), &session["instance_id"]), ("session", &id.as_str().into()));
    for percent in 1..=5 {
        host.ok(&["heartbeat", &id, "--context", &percent.to_string()]);
        assert_eq!(events.next().2["context_percent"], percent);
    }
    drop(events);
    host.ok(&["close", &id]);

    let mut events = Events::of(&host, "?project=odin", Some(&first));
    let again: Vec<_> = (0..6).map(|_| events.next().2["status"].clone()).collect();
    assert_eq!(again, vec![json!("closed"); 6], "each change once, with the session as it is by now");
    assert_eq!(host.stop(), Some(0), "a watcher does not keep the daemon from stopping");

    host.start();
    let (name, _, _) = Events::of(&host, "", Some(&first)).next();
    assert_eq!(name, "reset", "another life of the daemon: what changed in between is not known");
}

#[test]
fn list_watch_follows() {
    let mut host = Host::new("odin3").started();
    let before = host.ok(&["register", "--project", "odin", "--id-only"]);
    let mut watch = host.sessiond().args(["list", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.next().unwrap().contains(&before), "the list comes first");
    let id = host.ok(&["register", "--project", "odin", "--id-only"]);
    assert!(lines.next().unwrap().contains(&id));
    host.kill();
    host.start();
    assert!(lines.next().unwrap().contains("\"total_count\":2"), "after a restart the list comes again");
    host.ok(&["heartbeat", &id, "--context", "7"]);
    assert!(lines.next().unwrap().contains("\"context_percent\":7"));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
