//! The power fails while the daemon starts for the first time.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{damaged, host_id, pass};
use crate::support::campaign;
use crate::support::daemon::Host;
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::volume::{Kind, Volume};

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

fn the_next_start_works(test: &str, kind: Kind) {
    let Some(volume) = Volume::for_test(test, kind) else { return };
    let mut random = Random::from_clock(test);
    let cuts = campaign(25, 1000);
    let at_most = how_long_a_start_takes(&volume) * 3 / 2;
    let (mut without_identity, mut answered) = (0, 0);
    for number in 0..cuts {
        let mut host = fresh_host(&volume, number);
        host.launch();
        let load = Load::default();
        load.during(&host, || {
            pass(&mut random, at_most);
            load.fails(|| volume.cut());
        });
        host.kill();
        volume.restore();

        let promised = load.acknowledged.load(Ordering::Relaxed) > 0;
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
    assert!(without_identity > 0 && answered > 0, "the cuts do not cover the start: see above");
}

#[test]
fn a_first_start_on_ext4() {
    the_next_start_works("power::a_first_start_on_ext4", Kind::Ext4);
}

#[test]
fn a_first_start_on_xfs() {
    the_next_start_works("power::a_first_start_on_xfs", Kind::Xfs);
}
