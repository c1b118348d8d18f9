//! Acknowledged writes survive repeated kill -9 under load.

use std::time::Duration;

use testkit::daemon::Host;
use testkit::load::Load;
use testkit::{campaign, random::Random};

#[test]
fn kill_under_load_loses_no_acknowledged_write() {
    let kills = campaign(100, 2000);
    let mut random = Random::from_clock("kill -9");
    let (mut host, load) = (Host::new("odin3").started(), Load::fast());
    for _ in 0..kills {
        let killed = load.during(&host, || {
            // The time of the kill is random.
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
            rustix::process::kill_process(host.pid(), rustix::process::Signal::KILL)
        });
        assert!(killed.is_ok(), "the daemon was gone before it was killed: {}", host.log());
        host.kill();
        host.start();
        assert_eq!(load.violations(&host), [""; 0]);
    }
    let acknowledged = load.acknowledged();
    assert!(acknowledged > kills, "only {acknowledged} writes in {kills} kills");
    println!("{kills} kills: {acknowledged} writes acknowledged, none lost");
}
