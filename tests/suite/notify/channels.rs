//! One daemon: which notifications are sent over which channel, and which are not.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::agent::{Agent, repository};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::program::write_script;

use super::receiver::{Answer, Receiver};

fn host(rules: &str) -> Host {
    let host = Host::new("odin3");
    host.configure(rules);
    host
}

fn rule(on: &str, channel: &str) -> String {
    format!("[[notify.rules]]\non = [{on}]\ndelay = \"0s\"\n{channel}\n")
}

fn webhook(receiver: &Receiver) -> String {
    format!("webhook = \"{}\"", receiver.url("/hook?token=hunter2"))
}

fn register(host: &Host) -> String {
    host.ok(&["register", "--project", "odin", "--id-only"]).trim().to_owned()
}

fn set(host: &Host, id: &str, activity: Value) {
    let (status, answer) = host.ask("POST", &format!("/v1/sessions/{id}/heartbeat"), Some(&activity));
    assert_eq!(status, 200, "{answer}");
}

fn occasions(receiver: &Receiver) -> Vec<String> {
    receiver.posted().iter().map(|posted| posted.body["occasion"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_transition_is_posted_once_and_not_again_after_a_restart() {
    let receiver = Receiver::start(&[]);
    let mut host = host(&rule("\"waiting\", \"failed\"", &webhook(&receiver))).started();
    let id = register(&host);
    let waits =
        json!({"activity": "waiting", "waiting_for": "permission", "activity_detail": "Bash \u{1b}[31m\u{202e}red"});
    set(&host, &id, waits.clone());
    let posted = receiver.await_posted(1);
    assert_eq!(posted[0].path, "/hook?token=hunter2");
    let body = &posted[0].body;
    assert_eq!(
        (&body["occasion"], &body["instance_id"], &body["host_machine"]),
        (&json!("waiting"), &json!(id), &json!("odin3"))
    );
    assert_eq!((&body["project"], &body["kind"]), (&json!("odin"), &Value::Null));
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("it waits for a permission: Bash") && !text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    assert!(posted[0].headers.iter().any(|line| line.starts_with("idempotency-key: notify:waiting:")), "{posted:?}");
    // The same wait, seen again.
    set(&host, &id, waits);
    set(&host, &id, json!({"context_percent": 7}));
    set(&host, &id, json!({"activity": "failed", "activity_detail": "rate_limit"}));
    receiver.await_posted(2);
    host.stop();
    host.start();
    set(&host, &id, json!({"activity": "working"}));
    set(&host, &id, json!({"activity": "waiting"}));
    receiver.await_posted(3);
    assert_eq!(occasions(&receiver), ["waiting", "failed", "waiting"]);
    assert!(!host.log().contains("hunter2"), "{}", host.log());
}

#[test]
fn quick_answer_makes_no_noise() {
    let receiver = Receiver::start(&[]);
    let delayed = rule("\"waiting\"", &webhook(&receiver)).replace("0s", "3s");
    let host = host(&format!("{delayed}{}", rule("\"failed\"", &webhook(&receiver)))).started();
    let id = register(&host);
    set(&host, &id, json!({"activity": "waiting"}));
    set(&host, &id, json!({"activity": "working"}));
    let other = register(&host);
    set(&host, &other, json!({"activity": "waiting"}));
    let posted = receiver.await_posted(1);
    assert_eq!(posted[0].body["instance_id"], other, "the one that still waits");
    // Later than the first wait would have been told.
    set(&host, &id, json!({"activity": "failed"}));
    receiver.await_posted(2);
    assert_eq!(occasions(&receiver), ["waiting", "failed"]);
}

#[test]
fn death_of_an_agent_is_sent_to_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let (file, script) = (folder.path().join("told"), folder.path().join("tell"));
    write_script(&script, &format!("#!/bin/sh\ncat >>{0}\necho \"$1\" >>{0}\n", file.display()));
    let command =
        format!("command = [\"{}\", \"an argument; with 'quotes'\"]\nprojects = [\"odin\"]", script.display());
    let host = host(&rule("\"stale\"", &command)).started();
    let mut agent = Agent::new(&repository(&host, "odin"), "u-1");
    agent.start(&host, "startup");
    let mut elsewhere = Agent::new(&repository(&host, "thor"), "u-2");
    elsewhere.start(&host, "startup");
    agent.kill();
    elsewhere.kill();
    let told = eventually("it is told", Duration::from_secs(30), || {
        fs::read_to_string(&file).ok().filter(|told| told.ends_with('\n'))
    });
    let (body, argument) = told.trim_end().rsplit_once('}').unwrap();
    let body: Value = serde_json::from_str(&format!("{body}}}")).unwrap();
    assert_eq!((&body["occasion"], &body["project"]), (&json!("stale"), &json!("odin")));
    assert_eq!(argument, "an argument; with 'quotes'");
}

#[test]
fn conflict_and_limit_are_sent_once() {
    let receiver = Receiver::start(&[]);
    let host = host(&rule("\"conflict\", \"limit\"", &webhook(&receiver))).started();
    let on_epic = || host.ok(&["register", "--project", "odin", "--epic", "003", "--id-only"]).trim().to_owned();
    let (one, other) = (on_epic(), on_epic());
    let told = &receiver.await_posted(1)[0].body;
    let text = told["text"].as_str().unwrap();
    assert!(text.starts_with("it shares its ") && (text.contains(&one) || text.contains(&other)), "{told}");
    let resets = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 7200;
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let line = agent.json("", &json!({"rate_limits": {"five_hour": {"used_percentage": 97, "resets_at": resets}}}));
    assert!(agent.run(&host, &["statusline"], line.to_string().as_bytes()).status.success());
    let posted = receiver.await_posted(2);
    let text = posted[1].body["text"].as_str().unwrap();
    assert_eq!(text, "3 % of five_hour are left");
    for id in [&one, &other] {
        set(&host, id, json!({"context_percent": 7}));
    }
    let last = on_epic();
    let posted = receiver.await_posted(4);
    assert!(
        posted[2..]
            .iter()
            .all(|posted| posted.body["text"].as_str().unwrap().contains(&last) || posted.body["instance_id"] == last)
    );
    assert_eq!(occasions(&receiver), ["conflict", "limit", "conflict", "conflict"], "one for each pair");
}

#[test]
fn channel_that_fails_is_tried_again_and_delays_no_other() {
    let receiver = Receiver::start(&[Answer::Status(500), Answer::Hang, Answer::Status(301)]);
    let topic = Receiver::start(&[]);
    let ntfy = format!("ntfy = \"{}\"", topic.url("/base/my%20topic"));
    let rules = format!("{}{}", rule("\"waiting\"", &webhook(&receiver)), rule("\"waiting\"", &ntfy));
    let host = host(&rules).started();
    let id = register(&host);
    set(&host, &id, json!({"activity": "waiting", "waiting_for": "question"}));
    let told = topic.await_posted(1);
    assert_eq!((told[0].path.as_str(), &told[0].body["topic"]), ("/base/", &json!("my topic")));
    assert_eq!(told[0].body["message"], "it waits for an answer");
    let posted = receiver.await_posted(3);
    assert!(posted.iter().all(|one| one.body == posted[0].body), "each attempt is the same");
    assert_eq!(topic.posted().len(), 1);
    let log = host.log();
    assert!(log.contains("the server answered 500") && !log.contains("hunter2"), "{log}");
}

#[test]
fn test_prints_the_result_of_each_rule() {
    let receiver = Receiver::start(&[]);
    let rules = [
        rule("\"stale\"", &webhook(&receiver)),
        rule("\"stale\"", "command = [\"/nonexistent/program\"]"),
        rule("\"stale\"", "webhook = \"http://127.0.0.1:1/hunter2\""),
        rule("\"stale\"", "desktop = true"),
    ];
    let host = host(&rules.concat()).started();
    let output = host.verb(&["notify", "test", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = |number: usize| results[number]["error"].as_str().map(str::to_owned);
    assert_eq!((&results[0]["channel"], error(0)), (&json!("webhook"), None), "{results}");
    assert!(error(1).unwrap().contains("cannot be run"), "{results}");
    assert!(error(2).unwrap().contains("cannot connect") && !results.to_string().contains("hunter2"), "{results}");
    assert!(error(3).unwrap().contains("notify-agent"), "{results}");
    assert_eq!(receiver.posted()[0].body["occasion"], "test");
    let printed = String::from_utf8(host.verb(&["notify", "test"]).stdout).unwrap();
    assert!(printed.starts_with("rule 1 (webhook): ok\nrule 2 (command): "), "{printed}");
    // Without rules nobody is told, and that is said.
    host.configure("");
    host.signal(rustix::process::Signal::HUP);
    eventually("the rules are gone", Duration::from_secs(10), || {
        let output = host.verb(&["notify", "test", "--json"]);
        (output.stdout == b"[]\n" && output.status.success()).then_some(())
    });
}
