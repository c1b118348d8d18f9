//! Invalid input from Claude Code: no agent fails, no session is lost, and the log names the error.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::agent::{AT_MOST, Agent, id_in, repository, resolved};
use testkit::daemon::Host;
use testkit::eventually;

const SOON: Duration = Duration::from_secs(20);

fn hook_log(host: &Host) -> String {
    fs::read_to_string(host.state_dir().join("hooks.log")).unwrap_or_default()
}

fn sessions(host: &Host) -> Vec<Value> {
    host.ask("GET", "/v1/sessions", None).1["instances"].as_array().unwrap().clone()
}

#[test]
fn no_input_fails_an_agent() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let whole = agent.json("SessionStart", &json!({"source": "startup"})).to_string();
    let wrong = json!({"session_id": 7, "transcript_path": [], "cwd": {"x": 1}, "source": false}).to_string();
    let inputs: Vec<&[u8]> = vec![
        b"",
        b"null",
        b"{",
        b"\xff\xfe\x00",
        &whole.as_bytes()[..whole.len() / 2],
        &whole.as_bytes()[..whole.len() - 1],
        wrong.as_bytes(),
    ];
    for event in ["SessionStart", "UserPromptSubmit", "Stop", "Notification", "PreCompact", "PostCompact", "Dance", ""]
    {
        for input in &inputs {
            let output = agent.run(&host, &["hook", event], input);
            assert!(output.status.success() && output.stderr.is_empty(), "{event}: {output:?}");
            let printed = String::from_utf8(output.stdout).unwrap();
            // Without a name, it is the event that stdin names.
            assert!(printed.is_empty() || ["SessionStart", ""].contains(&event), "{event}: {printed}");
        }
    }
    for input in &inputs {
        let output = agent.run(&host, &["statusline"], input);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    for words in [&["hook"][..], &["hook", "--what", "ever"]] {
        assert!(agent.run(&host, words, whole.as_bytes()).status.success());
    }
    let known = eventually("it is registered", SOON, || Some(sessions(&host)).filter(|known| !known.is_empty()));
    assert_eq!(known.len(), 1, "by its process it is one session: {known:#?}");
    let log = hook_log(&host);
    assert!(log.contains("hook Dance: there is no such event"), "{log}");
    assert!(log.contains("stdin is not a JSON object"), "{log}");
}

#[test]
fn prompt_of_five_megabytes_is_read_within_bounded_memory() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    agent.start(&host, "startup");
    let prompt = "Bitte prüfe \"das\", und dann weiter:\n".repeat((5 << 20) / 40);
    agent.hook(&host, "UserPromptSubmit", json!({"prompt": prompt}));
    eventually("it is registered", SOON, || (sessions(&host).len() == 1).then_some(()));
    assert!(!hook_log(&host).contains("JSON"), "{}", hook_log(&host));
}

#[test]
fn every_folder_name_maps_to_a_project() {
    let host = Host::new("odin3").started();
    for (index, (folder, project)) in
        [("My Great Project", "my-great-project"), ("UPPER", "upper"), ("Größe", "groesse"), ("项目", "p-")]
            .into_iter()
            .enumerate()
    {
        let agent = Agent::new(&repository(&host, folder), &format!("u-{index}"));
        agent.start(&host, "startup");
        let session = eventually("it is registered", SOON, || {
            sessions(&host).into_iter().find(|s| s["claude_session_uuid"] == agent.uuid.as_str())
        });
        assert!(session["project"].as_str().unwrap().starts_with(project), "{folder}: {session}");
    }
    let gone = Agent::new(&host.dir().join("was/here"), "u-gone");
    gone.start(&host, "startup");
    eventually("it is registered", SOON, || sessions(&host).iter().any(|s| s["project"] == "here").then_some(()));
}

