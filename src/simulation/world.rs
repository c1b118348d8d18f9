//! Hosts, their clients, other people's clients and central: one random thing after another happens.

mod checks;
mod healing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::bugs::Bug;
use super::fake_central::{FakeCentral, Snapshot};
use super::host::{Answered, Host, MirrorCost};
use super::model::{Command, Key, Model, ODD_EVENT, State, When, violation};
use super::network::{Network, Weather};
use super::random::Random;
use super::{HOSTS, PACE, Violation, now};
use crate::domain::{
    Heartbeat, InstanceId, InstanceType, MachineName, Project, Session, Status, TableState, Timestamp,
};
use crate::store::by_hand::Disk;
use crate::store::{ColumnChanges, Process, Record, StoreError};
use crate::sync::central::{Central, Rejection};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;
const KEEP_CLOSED: Duration = Duration::from_secs(3600);

/// The most calls of central in a burst, and in each second after it.
const BURST: u64 = 150;
const CALLS_A_SECOND: u64 = 3;

struct Backup {
    tables: Snapshot,
    strangers: BTreeMap<String, Session>,
    rivals: BTreeMap<String, Uuid>,
}

pub struct World {
    random: Random,
    true_time: Arc<AtomicI64>,
    network: Network,
    hosts: Vec<Host>,
    model: Model,
    /// The rows of clients that have no daemon.
    strangers: BTreeMap<String, Session>,
    /// Central's rows when they were last looked at.
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
    pub fn new(seed: u64, name: &str, bug: Option<Bug>) -> Self {
        let true_time = Arc::new(AtomicI64::new(1_769_774_400 * SECOND));
        let central_time = true_time.clone();
        // Central's clock never shows one time twice: of two changes from the future, both cut to it, one is later.
        let central_now = move || Timestamp::from_micros(central_time.fetch_add(1, Ordering::Relaxed));
        let central = FakeCentral::new(Arc::new(central_now));
        let mut random = Random::new(seed);
        let network = Network::new(central, Random::new(random.next()), bug);
        let host = |i| Host::new(i, Disk::new(&format!("{name}-{i}")), network.clone(), true_time.clone());
        let mut world = Self {
            hosts: (0..HOSTS).map(host).collect(),
            random,
            true_time,
            network,
            model: Model::default(),
            strangers: BTreeMap::new(),
            rows: BTreeMap::new(),
            backups: Vec::new(),
            restored: false,
            copied: false,
            rejected: Vec::new(),
            read_only: false,
            drawn: 0,
            nudges: [0; HOSTS],
        };
        world.network.central.reject(ODD_EVENT);
        world.hosts.iter_mut().for_each(Host::start);
        world
    }

    /// All that happened, in words: the same for the same seed, if anything is.
    pub fn log(&self) -> Vec<String> {
        self.network.lock().log.clone()
    }

