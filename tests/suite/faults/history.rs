//! What happens in a session, taken down while everything fails, beside a client of the earlier kind that adds to
//! the same session: all of it in order, and once.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{LIMIT, await_state, check_ledger, hurried, nudged};
use testkit::chronicle::{Chronicle, busy_client, stop_clients};
use testkit::daemon::Host;
use testkit::postgres::{Server, Stop};
use testkit::proxy::{Direction, Mode, Proxy};
use testkit::{campaign, eventually, legacy_history, random::Random};

/// A central with all that the earlier services have, and our schema.
fn full_central(zone: &str) -> Server {
    let server = Server::start(&[&format!("timezone={zone}")]);
    server.create("central");
    let migrate = |_| Host::new("migrator").ok(&["migrate", "--central-url", &server.url("central")]);
    // Once for the table of sessions, and again for those that refer to it.
    migrate(());
    server.psql_file("central", &legacy_history());
    migrate(());
    server.psql(
        "central",
        "CREATE TABLE inserted (instance_id TEXT NOT NULL); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO inserted VALUES (NEW.instance_id); RETURN NEW; END $$; \
         CREATE TRIGGER note AFTER INSERT ON supervisor_sessions FOR EACH ROW EXECUTE FUNCTION note()",
    );
    server
}

fn in_the_end(host: &Host, server: &Server, saga: &Chronicle) {
    stop_clients(server);
    host.await_synced();
    saga.check(server);
    check_ledger(host, server);
    assert_eq!(host.status()["parked"], 0);
}

#[test]
fn events_of_an_outage_arrive_once_and_in_order() {
    let mut server = full_central("America/New_York");
    let host = hurried("odin4", &server.url("central")).started();
    host.await_central("connected");
    let saga = Chronicle::of_a_new_session(&host);
    host.await_synced();
    server.stop(Stop::Fast);
    await_state(&host, "unreachable");
    (0..40).for_each(|_| saga.append(&host));
    assert_eq!(saga.acknowledged(), 40);
    let backlog = &host.status()["backlog"];
    assert_eq!(backlog["records"], 40, "{backlog}");
    assert!(backlog["oldest_at"].is_string(), "{backlog}");

    server.resume();
    let _other = busy_client(&server, &saga.session);
    nudged(&host, "all is there", || (host.status()["backlog"]["records"] == 0).then_some(()));
    in_the_end(&host, &server, &saga);
    // When it happened, not when it was replayed, in any time zone of the server.
    let late = "SELECT count(*) FROM event_store e, supervisor_sessions s WHERE e.event_type = 'epic_started' \
        AND e.timestamp > s.last_heartbeat + interval '30 s' AND e.instance_id = s.instance_id";
    assert_eq!(server.psql("central", late), "0");
    let ages = "SELECT bool_and(now() - created_at BETWEEN interval '0 s' AND interval '5 min') FROM command_log";
    assert_eq!(server.psql("central", ages), "t");
}

#[test]
fn history_survives_cut_connections() {
    let cuts = campaign(20, 400);
    let mut random = Random::from_clock("cuts in a saga");
    let server = full_central("Asia/Kolkata");
    let proxy = Proxy::to_socket(&server.socket());
    let host = hurried("odin4", &proxy.url("postgres", "central")).started();
    host.await_central("connected");
    let saga = Chronicle::of_a_new_session(&host);
    let _other = busy_client(&server, &saga.session);
    saga.during(&host, || {
        for cut in 0..cuts {
            let (commits, connections) = (proxy.commits_cut(), proxy.connections());
            let direction = if random.below(2) == 0 { Direction::ToCentral } else { Direction::FromCentral };
            let at_commit = cut % 2 == 0;
            // The first commit of a connection is the greeting's, the second the push's.
            proxy.set(match at_commit {
                true => Mode::CutAtCommit { pass: random.below(4) },
                false => Mode::CutAfter(direction, random.below(20_000)),
            });
            nudged(&host, "a connection is cut", || match at_commit {
                true => (proxy.commits_cut() > commits).then_some(()),
                false => (proxy.connections() > connections).then_some(()),
            });
            proxy.set(Mode::Pass);
            await_state(&host, "connected");
        }
    });
    in_the_end(&host, &server, &saga);
    println!("{cuts} cuts, {} records acknowledged", saga.acknowledged());
}

