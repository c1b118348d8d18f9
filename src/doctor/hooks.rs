//! Whether the installed versions of Claude Code accept this user's settings, and whether these have all hooks.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::managed_settings::{self, ManagedSettings};
use crate::claude::hook::HookEvent;
use crate::claude::settings;
use crate::claude::versions::{self, FIRST_WARNING_VERSION, Installed};
use crate::config::Environment;
use crate::domain::Finding;
use crate::platform::default_paths::{Env, path_in};

/// Events that Claude Code 2.1.92 knows or may know, besides those whose first version is known. A version up to that
/// ignores settings with any other event.
const KNOWN_EVENTS: &[&str] = &[
    "PostToolUseFailure",
    "SubagentStart",
    "SubagentStop",
    "Setup",
    "TeammateIdle",
    "TaskCompleted",
    "ConfigChange",
    "WorktreeCreate",
    "WorktreeRemove",
    "InstructionsLoaded",
];

/// The name of the check of Claude Code's settings.
pub(super) const CHECK: &str = "claude.settings";
const DISABLED: &str = "disableAllHooks";

/// Checks the settings of this user, if this user runs Claude Code.
pub(super) fn check(environment: &Environment<'_>) -> Vec<Finding> {
    let env = environment.variable;
    let home = path_in(env, "HOME");
    let folder = path_in(env, "CLAUDE_CONFIG_DIR").or_else(|| home.as_ref().map(|home| home.join(".claude")));
    let Some(folder) = folder else { return Vec::new() };
    let installed = versions::installed(env);
    // Root runs the doctor for other users, and usually does not use a Claude Code that is installed.
    if !folder.is_dir() && (installed.is_empty() || environment.is_root) {
        return Vec::new();
    }
    let file = folder.join("settings.json");
    let shown = file.display().to_string();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            let hint = "make it a text file that this user can read";
            return vec![Finding::wrong(CHECK, format!("{shown} cannot be read: {error}"), hint)];
        }
    };
    let managed = ManagedSettings::read(managed_settings::folder(environment.os));
    let mut found = findings(&shown, &text, &installed, managed);
    found.extend(missing_programs(&shown, &text, env));
    found
}

fn findings(file: &str, text: &str, installed: &[Installed], managed: ManagedSettings) -> Vec<Finding> {
    let names = match settings::events(text) {
        Ok(names) => names,
        Err(error) => return vec![Finding::wrong(CHECK, format!("{file}: {error}"), "fix the file")],
    };
    if let Some(finding) = ignored(file, &names, installed) {
        return vec![finding];
    }
    let hooks = HookCheck { file, text, managed: &managed, disabled: disabled(file, text, &managed) };
    let state = hooks.finding(&versions::events(installed).0);
    managed.faults.into_iter().chain([state]).collect()
}

/// The finding of an installed version that ignores the settings because of an unknown event.
fn ignored(file: &str, names: &[String], installed: &[Installed]) -> Option<Finding> {
    let known = installed.iter().filter_map(|found| Some((found, found.version?)));
    let (found, version, event) = known.into_iter().find_map(|(found, version)| {
        let may_be_known = |name: &str| match HookEvent::parse(name) {
            Some(event) if version.accepts(event) => true,
            None if version >= FIRST_WARNING_VERSION => true,
            _ => KNOWN_EVENTS.contains(&name),
        };
        let unknown = names.iter().find(|name| !may_be_known(name))?;
        Some((found, version, unknown))
    })?;
    let path = found.path.display();
    let problem = format!("Claude Code {version} ({path}) ignores all of {file} because of the hook {event}");
    let hint = "run `sessiond install --claude` again, which leaves out its own; remove others, or update Claude Code";
    Some(Finding::wrong(CHECK, problem, hint))
}

/// Why the hooks in the settings do not run.
struct Disabled {
    reason: String,
    hint: String,
    /// HookCheck in the managed settings do not run either.
    also_managed: bool,
}

