//! Which session a report belongs to: nested agents, one conversation in two processes, resumes, throw-away ids, ends.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::agent::{Agent, feed, id_in, repository, resolved};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);
const CLI: &[(&str, &str)] = &[("CLAUDE_CODE_ENTRYPOINT", "cli")];
const PRINT: &[(&str, &str)] = &[("CLAUDE_CODE_ENTRYPOINT", "sdk-cli")];

fn sessions(host: &Host) -> Vec<Value> {
    host.ask("GET", "/v1/sessions", None).1["instances"].as_array().unwrap().clone()
}

/// The only session that the host knows.
fn only(host: &Host) -> Value {
    let found = sessions(host);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

fn of(host: &Host, uuid: &str) -> Option<Value> {
    sessions(host).into_iter().find(|session| session["claude_session_uuid"] == uuid)
}

fn status(host: &Host, uuid: &str) -> String {
    let found = of(host, uuid).unwrap_or_else(|| panic!("{uuid} is no session: {:#?}", sessions(host)));
    found["status"].as_str().unwrap().to_owned()
}

fn await_status(host: &Host, uuid: &str, expected: &str) {
    eventually(&format!("{uuid} is {expected}"), SOON, || {
        of(host, uuid).is_some_and(|session| session["status"] == expected).then_some(())
    });
}

/// A hook of the agent with further variables.
fn hook(host: &Host, agent: &Agent, event: &str, more: &Value, variables: &[(&str, &str)]) -> String {
    let mut command = host.sessiond();
    command.args(["hook", event]).env("CLAUDE_PID", agent.pid().to_string()).envs(variables.iter().copied());
    let output = feed(command, agent.json(event, more).to_string().as_bytes());
    assert!(output.status.success() && output.stderr.is_empty(), "{event}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, run by a program between that is no shell: an agent that inherited the variables of another.
fn nested_hook(host: &Host, agent: &Agent, uuid: &str, event: &str, more: &Value) -> String {
    let own = host.sessiond();
    let mut command = Command::new("find");
    command.args(["/", "-maxdepth", "0", "-exec"]).arg(own.get_program()).args(["hook", event, ";"]).env_clear();
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    command.env("CLAUDE_PID", agent.pid().to_string()).env("CLAUDE_CODE_SESSION_ID", &agent.uuid);
    command.env("CLAUDE_CODE_ENTRYPOINT", "cli");
    let mut input = agent.json(event, more);
    input["session_id"] = uuid.into();
    input["transcript_path"] = format!("/home/me/.claude/projects/x/{uuid}.jsonl").into();
    String::from_utf8(feed(command, input.to_string().as_bytes()).stdout).unwrap()
}

#[test]
fn nested_agent_that_inherits_a_pid_is_a_session_of_its_own() {
    let host = Host::new("odin3").started();
    let parent = Agent::new(&repository(&host, "odin"), "u-parent");
    let one = resolved(&host, &id_in(&parent.start(&host, "startup")));
    let told = nested_hook(&host, &parent, "u-child", "SessionStart", &json!({"source": "startup"}));
    assert_ne!(resolved(&host, &id_in(&told)), one);
    for event in ["UserPromptSubmit", "Stop"] {
        nested_hook(&host, &parent, "u-child", event, &json!({}));
    }
    nested_hook(&host, &parent, "u-child", "SessionEnd", &json!({"reason": "other"}));
    assert_eq!((status(&host, "u-parent").as_str(), sessions(&host).len()), ("active", 2));
    await_status(&host, "u-child", "closed");
    parent.hook(&host, "UserPromptSubmit", json!({}));
    assert_eq!(status(&host, "u-parent"), "active");
}

#[test]
fn end_of_one_process_is_not_the_end_of_the_other() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let mut first = Agent::new(&folder, "u-1");
    hook(&host, &first, "SessionStart", &json!({"source": "startup"}), CLI);
    // `claude -p --resume u-1` beside it.
    let second = first.again("u-1");
    hook(&host, &second, "SessionStart", &json!({"source": "resume"}), PRINT);
    hook(&host, &second, "UserPromptSubmit", &json!({}), PRINT);
    hook(&host, &second, "SessionEnd", &json!({"reason": "other"}), PRINT);
    drop(second);
    assert_eq!(only(&host)["status"], "active");
    // And the other way round.
    let third = first.again("u-1");
    hook(&host, &third, "SessionStart", &json!({"source": "resume"}), CLI);
    hook(&host, &first, "SessionEnd", &json!({"reason": "prompt_input_exit"}), CLI);
    first.kill();
    hook(&host, &third, "Stop", &json!({}), CLI);
    assert_eq!(only(&host)["status"], "active");
    hook(&host, &third, "SessionEnd", &json!({"reason": "prompt_input_exit"}), CLI);
    await_status(&host, "u-1", "closed");
}

#[test]
fn killed_process_leaves_its_session_to_the_other() {
    let host = Host::new("odin3").started();
    let mut first = Agent::new(&repository(&host, "odin"), "u-1");
    first.start(&host, "startup");
    let mut second = first.again("u-1");
    second.start(&host, "resume");
    first.kill();
    second.hook(&host, "Stop", json!({}));
    assert_eq!(only(&host)["status"], "active");
    second.kill();
    await_status(&host, "u-1", "stale");
}

#[test]
fn ends_close_completed_sessions_and_leave_others_resumable() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let jobs = host.dir().join("job");
    std::fs::create_dir(&jobs).unwrap();
    let background = [("CLAUDE_CODE_ENTRYPOINT", "cli"), ("CLAUDE_JOB_DIR", jobs.to_str().unwrap())];
    let other = json!({"reason": "other"});
    for (uuid, reason, variables, state, expected) in [
        ("u-hangup", &other, CLI, "", "stale"),
        ("u-print", &other, PRINT, "", "closed"),
        ("u-quit", &json!({"reason": "prompt_input_exit"}), CLI, "", "closed"),
        ("u-logout", &json!({"reason": "logout"}), CLI, "", "closed"),
        ("u-stopped", &other, &background[..], "stopped", "closed"),
        ("u-crashed", &other, &background[..], "crashed", "stale"),
    ] {
        std::fs::write(jobs.join("state.json"), json!({"state": state}).to_string()).unwrap();
        let mut agent = Agent::new(&folder, uuid);
        // On a busy machine a hook may lack the time to read its input: then the next one says the same.
        eventually(uuid, SOON, || {
            hook(&host, &agent, "SessionStart", &json!({"source": "startup"}), variables);
            of(&host, uuid)
        });
        eventually(&format!("{uuid} is {expected}"), SOON, || {
            hook(&host, &agent, "SessionEnd", reason, variables);
            (status(&host, uuid) == expected).then_some(())
        });
        agent.kill();
    }
    // What was cut off continues under the same id.
    let hangup = of(&host, "u-hangup").unwrap()["instance_id"].clone();
    let again = Agent::new(&folder, "u-hangup");
    hook(&host, &again, "SessionStart", &json!({"source": "resume"}), CLI);
    let found = of(&host, "u-hangup").unwrap();
    assert_eq!((&found["instance_id"], &found["status"]), (&hangup, &json!("active")));
}

#[test]
fn id_that_the_process_reports_under_is_the_current_one() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    // A resume starts twice, once under a throw-away id.
    let real = Agent::new(&folder, "u-real");
    real.start(&host, "resume");
    let mut process = real;
    process.uuid = "u-phantom".into();
    process.start(&host, "startup");
    process.uuid = "u-real".into();
    for event in ["UserPromptSubmit", "Stop"] {
        process.hook(&host, event, json!({}));
    }
    process.statusline(&host, json!(5));
    assert_eq!(only(&host)["claude_session_uuid"], "u-real");
    process.uuid = "u-phantom".into();
    process.hook(&host, "SessionEnd", json!({"reason": "prompt_input_exit"}));
    assert_eq!(only(&host)["status"], "active", "not the current id");
    process.uuid = "u-real".into();
    process.hook(&host, "SessionEnd", json!({"reason": "prompt_input_exit"}));
    await_status(&host, "u-real", "closed");

    // Only the throw-away id starts.
    let mut other = Agent::new(&repository(&host, "tyr"), "u-throw-away");
    other.start(&host, "startup");
    other.uuid = "u-true".into();
    other.hook(&host, "UserPromptSubmit", json!({}));
    assert_eq!((status(&host, "u-true").as_str(), sessions(&host).len()), ("active", 2));
    assert!(of(&host, "u-throw-away").is_none());
}

