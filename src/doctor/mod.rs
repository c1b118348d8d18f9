//! Checks every part of an installation, and advises how to fix what is wrong. Changes nothing.
//!
//! Each check returns findings (`good`, `odd` or `wrong`) and never fails: what cannot be checked is a finding too. A daemon
//! that answers decides which installation is checked (`installation`).

mod addresses;
mod agents;
mod hooks;
mod installation;
mod local;
mod managed_settings;
mod other_agents;
mod report;
mod service;
mod spool;

use std::path::Path;

pub use report::report;

use crate::client::Client;
use crate::clock;
use crate::config::{self, Environment, Overrides, Settings};
use crate::daemon;
use crate::domain::{Finding, Verdict};
use crate::service::Scope;
use crate::sync::postgres::checkup;
use installation::ServingInstallation;

/// Checks this installation, from the configuration to central.
pub fn examine(overrides: &Overrides, environment: &Environment<'_>, client: &Client) -> Vec<Finding> {
    let mut findings = vec![local::program()];
    findings.extend(local::other_programs(environment));
    let status = client.status();
    let served = ServingInstallation::by(status.as_ref().ok(), overrides, environment);
    findings.extend(local::daemon(&status));
    findings.push(local::socket(client));
    findings.extend(service::check(environment));
    findings.extend(agents::complaints(environment));
    findings.extend(hooks::check(environment));
    findings.extend(other_agents::check(environment));
    let mut settings = match config::load(&served.overrides, &served.environment) {
        Ok(loaded) => {
            findings.push(local::config(&loaded));
            loaded.settings
        }
        Err(error) => {
            findings.push(served.unreadable(&error).unwrap_or_else(|| {
                Finding::wrong("config", error.to_string(), "config.example.toml documents every key")
            }));
            return findings;
        }
    };
    findings.extend(
        config::unused_database_url(&served.environment)
            .map(|found| Finding::odd("config", found, "central.url or SESSIOND_CENTRAL_URL names central")),
    );
    findings.push(local::identity(&settings));
    // A daemon that answers may use another state folder than these settings.
    let reported = status.as_ref().ok().map(|status| status.store.path.clone());
    let state_dir = reported.as_deref().map_or(settings.state_dir.as_path(), Path::new);
    findings.extend(spool::check(&status, &settings, environment));
    findings.extend(local::store(state_dir));
    findings.push(local::disk(state_dir));
    findings.push(agents::discovery(&settings.claude, if served.is_system { Scope::System } else { Scope::User }));
    served.add_credential(&mut settings);
    findings.extend(central(&settings, &served));
    findings
}

fn central(settings: &Settings, served: &ServingInstallation<'_>) -> Vec<Finding> {
    let options = match daemon::central_options(settings) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let found = "none is configured; sessions stay on this machine";
            return vec![Finding::good("central", found)];
        }
        Err(error) => {
            let finding = Finding::wrong("central", error.message, error.hint);
            return vec![if served.lacks_rights { as_root(finding) } else { finding }];
        }
    };
    let mut findings = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let central = runtime.block_on(checkup(&options, &clock::system()));
            addresses::filter(&options).into_iter().chain(central).collect::<Vec<_>>()
        }
        Err(error) => {
            vec![Finding::wrong("central", format!("it cannot be checked: {error}"), "check this user's limits")]
        }
    };
    if served.lacks_rights {
        // This user may not be able to read the service's password, so a refused login may not affect the service.
        let adjusted = |finding: Finding| match finding.check {
            "central.login" if finding.verdict == Verdict::Wrong => as_root(finding),
            _ => finding,
        };
        findings = findings.into_iter().map(adjusted).collect();
    }
    findings
}

/// A finding that this user cannot verify for the system's service.
fn as_root(finding: Finding) -> Finding {
    let found = format!("not checked, as this user may not read the service's password: {}", finding.found);
    Finding::odd(finding.check, found, "run `sudo sessiond doctor`")
}
