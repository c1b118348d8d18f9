//! Looks at everything that an installation consists of, and says what to do about what is wrong. Changes nothing.

mod addresses;
mod here;
mod report;
mod service;
mod spool;

use std::path::Path;

pub use report::report;

use crate::client::Client;
use crate::clock;
use crate::config::{self, Environment, Overrides, Settings};
use crate::daemon;
use crate::domain::Finding;
use crate::sync::postgres::checkup;

/// Looks at this installation, from the configuration to central.
pub fn examine(overrides: &Overrides, environment: &Environment<'_>, client: &Client) -> Vec<Finding> {
    let mut findings = vec![here::program()];
    findings.extend(here::others_on_path(environment));
    let status = client.status();
    let loaded = match config::load(overrides, environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            findings.push(Finding::wrong("config", error.to_string(), "config.example.toml documents every key"));
            findings.extend(here::daemon(&status));
            return findings;
        }
    };
    findings.push(here::config(&loaded));
    let settings = &loaded.settings;
    findings.push(here::identity(settings));
    findings.extend(here::daemon(&status));
    findings.extend(spool::check(&status, settings, environment));
    // Of a daemon that answers, what it says of itself counts: it may have other places than these.
    let told = status.as_ref().ok().map(|status| status.store.path.clone());
    let state_dir = told.as_deref().map_or(settings.state_dir.as_path(), Path::new);
    findings.push(here::socket(client));
    findings.extend(here::store(state_dir));
    findings.push(here::disk(state_dir));
    findings.extend(service::look(environment));
    findings.extend(central(settings));
    findings
}

fn central(settings: &Settings) -> Vec<Finding> {
    let options = match daemon::central_of(settings) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let found = "none is configured; sessions stay on this machine";
            return vec![Finding::good("central", found)];
        }
        Err(error) => return vec![Finding::wrong("central", error.message, error.hint)],
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let central = runtime.block_on(checkup(&options, &clock::system()));
            addresses::filter(&options).into_iter().chain(central).collect()
        }
        Err(error) => {
            vec![Finding::wrong("central", format!("it cannot be asked: {error}"), "look at this user's limits")]
        }
    }
}
