//! The status line's input, as a heartbeat with the use of the context window.

use std::path::Path;

use serde_json::Value;

use super::input::Input;
use super::{limits, project, reporting_agent, work};
use crate::platform::default_paths::Env;
use crate::wire::AgentReport;

/// The fields that are read, besides those that identify other agents.
pub fn wanted() -> Vec<&'static str> {
    let own = ["session_id", "transcript_path", "cwd", "workspace", "context_window", limits::WANTED];
    [&own[..], &work::WANTED_OF_STATUS_LINE].concat()
}

/// The report of what Claude Code says of itself in the JSON for its status line.
pub fn report(input: &Input, env: Env<'_>) -> AgentReport {
    let text = |path: &[&str]| input.at(path).and_then(Value::as_str).map(str::to_owned);
    // The project is that of the folder in which the agent started; the current folder changes while it works.
    let started_in = text(&["workspace", "project_dir"]).filter(|folder| folder.starts_with('/'));
    let folder = text(&["workspace", "current_dir"]).or_else(|| text(&["cwd"])).or_else(|| started_in.clone());
    AgentReport {
        sign: "beat".to_owned(),
        context_percent: percent(input),
        project: started_in.map(|folder| project::of(Path::new(&folder)).to_string()),
        ..reporting_agent(input, folder.as_deref(), env)
    }
}

/// How much of the context window is used, in percent. Older versions report only the tokens of the last request. `None` at
/// the start and after compaction: the last value stays.
fn percent(input: &Input) -> Option<i64> {
    let window = input.at(&["context_window"])?;
    let used = match window.get("used_percentage").filter(|used| !used.is_null()) {
        Some(used) => used.as_f64()?,
        None => computed(window)?,
    };
    Some(used.clamp(0.0, 100.0).round() as i64)
}

/// The tokens that the model read for its last answer, in percent of the window.
fn computed(window: &Value) -> Option<f64> {
    const READ: [&str; 3] = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    let usage = window.get("current_usage")?;
    let read = READ.iter().filter_map(|name| usage.get(name)?.as_f64());
    let size = window.get("context_window_size")?.as_f64().filter(|size| *size > 0.0)?;
    usage.is_object().then(|| read.sum::<f64>() * 100.0 / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_is_rounded_and_null_is_none() {
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
            let input = Input::read(text.as_bytes(), &wanted());
            assert_eq!(report(&input, &|_| None).context_percent, percent, "{used}");
        }
    }

    #[test]
    fn percentage_is_computed_from_tokens() {
        for (window, percent) in [
            (
                r#"{"context_window_size": 200000, "total_input_tokens": 78800, "current_usage": {"input_tokens": 60000,
                    "output_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}"#,
                Some(30),
            ),
            (
                r#"{"context_window_size": 200000, "used_percentage": null, "current_usage": {"input_tokens": 10,
                    "cache_creation_input_tokens": 1990, "cache_read_input_tokens": 98000}}"#,
                Some(50),
            ),
            (r#"{"context_window_size": 200000, "total_input_tokens": 0, "current_usage": null}"#, None),
            (r#"{"context_window_size": 0, "current_usage": {"input_tokens": 7}}"#, None),
            (r#"{"current_usage": {"input_tokens": 7}}"#, None),
            (r#"{"context_window_size": 200000, "current_usage": 7}"#, None),
            ("7", None),
        ] {
            let text = format!(r#"{{"session_id": "s", "context_window": {window}}}"#);
            let input = Input::read(text.as_bytes(), &wanted());
            assert_eq!(report(&input, &|_| None).context_percent, percent, "{window}");
        }
    }

    #[test]
    fn folder_is_current_and_project_is_of_the_start() {
        let text = r#"{"workspace": {"project_dir": "/p", "current_dir": "/p/x"}, "cwd": "/p/x"}"#;
        let report = report(&Input::read(text.as_bytes(), &wanted()), &|_| None);
        assert_eq!((report.working_dir.as_deref(), report.project.as_deref()), (Some("/p/x"), Some("p")));
    }
}
