//! What clients and processes do, and the check of each answer.

use super::central::foreign_session;
use super::*;
use crate::domain::activity::{ActivityEvent, ActivitySource, ActivityState, Actor};
use crate::simulation::command::Command;

impl World {
    pub(super) fn register(&mut self, host: usize) {
        let crowd = self.model.sessions.values().filter(|expected| expected.host == host && expected.is_open()).count();
        let created = self.hosts[host].now();
        if crowd >= 4 || self.model.sessions.contains_key(&created) {
            return;
        }
        self.drawn += 1;
        let seed = self.drawn * 8;
        let process = (self.below(2) == 0).then_some(Process { pid: self.drawn as i32, started: 1 });
        if let Some(process) = process {
            self.hosts[host].processes.insert(process.pid);
        }
        let epic = self.epic();
        let machine = self.hosts[host].name();
        self.submit(host, Command::Register { epic, process, machine, seed });
    }

    /// `None`, short, or so long that it needs space on the disk.
    pub(super) fn epic(&mut self) -> Option<String> {
        match self.below(6) {
            0..2 => None,
            2..4 => Some(self.below(1000).to_string()),
            // As long as an epic can be, or nearly.
            _ => Some("e".repeat(256 - self.random.below(8) as usize)),
        }
    }

    pub(super) fn any_session(&mut self, host: usize) -> Option<(Key, InstanceId)> {
        let expected: Vec<_> =
            self.model.sessions.iter().filter(|(_, t)| t.host == host).map(|(k, t)| (*k, t.id.clone())).collect();
        self.pick(&expected)
    }

    pub(super) fn heartbeat(&mut self, host: usize) {
        let Some((key, id)) = self.any_session(host) else { return };
        let context_percent = Some(self.below(101) as u8);
        let current_epic = (self.below(3) == 0).then(|| self.epic());
        let activity = (self.below(4) == 0).then(|| self.activity(host));
        let beat = Heartbeat { context_percent, current_epic, activity };
        self.submit(host, Command::Heartbeat { key, id, beat });
    }

    fn activity(&mut self, host: usize) -> ActivityEvent {
        let states = [ActivityState::Working, ActivityState::Idle, ActivityState::Failed];
        ActivityEvent {
            state: states[self.below(3) as usize],
            waiting_for: None,
            detail: None,
            at: self.hosts[host].now(),
            source: ActivitySource::Api,
            actor: Actor::Main,
            in_background: false,
            permission: None,
        }
    }

    pub(super) fn work(&mut self, host: usize) {
        let Some((_, id)) = self.any_session(host) else { return };
        self.drawn += 1;
        self.submit(host, Command::Work { id, number: self.drawn });
    }

    pub(super) fn append(&mut self, host: usize) {
        let Some((key, id)) = self.any_session(host) else { return };
        for _ in 0..1 + self.below(3) {
            self.drawn += 1;
            let odd = self.below(12) == 0;
            self.submit(host, Command::Append { key, id: id.clone(), number: self.drawn, odd });
        }
    }

    pub(super) fn close(&mut self, host: usize) {
        let Some((key, id)) = self.any_session(host) else { return };
        self.submit(host, Command::Close { key, id });
    }

    pub(super) fn process_ends(&mut self, host: usize) {
        let watched: Vec<_> = self.watched(host).into_iter().filter(|(_, _, p)| self.hosts[host].runs(*p)).collect();
        let Some((key, id, process)) = self.pick(&watched) else { return };
        self.hosts[host].processes.remove(&process.pid);
        // Without a running daemon nothing happens.
        self.submit(host, Command::Died { key, id, process });
    }

    pub(super) fn watched(&self, host: usize) -> Vec<(Key, InstanceId, Process)> {
        let records = self.hosts[host].records().into_iter();
        records
            .filter_map(|r| r.process.map(|process| (r.session.created_at, r.session.instance_id, process)))
            .collect()
    }

