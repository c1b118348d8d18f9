//! systemd: installs the units of systemd/ and enables them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::steps::{InstallStep, RunCondition};
use super::{CREDENTIAL_FILES, InstallTarget, RunningDaemon, Scope, Setup, home_not_set, words};
use crate::wire::ErrorDetail;

const NOTIFY_RELOAD: &str = include_str!("../../systemd/notify-reload.conf");
const SYSUSERS: &str = include_str!("../../systemd/sysusers.conf");
const SYSUSERS_FILE: &str = "/etc/sysusers.d/sessiond.conf";
const TMPFILES: &str = include_str!("../../systemd/tmpfiles.conf");
const TMPFILES_FILE: &str = "/etc/tmpfiles.d/sessiond.conf";
const SHARED_SPOOL: &str = "/var/spool/sessiond";
/// The program in the files of systemd/, which is replaced by the installed one.
const PROGRAM: &str = "/usr/bin/sessiond";
/// The first version with Type=notify-reload.
const NOTIFY_RELOAD_VERSION: u32 = 253;

/// The units that users of the system service may enable: what it cannot do itself, as it reads no home and has no desktop.
const FOR_USERS: [(&str, &str); 2] = [
    ("/etc/systemd/user/sessiond-discover.service", include_str!("../../systemd/user/sessiond-discover.service")),
    ("/etc/systemd/user/sessiond-notify-agent.service", NOTIFY_AGENT),
];
const NOTIFY_AGENT: &str = include_str!("../../systemd/user/sessiond-notify-agent.service");

/// The version of systemd.
pub(super) fn version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()
}

fn units(scope: Scope) -> [(&'static str, &'static str); 2] {
    match scope {
        Scope::System => [
            ("sessiond.service", include_str!("../../systemd/system/sessiond.service")),
            ("sessiond.socket", include_str!("../../systemd/system/sessiond.socket")),
        ],
        Scope::User => [
            ("sessiond.service", include_str!("../../systemd/user/sessiond.service")),
            ("sessiond.socket", include_str!("../../systemd/user/sessiond.socket")),
        ],
    }
}

fn folder(target: &InstallTarget) -> Result<PathBuf, ErrorDetail> {
    match target.scope {
        Scope::System => Ok("/etc/systemd/system".into()),
        // In the same XDG_CONFIG_HOME as sessiond's own folder.
        Scope::User => {
            let config = target.paths.config_file.as_deref().and_then(Path::parent).and_then(Path::parent);
            config.map(|config| config.join("systemd/user")).ok_or_else(home_not_set)
        }
    }
}

fn drop_in(folder: &Path) -> PathBuf {
    folder.join("sessiond.service.d/notify-reload.conf")
}

pub(super) fn install(
    target: &InstallTarget,
    setup: &Setup,
    running: RunningDaemon,
) -> Result<Vec<InstallStep>, ErrorDetail> {
    let system = target.scope == Scope::System;
    let folder = folder(target)?;
    let mut steps = Vec::new();
    if system && !target.packaged {
        let known = "getent passwd sessiond";
        steps.push(InstallStep::write(SYSUSERS_FILE, 0o644, SYSUSERS));
        steps.push(InstallStep::run(&format!("systemd-sysusers {SYSUSERS_FILE}"), RunCondition::Unless(words(known))));
        steps.push(InstallStep::write(TMPFILES_FILE, 0o644, TMPFILES));
        let made = RunCondition::Unless(words(&format!("test -g {SHARED_SPOOL} -a -k {SHARED_SPOOL}")));
        steps.push(InstallStep::run(&format!("systemd-tmpfiles --create {TMPFILES_FILE}"), made));
    }
    let config = target.paths.config_file.as_deref().ok_or_else(home_not_set)?;
    let password = if system { PathBuf::from(CREDENTIAL_FILES[0]) } else { config.with_file_name("password") };
    steps.extend(setup.steps(config, &password, !system, &[])?);
    if !target.packaged {
        for (name, text) in units(target.scope) {
            steps.push(InstallStep::write(folder.join(name), 0o644, text.replace(PROGRAM, &escape(&target.program))));
        }
        if system {
            let write = |(file, text): (&str, &str)| {
                InstallStep::write(file, 0o644, text.replace(PROGRAM, &escape(&target.program)))
            };
            steps.extend(FOR_USERS.map(write));
        }
    }
    if target.systemd.is_some_and(|version| version >= NOTIFY_RELOAD_VERSION) {
        steps.push(InstallStep::write(drop_in(&folder), 0o644, NOTIFY_RELOAD));
    }
    let ctl = systemctl(target.scope);
    let run = |command: &str, when| InstallStep::run(&format!("{ctl} {command}"), when);
    let is = |command: &str| RunCondition::Unless(words(&format!("{ctl} {command}")));
    steps.push(run("daemon-reload", RunCondition::AfterChanges));
    steps.push(run(
        "enable sessiond.socket sessiond.service",
        is("is-enabled --quiet sessiond.socket sessiond.service"),
    ));
    steps.push(run("start sessiond.socket", is("is-active --quiet sessiond.socket")));
    // The socket is not restarted: clients that connected to it are served by the new daemon.
    let restart = if running == RunningDaemon::Outdated {
        RunCondition::Always
    } else {
        RunCondition::AfterChangesOrUnless(words(&format!("{ctl} is-active --quiet sessiond.service")))
    };
    steps.push(run("restart sessiond.service", restart));
    Ok(steps)
}

