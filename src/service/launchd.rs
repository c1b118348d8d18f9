//! The property lists, from the files in launchd/, and what makes launchd take them.

use std::path::PathBuf;

use super::steps::{Only, Step};
use super::{Scope, Setup, Site, homeless, in_home, words};
use crate::wire::ErrorDetail;

const LABEL: &str = "local.sessiond";
/// The program and the user's log as the files in launchd/ call them.
const PROGRAM: &str = "/usr/local/bin/sessiond";
const LOG: &str = "/tmp/sessiond.log";
/// Who may use a daemon for all users, unless the configuration says otherwise: those who administer the Mac. Without a
/// group only root could connect, and macOS makes no group for a service by itself.
const GROUP: (&str, &str) = ("#group = ", "group = \"admin\"");

fn plist(site: &Site) -> Result<(PathBuf, String), ErrorDetail> {
    let program = escaped(&site.program.display().to_string());
    let (path, text) = match site.scope {
        Scope::System => (
            format!("/Library/LaunchDaemons/{LABEL}.plist").into(),
            include_str!("../../launchd/daemon.plist").to_owned(),
        ),
        Scope::User => {
            let log = escaped(&in_home(site, "Library/Logs/sessiond.log")?.display().to_string());
            let text = include_str!("../../launchd/agent.plist").replace(LOG, &log);
            (in_home(site, &format!("Library/LaunchAgents/{LABEL}.plist"))?, text)
        }
    };
    Ok((path, text.replace(PROGRAM, &program)))
}

fn domain(site: &Site) -> String {
    if site.scope == Scope::System { "system".into() } else { format!("gui/{}", site.uid) }
}

/// `outdated`: another program runs than the one that is installed.
pub(super) fn install(site: &Site, setup: &Setup, outdated: bool) -> Result<Vec<Step>, ErrorDetail> {
    let (path, text) = plist(site)?;
    let domain = domain(site);
    let config = site.places.config_file.as_deref().ok_or_else(homeless)?;
    let group: &[_] = if site.scope == Scope::System { &[GROUP] } else { &[] };
    let mut steps = setup.steps(config, &config.with_file_name("password"), true, group)?;
    steps.push(Step::write(&path, 0o644, text));
    let loaded = words(&format!("launchctl print {domain}/{LABEL}"));
    // What is loaded is the text of before; where nothing is loaded, there is nothing to unload.
    let unload = ["sh", "-c", &format!("launchctl bootout {domain}/{LABEL} || true")].map(str::to_owned).to_vec();
    steps.push(Step::Run { command: unload, only: Only::AfterChanges });
    let mut bootstrap = words(&format!("launchctl bootstrap {domain}"));
    bootstrap.push(path.display().to_string());
    steps.push(Step::Run { command: bootstrap, only: Only::Unless(loaded) });
    if outdated {
        steps.push(Step::run(&format!("launchctl kickstart -k {domain}/{LABEL}"), Only::Always));
    }
    Ok(steps)
}

pub(super) fn uninstall(site: &Site) -> Result<Vec<Step>, ErrorDetail> {
    let (path, _) = plist(site)?;
    let service = format!("{}/{LABEL}", domain(site));
    let unloaded = ["sh", "-c", &format!("! launchctl print {service}")].map(str::to_owned).to_vec();
    Ok(vec![Step::run(&format!("launchctl bootout {service}"), Only::Unless(unloaded)), Step::Remove(path)])
}

/// Text as XML takes it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
