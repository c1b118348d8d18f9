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

/// What the session's work says of its last error.
fn last_error(host: &Host) -> Value {
    let id = only_session(host)["instance_id"].as_str().unwrap().to_owned();
    host.ask("GET", &format!("/v1/sessions/{id}/work"), None).1["last_error"]["value"].clone()
}

#[test]
fn exec_records_the_exit_code_and_the_last_lines_of_stderr() {
    const SECRET: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
    let script = format!(
        "for n in $(seq 30); do echo line $n >&2; done; echo key {SECRET} >&2; printf 'no\\033[2J end' >&2; exit 3"
    );
    let host = Host::new("odin3").started();
    let output = host.verb(&["exec", "--project", "odin", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let passed_on = String::from_utf8(output.stderr).unwrap();
    assert!(
        passed_on.starts_with("line 1\n") && passed_on.contains(SECRET) && passed_on.ends_with("no\u{1b}[2J end"),
        "{passed_on}"
    );
    let error = last_error(&host);
    let message = error["message"].as_str().unwrap();
    assert_eq!(error["kind"], "exit", "{error}");
    assert!(message.starts_with("exit code 3\nline 2") && message.ends_with("no end"), "{message}");
    assert!(!message.contains(SECRET) && !message.contains('\u{1b}') && !message.contains("line 1\n"), "{message}");
    let session = only_session(&host);
    assert_eq!((&session["kind"], &session["status"]), (&json!("headless"), &json!("stale")), "{session}");

    let killed = Host::new("odin3").started();
    killed.verb(&["exec", "--project", "odin", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(last_error(&killed)["message"], "killed by signal 9");
    let fine = Host::new("odin3").started();
    fine.verb(&["exec", "--project", "odin", "--", "sh", "-c", "echo a warning >&2"]);
    assert_eq!((last_error(&fine), only_session(&fine)["kind"].clone()), (Value::Null, json!("headless")));
}

#[test]
fn exec_names_the_agent_by_its_program() {
    let host = Host::new("odin3").started();
    let program = host.dir().join("codex");
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    host.ok(&["exec", "--project", "odin", "--", program.to_str().unwrap(), "resume"]);
    assert_eq!(only_session(&host)["agent"], "codex");
    let host = Host::new("odin3").started();
    host.ok(&["exec", "--project", "odin", "--", "true"]);
    assert_eq!(only_session(&host)["agent"], Value::Null, "it may run an agent that names itself");
}

#[test]
fn exec_records_as_much_of_a_failure_as_the_configuration_allows() {
    for (record, expected) in [("titles", json!({"kind": "exit", "message": ""})), ("none", Value::Null)] {
        let host = Host::new("odin3");
        host.configure(&format!("[agents]\nrecord = \"{record}\"\n"));
        let host = host.started();
        host.verb(&["exec", "--project", "odin", "--", "sh", "-c", "echo why >&2; exit 3"]);
        assert_eq!(last_error(&host), expected, "{record}");
        assert_eq!(only_session(&host)["status"], "stale");
    }
}

#[test]
fn exec_without_a_daemon_spools_the_failure() {
    let mut host = Host::new("odin3");
    let output = host.verb(&["exec", "--project", "odin", "--", "sh", "-c", "echo why >&2; exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    host.start();
    eventually("it is imported", SOON, || {
        (host.ask("GET", "/v1/sessions", None).1["total_count"] == 1
            && last_error(&host)["message"] == "exit code 3\nwhy")
            .then_some(())
    });
}

#[test]
fn stderr_is_passed_on_byte_by_byte() {
    let host = Host::new("odin3").started();
    // More than a pipe holds, with every byte there is, and no line break at the end.
    let script = "i=0; while [ $i -lt 40 ]; do head -c 8000 /dev/urandom; i=$((i+1)); done | tee copy >&2";
    let mut command = host.sessiond();
    command.current_dir(host.dir()).args(["exec", "--project", "odin", "--", "sh", "-c", script]);
    let output = feed(command, b"");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr == std::fs::read(host.dir().join("copy")).unwrap(), "{} bytes arrived", output.stderr.len());
}

#[test]
fn order_of_stdout_and_stderr_in_one_file_stays() {
    let host = Host::new("odin3").started();
    let path = host.dir().join("output");
    let log = std::fs::File::create(&path).unwrap();
    let script = "for n in $(seq 50); do echo out $n; echo err $n >&2; done; exit 3";
    let mut command = host.sessiond();
    command.args(["exec", "--project", "odin", "--", "sh", "-c", script]);
    let status = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert_eq!(status.code(), Some(3));
    let expected: String = (1..=50).map(|n| format!("out {n}\nerr {n}\n")).collect();
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    assert_eq!(last_error(&host)["message"], "exit code 3", "what it wrote is not known");
}

#[test]
fn process_that_the_program_leaves_behind_keeps_its_stderr() {
    let host = Host::new("odin3").started();
    let (reader, writer) = std::io::pipe().unwrap();
    // The one that is left waits until exec has ended.
    let go = host.dir().join("go");
    let script =
        format!("(until [ -e '{}' ]; do sleep 0.05; done; echo later >&2) & echo now >&2; exit 3", go.display());
    let mut command = host.sessiond();
    command.args(["exec", "--project", "odin", "--", "sh", "-c", &script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    drop(command);
    assert_eq!(child.wait().unwrap().code(), Some(3), "exec does not wait for it");
    std::fs::write(&go, "").unwrap();
    let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["now", "later"]);
    assert_eq!(last_error(&host)["message"], "exit code 3\nnow");
}

#[test]
fn program_notices_that_nobody_reads_its_stderr() {
    let host = Host::new("odin3").started();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = host.sessiond();
    let script = "trap '' PIPE; until ! echo x >&2; do :; done; exit 7";
    command.args(["exec", "--project", "odin", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    drop(command);
    let code = eventually("it ends", SOON, || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(7));
}

/// Runs a command line in a terminal. `None`: there is no `script`.
fn in_terminal(host: &Host, line: &str) -> Option<std::process::Child> {
    let command = host.sessiond();
    let environment: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qfec", line, "/dev/null"]).env_clear().envs(environment).env("SHELL", "/bin/sh");
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()
}

fn exec_line(script: &str) -> String {
    format!("{} exec --project odin -- sh -c '{}'", env!("CARGO_BIN_EXE_sessiond"), script.replace('\'', "'\\''"))
}

#[test]
fn terminal_is_left_to_the_program() {
    let host = Host::new("odin3").started();
    let Some(terminal) =
        in_terminal(&host, &exec_line("test -t 0 && test -t 1 && test -t 2 && echo all; echo why >&2; exit 3"))
    else {
        return skip("terminal_is_left_to_the_program", "script, to make a terminal");
    };
    let output = terminal.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("all"), "{output:?}");
    assert_eq!(last_error(&host)["message"], "exit code 3");
    assert_eq!(only_session(&host)["kind"], Value::Null);
}

/// A terminal sends Ctrl-C to all processes in its foreground; the program must not get it a second time from us.
#[test]
fn terminal_signal_arrives_once() {
    let host = Host::new("odin3").started();
    // Signals that another process sends are passed on, in order: once USR1 has arrived, a second INT would have, too.
    let script = "trap 'n=x$n; echo interrupted' INT; trap 'echo marked' USR1; echo ready $PPID; \
        until [ \"$a\" = end ]; do read a; done; echo \"n=$n.\"";
    let Some(mut terminal) = in_terminal(&host, &exec_line(script)) else {
        return skip("terminal_signal_arrives_once", "script, to make a terminal");
    };
    let mut stdin = terminal.stdin.take().unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut line_with = |text: &str| lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text}"));
    let ready = line_with("ready ");
    let exec = ready.split_whitespace().last().and_then(|pid| Pid::from_raw(pid.parse().ok()?)).unwrap();
    stdin.write_all(b"\x03").unwrap();
    line_with("interrupted");
    kill_process(exec, Signal::USR1).unwrap();
    line_with("marked");
    stdin.write_all(b"end\n").unwrap();
    let counted = line_with("n=");
    assert!(counted.contains("n=x."), "{counted}");
    drop(stdin);
    terminal.wait().unwrap();
}
