//! A day of a fleet in which a roll-out has not ended: two hosts with the present daemon, one with a daemon of the version
//! before hosts vouched for their sessions, and clients without a daemon, on one central.
//!
//! Networks are cut, daemons are killed, and machines lose power. Meanwhile each part judges all sessions by its own rule,
//! and `judges` compares what they find with what is true.

mod earlier_daemon;
mod events;
mod judges;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use earlier_daemon::EarlierDaemon;
use judges::Tally;

use super::bugs::Bug;
use super::command::Command;
use super::host::SimHost;
use super::network::Network;
use super::setup::{HOSTS, Violation};
use crate::domain::{InstanceId, MachineName, Process, Timestamp};
use crate::store::testing::manual_store::Disk;
use crate::sync::central::Notification;
use crate::sync::fake_central::FakeCentral;
use testkit::random::Random;
use uuid::Uuid;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// The time between two steps.
const STEP: i64 = 10 * SECOND;
const DAY: i64 = 24 * HOUR;
/// The steps between two heartbeats of a session.
const HEARTBEAT_STEPS: i64 = 3;
/// The steps between two samples.
const SAMPLE_STEPS: i64 = 2;

/// The machines: first those with the present daemon, then these.
const EARLIER: usize = HOSTS;
const WITHOUT_DAEMON: usize = HOSTS + 1;
const MACHINES: usize = HOSTS + 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// The daemon was killed; its sessions go on. It is started at this time.
    DaemonDown(Timestamp),
    Off(Timestamp),
}

struct Machine {
    power: Power,
    cut_off_until: Timestamp,
    /// Since when its daemon runs and reaches central.
    in_contact_since: Option<Timestamp>,
}

/// A session as it truly is.
#[derive(Debug)]
struct TrueSession {
    machine: usize,
    id: InstanceId,
    began_at: Timestamp,
    /// None: its client sends heartbeats.
    process: Option<Process>,
    ended_at: Option<Timestamp>,
}

struct Fleet {
    random: Random,
    true_time: Arc<AtomicI64>,
    network: Network,
    hosts: Vec<SimHost>,
    earlier: EarlierDaemon,
    machines: [Machine; MACHINES],
    sessions: BTreeMap<String, TrueSession>,
    drawn: u64,
    step: i64,
    tally: Tally,
}