pub(super) fn uninstall(target: &InstallTarget) -> Result<Vec<InstallStep>, ErrorDetail> {
    let folder = folder(target)?;
    let ctl = systemctl(target.scope);
    let installed = folder.join("sessiond.service");
    let gone = RunCondition::Unless(["test", "!", "-e", &installed.display().to_string()].map(str::to_owned).to_vec());
    let mut steps = vec![InstallStep::run(&format!("{ctl} disable --now sessiond.socket sessiond.service"), gone)];
    steps.extend(units(target.scope).map(|(name, _)| InstallStep::Remove(folder.join(name))));
    steps.push(InstallStep::Remove(drop_in(&folder)));
    if target.scope == Scope::System {
        steps.push(InstallStep::Remove(SYSUSERS_FILE.into()));
        steps.push(InstallStep::Remove(TMPFILES_FILE.into()));
        steps.extend(FOR_USERS.map(|(file, _)| InstallStep::Remove(file.into())));
    }
    steps.push(InstallStep::run(&format!("{ctl} daemon-reload"), RunCondition::AfterChanges));
    Ok(steps)
}

fn systemctl(scope: Scope) -> &'static str {
    if scope == Scope::System { "systemctl" } else { "systemctl --user" }
}

/// Escapes a path for ExecStart=.
fn escape(program: &Path) -> String {
    let path = program.display().to_string().replace('%', "%%").replace('$', "$$");
    if path.contains(char::is_whitespace) { format!("\"{path}\"") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::default_paths::{DefaultPaths, Os};

    fn target(scope: Scope, systemd: u32) -> InstallTarget {
        let home = |name: &str| (name == "HOME").then(|| "/home/me".into());
        InstallTarget {
            os: Os::Linux,
            scope,
            uid: 0,
            home: Some("/home/me".into()),
            program: "/opt/my tools/sessiond".into(),
            paths: if scope == Scope::System {
                DefaultPaths::system(Os::Linux)
            } else {
                DefaultPaths::user(Os::Linux, &home)
            },
            systemd: Some(systemd),
            packaged: false,
        }
    }

    fn written(target: &InstallTarget) -> Vec<(String, String)> {
        let steps = install(target, &Setup::default(), RunningDaemon::Current).unwrap();
        let files = steps.iter().filter_map(|step| match step {
            InstallStep::Write { path, text, .. } => Some((path.display().to_string(), text.clone())),
            _ => None,
        });
        files.collect()
    }

    #[test]
    fn the_units_run_this_program() {
        let files = written(&target(Scope::System, 252));
        let unit = files.iter().find(|(path, _)| path == "/etc/systemd/system/sessiond.service").unwrap();
        assert!(unit.1.contains("\nExecStart=\"/opt/my tools/sessiond\" run --system\n"), "{}", unit.1);
        assert!(!files.iter().any(|(path, _)| path.contains("notify-reload")));
        let mine = written(&target(Scope::User, 253));
        assert!(mine.iter().all(|(path, _)| path.starts_with("/home/me/.config/")), "{mine:?}");
        assert!(mine.iter().any(|(path, text)| path.ends_with("notify-reload.conf") && text.contains("notify-reload")));
    }

    #[test]
    fn uninstall_removes_what_install_writes() {
        for scope in [Scope::System, Scope::User] {
            let target = target(scope, 253);
            let removed = uninstall(&target).unwrap();
            for (path, _) in written(&target) {
                let stays = path.ends_with("config.toml");
                assert_eq!(removed.contains(&InstallStep::Remove(path.clone().into())), !stays, "{path}");
            }
        }
    }

    #[test]
    fn the_units_of_a_package_are_not_written() {
        let target = InstallTarget { packaged: true, program: PROGRAM.into(), ..target(Scope::System, 252) };
        let paths: Vec<_> = written(&target).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/etc/sessiond/config.toml"]);
    }
}
