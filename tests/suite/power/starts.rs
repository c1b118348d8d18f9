//! Power cuts during the first start of the daemon.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{damaged, host_id, pass};
use testkit::daemon::Host;
use testkit::load::Load;
use testkit::random::Random;
use testkit::volume::{Kind, Volume};
use testkit::{campaign, eventually};

/// The host on an empty folder that is yet to be made, and so are those above it.
fn fresh_host(volume: &Volume, number: u64) -> Host {
    Host::new("odin3").keeping_state_in(volume.path().join(format!("{number}/var/state")))
}

fn how_long_a_start_takes(volume: &Volume) -> Duration {
    let begin = Instant::now();
    _ = fresh_host(volume, u64::MAX).started();
    begin.elapsed()
}

/// The host id in the pin, if there is one: then it is whole.
fn pinned(host: &Host) -> Option<String> {
    let text = fs::read(host.state_dir().join("identity.json")).ok()?;
    let pin: Value = serde_json::from_slice(&text).expect("a pin is whole or not there");
    Some(pin["host_id"].as_str().expect("a pin has a host id").to_owned())
}

fn answered_by(load: &Load) -> Option<()> {
    (load.acknowledged() > 0).then_some(())
}

/// Waits for a file, and does nothing else, since the moments to cut are few.
fn made(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} was never made", path.display());
        std::thread::yield_now();
    }
}

fn the_next_start_works(test: &str, kind: Kind) {
    let Some(volume) = Volume::for_test(test, kind) else { return };
    let mut random = Random::from_clock(test);
    let cuts = campaign(30, 1000);
    let at_most = how_long_a_start_takes(&volume) * 3 / 2;
    let (mut without_identity, mut answered) = (0, 0);
    for number in 0..cuts {
        let mut host = fresh_host(&volume, number);
        host.launch();
        let load = Load::fast();
        load.during(&host, || {
            match number % 3 {
                0 => made(&host.state_dir().join("lock")),
                1 => eventually("it answers", Duration::from_secs(20), || answered_by(&load)),
                _ => pass(&mut random, at_most),
            }
            pass(&mut random, Duration::from_millis(3));
            load.disk_fails(|| volume.cut());
        });
        host.kill();
        volume.restore();

        let promised = answered_by(&load).is_some();
        let pin = pinned(&host);
        assert!(pin.is_some() || !promised, "a daemon answered whose identity was not on the disk");
        without_identity += u64::from(pin.is_none());
        answered += u64::from(promised);
        host.start();
        assert!(pin.is_none_or(|pin| pin == host_id(&host)), "the identity is another one");
        assert_eq!(load.violations(&host), [""; 0]);
        assert_eq!(damaged(&host.state_dir()), [""; 0]);
        host.kill();
        fs::remove_dir_all(volume.path().join(number.to_string())).expect("the folder can be removed");
    }
    println!("{test}: {cuts} cuts, {without_identity} before there was an identity, {answered} after the first answer");
}

#[test]
fn first_start_survives_power_cuts_on_ext4() {
    the_next_start_works("power::first_start_survives_power_cuts_on_ext4", Kind::Ext4);
}

#[test]
fn first_start_survives_power_cuts_on_xfs() {
    the_next_start_works("power::first_start_survives_power_cuts_on_xfs", Kind::Xfs);
}
