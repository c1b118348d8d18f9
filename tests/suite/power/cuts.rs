//! Acknowledged writes survive power cuts under load.

use std::time::Duration;

use rustix::process::Signal;

use super::{damaged, host_id, pass};
use testkit::daemon::Host;
use testkit::load::Load;
use testkit::random::Random;
use testkit::volume::{Kind, Volume};
use testkit::{campaign, eventually};

/// After so many cuts a new store is begun: a list of thousands of sessions takes its time.
const CUTS_OF_A_STORE: u64 = 50;

fn host_on(volume: &Volume, folder: &str) -> Host {
    Host::new("odin3").keeping_state_in(volume.path().join(folder))
}

/// Cuts the power under load, and starts the daemon again. For as long as it `lingers` on the dead disk nothing
/// may be acknowledged.
fn cut(volume: &Volume, host: &mut Host, load: &Load, lingers: Duration, before: impl FnOnce(&Host)) {
    load.during(host, || {
        before(host);
        load.disk_fails(|| volume.cut());
        std::thread::sleep(lingers);
    });
    host.kill();
    volume.restore();
    host.start();
}

/// What happens before a cut.
type Before = fn(&Host, &Load, &mut Random);

fn nothing_acknowledged_is_lost(test: &str, kind: Kind, cuts: u64, before: Before) {
    let Some(volume) = Volume::for_test(test, kind) else { return };
    let mut random = Random::from_clock(test);
    let mut acknowledged = 0;
    for store in 0..cuts.div_ceil(CUTS_OF_A_STORE) {
        let (mut host, load) = (host_on(&volume, &format!("state{store}")).started(), Load::fast());
        let identity = host_id(&host);
        for cut_number in 0..CUTS_OF_A_STORE.min(cuts - store * CUTS_OF_A_STORE) {
            let lingers = Duration::from_micros(random.below(10_000));
            cut(&volume, &mut host, &load, lingers, |host| before(host, &load, &mut random));
            assert_eq!(load.violations(&host), [""; 0], "after cut {cut_number} of store {store}");
            assert_eq!(host_id(&host), identity);
        }
        acknowledged += load.acknowledged();
        host.kill();
        std::fs::remove_dir_all(host.state_dir()).expect("a state folder");
    }
    assert!(acknowledged > cuts, "only {acknowledged} writes were acknowledged in {cuts} cuts");
    println!("{test}: {cuts} cuts, {acknowledged} acknowledged writes, none lost");
}

/// Mostly soon after the start, now and then late enough for the log to have been folded in.
fn under_load(_: &Host, load: &Load, random: &mut Random) {
    let at_most = if random.below(10) == 0 { 600 } else { 60 };
    acknowledges(load, random.below(at_most));
    pass(random, Duration::from_millis(2));
}

/// While the daemon ends in order and folds its log into the database.
fn while_stopping(host: &Host, load: &Load, random: &mut Random) {
    acknowledges(load, random.below(40));
    host.signal(Signal::TERM);
    pass(random, Duration::from_millis(15));
}

/// Waits until so many more writes are acknowledged.
fn acknowledges(load: &Load, more: u64) {
    let goal = load.acknowledged() + more;
    let reached = || (load.acknowledged() >= goal).then_some(());
    eventually("the daemon acknowledges", Duration::from_secs(20), reached);
}

#[test]
fn acknowledged_writes_survive_power_cuts_on_ext4() {
    nothing_acknowledged_is_lost(
        "power::acknowledged_writes_survive_power_cuts_on_ext4",
        Kind::Ext4,
        campaign(75, 2000),
        under_load,
    );
}

#[test]
fn acknowledged_writes_survive_power_cuts_on_xfs() {
    nothing_acknowledged_is_lost(
        "power::acknowledged_writes_survive_power_cuts_on_xfs",
        Kind::Xfs,
        campaign(75, 2000),
        under_load,
    );
}

#[test]
fn shutdown_survives_power_cuts_on_ext4() {
    nothing_acknowledged_is_lost(
        "power::shutdown_survives_power_cuts_on_ext4",
        Kind::Ext4,
        campaign(20, 500),
        while_stopping,
    );
}

#[test]
fn shutdown_survives_power_cuts_on_xfs() {
    nothing_acknowledged_is_lost(
        "power::shutdown_survives_power_cuts_on_xfs",
        Kind::Xfs,
        campaign(20, 500),
        while_stopping,
    );
}

/// If these cuts cost nothing, the ones above prove nothing.
#[test]
fn normal_durability_may_lose_writes() {
    let test = "power::normal_durability_may_lose_writes";
    for kind in [Kind::Ext4, Kind::Xfs] {
        let Some(volume) = Volume::for_test(test, kind) else { continue };
        let mut host = host_on(&volume, "state");
        host.configure("[store]\ndurability = \"normal\"\n");
        host.start();
        let identity = host_id(&host);
        let cuts = campaign(8, 100);
        let mut lossy = 0;
        for _ in 0..cuts {
            let load = Load::fast();
            cut(&volume, &mut host, &load, Duration::ZERO, |_| acknowledges(&load, 50));
            lossy += u64::from(!load.violations(&host).is_empty());
            assert_eq!(host_id(&host), identity);
            assert_eq!(damaged(&host.state_dir()), [""; 0], "normal loses the newest; it never damages");
        }
        println!("{test}: {lossy} of {cuts} cuts on {kind:?} lost acknowledged writes");
        assert!(lossy * 2 > cuts, "only {lossy} of {cuts} cuts on {kind:?} lost anything");
    }
}

/// A daemon that crashed may have written and not synced. The next daemon reads and reports that, so it has to sync it.
#[test]
fn recovered_writes_are_synced_before_they_are_reported() {
    let Some(volume) = Volume::for_test("power::what_a_start_finds_is_on_the_disk", Kind::Ext4) else { return };
    let mut host = host_on(&volume, "state");
    let load = Load::fast();
    host.configure("[store]\ndurability = \"normal\"\n");
    host.start();
    load.during(&host, || acknowledges(&load, 50));
    host.kill();
    host.configure("");
    host.start();
    assert_eq!(load.violations(&host), [""; 0]);
    volume.cut();
    host.kill();
    volume.restore();
    host.start();
    assert_eq!(load.violations(&host), [""; 0]);
}
