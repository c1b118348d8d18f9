//! Which process the agent is: a hook is its child, perhaps with a shell between.

use crate::platform::places::Env;
use crate::platform::process::{About, about, started};

/// What runs a hook's command line, and is not the agent.
const BETWEEN: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env", "timeout", "sessiond"];

/// How many shells deep an agent may call.
const DEPTH: usize = 8;

/// The agent's process, and when it started: as it says itself, else `parent` or the nearest of its ancestors that
/// is no shell.
pub fn of_agent(env: Env<'_>, parent: i32) -> Option<(i32, Option<i64>)> {
    let told = env("CLAUDE_PID").and_then(|pid| pid.to_str()?.parse().ok()).filter(|pid| *pid > 1);
    told.map(|pid| (pid, started(pid))).or_else(|| nearest(parent, &about))
}

fn nearest(mut pid: i32, about: &dyn Fn(i32) -> Option<About>) -> Option<(i32, Option<i64>)> {
    for _ in 0..DEPTH {
        let About { parent, name, started } = about(pid).filter(|_| pid > 1)?;
        if !BETWEEN.contains(&name.trim_start_matches('-')) {
            return Some((pid, started));
        }
        pid = parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_passed_over() {
        let tree = |pid| {
            let (parent, name) = match pid {
                30 => (20, "dash"),
                20 => (10, "node"),
                10 => (1, "-bash"),
                1 => (0, "systemd"),
                _ => return None,
            };
            Some(About { parent, name: name.to_owned(), started: Some(7) })
        };
        assert_eq!(nearest(30, &tree), Some((20, Some(7))));
        assert_eq!(nearest(10, &tree), None, "by hand, in a shell");
        assert_eq!(nearest(99, &tree), None);
    }

    #[test]
    fn the_agent_itself_knows_best() {
        let told = |pid: &'static str| of_agent(&move |_| Some(pid.into()), -1);
        let own = std::process::id().to_string().leak();
        assert_eq!(told(own), Some((own.parse().unwrap(), started(own.parse().unwrap()))));
        for nonsense in ["", "x", "-5", "0", "1"] {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
    }
}