    fn note(&self, what: String) {
        self.network.note(what);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.true_time.load(Ordering::Relaxed))
    }

    /// Time passes for all; those in `asleep` do not notice.
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

    /// One thing happens, and everything is looked at.
    pub fn step(&mut self) -> Result<(), Violation> {
        let most = if self.below(20) == 0 { 5 * MINUTE } else { SECOND };
        let passed = 1 + self.below(most as u64) as i64;
        self.pass(passed, None);
        let host = self.below(HOSTS as u64) as usize;
        match self.below(100) {
            0..29 => self.sync(host)?,
            29..31 => self.trouble_central(),
            31..41 => self.commit(host)?,
            41..45 => self.register(host),
            45..58 => self.heartbeat(host),
            58..61 => self.append(host),
            61..63 => self.close(host),
            63..69 => self.look(host)?,
            69..71 => self.process_ends(host),
            71..73 => self.suspend(host)?,
            73..75 => self.set_clock(host),
            75..77 => self.crash(host)?,
            77..78 => self.stop(host)?,
            78..83 => self.change_weather(host),
            83..85 => self.trouble_the_disk(host),
            85..87 => self.reject_or_accept(),
            87..88 => self.turn_read_only(),
            88..91 => self.back_up_or_restore()?,
            91..92 => self.take_name(host),
            92..94 => self.tell_identity(host),
            94..98 => self.foreign_client()?,
            98..99 => self.zombie()?,
            _ => self.nudge(host),
        }
        self.check_calls()
    }

    // What clients and processes do.

    fn register(&mut self, host: usize) {
        let crowd = self.model.told.values().filter(|told| told.host == host && told.is_open()).count();
        let created = self.hosts[host].now();
        if crowd >= 4 || self.model.told.contains_key(&created) {
            return;
        }
        self.drawn += 1;
        let draws = std::array::from_fn(|i| self.drawn * 8 + i as u64);
        let process = (self.below(2) == 0).then_some(Process { pid: self.drawn as i32, started: 1 });
        if let Some(process) = process {
            self.hosts[host].processes.insert(process.pid);
        }
        let epic = self.epic();
        let machine = self.hosts[host].name();
        self.submit(host, Command::Register { epic, process, machine, draws });
    }

    /// None, short, or so long that it needs room on the disk.
    fn epic(&mut self) -> Option<String> {
        match self.below(6) {
            0..2 => None,
            2..4 => Some(self.below(1000).to_string()),
            // The longest that an epic can be, or nearly.
            _ => Some("e".repeat(256 - self.random.below(8) as usize)),
        }
    }

    fn any_session(&mut self, host: usize) -> Option<(Key, InstanceId)> {
        let told: Vec<_> =
            self.model.told.iter().filter(|(_, t)| t.host == host).map(|(k, t)| (*k, t.id.clone())).collect();
        self.pick(&told)
    }

    fn heartbeat(&mut self, host: usize) {
        let Some((key, id)) = self.any_session(host) else { return };
        let context_percent = Some(self.below(101) as u8);
        let current_epic = (self.below(3) == 0).then(|| self.epic());
        self.submit(host, Command::Heartbeat { key, id, beat: Heartbeat { context_percent, current_epic } });
    }

    fn append(&mut self, host: usize) {
        let Some((key, id)) = self.any_session(host) else { return };
        for _ in 0..1 + self.below(3) {
            self.drawn += 1;
            let odd = self.below(12) == 0;
            self.submit(host, Command::Append { key, id: id.clone(), number: self.drawn, odd });
        }
    }

    fn close(&mut self, host: usize) {
        let Some((key, id)) = self.any_session(host) else { return };
        self.submit(host, Command::Close { key, id });
    }

    fn process_ends(&mut self, host: usize) {
        let watched: Vec<_> = self.watched(host).into_iter().filter(|(_, _, p)| self.hosts[host].runs(*p)).collect();
        let Some((key, id, process)) = self.pick(&watched) else { return };
        self.hosts[host].processes.remove(&process.pid);
        // Otherwise the daemon does not run, and will not see it.
        self.submit(host, Command::Died { key, id, process });
    }

    fn watched(&self, host: usize) -> Vec<(Key, InstanceId, Process)> {
        let records = self.hosts[host].records().into_iter();
        records
            .filter_map(|r| r.process.map(|process| (r.session.created_at, r.session.instance_id, process)))
            .collect()
    }

    /// The daemon looks: it speaks for those that run, buries those that do not, then judges the silent.
    fn look(&mut self, host: usize) -> Result<(), Violation> {
        if self.hosts[host].daemon.is_none() {
            return Ok(());
        }
        self.hosts[host].flush();
        self.commit(host)?;
        if self.network.has(Bug::JudgeBeforeLooking) {
            self.judge(host)?;
        }
        let mut alive = Vec::new();
        for (key, id, process) in self.watched(host) {
            if self.hosts[host].runs(process) {
                alive.push((key, id));
            } else {
                self.submit(host, Command::Died { key, id, process });
            }
        }
        self.submit(host, Command::SeenAlive { sessions: alive });
        if self.commit_all(host)? { self.judge(host) } else { Ok(()) }
    }

    fn judge(&mut self, host: usize) -> Result<(), Violation> {
        let before = self.hosts[host].now().minus(KEEP_CLOSED);
        self.submit(host, Command::Sweep);
        self.submit(host, Command::Prune { before });
        self.commit_all(host)?;
        self.check_liveness(host)
    }

    fn submit(&mut self, host: usize, command: Command) {
        self.note(format!("host {host}: {command:?}"));
        let at = self.hosts[host].now();
        let acknowledged_early = match command {
            Command::Heartbeat { .. } => {
                self.network.has(Bug::AckBeforeCommit) || self.network.has(Bug::HeartbeatsInMemory)
            }
            _ => false,
        };
        if acknowledged_early && self.hosts[host].daemon.is_some() {
            let open = match &command {
                Command::Heartbeat { key, .. } => self.model.told.get(key).is_some_and(|told| told.is_open()),
                _ => false,
            };
            if open {
                self.model.acknowledge(host, &command, When { at, true_now: self.now() }, None);
            }
            if let (true, Some(daemon)) = (self.network.has(Bug::HeartbeatsInMemory), &mut self.hosts[host].daemon) {
                return daemon.unwritten.push((command, at));
            }
        }
        self.hosts[host].submit(command);
    }

    fn commit(&mut self, host: usize) -> Result<(), Violation> {
        self.commit_all(host).map(|_| ())
    }

    /// Commits what waits, checks the answers. Says whether all succeeded.
    fn commit_all(&mut self, host: usize) -> Result<bool, Violation> {
        self.model.group_begins();
        let Some((jobs, answered)) = self.hosts[host].commit() else { return Ok(true) };
        if jobs == 0 { Ok(true) } else { self.take_in(host, answered) }
    }

    fn take_in(&mut self, host: usize, answered: Answered) -> Result<bool, Violation> {
        let mut fine = true;
        for (command, at, answer) in answered {
            if let Err(error) = &answer {
                self.note(format!("host {host}: {error}"));
            }
            let late = self.network.has(Bug::AckBeforeCommit) || self.network.has(Bug::HeartbeatsInMemory);
            if late && matches!(command, Command::Heartbeat { .. }) {
                continue;
            }
            let when = When { at, true_now: self.now() };
            match (&answer, &command) {
                (Ok(record), _) => self.model.acknowledge(host, &command, when, record.as_ref()),
                (Err(StoreError::Full(_)), Command::Register { .. }) if self.network.has(Bug::SwallowFullDisk) => {
                    let record = pretended(&command, at);
                    self.model.acknowledge(host, &command, when, Some(&record));
                }
                (Err(StoreError::Full(_)), Command::Heartbeat { .. }) if self.network.has(Bug::SwallowFullDisk) => {
                    self.model.acknowledge(host, &command, when, None);
                }
                (Err(error), _) => {
                    self.check_error(host, &command, error)?;
                    fine &= matches!(error, StoreError::Closed(_) | StoreError::NotFound(_));
                }
            }
        }
        self.check_store(host)?;
        Ok(fine)
    }

    fn check_error(&self, host: usize, command: &Command, error: &StoreError) -> Result<(), Violation> {
        let expected = match error {
            // What is left of a session that was let go of is mirrored, and closed.
            StoreError::Closed(_) => {
                matches!(command, Command::Heartbeat { .. })
                    || (self.model.pruned[host].is_some() && matches!(command, Command::Append { .. }))
            }
            StoreError::NotFound(_) | StoreError::Elsewhere { .. } => {
                self.model.pruned[host].is_some()
                    && matches!(command, Command::Heartbeat { .. } | Command::Close { .. } | Command::Append { .. })
            }
            // The disk is full, or its commit fails: whoever waits is told.
            StoreError::Full(_) | StoreError::Bug(_) | StoreError::Io(_) => true,
            _ => false,
        };
        if expected {
            return Ok(());
        }
        Err(Violation { guarantee: "G1", what: format!("host {host} answered {command:?} by {error}") })
    }

    // What happens to hosts.

    fn suspend(&mut self, host: usize) -> Result<(), Violation> {
        let long = SECOND + self.below(8 * 60 * MINUTE as u64) as i64;
        self.note(format!("host {host} sleeps for {} s", long / SECOND));
        self.pass(long, Some(host));
        self.hosts[host].nudge(false);
        self.nudges[host] += 1;
        self.look(host)
    }

    fn set_clock(&mut self, host: usize) {
        let wrong = [0, 0, DAY, -DAY, 90 * SECOND, -90 * SECOND, 10 * MINUTE, -10 * MINUTE];
        let offset = self.pick(&wrong).unwrap_or(0);
        self.note(format!("the clock of host {host} is off by {} s", offset / SECOND));
        self.hosts[host].offset.store(offset, Ordering::Relaxed);
    }

    /// Power off and on: what was not committed is gone.
    fn crash(&mut self, host: usize) -> Result<(), Violation> {
        self.note(format!("host {host} crashes"));
        self.hosts[host].daemon = None;
        self.restart(host)
    }

    fn stop(&mut self, host: usize) -> Result<(), Violation> {
        self.note(format!("host {host} is stopped"));
        self.model.group_begins();
        let answered = self.hosts[host].stop();
        self.hosts[host].start();
        self.take_in(host, answered)?;
        self.check_central()
    }

    fn restart(&mut self, host: usize) -> Result<(), Violation> {
        self.nudges[host] += 1;
        self.hosts[host].start();
        self.check_store(host)
    }

    fn change_weather(&mut self, host: usize) {
        let weather = self.pick(&[Weather::Fair, Weather::Stormy, Weather::Stormy, Weather::Down]);
        self.note(format!("between host {host} and central: {weather:?}"));
        self.network.lock().weather[host] = weather.unwrap_or(Weather::Fair);
    }

    fn trouble_the_disk(&mut self, host: usize) {
        if self.below(4) == 0 {
            return self.submit(host, Command::FailCommit);
        }
        let full = !self.hosts[host].full;
        self.set_full(host, full);
    }

    fn set_full(&mut self, host: usize, full: bool) {
        self.note(format!("the disk of host {host} is full: {full}"));
        self.hosts[host].full = full;
        if let Some(daemon) = &self.hosts[host].daemon {
            daemon.home.hand.lock().unwrap().set_full(full);
        }
    }

    fn nudge(&mut self, host: usize) {
        match self.below(4) {
            0 => self.submit(host, Command::RetryParked),
            1 => self.submit(host, Command::DropParked),
            _ => {
                self.nudges[host] += 1;
                self.hosts[host].nudge(false);
            }
        }
    }

    /// Another host takes over the name, or a copy of the state folder comes up.
    fn take_name(&mut self, host: usize) {
        let identity = self.hosts[host].identity.lock().unwrap().clone();
        let number = Uuid::from_u128(u128::from(self.random.next()) | 1 << 100);
        let copy = self.below(3) == 0;
        let rival = crate::sync::central::Host {
            host_id: if copy { identity.host_id } else { number },
            machine: identity.name.clone(),
            claim: number,
            own_claims: vec![number],
            acked_batch: 0,
            former_host_ids: Vec::new(),
            replace: true,
            version: "rival",
            stale_after: super::STALE_AFTER,
        };
        if now(self.network.central.connect().hello(&rival)).is_ok() {
            self.note(format!("{} now is host {}", rival.machine, rival.host_id));
            self.copied |= copy;
            self.network.lock().rivals.insert(rival.machine.to_string(), number);
        }
    }

    /// A person renames the host, or tells it to take its name over.
    fn tell_identity(&mut self, host: usize) {
        let copied = self.copied;
        if self.hosts[host].daemon.is_none() {
            return;
        }
        // A rename that the store did not take is not followed by another.
        let filed = self.hosts[host].is_filed();
        if copied || !filed || self.below(2) == 0 {
            self.note(format!("host {host} is told to replace"));
            self.hosts[host].identity.lock().unwrap().replace = true;
        } else {
            self.drawn += 1;
            let name = MachineName::parse(&format!("laptop{}", self.drawn)).unwrap();
            let host_id = Uuid::from_u128(1 << 90 | u128::from(self.drawn));
            let at = self.hosts[host].now();
            self.hosts[host].identity.lock().unwrap().rename(name.clone(), host_id, at);
            self.submit(host, Command::FileUnder { name });
        }
        self.nudges[host] += 1;
        self.hosts[host].nudge(true);
    }

    // What happens in central.

    fn sync(&mut self, host: usize) -> Result<(), Violation> {
        let most = self.below(16);
        for _ in 0..most {
            if !self.hosts[host].sync() {
                break;
            }
            if self.below(3) == 0 {
                self.commit(host)?;
            }
        }
        self.check_central()
    }

    fn reject_or_accept(&mut self) {
        if let Some(id) = self.rejected.pop() {
            self.note(format!("central takes {id} again"));
            return self.network.central.accept(id.as_str());
        }
        let host = self.below(HOSTS as u64) as usize;
        let Some((_, id)) = self.any_session(host) else { return };
        self.note(format!("central rejects {id}"));
        self.network.central.reject(id.as_str());
        self.rejected.push(id);
    }

    /// A transaction locks a row and is idle, a right is revoked, a column is added; or one of that ends.
    fn trouble_central(&mut self) {
        match self.below(6) {
            0 => {
                let Some(row) = self.some_row() else { return };
                self.note(format!("{} is locked in central", row.instance_id));
                self.network.central.lock_row(row.instance_id.as_str());
            }
            1 => {
                self.note("no row is locked in central".into());
                self.network.central.unlock_rows();
            }
            2 => self.set_events(TableState::Forbidden(vec!["INSERT on event_store".into()])),
            3 => self.set_events(TableState::Usable),
            4 => self.break_sessions(Some("a column has no value (23502)")),
            _ => self.break_sessions(None),
        }
    }

    pub(super) fn set_events(&mut self, state: TableState) {
        self.note(format!("events in central: {state:?}"));
        self.network.central.with_history(|history| history.tables.events = state);
    }

    pub(super) fn break_sessions(&mut self, why: Option<&str>) {
        self.note(format!("central takes no sessions: {why:?}"));
        let rejection = why.map(|why| Rejection { code: "23502".into(), message: why.into() });
        self.network.central.break_sessions(rejection);
    }

    fn turn_read_only(&mut self) {
        self.read_only = !self.read_only;
        self.note(format!("central is read-only: {}", self.read_only));
        self.network.central.set_read_only(self.read_only);
    }

    fn back_up_or_restore(&mut self) -> Result<(), Violation> {
        if self.backups.is_empty() || (self.backups.len() < 3 && self.below(2) == 0) {
            if self.below(2) == 0 {
                self.bring_back();
                self.check_central()?;
            }
            self.note("central is backed up".into());
            let rivals = self.network.lock().rivals.clone();
            let tables = self.network.central.snapshot();
            self.backups.push(Backup { tables, strangers: self.strangers.clone(), rivals });
            return Ok(());
        }
        let which = self.below(self.backups.len() as u64) as usize;
        let Backup { tables, strangers, rivals } = self.backups.swap_remove(which);
        self.note(format!("central is restored from backup {which}"));
        self.restored = true;
        let known = self.network.central.transaction();
        match self.below(3) {
            0 => self.network.central.restore(tables),
            // Into another cluster, which numbers its transactions lower or higher.
            1 => self.network.central.restore_elsewhere(tables, 1 + self.random.below(known)),
            _ => self.network.central.restore_elsewhere(tables, known + 1000),
        }
        self.strangers = strangers;
        self.network.lock().rivals = rivals;
        self.rows.clear();
        self.model.told.values_mut().for_each(|told| told.in_central = 0);
        self.check_central()
    }

    /// A client without a daemon writes where it can.
    fn foreign_client(&mut self) -> Result<(), Violation> {
        match self.below(6) {
            0 => self.collide(),
            1 => self.close_elsewhere(),
            2 => self.bring_back(),
            3 => self.network.central.hold_a_transaction(self.random.below(2) == 0),
            _ => self.edit_elsewhere(),
        }
        self.check_central()
    }

    fn collide(&mut self) {
        let rows = &self.rows;
        let free = self.model.told.values().filter(|t| !rows.contains_key(t.id.as_str())).map(|t| t.id.clone());
        let free = free.collect::<Vec<_>>();
        let Some(id) = self.pick(&free).filter(|id| !self.rows.contains_key(id.as_str())) else { return };
        self.note(format!("a client without a daemon is {id} too"));
        let stranger = Session { created_at: self.now().plus(Duration::from_micros(1)), ..plain(id, self.now()) };
        self.network.central.put(&stranger);
        self.strangers.insert(stranger.instance_id.to_string(), stranger);
    }

    /// A client deletes its session, and brings it back.
    fn bring_back(&mut self) {
        let strangers: Vec<_> = self.strangers.values().cloned().collect();
        let stranger = self.pick(&strangers).unwrap_or_else(|| {
            self.drawn += 1;
            let id = InstanceId::parse(&format!("odin-PS-w{:05}", self.drawn)).unwrap();
            plain(id, self.now())
        });
        self.strangers.insert(stranger.instance_id.to_string(), stranger.clone());
        self.network.central.put(&stranger);
        self.note(format!("{} is deleted and brought back", stranger.instance_id));
        self.network.central.delete(stranger.instance_id.as_str());
        self.network.central.put(&stranger);
    }

    fn some_row(&mut self) -> Option<Session> {
        let ours: Vec<_> =
            self.rows.values().filter(|r| !self.strangers.contains_key(r.instance_id.as_str())).collect();
        let index = self.random.below(ours.len() as u64) as usize;
        ours.get(index).map(|row| (*row).clone())
    }

    fn close_elsewhere(&mut self) {
        let Some(row) = self.some_row().filter(|row| row.status != Status::Closed) else { return };
        self.note(format!("{} is closed in central", row.instance_id));
        self.network.central.close(row.instance_id.as_str());
        let is_it = |other: &Session| other.instance_id == row.instance_id;
        let Some(closed_at) = self.network.central.rows().into_iter().find(is_it).and_then(|row| row.closed_at) else {
            return;
        };
        if let Some(told) = self.model.told.get_mut(&row.created_at) {
            told.closed_elsewhere.insert(closed_at);
        }
    }

    /// Another client sends a heartbeat to central, or changes one column there.
    fn edit_elsewhere(&mut self) {
        let Some(row) = self.some_row().filter(|row| row.status != Status::Closed) else { return };
        let mut edited = row.clone();
        match self.below(3) {
            0 => {
                let ahead = if self.below(4) == 0 { 60 * MINUTE } else { 0 };
                let at = self.now().plus(Duration::from_micros(ahead as u64));
                edited.last_heartbeat = at.max(row.last_heartbeat);
                edited.context_percent = self.below(101) as u8;
                edited.status = Status::Active;
            }
            1 => edited.context_percent = self.below(101) as u8,
            _ => edited.current_epic = Some(format!("theirs-{}", self.below(1000))),
        }
        self.note(format!("another client makes {row:?} {edited:?}"));
        self.network.central.edit(row.instance_id.as_str(), |session| session.clone_from(&edited));
        let at = self.now();
        if let Some(told) = self.model.told.get_mut(&row.created_at) {
            told.edited(&row, &edited, at);
        }
    }

    fn zombie(&mut self) -> Result<(), Violation> {
        self.network.deliver_a_zombie();
        self.check_central()
    }

    // What must be true.
}

fn backlog(host: &Host) -> u64 {
    let backlog = host.daemon.as_ref().map(|daemon| daemon.home.hand.lock().unwrap().backlog().unwrap());
    backlog.map_or(0, |backlog| backlog.sessions + backlog.records)
}

/// What a daemon that swallows errors tells its client.
fn pretended(command: &Command, at: Timestamp) -> Record {
    let Command::Register { draws, process, .. } = command else { unreachable!("only registrations") };
    let id = InstanceId::draw(&Project::parse("odin").unwrap(), InstanceType::Ps, draws[0]);
    Record {
        session: plain(id, at),
        owner_uid: 1000,
        process: *process,
        version: 1,
        synced_version: 0,
        columns: ColumnChanges::begun(at),
        unsynced_since: None,
        mirrored: false,
        machine_seen: None,
        former_id: None,
        checkpoint_due: false,
    }
}

/// A session of a client without a daemon.
fn plain(instance_id: InstanceId, at: Timestamp) -> Session {
    Session {
        instance_id,
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ps,
        status: Status::Active,
        context_percent: 50,
        current_epic: None,
        last_heartbeat: at,
        created_at: at,
        closed_at: None,
        host_machine: MachineName::parse("odin9").unwrap(),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}
