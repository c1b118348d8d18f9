//! The simulated world: hosts, their clients, clients without a daemon, and central. One random event per step.
//!
//! `clients`, `hosts` and `central` hold the events, `checks` what is checked after each, and `finish` the end of a run,
//! when all faults are repaired and all hosts have to agree with central.

mod central;
mod checks;
mod clients;
mod finish;
mod hosts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::bugs::Bug;
use super::command::{Answered, Key, REJECTED_EVENT};
use super::host::{MirrorCost, SimHost};
use super::model::{Model, SessionState, When, violation};
use super::network::{LinkQuality, Network};
use super::setup::{HOSTS, INTERVALS, STALE_AFTER, Violation, now};
use crate::domain::Process;
use crate::domain::{
    Heartbeat, InstanceId, InstanceType, MachineName, Project, Session, Status, TableState, Timestamp,
};
use crate::store::testing::manual_store::Disk;
use crate::store::{ColumnChanges, Record, StoreError};
use crate::sync::central::{Central, Rejection};
use crate::sync::fake_central::{FakeCentral, Snapshot};
use testkit::random::Random;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;
const KEEP_CLOSED: Duration = Duration::from_secs(3600);

/// The limits of calls of central: in a burst, and in each second after it.
const BURST: u64 = 150;
const CALLS_A_SECOND: u64 = 3;

struct Backup {
    tables: Snapshot,
    foreign_rows: BTreeMap<String, Session>,
    rivals: BTreeMap<String, Uuid>,
}

pub(super) struct World {
    random: Random,
    true_time: Arc<AtomicI64>,
    network: Network,
    hosts: Vec<SimHost>,
    model: Model,
    /// The rows of clients that have no daemon.
    foreign_rows: BTreeMap<String, Session>,
    /// Central's rows as of the last check.
    rows: BTreeMap<String, Session>,
    backups: Vec<Backup>,
    restored: bool,
    copied: bool,
    rejected: Vec<InstanceId>,
    read_only: bool,
    drawn: u64,
    nudges: [u64; HOSTS],
}

impl World {
    pub(super) fn new(seed: u64, name: &str, bug: Option<Bug>) -> Self {
        let true_time = Arc::new(AtomicI64::new(1_769_774_400 * SECOND));
        let central_time = true_time.clone();
        // Central's clock never shows one time twice: two changes from the future are cut to different times.
        let central_now = move || Timestamp::from_micros(central_time.fetch_add(1, Ordering::Relaxed));
        let central = FakeCentral::new(Arc::new(central_now));
        let mut random = Random::new(seed);
        let network = Network::new(central, Random::new(random.next()), bug);
        let host = |i| SimHost::new(i, Disk::new(&format!("{name}-{i}")), network.clone(), true_time.clone());
        let mut world = Self {
            hosts: (0..HOSTS).map(host).collect(),
            random,
            true_time,
            network,
            model: Model::default(),
            foreign_rows: BTreeMap::new(),
            rows: BTreeMap::new(),
            backups: Vec::new(),
            restored: false,
            copied: false,
            rejected: Vec::new(),
            read_only: false,
            drawn: 0,
            nudges: [0; HOSTS],
        };
        world.network.central.reject(REJECTED_EVENT);
        // In some runs one host does not read everything ahead.
        world.hosts[1].scoped = seed % 3 == 2;
        world.hosts.iter_mut().for_each(SimHost::start);
        world
    }

    /// All events, in order: the same for the same seed.
    pub(super) fn log(&self) -> Vec<String> {
        self.network.lock().log.clone()
    }

    fn log_event(&self, what: String) {
        self.network.log_event(what);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.true_time.load(Ordering::Relaxed))
    }

    /// Advances the time. The uptime of the host `asleep` stands still.
    fn pass(&mut self, micros: i64, asleep: Option<usize>) {
        self.true_time.fetch_add(micros, Ordering::Relaxed);
        for host in self.hosts.iter().filter(|host| Some(host.index) != asleep) {
            host.uptime.fetch_add(micros.unsigned_abs(), Ordering::Relaxed);
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let index = self.below(from.len() as u64) as usize;
        from.get(index).cloned()
    }

    /// Performs one random event and checks the guarantees.
    pub(super) fn step(&mut self) -> Result<(), Violation> {
        let most = if self.below(20) == 0 { 5 * MINUTE } else { SECOND };
        let passed = 1 + self.below(most as u64) as i64;
        self.pass(passed, None);
        let host = self.below(HOSTS as u64) as usize;
        if self.hosts[1].scoped && self.below(12) == 0 {
            self.move_or_ask()?;
        }
        match self.below(100) {
            0..29 => self.sync(host)?,
            29..31 => self.change_central(),
            31..41 => self.commit(host)?,
            41..45 => self.register(host),
            45..56 => self.heartbeat(host),
            56..58 => self.work(host),
            58..61 => self.append(host),
            61..63 => self.close(host),
            63..69 => self.check_processes(host)?,
            69..71 => self.process_ends(host),
            71..73 => self.suspend(host)?,
            73..75 => self.set_clock(host),
            75..77 => self.crash(host)?,
            77..78 => self.stop(host)?,
            78..83 => self.change_link_quality(host),
            83..85 => self.change_disk(host),
            85..87 => self.reject_or_accept(),
            87..88 => self.turn_read_only(),
            88..91 => self.back_up_or_restore()?,
            91..92 => self.take_name(host),
            92..94 => self.change_identity(host),
            94..98 => self.foreign_client()?,
            98..99 => self.late_batch()?,
            _ => self.nudge(host),
        }
        self.check_vouching()?;
        self.check_calls()
    }
}