    /// The daemon checks its processes: it sends heartbeats for those that run, reports those that ended, then turns silent
    /// sessions stale.
    pub(super) fn check_processes(&mut self, host: usize) -> Result<(), Violation> {
        if self.hosts[host].daemon.is_none() {
            return Ok(());
        }
        self.hosts[host].flush();
        self.commit(host)?;
        if self.network.has(Bug::SweepBeforeProcessCheck) {
            self.sweep_and_prune(host)?;
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
        if self.commit_all(host)? { self.sweep_and_prune(host) } else { Ok(()) }
    }

    pub(super) fn sweep_and_prune(&mut self, host: usize) -> Result<(), Violation> {
        let before = self.hosts[host].now().minus(KEEP_CLOSED);
        self.submit(host, Command::Sweep);
        self.submit(host, Command::Prune { before });
        self.commit_all(host)?;
        self.check_liveness(host)
    }

    pub(super) fn submit(&mut self, host: usize, command: Command) {
        self.log_event(format!("host {host}: {command:?}"));
        let at = self.hosts[host].now();
        let acknowledged_early = match command {
            Command::Heartbeat { .. } => {
                self.network.has(Bug::AckBeforeCommit) || self.network.has(Bug::HeartbeatsInMemory)
            }
            _ => false,
        };
        if acknowledged_early && self.hosts[host].daemon.is_some() {
            let open = match &command {
                Command::Heartbeat { key, .. } => {
                    self.model.sessions.get(key).is_some_and(|expected| expected.is_open())
                }
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

    pub(super) fn commit(&mut self, host: usize) -> Result<(), Violation> {
        self.commit_all(host).map(|_| ())
    }

    /// Commits the waiting commands and checks the answers. Returns whether all succeeded.
    pub(super) fn commit_all(&mut self, host: usize) -> Result<bool, Violation> {
        self.model.begin_group();
        let Some((jobs, answered)) = self.hosts[host].commit() else { return Ok(true) };
        if jobs == 0 { Ok(true) } else { self.check_answers(host, answered) }
    }

    pub(super) fn check_answers(&mut self, host: usize, answered: Answered) -> Result<bool, Violation> {
        let mut fine = true;
        for (command, at, answer) in answered {
            if let Err(error) = &answer {
                self.log_event(format!("host {host}: {error}"));
            }
            let late = self.network.has(Bug::AckBeforeCommit) || self.network.has(Bug::HeartbeatsInMemory);
            if late && matches!(command, Command::Heartbeat { .. }) {
                continue;
            }
            let when = When { at, true_now: self.now() };
            match (&answer, &command) {
                (Ok(record), _) => self.model.acknowledge(host, &command, when, record.as_ref()),
                (Err(StoreError::Full(_)), Command::Register { .. }) if self.network.has(Bug::SwallowFullDisk) => {
                    let record = pretended_record(&command, at);
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

    pub(super) fn check_error(&self, host: usize, command: &Command, error: &StoreError) -> Result<(), Violation> {
        let expected = match error {
            // A pruned session remains as a mirrored, closed one.
            StoreError::Closed(_) => {
                matches!(command, Command::Heartbeat { .. } | Command::Work { .. })
                    || (self.model.pruned[host].is_some() && matches!(command, Command::Append { .. }))
            }
            StoreError::NotFound(_) | StoreError::Elsewhere { .. } => {
                self.model.pruned[host].is_some()
                    && matches!(
                        command,
                        Command::Heartbeat { .. }
                            | Command::Close { .. }
                            | Command::Append { .. }
                            | Command::Work { .. }
                    )
            }
            // The disk is full, or the commit failed.
            StoreError::Full(_) | StoreError::Bug(_) | StoreError::Io(_) => true,
            _ => false,
        };
        if expected {
            return Ok(());
        }
        Err(Violation { guarantee: "G1", what: format!("host {host} answered {command:?} by {error}") })
    }
}

/// The answer of a daemon that hides errors from its client.
fn pretended_record(command: &Command, at: Timestamp) -> Record {
    let Command::Register { seed, process, .. } = command else { unreachable!("only registrations") };
    let id = InstanceId::generate(&Project::parse("odin").unwrap(), InstanceType::Ps, *seed);
    Record {
        work: None,
        session: foreign_session(id, at),
        owner_uid: 1000,
        process: *process,
        version: 1,
        synced_version: 0,
        columns: ColumnChanges::begun(at),
        unsynced_since: None,
        mirrored: false,
        machine_seen: None,
        vouched_by: None,
        alive_as_of: None,
        read_at: None,
        former_id: None,
        checkpoint_due: false,
        conflicts: Vec::new(),
    }
}