impl Fleet {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let true_time = Arc::new(AtomicI64::new(1_769_774_400 * SECOND));
        let central_time = true_time.clone();
        let central_now = move || Timestamp::from_micros(central_time.fetch_add(1, Ordering::Relaxed));
        let central = FakeCentral::new(Arc::new(central_now));
        // Small pages are what the other simulation is for.
        central.set_page(100);
        let mut random = Random::new(seed);
        let network = Network::new(central.clone(), Random::new(random.next()), bug);
        let disk = |i| Disk::new(&format!("mixed-{seed}-{bug:?}-{i}"));
        let mut hosts: Vec<_> =
            (0..HOSTS).map(|i| SimHost::new(i, disk(i), network.clone(), true_time.clone())).collect();
        hosts.iter_mut().for_each(SimHost::start);
        let name = MachineName::parse("before").unwrap();
        let is_overlooked = bug == Some(Bug::EarlierDaemonOverlooked);
        let earlier = EarlierDaemon::new(name, &central, Random::new(random.next()), is_overlooked);
        let now = Timestamp::from_micros(true_time.load(Ordering::Relaxed));
        let on = || Machine { power: Power::On, cut_off_until: now, in_contact_since: Some(now) };
        let mut machines = [on(), on(), on(), on()];
        // It joins a fleet whose heartbeats are not marked.
        let joins_at = now.plus(std::time::Duration::from_secs(random.below(6 * 3600)));
        machines[EARLIER].power = Power::Off(joins_at);
        let (sessions, tally) = (BTreeMap::new(), Tally::default());
        Self { random, true_time, network, hosts, earlier, machines, sessions, drawn: 0, step: 0, tally }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.true_time.load(Ordering::Relaxed))
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.step += 1;
        self.true_time.fetch_add(STEP, Ordering::Relaxed);
        for host in &self.hosts {
            host.uptime.fetch_add(STEP.unsigned_abs(), Ordering::Relaxed);
        }
        for machine in 0..MACHINES {
            self.end_faults(machine);
            self.begin_fault(machine);
            self.change_sessions(machine);
            // Not all in the same step.
            if self.step % HEARTBEAT_STEPS == machine as i64 % HEARTBEAT_STEPS {
                self.heartbeat(machine);
            }
        }
        self.delete_old_sessions();
        (0..HOSTS).for_each(|host| self.sync(host));
        if self.machines[EARLIER].power == Power::On {
            let is_cut_off = self.is_cut_off(EARLIER);
            if self.earlier.sync(self.now(), is_cut_off) {
                self.announce(self.earlier.host_id());
            }
        }
        if let Some(violation) = self.network.lock().violations.pop() {
            return Err(violation);
        }
        if self.step % SAMPLE_STEPS == 0 { self.compare_with_the_truth() } else { Ok(()) }
    }

    /// Central notifies the other daemons of a host that joined.
    fn announce(&mut self, joined: Uuid) {
        let reached: Vec<_> = (0..HOSTS).filter(|host| !self.is_cut_off(*host)).collect();
        for host in reached {
            self.hosts[host].notify(Notification::HostsJoined(vec![joined]));
        }
    }

    /// Runs the worker of a host until it waits.
    fn sync(&mut self, host: usize) {
        if self.hosts[host].waits() {
            return;
        }
        for _ in 0..400 {
            let has_progressed = self.hosts[host].sync();
            self.commit(host);
            if !has_progressed {
                return;
            }
        }
        panic!("host {host} never waits");
    }

    fn commit(&mut self, host: usize) {
        let answered = self.hosts[host].commit().map(|(_, answered)| answered).unwrap_or_default();
        for (command, at, answer) in answered {
            if let (Command::Register { process, .. }, Ok(Some(record))) = (&command, &answer) {
                self.remember(host, record.session.instance_id.clone(), at, *process);
            }
        }
    }

    fn remember(&mut self, machine: usize, id: InstanceId, began_at: Timestamp, process: Option<Process>) {
        let session = TrueSession { machine, id, began_at, process, ended_at: None };
        let known = self.sessions.insert(session.id.to_string(), session);
        assert!(known.is_none(), "the simulation draws no id twice");
    }
}

/// Runs for a time. Returns the number of comparisons.
fn run(seed: u64, bug: Option<Bug>, lasts: i64) -> Result<Tally, (Violation, Vec<String>)> {
    let mut fleet = Fleet::new(seed, bug);
    let broken = (0..lasts / STEP).find_map(|_| fleet.step().err());
    match broken {
        None => Ok(fleet.tally),
        Some(violation) => Err((violation, fleet.network.lock().log.clone())),
    }
}

#[test]
fn earlier_daemons_and_clients_beside_present_daemons_misjudge_no_session_in_a_day() {
    let chosen = super::chosen_seed();
    let is_long = std::env::var_os("SESSIOND_TEST_LONG").is_some();
    let seeds = chosen.map_or(0..if is_long { 100 } else { 1 }, |seed| seed..seed + 1);
    super::for_each_in_parallel(seeds, |seed| match run(seed, None, DAY) {
        Ok(tally) => {
            println!("seed {seed}: {tally:?}");
            assert!(tally.excused * 4 < tally.compared, "seed {seed} shows little: {tally:?}");
        }
        Err((Violation { what, .. }, log)) => {
            log.iter().rev().take(80).rev().for_each(|line| println!("{line}"));
            panic!(
                "seed {seed}: {what}\nrun it again: SESSIOND_TEST_SEED={seed} cargo test --lib simulation::mixed_fleet"
            );
        }
    });
}

#[test]
fn planted_bugs_of_a_mixed_fleet_are_caught() {
    const WITHIN: u64 = 8;
    // The earlier daemon joins within the first six.
    const LASTS: i64 = 7 * HOUR;
    for bug in Bug::OF_MIXED_FLEET {
        let caught =
            (0..WITHIN).find_map(|seed| run(seed, Some(bug), LASTS).err().map(|(violation, _)| (seed, violation)));
        let Some((seed, violation)) = caught else { panic!("{bug:?} is not caught by {WITHIN} seeds") };
        println!("{bug:?}: caught by seed {seed}: {}", violation.what);
    }
}
