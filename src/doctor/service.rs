//! How the service manager sees the daemon.

use std::process::Command;

use crate::config::Environment;
use crate::domain::Finding;
use crate::platform::default_paths::Os;

const FIELDS: &str = "LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result,FragmentPath";

pub(super) fn check(environment: &Environment<'_>) -> Vec<Finding> {
    match environment.os {
        Os::Linux => systemd(),
        Os::MacOs => launchd(),
    }
}

/// What a command prints, if it can be run.
pub(super) fn output(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn systemd() -> Vec<Finding> {
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        return vec![Finding::good("service", "this machine is not run by systemd")];
    }
    let mut findings = Vec::new();
    for manager in [&["systemctl"][..], &["systemctl", "--user"]] {
        for unit in ["sessiond.service", "sessiond.socket"] {
            let words = [manager, &["show", unit, "--property", FIELDS]].concat();
            findings.extend(output(&words).and_then(|shown| of_unit(unit, manager.len() > 1, &shown)));
        }
    }
    if findings.is_empty() {
        let advice = "run `sessiond install`, as root for all users of this machine";
        findings.push(Finding::odd("service", "no service is installed and enabled", advice));
    }
    findings
}

/// Where packages put units. One that is there and not enabled is offered, not installed.
const OF_PACKAGES: [&str; 2] = ["/usr/lib/systemd/", "/lib/systemd/"];

/// None for a unit that is not there, and for one of a package that nobody has enabled.
fn of_unit(unit: &str, user: bool, shown: &str) -> Option<Finding> {
    let field = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    if field("LoadState") != "loaded" {
        return None;
    }
    let whose = if user { "this user's" } else { "the system's" };
    let (active, sub, enabled) = (field("ActiveState"), field("SubState"), field("UnitFileState"));
    let is_of_package = OF_PACKAGES.iter().any(|folder| field("FragmentPath").starts_with(folder));
    if is_of_package && active == "inactive" && enabled != "enabled" {
        return None;
    }
    let restarts = Some(field("NRestarts")).filter(|n| !n.is_empty() && n != "0");
    let restarts = restarts.map_or(String::new(), |n| format!(", restarted {n} times by itself"));
    let found = format!("{whose} {unit} is {active} ({sub}), {enabled}{restarts}");
    let ctl = if user { "systemctl --user" } else { "systemctl" };
    Some(if active != "active" {
        let advice = format!("run `{ctl} status {unit}`, mend what it says, then `{ctl} restart {unit}`");
        Finding::wrong("service", found, advice)
    } else if enabled != "enabled" {
        Finding::odd("service", found, format!("run `{ctl} enable {unit}`, or it does not start at the next boot"))
    } else {
        Finding::good("service", found)
    })
}

fn launchd() -> Vec<Finding> {
    let uid = rustix::process::getuid().as_raw();
    let domains = [format!("gui/{uid}"), "system".to_owned()];
    let found = domains.iter().find_map(|domain| {
        let service = format!("{domain}/local.sessiond");
        output(&["launchctl", "print", &service]).map(|shown| (service, shown))
    });
    match found {
        Some((service, shown)) if shown.contains("state = running") => {
            vec![Finding::good("service", format!("{service} is running"))]
        }
        Some((service, _)) => {
            let advice = format!("look at its log, then `launchctl kickstart -k {service}`");
            vec![Finding::wrong("service", format!("{service} is loaded, and does not run"), advice)]
        }
        None => vec![Finding::odd("service", "no service is installed", "run `sessiond install`")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verdict;

    #[test]
    fn the_state_of_a_unit_is_understood() {
        let of =
            |shown: &str| of_unit("sessiond.service", false, shown).map(|finding| (finding.verdict, finding.found));
        assert_eq!(of("LoadState=not-found\nActiveState=inactive\n"), None);
        let (verdict, found) =
            of("LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=3\n").unwrap();
        assert_eq!(verdict, Verdict::Good);
        assert_eq!(found, "the system's sessiond.service is active (running), enabled, restarted 3 times by itself");
        let verdict = |shown: &str| of(shown).unwrap().0;
        assert_eq!(verdict("LoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n"), Verdict::Wrong);
        assert_eq!(verdict("LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n"), Verdict::Odd);
    }

    #[test]
    fn a_package_s_unit_that_is_not_used_is_no_fault() {
        let of = |state: &str, folder: &str| {
            let shown = format!("LoadState=loaded\n{state}\nFragmentPath={folder}/user/sessiond.service\n");
            of_unit("sessiond.service", true, &shown).map(|finding| finding.verdict)
        };
        let unused = "ActiveState=inactive\nUnitFileState=disabled";
        assert_eq!(of(unused, "/usr/lib/systemd"), None);
        assert_eq!(of(unused, "/lib/systemd"), None);
        assert_eq!(of(unused, "/home/me/.config/systemd"), Some(Verdict::Wrong), "somebody installed it");
        assert_eq!(of("ActiveState=inactive\nUnitFileState=enabled", "/usr/lib/systemd"), Some(Verdict::Wrong));
        assert_eq!(of("ActiveState=failed\nUnitFileState=disabled", "/usr/lib/systemd"), Some(Verdict::Wrong));
    }
}
