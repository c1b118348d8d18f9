//! A terminal of a given size: tmux with one pane, on a socket of its own.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::Host;
use crate::{LIMIT, eventually, skip};

pub struct Tmux {
    dir: TempDir,
}

impl Tmux {
    /// A pane in which a shell runs; none, recorded as a skipped test, where there is no tmux. The shell finds `sessiond`.
    pub fn for_test(test: &str, columns: u16, lines: u16, environment: &[(&str, &OsStr)]) -> Option<Self> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            skip::skip(test, "tmux");
            return None;
        }
        let tmux = Self { dir: tempfile::tempdir().expect("a folder for tmux") };
        let mut command = tmux.command();
        let size = [("-x", columns), ("-y", lines)].map(|(flag, n)| [flag.to_owned(), n.to_string()]).concat();
        command.args(["new-session", "-d"]).args(size);
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = crate::program().parent().expect("a folder").to_owned();
        command.env_clear().env("PATH", format!("{}:{path}", folder.display())).env("PS1", "$ ");
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").envs(environment.iter().copied());
        let status = command.args(["env", "PS1=$ ", "sh"]).status().expect("tmux runs");
        assert!(status.success(), "tmux new-session: {status}");
        tmux.await_text("$");
        Some(tmux)
    }

    /// As [`Tmux::for_test`], with the environment of a host's clients.
    pub fn of_host(test: &str, host: &Host, columns: u16, lines: u16) -> Option<Self> {
        let client = host.sessiond();
        let environment: Vec<(&str, &OsStr)> = client
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_str()?, value?)))
            .filter(|(name, _)| *name != "PATH")
            .collect();
        Self::for_test(test, columns, lines, &environment)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("tmux")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.socket()).args(["-f", "/dev/null", "-u"]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command of tmux, and returns what it prints.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.command().args(words).output().expect("tmux runs");
        String::from_utf8(output.stdout).expect("tmux prints UTF-8")
    }

    /// Presses keys, by tmux's names for them.
    pub fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types a line of the shell and Enter.
    pub fn line(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    /// The lines of the pane, without blanks at their ends.
    pub fn screen(&self) -> Vec<String> {
        self.run(&["capture-pane", "-p"]).lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the pane contains the text.
    pub fn await_text(&self, text: &str) -> Vec<String> {
        self.await_screen(text, |screen| screen.iter().any(|line| line.contains(text)))
    }

    /// Waits until the pane fits.
    pub fn await_screen(&self, what: &str, fits: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut last = Vec::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, LIMIT, || {
                last = self.screen();
                let found = fits(&last).then(|| last.clone());
                if found.is_none() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                found
            })
        }));
        found.unwrap_or_else(|_| panic!("never seen: {what}\n{}", last.join("\n")))
    }

    /// A property of the pane, by tmux's name, such as `alternate_on`.
    pub fn property(&self, name: &str) -> String {
        self.run(&["display-message", "-p", &format!("#{{{name}}}")]).trim().to_owned()
    }

    /// Checks that the shell has its terminal back: its screen, its cursor, and input that is echoed by lines.
    pub fn assert_sane(&self) {
        eventually("the screen is the shell's", LIMIT, || {
            (self.property("alternate_on") == "0" && self.property("cursor_flag") == "1").then_some(())
        });
        self.line("clear; stty -a | tr ';' '\\n'; echo settings end");
        let screen = self.await_screen("settings", |screen| screen.iter().any(|line| line == "settings end"));
        let words: Vec<&str> = screen.iter().flat_map(|line| line.split_whitespace()).collect();
        for setting in ["icanon", "echo", "isig", "icrnl", "opost"] {
            assert!(words.contains(&setting), "{setting}: {screen:#?}");
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}
