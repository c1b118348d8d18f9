//! The units, from the files in systemd/, and what makes systemd take them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::steps::{Only, Step};
use super::{CREDENTIALS, Scope, Setup, Site, homeless, words};
use crate::wire::ErrorDetail;

const NOTIFY_RELOAD: &str = include_str!("../../systemd/notify-reload.conf");
const SYSUSERS: &str = include_str!("../../systemd/sysusers.conf");
const SYSUSERS_FILE: &str = "/etc/sysusers.d/sessiond.conf";
const TMPFILES: &str = include_str!("../../systemd/tmpfiles.conf");
const TMPFILES_FILE: &str = "/etc/tmpfiles.d/sessiond.conf";
const SHARED_SPOOL: &str = "/var/spool/sessiond";
/// The program as the files in systemd/ call it.
const PROGRAM: &str = "/usr/bin/sessiond";
/// The first version that knows Type=notify-reload.
const KNOWS_NOTIFY_RELOAD: u32 = 253;

/// The helper of users whose homes the system service cannot read. Each user enables it.
const DISCOVER: &str = include_str!("../../systemd/user/sessiond-discover.service");
const DISCOVER_FILE: &str = "/etc/systemd/user/sessiond-discover.service";

/// The version of the systemd that is installed.
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

fn folder(site: &Site) -> Result<PathBuf, ErrorDetail> {
    match site.scope {
        Scope::System => Ok("/etc/systemd/system".into()),
        // Beside sessiond's own folder, wherever XDG_CONFIG_HOME is.
        Scope::User => {
            let config = site.places.config_file.as_deref().and_then(Path::parent).and_then(Path::parent);
            config.map(|config| config.join("systemd/user")).ok_or_else(homeless)
        }
    }
}

fn drop_in(folder: &Path) -> PathBuf {
    folder.join("sessiond.service.d/notify-reload.conf")
}

/// `outdated`: another program runs than the one that is installed.
pub(super) fn install(site: &Site, setup: &Setup, outdated: bool) -> Result<Vec<Step>, ErrorDetail> {
    let system = site.scope == Scope::System;
    let folder = folder(site)?;
    let mut steps = Vec::new();
    if system && !site.packaged {
        let known = "getent passwd sessiond";
        steps.push(Step::write(SYSUSERS_FILE, 0o644, SYSUSERS));
        steps.push(Step::run(&format!("systemd-sysusers {SYSUSERS_FILE}"), Only::Unless(words(known))));
        steps.push(Step::write(TMPFILES_FILE, 0o644, TMPFILES));
        let made = Only::Unless(words(&format!("test -g {SHARED_SPOOL} -a -k {SHARED_SPOOL}")));
        steps.push(Step::run(&format!("systemd-tmpfiles --create {TMPFILES_FILE}"), made));
    }
    let config = site.places.config_file.as_deref().ok_or_else(homeless)?;
    let password = if system { PathBuf::from(CREDENTIALS[0]) } else { config.with_file_name("password") };
    steps.extend(setup.steps(config, &password, !system, &[])?);
    if !site.packaged {
        for (name, text) in units(site.scope) {
            steps.push(Step::write(folder.join(name), 0o644, text.replace(PROGRAM, &escaped(&site.program))));
        }
        if system {
            steps.push(Step::write(DISCOVER_FILE, 0o644, DISCOVER.replace(PROGRAM, &escaped(&site.program))));
        }
    }
    if site.systemd.is_some_and(|version| version >= KNOWS_NOTIFY_RELOAD) {
        steps.push(Step::write(drop_in(&folder), 0o644, NOTIFY_RELOAD));
    }
    let ctl = systemctl(site.scope);
    let run = |command: &str, only| Step::run(&format!("{ctl} {command}"), only);
    let is = |command: &str| Only::Unless(words(&format!("{ctl} {command}")));
    steps.push(run("daemon-reload", Only::AfterChanges));
    steps.push(run(
        "enable sessiond.socket sessiond.service",
        is("is-enabled --quiet sessiond.socket sessiond.service"),
    ));
    steps.push(run("start sessiond.socket", is("is-active --quiet sessiond.socket")));
    // The socket stays where it is: those who wait there are served by the new daemon.
    let restart = if outdated {
        Only::Always
    } else {
        Only::AfterChangesOrUnless(words(&format!("{ctl} is-active --quiet sessiond.service")))
    };
    steps.push(run("restart sessiond.service", restart));
    Ok(steps)
}

