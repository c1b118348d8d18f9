//! `sessiond exec`: any program as a session.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use testkit::agent::{Agent, feed, repository};
use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);

fn only_session(host: &Host) -> Value {
    let list = host.ask("GET", "/v1/sessions", None).1;
    assert_eq!(list["total_count"], 1, "{list}");
    list["instances"][0].clone()
}

#[test]
fn exec_passes_the_session_and_closes_it() {
    let host = Host::new("odin3").started();
    let folder = repository(&host, "My Work");
    let mut command = host.sessiond();
    command.current_dir(&folder).args(["exec", "--", "sh", "-c", "echo $INSTANCE_ID $HOST_MACHINE; cat"]);
    let output = feed(command, b"from stdin");
    let printed = String::from_utf8(output.stdout).unwrap();
    let session = only_session(&host);
    assert_eq!(printed, format!("{} odin3\nfrom stdin", session["instance_id"].as_str().unwrap()));
    assert_eq!((&session["project"], &session["status"]), (&json!("my-work"), &json!("closed")));
}

#[test]
fn exec_forwards_exit_codes_and_leaves_failed_sessions_resumable() {
    for (script, code, status) in
        [("exit 0", 0, "closed"), ("exit 3", 3, "stale"), ("kill -TERM $$", 143, "stale"), ("kill -9 $$", 137, "stale")]
    {
        let host = Host::new("odin3").started();
        let output = host.verb(&["exec", "--project", "odin", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
        eventually(&format!("{script}: {status}"), SOON, || (only_session(&host)["status"] == status).then_some(()));
    }
    let host = Host::new("odin3").started();
    let output = host.verb(&["exec", "--project", "odin", "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    assert_eq!(only_session(&host)["status"], "closed");
    assert_eq!(host.refused(&["exec", "--project", "Odin", "--", "true"]).0, 2);
    assert_eq!(host.refused(&["exec"]).0, 2);
}

#[test]
fn exec_forwards_signals_and_the_daemon_records_heartbeats() {
    let host = Host::new("odin3");
    host.configure("[central]\nheartbeat_interval = \"1s\"\n[sessions]\nstale_after = \"5s\"\n");
    let host = host.started();
    let mut command = host.sessiond();
    let script = "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done";
    command.args(["exec", "--project", "odin", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let first = only_session(&host)["last_heartbeat"].clone();
    eventually("the daemon gives signs of life", SOON, || {
        let session = only_session(&host);
        (session["last_heartbeat"] != first && session["status"] == "active").then_some(())
    });
    kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn later_daemon_watches_the_program() {
    let mut host = Host::new("odin3").environment("HOST_MACHINE", "odin3");
    let mut command = host.sessiond();
    command.args(["exec", "--project", "odin", "--", "sh", "-c", "echo $INSTANCE_ID; read line"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = lines.next().unwrap().unwrap();
    host.start();
    eventually("it is there", SOON, || (host.ask("GET", &format!("/v1/sessions/{id}"), None).0 == 200).then_some(()));
    assert_eq!(only_session(&host)["status"], "active");
    drop(child.stdin.take());
    child.wait().unwrap();
    eventually("its failure is noticed", SOON, || (only_session(&host)["status"] == "stale").then_some(()));
}

#[test]
fn agent_with_hooks_under_exec_is_one_session() {
    let host = Host::new("odin3").started();
    let mut command = host.sessiond();
    command.args(["exec", "--project", "odin", "--", "sh", "-c", "echo $$; read line"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let agent = Agent::new(&repository(&host, "odin"), "u-1");
    let mut hook = host.sessiond();
    hook.args(["hook", "SessionStart"]).env("CLAUDE_PID", pid);
    feed(hook, agent.json("SessionStart", &json!({"source": "startup"})).to_string().as_bytes());
    eventually("the hook's report arrives", SOON, || {
        (only_session(&host)["claude_session_uuid"] == "u-1").then_some(())
    });
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// A terminal sends Ctrl-C to all processes in its foreground; the program must not get it a second time from us.
#[test]
fn terminal_signal_arrives_once() {
    let host = Host::new("odin3").started();
    let script = "trap 'n=x$n' INT; echo ready; read a; read b; echo \"n=$n.\"";
    let line =
        format!("{} exec --project odin -- sh -c '{}'", env!("CARGO_BIN_EXE_sessiond"), script.replace('\'', "'\\''"));
    let command = host.sessiond();
    let environment: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qfec", &line, "/dev/null"]).env_clear().envs(environment).env("SHELL", "/bin/sh");
    let Ok(mut terminal) = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        return skip("terminal_signal_arrives_once", "script, to make a terminal");
    };
    let mut stdin = terminal.stdin.take().unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("ready")));
    stdin.write_all(b"\x03").unwrap();
    // What is tested is that nothing more comes.
    std::thread::sleep(Duration::from_millis(300));
    stdin.write_all(b"a\nb\n").unwrap();
    let counted = lines.find(|line| line.contains("n=")).unwrap();
    assert!(counted.contains("n=x."), "{counted}");
    drop(stdin);
    terminal.wait().unwrap();
}
