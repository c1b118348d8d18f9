//! What the agent does, by the events of its hooks.
//!
//! Each event of a tool is about the agent that uses it, the main one or a sub-agent; events of a turn are about all of
//! them. An event that says nothing about the activity, also one of a later version, gives none.

use serde_json::Value;

use super::hook::HookEvent;
use super::input::Input;
use crate::domain::activity::{ActivitySource, ActivityState, MAX_ID, WaitingFor};
use crate::wire::{ActivityReport, PermissionReport};

/// The fields of events that are read.
pub const WANTED: [&str; 11] = [
    "agent_id",
    "prompt_id",
    "tool_name",
    "notification_type",
    "message",
    "trigger",
    "is_interrupt",
    "background_tasks",
    "session_crons",
    "error",
    "last_assistant_message",
];

/// The activity that begins with this event; `None`: it goes on as before.
pub fn of(event: HookEvent, input: &Input) -> Option<ActivityReport> {
    Some(match event {
        HookEvent::SessionStart => state(ActivityState::Idle),
        HookEvent::UserPromptSubmit | HookEvent::PreCompact => state(ActivityState::Working),
        HookEvent::PreToolUse => match asks_user(input) {
            Some(what) => of_agent(requested(what, input), input),
            None => of_agent(state(ActivityState::Working), input),
        },
        HookEvent::PermissionRequest => {
            let wait = match asks_user(input) {
                Some(what) => requested(what, input),
                None => ActivityReport {
                    detail: input.text("tool_name").map(str::to_owned),
                    ..requested(WaitingFor::Permission, input)
                },
            };
            of_agent(wait, input)
        }
        HookEvent::Elicitation => of_agent(requested(WaitingFor::Question, input), input),
        // The user interrupted the tool, which ends the turn; no Stop follows.
        HookEvent::PostToolUseFailure if is_true(input, "is_interrupt") => of_agent(state(ActivityState::Idle), input),
        HookEvent::PostToolUse
        | HookEvent::PostToolUseFailure
        | HookEvent::PermissionDenied
        | HookEvent::ElicitationResult => of_agent(state(ActivityState::Working), input),
        HookEvent::Notification => notified(input)?,
        HookEvent::Stop => of_agent_if_sub(stopped(input), input),
        HookEvent::StopFailure => {
            let failed = ActivityReport { detail: Some(error_kind(input)), ..state(ActivityState::Failed) };
            of_agent_if_sub(failed, input)
        }
        HookEvent::PostCompact => match input.text("trigger")? {
            "auto" => state(ActivityState::Working),
            "manual" => state(ActivityState::Idle),
            _ => return None,
        },
        // What it waited for is over; it changes nothing else.
        HookEvent::SubagentStop if input.text("agent_id").is_some() => of_agent(state(ActivityState::Working), input),
        HookEvent::SessionEnd
        | HookEvent::SubagentStart
        | HookEvent::SubagentStop
        | HookEvent::TaskCreated
        | HookEvent::TaskCompleted
        | HookEvent::CwdChanged
        | HookEvent::WorktreeCreate
        | HookEvent::WorktreeRemove => return None,
    })
}

/// The activity by the status in the agent's own file; `None`: it is of a later version.
pub fn of_status_file(status: &str, waiting_for: Option<&str>) -> Option<ActivityReport> {
    let report = match status {
        "busy" => state(ActivityState::Working),
        "idle" => state(ActivityState::Idle),
        // The user runs a command in the agent's terminal.
        "shell" => ActivityReport { detail: Some("shell".to_owned()), ..state(ActivityState::Working) },
        "waiting" if waiting_for == Some("permission prompt") => waiting(WaitingFor::Permission),
        "waiting" => waiting(WaitingFor::Input),
        _ => return None,
    };
    Some(ActivityReport { source: Some(ActivitySource::StatusFile.as_str().to_owned()), ..report })
}

fn state(state: ActivityState) -> ActivityReport {
    ActivityReport { activity: state.as_str().to_owned(), ..ActivityReport::default() }
}

fn waiting(what: WaitingFor) -> ActivityReport {
    ActivityReport { waiting_for: Some(what.as_str().to_owned()), ..state(ActivityState::Waiting) }
}

/// A wait that begins now, and whose notification comes later.
fn requested(what: WaitingFor, input: &Input) -> ActivityReport {
    ActivityReport { permission: Some(permission(false, input)), ..waiting(what) }
}

fn permission(is_notification: bool, input: &Input) -> PermissionReport {
    PermissionReport { is_notification, prompt_id: input.text("prompt_id").and_then(valid_id) }
}