pub(super) fn uninstall(site: &Site) -> Result<Vec<Step>, ErrorDetail> {
    let folder = folder(site)?;
    let ctl = systemctl(site.scope);
    let installed = folder.join("sessiond.service");
    let gone = Only::Unless(["test", "!", "-e", &installed.display().to_string()].map(str::to_owned).to_vec());
    let mut steps = vec![Step::run(&format!("{ctl} disable --now sessiond.socket sessiond.service"), gone)];
    steps.extend(units(site.scope).map(|(name, _)| Step::Remove(folder.join(name))));
    steps.push(Step::Remove(drop_in(&folder)));
    if site.scope == Scope::System {
        steps.push(Step::Remove(SYSUSERS_FILE.into()));
        steps.push(Step::Remove(TMPFILES_FILE.into()));
        steps.push(Step::Remove(DISCOVER_FILE.into()));
    }
    steps.push(Step::run(&format!("{ctl} daemon-reload"), Only::AfterChanges));
    Ok(steps)
}

fn systemctl(scope: Scope) -> &'static str {
    if scope == Scope::System { "systemctl" } else { "systemctl --user" }
}

/// A path as ExecStart= takes it.
fn escaped(program: &Path) -> String {
    let path = program.display().to_string().replace('%', "%%").replace('$', "$$");
    if path.contains(char::is_whitespace) { format!("\"{path}\"") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::places::{Os, Places};

    fn site(scope: Scope, systemd: u32) -> Site {
        let home = |name: &str| (name == "HOME").then(|| "/home/me".into());
        Site {
            os: Os::Linux,
            scope,
            uid: 0,
            home: Some("/home/me".into()),
            program: "/opt/my tools/sessiond".into(),
            places: if scope == Scope::System { Places::system(Os::Linux) } else { Places::user(Os::Linux, &home) },
            systemd: Some(systemd),
            packaged: false,
        }
    }

    fn written(site: &Site) -> Vec<(String, String)> {
        let steps = install(site, &Setup::default(), false).unwrap();
        let files = steps.iter().filter_map(|step| match step {
            Step::Write { path, text, .. } => Some((path.display().to_string(), text.clone())),
            _ => None,
        });
        files.collect()
    }

    #[test]
    fn the_units_run_this_program() {
        let files = written(&site(Scope::System, 252));
        let unit = files.iter().find(|(path, _)| path == "/etc/systemd/system/sessiond.service").unwrap();
        assert!(unit.1.contains("\nExecStart=\"/opt/my tools/sessiond\" run --system\n"), "{}", unit.1);
        assert!(!files.iter().any(|(path, _)| path.contains("notify-reload")));
        let mine = written(&site(Scope::User, 253));
        assert!(mine.iter().all(|(path, _)| path.starts_with("/home/me/.config/")), "{mine:?}");
        assert!(mine.iter().any(|(path, text)| path.ends_with("notify-reload.conf") && text.contains("notify-reload")));
    }

    #[test]
    fn what_is_installed_is_what_is_removed() {
        for scope in [Scope::System, Scope::User] {
            let site = site(scope, 253);
            let removed = uninstall(&site).unwrap();
            for (path, _) in written(&site) {
                let stays = path.ends_with("config.toml");
                assert_eq!(removed.contains(&Step::Remove(path.clone().into())), !stays, "{path}");
            }
        }
    }

    #[test]
    fn a_package_s_units_are_left_alone() {
        let site = Site { packaged: true, program: PROGRAM.into(), ..site(Scope::System, 252) };
        let paths: Vec<_> = written(&site).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/etc/sessiond/config.toml"]);
    }
}
