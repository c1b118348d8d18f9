//! The real daemon, the real client, a real Postgres.

mod bad_input;
mod clients;
mod collisions;
mod crashes;
mod history;
mod identity;
mod life;
mod limits;
mod merging;
mod metrics;
mod mirror;
mod outage;
mod partitions;
mod processes;
mod readme;
mod records;
mod retries;
mod scope;
mod work;

use testkit::daemon::Host;

/// A host that sends heartbeats each second and gives up on central soon.
fn host_in_a_hurry(machine: &str, url: &str, pull_interval: &str) -> Host {
    let host = Host::new(machine);
    host.configure(&format!(
        "[central]\nurl = \"{url}\"\nheartbeat_interval = \"1s\"\npull_interval = \"{pull_interval}\"\n\
         connect_timeout = \"2s\"\nstatement_timeout = \"2s\"\n"
    ));
    host
}
