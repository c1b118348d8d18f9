//! What hooks report of the activity and the work, read from the spool of a daemon that does not run.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use testkit::agent::Agent;
use testkit::daemon::Host;

const SECRET: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";

/// The reports in the spool, oldest first.
fn reports(host: &Host) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(host.state_dir().join("spool")).unwrap().flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    let read = |file: fs::DirEntry| serde_json::from_slice::<Value>(&fs::read(file.path()).unwrap()).unwrap();
    files.into_iter().map(read).map(|request| request["write"]["agent"]["report"].clone()).collect()
}

fn repository(host: &Host) -> std::path::PathBuf {
    let folder = host.dir().join("app");
    fs::create_dir(&folder).unwrap();
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["remote", "add", "origin", &format!("https://me:{SECRET}@github.com/team/app.git")],
        &["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"],
    ] {
        assert!(git(&folder, words).status().unwrap().success());
    }
    folder
}

fn git(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).args(words).stdin(Stdio::null());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// A turn with a permission, a file and an answer.
fn turn(host: &Host, agent: &Agent) {
    let prompt = json!({"prompt": format!("Fix the login\nwith {SECRET}"), "prompt_id": "p1"});
    agent.hook(host, "UserPromptSubmit", prompt);
    agent.hook(host, "PermissionRequest", json!({"tool_name": "Bash", "prompt_id": "p1"}));
    let used = json!({"tool_name": "Edit", "tool_input": {"file_path": "/w/a.rs", "old_string": SECRET}});
    agent.hook(host, "PostToolUse", used);
    agent.hook(host, "Stop", json!({"last_assistant_message": "Done.", "background_tasks": [], "prompt_id": "p1"}));
}

#[test]
fn turn_is_reported_with_activity_and_work() {
    let host = Host::new("odin3");
    let agent = Agent::new(&repository(&host), "u-1");
    turn(&host, &agent);
    agent.statusline(&host, json!(12));
    let reports = reports(&host);
    let field = |name: &str| reports.iter().map(|report| report[name].clone()).collect::<Vec<_>>();
    let expected = [
        json!({"activity": "working"}),
        json!({"activity": "waiting", "waiting_for": "permission", "detail": "Bash", "actor": "main",
            "permission": {"prompt_id": "p1"}}),
        json!({"activity": "working", "actor": "main"}),
        json!({"activity": "idle"}),
        // The repository and the status line.
        Value::Null,
    ];
    assert_eq!(field("activity"), expected);
    let times: Vec<_> = reports.iter().map(|report| report["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times[0].len() == "2026-11-25T12:00:00.000000Z".len(), "{times:?}");
    let work = field("work");
    assert_eq!(work[0], json!({"prompt": "Fix the login\nwith [redacted]"}));
    assert_eq!(work[1], Value::Null);
    assert_eq!(work[2], json!({"files": ["/w/a.rs"]}));
    assert_eq!(work[3], json!({"answer": "Done."}));
    let repository = &work[4]["repository"];
    let top = fs::canonicalize(host.dir().join("app")).unwrap();
    assert_eq!(
        (&repository["name"], &repository["branch"], &repository["worktree"], &repository["dirty"]),
        (&json!("github.com/team/app"), &json!("main"), &json!(top), &json!(false))
    );
    assert_eq!(repository["head"].as_str().map(str::len), Some(40));
    assert_eq!(
        (&work[4]["model"], &work[4]["cost_usd"], &work[4]["agent_version"]),
        (&json!("m"), &json!(0.1), &json!("2.1.0"))
    );
    assert!(!format!("{reports:?}").contains("ghp_"), "{reports:?}");
}

#[test]
fn configuration_decides_what_of_the_work_is_reported() {
    for (config, kept) in [
        ("agents.record = \"titles\"", json!([{"prompt": "Fix the login"}, "repository"])),
        ("agents.record = \"none\"", json!([])),
        ("agents.record = \"some\"", json!([])),
        ("[agents", json!([])),
        (
            "[later]\nkey = 1\n[agents]\nrecord = \"full\"",
            json!([
            {"prompt": "Fix the login\nwith [redacted]"}, {"files": ["/w/a.rs"]}, {"answer": "Done."}, "repository"]),
        ),
    ] {
        let host = Host::new("odin3");
        host.configure(config);
        let agent = Agent::new(&repository(&host), "u-1");
        turn(&host, &agent);
        agent.hook(&host, "PreCompact", json!({"trigger": "manual", "custom_instructions": "keep the flux"}));
        let reports = reports(&host);
        let works = reports.iter().map(|report| &report["work"]).filter(|work| !work.is_null());
        let works: Vec<_> =
            works.map(|work| if work["repository"].is_object() { json!("repository") } else { work.clone() }).collect();
        assert_eq!(json!(works), kept, "{config}");
        let activities = reports.iter().filter(|report| report["activity"].is_object()).count();
        assert_eq!(activities, 5, "{config}: {reports:?}");
        let spool = fs::read_dir(host.state_dir().join("spool")).unwrap().flatten();
        let texts: String = spool.map(|file| fs::read_to_string(file.path()).unwrap()).collect();
        assert_eq!(texts.contains("keep the flux"), config.contains("full"), "{config}");
        assert_eq!(texts.contains("context_window"), !kept.as_array().unwrap().is_empty(), "{config}");
        let log = fs::read_to_string(host.state_dir().join("hooks.log")).unwrap_or_default();
        let broken = config.contains("some") || config == "[agents";
        assert_eq!(log.contains("nothing of the work is recorded: "), broken, "{config}: {log}");
    }
}
