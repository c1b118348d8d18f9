//! What happens to the machines of a mixed fleet and to their sessions.

use std::time::Duration;

use super::*;
use crate::domain::{Heartbeat, InstanceType, Project, Session, Status};
use crate::simulation::network::LinkQuality;

/// The sessions that a machine has at once.
const MOST_SESSIONS: usize = 3;

impl Fleet {
    fn log_event(&self, what: &str) {
        self.network.log_event(format!("{:?}: {what}", self.now()));
    }

    /// A time in the future, by seconds.
    fn in_the_next(&mut self, least: u64, most: u64) -> Timestamp {
        let after = least + self.random.below(most - least);
        self.now().plus(Duration::from_secs(after))
    }

    /// True once in so many steps.
    fn happens_once_in(&mut self, minutes: i64) -> bool {
        self.random.below((minutes * MINUTE / STEP).unsigned_abs()) == 0
    }

    pub(super) fn is_cut_off(&self, machine: usize) -> bool {
        self.now() < self.machines[machine].cut_off_until
    }

    pub(super) fn end_faults(&mut self, machine: usize) {
        let now = self.now();
        match self.machines[machine].power {
            Power::DaemonDown(until) | Power::Off(until) if until <= now => {
                self.machines[machine].power = Power::On;
                self.log_event(&format!("the daemon of machine {machine} is started"));
                self.start_daemon(machine);
            }
            _ => {}
        }
        let quality = if self.is_cut_off(machine) { LinkQuality::Down } else { LinkQuality::Reliable };
        if machine < HOSTS {
            self.network.lock().quality[machine] = quality;
        }
        let state = &mut self.machines[machine];
        if state.power != Power::On || quality == LinkQuality::Down {
            state.in_contact_since = None;
        } else if state.in_contact_since.is_none() {
            state.in_contact_since = Some(now);
        }
    }

    fn start_daemon(&mut self, machine: usize) {
        match machine {
            EARLIER => self.earlier.restart(),
            WITHOUT_DAEMON => return,
            host => self.hosts[host].start(),
        }
        self.heartbeat(machine);
    }

    pub(super) fn begin_fault(&mut self, machine: usize) {
        if self.machines[machine].power != Power::On {
            return;
        }
        if !self.is_cut_off(machine) && self.happens_once_in(180) {
            let until = if self.random.below(3) == 0 { self.in_the_next(5, 60) } else { self.in_the_next(60, 1200) };
            self.log_event(&format!("machine {machine} is cut off until {until:?}"));
            self.machines[machine].cut_off_until = until;
        }
        if machine != WITHOUT_DAEMON && self.happens_once_in(240) {
            let until = if self.random.below(3) > 0 { self.in_the_next(1, 60) } else { self.in_the_next(60, 900) };
            self.log_event(&format!("the daemon of machine {machine} is killed until {until:?}"));
            self.machines[machine].power = Power::DaemonDown(until);
        } else if self.happens_once_in(480) {
            let until = self.in_the_next(60, 1800);
            self.log_event(&format!("machine {machine} loses power until {until:?}"));
            self.machines[machine].power = Power::Off(until);
            let now = self.now();
            let sessions = self.sessions.values_mut().filter(|session| session.machine == machine);
            sessions.for_each(|session| session.ended_at = session.ended_at.or(Some(now)));
        }
        if let (Some(host), false) = (self.hosts.get_mut(machine), self.machines[machine].power == Power::On) {
            host.daemon = None;
        }
    }

    fn live(&self, machine: usize) -> Vec<(String, Option<Process>)> {
        let live = self.sessions.iter().filter(|(_, s)| s.machine == machine && s.ended_at.is_none());
        live.map(|(id, session)| (id.clone(), session.process)).collect()
    }

    pub(super) fn change_sessions(&mut self, machine: usize) {
        if matches!(self.machines[machine].power, Power::Off(_)) {
            return;
        }
        let live = self.live(machine);
        if live.len() < MOST_SESSIONS && self.machines[machine].power == Power::On && self.happens_once_in(10) {
            self.begin_session(machine);
        }
        if !live.is_empty() && self.happens_once_in(90) {
            let (id, process) = live[self.random.below(live.len() as u64) as usize].clone();
            self.end_session(machine, &id, process);
        }
    }

    fn begin_session(&mut self, machine: usize) {
        self.drawn += 1;
        let (seed, now) = (self.drawn * 8, self.now());
        let process = Process { pid: self.drawn as i32, started: 1 };
        let process = (machine == EARLIER || self.random.below(2) == 0).then_some(process);
        if let Some(host) = self.hosts.get_mut(machine) {
            host.processes.extend(process.map(|process| process.pid));
            let machine_name = host.name();
            host.submit(Command::Register { epic: None, process, machine: machine_name, seed });
            return self.commit(machine);
        }
        // Clients without a daemon also register sessions of machines that have one.
        let names: &[&str] = if machine == EARLIER { &["before"] } else { &["odin9", "odin3", "before"] };
        let name = names[self.random.below(names.len() as u64) as usize];
        if machine == WITHOUT_DAEMON && self.is_cut_off(machine) {
            return;
        }
        let id = InstanceId::generate(&Project::parse("odin").unwrap(), InstanceType::Ms, seed);
        let session = session(id.clone(), name, now);
        match machine {
            EARLIER => self.earlier.register(session),
            _ => self.network.central.put(&session),
        }
        self.remember(machine, id, now, process);
    }