fn disabled(file: &str, text: &str, managed: &ManagedSettings) -> Option<Disabled> {
    let policy = |name: &str| managed.flag(name).filter(|(value, _)| *value).map(|(_, path)| path.display());
    if let Some(path) = policy(DISABLED) {
        let hint = format!("ask the administrator to remove {DISABLED} from {path}");
        return Some(Disabled { reason: format!("{path} disables all hooks"), hint, also_managed: true });
    }
    if let Some(path) = policy("allowManagedHooksOnly") {
        let reason = format!("{path} allows only managed hooks, so those in {file} do not run");
        let hint = format!("ask the administrator to add the hooks of {file} to {path}");
        return Some(Disabled { reason, hint, also_managed: false });
    }
    (managed.flag(DISABLED).is_none() && settings::flag(text, DISABLED) == Some(true)).then(|| Disabled {
        reason: format!("{file} disables all hooks: {DISABLED} is true"),
        hint: format!("remove {DISABLED} from {file}"),
        also_managed: false,
    })
}

struct HookCheck<'a> {
    file: &'a str,
    text: &'a str,
    managed: &'a ManagedSettings,
    disabled: Option<Disabled>,
}

impl HookCheck<'_> {
    /// `possible`: the events whose hooks all installed versions accept.
    fn finding(&self, possible: &[HookEvent]) -> Finding {
        let file = self.file;
        let is_installed = HookEvent::ALL.into_iter().any(|event| self.is_installed(event));
        let missing: Vec<_> = possible.iter().filter(|event| !self.runs(**event)).map(|event| event.name()).collect();
        match &self.disabled {
            None if missing.is_empty() => {
                Finding::good(CHECK, format!("{file} has the hooks that the installed versions accept"))
            }
            None if !is_installed => {
                let found = format!("{file} has no hooks of sessiond, so agents do not report their sessions");
                Finding::odd(CHECK, found, "run `sessiond install --claude`")
            }
            None => {
                let found = format!("{file} lacks hooks that the installed versions accept: {}", missing.join(", "));
                Finding::odd(CHECK, found, "run `sessiond install --claude` again")
            }
            Some(disabled) if HookEvent::ALL.into_iter().any(|event| self.is_installed(event) && !self.runs(event)) => {
                Finding::wrong(CHECK, disabled.reason.clone(), disabled.hint.clone())
            }
            Some(_) if missing.is_empty() => Finding::good(CHECK, "the managed settings have the hooks"),
            Some(disabled) => {
                let found = format!("{}, and hooks of sessiond are missing", disabled.reason);
                let hint = format!("{}, then run `sessiond install --claude`", disabled.hint);
                Finding::odd(CHECK, found, hint)
            }
        }
    }

    fn is_in_file(&self, event: HookEvent) -> bool {
        settings::has_hook(self.text, event).unwrap_or(false)
    }

    fn is_installed(&self, event: HookEvent) -> bool {
        self.managed.has_hook(event) || self.is_in_file(event)
    }

    fn runs(&self, event: HookEvent) -> bool {
        match &self.disabled {
            None => self.is_installed(event),
            Some(disabled) => !disabled.also_managed && self.managed.has_hook(event),
        }
    }
}

/// Programs that hooks or the status line run and that do not exist.
fn missing_programs(file: &str, text: &str, env: Env<'_>) -> Vec<Finding> {
    let home = path_in(env, "HOME");
    let mut programs = settings::programs(text);
    programs.sort_unstable();
    programs.dedup();
    let missing = programs.into_iter().filter_map(|program| {
        let found = match in_home(&program, home.as_deref()) {
            Some(path) if !is_program(&path) => format!("{file} runs {}, which is not a program", path.display()),
            None if !program.contains(['/', '$', '`']) && !is_on_path(&program, env) => {
                let found = format!("{file} runs {program}, which is not on PATH");
                return Some(Finding::odd(CHECK, found, "add its folder to PATH, or run `sessiond install --claude`"));
            }
            _ => return None,
        };
        Some(Finding::wrong(CHECK, found, "run `sessiond install --claude` again, which corrects the path"))
    });
    missing.collect()
}

