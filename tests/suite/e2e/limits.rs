//! Rate limits that a status line shows are known on every machine, with or without central.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::agent::{Agent, repository};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::{Server, Stop};

const SOON: Duration = Duration::from_secs(20);

fn host(machine: &str, url: &str) -> Host {
    super::host_in_a_hurry(machine, url, "1s")
}

/// Draws the status line with these limits.
fn draw(host: &Host, agent: &Agent, limits: &Value) {
    let input = agent.json("", &json!({"rate_limits": limits, "version": "2.1.332"}));
    let output = agent.run(host, &["statusline"], input.to_string().as_bytes());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

fn limits(host: &Host) -> Vec<Value> {
    let (status, limits) = host.ask("GET", "/v1/limits", None);
    assert_eq!(status, 200, "{limits}");
    limits.as_array().unwrap().clone()
}

/// Machine, window and percent used.
fn used(host: &Host) -> Vec<String> {
    let row = |limit: &Value| {
        let text = |name: &str| limit[name].as_str().unwrap().to_owned();
        format!("{} {} {}", text("host_machine"), text("window"), limit["used_percent"])
    };
    limits(host).iter().map(row).collect()
}

fn await_used(host: &Host, expected: &[&str]) {
    eventually(&format!("{expected:?}"), SOON, || (used(host) == expected).then_some(()));
}

/// Seconds since 1970, from now on.
fn seconds_from_now(seconds: u64) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs() + seconds
}

#[test]
fn limits_are_known_elsewhere_and_survive_the_absence_of_central() {
    let mut server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin4 = host("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    let (odin4, laptop) = (odin4.started(), host("laptop", &url).started());
    let account = json!({"primaryApiKey": "sk-ant-secret", "oauthAccount": {"accountUuid": "a", "emailAddress": "dev@example.com",
        "organizationName": "dev@example.com's Organization"}});
    fs::write(odin4.dir().join(".claude.json"), account.to_string()).unwrap();
    let agent = Agent::new(&repository(&odin4, "odin"), "u-1");
    let resets = seconds_from_now(7200);
    let shown = |five, seven| {
        json!({"five_hour": {"used_percentage": five, "resets_at": resets},
        "seven_day": {"used_percentage": seven, "resets_at": resets}})
    };
    draw(&odin4, &agent, &shown(41.5, 10));
    let expected = ["odin4 five_hour 41.5", "odin4 seven_day 10.0"];
    await_used(&odin4, &expected);
    await_used(&laptop, &expected);
    let known = limits(&laptop);
    assert_eq!((&known[0]["account"], &known[0]["local"]), (&json!("dev@example.com"), &json!(false)), "{known:?}");
    assert_eq!((&known[0]["headroom_percent"], &known[0]["reset_passed"]), (&json!(58.5), &json!(false)));
    let printed = laptop.ok(&["limits"]);
    assert!(printed.contains("dev@example.com") && printed.contains("41.5%") && printed.contains("58.5%"), "{printed}");
    let machines: Value = serde_json::from_str(&laptop.ok(&["machines", "--json"])).unwrap();
    let odin4_there = machines.as_array().unwrap().iter().find(|m| m["host_machine"] == "odin4").unwrap();
    assert_eq!(odin4_there["headroom_percent"], 58.5, "{machines}");
    assert!(laptop.ok(&["machines"]).contains("HEADROOM"));
    assert!(!server.psql("central", "SELECT limits FROM sessiond_limits").contains("sk-ant"));

    server.stop(Stop::Fast);
    odin4.await_central("unreachable");
    laptop.await_central("unreachable");
    draw(&odin4, &agent, &shown(60.0, 12));
    await_used(&odin4, &["odin4 five_hour 60.0", "odin4 seven_day 12.0"]);
    assert_eq!(used(&laptop), expected, "as it was last known");
    server.resume();
    await_used(&laptop, &["odin4 five_hour 60.0", "odin4 seven_day 12.0"]);
}

#[test]
fn limits_of_a_spooled_status_line_arrive_with_the_daemon_and_replace_no_newer_ones() {
    let host = Host::new("odin3");
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let shown = |used, resets| json!({"five_hour": {"used_percentage": used, "resets_at": seconds_from_now(resets)}});
    draw(&host, &agent, &shown(10.0, 3600));
    let mut host = host.started();
    await_used(&host, &["odin3 five_hour 10.0"]);
    host.kill();
    let spool = host.state_dir().join("spool");
    draw(&host, &agent, &shown(20.0, 3600));
    // The oldest arrives last, as if a clock or a disk had been slow.
    let request = fs::read_dir(&spool).unwrap().flatten().map(|file| file.path()).next().unwrap();
    let kept = host.dir().join("kept.json");
    fs::rename(&request, &kept).unwrap();
    draw(&host, &agent, &shown(30.0, 3600));
    host.start();
    await_used(&host, &["odin3 five_hour 30.0"]);
    fs::rename(&kept, spool.join(request.file_name().unwrap())).unwrap();
    eventually("it is imported", SOON, || (!spool.join(request.file_name().unwrap()).exists()).then_some(()));
    assert_eq!(used(&host), ["odin3 five_hour 30.0"]);
    drop(agent);
}

#[test]
fn recorded_status_lines_are_read_with_and_without_limits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents/claude-code");
    let mut recorded = Vec::new();
    for version in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(version.unwrap().path().join("statusline.jsonl")).unwrap_or_default();
        recorded.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    assert!(!recorded.is_empty());
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let run = |input: &Value| assert!(agent.run(&host, &["statusline"], input.to_string().as_bytes()).status.success());
    recorded.iter().for_each(run);
    eventually("they are known", SOON, || (host.ask("GET", "/v1/sessions", None).1["total_count"] != 0).then_some(()));
    assert_eq!(limits(&host), Vec::<Value>::new(), "with an API key there are no limits");
    for (used, line) in recorded.iter_mut().enumerate() {
        line["rate_limits"] = json!({"five_hour": {"used_percentage": used, "resets_at": seconds_from_now(60)}});
        run(line);
        await_used(&host, &[&format!("odin3 five_hour {used}.0")]);
    }
}

