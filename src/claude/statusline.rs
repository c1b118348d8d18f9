//! The status line: a sign of life that knows how full the context window is.

use super::input::Input;
use super::who;
use crate::platform::places::Env;
use crate::wire::AgentReport;

pub const WANTED: &[&str] = &["session_id", "transcript_path", "cwd", "workspace", "context_window"];

pub fn report(input: &Input, env: Env<'_>) -> AgentReport {
    // The folder that it was started in; the current one changes while the agent works.
    let started_in = input.at(&["workspace", "project_dir"]).and_then(|dir| dir.as_str());
    AgentReport {
        sign: "beat".to_owned(),
        context_percent: percent(input),
        ..who(input, started_in.or_else(|| input.text("cwd")), env)
    }
}

/// Null early on and after a compact: then what was last said stays.
fn percent(input: &Input) -> Option<i64> {
    let used = input.at(&["context_window", "used_percentage"])?.as_f64()?;
    Some(used.clamp(0.0, 100.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_is_rounded_and_null_says_nothing() {
        for (used, percent) in [
            ("42.4", Some(42)),
            ("42.5", Some(43)),
            ("0", Some(0)),
            ("100.3", Some(100)),
            ("-1", Some(0)),
            ("null", None),
            ("\"42\"", None),
            ("{}", None),
        ] {
            let text = format!(r#"{{"session_id": "s", "context_window": {{"used_percentage": {used}}}}}"#);
            let input = Input::read(text.as_bytes(), WANTED);
            assert_eq!(report(&input, &|_| None).context_percent, percent, "{used}");
        }
        let input = Input::read(br#"{"workspace": {"project_dir": "/p"}, "cwd": "/p/x"}"#.as_slice(), WANTED);
        assert_eq!(report(&input, &|_| None).working_dir.as_deref(), Some("/p"));
    }
}