#[test]
fn history_survives_kills_and_hanging_servers() {
    let mut random = Random::from_clock("kills in a saga");
    let mut server = full_central("Europe/Berlin");
    let mut host = hurried("odin4", &server.url("central")).started();
    host.await_central("connected");
    let saga = Chronicle::of_a_new_session(&host);
    for round in 0..campaign(9, 150) {
        let other = busy_client(&server, &saga.session);
        let at = Instant::now() + Duration::from_micros(random.below(1_500_000));
        saga.during(&host, || {
            eventually("the drawn time comes", LIMIT, || (Instant::now() > at).then_some(()));
            match round % 3 {
                0 => host.signal(Signal::KILL),
                1 => {
                    server.stop(Stop::Kill);
                    server.resume();
                }
                _ => {
                    server.freeze();
                    await_state(&host, "unreachable");
                    server.thaw();
                }
            }
        });
        if round % 3 == 0 {
            host.kill();
            host.start();
        }
        await_state(&host, "connected");
        drop(other);
    }
    in_the_end(&host, &server, &saga);
    assert!(!host.log().contains("central lost what it had"), "a crash is no restored backup");
}

#[test]
fn restored_central_gets_lost_records_once() {
    let server = full_central("America/New_York");
    let host = hurried("odin4", &server.url("central")).started();
    host.await_central("connected");
    let saga = Chronicle::of_a_new_session(&host);
    (0..25).for_each(|_| saga.append(&host));
    host.await_synced();
    let dump = server.dump("central");
    (0..25).for_each(|_| saga.append(&host));
    host.await_synced();
    server.restore("central", &dump);
    let _other = busy_client(&server, &saga.session);
    saga.during(&host, || {
        nudged(&host, "what central lost is noticed", || host.log().contains("central lost what it had").then_some(()));
    });
    stop_clients(&server);
    host.await_synced();
    saga.check(&server);
}

#[test]
fn rejected_record_is_parked_alone() {
    let server = full_central("UTC");
    server.psql(
        "central",
        "ALTER TABLE command_log ADD CONSTRAINT no_thirteen CHECK (action <> 'x'); \
         ALTER TABLE event_store ADD CONSTRAINT no_poison CHECK (event_data->>'n' IS DISTINCT FROM 'x')",
    );
    let host = hurried("odin4", &server.url("central")).started();
    host.await_central("connected");
    let saga = Chronicle::of_a_new_session(&host);
    let poison = json!({"event_type": "epic_failed", "event_data": {"n": "x"}});
    for (route, body) in [("events", &poison), ("commands", &json!({"action": "x"}))] {
        (0..12).for_each(|_| saga.append(&host));
        assert_eq!(host.ask("POST", &format!("/v1/sessions/{}/{route}", saga.session), Some(body)).0, 201);
    }
    (0..12).for_each(|_| saga.append(&host));
    nudged(&host, "two are parked", || (host.status()["parked"] == 2).then_some(()));
    host.await_synced();
    let central = server.psql("central", "SELECT count(*) FROM command_log WHERE action = 'x'");
    assert_eq!(central, "0");
    let (_, parked) = host.ask("GET", "/v1/parked", None);
    let event = parked.as_array().unwrap().iter().find(|p| p["kind"] == "event").unwrap();
    assert_eq!((&event["type"], &event["instance_id"]), (&json!("epic_failed"), &json!(saga.session)));
    assert!(event["error"].as_str().unwrap().contains("no_poison"), "{event}");

    let id = event["id"].as_str().unwrap();
    server.psql("central", "ALTER TABLE event_store DROP CONSTRAINT no_poison");
    host.ok(&["parked", "retry", id]);
    host.await_synced();
    let there = format!("SELECT count(*) FROM event_store WHERE event_id = '{id}' AND event_type = 'epic_failed'");
    assert_eq!(server.psql("central", &there), "1");
    assert_eq!(host.ok(&["parked", "drop", "--all"]), "1 row dropped");
    assert_eq!(host.status()["parked"], 0);
}
