//! Stampedes in virtual time: the schedulers of a thousand hosts against a central with two processors, which serves one
//! call after the other. Modelled is what the calls cost central, not what they do: the driver and the store have
//! simulations and tests of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use testkit::random::Random;

use super::setup::{INTERVALS, Violation};
use crate::sync::pacing::{Fleet, ReadingShare};
use crate::sync::scheduler::{BATCH_ROWS, FailureKind, Remaining, Scheduler, SyncAction, Tick, Unsynced};

/// A bug that is planted, and has to be detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// Hosts do not know how many they are, so that all reconnect at once.
    ReconnectAtOnce,
    /// New hosts read everything without slots and without pauses.
    AllReadEverything,
}

const HOSTS: u32 = 1000;
const PROCESSORS: usize = 2;

/// How long a host waits for an answer that central is too far away, or down, to give.
const REFUSED: Duration = Duration::from_millis(1);

/// The longest that a call may wait for a processor.
const LONGEST_QUEUE: Duration = Duration::from_secs(2);

/// So many pages are everything.
const PAGES: u32 = 50;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What an action costs central. A page of everything is a thousand sessions.
fn cost(action: SyncAction) -> Duration {
    match action {
        SyncAction::Handshake => millis(12),
        SyncAction::Push { .. } => millis(3),
        SyncAction::ReadHosts | SyncAction::Pull => millis(2),
        SyncAction::Listen => millis(5),
        SyncAction::ReadAll => millis(15),
        SyncAction::Sweep | SyncAction::CheckTables => millis(1),
        SyncAction::Refresh | SyncAction::Wait { .. } => Duration::ZERO,
    }
}

/// Serves calls in the order in which they arrive.
#[derive(Default)]
struct Central {
    is_down: bool,
    /// How often it was started: connections to an earlier one are broken.
    starts: u32,
    free_at: [Tick; PROCESSORS],
    /// How long its processors worked in each second.
    busy: BTreeMap<u64, Duration>,
    longest_queue: Duration,
}

impl Central {
    /// Returns when a call that arrives now is answered.
    fn serve(&mut self, now: Tick, cost: Duration) -> Tick {
        let processor = if self.free_at[0] <= self.free_at[1] { 0 } else { 1 };
        let began = self.free_at[processor].max(now);
        self.longest_queue = self.longest_queue.max(began - now);
        self.free_at[processor] = began + cost;
        *self.busy.entry(began.as_secs()).or_default() += cost;
        began + cost
    }

    /// The share of the processors' time that was worked in the ten seconds in which it was most.
    fn busiest_ten_seconds(&self) -> f64 {
        let worked = |from: u64| self.busy.range(from..from + 10).map(|(_, busy)| busy.as_secs_f64()).sum::<f64>();
        self.busy.keys().map(|second| worked(*second) / 10.0 / PROCESSORS as f64).fold(0.0, f64::max)
    }
}

struct Host {
    scheduler: Scheduler,
    /// The action in progress, and when it began.
    busy: Option<(SyncAction, Tick)>,
    /// Which start of central it is connected to.
    connected_to: Option<u32>,
    is_listening: bool,
    /// How many pages of everything are left to read.
    pages: u32,
    has_slot: bool,
    is_back: bool,
    has_read: bool,
}

struct Fleets {
    planted: Planted,
    now: Tick,
    random: Random,
    central: Central,
    hosts: Vec<Host>,
    slots: u32,
    /// When each host has something to do next. Earlier entries of a host are ignored.
    due: BinaryHeap<Reverse<(Tick, usize)>>,
    wakes: Vec<Tick>,
}

impl Fleets {
    fn new(seed: u64, planted: Planted) -> Self {
        Self {
            planted,
            now: Tick::ZERO,
            random: Random::new(seed),
            central: Central::default(),
            hosts: Vec::new(),
            slots: 2,
            due: BinaryHeap::new(),
            wakes: Vec::new(),
        }
    }

