//! What is asked of the daemon for one session, in a thread of its own, so that the view never waits.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;

use super::row::Row;
use super::{Input, SessionText, feed};
use crate::client::{Client, Resolved, Result};
use crate::wire::{ContextBody, ErrorCode, ErrorDetail, Matches};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Details(String),
    /// The command that resumes a session, to be copied.
    CopyCommand(String),
    /// Resumes a session of this machine in a new window of tmux.
    ResumeInTmux(String),
    /// The command that resumes a session, to be printed.
    ResumeCommand(String),
    Close(String),
    /// All sessions again.
    List,
}

/// The answer to a job.
#[derive(Debug)]
pub(super) enum Answer {
    Details {
        instance_id: String,
        text: String,
    },
    Copy(String),
    List(Vec<Row>),
    /// To be printed after the view.
    Print(String),
    Done(String),
    Failed(String),
}

pub(super) fn work(client: Client, text: SessionText, jobs: Receiver<Job>, answers: SyncSender<Input>) {
    thread::spawn(move || {
        for job in jobs {
            if answers.send(Input::Answer(answer(&client, &text, job))).is_err() {
                return;
            }
        }
    });
}

fn answer(client: &Client, text: &SessionText, job: Job) -> Answer {
    let answer = match job {
        Job::Details(instance_id) => {
            let text = text(client, &instance_id).unwrap_or_else(|error| describe(&error));
            Ok(Answer::Details { instance_id, text })
        }
        Job::CopyCommand(id) => command(client, &id).map(|(command, _)| Answer::Copy(command)),
        Job::ResumeCommand(id) => command(client, &id).map(|(command, _)| Answer::Print(command)),
        Job::ResumeInTmux(id) => command(client, &id).map(|(command, context)| open_window(&id, command, &context)),
        Job::List => feed::list(client).map(Answer::List),
        Job::Close(id) => client.close(&id).map(|session| Answer::Done(format!("closed {}", session.instance_id))),
    };
    answer.unwrap_or_else(|error| Answer::Failed(describe(&error)))
}

fn describe(error: &ErrorDetail) -> String {
    if error.hint.is_empty() { error.message.clone() } else { format!("{}; {}", error.message, error.hint) }
}

/// The command that continues a session from here, as its agent's adapter quotes it.
fn command(client: &Client, id: &str) -> Result<(String, Box<ContextBody>)> {
    let refused =
        |message: String, hint: &str| ErrorDetail { code: ErrorCode::NotFound, message, hint: hint.to_owned() };
    match client.context(id)? {
        Resolved::Several(Matches { matches }) => {
            Err(refused(format!("\"{id}\" is now part of {} ids", matches.len()), "select one of them"))
        }
        Resolved::One(context) => match &context.command {
            Some(command) => Ok((command.clone(), context)),
            None => Err(refused(format!("no command resumes {id}"), "see its details")),
        },
    }
}

/// The program of the new window: runs the command, which is an argument, and keeps the window if that fails.
const IN_WINDOW: &str =
    "eval \"$1\" || { printf '\\nsessiond: this failed: %s\\nPress Enter to close.' \"$1\"; read -r _; }";

/// Opens a window of tmux in which the session continues; the command is printed where that fails.
fn open_window(id: &str, command: String, context: &ContextBody) -> Answer {
    let opened = Command::new("tmux")
        .args(window_arguments(&command, context))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match opened {
        Ok(status) if status.success() => Answer::Done(format!("resumed {id} in a new tmux window")),
        _ => Answer::Print(command),
    }
}

fn window_arguments(command: &str, context: &ContextBody) -> Vec<String> {
    let mut arguments = vec!["new-window".to_owned()];
    // tmux falls back to the home folder without a message; then the command itself reports that the folder is gone.
    if let Some(dir) = context.working_dir.as_deref().filter(|dir| Path::new(dir).is_dir()) {
        arguments.extend(["-c".to_owned(), tmux_literal(dir)]);
    }
    arguments.extend(["--", "sh", "-c", IN_WINDOW, "sh", command].map(str::to_owned));
    arguments
}

/// tmux expands formats in the folder: `#` begins one.
fn tmux_literal(text: &str) -> String {
    text.replace('#', "##")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(working_dir: &str) -> ContextBody {
        let document = serde_json::json!({
            "instance_id": "odin-PS-8f4a2b", "host_machine": "odin3", "working_dir": working_dir,
            "claude_session_path": null, "reachable": true, "machine_synced": true, "last_seen": null,
            "command": "cd /srv && claude --resume x", "source": "session", "confidence": 10, "reason": "r",
            "work_state": {"current_epic": null, "last_completed_epic": null, "tests_passed": null, "last_error": null},
            "recent_actions": [], "next_steps": []
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn command_is_an_argument_of_the_window() {
        let command = "cd '/srv/a b' && claude --resume x";
        let arguments = window_arguments(command, &context("/"));
        assert_eq!(arguments[..4], ["new-window", "-c", "/", "--"]);
        assert_eq!(arguments.last().unwrap(), command);
        assert_eq!(window_arguments(command, &context("/not/there"))[1], "--");
        assert_eq!(tmux_literal("/srv/#(reboot)"), "/srv/##(reboot)");
    }

    #[test]
    fn script_of_the_window_runs_the_command_and_reports_a_failure() {
        let run = |command: &str| {
            let output = Command::new("sh").args(["-c", IN_WINDOW, "sh", command]).stdin(Stdio::null()).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(run("cd / && echo 'a b'"), "a b\n");
        assert!(run("false 'x y'").contains("this failed: false 'x y'"));
    }
}