#[test]
fn type_rules_decide_which_sessions_are_meta_supervisors() {
    let host = Host::new("odin3");
    let (meta, plain) = (repository(&host, "meta/one"), repository(&host, "plain"));
    host.configure(&format!(
        "[claude]\nrules = [{{ folder = \"{}\", type = \"MS\" }}]\n",
        meta.parent().unwrap().display()
    ));
    let mut host = host.started();
    let (a, b) = (Agent::new(&meta, "u-a"), Agent::new(&plain, "u-b"));
    let starts = |agent: &Agent| resolved(&host, &id_in(&agent.start(&host, "startup")));
    assert!(starts(&a).starts_with("one-MS-"));
    assert!(starts(&b).starts_with("plain-PS-"));

    // An id promised before the rules were known still resolves to the session.
    host.kill();
    let c = Agent::new(&meta, "u-c");
    let promised = id_in(&c.start(&host, "startup"));
    host.start();
    let session = host.ask("GET", &format!("/v1/sessions/{promised}"), None).1;
    assert_eq!(
        (&session["instance_type"], &session["claude_session_uuid"]),
        (&json!("MS"), &json!("u-c")),
        "{session}"
    );
}

#[test]
fn hanging_daemon_does_not_delay_an_agent() {
    let host = Host::new("odin3").environment("SESSIOND_HOOK_TIMEOUT", "1s").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    agent.start(&host, "startup");
    host.signal(rustix::process::Signal::STOP);
    let began = Instant::now();
    let line = agent.statusline(&host, json!(42));
    assert!(line.contains("Context: 42%"), "the footer from what is known: {line}");
    agent.hook(&host, "Stop", json!({}));
    let other = Agent::new(&repository(&host, "tyr"), "u-2");
    assert!(other.start(&host, "startup").contains("tyr-PS-"));
    assert!(began.elapsed() < 3 * AT_MOST);
    host.signal(rustix::process::Signal::CONT);
    eventually("all of it arrives", SOON, || {
        let known = sessions(&host);
        (known.len() == 2 && known.iter().any(|s| s["context_percent"] == 42)).then_some(())
    });
}

#[test]
fn endless_stdin_does_not_delay_an_agent() {
    let host = Host::new("odin3").environment("SESSIOND_HOOK_TIMEOUT", "1s").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let mut command = host.sessiond();
    command.args(["hook", "Stop"]).env("CLAUDE_PID", agent.pid().to_string()).env("CLAUDE_CODE_SESSION_ID", "u-1");
    let began = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stdin = child.stdin.take();
    assert!(child.wait().unwrap().success());
    drop(stdin);
    assert!(began.elapsed() < AT_MOST);
    assert!(hook_log(&host).contains("did not end in time"), "{}", hook_log(&host));
    eventually("the environment knows it", SOON, || {
        (sessions(&host).first()?["claude_session_uuid"] == "u-1").then_some(())
    });
}

#[test]
fn summary_with_half_a_surrogate_pair_is_kept() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let id = id_in(&agent.start(&host, "startup"));
    let input = agent.json("PostCompact", &json!({"trigger": "auto", "compact_summary": "@"})).to_string();
    for (written, kept) in [
        (&br"cut \ud83d"[..], "cut \u{fffd}"),
        (br"\ude00 \n whole \ud83d\ude00", "\u{fffd} \n whole \u{1f600}"),
        (b"raw \xf0\x9f\x98", "raw \u{fffd}"),
    ] {
        let at = input.find('@').unwrap();
        let bytes = [b"\xef\xbb\xbf", &input.as_bytes()[..at], written, &input.as_bytes()[at + 1..]].concat();
        assert!(agent.run(&host, &["hook", "PostCompact"], &bytes).status.success());
        let events = host.ask("GET", &format!("/v1/sessions/{id}/events?type=context_window_updated&limit=1"), None).1;
        assert_eq!(events["events"][0]["event_data"]["compact_summary"], kept, "{events:#?}");
    }
    assert_eq!(hook_log(&host), "");
}