#[test]
fn resume_of_an_unknown_conversation_is_a_new_session() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let mut first = Agent::new(&folder, "u-1");
    let one = resolved(&host, &id_in(&first.start(&host, "startup")));
    first.kill();
    await_status(&host, "u-1", "stale");
    let second = Agent::new(&folder, "u-unknown");
    assert_ne!(resolved(&host, &id_in(&second.start(&host, "resume"))), one, "not the newest in the folder");
    // In the running program, to another conversation that is not known here.
    let mut second = second;
    second.hook(&host, "SessionEnd", json!({"reason": "resume"}));
    second.uuid = "u-other".into();
    second.start(&host, "resume");
    assert_eq!(sessions(&host).len(), 3);
    assert_eq!(status(&host, "u-unknown"), "stale");
    // A conversation that does not exist ends without having begun.
    second.uuid = "u-none".into();
    second.hook(&host, "SessionEnd", json!({"reason": "other"}));
    assert_eq!((status(&host, "u-other").as_str(), sessions(&host).len()), ("active", 3));
}

#[test]
fn folder_transcript_and_context_follow_the_agent() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let mut agent = Agent::new(&folder, "u-1");
    agent.start(&host, "startup");
    agent.statusline(&host, json!(42));
    let elsewhere = folder.join("src");
    let moved = json!({"cwd": elsewhere, "transcript_path": "/home/me/.claude/projects/-src/u-1.jsonl"});
    agent.hook(&host, "Stop", moved);
    let found = only(&host);
    assert_eq!(found["working_dir"], json!(elsewhere));
    assert_eq!(found["claude_session_path"], "/home/me/.claude/projects/-src/u-1.jsonl");
    assert_eq!(found["context_percent"], 42);
    agent.clear(&host, "u-2");
    agent.statusline(&host, Value::Null);
    let found = only(&host);
    assert_eq!((&found["context_percent"], &found["working_dir"]), (&json!(0), &json!(folder.join("src"))));
    assert_eq!(found["claude_session_path"], "/home/me/.claude/projects/x/u-2.jsonl");
    // The end after "Remove worktree" names the folder that is left.
    agent.hook(&host, "SessionEnd", json!({"cwd": folder, "reason": "prompt_input_exit"}));
    let found = only(&host);
    assert_eq!((&found["status"], &found["working_dir"]), (&json!("closed"), &json!(folder)));
}

