//! Finds the process of the agent that runs a hook: the nearest ancestor that is not a shell.
//!
//! A newer Claude Code names its process in CLAUDE_PID, but all its descendants inherit the variable: an agent that it
//! runs and that does not set it would be taken for its parent. So CLAUDE_PID is used only if no other program is between
//! the hook and that process.

use crate::platform::default_paths::Env;
use crate::platform::process::{ProcessInfo, process_info};

/// Programs that run a hook's command line and are not agents.
const BETWEEN: &[&str] = &[
    "ash", "bash", "busybox", "csh", "dash", "doas", "env", "fish", "ionice", "ksh", "mksh", "nice", "nohup", "nu",
    "script", "sessiond", "setsid", "sh", "stdbuf", "sudo", "tcsh", "tee", "time", "timeout", "xargs", "yash", "zsh",
];

/// How many ancestors of the hook are examined.
const MAX_DEPTH: usize = 16;

const OWN_PID: &str = "CLAUDE_PID";
const SESSION_ID: &str = "CLAUDE_CODE_SESSION_ID";

/// The process of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentProcess {
    pub(crate) pid: i32,
    /// When it started, in the platform's own unit.
    pub started: Option<i64>,
    /// The program's name, as far as the system keeps it.
    pub name: String,
}

/// The agent that runs a hook, and whether its variables in the environment are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallingAgent {
    pub(crate) agent: Option<AgentProcess>,
    /// Whether the agent set Claude Code's variables itself. False: it inherited them from another agent.
    pub owns_environment: bool,
}

/// The agent whose hook is the child of `parent` and reports the conversation `session_id`.
pub fn find_agent(env: Env<'_>, parent: i32, session_id: Option<&str>) -> CallingAgent {
    find(env, parent, session_id, &process_info)
}

fn find(
    env: Env<'_>,
    parent: i32,
    session_id: Option<&str>,
    about: &dyn Fn(i32) -> Option<ProcessInfo>,
) -> CallingAgent {
    let variable = |name| env(name).and_then(|value| value.into_string().ok());
    let named = variable(OWN_PID).and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 1);
    let named = named.and_then(|pid| Some((pid, about(pid).filter(|about| about.started.is_some())?)));
    let named_id = variable(SESSION_ID);
    // A session id equal to that of the event was set by this agent.
    let same = named_id.is_some() && named_id.as_deref() == session_id;
    let other = named_id.is_some() && session_id.is_some() && !same;
    let above_named = named.as_ref().map_or_else(Vec::new, |(pid, _)| with_ancestors(*pid, about));
    let found = match nearest(parent, &above_named, about) {
        Some(agent) => {
            let stands_above = named.as_ref().is_some_and(|(pid, _)| with_ancestors(agent.pid, about).contains(pid));
            // The program is the agent's hook, which runs this one.
            if same && stands_above { None } else { Some(agent) }
        }
        None => None,
    };
    match (found, named) {
        (Some(agent), named) => {
            let owns_environment = named.is_none_or(|(pid, _)| pid == agent.pid) && !other;
            CallingAgent { agent: Some(agent), owns_environment }
        }
        (None, Some((pid, about))) => CallingAgent {
            agent: Some(AgentProcess { pid, started: about.started, name: about.name }),
            owns_environment: true,
        },
        (None, None) => CallingAgent { agent: None, owns_environment: !other },
    }
}

/// The nearest ancestor from `pid` on that is not a shell; `None` if one of `above_named` comes before it, or the system
/// hides the processes.
fn nearest(mut pid: i32, above_named: &[i32], about: &dyn Fn(i32) -> Option<ProcessInfo>) -> Option<AgentProcess> {
    for _ in 0..MAX_DEPTH {
        if above_named.contains(&pid) {
            return None;
        }
        let ProcessInfo { parent, name, started } = about(pid).filter(|_| pid > 1)?;
        if !BETWEEN.contains(&name.trim_start_matches('-')) {
            return Some(AgentProcess { pid, started, name });
        }
        pid = parent;
    }
    None
}

/// The process and its ancestors, without process 1.
fn with_ancestors(mut pid: i32, about: &dyn Fn(i32) -> Option<ProcessInfo>) -> Vec<i32> {
    let mut found = Vec::new();
    while pid > 1 && found.len() < MAX_DEPTH {
        found.push(pid);
        match about(pid) {
            Some(process) => pid = process.parent,
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    /// A hook's shell 90 below claude 20 and a nested agent: 20 claude < 30 bash < 40 grok < 50 sh < 60 python3.
    fn tree(pid: i32) -> Option<ProcessInfo> {
        let (parent, name) = match pid {
            70 => (20, "sh"),
            60 => (50, "python3"),
            50 => (40, "sh"),
            40 => (30, "grok"),
            30 => (20, "bash"),
            25 => (20, "python3"),
            20 => (10, "claude"),
            15 => (10, "sleep"),
            10 => (1, "-bash"),
            1 => (0, "systemd"),
            _ => return None,
        };
        Some(ProcessInfo { parent, name: name.to_owned(), started: Some(7) })
    }

    fn found(parent: i32, variables: &[(&str, &str)], session: Option<&str>) -> (Option<i32>, bool) {
        let env = |name: &str| {
            let value = variables.iter().find(|(known, _)| *known == name);
            value.map(|(_, value)| OsString::from(value))
        };
        let found = find(&env, parent, session, &tree);
        (found.agent.map(|agent| agent.pid), found.owns_environment)
    }

    #[test]
    fn shells_are_skipped() {
        assert_eq!(found(70, &[], None), (Some(20), true));
        assert_eq!(found(50, &[], None), (Some(40), true));
        assert_eq!(found(10, &[], None), (None, true), "by hand, in a shell");
        assert_eq!(found(99, &[], None), (None, true));
    }

    #[test]
    fn named_process_counts_only_as_the_nearest_agent() {
        let named = [("CLAUDE_PID", "20")];
        assert_eq!(found(70, &named, Some("s")), (Some(20), true));
        assert_eq!(found(50, &named, Some("s")), (Some(40), false), "inherited by the agent that 20 runs");
        assert_eq!(found(30, &named, Some("s")), (Some(20), true));
        assert_eq!(found(10, &[("CLAUDE_PID", "15")], None), (Some(15), true), "beside the hook, with shells between");
        assert_eq!(found(25, &[("CLAUDE_PID", "15")], None), (Some(25), false), "beside the hook, python between");
        assert_eq!(found(99, &named, None), (Some(20), true), "the system hides the processes between");
        for nonsense in ["", "x", "-5", "0", "1", "99"] {
            assert_eq!(found(70, &[("CLAUDE_PID", nonsense)], None), (Some(20), true), "{nonsense}");
        }
    }

    #[test]
    fn session_id_decides_who_set_the_environment() {
        let own = [("CLAUDE_PID", "20"), ("CLAUDE_CODE_SESSION_ID", "s")];
        assert_eq!(found(25, &own, Some("s")), (Some(20), true), "a hook that is a script of python");
        assert_eq!(found(25, &own, Some("child")), (Some(25), false));
        assert_eq!(found(60, &own, Some("child")), (Some(60), false));
        assert_eq!(found(70, &own, Some("child")), (Some(20), true), "the nearest agent names itself");
        assert_eq!(found(70, &own, None), (Some(20), true));
    }
}