/// What a tool waits for that exists to ask the user. Older versions report only its use, and no request for permission.
fn asks_user(input: &Input) -> Option<WaitingFor> {
    match input.text("tool_name")? {
        "AskUserQuestion" => Some(WaitingFor::Question),
        "ExitPlanMode" | "exit_plan_mode" => Some(WaitingFor::Plan),
        _ => None,
    }
}

/// The activity of the agent that the event is about.
fn of_agent(report: ActivityReport, input: &Input) -> ActivityReport {
    let sub_agent = input.text("agent_id").and_then(valid_id);
    ActivityReport { actor: Some(sub_agent.unwrap_or_else(|| "main".to_owned())), ..report }
}

/// The end of a turn is about all agents, unless it is a sub-agent's own.
fn of_agent_if_sub(report: ActivityReport, input: &Input) -> ActivityReport {
    match input.text("agent_id") {
        Some(_) => of_agent(report, input),
        None => report,
    }
}

/// An id as a report may have it. A longer one is cut.
fn valid_id(id: &str) -> Option<String> {
    let mut short = String::new();
    for c in id.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > MAX_ID {
            break;
        }
        short.push(c);
    }
    (!short.is_empty()).then_some(short)
}

fn is_true(input: &Input, name: &str) -> bool {
    input.at(&[name]).and_then(Value::as_bool) == Some(true)
}

/// A notification by its type, or in older versions by its message.
fn notified(input: &Input) -> Option<ActivityReport> {
    let message = input.text("message").unwrap_or_default();
    let kind = input.text("notification_type").unwrap_or(if message.contains("permission") {
        "permission_prompt"
    } else if message.contains("waiting for your input") {
        "idle_prompt"
    } else {
        ""
    });
    let of = |what| ActivityReport { permission: Some(permission(true, input)), ..waiting(what) };
    match kind {
        "permission_prompt" | "worker_permission_prompt" => {
            let tool = message.split_once("permission to use ").map(|(_, tool)| tool.trim_end_matches('.').to_owned());
            Some(ActivityReport { detail: tool, ..of(WaitingFor::Permission) })
        }
        "elicitation_dialog" => Some(of(WaitingFor::Question)),
        "idle_prompt" => Some(state(ActivityState::Idle)),
        _ => None,
    }
}

/// The end of a turn: idle, unless tasks in the background or scheduled ones go on.
fn stopped(input: &Input) -> ActivityReport {
    let list = |name| input.at(&[name]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let runs = |task: &&Value| {
        const ENDED: [&str; 7] = ["completed", "failed", "killed", "stopped", "cancelled", "canceled", "error"];
        !task.get("status").and_then(Value::as_str).is_some_and(|status| ENDED.contains(&status))
    };
    let tasks = counted(list("background_tasks").iter().filter(runs).count(), "background task");
    let scheduled = counted(list("session_crons").len(), "scheduled task");
    let detail: Vec<_> = [tasks, scheduled].into_iter().flatten().collect();
    if detail.is_empty() {
        return state(ActivityState::Idle);
    }
    ActivityReport { detail: Some(detail.join(", ")), in_background: true, ..state(ActivityState::Working) }
}

fn counted(count: usize, what: &str) -> Option<String> {
    let ending = if count == 1 { "" } else { "s" };
    (count > 0).then(|| format!("{count} {what}{ending}"))
}

/// The kind of the error that ended a turn, such as `rate_limit`. Versions name an overload differently: by its status
/// 529 in the message, which some report as `server_error` and some as `unknown`.
pub fn error_kind(input: &Input) -> String {
    let error = input.at(&["error"]);
    let named = error.and_then(|error| error.as_str().or_else(|| error.get("type").and_then(Value::as_str)));
    let kind = named.map(str::trim).filter(|kind| !kind.is_empty()).unwrap_or("unknown");
    let message = input.text("last_assistant_message").unwrap_or_default();
    match (kind, error_by_message(message)) {
        ("overloaded_error", _) | ("server_error", Some("overloaded")) => "overloaded".to_owned(),
        ("unknown", Some(known)) => known.to_owned(),
        (kind, _) => kind.chars().take(MAX_ID).collect(),
    }
}

/// The kind by the message of an error of the API, such as `API Error: 529 Overloaded`.
pub fn error_by_message(message: &str) -> Option<&'static str> {
    let head: String = message.chars().take(500).collect::<String>().to_ascii_lowercase();
    let has_status = |status: &str| head.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == status);
    if has_status("529") || head.contains("overloaded") {
        Some("overloaded")
    } else if has_status("429") {
        Some("rate_limit")
    } else if has_status("401") {
        Some("authentication_failed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