    /// A daemon starts at `at` that lacks so many pages.
    fn start(&mut self, at: Tick, pages: u32) {
        self.hosts.push(Host {
            scheduler: Scheduler::new(INTERVALS, BATCH_ROWS),
            busy: None,
            connected_to: None,
            is_listening: false,
            pages,
            has_slot: false,
            is_back: false,
            has_read: false,
        });
        self.wakes.push(Tick::MAX);
        self.wake(self.hosts.len() - 1, at);
    }

    fn wake(&mut self, host: usize, at: Tick) {
        self.wakes[host] = at;
        self.due.push(Reverse((at, host)));
    }

    /// Lets all that is due happen up to this time.
    fn run_until(&mut self, end: Tick) {
        while let Some(Reverse((at, host))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.due.pop();
            if self.wakes[host] == at {
                self.now = at;
                self.step(host);
            }
        }
        self.now = end;
    }

    fn step(&mut self, host: usize) {
        if let Some((action, began)) = self.hosts[host].busy.take() {
            self.finish(host, action, began);
        }
        let action = self.hosts[host].scheduler.next_action(self.now, Unsynced::Nothing);
        if let SyncAction::Wait { until } = action {
            return self.wake(host, until);
        }
        self.hosts[host].busy = Some((action, self.now));
        let answered = match self.reaches_central(host, action) {
            false => self.now + REFUSED,
            true if action == SyncAction::ReadAll && !self.has_slot(host) => self.central.serve(self.now, millis(1)),
            true => self.central.serve(self.now, cost(action)),
        };
        self.wake(host, answered);
    }

    fn reaches_central(&self, host: usize, action: SyncAction) -> bool {
        let opens_connection = matches!(action, SyncAction::Handshake | SyncAction::Listen);
        let is_connected = self.hosts[host].connected_to == Some(self.central.starts);
        !self.central.is_down && (is_connected || opens_connection)
    }

    fn has_slot(&mut self, host: usize) -> bool {
        if !self.hosts[host].has_slot && (self.slots > 0 || self.planted == Planted::AllReadEverything) {
            self.slots = self.slots.saturating_sub(1);
            self.hosts[host].has_slot = true;
        }
        self.hosts[host].has_slot
    }

    /// An action that began at `began` ends.
    fn finish(&mut self, index: usize, action: SyncAction, began: Tick) {
        let (now, random) = (self.now, self.random.next());
        let fleet = match self.planted {
            Planted::ReconnectAtOnce => Fleet::of_size(1),
            _ => Fleet::of_size(self.hosts.len() as u32),
        };
        let is_reached = self.reaches_central(index, action);
        let host = &mut self.hosts[index];
        let scheduler = &mut host.scheduler;
        if !is_reached && !matches!(action, SyncAction::Refresh | SyncAction::Listen) {
            return scheduler.failed(FailureKind::Transient, now, random);
        }
        match action {
            SyncAction::Handshake => {
                host.is_back = true;
                host.connected_to = Some(self.central.starts);
                scheduler.handshake_accepted(now, random);
            }
            SyncAction::Refresh => scheduler.refreshed(true, now),
            SyncAction::Push { .. } => scheduler.pushed(Remaining::Nothing, began, now),
            SyncAction::CheckTables | SyncAction::Wait { .. } => {}
            SyncAction::ReadHosts => {
                scheduler.set_fleet(fleet);
                scheduler.hosts_read(now + INTERVALS.heartbeat_interval);
            }
            SyncAction::Pull => {
                host.has_read = true;
                scheduler.pulled(Remaining::Nothing, (began, now), 1);
                if host.pages > 0 {
                    scheduler.read_all(now);
                }
            }
            SyncAction::Listen if !is_reached => scheduler.listen_failed(now),
            SyncAction::Listen => {
                host.is_listening = true;
                scheduler.listen_succeeded(now);
            }
            SyncAction::Sweep => scheduler.swept(Remaining::Nothing, now),
            SyncAction::ReadAll if !host.has_slot => scheduler.page_read(Some(now + fleet.slot_wait(random))),
            SyncAction::ReadAll => {
                host.pages -= 1;
                let pause = match self.planted {
                    Planted::AllReadEverything => Duration::ZERO,
                    _ => ReadingShare::Slot.pause(now - began, 1),
                };
                scheduler.page_read(Some(now + pause).filter(|_| host.pages > 0));
                if host.pages == 0 {
                    host.has_slot = false;
                    self.slots += 1;
                }
            }
        }
    }