#[test]
fn idle_agent_that_draws_its_status_line_again_replaces_nothing() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let (idle, busy) = (Agent::new(&folder, "u-idle"), Agent::new(&folder, "u-busy"));
    let resets = seconds_from_now(3600);
    let draw = |agent: &Agent, used: u32, requests: u32| {
        let limits = json!({"five_hour": {"used_percentage": used, "resets_at": resets}});
        let input = agent.json("", &json!({"rate_limits": limits, "cost": {"total_api_duration_ms": requests}}));
        assert!(agent.run(&host, &["statusline"], input.to_string().as_bytes()).status.success());
    };
    draw(&idle, 10, 500);
    await_used(&host, &["odin3 five_hour 10.0"]);
    draw(&busy, 40, 700);
    await_used(&host, &["odin3 five_hour 40.0"]);
    let beaten = || host.ask("GET", "/v1/sessions", None).1["instances"].to_string();
    let before = beaten();
    draw(&idle, 10, 500);
    eventually("its heartbeat arrives", SOON, || (beaten() != before).then_some(()));
    assert_eq!(used(&host), ["odin3 five_hour 40.0"]);
    draw(&idle, 41, 900);
    await_used(&host, &["odin3 five_hour 41.0"]);
}

#[test]
fn use_is_unknown_once_the_reset_has_passed() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let at = seconds_from_now(0) - 60;
    draw(
        &host,
        &agent,
        &json!({"five_hour": {"used_percentage": 90, "resets_at": at}, "later": {"used_percentage": 5, "resets_at": null}}),
    );
    eventually("they are known", SOON, || (limits(&host).len() == 2).then_some(()));
    let known = limits(&host);
    assert_eq!((&known[0]["used_percent"], &known[0]["reset_passed"]), (&Value::Null, &json!(true)));
    assert_eq!((&known[1]["used_percent"], &known[1]["resets_at"]), (&json!(5.0), &Value::Null));
    let printed = host.ok(&["limits"]);
    assert!(printed.contains("reset passed") && !printed.contains("90"), "{printed}");
}

