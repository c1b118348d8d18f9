//! The recipes of the documentation, run exactly as printed there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use testkit::daemon::Host;
use testkit::eventually;
use testkit::skip::skip;

const SOON: Duration = Duration::from_secs(20);

/// The first block of a language under a heading of a document.
fn block(document: &str, heading: &str, language: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let block = section.split(&format!("```{language}\n")).nth(1).unwrap_or_else(|| panic!("no block in {heading}"));
    block.split("```").next().unwrap().to_owned()
}

/// A program with sessiond in its path and this host's daemon.
fn program(host: &Host, name: &str) -> Option<Command> {
    let mut command = Command::new(name);
    if command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        skip("a recipe of the documentation", name);
        return None;
    }
    let own = Path::new(env!("CARGO_BIN_EXE_sessiond")).parent().unwrap();
    let mut command = Command::new(name);
    command
        .env_clear()
        .env("PATH", format!("{}:{}", own.display(), std::env::var("PATH").unwrap()))
        .env("HOME", host.dir())
        .env("SESSIOND_SOCKET", host.socket())
        .env("SESSIOND_STATE_DIR", host.state_dir())
        .current_dir(host.dir())
        .stdin(Stdio::null());
    Some(command)
}

fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn registers_and_closes(host: &Host, printed: &str) {
    assert!(printed.starts_with("odin-PS-") && printed.trim_end().ends_with(" active"), "{printed}");
    assert_eq!(host.status()["sessions"]["closed"], 1, "the example registers a session and closes it");
}

#[test]
fn the_node_example_runs_as_written() {
    let host = Host::new("odin3").started();
    let Some(mut node) = program(&host, "node") else { return };
    let output = node.args(["--input-type=module", "-e", &block("docs/api.md", "With Node", "js")]).output().unwrap();
    registers_and_closes(&host, &printed(output));
}

#[test]
fn the_python_example_runs_as_written() {
    let host = Host::new("odin3").started();
    let Some(mut python) = program(&host, "python3") else { return };
    let output = python.args(["-c", &block("docs/api.md", "With Python", "python")]).output().unwrap();
    registers_and_closes(&host, &printed(output));
}

#[test]
fn the_exec_example_runs_as_written() {
    let host = Host::new("odin3").started();
    let Some(mut sh) = program(&host, "bash") else { return };
    let printed =
        printed(sh.args(["-e", "-c", &block("docs/usage.md", "Run a program as a session", "sh")]).output().unwrap());
    assert!(printed.starts_with("I am odin-PS-") && printed.ends_with(" on odin3\n"), "{printed}");
}

#[test]
fn the_prompt_runs_as_written() {
    let host = Host::new("odin3").started();
    let Some(mut bash) = program(&host, "bash") else { return };
    let script = format!(
        "{}\neval \"$PROMPT_COMMAND\"\necho \"${{PS1@P}}\"",
        block("docs/usage.md", "In a shell's prompt", "bash")
    );
    let printed = printed(bash.args(["--norc", "-c", &script]).output().unwrap());
    assert!(printed.starts_with("[Instance: shell-PS-") && printed.contains("Active: 0h]\n"), "{printed}");
    assert_eq!(host.status()["sessions"]["closed"], 1, "it ends with the shell");

    // With no daemon there is still a prompt.
    let away = Host::new("odin3");
    let output = program(&away, "bash").unwrap().args(["--norc", "-c", &script]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.trim_end().ends_with(['$', '#']) && output.stderr.is_empty(), "{output:?}");
}

/// A tmux server of its own, that ends with the test.
struct Tmux<'a>(&'a Host);

impl Tmux<'_> {
    fn run(&self, words: &[&str]) -> Output {
        let mut tmux = program(self.0, "tmux").unwrap();
        tmux.env("TMUX_TMPDIR", self.0.dir()).env("TERM", "xterm").args(words).output().unwrap()
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
fn the_status_line_of_tmux_runs_as_written() {
    let host = Host::new("odin3").started();
    if program(&host, "tmux").is_none() {
        return;
    }
    for _ in 0..3 {
        host.ok(&["register", "--project", "odin"]);
    }
    let configuration = host.dir().join("tmux.conf");
    fs::write(&configuration, block("docs/usage.md", "In tmux's status line", "tmux")).unwrap();
    let tmux = Tmux(&host);
    let started = tmux.run(&["-f", configuration.to_str().unwrap(), "new-session", "-d", "sleep 600"]);
    assert!(started.status.success(), "{started:?}");
    // It draws only at an attached terminal.
    let screen = host.dir().join("screen");
    let Some(mut terminal) = program(&host, "script") else { return };
    terminal.args(["-qfc", "tmux attach", screen.to_str().unwrap()]).env("SHELL", "/bin/sh");
    terminal.env("TMUX_TMPDIR", host.dir()).env("TERM", "xterm");
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    eventually("tmux shows how many are active", SOON, || {
        String::from_utf8_lossy(&fs::read(&screen).unwrap_or_default()).contains("3 active").then_some(())
    });
    drop(tmux);
    terminal.wait().unwrap();
}
