//! Agents at one place hear of each other, once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::agent::{Agent, id_in, resolved};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::postgres::Server;

const SOON: Duration = Duration::from_secs(20);
const NOTICE: &str = "Another agent works at the same place";

/// A working tree with one commit on this branch, and a remote.
fn repository(host: &Host, name: &str, branch: &str) -> PathBuf {
    let folder = host.dir().join("work").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(&folder).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(words);
        assert!(git.output().expect("git runs").status.success(), "{words:?}");
    };
    git(&["init", "-q", "-b", branch]);
    git(&["remote", "add", "origin", "git@github.com:team/app.git"]);
    git(&["commit", "-q", "--allow-empty", "-m", "begin"]);
    folder
}

/// The context that the agent gets with its next prompt; empty if none.
fn prompt(agent: &Agent, host: &Host) -> String {
    let printed = agent.hook(host, "UserPromptSubmit", json!({"prompt": "go on"}));
    let answer: Value = serde_json::from_str(&printed).unwrap_or_default();
    let context = &answer["hookSpecificOutput"];
    assert!(printed.is_empty() || context["hookEventName"] == "UserPromptSubmit", "{printed}");
    context["additionalContext"].as_str().unwrap_or_default().to_owned()
}

/// Starts an agent; returns its session and the context that it was given.
fn start(agent: &Agent, host: &Host) -> (String, String) {
    let told = agent.start(host, "startup");
    (resolved(host, &id_in(&told)), told)
}

fn await_branch(host: &Host, id: &str, branch: &str) {
    eventually(&format!("{id} is on {branch}"), SOON, || {
        (host.ask("GET", &format!("/v1/sessions/{id}"), None).1["branch"] == branch).then_some(())
    });
}

fn place(host: &Host, name: &str) -> PathBuf {
    Path::new(host.dir()).join("work").join(name)
}

#[test]
fn agents_in_one_working_tree_are_told_of_each_other_once() {
    let host = Host::new("odin3").started();
    let tree = repository(&host, "app", "main");
    let (first, second) = (Agent::new(&tree, "u-1"), Agent::new(&tree, "u-2"));
    let (one, told) = start(&first, &host);
    await_branch(&host, &one, "main");
    assert!(!told.contains(NOTICE), "it is alone: {told}");
    assert_eq!(prompt(&first, &host), "");
    let (two, told) = start(&second, &host);
    assert!(told.contains(NOTICE) && told.contains(&one), "{told}");
    await_branch(&host, &two, "main");
    let told = prompt(&first, &host);
    assert!(told.contains(NOTICE) && told.contains(&two), "{told}");
    for agent in [&first, &second] {
        assert_eq!(prompt(agent, &host), "", "once");
    }
    // A worktree of the same repository on another branch is in no conflict.
    let other = Agent::new(&repository(&host, "app-fix", "fix"), "u-3");
    let (three, told) = start(&other, &host);
    await_branch(&host, &three, "fix");
    assert!(!told.contains(NOTICE), "{told}");
    second.quit(&host);
    eventually("the place is free", SOON, || {
        let session = host.ask("GET", &format!("/v1/sessions/{one}"), None).1;
        session.get("conflicts_with").is_none().then_some(())
    });
    let again = Agent::new(&place(&host, "app"), "u-4");
    let (four, _) = start(&again, &host);
    await_branch(&host, &four, "main");
    assert!(prompt(&first, &host).contains(&four), "another one is told of again");
}

#[test]
fn heartbeat_names_the_session_on_the_same_branch_of_another_machine() {
    let server = Server::start(&[]);
    server.create("central");
    let url = server.url("central");
    let odin3 = Host::with_central("odin3", &url);
    odin3.ok(&["migrate", "--central-url", &url]);
    let (odin3, odin4) = (odin3.started(), Host::with_central("odin4", &url).started());
    let (here, there) = (repository(&odin3, "app", "main"), repository(&odin4, "app-2", "main"));
    let (first, second) = (Agent::new(&here, "u-1"), Agent::new(&there, "u-2"));
    let (one, _) = start(&first, &odin3);
    let (two, _) = start(&second, &odin4);
    eventually("the other machine's session is told", SOON, || prompt(&first, &odin3).contains(&two).then_some(()));
    let session: Value = serde_json::from_str(&odin3.ok(&["heartbeat", &one, "--json"])).unwrap();
    assert_eq!(session["conflicts_with"], json!([two]));
    let overlaps: Value = serde_json::from_str(&odin4.ok(&["conflicts", "--json"])).unwrap();
    assert_eq!((&overlaps[0]["kind"], &overlaps[0]["place"]), (&json!("branch"), &json!("github.com/team/app main")));
}