#[test]
fn hostile_limits_neither_fail_the_status_line_nor_reach_a_terminal() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    fs::write(
        host.dir().join(".claude.json"),
        r#"{"oauthAccount": {"emailAddress": "a\u001b[2J\u202eb@example.com\n"}}"#,
    )
    .unwrap();
    let many: serde_json::Map<String, Value> =
        (0..50).map(|n| (format!("w{n:02}"), json!({"used_percentage": n, "resets_at": 1e300}))).collect();
    for limits in [
        json!({"five_hour": {"used_percentage": 250, "resets_at": -1}, "a\u{1b}[2J": {"used_percentage": 1}}),
        json!({"five_hour": {"used_percentage": "41", "resets_at": "soon"}}),
        json!({"five_hour": {"used_percentage": -5}}),
        json!("none"),
        json!(many),
    ] {
        draw(&host, &agent, &limits);
    }
    eventually("the windows are known", SOON, || (limits(&host).len() == 8).then_some(()));
    let printed = host.ok(&["limits"]);
    assert!(!printed.contains('\u{1b}') && !printed.contains('\u{202e}'), "{printed:?}");
    assert!(printed.contains("b@example.com"), "{printed}");
}

#[test]
fn what_may_not_be_recorded_is_not_reported() {
    let host = Host::new("odin3");
    host.configure("[agents]\nrecord = \"none\"\n");
    let host = host.started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    draw(&host, &agent, &json!({"five_hour": {"used_percentage": 41, "resets_at": null}}));
    eventually("the session is known", SOON, || {
        (host.ask("GET", "/v1/sessions", None).1["total_count"] == 1).then_some(())
    });
    assert_eq!(limits(&host), Vec::<Value>::new());
    assert_eq!(host.ok(&["limits"]), "");
}

#[test]
fn central_without_the_table_takes_everything_else_and_gets_the_limits_after_migrate() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin4 = host("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    server.psql("central", "DROP TABLE sessiond_limits; DELETE FROM sessiond_migrations WHERE version = 1794000000000");
    let mut odin4 = odin4.started();
    let agent = Agent::new(&repository(&odin4, "odin"), "u-1");
    draw(&odin4, &agent, &json!({"five_hour": {"used_percentage": 41, "resets_at": seconds_from_now(60)}}));
    await_used(&odin4, &["odin4 five_hour 41.0"]);
    odin4.ok(&["sync", "--wait", "--timeout", "20"]);
    let outdated = odin4.status()["central"]["outdated"].as_str().unwrap_or_default().to_owned();
    assert!(outdated.contains("sessiond_limits") && outdated.contains("sessiond migrate"), "{outdated}");
    assert_eq!(odin4.status()["central"]["state"], "connected");
    odin4.ok(&["migrate", "--central-url", &url]);
    odin4.kill();
    odin4.start();
    eventually("central has the limits", SOON, || {
        server.psql("central", "SELECT limits FROM sessiond_limits").contains("five_hour").then_some(())
    });
    assert!(odin4.status()["central"]["outdated"].is_null());
}

#[test]
fn central_that_rejects_limits_takes_everything_else() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin4 = host("odin4", &url);
    odin4.ok(&["migrate", "--central-url", &url]);
    server.psql("central", "ALTER TABLE sessiond_limits ADD CONSTRAINT none CHECK (limits = '[]')");
    let odin4 = odin4.started();
    let agent = Agent::new(&repository(&odin4, "odin"), "u-1");
    draw(&odin4, &agent, &json!({"five_hour": {"used_percentage": 41, "resets_at": seconds_from_now(60)}}));
    await_used(&odin4, &["odin4 five_hour 41.0"]);
    eventually("it was offered", SOON, || odin4.log().contains("does not accept rate limits").then_some(()));
    odin4.ok(&["register", "--project", "odin", "--id-only"]);
    odin4.ok(&["sync", "--wait", "--timeout", "20"]);
    assert_eq!(odin4.status()["central"]["state"], "connected");
    server.psql("central", "ALTER TABLE sessiond_limits DROP CONSTRAINT none");
    draw(&odin4, &agent, &json!({"five_hour": {"used_percentage": 42, "resets_at": seconds_from_now(60)}}));
    eventually("central has the next", SOON, || {
        server.psql("central", "SELECT limits FROM sessiond_limits").contains("42").then_some(())
    });
}