    /// Its process ends, or its client falls silent; or its client closes it.
    fn end_session(&mut self, machine: usize, id: &str, process: Option<Process>) {
        let now = self.now();
        let is_closed = self.random.below(3) == 0 && self.machines[machine].in_contact_since.is_some();
        self.log_event(&format!("session {id} of machine {machine} ends; closed: {is_closed}"));
        let ended = self.sessions.get_mut(id).expect("a session to end");
        ended.ended_at = Some(now);
        let (key, instance_id) = (ended.began_at, ended.id.clone());
        match (machine, process) {
            (EARLIER, _) if is_closed => self.earlier.close(id, now),
            (EARLIER, _) if self.machines[machine].power == Power::On => self.earlier.process_ended(id),
            (WITHOUT_DAEMON, _) if is_closed => self.network.central.close(id),
            (EARLIER | WITHOUT_DAEMON, _) => {}
            (host, process) => {
                self.hosts[host].processes.retain(|pid| process.is_none_or(|ended| ended.pid != *pid));
                if is_closed {
                    self.hosts[host].submit(Command::Close { key, id: instance_id });
                } else if let Some(process) = process {
                    self.hosts[host].submit(Command::Died { key, id: instance_id, process });
                }
                self.commit(host);
            }
        }
    }

    /// The daemon checks its processes, and clients send their heartbeats.
    pub(super) fn heartbeat(&mut self, machine: usize) {
        let (now, live) = (self.now(), self.live(machine));
        match machine {
            _ if self.machines[machine].power != Power::On => {}
            WITHOUT_DAEMON if self.is_cut_off(machine) => {}
            WITHOUT_DAEMON => {
                for (id, _) in live {
                    let percent = self.random.below(101) as u8;
                    self.network.central.edit(&id, |session| {
                        (session.status, session.last_heartbeat, session.context_percent) =
                            (Status::Active, now, percent);
                    });
                }
            }
            EARLIER => {
                for id in self.earlier.open_sessions() {
                    if !live.iter().any(|(live, _)| *live == id) {
                        self.earlier.process_ended(&id);
                    }
                }
                live.iter().for_each(|(id, _)| self.earlier.seen_alive(id, now));
            }
            host => self.check_processes(host, &live),
        }
    }

    fn check_processes(&mut self, host: usize, live: &[(String, Option<Process>)]) {
        let mut alive = Vec::new();
        for (id, session) in self.sessions.iter().filter(|(_, session)| session.machine == host) {
            let is_live = live.iter().any(|(live, _)| live == id);
            let (key, id) = (session.began_at, session.id.clone());
            match session.process {
                Some(_) if is_live => alive.push((key, id)),
                Some(process) => self.hosts[host].submit(Command::Died { key, id, process }),
                // Mostly a heartbeat that says nothing new.
                None if is_live => {
                    let percent = (self.random.below(5) == 0).then(|| self.random.below(101) as u8);
                    let beat = Heartbeat { context_percent: percent, ..Heartbeat::default() };
                    self.hosts[host].submit(Command::Heartbeat { key, id, beat });
                }
                None => {}
            }
        }
        self.hosts[host].submit(Command::SeenAlive { sessions: alive });
        self.commit(host);
        self.hosts[host].submit(Command::Sweep);
        self.commit(host);
    }

    /// Once an hour an operator deletes what ended long ago, so that a day's sessions do not slow down the simulation.
    pub(super) fn delete_old_sessions(&mut self) {
        if self.step % (HOUR / STEP) != 0 {
            return;
        }
        // No host was away for so long that it has not read them.
        self.network.central.forget_deletions();
        let before = self.now().minus(Duration::from_secs(1800));
        let is_old = |session: &TrueSession| session.ended_at.is_some_and(|ended| ended < before);
        let old: Vec<_> = self.sessions.iter().filter(|(_, s)| is_old(s)).map(|(id, _)| id.clone()).collect();
        for id in old {
            self.sessions.remove(&id);
            self.network.central.delete(&id);
        }
    }
}

fn session(instance_id: InstanceId, machine: &str, at: Timestamp) -> Session {
    Session {
        instance_id,
        project: Project::parse("odin").unwrap(),
        instance_type: InstanceType::Ms,
        status: Status::Active,
        context_percent: 0,
        current_epic: None,
        last_heartbeat: at,
        created_at: at,
        closed_at: None,
        host_machine: MachineName::parse(machine).unwrap(),
        claude_session_uuid: None,
        claude_session_path: None,
        resumed_from: None,
        working_dir: None,
    }
}
