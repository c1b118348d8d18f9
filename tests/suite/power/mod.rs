//! Power cuts at any time on real file systems.

mod cuts;
mod salvage;
mod starts;

use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::daemon::Host;
use testkit::random::Random;

/// Lets a random time pass: its length is what is drawn, nothing is waited for.
fn pass(random: &mut Random, at_most: Duration) {
    std::thread::sleep(Duration::from_micros(random.below(at_most.as_micros() as u64)));
}

fn host_id(host: &Host) -> String {
    host.status()["machine"]["host_id"].as_str().expect("a host id").to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).expect("a folder").map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The quarantined files.
fn damaged(state: &Path) -> Vec<String> {
    names(state).into_iter().filter(|name| name.starts_with("sessiond.db.damaged-")).collect()
}