#[test]
fn process_that_adopts_a_session_by_a_heartbeat_is_watched_at_once() {
    let host = Host::new("odin3").started();
    let mut first = Agent::new(&repository(&host, "odin"), "u-1");
    first.start(&host, "startup");
    first.kill();
    await_status(&host, "u-1", "stale");
    let mut second = first.again("u-1");
    second.hook(&host, "UserPromptSubmit", json!({}));
    assert_eq!(only(&host)["status"], "active");
    second.kill();
    await_status(&host, "u-1", "stale");
}

#[test]
fn agent_is_informed_that_a_new_id_replaces_the_old_one() {
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let one = resolved(&host, &id_in(&agent.start(&host, "startup")));
    agent.hook(&host, "SessionEnd", json!({"reason": "prompt_input_exit"}));
    let again = agent.again("u-1");
    drop(agent);
    let told = eventually("the daemon answers in time", SOON, || {
        let told = again.start(&host, "resume");
        told.contains("continues").then_some(told)
    });
    let two = id_in(&told);
    assert_ne!(two, one);
    assert!(told.contains(&format!("use {two} wherever this conversation names {one}")), "{told}");
}

#[test]
fn agent_in_a_shell_under_exec_is_one_session() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let mut command = host.sessiond();
    command.args(["exec", "--project", "odin", "--", "sh", "-c", "echo $INSTANCE_ID; read line"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let inside = [("INSTANCE_ID", line.trim()), ("CLAUDE_CODE_ENTRYPOINT", "cli")];
    let mut agent = Agent::new(&folder, "u-1");
    hook(&host, &agent, "SessionStart", &json!({"source": "startup"}), &inside);
    hook(&host, &agent, "SessionEnd", &json!({"reason": "clear"}), &inside);
    agent.uuid = "u-2".into();
    hook(&host, &agent, "SessionStart", &json!({"source": "clear"}), &inside);
    assert_eq!(
        (only(&host)["instance_id"].as_str(), only(&host)["claude_session_uuid"].as_str()),
        (Some(line.trim()), Some("u-2"))
    );
    // An agent that it starts inherits INSTANCE_ID and is another session.
    let nested = Agent::new(&folder, "u-nested");
    hook(&host, &nested, "SessionStart", &json!({"source": "startup"}), &inside);
    assert_eq!(sessions(&host).len(), 2);
    // The program that runs it still runs.
    hook(&host, &agent, "SessionEnd", &json!({"reason": "prompt_input_exit"}), &inside);
    assert_eq!(status(&host, "u-2"), "active");
    drop(child.stdin.take());
    child.wait().unwrap();
    eventually("the program's end is noted", SOON, || (status(&host, "u-2") != "active").then_some(()));
}

#[test]
fn headless_runs_are_no_candidates_of_a_bare_resume() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "odin");
    let mut person = Agent::new(&folder, "u-person");
    hook(&host, &person, "SessionStart", &json!({"source": "startup"}), CLI);
    person.kill();
    await_status(&host, "u-person", "stale");
    let mut print = Agent::new(&folder, "u-print");
    hook(&host, &print, "SessionStart", &json!({"source": "startup"}), PRINT);
    print.kill();
    await_status(&host, "u-print", "stale");
    let resumed: Value = serde_json::from_str(&host.ok(&["resume", "--json"])).unwrap();
    assert!(resumed.to_string().contains("u-person") && !resumed.to_string().contains("u-print"), "{resumed}");
}

#[test]
fn hook_whose_answer_cannot_be_written_does_not_fail() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        return skip("hook_whose_answer_cannot_be_written_does_not_fail", "/dev/full");
    };
    let host = Host::new("odin3").started();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    for words in [&["hook", "SessionStart"][..], &["statusline"]] {
        let mut command = host.sessiond();
        command.args(words).env("CLAUDE_PID", agent.pid().to_string());
        let mut child =
            command.stdin(Stdio::piped()).stdout(full.try_clone().unwrap()).process_group(0).spawn().unwrap();
        let input = agent.json("SessionStart", &json!({"source": "startup"})).to_string();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{words:?}");
    }
    eventually("the session is there all the same", SOON, || (sessions(&host).len() == 1).then_some(()));
}
