//! The agents beside Claude Code: for each one where its settings are, which hooks are installed there, and what its JSON
//! says.
//!
//! Claude Code is the most detailed agent, so its events and fields are the common vocabulary: an adapter translates an
//! event of its agent to one of Claude Code's (`claude::hook::HookEvent`), with the fields under Claude Code's names, and
//! everything behind that is the same for all. What an agent does not say stays unknown; an event that is not known here,
//! as later versions have them, is a heartbeat.

mod codex;
mod copilot;
mod cursor;
mod fields;
mod gemini;
mod opencode;
mod other;
pub mod settings;

use std::path::PathBuf;

use serde_json::json;

pub use codex::trusted_hooks;
pub use fields::{WANTED, WANTED_OF_CURSOR};

use crate::claude::agent_process::AgentProcess;
use crate::claude::hook::{self, HookEvent};
use crate::claude::input::Input;
use crate::domain::agent::{AgentKind, AgentName};
use crate::platform::default_paths::{Env, path_in};
use crate::wire::AgentReport;

/// An event of an agent in Claude Code's terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// `None`: a heartbeat.
    pub event: Option<HookEvent>,
    /// The event's fields under Claude Code's names.
    pub input: Input,
    /// What the end of a session means: `end`, `gone` or `leave`, as in a report.
    pub end_sign: Option<&'static str>,
    /// The event does not say what the agent does from then on.
    pub is_without_activity: bool,
    /// How the agent runs, if the event says it.
    pub kind: Option<AgentKind>,
}

impl Translation {
    /// The report of the event, without the work.
    pub fn report(&self, agent: AgentName, env: Env<'_>) -> AgentReport {
        let report = match self.event {
            Some(event) => event.report(&self.input, env),
            None => hook::heartbeat(&self.input, env),
        };
        AgentReport {
            agent: Some(agent.as_str().to_owned()),
            sign: self.end_sign.map_or(report.sign, str::to_owned),
            activity: report.activity.filter(|_| !self.is_without_activity),
            kind: self.kind.map(|kind| kind.as_str().to_owned()),
            ..report
        }
    }
}

/// How an agent takes context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextAnswer {
    /// As Claude Code: in `hookSpecificOutput`.
    HookSpecific,
    /// As a field of this name at the top.
    TopLevel(&'static str),
}

/// How an agent's settings list hooks.
#[derive(Clone, Copy, Debug)]
pub enum SettingsFormat {
    /// As Claude Code: `hooks.EVENT[].hooks[].command`.
    Groups,
    /// `hooks.EVENT[].KEY`, in a file with `version: 1`.
    Flat {
        /// The field that has the command.
        key: &'static str,
    },
    /// A plugin of our own, in a file of its own.
    Plugin(fn(&str) -> String),
}

/// What is particular to one agent.
pub struct Adapter {
    /// The agent.
    pub name: AgentName,
    /// Names its folder, if set.
    folder_variable: &'static str,
    /// Its folder below the home folder.
    folder: &'static str,
    /// The file that lists the hooks, below its folder.
    file: &'static str,
    /// How its settings list hooks.
    pub format: SettingsFormat,
    /// The events for which a hook is installed, and the tools for which it is (`None`: all, or it is not about a tool).
    pub hooks: &'static [(&'static str, Option<&'static str>)],
    /// Fields beside the command of an installed hook.
    pub hook_fields: &'static [(&'static str, i64)],
    /// The setting in the same file that runs no hook at all if it is false; empty if there is none.
    pub switch: &'static [&'static str],
    translate: fn(&str, &Input, Env<'_>) -> Translation,
    context: ContextAnswer,
    /// Its stdout must be JSON, also where there is nothing to say.
    needs_json: bool,
    /// Whether the process that runs a hook is that of its session.
    owns_process: fn(&AgentProcess) -> bool,
}

/// The agents for which `install` adds hooks, beside Claude Code.
pub const ADAPTERS: [&Adapter; 5] =
    [&codex::ADAPTER, &opencode::ADAPTER, &cursor::ADAPTER, &copilot::ADAPTER, &gemini::ADAPTER];

impl Adapter {
    /// The adapter of an agent other than Claude Code; that of any other program, if nothing more is known of it.
    pub fn of(name: AgentName) -> &'static Self {
        ADAPTERS.into_iter().find(|adapter| adapter.name == name).unwrap_or(&other::ADAPTER)
    }

    /// The event in Claude Code's terms. `named`: the event that the command line names, else the one of the JSON counts.
    pub fn translate(&self, named: &str, input: &Input, env: Env<'_>) -> Translation {
        let event = if named.is_empty() { fields::event_name(input) } else { named.to_owned() };
        (self.translate)(&event, input, env)
    }

    /// What the agent is to read on the hook's stdout to get a context. `named` as in [`Self::translate`].
    pub fn answer(&self, named: &str, input: &Input, context: &str) -> String {
        match self.context {
            ContextAnswer::HookSpecific => {
                let event = if named.is_empty() { fields::event_name(input) } else { named.to_owned() };
                json!({"hookSpecificOutput": {"hookEventName": event, "additionalContext": context}})
            }
            ContextAnswer::TopLevel(field) => json!({field: context}),
        }
        .to_string()
    }

    /// What the agent is to read where there is nothing to say.
    pub const fn empty_answer(&self) -> Option<&'static str> {
        if self.needs_json { Some("{}") } else { None }
    }

    /// Whether this process, which runs a hook, is that of its session.
    pub fn owns_process(&self, process: &AgentProcess) -> bool {
        (self.owns_process)(process)
    }

    /// Its folder of this user; `None` if HOME is not set.
    pub fn folder(&self, env: Env<'_>) -> Option<PathBuf> {
        if self.name == AgentName::Opencode {
            return opencode::folder(env);
        }
        path_in(env, self.folder_variable).or_else(|| Some(path_in(env, "HOME")?.join(self.folder)))
    }

    /// The file that lists its hooks.
    pub fn settings_file(&self, env: Env<'_>) -> Option<PathBuf> {
        Some(self.folder(env)?.join(self.file))
    }

    /// The arguments with which a hook of this event runs sessiond.
    pub fn arguments<'a>(&self, event: &'a str) -> [&'a str; 4] {
        ["hook", "--agent", self.name.as_str(), event]
    }

    /// Whether this user has the agent: its folder exists, or its program is on PATH.
    pub fn is_present(&self, env: Env<'_>) -> bool {
        self.folder(env).is_some_and(|folder| folder.is_dir())
            || self.name.program().is_some_and(|program| !programs_on_path(program, env).is_empty())
    }
}

/// All programs of this name on PATH.
pub fn programs_on_path(program: &str, env: Env<'_>) -> Vec<PathBuf> {
    let path = env("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(program)).filter(|file| file.is_file()).collect()
}

/// The agent that an environment's variables belong to is the one that runs the hook.
const fn always(_: &AgentProcess) -> bool {
    true
}

#[cfg(test)]
mod tests;
