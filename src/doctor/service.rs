//! The state of the daemon's units in the service manager.

use std::process::Command;

use crate::config::Environment;
use crate::domain::Finding;
use crate::platform::default_paths::Os;
use crate::service::Scope;

const FIELDS: &str = "LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result,FragmentPath";

pub(super) fn check(environment: &Environment<'_>) -> Vec<Finding> {
    match environment.os {
        Os::Linux => systemd(),
        Os::MacOs => launchd(),
    }
}

/// The output of a command, if it succeeds.
pub(super) fn output(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn systemd() -> Vec<Finding> {
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        return vec![Finding::good("service", "this machine does not use systemd")];
    }
    let mut findings = Vec::new();
    for (scope, manager) in [(Scope::System, &["systemctl"][..]), (Scope::User, &["systemctl", "--user"])] {
        for unit in ["sessiond.service", "sessiond.socket"] {
            let words = [manager, &["show", unit, "--property", FIELDS]].concat();
            findings.extend(output(&words).and_then(|shown| of_unit(unit, scope, &shown)));
        }
    }
    if findings.is_empty() {
        let advice = "run `sessiond install`, as root for all users of this machine";
        findings.push(Finding::odd("service", "no service is installed and enabled", advice));
    }
    findings
}

/// The folders of packages' units. A unit there that is not enabled is not installed by the operator.
const OF_PACKAGES: [&str; 2] = ["/usr/lib/systemd/", "/lib/systemd/"];

/// `None` for a unit that does not exist, or belongs to a package and is not enabled.
fn of_unit(unit: &str, scope: Scope, shown: &str) -> Option<Finding> {
    let field = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    if field("LoadState") != "loaded" {
        return None;
    }
    let owner = if scope == Scope::User { "this user's" } else { "the system's" };
    let (active, sub, enabled) = (field("ActiveState"), field("SubState"), field("UnitFileState"));
    let is_of_package = OF_PACKAGES.iter().any(|folder| field("FragmentPath").starts_with(folder));
    if is_of_package && active == "inactive" && enabled != "enabled" {
        return None;
    }
    let restarts = Some(field("NRestarts")).filter(|n| !n.is_empty() && n != "0");
    let restarts = restarts.map_or(String::new(), |n| format!(", restarted {n} times"));
    let found = format!("{owner} {unit} is {active} ({sub}), {enabled}{restarts}");
    let ctl = if scope == Scope::User { "systemctl --user" } else { "systemctl" };
    Some(if active != "active" {
        let advice = format!("run `{ctl} status {unit}`, fix the reported failure, then `{ctl} restart {unit}`");
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
            let advice = format!("check its log, then `launchctl kickstart -k {service}`");
            vec![Finding::wrong("service", format!("{service} is loaded but not running"), advice)]
        }
        None => vec![Finding::odd("service", "no service is installed", "run `sessiond install`")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verdict;

    #[test]
    fn unit_state_decides_the_verdict() {
        let of = |shown: &str| {
            of_unit("sessiond.service", Scope::System, shown).map(|finding| (finding.verdict, finding.found))
        };
        assert_eq!(of("LoadState=not-found\nActiveState=inactive\n"), None);
        let (verdict, found) =
            of("LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=3\n").unwrap();
        assert_eq!(verdict, Verdict::Good);
        assert_eq!(found, "the system's sessiond.service is active (running), enabled, restarted 3 times");
        let verdict = |shown: &str| of(shown).unwrap().0;
        assert_eq!(verdict("LoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n"), Verdict::Wrong);
        assert_eq!(verdict("LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n"), Verdict::Odd);
    }

    #[test]
    fn unused_unit_of_a_package_is_ignored() {
        let of = |state: &str, folder: &str| {
            let shown = format!("LoadState=loaded\n{state}\nFragmentPath={folder}/user/sessiond.service\n");
            of_unit("sessiond.service", Scope::User, &shown).map(|finding| finding.verdict)
        };
        let unused = "ActiveState=inactive\nUnitFileState=disabled";
        assert_eq!(of(unused, "/usr/lib/systemd"), None);
        assert_eq!(of(unused, "/lib/systemd"), None);
        assert_eq!(of(unused, "/home/me/.config/systemd"), Some(Verdict::Wrong), "installed by the operator");
        assert_eq!(of("ActiveState=inactive\nUnitFileState=enabled", "/usr/lib/systemd"), Some(Verdict::Wrong));
        assert_eq!(of("ActiveState=failed\nUnitFileState=disabled", "/usr/lib/systemd"), Some(Verdict::Wrong));
    }
}
