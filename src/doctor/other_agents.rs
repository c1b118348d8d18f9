//! Checks the hooks in the settings of agents other than Claude Code.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::hooks::{in_home, is_on_path, is_program};
use crate::agents::{ADAPTERS, Adapter, programs_on_path, trusted_hooks};
use crate::config::Environment;
use crate::domain::Finding;
use crate::domain::agent::AgentName;
use crate::platform::default_paths::{Env, path_in};

const CHECK: &str = "agents";

/// Checks each agent that this user has.
pub(super) fn check(environment: &Environment<'_>) -> Vec<Finding> {
    let env = environment.variable;
    // Root runs the doctor for other users, and usually does not use the agents that are installed.
    let has = |adapter: &&&Adapter| match environment.is_root {
        true => adapter.folder(env).is_some_and(|folder| folder.is_dir()),
        false => adapter.is_present(env),
    };
    ADAPTERS.iter().filter(has).flat_map(|adapter| of_agent(adapter, env)).collect()
}

fn of_agent(adapter: &Adapter, env: Env<'_>) -> Vec<Finding> {
    let Some(file) = adapter.settings_file(env) else { return Vec::new() };
    let (name, shown) = (adapter.name.as_str(), file.display());
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            let found = format!("{shown} cannot be read: {error}");
            return vec![Finding::wrong(CHECK, found, "make it a text file that this user can read")];
        }
    };
    let install = format!("run `sessiond install --agent {name}`");
    let missing = match adapter.missing_hooks(&text) {
        Ok(missing) => missing,
        Err(error) => return vec![Finding::wrong(CHECK, format!("{shown}: {error}"), "fix the file")],
    };
    if missing.len() == adapter.hook_count() {
        let found = format!("{shown} has no hooks of sessiond, so {name} does not report its sessions");
        return vec![Finding::odd(CHECK, found, install)];
    }
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let found = format!("{shown} lacks hooks: {}", missing.join(", "));
        findings.push(Finding::odd(CHECK, found, format!("{install} again")));
    }
    let home = path_in(env, "HOME");
    let mut programs = adapter.programs(&text);
    programs.sort_unstable();
    programs.dedup();
    for program in programs {
        let is_there = match in_home(&program, home.as_deref()) {
            Some(path) => is_program(&path),
            None => program.contains(['/', '$', '`']) || is_on_path(&program, env),
        };
        if !is_there {
            let found = format!("{shown} runs {program}, which is not a program");
            findings.push(Finding::wrong(CHECK, found, format!("{install} again, which corrects the path")));
        }
    }
    if adapter.are_hooks_off(&text) {
        let switch = adapter.switch.join(".");
        let found = format!("{shown} switches all hooks off: {switch} is false");
        findings.push(Finding::wrong(CHECK, found, format!("remove {switch} from it")));
    }
    findings.extend(untrusted(adapter, &file, &text));
    if findings.is_empty() {
        let program = adapter.name.program().map(|program| programs_on_path(program, env)).unwrap_or_default();
        let program = program.first().map(|path| format!(" for {}", path.display())).unwrap_or_default();
        findings.push(Finding::good(CHECK, format!("{shown} has the hooks{program}")));
    }
    findings
}

/// The hooks that Codex skips silently because its user does not trust them, as far as its config.toml says.
fn untrusted(adapter: &Adapter, file: &Path, text: &str) -> Option<Finding> {
    if adapter.name != AgentName::Codex {
        return None;
    }
    let config = fs::read_to_string(file.with_file_name("config.toml")).unwrap_or_default();
    let trusted = trusted_hooks(&config).unwrap_or_default();
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let is_trusted = |key: &String| {
        let of = |path: &Path| trusted.contains(&format!("{}:{key}", path.display()));
        of(file) || of(&real)
    };
    let names: Vec<_> =
        adapter.keys(text).into_iter().filter(|(_, key)| !is_trusted(key)).map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| {
        let found = format!("Codex skips hooks of {} that are not trusted: {}", file.display(), names.join(", "));
        Finding::odd(CHECK, found, "run `codex`, then /hooks, and trust them")
    })
}