    /// Central stops, and the connections with it.
    fn stop_central(&mut self) {
        self.central.is_down = true;
        for index in 0..self.hosts.len() {
            let random = self.random.next();
            let host = &mut self.hosts[index];
            (host.is_back, host.has_read) = (false, false);
            if std::mem::take(&mut host.is_listening) {
                host.scheduler.listener_lost(self.now, random);
                // An action that is in progress fails.
                if host.busy.is_none() {
                    self.wake(index, self.now);
                }
            }
        }
    }

    fn resume_central(&mut self) {
        let starts = self.central.starts + 1;
        self.central = Central { starts, free_at: [self.now; PROCESSORS], ..Central::default() };
    }

    /// Central is not overloaded: no call waits for long, and in no ten seconds it works for more than four fifths of them.
    fn check_central(&self, what: &str) -> Result<(), Violation> {
        let (busy, queue) = (self.central.busiest_ten_seconds(), self.central.longest_queue);
        if busy <= 0.8 && queue <= LONGEST_QUEUE {
            return Ok(());
        }
        Err(Violation {
            guarantee: "G5",
            what: format!("{what}: central works {busy:.2} of the time, and calls wait {queue:?}"),
        })
    }
}

/// A thousand hosts lose central for so long.
fn outage(seed: u64, planted: Planted, length: Duration) -> Result<(), Violation> {
    let mut fleet = Fleets::new(seed, planted);
    for host in 0..HOSTS {
        fleet.start(millis(30) * host, 0);
    }
    let began = Duration::from_secs(120);
    fleet.run_until(began);
    fleet.check_central("before the outage")?;
    fleet.stop_central();
    fleet.run_until(began + length);
    fleet.resume_central();
    fleet.run_until(began + length + Duration::from_secs(60));
    let missing = fleet.hosts.iter().filter(|host| !host.is_back || !host.has_read).count();
    if missing > 0 {
        let what = format!("a minute after an outage of {length:?}, {missing} hosts have not pushed and read");
        return Err(Violation { guarantee: "G5", what });
    }
    fleet.run_until(began + length + Duration::from_secs(180));
    fleet.check_central(&format!("after an outage of {length:?}"))
}

/// Half of a thousand hosts are new and read everything.
fn roll_out(seed: u64, planted: Planted) -> Result<(), Violation> {
    let mut fleet = Fleets::new(seed, planted);
    for host in 0..HOSTS / 2 {
        fleet.start(millis(30) * host, 0);
        fleet.start(Duration::from_secs(60) + millis(60) * host, PAGES);
    }
    fleet.run_until(Duration::from_secs(300));
    fleet.check_central("in a roll-out")?;
    fleet.run_until(Duration::from_secs(3600));
    match fleet.hosts.iter().filter(|host| host.pages > 0).count() {
        0 => Ok(()),
        left => Err(Violation { guarantee: "mirror", what: format!("after an hour {left} hosts still lack pages") }),
    }
}

fn all(seed: u64, planted: Planted) -> Result<(), Violation> {
    for length in [1, 3, 20, 60, 600] {
        outage(seed, planted, Duration::from_secs(length))?;
    }
    roll_out(seed, planted)
}

#[test]
fn thousand_hosts_come_back_and_read_without_overloading_central() {
    for seed in 0..3 {
        all(seed, Planted::Nothing).unwrap_or_else(|violation| panic!("seed {seed}: {}", violation.what));
    }
}

#[test]
fn planted_stampedes_are_caught() {
    for planted in [Planted::ReconnectAtOnce, Planted::AllReadEverything] {
        let caught = all(0, planted).expect_err("it is caught");
        println!("{planted:?}: {}", caught.what);
    }
}