/// The absolute path of a program, which may be named relative to the home folder.
pub(super) fn in_home(program: &str, home: Option<&Path>) -> Option<PathBuf> {
    let below = ["~/", "$HOME/", "${HOME}/"].iter().find_map(|prefix| program.strip_prefix(prefix));
    let path = below.map_or_else(|| Some(PathBuf::from(program)), |below| Some(home?.join(below)))?;
    // Other expansions by the shell are unknown here.
    (path.is_absolute() && !program.contains('`') && !below.unwrap_or(program).contains('$')).then_some(path)
}

pub(super) fn is_program(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(found) => found.is_file() && found.permissions().mode() & 0o111 != 0,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

pub(super) fn is_on_path(program: &str, env: Env<'_>) -> bool {
    std::env::split_paths(&env("PATH").unwrap_or_default()).any(|folder| is_program(&folder.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claude::versions::Version;
    use crate::domain::Verdict;

    fn verdicts(text: &str, versions: &[&str]) -> Vec<Verdict> {
        managed_verdicts(text, versions, "")
    }

    fn managed_verdicts(text: &str, versions: &[&str], managed: &str) -> Vec<Verdict> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("managed-settings.json"), managed).unwrap();
        let installed =
            versions.iter().map(|version| Installed { path: "/bin/claude".into(), version: Version::parse(version) });
        let found = findings("settings.json", text, &installed.collect::<Vec<_>>(), ManagedSettings::read(dir.path()));
        found.iter().map(|found| found.verdict).collect()
    }

    fn all_hooks() -> String {
        settings::install("", "sessiond", &HookEvent::INSTALLED).unwrap().text
    }

    fn with(member: &str, text: &str) -> String {
        text.replacen('{', &format!("{{{member}, "), 1)
    }

    #[test]
    fn disabled_hooks_are_wrong() {
        let all = all_hooks();
        let disabled = with(r#""disableAllHooks": true"#, &all);
        assert_eq!(verdicts(&disabled, &["2.1.332"]), [Verdict::Wrong]);
        assert_eq!(verdicts(&with(r#""disableAllHooks": false"#, &all), &["2.1.332"]), [Verdict::Good]);
        assert_eq!(verdicts(r#"{"disableAllHooks": true}"#, &["2.1.332"]), [Verdict::Odd]);
        for managed in [r#"{"disableAllHooks": true}"#, r#"{"allowManagedHooksOnly": true}"#] {
            assert_eq!(managed_verdicts(&all, &["2.1.332"], managed), [Verdict::Wrong], "{managed}");
        }
        let overruled = r#"{"disableAllHooks": false, "allowManagedHooksOnly": false}"#;
        assert_eq!(managed_verdicts(&disabled, &["2.1.332"], overruled), [Verdict::Good]);
        assert_eq!(managed_verdicts(&all, &["2.1.332"], "{"), [Verdict::Wrong, Verdict::Good]);
    }

    #[test]
    fn managed_hooks_count() {
        let all = all_hooks();
        let only = with(r#""allowManagedHooksOnly": true"#, &all);
        assert_eq!(managed_verdicts("", &["2.1.332"], &all), [Verdict::Good]);
        assert_eq!(managed_verdicts("", &["2.1.332"], &only), [Verdict::Good]);
        assert_eq!(managed_verdicts(&all, &["2.1.332"], &only), [Verdict::Good]);
        assert_eq!(managed_verdicts(r#"{"disableAllHooks": true}"#, &["2.1.332"], &all), [Verdict::Good]);
        let off = with(r#""disableAllHooks": true"#, &all);
        assert_eq!(managed_verdicts("", &["2.1.332"], &off), [Verdict::Wrong]);
    }

    #[test]
    fn programs_that_hooks_name_and_that_are_gone_are_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("sessiond");
        fs::write(&program, "").unwrap();
        let set_mode = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        set_mode(0o755);
        let env = |name: &str| ["HOME", "PATH"].contains(&name).then(|| dir.path().as_os_str().to_owned());
        let verdicts = |program: &str| {
            let text = all_hooks().replace("\"sessiond ", &format!("\"{program} "));
            missing_programs("settings.json", &text, &env).iter().map(|found| found.verdict).collect::<Vec<_>>()
        };
        let absolute = program.to_str().unwrap();
        let present = [absolute, "sessiond", "~/sessiond", "$HOME/sessiond", "${HOME}/sessiond"];
        for program in present.into_iter().chain(["$OTHER/sessiond", "./sessiond"]) {
            assert_eq!(verdicts(program), [], "{program}");
        }
        for program in ["/no such/sessiond", "~/bin/sessiond", "timeout 5 $HOME/bin/sessiond"] {
            let program = if program.contains("such") { format!("'{program}'") } else { program.to_owned() };
            assert_eq!(verdicts(&program), [Verdict::Wrong], "{program}");
        }
        set_mode(0o644);
        assert_eq!(verdicts(absolute), [Verdict::Wrong], "not executable");
        assert_eq!(verdicts("sessiond"), [Verdict::Odd]);
        fs::remove_file(&program).unwrap();
        assert_eq!(verdicts(absolute), [Verdict::Wrong]);
    }

    #[test]
    fn only_users_of_claude_code_are_advised_to_install_hooks() {
        let dir = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "CLAUDE_CONFIG_DIR").then(|| dir.path().join("claude").into_os_string());
        let environment = Environment { os: crate::platform::default_paths::Os::Linux, is_root: true, variable: &env };
        assert_eq!(check(&environment), []);
        fs::create_dir(dir.path().join("claude")).unwrap();
        assert_eq!(check(&environment)[0].verdict, Verdict::Odd);
        fs::write(dir.path().join("claude/settings.json"), b"\xff").unwrap();
        assert_eq!(check(&environment)[0].verdict, Verdict::Wrong);
    }

    #[test]
    fn hooks_that_void_the_settings_of_an_installed_version_are_wrong() {
        let all = settings::install("", "sessiond", &HookEvent::INSTALLED).unwrap().text;
        assert_eq!(verdicts(&all, &["2.1.332"]), [Verdict::Good]);
        assert_eq!(verdicts(&all, &["2.1.332", "2.1.74"]), [Verdict::Wrong]);
        let foreign = r#"{"hooks": {"MessageDisplay": []}}"#;
        assert_eq!(verdicts(foreign, &["2.1.92"]), [Verdict::Wrong]);
        assert_eq!(verdicts(foreign, &["2.1.101"]), [Verdict::Odd]);
        let failures = r#"{"hooks": {"StopFailure": []}}"#;
        assert_eq!(verdicts(failures, &["2.1.77"]), [Verdict::Wrong]);
        assert_eq!(verdicts(failures, &["2.1.78"]), [Verdict::Odd]);
        assert_eq!(verdicts(r#"{"hooks": {"PostToolUseFailure": []}}"#, &["2.1.50"]), [Verdict::Odd], "may be known");
        assert_eq!(verdicts(r#"{"hooks": {"PreToolUse": []}}"#, &["2.0.76"]), [Verdict::Odd]);
        assert_eq!(verdicts("{", &[]), [Verdict::Wrong]);
        assert_eq!(verdicts("", &[]), [Verdict::Odd]);
    }

    #[test]
    fn newer_version_takes_more_hooks() {
        let few = versions::events(&[Installed { path: "/bin/claude".into(), version: Version::parse("2.0.76") }]).0;
        let text = settings::install("", "sessiond", &few).unwrap().text;
        assert_eq!(verdicts(&text, &["2.1.332"]), [Verdict::Odd]);
        assert_eq!(verdicts(&text, &["2.0.76"]), [Verdict::Good]);
    }
}
