//! Whether the installed versions of Claude Code take the settings of this user, and whether all of this program's
//! hooks are in them.

use std::fs;

use crate::claude::hook::Event;
use crate::claude::settings;
use crate::claude::versions::{self, Installed, WARNS};
use crate::domain::Finding;
use crate::platform::places::{Env, path_in};

/// Events that Claude Code 2.1.92 knows or may know beside those of this program. An older version ignores settings
/// with any other name.
const KNOWN: &[&str] = &[
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "SubagentStart",
    "SubagentStop",
    "Setup",
    "TeammateIdle",
    "TaskCompleted",
    "ConfigChange",
    "WorktreeCreate",
    "WorktreeRemove",
    "InstructionsLoaded",
    "Elicitation",
    "ElicitationResult",
    "StopFailure",
];

/// Checks the settings of this user, if there are any.
pub(super) fn settings_are_taken(env: Env<'_>) -> Vec<Finding> {
    let home = path_in(env, "CLAUDE_CONFIG_DIR").or_else(|| path_in(env, "HOME").map(|home| home.join(".claude")));
    let Some(file) = home.map(|home| home.join("settings.json")) else { return Vec::new() };
    let Ok(text) = fs::read_to_string(&file) else { return Vec::new() };
    findings(&file.display().to_string(), &text, &versions::installed(env))
}

fn findings(file: &str, text: &str, installed: &[Installed]) -> Vec<Finding> {
    const CHECK: &str = "claude.settings";
    let names = match settings::events(text) {
        Ok(names) => names,
        Err(error) => return vec![Finding::wrong(CHECK, format!("{file}: {error}"), "fix the file")],
    };
    let refusing = installed.iter().filter_map(|found| Some((found, found.version?))).find_map(|(found, version)| {
        let unknown = names.iter().find(|name| match Event::parse(name) {
            Some(event) => !version.takes(event),
            None => version < WARNS && !KNOWN.contains(&name.as_str()),
        })?;
        Some((found, version, unknown))
    });
    if let Some((found, version, event)) = refusing {
        let problem = format!(
            "Claude Code {version} ({}) ignores all of {file} because of the hook {event}",
            found.path.display()
        );
        let hint =
            "run `sessiond install --claude` again, which leaves out its own; remove others, or update Claude Code";
        return vec![Finding::wrong(CHECK, problem, hint)];
    }
    let is_installed = |event: &Event| settings::has_hook(text, *event).unwrap_or(false);
    if !Event::ALL.iter().any(is_installed) {
        return Vec::new();
    }
    let (possible, _) = versions::events(installed);
    let missing: Vec<_> = possible.iter().filter(|event| !is_installed(event)).map(|event| event.name()).collect();
    vec![match missing.is_empty() {
        true => Finding::good(CHECK, format!("{file} has the hooks that the installed versions take")),
        false => Finding::odd(
            CHECK,
            format!("{file} lacks hooks that the installed versions take: {}", missing.join(", ")),
            "run `sessiond install --claude` again",
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claude::versions::Version;
    use crate::domain::Verdict;

    fn verdicts(text: &str, versions: &[&str]) -> Vec<Verdict> {
        let installed =
            versions.iter().map(|version| Installed { path: "/bin/claude".into(), version: Version::parse(version) });
        findings("settings.json", text, &installed.collect::<Vec<_>>()).iter().map(|found| found.verdict).collect()
    }

    #[test]
    fn hooks_that_void_the_settings_of_an_installed_version_are_wrong() {
        let all = settings::install("", "sessiond", &Event::ALL).unwrap().text;
        assert_eq!(verdicts(&all, &["2.1.332"]), [Verdict::Good]);
        assert_eq!(verdicts(&all, &["2.1.332", "2.1.74"]), [Verdict::Wrong]);
        let foreign = r#"{"hooks": {"MessageDisplay": []}}"#;
        assert_eq!(verdicts(foreign, &["2.1.92"]), [Verdict::Wrong]);
        assert_eq!(verdicts(foreign, &["2.1.101"]), []);
        assert_eq!(verdicts(r#"{"hooks": {"PreToolUse": []}}"#, &["2.0.76"]), []);
        assert_eq!(verdicts("{", &[]), [Verdict::Wrong]);
        assert_eq!(verdicts("", &[]), []);
    }

    #[test]
    fn newer_version_takes_more_hooks() {
        let few: Vec<_> = Event::ALL.into_iter().filter(|event| *event != Event::PostCompact).collect();
        let text = settings::install("", "sessiond", &few).unwrap().text;
        assert_eq!(verdicts(&text, &["2.1.332"]), [Verdict::Odd]);
        assert_eq!(verdicts(&text, &["2.0.76"]), [Verdict::Good]);
    }
}
