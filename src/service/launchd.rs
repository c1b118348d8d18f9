//! launchd: installs the property lists of launchd/ and loads them.

use std::path::PathBuf;

use super::steps::{InstallStep, RunCondition};
use super::{InstallTarget, RunningDaemon, Scope, Setup, home_not_set, home_path, words};
use crate::wire::ErrorDetail;

const LABEL: &str = "local.sessiond";
/// The program and the user's log in the files of launchd/, which are replaced by those of the installation.
const PROGRAM: &str = "/usr/local/bin/sessiond";
const LOG: &str = "/tmp/sessiond.log";
/// The default group of a daemon for all users, which has the Mac's administrators. Without a group only root could
/// connect, and macOS does not create one for a service.
const GROUP: (&str, &str) = ("#group = ", "group = \"admin\"");

fn plist(target: &InstallTarget) -> Result<(PathBuf, String), ErrorDetail> {
    let program = escape(&target.program.display().to_string());
    let (path, text) = match target.scope {
        Scope::System => (
            format!("/Library/LaunchDaemons/{LABEL}.plist").into(),
            include_str!("../../launchd/daemon.plist").to_owned(),
        ),
        Scope::User => {
            let log = escape(&home_path(target, "Library/Logs/sessiond.log")?.display().to_string());
            let text = include_str!("../../launchd/agent.plist").replace(LOG, &log);
            (home_path(target, &format!("Library/LaunchAgents/{LABEL}.plist"))?, text)
        }
    };
    Ok((path, text.replace(PROGRAM, &program)))
}

/// What users of a daemon for all users may enable; a user's own daemon reaches the desktop itself.
fn notify_agent(target: &InstallTarget) -> Option<(PathBuf, String)> {
    let program = escape(&target.program.display().to_string());
    let text = include_str!("../../launchd/notify-agent.plist").replace(PROGRAM, &program);
    (target.scope == Scope::System).then(|| (format!("/Library/LaunchAgents/{LABEL}.notify-agent.plist").into(), text))
}

fn domain(target: &InstallTarget) -> String {
    if target.scope == Scope::System { "system".into() } else { format!("gui/{}", target.uid) }
}

pub(super) fn install(
    target: &InstallTarget,
    setup: &Setup,
    running: RunningDaemon,
) -> Result<Vec<InstallStep>, ErrorDetail> {
    let (path, text) = plist(target)?;
    let domain = domain(target);
    let config = target.paths.config_file.as_deref().ok_or_else(home_not_set)?;
    let group: &[_] = if target.scope == Scope::System { &[GROUP] } else { &[] };
    let mut steps = setup.steps(config, &config.with_file_name("password"), true, group)?;
    steps.push(InstallStep::write(&path, 0o644, text));
    steps.extend(notify_agent(target).map(|(path, text)| InstallStep::write(path, 0o644, text)));
    let loaded = words(&format!("launchctl print {domain}/{LABEL}"));
    // A loaded service has the previous text. Unloading fails if it is not loaded.
    let unload = ["sh", "-c", &format!("launchctl bootout {domain}/{LABEL} || true")].map(str::to_owned).to_vec();
    steps.push(InstallStep::Run { command: unload, when: RunCondition::AfterChanges });
    let mut bootstrap = words(&format!("launchctl bootstrap {domain}"));
    bootstrap.push(path.display().to_string());
    steps.push(InstallStep::Run { command: bootstrap, when: RunCondition::Unless(loaded) });
    if running == RunningDaemon::Outdated {
        steps.push(InstallStep::run(&format!("launchctl kickstart -k {domain}/{LABEL}"), RunCondition::Always));
    }
    Ok(steps)
}

pub(super) fn uninstall(target: &InstallTarget) -> Result<Vec<InstallStep>, ErrorDetail> {
    let (path, _) = plist(target)?;
    let service = format!("{}/{LABEL}", domain(target));
    let unloaded = ["sh", "-c", &format!("! launchctl print {service}")].map(str::to_owned).to_vec();
    let mut steps = vec![
        InstallStep::run(&format!("launchctl bootout {service}"), RunCondition::Unless(unloaded)),
        InstallStep::Remove(path),
    ];
    steps.extend(notify_agent(target).map(|(path, _)| InstallStep::Remove(path)));
    Ok(steps)
}

/// Escapes text for XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
