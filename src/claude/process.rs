//! Which process the agent is: a hook is its child, perhaps with a shell between.

use crate::platform::places::Env;
use crate::platform::process::parent;

/// What runs a hook's command line, and is not the agent.
const BETWEEN: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env", "timeout", "sessiond"];

/// How many shells deep an agent may call.
const DEPTH: usize = 8;

/// The agent's process: as it says itself, else the nearest ancestor of `own` that is no shell.
pub fn of_agent(env: Env<'_>, own: i32) -> Option<i32> {
    let told = env("CLAUDE_PID").and_then(|pid| pid.to_str()?.parse().ok()).filter(|pid| *pid > 1);
    told.or_else(|| ancestor(own, &parent))
}

fn ancestor(own: i32, parent: &dyn Fn(i32) -> Option<(i32, String)>) -> Option<i32> {
    let (mut pid, _) = parent(own)?;
    for _ in 0..DEPTH {
        let (above, name) = parent(pid)?;
        if pid <= 1 {
            return None;
        }
        if !BETWEEN.contains(&name.trim_start_matches('-')) {
            return Some(pid);
        }
        pid = above;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_passed_over() {
        let tree = |pid| match pid {
            40 => Some((30, "sessiond".to_owned())),
            30 => Some((20, "dash".to_owned())),
            20 => Some((10, "node".to_owned())),
            10 => Some((1, "-bash".to_owned())),
            50 => Some((10, "sessiond".to_owned())),
            1 => Some((0, "systemd".to_owned())),
            _ => None,
        };
        assert_eq!(ancestor(40, &tree), Some(20));
        assert_eq!(ancestor(50, &tree), None, "by hand, in a shell");
        assert_eq!(ancestor(99, &tree), None);
    }

    #[test]
    fn the_agent_itself_knows_best() {
        assert_eq!(of_agent(&|_| Some("77".into()), 1), Some(77));
        for nonsense in ["", "x", "-5", "0", "1"] {
            assert_ne!(of_agent(&|_| Some(nonsense.into()), -1), nonsense.parse().ok().or(Some(0)), "{nonsense}");
        }
    }
}
