//! Checks everything that an installation consists of, and says what to do about what is wrong. Changes nothing.

mod addresses;
mod agents;
mod here;
mod hooks;
mod managed;
mod report;
mod served;
mod service;
mod spool;

use std::path::Path;

pub use report::report;

use crate::client::Client;
use crate::clock;
use crate::config::{self, Environment, Overrides, Settings};
use crate::daemon;
use crate::domain::{Finding, Verdict};
use crate::sync::postgres::checkup;
use served::Served;

/// Checks this installation, from the configuration to central.
pub fn examine(overrides: &Overrides, environment: &Environment<'_>, client: &Client) -> Vec<Finding> {
    let mut findings = vec![here::program()];
    findings.extend(here::others_on_path(environment));
    let status = client.status();
    let served = Served::by(status.as_ref().ok(), overrides, environment);
    findings.extend(here::daemon(&status));
    findings.push(here::socket(client));
    findings.extend(service::check(environment));
    findings.extend(agents::complaints(environment));
    findings.extend(hooks::check(environment));
    let mut settings = match config::load(&served.overrides, &served.environment) {
        Ok(loaded) => {
            findings.push(here::config(&loaded));
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
    findings.push(here::identity(&settings));
    // Of a daemon that answers, what its status says counts: it may have other places than these.
    let reported = status.as_ref().ok().map(|status| status.store.path.clone());
    let state_dir = reported.as_deref().map_or(settings.state_dir.as_path(), Path::new);
    findings.extend(spool::check(&status, &settings, environment));
    findings.extend(here::store(state_dir));
    findings.push(here::disk(state_dir));
    findings.push(agents::discovery(&settings.claude, served.is_system));
    served.add_credential(&mut settings);
    findings.extend(central(&settings, &served));
    findings
}

fn central(settings: &Settings, served: &Served<'_>) -> Vec<Finding> {
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
            vec![Finding::wrong("central", format!("it cannot be asked: {error}"), "look at this user's limits")]
        }
    };
    if served.lacks_rights {
        // The service's password may be out of this user's reach, so a refused login says nothing of the service.
        let seen = |finding: Finding| match finding.check {
            "central.login" if finding.verdict == Verdict::Wrong => as_root(finding),
            _ => finding,
        };
        findings = findings.into_iter().map(seen).collect();
    }
    findings
}

/// What this user cannot check for the system's service.
fn as_root(finding: Finding) -> Finding {
    let found = format!("not checked, as this user may not read the service's password: {}", finding.found);
    Finding::odd(finding.check, found, "run `sudo sessiond doctor`")
}
